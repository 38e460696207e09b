//! Writes a model of the shape of MobileNetV2 1.0 at 224 × 224 (Sandler et al. 2018, table 2) with random weights, and
//! random samples for it, to measure how the quantizer's time and memory grow:
//! `cargo run --release -p equant-tests --bin mobilenet_v2 DIR [SAMPLES]`.

use std::path::Path;
use std::process::ExitCode;

use equant::graph::{Attr, DataType, Dim, Graph, Node, Tensor, ValueInfo};
use equant::onnx;
use equant::random::Random;
use equant_tests::npy;

/// Expansion, channels, blocks, stride.
const STAGES: [(usize, usize, usize, usize); 7] =
    [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)];

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let Some(folder) = args.next() else {
        eprintln!("mobilenet_v2: give a folder");
        return ExitCode::FAILURE;
    };
    let samples = args.next().and_then(|n| n.parse().ok()).unwrap_or(512);
    let folder = Path::new(&folder);
    let mut random = Random::new(1);
    let written = std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(folder.join("mobilenet_v2.onnx"), onnx::to_bytes(&model(&mut random))));
    if let Err(error) = written {
        eprintln!("mobilenet_v2: {}: {error}", folder.display());
        return ExitCode::FAILURE;
    }
    // Smooth fields, so that neighbouring pixels are alike as in pictures.
    let values: Vec<f32> = (0..samples * 3).flat_map(|_| plane(&mut random)).collect();
    npy::write(&folder.join("samples.npy"), &[samples as u64, 3, 224, 224], &values);
    ExitCode::SUCCESS
}

fn plane(random: &mut Random) -> Vec<f32> {
    let waves: Vec<[f32; 4]> = (0..4)
        .map(|_| [uniform(random), 0.1 * uniform(random), 0.1 * uniform(random), 3.0 * uniform(random)])
        .collect();
    let at = |x: f32, y: f32| waves.iter().map(|[a, u, v, phase]| a * (u * x + v * y + phase).sin()).sum();
    (0..224 * 224).map(|i| at((i % 224) as f32, (i / 224) as f32)).collect()
}

fn model(random: &mut Random) -> Graph {
    let mut net =
        Net { graph: Graph { opset: 17, name: "mobilenet_v2".into(), ..Graph::default() }, random, value: "x".into() };
    net.constant("zero", Tensor::from_f32(&[], &[0.0]));
    net.constant("six", Tensor::from_f32(&[], &[6.0]));
    net.conv(3, 32, 3, 2, 1, true);
    let mut channels = 32;
    for (expansion, out, blocks, first_stride) in STAGES {
        for block in 0..blocks {
            let stride = if block == 0 { first_stride } else { 1 };
            let before = net.value.clone();
            let wide = channels * expansion;
            if expansion > 1 {
                net.conv(channels, wide, 1, 1, 1, true);
            }
            net.conv(wide, wide, 3, stride, wide, true);
            net.conv(wide, out, 1, 1, 1, false);
            if stride == 1 && channels == out {
                let value = net.value.clone();
                net.node("Add", &[&value, &before], &[]);
            }
            channels = out;
        }
    }
    net.conv(channels, 1280, 1, 1, 1, true);
    let value = net.value.clone();
    net.node("GlobalAveragePool", &[&value], &[]);
    let value = net.value.clone();
    net.node("Flatten", &[&value], &[]);
    let tensor = weights(net.random, &[1000, 1280], 1280);
    net.constant("fc.weight", tensor);
    net.constant("fc.bias", Tensor::from_f32(&[1000], &vec![0.0; 1000]));
    let value = net.value.clone();
    net.node("Gemm", &[&value, "fc.weight", "fc.bias"], &[("transB", Attr::Int(1))]);
    let shape = |dims: &[usize]| {
        let rest = dims.iter().map(|&size| Dim::Known(size));
        Some(std::iter::once(Dim::Symbol("N".into())).chain(rest).collect())
    };
    net.graph.inputs = vec![ValueInfo { name: "x".into(), dtype: DataType::F32, shape: shape(&[3, 224, 224]) }];
    net.graph.outputs = vec![ValueInfo { name: net.value.clone(), dtype: DataType::F32, shape: shape(&[1000]) }];
    net.graph
}

struct Net<'r> {
    graph: Graph,
    random: &'r mut Random,
    value: String,
}

impl Net<'_> {
    fn constant(&mut self, name: &str, tensor: Tensor) {
        self.graph.initializers.insert(name.to_owned(), tensor);
    }

    fn node(&mut self, op: &str, inputs: &[&str], attrs: &[(&str, Attr)]) {
        let name = format!("{op}_{}", self.graph.nodes.len());
        let output = format!("{name}_out");
        let node = Node::new(op, name, inputs.iter().copied(), [output.clone()]);
        let node = attrs.iter().fold(node, |node, (name, attr)| node.with(name, attr.clone()));
        self.graph.nodes.push(node);
        self.value = output;
    }

    fn conv(&mut self, input: usize, output: usize, kernel: usize, stride: usize, groups: usize, relu: bool) {
        let stem = format!("conv{}", self.graph.nodes.len());
        let (weight, bias) = (format!("{stem}.weight"), format!("{stem}.bias"));
        let depth = input / groups * kernel * kernel;
        let tensor = weights(self.random, &[output, input / groups, kernel, kernel], depth);
        self.constant(&weight, tensor);
        let values: Vec<f32> = (0..output).map(|_| 0.2 * uniform(self.random)).collect();
        self.constant(&bias, Tensor::from_f32(&[output], &values));
        let value = self.value.clone();
        let pad = (kernel / 2) as i64;
        self.node(
            "Conv",
            &[&value, &weight, &bias],
            &[
                ("kernel_shape", Attr::Ints(vec![kernel as i64; 2])),
                ("strides", Attr::Ints(vec![stride as i64; 2])),
                ("pads", Attr::Ints(vec![pad; 4])),
                ("group", Attr::Int(groups as i64)),
            ],
        );
        if relu {
            let value = self.value.clone();
            self.node("Clip", &[&value, "zero", "six"], &[]);
        }
    }
}

/// In [−1, 1).
fn uniform(random: &mut Random) -> f32 {
    2.0 * random.uniform() as f32 - 1.0
}

/// Variance 2 / depth, as for layers with Relu (He et al. 2015).
fn weights(random: &mut Random, shape: &[usize], depth: usize) -> Tensor {
    let scale = (6.0 / depth as f32).sqrt();
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| scale * uniform(random)).collect();
    Tensor::from_f32(shape, &values)
}
