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
    /// Counts one that watches `of`; none that looks for a value of a field, as kubelets do for their node: of those an event
    /// concerns one at most.
    pub fn count(watchers: &Arc<Self>, of: Option<Watched>) -> Interest {
        let Some((namespace, name)) = of else { return Interest(None) };
        *watchers.0.lock().entry(namespace.clone()).or_default().entry(name.clone()).or_default() += 1;
        Interest(Some((watchers.clone(), (namespace, name))))
    }

    /// How many are told of a write to an object: those who watch everything, its namespace, or the object itself.
    pub fn of(&self, namespace: &str, name: &str) -> usize {
        let watchers = self.0.lock();
        let of = |namespace: &str| {
            let Some(names) = watchers.get(namespace) else { return 0 };
            let of = |name: &str| names.get(name).copied().unwrap_or(0);
            of("") + if name.is_empty() { 0 } else { of(name) }
        };
        of("") + if namespace.is_empty() { 0 } else { of(namespace) }
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

    #[test]
    fn those_who_are_told_count() {
        let watchers = Arc::new(Watchers::default());
        let watch =
            |namespace: &str, name: &str| Watchers::count(&watchers, Some((namespace.to_owned(), name.to_owned())));
        let held = [watch("", ""), watch("", ""), watch("a", ""), watch("a", "x"), watch("", "x"), watch("b", "")];
        let nobody = Watchers::count(&watchers, None);
        let of = |namespace: &str, name: &str| watchers.of(namespace, name);
        assert_eq!((of("a", "x"), of("a", "y"), of("a", ""), of("c", "y"), of("", "x")), (5, 3, 3, 2, 3));
        drop((held, nobody));
        assert_eq!(of("a", "x"), 0);
        assert!(watchers.0.lock().is_empty());
    }
}
