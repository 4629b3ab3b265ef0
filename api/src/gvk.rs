//! Names of kinds and resources, cheap to copy around.

use std::borrow::{Borrow, Cow};
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use crate::schema;

/// A short string that is either part of the program or shared: cloning it never copies the text.
#[derive(Clone)]
pub struct Symbol(Repr);

#[derive(Clone)]
enum Repr {
    Static(&'static str),
    Shared(Arc<str>),
}

impl Symbol {
    /// The empty symbol: the group of core resources.
    pub const EMPTY: Symbol = Symbol::new("");

    /// A symbol of the program's own text.
    pub const fn new(text: &'static str) -> Self {
        Self(Repr::Static(text))
    }

    /// A symbol with text of its own.
    pub(crate) fn shared(text: &str) -> Self {
        if text.is_empty() { Self::EMPTY } else { Self(Repr::Shared(text.into())) }
    }

    /// The text, if it is part of the program.
    pub fn program(&self) -> Option<&'static str> {
        match self.0 {
            Repr::Static(text) => Some(text),
            Repr::Shared(_) => None,
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Repr::Static(text) => text,
            Repr::Shared(text) => text,
        }
    }
}

impl Deref for Symbol {
    type Target = str;
    fn deref(&self) -> &str {
        self.as_str()
    }
}
impl AsRef<str> for Symbol {
    fn as_ref(&self) -> &str {
        self
    }
}
impl Borrow<str> for Symbol {
    fn borrow(&self) -> &str {
        self
    }
}
/// Text of the program where some built-in kind has such a field; what is shared costs memory.
impl From<&str> for Symbol {
    fn from(text: &str) -> Self {
        schema::symbol(text)
    }
}
impl From<String> for Symbol {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}
impl From<&String> for Symbol {
    fn from(text: &String) -> Self {
        text.as_str().into()
    }
}
impl From<&Symbol> for Symbol {
    fn from(text: &Symbol) -> Self {
        text.clone()
    }
}
impl From<Cow<'_, str>> for Symbol {
    fn from(text: Cow<'_, str>) -> Self {
        (*text).into()
    }
}
impl From<Symbol> for String {
    fn from(text: Symbol) -> Self {
        text.as_str().to_owned()
    }
}
impl Default for Symbol {
    fn default() -> Self {
        Self::EMPTY
    }
}
impl PartialEq<String> for Symbol {
    fn eq(&self, other: &String) -> bool {
        self.as_str() == other
    }
}
impl PartialEq for Symbol {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}
impl Eq for Symbol {}
impl PartialEq<str> for Symbol {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}
impl PartialEq<&str> for Symbol {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}
impl PartialEq<Symbol> for str {
    fn eq(&self, other: &Symbol) -> bool {
        self == other.as_str()
    }
}
impl PartialEq<Symbol> for &str {
    fn eq(&self, other: &Symbol) -> bool {
        *self == other.as_str()
    }
}
impl PartialEq<Symbol> for String {
    fn eq(&self, other: &Symbol) -> bool {
        self == other.as_str()
    }
}
impl PartialOrd for Symbol {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Symbol {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}
impl Hash for Symbol {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}
impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self)
    }
}
impl fmt::Debug for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// A kind: `apps`, `v1`, `Deployment`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Gvk {
    /// The API group, empty for core.
    pub group: Symbol,
    /// The version, `v1`.
    pub version: Symbol,
    /// The kind, `Pod`.
    pub kind: Symbol,
}

impl Gvk {
    /// A kind known when the program is written.
    pub const fn of(group: &'static str, version: &'static str, kind: &'static str) -> Self {
        Self { group: Symbol::new(group), version: Symbol::new(version), kind: Symbol::new(kind) }
    }

    /// A kind from an object's `apiVersion` and `kind`. `None` when `apiVersion` holds more than one slash.
    pub fn parse(api_version: &str, kind: &str) -> Option<Self> {
        let (group, version) = parse_api_version(api_version)?;
        Some(Self { group: group.into(), version: version.into(), kind: kind.into() })
    }

    /// `apps/v1`, or `v1` for core: an object's `apiVersion`.
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    /// `Deployment.apps`, or `Pod` for core, as upstream's GroupKind is written in messages.
    pub fn group_kind(&self) -> String {
        qualified(&self.kind, &self.group)
    }

    /// The kind of lists of this kind.
    pub fn list(&self) -> Self {
        Self { group: self.group.clone(), version: self.version.clone(), kind: format!("{}List", self.kind).into() }
    }
}

impl fmt::Display for Gvk {
    /// As upstream's GroupVersionKind: `apps/v1, Kind=Deployment`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}, Kind={}", self.group, self.version, self.kind)
    }
}

/// A resource: `apps`, `v1`, `deployments`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Gvr {
    /// The API group, empty for core.
    pub group: Symbol,
    /// The version, `v1`.
    pub version: Symbol,
    /// The plural name, `pods`.
    pub resource: Symbol,
}

impl Gvr {
    /// A resource known when the program is written.
    pub const fn of(group: &'static str, version: &'static str, resource: &'static str) -> Self {
        Self { group: Symbol::new(group), version: Symbol::new(version), resource: Symbol::new(resource) }
    }

    /// `apps/v1`, or `v1` for core.
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    /// `deployments.apps`, or `pods` for core, as upstream's GroupResource is written in messages.
    pub fn group_resource(&self) -> String {
        qualified(&self.resource, &self.group)
    }
}

impl fmt::Display for Gvr {
    /// As upstream's GroupVersionResource: `apps/v1, Resource=deployments`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}, Resource={}", self.group, self.version, self.resource)
    }
}

/// Group and version of an `apiVersion`. `None` when it holds more than one slash.
pub fn parse_api_version(api_version: &str) -> Option<(&str, &str)> {
    match api_version.split_once('/') {
        None => Some(("", api_version)),
        Some((_, version)) if version.contains('/') => None,
        Some((group, version)) => Some((group, version)),
    }
}

/// `group/version`, or the version alone for core.
pub fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// `name.group`, or the name alone for core.
pub fn qualified(name: &str, group: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") }
}

/// Orders versions as discovery does: GA before beta before alpha, the higher number first, other names last in
/// alphabetical order (apimachinery `version.CompareKubeAwareVersionStrings`, highest first).
pub fn compare_versions(a: &str, b: &str) -> Ordering {
    match (rank(a), rank(b)) {
        (Some(a), Some(b)) => b.cmp(&a),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => a.cmp(b),
    }
}

/// (stability, major, minor) of a name such as `v1beta2`.
fn rank(version: &str) -> Option<(u8, u64, u64)> {
    let rest = version.strip_prefix('v')?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let major = rest[..digits].parse().ok()?;
    let (stability, minor) = match &rest[digits..] {
        "" => return Some((2, major, 0)),
        rest if rest.starts_with("beta") => (1, &rest[4..]),
        rest if rest.starts_with("alpha") => (0, &rest[5..]),
        _ => return None,
    };
    Some((stability, major, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_as_upstream_writes_them() {
        let gvk = Gvk::of("apps", "v1", "Deployment");
        assert_eq!(Gvk::parse("apps/v1", "Deployment"), Some(gvk.clone()));
        assert_eq!(gvk.api_version(), "apps/v1");
        assert_eq!(gvk.group_kind(), "Deployment.apps");
        assert_eq!(gvk.list().kind, "DeploymentList");
        assert_eq!(Gvk::parse("v1", "Pod").unwrap().group_kind(), "Pod");
        assert_eq!(Gvk::parse("a/b/c", "Pod"), None);
        assert_eq!(Gvr::of("", "v1", "pods").group_resource(), "pods");
    }

    #[test]
    fn versions_sort_by_stability_then_number() {
        let mut versions = ["v1alpha1", "foo", "v2", "v1beta2", "v10", "v1beta1", "v1", "bar"];
        versions.sort_by(|a, b| compare_versions(a, b));
        assert_eq!(versions, ["v10", "v2", "v1", "v1beta2", "v1beta1", "v1alpha1", "bar", "foo"]);
    }
}
