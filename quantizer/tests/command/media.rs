//! Samples from folders of images and recordings.

use std::path::Path;

use equant::data::Samples;
use equant::graph::{Attr, Graph, Node, Tensor};
use equant::onnx;

use crate::common::{equant, input, npy, npz, numbers, stderr, succeed, workspace};

/// Fashion-MNIST samples used: more than one batch.
const COUNT: usize = 96;

/// `[N, 1, 28, 28]` → Conv 3×3, stride 2, to 4 channels → Relu → global average → Gemm to 10 classes.
fn model() -> Graph {
    let mut graph = Graph {
        name: "small".into(),
        opset: 17,
        inputs: vec![input("image", &[1, 28, 28])],
        outputs: vec![input("scores", &[10])],
        nodes: vec![
            Node::new("Conv", "conv", ["image", "w", "b"], ["a"]).with("strides", Attr::Ints(vec![2, 2])),
            Node::new("Relu", "relu", ["a"], ["r"]),
            Node::new("GlobalAveragePool", "pool", ["r"], ["p"]),
            Node::new("Flatten", "flat", ["p"], ["f"]),
            Node::new("Gemm", "fc", ["f", "g", "c"], ["scores"]).with("transB", Attr::Int(1)),
        ],
        ..Graph::default()
    };
    graph.initializers.insert("w".into(), Tensor::from_f32(&[4, 1, 3, 3], &numbers(36, 1)));
    graph.initializers.insert("b".into(), Tensor::from_f32(&[4], &numbers(4, 2)));
    graph.initializers.insert("g".into(), Tensor::from_f32(&[10, 4], &numbers(40, 3)));
    graph.initializers.insert("c".into(), Tensor::from_f32(&[10], &numbers(10, 4)));
    graph
}

fn gray(path: &Path, pixels: &[u8]) {
    let mut encoder = png::Encoder::new(std::fs::File::create(path).expect("png"), 28, 28);
    encoder.set_color(png::ColorType::Grayscale);
    let mut writer = encoder.write_header().expect("png");
    writer.write_image_data(pixels).expect("png");
}

/// A folder with `model.onnx`, samples as `calib.npz` and as `images/`, normalized as `preprocess.json` says.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("tempdir");
    let at = folder.path();
    onnx::write(&model(), &at.join("model.onnx")).expect("model");
    let file = workspace("models/data/fmnist_calib512.npz");
    let samples = Samples::open(Path::new(&file), &model()).expect("samples").head(COUNT);
    let labels = samples.labels().expect("labels").to_vec();
    let values: Vec<f32> =
        samples.batches(COUNT).expect("samples").flat_map(|batch| batch.expect("batch").inputs.remove(0)).collect();
    let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let y: Vec<u8> = labels.iter().flat_map(|label| label.to_le_bytes()).collect();
    let arrays = [("x", npy("<f4", &[COUNT, 1, 28, 28], bytes(&values))), ("y", npy("<i8", &[COUNT], y))];
    npz(&at.join("calib.npz"), &arrays.each_ref().map(|(name, bytes)| (*name, &bytes[..])));

    std::fs::create_dir(at.join("images")).expect("folder");
    let mut lines = String::from("file,label\n");
    for (i, sample) in values.chunks(784).enumerate() {
        let pixels: Vec<u8> = sample.iter().map(|&x| ((x * 0.3530 + 0.2860) * 255.0).round() as u8).collect();
        gray(&at.join(format!("images/{i:03}.png")), &pixels);
        lines += &format!("{i:03}.png,{}\n", labels[i]);
    }
    std::fs::write(at.join("images/labels.csv"), lines).expect("labels");
    std::fs::write(
        at.join("images/preprocess.json"),
        r#"{"kind": "image", "channels": "gray", "mean": [0.2860], "std": [0.3530]}"#,
    )
    .expect("description");
    folder
}

#[test]
fn a_folder_of_images_gives_the_plan_that_the_same_values_give_as_arrays() {
    let folder = folder();
    let at = folder.path();
    // The committed arrays hold exactly what the description makes of the pixels.
    let read = |name: &str| -> Vec<_> {
        let samples = Samples::open(&at.join(name), &model()).expect("samples");
        samples.batches(32).expect("samples").map(|batch| batch.expect("batch")).collect()
    };
    assert!(read("images") == read("calib.npz"), "images and arrays hold different values");

    succeed(at, &["quantize", "model.onnx", "--calib", "images", "--test", "images", "-o", "a"]);
    succeed(at, &["quantize", "model.onnx", "--calib", "calib.npz", "--test", "calib.npz", "-o", "b"]);
    for name in ["model.plan", "model.int8.onnx"] {
        let bytes = |folder: &str| std::fs::read(at.join(folder).join(name)).expect("result");
        assert!(bytes("a") == bytes("b"), "{name} differs");
    }
}

#[test]
fn every_command_that_reads_samples_takes_a_description() {
    let folder = folder();
    let at = folder.path();
    std::fs::rename(at.join("images/preprocess.json"), at.join("pre.json")).expect("description");
    let json = |args: &[&str]| succeed(at, &[args, &["--json", "--limit", "8"]].concat());
    let both = |args: &[&str], option: &str| {
        let images = json(&[args, &[option, "images", "--preprocess", "pre.json"]].concat());
        let arrays = json(&[args, &[option, "calib.npz"]].concat());
        assert_eq!(images.replace("\"images\"", "\"calib.npz\""), arrays);
    };
    both(&["eval", "model.onnx"], "--test");
    both(&["run", "model.onnx"], "--input");
    both(&["inspect", "model.onnx"], "--samples");
    let analyze = |calib: &[&str], name: &str| {
        succeed(at, &[&["analyze", "model.onnx", "-o", name, "--calib"], calib].concat());
        std::fs::read(at.join(name)).expect("analysis")
    };
    let images = analyze(&["images", "--preprocess", "pre.json"], "a.eqcal");
    assert!(images == analyze(&["calib.npz"], "b.eqcal"), "analyses differ");

    // Nothing says how the images become samples, or it is said of arrays.
    for (args, parts) in [
        (&["eval", "model.onnx", "--test", "images"][..], ["images: holds images", "preprocess.json"]),
        (
            &["eval", "model.onnx", "--test", "calib.npz", "--preprocess", "pre.json"],
            ["calib.npz: holds arrays", "leave it out"],
        ),
    ] {
        let output = equant(at, args);
        assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
        assert!(parts.iter().all(|part| stderr(&output).contains(part)), "{}", stderr(&output));
    }
}

#[test]
fn recordings_are_run() {
    let folder = tempfile::tempdir().expect("tempdir");
    let at = folder.path();
    let mut graph = Graph {
        name: "mean".into(),
        opset: 17,
        inputs: vec![input("wave", &[4])],
        outputs: vec![input("out", &[1])],
        nodes: vec![Node::new("Gemm", "fc", ["wave", "g"], ["out"]).with("transB", Attr::Int(1))],
        ..Graph::default()
    };
    graph.initializers.insert("g".into(), Tensor::from_f32(&[1, 4], &[1.0, 1.0, 1.0, 1.0]));
    onnx::write(&graph, &at.join("model.onnx")).expect("model");
    std::fs::create_dir_all(at.join("sounds/loud")).expect("folder");
    std::fs::create_dir_all(at.join("sounds/soft")).expect("folder");
    let spec = |sample_rate| hound::WavSpec {
        channels: 1,
        sample_rate,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let write = |name: &str, rate: u32, values: &[i16]| {
        let mut writer = hound::WavWriter::create(at.join(name), spec(rate)).expect("wav");
        values.iter().for_each(|&value| writer.write_sample(value).expect("wav"));
        writer.finalize().expect("wav");
    };
    write("sounds/loud/a.wav", 8000, &[16384, 8192]);
    write("sounds/soft/a.wav", 8000, &[1024; 9]);
    std::fs::write(at.join("sounds/preprocess.json"), r#"{"kind": "audio", "sample_rate": 8000, "samples": 4}"#)
        .expect("description");
    let text = succeed(at, &["run", "model.onnx", "--input", "sounds", "--json"]);
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let found: Vec<_> = lines.iter().map(|line| (line["label"].as_i64(), line["outputs"][0][0].as_f64())).collect();
    assert_eq!(found, [(Some(0), Some(0.75)), (Some(1), Some(0.125))]);

    write("sounds/soft/b.wav", 16000, &[1024; 9]);
    let output = equant(at, &["run", "model.onnx", "--input", "sounds"]);
    assert_eq!(output.status.code(), Some(3));
    let text = stderr(&output);
    assert!(text.contains("sounds/soft/b.wav: has 16000 samples a second, and the description says 8000"), "{text}");
}
