mod gradients;
#[cfg(feature = "tract")]
mod programs;
