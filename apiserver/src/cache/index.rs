//! What selectors look at, read from encoded objects without building them.

use super::scan::Scan;
use coracle_api::gvk::Symbol;
use std::borrow::Cow;

/// A field that can be selected by, beside `metadata.name` and `metadata.namespace`.
#[derive(Debug)]
pub struct Field {
    /// As in `fieldSelector`.
    pub name: Symbol,
    /// Where it stands in the object.
    path: Path,
    /// What an absent field counts as.
    pub absent: &'static str,
    /// The row's field that counts where this one is empty.
    pub instead: Option<&'static str>,
}

/// The names on the way from an object to one of its fields.
#[derive(Debug)]
enum Path {
    Static(&'static [&'static str]),
    /// Of a custom resource.
    Own(Box<[Box<str>]>),
}

impl Path {
    fn get(&self, depth: usize) -> Option<&str> {
        match self {
            Path::Static(names) => names.get(depth).copied(),
            Path::Own(names) => names.get(depth).map(|name| &**name),
        }
    }

    fn len(&self) -> usize {
        match self {
            Path::Static(names) => names.len(),
            Path::Own(names) => names.len(),
        }
    }
}

impl Field {
    /// A field of a built-in kind.
    pub const fn of(name: &'static str, path: &'static [&'static str], absent: &'static str) -> Self {
        Self { name: Symbol::new(name), path: Path::Static(path), absent, instead: None }
    }

    /// A field of a built-in kind; where it is empty, another one counts.
    pub const fn either(name: &'static str, path: &'static [&'static str], instead: &'static str) -> Self {
        Self { name: Symbol::new(name), path: Path::Static(path), absent: "", instead: Some(instead) }
    }

    /// A field of a custom resource, `spec.color`.
    pub fn custom(name: &str) -> Self {
        Self {
            name: name.into(),
            path: Path::Own(name.split('.').map(Into::into).collect()),
            absent: "",
            instead: None,
        }
    }
}

/// Labels in the order of the object.
#[derive(Clone, Debug, Default)]
pub struct Labels(Box<[(Box<str>, Box<str>)]>);

impl Labels {
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| &**name == key).map(|(_, value)| &**value)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }
}

impl coracle_api::selector::Labels for Labels {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key)
    }
}

/// Labels and selectable fields of one object.
#[derive(Clone, Debug, Default)]
pub struct Index {
    pub labels: Labels,
    /// In the order of the row's fields.
    pub fields: Box<[Box<str>]>,
}

impl Index {
    /// Reads the index from JSON; at most 32 fields.
    pub fn of(json: &[u8], fields: &[Field]) -> Option<Self> {
        let mut scan = Scan::new(json);
        let mut found = Found { labels: Vec::new(), fields: vec![None; fields.len()] };
        let candidates = if fields.len() >= 32 { u32::MAX } else { (1 << fields.len()) - 1 };
        Walk { depth: 0, candidates, labels: Labelled::Object, fields, found: &mut found }.value(&mut scan)?;
        if !scan.is_at_end() {
            return None;
        }
        let fields = fields.iter().zip(found.fields);
        Some(Self {
            labels: Labels(found.labels.into_boxed_slice()),
            fields: fields.map(|(field, value)| value.unwrap_or_else(|| field.absent.into())).collect(),
        })
    }
}

struct Found {
    labels: Vec<(Box<str>, Box<str>)>,
    fields: Vec<Option<Box<str>>>,
}

/// How far the way to `metadata.labels` has been gone.
#[derive(Clone, Copy, PartialEq)]
enum Labelled {
    Object,
    Metadata,
    Labels,
    Elsewhere,
}

/// One step into the document: which fields can still be met below here.
struct Walk<'a> {
    depth: usize,
    candidates: u32,
    labels: Labelled,
    fields: &'a [Field],
    found: &'a mut Found,
}

impl Walk<'_> {
    fn value(self, scan: &mut Scan<'_>) -> Option<()> {
        match scan.peek()? {
            b'{' => self.object(scan),
            b'[' => scan.skip(),
            b'"' if self.is_wanted() => {
                let text = text(scan)?;
                self.scalar(&text);
                Some(())
            }
            b'"' => scan.skip(),
            _ => {
                // Selectors know words and whole numbers.
                let scalar = std::str::from_utf8(scan.scalar()?).ok()?;
                if matches!(scalar, "true" | "false")
                    || scalar.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
                {
                    self.scalar(scalar);
                }
                Some(())
            }
        }
    }

    /// Whether a scalar here is one of the fields.
    fn is_wanted(&self) -> bool {
        let here = |(nth, field): (usize, &Field)| self.candidates & (1 << nth) != 0 && field.path.len() == self.depth;
        self.fields.iter().enumerate().any(here)
    }

    fn scalar(self, value: &str) {
        for (nth, field) in self.fields.iter().enumerate() {
            if self.candidates & (1 << nth) != 0 && field.path.len() == self.depth {
                self.found.fields[nth] = Some(value.into());
            }
        }
    }

    fn object(self, scan: &mut Scan<'_>) -> Option<()> {
        scan.take(b'{').then_some(())?;
        if scan.take(b'}') {
            return Some(());
        }
        loop {
            let key = bytes(scan)?;
            scan.take(b':').then_some(())?;
            if self.labels == Labelled::Labels {
                // A label that is null is empty.
                let value = if scan.peek()? == b'"' { text(scan)? } else { Cow::Borrowed("") };
                if value.is_empty() && scan.peek()? == b'n' {
                    (scan.scalar()? == b"null").then_some(())?;
                }
                self.found.labels.push((std::str::from_utf8(&key).ok()?.into(), value.into()));
            } else {
                let labels = match (self.labels, &*key) {
                    (Labelled::Object, b"metadata") => Labelled::Metadata,
                    (Labelled::Metadata, b"labels") => Labelled::Labels,
                    _ => Labelled::Elsewhere,
                };
                let mut candidates = self.candidates;
                for (nth, field) in self.fields.iter().enumerate() {
                    if candidates & (1 << nth) != 0 && field.path.get(self.depth).map(str::as_bytes) != Some(&*key) {
                        candidates &= !(1 << nth);
                    }
                }
                if candidates == 0 && labels == Labelled::Elsewhere {
                    scan.skip()?;
                } else {
                    let (fields, found) = (self.fields, &mut *self.found);
                    Walk { depth: self.depth + 1, candidates, labels, fields, found }.value(scan)?;
                }
            }
            if !scan.take(b',') {
                return scan.take(b'}').then_some(());
            }
        }
    }
}

/// A string, borrowed where it has no escapes.
fn text<'a>(scan: &mut Scan<'a>) -> Option<Cow<'a, str>> {
    Some(match bytes(scan)? {
        Cow::Borrowed(bytes) => Cow::Borrowed(std::str::from_utf8(bytes).ok()?),
        Cow::Owned(bytes) => Cow::Owned(String::from_utf8(bytes).ok()?),
    })
}

/// The bytes of a string: of most names nothing is asked but whether they are a certain one.
fn bytes<'a>(scan: &mut Scan<'a>) -> Option<Cow<'a, [u8]>> {
    let (quoted, escapes) = scan.string()?;
    if escapes {
        return serde_json::from_slice::<String>(quoted).ok().map(|text| Cow::Owned(text.into_bytes()));
    }
    Some(Cow::Borrowed(&quoted[1..quoted.len() - 1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_labels_and_fields_only_where_they_belong() {
        static FIELDS: [Field; 3] = [
            Field::of("spec.nodeName", &["spec", "nodeName"], ""),
            Field::of("spec.unschedulable", &["spec", "unschedulable"], "false"),
            Field::of("type", &["type"], ""),
        ];
        let json = br#"{"metadata":{"name":"a","labels":{"a\n":"1","b":"2","c":null},"x":{"labels":{"no":"no"}}},
            "spec":{"template":{"metadata":{"labels":{"no":"no"}},"spec":{"nodeName":"no"}},"nodeName":"yes","list":[{"nodeName":"no"}]},
            "status":{"nodeName":"no"},"type":"Opaque"}"#;
        let index = Index::of(json, &FIELDS).unwrap();
        assert_eq!(index.labels.iter().collect::<Vec<_>>(), [("a\n", "1"), ("b", "2"), ("c", "")]);
        assert_eq!(index.fields.iter().map(|value| &**value).collect::<Vec<_>>(), ["yes", "false", "Opaque"]);
        for wrong in
            ["{\"metadata\":", "{\"metadata\":{\"labels\":{\"a\":1}}}", "{\"a\":1}}", "{\"a\" 1}", "{\"a\":1 \"b\":2}"]
        {
            assert!(Index::of(wrong.as_bytes(), &FIELDS).is_none(), "{wrong}");
        }
    }
}
