//! Float and quantized graphs in ONNX Runtime, each node computed as ONNX defines it.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use equant_server::{Input, Options, Runtime, Session};

use super::{Error, Single};
use crate::graph::{Dim, Graph};
use crate::onnx;

/// A graph's file, and sessions for as many threads as run it.
struct Model {
    runtime: Runtime,
    name: String,
    bytes: Vec<u8>,
    /// Shapes of the graph inputs.
    inputs: Vec<Vec<usize>>,
    sessions: Mutex<Vec<Session>>,
}

/// Loads the library that [`super::Backend::Ort`] uses, from a path or from where it is found; needed only to choose
/// the path.
///
/// # Errors
///
/// It is not there or cannot be loaded; another one is loaded already.
pub fn use_onnx_runtime(library: Option<&Path>) -> Result<(), Error> {
    Runtime::load(library)?;
    Ok(())
}

/// Loads a graph whose input shapes are fixed.
pub(super) fn load(graph: &Graph) -> Result<Box<dyn Single>, Error> {
    let size = |dim: &Dim| if let Dim::Known(size) = dim { *size } else { 1 };
    let inputs = graph.inputs.iter().map(|input| input.shape.iter().flatten().map(size).collect()).collect();
    let model = Model {
        runtime: Runtime::load(None)?,
        name: if graph.name.is_empty() { "model".to_owned() } else { graph.name.clone() },
        bytes: onnx::to_bytes(graph),
        inputs,
        sessions: Mutex::new(Vec::new()),
    };
    // A model that is refused is refused now.
    let session = model.session()?;
    model.put_back(session);
    Ok(Box::new(model))
}

impl Model {
    /// A session of the pool, or a new one.
    fn session(&self) -> Result<Session, Error> {
        if let Some(session) = self.sessions.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            return Ok(session);
        }
        let options = Options { optimize: false, ..Options::default() };
        Ok(Session::from_bytes(&self.runtime, &self.name, &self.bytes, &options)?)
    }

    fn put_back(&self, session: Session) {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).push(session);
    }
}

impl Single for Model {
    fn run(&self, inputs: &[&[f32]], give: &mut dyn FnMut(usize, &[f32])) -> Result<(), Error> {
        let inputs: Vec<Input<'_>> =
            inputs.iter().zip(&self.inputs).map(|(values, shape)| Input { shape, values }).collect();
        let mut session = self.session()?;
        let outputs = session.run(&inputs)?;
        self.put_back(session);
        for (i, output) in outputs.into_iter().enumerate() {
            give(i, &output.values.into_f32());
        }
        Ok(())
    }
}
