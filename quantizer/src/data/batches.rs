//! Batches made by a thread that reads ahead.

use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use super::{Batch, Error, ErrorKind};

/// Takes a batch; `false` when nobody wants more.
pub(super) type Emit<'e> = &'e mut dyn FnMut(Batch) -> bool;

/// The batches of a sample file, in order. See [`Samples::batches`](super::Samples::batches).
#[derive(Debug)]
pub struct Batches {
    file: String,
    /// Samples that have not come yet.
    missing: usize,
    receiver: Option<Receiver<Result<Batch, Error>>>,
    thread: Option<JoinHandle<()>>,
}

impl Batches {
    /// Runs `work` on a thread. `work` emits batches of `len` samples altogether.
    pub(super) fn spawn(
        file: String,
        len: usize,
        work: impl FnOnce(Emit<'_>) -> Result<(), Error> + Send + 'static,
    ) -> Result<Self, Error> {
        // No buffer: the thread hands a batch over before it reads the one after the next.
        let (sender, receiver) = sync_channel(0);
        let thread = std::thread::Builder::new()
            .name("samples".into())
            .spawn(move || {
                if let Err(error) = work(&mut |batch| sender.send(Ok(batch)).is_ok()) {
                    // A failure to send means that nobody listens any more.
                    let _ = sender.send(Err(error));
                }
            })
            .map_err(|error| Error { file: file.clone(), kind: ErrorKind::Read(error) })?;
        Ok(Self { file, missing: len, receiver: Some(receiver), thread: Some(thread) })
    }
}

impl Iterator for Batches {
    type Item = Result<Batch, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.receiver.as_ref()?.recv() {
            Ok(Ok(batch)) => {
                self.missing = self.missing.saturating_sub(batch.count);
                Some(Ok(batch))
            }
            Ok(Err(error)) => {
                self.receiver = None;
                Some(Err(error))
            }
            Err(_) => {
                self.receiver = None;
                // Fewer samples than announced must not pass for the end.
                (self.missing > 0).then(|| Err(Error { file: self.file.clone(), kind: ErrorKind::Changed }))
            }
        }
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        // Without a receiver the thread's next hand-over fails, and it ends.
        self.receiver = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
