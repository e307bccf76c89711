//! Independent pieces of work, on several threads.

use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Hands out `numbers` in their order to `jobs` threads, until there are no more or `work` breaks. What was handed out
/// before is finished, so of all that break the first is always among those that ran.
pub(crate) fn each(numbers: Range<u64>, jobs: usize, work: impl Fn(u64) -> ControlFlow<()> + Sync) {
    let next = AtomicU64::new(numbers.start);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= numbers.end {
                        break;
                    }
                    if work(number).is_break() {
                        stop.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
}

/// What the threads gather in; a thread that panicked takes the others' part with it no further.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What they have gathered.
pub(crate) fn gathered<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_before_the_one_that_breaks_are_run() {
        let ran = Mutex::new(Vec::new());
        each(10..1_000, 4, |number| {
            lock(&ran).push(number);
            if number < 50 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        let mut ran = gathered(ran);
        ran.sort_unstable();
        assert!(ran.iter().copied().eq(10..10 + ran.len() as u64), "{ran:?}");
        assert!((41..=44).contains(&ran.len()), "{ran:?}");
    }
}
