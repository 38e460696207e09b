//! The targets. Each panics only to report a broken promise.

use std::io::Write as _;

use equant::data::Samples;
use equant::graph::{DataType, Dim, Graph, ValueInfo, support};
use equant::{compile, onnx, package, passes};
use equant_runtime::plan::{AlignedBytes, Plan};
use equant_runtime::{Reason, Session};

/// Arenas above this are not run; a microcontroller would refuse them too.
const MAX_ARENA: usize = 1 << 16;
/// Bound on the multiply-accumulates of a damaged plan, so that a run takes well under a second.
const MAX_WORK: u64 = 1 << 22;

/// Validates an image and, if it is valid, runs it twice.
///
/// # Panics
///
/// If a plan that was accepted does not run, or runs differently the second time.
pub fn plan_input(bytes: &[u8]) -> String {
    let image = AlignedBytes::from(bytes);
    let plan: Plan<'_> = match Plan::parse(&image) {
        Ok(plan) => plan,
        Err(error) => return format!("refused: {:?}", error.reason),
    };
    let kinds: Vec<_> = plan.ops().map(|op| (op.kind, plan.op_name(&op).map(str::len).is_some())).collect();
    let elements: u64 = (0..plan.header().tensors)
        .filter_map(|i| plan.tensor(i))
        .map(|tensor| u64::from(tensor.elements().unwrap_or(0)))
        .sum();
    let work = elements.saturating_mul(elements).saturating_mul(kinds.len() as u64);
    if plan.arena_len() > MAX_ARENA || work > MAX_WORK {
        return format!("too large to run: {kinds:?}");
    }
    let run = |arena: &mut AlignedBytes| -> Vec<u8> {
        let mut session = Session::new(plan, arena).expect("an arena of the size asked for");
        for i in 0..plan.input_count() {
            session.input_mut(i).expect("an input of the plan").fill(0x35);
        }
        session.run().expect("an accepted plan runs");
        (0..plan.output_count()).flat_map(|i| session.output(i).expect("an output of the plan").to_vec()).collect()
    };
    let mut arena = AlignedBytes::zeroed(plan.arena_len());
    let first = run(&mut arena);
    let mut again = AlignedBytes::zeroed(plan.arena_len());
    assert_eq!(first, run(&mut again), "two runs on the same arena contents differ");
    let short = plan.arena_len().checked_sub(1).map(AlignedBytes::zeroed);
    if let Some(mut short) = short {
        let refused = Session::new(plan, &mut short).expect_err("an arena one byte short");
        assert_eq!(refused.reason, Reason::ArenaTooSmall);
    }
    format!("ran {kinds:?}")
}

/// Reads an ONNX file and takes it as far as it goes: written and read again, prepared, checked, compiled.
///
/// # Panics
///
/// If what was read does not survive being written, or a prepared graph is not stable under preparing.
pub fn onnx_input(bytes: &[u8]) -> String {
    let mut graph = match onnx::from_bytes(bytes, None, "input") {
        Ok(graph) => graph,
        Err(error) => return format!("refused: {error}"),
    };
    let written = onnx::to_bytes(&graph);
    let again = onnx::from_bytes(&written, None, "written").expect("what was written is readable");
    assert!(onnx::to_bytes(&again) == written, "writing is not stable");
    if support::is_quantized(&graph) {
        if let Err(error) = passes::prepare_quantized(&mut graph) {
            return format!("quantized, not prepared: {error}");
        }
        return match compile::compile(&graph, &compile::Options::default()) {
            Ok(compiled) => format!("compiled: {}", plan_input(&compiled.image)),
            Err(error) => format!("not compiled: {error}"),
        };
    }
    if let Err(error) = passes::prepare(&mut graph, &passes::Dims::new()) {
        return format!("not prepared: {error}");
    }
    let found = support::check(&graph);
    match found.first() {
        Some(first) => format!("{} unsupported: {first}", found.len()),
        None => format!("supported, {:?}", graph.nodes.iter().map(|node| &node.op_type).collect::<Vec<_>>()),
    }
}

/// Opens a sample file for a model with one input of 16 values, and reads it through.
///
/// # Panics
///
/// If the number of samples differs from what was announced, or a sample is not finite or has another size.
pub fn npz_input(bytes: &[u8]) -> String {
    let dims = [Dim::Symbol("N".into()), Dim::Known(1), Dim::Known(4), Dim::Known(4)];
    let graph = Graph {
        opset: 17,
        inputs: vec![ValueInfo { name: "input".into(), dtype: DataType::F32, shape: Some(dims.into()) }],
        ..Graph::default()
    };
    let suffix = if bytes.starts_with(b"\x93NUMPY") { ".npy" } else { ".npz" };
    let mut file = tempfile::Builder::new().suffix(suffix).tempfile().expect("a temporary file");
    file.write_all(bytes).expect("a writable temporary file");
    let without_path = |text: String| text.replace(&file.path().display().to_string(), "");
    let samples = match Samples::open(file.path(), &graph) {
        Ok(samples) => samples,
        Err(error) => return without_path(format!("refused: {error}")),
    };
    let batches = match samples.batches(3) {
        Ok(batches) => batches,
        Err(error) => return without_path(format!("not opened again: {error}")),
    };
    let mut count = 0;
    for batch in batches {
        match batch {
            Ok(batch) => {
                assert_eq!(batch.first, count, "batches follow each other");
                assert!((1..=3).contains(&batch.count), "a batch of {}", batch.count);
                assert_eq!(batch.inputs.iter().map(Vec::len).collect::<Vec<_>>(), [batch.count * 16]);
                assert!(batch.inputs[0].iter().all(|value| value.is_finite()), "values are finite");
                count += batch.count;
            }
            Err(error) => return without_path(format!("broke off: {error}")),
        }
    }
    assert_eq!(count, samples.len(), "as many samples as announced");
    format!("samples, labels: {}", samples.labels().is_some())
}

/// Opens bytes as a package. Where they are none, packs them first, and expects them back.
///
/// # Panics
///
/// If a package does not hold what was packed.
pub fn package_input(bytes: &[u8]) -> String {
    /// No seed unpacks to more.
    const MOST: usize = 1 << 20;
    match package::unpack(bytes, MOST) {
        Ok(original) => format!("opened: {}", original.len()),
        Err(package::Error::Magic) => {
            let packed = package::pack(bytes).expect("any bytes can be packed");
            assert_eq!(package::unpack(&packed.bytes, MOST).as_deref(), Ok(bytes), "packed and unpacked");
            let kinds: Vec<_> = packed.sections.iter().map(|packed| packed.section.kind).collect();
            format!("packed: {kinds:?}")
        }
        Err(error) => format!("refused: {error}"),
    }
}
