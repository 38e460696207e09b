//! The node tests of the ONNX project: whatever the importer claims of them, it must compute, in float and as a plan.
//!
//! Each test is looked at twice: with all of its inputs as activations, and with all but the first as constants, as
//! models have them. One that [`support::check`] finds nothing wrong with is claimed. What is claimed must
//!
//! - give the expected outputs in float, after all rewrites;
//! - where its inputs are f32, be quantized with them as the only sample, compile, and run: every operator within a step of
//!   the float simulation of the file ([`each_operator`]), and the outputs near the expected ones ([`FLOOR_DB`]).
//!
//! The constant evaluator is checked with all inputs as constants.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use equant::compile::{self, Options};
use equant::data::Batch;
use equant::exec::{self, Backend};
use equant::graph::{DataType, Graph, Tensor, eval, support};
use equant::metrics::Sqnr;
use equant::observe::{Observer, Statistics};
use equant::passes::{self, Dims};
use equant::{onnx, qdq, quantize};
use equant_tests::cut::pieces;
use equant_tests::node_tests::{NodeTest, folder, folders};
use equant_tests::reference::{Reference, each_operator};

/// Least signal-to-noise ratio of a plan's output to the expected one.
///
/// Rounding an input that spans its range to 8 bits costs an error of `range² / (12 · 255²)`; with its power at least a
/// 24th of `range²` (half of a uniform one's about its middle) that leaves 45 dB. The functions tested here
/// amplify relative errors by less than a factor of ten (20 dB), and an operator rounds once or twice more.
const FLOOR_DB: f64 = 20.0;

/// Operators whose result jumps where its argument moves a little: rounding an input may move it by a whole jump, so that
/// only the comparison with the simulation, which rounds alike, says anything.
const JUMPS: [&str; 9] = ["Floor", "Ceil", "Round", "Sign", "ArgMax", "ArgMin", "TopK", "ThresholdedRelu", "Hardmax"];

/// What became of a test.
enum Verdict {
    /// The importer does not claim it.
    Refused(String),
    /// It was claimed and is right; as a plan too, if that was looked at.
    Passed { plan: bool },
    /// It was claimed and is wrong.
    Failed(String),
}

#[test]
fn claimed_node_tests_pass() {
    let Some(folder) = folder() else {
        return println!("skipped: node tests of ONNX: not in .equant/onnx-node-tests (tests/run puts them there)");
    };
    let folders = folders(&folder);
    assert!(folders.len() > 1000, "{} node tests in {}", folders.len(), folder.display());
    let only = std::env::var("EQUANT_NODE_TESTS").unwrap_or_default();
    let mut counts = Counts::default();
    for path in folders.iter().filter(|path| path.to_string_lossy().contains(&only)) {
        counts.files += 1;
        look_at(path, &mut counts);
    }
    counts.print();
    assert!(counts.failures.is_empty(), "{} failures:\n{}", counts.failures.len(), counts.failures.join("\n"));
}

/// What was seen.
#[derive(Default)]
struct Counts {
    files: usize,
    /// Files that the reader refuses or whose tensors have no elements, by reason.
    unread: BTreeMap<String, usize>,
    /// Files of which at least one form is claimed, and of which a plan was run.
    claimed: usize,
    planned: usize,
    evaluated: usize,
    /// Files of which no form is claimed, by operator, each with the reason of one.
    refused: BTreeMap<String, (usize, String)>,
    failures: Vec<String>,
}

impl Counts {
    fn print(&self) {
        let unread: usize = self.unread.values().sum();
        println!(
            "{} node tests: {} claimed ({} of them run as plans), {} evaluated as constants, {} not claimed, {unread} not read",
            self.files,
            self.claimed,
            self.planned,
            self.evaluated,
            self.refused.values().map(|(count, _)| count).sum::<usize>(),
        );
        for (reason, count) in &self.unread {
            println!("  not read: {count:4} {reason}");
        }
        for (operator, (count, reason)) in &self.refused {
            println!("  not claimed: {count:4} {operator}: {reason}");
        }
    }
}

fn look_at(path: &Path, counts: &mut Counts) {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let test = match guarded(|| NodeTest::read(path)) {
        Ok(Ok(test)) if test.is_empty() => Err("a tensor without elements".to_owned()),
        Ok(test) => test,
        Err(panic) => return counts.failures.push(format!("{name}: reading panics: {panic}")),
    };
    let test = match test {
        Ok(test) => test,
        Err(reason) => {
            // One line for each kind of reason: without names and numbers.
            let kind: String = reason.chars().take(60).filter(|c| !c.is_ascii_digit()).collect();
            *counts.unread.entry(kind.lines().next().unwrap_or_default().to_owned()).or_default() += 1;
            return;
        }
    };
    match guarded(|| constants(&test)) {
        Ok(Ok(evaluated)) => counts.evaluated += usize::from(evaluated),
        Ok(Err(reason)) | Err(reason) => counts.failures.push(format!("{name}, as a constant: {reason}")),
    }
    let forms = [Some(test.clone()), test.with_parameters()];
    let (mut claimed, mut planned, mut refusal) = (false, false, None);
    for (form, what) in forms.into_iter().zip(["all inputs as activations", "parameters as constants"]) {
        let Some(form) = form else { continue };
        match guarded(|| verdict(&form)).unwrap_or_else(|panic| Verdict::Failed(format!("panics: {panic}"))) {
            Verdict::Refused(reason) => refusal = Some(reason),
            Verdict::Passed { plan } => (claimed, planned) = (true, planned || plan),
            Verdict::Failed(reason) => {
                claimed = true;
                counts.failures.push(format!("{name}, {what}: {reason}"));
            }
        }
    }
    counts.claimed += usize::from(claimed);
    counts.planned += usize::from(planned);
    if let Some(reason) = refusal.filter(|_| !claimed) {
        let operator = match test.graph.nodes.as_slice() {
            [node] => node.op_type.clone(),
            // Which of a function's nodes it is that is refused.
            _ => format!("(of several nodes) {}", reason.split(['(', ')']).nth(1).unwrap_or_default()),
        };
        counts.refused.entry(operator).or_insert((0, reason)).0 += 1;
    }
}

/// The result, or what a panic said.
fn guarded<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned())).unwrap_or_default()
    })
}

/// Compares what the constant evaluator makes of a single node, if it makes anything of it.
fn constants(test: &NodeTest) -> Result<bool, String> {
    let [node] = test.graph.nodes.as_slice() else { return Ok(false) };
    let tensor = |name: &String| test.graph.inputs.iter().position(|input| input.name == *name);
    let inputs: Vec<Option<&Tensor>> =
        node.inputs.iter().map(|name| tensor(name).map(|index| &test.inputs[index])).collect();
    let Some(value) = eval::eval(node, test.graph.opset, &inputs) else { return Ok(false) };
    let expected = &test.outputs[0];
    if value.shape != expected.shape {
        return Err(format!("shape {:?} and not {:?}", value.shape, expected.shape));
    }
    // All floats are computed in f32, whatever the file says.
    let rounding = match expected.dtype {
        DataType::Bf16 => 0.5f32.powi(8),
        DataType::F16 => 0.5f32.powi(11),
        _ => 0.0,
    };
    near(&value.to_f32(), &expected.to_f32(), rounding).map(|()| true)
}

fn verdict(test: &NodeTest) -> Verdict {
    let mut graph = test.graph.clone();
    if let Err(error) = passes::prepare_unbatched(&mut graph, &Dims::new()) {
        return Verdict::Refused(error.to_string());
    }
    if let Some(refused) = support::check(&graph).first() {
        return Verdict::Refused(refused.to_string());
    }
    // Samples are finite.
    let finite = test.inputs.iter().all(|input| input.to_f32().iter().all(|value| value.is_finite()));
    let plan = test.is_f32() && !graph.inputs.is_empty() && finite;
    let checked = in_float(test, &graph).and_then(|()| if plan { as_plan(test, &graph) } else { Ok(()) });
    match checked {
        Ok(()) => Verdict::Passed { plan },
        Err(reason) => Verdict::Failed(reason),
    }
}

/// The prepared graph in float.
fn in_float(test: &NodeTest, graph: &Graph) -> Result<(), String> {
    let run = exec::runner(graph, &test.output_names(), Backend::Tract).and_then(|runner| runner.run(&test.batch()));
    let values = run.map_err(|error| format!("in float: {error}"))?;
    for (value, expected) in values.iter().zip(&test.outputs) {
        near(value, &expected.to_f32(), 0.0).map_err(|reason| format!("in float: {reason}"))?;
    }
    Ok(())
}

/// Equal to what f32 arithmetic in another order gives: the tolerance of ONNX's own test runner, and a part of the largest
/// element for what is left of sums that cancel. What is expected was rounded to within a relative `rounding`.
fn near(values: &[f32], expected: &[f32], rounding: f32) -> Result<(), String> {
    if values.len() != expected.len() {
        return Err(format!("{} elements and not {}", values.len(), expected.len()));
    }
    let peak = expected.iter().filter(|v| v.is_finite()).fold(0.0f32, |peak, v| peak.max(v.abs()));
    let close = |a: f32, b: f32| {
        a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= (1e-3 + rounding) * b.abs() + 1e-5 * peak
    };
    match values.iter().zip(expected).find(|(a, b)| !close(**a, **b)) {
        Some((value, expected)) => Err(format!("{value} where {expected} is expected")),
        None => Ok(()),
    }
}

/// Quantized with the test's inputs as the only sample, compiled and run.
fn as_plan(test: &NodeTest, graph: &Graph) -> Result<(), String> {
    let batch = test.batch();
    let observed = quantize::values_to_observe(graph);
    let run = exec::runner(graph, &observed, Backend::Tract).and_then(|runner| runner.run(&batch));
    let values = run.map_err(|error| format!("observing: {error}"))?;
    let mut statistics: BTreeMap<String, Statistics> = BTreeMap::new();
    for (name, values) in observed.into_iter().zip(values) {
        statistics.entry(name).or_default().observe(&values);
    }
    // A sample is all there is: nothing of it may be clipped away.
    let config = quantize::Config { observer: Some(Observer::MinMax), ..quantize::Config::default() };
    let outcome = quantize::quantize(graph, &statistics, &config).map_err(|error| format!("quantizing: {error}"))?;
    let bytes = onnx::to_bytes(&qdq::export(graph, &outcome));
    let mut quantized = onnx::from_bytes(&bytes, None, "quantized").map_err(|error| error.to_string())?;
    passes::prepare_quantized_unbatched(&mut quantized);
    let compiled = compile::compile(&quantized, &Options::default()).map_err(|error| format!("compiling: {error}"))?;
    // An Identity alone leaves nothing to compare but the output.
    if !pieces(&quantized).is_empty() {
        each_operator(&test.name, &quantized, &batch, Reference::Simulation);
    }
    // A plan has the inputs that something reads.
    let read = |name: &str| quantized.nodes.iter().any(|node| node.inputs.iter().any(|input| input == name));
    let inputs = quantized.inputs.iter().zip(&batch.inputs).filter(|(input, _)| read(&input.name));
    let fed = Batch { inputs: inputs.map(|(_, values)| values.clone()).collect(), ..batch };
    let run = exec::plan_runner(&compiled.image).and_then(|runner| runner.run(&fed));
    let values = run.map_err(|error| format!("the plan: {error}"))?;
    // Inputs below 1 and at 1,000 or 10,000 together: 8 bits tell the small ones not apart.
    let unequal = ["large_number", "poison"].iter().any(|kind| test.name.contains(kind));
    if unequal || graph.nodes.iter().any(|node| JUMPS.contains(&node.op_type.as_str())) {
        return Ok(());
    }
    for (value, expected) in values.iter().zip(&test.outputs) {
        if value.len() != expected.len() {
            return Err(format!("the plan: {} elements and not {}", value.len(), expected.len()));
        }
        let mut ratio = Sqnr::default();
        ratio.add(&expected.to_f32(), value);
        if ratio.decibels() < FLOOR_DB {
            return Err(format!("the plan: {:.1} dB", ratio.decibels()));
        }
    }
    Ok(())
}
