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
    fold_batches(runner, samples.batches(BATCH)?, threads, map, start, fold)
}

/// As [`fold`], over batches from anywhere.
///
/// # Errors
///
/// The first error of the batches or the runner, in their order.
pub fn fold_batches<R: Send, A>(
    runner: &dyn Runner,
    batches: impl Iterator<Item = Result<Batch, crate::data::Error>> + Send,
    threads: usize,
    map: impl Fn(&Batch, Vec<Vec<f32>>) -> R + Sync,
    start: A,
    fold: impl FnMut(A, R) -> A,
) -> Result<A, Error> {
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
            // From here on a panic, of the items too, is reported.
            let mut report = Report { line: self, index, result: None, wanted: true };
            // Nothing is read after the end.
            let Some(item) = items.1.as_mut().and_then(Iterator::next) else {
                report.wanted = false;
                items.1 = None;
                drop(items);
                lock(&self.state).end = Some(index);
                self.changed.notify_all();
                return;
            };
            items.0 += 1;
            drop(items);
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
    wanted: bool,
}

impl<I, R, E> Drop for Report<'_, I, R, E> {
    fn drop(&mut self) {
        if self.wanted {
            lock(&self.line.state).done.insert(self.index, self.result.take());
            self.line.changed.notify_all();
        }
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    /// Not associative in f32, so a different order would show.
    fn sum(threads: usize) -> Result<(f32, Vec<usize>), usize> {
        let map = |i: usize| {
            // Later items are done first.
            std::thread::sleep(Duration::from_micros(if i.is_multiple_of(3) { 300 } else { 0 }));
            Ok((i, 1.0 / (i + 1) as f32))
        };
        in_order(0..100, threads, map, (0.0, Vec::new()), |(sum, mut order), (i, value)| {
            order.push(i);
            (sum + value, order)
        })
    }

    #[test]
    fn the_result_does_not_depend_on_the_number_of_threads() {
        let one = sum(1).unwrap();
        assert_eq!(one.1, (0..100).collect::<Vec<_>>());
        for threads in [2, 3, 8, 200] {
            assert_eq!(sum(threads).unwrap(), one, "{threads} threads");
        }
        assert_eq!(in_order(0..0, 4, Ok::<usize, ()>, 7, |sum, i| sum + i), Ok(7));
    }

    #[test]
    fn the_first_error_in_order_wins_and_ends_the_work() {
        for threads in [1, 2, 7] {
            let started = AtomicUsize::new(0);
            let map = |i: usize| {
                started.fetch_add(1, Ordering::SeqCst);
                // The second error comes first in time.
                std::thread::sleep(Duration::from_millis(if i == 10 { 20 } else { 0 }));
                if i == 10 || i == 11 { Err(i) } else { Ok(i) }
            };
            let mut folded = 0;
            assert_eq!(in_order(0..1_000_000, threads, map, (), |(), _| folded += 1), Err(10));
            assert_eq!(folded, 10);
            assert!(started.load(Ordering::SeqCst) <= 11 + 2 * threads, "{threads} threads");
        }
    }

    #[test]
    fn no_more_items_are_taken_than_the_window_allows() {
        for threads in [1, 4] {
            let (taken, folded) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let items = (0..200).inspect(|_| {
                let ahead = taken.fetch_add(1, Ordering::SeqCst) + 1 - folded.load(Ordering::SeqCst);
                // One may have been taken out and be folding right now.
                assert!(ahead <= 2 * threads + 1, "{ahead} items ahead");
            });
            let fold = |(), _| {
                std::thread::sleep(Duration::from_micros(50));
                folded.fetch_add(1, Ordering::SeqCst);
            };
            in_order(items, threads, Ok::<usize, ()>, (), fold).unwrap();
            assert_eq!(folded.load(Ordering::SeqCst), 200);
        }
    }

    #[test]
    fn panics_end_the_work_and_go_on_in_the_caller() {
        for (place, threads) in [("items", 1), ("map", 1), ("fold", 1), ("items", 3), ("map", 3), ("fold", 3)] {
            let check = |at: &str, i: usize| assert!(place != at || i < 5, "{at}");
            let items = (0..1000).inspect(|&i| check("items", i));
            let map = |i: usize| {
                check("map", i);
                Ok::<usize, ()>(i)
            };
            let run = || in_order(items, threads, map, (), |(), i| check("fold", i));
            assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err(), "{place}, {threads}");
        }
    }
}
