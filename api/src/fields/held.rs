//! What one owner has: paths, and the text they came as while that is still how they are written.

use serde::de::{Deserialize, Deserializer};

use super::set::{Element, Set};

/// Paths of one owner. Most owners lose and gain nothing by a write, and are written as they were read.
#[derive(Clone, Debug, Default)]
pub(super) struct Held<'a> {
    set: Set<'a>,
    text: Option<&'a str>,
    /// What was not read, for it stays as it is: in order, and none of it in the set.
    apart: Vec<Part<'a>>,
}

/// A field at the root of an object, with all that is owned there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part<'a> {
    pub name: &'a str,
    /// How both are written: `"f:name":{…}`.
    pub text: &'a str,
}

impl<'a> From<Set<'a>> for Held<'a> {
    fn from(set: Set<'a>) -> Self {
        Self { set, text: None, apart: Vec::new() }
    }
}

impl<'a> Held<'a> {
    /// Paths that were read; `text` is how they are written, where that is known.
    pub fn read(set: Set<'a>, text: Option<&'a str>) -> Self {
        Self { set, text, apart: Vec::new() }
    }

    /// Paths of which those at some fields of the root were not read; `text` is how all are written.
    pub fn read_beside(apart: Vec<Part<'a>>, set: Set<'a>, text: &'a str) -> Self {
        Self { set, text: Some(text), apart }
    }

    /// Whether it is nothing at all.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.apart.is_empty()
    }

    /// Whether it is written as it was read.
    #[cfg(test)]
    pub fn is_text(&self) -> bool {
        self.text.is_some()
    }

    /// What was read of it.
    pub fn set(&self) -> &Set<'a> {
        &self.set
    }

    /// Puts other paths in the place of those that were read.
    pub fn replace(&mut self, set: Set<'a>) {
        self.text = None;
        self.set = set;
    }

    pub fn into_set(self) -> Set<'a> {
        self.set
    }

    /// Adds paths.
    pub fn add(&mut self, paths: Set<'a>) {
        self.text = None;
        self.set = std::mem::take(&mut self.set).union(paths);
    }

    /// Takes away what is in `other`, path by path.
    pub fn subtract(&mut self, other: &Set<'_>) {
        if self.set.subtract(other) {
            self.text = None;
        }
    }

    /// Appends `fieldsV1`, as JSON.
    pub fn put(&self, out: &mut Vec<u8>) {
        match self.text {
            Some(text) => out.extend_from_slice(text.as_bytes()),
            None if self.apart.is_empty() => self.set.put(out),
            None => self.put_parts(out),
        }
    }

    /// The same where some of it was not read.
    fn put_parts(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let separate = |out: &mut Vec<u8>| out.push(if out.len() == start { b'{' } else { b',' });
        let mut apart = self.apart.iter().peekable();
        for (element, member, below) in self.set.entries() {
            while let Some(part) = apart.next_if(|part| Element::field(part.name) < *element) {
                separate(out);
                out.extend_from_slice(part.text.as_bytes());
            }
            separate(out);
            Set::put_entry(out, element, member, below);
        }
        for part in apart {
            separate(out);
            out.extend_from_slice(part.text.as_bytes());
        }
        out.push(b'}');
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Held<'a> {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        Set::deserialize(reader).map(Self::from)
    }
}
