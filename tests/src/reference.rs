//! What a plan is compared with, and the comparison operator by operator.

use equant::compile::{self, Options};
use equant::data::Batch;
use equant::exec::{self, Backend, PlanRunner, Runner};
use equant::graph::Graph;
use equant::qdq::simulate;
use equant_runtime::plan::{AlignedBytes, DType};

use crate::cut::pieces;

/// What gives the reference values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reference {
    /// The float simulation of the QDQ file, run by tract.
    Simulation,
    /// ONNX Runtime on the same file.
    Ort,
}

impl Reference {
    /// A runner of a QDQ graph.
    ///
    /// # Errors
    ///
    /// As [`exec::runner`].
    pub fn runner(self, graph: &Graph, outputs: &[String]) -> Result<Box<dyn Runner>, exec::Error> {
        match self {
            Self::Simulation => exec::runner(&simulate(graph), outputs, Backend::Tract),
            Self::Ort => exec::runner(graph, outputs, Backend::Ort),
        }
    }

    /// Whether it is there; says so if not.
    ///
    /// # Panics
    ///
    /// If tract cannot run the graph.
    pub fn available(self, graph: &Graph) -> bool {
        let outputs: Vec<String> = graph.outputs.iter().map(|output| output.name.clone()).collect();
        match self.runner(graph, &outputs) {
            Ok(_) => true,
            Err(error) if self == Self::Ort => {
                println!("skipped: comparison with ONNX Runtime: {error}");
                false
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Every operator on its own, both sides given the same integers: at most one step apart. Returns the number of pieces
/// and the share of elements that differ.
///
/// # Panics
///
/// If an element lies further away, or a piece cannot be compiled or run.
pub fn each_operator(what: &str, graph: &Graph, batch: &Batch, reference: Reference) -> (usize, f64) {
    let (mut elements, mut differing) = (0usize, 0usize);
    let pieces = pieces(graph);
    for piece in &pieces {
        let inputs: Vec<String> = piece.graph.inputs.iter().map(|input| input.name.clone()).collect();
        let fed = exec::runner(&simulate(graph), &inputs, Backend::Tract).and_then(|runner| runner.run(batch));
        let fed = Batch { inputs: fed.unwrap_or_else(|error| panic!("{what}, {}: {error}", piece.name)), ..*batch };
        let outputs = [piece.graph.outputs[0].name.clone()];
        let expected = reference
            .runner(&piece.graph, &outputs)
            .and_then(|runner| runner.run(&fed))
            .unwrap_or_else(|error| panic!("{what}, {}: {error}", piece.name));
        let compiled = compile::compile(&piece.graph, &Options::default())
            .unwrap_or_else(|error| panic!("{what}, {}: {error}", piece.name));
        let image = AlignedBytes::from(&compiled.image[..]);
        let plan = PlanRunner::new(&image).unwrap_or_else(|error| panic!("{what}, {}: {error}", piece.name));
        // One 8-bit step. What the file leaves in float has 16 bits here, in steps 256 times finer or more, and each
        // value in between is rounded to 16 bits too: an eighth of an 8-bit step.
        let fine = plan.plan().model_output(0).is_some_and(|output| output.dtype == DType::I16);
        let tolerance = if fine { 32.0 } else { 1.001 };
        let actual = plan.run_raw(&fed);
        let actual = &actual.unwrap_or_else(|error| panic!("{what}, {}: {error}", piece.name))[0];
        assert_eq!(actual.values.len(), expected[0].len(), "{what}, {}", piece.name);
        let before = differing;
        // Values that the plan's output cannot hold saturate.
        let range = plan.plan().model_output(0).map_or((i32::MIN, i32::MAX), |output| output.range());
        let [lowest, highest] = [range.0, range.1].map(|end| f64::from(end) - f64::from(actual.zero_point));
        for (&q, &real) in actual.values.iter().zip(&expected[0]) {
            let real = (f64::from(real) / f64::from(actual.scale)).clamp(lowest, highest);
            let steps = f64::from(q) - f64::from(actual.zero_point) - real;
            assert!(steps.abs() <= tolerance, "{what}, {}: {steps} steps apart", piece.name);
            differing += usize::from(!fine && steps.abs() > 0.501);
        }
        elements += actual.values.len();
        let share = (differing - before) as f64 / actual.values.len() as f64;
        if share > 0.001 {
            println!("{what}, {}: {:.2} % of elements one step apart", piece.name, 100.0 * share);
        }
    }
    assert!(elements > 0, "{what} has operators");
    (pieces.len(), differing as f64 / elements as f64)
}
