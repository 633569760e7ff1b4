//! The same work on many things with a few threads; the first failure ends all.

use super::Error;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Things worked on at a time: what registries and a disk take well.
const WORKERS_MAX: usize = 4;

/// Tells the others that one has failed.
#[derive(Debug, Default)]
pub(crate) struct Stop(AtomicBool);

impl Stop {
    /// A reader that fails as soon as another part did.
    pub(crate) fn watch<R: Read>(&self, inner: R) -> impl Read {
        Watched { inner, stop: self }
    }
}

struct Watched<'s, R> {
    inner: R,
    stop: &'s Stop,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.0.load(Ordering::Relaxed) {
            return Err(io::Error::other(Error::Stopped));
        }
        self.inner.read(buffer)
    }
}

/// Calls `work` for each of `things`; the results in their order, or the first failure.
pub(crate) fn each<T: Sync, R: Send>(
    things: &[T],
    work: impl Fn(&T, &Stop) -> Result<R, Error> + Sync,
) -> Result<Vec<R>, Error> {
    let stop = Stop::default();
    let next = Mutex::new(things.iter().enumerate());
    let failure = Mutex::new(None);
    let results = Mutex::new(Vec::with_capacity(things.len()));
    let worker = || {
        while !stop.0.load(Ordering::Relaxed) {
            let Some((place, thing)) = lock(&next).next() else {
                return;
            };
            match work(thing, &stop) {
                Ok(result) => lock(&results).push((place, result)),
                Err(error) => {
                    stop.0.store(true, Ordering::Relaxed);
                    lock(&failure).get_or_insert(error);
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..things.len().min(WORKERS_MAX) {
            scope.spawn(worker);
        }
        worker();
    });
    if let Some(error) = lock(&failure).take() {
        return Err(error);
    }
    let mut results = std::mem::take(&mut *lock(&results));
    results.sort_by_key(|(place, _)| *place);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_keep_their_order() {
        let things: Vec<u64> = (0..50).collect();
        let doubled = each(&things, |thing, _| Ok(thing * 2)).unwrap();
        assert_eq!(doubled, (0..50).map(|thing| thing * 2).collect::<Vec<_>>());
        assert_eq!(
            each(&[] as &[u64], |thing, _| Ok(*thing)).unwrap(),
            [] as [u64; 0]
        );
    }

    #[test]
    fn the_first_failure_stops_the_others() {
        let error = each(&[1, 2, 3, 4], |thing, stop| {
            if *thing == 2 {
                return Err(Error::Nested(2));
            }
            let mut endless = stop.watch(io::repeat(0));
            io::copy(&mut endless, &mut io::sink()).map_err(|_| Error::Stopped)
        });
        assert!(matches!(error, Err(Error::Nested(2))));
    }
}
