//! Which objects of a resource a list or a watch is about.

use super::object::Object;
use crate::registry::Row;
use coracle_api::Status;
use coracle_api::selector::{FieldSelector, LabelSelector};

/// Where a field selector's value comes from.
#[derive(Clone, Debug)]
enum Source {
    Name,
    Namespace,
    /// The row's nth selectable field.
    Nth(usize),
}

/// A namespace, a name, labels and fields, bound to a row.
#[derive(Clone, Debug)]
pub struct Selection {
    /// Empty for all namespaces.
    namespace: String,
    /// The one name that can match.
    name: Option<String>,
    labels: LabelSelector,
    fields: Vec<(Source, String, bool)>,
    /// Whether upstream finds what it selects in an index.
    indexed: bool,
}

/// The one field of a resource that upstream has an index of (`util/flowcontrol/watch_tracker.go` `getBuiltinIndexes`, and
/// `registry/core/pod` `Indexers`).
const INDEX: (&str, &str) = ("pods", "spec.nodeName");

impl Selection {
    /// Binds selectors to a row.
    ///
    /// # Errors
    /// 400 when the row does not have a field.
    pub fn new(row: &Row, namespace: &str, labels: LabelSelector, fields: &FieldSelector) -> Result<Self, Status> {
        let mut bound = Vec::new();
        let (mut name, mut indexed) = (None, false);
        for requirement in fields.requirements() {
            let source = match requirement.field.as_str() {
                "metadata.name" => {
                    if requirement.equal {
                        name = Some(requirement.value.clone());
                    }
                    Source::Name
                }
                "metadata.namespace" if row.namespaced => Source::Namespace,
                field => match row.strategy.fields().iter().position(|known| known.name == field) {
                    Some(nth) => {
                        indexed |= (&*row.plural, field) == INDEX && requirement.equal && !requirement.value.is_empty();
                        Source::Nth(nth)
                    }
                    None => return Err(unknown_field(row, field)),
                },
            };
            bound.push((source, requirement.value.clone(), requirement.equal));
        }
        Ok(Self { namespace: namespace.to_owned(), name, labels, fields: bound, indexed })
    }

    /// The prefix that the keys of all selected objects have.
    pub fn prefix(&self) -> String {
        match (&self.name, self.namespace.as_str()) {
            (_, "") => String::new(),
            (None, namespace) => format!("{namespace}/"),
            (Some(name), namespace) => format!("{namespace}/{name}"),
        }
    }

    /// The namespace and the name that it is about, for those who count watches, whatever else it selects by; None when upstream
    /// finds it in an index.
    pub fn interest(&self) -> Option<(String, String)> {
        (!self.indexed).then(|| (self.namespace.clone(), self.name.clone().unwrap_or_default()))
    }

    /// Whether it selects every object of the resource.
    pub fn is_everything(&self) -> bool {
        self.namespace.is_empty() && !self.filters()
    }

    /// Whether it looks at anything but the namespace.
    pub fn filters(&self) -> bool {
        !self.fields.is_empty() || !self.labels.is_everything()
    }

    pub fn matches(&self, object: &Object) -> bool {
        if !self.namespace.is_empty() && object.namespace() != self.namespace {
            return false;
        }
        let fields = self.fields.iter().all(|(source, value, equal)| {
            let found = match source {
                Source::Name => object.name(),
                Source::Namespace => object.namespace(),
                Source::Nth(nth) => object.field(*nth),
            };
            (found == value) == *equal
        });
        fields && self.labels.matches(object.labels())
    }
}

/// In the words of the conversion functions that upstream registers: kinds with fields of their own have another than the
/// rest (apimachinery `runtime.DefaultMetaV1FieldSelectorConversion`).
fn unknown_field(row: &Row, field: &str) -> Status {
    Status::bad_request(if row.strategy.fields().is_empty() && row.strategy.custom().is_none() {
        format!("{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
    } else {
        format!("field label not supported: {field}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;

    /// `TestRegisterWatch` of upstream's `watch_tracker_test.go`, and selectors that have no index.
    #[test]
    fn a_watch_counts_for_its_namespace_and_name_unless_an_index_finds_it() {
        let rows = [
            ("pods", "", "", Some(("", ""))),
            ("pods", "foo", "", Some(("foo", ""))),
            ("pods", "foo", "metadata.name=mypod", Some(("foo", "mypod"))),
            ("namespaces", "", "metadata.name=myns", Some(("", "myns"))),
            ("pods", "foo", "spec.nodeName=", Some(("foo", ""))),
            ("pods", "foo", "spec.nodeName=node1", None),
            ("pods", "", "status.phase!=Failed,spec.nodeName==node1", None),
            ("pods", "foo", "spec.nodeName!=node1", Some(("foo", ""))),
            ("pods", "foo", "status.phase=Running", Some(("foo", ""))),
            ("pods", "foo", "metadata.name!=mypod", Some(("foo", ""))),
            ("events", "foo", "involvedObject.name=mypod", Some(("foo", ""))),
        ];
        let registry = Registry::builtin().current();
        for (plural, namespace, fields, wanted) in rows {
            let row = registry.rows().find(|row| &*row.plural == plural).unwrap();
            let fields = FieldSelector::parse(fields).unwrap();
            let selection = Selection::new(row, namespace, LabelSelector::default(), &fields).unwrap();
            let interest = selection.interest();
            let found = interest.as_ref().map(|(namespace, name)| (namespace.as_str(), name.as_str()));
            assert_eq!(found, wanted, "{plural} {namespace} {}", fields.requirements().len());
        }
    }
}
