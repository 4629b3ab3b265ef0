//! The most that there was of something in a second.

use parking_lot::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// How often upstream sets its figures anew (apiserver `server/filters/maxinflight.go`, `inflightUsageMetricUpdatePeriod`).
const PERIOD: Duration = Duration::from_secs(1);

/// A count, and its highest marks. Nobody looks at it while nothing happens: a period ends when it is next touched.
#[derive(Debug)]
pub struct Marked(Mutex<State>);

#[derive(Debug)]
struct State {
    count: usize,
    /// The most since the period began.
    high: usize,
    /// The most of the period before.
    last: usize,
    began: Instant,
}

impl Default for Marked {
    fn default() -> Self {
        Self(Mutex::new(State { count: 0, high: 0, last: 0, began: Instant::now() }))
    }
}

impl State {
    fn turn(&mut self) {
        let periods = self.began.elapsed().as_nanos() / PERIOD.as_nanos();
        if periods == 0 {
            return;
        }
        // Through those after the first it was what it is.
        self.last = if periods == 1 { self.high } else { self.count };
        self.high = self.count;
        self.began += PERIOD * u32::try_from(periods).unwrap_or(u32::MAX);
    }
}

impl Marked {
    pub fn raise(&self) {
        let mut state = self.0.lock();
        state.turn();
        state.count += 1;
        state.high = state.high.max(state.count);
    }

    pub fn lower(&self) {
        let mut state = self.0.lock();
        state.turn();
        state.count -= 1;
    }

    /// The most in the last period that is over.
    pub fn last(&self) -> usize {
        let mut state = self.0.lock();
        state.turn();
        state.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_highest_of_the_period_that_is_over() {
        let marked = Marked::default();
        (0..3).for_each(|_| marked.raise());
        (0..2).for_each(|_| marked.lower());
        assert_eq!(marked.last(), 0, "it is not over");
        tokio::time::advance(PERIOD).await;
        assert_eq!(marked.last(), 3);
        marked.raise();
        marked.lower();
        tokio::time::advance(PERIOD / 2).await;
        assert_eq!(marked.last(), 3);
        tokio::time::advance(PERIOD / 2).await;
        assert_eq!(marked.last(), 2);
        // It is still there, whether or not somebody looks.
        tokio::time::advance(PERIOD * 7 / 2).await;
        assert_eq!(marked.last(), 1);
        marked.lower();
        tokio::time::advance(PERIOD / 2).await;
        assert_eq!(marked.last(), 1);
        tokio::time::advance(PERIOD).await;
        assert_eq!(marked.last(), 0);
    }
}
