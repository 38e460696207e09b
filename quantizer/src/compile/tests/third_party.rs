//! Files quantized by other tools.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::reference::{self, Array};
use super::{compile_prepared, run};
use crate::compile::Options;
use crate::graph::{DataType, Tensor};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The first images of the test set: `[1, 1, 28, 28]` each.
fn images(count: usize) -> Vec<Vec<f32>> {
    let file = std::fs::File::open(root().join("models/data/fmnist_test10k.npz")).unwrap();
    let mut archive = zip::ZipArchive::new(file).unwrap();
    let x = npyz::NpyFile::new(archive.by_name("x.npy").unwrap()).unwrap();
    let values: Vec<f32> = x.data::<f32>().unwrap().take(count * 784).map(Result::unwrap).collect();
    values.chunks(784).map(<[f32]>::to_vec).collect()
}

fn best(values: impl Iterator<Item = f64>) -> usize {
    values.enumerate().fold((0, f64::MIN), |best, (i, v)| if v > best.1 { (i, v) } else { best }).0
}

#[test]
fn files_of_other_tools_compile_and_agree() {
    let folder = root().join("tests/data/third_party_qdq");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "onnx"));
    files.sort();
    assert!(files.len() >= 8);
    let images = images(3);
    for file in files {
        let graph = crate::onnx::read(&file).unwrap();
        let compiled =
            compile_prepared(&graph, &Options::default()).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        assert_eq!(compiled.notes, [""; 0], "{}", file.display());
        assert_eq!(compiled.map.arena, compiled.map.arena_lower_bound, "{}", file.display());
        // Nine bytes for each channel and record after record.
        let name = file.file_name().unwrap().to_string_lossy();
        let four_bit = name.contains("W4");
        let most = if name.starts_with("dscnn") { 9 } else { 6 } * 1024;
        assert!(compiled.map.overhead <= most, "{name}: {}", compiled.map.overhead);
        assert_eq!(compiled.operators.iter().any(|kind| kind.name().ends_with("I4")), four_bit, "{name}");
        // The same integers in bytes.
        let mut bytes = graph.clone();
        for tensor in bytes.initializers.values_mut().filter(|tensor| tensor.dtype == DataType::I4) {
            let values: Vec<i32> = tensor.to_i64().into_iter().map(|v| v as i32).collect();
            *tensor = Tensor::from_ints(DataType::I8, &tensor.shape.clone(), &values);
        }
        assert!(compile_prepared(&bytes, &Options::default()).unwrap().image == compiled.image, "{name}");
        for image in &images {
            let data = image.iter().map(|&v| f64::from(v)).collect();
            let mut values = BTreeMap::new();
            values.insert(graph.inputs[0].name.clone(), Array { shape: vec![1, 1, 28, 28], data });
            reference::evaluate(&graph, &mut values);
            let want = &values[&graph.outputs[0].name].data;
            let got = &run(&compiled.image, std::slice::from_ref(image))[0].0;
            assert_eq!(best(want.iter().copied()), best(got.iter().map(|&v| f64::from(v))), "{}", file.display());
            // Rounding may move an element of a layer by a step; over the layers that stays below 0.1 of about 10.
            let error = want.iter().zip(got).fold(0.0f64, |m, (w, &g)| m.max((w - f64::from(g)).abs()));
            assert!(error < 0.12, "{}: {error}", file.display());
        }
    }
}
