//! The library, loaded once per process.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ort::environment::Environment;

use crate::{Error, library};

/// ONNX Runtime, loaded. Clones share it.
#[derive(Debug, Clone)]
pub struct Runtime {
    pub(crate) environment: Environment,
    path: PathBuf,
}

static LOADED: Mutex<Option<Runtime>> = Mutex::new(None);

impl Runtime {
    /// Loads the library at `path`, or the one that [`library::find`] finds. Once loaded it stays; `None` then gives
    /// the one that is loaded.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::NoSuchFile`], [`Error::Load`], [`Error::AlreadyLoaded`].
    pub fn load(path: Option<&Path>) -> Result<Self, Error> {
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(runtime), None) = (&*loaded, path) {
            return Ok(runtime.clone());
        }
        let (from, path) = match path {
            Some(path) => ("the option", path.to_owned()),
            None => (library::VARIABLE, library::find()?),
        };
        // A relative path would be looked for beside the program.
        let path = match std::fs::canonicalize(&path) {
            Ok(path) if path.is_file() => path,
            _ => return Err(Error::NoSuchFile { from: from.into(), path }),
        };
        if let Some(runtime) = &*loaded {
            return match runtime.path == path {
                true => Ok(runtime.clone()),
                false => Err(Error::AlreadyLoaded { loaded: runtime.path.clone(), asked: path }),
            };
        }
        let failed = |reason: String| Error::Load { path: path.clone(), reason };
        let builder = ort::environment::init_from(&path).map_err(|error| failed(error.to_string()))?;
        let environment =
            builder.with_name("equant").with_telemetry(false).build().map_err(|error| failed(error.to_string()))?;
        // What matters comes back as an error; warnings about graphs are no business of the caller's terminal.
        environment.set_log_level(ort::logging::LogLevel::Fatal);
        let runtime = Self { environment, path };
        *loaded = Some(runtime.clone());
        Ok(runtime)
    }

    /// The library file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Version and build of the library.
    pub fn version(&self) -> String {
        ort::info().to_owned()
    }
}
