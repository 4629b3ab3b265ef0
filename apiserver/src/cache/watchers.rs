//! How many watch a resource, by what they watch of it (apiserver `util/flowcontrol/watch_tracker.go`).

use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// A namespace and a name; empty for all.
type Watched = (String, String);

/// Those who watch a resource, by namespace and name.
#[derive(Debug, Default)]
pub struct Watchers(Mutex<HashMap<String, HashMap<String, usize>>>);

/// One of them, for as long as it is there.
#[derive(Debug)]
pub struct Interest(Option<(Arc<Watchers>, Watched)>);

impl Watchers {
    /// Counts one that watches `of`; none that looks for pods of a node, as kubelets do: of those an event concerns one at most.
    pub fn count(watchers: &Arc<Self>, of: Option<Watched>) -> Interest {
        let Some((namespace, name)) = of else { return Interest(None) };
        *watchers.0.lock().entry(namespace.clone()).or_default().entry(name.clone()).or_default() += 1;
        Interest(Some((watchers.clone(), (namespace, name))))
    }

    /// How many are told of a write to an object: those who watch everything, its namespace, or the object itself. As upstream,
    /// a name that is watched in all namespaces counts for none of them.
    pub fn of(&self, namespace: &str, name: &str) -> usize {
        let watchers = self.0.lock();
        let of = |namespace: &str, name: &str| {
            watchers.get(namespace).and_then(|names| names.get(name)).copied().unwrap_or(0)
        };
        let in_namespace = if namespace.is_empty() { 0 } else { of(namespace, "") };
        of("", "") + in_namespace + if name.is_empty() { 0 } else { of(namespace, name) }
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        let Some((watchers, (namespace, name))) = self.0.take() else { return };
        let mut watchers = watchers.0.lock();
        let Some(names) = watchers.get_mut(&namespace) else { return };
        if let Some(count) = names.get_mut(&name) {
            *count -= 1;
            if *count == 0 {
                names.remove(&name);
            }
        }
        if names.is_empty() {
            watchers.remove(&namespace);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `TestGetInterestedWatchCount` and `TestGetInterestedWatchCountWithIndex` of upstream, in the namespaces foo and bar, and what
    /// they leave out: names in all namespaces, and objects without one.
    #[test]
    fn those_who_are_told_count() {
        let watchers = Arc::new(Watchers::default());
        let watch =
            |namespace: &str, name: &str| Watchers::count(&watchers, Some((namespace.to_owned(), name.to_owned())));
        let held = [watch("", ""), watch("foo", ""), watch("foo", "mypod"), watch("bar", "mypod")];
        // Of a node.
        let nobody = Watchers::count(&watchers, None);
        let rows = [
            ("foo", "", 2),
            ("foo", "mypod", 3),
            ("foo", "otherpod", 2),
            ("bar", "", 1),
            ("bar", "mypod", 2),
            ("bar", "otherpod", 1),
            ("", "", 1),
        ];
        for (namespace, name, wanted) in rows {
            assert_eq!(watchers.of(namespace, name), wanted, "{namespace}/{name}");
        }
        let anywhere = watch("", "mypod");
        assert_eq!((watchers.of("foo", "mypod"), watchers.of("", "mypod")), (3, 2));
        drop((held, nobody, anywhere));
        assert_eq!(watchers.of("foo", "mypod"), 0);
        assert!(watchers.0.lock().is_empty());
    }
}
