use super::*;
use crate::data::media::{Found, look};

const GRAY: &[u8] = br#"{"kind": "image", "channels": "gray", "scale": 1}"#;

fn pixel(value: u8) -> Vec<u8> {
    gray(1, 1, &[value])
}

fn values(folder: &Path) -> Vec<f32> {
    read(folder, &[1, 1, 1]).unwrap().into_iter().map(|sample| sample[0]).collect()
}

#[test]
fn files_come_in_the_order_of_their_names_with_their_labels() {
    let (a, b, c) = (pixel(1), pixel(2), pixel(3));
    let files = folder(&[
        ("b.PNG", &b),
        ("a10.png", &a),
        ("c.jpg", &c),
        (".hidden.txt", b""),
        ("preprocess.json", GRAY),
        ("labels.csv", b"file,label\nc.jpg,30\na10.png,10\nb.PNG,20\n"),
    ]);
    assert_eq!(values(files.path()), [1.0, 2.0, 3.0]);
    let samples = Samples::open(files.path(), &graph(&[1])).unwrap();
    assert_eq!((samples.len(), samples.labels()), (3, Some(&[10, 20, 30][..])));
    assert_eq!(samples.head(2).labels(), Some(&[10, 20][..]));
    std::fs::write(files.path().join("labels.csv"), "a10.png,1\n").unwrap();
    let error = Samples::open(files.path(), &graph(&[1]));
    refused(error, "labels.csv", |error| matches!(error, MediaError::NoLabel(name) if name == "b.PNG"));
    std::fs::remove_file(files.path().join("labels.csv")).unwrap();
    assert_eq!(Samples::open(files.path(), &graph(&[1])).unwrap().labels(), None);
}

#[test]
fn folders_are_classes_taken_in_turn() {
    let files = folder(&[
        ("dog/2.png", &pixel(12)),
        ("dog/1.png", &pixel(11)),
        ("cat/b.png", &pixel(2)),
        ("cat/a.png", &pixel(1)),
        ("cat/c.png", &pixel(3)),
        ("bird/.keep", b""),
        ("preprocess.json", GRAY),
    ]);
    // `bird` is class 0 even without files.
    assert_eq!(values(files.path()), [1.0, 11.0, 2.0, 12.0, 3.0]);
    let samples = Samples::open(files.path(), &graph(&[1])).unwrap();
    assert_eq!(samples.labels(), Some(&[1, 2, 1, 2, 1][..]));
    std::fs::write(files.path().join("labels.csv"), "").unwrap();
    refused(look(files.path()), "labels.csv", |error| matches!(error, MediaError::LabelsTwofold));
}

#[test]
fn folders_that_are_not_taken() {
    let (image, wave) = (pixel(1), wav(1, 8000, &[1]));
    type Files<'a> = &'a [(&'a str, &'a [u8])];
    type Fits = fn(&MediaError) -> bool;
    let cases: [(Files<'_>, &str, Fits); 11] = [
        (&[], "", |error| matches!(error, MediaError::EmptyFolder)),
        (&[("preprocess.json", GRAY), (".x", b"")], "", |error| matches!(error, MediaError::EmptyFolder)),
        (&[("a/.x", b"")], "", |error| matches!(error, MediaError::EmptyFolder)),
        (
            &[("a.png", &image), ("b.wav", &wave)],
            "",
            |error| matches!(error, MediaError::Mixed { one, other } if one == "a.png" && other == "b.wav"),
        ),
        (&[("a.png", &image), ("b.npy", b"")], "", |error| matches!(error, MediaError::Mixed { .. })),
        (
            &[("a/a.png", &image), ("b/b.wav", &wave)],
            "",
            |error| matches!(error, MediaError::Mixed { one, other } if one == "a/a.png" && other == "b/b.wav"),
        ),
        (&[("a/a.png", &image), ("b.png", &image)], "", |error| matches!(error, MediaError::FilesAndFolders { .. })),
        (&[("a.png", &image), ("b.bmp", b"")], "b.bmp", |error| matches!(error, MediaError::Unsupported)),
        (&[("a.mp3", b"")], "a.mp3", |error| matches!(error, MediaError::Unsupported)),
        (&[("a/a.png", &image), ("a/b.npy", b"")], "b.npy", |error| matches!(error, MediaError::Unsupported)),
        (&[("a/a.png", &image), ("a/b/c.png", &image)], "a/b", |error| matches!(error, MediaError::Unsupported)),
    ];
    for (files, file, kind) in cases {
        let folder = folder(files);
        refused(look(folder.path()), file, kind);
    }
}

#[test]
fn descriptions_are_not_for_arrays() {
    let files = folder(&[("a.npy", b""), ("preprocess.json", GRAY)]);
    let unused = |result: Result<Samples, Error>, file: &str| {
        refused(result, file, |error| matches!(error, MediaError::DescriptionUnused));
    };
    let graph = graph(&[1]);
    unused(Samples::open(files.path(), &graph), "");
    let description = files.path().join("preprocess.json");
    std::fs::write(files.path().join("a.npz"), b"PK\x03\x04").unwrap();
    unused(Samples::open_with(&files.path().join("a.npz"), &graph, Some(&description)), "a.npz");
    assert!(matches!(look(files.path()), Ok(Found::Arrays { described: true })));
}

#[test]
fn files_are_decoded_when_their_batch_is_read() {
    let files = folder(&[("a.png", &pixel(1)), ("b.png", &pixel(2)), ("c.png", &pixel(3)), ("preprocess.json", GRAY)]);
    let samples = Samples::open(files.path(), &graph(&[1])).unwrap();
    // Damaged after it was opened: what comes before is read all the same.
    let whole = pixel(3);
    std::fs::write(files.path().join("c.png"), &whole[..whole.len() - 20]).unwrap();
    let mut batches = samples.batches(2).unwrap();
    assert_eq!(batches.next().unwrap().unwrap().inputs[0], [1.0, 2.0]);
    let error = batches.next().unwrap().map(|_| ());
    refused(error, "c.png", |error| matches!(error, MediaError::Image(_)));
    assert!(batches.next().is_none());
    // Replaced by one of another size.
    std::fs::write(files.path().join("b.png"), gray(2, 1, &[1, 2])).unwrap();
    let error = samples.batches(2).unwrap().next().unwrap().unwrap_err();
    assert!(error.file.ends_with("b.png") && matches!(error.kind, ErrorKind::Changed), "{error}");
}

#[test]
fn one_input_is_fed() {
    let files = folder(&[("a.png", &pixel(1)), ("preprocess.json", GRAY)]);
    let mut two = graph(&[1]);
    two.inputs.push(ValueInfo { name: "more".into(), ..two.inputs[0].clone() });
    let error = Samples::open(files.path(), &two).unwrap_err();
    assert!(matches!(error.kind, ErrorKind::InputCount { inputs: 2, .. }), "{error}");
    let Found::Media(listing) = look(files.path()).unwrap() else { panic!("images") };
    assert_eq!(relative(&listing.files, files.path()), ["a.png"]);
}
