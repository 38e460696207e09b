//! All samples through a runner on several threads, with a result that does not depend on their number.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::{Error, Runner};
use crate::data::{Batch, Samples};

/// Number of samples in a batch of [`fold`].
pub const BATCH: usize = 16;

/// Runs all samples on `threads` threads: `map` turns each batch and its values into a result (in any order, in
/// parallel); `fold` takes the results in sample order on the calling thread, so that the outcome does not depend on
/// the number of threads. Holds at most two batches or results for each thread at a time.
///
/// # Errors
///
/// The first error of the samples or the runner, in sample order.
pub fn fold<R: Send, A>(
    runner: &dyn Runner,
    samples: &Samples,
    threads: usize,
    map: impl Fn(&Batch, Vec<Vec<f32>>) -> R + Sync,
    start: A,
    fold: impl FnMut(A, R) -> A,
) -> Result<A, Error> {
    let threads = threads.clamp(1, samples.len().div_ceil(BATCH).max(1));
    let batches = samples.batches(BATCH)?;
    let work = |batch: Result<Batch, crate::data::Error>| {
        let batch = batch?;
        let values = runner.run(&batch)?;
        Ok(map(&batch, values))
    };
    in_order(batches, threads, work, start, fold)
}

/// Maps `items` on `threads` threads and folds the results in the order of the items; stops at the first error in
/// that order. A panic of `map` goes on in the calling thread.
fn in_order<T: Send, R: Send, A, E: Send>(
    items: impl Iterator<Item = T> + Send,
    threads: usize,
    map: impl Fn(T) -> Result<R, E> + Sync,
    start: A,
    mut fold: impl FnMut(A, R) -> A,
) -> Result<A, E> {
    let line = Line {
        items: Mutex::new((0, Some(items))),
        state: Mutex::new(State { done: BTreeMap::new(), folded: 0, end: None, stop: false }),
        changed: Condvar::new(),
        window: 2 * threads,
    };
    std::thread::scope(|scope| {
        // Whatever happens on this thread, a panic of `fold` too, the workers end.
        let _stop = Stop(&line);
        for _ in 0..threads {
            scope.spawn(|| line.work(&map));
        }
        let mut result = start;
        while let Some(item) = line.next_result() {
            result = fold(result, item?);
        }
        Ok(result)
    })
}

/// Items in, results out, in order.
struct Line<I, R, E> {
    /// Index of the next item, and the items.
    items: Mutex<(usize, Option<I>)>,
    state: Mutex<State<R, E>>,
    changed: Condvar,
    /// How many items may be taken beyond the last one folded.
    window: usize,
}

struct State<R, E> {
    /// Results that wait for their turn; `None` where the worker panicked.
    done: BTreeMap<usize, Option<Result<R, E>>>,
    /// Number of results folded.
    folded: usize,
    /// Number of items, once known.
    end: Option<usize>,
    stop: bool,
}

impl<I: Iterator<Item = T>, T, R, E> Line<I, R, E> {
    /// Takes items and maps them until there are none, or nobody wants more.
    fn work(&self, map: &impl Fn(T) -> Result<R, E>) {
        loop {
            // The items stay locked while this thread waits for its turn: others could not go ahead of it anyway.
            let mut items = lock(&self.items);
            let index = items.0;
            let mut state = lock(&self.state);
            while !state.stop && index >= state.folded + self.window {
                state = wait(&self.changed, state);
            }
            if state.stop {
                return;
            }
            drop(state);
            // Nothing is read after the end.
            let Some(item) = items.1.as_mut().and_then(Iterator::next) else {
                items.1 = None;
                drop(items);
                lock(&self.state).end = Some(index);
                self.changed.notify_all();
                return;
            };
            items.0 += 1;
            drop(items);
            let mut report = Report { line: self, index, result: None };
            report.result = Some(map(item));
        }
    }

    /// The next result in order; `None` at the end.
    fn next_result(&self) -> Option<Result<R, E>> {
        let mut state = lock(&self.state);
        loop {
            let index = state.folded;
            if let Some(result) = state.done.remove(&index) {
                state.folded += 1;
                self.changed.notify_all();
                // After a panic the results end; the scope passes the panic on.
                return result;
            }
            if state.end.is_some_and(|end| index >= end) {
                return None;
            }
            state = wait(&self.changed, state);
        }
    }
}

/// Hands a result over when dropped, so that a panic leaves no gap that the calling thread would wait for.
struct Report<'l, I, R, E> {
    line: &'l Line<I, R, E>,
    index: usize,
    result: Option<Result<R, E>>,
}

impl<I, R, E> Drop for Report<'_, I, R, E> {
    fn drop(&mut self) {
        lock(&self.line.state).done.insert(self.index, self.result.take());
        self.line.changed.notify_all();
    }
}

/// Tells the workers to end when dropped.
struct Stop<'l, I, R, E>(&'l Line<I, R, E>);

impl<I, R, E> Drop for Stop<'_, I, R, E> {
    fn drop(&mut self) {
        lock(&self.0.state).stop = true;
        self.0.changed.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wait<'g, T>(condvar: &Condvar, guard: MutexGuard<'g, T>) -> MutexGuard<'g, T> {
    condvar.wait(guard).unwrap_or_else(PoisonError::into_inner)
}
