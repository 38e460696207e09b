//! Mutations of bytes, with knowledge of the formats.

use equant_runtime::plan::{HEADER_LEN, Header, image_checksum};

use super::{Rng, Target, protobuf};

/// Longest input made: fuzzing looks for logic, not for size.
const MAX_LEN: usize = 64 << 10;

/// A changed copy of `input`; `other` is a second input to take pieces from.
pub fn mutate(target: Target, input: &[u8], other: &[u8], rng: &mut Rng) -> Vec<u8> {
    let structured = if target == Target::Onnx && !rng.one_in(4) { protobuf::mutate(input, other, rng) } else { None };
    let mut out = structured.unwrap_or_else(|| {
        let mut bytes = input.to_vec();
        for _ in 0..=rng.below(4) {
            damage(&mut bytes, other, rng);
        }
        bytes
    });
    out.truncate(MAX_LEN);
    if target == Target::Plan && !rng.one_in(16) {
        repair(&mut out, rng);
    }
    out
}

fn damage(bytes: &mut Vec<u8>, other: &[u8], rng: &mut Rng) {
    if bytes.is_empty() {
        bytes.extend_from_slice(other);
        return;
    }
    let at = rng.below(bytes.len());
    match rng.below(10) {
        0 => bytes[at] ^= 1 << rng.below(8),
        1 => bytes[at] = rng.next_u64() as u8,
        2 if rng.one_in(4) => bytes.truncate(at),
        3 if rng.one_in(4) => {
            let end = (at + 1 + rng.below(16)).min(bytes.len());
            drop(bytes.drain(at..end));
        }
        // A number of 16, 32 or 64 bits, at its natural place.
        4..=7 => {
            let size = *rng.pick(&[2usize, 4, 4, 4, 8]);
            let at = at / size * size;
            let value = if rng.one_in(2) {
                rng.interesting()
            } else {
                let mut old = [0u8; 8];
                for (slot, &byte) in old.iter_mut().zip(&bytes[at..(at + size).min(bytes.len())]) {
                    *slot = byte;
                }
                u64::from_le_bytes(old).wrapping_add(*rng.pick(&[1, u64::MAX, 4, 16, u64::MAX - 15]))
            };
            for (slot, byte) in bytes[at..].iter_mut().zip(&value.to_le_bytes()[..size]) {
                *slot = *byte;
            }
        }
        8 if !other.is_empty() => {
            let from = rng.below(other.len());
            let piece = &other[from..(from + 1 + rng.below(64)).min(other.len())];
            let end = (at + piece.len()).min(bytes.len());
            drop(bytes.splice(at..end, piece.iter().copied()));
        }
        _ => {
            let end = (at + 1 + rng.below(32)).min(bytes.len());
            let piece = bytes[at..end].to_vec();
            let to = rng.below(bytes.len());
            let until = (to + piece.len()).min(bytes.len());
            drop(bytes.splice(to..until, piece));
        }
    }
}

/// Makes length and checksum of a plan fit again, so that damage is met by the checks of the records.
fn repair(image: &mut [u8], rng: &mut Rng) {
    let len = image.len() as u32;
    let Some(head) = image.first_chunk_mut::<HEADER_LEN>() else { return };
    let mut header = Header::from_bytes(head);
    if !rng.one_in(8) {
        header.total_len = len;
    }
    *head = header.to_bytes();
    let whole = image.get(..header.total_len as usize).unwrap_or(image);
    header.checksum = image_checksum(whole);
    if let Some(head) = image.first_chunk_mut::<HEADER_LEN>() {
        *head = header.to_bytes();
    }
}
