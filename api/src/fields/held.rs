//! What one owner has: paths, and the text they came as while that is still how they are written.

use serde::de::{Deserialize, Deserializer};

use super::set::Set;

/// Paths of one owner. Most owners lose and gain nothing by a write, and are written as they were read.
#[derive(Clone, Debug, Default)]
pub(super) struct Held<'a> {
    set: Set<'a>,
    text: Option<&'a str>,
}

impl<'a> From<Set<'a>> for Held<'a> {
    fn from(set: Set<'a>) -> Self {
        Self { set, text: None }
    }
}

impl<'a> Held<'a> {
    /// Paths that were read; `text` is how they are written, where that is known.
    pub fn read(set: Set<'a>, text: Option<&'a str>) -> Self {
        Self { set, text }
    }

    /// Whether it is written as it was read.
    #[cfg(test)]
    pub fn is_text(&self) -> bool {
        self.text.is_some()
    }

    pub fn set(&self) -> &Set<'a> {
        &self.set
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
            None => self.set.put(out),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Held<'a> {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        Set::deserialize(reader).map(Self::from)
    }
}
