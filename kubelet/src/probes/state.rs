//! When a row of single probes becomes a result.

use k8s_openapi::api::core::v1::Probe;

/// Which probe it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Startup,
    Liveness,
    Readiness,
}

impl Kind {
    pub fn word(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }

    /// What holds before the first result: alive, not ready, not started.
    fn before(self) -> Option<bool> {
        match self {
            Self::Startup => None,
            Self::Liveness => Some(true),
            Self::Readiness => Some(false),
        }
    }
}

/// Counts probes of a kind in a row.
#[derive(Debug)]
pub(super) struct Progress {
    result: Option<bool>,
    last: Option<bool>,
    run: i32,
    success_threshold: i32,
    failure_threshold: i32,
}

impl Progress {
    pub fn new(kind: Kind, probe: &Probe) -> Self {
        // Liveness and startup need one success only, whatever is said (validation refuses more).
        let success = if kind == Kind::Readiness { probe.success_threshold.unwrap_or(1).max(1) } else { 1 };
        Self {
            result: kind.before(),
            last: None,
            run: 0,
            success_threshold: success,
            failure_threshold: probe.failure_threshold.unwrap_or(3).max(1),
        }
    }

    /// Takes one probe's outcome; answers with the result when it changes by it.
    pub fn observe(&mut self, passed: bool) -> Option<bool> {
        self.run = if self.last == Some(passed) { self.run.saturating_add(1) } else { 1 };
        self.last = Some(passed);
        let threshold = if passed { self.success_threshold } else { self.failure_threshold };
        if self.run < threshold || self.result == Some(passed) {
            return None;
        }
        self.result = Some(passed);
        Some(passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(kind: Kind, probe: &Probe, outcomes: &str) -> String {
        let mut progress = Progress::new(kind, probe);
        let mark = |outcome| match progress.observe(outcome == '+') {
            None => '.',
            Some(true) => 'Y',
            Some(false) => 'N',
        };
        outcomes.chars().map(mark).collect()
    }

    #[test]
    fn thresholds() {
        let probe = Probe::default();
        assert_eq!(results(Kind::Readiness, &probe, "--+---+"), "..Y..NY");
        assert_eq!(results(Kind::Liveness, &probe, "+--+---"), "......N");
        assert_eq!(results(Kind::Startup, &probe, "--+"), "..Y");
        assert_eq!(results(Kind::Startup, &probe, "---"), "..N");
        let twice = Probe { success_threshold: Some(2), failure_threshold: Some(1), ..Probe::default() };
        assert_eq!(results(Kind::Readiness, &twice, "+-++-"), "...YN");
    }
}
