//! The plan against its definition: the float simulation of the same QDQ file (run by tract), and ONNX Runtime.

use std::path::PathBuf;

use equant::compile::{self, Options};
use equant::data::{Batch, Samples};
use equant::exec::{self, Runner};
use equant::graph::Graph;
use equant_tests::models::{
    MODELS, artifacts, first_samples, model_path, quantized_graph, root, samples_path, threads,
};
use equant_tests::reference::{Reference, each_operator};

/// Test samples looked at end to end: all 10,000 unless `EQUANT_TEST_SAMPLES` says less.
fn limit() -> usize {
    std::env::var("EQUANT_TEST_SAMPLES").map_or(10_000, |text| text.parse().expect("a number of samples"))
}

fn operators_of_all_models(reference: Reference) {
    for model in MODELS {
        let graph = quantized_graph(&artifacts(model).onnx);
        if !reference.available(&graph) {
            return;
        }
        let batch = first_samples(&samples_path(model, "test10k"), &graph, 4);
        let (count, share) = each_operator(model, &graph, &batch, reference);
        println!("{model}: {count} operators, {:.4} % of elements one step apart, none further", 100.0 * share);
        assert!(share < 1e-4, "{model}: {share} of the elements differ");
    }
}

#[test]
fn operators_agree_with_the_simulation() {
    operators_of_all_models(Reference::Simulation);
}

#[test]
fn operators_agree_with_onnx_runtime() {
    operators_of_all_models(Reference::Ort);
}

/// What a sample is decided to be: its class, or for the autoencoder its reconstruction error.
fn decisions(runner: &dyn Runner, model: &str, samples: &Samples) -> Vec<f64> {
    let reconstructs = model == "ae";
    let decide = |batch: &Batch, values: Vec<Vec<f32>>| -> Vec<f64> {
        let size = values[0].len() / batch.count;
        (0..batch.count)
            .map(|i| {
                let out = &values[0][i * size..][..size];
                if reconstructs {
                    let x = &batch.inputs[0][i * size..][..size];
                    x.iter().zip(out).map(|(x, y)| f64::from(x - y).powi(2)).sum::<f64>() / size as f64
                } else {
                    let best = out.iter().enumerate().fold(0, |best, (k, v)| if *v > out[best] { k } else { best });
                    best as f64
                }
            })
            .collect()
    };
    let append = |mut all: Vec<f64>, mut some: Vec<f64>| {
        all.append(&mut some);
        all
    };
    exec::fold(runner, samples, threads(), decide, Vec::new(), append).unwrap_or_else(|error| panic!("{error}"))
}

/// Share of equal decisions. An autoencoder decides by whether the error lies above the reference's median.
fn equal_share(model: &str, one: &[f64], other: &[f64]) -> f64 {
    let mut sorted = one.to_vec();
    sorted.sort_by(f64::total_cmp);
    let median = sorted[sorted.len() / 2];
    let same = |(a, b): &(&f64, &f64)| if model == "ae" { (**a > median) == (**b > median) } else { a == b };
    one.iter().zip(other).filter(same).count() as f64 / one.len() as f64
}

/// A copy of the first `count` samples, if that is not all of them.
fn cut_samples(model: &str, graph: &Graph, folder: &tempfile::TempDir) -> PathBuf {
    let path = samples_path(model, "test10k");
    let count = limit();
    if count >= 10_000 {
        return path;
    }
    let batch = first_samples(&path, graph, count);
    let shape: Vec<u64> = if model == "ae" { vec![count as u64, 784] } else { vec![count as u64, 1, 28, 28] };
    let file = folder.path().join("some.npy");
    equant_tests::npy::write(&file, &shape, &batch.inputs[0]);
    file
}

/// Share of decisions that must be equal.
const LEAST_EQUAL: f64 = 0.999;

fn decisions_of_all_models(reference: Reference) {
    let folder = tempfile::tempdir().unwrap();
    for model in MODELS {
        let graph = quantized_graph(&artifacts(model).onnx);
        if !reference.available(&graph) {
            return;
        }
        let samples = Samples::open(&cut_samples(model, &graph, &folder), &graph).unwrap();
        let outputs = [graph.outputs[0].name.clone()];
        let expected = decisions(&*reference.runner(&graph, &outputs).unwrap(), model, &samples);
        let actual = decisions(&*exec::plan_runner(&artifacts(model).plan).unwrap(), model, &samples);
        let share = equal_share(model, &expected, &actual);
        println!("{model}: {:.2} % of {} decisions equal", 100.0 * share, expected.len());
        assert!(share >= LEAST_EQUAL, "{model}: {share}");
    }
}

#[test]
fn decisions_agree_with_the_simulation() {
    decisions_of_all_models(Reference::Simulation);
}

#[test]
fn decisions_agree_with_onnx_runtime() {
    decisions_of_all_models(Reference::Ort);
}

/// Files quantized by other tools compile too, and compute what they say.
#[test]
fn third_party_files_agree() {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(root().join("tests/data/third_party_qdq"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "onnx"))
        .collect();
    paths.sort();
    assert!(paths.len() >= 8);
    let float = quantized_graph(&std::fs::read(model_path("resnet8")).unwrap());
    let samples = first_samples(&samples_path("resnet8", "test10k"), &float, 200);
    for path in paths {
        let name = path.file_name().unwrap().to_string_lossy();
        let graph = quantized_graph(&std::fs::read(&path).unwrap());
        let few = Batch { first: 0, count: 2, inputs: vec![samples.inputs[0][..2 * 784].to_vec()] };
        let compiled = compile::compile(&graph, &Options::default()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let outputs = [graph.outputs[0].name.clone()];
        let classes = |values: Vec<Vec<f32>>| -> Vec<usize> {
            values[0]
                .chunks(10)
                .map(|row| (0..10).fold(0, |best, k| if row[k] > row[best] { k } else { best }))
                .collect()
        };
        let found = exec::plan_runner(&compiled.image).unwrap().run(&samples).unwrap();
        // The same numbers where outputs lie over inputs.
        let options = Options { small_arena: true, ..Options::default() };
        let small = compile::compile(&graph, &options).unwrap_or_else(|error| panic!("{name}: {error}"));
        println!("{name}: arena {}, {} with outputs over inputs", compiled.map.arena, small.map.arena);
        assert!(small.map.arena <= compiled.map.arena, "{name}");
        assert_eq!(exec::plan_runner(&small.image).unwrap().run(&samples).unwrap(), found, "{name}");
        let actual = classes(found);
        for (reference, what) in [(Reference::Simulation, "simulation"), (Reference::Ort, "ONNX Runtime")] {
            if !reference.available(&graph) {
                continue;
            }
            let (count, share) = each_operator(&name, &graph, &few, reference);
            assert!(share < 0.01, "{name}, {what}: {share}");
            let expected = classes(reference.runner(&graph, &outputs).unwrap().run(&samples).unwrap());
            let equal = expected.iter().zip(&actual).filter(|(a, b)| a == b).count();
            println!("{name}, {what}: {count} operators agree, {equal} of {} classes equal", expected.len());
            assert!(equal >= 199, "{name}, {what}: {equal} of 200");
        }
    }
}
