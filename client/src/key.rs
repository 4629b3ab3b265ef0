//! The name of an object within its resource.

use std::{borrow::Borrow, fmt, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// `namespace/name`, one interned string that is cheap to clone, compare and hash.
/// The namespace of a cluster-scoped object is empty. Keys of one namespace are neighbours in order.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Arc<str>);

impl Key {
    /// The key of `name` in `namespace`; the namespace is empty for cluster-scoped objects.
    pub fn new(namespace: &str, name: &str) -> Self {
        let mut text = String::with_capacity(namespace.len() + name.len() + 1);
        text.push_str(namespace);
        text.push('/');
        text.push_str(name);
        Self(text.into())
    }

    /// The key of a cluster-scoped object.
    pub fn cluster(name: &str) -> Self {
        Self::new("", name)
    }

    /// The key that an object's metadata gives it.
    pub fn of(meta: &ObjectMeta) -> Self {
        Self::new(meta.namespace.as_deref().unwrap_or(""), meta.name.as_deref().unwrap_or(""))
    }

    /// The namespace, empty for a cluster-scoped object.
    pub fn namespace(&self) -> &str {
        self.split().0
    }

    /// The name within the namespace.
    pub fn name(&self) -> &str {
        self.split().1
    }

    /// `namespace/name`, with the slash also where the namespace is empty.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A text that need not be a key, as the bound of a range.
    pub(crate) fn raw(text: String) -> Self {
        Self(text.into())
    }

    fn split(&self) -> (&str, &str) {
        // A namespace is a DNS label, so the first slash ends it.
        self.0.split_once('/').unwrap_or(("", &self.0))
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (namespace, name) = self.split();
        if namespace.is_empty() { f.write_str(name) } else { f.write_str(&self.0) }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_display() {
        let pod = Key::new("default", "web");
        assert_eq!((pod.namespace(), pod.name(), pod.to_string().as_str()), ("default", "web", "default/web"));
        let node = Key::cluster("n1");
        assert_eq!((node.namespace(), node.name(), node.to_string().as_str()), ("", "n1", "n1"));
    }
}
