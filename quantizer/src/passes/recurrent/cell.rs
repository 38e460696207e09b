//! The steps of each kind of cell, and what is made of their outputs.
//!
//! The formulas are those of the ONNX operators LSTM, GRU and RNN. Products with the state are left out in a first step
//! whose state is zero.

use super::layer::{Direction, Kind, Layer, is_zero};
use super::steps::Steps;
use crate::graph::{Attr, Graph, Node, Tensor};

/// What no value reaches, and no exporter writes where it means that there is no bound.
const NO_BOUND: f32 = 1e30;

/// A state between two steps.
#[derive(Clone)]
struct State {
    /// In full width.
    full: String,
    /// As products with weights read it, in 8 bits.
    narrow: String,
}

/// What a direction leaves.
struct Outputs {
    /// In the order of time.
    hidden: Vec<String>,
    last: State,
    cell: Option<String>,
}

/// Replaces a node by its steps.
pub(super) fn unroll(graph: &Graph, node: &Node, layer: &Layer) -> Steps {
    let mut steps = Steps::new(graph, &node.name);
    let count = layer.directions.len();
    let mut outputs = Vec::new();
    for (d, direction) in layer.directions.iter().enumerate() {
        let mut cell = Cell { steps: &mut steps, layer, direction, prefix: if d == 0 { "" } else { "reverse/" } };
        let mut initial = |i: usize, what: &str| {
            let name = node.input(i).filter(|name| !is_zero(graph, name))?;
            let axis = usize::from(layer.batch_first);
            let label = cell.name(what);
            Some(cell.steps.slice(&label, name, axis, d))
        };
        let (hidden, memory) = (initial(5, "initial_h"), initial(6, "initial_c"));
        outputs.push(cell.run(node.inputs[0].as_str(), hidden, memory));
        steps.untie();
    }
    let used = |i: usize| node.outputs.get(i).filter(|name| graph.is_read(name)).cloned();
    let time = usize::from(layer.batch_first);
    if let Some(name) = used(0) {
        let directions: Vec<String> = outputs
            .iter()
            .enumerate()
            .map(|(d, outputs)| {
                // [T, 1, N, H], or [N, T, 1, H].
                let each = outputs.hidden.iter().enumerate();
                let parts: Vec<String> = each
                    .map(|(t, h)| steps.unsqueeze(&format!("y{d}_{t}"), h, if time == 0 { &[0, 1] } else { &[1, 2] }))
                    .collect();
                steps.concat(&format!("y{d}"), &parts, time)
            })
            .collect();
        let joined = steps.concat("y", &directions, time + 1);
        steps.rename(&joined, &name);
    }
    for (i, what) in [(1, "y_h"), (2, "y_c")] {
        let Some(name) = used(i) else { continue };
        let values: Vec<String> = outputs
            .iter()
            .map(|outputs| match (i, &outputs.cell) {
                (1, _) if is_passed_out(graph, &name) => outputs.last.full.clone(),
                (2, Some(cell)) => cell.clone(),
                _ => outputs.last.narrow.clone(),
            })
            .collect();
        let parts: Vec<String> = values
            .iter()
            .enumerate()
            .map(|(d, value)| steps.unsqueeze(&format!("{what}_{d}"), value, &[time as i64]))
            .collect();
        let joined = if count == 1 { parts[0].clone() } else { steps.concat(what, &parts, time) };
        steps.rename(&joined, &name);
    }
    steps
}

/// Whether nothing but outputs of the graph is made of a value, and so it need not be narrow.
fn is_passed_out(graph: &Graph, name: &str) -> bool {
    graph.nodes.iter().filter(|node| node.inputs.iter().any(|input| input == name)).all(|node| {
        let moves =
            matches!(node.op_type.as_str(), "Squeeze" | "Unsqueeze" | "Reshape" | "Transpose" | "Identity" | "Flatten");
        moves && is_passed_out(graph, node.output())
    })
}

/// One direction in the making.
struct Cell<'a> {
    steps: &'a mut Steps,
    layer: &'a Layer,
    direction: &'a Direction,
    prefix: &'static str,
}

impl Cell<'_> {
    fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn run(&mut self, x: &str, hidden: Option<String>, memory: Option<String>) -> Outputs {
        let (steps, time) = (self.layer.steps, usize::from(self.layer.batch_first));
        let mut state = hidden.map(|full| self.enter(full));
        let mut cell = memory.inspect(|name| self.steps.tie("cell", name, true));
        let mut outputs = vec![String::new(); steps];
        for step in 0..steps {
            let t = if self.direction.reverse { steps - 1 - step } else { step };
            let label = self.name(&format!("x_{t}"));
            let x = self.steps.slice(&label, x, time, t);
            let next = match self.layer.kind {
                Kind::Lstm => {
                    let (next, memory) = self.lstm(t, &x, state.as_ref(), cell.as_deref());
                    cell = Some(memory);
                    next
                }
                Kind::Gru { after_product } => self.gru(t, &x, state.as_ref(), after_product),
                Kind::Rnn => self.rnn(t, &x, state.as_ref()),
            };
            outputs[t].clone_from(&next.narrow);
            state = Some(next);
        }
        let last = state.unwrap_or_else(|| State { full: x.to_owned(), narrow: x.to_owned() });
        Outputs { hidden: outputs, last, cell }
    }

    /// A state that comes from outside, or from the step before.
    fn enter(&mut self, full: String) -> State {
        match self.layer.kind {
            Kind::Gru { .. } => {
                self.steps.tie("state", &full, true);
                let label = self.name("narrowed_initial");
                let narrow = self.narrow(&label, &full);
                self.steps.tie("hidden", &narrow, false);
                State { narrow, full }
            }
            _ => {
                self.steps.tie("hidden", &full, false);
                State { narrow: full.clone(), full }
            }
        }
    }

    /// A wide value for those that read 8 bits.
    fn narrow(&mut self, name: &str, value: &str) -> String {
        let low = self.steps.constant("lowest", Tensor::from_f32(&[], &[-NO_BOUND]));
        let high = self.steps.constant("highest", Tensor::from_f32(&[], &[NO_BOUND]));
        self.steps.node("Clip", name, &[value, &low, &high], &[])
    }

    fn node(&mut self, op: &str, what: &'static str, t: usize, inputs: &[&str]) -> String {
        let name = self.name(&format!("{what}_{t}"));
        let value = self.steps.node(op, &name, inputs, &[]);
        self.steps.tie(what, &value, what == "cell" || what == "state");
        value
    }

    /// The product of a value with the weights of some gates, and their bias.
    fn product(&mut self, what: &'static str, t: usize, value: &str, part: Part<'_>) -> String {
        let (gates, hidden) = (part.gates.len(), self.layer.hidden);
        let depth = part.weights.len() / (self.layer.kind.gates() * hidden);
        let rows = part.gates.start * hidden..part.gates.end * hidden;
        let weights = &part.weights[rows.start * depth..rows.end * depth];
        let label = self.name(&format!("{what}.weight"));
        let weights = self.steps.constant(&label, Tensor::from_f32(&[gates * hidden, depth], weights));
        let label = self.name(&format!("{what}.bias"));
        let bias = part.bias.map(|bias| {
            let values: Vec<f32> = rows.clone().map(|row| bias.iter().map(|bias| bias[row]).sum()).collect();
            self.steps.constant(&label, Tensor::from_f32(&[rows.len()], &values))
        });
        let name = self.name(&format!("{what}_{t}"));
        let inputs: Vec<&str> = [Some(value), Some(weights.as_str()), bias.as_deref()].into_iter().flatten().collect();
        let product = self.steps.node("Gemm", &name, &inputs, &[("transB", Attr::Int(1))]);
        self.steps.tie(what, &product, false);
        product
    }

    /// Gate `gate` of a value `[N, gates · hidden]`.
    fn gate(&mut self, what: &'static str, t: usize, value: &str, [gate, gates]: [usize; 2]) -> String {
        let shape = [0, gates as i64, self.layer.hidden as i64];
        let shape = self.steps.constant(&format!("shape_of_{gates}_gates"), Tensor::from_i64(&[3], &shape));
        let name = self.name(&format!("{what}_all_{t}"));
        let all = self.steps.node("Reshape", &name, &[value, &shape], &[]);
        let name = self.name(&format!("{what}_{t}"));
        self.steps.slice(&name, &all, 1, gate)
    }

    /// Gates `i`, `o`, `f` and candidates `g`, in this order:
    /// `c = f · c + i · g`, `h = o · tanh(c)`.
    fn lstm(&mut self, t: usize, x: &str, state: Option<&State>, memory: Option<&str>) -> (State, String) {
        let (direction, [by_input, by_state]) = (self.direction, [&self.direction.bias[0], &self.direction.bias[1]]);
        let part = Part { weights: &direction.input, gates: 0..4, bias: Some(&[by_input, by_state]) };
        let products = self.product("input", t, x, part);
        let gates = self.with_state(t, products, state.map(|state| state.narrow.as_str()), 0..4, "recurrent");
        self.steps.tie("gates_in", &gates, false);
        let open = self.node("Sigmoid", "gates", t, &[&gates]);
        let candidate = self.gate("candidate_in", t, &gates, [3, 4]);
        let candidate = self.node("Tanh", "candidate", t, &[&candidate]);
        let input_gate = self.gate("input_gate", t, &open, [0, 4]);
        let output_gate = self.gate("output_gate", t, &open, [1, 4]);
        let cell = match memory {
            Some(memory) => {
                let new = self.node("Mul", "new", t, &[&input_gate, &candidate]);
                let forget_gate = self.gate("forget_gate", t, &open, [2, 4]);
                let kept = self.node("Mul", "kept", t, &[&forget_gate, memory]);
                self.node("Add", "cell", t, &[&kept, &new])
            }
            None => self.node("Mul", "cell", t, &[&input_gate, &candidate]),
        };
        let label = self.name(&format!("narrowed_{t}"));
        let narrow = self.narrow(&label, &cell);
        self.steps.tie("narrowed", &narrow, false);
        let squashed = self.node("Tanh", "squashed", t, &[&narrow]);
        let hidden = self.node("Mul", "hidden", t, &[&output_gate, &squashed]);
        (State { narrow: hidden.clone(), full: hidden }, cell)
    }

    /// Gates `z`, `r` and candidates `n`, in this order: `h = (1 − z) · n + z · h`.
    fn gru(&mut self, t: usize, x: &str, state: Option<&State>, after_product: bool) -> State {
        let direction = self.direction;
        let [by_input, by_state] = [&direction.bias[0], &direction.bias[1]];
        let both: &[&Vec<f32>] = &[by_input, by_state];
        let part = |gates, bias| Part { weights: &direction.input, gates, bias: Some(bias) };
        let products = self.product("input", t, x, part(0..2, both));
        let narrow = state.map(|state| state.narrow.clone());
        let gates = self.with_state(t, products, narrow.as_deref(), 0..2, "recurrent");
        self.steps.tie("gates_in", &gates, false);
        let open = self.node("Sigmoid", "gates", t, &[&gates]);
        let update = self.gate("update_gate", t, &open, [0, 2]);
        let only: &[&Vec<f32>] = &[by_input];
        let new = self.product("input_new", t, x, part(2..3, if after_product { only } else { both }));
        let candidate = if after_product {
            let bias = by_state.get(2 * self.layer.hidden..).unwrap_or_default();
            let from = match &narrow {
                Some(narrow) => {
                    let part = Part { weights: &direction.recurrent, gates: 2..3, bias: Some(&[by_state]) };
                    Some(self.product("recurrent_new", t, narrow, part))
                }
                // Of a state that is zero the bias remains.
                None if bias.iter().any(|&b| b != 0.0) => {
                    let label = self.name("recurrent_new.alone");
                    Some(self.steps.constant(&label, Tensor::from_f32(&[bias.len()], bias)))
                }
                None => None,
            };
            match from {
                Some(from) => {
                    let reset = self.gate("reset_gate", t, &open, [1, 2]);
                    let reset = self.node("Mul", "reset", t, &[&reset, &from]);
                    self.node("Add", "candidate_in", t, &[&new, &reset])
                }
                None => new,
            }
        } else {
            let reset = state.map(|state| {
                let reset = self.gate("reset_gate", t, &open, [1, 2]);
                self.node("Mul", "reset", t, &[&reset, &state.full])
            });
            self.with_state(t, new, reset.as_deref(), 2..3, "recurrent_new")
        };
        self.steps.tie("candidates_in", &candidate, false);
        let candidate = self.node("Tanh", "candidate", t, &[&candidate]);
        let one = self.steps.constant("one", Tensor::from_f32(&[], &[1.0]));
        let rest = self.node("Sub", "rest", t, &[&one, &update]);
        let full = match state {
            Some(state) => {
                let new = self.node("Mul", "new", t, &[&rest, &candidate]);
                let kept = self.node("Mul", "kept", t, &[&update, &state.full]);
                self.node("Add", "state", t, &[&kept, &new])
            }
            None => self.node("Mul", "state", t, &[&rest, &candidate]),
        };
        let label = self.name(&format!("hidden_{t}"));
        let narrow = self.narrow(&label, &full);
        self.steps.tie("hidden", &narrow, false);
        State { narrow, full }
    }

    fn rnn(&mut self, t: usize, x: &str, state: Option<&State>) -> State {
        let direction = self.direction;
        let bias: &[&Vec<f32>] = &[&direction.bias[0], &direction.bias[1]];
        let products = self.product("input", t, x, Part { weights: &direction.input, gates: 0..1, bias: Some(bias) });
        let sums = self.with_state(t, products, state.map(|state| state.narrow.as_str()), 0..1, "recurrent");
        self.steps.tie("sums", &sums, false);
        let hidden = self.node(direction.activation, "hidden", t, &[&sums]);
        State { narrow: hidden.clone(), full: hidden }
    }

    /// Products with the input, and those with the state added where there is one.
    fn with_state(
        &mut self,
        t: usize,
        products: String,
        state: Option<&str>,
        gates: std::ops::Range<usize>,
        what: &'static str,
    ) -> String {
        let Some(state) = state else { return products };
        let weights = &self.direction.recurrent;
        let by_state = self.product(what, t, state, Part { weights, gates, bias: None });
        let name = self.name(&format!("{what}_sum_{t}"));
        self.steps.node("Add", &name, &[&products, &by_state], &[])
    }
}

/// Some gates of a product's weights.
struct Part<'a> {
    weights: &'a [f32],
    gates: std::ops::Range<usize>,
    /// Whose sum is the bias.
    bias: Option<&'a [&'a Vec<f32>]>,
}
