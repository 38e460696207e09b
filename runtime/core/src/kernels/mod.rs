//! The integer arithmetic of each operator, one file per operator.
//!
//! Each file holds the operator type (checks and dispatch), its portable kernel and, where weights are
//! laid out specially, their packing. `reference` holds the plainest possible form of every kernel,
//! never optimised, which the conformance suite compares everything with.

mod add;
mod avg_pool2d;
mod binary;
mod channels;
mod conv2d;
mod depthwise_conv2d;
mod fully_connected;
mod memory;
mod requantize;
mod window;

pub use add::Add;
pub use avg_pool2d::AvgPool2d;
pub use conv2d::{Conv2d, pack_conv2d};
pub use depthwise_conv2d::{DepthwiseConv2d, pack_depthwise_conv2d};
pub use fully_connected::{FullyConnected, pack_fully_connected};
pub use requantize::Requantize;

use crate::error::Reason;
use crate::op::OpKind;
use crate::operator::Operator;
use crate::plan::{OpView, Plan};

macro_rules! pending {
    ($($op:ident)*) => {$(
        /// Kernel that is not registered in this build.
        #[derive(Debug, Clone, Copy)]
        pub struct $op;
        impl Operator for $op {
            const KIND: OpKind = OpKind::$op;
            fn check(_: &OpView<'_>, _: &Plan<'_>) -> Result<(), Reason> {
                Err(Reason::OperatorNotRegistered)
            }
            fn run(_: &OpView<'_>, _: &Plan<'_>, _: &mut [u8]) -> Result<(), Reason> {
                Err(Reason::OperatorNotRegistered)
            }
        }
    )*};
}
pending!(MatMul Mul Lut Softmax LayerNorm MaxPool2d Transpose Concat Pad);
