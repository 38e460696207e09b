//! Tables of 256 bytes.

use core::arch::aarch64::*;

use super::VECTOR;

/// Bytes of the table that an instruction finds.
const PART: usize = 4 * VECTOR;

/// Replaces each byte `x` by entry `x + 128` of the table.
pub(in crate::kernels) fn look_up(table: &[u8; 4 * PART], bytes: &mut [u8]) {
    let (vectors, rest) = bytes.as_chunks_mut::<VECTOR>();
    // SAFETY: every core of the architecture has vectors.
    unsafe { look_up_vectors(table, vectors) };
    for byte in rest {
        *byte = table[usize::from(byte.wrapping_add(128))];
    }
}

#[target_feature(enable = "neon")]
fn look_up_vectors(table: &[u8; 4 * PART], vectors: &mut [[u8; VECTOR]]) {
    // SAFETY: the table has four parts of four vectors.
    let [a, b, c, d] = [0, 1, 2, 3].map(|part| unsafe { vld1q_u8_x4(table.as_ptr().add(part * PART)) });
    for vector in vectors {
        // SAFETY: it has 16 bytes.
        unsafe {
            let entry = vaddq_u8(vld1q_u8(vector.as_ptr()), vdupq_n_u8(128));
            // Entries beyond a part leave 0, or what was found before.
            let beyond = |parts: u8| vsubq_u8(entry, vdupq_n_u8(parts * PART as u8));
            let found = vqtbx4q_u8(vqtbl4q_u8(a, entry), b, beyond(1));
            let found = vqtbx4q_u8(vqtbx4q_u8(found, c, beyond(2)), d, beyond(3));
            vst1q_u8(vector.as_mut_ptr(), found);
        }
    }
}
