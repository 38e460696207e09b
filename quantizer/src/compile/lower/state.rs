//! Outputs that are inputs of the next run: the last thing a run does is to copy them there.

use equant_runtime::op::StateParams;

use super::{Error, Issue, Lowered, Lowering, Reason};
use crate::graph::state;

impl Lowering<'_> {
    /// Carries every state over; what is left are the inputs that are given.
    pub(super) fn states(&mut self) -> Result<(), Error> {
        let pairs = state::pairs(self.graph).map_err(Error::Prepare)?;
        state::check(self.graph, &pairs).map_err(Error::Prepare)?;
        for pair in pairs {
            let position = self.graph.inputs.iter().position(|input| input.name == pair.input);
            // A state that nothing reads is none.
            let Some(target) = position.and_then(|position| self.inputs.remove(&position)) else { continue };
            if let Err(reason) = self.carry(&pair, target) {
                self.issues.push(Issue { node: pair.output, operator: "state".into(), reason });
            }
        }
        self.program.inputs = self.inputs.values().copied().collect();
        Ok(())
    }

    fn carry(&mut self, pair: &state::Pair, target: usize) -> Lowered<()> {
        let read = self.quantized.iter().find(|((name, _), _)| *name == pair.input).map(|(_, operand)| operand.clone());
        let to = read.ok_or_else(|| Reason::InputNotQuantized(pair.input.clone()))?;
        let from = self.operand(&pair.output)?;
        let mut from = self.arranged(&from, to.view.clone(), &pair.output)?;
        let (known, needed) = (self.params_of(&from), self.params_of(&to));
        if (known.dtype, known.scale, known.zero_point) != (needed.dtype, needed.scale, needed.zero_point) {
            return Err(Reason::Quantization {
                value: pair.output.clone(),
                reason: format!(
                    "it is the state `{}` of the next run, and the two have different scales or zero points; quantize the \
                     float model with --state {}={}",
                    pair.input, pair.output, pair.input
                ),
            });
        }
        if self.program.storages[from.storage].scale != needed.scale {
            // A scalar factor was left to the scale: a tensor that says so.
            from = self.copied(&from, needed, &pair.output)?;
        }
        let input = self.shaped_record(&from, self.program.records[target].dims.clone());
        let params = StateParams { initial: to.zero_point };
        self.program.op(&params, vec![input], target, &pair.output, to.view.len() as u64);
        self.program.states.push(target);
        Ok(())
    }
}
