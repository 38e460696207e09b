//! With a library: models load, run and are refused with reasons. Without one: a notice.

use std::path::{Path, PathBuf};

use equant_server::bench::interleave;
use equant_server::{Error, Input, Options, Provider, Runtime, Session};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// ONNX Runtime, or a notice.
fn runtime(test: &str) -> Option<Runtime> {
    match Runtime::load(None) {
        Ok(runtime) => Some(runtime),
        Err(Error::NotFound { .. }) => {
            eprintln!("{test}: skipped, ONNX Runtime was not found");
            None
        }
        Err(other) => panic!("{other}"),
    }
}

const SHAPE: [usize; 4] = [1, 1, 28, 28];

fn image() -> Vec<f32> {
    (0..784).map(|i| (i % 29) as f32 / 29.0).collect()
}

#[test]
fn models_run_the_same_from_file_and_bytes_with_and_without_optimization() {
    let Some(runtime) = runtime("models_run") else { return };
    assert!(runtime.version().contains("ORT"), "{}", runtime.version());
    let path = root().join("models/resnet8/resnet8.onnx");
    let plain = Options { optimize: false, ..Options::default() };
    let mut file = Session::from_file(&runtime, &path, &Options::default()).unwrap();
    let mut bytes = Session::from_bytes(&runtime, "bytes", &std::fs::read(&path).unwrap(), &plain).unwrap();
    let info = &file.inputs()[0];
    assert_eq!((info.name.as_str(), info.element.as_str()), ("input", "Float32"));
    assert_eq!(info.shape, [None, Some(1), Some(28), Some(28)]);
    assert_eq!(file.outputs()[0].shape, [None, Some(10)]);
    let values = image();
    let input = Input { shape: &SHAPE, values: &values };
    let (a, b) = (file.run(&[input]).unwrap().remove(0), bytes.run(&[input]).unwrap().remove(0));
    assert_eq!(a.shape, [1, 10]);
    let (a, b) = (a.values.into_f32(), b.values.into_f32());
    let largest = a.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    assert!(largest > 0.1 && a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-4 * largest), "{a:?} {b:?}");
}

#[test]
fn quantized_files_of_other_tools_run_and_are_timed_side_by_side() {
    let Some(runtime) = runtime("quantized_files") else { return };
    let load = |path: &str| Session::from_file(&runtime, &root().join(path), &Options::default()).unwrap();
    let mut float = load("models/resnet8/resnet8.onnx");
    let mut int8 = load("tests/data/third_party_qdq/resnet8_ort_MinMax_W8A8_pc.onnx");
    let values = image();
    let input = [Input { shape: &SHAPE, values: &values }];
    let mut a = || float.run(&input).map(drop);
    let mut b = || int8.run(&input).map(drop);
    let timings = interleave(&mut [&mut a, &mut b], 2, 5).unwrap();
    assert!(timings.iter().all(|t| t.rounds == 5 && t.median_us > 0.0), "{timings:?}");
}

#[test]
fn refusals_have_reasons() {
    let Some(runtime) = runtime("refusals") else { return };
    let options = Options::default();
    let missing = Session::from_file(&runtime, Path::new("/nowhere/m.onnx"), &options).unwrap_err();
    assert!(matches!(&missing, Error::Model { model, .. } if model == "/nowhere/m.onnx"), "{missing}");
    let garbage = Session::from_bytes(&runtime, "garbage", b"garbage", &options).unwrap_err();
    assert!(garbage.to_string().starts_with("garbage: ONNX Runtime refuses the model: "), "{garbage}");
    let mut session = Session::from_file(&runtime, &root().join("models/resnet8/resnet8.onnx"), &options).unwrap();
    let values = image();
    assert!(session.run(&[]).unwrap_err().to_string().contains("0 input(s) were given, and it has 1"));
    let short = session.run(&[Input { shape: &SHAPE, values: &values[..783] }]).unwrap_err();
    assert!(short.to_string().contains("input `input`: 783 elements for shape [1, 1, 28, 28]"), "{short}");
    let odd = session.run(&[Input { shape: &[1, 784], values: &values }]).unwrap_err();
    assert!(matches!(odd, Error::Run { .. }), "{odd}");
    // The session is still good.
    session.run(&[Input { shape: &SHAPE, values: &values }]).unwrap();
    for provider in [Provider::Cuda, Provider::TensorRt] {
        match Session::from_file(
            &runtime,
            &root().join("models/resnet8/resnet8.onnx"),
            &Options { provider, ..Options::default() },
        ) {
            // A GPU build on a machine with a GPU.
            Ok(_) => {}
            Err(error) => assert!(matches!(error, Error::Provider { .. }), "{error}"),
        }
    }
}

#[test]
fn libraries_that_cannot_be_used_are_named() {
    let nowhere = Runtime::load(Some(Path::new("/nowhere/libonnxruntime.so"))).unwrap_err();
    assert!(nowhere.to_string().contains("`/nowhere/libonnxruntime.so`, and there is no such file"), "{nowhere}");
    let file = root().join("Cargo.toml").canonicalize().unwrap();
    let Some(loaded) = runtime("libraries") else {
        let error = Runtime::load(Some(&file)).unwrap_err();
        assert!(matches!(error, Error::Load { .. }), "{error}");
        return;
    };
    assert_eq!(
        Runtime::load(Some(&file)).unwrap_err(),
        Error::AlreadyLoaded { loaded: loaded.path().to_owned(), asked: file }
    );
    assert_eq!(Runtime::load(Some(loaded.path())).unwrap().path(), loaded.path());
}
