//! What the firmware is built with: `firmware/assets`, or the files that `EQUANT_PLAN` and `EQUANT_IMAGES` name.

use equant_runtime::plan::Aligned;

include!(concat!(env!("OUT_DIR"), "/operators.rs"));

/// The plan.
pub static PLAN: &[u8] = equant_runtime::include_plan!(env!("EQUANT_PLAN_PATH"));

/// The images; see [`crate::images`].
pub static IMAGES: &[u8] = equant_runtime::include_plan!(env!("EQUANT_IMAGES_PATH"));

/// Bytes of arena that the plan needs.
pub const ARENA_LEN: usize = equant_runtime::plan::arena_len(PLAN);

/// An arena for the plan.
pub type Arena = Aligned<[u8; ARENA_LEN]>;

/// An arena of zeros.
pub const ARENA: Arena = Aligned([0; ARENA_LEN]);
