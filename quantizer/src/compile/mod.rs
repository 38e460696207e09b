//! From a QDQ graph to a plan: lowering, memory planning, packing, emission.

pub mod cost;
mod emit;
mod error;
mod limits;
mod lower;
mod map;
mod memory;
mod planner;
mod program;
mod roll;
#[cfg(test)]
mod tests;
mod view;

use equant_runtime::op::OpKind;
use equant_runtime::plan::DType;

pub use error::{Error, Issue, Reason};
pub use map::{Flash, MemoryMap, OperatorRow, multiplies};

use crate::graph::Graph;
use program::{Place, Program};

/// Choices of the compiler.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Leave operator names out of the image.
    pub strip_names: bool,
    /// Values to keep readable after the run, as further outputs of the plan.
    pub keep: Vec<String>,
    /// Let outputs lie over inputs, a few rows before or behind them, where that makes the arena smaller. Kernels then
    /// work in bands of rows: on microcontrollers that takes hardly longer, on cores with vectors it does.
    pub small_arena: bool,
}

/// A finished plan.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// The image.
    pub image: Vec<u8>,
    /// Where flash and memory go.
    pub map: MemoryMap,
    /// The operator kinds used, sorted, each once.
    pub operators: Vec<OpKind>,
    /// The ONNX values that live in the plan.
    pub values: Vec<PlanValue>,
    /// What could be better about the model, for a person: 4-bit weights that had to be stored in 8 bits.
    pub notes: Vec<String>,
}

/// An ONNX value of the plan: enough to read it from the arena after its operator has run.
///
/// A clamp or quantization that was fused into the operator has acted on it already, and a value in float that only
/// feeds a quantized sum is clamped to what that sum tells apart.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanValue {
    /// The value's name. Several names may share memory.
    pub name: String,
    /// Index of the operator that makes it; `None` for a graph input.
    pub operator: Option<usize>,
    /// First byte in the arena.
    pub offset: usize,
    /// Element type.
    pub dtype: DType,
    /// Real value of one step.
    pub scale: f64,
    /// Zero point.
    pub zero_point: i32,
    /// Its ONNX shape, batch 1.
    pub shape: Vec<usize>,
    /// The position in memory, in elements, of every element in the order of the ONNX shape.
    pub positions: Vec<usize>,
}

impl Compiled {
    /// The line that registers exactly the operators this plan needs, to paste into firmware.
    pub fn operator_set(&self, name: &str) -> String {
        let kinds: Vec<&str> = self.operators.iter().map(|kind| kind.name()).collect();
        format!("equant_runtime::operator_set! {{ pub struct {name} {{ {} }} }}", kinds.join(", "))
    }
}

/// Compiles a prepared QDQ graph ([`crate::passes::prepare_quantized`]).
///
/// # Errors
///
/// All nodes that cannot be compiled, with reasons.
pub fn compile(graph: &Graph, options: &Options) -> Result<Compiled, Error> {
    limits::check(graph)?;
    let mut program = lower::lower(graph, &options.keep)?;
    roll::roll(&mut program);
    let memory = memory::plan(&program, options.small_arena);
    let image = emit::image(&program, &memory, options.strip_names)?;
    let map = MemoryMap::new(&program, &memory, &image);
    let mut operators: Vec<OpKind> = program.ops.iter().map(|op| op.kind).collect();
    operators.sort_unstable();
    operators.dedup();
    Ok(Compiled { values: values(&program, &memory.offsets), image, map, operators, notes: program.notes })
}

fn values(program: &Program, offsets: &[usize]) -> Vec<PlanValue> {
    let in_arena = program.named.iter().filter(|named| program.storages[named.storage].place == Place::Arena);
    let mut values: Vec<PlanValue> = Vec::new();
    for named in in_arena {
        let value = PlanValue {
            name: named.name.clone(),
            operator: program.ops.iter().position(|op| program.records[op.output].storage == named.storage),
            offset: offsets[named.storage],
            dtype: program.storages[named.storage].dtype,
            scale: named.scale,
            zero_point: named.zero_point,
            shape: named.view.shape(),
            positions: named.view.positions(),
        };
        // A value brought into another form stays readable in its first one.
        if !values.iter().any(|known| known.name == value.name) {
            values.push(value);
        }
    }
    values
}
