//! The typed set of operators an application links.
//!
//! Only the kernels named in [`operator_set!`](crate::operator_set) end up in the binary; a plan that needs another one
//! is refused by [`crate::Plan::parse`] with [`Reason::OperatorNotRegistered`].

use crate::error::Reason;
use crate::op::OpKind;
use crate::plan::{OpView, Plan};

/// One operator kind: how a record is checked, and how it is run.
pub trait Operator {
    /// The kind it serves.
    const KIND: OpKind;

    /// Checks everything that `run` relies on: shapes, dtypes, constants, overlaps and ranges.
    ///
    /// # Errors
    ///
    /// The reason why the record cannot be run.
    fn check(op: &OpView<'_>, plan: &Plan<'_>) -> Result<(), Reason>;

    /// Runs the operator over the arena: `arena[..arena_len]` holds the activations, the rest is scratch.
    ///
    /// # Errors
    ///
    /// [`Reason::IndexOutOfRange`] where inputs hold indices; otherwise never for a record that `check` accepted: kernels
    /// return an error where others would panic.
    fn run(op: &OpView<'_>, plan: &Plan<'_>, arena: &mut [u8]) -> Result<(), Reason>;

    /// As [`Operator::run`], for an operator that runs others: those of the set `O`.
    ///
    /// # Errors
    ///
    /// As [`Operator::run`].
    fn run_in<O: OperatorSet>(op: &OpView<'_>, plan: &Plan<'_>, arena: &mut [u8]) -> Result<(), Reason> {
        Self::run(op, plan, arena)
    }
}

/// A set of operators, made by [`operator_set!`](crate::operator_set).
pub trait OperatorSet {
    /// Checks a record with the operator of its kind.
    ///
    /// # Errors
    ///
    /// [`Reason::OperatorNotRegistered`], or what the operator finds wrong.
    fn check(op: &OpView<'_>, plan: &Plan<'_>) -> Result<(), Reason>;

    /// Runs a record with the operator of its kind.
    ///
    /// # Errors
    ///
    /// As [`Operator::run`].
    fn run(op: &OpView<'_>, plan: &Plan<'_>, arena: &mut [u8]) -> Result<(), Reason>;
}

/// Defines an operator set: `operator_set! { pub struct Resnet8Ops { Conv2d, Add, AvgPool2d, FullyConnected } }`.
///
/// The names are those of the types in [`crate::kernels`]; `equant compile` prints the line a plan needs.
#[macro_export]
macro_rules! operator_set {
    ($(#[$meta:meta])* $vis:vis struct $name:ident { $($op:ident),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy)]
        $vis struct $name;

        impl $crate::operator::OperatorSet for $name {
            fn check(
                op: &$crate::plan::OpView<'_>,
                plan: &$crate::plan::Plan<'_>,
            ) -> Result<(), $crate::error::Reason> {
                match op.kind {
                    $($crate::op::OpKind::$op => <$crate::kernels::$op as $crate::operator::Operator>::check(op, plan),)*
                    #[allow(unreachable_patterns)]
                    _ => Err($crate::error::Reason::OperatorNotRegistered),
                }
            }

            fn run(
                op: &$crate::plan::OpView<'_>,
                plan: &$crate::plan::Plan<'_>,
                arena: &mut [u8],
            ) -> Result<(), $crate::error::Reason> {
                match op.kind {
                    $($crate::op::OpKind::$op => <$crate::kernels::$op as $crate::operator::Operator>::run_in::<Self>(op, plan, arena),)*
                    #[allow(unreachable_patterns)]
                    _ => Err($crate::error::Reason::OperatorNotRegistered),
                }
            }
        }
    };
}

operator_set! {
    /// Every operator of this crate: for hosts, where flash does not matter.
    pub struct AllOperators {
        Conv2d, DepthwiseConv2d, FullyConnected, MatMul, Add, Mul, Lut, Softmax, LayerNorm, AvgPool2d, MaxPool2d,
        Transpose, Concat, Pad, Requantize, Conv2dI4, DepthwiseConv2dI4, FullyConnectedI4, MatMulSoftmax,
        ConvTranspose2d, ConvTranspose2dI4, Take, Div, Resize2d, ArgMax, RmsNorm, MatMulMaskSoftmax, LogSoftmax, Gather,
        State, Repeat,
    }
}
