//! Tensors of the plan: new ones, the shapes they are seen under, and the model's outputs.

use super::{Error, Issue, Lowered, Lowering, Operand, QParams, Value};
use crate::compile::program::{Named, Place, Program, Record, Storage};
use crate::compile::view::View;

impl Lowering<'_> {
    /// A new tensor in the arena.
    pub(super) fn fresh(&mut self, view: View, q: QParams, range: (i32, i32)) -> Operand {
        let storage = self.program.storage(Storage {
            dtype: q.dtype,
            scale: q.scale,
            zero_point: q.zero_point,
            levels: q.levels,
            len: view.len(),
            place: Place::Arena,
        });
        Operand { storage, dtype: q.dtype, scale: f64::from(q.scale), zero_point: q.zero_point, view, range }
    }

    /// The parameters that an operand's integers mean their values under.
    pub(super) fn params_of(&self, x: &Operand) -> QParams {
        let levels = self.program.storages[x.storage].levels;
        QParams { dtype: x.dtype, scale: x.scale as f32, zero_point: x.zero_point, levels }
    }

    /// A new tensor with the record parameters of another one's storage.
    pub(super) fn fresh_like(&mut self, operand: &Operand, view: View) -> Operand {
        let mut storage = self.program.storages[operand.storage].clone();
        storage.len = view.len();
        storage.place = Place::Arena;
        Operand { storage: self.program.storage(storage), view, ..operand.clone() }
    }

    /// The record under the operand's natural shape.
    pub(super) fn default_record(&mut self, operand: &Operand) -> usize {
        let shape = operand.view.shape();
        let (dims, nchw) = if shape.len() == 4 && operand.view.is_channels_last() {
            (vec![shape[0], shape[2], shape[3], shape[1]], true)
        } else if shape.len() <= 4 && operand.view.is_row_major() {
            (shape, false)
        } else {
            let mut atoms = operand.view.atoms();
            atoms.sort_by_key(|atom| std::cmp::Reverse(atom.stride));
            let dims: Vec<usize> = atoms.iter().map(|atom| atom.size).collect();
            (if dims.len() <= 4 { dims } else { vec![operand.view.len()] }, false)
        };
        self.program.record(Record { storage: operand.storage, dims, nchw })
    }

    /// The record of a graph input or output, which says where its channels lie.
    pub(super) fn interface_record(&mut self, operand: &Operand) -> usize {
        match operand.view.shape()[..] {
            [n, c, l] if operand.view.is_channels_last() && !operand.view.is_row_major() => {
                self.program.record(Record { storage: operand.storage, dims: vec![n, l, c], nchw: true })
            }
            _ => self.default_record(operand),
        }
    }

    /// The record `[rows, k]`, or the natural one if its last axis is `k` already.
    pub(super) fn rows_record(&mut self, operand: &Operand, k: usize) -> usize {
        let natural = self.default_record(operand);
        if self.program.records[natural].dims.last() == Some(&k) {
            return natural;
        }
        let dims = vec![operand.view.len() / k, k];
        self.program.record(Record { storage: operand.storage, dims, nchw: false })
    }

    /// A record with the given dims.
    pub(super) fn shaped_record(&mut self, operand: &Operand, dims: Vec<usize>) -> usize {
        let natural = self.default_record(operand);
        if self.program.records[natural].dims == dims {
            return natural;
        }
        self.program.record(Record { storage: operand.storage, dims, nchw: false })
    }

    /// Brings the graph's outputs into their declared order.
    pub(super) fn finish(mut self, keep: &[String]) -> Result<Program, Error> {
        for output in &self.graph.outputs {
            if matches!(self.values.get(&output.name), Some(Value::Failed)) {
                continue;
            }
            if let Err(reason) = self.output(&output.name) {
                self.issues.push(Issue { node: output.name.clone(), operator: "output".into(), reason });
            }
        }
        self.states()?;
        if !self.issues.is_empty() {
            return Err(Error::Nodes(self.issues));
        }
        for name in keep {
            let refuse = |reason: &str| Error::Output { name: name.clone(), reason: reason.into() };
            let named = self.program.named.iter().find(|named| named.name == *name);
            let Some(named) = named.cloned() else {
                return Err(refuse("the plan holds no such value; it may have been fused into the operator after it"));
            };
            let storage = &self.program.storages[named.storage];
            if storage.place != Place::Arena {
                return Err(refuse("it is a constant"));
            }
            let operand = Operand {
                storage: named.storage,
                dtype: storage.dtype,
                scale: named.scale,
                zero_point: named.zero_point,
                view: named.view,
                range: storage.levels,
            };
            let record = self.default_record(&operand);
            self.program.outputs.push(record);
        }
        Ok(self.program)
    }

    pub(super) fn output(&mut self, name: &str) -> Lowered<()> {
        let mut operand = self.operand(name)?;
        let has_channels = matches!(operand.view.shape().len(), 3 | 4);
        if !(operand.view.is_row_major() || has_channels && operand.view.is_channels_last()) {
            let shape = operand.view.shape();
            operand = self.arranged(&operand, View::row_major(&shape), name)?;
        }
        if f64::from(self.program.storages[operand.storage].scale) != operand.scale {
            // A scalar factor was left to the scale: give the output a record that says so.
            let q = self.params_of(&operand);
            operand = self.copied(&operand, q, name)?;
        }
        // Elements keep their order; of more than four axes a record tells no shape.
        let record = self.interface_record(&operand);
        self.program.outputs.push(record);
        self.program.named.push(Named {
            name: name.to_owned(),
            storage: operand.storage,
            view: operand.view.clone(),
            scale: operand.scale,
            zero_point: operand.zero_point,
        });
        Ok(())
    }
}
