//! The emulated microcontroller against the host: the same plan, the same inputs, the same bits after every operator.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use equant::compile::{self, Options};
use equant::graph::Graph;
use equant_runtime::Session;
use equant_runtime::plan::{AlignedBytes, OpView, Plan};
use equant_runtime::session::Profile;
use equant_tests::models::{MODELS, artifacts, first_samples, quantized_graph, root, samples_path};

const TARGET: &str = "thumbv7em-none-eabihf";
/// Images for each model.
const IMAGES: usize = 64;

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// The conformance program for the board, or why there is none.
fn firmware() -> Result<PathBuf, String> {
    Command::new("qemu-system-arm").arg("--version").output().map_err(|error| format!("qemu-system-arm: {error}"))?;
    let sysroot = run(Command::new("rustc").args(["--print", "sysroot"])).stdout;
    let libraries = Path::new(String::from_utf8_lossy(&sysroot).trim()).join("lib/rustlib").join(TARGET);
    if !libraries.is_dir() {
        return Err(format!("the Rust target {TARGET} is not installed (rustup target add {TARGET})"));
    }
    let firmware = root().join("firmware");
    let target = firmware.join("target");
    let build = run(Command::new(env!("CARGO"))
        .args(["build", "--release", "--bin", "conformance", "--target-dir"])
        .arg(&target)
        .current_dir(firmware.join("boards/mps2-an386"))
        // What this build was told is not for that target.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS"));
    assert!(build.status.success(), "{}", String::from_utf8_lossy(&build.stderr));
    Ok(target.join(TARGET).join("release/conformance"))
}

/// 64-bit FNV-1a, as the conformance program computes it.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// Digests of every operator's result. What lies in the memory it works in is up to the core.
struct Digests<'p> {
    plan: Plan<'p>,
    digests: Vec<u64>,
}

impl Profile for Digests<'_> {
    fn after(&mut self, op: &OpView<'_>, arena: &[u8]) {
        let tensor = self.plan.output(op, 0).expect("an output");
        let result = &arena[tensor.offset as usize..][..tensor.byte_len().expect("a length") as usize];
        self.digests.push(fnv1a(result));
    }
}

/// Runs the plan on the host: the inputs as the board gets them, outputs, and digests for each operator.
fn host(plan: Plan<'_>, batch: &equant::data::Batch) -> (Vec<u8>, Vec<u8>, Vec<u64>) {
    let mut arena = AlignedBytes::zeroed(plan.arena_len());
    let mut session = Session::new(plan, &mut arena).expect("a large enough arena");
    let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
    let mut profile = Digests { plan, digests: Vec::new() };
    let size = batch.inputs[0].len() / batch.count;
    // One channel, or no image at all: both orders of the axes are the same.
    for values in batch.inputs[0].chunks(size) {
        session.quantize_input(0, values).expect("an input that fits");
        inputs.extend_from_slice(session.input_mut(0).expect("an input"));
        session.run_profiled(&mut profile).expect("a run");
        outputs.extend_from_slice(session.output(0).expect("an output"));
    }
    (inputs, outputs, profile.digests)
}

/// A plan to compare, and samples for it.
struct Case {
    name: &'static str,
    graph: Graph,
    plan: Vec<u8>,
    samples: PathBuf,
}

/// The committed models, and one with weights of 4 bits.
fn cases() -> Vec<Case> {
    let made = MODELS.into_iter().map(|name| {
        let made = artifacts(name);
        let graph = quantized_graph(&made.onnx);
        Case { name, graph, plan: made.plan.clone(), samples: samples_path(name, "test10k") }
    });
    let name = "dscnn_ort_MinMax_W4A8_pc";
    let file = root().join("tests/data/third_party_qdq").join(name).with_extension("onnx");
    let graph = quantized_graph(&std::fs::read(file).expect("a committed file"));
    let plan = compile::compile(&graph, &Options::default()).expect("a model that compiles").image;
    made.chain([Case { name, graph, plan, samples: samples_path("dscnn", "test10k") }]).collect()
}

#[test]
fn board_and_host_give_the_same_bits() {
    let program = match firmware() {
        Ok(program) => program,
        Err(reason) => {
            println!("skipped: comparison with the emulated board: {reason}");
            return;
        }
    };
    for Case { name: model, graph, plan: bytes, samples } in cases() {
        let image = AlignedBytes::from(&bytes[..]);
        let plan = Plan::parse(&image).expect("a valid plan");
        let batch = first_samples(&samples, &graph, IMAGES);
        let (inputs, outputs, digests) = host(plan, &batch);

        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = |name: &str| folder.path().join(name).display().to_string();
        assert!(!file("").contains([' ', ',']), "QEMU's command line knows no blanks and commas: {}", file(""));
        std::fs::write(file("plan"), &bytes).unwrap();
        std::fs::write(file("inputs"), &inputs).unwrap();
        let mut arguments = "enable=on,target=native,arg=conformance".to_owned();
        for name in ["plan", "inputs", "outputs", "hashes"] {
            arguments += &format!(",arg={}", file(name));
        }
        let output = run(Command::new("qemu-system-arm")
            .args(["-machine", "mps2-an386", "-display", "none", "-monitor", "none", "-serial", "null"])
            .args(["-semihosting-config", &arguments, "-kernel"])
            .arg(&program));
        assert!(output.status.success(), "{model}: {}", String::from_utf8_lossy(&output.stderr));

        let board: Vec<u64> = std::fs::read(file("hashes"))
            .unwrap()
            .as_chunks::<8>()
            .0
            .iter()
            .map(|bytes| u64::from_le_bytes(*bytes))
            .collect();
        let operators = usize::from(plan.header().ops);
        assert_eq!(board.len(), IMAGES * operators, "{model}: a digest for every operator of every image");
        for (i, (here, there)) in digests.iter().zip(&board).enumerate() {
            let op = plan.ops().nth(i % operators).expect("an operator");
            let name = plan.op_name(&op).unwrap_or_default();
            assert_eq!(here, there, "{model}, image {}: {:?} `{name}` differs", i / operators, op.kind);
        }
        assert!(std::fs::read(file("outputs")).unwrap() == outputs, "{model}: outputs differ");
        let distinct: std::collections::BTreeSet<&u64> = digests.iter().collect();
        assert!(distinct.len() > digests.len() / 2, "{model}: the images differ, so their digests do");
        println!("{model}: {IMAGES} images, {operators} operators: host and board give the same bits");
    }
}
