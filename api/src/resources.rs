//! Names of resources, and what a pod's containers take together.

use crate::quantity::Quantity;
use std::collections::BTreeMap;

/// Names of memory in large pieces begin like this, and end with the size of a piece.
pub const HUGE_PAGES: &str = "hugepages-";

/// Whether a pod as a whole can ask for it (KEP-2837; component-helpers `IsSupportedPodLevelResource`).
pub fn is_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with(HUGE_PAGES)
}

/// What a container's amounts count as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Runs beside all others of its kind, after the init containers.
    App,
    /// Runs to its end before the next one starts.
    Init,
    /// An init container that goes on running (`restartPolicy: Always`).
    Sidecar,
}

/// Amounts of several resources.
pub trait Amounts: Default + Clone {
    /// Adds the other's amounts.
    fn add(&mut self, other: &Self);
    /// Raises each amount to the other's where that is larger.
    fn raise(&mut self, other: &Self);
}

impl Amounts for BTreeMap<String, Quantity> {
    fn add(&mut self, other: &Self) {
        combine(self, other, |one, other| one + other);
    }
    fn raise(&mut self, other: &Self) {
        combine(self, other, Ord::max);
    }
}

fn combine(
    to: &mut BTreeMap<String, Quantity>,
    from: &BTreeMap<String, Quantity>,
    with: fn(Quantity, Quantity) -> Quantity,
) {
    for (name, amount) in from {
        let sum = to.get(name).map_or(*amount, |before| with(*before, *amount));
        to.insert(name.clone(), sum);
    }
}

/// What a pod's containers take: all that run after its start, or the largest moment while an init container runs beside the
/// sidecars that run already (KEP-753; component-helpers `AggregateContainerRequests`). Init containers come in their order.
pub fn together<T: Amounts>(containers: impl IntoIterator<Item = (Part, T)>) -> T {
    let (mut apps, mut sidecars, mut starting) = (T::default(), T::default(), T::default());
    for (part, mut own) in containers {
        match part {
            Part::App => apps.add(&own),
            Part::Sidecar => {
                sidecars.add(&own);
                starting.raise(&sidecars);
            }
            Part::Init => {
                own.add(&sidecars);
                starting.raise(&own);
            }
        }
    }
    apps.add(&sidecars);
    apps.raise(&starting);
    apps
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Amounts for i64 {
        fn add(&mut self, other: &Self) {
            *self += other;
        }
        fn raise(&mut self, other: &Self) {
            *self = (*self).max(*other);
        }
    }

    #[test]
    fn the_largest_moment_counts() {
        use Part::{App, Init, Sidecar};
        for (containers, expected) in [
            (vec![], 0),
            (vec![(App, 2), (App, 3)], 5),
            (vec![(Init, 7), (App, 2), (App, 3)], 7),
            // Only those sidecars that run already when it starts.
            (vec![(Init, 7), (Sidecar, 2), (Init, 6), (App, 3)], 8),
            (vec![(Sidecar, 2), (Init, 1), (Sidecar, 4), (App, 3)], 9),
            (vec![(App, 3), (Sidecar, 2)], 5),
        ] {
            assert_eq!(together(containers.clone()), expected, "{containers:?}");
        }
    }
}
