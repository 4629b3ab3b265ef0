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
    /// The row's nth selectable field, or another where that one is empty.
    Nth(usize, Option<usize>),
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
    /// Binds selectors to a row, in the words of its nth served version.
    ///
    /// # Errors
    /// 400 when the row does not have a field.
    pub fn new(
        row: &Row,
        served: usize,
        namespace: &str,
        labels: LabelSelector,
        fields: &FieldSelector,
    ) -> Result<Self, Status> {
        let mut bound = Vec::new();
        let known = row.strategy.fields();
        let nth = |name: &str| known.iter().position(|known| known.name == name);
        let (mut name, mut indexed) = (None, false);
        for requirement in fields.requirements() {
            let source = match requirement.field.as_str() {
                "metadata.name" => {
                    if requirement.equal {
                        name = Some(requirement.value.clone());
                    }
                    Source::Name
                }
                // Of what is in no namespace it is empty.
                "metadata.namespace" if row.namespaced || has_default_fields(row) => Source::Namespace,
                field => {
                    let name = row.strategy.selected(field, served);
                    let found = name.and_then(|name| Some((name, nth(name)?)));
                    let (name, at) = found.ok_or_else(|| unknown_field(row, field))?;
                    indexed |= (&*row.plural, name) == INDEX && requirement.equal && !requirement.value.is_empty();
                    Source::Nth(at, known[at].instead.and_then(nth))
                }
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
                Source::Nth(nth, Some(instead)) if object.field(*nth).is_empty() => object.field(*instead),
                Source::Nth(nth, _) => object.field(*nth),
            };
            (found == value) == *equal
        });
        fields && self.labels.matches(object.labels())
    }
}

/// Whether upstream registers no conversion of fields for the kind, as it does for those that have some of their own
/// (apimachinery `runtime.DefaultMetaV1FieldSelectorConversion`).
fn has_default_fields(row: &Row) -> bool {
    row.strategy.fields().is_empty() && row.strategy.custom().is_none()
}

/// In the words of the conversion functions that upstream registers.
fn unknown_field(row: &Row, field: &str) -> Status {
    Status::bad_request(if has_default_fields(row) {
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
            ("pods", "foo", "spec.host=node1", None),
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
            let selection = Selection::new(row, 0, namespace, LabelSelector::default(), &fields).unwrap();
            let interest = selection.interest();
            let found = interest.as_ref().map(|(namespace, name)| (namespace.as_str(), name.as_str()));
            assert_eq!(found, wanted, "{plural} {namespace} {}", fields.requirements().len());
        }
    }
}
