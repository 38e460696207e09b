//! The application.

use embedded_hal::digital::OutputPin;
use equant_runtime::op::OpKind;
use equant_runtime::operator::OperatorSet;
use equant_runtime::plan::DType;
use equant_runtime::session::Profile;
use equant_runtime::{Plan, Session};

use crate::board::Board;
use crate::classify::{self, MAX_CLASSES, Scores};
use crate::error::Error;
use crate::images::{self, Element, Images, Input};
use crate::profile::Layers;
use crate::report::{Event, Log};

/// Classifies every image, then profiles one inference layer by layer, and exits.
pub fn main<O: OperatorSet, B: Board>(mut board: B, plan: &[u8], images: &[u8], arena: &mut [u8]) -> ! {
    let done = run::<O, B>(&mut board, plan, images, arena);
    if let Err(error) = done {
        board.log().log(&Event::Error(error));
    }
    board.exit(done.is_ok())
}

fn run<O: OperatorSet, B: Board>(
    board: &mut B,
    image: &[u8],
    images_file: &[u8],
    arena: &mut [u8],
) -> Result<(), Error> {
    let plan = Plan::<O>::parse(image)?;
    let images = Images::parse(images_file)?;
    if plan.input_count() != 1 || plan.output_count() != 1 {
        return Err(Error::NotAClassifier);
    }
    let mut session = Session::new(plan, arena)?;
    let memory = board.memory();
    board.log().log(&Event::Plan {
        operators: plan.ops().count(),
        plan: image.len(),
        images: images_file.len(),
        arena: plan.arena_len(),
        memory,
    });

    let normalized = plan.ops().last().is_some_and(|op| op.kind == OpKind::Softmax);
    let (mut correct, mut labelled) = (0, 0);
    for (index, item) in images.iter().enumerate() {
        let (input, label) = item?;
        set_input(&mut session, &images, input)?;
        let count = infer(board, &mut session)?;
        let top = classify::top(&scores(&session)?, normalized).ok_or(Error::Classes(0))?;
        labelled += usize::from(label.is_some());
        correct += usize::from(label == Some(top.class));
        board.log().log(&Event::Prediction {
            image: index,
            class: top.class,
            confidence: top.confidence,
            label,
            count,
            unit: B::UNIT,
        });
    }
    board.log().log(&Event::Score { correct, labelled });

    if let Some(item) = images.iter().next() {
        set_input(&mut session, &images, item?.0)?;
        profile(board, &mut session)?;
    }
    Ok(())
}

/// Puts an image into the model's input.
fn set_input<O: OperatorSet>(
    session: &mut Session<'_, '_, O>,
    images: &Images<'_>,
    input: Input<'_>,
) -> Result<(), Error> {
    match input {
        Input::Real(values) => session.quantize_input(0, values)?,
        Input::Quantized(bytes) => {
            let expected = match session.plan().model_input(0).map(|tensor| tensor.dtype) {
                Some(DType::I8) => Element::I8,
                Some(DType::I16) => Element::I16,
                Some(DType::I32) | None => return Err(Error::NotAClassifier),
            };
            let slot = session.input_mut(0)?;
            if images.header().element != expected || slot.len() != bytes.len() {
                return Err(images::Error::Plan.into());
            }
            slot.copy_from_slice(bytes);
        }
    }
    Ok(())
}

/// The dequantized output.
fn scores<O: OperatorSet>(session: &Session<'_, '_, O>) -> Result<Scores, Error> {
    let elements = session.plan().model_output(0).and_then(|tensor| tensor.elements()).unwrap_or(0);
    let mut scores = Scores::new();
    if elements as usize > MAX_CLASSES || scores.resize_default(elements as usize).is_err() {
        return Err(Error::Classes(elements));
    }
    session.dequantize_output(0, &mut scores)?;
    Ok(scores)
}

/// Runs the model between two readings of the counter, with the busy pin high, and returns the cost.
fn infer<O: OperatorSet, B: Board>(board: &mut B, session: &mut Session<'_, '_, O>) -> Result<u64, Error> {
    // An application goes on without its indicator: a pin that cannot be driven is no reason to stop.
    let _ = board.busy().set_high();
    let start = board.ticks();
    let done = run_once(session, &mut equant_runtime::session::NoProfile);
    let ticks = board.ticks().wrapping_sub(start);
    let _ = board.busy().set_low();
    done?;
    Ok(B::count(ticks))
}

/// Kept out of line, so that nothing measured moves past the readings of the counter.
#[inline(never)]
fn run_once<O: OperatorSet, P: Profile>(
    session: &mut Session<'_, '_, O>,
    profile: &mut P,
) -> Result<(), equant_runtime::Error> {
    session.run_profiled(profile)
}

/// Runs the model once and reports the cost of every layer.
fn profile<O: OperatorSet, B: Board>(board: &mut B, session: &mut Session<'_, '_, O>) -> Result<(), Error> {
    let mut layers = Layers::new(&*board);
    run_once(session, &mut layers)?;
    let (counts, missed) = (layers.counts, layers.missed);
    if missed > 0 {
        return Err(Error::Layers);
    }
    let plan = *session.plan();
    let (mut macs, mut sum) = (0u64, 0u64);
    for (index, (op, &count)) in plan.ops().zip(&counts).enumerate() {
        macs += u64::from(op.macs);
        sum += count;
        let name = plan.op_name(&op).unwrap_or("");
        board.log().log(&Event::Layer { index, kind: op.kind.name(), name, macs: op.macs, count, unit: B::UNIT });
    }
    board.log().log(&Event::Layers { macs, count: sum, unit: B::UNIT });
    Ok(())
}
