//! What a recurrent node says: its sizes, weights and initial states, checked.

use crate::graph::shape::Shapes;
use crate::graph::{Attr, Graph, Node, Tensor};
use crate::passes::maker;

/// Steps of a sequence, at most: each becomes nodes of its own.
const MOST_STEPS: usize = 1 << 12;

/// What is done in each step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Lstm,
    /// Whether the reset gate acts after the product with the state (`linear_before_reset`).
    Gru {
        after_product: bool,
    },
    Rnn,
}

impl Kind {
    /// Gates, each with as many rows of weights as the state has elements.
    pub(super) const fn gates(self) -> usize {
        match self {
            Self::Lstm => 4,
            Self::Gru { .. } => 3,
            Self::Rnn => 1,
        }
    }

    /// The activations that ONNX gives it, of one direction.
    const fn activations(self) -> &'static [&'static str] {
        match self {
            Self::Lstm => &["Sigmoid", "Tanh", "Tanh"],
            Self::Gru { .. } => &["Sigmoid", "Tanh"],
            Self::Rnn => &["Tanh"],
        }
    }
}

/// A recurrent node.
pub(super) struct Layer {
    pub(super) kind: Kind,
    /// Elements of the state.
    pub(super) hidden: usize,
    /// Steps of the sequence.
    pub(super) steps: usize,
    /// Whether the batch is the first axis, rather than time.
    pub(super) batch_first: bool,
    pub(super) directions: Vec<Direction>,
}

/// Weights of one direction.
pub(super) struct Direction {
    /// From the last step to the first.
    pub(super) reverse: bool,
    /// `[gates, hidden, inputs]`.
    pub(super) input: Vec<f32>,
    /// `[gates, hidden, hidden]`.
    pub(super) recurrent: Vec<f32>,
    /// `[gates, hidden]`: what is added to the products with the input, and with the state.
    pub(super) bias: [Vec<f32>; 2],
    /// The function of an RNN.
    pub(super) activation: &'static str,
}

impl Layer {
    /// Reads a node.
    ///
    /// # Errors
    ///
    /// What is not supported, and what is, in words.
    pub(super) fn of(graph: &Graph, node: &Node, shapes: &Shapes) -> Result<Self, String> {
        let kind = match node.op_type.as_str() {
            "LSTM" => Kind::Lstm,
            "GRU" => Kind::Gru { after_product: node.int("linear_before_reset", 0) != 0 },
            _ => Kind::Rnn,
        };
        let reversed: &[bool] = match node.string("direction").unwrap_or("forward") {
            "forward" => &[false],
            "reverse" => &[true],
            "bidirectional" => &[false, true],
            other => return Err(format!("direction `{other}` is not known")),
        };
        if node.attrs.contains_key("clip") {
            return Err("clip is not supported; export the model without it".into());
        }
        if node.int("input_forget", 0) != 0 {
            return Err("input_forget = 1 is not supported; only separate input and forget gates are".into());
        }
        if kind == Kind::Lstm && node.input(7).is_some() {
            return Err("peepholes (input P) are not supported; export an LSTM without them".into());
        }
        let x = node.input(0).and_then(|name| shapes.types.get(name)).map(|kind| kind.shape.as_slice());
        let batch_first = node.int("layout", 0) != 0;
        let (steps, inputs) = match x {
            Some(&[steps, _, inputs]) if !batch_first => (steps, inputs),
            Some(&[_, steps, inputs]) => (steps, inputs),
            _ => {
                return Err(format!(
                    "its input has shape {x:?}; the number of steps must be known (`--dim`), and rank 3"
                ));
            }
        };
        if !(1..=MOST_STEPS).contains(&steps) {
            return Err(format!("a sequence of {steps} steps; 1 to {MOST_STEPS} can be unrolled"));
        }
        full(graph, node, steps)?;
        let weights = |i: usize, what: &str| {
            let tensor = node.input(i).and_then(|name| graph.initializers.get(name));
            tensor.filter(|tensor| tensor.dtype.is_float()).ok_or_else(|| format!("{what} must be float constants"))
        };
        let (w, r) = (weights(1, "weights W")?, weights(2, "weights R")?);
        let (count, gates) = (reversed.len(), kind.gates());
        let hidden = r.shape.get(2).copied().unwrap_or(0);
        if w.shape != [count, gates * hidden, inputs] || r.shape != [count, gates * hidden, hidden] || hidden == 0 {
            return Err(format!(
                "weights of shapes {:?} and {:?} do not fit {count} direction(s), {gates} gate(s) and {inputs} input(s)",
                w.shape, r.shape
            ));
        }
        let b = if node.input(3).is_some() { Some(weights(3, "biases B")?) } else { None };
        if b.is_some_and(|b| b.shape != [count, 2 * gates * hidden]) {
            return Err("its biases B have another shape than [directions, 2 · gates · hidden]".into());
        }
        for i in [5, 6] {
            initial(graph, node, i)?;
        }
        let part = |tensor: &Tensor, d: usize| {
            let (values, len) = (tensor.to_f32(), tensor.len() / count);
            values.get(d * len..(d + 1) * len).unwrap_or_default().to_vec()
        };
        let directions = reversed.iter().enumerate().map(|(d, &reverse)| {
            let mut input_bias = b.map_or_else(|| vec![0.0; 2 * gates * hidden], |b| part(b, d));
            let state_bias = input_bias.split_off(gates * hidden);
            let bias = [input_bias, state_bias];
            let activation = activation(node, kind, d)?;
            Ok(Direction { reverse, input: part(w, d), recurrent: part(r, d), bias, activation })
        });
        Ok(Self { kind, hidden, steps, batch_first, directions: directions.collect::<Result<_, String>>()? })
    }
}

/// The lengths of the sequences must be absent, or constant and those of the whole input.
fn full(graph: &Graph, node: &Node, steps: usize) -> Result<(), String> {
    let Some(name) = node.input(4) else { return Ok(()) };
    match graph.initializers.get(name) {
        Some(lengths) if lengths.to_i64().iter().all(|&length| length == steps as i64) => Ok(()),
        _ => Err(format!("sequence_lens (`{name}`) must be absent, or constant and {steps} throughout")),
    }
}

/// A constant initial state must be zero: others are computed or given.
fn initial(graph: &Graph, node: &Node, i: usize) -> Result<(), String> {
    let constant = node.input(i).and_then(|name| graph.initializers.get(name));
    match constant.is_some_and(|tensor| tensor.to_f32().iter().any(|&x| x != 0.0)) {
        true => Err("a constant initial state other than 0 is not supported; make it an input of the model".into()),
        false => Ok(()),
    }
}

/// The function of an RNN's direction `d`; other cells have those of ONNX.
fn activation(node: &Node, kind: Kind, d: usize) -> Result<&'static str, String> {
    let defaults = kind.activations();
    let listed: &[String] = match node.attrs.get("activations") {
        Some(Attr::Strings(names)) => names.get(d * defaults.len()..).unwrap_or_default(),
        _ => &[],
    };
    if kind == Kind::Rnn {
        let known = ["Tanh", "Relu", "Sigmoid"];
        let name = listed.first().map_or("Tanh", String::as_str);
        return known
            .into_iter()
            .find(|known| known.eq_ignore_ascii_case(name))
            .ok_or_else(|| format!("activation `{name}` is not supported; Tanh, Relu and Sigmoid are"));
    }
    for (name, default) in listed.iter().zip(defaults) {
        if !name.eq_ignore_ascii_case(default) {
            return Err(format!("activation `{name}` is not supported; {} are, in this order", defaults.join(", ")));
        }
    }
    Ok("Tanh")
}

/// Whether a value is zero throughout, whatever the batch: what exporters give where the user gave no state.
pub(super) fn is_zero(graph: &Graph, name: &str) -> bool {
    let zeros = |tensor: &Tensor| tensor.to_f32().iter().all(|&x| x == 0.0);
    let mut name = name;
    loop {
        if let Some(tensor) = graph.initializers.get(name) {
            return zeros(tensor);
        }
        let Some(maker) = maker(graph, Some(name)).map(|index| &graph.nodes[index]) else { return false };
        name = match (maker.op_type.as_str(), maker.input(0)) {
            ("ConstantOfShape", _) => {
                return match maker.attrs.get("value") {
                    Some(Attr::Tensor(tensor)) => zeros(tensor),
                    _ => true,
                };
            }
            (
                "Expand" | "Identity" | "Unsqueeze" | "Squeeze" | "Reshape" | "Cast" | "Tile" | "Transpose" | "Slice",
                Some(input),
            ) => input,
            _ => return false,
        }
    }
}
