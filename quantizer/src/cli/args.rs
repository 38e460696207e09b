//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::exec::Backend;
use crate::metrics::Metric;
use crate::observe::Observer;
use crate::passes::Dims;
use crate::quantize::ActivationType;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  unexpected error
  2  wrong use of the command line
  3  an input file, a model or samples, is bad
  4  the model is not supported
  5  a file cannot be written
  6  the quantized model failed verification

Results go to stdout, progress and messages to stderr.";

/// Quantizes neural networks for the edge: fp32 ONNX to int8 QDQ ONNX and to plans for microcontrollers.
#[derive(Debug, Parser)]
#[command(name = "equant", version, after_help = EXIT_CODES, max_term_width = 100)]
pub(super) struct Cli {
    /// Print JSON on stdout, and nothing else
    #[arg(long, global = true, help_heading = "Output")]
    pub(super) json: bool,
    /// No progress on stderr
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Output")]
    pub(super) quiet: bool,
    /// Print every step with its time
    #[arg(short, long, global = true, help_heading = "Output")]
    pub(super) verbose: bool,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Quantize a float model: writes an int8 QDQ ONNX file, a plan and a report
    #[command(after_help = concat!(
        "Examples:\n",
        "  equant quantize kws.onnx --calib calib.npz\n",
        "  equant quantize kws.onnx --calib calib.npz --test test.npz -o out/kws --observer percentile\n",
        "  equant quantize kws.onnx --calib calib.npz --dim time=98 --json > kws.json\n\n",
        "Samples are .npz files with the array `x` (float32, first axis the sample, the rest the model's\n",
        "input shape) and, for accuracy, `y` (integer labels). A few hundred calibration samples that look\n",
        "like the data in use are enough.\n\n",
        "Writes NAME.int8.onnx, NAME.plan, report.html and report.json: all of them, or none after an error.\n",
        "Exit codes: see `equant --help`."
    ))]
    Quantize(QuantizeArgs),
    /// Measure a float model, a QDQ model or a plan on test samples
    #[command(after_help = concat!(
        "Examples:\n",
        "  equant eval out/kws/kws.plan --test test.npz\n",
        "  equant eval out/kws/kws.int8.onnx --test test.npz --reference kws.onnx\n\n",
        "Exit codes: see `equant --help`."
    ))]
    Eval(EvalArgs),
    /// Show what a model or a plan holds, and whether it can be quantized
    #[command(after_help = concat!(
        "Examples:\n",
        "  equant inspect kws.onnx\n",
        "  equant inspect out/kws/kws.plan --json\n\n",
        "Exit codes: 4 if the model holds nodes that cannot be quantized; others see `equant --help`."
    ))]
    Inspect(InspectArgs),
    /// Compile a QDQ ONNX file, of this or another tool, to a plan
    #[command(after_help = concat!(
        "Examples:\n",
        "  equant compile kws.int8.onnx\n",
        "  equant compile kws_by_another_tool.onnx -o kws.plan --strip-names\n\n",
        "Exit codes: see `equant --help`."
    ))]
    Compile(CompileArgs),
    /// Run samples through a model or a plan and print what comes out
    #[command(after_help = concat!(
        "Examples:\n",
        "  equant run out/kws/kws.plan --input test.npz --limit 5\n",
        "  equant run out/kws/kws.plan --input test.npz --limit 100 --profile\n\n",
        "With --json every sample is one line. Exit codes: see `equant --help`."
    ))]
    Run(RunArgs),
    /// Print completions for a shell
    #[command(after_help = "Example:\n  equant completions bash > ~/.local/share/bash-completion/completions/equant")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
pub(super) struct QuantizeArgs {
    /// The float model
    #[arg(value_name = "MODEL.onnx")]
    pub(super) model: PathBuf,
    /// Calibration samples
    #[arg(long, value_name = "SAMPLES.npz")]
    pub(super) calib: PathBuf,
    /// Test samples; calibration never sees them
    #[arg(long, value_name = "TEST.npz")]
    pub(super) test: Option<PathBuf>,
    /// Folder for the results [default: out/NAME]
    #[arg(short, long, value_name = "DIR")]
    pub(super) output: Option<PathBuf>,
    /// How activation ranges are chosen
    #[arg(long, value_enum, default_value_t = ObserverArg::Auto, help_heading = "Quantization")]
    pub(super) observer: ObserverArg,
    /// Central share of the values that `--observer percentile` keeps, in percent
    #[arg(long, value_name = "P", default_value_t = 99.99, value_parser = percentile, help_heading = "Quantization")]
    pub(super) percentile: f64,
    /// One scale for each weight tensor instead of one for each output channel
    #[arg(long, help_heading = "Quantization")]
    pub(super) per_tensor: bool,
    /// 7-bit weights, for x86 CPUs without VNNI, whose 16-bit sums would saturate
    #[arg(long, help_heading = "Quantization")]
    pub(super) reduce_range: bool,
    /// Integer type of activations
    #[arg(long, value_enum, default_value_t = ActivationArg::Uint8, help_heading = "Quantization")]
    pub(super) activations: ActivationArg,
    /// Leave operator names out of the plan
    #[arg(long, help_heading = "Quantization")]
    pub(super) strip_names: bool,
    #[command(flatten)]
    pub(super) judge: JudgeArgs,
    #[command(flatten)]
    pub(super) exec: ExecArgs,
}

#[derive(Debug, Args)]
pub(super) struct EvalArgs {
    /// A float model, a QDQ model or a plan
    #[arg(value_name = "MODEL.onnx|MODEL.plan")]
    pub(super) model: PathBuf,
    /// Test samples
    #[arg(long, value_name = "TEST.npz")]
    pub(super) test: PathBuf,
    /// The float model to compare with
    #[arg(long, value_name = "FP32.onnx")]
    pub(super) reference: Option<PathBuf>,
    /// At most this many samples
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) limit: Option<u64>,
    #[command(flatten)]
    pub(super) judge: JudgeArgs,
    #[command(flatten)]
    pub(super) exec: ExecArgs,
}

#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    /// A float model, a QDQ model or a plan
    #[arg(value_name = "MODEL.onnx|MODEL.plan")]
    pub(super) model: PathBuf,
    /// Size of a symbolic dimension of the model (may be given several times)
    #[arg(long = "dim", value_name = "NAME=SIZE", value_parser = dim)]
    pub(super) dims: Vec<(String, usize)>,
}

#[derive(Debug, Args)]
pub(super) struct CompileArgs {
    /// A QDQ model
    #[arg(value_name = "QDQ.onnx")]
    pub(super) model: PathBuf,
    /// The plan [default: the model's path with the extension .plan]
    #[arg(short, long, value_name = "MODEL.plan")]
    pub(super) output: Option<PathBuf>,
    /// Leave operator names out of the plan
    #[arg(long)]
    pub(super) strip_names: bool,
}

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// A float model, a QDQ model or a plan
    #[arg(value_name = "MODEL.onnx|MODEL.plan")]
    pub(super) model: PathBuf,
    /// The samples
    #[arg(long, value_name = "SAMPLES.npz")]
    pub(super) input: PathBuf,
    /// Print the time each operator takes (plans and QDQ models)
    #[arg(long)]
    pub(super) profile: bool,
    /// At most this many samples
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) limit: Option<u64>,
    #[command(flatten)]
    pub(super) exec: ExecArgs,
}

#[derive(Debug, Args)]
pub(super) struct JudgeArgs {
    /// What the models are judged by; auto goes by the model's shapes and the labels
    #[arg(long, value_enum, default_value_t = MetricArg::Auto)]
    pub(super) metric: MetricArg,
}

#[derive(Debug, Args)]
pub(super) struct ExecArgs {
    /// Size of a symbolic dimension of the model (may be given several times)
    #[arg(long = "dim", value_name = "NAME=SIZE", value_parser = dim, help_heading = "Execution")]
    pub(super) dims: Vec<(String, usize)>,
    /// What runs float models
    #[arg(long, value_enum, default_value_t = BackendArg::Tract, help_heading = "Execution")]
    pub(super) backend: BackendArg,
    /// Threads; results do not depend on it [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..), help_heading = "Execution")]
    pub(super) threads: Option<u16>,
}

impl ExecArgs {
    pub(super) fn threads(&self) -> usize {
        match self.threads {
            Some(threads) => usize::from(threads),
            None => std::thread::available_parallelism().map_or(1, usize::from),
        }
    }

    pub(super) fn dims(&self) -> Dims {
        self.dims.iter().cloned().collect()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ObserverArg {
    /// Whichever cross-validation on samples favours
    Auto,
    /// Least mean squared quantization error
    Mse,
    /// Lowest and highest value
    Minmax,
    /// The central share of the values
    Percentile,
    /// Least Kullback-Leibler divergence
    Entropy,
}

impl ObserverArg {
    pub(super) fn observer(self, percentile: f64) -> Option<Observer> {
        match self {
            Self::Auto => None,
            Self::Mse => Some(Observer::Mse),
            Self::Minmax => Some(Observer::MinMax),
            Self::Percentile => Some(Observer::Percentile(percentile)),
            Self::Entropy => Some(Observer::Entropy),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ActivationArg {
    /// What ONNX Runtime's CPU kernels are fastest with
    Uint8,
    /// What TensorRT takes
    Int8,
}

impl ActivationArg {
    pub(super) const fn activations(self) -> ActivationType {
        match self {
            Self::Uint8 => ActivationType::Unsigned,
            Self::Int8 => ActivationType::Signed,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum BackendArg {
    /// Pure Rust, always there
    Tract,
    /// ONNX Runtime, loaded when the command runs
    Ort,
}

impl BackendArg {
    pub(super) const fn backend(self) -> Backend {
        match self {
            Self::Tract => Backend::Tract,
            Self::Ort => Backend::Ort,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum MetricArg {
    /// By the model's shapes and the labels
    Auto,
    /// Share of samples classified as labelled
    Top1,
    /// Area under the curve of an autoencoder's reconstruction error
    Auc,
    /// Share of samples classified as by the float model
    Agreement,
    /// Distance to the float model's outputs
    Sqnr,
}

impl MetricArg {
    pub(super) const fn metric(self) -> Option<Metric> {
        match self {
            Self::Auto => None,
            Self::Top1 => Some(Metric::Top1),
            Self::Auc => Some(Metric::Auc),
            Self::Agreement => Some(Metric::Agreement),
            Self::Sqnr => Some(Metric::Sqnr),
        }
    }
}

fn dim(text: &str) -> Result<(String, usize), String> {
    let (name, size) = text.split_once('=').ok_or("write NAME=SIZE, such as time=98")?;
    match size.parse::<usize>() {
        Ok(size) if size > 0 && !name.is_empty() => Ok((name.to_owned(), size)),
        _ => Err("write NAME=SIZE with a size of at least 1, such as time=98".into()),
    }
}

fn percentile(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(percent) if percent > 50.0 && percent <= 100.0 => Ok(percent),
        _ => Err("give a number above 50 and at most 100".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn dimensions_have_a_name_and_a_size() {
        assert_eq!(dim("time=98"), Ok(("time".into(), 98)));
        for wrong in ["time", "time=", "=3", "time=0", "time=-1"] {
            assert!(dim(wrong).is_err(), "{wrong}");
        }
    }
}
