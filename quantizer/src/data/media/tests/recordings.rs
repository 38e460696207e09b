use hound::{SampleFormat, WavSpec};

use super::*;

const PLAIN: &str = r#"{"kind": "audio", "sample_rate": 16000}"#;

fn of(bytes: &[u8], rest: &str, shape: &[usize]) -> Result<Vec<f32>, Error> {
    let description = format!(r#"{{"kind": "audio", "sample_rate": 16000, {rest}}}"#);
    sample(("a.wav", bytes), &description, shape)
}

fn spec(bits: u16, sample_format: SampleFormat) -> WavSpec {
    WavSpec { channels: 1, sample_rate: 16000, bits_per_sample: bits, sample_format }
}

#[test]
fn every_width_becomes_the_same_values() {
    for bits in [8, 16, 24, 32] {
        let full = 1i64 << (bits - 1);
        let values = [0, full - 1, -full, full / 2, -full / 4].map(|value| value as i32);
        let found = sample(("a.WAV", &wav_with(spec(bits, SampleFormat::Int), &values)), PLAIN, &[1, 5]).unwrap();
        assert_eq!(found, [0.0, ((full - 1) as f64 / full as f64) as f32, -1.0, 0.5, -0.25], "{bits} bits");
    }
    let floats = [0.25f32, -1.5, 0.1];
    assert_eq!(sample(("a.wav", &wav_with(spec(32, SampleFormat::Float), &floats)), PLAIN, &[3]).unwrap(), floats);
}

#[test]
fn channels_lengths_and_scales() {
    let mono = wav(1, 16000, &[8192, -8192, 16384]);
    assert_eq!(of(&mono, r#""samples": 2"#, &[2]).unwrap(), [0.25, -0.25]);
    assert_eq!(of(&mono, r#""samples": 5, "scale": 4"#, &[5]).unwrap(), [1.0, -1.0, 2.0, 0.0, 0.0]);
    let stereo = wav(2, 16000, &[8192, 16384, -8192, 0, 0, 4096]);
    assert_eq!(of(&stereo, r#""samples": 4"#, &[4]).unwrap(), [0.375, -0.125, 0.0625, 0.0]);
    let both = of(&stereo, r#""samples": 4, "mono": false"#, &[2, 4]).unwrap();
    assert_eq!(both, [0.25, -0.25, 0.0, 0.0, 0.5, 0.0, 0.125, 0.0]);
    assert_eq!(of(&stereo, r#""samples": 2, "mono": false"#, &[2, 2]).unwrap(), [0.25, -0.25, 0.5, 0.0]);
}

#[test]
fn frames_and_shapes() {
    let values: Vec<i16> = (0..8).map(|i| i * 4096).collect();
    let eighths = |values: &[u8]| values.iter().map(|&value| f32::from(value) / 8.0).collect::<Vec<_>>();
    let bytes = wav(1, 16000, &values);
    let found = of(&bytes, r#""frames": {"length": 4, "hop": 2}"#, &[1, 3, 4]).unwrap();
    assert_eq!(found, eighths(&[0, 1, 2, 3, 2, 3, 4, 5, 4, 5, 6, 7]));
    // What does not fill a frame falls away.
    let found = of(&bytes, r#""frames": {"length": 3, "hop": 3}"#, &[2, 3]).unwrap();
    assert_eq!(found, eighths(&[0, 1, 2, 3, 4, 5]));
    let stereo = wav(2, 16000, &values);
    let found = of(&stereo, r#""mono": false, "frames": {"length": 2, "hop": 1}"#, &[2, 3, 2]).unwrap();
    assert_eq!(found, eighths(&[0, 2, 2, 4, 4, 6, 1, 3, 3, 5, 5, 7]));
    let found = of(&bytes, r#""shape": [2, 4]"#, &[2, 4]).unwrap();
    assert_eq!(found, eighths(&[0, 1, 2, 3, 4, 5, 6, 7]));
    let short = of(&bytes, r#""frames": {"length": 9, "hop": 1}"#, &[9]);
    refused(short, "a.wav", |error| matches!(error, MediaError::TooShort { samples: 8, length: 9 }));
}

#[test]
fn another_sample_rate_is_an_error() {
    let error = refused(sample(("a.wav", &wav(1, 44100, &[1, 2])), PLAIN, &[2]), "a.wav", |error| {
        matches!(error, MediaError::SampleRate { found: 44100, needed: 16000 })
    });
    assert!(error.contains("has 44100 samples a second, and the description says 16000"), "{error}");
}

#[test]
fn damaged_recordings_are_errors_wherever_they_end() {
    let bytes = wav(2, 16000, &[1, 2, 3, 4, 5, 6]);
    for len in 0..bytes.len() {
        let result = sample(("a.wav", &bytes[..len]), PLAIN, &[3]);
        refused(result, "a.wav", |error| matches!(error, MediaError::Audio(_)));
    }
    refused(sample(("a.wav", &wav(1, 16000, &[])), PLAIN, &[1]), "a.wav", |error| {
        matches!(error, MediaError::Audio(_))
    });
    // No change of a bit makes it panic, or gives samples of another size.
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << bit;
            if let Ok(found) = sample(("a.wav", &changed), PLAIN, &[3]) {
                assert_eq!(found.len(), 3);
            }
        }
    }
}

#[test]
fn floats_that_are_not_finite_are_named() {
    for bad in [f32::NAN, f32::INFINITY] {
        let good = wav_with(spec(32, SampleFormat::Float), &[0.5f32, 0.25]);
        let bad = wav_with(spec(32, SampleFormat::Float), &[0.5, bad]);
        let folder = folder(&[("a.wav", &good), ("b.wav", &bad), ("preprocess.json", PLAIN.as_bytes())]);
        refused(read(folder.path(), &[2]), "b.wav", |error| matches!(error, MediaError::NotFinite { sample: 1, .. }));
    }
    // The scale may do it, too.
    let large = wav_with(spec(32, SampleFormat::Float), &[1e30f32, 0.0]);
    refused(of(&large, r#""scale": 1e30"#, &[2]), "a.wav", |error| matches!(error, MediaError::NotFinite { .. }));
}
