//! Timing: medians of many short samples, of several contestants in turn.

use std::time::{Duration, Instant};

/// Samples at the least, however long a call takes; see [`interleave`].
const SAMPLES: usize = 15;
/// With so many samples, time that is up ends the measurement of slow calls.
const FEW_SAMPLES: usize = 3;
/// What a measurement may take beyond its time to get to [`SAMPLES`].
const PATIENCE: Duration = Duration::from_secs(3);

/// Work whose time is taken.
pub struct Timed<'w> {
    work: Box<dyn FnMut(u64) -> Duration + 'w>,
    calls: u64,
    /// Nanoseconds a call.
    samples: Vec<f64>,
}

impl<'w> Timed<'w> {
    /// Work that makes a number of calls and says how long they took. One sample is so many calls that they take
    /// `least`.
    pub fn new(least: Duration, mut work: impl FnMut(u64) -> Duration + 'w) -> Timed<'w> {
        let mut calls = 1;
        loop {
            let took = work(calls);
            if took >= least {
                break;
            }
            // A tenth more than it seems to take, and no leaps on the word of a clock's single tick.
            let missing = least.as_nanos() as f64 * 1.1 / (took.as_nanos().max(1) as f64);
            calls = (calls as f64 * missing.clamp(1.1, 100.0)).ceil() as u64;
        }
        Timed { work: Box::new(work), calls, samples: Vec::new() }
    }

    /// Work of which every sample is one call.
    pub fn single(work: impl FnMut(u64) -> Duration + 'w) -> Timed<'w> {
        Timed { work: Box::new(work), calls: 1, samples: Vec::new() }
    }

    fn sample(&mut self) {
        let took = (self.work)(self.calls);
        self.samples.push(took.as_nanos() as f64 / self.calls as f64);
    }

    /// What was measured.
    pub fn statistics(mut self) -> Statistics {
        self.samples.sort_by(f64::total_cmp);
        Statistics {
            median_ns: self.samples[self.samples.len() / 2],
            min_ns: self.samples[0],
            samples: self.samples.len(),
        }
    }
}

/// What is said about samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Statistics {
    /// The middle one, in nanoseconds a call.
    pub median_ns: f64,
    /// The shortest.
    pub min_ns: f64,
    /// How many.
    pub samples: usize,
}

/// How long some calls take, after one that is not timed: it brings back to the caches what others displaced.
pub fn calls(n: u64, mut call: impl FnMut()) -> Duration {
    call();
    let start = Instant::now();
    for _ in 0..n {
        call();
    }
    start.elapsed()
}

/// Takes samples of all contestants in turn until the time is up and each has enough of them, so that what slows
/// the machine down for a while slows them all down. Calls of seconds have to do with fewer samples.
pub fn interleave(contestants: &mut [&mut Timed<'_>], time: Duration) {
    let start = Instant::now();
    for done in 1.. {
        contestants.iter_mut().for_each(|timed| timed.sample());
        let late = start.elapsed();
        if (late >= time && done >= SAMPLES) || (late >= time + PATIENCE && done >= FEW_SAMPLES) {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_until_a_sample_is_long_enough() {
        let work = |calls: u64| Duration::from_nanos(100 * calls);
        let timed = Timed::new(Duration::from_micros(50), work);
        assert!((500..1000).contains(&timed.calls), "{}", timed.calls);
        let slow = Timed::new(Duration::from_micros(50), Duration::from_millis);
        assert_eq!(slow.calls, 1);
    }

    #[test]
    fn contestants_take_turns_and_medians_are_of_their_own_samples() {
        let order = std::cell::RefCell::new(Vec::new());
        let contestant = |name: u64| {
            let order = &order;
            Timed::single(move |_| {
                order.borrow_mut().push(name);
                // 1, 2, … for the first, 101, 102, … for the second.
                Duration::from_nanos(100 * name + order.borrow().len() as u64 / 2)
            })
        };
        let [mut a, mut b] = [0, 1].map(contestant);
        interleave(&mut [&mut a, &mut b], Duration::ZERO);
        let (a, b) = (a.statistics(), b.statistics());
        assert_eq!(order.borrow()[..4], [0, 1, 0, 1]);
        assert_eq!((a.samples, a.min_ns, a.median_ns), (SAMPLES, 0.0, 7.0));
        assert_eq!((b.samples, b.min_ns, b.median_ns), (SAMPLES, 101.0, 108.0));
    }
}
