//! Decides what becomes of an event: a new object, a higher count on an old one, or nothing.
//!
//! The rules and their numbers are upstream's (client-go tools/record, `EventCorrelator`): per source and object 25 events
//! at once and one more every five minutes; more than ten alike within ten minutes are combined; the same again is counted.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Duration,
};

use k8s_openapi::api::core::v1::ObjectReference;

use crate::recorder::EventType;

const CACHE: usize = 4096;
const SPAM_BURST: f64 = 25.0;
const SPAM_REFILL: Duration = Duration::from_secs(300);
const SIMILAR: usize = 10;
const SIMILAR_WINDOW: Duration = Duration::from_secs(600);

/// An event as it was reported.
#[derive(Clone, Debug)]
pub struct Report {
    pub about: ObjectReference,
    pub kind: EventType,
    pub reason: String,
    pub message: String,
}

/// What to do with a report.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Too many: say nothing.
    Drop,
    /// The first of its kind; `id` finds it again when the server has named it.
    Create { id: u64, message: String },
    /// Seen before: the event called `name` now has this count.
    Count { id: u64, name: String, count: u32, message: String },
}

/// The memory behind the decisions, bounded by the number of things remembered.
#[derive(Default)]
pub struct Correlator {
    spam: Recent<Bucket>,
    similar: Recent<Similar>,
    known: Recent<Known>,
    next_id: u64,
}

struct Bucket {
    tokens: f64,
    at: Duration,
}

struct Similar {
    messages: HashSet<String>,
    at: Duration,
}

struct Known {
    id: u64,
    name: Option<String>,
    count: u32,
}

impl Correlator {
    /// Decides about a report that came at the monotonic time `now`.
    pub fn judge(&mut self, report: &Report, now: Duration) -> Verdict {
        let (group, message) = self.aggregate(report, now);
        let spam = about(report);
        if !self.allows(spam, now) {
            return Verdict::Drop;
        }
        self.next_id += 1;
        let id = self.next_id;
        let known = self.known.get_or_insert(group, || Known { id, name: None, count: 0 });
        known.count += 1;
        match &known.name {
            Some(name) if known.count > 1 => {
                Verdict::Count { id: known.id, name: name.clone(), count: known.count, message }
            }
            _ => Verdict::Create { id: known.id, message },
        }
    }

    /// The server made the event `id` under this name.
    pub fn created(&mut self, id: u64, name: &str) {
        if let Some(known) = self.known.values_mut().find(|known| known.id == id) {
            known.name = Some(name.to_owned());
        }
    }

    /// The event `id` is not there any more (events live for an hour): the next one is a new one.
    pub fn expired(&mut self, id: u64) {
        self.known.remove_where(|known| known.id == id);
    }

    fn allows(&mut self, key: String, now: Duration) -> bool {
        let bucket = self.spam.get_or_insert(key, || Bucket { tokens: SPAM_BURST, at: now });
        let refill = now.saturating_sub(bucket.at).as_secs_f64() / SPAM_REFILL.as_secs_f64();
        bucket.tokens = (bucket.tokens + refill).min(SPAM_BURST);
        bucket.at = now;
        let allowed = bucket.tokens >= 1.0;
        if allowed {
            bucket.tokens -= 1.0;
        }
        allowed
    }

    /// The key under which the report is counted, and its message.
    fn aggregate(&mut self, report: &Report, now: Duration) -> (String, String) {
        let group = format!("{}\n{}\n{}", about(report), report.kind.as_str(), report.reason);
        let fresh = || Similar { messages: HashSet::new(), at: now };
        let similar = self.similar.get_or_insert(group.clone(), fresh);
        if now.saturating_sub(similar.at) > SIMILAR_WINDOW {
            *similar = fresh();
        }
        similar.at = now;
        if similar.messages.len() < SIMILAR || similar.messages.contains(&report.message) {
            similar.messages.insert(report.message.clone());
            return (format!("{group}\n{}", report.message), report.message.clone());
        }
        (group, format!("(combined from similar events): {}", report.message))
    }
}

fn about(report: &Report) -> String {
    let about = &report.about;
    let part = |field: &Option<String>| field.clone().unwrap_or_default();
    [part(&about.kind), part(&about.namespace), part(&about.name), part(&about.uid), part(&about.field_path)].join("\n")
}

/// A map that forgets its oldest entries beyond a bound.
struct Recent<V> {
    entries: HashMap<String, V>,
    order: VecDeque<String>,
}

impl<V> Default for Recent<V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new() }
    }
}

impl<V> Recent<V> {
    fn get_or_insert(&mut self, key: String, make: impl FnOnce() -> V) -> &mut V {
        if !self.entries.contains_key(&key) {
            self.order.push_back(key.clone());
            while self.order.len() > CACHE {
                if let Some(oldest) = self.order.pop_front() {
                    self.entries.remove(&oldest);
                }
            }
        }
        self.entries.entry(key).or_insert_with(make)
    }

    fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.entries.values_mut()
    }

    fn remove_where(&mut self, gone: impl Fn(&V) -> bool) {
        self.entries.retain(|_, value| !gone(value));
        let entries = &self.entries;
        self.order.retain(|key| entries.contains_key(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(name: &str, message: &str) -> Report {
        let about = ObjectReference { name: Some(name.into()), ..ObjectReference::default() };
        Report { about, kind: EventType::Normal, reason: "Pulled".into(), message: message.into() }
    }

    #[test]
    fn repeats_are_counted_and_expire() {
        let mut correlator = Correlator::default();
        let Verdict::Create { id, .. } = correlator.judge(&report("a", "x"), Duration::ZERO) else { panic!("not new") };
        correlator.created(id, "a.1");
        let again = correlator.judge(&report("a", "x"), Duration::ZERO);
        assert_eq!(again, Verdict::Count { id, name: "a.1".into(), count: 2, message: "x".into() });
        correlator.expired(id);
        assert!(matches!(correlator.judge(&report("a", "x"), Duration::ZERO), Verdict::Create { .. }));
    }

    #[test]
    fn the_eleventh_alike_is_combined() {
        let mut correlator = Correlator::default();
        for number in 0..10 {
            correlator.judge(&report("a", &format!("m{number}")), Duration::ZERO);
        }
        let Verdict::Create { message, .. } = correlator.judge(&report("a", "m10"), Duration::ZERO) else { panic!() };
        assert_eq!(message, "(combined from similar events): m10");
        let Verdict::Create { message, .. } = correlator.judge(&report("a", "m11"), SIMILAR_WINDOW * 2) else {
            panic!()
        };
        assert_eq!(message, "m11", "the window is over");
    }

    #[test]
    fn spam_is_dropped_per_object() {
        let mut correlator = Correlator::default();
        let said = (0..40).filter(|_| correlator.judge(&report("a", "x"), Duration::ZERO) != Verdict::Drop).count();
        assert_eq!(said, 25);
        assert_ne!(correlator.judge(&report("b", "x"), Duration::ZERO), Verdict::Drop);
        assert_ne!(correlator.judge(&report("a", "x"), SPAM_REFILL), Verdict::Drop, "a token came back");
    }
}
