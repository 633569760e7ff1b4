//! Runs jobs that need one another, as many at once as there are workers.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

struct State<E> {
    ready: VecDeque<usize>,
    /// How many needed jobs are still open, for each job.
    open: Vec<usize>,
    left: usize,
    failed: Option<E>,
}

/// Runs `work(job)` for every job after those it needs; `needs[job]` lists them and holds only lower numbers.
///
/// Returns when all are done, or when one failed and those already running have returned.
/// `on_failure` runs once, at the first failure, so that they need not run to their end.
///
/// # Errors
/// The first failure.
pub fn run<E: Send>(
    needs: &[Vec<usize>],
    workers: usize,
    work: impl Fn(usize) -> Result<(), E> + Sync,
    on_failure: impl Fn() + Sync,
) -> Result<(), E> {
    let mut followers = vec![Vec::new(); needs.len()];
    for (job, needed) in needs.iter().enumerate() {
        needed
            .iter()
            .for_each(|earlier| followers[*earlier].push(job));
    }
    let open: Vec<usize> = needs.iter().map(Vec::len).collect();
    let ready = (0..needs.len()).filter(|job| open[*job] == 0).collect();
    let state = Mutex::new(State {
        ready,
        open,
        left: needs.len(),
        failed: None,
    });
    let changed = Condvar::new();
    let worker = || {
        while let Some(job) = next(&state, &changed) {
            let result = work(job);
            let mut state = lock(&state);
            state.left -= 1;
            match result {
                Ok(()) => {
                    for &follower in &followers[job] {
                        state.open[follower] -= 1;
                        if state.open[follower] == 0 {
                            state.ready.push_back(follower);
                        }
                    }
                }
                Err(error) if state.failed.is_none() => {
                    state.failed = Some(error);
                    on_failure();
                }
                Err(_) => {}
            }
            changed.notify_all();
        }
    };
    let workers = workers.clamp(1, needs.len().max(1));
    if workers == 1 {
        worker();
    } else {
        std::thread::scope(|scope| (0..workers).for_each(|_| drop(scope.spawn(worker))));
    }
    let failed = lock(&state).failed.take();
    failed.map_or(Ok(()), Err)
}

/// The next job that can start; waits for one; `None` when nothing will come any more.
fn next<E>(state: &Mutex<State<E>>, changed: &Condvar) -> Option<usize> {
    let mut state = lock(state);
    loop {
        if state.failed.is_some() || state.left == 0 {
            return None;
        }
        if let Some(job) = state.ready.pop_front() {
            return Some(job);
        }
        state = changed.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn jobs_run_after_what_they_need() {
        let needs = vec![vec![], vec![0], vec![0], vec![1, 2], vec![]];
        for workers in [1, 4] {
            let order = Mutex::new(Vec::new());
            run::<()>(
                &needs,
                workers,
                |job| {
                    lock(&order).push(job);
                    Ok(())
                },
                || {},
            )
            .unwrap();
            let order = order.into_inner().unwrap();
            assert_eq!(order.len(), needs.len());
            let place = |job: usize| order.iter().position(|other| *other == job).unwrap();
            for (job, needed) in needs.iter().enumerate() {
                assert!(needed.iter().all(|earlier| place(*earlier) < place(job)));
            }
        }
    }

    #[test]
    fn independent_jobs_run_at_once() {
        let barrier = std::sync::Barrier::new(2);
        run::<()>(
            &[vec![], vec![]],
            2,
            |_| {
                barrier.wait();
                Ok(())
            },
            || {},
        )
        .unwrap();
    }

    #[test]
    fn the_first_failure_ends_it() {
        let (ran, told) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let work = |job| {
            ran.fetch_add(1, Ordering::Relaxed);
            if job == 1 { Err(job) } else { Ok(()) }
        };
        let result = run(&[vec![], vec![0], vec![1]], 2, work, || {
            told.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(
            (result, ran.into_inner(), told.into_inner()),
            (Err(1), 2, 1)
        );
        run::<()>(&[], 3, |_| Ok(()), || {}).unwrap();
    }
}
