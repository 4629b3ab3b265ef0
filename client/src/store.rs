//! What an informer holds: a persistent ordered map with named indexes, read as immutable snapshots.
//!
//! ```text
//! writer (one task) ── batch of events ──► working copy ── publish ──► Arc<Snapshot>  ◄── readers, without a lock
//! ```

use std::{fmt, sync::Arc};

use imbl::{HashMap, OrdMap};
use kube::Resource;

use crate::Key;

/// Computes the values under which an object is found in an index, and gives each to the callback.
pub type IndexFn<K> = fn(&K, &mut dyn FnMut(&str));

/// The objects of one resource at one moment. Cloning is cheap: all parts are shared.
pub struct Snapshot<K> {
    objects: OrdMap<Key, Arc<K>>,
    indexes: Vec<Index<K>>,
    version: u64,
}

struct Index<K> {
    name: &'static str,
    values: IndexFn<K>,
    buckets: HashMap<Arc<str>, Bucket<K>>,
}

/// A bucket is a plain vector while it is small (a tree node would cost a kilobyte for the one pod of a
/// ReplicaSet), and a tree once copying the vector on every change would cost more.
enum Bucket<K> {
    Few(Arc<Vec<(Key, Arc<K>)>>),
    Many(OrdMap<Key, Arc<K>>),
}

const FEW: usize = 64;

impl<K> Clone for Snapshot<K> {
    fn clone(&self) -> Self {
        Self { objects: self.objects.clone(), indexes: self.indexes.clone(), version: self.version }
    }
}

impl<K> Clone for Index<K> {
    fn clone(&self) -> Self {
        Self { name: self.name, values: self.values, buckets: self.buckets.clone() }
    }
}

impl<K> Clone for Bucket<K> {
    fn clone(&self) -> Self {
        match self {
            Self::Few(items) => Self::Few(items.clone()),
            Self::Many(items) => Self::Many(items.clone()),
        }
    }
}

impl<K> Default for Snapshot<K> {
    fn default() -> Self {
        Self { objects: OrdMap::new(), indexes: Vec::new(), version: 0 }
    }
}

impl<K> fmt::Debug for Snapshot<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("objects", &self.objects.len()).field("version", &self.version).finish()
    }
}

impl<K> Bucket<K> {
    fn insert(&mut self, key: &Key, object: &Arc<K>) {
        if let Self::Few(items) = self
            && items.len() >= FEW
        {
            *self = Self::Many(items.iter().cloned().collect());
        }
        match self {
            Self::Few(items) => {
                let items = Arc::make_mut(items);
                match items.binary_search_by(|(have, _)| have.cmp(key)) {
                    Ok(at) => items[at].1 = object.clone(),
                    Err(at) => items.insert(at, (key.clone(), object.clone())),
                }
            }
            Self::Many(items) => {
                items.insert(key.clone(), object.clone());
            }
        }
    }

    /// Removes the key; true when the bucket is empty after.
    fn remove(&mut self, key: &Key) -> bool {
        match self {
            Self::Few(items) => {
                if let Ok(at) = items.binary_search_by(|(have, _)| have.cmp(key)) {
                    Arc::make_mut(items).remove(at);
                }
                items.is_empty()
            }
            Self::Many(items) => {
                items.remove(key);
                items.is_empty()
            }
        }
    }

    fn iter(&self) -> Box<dyn Iterator<Item = &Arc<K>> + '_> {
        match self {
            Self::Few(items) => Box::new(items.iter().map(|(_, object)| object)),
            Self::Many(items) => Box::new(items.values()),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Few(items) => items.len(),
            Self::Many(items) => items.len(),
        }
    }
}

impl<K> Snapshot<K> {
    /// The object under `key`.
    pub fn get(&self, key: &Key) -> Option<&Arc<K>> {
        self.objects.get(key)
    }

    /// The object called `name` in `namespace` (empty for cluster-scoped resources).
    pub fn find(&self, namespace: &str, name: &str) -> Option<&Arc<K>> {
        self.objects.get(&Key::new(namespace, name))
    }

    /// All objects, ordered by key.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<K>> {
        self.objects.values()
    }

    /// All keys in order.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.objects.keys()
    }

    /// The objects of one namespace, ordered by name.
    pub fn namespace(&self, namespace: &str) -> impl Iterator<Item = &Arc<K>> {
        // '0' is the character after '/': the range holds exactly the keys with this prefix.
        let range = Key::new(namespace, "")..Key::raw(format!("{namespace}0"));
        self.objects.range(range).map(|(_, object)| object)
    }

    /// The objects found under `value` in the index called `name`, ordered by key.
    /// An index that was never added is empty.
    pub fn by_index<'a>(&'a self, name: &str, value: &str) -> Box<dyn Iterator<Item = &'a Arc<K>> + 'a> {
        match self.bucket(name, value) {
            Some(bucket) => bucket.iter(),
            None => Box::new(std::iter::empty()),
        }
    }

    /// How many objects are found under `value` in the index called `name`.
    pub fn count_by_index(&self, name: &str, value: &str) -> usize {
        self.bucket(name, value).map_or(0, Bucket::len)
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// The highest resource version that was seen on an object of this resource.
    pub fn version(&self) -> u64 {
        self.version
    }

    fn bucket(&self, name: &str, value: &str) -> Option<&Bucket<K>> {
        self.indexes.iter().find(|index| index.name == name)?.buckets.get(value)
    }

    pub(crate) fn observe_version(&mut self, version: u64) {
        self.version = self.version.max(version);
    }

    pub(crate) fn insert(&mut self, key: Key, object: Arc<K>) -> Option<Arc<K>> {
        let old = self.objects.insert(key.clone(), object.clone());
        for index in &mut self.indexes {
            if let Some(old) = &old {
                index.remove(&key, old);
            }
            index.insert(&key, &object);
        }
        old
    }

    pub(crate) fn remove(&mut self, key: &Key) -> Option<Arc<K>> {
        let old = self.objects.remove(key)?;
        for index in &mut self.indexes {
            index.remove(key, &old);
        }
        Some(old)
    }

    /// Adds an index over the objects that are there; adding the same name again changes nothing.
    pub(crate) fn add_index(&mut self, name: &'static str, values: IndexFn<K>) {
        if self.indexes.iter().any(|index| index.name == name) {
            return;
        }
        let mut index = Index { name, values, buckets: HashMap::new() };
        for (key, object) in &self.objects {
            index.insert(key, object);
        }
        self.indexes.push(index);
    }
}

impl<K: Resource> Snapshot<K> {
    /// A snapshot of the given objects with the given indexes: what a plan's test starts from.
    pub fn of(objects: impl IntoIterator<Item = K>, indexes: &[(&'static str, IndexFn<K>)]) -> Self {
        let mut snapshot = Self::default();
        for (name, values) in indexes {
            snapshot.add_index(name, *values);
        }
        for object in objects {
            snapshot.observe_version(version_of(&object));
            snapshot.insert(Key::of(object.meta()), Arc::new(object));
        }
        snapshot
    }
}

impl<K> Index<K> {
    fn insert(&mut self, key: &Key, object: &Arc<K>) {
        let buckets = &mut self.buckets;
        (self.values)(object, &mut |value| match buckets.get_mut(value) {
            Some(bucket) => bucket.insert(key, object),
            None => {
                let bucket = Bucket::Few(Arc::new(vec![(key.clone(), object.clone())]));
                buckets.insert(value.into(), bucket);
            }
        });
    }

    fn remove(&mut self, key: &Key, object: &K) {
        let buckets = &mut self.buckets;
        (self.values)(object, &mut |value| {
            if buckets.get_mut(value).is_some_and(|bucket| bucket.remove(key)) {
                buckets.remove(value);
            }
        });
    }
}

/// An object's resource version as a number. Comparable since Kubernetes 1.35 (KEP-5504); 0 where it is none.
pub fn version_of<K: Resource>(object: &K) -> u64 {
    object.meta().resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;

    fn pod(namespace: &str, name: &str, node: &str) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.namespace = Some(namespace.into());
        pod.metadata.name = Some(name.into());
        pod.spec.get_or_insert_default().node_name = Some(node.into());
        pod
    }

    fn by_node(pod: &Pod, emit: &mut dyn FnMut(&str)) {
        if let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) {
            emit(node);
        }
    }

    #[test]
    fn namespaces_are_ranges() {
        let pods = [pod("a", "1", "n"), pod("a-b", "1", "n"), pod("a", "2", "n"), pod("ab", "1", "n")];
        let snapshot = Snapshot::of(pods, &[]);
        let names: Vec<_> = snapshot.namespace("a").map(|pod| pod.metadata.name.clone().unwrap()).collect();
        assert_eq!(names, ["1", "2"]);
        assert_eq!(snapshot.namespace("a-b").count(), 1);
        assert_eq!(snapshot.namespace("b").count(), 0);
    }

    #[test]
    fn indexes_follow_moves_and_growth() {
        let mut snapshot = Snapshot::of([], &[("node", by_node as IndexFn<Pod>)]);
        for number in 0..200 {
            let pod = pod("d", &format!("p{number:03}"), if number < 150 { "n1" } else { "n2" });
            snapshot.insert(Key::of(&pod.metadata), Arc::new(pod));
        }
        let before = snapshot.clone();
        for number in 0..150 {
            let moved = pod("d", &format!("p{number:03}"), "n2");
            snapshot.insert(Key::of(&moved.metadata), Arc::new(moved));
        }
        snapshot.remove(&Key::new("d", "p199"));
        assert_eq!((before.count_by_index("node", "n1"), before.count_by_index("node", "n2")), (150, 50));
        assert_eq!((snapshot.count_by_index("node", "n1"), snapshot.count_by_index("node", "n2")), (0, 199));
        assert_eq!(snapshot.by_index("node", "n2").count(), 199);
        assert!(snapshot.by_index("node", "n1").next().is_none());
    }
}
