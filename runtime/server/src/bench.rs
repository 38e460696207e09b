//! Times of several models side by side.

use std::time::Instant;

/// How long one contestant took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timing {
    /// Median of all rounds, in microseconds.
    pub median_us: f64,
    /// Shortest round, in microseconds.
    pub least_us: f64,
    /// Number of rounds.
    pub rounds: usize,
}

/// Runs all `contestants` once per round, in turn, so that what disturbs the machine meets all of them alike; the
/// first `warmup` rounds are not counted.
///
/// # Errors
///
/// The first error of a contestant.
pub fn interleave<E>(
    contestants: &mut [&mut dyn FnMut() -> Result<(), E>],
    warmup: usize,
    rounds: usize,
) -> Result<Vec<Timing>, E> {
    let rounds = rounds.max(1);
    let mut times: Vec<Vec<f64>> = vec![Vec::with_capacity(rounds); contestants.len()];
    for round in 0..warmup + rounds {
        for (contestant, times) in contestants.iter_mut().zip(&mut times) {
            let start = Instant::now();
            contestant()?;
            let time = start.elapsed().as_secs_f64() * 1e6;
            if round >= warmup {
                times.push(time);
            }
        }
    }
    Ok(times.into_iter().map(timing).collect())
}

fn timing(mut times: Vec<f64>) -> Timing {
    times.sort_by(f64::total_cmp);
    let (middle, rounds) = (times.len() / 2, times.len());
    let median_us = if rounds % 2 == 1 { times[middle] } else { (times[middle - 1] + times[middle]) / 2.0 };
    Timing { median_us, least_us: times[0], rounds }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contestants_take_turns_and_warm_up_is_not_counted() {
        let order = std::cell::RefCell::new(String::new());
        let mut a = || -> Result<(), ()> {
            order.borrow_mut().push('a');
            Ok(())
        };
        let mut b = || -> Result<(), ()> {
            order.borrow_mut().push('b');
            std::thread::sleep(std::time::Duration::from_millis(2));
            Ok(())
        };
        let timings = interleave(&mut [&mut a, &mut b], 1, 3).unwrap();
        assert_eq!(*order.borrow(), "abababab");
        assert_eq!((timings[0].rounds, timings[1].rounds), (3, 3));
        assert!(timings[1].least_us >= 2000.0 && timings[1].median_us >= timings[1].least_us, "{timings:?}");
    }

    #[test]
    fn the_first_error_ends_it() {
        let mut runs = 0;
        let mut contestant = || {
            runs += 1;
            if runs == 3 { Err("third") } else { Ok(()) }
        };
        assert_eq!(interleave(&mut [&mut contestant], 0, 10), Err("third"));
    }

    #[test]
    fn medians() {
        assert_eq!(timing(vec![3.0, 1.0, 2.0]), Timing { median_us: 2.0, least_us: 1.0, rounds: 3 });
        assert_eq!(timing(vec![4.0, 1.0, 2.0, 3.0]).median_us, 2.5);
    }
}
