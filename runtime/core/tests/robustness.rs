//! Damaged plans are refused or run: nothing panics, whatever the bytes.
//!
//! Worth running in the dev profile too, where overflow in debug builds would panic.

mod support;

use equant_runtime::op::{OpKind, RepeatParams};
use equant_runtime::plan::{AlignedBytes, HEADER_LEN, Plan, image_checksum};
use equant_runtime::{Reason, Session};
use proptest::prelude::*;

/// Arenas above this are not allocated: the caller of a real device could not either.
const MAX_ARENA: usize = 1 << 20;
/// Elements of work above this are not run, for the sake of time.
const MAX_WORK: u64 = 1 << 22;

/// Upper bound of the multiply-accumulates a damaged record may ask for, from its tensors.
fn work(plan: &Plan<'_>) -> u64 {
    let tensors = (0..plan.header().tensors).filter_map(|i| plan.tensor(i));
    let elements: u64 = tensors.map(|tensor| u64::from(tensor.elements().unwrap_or(0))).sum();
    let times = plan.ops().filter_map(|op| op.params::<RepeatParams>()).map(|repeat| u64::from(repeat.times)).max();
    elements.saturating_mul(elements).saturating_mul(times.unwrap_or(1))
}

fn parse_and_run(image: &[u8]) -> bool {
    let aligned = AlignedBytes::from(image);
    let Ok(plan) = Plan::parse(&aligned) else { return false };
    if plan.arena_len() > MAX_ARENA || work(&plan) > MAX_WORK {
        return true;
    }
    let mut arena = AlignedBytes::zeroed(plan.arena_len());
    arena.fill(0x5A);
    let mut session = Session::new(plan, &mut arena).expect("an arena of the length asked for");
    // What lies in the arena may be no index; everything else runs.
    if let Err(error) = session.run() {
        assert_eq!(error.reason, Reason::IndexOutOfRange, "a plan that parses runs");
    }
    for i in 0..plan.output_count() {
        session.output(i).expect("an output inside the arena");
    }
    true
}

fn seal(image: &mut [u8]) {
    if image.len() >= HEADER_LEN {
        let checksum = image_checksum(image);
        image[12..16].copy_from_slice(&checksum.to_le_bytes());
    }
}

fn image(kind: OpKind, seed: u64, choices: Vec<u32>) -> AlignedBytes {
    support::case(kind, &mut support::Draws::new(seed, choices)).image()
}

/// One change of an image: where (as a share of its records), and what to put there.
fn change() -> impl Strategy<Value = (u32, u32, u8)> {
    let word = prop_oneof![
        0u32..20,
        any::<u32>(),
        prop::sample::select(vec![u32::MAX, i32::MAX as u32, 1 << 31, 1 << 16, 0xFFFF]),
    ];
    (any::<u32>(), word, 0u8..3)
}

/// The part of an image that holds header, tensors and operators.
fn records_len(image: &[u8]) -> usize {
    u32::from_le_bytes([image[36], image[37], image[38], image[39]]) as usize
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn changed_words_never_panic(
        kind in prop::sample::select(OpKind::ALL.to_vec()),
        seed: u64,
        choices in prop::collection::vec(any::<u32>(), 48),
        changes in prop::collection::vec(change(), 1..4),
    ) {
        let mut image = image(kind, seed, choices).to_vec();
        let records = records_len(&image);
        for (place, word, width) in changes {
            let at = place as usize % records;
            match width {
                0 => image[at] = word as u8,
                1 => {
                    let at = at & !1;
                    image[at..at + 2].copy_from_slice(&(word as u16).to_le_bytes());
                }
                _ => {
                    let at = at & !3;
                    image[at..at + 4].copy_from_slice(&word.to_le_bytes());
                }
            }
        }
        // As far as the header says, if that is inside.
        let total = u32::from_le_bytes([image[8], image[9], image[10], image[11]]) as usize;
        let end = total.clamp(HEADER_LEN, image.len());
        seal(&mut image[..end]);
        parse_and_run(&image);
    }

    #[test]
    fn flipped_bits_are_noticed(
        kind in prop::sample::select(OpKind::ALL.to_vec()),
        seed: u64,
        choices in prop::collection::vec(any::<u32>(), 48),
        place: u32,
        bit in 0u8..8,
    ) {
        let mut image = image(kind, seed, choices);
        let at = place as usize % image.len();
        image[at] ^= 1 << bit;
        prop_assert!(Plan::<'_, equant_runtime::operator::AllOperators>::parse(&image).is_err());
    }

    #[test]
    fn truncated_images_are_refused(
        kind in prop::sample::select(OpKind::ALL.to_vec()),
        seed: u64,
        choices in prop::collection::vec(any::<u32>(), 48),
        place: u32,
        reseal: bool,
    ) {
        let whole = image(kind, seed, choices);
        let len = place as usize % whole.len();
        let mut cut = whole[..len].to_vec();
        if !reseal {
            let aligned = AlignedBytes::from(&cut[..]);
            let error = Plan::<'_, equant_runtime::operator::AllOperators>::parse(&aligned).unwrap_err();
            prop_assert_eq!(error.reason, Reason::Truncated);
        } else if len >= HEADER_LEN {
            cut[8..12].copy_from_slice(&(len as u32).to_le_bytes());
            seal(&mut cut);
            parse_and_run(&cut);
        }
    }
}
