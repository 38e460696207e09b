//! A prepared graph as a list of differentiable steps.

use std::collections::{BTreeMap, HashMap};

use candle_core::{Device, Tensor as Value};

use super::operator::{self, Operator};
use super::unary::Unary;
use super::{Drop, Error, FakeQuant};
use crate::graph::shape::infer_partial;
use crate::graph::{Graph, Node, Tensor};
use crate::quantize::{Outcome, QParams};

/// A layer whose weights an outcome quantizes.
#[derive(Debug, Clone)]
pub(crate) struct LayerSlot {
    /// The node.
    pub(crate) node: String,
    /// Its float weights, in the model's shape.
    pub(crate) weights: Tensor,
    /// The group that its input is in.
    pub(crate) input: Option<usize>,
    /// Number of outputs.
    pub(crate) outputs: usize,
    /// The output value.
    pub(crate) output: usize,
}

/// A float constant that an outcome may replace: the bias of a layer, added by another node.
#[derive(Debug, Clone)]
pub(crate) struct ShiftSlot {
    /// The node that adds it.
    pub(crate) node: String,
    /// The float values.
    pub(crate) values: Tensor,
    /// The output value.
    pub(crate) output: usize,
}

/// Values that share their quantization.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    /// The values, in graph order.
    pub(crate) values: Vec<String>,
    /// Their quantization in the outcome.
    pub(crate) params: QParams,
    /// What a clamp before each quantization lets through, when all values that are computed have one.
    pub(crate) bounds: Option<(f32, f32)>,
    /// Whether it is not to be changed: probabilities, whose levels are the multiples of 1/256.
    pub(crate) fixed: bool,
}

/// What a program's parameters are in one run.
#[derive(Debug, Clone)]
pub(crate) struct Leaves {
    /// For each layer, its weights.
    pub(crate) weights: Vec<Value>,
    /// For each layer, its bias (zeros where it has none).
    pub(crate) biases: Vec<Value>,
    /// For each shift, its constant.
    pub(crate) shifts: Vec<Value>,
    /// For each group, how it is quantized.
    pub(crate) groups: Vec<Quantizer>,
}

impl Leaves {
    /// All parameters: weights and bias of each layer, the shifts, scale and zero point of each group.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Value> {
        let layers = self.weights.iter().zip(&self.biases).flat_map(|(weights, bias)| [weights, bias]);
        layers.chain(&self.shifts).chain(self.groups.iter().flat_map(|group| [&group.scale, &group.zero_point]))
    }
}

/// How a group is quantized.
#[derive(Debug, Clone)]
pub(crate) struct Quantizer {
    /// The scale, `[1]`.
    pub(crate) scale: Value,
    /// The zero point, `[1]`.
    pub(crate) zero_point: Value,
    /// Lowest integer.
    pub(crate) low: i32,
    /// Highest integer.
    pub(crate) high: i32,
}

/// Consecutive steps that only one value leads out of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Span {
    /// Layers within.
    pub(crate) layers: Vec<usize>,
    /// Shifts within.
    pub(crate) shifts: Vec<usize>,
    /// Groups of which a value is first quantized within.
    pub(crate) groups: Vec<usize>,
    /// The value that leads out.
    pub(crate) end: usize,
}

/// How a run quantizes.
#[derive(Debug, Clone)]
pub(crate) struct Quantization<'l> {
    /// The parameters.
    pub(crate) leaves: &'l Leaves,
    /// Elements left in float at random.
    pub(crate) drop: Option<Drop>,
}

/// Where an operand comes from.
#[derive(Debug, Clone, Copy)]
enum Operand {
    Value(usize),
    Constant(usize),
    /// Weights or bias of a layer, with the float constant.
    Weights(usize, usize),
    Bias(usize, usize),
    Shift(usize, usize),
}

#[derive(Debug, Clone)]
struct Step {
    operator: Operator,
    operands: Vec<Operand>,
    output: usize,
    /// The group that the output is quantized with, where it is not so already.
    quantize: Option<usize>,
}

/// A prepared graph that can be run, in float or quantized, on any number of samples at once.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    steps: Vec<Step>,
    constants: Vec<Value>,
    /// For each graph input, its shape for one sample, and the group it is quantized with.
    inputs: Vec<(Vec<usize>, Option<usize>)>,
    /// Values, the graph inputs first.
    names: HashMap<String, usize>,
    shapes: Vec<Vec<usize>>,
    /// Constants among quantized values, with their group.
    quantized_constants: Vec<(usize, usize)>,
    pub(crate) layers: Vec<LayerSlot>,
    pub(crate) shifts: Vec<ShiftSlot>,
    pub(crate) groups: Vec<Group>,
    pub(crate) outputs: Vec<usize>,
}

/// Operators that give elements of their first input (or of all) unchanged, so that quantized inputs make quantized
/// outputs.
const MOVING: [&str; 8] = ["Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity", "Dropout", "MaxPool"];

impl Program {
    /// The program of a prepared graph with the layers and groups of an outcome made for it.
    pub(crate) fn new(graph: &Graph, outcome: &Outcome) -> Result<Self, Error> {
        Builder::new(graph, outcome)?.build()
    }

    /// Index of a value.
    pub(crate) fn value(&self, name: &str) -> Option<usize> {
        self.names.get(name).copied()
    }

    /// The shape of a value for one sample.
    pub(crate) fn shape(&self, value: usize) -> &[usize] {
        &self.shapes[value]
    }

    /// Number of values.
    pub(crate) fn values(&self) -> usize {
        self.shapes.len()
    }

    /// Elements of the largest value for one sample.
    pub(crate) fn largest(&self) -> usize {
        self.shapes.iter().map(|shape| shape.iter().product()).max().unwrap_or(1)
    }

    /// The shapes of the graph inputs for one sample.
    pub(crate) fn input_shapes(&self) -> impl Iterator<Item = &[usize]> {
        self.inputs.iter().map(|(shape, _)| shape.as_slice())
    }

    /// The values worth comparing with those of the float model: where quantization takes place and where branches join.
    /// Graph outputs are not among them.
    pub(crate) fn features(&self) -> Vec<usize> {
        let of = |step: &Step| step.quantize.is_some() || matches!(step.operator, Operator::Add);
        self.steps
            .iter()
            .filter(|step| of(step))
            .map(|step| step.output)
            .filter(|v| !self.outputs.contains(v))
            .collect()
    }

    /// The program in parts, at values that everything after depends on alone: residual blocks, or single layers where
    /// there are none. Each part holds a layer; the last one ends at the first output.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let mut last_use = vec![0; self.shapes.len()];
        for (i, step) in self.steps.iter().enumerate() {
            for operand in &step.operands {
                if let Operand::Value(value) = operand {
                    last_use[*value] = i;
                }
            }
        }
        self.outputs.iter().for_each(|&output| last_use[output] = usize::MAX);
        let first = self.inputs.len();
        let mut done = Vec::new();
        // What belongs to the span that is open, and to the one after the value where it could end.
        let (mut open, mut next) = (Span::default(), Span::default());
        let mut end: Option<usize> = None;
        open.groups.extend(self.inputs.iter().filter_map(|(_, group)| *group));
        let mut seen = open.groups.clone();
        for (i, step) in self.steps.iter().enumerate() {
            let layer = step.operands.iter().find_map(|operand| match operand {
                Operand::Weights(layer, _) => Some(*layer),
                _ => None,
            });
            if let (Some(_), Some(value)) = (layer, end.take_if(|_| layer.is_some())) {
                open.end = value;
                done.push(std::mem::replace(&mut open, std::mem::take(&mut next)));
            }
            let part = if end.is_some() { &mut next } else { &mut open };
            part.layers.extend(layer);
            part.shifts.extend(step.operands.iter().filter_map(|operand| match operand {
                Operand::Shift(shift, _) => Some(*shift),
                _ => None,
            }));
            if let Some(group) = step.quantize.filter(|group| !seen.contains(group)) {
                seen.push(group);
                part.groups.push(group);
            }
            let alone = (0..first + i).all(|value| last_use[value] <= i);
            if alone && !open.layers.is_empty() {
                // The later the better: functions after the last layer belong to it.
                open.shifts.append(&mut next.shifts);
                open.groups.append(&mut next.groups);
                end = Some(step.output);
            }
        }
        open.shifts.append(&mut next.shifts);
        open.groups.append(&mut next.groups);
        open.end = self.outputs.first().copied().unwrap_or(0);
        if !open.layers.is_empty() {
            done.push(open);
        }
        done
    }

    /// Runs samples (for each graph input their elements, one after the other) and gives the values `wanted`: in float,
    /// or quantized. A value that is quantized is given so.
    pub(crate) fn run(
        &self,
        inputs: &[Vec<f32>],
        quantization: Option<&Quantization<'_>>,
        wanted: &[usize],
    ) -> Result<Vec<Value>, Error> {
        let mut values: Vec<Option<Value>> = vec![None; self.shapes.len()];
        let mut seed = 0u32;
        let mut quantize = |value: Value, group: Option<usize>, bounds: (f32, f32)| -> Result<Value, Error> {
            let (Some(group), Some(Quantization { leaves, drop })) = (group, quantization) else { return Ok(value) };
            seed = seed.wrapping_add(0x9e37_79b9);
            let Quantizer { scale, zero_point, low, high } = &leaves.groups[group];
            let drop = drop.map(|drop| Drop { seed: drop.seed ^ seed, ..drop });
            let op = FakeQuant { bounds, drop, ..FakeQuant::new(*low, *high) };
            Ok(value.apply_op3(scale, zero_point, op)?)
        };
        const FREE: (f32, f32) = (f32::NEG_INFINITY, f32::INFINITY);
        for (i, ((shape, group), elements)) in self.inputs.iter().zip(inputs).enumerate() {
            let mut shape = shape.clone();
            if let Some(first) = shape.first_mut() {
                *first = elements.len() / shape_len(&self.inputs[i].0).max(1);
            }
            let value = Value::from_slice(elements, shape, &Device::Cpu)?;
            values[i] = Some(quantize(value, *group, FREE)?);
        }
        let mut constants = self.constants.clone();
        for &(constant, group) in &self.quantized_constants {
            constants[constant] = quantize(constants[constant].clone(), Some(group), FREE)?;
        }
        let missing = || Error::Autodiff("a value is read before it is computed".into());
        // Values are numbered in the order in which they are computed.
        let last = wanted.iter().copied().max().unwrap_or(0);
        for step in self.steps.iter().take_while(|step| step.output <= last) {
            let mut operands = Vec::with_capacity(step.operands.len());
            for &operand in &step.operands {
                operands.push(match (operand, quantization) {
                    (Operand::Value(i), _) => values[i].as_ref().ok_or_else(missing)?,
                    (Operand::Weights(layer, _), Some(q)) => &q.leaves.weights[layer],
                    (Operand::Bias(layer, _), Some(q)) => &q.leaves.biases[layer],
                    (Operand::Shift(shift, _), Some(q)) => &q.leaves.shifts[shift],
                    (Operand::Constant(i) | Operand::Weights(_, i) | Operand::Bias(_, i) | Operand::Shift(_, i), _) => {
                        &constants[i]
                    }
                });
            }
            let value = match (&step.operator, step.quantize, quantization) {
                // A clamp and the quantization after it are one operator.
                (Operator::Unary(Unary::Clamp(low, high)), Some(_), Some(_)) => {
                    quantize(operands[0].clone(), step.quantize, (*low, *high))?
                }
                (operator, group, _) => quantize(operator.run(&operands)?, group, FREE)?,
            };
            values[step.output] = Some(value);
        }
        wanted.iter().map(|&i| values.get(i).cloned().flatten().ok_or_else(missing)).collect()
    }
}

fn shape_len(shape: &[usize]) -> usize {
    shape.iter().product()
}

/// The integers of a group.
pub(crate) fn levels(params: QParams) -> (i32, i32) {
    params.dtype.quantized_range().unwrap_or((0, 255))
}

struct Builder<'g> {
    graph: &'g Graph,
    outcome: &'g Outcome,
    program: Program,
    /// Constants by name.
    constants: BTreeMap<&'g str, usize>,
    group_of: BTreeMap<&'g str, usize>,
}

impl<'g> Builder<'g> {
    fn new(graph: &'g Graph, outcome: &'g Outcome) -> Result<Self, Error> {
        let program = Program {
            steps: Vec::new(),
            constants: Vec::new(),
            inputs: Vec::new(),
            names: HashMap::new(),
            shapes: Vec::new(),
            quantized_constants: Vec::new(),
            layers: Vec::new(),
            shifts: Vec::new(),
            groups: Vec::new(),
            outputs: Vec::new(),
        };
        let mut builder = Self { graph, outcome, program, constants: BTreeMap::new(), group_of: BTreeMap::new() };
        builder.find_groups()?;
        Ok(builder)
    }

    /// Values joined by operators that move elements share a group, if they are quantized alike.
    fn find_groups(&mut self) -> Result<(), Error> {
        let graph = self.graph;
        let mut values: Vec<&str> = graph.inputs.iter().map(|input| input.name.as_str()).collect();
        values.extend(graph.nodes.iter().flat_map(|node| &node.outputs).map(String::as_str));
        values.extend(graph.initializers.keys().map(String::as_str));
        values.retain(|value| self.outcome.activations.contains_key(*value));
        if let Some(stranger) = self.outcome.activations.keys().find(|name| !values.contains(&name.as_str())) {
            return Err(Error::Mismatch(stranger.clone()));
        }
        let index: HashMap<&str, usize> = values.iter().enumerate().map(|(i, &value)| (value, i)).collect();
        let mut leader: Vec<usize> = (0..values.len()).collect();
        let find = |leader: &[usize], mut i: usize| {
            while leader[i] != i {
                i = leader[i];
            }
            i
        };
        for node in &graph.nodes {
            let sources = match node.op_type.as_str() {
                "Concat" => &node.inputs[..],
                op if MOVING.contains(&op) || matches!(op, "Pad" | "Slice") => node.inputs.get(..1).unwrap_or_default(),
                _ => &[],
            };
            for source in sources {
                let (Some(&a), Some(&b)) = (index.get(source.as_str()), index.get(node.output())) else { continue };
                if self.outcome.activations.get(source) == self.outcome.activations.get(node.output()) {
                    let (a, b) = (find(&leader, a), find(&leader, b));
                    leader[a.max(b)] = a.min(b);
                }
            }
        }
        let mut groups: BTreeMap<usize, usize> = BTreeMap::new();
        for (i, &value) in values.iter().enumerate() {
            let leader = find(&leader, i);
            let params = self.outcome.activations[value];
            let group = *groups.entry(leader).or_insert_with(|| {
                self.program.groups.push(Group { values: Vec::new(), params, bounds: None, fixed: false });
                self.program.groups.len() - 1
            });
            self.program.groups[group].values.push(value.to_owned());
            self.group_of.insert(value, group);
        }
        Ok(())
    }

    fn add_value(&mut self, name: &'g str, shape: Vec<usize>) -> usize {
        let index = self.program.shapes.len();
        self.program.shapes.push(shape);
        self.program.names.insert(name.to_owned(), index);
        index
    }

    fn constant(&mut self, name: &'g str, tensor: &Tensor) -> Result<usize, Error> {
        if let Some(&known) = self.constants.get(name) {
            return Ok(known);
        }
        let index = self.add_constant(tensor.to_f32(), &tensor.shape)?;
        self.constants.insert(name, index);
        if let Some(&group) = self.group_of.get(name) {
            self.program.quantized_constants.push((index, group));
        }
        Ok(index)
    }

    fn add_constant(&mut self, values: Vec<f32>, shape: &[usize]) -> Result<usize, Error> {
        self.program.constants.push(Value::from_vec(values, shape, &Device::Cpu)?);
        Ok(self.program.constants.len() - 1)
    }

    fn build(mut self) -> Result<Program, Error> {
        let graph = self.graph;
        let shapes = infer_partial(graph, 1);
        let shape_of = |name: &str| shapes.types.get(name).map(|kind| kind.shape.clone()).unwrap_or_default();
        for input in &graph.inputs {
            let shape = shape_of(&input.name);
            self.add_value(&input.name, shape.clone());
            self.program.inputs.push((shape, self.group_of.get(input.name.as_str()).copied()));
        }
        for node in &graph.nodes {
            let operator = operator::of(graph, &shapes, node)?;
            let output = self.add_value(node.output(), shape_of(node.output()));
            let operands = self.operands(node, &operator, output)?;
            let quantize = self.group_of.get(node.output()).copied().filter(|group| {
                // Elements that are moved within a group are quantized already.
                let moved = MOVING.contains(&node.op_type.as_str());
                !(moved && node.input(0).and_then(|name| self.group_of.get(name)) == Some(group))
            });
            self.program.steps.push(Step { operator, operands, output, quantize });
        }
        for output in &graph.outputs {
            let known = self.program.value(&output.name);
            self.program.outputs.push(known.ok_or_else(|| Error::Mismatch(output.name.clone()))?);
        }
        if let Some(stranger) =
            self.outcome.layers.keys().find(|name| !self.program.layers.iter().any(|l| l.node == **name))
        {
            return Err(Error::Mismatch(stranger.clone()));
        }
        self.find_bounds();
        Ok(self.program)
    }

    fn operands(&mut self, node: &'g Node, operator: &Operator, output: usize) -> Result<Vec<Operand>, Error> {
        let is_layer = self.outcome.layers.contains_key(&node.name);
        let mut operands = Vec::new();
        // Parameters of these operators are part of them.
        let count = match operator {
            Operator::Conv(_) | Operator::ConvTranspose(_) | Operator::Linear(_) => 3,
            Operator::Concat(_) => node.inputs.len(),
            Operator::Product | Operator::Shift | Operator::Add | Operator::Sub | Operator::Mul | Operator::Div => 2,
            _ => 1,
        };
        for name in node.inputs.iter().take(count) {
            let operand = match (self.program.value(name), self.graph.initializers.get(name)) {
                (Some(value), _) => Operand::Value(value),
                (None, Some(tensor)) => Operand::Constant(self.constant(name, tensor)?),
                (None, None) if name.is_empty() => continue,
                (None, None) => return Err(Error::Mismatch(name.clone())),
            };
            operands.push(operand);
        }
        if let Operator::Affine(..) | Operator::Negated(_) | Operator::Unary(Unary::Clamp(..)) = operator {
            // The number may come first.
            if let (Operand::Constant(_), Some(second)) = (operands[0], node.input(1)) {
                let value = self.program.value(second).ok_or_else(|| Error::Mismatch(second.to_owned()))?;
                operands[0] = Operand::Value(value);
            }
        }
        match operator {
            Operator::Conv(_) | Operator::ConvTranspose(_) | Operator::Linear(_) => {
                let outputs = match operator {
                    Operator::Conv(conv) => conv.outputs,
                    Operator::ConvTranspose(conv) => conv.outputs(),
                    Operator::Linear(linear) => linear.outputs,
                    _ => 0,
                };
                if operands.len() < 3 {
                    operands.push(Operand::Constant(self.add_constant(vec![0.0; outputs], &[outputs])?));
                }
                if let (true, [_, Operand::Constant(weights), Operand::Constant(bias)]) = (is_layer, &operands[..]) {
                    let (weights, bias) = (*weights, *bias);
                    self.layer(node, outputs, output)?;
                    let layer = self.program.layers.len() - 1;
                    operands[1] = Operand::Weights(layer, weights);
                    operands[2] = Operand::Bias(layer, bias);
                }
            }
            Operator::Shift => {
                if let [Operand::Constant(_), other] = operands[..] {
                    operands = vec![other, operands[0]];
                }
                if let (Operand::Constant(constant), Some(values)) =
                    (operands[1], node.inputs.iter().find_map(|name| self.graph.initializers.get(name)))
                {
                    let shift = self.program.shifts.len();
                    let slot = ShiftSlot { node: node.name.clone(), values: values.clone(), output };
                    self.program.shifts.push(slot);
                    operands[1] = Operand::Shift(shift, constant);
                }
            }
            _ => {}
        }
        Ok(operands)
    }

    fn layer(&mut self, node: &Node, outputs: usize, output: usize) -> Result<(), Error> {
        let input = node.input(0).and_then(|name| self.group_of.get(name)).copied();
        let weights = node.input(1).and_then(|name| self.graph.initializers.get(name)).cloned();
        let weights = weights.ok_or_else(|| Error::Mismatch(node.name.clone()))?;
        self.program.layers.push(LayerSlot { node: node.name.clone(), weights, input, outputs, output });
        Ok(())
    }

    /// The clamps before quantizations.
    fn find_bounds(&mut self) {
        let mut bounds: Vec<Option<(f32, f32)>> = vec![None; self.program.groups.len()];
        let mut free = vec![false; self.program.groups.len()];
        let inputs = self.program.inputs.iter().filter_map(|(_, group)| *group);
        for group in inputs.chain(self.program.quantized_constants.iter().map(|&(_, group)| group)) {
            free[group] = true;
        }
        for step in &self.program.steps {
            let Some(group) = step.quantize else { continue };
            self.program.groups[group].fixed |= matches!(step.operator, Operator::Softmax(_));
            match step.operator {
                Operator::Unary(Unary::Clamp(low, high)) => {
                    let (l, h) = bounds[group].unwrap_or((low, high));
                    bounds[group] = Some((l.min(low), h.max(high)));
                }
                _ => free[group] = true,
            }
        }
        for ((group, bounds), free) in self.program.groups.iter_mut().zip(bounds).zip(free) {
            group.bounds = bounds.filter(|_| !free);
        }
    }
}
