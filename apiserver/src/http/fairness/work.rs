//! How many seats a request takes, and for how long (apiserver `util/flowcontrol/request`: `list_work_estimator.go`,
//! `mutating_work_estimator.go`, `config.go`).
//!
//! A list takes a seat for each 100 KB of objects that are in memory for it. A write takes one, and when it is done those for
//! the watchers who are told of it.

use crate::options::{Options, VersionMatch};
use std::time::Duration;

/// The least and the most seats of a list, and of a write (`minimumSeats`, `maximumListSeatsLimit` with the gate
/// `SizeBasedListCostEstimate`, `maximumMutatingSeatsLimit`).
const LEAST: usize = 1;
const MOST_OF_LIST: usize = 100;
const MOST_OF_WRITE: usize = 10;

/// Bytes that a seat is for, and the most that a list from the cache holds at once, for it is written in pieces.
const BYTES_PER_SEAT: usize = 100_000;
const MOST_IN_PIECES: usize = 1_000_000;

/// Watchers that a seat is for (`watchesPerSeat`); how long an event takes them (`eventAdditionalDuration`).
const WATCHERS_PER_SEAT: usize = 10;
const EVENT_TAKES: Duration = Duration::from_millis(5);

/// What is kept of a resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    pub objects: usize,
    /// Of an object, on average.
    pub bytes: usize,
}

/// What a request asks of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// What is neither list nor write.
    Small,
    /// Seats for a list, also one that a watch begins with.
    List(usize),
    /// Those who watch what is written.
    Write { watchers: usize },
}

/// The seats of a request while it runs, then for how long which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    pub first: usize,
    pub last: usize,
    pub after: Duration,
}

impl Estimate {
    /// The seats that must be free for it to begin.
    pub fn width(self) -> usize {
        self.first.max(self.last)
    }
}

impl Work {
    /// A list of what is kept: `single` when it looks for one name.
    pub fn list(kept: Kept, options: &Options, single: bool) -> Self {
        let from_cache = options.watch || !reads_history(options);
        let limited = if options.limit > 0 { kept.objects.min(options.limit) } else { kept.objects };
        let loaded = match () {
            () if single => 1,
            () if !from_cache && options.selects() => limited.max(kept.objects / 2),
            () => limited,
        };
        let bytes = loaded.saturating_mul(kept.bytes);
        let bytes = if from_cache { bytes.min(MOST_IN_PIECES) } else { bytes };
        Self::List(bytes.div_ceil(BYTES_PER_SEAT))
    }

    /// In a level whose requests take no more than `widest` seats; 0 says nothing.
    pub fn estimate(self, widest: usize) -> Estimate {
        let most = |limit: usize| if widest == 0 { limit } else { widest.min(limit) };
        let plain = |first: usize| Estimate { first, last: 0, after: Duration::ZERO };
        match self {
            Self::Small => plain(LEAST),
            Self::List(seats) => plain(seats.clamp(LEAST, most(MOST_OF_LIST))),
            // Few are told beside other work.
            Self::Write { watchers } if watchers < WATCHERS_PER_SEAT => plain(LEAST),
            Self::Write { watchers } => {
                let seats = watchers.div_ceil(WATCHERS_PER_SEAT);
                let last = seats.min(most(MOST_OF_WRITE)).max(1);
                // As much work in fewer seats takes longer.
                let after = EVENT_TAKES.mul_f64(seats as f64 / last as f64);
                Estimate { first: LEAST, last, after }
            }
        }
    }
}

/// Whether upstream would ask its store and not its cache (`storage/cacher/delegator`, `ShouldDelegateListMeta`): for an exact
/// revision, or a page after the first.
fn reads_history(options: &Options) -> bool {
    match (options.version_match, options.resource_version) {
        (Some(VersionMatch::Exact), _) => true,
        (Some(_), _) => false,
        (None, Some(revision)) if revision > 0 && options.limit > 0 => true,
        _ => options.continue_token.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(query: &str) -> Options {
        Options::parse(Some(crate::verbs::Verb::List), Some(query)).unwrap()
    }

    fn seats(bytes: usize, objects: usize, query: &str, single: bool) -> usize {
        Work::list(Kept { objects, bytes: bytes / objects }, &options(query), single).estimate(0).first
    }

    /// The rows of upstream's `TestListWorkEstimator` by size.
    #[test]
    fn lists_take_seats_by_size() {
        let (stored, cached) = ("resourceVersion=1&resourceVersionMatch=Exact", "");
        let rows = [
            (99_999, 99, "", false, 1, 1),
            (99_999, 10, "", false, 1, 1),
            (999_999, 1000, "", false, 10, 10),
            (999_999, 1000, "limit=100", false, 1, 1),
            (999_999, 1000, "limit=100&labelSelector=a", false, 5, 1),
            (999_999, 99, "", false, 10, 10),
            (999_999, 99, "limit=10", false, 2, 2),
            (999_999, 99, "limit=10&labelSelector=a", false, 5, 2),
            (9_999_999, 1000, "", false, 100, 10),
            (9_999_999, 1000, "limit=100", false, 10, 10),
            (9_999_999, 1000, "limit=100&labelSelector=a", false, 50, 10),
            (9_999_999, 99, "", false, 100, 10),
            (9_999_999, 99, "limit=10", false, 11, 10),
            (9_999_999, 99, "limit=10&labelSelector=a", false, 50, 10),
            (999_999_999, 1000, "", true, 10, 10),
        ];
        for (bytes, objects, query, single, from_store, from_cache) in rows {
            let of = |more: &str| seats(bytes, objects, format!("{query}&{more}").trim_matches('&'), single);
            assert_eq!((of(stored), of(cached)), (from_store, from_cache), "{bytes} {objects} {query}");
        }
        let wide = Work::list(Kept { objects: 1000, bytes: 10_000 }, &options(stored), false);
        assert_eq!((wide.estimate(7).first, wide.estimate(0).first), (7, 100));
        assert_eq!(Work::list(Kept::default(), &options(""), false).estimate(0).first, 1);
    }

    #[test]
    fn pages_after_the_first_and_exact_lists_are_not_the_caches() {
        for (query, history) in [
            ("", false),
            ("limit=3", false),
            ("resourceVersion=0&limit=3", false),
            ("resourceVersion=1", false),
            ("resourceVersion=1&resourceVersionMatch=NotOlderThan&limit=3", false),
            ("limit=3&resourceVersion=1", true),
            ("continue=t&limit=3", true),
            ("resourceVersion=1&resourceVersionMatch=Exact", true),
        ] {
            assert_eq!(reads_history(&options(query)), history, "{query}");
        }
    }

    /// Upstream's numbers: a seat for ten watchers, ten seats at most, five milliseconds that are stretched for more.
    #[test]
    fn writes_take_seats_for_those_who_watch() {
        let of = |watchers: usize, widest: usize| {
            let estimate = Work::Write { watchers }.estimate(widest);
            assert_eq!((estimate.first, estimate.width()), (1, estimate.last.max(1)));
            (estimate.last, estimate.after.as_micros())
        };
        assert_eq!((of(0, 0), of(9, 0)), ((0, 0), (0, 0)));
        assert_eq!((of(10, 0), of(25, 0), of(100, 0)), ((1, 5000), (3, 5000), (10, 5000)));
        assert_eq!((of(199, 0), of(1000, 0), of(100, 4)), ((10, 10_000), (10, 50_000), (4, 12_500)));
        assert_eq!(Work::Small.estimate(5), Estimate { first: 1, last: 0, after: Duration::ZERO });
    }
}
