//! A clock that follows tokio's: paused and advanced with it, so that a simulation has one time for waits and for timestamps.

use std::time::Duration;

use coracle_api::clock::Clock;
use jiff::Timestamp;
use tokio::time::Instant;

/// Wall and monotonic time both taken from tokio's clock.
#[derive(Debug, Clone)]
pub struct TokioClock {
    start: Instant,
    wall: Timestamp,
}

impl TokioClock {
    /// A clock that shows `wall` now.
    pub fn starting_at(wall: Timestamp) -> Self {
        Self { start: Instant::now(), wall }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        self.wall.checked_add(self.start.elapsed()).unwrap_or(Timestamp::MAX)
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}
