//! The format: what the builder writes, parsing reads; and every refusal has its reason.

use equant_runtime::op::RequantizeParams;
use equant_runtime::plan::{AlignedBytes, Builder, DType, Plan, Target, TensorRecord};
use equant_runtime::{Error, Session};

fn tensor(dims: [u32; 4], offset: u32) -> TensorRecord {
    TensorRecord { dtype: DType::I8, rank: 4, flags: 0, dims, scale: 0.5, zero_point: 0, offset }
}

/// Doubles every element.
fn doubling() -> AlignedBytes {
    let mut builder = Builder::new(Target::Portable);
    let x = builder.tensor(tensor([1, 1, 1, 3], 0)).unwrap();
    let y = builder.tensor(tensor([1, 1, 1, 3], 4)).unwrap();
    let params = RequantizeParams { mantissa: 1 << 30, shift: -2, clamp: [-128, 127] };
    builder.op(&params, &[x], &[y], 3, Some("double")).unwrap();
    builder.input(x);
    builder.output(y);
    builder.memory(8, 0);
    AlignedBytes::from(&builder.finish().unwrap()[..])
}

#[test]
fn a_built_plan_parses_and_runs() -> Result<(), Error> {
    let image = doubling();
    let plan: Plan<'_> = Plan::parse(&image)?;
    let op = plan.ops().next().unwrap();
    assert_eq!(plan.op_name(&op), Some("double"));
    assert_eq!((op.macs, op.input(0), op.output(0)), (3, Some(0), Some(1)));
    let mut arena = AlignedBytes::zeroed(plan.arena_len());
    let mut session = Session::new(plan, &mut arena)?;
    session.input_mut(0)?.copy_from_slice(&[1, 100, 0xFF]);
    session.run()?;
    assert_eq!(session.output(0)?, [2, 127, 0xFE]);
    Ok(())
}
