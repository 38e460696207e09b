//! What happened, for people (one HTML page, [`Report::to_html`]) and machines (JSON, [`Report::to_json`]).

mod html;
pub mod memory;
pub mod numbers;
pub mod plots;
mod svg;

use std::collections::BTreeSet;

use serde::Serialize;

use crate::allocate::{Point, Table};
use crate::diagnose::WeightLaw;
use crate::metrics::Evaluation;
use crate::qdq::Island;
use crate::quantize::Config;
use crate::target::Target;
pub use memory::MemoryReport;

/// Version of the JSON's structure: raised when a field changes its meaning or goes away.
pub const SCHEMA: u32 = 1;

/// Everything known about one quantization.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Version of the program that made it.
    pub equant: &'static str,
    /// The float model.
    pub model: Model,
    /// How the result was made.
    pub made: Made,
    /// Sizes of the results.
    pub sizes: Sizes,
    /// Scores on the test samples, which calibration never saw.
    pub test: Option<Evaluation>,
    /// Scores on the first calibration samples.
    pub calibration: Evaluation,
    /// Agreement of the plan with the float simulation of the exported file.
    pub verification: Verification,
    /// Quality at the output of each layer, in graph order.
    pub layers: Vec<Layer>,
    /// The quantized activations, in graph order.
    pub activations: Vec<Activation>,
    /// The quantized weights, in graph order.
    pub weights: Vec<Weights>,
    /// Bytes of the weights together.
    pub weight_bytes: WeightBytes,
    /// Flash and memory of the plan.
    pub memory: MemoryReport,
    /// Rewrites applied before quantization.
    pub passes: Vec<Pass>,
    /// How the bits of layers were chosen, if a budget asked for it.
    pub mixed: Option<Mixed>,
    /// Decisions a person should know of.
    pub notes: Vec<String>,
    /// Nodes that other runtimes will execute in float.
    pub float_islands: Vec<Island>,
}

/// Bits chosen for each layer within a budget.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Mixed {
    /// The budget, in words.
    pub budget: String,
    /// What each option of each layer costs, and how much noise it adds to the outputs, as a share of the signal.
    pub table: Table,
    /// The least noise for each cost, by the table.
    pub front: Vec<Point>,
    /// The allocations that were rounded and measured.
    pub tried: Vec<Tried>,
    /// The bits of each layer of the table.
    pub layers: Vec<(String, String)>,
}

/// An allocation that was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tried {
    /// How it was chosen.
    pub method: &'static str,
    /// Its cost, in the unit of the budget.
    pub cost: f64,
    /// SQNR of the outputs in dB, if the noise of layers added up.
    pub predicted_db: f64,
    /// SQNR of the outputs in dB, on calibration samples.
    pub measured_db: f64,
    /// Noise beyond that of 8 bits everywhere, as a share of the signal.
    pub added_noise: f64,
}

/// The float model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Model {
    /// Its name: the file's, without extension.
    pub name: String,
    /// The file, as the caller named it.
    pub file: String,
    /// Version of its operator set.
    pub opset: i64,
    /// Nodes in the file.
    pub nodes_in_file: usize,
    /// Nodes after preparation.
    pub nodes: usize,
    /// Elements of all float constants, after preparation.
    pub parameters: u64,
    /// Multiply-accumulates of one inference.
    pub macs: u64,
    /// Inputs.
    pub inputs: Vec<Value>,
    /// Outputs.
    pub outputs: Vec<Value>,
}

/// An input or output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Value {
    /// Its name.
    pub name: String,
    /// Its shape for one sample, batch axis included.
    pub shape: Vec<usize>,
}

/// How the result was made. Nothing is drawn at random: the same inputs give the same files, for any number of threads.
#[derive(Debug, Clone, Serialize)]
pub struct Made {
    /// The command line, or empty when made through the library.
    pub command: String,
    /// What the user chose.
    pub config: Config,
    /// What the model goes to.
    pub target: Target,
    /// What ran the float model: `tract` or `ort`.
    pub backend: &'static str,
    /// Number of threads.
    pub threads: usize,
    /// The calibration samples.
    pub calibration: SampleFile,
    /// The test samples.
    pub test: Option<SampleFile>,
    /// Time taken by each step, in order.
    pub stages: Vec<Stage>,
}

/// A file of samples.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SampleFile {
    /// The file, as the caller named it.
    pub file: String,
    /// Number of samples.
    pub samples: usize,
}

/// One step of the work.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stage {
    /// What was done.
    pub name: &'static str,
    /// Seconds of wall-clock time.
    pub seconds: f64,
}

/// Bytes of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Sizes {
    /// The float model, external data included.
    pub float: u64,
    /// The quantized ONNX file.
    pub onnx: u64,
    /// The plan.
    pub plan: u64,
}

/// Agreement of the plan with the float simulation of the exported file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verification {
    /// Number of calibration samples both ran on.
    pub samples: usize,
    /// Largest difference of an output element, in 255ths of the range of that output.
    pub max_error_steps: f64,
    /// Share of samples with equal classes, for models that have classes.
    pub agreement: Option<f64>,
    /// Distance of the plan's outputs from the simulation's, in decibels; 200 stands for equality.
    pub sqnr_db: f64,
}

/// Quality at the output of one layer: all quantization up to it taken together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Layer {
    /// The node's name.
    pub node: String,
    /// Its operator type.
    pub op_type: String,
    /// The value it makes.
    pub value: String,
    /// Distance of the quantized model's value from the float model's, in decibels; 200 stands for equality.
    pub sqnr_db: f64,
}

/// One quantized activation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Activation {
    /// The value's name.
    pub value: String,
    /// Integer type, such as `int8`.
    pub dtype: String,
    /// Scale.
    pub scale: f32,
    /// Zero point.
    pub zero_point: i32,
    /// Lowest real value that the integers express.
    pub low: f64,
    /// Highest real value that the integers express.
    pub high: f64,
    /// What calibration has seen, if the value was observed itself.
    pub observed: Option<Observed>,
}

/// What calibration has seen of a value.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Observed {
    /// Number of elements.
    pub count: u64,
    /// Lowest.
    pub min: f64,
    /// Highest.
    pub max: f64,
    /// Share of elements outside the chosen range, 0 to 1 (to the resolution of the histogram).
    pub clipped: f64,
    /// Fourth standardized moment: 3 for a normal distribution, large where few elements stretch the range.
    pub kurtosis: f64,
    /// Entropy of the quantized value in bits: how much of the integer type is used.
    pub entropy_bits: f64,
    /// The distribution.
    pub histogram: Histogram,
}

/// Counts of elements in bins of equal width.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Histogram {
    /// Lower edge of the first bin.
    pub start: f64,
    /// Width of a bin.
    pub width: f64,
    /// Elements in each bin.
    pub counts: Vec<u64>,
}

/// The quantized weights of one node.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Weights {
    /// The node that uses them.
    pub node: String,
    /// Its operator type.
    pub op_type: String,
    /// The integer tensor; several nodes may share one.
    pub tensor: String,
    /// Shape.
    pub shape: Vec<usize>,
    /// Integer type, such as `int8`.
    pub dtype: String,
    /// Whether each output channel has a scale of its own.
    pub per_channel: bool,
    /// Lowest float weight.
    pub min: f64,
    /// Highest float weight.
    pub max: f64,
    /// Distance of the quantized weights from the float ones, in decibels; 200 stands for equality.
    pub sqnr_db: Option<f64>,
    /// The law that the float weights follow.
    #[serde(flatten)]
    pub law: WeightLaw,
    /// Bits that each weight takes in the files and in flash.
    pub stored_bits: u32,
    /// Shannon entropy of the integers in bits per weight: what each takes in a download that is entropy-coded.
    pub entropy_bits: f64,
}

/// Bytes of all integer weights together; a tensor that several nodes share counts once.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct WeightBytes {
    /// As stored: in the ONNX file, in the plan, in flash.
    pub stored: u64,
    /// By their Shannon entropy, rounded up: the size of a download that is entropy-coded, which saves neither flash nor
    /// memory.
    pub shannon: u64,
}

impl WeightBytes {
    /// Of the weights of a model.
    pub fn of(weights: &[Weights]) -> Self {
        let mut seen = BTreeSet::new();
        let mut bits = (0, 0.0);
        for weights in weights.iter().filter(|weights| seen.insert(&weights.tensor)) {
            let count: u64 = weights.shape.iter().map(|&size| size as u64).product();
            bits.0 += count * u64::from(weights.stored_bits);
            bits.1 += count as f64 * weights.entropy_bits;
        }
        Self { stored: bits.0.div_ceil(8), shannon: (bits.1 / 8.0).ceil() as u64 }
    }
}

/// One rewrite.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pass {
    /// Its name.
    pub name: &'static str,
    /// How many places it changed.
    pub places: usize,
}

impl Report {
    /// The report as JSON, indented.
    ///
    /// # Errors
    ///
    /// A number that JSON cannot hold: never for a report made by [`crate::pipeline`].
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self).map(|json| json + "\n")
    }

    /// The report as one HTML page without external resources.
    pub fn to_html(&self) -> String {
        html::page(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_weights_count_once() {
        let weights = |tensor: &str, shape: &[usize], stored_bits, entropy_bits| Weights {
            node: "n".into(),
            op_type: "Conv".into(),
            tensor: tensor.into(),
            shape: shape.to_vec(),
            dtype: "int8".into(),
            per_channel: true,
            min: 0.0,
            max: 0.0,
            sqnr_db: None,
            law: WeightLaw::of(&[], &[], 0, None),
            stored_bits,
            entropy_bits,
        };
        let all = [weights("a", &[3, 5], 4, 2.5), weights("b", &[10], 8, 0.1), weights("a", &[3, 5], 4, 2.5)];
        // 15 nibbles and 10 bytes: 140 bits; 37.5 and 1 bits of entropy.
        assert_eq!(WeightBytes::of(&all), WeightBytes { stored: 18, shannon: 5 });
        assert_eq!(WeightBytes::of(&[]), WeightBytes::default());
    }
}
