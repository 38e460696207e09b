//! What the runtimes that a quantized model may go to can execute with integers, as data.
//!
//! Nothing here decides for the user: rules are defaults of settings that were left open, and reasons to refuse
//! settings that a runtime would load but not profit from.

use std::fmt;
use std::str::FromStr;

use crate::graph::{Graph, Node};
use crate::qdq::Container;
use crate::quantize::{ActivationType, Bits, Config, Width};

/// A runtime that a quantized model goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, serde::Serialize)]
#[non_exhaustive]
pub enum Target {
    /// No runtime in particular: a file that all of them load, and a plan for any core.
    #[default]
    Portable,
    /// The Equant runtime on a microcontroller: the plan counts, the file does not.
    CortexM,
    /// ONNX Runtime on CPUs with integer dot products: x86 with VNNI, aarch64.
    OrtCpu,
    /// ONNX Runtime on x86 CPUs without VNNI (SSE4.1, AVX2, AVX-512 before Cascade Lake).
    OrtCpuNoVnni,
    /// TensorRT on NVIDIA GPUs, by itself or as ONNX Runtime's execution provider.
    TensorRt,
}

/// Layers that runtimes have different kernels for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub enum LayerKind {
    /// Conv and ConvTranspose, depthwise ones aside.
    Conv,
    /// Conv with one input channel in each group.
    Depthwise,
    /// Gemm, and MatMul with constant weights.
    Linear,
}

/// What to do with the first and the last layer where the others have 4 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub enum Ends {
    /// The same as with the others.
    AsOthers,
    /// 8 bits.
    EightBits,
}

/// What a target executes with integers.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct TargetRules {
    /// The target.
    pub target: Target,
    /// Signedness and symmetry of activations.
    pub activations: ActivationType,
    /// Whether 8-bit weights must keep to 7 bits.
    pub reduce_range: bool,
    /// Widths that weights of convolutions may have.
    pub conv: &'static [Width],
    /// Widths that weights of depthwise convolutions may have.
    pub depthwise: &'static [Width],
    /// Widths that weights of products may have.
    pub linear: &'static [Width],
    /// Widths that activations may have.
    pub activation_widths: &'static [Width],
    /// How 4-bit weights are stored in the file.
    pub container: Container,
    /// The first and the last layer of a model whose layers have 4 bits.
    pub ends: Ends,
}

const EIGHT: &[Width] = &[Width::Eight];
const BOTH: &[Width] = &[Width::Four, Width::Eight];

impl Target {
    /// Every target.
    pub const ALL: [Self; 5] = [Self::Portable, Self::CortexM, Self::OrtCpu, Self::OrtCpuNoVnni, Self::TensorRt];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::CortexM => "cortex-m",
            Self::OrtCpu => "ort-cpu",
            Self::OrtCpuNoVnni => "ort-cpu-no-vnni",
            Self::TensorRt => "tensorrt",
        }
    }

    /// The rules.
    ///
    /// - The Equant runtime multiplies any int8 by any int8 into 32 bits, so all of both types is used; 4-bit weights are
    ///   packed in the plan whatever the file's container. It stores 4-bit activations a byte each: they save neither
    ///   memory nor time there, but nothing stands against them.
    /// - ONNX Runtime's CPU provider (seen with version 1.32) has integer kernels for 8 bits only. It runs packed INT4
    ///   weights of Conv, Gemm and MatMul with quantized inputs by dequantizing them in every run, and 4-bit activations in
    ///   float (`qdq::float_islands`); only MatMul without a quantized input becomes `MatMulNBits`. The same integers
    ///   in INT8 run in integer kernels, so the container is INT8, and 4 bits in the first and the last layer would save
    ///   nothing. Activations are uint8: on x86 int8 stays in float around values with
    ///   several readers.
    /// - Its kernels for x86 without VNNI add pairs of uint8 · int8 products in 16 bits with saturation (`vpmaddubsw`),
    ///   which weights beyond 7 bits overflow (ONNX Runtime documentation, "Quantize ONNX models", section on data type
    ///   selection, `reduce_range`).
    /// - TensorRT's quantization is symmetric and signed throughout; its INT4 is for weights alone, in blocks, with float
    ///   activations (TensorRT documentation, "Working with Quantized Types"). INT8 weights are kept in −127..=127, as its
    ///   documentation asks for (TensorRT 8, "Explicit quantization").
    pub fn rules(self) -> TargetRules {
        let portable = TargetRules {
            target: self,
            activations: ActivationType::Unsigned,
            reduce_range: false,
            conv: BOTH,
            depthwise: BOTH,
            linear: BOTH,
            activation_widths: BOTH,
            container: Container::Packed,
            ends: Ends::AsOthers,
        };
        match self {
            Self::Portable | Self::CortexM => portable,
            Self::OrtCpu => {
                TargetRules { activation_widths: EIGHT, container: Container::Int8, ends: Ends::EightBits, ..portable }
            }
            Self::OrtCpuNoVnni => TargetRules { reduce_range: true, target: self, ..Self::OrtCpu.rules() },
            Self::TensorRt => TargetRules {
                activations: ActivationType::Symmetric,
                conv: EIGHT,
                depthwise: EIGHT,
                linear: EIGHT,
                activation_widths: EIGHT,
                ..portable
            },
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Target {
    type Err = UnknownTarget;

    fn from_str(text: &str) -> Result<Self, UnknownTarget> {
        Self::ALL.into_iter().find(|target| target.name() == text).ok_or_else(|| UnknownTarget(text.to_owned()))
    }
}

/// A name that is no target's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no target `{0}`; use portable, cortex-m, ort-cpu, ort-cpu-no-vnni or tensorrt")]
pub struct UnknownTarget(pub String);

impl LayerKind {
    /// The kind of a node with constant weights, `None` for others.
    pub fn of(graph: &Graph, node: &Node) -> Option<Self> {
        let weights = node.input(1).and_then(|name| graph.initializers.get(name))?;
        match node.op_type.as_str() {
            "Conv" if node.int("group", 1) > 1 && weights.shape.get(1) == Some(&1) => Some(Self::Depthwise),
            "Conv" | "ConvTranspose" => Some(Self::Conv),
            "Gemm" | "MatMul" => Some(Self::Linear),
            _ => None,
        }
    }

    const fn plural(self) -> &'static str {
        match self {
            Self::Conv => "convolutions",
            Self::Depthwise => "depthwise convolutions",
            Self::Linear => "matrix products",
        }
    }
}

/// Bits that a target has no integer kernels for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Weights.
    #[error(
        "target `{target}` has no integer kernels for {} with {}-bit weights{}; use {}-bit weights there, or another target",
        .kind.plural(), .width.bits(), reason(*.target), other(*.width)
    )]
    Weights {
        /// The target.
        target: Target,
        /// The layers.
        kind: LayerKind,
        /// What was asked for.
        width: Width,
    },
    /// Activations.
    #[error(
        "target `{target}` has no integer kernels for {}-bit activations: operators around them would run in float; \
         use {}-bit activations, or another target",
        .width.bits(), other(*.width)
    )]
    Activations {
        /// The target.
        target: Target,
        /// What was asked for.
        width: Width,
    },
}

/// The bits of the other width.
fn other(width: Width) -> u32 {
    match width {
        Width::Four => Width::Eight.bits(),
        Width::Eight => Width::Four.bits(),
    }
}

/// What a target does with 4-bit weights instead.
fn reason(target: Target) -> &'static str {
    match target {
        Target::TensorRt => " (its INT4 is for weights alone, in blocks, with float activations)",
        _ => "",
    }
}

impl TargetRules {
    /// Widths that weights of this kind of layer may have.
    pub fn weight_widths(&self, kind: LayerKind) -> &'static [Width] {
        match kind {
            LayerKind::Conv => self.conv,
            LayerKind::Depthwise => self.depthwise,
            LayerKind::Linear => self.linear,
        }
    }

    /// Refuses bits that the target would execute in float.
    ///
    /// # Errors
    ///
    /// What it has no integer kernels for.
    pub fn check(&self, kind: LayerKind, bits: Bits) -> Result<(), Refusal> {
        let target = self.target;
        if !self.weight_widths(kind).contains(&bits.weights) {
            return Err(Refusal::Weights { target, kind, width: bits.weights });
        }
        if !self.activation_widths.contains(&bits.activations) {
            return Err(Refusal::Activations { target, width: bits.activations });
        }
        Ok(())
    }

    /// Everything in `config` that the target would execute in float, by node, in graph order.
    pub fn refusals(&self, graph: &Graph, config: &Config) -> Vec<(String, Refusal)> {
        let layers = graph.nodes.iter().filter_map(|node| Some((node, LayerKind::of(graph, node)?)));
        layers
            .filter_map(|(node, kind)| Some((node.name.clone(), self.check(kind, config.bits_of(&node.name)).err()?)))
            .collect()
    }

    /// `config` with the weights of the first and the last layer at 8 bits, where the target has it so and nothing else
    /// was asked for.
    pub fn ends_widened(&self, graph: &Graph, config: &Config) -> Config {
        let mut config = config.clone();
        let mut layers = graph.nodes.iter().filter(|node| LayerKind::of(graph, node).is_some());
        if self.ends == Ends::EightBits {
            for node in layers.next().into_iter().chain(layers.next_back()) {
                let bits = Bits { weights: Width::Eight, ..config.bits };
                config.layers.entry(node.name.clone()).or_insert(bits);
            }
        }
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Attr, Tensor};

    const KINDS: [LayerKind; 3] = [LayerKind::Conv, LayerKind::Depthwise, LayerKind::Linear];

    fn bits(text: &str) -> Bits {
        text.parse().unwrap()
    }

    #[test]
    fn names_are_read_back() {
        for target in Target::ALL {
            assert_eq!(target.name().parse(), Ok(target));
            assert_eq!(target.rules().target, target);
        }
        let error = "gpu".parse::<Target>().unwrap_err().to_string();
        assert!(Target::ALL.iter().all(|target| error.contains(target.name())), "{error}");
    }

    #[test]
    fn eight_bits_go_everywhere() {
        for rules in Target::ALL.map(Target::rules) {
            for kind in KINDS {
                assert_eq!(rules.check(kind, bits("W8A8")), Ok(()), "{}", rules.target);
            }
        }
    }

    #[test]
    fn four_bits_go_where_there_are_kernels() {
        for target in [Target::Portable, Target::CortexM] {
            for (kind, text) in KINDS.into_iter().flat_map(|kind| ["W4A8", "W4A4", "W8A4"].map(|text| (kind, text))) {
                assert_eq!(target.rules().check(kind, bits(text)), Ok(()));
            }
        }
        for target in [Target::OrtCpu, Target::OrtCpuNoVnni] {
            let rules = target.rules();
            assert_eq!(rules.container, Container::Int8, "packed weights would be dequantized in every run");
            assert_eq!(rules.check(LayerKind::Conv, bits("W4A8")), Ok(()));
            let refused = Err(Refusal::Activations { target, width: Width::Four });
            assert_eq!(rules.check(LayerKind::Linear, bits("W8A4")), refused);
        }
    }

    #[test]
    fn refusals_say_what_to_do() {
        let rules = Target::TensorRt.rules();
        let refused = |kind, text| rules.check(kind, bits(text)).unwrap_err().to_string();
        assert_eq!(
            refused(LayerKind::Depthwise, "W4A8"),
            "target `tensorrt` has no integer kernels for depthwise convolutions with 4-bit weights (its INT4 is for \
             weights alone, in blocks, with float activations); use 8-bit weights there, or another target"
        );
        assert_eq!(
            refused(LayerKind::Linear, "W8A4"),
            "target `tensorrt` has no integer kernels for 4-bit activations: operators around them would run in float; \
             use 8-bit activations, or another target"
        );
    }

    #[test]
    fn pairs_of_products_fit_sixteen_bits_without_vnni() {
        assert!(Target::OrtCpuNoVnni.rules().reduce_range && !Target::OrtCpu.rules().reduce_range);
        let config = Config { reduce_range: true, ..Config::default() };
        let (_, levels) = crate::quantize::levels(&config, "");
        assert!(2 * 255 * levels.high <= i32::from(i16::MAX) && 2 * 255 * levels.low >= i32::from(i16::MIN));
    }

    #[test]
    fn settings_left_open_follow_the_target() {
        let mut graph = Graph::default();
        for name in ["first", "middle", "last"] {
            graph.initializers.insert(format!("{name}.w"), Tensor::from_f32(&[2, 2], &[1.0; 4]));
            graph.nodes.push(Node::new("Gemm", name, ["x".to_owned(), format!("{name}.w")], [name]));
        }
        let four = Config { bits: bits("W4A8"), ..Config::default() };
        let config = Target::OrtCpu.rules().ends_widened(&graph, &four);
        assert_eq!(config.bits_of("middle"), bits("W4A8"));
        assert_eq!((config.bits_of("first"), config.bits_of("last")), (bits("W8A8"), bits("W8A8")));
        assert_eq!(Target::CortexM.rules().ends_widened(&graph, &four), four);
        let chosen = Config { layers: [("last".to_owned(), bits("W4A8"))].into(), ..four };
        let config = Target::OrtCpu.rules().ends_widened(&graph, &chosen);
        assert_eq!(config.bits_of("last"), bits("W4A8"), "what was asked for is left");
        let refused = Target::TensorRt.rules().refusals(&graph, &chosen);
        assert_eq!(refused.len(), 3);
        assert_eq!(refused[0].0, "first");
    }

    #[test]
    fn layers_are_told_apart() {
        let mut graph = Graph::default();
        graph.initializers.insert("w".into(), Tensor::from_f32(&[4, 1, 1, 1], &[0.0; 4]));
        graph.initializers.insert("v".into(), Tensor::from_f32(&[4, 2], &[0.0; 8]));
        let kind = |op: &str, weights: &str, group: i64| {
            LayerKind::of(&graph, &Node::new(op, "n", ["x", weights], ["y"]).with("group", Attr::Int(group)))
        };
        assert_eq!(kind("Conv", "w", 4), Some(LayerKind::Depthwise));
        assert_eq!(kind("Conv", "w", 1), Some(LayerKind::Conv), "one input channel, one group");
        assert_eq!(kind("ConvTranspose", "w", 4), Some(LayerKind::Conv));
        assert_eq!((kind("Gemm", "v", 1), kind("MatMul", "v", 1)), (Some(LayerKind::Linear), Some(LayerKind::Linear)));
        assert_eq!((kind("MatMul", "other", 1), kind("Add", "v", 1)), (None, None));
    }
}
