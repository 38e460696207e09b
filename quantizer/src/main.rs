//! The `equant` command; see [`equant::cli`].

/// Results of whole batches come and go; this allocator keeps their pages instead of having them cleared each time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    equant::cli::main()
}
