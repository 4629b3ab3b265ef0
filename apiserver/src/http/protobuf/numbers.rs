//! The field numbers of the API's types.
//!
//! They come from tables of lines `TYPE field=number …`. A number with dots leads through structures that upstream embeds, and
//! which JSON does not show: a volume's `hostPath` is field 1 of its field 2. Behind a colon stands what a value is that JSON
//! gives no type of its own. A `!` at the end: a zero counts, because upstream's field is a pointer, or JSON shows it always.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

/// For each type, its fields by the way that leads to them.
pub(super) static NUMBERS: LazyLock<HashMap<&'static str, Numbers>> = LazyLock::new(|| {
    let tables = [include_str!("../../../protobuf/v1.36.txt"), include_str!("../../../protobuf/unpublished.txt")];
    let lines = tables.into_iter().flat_map(str::lines).filter(|line| !line.starts_with('#'));
    let mut numbers: HashMap<&'static str, Numbers> = HashMap::new();
    for (name, fields) in lines.filter_map(|line| line.split_once(' ')) {
        numbers.entry(name).or_default().add(fields);
    }
    numbers
});

/// The fields of a structure by number.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    pub fields: BTreeMap<u64, Numbered>,
    pub embedded: BTreeMap<u64, Numbers>,
}

/// A field that has a number.
#[derive(Debug)]
pub(super) struct Numbered {
    pub name: &'static str,
    pub either: Option<Either>,
    /// Whether a zero counts.
    pub zero: bool,
}

/// What may stand in one field of a JSON schema in two ways; on the wire it is a message with a field for each
/// (apiextensions `v1/types_jsonschema.go`, `marshal.go`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Either {
    /// A schema, 1, or a list of them, 2.
    Schemas,
    /// A boolean, 1, or a schema, 2.
    Bool,
    /// A schema, 1, or a list of names, 2.
    Strings,
}

impl Numbers {
    fn add(&mut self, fields: &'static str) {
        for (name, path) in fields.split(' ').filter_map(|word| word.split_once('=')) {
            let (path, zero) = path.strip_suffix('!').map_or((path, false), |path| (path, true));
            let (path, either) = match path.split_once(':') {
                None => (path, None),
                Some((path, "schemas")) => (path, Some(Either::Schemas)),
                Some((path, "bool")) => (path, Some(Either::Bool)),
                Some((path, _)) => (path, Some(Either::Strings)),
            };
            let mut parts: Vec<u64> = path.split('.').filter_map(|part| part.parse().ok()).collect();
            let Some(last) = parts.pop() else { continue };
            let mut at = &mut *self;
            for part in parts {
                at = at.embedded.entry(part).or_default();
            }
            at.fields.insert(last, Numbered { name, either, zero });
        }
    }
}
