//! After how long a request that got no seat may be tried again: the more a level turns away, the later (apiserver
//! `util/flowcontrol`, `dropped_requests_tracker.go`).

use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

/// The longest, in seconds.
const LONGEST: u64 = 32;

/// Of a second: which it is since the beginning, and how many were turned away in it.
type Tally = (u64, u64);

/// What one level has turned away lately.
#[derive(Debug)]
struct Level {
    current: Tally,
    /// Seconds before that, of which none is older than the longest wait.
    before: VecDeque<Tally>,
    wait: u64,
    raised: Option<u64>,
}

impl Default for Level {
    fn default() -> Self {
        Self { current: (0, 0), before: VecDeque::new(), wait: 1, raised: None }
    }
}

impl Level {
    fn drop_one(&mut self, now: u64) {
        if self.current.0 == now {
            self.current.1 += 1;
            return;
        }
        self.before.push_back(self.current);
        while self.before.front().is_some_and(|(second, _)| self.current.0.saturating_sub(*second) > LONGEST) {
            self.before.pop_front();
        }
        self.current = (now, 1);
        self.adjust(now);
    }

    /// Doubles the wait when three requests for each of its seconds were turned away within it, but not twice within it; takes a
    /// second off when there was less than one.
    fn adjust(&mut self, now: u64) {
        let recent = self.before.iter().filter(|(second, _)| now.saturating_sub(*second) <= self.wait);
        let dropped: u64 = recent.map(|(_, dropped)| dropped).sum();
        let may_raise = self.raised.is_none_or(|raised| now - raised >= self.wait);
        if may_raise && dropped >= 3 * self.wait {
            self.wait = (2 * self.wait).min(LONGEST);
            self.raised = Some(now);
        } else if dropped < self.wait && self.wait > 1 {
            self.wait -= 1;
        }
    }
}

/// What all levels have turned away lately.
#[derive(Debug)]
pub struct Dropped {
    since: Instant,
    levels: Mutex<HashMap<String, Level>>,
}

impl Default for Dropped {
    fn default() -> Self {
        Self { since: Instant::now(), levels: Mutex::default() }
    }
}

impl Dropped {
    /// Notes that a level turned a request away, and says when that may come again.
    pub fn note(&self, level: &str) -> Duration {
        let now = self.since.elapsed().as_secs();
        let mut levels = self.levels.lock();
        if !levels.contains_key(level) {
            levels.insert(level.to_owned(), Level::default());
        }
        let Some(known) = levels.get_mut(level) else { return Duration::from_secs(1) };
        known.drop_one(now);
        Duration::from_secs(known.wait)
    }

    /// Forgets levels that are no more.
    pub fn keep(&self, is_there: impl Fn(&str) -> bool) {
        self.levels.lock().retain(|level, _| is_there(level));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told to each request that is turned away: so many in each of these seconds.
    fn told(seconds: &[(u64, usize)]) -> Vec<u64> {
        let mut level = Level::default();
        let mut told = Vec::new();
        for (second, count) in seconds {
            (0..*count).for_each(|_| level.drop_one(*second));
            told.push(level.wait);
        }
        told
    }

    /// As upstream's tracker has it, in the same seconds.
    #[test]
    fn the_wait_doubles_under_load_and_falls_by_seconds() {
        // Only what was turned away in earlier seconds counts.
        assert_eq!(told(&[(100, 50), (101, 1)]), [1, 2]);
        // Not again within the wait: 2 seconds, then 4.
        assert_eq!(told(&[(100, 50), (101, 50), (102, 50), (103, 50), (104, 50), (107, 1)]), [1, 2, 2, 4, 4, 8]);
        // A quiet level comes down one by one.
        assert_eq!(
            told(&[(100, 50), (101, 50), (103, 50), (200, 1), (300, 1), (400, 1), (500, 1)]),
            [1, 2, 4, 3, 2, 1, 1]
        );
        let busy: Vec<_> = (1..200).map(|second| (second, 200)).collect();
        assert_eq!(told(&busy).last(), Some(&LONGEST));
    }
}
