use std::io::{Cursor, Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};

use npyz::{TypeStr, WriterBuilder};
use tempfile::TempDir;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::npy::Header;
use super::source::{Array, stream_arrays};
use super::*;
use crate::graph::ValueInfo;

/// A graph with float inputs of these shapes (0 is the symbolic batch).
fn graph(inputs: &[(&str, &[usize])]) -> Graph {
    let dim = |&size: &usize| if size == 0 { Dim::Symbol("N".into()) } else { Dim::Known(size) };
    let input = |(name, shape): &(&str, &[usize])| ValueInfo {
        name: (*name).into(),
        dtype: DataType::F32,
        shape: Some(shape.iter().map(dim).collect()),
    };
    Graph { inputs: inputs.iter().map(input).collect(), ..Graph::default() }
}

/// The bytes of an array with this header.
fn raw(descr: &str, fortran: bool, shape: &str, data: &[u8]) -> Vec<u8> {
    let order = if fortran { "True" } else { "False" };
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}");
    while (10 + text.len() + 1) % 64 != 0 {
        text.push(' ');
    }
    text.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((text.len() as u16).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes.extend(data);
    bytes
}

fn npy<T: npyz::Serialize + Copy>(descr: &str, shape: &[u64], values: &[T]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let dtype = npyz::DType::new_scalar(descr.parse::<TypeStr>().unwrap());
    let mut writer = npyz::WriteOptions::new().dtype(dtype).shape(shape).writer(&mut bytes).begin_nd().unwrap();
    writer.extend(values.iter().copied()).unwrap();
    writer.finish().unwrap();
    bytes
}

fn f32s(shape: &[u64], values: &[f32]) -> Vec<u8> {
    npy("<f4", shape, values)
}

fn npz_with(method: CompressionMethod, arrays: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in arrays {
        writer.start_file(format!("{name}.npy"), SimpleFileOptions::default().compression_method(method)).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn npz(arrays: &[(&str, Vec<u8>)]) -> Vec<u8> {
    npz_with(CompressionMethod::Deflated, arrays)
}

/// A folder that holds these files.
fn folder(files: &[(&str, Vec<u8>)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

/// Opens the bytes as a file.
fn open(bytes: Vec<u8>, graph: &Graph) -> Result<Vec<Batch>, String> {
    let folder = folder(&[("file", bytes)]);
    let read = || Samples::open(&folder.path().join("file"), graph)?.batches(2)?.collect::<Result<Vec<_>, _>>();
    read().map_err(|error: Error| {
        assert!(error.file.ends_with("/file"), "{}", error.file);
        error.kind.to_string()
    })
}

fn refusal(bytes: Vec<u8>, graph: &Graph) -> String {
    open(bytes, graph).expect_err("refused")
}

fn batch(first: usize, values: &[f32]) -> Batch {
    Batch { first, count: values.len() / 2, inputs: vec![values.to_vec()] }
}

/// `[3, 2]` samples 1 to 6 in batches of two.
fn three() -> Vec<Batch> {
    vec![batch(0, &[1.0, 2.0, 3.0, 4.0]), batch(2, &[5.0, 6.0])]
}

const SIX: [f32; 6] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];

#[test]
fn archives_arrays_and_folders_give_the_same_batches() {
    let graph = graph(&[("in", &[0, 2])]);
    for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
        assert_eq!(open(npz_with(method, &[("x", f32s(&[3, 2], &SIX))]), &graph).unwrap(), three());
    }
    assert_eq!(open(npz(&[("in", f32s(&[3, 2], &SIX))]), &graph).unwrap(), three());
    assert_eq!(open(f32s(&[3, 2], &SIX), &graph).unwrap(), three());
    // In the order of names, with and without the batch axis, other files left alone.
    let folder = folder(&[
        ("b.npy", f32s(&[1, 2], &SIX[2..4])),
        ("a.npy", f32s(&[2], &SIX[..2])),
        ("c.npy", f32s(&[2], &SIX[4..])),
        ("notes.txt", b"not a sample".to_vec()),
        ("labels.npy", npy("<i4", &[3], &[7i32, -8, 9])),
    ]);
    let samples = Samples::open(folder.path(), &graph).unwrap();
    assert_eq!(samples.batches(2).unwrap().collect::<Result<Vec<_>, _>>().unwrap(), three());
    assert_eq!((samples.len(), samples.labels()), (3, Some(&[7, -8, 9][..])));
}

#[test]
fn float_types_and_byte_orders() {
    let graph = graph(&[("in", &[0, 2])]);
    let half: Vec<u8> = SIX.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect();
    assert_eq!(open(raw("<f2", false, "(3, 2)", &half), &graph).unwrap(), three());
    assert_eq!(open(npy(">f4", &[3, 2], &SIX), &graph).unwrap(), three());
    assert_eq!(open(npy("<f8", &[3, 2], &SIX.map(f64::from)), &graph).unwrap(), three());
    // float64 is rounded to the nearest f32.
    let third = open(npy("<f8", &[1, 2], &[1.0f64 / 3.0, -0.1]), &graph).unwrap();
    assert_eq!(third[0].inputs[0], [1.0f32 / 3.0, -0.1f32]);
}

#[test]
fn label_types() {
    let graph = graph(&[("in", &[0, 2])]);
    let labels = |y: Vec<u8>| {
        let folder = folder(&[("f.npz", npz(&[("x", f32s(&[3, 2], &SIX)), ("y", y)]))]);
        Samples::open(&folder.path().join("f.npz"), &graph).map(|s| s.labels().unwrap().to_vec())
    };
    assert_eq!(labels(npy("<i8", &[3], &[1i64 << 40, -2, 3])).unwrap(), [1 << 40, -2, 3]);
    assert_eq!(labels(npy(">i4", &[3], &[1i32 << 20, -2, 3])).unwrap(), [1 << 20, -2, 3]);
    assert_eq!(labels(npy("<i2", &[3], &[300i16, -2, 3])).unwrap(), [300, -2, 3]);
    assert_eq!(labels(npy("|i1", &[3], &[100i8, -2, 3])).unwrap(), [100, -2, 3]);
    assert_eq!(labels(npy("|u1", &[3], &[255u8, 2, 3])).unwrap(), [255, 2, 3]);
    assert_eq!(labels(npy("<u2", &[3], &[65535u16, 2, 3])).unwrap(), [65535, 2, 3]);
    assert_eq!(labels(raw("|b1", false, "(3,)", &[1, 0, 1])).unwrap(), [1, 0, 1]);
    let fails = |y| labels(y).unwrap_err().kind.to_string();
    assert!(fails(npy("<f4", &[3], &[1.0f32; 3])).contains("array `y` has dtype '<f4', and labels are integers"));
    assert!(fails(npy("<i8", &[2], &[1i64, 2])).contains("array `y` has shape [2], and there are 3 samples"));
    assert!(fails(npy("<i8", &[3, 1], &[1i64, 2, 3])).contains("has shape [3, 1]"));
    assert!(fails(npy("<u8", &[3], &[1u64, u64::MAX, 2])).contains("label 1 is 18446744073709551615, beyond int64"));
    let samples = npz(&[("x", f32s(&[3, 2], &SIX))]);
    let folder = folder(&[("f.npz", samples)]);
    assert_eq!(Samples::open(&folder.path().join("f.npz"), &graph).unwrap().labels(), None);
}

#[test]
fn several_inputs_come_from_arrays_of_their_names() {
    let graph = graph(&[("a", &[0, 2]), ("y", &[0])]);
    let file = npz(&[("y", f32s(&[3], &[7.0, 8.0, 9.0])), ("a", f32s(&[3, 2], &SIX))]);
    let batches = open(file, &graph).unwrap();
    assert_eq!(batches[0], Batch { first: 0, count: 2, inputs: vec![SIX[..4].to_vec(), vec![7.0, 8.0]] });
    assert_eq!(batches[1], Batch { first: 2, count: 1, inputs: vec![SIX[4..].to_vec(), vec![9.0]] });
    let file = npz(&[("y", f32s(&[2], &[7.0, 8.0])), ("a", f32s(&[3, 2], &SIX))]);
    assert!(refusal(file, &graph).contains("array `y` has 2 samples and array `a` has 3"));
    assert!(refusal(npz(&[("x", f32s(&[3, 2], &SIX))]), &graph).contains("has no array `a` (it holds: x)"));
    assert!(refusal(f32s(&[3, 2], &SIX), &graph).contains("the model has 2 (a, y)"));
}

#[test]
fn shapes_are_those_of_the_model() {
    let image = graph(&[("in", &[1, 1, 2, 1])]);
    assert_eq!(open(f32s(&[3, 1, 2, 1], &SIX), &image).unwrap(), three());
    let wrong = refusal(npz(&[("x", f32s(&[3, 2], &SIX))]), &image);
    assert!(wrong.contains("array `x` has shape [3, 2], and input `in` of the model needs [N, 1, 2, 1]"), "{wrong}");
    // One known axis is the sample; one symbolic axis is the batch of scalars.
    assert_eq!(open(f32s(&[3, 2], &SIX), &graph(&[("in", &[2])])).unwrap(), three());
    assert_eq!(open(f32s(&[3], &SIX[..3]), &graph(&[("in", &[0])])).unwrap()[1].inputs[0], [3.0]);
    let mut open_shape = graph(&[("in", &[0, 0])]);
    assert!(refusal(f32s(&[3, 2], &SIX), &open_shape).contains("give it one with `--dim N=SIZE`"));
    open_shape.inputs[0].dtype = DataType::I64;
    assert!(refusal(f32s(&[3, 2], &SIX), &open_shape).contains("give it one with `--dim N=SIZE`"));
    let flags = Graph {
        inputs: vec![ValueInfo { dtype: DataType::Bool, ..graph(&[("in", &[0, 2])]).inputs[0].clone() }],
        ..graph(&[])
    };
    assert!(refusal(f32s(&[3, 2], &SIX), &flags).contains("input `in` of the model: an input of type Bool"));
}

#[test]
fn refusals_say_what_and_where() {
    let graph = graph(&[("in", &[0, 2])]);
    let x = |bytes: Vec<u8>| refusal(npz(&[("x", bytes)]), &graph);
    let missing = Samples::open(Path::new("/nowhere/s.npz"), &graph).unwrap_err().to_string();
    assert!(missing.starts_with("/nowhere/s.npz: cannot be read: "), "{missing}");
    assert!(refusal(b"hello, hello".to_vec(), &graph).contains("neither an .npz nor an .npy"));
    assert!(refusal(Vec::new(), &graph).contains("neither an .npz nor an .npy"));
    assert!(refusal(npz(&[("images", f32s(&[3, 2], &SIX))]), &graph).contains("has no array `x` (it holds: images)"));
    assert!(refusal(npz(&[]), &graph).contains("has no array `x` (it holds: no arrays)"));
    assert!(x(npy("|u1", &[3, 2], &[0u8; 6])).contains("array `x` has dtype '|u1'"));
    assert!(x(npy("<i8", &[3, 2], &[0i64; 6])).contains("x.astype('float32') / 255"));
    assert!(x(raw("<c8", false, "(3, 2)", &[0; 48])).contains("array `x` has dtype '<c8'"));
    assert!(x(raw("|O", false, "(3,)", &[0; 24])).contains("array `x` holds Python objects"));
    assert!(x(raw("<f4", true, "(3, 2)", &[0; 24])).contains("array `x` is in Fortran order"));
    assert!(x(f32s(&[0, 2], &[])).contains("array `x` holds no samples"));
    assert!(x(f32s(&[0], &[])).contains("array `x` holds no samples"));
    assert!(x(raw("<f4", false, "(3, 2)", &[0; 20])).contains("20 bytes where its shape needs 24"));
    assert!(x(raw("<f4", false, "(9223372036854775807, 9223372036854775807, 4)", &[0; 20])).contains("20 bytes"));
    assert!(x(b"\x93NUMPY\x01\x00".to_vec()).contains("array `x` has no readable NumPy header"));
    assert!(x(raw("<f4", false, "'odd'", &[])).contains("array `x` has no readable NumPy header"));
    let empty = tempfile::tempdir().unwrap();
    let none = Samples::open(empty.path(), &graph).unwrap_err().kind.to_string();
    assert!(none.contains("holds no samples: no .npy, .png"), "{none}");
    let two = folder(&[("a.npy", f32s(&[2], &SIX[..2])), ("b.npy", f32s(&[3], &SIX[..3]))]);
    let odd = Samples::open(two.path(), &graph).unwrap_err();
    assert!(odd.file.ends_with("b.npy") && odd.kind.to_string().contains("has shape [3]"), "{odd}");
}

#[test]
fn values_that_are_not_finite_are_named_with_their_sample() {
    let graph = graph(&[("in", &[0, 2])]);
    for (bad, shown) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
        let mut values = SIX;
        values[5] = bad;
        let error = refusal(npz(&[("x", f32s(&[3, 2], &values))]), &graph);
        assert!(
            error.contains(&format!("array `x`: sample 2 holds {shown}, which is not a finite float32")),
            "{error}"
        );
    }
    let error = refusal(npy("<f8", &[1, 2], &[0.0f64, 1e300]), &graph);
    assert!(error.contains("sample 0 holds 1000") && error.contains("not a finite float32"), "{error}");
    // What precedes the bad batch arrives, and nothing after it.
    let folder = folder(&[("x.npy", f32s(&[3, 2], &[1.0, 2.0, 3.0, f32::NAN, 5.0, 6.0]))]);
    let mut batches = Samples::open(&folder.path().join("x.npy"), &graph).unwrap().batches(1).unwrap();
    assert_eq!(batches.next().unwrap().unwrap(), batch(0, &[1.0, 2.0]));
    assert!(batches.next().unwrap().is_err());
    assert!(batches.next().is_none());
}

#[test]
fn damage_is_found_wherever_it_is() {
    let graph = graph(&[("in", &[0, 2])]);
    let whole = npz_with(CompressionMethod::Stored, &[("x", f32s(&[3, 2], &SIX))]);
    for len in [4, 40, whole.len() / 2, whole.len() - 1] {
        let error = refusal(whole[..len].to_vec(), &graph);
        assert!(error.contains("is truncated or damaged"), "{len}: {error}");
    }
    // One flipped bit of an element: the archive's checksum tells.
    let at = whole.windows(4).position(|w| w == 5.0f32.to_le_bytes()).unwrap();
    let mut flipped = whole.clone();
    flipped[at] ^= 1;
    assert!(refusal(flipped, &graph).contains("array `x`: "));
    let array = f32s(&[3, 2], &SIX);
    assert!(refusal(array[..array.len() - 1].to_vec(), &graph).contains("array `x` is truncated"));
}

#[test]
fn a_file_that_changes_is_noticed() {
    let graph = graph(&[("in", &[0, 2])]);
    let folder = folder(&[("x.npy", f32s(&[3, 2], &SIX))]);
    let path = folder.path().join("x.npy");
    let samples = Samples::open(&path, &graph).unwrap();
    std::fs::write(&path, f32s(&[2, 2], &SIX[..4])).unwrap();
    let error = samples.batches(2).unwrap().next().unwrap().unwrap_err();
    assert!(matches!(error.kind, ErrorKind::Changed), "{error}");
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(samples.batches(2).unwrap().next().unwrap().unwrap_err().kind, ErrorKind::Read(_)));
}

/// Counts the bytes read from it.
struct Counted<R>(R, std::rc::Rc<std::cell::Cell<usize>>);

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.0.read(buffer)?;
        self.1.set(self.1.get() + read);
        Ok(read)
    }
}

#[test]
fn elements_are_read_batch_by_batch() {
    let values: Vec<f32> = (0..2000).map(|v| v as f32).collect();
    let bytes = f32s(&[1000, 2], &values);
    let mut reader = &bytes[..];
    let header = Header::read("x", &mut reader, bytes.len() as u64).unwrap();
    let count = std::rc::Rc::new(std::cell::Cell::new(0));
    let reader = Box::new(Counted(reader, std::rc::Rc::clone(&count)));
    let input = Input { name: "x".into(), shape: vec![2], indices: None };
    let mut array = [Array { name: "x".into(), reader, values: header.elements("x", &input).unwrap(), elements: 2 }];
    let mut batches = 0;
    stream_arrays(&mut array, 1000, 10, &mut |batch| {
        batches += 1;
        assert_eq!((batch.first, batch.count), ((batches - 1) * 10, 10));
        // Exactly the bytes of the batches so far have been read.
        assert_eq!(count.get(), batches * 10 * 2 * 4);
        batches < 7
    })
    .unwrap();
    assert_eq!(batches, 7, "nothing is read once nobody wants more");
}

#[test]
fn the_reading_thread_is_at_most_one_batch_ahead_and_ends_with_its_batches() {
    let made = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&made);
    let work = move |emit: batches::Emit<'_>| {
        let mut first = 0;
        loop {
            counter.fetch_add(1, Ordering::SeqCst);
            if !emit(Batch { first, count: 1, inputs: Vec::new() }) {
                counter.fetch_add(1 << 20, Ordering::SeqCst);
                return Ok(());
            }
            first += 1;
        }
    };
    let mut batches = Batches::spawn("f".into(), usize::MAX, work).unwrap();
    for taken in 1..=100 {
        batches.next().unwrap().unwrap();
        // The one made next may be waiting.
        assert!(made.load(Ordering::SeqCst) <= taken + 1);
    }
    drop(batches);
    assert!(made.load(Ordering::SeqCst) >= 1 << 20, "the thread has ended");
}

#[test]
fn fewer_samples_than_announced_are_no_end() {
    let work = |emit: batches::Emit<'_>| {
        emit(Batch { first: 0, count: 1, inputs: Vec::new() });
        Ok(())
    };
    let mut batches = Batches::spawn("f".into(), 2, work).unwrap();
    assert!(batches.next().unwrap().is_ok());
    assert!(matches!(batches.next().unwrap().unwrap_err().kind, ErrorKind::Changed));
    assert!(batches.next().is_none());
}

#[test]
fn a_head_ends_within_a_batch() {
    let values: Vec<f32> = (0..20).map(|i| i as f32).collect();
    let labels: Vec<i64> = (0..10).collect();
    let folder = folder(&[("s.npz", npz(&[("x", f32s(&[10, 2], &values)), ("y", npy("<i8", &[10], &labels))]))]);
    let samples = Samples::open(&folder.path().join("s.npz"), &graph(&[("x", &[0, 2])])).unwrap();
    for (count, expected) in [(5, 5), (4, 4), (99, 10), (0, 0)] {
        let head = samples.head(count);
        assert_eq!((head.len(), head.labels().map(<[i64]>::len)), (expected, Some(expected)));
        let batches: Vec<Batch> = head.batches(4).unwrap().map(Result::unwrap).collect();
        assert_eq!(batches.iter().map(|batch| batch.count).sum::<usize>(), expected);
        let read: Vec<f32> = batches.iter().flat_map(|batch| batch.inputs[0].iter().copied()).collect();
        assert_eq!(read, values[..expected * 2]);
    }
}

/// A graph that looks int64 `[N, 3]` up in a table of five rows.
fn lookup() -> Graph {
    let dims = vec![Dim::Symbol("N".into()), Dim::Known(3)];
    let mut graph = Graph {
        inputs: vec![ValueInfo { name: "ids".into(), dtype: DataType::I64, shape: Some(dims) }],
        nodes: vec![crate::graph::Node::new("Gather", "g", ["table", "ids"], ["y"])],
        ..Graph::default()
    };
    graph.initializers.insert("table".into(), crate::graph::Tensor::from_f32(&[5, 2], &[0.0; 10]));
    graph
}

#[test]
fn indices_are_integers_that_name_rows() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("x.npy");
    let read = |bytes: Vec<u8>| -> Result<Vec<f32>, Error> {
        std::fs::write(&path, bytes).unwrap();
        let samples = Samples::open(&path, &lookup())?;
        let batches: Result<Vec<Batch>, Error> = samples.batches(16)?.collect();
        Ok(batches?.into_iter().flat_map(|batch| batch.inputs[0].clone()).collect())
    };
    assert_eq!(read(npy("<i8", &[2, 3], &[0i64, 4, -5, 1, 2, 3])).unwrap(), [0.0, 4.0, -5.0, 1.0, 2.0, 3.0]);
    assert_eq!(read(npy(">i2", &[1, 3], &[0i16, -1, 4])).unwrap(), [0.0, -1.0, 4.0]);
    assert_eq!(read(npy("|u1", &[1, 3], &[0u8, 1, 4])).unwrap(), [0.0, 1.0, 4.0]);
    let refused = |bytes| read(bytes).unwrap_err().to_string();
    let beyond = refused(npy("<i4", &[2, 3], &[0i32, 1, 2, 3, 5, 0]));
    assert!(beyond.contains("sample 1 holds index 5, and the model looks up -5 to 4"), "{beyond}");
    let below = refused(npy("<i4", &[1, 3], &[0i32, -6, 2]));
    assert!(below.contains("holds index -6"), "{below}");
    assert!(refused(npy("<u8", &[1, 3], &[0u64, u64::MAX, 2])).contains("holds index 18446744073709551615"));
    assert!(refused(f32s(&[1, 3], &[0.0; 3])).contains("takes indices: integers"));
}
