//! Makes an images file (`equant_firmware::images`) for a plan from the first samples of an `.npz`.
//!
//! `images PLAN SAMPLES.npz OUT.images [--count N] [--quantized]`
//!
//! Samples are in array `x` (float32, the first axis counts them), labels, if there are any, in `y`. With
//! `--quantized` the file holds the values as the plan's input stores them, else float32.

use std::io::{Read, Seek};
use std::process::ExitCode;
use std::{env, fs};

use equant_firmware::images::{Element, Header, NO_LABEL};
use equant_runtime::plan::{AlignedBytes, DType, LOGICAL_NCHW, TensorRecord};
use equant_runtime::{Plan, quant};
use npyz::NpyFile;
use zip::ZipArchive;

/// Samples taken unless told otherwise.
const COUNT: usize = 10;

type Error = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Error> {
    let mut names = Vec::new();
    let (mut count, mut quantized) = (COUNT, false);
    let mut args = env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--count" => count = args.next().ok_or("--count takes a number")?.parse()?,
            "--quantized" => quantized = true,
            _ => names.push(arg),
        }
    }
    let [plan_name, samples_name, out_name] = &names[..] else {
        return Err("usage: images PLAN SAMPLES.npz OUT.images [--count N] [--quantized]".into());
    };

    let bytes = AlignedBytes::from(&fs::read(plan_name).map_err(|e| format!("{plan_name}: {e}"))?[..]);
    let plan = <Plan>::parse(&bytes).map_err(|e| format!("{plan_name}: {e}"))?;
    let input = plan.model_input(0).ok_or("the plan has no input")?;
    let elements = input.elements().ok_or("the plan's input is too large")? as usize;

    let file = fs::File::open(samples_name).map_err(|e| format!("{samples_name}: {e}"))?;
    let mut archive = ZipArchive::new(file)?;
    let values = head(&mut archive, "x", count, elements)?;
    let labels: Vec<i64> = match head(&mut archive, "y", count, 1) {
        Ok(labels) => labels,
        Err(_) if archive.by_name("y.npy").is_err() => Vec::new(),
        Err(error) => return Err(error),
    };

    let element = match (quantized, input.dtype) {
        (false, _) => Element::F32,
        (true, DType::I8) => Element::I8,
        (true, DType::I16) => Element::I16,
        (true, DType::I32) => return Err("the plan's input has 32 bits: leave `--quantized` out".into()),
    };
    let header = Header { element, count: count.try_into()?, elements: elements.try_into()? };
    let mut out = header.to_bytes().to_vec();
    for i in 0..count {
        let label = labels.get(i).map_or(Ok(NO_LABEL), |&label| u16::try_from(label))?;
        out.extend_from_slice(&label.to_le_bytes());
    }
    out.resize(header.inputs_offset().ok_or("too many samples")?, 0);
    for sample in values.chunks_exact(elements) {
        for x in in_plan_order(sample, &input) {
            let q = quant::quantize(x, input.scale, i32::from(input.zero_point), input.range());
            match element {
                Element::F32 => out.extend_from_slice(&x.to_le_bytes()),
                Element::I8 => out.push(q as u8),
                Element::I16 => out.extend_from_slice(&(q as i16).to_le_bytes()),
            }
        }
    }
    fs::write(out_name, &out).map_err(|e| format!("{out_name}: {e}"))?;
    println!("{out_name}: {count} inputs of {elements} elements, {} B", out.len());
    Ok(())
}

/// The first `count` samples of an array, each of `each` elements.
fn head<T: npyz::Deserialize>(
    archive: &mut ZipArchive<impl Read + Seek>,
    name: &str,
    count: usize,
    each: usize,
) -> Result<Vec<T>, Error> {
    let entry = archive.by_name(&format!("{name}.npy")).map_err(|e| format!("array {name}: {e}"))?;
    let file = NpyFile::new(entry)?;
    let shape = file.shape().to_vec();
    let have = shape.first().copied().unwrap_or(0);
    let found: u64 = shape.iter().skip(1).product();
    if file.order() != npyz::Order::C || found != each as u64 || have < count as u64 {
        return Err(format!("array {name} of shape {shape:?}: {count} samples of {each} elements are needed").into());
    }
    Ok(file.data::<T>()?.take(count * each).collect::<Result<_, _>>()?)
}

/// The elements of a sample in the order of the plan's tensor: `[C, H, W]` becomes `[H, W, C]` where the plan says so.
fn in_plan_order<'a>(sample: &'a [f32], input: &TensorRecord) -> Box<dyn Iterator<Item = f32> + 'a> {
    if input.flags & LOGICAL_NCHW == 0 {
        return Box::new(sample.iter().copied());
    }
    let [n, h, w, c] = match input.dims.map(|dim| dim as usize) {
        [n, l, c, _] if input.rank == 3 => [n, 1, l, c],
        dims => dims,
    };
    let plane = h * w;
    let at = move |n, pixel, c_at| sample[(n * c + c_at) * plane + pixel];
    Box::new((0..n).flat_map(move |n| (0..plane).flat_map(move |pixel| (0..c).map(move |c_at| at(n, pixel, c_at)))))
}
