use super::*;
use crate::data::MediaKind;
use crate::data::media::preprocess::{Preprocess, example};

fn image(description: &str, shape: &[usize]) -> Result<Vec<f32>, Error> {
    sample(("a.png", &gray(2, 2, &[1, 2, 3, 4])), description, shape)
}

#[test]
fn a_missing_description_comes_with_one_that_fits() {
    let folder = folder(&[("a.png", &gray(2, 2, &[1, 2, 3, 4]))]);
    let error =
        refused(read(folder.path(), &[1, 28, 30]), "", |error| matches!(error, MediaError::NoDescription { .. }));
    for part in ["preprocess.json", "--preprocess FILE", r#""width": 30, "height": 28"#, r#""channels": "gray""#] {
        assert!(error.contains(part), "{error}");
    }
    for (kind, shape) in [
        (MediaKind::Image, &[3, 96, 64][..]),
        (MediaKind::Image, &[96, 64, 3]),
        (MediaKind::Image, &[1, 96, 64]),
        (MediaKind::Audio, &[1, 16000]),
    ] {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), example(kind, shape)).unwrap();
        let read = Preprocess::read(file.path(), kind, shape).unwrap();
        assert_eq!(read.kind(), kind);
        assert!(super::super::fits(&read.fixed_shape().unwrap(), shape), "{shape:?}");
    }
}

#[test]
fn what_is_no_description_is_told_with_an_example() {
    for (text, part) in [
        ("", "EOF"),
        ("{}", "missing field `kind`"),
        (r#"{"kind": "video"}"#, "unknown variant `video`"),
        (r#"{"kind": "image", "resiz": 3}"#, "unknown field `resiz`"),
        (r#"{"kind": "image", "resize": {"width": 2, "height": 2, "depth": 2}}"#, "unknown field `depth`"),
        (r#"{"kind": "image", "resize": {"width": 2, "height": 2, "fit": "crop"}}"#, "unknown variant `crop`"),
        (r#"{"kind": "image", "resize": {"width": 2}}"#, "missing field `height`"),
        (r#"{"kind": "image", "resize": {"width": -2, "height": 1}}"#, "invalid value"),
        (r#"{"kind": "image", "channels": "rgba"}"#, "unknown variant `rgba`"),
        (r#"{"kind": "image", "mean": "0"}"#, "invalid type"),
        (r#"{"kind": "image", "sample_rate": 1}"#, "unknown field `sample_rate`"),
        (r#"{"kind": "audio"}"#, "missing field `sample_rate`"),
        (
            r#"{"kind": "audio", "sample_rate": 1, "frames": {"length": 2, "hop": 1, "window": 1}}"#,
            "unknown field `window`",
        ),
    ] {
        let error = refused(image(text, &[1, 2, 2]), "preprocess.json", |error| {
            matches!(error, MediaError::Description { .. })
        });
        assert!(error.contains(part) && error.contains(r#"{"kind": "image", "resize""#), "{text}: {error}");
    }
}

#[test]
fn values_that_make_no_sense_are_named_by_field() {
    let image = |rest: &str| format!(r#"{{"kind": "image", {rest}}}"#);
    let audio = |rest: &str| format!(r#"{{"kind": "audio", "sample_rate": 16000, {rest}}}"#);
    for (text, field) in [
        (image(r#""resize": {"width": 0, "height": 2}"#), "resize"),
        (image(r#""resize": {"width": 100000, "height": 100000}"#), "resize"),
        (image(r#""resize": {"width": 18446744073709551615, "height": 2}"#), "resize"),
        (image(r#""resize": {"width": 2, "height": 2, "shorter": 3}"#), "shorter"),
        (image(r#""resize": {"width": 2, "height": 5, "fit": "cover-crop", "shorter": 4}"#), "shorter"),
        (image(r#""mean": [0, 0]"#), "mean"),
        (image(r#""channels": "gray", "mean": [0, 0, 0]"#), "mean"),
        (image(r#""std": [1, 1, 1, 1]"#), "std"),
        (image(r#""std": [0]"#), "std"),
        (image(r#""std": [1, -1, 1]"#), "std"),
        (image(r#""scale": 0"#), "scale"),
        (image(r#""scale": 1e39"#), "scale"),
        (image(r#""mean": [1e39]"#), "scale"),
        (image(r#""std": [1e-45]"#), "scale"),
        (r#"{"kind": "audio", "sample_rate": 0}"#.into(), "sample_rate"),
        (audio(r#""samples": 0"#), "samples"),
        (audio(r#""scale": 0"#), "scale"),
        (audio(r#""scale": 1e39"#), "scale"),
        (audio(r#""frames": {"length": 2, "hop": 0}"#), "frames"),
        (audio(r#""frames": {"length": 2, "hop": 3}"#), "frames"),
        (audio(r#""samples": 3, "frames": {"length": 4, "hop": 1}"#), "frames"),
        (audio(r#""samples": 4, "shape": [5]"#), "shape"),
        (audio(r#""samples": 4, "shape": [18446744073709551615, 18446744073709551615]"#), "shape"),
    ] {
        let error = refused(self::image(&text, &[1, 2, 2]), "preprocess.json", |error| {
            matches!(error, MediaError::Field { .. })
        });
        assert!(error.contains(&format!("`{field}`: ")), "{text}: {error}");
    }
}

#[test]
fn a_description_that_does_not_fit_the_model() {
    // The description alone decides: it is named.
    let fixed = r#"{"kind": "image", "resize": {"width": 3, "height": 2}}"#;
    let error = refused(image(fixed, &[1, 2, 3]), "preprocess.json", |error| matches!(error, MediaError::Shape { .. }));
    assert!(error.contains("gives samples of shape [3, 2, 3], and input `in` of the model needs [1, 2, 3]"), "{error}");
    assert!(error.contains("change `resize`, `channels` or `layout`"), "{error}");
    // As many elements in another order are not the same.
    refused(image(fixed, &[2, 3, 3]), "preprocess.json", |error| matches!(error, MediaError::Shape { .. }));
    let audio = r#"{"kind": "audio", "sample_rate": 8000, "samples": 4}"#;
    let wave = wav(1, 8000, &[1, 2, 3, 4]);
    let error = refused(sample(("a.wav", &wave), audio, &[5]), "preprocess.json", |error| {
        matches!(error, MediaError::Shape { .. })
    });
    assert!(error.contains("[4]") && error.contains("[5]") && error.contains("`samples`"), "{error}");
    // The file decides: it is named, before anything is decoded.
    let plain = r#"{"kind": "image", "channels": "gray"}"#;
    let files = folder(&[
        ("a.png", &gray(2, 2, &[1, 2, 3, 4])),
        ("b.png", &gray(2, 1, &[1, 2])),
        ("preprocess.json", plain.as_bytes()),
    ]);
    let error = Samples::open(files.path(), &graph(&[1, 2, 2])).map(|_| ());
    let error = refused(error, "b.png", |error| matches!(error, MediaError::Shape { .. }));
    assert!(error.contains("[1, 1, 2]") && error.contains("[1, 2, 2]"), "{error}");
}

#[test]
fn a_description_of_other_files() {
    refused(image(r#"{"kind": "audio", "sample_rate": 1}"#, &[4]), "preprocess.json", |error| {
        matches!(error, MediaError::WrongKind { described: MediaKind::Audio, found: MediaKind::Image })
    });
}

#[test]
fn a_file_given_goes_before_the_one_in_the_folder() {
    let files = folder(&[("d/a.png", &gray(1, 1, &[255])), ("d/preprocess.json", br#"{"kind": "image"}"#)]);
    let other = files.path().join("other.json");
    std::fs::write(&other, r#"{"kind": "image", "channels": "gray", "scale": 1}"#).unwrap();
    let graph = graph(&[1]);
    let folder = files.path().join("d");
    assert!(Samples::open(&folder, &graph).is_err(), "three values");
    let batches = Samples::open_with(&folder, &graph, Some(&other)).unwrap().batches(1).unwrap();
    assert_eq!(batches.map(|batch| batch.unwrap().inputs[0][0]).collect::<Vec<_>>(), [255.0]);
    let missing = Samples::open_with(&folder, &graph, Some(Path::new("/nowhere.json"))).unwrap_err();
    assert!(missing.file == "/nowhere.json" && matches!(missing.kind, ErrorKind::Read(_)), "{missing}");
}
