use png::{BitDepth, ColorType};

use super::*;
use crate::data::media::image::{self, Pixels};
use crate::data::media::resize::{Crop, resize};

const GRAY: &str = r#"{"kind": "image", "channels": "gray"}"#;

fn unit(pixels: &[u8]) -> Vec<f32> {
    pixels.iter().map(|&pixel| f32::from(pixel) / 255.0).collect()
}

/// Pixels that are the same everywhere and as good as random.
fn pattern(width: usize, height: usize) -> Pixels {
    let pixel = |i: usize| {
        let (x, y, c) = (i / 3 % width, i / 3 / width, i % 3);
        ((x * 53 + y * 97 + c * 31 + x * y * 7) % 256) as u8
    };
    Pixels { width, height, channels: 3, data: (0..width * height * 3).map(pixel).collect() }
}

/// FNV-1a of 64 bits.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[test]
fn every_form_of_png_is_decoded() {
    let rgb: [u8; 12] = [255, 0, 10, 0, 255, 20, 1, 2, 3, 200, 100, 50];
    let planes = |at: [usize; 3]| -> Vec<f32> {
        at.iter().flat_map(|&c| unit(&[rgb[c], rgb[3 + c], rgb[6 + c], rgb[9 + c]])).collect()
    };
    let with_alpha: Vec<u8> = rgb.chunks(3).flat_map(|p| [p[0], p[1], p[2], 0]).collect();
    let of = |bytes: &[u8], description: &str, shape: &[usize]| sample(("a.png", bytes), description, shape).unwrap();
    let plain = r#"{"kind": "image"}"#;
    // Transparency is left out of account; a palette gives the same pixels.
    let palette = png_with(2, 2, ColorType::Indexed, BitDepth::Two, &[0b0001_0000, 0b1011_0000], |encoder| {
        encoder.set_palette(rgb.to_vec());
        encoder.set_trns(vec![0, 128]);
    });
    let rgba = png(2, 2, ColorType::Rgba, &with_alpha);
    for bytes in [png(2, 2, ColorType::Rgb, &rgb), rgba, palette] {
        assert_eq!(of(&bytes, plain, &[3, 2, 2]), planes([0, 1, 2]));
    }
    let bytes = png(2, 2, ColorType::Rgb, &rgb);
    assert_eq!(of(&bytes, r#"{"kind": "image", "channels": "bgr"}"#, &[3, 2, 2]), planes([2, 1, 0]));
    assert_eq!(of(&bytes, r#"{"kind": "image", "layout": "nhwc"}"#, &[2, 2, 3]), unit(&rgb));
    // 0.299 R + 0.587 G + 0.114 B.
    assert_eq!(of(&bytes, GRAY, &[1, 2, 2]), unit(&[77, 152, 2, 124]));
    // Gray of fewer bits is spread over 0 to 255, and becomes three equal channels where colors are wanted.
    let bits = png_with(4, 1, ColorType::Grayscale, BitDepth::Two, &[0b0001_1011], |_| ());
    assert_eq!(of(&bits, GRAY, &[1, 1, 4]), unit(&[0, 85, 170, 255]));
    assert_eq!(of(&gray(2, 1, &[7, 9]), plain, &[3, 1, 2]), unit(&[7, 9, 7, 9, 7, 9]));
    let alpha = png(2, 1, ColorType::GrayscaleAlpha, &[7, 0, 9, 255]);
    assert_eq!(of(&alpha, GRAY, &[1, 1, 2]), unit(&[7, 9]));
}

#[test]
fn jpeg_files_give_the_picture_they_were_made_from() {
    // Red 12 x, green 20 y, blue 8 (x + y), 20 x 12 pixels, quality 95.
    let colors = |x: usize, y: usize| [12 * x, 20 * y, 8 * (x + y)];
    let off = |found: f32, pixel: f64| (f64::from(found) * 255.0 - pixel).abs();
    let found = sample(("a.jpg", &fixture("gradient.jpg")), r#"{"kind": "image"}"#, &[3, 12, 20]).unwrap();
    for (i, &value) in found.iter().enumerate() {
        let pixel = colors(i % 20, i / 20 % 12)[i / 240] as f64;
        assert!(off(value, pixel) <= 6.0, "{i}: {value} for {pixel}");
    }
    let found = sample(("a.JPEG", &fixture("gradient_gray.jpg")), GRAY, &[12, 20]).unwrap();
    for (i, &value) in found.iter().enumerate() {
        let [r, g, b] = colors(i % 20, i / 20).map(|pixel| pixel as f64);
        assert!(off(value, 0.299 * r + 0.587 * g + 0.114 * b) <= 3.0, "{i}: {value}");
    }
    // The bytes decide, not the name.
    let bytes = gray(2, 1, &[3, 4]);
    assert_eq!(sample(("a.jpg", &bytes), GRAY, &[2]).unwrap(), unit(&[3, 4]));
}

#[test]
fn pixels_are_scaled_and_normalized_step_after_step_in_float32() {
    let pixels: Vec<u8> = (0..=255).collect();
    let bytes = gray(16, 16, &pixels);
    let of = |rest: &str| {
        let description = format!(r#"{{"kind": "image", "channels": "gray", {rest}}}"#);
        sample(("a.png", &bytes), &description, &[1, 16, 16]).unwrap()
    };
    let each = |value: fn(f32) -> f32| pixels.iter().map(|&pixel| value(f32::from(pixel))).collect::<Vec<f32>>();
    assert_eq!(of(r#""mean": [0.2860], "std": [0.3530]"#), each(|p| (p / 255.0 - 0.2860) / 0.3530));
    // The default, written out.
    assert_eq!(of(r#""scale": 0.00392156862745098"#), each(|p| p / 255.0));
    assert_eq!(of(r#""scale": 1, "mean": [128]"#), each(|p| p - 128.0));
    assert_eq!(of(r#""scale": 0.007, "std": [2]"#), each(|p| p * 0.007 / 2.0));
    // One number for each channel of the sample: blue first.
    let pixel = png(1, 1, ColorType::Rgb, &[10, 20, 30]);
    let bgr = r#"{"kind": "image", "channels": "bgr", "scale": 1, "mean": [1, 2, 3], "std": [1, 2, 4]}"#;
    assert_eq!(sample(("a.png", &pixel), bgr, &[3]).unwrap(), [29.0, 9.0, 1.75]);
}

#[test]
fn resizing_equals_pillow_bit_for_bit() {
    // Hashes of `numpy.asarray(Image.fromarray(pattern).resize(to, Image.BILINEAR))`, Pillow 12.0.
    let cases: [([usize; 2], [usize; 2], u64); 7] = [
        ([5, 7], [3, 4], 0xddef1b98184208cc),
        ([5, 7], [9, 6], 0x3ed930f2bafbd5cc),
        ([100, 60], [32, 32], 0x0f96a7bf5631a270),
        ([31, 200], [64, 17], 0x54720b49018fd54f),
        ([3, 2], [50, 40], 0x5feec671b452c20b),
        ([64, 48], [64, 20], 0x9e58a87961dc22e3),
        ([257, 129], [28, 28], 0xa1bff1cd3d08dbfa),
    ];
    for (from, to, expected) in cases {
        let pixels = resize(&pattern(from[0], from[1]), &Crop::whole(to[0], to[1])).unwrap();
        assert_eq!((pixels.width, pixels.height), (to[0], to[1]));
        assert_eq!(hash(&pixels.data), expected, "{from:?} to {to:?}");
    }
    // `Image.convert("L")`.
    assert_eq!(hash(&pattern(31, 20).into_gray().data), 0x9e11_2326_0df0_e5ce);
}

#[test]
fn a_crop_is_a_part_of_the_whole() {
    let pixels = pattern(40, 30);
    // 40 x 30 covers 20 x 20 as 26 x 20; three columns fall away on either side.
    let whole = resize(&pixels, &Crop::whole(26, 20)).unwrap();
    let crop = Crop::center((40, 30), (20, 20), None);
    let center = resize(&pixels, &crop).unwrap();
    let expected: Vec<u8> = whole.data.chunks(26 * 3).flat_map(|row| row[3 * 3..23 * 3].to_vec()).collect();
    assert_eq!((center.width, center.height, center.data), (20, 20, expected));
    // Columns, rows: the other way round, and with a longer side than is needed.
    let tall = resize(&pattern(30, 40), &Crop::center((30, 40), (20, 20), Some(24))).unwrap();
    let whole = resize(&pattern(30, 40), &Crop::whole(24, 32)).unwrap();
    let rows = whole.data.chunks(24 * 3).skip(6).take(20);
    assert_eq!(tall.data, rows.flat_map(|row| row[2 * 3..22 * 3].to_vec()).collect::<Vec<u8>>());
    // Halves go to the even side, as Python rounds: 5 columns too many leave 2 on the left, 7 leave 4.
    for (width, left) in [(25, 2), (27, 4)] {
        let wide = resize(&pattern(width, 20), &Crop::center((width, 20), (20, 20), None)).unwrap();
        let expected = pattern(width, 20).data.chunks(width * 3).flat_map(|r| r[left * 3..][..60].to_vec()).collect();
        assert_eq!(wide.data, Vec::<u8>::clone(&expected), "{width}");
    }
}

#[test]
fn descriptions_resize() {
    let pixels: Vec<u8> = (0..12).map(|i| i * 20).collect();
    let bytes = gray(4, 3, &pixels);
    let of = |resize: &str, shape: &[usize]| {
        let description = format!(r#"{{"kind": "image", "channels": "gray", "scale": 1, "resize": {resize}}}"#);
        sample(("a.png", &bytes), &description, shape).unwrap()
    };
    assert_eq!(
        of(r#"{"width": 4, "height": 3}"#, &[1, 3, 4]),
        pixels.iter().map(|&p| f32::from(p)).collect::<Vec<_>>()
    );
    assert_eq!(of(r#"{"width": 1, "height": 1}"#, &[1]), [110.0]);
    let square = of(r#"{"width": 3, "height": 3, "fit": "cover-crop"}"#, &[1, 3, 3]);
    assert_eq!(square, [0.0, 20.0, 40.0, 80.0, 100.0, 120.0, 160.0, 180.0, 200.0]);
}

#[test]
fn damaged_images_are_errors_wherever_they_end() {
    let color = png(5, 4, ColorType::Rgb, &pattern(5, 4).data);
    let jpeg = fixture("gradient.jpg");
    for (name, bytes, shape) in [("a.png", &color, [3, 4, 5]), ("a.jpg", &jpeg, [3, 12, 20])] {
        assert!(sample((name, bytes), r#"{"kind": "image"}"#, &shape).is_ok());
        for len in 0..bytes.len() {
            let result = sample((name, &bytes[..len]), r#"{"kind": "image"}"#, &shape);
            let error = refused(result, name, |error| matches!(error, MediaError::Image(_)));
            assert!(error.contains("truncated, damaged or unknown image"), "{len}: {error}");
        }
    }
    let text = sample(("a.png", b"not an image"), GRAY, &[4]);
    refused(text, "a.png", |error| matches!(error, MediaError::Image(_)));
}

#[test]
fn no_bit_that_changes_makes_it_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    for bytes in [png(5, 4, ColorType::Rgb, &pattern(5, 4).data), fixture("gradient.jpg"), fixture("gradient_cmyk.jpg")]
    {
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << (at % 8);
            std::fs::write(&path, &changed).unwrap();
            if let (Ok((width, height)), Ok(pixels)) = (image::size(&path), image::decode(&path)) {
                assert_eq!((pixels.width, pixels.height), (width, height));
                assert_eq!(pixels.data.len(), width * height * pixels.channels);
            }
        }
    }
}

#[test]
fn images_that_are_not_taken() {
    let plain = r#"{"kind": "image"}"#;
    let deep = png_with(1, 1, ColorType::Grayscale, BitDepth::Sixteen, &[1, 2], |_| ());
    refused(sample(("a.png", &deep), plain, &[3, 1, 1]), "a.png", |error| matches!(error, MediaError::Depth));
    let cmyk = sample(("a.jpg", &fixture("gradient_cmyk.jpg")), plain, &[3, 12, 20]);
    assert!(refused(cmyk, "a.jpg", |error| matches!(error, MediaError::Colors(_))).contains("CMYK"));
    // A header that promises more pixels than memory holds.
    let mut huge = gray(1, 1, &[0]);
    huge[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]);
    let fit = r#"{"kind": "image", "resize": {"width": 1, "height": 1}}"#;
    let error = sample(("a.png", &huge), fit, &[3]);
    // The header's checksum is wrong, too; either is fit to refuse it.
    refused(error, "a.png", |error| matches!(error, MediaError::TooLarge { .. } | MediaError::Image(_)));
    assert!(matches!(
        resize(&Pixels { width: 1, height: 70000, channels: 1, data: vec![0; 70000] }, &Crop::whole(1000, 1)),
        Err(MediaError::TooLarge { width: 1000, height: 70000 })
    ));
    assert!(matches!(
        resize(&pattern(1, 9), &Crop::center((1, 1 << 40), (1 << 20, 1), None)),
        Err(MediaError::TooLarge { .. })
    ));
}
