use proptest::prelude::*;

use super::*;
use crate::graph::{Attr, DataType, Graph, Node, Tensor};
use crate::{compile, onnx, passes};

const MOST: usize = 1 << 24;

fn numbers(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> 16
    }
}

/// Integers with the bell shape of weights, in −limit..=limit.
fn bell(count: usize, limit: i32, seed: u64) -> Vec<i32> {
    let mut next = numbers(seed);
    let span = 2 * limit as u64 + 1;
    let mut draw = || (0..6).map(|_| (next() % span) as i32 - limit).sum::<i32>() / 3;
    std::iter::repeat_with(|| draw().clamp(-limit, limit)).take(count).collect()
}

fn section(kind: Kind, len: usize) -> Section {
    Section { kind, len }
}

/// A QDQ model: one Gemm with 40 × 64 weights.
fn model(weights: Tensor) -> Graph {
    let info = |name: &str, size: usize| crate::graph::ValueInfo {
        name: name.into(),
        dtype: DataType::F32,
        shape: Some(vec![crate::graph::Dim::Known(1), crate::graph::Dim::Known(size)]),
    };
    let mut graph = Graph {
        name: "g".into(),
        opset: 21,
        inputs: vec![info("x", 64)],
        outputs: vec![info("y", 40)],
        nodes: vec![
            Node::new("QuantizeLinear", "q", ["x", "s", "z"], ["xq"]),
            Node::new("DequantizeLinear", "d", ["xq", "s", "z"], ["xd"]),
            Node::new("DequantizeLinear", "dw", ["w", "ws"], ["wd"]),
            Node::new("Gemm", "fc", ["xd", "wd"], ["y"]).with("transB", Attr::Int(1)),
        ],
        ..Graph::default()
    };
    graph.initializers.insert("s".into(), Tensor::from_f32(&[], &[0.02]));
    graph.initializers.insert("z".into(), Tensor::from_ints(DataType::I8, &[], &[0]));
    graph.initializers.insert("ws".into(), Tensor::from_f32(&[], &[0.01]));
    graph.initializers.insert("w".into(), weights);
    graph
}

fn bits_of(packed: &Packed, kind: Kind) -> (usize, f64, f64) {
    packed.sections.iter().filter(|p| p.section.kind == kind).fold((0, 0.0, 0.0), |(len, shannon, bits), p| {
        (len + p.section.len, shannon + p.shannon_bits, bits + p.packed_bits)
    })
}

#[test]
fn weights_of_an_onnx_file_are_found_and_take_their_entropy() {
    let weights = bell(40 * 64, 127, 1);
    let file = onnx::to_bytes(&model(Tensor::from_ints(DataType::I8, &[40, 64], &weights)));
    let packed = pack(&file).expect("packed");
    let (len, shannon, bits) = bits_of(&packed, Kind::Int8);
    assert_eq!(len, 2560);
    assert!((shannon / 2560.0 - shannon_bits(&weights)).abs() < 1e-9);
    // 2560 symbols of an alphabet of 255 have to be learnt, too.
    assert!(bits < 1.08 * shannon, "{bits} {shannon}");
    assert_eq!(unpack(&packed.bytes, MOST).as_deref(), Ok(&file[..]));
    let weights = bell(40 * 64, 7, 2);
    let file = onnx::to_bytes(&model(Tensor::from_ints(DataType::I4, &[40, 64], &weights)));
    let packed = pack(&file).expect("packed");
    let (len, shannon, bits) = bits_of(&packed, Kind::Int4);
    assert_eq!(len, 1280);
    assert!((shannon / 2560.0 - shannon_bits(&weights)).abs() < 1e-9);
    assert!(bits < 1.03 * shannon, "{bits} {shannon}");
    assert_eq!(unpack(&packed.bytes, MOST).as_deref(), Ok(&file[..]));
}

#[test]
fn a_plan_is_packed_by_its_sections() {
    let mut graph = model(Tensor::from_ints(DataType::I8, &[40, 64], &bell(40 * 64, 127, 3)));
    passes::prepare_quantized(&mut graph).expect("prepared");
    let image = compile::compile(&graph, &compile::Options::default()).expect("compiled").image;
    let packed = pack(&image).expect("packed");
    assert_eq!(bits_of(&packed, Kind::Int8).0, 2560);
    assert_eq!(packed.sections.iter().map(|p| p.section.len).sum::<usize>(), image.len());
    assert!(packed.bytes.len() < image.len() * 95 / 100);
    assert_eq!(unpack(&packed.bytes, MOST), Ok(image));
    // Weights of 4 bits are coded as such.
    let mut graph = model(Tensor::from_ints(DataType::I4, &[40, 64], &bell(40 * 64, 7, 4)));
    passes::prepare_quantized(&mut graph).expect("prepared");
    let image = compile::compile(&graph, &compile::Options::default()).expect("compiled").image;
    let packed = pack(&image).expect("packed");
    assert_eq!((bits_of(&packed, Kind::Int4).0, bits_of(&packed, Kind::Int8).0), (1280, 0));
    assert_eq!(unpack(&packed.bytes, MOST), Ok(image));
}

#[test]
fn the_estimate_is_what_the_coder_writes() {
    for (kind, limit) in [(Kind::Int8, 127), (Kind::Int4, 7), (Kind::Words, 60), (Kind::Bytes, 20)] {
        let input: Vec<u8> = bell(60_000, limit, 5).into_iter().map(|level| level as u8).collect();
        let packed = pack_as(&input, &[section(kind, input.len())]).expect("packed");
        let estimated = packed.sections[0].packed_bits / 8.0;
        let written = packed.bytes.len() as f64 - 16.0;
        assert!((written - estimated).abs() < 0.02 * estimated, "{kind:?}: {written} {estimated}");
    }
}

#[test]
fn large_tensors_come_within_a_hundredth_of_their_entropy() {
    let input: Vec<u8> = bell(100_000, 127, 7).into_iter().map(|level| level as u8).collect();
    let packed = pack_as(&input, &[section(Kind::Int8, input.len())]).expect("packed");
    let found = &packed.sections[0];
    assert!(found.packed_bits < 1.01 * found.shannon_bits, "{found:?}");
    // Independent symbols have no shorter code on average.
    assert!(found.packed_bits > 0.995 * found.shannon_bits, "{found:?}");
}

#[test]
fn every_truncation_and_every_changed_byte_is_noticed() {
    let file = onnx::to_bytes(&model(Tensor::from_ints(DataType::I8, &[40, 64], &bell(2560, 127, 9))));
    let package = pack(&file).expect("packed").bytes;
    for len in (0..package.len()).step_by(7) {
        assert!(unpack(&package[..len], MOST).is_err(), "{len}");
    }
    for at in (0..package.len()).step_by(5) {
        let mut damaged = package.clone();
        damaged[at] ^= 0x24;
        // The last word may hold bits that no decoder needs.
        assert!(unpack(&damaged, MOST).is_err() || at + 4 >= package.len(), "{at}");
    }
    let mut longer = package.clone();
    longer.extend([0; 4]);
    assert!(unpack(&longer, MOST).is_err());
}

#[test]
fn lies_are_refused_before_any_work() {
    let package = |header: &[u8]| [&MAGIC[..], header].concat();
    let of = |header: &[u8]| unpack(&package(header), MOST);
    assert_eq!(unpack(b"EQPL", MOST), Err(Error::Magic));
    assert_eq!(unpack(b"", MOST), Err(Error::Magic));
    assert_eq!(of(&[2, 0, 0, 0, 0, 0, 0]), Err(Error::Version(2)));
    let malformed: [&[u8]; 10] = [
        &[],
        &[1, 0, 0, 0],
        &[1, 0, 0, 0, 0],
        // A length, and a number that never ends.
        &[1, 0, 0, 0, 0, 5],
        &[1, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255],
        // More sections than bytes.
        &[1, 0, 0, 0, 0, 5, 200, 1],
        // Sections that do not cover the length.
        &[1, 0, 0, 0, 0, 5, 1, 16, 0],
        // A payload that is no whole number of words.
        &[1, 0, 0, 0, 0, 4, 1, 16, 1, 9],
        // Sections of 2^63 bytes.
        &[1, 0, 0, 0, 0, 4, 4, 252, 255, 255, 255, 255, 255, 255, 255, 127, 1, 1, 1, 0],
        // 200 000 bytes out of one word.
        &[1, 0, 0, 0, 0, 192, 154, 12, 1, 128, 234, 48, 1, 1, 2, 3, 4],
    ];
    for header in malformed {
        assert!(matches!(of(header), Err(Error::Malformed(_))), "{header:?}: {:?}", of(header));
    }
    let packed = pack(&[7; 1000]).expect("packed").bytes;
    assert_eq!(unpack(&packed, 999), Err(Error::TooLarge { len: 1000, most: 999 }));
    assert_eq!(unpack(&packed, 1000), Ok(vec![7; 1000]));
}

#[test]
fn the_longest_runs_stay_above_the_bound_that_guards_memory() {
    let zeros = vec![0u8; 1 << 20];
    for kind in Kind::ALL {
        let packed = pack_as(&zeros, &[section(kind, zeros.len())]).expect("packed");
        assert_eq!(unpack(&packed.bytes, MOST).as_ref(), Ok(&zeros), "{kind:?}");
        assert!(packed.bytes.len() > zeros.len() / 3000, "{}", packed.bytes.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_in_any_sections_come_back(
        parts in prop::collection::vec((0usize..4, prop::collection::vec(any::<u8>(), 0..300)), 0..6),
    ) {
        let sections: Vec<Section> = parts.iter().map(|(kind, bytes)| section(Kind::ALL[*kind], bytes.len())).collect();
        let input: Vec<u8> = parts.into_iter().flat_map(|(_, bytes)| bytes).collect();
        let packed = pack_as(&input, &sections).expect("packed");
        prop_assert_eq!(unpack(&packed.bytes, MOST), Ok(input.clone()));
        prop_assert_eq!(unpack(&pack(&input).expect("packed").bytes, MOST), Ok(input));
    }

    // Anything that is accepted is what packing would have begun with.
    #[test]
    fn any_package_is_opened_or_refused(body in prop::collection::vec(any::<u8>(), 0..200), version in 1u8..3) {
        let package = [&MAGIC[..], &[version], &body].concat();
        let _ = unpack(&package, 1 << 16);
    }

    #[test]
    fn damage_is_noticed(seed in any::<u64>(), at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let input: Vec<u8> = bell(500, 100, seed).into_iter().map(|level| level as u8).collect();
        let mut package = pack(&input).expect("packed").bytes;
        let at = at.index(package.len());
        package[at] = to;
        if let Ok(original) = unpack(&package, MOST) {
            prop_assert_eq!(original, input);
        }
    }
}
