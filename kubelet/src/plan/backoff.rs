//! Pauses that double (client-go `flowcontrol.Backoff`, kubelet `MaxContainerBackOff`).

use jiff::{SignedDuration, Timestamp};

const FIRST: i64 = 10;
const LONGEST: i64 = 300;
/// After this long without a failure the pause starts at the first again.
const FORGET: i64 = 2 * LONGEST;

/// The pause before the next try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    seconds: i64,
    /// When it was last extended.
    since: Timestamp,
}

impl Backoff {
    /// The pause after a failure at `now`.
    #[must_use]
    pub fn after(previous: Option<Self>, now: Timestamp) -> Self {
        let seconds = match previous {
            Some(old) if now.duration_since(old.since).as_secs() <= FORGET => (old.seconds * 2).min(LONGEST),
            _ => FIRST,
        };
        Self { seconds, since: now }
    }

    /// When a pause that began at `start` ends; `None` when the backoff has been forgotten by `now`.
    pub fn until(self, start: Timestamp, now: Timestamp) -> Option<Timestamp> {
        if now.duration_since(self.since).as_secs() > FORGET {
            None
        } else {
            Some(start.saturating_add(SignedDuration::from_secs(self.seconds)).unwrap_or(Timestamp::MAX))
        }
    }

    /// The pause in Go's form: `10s`, `1m20s`, `5m0s`.
    pub fn text(self) -> String {
        match (self.seconds / 60, self.seconds % 60) {
            (0, seconds) => format!("{seconds}s"),
            (minutes, seconds) => format!("{minutes}m{seconds}s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_five_minutes_and_forgets() {
        let mut now = Timestamp::UNIX_EPOCH;
        let mut backoff = None;
        let mut seen = Vec::new();
        for _ in 0..7 {
            let next = Backoff::after(backoff, now);
            seen.push(next.text());
            backoff = Some(next);
            now += SignedDuration::from_secs(400);
        }
        assert_eq!(seen, ["10s", "20s", "40s", "1m20s", "2m40s", "5m0s", "5m0s"]);
        now += SignedDuration::from_secs(700);
        assert_eq!(backoff.unwrap().until(now, now), None);
        assert_eq!(Backoff::after(backoff, now).text(), "10s");
    }
}
