//! The command from files to files.

use crate::common::{
    equant, folder, json, model, names, npy, npz, numbers, samples, score, stderr, succeed, workspace,
};
use equant::graph::Tensor;
use equant::onnx;
use serde_json::Value;

#[test]
fn a_small_model_gets_all_its_files() {
    let folder = folder();
    let text = succeed(folder.path(), &["quantize", "model.onnx", "--calib", "calib.npz"]);
    let out = folder.path().join("out/model");
    assert_eq!(names(&out), ["model.int8.onnx", "model.plan", "report.html", "report.json"]);
    assert!(text.contains("wrote out/model/model.plan"), "{text}");
    let report: Value =
        serde_json::from_slice(&std::fs::read(out.join("report.json")).expect("report")).expect("valid JSON");
    assert_eq!(report["schema"], 1);
    assert_eq!(report["made"]["calibration"]["samples"], 8);
    assert!(score(&report["calibration"], "plan", "sqnr_db") > 20.0, "{}", report["calibration"]);
    assert!(report["verification"]["max_error_steps"].as_f64().expect("number") <= 1.0);
    assert_eq!(report["sizes"]["plan"], std::fs::metadata(out.join("model.plan")).expect("plan").len());
    assert_eq!(report["sizes"]["onnx"], std::fs::metadata(out.join("model.int8.onnx")).expect("onnx").len());
    let html = std::fs::read_to_string(out.join("report.html")).expect("page");
    assert!(html.starts_with("<!doctype html>") && html.trim_end().ends_with("</html>"));
    for outside in ["http://", "https://", "src=", "<script", "@import", "url("] {
        assert!(!html.contains(outside), "the page is not self-contained: {outside}");
    }
}

#[test]
fn json_is_all_that_stdout_carries() {
    let folder = folder();
    let printed = json(folder.path(), &["quantize", "model.onnx", "--calib", "calib.npz", "-v"]);
    let written = std::fs::read(folder.path().join("out/model/report.json")).expect("report");
    assert_eq!(printed, serde_json::from_slice::<Value>(&written).expect("valid JSON"));
}

#[test]
fn quiet_says_nothing_on_stderr_and_verbose_names_the_steps() {
    let folder = folder();
    let quiet = equant(folder.path(), &["quantize", "model.onnx", "--calib", "calib.npz", "-q"]);
    assert_eq!((quiet.status.code(), stderr(&quiet).as_str()), (Some(0), ""));
    let verbose = equant(folder.path(), &["quantize", "model.onnx", "--calib", "calib.npz", "-v"]);
    for step in ["calibrate: ", "compile: ", "verify: "] {
        assert!(stderr(&verbose).contains(step), "{}", stderr(&verbose));
    }
}

#[test]
fn bits_are_dealt_out_within_a_budget() {
    let folder = folder();
    let report = json(folder.path(), &["quantize", "model.onnx", "--calib", "calib.npz", "--budget", "flash=60"]);
    // 72 weights and 12: only the first layer at 4 bits is enough, and the second need not have them.
    assert_eq!(report["mixed"]["layers"], serde_json::json!([["conv", "W4A8"], ["fc", "W8A8"]]));
    let tried = report["mixed"]["tried"].as_array().expect("a list");
    let methods: Vec<&str> = tried.iter().filter_map(|tried| tried["method"].as_str()).collect();
    assert_eq!(methods, ["knapsack", "greedy by sensitivity", "softmax with entropy penalty"]);
    assert!(tried.iter().all(|tried| tried["cost"].as_f64().expect("number") <= 60.0), "{tried:?}");
}

#[test]
fn a_budget_of_instructions_counts_the_whole_plan() {
    let folder = folder();
    let report =
        json(folder.path(), &["quantize", "model.onnx", "--calib", "calib.npz", "--budget", "instructions=1M"]);
    let instructions = report["memory"]["instructions"].as_f64().expect("a number");
    let tried = report["mixed"]["tried"].as_array().expect("a list");
    assert!(tried.iter().all(|tried| tried["cost"] == instructions), "{instructions}: {tried:?}");
    // With 4 bits these layers take no fewer.
    assert_eq!(report["mixed"]["layers"], serde_json::json!([["conv", "W8A8"], ["fc", "W8A8"]]));
}

#[test]
fn instructions_are_of_the_core_that_is_named() {
    let folder = folder();
    succeed(folder.path(), &["quantize", "model.onnx", "--calib", "calib.npz", "-o", "out"]);
    let estimate = |core: &str| {
        let report = json(folder.path(), &["inspect", "out/model.plan", "--core", core]);
        let instructions = report["instructions"].as_u64().expect("a number");
        (report["core"].as_str().expect("a name").to_owned(), instructions)
    };
    let [m0, m4, m55] = ["m0plus", "m4", "m55"].map(estimate);
    assert!(m0.1 > m4.1 && m4.1 > m55.1, "{m0:?} {m4:?} {m55:?}");
    assert_eq!((&m4.0[..], &m55.0[..]), ("Cortex-M4", "Cortex-M55"));
    let quantize = ["--budget", "instructions=1M", "--core", "m55"];
    let report = json(folder.path(), &[&["quantize", "model.onnx", "--calib", "calib.npz"], &quantize[..]].concat());
    assert_eq!(
        (&report["memory"]["instructions"], &report["mixed"]["budget"]),
        (&m55.1.into(), &"1.00 M instructions on Cortex-M55".into())
    );
}

#[test]
fn results_do_not_depend_on_threads() {
    let folder = folder();
    npz(&folder.path().join("calib.npz"), &[("x", &samples(100))]);
    let files = |threads: &str| {
        let args = ["quantize", "model.onnx", "--calib", "calib.npz", "-o", threads, "--threads", threads];
        succeed(folder.path(), &args);
        let read = |name: &str| std::fs::read(folder.path().join(threads).join(name)).expect("file");
        (read("model.int8.onnx"), read("model.plan"))
    };
    assert!(files("1") == files("3"), "files differ between 1 and 3 threads");
}

#[test]
fn an_all_zero_channel_works() {
    let folder = folder();
    let mut graph = model();
    let mut weights = numbers(72, 1);
    weights[18..36].fill(0.0);
    graph.initializers.insert("w".into(), Tensor::from_f32(&[4, 2, 3, 3], &weights));
    graph.initializers.insert("b".into(), Tensor::from_f32(&[4], &[0.5, 0.0, -0.5, 0.1]));
    onnx::write(&graph, &folder.path().join("model.onnx")).expect("model");
    let report = json(folder.path(), &["quantize", "model.onnx", "--calib", "calib.npz"]);
    assert!(score(&report["calibration"], "plan", "sqnr_db") > 20.0, "{}", report["calibration"]);
}

#[test]
fn one_sample_is_enough_to_work() {
    let folder = folder();
    npz(&folder.path().join("calib.npz"), &[("x", &samples(1))]);
    for bits in ["W8A8", "W4A8", "W4A4"] {
        let report = json(folder.path(), &["quantize", "model.onnx", "--calib", "calib.npz", "--bits", bits]);
        assert_eq!(report["made"]["calibration"]["samples"], 1);
        assert!(score(&report["calibration"], "plan", "sqnr_db") > 6.0, "{bits}: {}", report["calibration"]);
    }
}

#[test]
fn samples_and_weights_that_are_constant_work() {
    let folder = folder();
    let halves = std::iter::repeat_n(0.5f32, 4 * 72).flat_map(f32::to_le_bytes).collect();
    npz(&folder.path().join("calib.npz"), &[("x", &npy("<f4", &[4, 2, 6, 6], halves))]);
    let mut graph = model();
    graph.initializers.insert("w".into(), Tensor::from_f32(&[4, 2, 3, 3], &[0.25; 72]));
    graph.initializers.insert("g".into(), Tensor::from_f32(&[3, 4], &[0.0; 12]));
    onnx::write(&graph, &folder.path().join("model.onnx")).expect("model");
    for bits in ["W8A8", "W4A8"] {
        let report = json(folder.path(), &["quantize", "model.onnx", "--calib", "calib.npz", "--bits", bits]);
        assert!(score(&report["calibration"], "plan", "sqnr_db") > 20.0, "{bits}: {}", report["calibration"]);
    }
}

#[test]
fn layers_under_the_floor_are_widened_and_the_report_says_so() {
    let folder = folder();
    let quantize = |floor| {
        let args = ["quantize", "model.onnx", "--calib", "calib.npz", "--bits", "W4A4", "--floor", floor];
        json(folder.path(), &args)
    };
    let bits = |report: &Value| {
        let weights = report["weights"].as_array().expect("weights").clone();
        weights.iter().map(|w| w["dtype"].as_str().expect("a type").to_owned()).collect::<Vec<_>>()
    };
    let (narrow, wide) = (quantize("none"), quantize("50"));
    assert_eq!(bits(&narrow), ["int4", "int4"]);
    assert_eq!(bits(&wide)[0], "int8", "{}", wide["notes"]);
    assert!(score(&wide["calibration"], "plan", "sqnr_db") > score(&narrow["calibration"], "plan", "sqnr_db") + 3.0);
    let notes = wide["notes"].to_string();
    assert!(notes.contains("under the floor of 50 dB") && notes.contains("8 bits instead of W4A4"), "{notes}");
}

#[test]
fn targets_decide_what_is_left_open() {
    let folder = folder();
    let report = json(folder.path(), &["quantize", "model.onnx", "--calib", "calib.npz", "--target", "tensorrt"]);
    assert_eq!(report["made"]["config"]["activations"], "Symmetric");
    let args = ["quantize", "model.onnx", "--calib", "calib.npz", "--target", "ort-cpu-no-vnni"];
    assert_eq!(json(folder.path(), &args)["made"]["config"]["reduce_range"], true);
    let args = ["quantize", "model.onnx", "--calib", "calib.npz", "--target", "ort-cpu", "--bits", "W4A8"];
    let report = json(folder.path(), &args);
    assert_eq!(report["float_islands"].as_array().map(Vec::len), Some(0), "{report}");
    assert_eq!(report["made"]["config"]["layers"]["conv"]["weights"], "Eight");
}

#[test]
fn names_are_stripped_on_demand() {
    let folder = folder();
    succeed(folder.path(), &["quantize", "model.onnx", "--calib", "calib.npz", "--strip-names"]);
    let plan = json(folder.path(), &["inspect", "out/model/model.plan"]);
    assert!(plan["operators"].as_array().expect("operators").iter().all(|op| op["name"].is_null()), "{plan}");
}

#[test]
fn results_are_inspected_evaluated_run_and_compiled() {
    let folder = folder();
    let at = folder.path();
    succeed(at, &["quantize", "model.onnx", "--calib", "calib.npz", "-o", "o"]);

    let float = json(at, &["inspect", "model.onnx"]);
    assert_eq!((&float["kind"], float["unsupported"].as_array().map(Vec::len)), (&"float".into(), Some(0)));
    assert_eq!(float["macs"], 36 * 4 * 18 + 12);
    assert_eq!(json(at, &["inspect", "o/model.int8.onnx"])["kind"], "QDQ");
    let plan = json(at, &["inspect", "o/model.plan"]);
    assert_eq!(plan["macs"], 36 * 4 * 18 + 12);
    let sections = plan["sections"].as_array().expect("sections");
    let total: u64 = sections.iter().filter_map(|section| section["bytes"].as_u64()).sum();
    assert_eq!(Some(total), plan["flash"].as_u64(), "sections sum to the image");

    succeed(at, &["compile", "o/model.int8.onnx", "-o", "again.plan"]);
    let read = |name: &str| std::fs::read(at.join(name)).expect("plan");
    assert!(read("o/model.plan") == read("again.plan"), "compile gives the plan that quantize gave");

    let evaluated = json(at, &["eval", "o/model.plan", "--test", "calib.npz", "--reference", "model.onnx"]);
    assert_eq!((&evaluated["metric"], &evaluated["samples"]), (&"top1".into(), &8.into()));
    assert!(score(&evaluated, "plan", "sqnr_db") > 20.0, "{evaluated}");
    assert_eq!(json(at, &["eval", "model.onnx", "--test", "calib.npz", "--limit", "3"])["samples"], 3);

    let lines = |model: &str| -> Vec<Value> {
        let text = succeed(at, &["run", model, "--input", "calib.npz", "--limit", "5", "--json"]);
        text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    };
    let (float, plan) = (lines("model.onnx"), lines("o/model.plan"));
    assert_eq!((float.len(), plan.len()), (5, 5));
    for (i, (a, b)) in float.iter().zip(&plan).enumerate() {
        assert_eq!((&a["sample"], &a["label"]), (&i.into(), &(i % 3).into()));
        let first = |line: &Value| line["outputs"][0][0].as_f64().expect("number");
        assert!((first(a) - first(b)).abs() < 0.1, "{a} {b}");
    }
    let profile = succeed(at, &["run", "o/model.plan", "--input", "calib.npz", "--profile"]);
    assert!(profile.contains("Conv2d") && profile.contains("least time of 8 sample(s)"), "{profile}");
}

#[test]
fn a_damaged_result_of_an_earlier_run_is_replaced() {
    let folder = folder();
    let out = folder.path().join("o");
    std::fs::create_dir(&out).expect("folder");
    std::fs::write(out.join("model.plan"), "old").expect("file");
    succeed(folder.path(), &["quantize", "model.onnx", "--calib", "calib.npz", "-o", "o"]);
    assert!(std::fs::read(out.join("model.plan")).expect("plan").starts_with(b"EQPL"));
}

#[test]
fn the_autoencoder_still_tells_anomalies_apart() {
    let folder = tempfile::tempdir().expect("tempdir");
    let [model, calib, test] =
        ["models/ae/ae.onnx", "models/data/ae_calib512.npz", "models/data/ae_test10k.npz"].map(workspace);
    let report = json(folder.path(), &["quantize", &model, "--calib", &calib, "--test", &test, "-o", "o"]);
    assert_eq!(report["test"]["metric"], "auc");
    let auc = |subject| score(&report["test"], subject, "metric");
    assert!(auc("fp32") > 0.8, "{}", report["test"]);
    assert!((auc("plan") - auc("fp32")).abs() < 0.005, "{}", report["test"]);
    assert!((auc("plan") - auc("simulation")).abs() < 0.001, "{}", report["test"]);
    assert!(score(&report["test"], "plan", "sqnr_db") > 15.0, "{}", report["test"]);
    assert!(
        report["sizes"]["onnx"].as_u64() < report["sizes"]["float"].as_u64().map(|size| size / 3),
        "{}",
        report["sizes"]
    );
    for list in ["layers", "activations", "weights", "passes"] {
        assert!(report[list].as_array().is_some_and(|list| !list.is_empty()), "{list} is empty");
    }
    assert!(report["activations"][0]["observed"]["histogram"]["counts"].is_array(), "{}", report["activations"][0]);
}

#[test]
fn packages_travel_and_come_back() {
    let folder = folder();
    let path = folder.path();
    succeed(path, &["quantize", "model.onnx", "--calib", "calib.npz", "-o", "out"]);
    let read = |name: &str| std::fs::read(path.join(name)).expect("file");
    for file in ["out/model.plan", "out/model.int8.onnx", "calib.npz"] {
        let package = format!("{file}.eqz");
        let made = json(path, &["package", file]);
        assert_eq!(made["bytes"], read(file).len(), "{file}");
        assert_eq!(made["download_bytes"], read(&package).len(), "{file}");
        succeed(path, &["unpack", &package, "-o", "again"]);
        assert!(read("again") == read(file), "{file}");
    }
    let text = succeed(path, &["package", "out/model.plan", "-o", "sent.eqz"]);
    assert!(text.contains("download") && text.contains("what flash and memory hold, as before"), "{text}");
    assert!(text.contains("wrote sent.eqz"), "{text}");
    succeed(path, &["unpack", "sent.eqz"]);
    assert!(read("sent") == read("out/model.plan"));
}

#[test]
fn inspection_tells_the_entropy_of_integer_weights() {
    let folder = folder();
    succeed(folder.path(), &["quantize", "model.onnx", "--calib", "calib.npz", "-o", "out"]);
    let report: Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("out/report.json")).expect("report")).expect("JSON");
    let found = json(folder.path(), &["inspect", "out/model.int8.onnx"]);
    assert_eq!(found["weight_bytes"], report["weight_bytes"]);
    assert_eq!(found["weight_bytes"]["stored"], 72 + 12);
    let weights = found["weights"].as_array().expect("weights");
    assert_eq!(weights.len(), 2);
    for (weights, same) in weights.iter().zip(report["weights"].as_array().expect("weights")) {
        assert_eq!((&weights["entropy_bits"], &weights["stored_bits"]), (&same["entropy_bits"], &same["stored_bits"]));
        let bits = weights["entropy_bits"].as_f64().expect("a number");
        assert!(bits > 2.0 && bits < 8.0, "{bits}");
    }
    let text = succeed(folder.path(), &["inspect", "out/model.int8.onnx"]);
    assert!(text.contains("weights take 84 B") && text.contains("entropy-coded download"), "{text}");
}

#[test]
fn inspection_with_samples_tells_of_tails_and_outliers() {
    let folder = folder();
    let path = folder.path();
    // Channel 7 of a hidden layer with 16 channels is made 40 times as large by its weights.
    let mut graph = model();
    let mut weights = numbers(16 * 18, 1);
    weights[7 * 18..8 * 18].iter_mut().for_each(|w| *w *= 40.0);
    graph.initializers.insert("w".into(), Tensor::from_f32(&[16, 2, 3, 3], &weights));
    graph.initializers.insert("b".into(), Tensor::from_f32(&[16], &[0.0; 16]));
    graph.initializers.insert("g".into(), Tensor::from_f32(&[3, 16], &numbers(48, 3)));
    onnx::write(&graph, &path.join("model.onnx")).expect("model");
    let found = json(path, &["inspect", "model.onnx", "--samples", "calib.npz"]);
    let activations = found["activations"].as_array().expect("activations");
    let flagged = |value: &str| {
        let found = activations.iter().find(|a| a["value"] == value).unwrap_or_else(|| panic!("no {value}: {found}"));
        found["outlier_channels"].clone()
    };
    assert_eq!(flagged("image"), Value::from(Vec::<u32>::new()));
    assert_eq!(flagged("r"), Value::from(vec![7]));
    for activation in activations {
        assert!(activation["kurtosis"].as_f64().expect("a number") > 1.0, "{activation}");
        let bits = activation["entropy_bits"].as_f64().expect("a number");
        assert!(bits > 0.5 && bits <= 8.0, "{activation}");
    }
    assert_eq!(found["weights"][0]["node"], "conv");
    assert!(found["weights"][0]["kurtosis"].as_f64().expect("a number") > 20.0, "{found}");
    assert!(found["weights"][0]["channel_kurtosis"].as_f64().expect("a number") < 4.0, "{found}");
    let text = succeed(path, &["inspect", "model.onnx", "--samples", "calib.npz"]);
    assert!(text.contains("largest channel") && text.contains("int8 entropy"), "{text}");
    // The quantized file shows the same channel, and no run depends on threads.
    succeed(path, &["quantize", "model.onnx", "--calib", "calib.npz", "-o", "out", "--no-equalize"]);
    let one = json(path, &["inspect", "out/model.int8.onnx", "--samples", "calib.npz", "--threads", "1"]);
    let two = json(path, &["inspect", "out/model.int8.onnx", "--samples", "calib.npz", "--threads", "3"]);
    assert_eq!(one, two);
    let outliers = one["activations"]
        .as_array()
        .expect("activations")
        .iter()
        .filter(|a| a["outlier_channels"] == Value::from(vec![7]));
    assert!(outliers.count() >= 1, "{one}");
}

#[test]
fn a_plan_has_no_activations_to_inspect() {
    let folder = folder();
    succeed(folder.path(), &["quantize", "model.onnx", "--calib", "calib.npz", "-o", "out"]);
    let output = equant(folder.path(), &["inspect", "out/model.plan", "--samples", "calib.npz"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
}

#[test]
fn layers_are_ranked_by_what_their_bits_do() {
    let folder = folder();
    let path = folder.path();
    npz(&path.join("calib.npz"), &[("x", &samples(40))]);
    let args = ["inspect", "model.onnx", "--samples", "calib.npz", "--sensitivity", "--plot", "layers.svg"];
    let found = json(path, &args);
    let ranking = &found["sensitivity"];
    assert_eq!(ranking["samples"], 40);
    let layers = ranking["layers"].as_array().expect("layers");
    let names: Vec<_> = layers.iter().map(|l| (l["node"].as_str().unwrap(), l["bits"].as_str().unwrap())).collect();
    assert_eq!(names, [("conv", "w8a8"), ("conv", "w4a8"), ("fc", "w8a8"), ("fc", "w4a8")]);
    let damage = |i: usize, what: &str| layers[i][what].as_f64().expect("a number");
    for layer in [0, 2] {
        for what in ["local", "predicted", "measured"] {
            assert!(damage(layer, what) > 0.0 && damage(layer + 1, what) > 5.0 * damage(layer, what), "{ranking}");
        }
    }
    let svg = std::fs::read_to_string(path.join("layers.svg")).expect("a plot");
    assert!(svg.starts_with("<svg") && svg.contains("conv at w4a8") && !svg.contains("w8a8"), "{svg}");
    let text = succeed(path, &[&args[..], &["--bits", "w2a4", "--limit", "16"]].concat());
    assert!(text.contains("w2a4 in the layer") && text.contains("on 16 samples"), "{text}");
    // What threads do leaves the numbers as they are.
    assert_eq!(json(path, &[&args[..], &["--threads", "3"]].concat()), found);
    succeed(path, &["quantize", "model.onnx", "--calib", "calib.npz", "-o", "out"]);
    let refused = equant(path, &["inspect", "out/model.int8.onnx", "--samples", "calib.npz", "--sensitivity"]);
    assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
    let refused = equant(path, &["inspect", "model.onnx", "--sensitivity"]);
    assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
}

#[test]
fn one_analysis_gives_every_format_without_samples() {
    let folder = folder();
    succeed(folder.path(), &["analyze", "model.onnx", "--calib", "calib.npz"]);
    std::fs::rename(folder.path().join("calib.npz"), folder.path().join("later.npz")).expect("rename");
    for (bits, least_db) in [("W8A8", 25.0), ("W4A8", 8.0), ("W4A4", 5.0)] {
        succeed(folder.path(), &["export", "model.eqcal", "--bits", bits, "-o", bits]);
        let plan = format!("{bits}/model.plan");
        let report = json(folder.path(), &["eval", &plan, "--test", "later.npz", "--reference", "model.onnx"]);
        let scores = report["scores"].as_array().expect("scores");
        let sqnr = scores.iter().find_map(|s| s["sqnr_db"].as_f64()).expect("an SQNR");
        assert!(sqnr > least_db, "{bits}: {report}");
    }
    let mut damaged = std::fs::read(folder.path().join("model.eqcal")).expect("analysis");
    damaged.truncate(damaged.len() / 2);
    std::fs::write(folder.path().join("model.eqcal"), damaged).expect("write");
    let output = equant(folder.path(), &["export", "model.eqcal", "-o", "again"]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(stderr(&output).contains("model.eqcal") && !folder.path().join("again").exists());
}
