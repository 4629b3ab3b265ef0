//! Time as it is handed to everything that needs it, so that a test can move it.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use jiff::Timestamp;

/// A source of wall-clock time and of monotonic time.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock, for what is written into objects.
    fn now(&self) -> Timestamp;
    /// Time since an arbitrary fixed moment, for back-offs and deadlines. Never goes backwards.
    fn monotonic(&self) -> Duration;
}

/// The machine's clock.
#[derive(Debug, Clone)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock whose monotonic time starts now.
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

/// A clock that moves only when it is told to.
#[derive(Debug)]
pub struct ManualClock {
    state: Mutex<(Timestamp, Duration)>,
}

impl ManualClock {
    /// A clock that stands at `start`.
    pub fn new(start: Timestamp) -> Self {
        Self { state: Mutex::new((start, Duration::ZERO)) }
    }

    /// Moves both times forward by `by`.
    pub fn advance(&self, by: Duration) {
        let mut state = self.lock();
        // Only a test moves this clock, and none moves it past the year 9999.
        state.0 = state.0.checked_add(by).unwrap_or(Timestamp::MAX);
        state.1 += by;
    }

    /// Sets the wall clock alone, as an operator does who corrects it: monotonic time does not follow.
    pub fn set(&self, to: Timestamp) {
        self.lock().0 = to;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (Timestamp, Duration)> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.lock().0
    }

    fn monotonic(&self) -> Duration {
        self.lock().1
    }
}

/// `t` as metav1.Time writes it: RFC 3339 in UTC with whole seconds.
pub fn rfc3339(t: Timestamp) -> String {
    t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `t` as metav1.MicroTime writes it: RFC 3339 in UTC with six decimals.
pub fn rfc3339_micro(t: Timestamp) -> String {
    t.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Reads either of the two forms, in any offset.
pub fn parse_rfc3339(text: &str) -> Option<Timestamp> {
    // jiff also reads forms Go's time.RFC3339 does not (a space for the T, no minutes); those are not API times.
    let bytes = text.as_bytes();
    if bytes.len() < 20 || bytes.get(10) != Some(&b'T') || bytes.get(16) != Some(&b':') || bytes.get(13) != Some(&b':')
    {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_upstream_writes_them() {
        let t = parse_rfc3339("2026-03-01T12:00:00.1234567+02:00").unwrap();
        assert_eq!(rfc3339(t), "2026-03-01T10:00:00Z");
        assert_eq!(rfc3339_micro(t), "2026-03-01T10:00:00.123456Z");
        assert!(parse_rfc3339("2026-03-01 12:00:00Z").is_none());
        assert!(parse_rfc3339("yesterday").is_none());
    }

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let start = parse_rfc3339("2026-03-01T12:00:00Z").unwrap();
        let clock = ManualClock::new(start);
        assert_eq!((clock.now(), clock.monotonic()), (start, Duration::ZERO));
        clock.advance(Duration::from_secs(90));
        assert_eq!(rfc3339(clock.now()), "2026-03-01T12:01:30Z");
        clock.set(start);
        assert_eq!((clock.now(), clock.monotonic()), (start, Duration::from_secs(90)));
    }
}
