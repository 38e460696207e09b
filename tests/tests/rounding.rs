//! Weights of 4 bits on real models: what rounding for the outputs of layers is worth, and that it is reproducible.

use equant::pipeline::{self, Artifacts, Request};
use equant::quantize::Config;
use equant::round::Method;
use equant_tests::models::{model_path, samples_path};

fn quantize(model: &str, method: Method, threads: usize) -> Artifacts {
    let mut config = Config { bits: "W4A8".parse().unwrap(), ..Config::default() };
    config.rounding.method = method;
    let samples = samples_path(model, "calib512");
    let request = Request { config, threads, ..Request::new(model_path(model), samples) };
    pipeline::quantize(&request, &pipeline::Silent).unwrap_or_else(|error| panic!("{model}: {error}"))
}

fn sqnr(artifacts: &Artifacts) -> f64 {
    artifacts.report.calibration.of("plan").and_then(|score| score.sqnr_db).expect("an SQNR")
}

#[test]
fn looking_at_the_outputs_is_worth_more_than_a_bit() {
    for model in ["dscnn", "ae"] {
        let [nearest, search] = [Method::Nearest, Method::Search].map(|method| quantize(model, method, 2));
        let (nearest, search) = (sqnr(&nearest), sqnr(&search));
        assert!(search > nearest + 6.02, "{model}: {search:.1} dB after {nearest:.1} dB");
    }
}

#[test]
fn the_same_bytes_come_out_for_any_number_of_threads() {
    let [one, three] = [1, 3].map(|threads| quantize("dscnn", Method::Search, threads));
    assert_eq!(one.onnx, three.onnx);
    assert_eq!(one.plan, three.plan);
}
