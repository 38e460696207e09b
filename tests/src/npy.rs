//! Writes sample files for tests.

use std::io::Write as _;
use std::path::Path;

/// Writes an f32 array as `.npy` (format version 1.0).
///
/// # Panics
///
/// If the file cannot be written.
pub fn write(path: &Path, shape: &[u64], values: &[f32]) {
    let dims: Vec<String> = shape.iter().map(u64::to_string).collect();
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({},), }}", dims.join(", "));
    // Magic, version and length take 10 bytes; the whole is a multiple of 64 and ends with a line feed.
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).expect("a writable file"));
    let mut put = |bytes: &[u8]| file.write_all(bytes).expect("a writable file");
    put(b"\x93NUMPY\x01\x00");
    put(&(header.len() as u16).to_le_bytes());
    put(header.as_bytes());
    for value in values {
        put(&value.to_le_bytes());
    }
    file.flush().expect("a writable file");
}
