//! Files on the host, through semihosting.

use core::ffi::CStr;

use semihosting::fs::File;
use semihosting::io;

/// Longest command line, and longest file name.
pub(crate) const NAMES: usize = 512;

/// Opens a file and finds its length.
pub(crate) fn open(name: &str) -> io::Result<(File, u64)> {
    let file = with_c_str(name, |name| File::open(name))?;
    let len = file.metadata()?.len();
    Ok((file, len))
}

/// Creates a file, or empties one.
pub(crate) fn create(name: &str) -> io::Result<File> {
    with_c_str(name, |name| File::create(name))
}

/// Calls `f` with the name as a C string.
fn with_c_str<T>(name: &str, f: impl FnOnce(&CStr) -> io::Result<T>) -> io::Result<T> {
    let mut bytes = [0u8; NAMES];
    match bytes.get_mut(..name.len()) {
        Some(slot) => slot.copy_from_slice(name.as_bytes()),
        None => return Err(io::ErrorKind::InvalidInput.into()),
    }
    f(CStr::from_bytes_until_nul(&bytes).map_err(|_| io::ErrorKind::InvalidInput)?)
}
