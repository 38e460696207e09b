//! Work on parts of a batch, side by side.

use std::sync::Mutex;

/// `f` of every index below `count`, in order, on `threads` threads.
pub(super) fn in_parallel<R: Send>(count: usize, threads: usize, f: impl Fn(usize) -> R + Sync) -> Vec<R> {
    if threads <= 1 || count <= 1 {
        return (0..count).map(f).collect();
    }
    let next = Mutex::new(0..count);
    let work = || {
        let mut done = Vec::new();
        loop {
            let index = next.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
            let Some(index) = index else { return done };
            done.push((index, f(index)));
        }
    };
    let mut all = std::thread::scope(|scope| {
        let workers: Vec<_> = (1..threads.min(count)).map(|_| scope.spawn(work)).collect();
        let mut all = work();
        for worker in workers {
            match worker.join() {
                Ok(done) => all.extend(done),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        all
    });
    all.sort_unstable_by_key(|(index, _)| *index);
    all.into_iter().map(|(_, result)| result).collect()
}
