//! How many seats each level has for now: its own, less what it lends, more what it borrows (apiserver `util/flowcontrol`,
//! `apf_controller.go` updateBorrowingLocked, `conc_alloc.go`; KEP-1040 "Seat borrowing").

use super::turns::{Demand, Settings};

/// How slowly the wanted number of seats falls after a peak, with a look every ten seconds.
const SMOOTHING: f64 = 0.977;

/// What a level that wants nothing weighs.
const LEAST_TARGET: f64 = 0.001;

/// Halvings until the seats are shared out to a hundredth of one.
const HALVINGS: usize = 60;

/// What a level wanted lately.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Wanted {
    pub high: f64,
    pub average: f64,
    pub deviation: f64,
    pub smoothed: f64,
}

impl Wanted {
    /// After another period.
    #[must_use]
    pub fn then(self, demand: Demand) -> Self {
        let envelope = demand.average + demand.deviation;
        let smoothed = envelope.max(SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * envelope);
        Self { high: demand.high, average: demand.average, deviation: demand.deviation, smoothed }
    }
}

/// What a level may have, and would.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Claim {
    least: f64,
    most: f64,
    target: f64,
}

/// Shares `seats` out among levels.
pub fn share_out(seats: usize, levels: &[(Settings, Wanted)]) -> Vec<usize> {
    let claims: Vec<Claim> = levels.iter().map(|(settings, wanted)| claim(settings, wanted)).collect();
    let seats = seats as f64;
    let sum = |of: fn(&Claim) -> f64| claims.iter().map(of).sum::<f64>();
    let never_lent: f64 = levels.iter().map(|(settings, _)| settings.least as f64).sum();
    let least = sum(|claim| claim.least);
    let shared: Vec<f64> = if seats <= never_lent {
        levels.iter().map(|(settings, _)| settings.least as f64).collect()
    } else if seats <= least {
        // Not even what is used of what is their own: that shrinks in proportion.
        let part = (seats - never_lent) / (least - never_lent);
        let own = levels.iter().zip(&claims);
        own.map(|((settings, _), claim)| settings.least as f64 + (claim.least - settings.least as f64) * part).collect()
    } else {
        in_proportion(seats, &claims)
    };
    shared.into_iter().map(|seats| seats.round() as usize).collect()
}

fn claim(settings: &Settings, wanted: &Wanted) -> Claim {
    // Of its own seats a level keeps those it used in the last period, but never fewer than it may not lend.
    let least = (settings.least as f64).max((settings.seats as f64).min(wanted.high));
    Claim { least, most: (settings.most as f64).max(least), target: least.max(wanted.smoothed).max(LEAST_TARGET) }
}

/// Each level the same multiple of its target, within its bounds, so that all together have `seats`.
fn in_proportion(seats: f64, claims: &[Claim]) -> Vec<f64> {
    let at = |times: f64| claims.iter().map(move |claim| (claim.target * times).clamp(claim.least, claim.most));
    let (mut low, mut high) = (0.0, claims.iter().map(|claim| claim.most / claim.target).fold(0.0, f64::max));
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(low, high);
        if at(middle).sum::<f64>() < seats { low = middle } else { high = middle }
    }
    at(high).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(seats: usize, least: usize, most: usize, wanted: f64) -> (Settings, Wanted) {
        let settings = Settings { seats, least, most, ..Settings::default() };
        (settings, Wanted { high: wanted, average: wanted, deviation: 0.0, smoothed: wanted })
    }

    #[test]
    fn idle_levels_lend_and_busy_ones_borrow() {
        // Nothing is lent: each has its own.
        assert_eq!(share_out(100, &[level(60, 60, 100, 0.0), level(40, 40, 100, 90.0)]), [60, 40]);
        // Half is, and the other one wants it.
        assert_eq!(share_out(100, &[level(60, 30, 100, 0.0), level(40, 40, 100, 90.0)]), [30, 70]);
        // It borrows no more than it may.
        assert_eq!(share_out(100, &[level(60, 30, 100, 0.0), level(40, 40, 50, 90.0)]), [50, 50]);
        // What is used of one's own is not lent.
        assert_eq!(share_out(100, &[level(60, 0, 100, 60.0), level(40, 0, 100, 400.0)]), [60, 40]);
        // Two that want the same get the same.
        assert_eq!(
            share_out(90, &[level(30, 30, 90, 80.0), level(30, 30, 90, 80.0), level(30, 0, 90, 0.0)]),
            [45, 45, 0]
        );
    }

    #[test]
    fn too_few_seats_shrink_what_could_be_lent() {
        assert_eq!(share_out(50, &[level(60, 20, 60, 60.0), level(40, 10, 40, 40.0)]), [31, 19]);
        assert_eq!(share_out(10, &[level(60, 20, 60, 60.0), level(40, 10, 40, 40.0)]), [20, 10]);
        assert!(share_out(10, &[]).is_empty());
    }

    #[test]
    fn a_peak_is_forgotten_slowly() {
        let quiet = Demand::default();
        let peak = Wanted::default().then(Demand { high: 9.0, average: 8.0, deviation: 1.0 });
        assert_eq!(peak.smoothed, 9.0);
        let after = peak.then(quiet);
        assert!(after.smoothed > 8.7 && after.smoothed < 9.0 && after.high == 0.0, "{after:?}");
    }
}
