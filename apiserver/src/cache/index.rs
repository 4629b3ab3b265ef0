//! What selectors look at, read from encoded objects without building them.

use coracle_api::gvk::Symbol;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

/// A field that can be selected by, beside `metadata.name` and `metadata.namespace`.
#[derive(Debug)]
pub struct Field {
    /// As in `fieldSelector`.
    pub name: Symbol,
    /// Where it stands in the object.
    path: Path,
    /// What an absent field counts as.
    pub absent: &'static str,
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
        Self { name: Symbol::new(name), path: Path::Static(path), absent }
    }

    /// A field of a custom resource, `spec.color`.
    pub fn custom(name: &str) -> Self {
        Self { name: name.into(), path: Path::Own(name.split('.').map(Into::into).collect()), absent: "" }
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
        let mut found = Found { labels: Vec::new(), fields: vec![None; fields.len()] };
        let mut json = serde_json::Deserializer::from_slice(json);
        let candidates = if fields.len() >= 32 { u32::MAX } else { (1 << fields.len()) - 1 };
        let seed = Walk { depth: 0, candidates, labels: Labelled::Object, fields, found: &mut found };
        seed.deserialize(&mut json).ok()?;
        json.end().ok()?;
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
    fn scalar(self, value: &str) {
        for (nth, field) in self.fields.iter().enumerate() {
            if self.candidates & (1 << nth) != 0 && field.path.len() == self.depth {
                self.found.fields[nth] = Some(value.into());
            }
        }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Text(key)) = map.next_key()? {
            if self.labels == Labelled::Labels {
                let Text(value) = map.next_value()?;
                self.found.labels.push((key.into(), value.into()));
                continue;
            }
            let labels = match (self.labels, &*key) {
                (Labelled::Object, "metadata") => Labelled::Metadata,
                (Labelled::Metadata, "labels") => Labelled::Labels,
                _ => Labelled::Elsewhere,
            };
            let mut candidates = self.candidates;
            for (nth, field) in self.fields.iter().enumerate() {
                if field.path.get(self.depth) != Some(&*key) {
                    candidates &= !(1 << nth);
                }
            }
            if candidates == 0 && labels == Labelled::Elsewhere {
                map.next_value::<IgnoredAny>()?;
            } else {
                let (fields, found) = (self.fields, &mut *self.found);
                map.next_value_seed(Walk { depth: self.depth + 1, candidates, labels, fields, found })?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        self.scalar(value);
        Ok(())
    }
    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.scalar(if value { "true" } else { "false" });
        Ok(())
    }
    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.scalar(&value.to_string());
        Ok(())
    }
    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.scalar(&value.to_string());
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// A string, borrowed where it has no escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> serde::Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Strings;
        impl<'de> Visitor<'de> for Strings {
            type Value = Cow<'de, str>;
            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
                Ok(Cow::Borrowed(value))
            }
            fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
                Ok(Cow::Owned(value.to_owned()))
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Cow::Borrowed(""))
            }
        }
        deserializer.deserialize_any(Strings).map(Text)
    }
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
        let json = br#"{"metadata":{"name":"a","labels":{"a\n":"1","b":"2"},"x":{"labels":{"no":"no"}}},
            "spec":{"template":{"metadata":{"labels":{"no":"no"}},"spec":{"nodeName":"no"}},"nodeName":"yes","list":[{"nodeName":"no"}]},
            "status":{"nodeName":"no"},"type":"Opaque"}"#;
        let index = Index::of(json, &FIELDS).unwrap();
        assert_eq!(index.labels.iter().collect::<Vec<_>>(), [("a\n", "1"), ("b", "2")]);
        assert_eq!(index.fields.iter().map(|value| &**value).collect::<Vec<_>>(), ["yes", "false", "Opaque"]);
        assert!(Index::of(b"{\"metadata\":", &FIELDS).is_none());
    }
}
