//! fp16, bfloat16 and f64 models are computed in f32: weights, casts, inputs and outputs are retyped.

use crate::graph::{Attr, DataType, Graph, Tensor};

pub(super) fn run(graph: &mut Graph) -> usize {
    let other = |dtype: DataType| dtype.is_float() && dtype != DataType::F32;
    let widen = |tensor: &mut Tensor| {
        let changed = other(tensor.dtype);
        if changed {
            *tensor = Tensor::from_f32(&tensor.shape, &tensor.to_f32());
        }
        usize::from(changed)
    };
    let mut count = 0;
    for tensor in graph.initializers.values_mut() {
        count += widen(tensor);
    }
    for value in graph.inputs.iter_mut().chain(&mut graph.outputs) {
        if other(value.dtype) {
            value.dtype = DataType::F32;
            count += 1;
        }
    }
    for node in &mut graph.nodes {
        for (name, attr) in &mut node.attrs {
            match attr {
                Attr::Tensor(tensor) => count += widen(tensor),
                Attr::Int(number)
                    if (name == "to" || name == "dtype")
                        && DataType::from_onnx_number(*number as i32).is_some_and(other) =>
                {
                    *number = i64::from(DataType::F32.onnx_number());
                    count += 1;
                }
                _ => {}
            }
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::f16;

    #[test]
    fn halves_keep_their_values() {
        let mut graph = Graph::default();
        let halves = [f16::from_f32(0.1), f16::from_f32(-65504.0)];
        let data = halves.iter().flat_map(|v| v.to_le_bytes()).collect();
        graph.initializers.insert("w".into(), Tensor { dtype: DataType::F16, shape: vec![2], data });
        assert_eq!((run(&mut graph), run(&mut graph)), (1, 0));
        assert_eq!(graph.initializers["w"].to_f32(), halves.map(f16::to_f32));
    }
}
