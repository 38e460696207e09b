//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::compile::cost::Core;
use crate::exec::Backend;
use crate::graph::state::Pair;
use crate::metrics::Metric;
use crate::observe::Observer;
use crate::passes::Dims;
use crate::pipeline::{Budget, Preset};
use crate::qdq::Container;
use crate::quantize::{ActivationType, Bits, Rounding};
use crate::round::Method;
use crate::sensitivity;
use crate::target::Target;

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
        "  equant quantize kws.onnx --calib calib.npz --bits W4A8 --target cortex-m --preset best\n",
        "  equant quantize kws.onnx --calib calib.npz --dim time=98 --json > kws.json\n\n",
        "Targets: portable (any ONNX runtime, any microcontroller), cortex-m, ort-cpu, ort-cpu-no-vnni, tensorrt.\n\n",
        "Samples are .npz files with the array `x` (float32, first axis the sample, the rest the model's\n",
        "input shape) and, for accuracy, `y` (integer labels). A few hundred calibration samples that look\n",
        "like the data in use are enough. A folder of .png, .jpg or .wav files works as well, with a file\n",
        "preprocess.json that says how they become the model's input, such as\n",
        "  {\"kind\": \"image\", \"resize\": {\"width\": 96, \"height\": 96}, \"mean\": [0.5], \"std\": [0.5]}\n",
        "or\n",
        "  {\"kind\": \"audio\", \"sample_rate\": 16000, \"samples\": 16000}\n",
        "Labels are in labels.csv (lines FILE,LABEL), or files lie in one folder for each class.\n\n",
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
        "  equant inspect kws.onnx --samples calib.npz\n",
        "  equant inspect kws.onnx --samples calib.npz --sensitivity --bits w8a8,w4a8 --plot layers.svg\n",
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
    /// Make a model or a plan smaller to download: an entropy-coded package
    #[command(after_help = concat!(
        "Examples:\n",
        "  equant package out/kws/kws.plan\n",
        "  equant package out/kws/kws.int8.onnx -o kws.eqz --json\n\n",
        "A package is for sending, such as over the air; `equant unpack` gives the same file back, bit for bit.\n",
        "It saves neither flash nor memory. Exit codes: see `equant --help`."
    ))]
    Package(PackageArgs),
    /// Give back the file in a package
    #[command(after_help = concat!(
        "Examples:\n",
        "  equant unpack kws.plan.eqz\n",
        "  equant unpack kws.eqz -o kws.int8.onnx\n\n",
        "Exit codes: 3 if the package is damaged; others see `equant --help`."
    ))]
    Unpack(UnpackArgs),
    /// Calibrate once for every format: writes an analysis that `equant export` makes models from
    #[command(after_help = concat!(
        "Examples:\n",
        "  equant analyze kws.onnx --calib calib.npz\n",
        "  equant export kws.eqcal --bits W4A8\n",
        "  equant export kws.eqcal --budget flash=40KiB\n\n",
        "Exit codes: see `equant --help`."
    ))]
    Analyze(AnalyzeArgs),
    /// Make a QDQ ONNX file and a plan of any format from an analysis, without samples
    #[command(after_help = concat!(
        "Examples:\n",
        "  equant export kws.eqcal --bits W4A4 --per-tensor\n",
        "  equant export kws.eqcal --activations symmetric -o out/tensorrt\n",
        "  equant export kws.eqcal --budget flash=40KiB\n\n",
        "A budget is met by a genetic search over what `equant analyze` measured of each layer.\n",
        "Exit codes: see `equant --help`."
    ))]
    Export(ExportArgs),
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
    /// How much time to take for how much accuracy
    #[arg(long, value_enum, default_value_t = PresetArg::Balanced, help_heading = "Quantization")]
    pub(super) preset: PresetArg,
    /// What the model goes to: decides what is left open here, and refuses what it would not run in integers
    #[arg(long, value_name = "TARGET", default_value_t = Target::default(), help_heading = "Quantization")]
    pub(super) target: Target,
    #[command(flatten)]
    pub(super) cost: CostArgs,
    /// How activation ranges are chosen [default: auto, or mse with --preset fast]
    #[arg(long, value_enum, help_heading = "Quantization")]
    pub(super) observer: Option<ObserverArg>,
    /// Central share of the values that `--observer percentile` keeps, in percent
    #[arg(long, value_name = "P", default_value_t = 99.99, value_parser = percentile, help_heading = "Quantization")]
    pub(super) percentile: f64,
    /// Bits of weights and activations: W8A8, W4A8, W8A4 or W4A4
    #[arg(long, value_name = "BITS", default_value_t = Bits::default(), help_heading = "Quantization")]
    pub(super) bits: Bits,
    /// Bits for each layer, within flash=SIZE (of weights), bitops=NUMBER, instructions=NUMBER (on --core) or sqnr=DB
    #[arg(long, value_name = "WHAT=AMOUNT", help_heading = "Quantization")]
    pub(super) budget: Option<Budget>,
    /// Least SQNR of a layer's output in dB: layers under it get 8 bits; `none` leaves them
    #[arg(long, value_name = "DB", default_value = "6", value_parser = floor, help_heading = "Quantization")]
    pub(super) floor: Floor,
    /// Tune the quantized model to the float model's outputs on the calibration samples, by gradients
    #[cfg(feature = "tune")]
    #[arg(long, help_heading = "Quantization")]
    pub(super) tune: bool,
    /// Most time that tuning may take, in seconds; the best so far is kept [default: 90 with --preset best]
    #[cfg(feature = "tune")]
    #[arg(long, value_name = "SECONDS", help_heading = "Quantization")]
    pub(super) time_budget: Option<u64>,
    /// Seed of what tuning draws at random
    #[cfg(feature = "tune")]
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Quantization")]
    pub(super) seed: u64,
    /// Leave the scales of channels as they are
    #[arg(long, help_heading = "Quantization")]
    pub(super) no_equalize: bool,
    /// What 4-bit weights are stored in [default: by --target]
    #[arg(long, value_enum, help_heading = "Quantization")]
    pub(super) container: Option<ContainerArg>,
    /// How weights are rounded [default: search, or gptq with --preset fast]
    #[arg(long, value_enum, help_heading = "Quantization")]
    pub(super) rounding: Option<RoundingArg>,
    /// Price of a bit per weight in a package, as a share of the error of rounding to nearest: smaller downloads for
    /// less accuracy; 1 is moderate
    #[arg(long, value_name = "LAMBDA", default_value_t = 0.0, value_parser = price, help_heading = "Quantization")]
    pub(super) rate: f64,
    /// Price of weights whose kurtosis is not a uniform law's 1.8, as a share of the error of rounding to nearest
    #[arg(long, value_name = "LAMBDA", default_value_t = 0.0, value_parser = price, help_heading = "Quantization")]
    pub(super) weight_kurtosis: f64,
    /// One scale for each weight tensor instead of one for each output channel
    #[arg(long, help_heading = "Quantization")]
    pub(super) per_tensor: bool,
    /// 7-bit weights, for x86 CPUs without VNNI, whose 16-bit sums would saturate
    #[arg(long, help_heading = "Quantization")]
    pub(super) reduce_range: bool,
    /// Integer type of activations [default: by --target]
    #[arg(long, value_enum, help_heading = "Quantization")]
    pub(super) activations: Option<ActivationArg>,
    /// Leave operator names out of the plan
    #[arg(long, help_heading = "Quantization")]
    pub(super) strip_names: bool,
    #[command(flatten)]
    pub(super) reading: ReadArgs,
    #[command(flatten)]
    pub(super) streaming: StateArgs,
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
    pub(super) reading: ReadArgs,
    #[command(flatten)]
    pub(super) streaming: StateArgs,
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
    /// Samples: shows kurtosis, entropy and outlier channels of the activations, too
    #[arg(long, value_name = "SAMPLES.npz")]
    pub(super) samples: Option<PathBuf>,
    /// Rank the layers of a float model by what quantizing each alone does, predicted and measured
    #[arg(long, requires = "samples")]
    pub(super) sensitivity: bool,
    /// Widths of weights and activations to rank by
    #[arg(long, value_name = "wNaN", value_delimiter = ',', default_value = "w8a8,w4a8", requires = "sensitivity")]
    pub(super) bits: Vec<sensitivity::Widths>,
    /// Draw the measured ranking, at the last of the widths
    #[arg(long, value_name = "FILE.svg", requires = "sensitivity")]
    pub(super) plot: Option<PathBuf>,
    /// At most this many samples [default: all, or 128 for --sensitivity]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) limit: Option<u64>,
    #[command(flatten)]
    pub(super) cost: CostArgs,
    #[command(flatten)]
    pub(super) reading: ReadArgs,
    #[command(flatten)]
    pub(super) exec: ExecArgs,
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
    /// Let outputs lie over inputs where that makes the arena smaller: a little slower on microcontrollers, slower on hosts
    #[arg(long)]
    pub(super) small_arena: bool,
    #[command(flatten)]
    pub(super) cost: CostArgs,
}

#[derive(Debug, Args)]
pub(super) struct PackageArgs {
    /// A plan or a QDQ model, or any other file
    #[arg(value_name = "MODEL.plan|MODEL.onnx")]
    pub(super) model: PathBuf,
    /// The package [default: the model's path with .eqz added]
    #[arg(short, long, value_name = "MODEL.eqz")]
    pub(super) output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct UnpackArgs {
    /// A package
    #[arg(value_name = "MODEL.eqz")]
    pub(super) package: PathBuf,
    /// The file [default: the package's path without .eqz]
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct AnalyzeArgs {
    /// The float model
    #[arg(value_name = "MODEL.onnx")]
    pub(super) model: PathBuf,
    /// Calibration samples
    #[arg(long, value_name = "SAMPLES.npz")]
    pub(super) calib: PathBuf,
    /// The analysis [default: the model's path with the extension .eqcal]
    #[arg(short, long, value_name = "MODEL.eqcal")]
    pub(super) output: Option<PathBuf>,
    #[command(flatten)]
    pub(super) reading: ReadArgs,
    #[command(flatten)]
    pub(super) exec: ExecArgs,
}

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// The analysis
    #[arg(value_name = "MODEL.eqcal")]
    pub(super) analysis: PathBuf,
    /// Folder for the results [default: out/NAME]
    #[arg(short, long, value_name = "DIR")]
    pub(super) output: Option<PathBuf>,
    /// Bits of weights and activations: W8A8, W4A8, W8A4 or W4A4
    #[arg(long, value_name = "BITS", default_value_t = Bits::default())]
    pub(super) bits: Bits,
    /// Bits of weights for each layer, within flash=SIZE of weights
    #[arg(long, value_name = "flash=SIZE")]
    pub(super) budget: Option<Budget>,
    /// Seed of the search for a budget
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) seed: u64,
    /// One scale for each weight tensor instead of one for each output channel
    #[arg(long)]
    pub(super) per_tensor: bool,
    /// Integer type of activations
    #[arg(long, value_enum, default_value_t = ActivationArg::Uint8)]
    pub(super) activations: ActivationArg,
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
    pub(super) reading: ReadArgs,
    #[command(flatten)]
    pub(super) streaming: StateArgs,
    #[command(flatten)]
    pub(super) exec: ExecArgs,
}

#[derive(Debug, Args)]
pub(super) struct CostArgs {
    /// The core that instructions are estimated for: m0plus, m3, m4, m7, m33, m55 or rv32imac
    #[arg(long, value_name = "CORE", default_value = Core::default().name())]
    pub(super) core: Core,
}

#[derive(Debug, Args)]
pub(super) struct ReadArgs {
    /// How images or WAV files become samples [default: preprocess.json in their folder]
    #[arg(long, value_name = "FILE.json")]
    pub(super) preprocess: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct StateArgs {
    /// An output that is an input of the next run (may be given several times): samples are then sequences
    #[arg(long, value_name = "OUTPUT=INPUT")]
    pub(super) state: Vec<Pair>,
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
pub(super) enum PresetArg {
    /// Ranges by their own error, no search
    Fast,
    /// Ranges and integers searched by what they do to the outputs of layers
    Balanced,
    /// As balanced, then tuned by gradients
    Best,
}

impl PresetArg {
    pub(super) const fn preset(self) -> Preset {
        match self {
            Self::Fast => Preset::Fast,
            Self::Balanced => Preset::Balanced,
            Self::Best => Preset::Best,
        }
    }
}

/// A floor in dB, or none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Floor(pub(super) Option<f64>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ObserverArg {
    /// By what they do to the outputs of the layers that read the value
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
pub(super) enum ContainerArg {
    /// INT4 tensors: the small file
    Packed,
    /// int8 tensors with the same values: the file ONNX Runtime's CPU kernels are fast with
    Int8,
}

impl ContainerArg {
    pub(super) const fn container(self) -> Container {
        match self {
            Self::Packed => Container::Packed,
            Self::Int8 => Container::Int8,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum RoundingArg {
    /// Each weight to the nearest level
    Nearest,
    /// For the layer's output: errors passed on from weight to weight
    Gptq,
    /// As gptq, then a local search over integers and scale
    Search,
    /// As search, from a soft rounding with an entropy regularizer
    Soft,
}

impl RoundingArg {
    pub(super) fn rounding(self) -> Rounding {
        let method = match self {
            Self::Nearest => Method::Nearest,
            Self::Gptq => Method::Gptq,
            Self::Search => Method::Search,
            Self::Soft => Method::Soft,
        };
        Rounding { method, ..Rounding::default() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ActivationArg {
    /// What ONNX Runtime's CPU kernels are fastest with
    Uint8,
    /// int8 with a zero point
    Int8,
    /// int8 with zero point 0: what TensorRT takes
    Symmetric,
}

impl ActivationArg {
    pub(super) const fn activations(self) -> ActivationType {
        match self {
            Self::Uint8 => ActivationType::Unsigned,
            Self::Int8 => ActivationType::Signed,
            Self::Symmetric => ActivationType::Symmetric,
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

fn floor(text: &str) -> Result<Floor, String> {
    match text.parse::<f64>() {
        _ if text == "none" => Ok(Floor(None)),
        Ok(db) if db.is_finite() => Ok(Floor(Some(db))),
        _ => Err("give a number of dB, or `none`".into()),
    }
}

fn price(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(price) if price.is_finite() && price >= 0.0 => Ok(price),
        _ => Err("give a number of at least 0, such as 0.1".into()),
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
    fn floors_are_numbers_or_none() {
        assert_eq!(floor("6.5"), Ok(Floor(Some(6.5))));
        assert_eq!(floor("none"), Ok(Floor(None)));
        assert!(floor("low").is_err() && floor("inf").is_err());
    }

    #[test]
    fn prices_are_not_negative() {
        assert_eq!((price("0"), price("0.1")), (Ok(0.0), Ok(0.1)));
        for wrong in ["-0.1", "inf", "NaN", "much"] {
            assert!(price(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn dimensions_have_a_name_and_a_size() {
        assert_eq!(dim("time=98"), Ok(("time".into(), 98)));
        for wrong in ["time", "time=", "=3", "time=0", "time=-1"] {
            assert!(dim(wrong).is_err(), "{wrong}");
        }
    }
}
