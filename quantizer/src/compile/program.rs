//! The plan in the making: storages, tensor records, operators and the pool of constants.

use std::collections::HashMap;

use std::fmt;

use equant_runtime::kernels::{Rows, leads};
use equant_runtime::op::{ConstRef, OpKind, Params};
use equant_runtime::plan::{BuildError, Builder, DType};

use super::view::View;

/// What a constant is, for the memory map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Section {
    Weights,
    Biases,
    Multipliers,
    Tables,
}

/// Constants with duplicates stored once, each at a multiple of 4 bytes.
#[derive(Debug, Default)]
pub(super) struct ConstPool {
    bytes: Vec<u8>,
    known: HashMap<Vec<u8>, u32>,
    sizes: [usize; 4],
}

impl ConstPool {
    /// The place of `data`, stored now or earlier.
    pub(super) fn add(&mut self, section: Section, data: Vec<u8>) -> ConstRef {
        let len = data.len() as u32;
        if let Some(&offset) = self.known.get(&data) {
            return ConstRef { offset, len };
        }
        let offset = self.bytes.len() as u32;
        self.bytes.extend_from_slice(&data);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self.sizes[section as usize] += self.bytes.len() - offset as usize;
        self.known.insert(data, offset);
        ConstRef { offset, len }
    }

    /// i32 values.
    pub(super) fn add_i32(&mut self, section: Section, values: &[i32]) -> ConstRef {
        self.add(section, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    /// All bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes of one section, alignment included.
    pub(super) fn section_len(&self, section: Section) -> usize {
        self.sizes[section as usize]
    }
}

/// Where a storage lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In the arena, at an offset that the planner chooses.
    Arena,
    /// In the constants.
    Const(u32),
}

/// Memory of one tensor, whatever shapes it is seen under.
#[derive(Debug, Clone)]
pub(super) struct Storage {
    pub(super) dtype: DType,
    pub(super) scale: f32,
    pub(super) zero_point: i32,
    /// Lowest and highest value.
    pub(super) levels: (i32, i32),
    pub(super) len: usize,
    pub(super) place: Place,
}

impl Storage {
    /// Bytes taken.
    pub(super) fn bytes(&self) -> usize {
        self.len * self.dtype.size()
    }
}

/// A storage seen under a shape: one tensor record of the plan.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Record {
    pub(super) storage: usize,
    pub(super) dims: Vec<usize>,
    pub(super) nchw: bool,
}

/// Adds an operator to the image: input and output tensors, name.
type Write = Box<dyn Fn(&mut Builder, &[u16], &[u16], Option<&str>) -> Result<u16, BuildError>>;

/// One operator.
pub(super) struct Op {
    pub(super) kind: OpKind,
    /// The words of its parameters.
    pub(super) params: Vec<u32>,
    /// Record indices.
    pub(super) inputs: Vec<usize>,
    /// Record index.
    pub(super) output: usize,
    /// Record index of memory that the operator needs while it runs.
    pub(super) work: Option<usize>,
    pub(super) write: Write,
    pub(super) name: String,
    pub(super) macs: u64,
    /// Positions in `inputs` whose memory the output may take over exactly.
    pub(super) in_place: Vec<usize>,
    /// Bytes that the output must begin before its one input, or else behind it, to lie over it.
    pub(super) leads: Option<[usize; 2]>,
}

impl Op {
    /// The records of its outputs in the image: what it makes, and what it works in.
    pub(super) fn outputs(&self) -> impl Iterator<Item = usize> {
        [Some(self.output), self.work].into_iter().flatten()
    }
}

impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Op").field("kind", &self.kind).field("name", &self.name).finish_non_exhaustive()
    }
}

/// A named ONNX value and where it lies.
#[derive(Debug, Clone)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) storage: usize,
    pub(super) view: View,
    pub(super) scale: f64,
    pub(super) zero_point: i32,
}

/// Everything the lowering makes.
#[derive(Debug, Default)]
pub(super) struct Program {
    pub(super) storages: Vec<Storage>,
    pub(super) records: Vec<Record>,
    pub(super) ops: Vec<Op>,
    pub(super) consts: ConstPool,
    /// Records of the model's inputs.
    pub(super) inputs: Vec<usize>,
    /// Records of the model's outputs.
    pub(super) outputs: Vec<usize>,
    /// First and last of operators that are repeated, the Repeat itself being the last.
    pub(super) loops: Vec<(usize, usize)>,
    /// Records of what is kept from run to run.
    pub(super) states: Vec<usize>,
    pub(super) named: Vec<Named>,
    /// What could be better about the model, in words.
    pub(super) notes: Vec<String>,
}

impl Program {
    /// A new storage.
    pub(super) fn storage(&mut self, storage: Storage) -> usize {
        self.storages.push(storage);
        self.storages.len() - 1
    }

    /// The record of a storage under a shape, made once.
    pub(super) fn record(&mut self, record: Record) -> usize {
        match self.records.iter().position(|known| *known == record) {
            Some(index) => index,
            None => {
                self.records.push(record);
                self.records.len() - 1
            }
        }
    }

    /// Appends an operator.
    pub(super) fn op<P: Params + Copy + 'static>(
        &mut self,
        params: &P,
        inputs: Vec<usize>,
        output: usize,
        name: &str,
        macs: u64,
    ) {
        let params = *params;
        let mut words = Vec::new();
        params.write(&mut |word| words.push(word));
        let write: Write =
            Box::new(move |builder, inputs, outputs, name| builder.op(&params, inputs, outputs, macs, name));
        let in_place = match P::KIND {
            // The kernels that read an element, or a row, before they write it.
            OpKind::Add
            | OpKind::Mul
            | OpKind::Div
            | OpKind::Lut
            | OpKind::Requantize
            | OpKind::Softmax
            | OpKind::LogSoftmax
            | OpKind::LayerNorm
            | OpKind::RmsNorm => (0..inputs.len()).filter(|&i| self.may_take_over(inputs[i], output)).collect(),
            _ => Vec::new(),
        };
        let (kind, params, name, work, leads) = (P::KIND, words, name.to_owned(), None, None);
        self.ops.push(Op { kind, params, inputs, output, work, write, name, macs, in_place, leads });
    }

    /// The sizes of the first input of the last operator.
    pub(super) fn input_dims(&self) -> Option<&[usize]> {
        Some(&self.records[*self.ops.last()?.inputs.first()?].dims)
    }

    /// Lets the last operator write its output over its input, in bands of `height` of these rows.
    pub(super) fn over(&mut self, rows: Rows, height: usize) {
        let Some(op) = self.ops.last_mut() else { return };
        let [x, y] = [op.inputs[0], op.output].map(|record| &self.storages[self.records[record].storage]);
        // Bands are of one image.
        if x.place == Place::Arena && x.len % rows.input == 0 && y.len % rows.output == 0 {
            op.leads = leads(rows, [x.bytes() / rows.input, y.bytes() / rows.output], height);
        }
    }

    /// Gives the last operator memory to work in.
    pub(super) fn work(&mut self, record: usize) {
        if let Some(op) = self.ops.last_mut() {
            op.work = Some(record);
        }
    }

    /// Whether an element-wise kernel may write `output` over `input`.
    fn may_take_over(&self, input: usize, output: usize) -> bool {
        let a = &self.storages[self.records[input].storage];
        let b = &self.storages[self.records[output].storage];
        a.place == Place::Arena && a.dtype == b.dtype && a.len == b.len
    }
}
