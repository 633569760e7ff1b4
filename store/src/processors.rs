//! The same question about many small things, on all processors.

use std::thread;

/// Fewest things that are worth a thread: some milliseconds of work.
const THINGS_PER_THREAD: usize = 256;

/// Cuts `things` into a part for each processor and calls `work` for each; the results in their order,
/// or the first failure among them.
pub(crate) fn on_all_processors<'t, T: Sync, R: Send, E: Send>(
    things: &'t [T],
    work: impl Fn(&'t [T]) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let part = things.len().div_ceil(processors).max(THINGS_PER_THREAD);
    let mut parts = things.chunks(part);
    let first = parts.next().unwrap_or_default();
    thread::scope(|scope| {
        let work = &work;
        let others: Vec<_> = parts.map(|part| scope.spawn(move || work(part))).collect();
        let mut results = vec![work(first)?];
        for other in others {
            match other.join() {
                Ok(result) => results.push(result?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(results)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_keep_their_order() {
        for count in [0, 1, 255, 256, 257, 5000] {
            let things: Vec<usize> = (0..count).collect();
            let parts = on_all_processors(&things, |part| Ok::<_, ()>(part.to_vec()));
            assert_eq!(parts.unwrap().concat(), things);
        }
        let things: Vec<usize> = (0..5000).collect();
        let failed = on_all_processors(&things, |part| match part.contains(&4999) {
            true => Err("the last"),
            false => Ok(()),
        });
        assert_eq!(failed, Err("the last"));
    }
}
