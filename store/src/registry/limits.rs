//! How much patience we have with a registry: silence, slowness, and failed attempts.

use std::io::{self, Read};
use std::time::{Duration, Instant};

/// What the user may set of our patience.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How often one request, or one range of a blob, is tried in all; at least once.
    pub attempts: u32,
    /// Wait before the second attempt; doubled with each further one.
    pub first_delay: Duration,
    /// How long the other side may be silent in the middle of an answer.
    pub stall: Duration,
    /// Fewest bytes a second, over as long as it may be silent; single bytes now and then are silence, too.
    pub rate_min: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            attempts: 6,
            first_delay: Duration::from_millis(500),
            stall: Duration::from_secs(60),
            rate_min: 1024,
        }
    }
}

/// A reader that gives up on who sends too slowly. Only the time spent waiting
/// for bytes counts: what the caller does between them is its own matter.
pub(super) struct Paced<R> {
    inner: R,
    window: Duration,
    bytes_min: u64,
    waited: Duration,
    got: u64,
}

impl<R: Read> Paced<R> {
    pub(super) fn new(inner: R, limits: &Limits) -> Self {
        let bytes = limits.stall.as_secs_f64() * limits.rate_min as f64;
        Self {
            inner,
            window: limits.stall,
            bytes_min: bytes as u64,
            waited: Duration::ZERO,
            got: 0,
        }
    }
}

impl<R: Read> Read for Paced<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let began = Instant::now();
        let result = self.inner.read(buffer);
        self.waited += began.elapsed();
        let count = result?;
        self.got += count as u64;
        if self.waited < self.window || count == 0 {
            return Ok(count);
        }
        if self.got < self.bytes_min {
            let (got, seconds) = (self.got, self.waited.as_secs_f64());
            let why = format!("it sent only {got} bytes in {seconds:.0} seconds");
            return Err(io::Error::new(io::ErrorKind::TimedOut, why));
        }
        (self.waited, self.got) = (Duration::ZERO, 0);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Slow(Duration);

    impl Read for Slow {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            std::thread::sleep(self.0);
            buffer[0] = 0;
            Ok(1)
        }
    }

    fn limits(rate_min: u64) -> Limits {
        Limits {
            stall: Duration::from_millis(50),
            rate_min,
            ..Limits::default()
        }
    }

    #[test]
    fn who_drips_is_given_up_and_who_is_read_slowly_is_not() {
        let mut drip = Paced::new(Slow(Duration::from_millis(10)), &limits(1000));
        let error = io::copy(&mut drip, &mut io::sink()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let mut steady = Paced::new(Slow(Duration::from_millis(1)), &limits(100)).take(100);
        assert_eq!(io::copy(&mut steady, &mut io::sink()).unwrap(), 100);
        let mut idle = Paced::new(&[0_u8; 8][..], &limits(1000));
        for _ in 0..8 {
            std::thread::sleep(Duration::from_millis(10));
            idle.read_exact(&mut [0]).unwrap();
        }
    }
}
