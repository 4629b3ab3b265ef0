//! Reading the account of an object's owners from its text.
//!
//! Every write of an object reads it, and most of it was written by this program: names in order, nothing between them. Such
//! text is read here, in one pass; all other JSON by the general reader.

use std::borrow::Cow;

use super::canonical::{behind_key, behind_value};
use super::entry::{Entry, Operation};
use super::held::Held;
use super::set::{Element, Set};
use crate::json::plain;

/// As deep as the general reader goes.
pub(super) const DEEPEST: usize = 128;

/// Reads `managedFields`. None for text that the general reader is to look at.
pub(super) fn entries(text: &[u8]) -> Option<Vec<Entry<'_>>> {
    entries_by(text, |reader, _| reader.held())
}

/// The same with another way to read what an owner has, who speaks of a version.
pub(super) fn entries_by<'a>(
    text: &'a [u8],
    mut held: impl FnMut(&mut Reader<'a>, &'a str) -> Option<Held<'a>>,
) -> Option<Vec<Entry<'a>>> {
    let mut reader = Reader::of(std::str::from_utf8(text).ok()?)?;
    let mut entries = Vec::with_capacity(4);
    if !reader.take(b'[') {
        return None;
    }
    loop {
        entries.push(reader.entry(&mut held)?);
        if reader.take(b']') {
            return reader.is_at_end().then_some(entries);
        }
        if !reader.take(b',') {
            return None;
        }
    }
}

pub(super) struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// The set that was begun last is so far written as it was read.
    pub canonical: bool,
}

impl<'a> Reader<'a> {
    /// Control characters are no JSON, and looked for at once.
    fn of(text: &'a str) -> Option<Self> {
        let controls = text.bytes().fold(false, |found, byte| found | (byte < b' '));
        (!controls).then_some(Self { text, at: 0, canonical: true })
    }

    fn is_at_end(&self) -> bool {
        self.at == self.text.len()
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// How far it has read.
    pub fn at(&self) -> usize {
        self.at
    }

    /// What was read from there on.
    pub fn since(&self, start: usize) -> &'a str {
        &self.text[start..self.at]
    }

    fn entry(&mut self, held: &mut impl FnMut(&mut Self, &'a str) -> Option<Held<'a>>) -> Option<Entry<'a>> {
        let manager = self.given("{\"manager\":\"")?;
        let operation = match self.given(",\"operation\":\"")? {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return None,
        };
        let api_version = self.given(",\"apiVersion\":\"")?;
        let time = self.given(",\"time\":\"").unwrap_or_default();
        let fields_type = self.given(",\"fieldsType\":\"")?;
        if !self.skip(",\"fieldsV1\":") {
            return None;
        }
        let held = held(self, api_version)?;
        let subresource = self.given(",\"subresource\":\"").unwrap_or_default();
        let entry = Entry {
            manager: manager.into(),
            operation,
            api_version: api_version.into(),
            time: time.into(),
            fields_type: fields_type.into(),
            subresource: subresource.into(),
            held,
        };
        self.take(b'}').then_some(entry)
    }

    pub fn skip(&mut self, known: &str) -> bool {
        let is = self.rest().starts_with(known);
        self.at += if is { known.len() } else { 0 };
        is
    }

    /// What is given behind these words, if it has no escapes.
    pub fn given(&mut self, words: &str) -> Option<&'a str> {
        let rest = self.rest().strip_prefix(words)?;
        let end = plain(rest.as_bytes());
        rest.as_bytes().get(end).filter(|byte| **byte == b'"')?;
        self.at += words.len() + end + 1;
        Some(&rest[..end])
    }

    fn held(&mut self) -> Option<Held<'a>> {
        let start = self.at;
        self.canonical = true;
        let (set, _) = self.set(0)?;
        Some(Held::read(set, self.canonical.then_some(self.since(start))))
    }

    /// Whether nothing is owned below the path that was read: it is itself.
    pub fn ends(&mut self) -> bool {
        let is = self.text.as_bytes().get(self.at..).is_some_and(|rest| rest.starts_with(b"{}"));
        self.at += if is { 2 } else { 0 };
        is
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    pub fn take(&mut self, byte: u8) -> bool {
        let is = self.peek() == Some(byte);
        self.at += usize::from(is);
        is
    }

    /// A set, and whether the path that leads to it is a member.
    pub fn set(&mut self, depth: usize) -> Option<(Set<'a>, bool)> {
        if depth >= DEEPEST || !self.take(b'{') {
            return None;
        }
        let mut set = Set::default();
        if self.take(b'}') {
            return Some((set, true));
        }
        let (mut member, mut first) = (false, true);
        loop {
            match self.name()? {
                None => {
                    // Alone it is not written at all, nor at the root.
                    let below = self.set(depth + 1)?.0;
                    self.canonical &= depth > 0 && first && below.is_empty() && self.peek() == Some(b',');
                    member = true;
                }
                Some(element) => {
                    self.canonical &= set.is_behind(&element);
                    let (below, is_member) = self.set(depth + 1)?;
                    set.push(element, is_member, below);
                }
            }
            first = false;
            if self.take(b'}') {
                set.sort();
                return Some((set, member));
            }
            if !self.take(b',') {
                return None;
            }
        }
    }

    /// A name and the colon behind it; None inside for the dot.
    pub fn name(&mut self) -> Option<Option<Element<'a>>> {
        if let Some(name) = self.field() {
            return Some(Some(Element::field(name)));
        }
        if !self.take(b'"') {
            return None;
        }
        let rest = self.rest();
        let end = plain(rest.as_bytes());
        let name: Cow<'a, str> = match rest.as_bytes().get(end)? {
            b'"' => {
                self.at += end + 1;
                Cow::Borrowed(&rest[..end])
            }
            b'\\' => Cow::Owned(self.escaped(end)?),
            _ => return None,
        };
        if !self.take(b':') {
            return None;
        }
        if name == "." {
            return Some(None);
        }
        let (element, canonical) = Element::read(name)?;
        self.canonical &= canonical;
        Some(Some(element))
    }

    /// The name of a field in which nothing is escaped, as most are, and the colon behind it.
    #[inline]
    pub fn field(&mut self) -> Option<&'a str> {
        let inside = self.text.as_bytes().get(self.at..)?.strip_prefix(b"\"f:")?;
        let length = plain(inside);
        if !inside[length..].starts_with(b"\":") {
            return None;
        }
        let start = self.at + 3;
        self.at = start + length + 2;
        Some(&self.text[start..start + length])
    }

    /// The name of an item that is written as it would be, and the colon behind it.
    pub fn item(&mut self) -> Option<&'a str> {
        const QUOTE: &str = "\\\"";
        let text = self.rest().strip_prefix('"')?;
        let behind = match text.split_at_checked(2)? {
            ("k:", keys) => behind_key(keys, QUOTE)?,
            ("v:", value) => behind_value(value, QUOTE)?,
            _ => return None,
        };
        let length = text.len() - behind.len();
        let colon = behind.strip_prefix("\":")?;
        self.at = self.text.len() - colon.len();
        Some(&text[..length])
    }

    /// A name in which quotes and backslashes are escaped, as they are in keys; `plain` bytes precede the first.
    fn escaped(&mut self, plain_bytes: usize) -> Option<String> {
        let rest = self.rest();
        let mut name = String::with_capacity(plain_bytes * 2 + 32);
        let (mut from, mut at) = (0, plain_bytes);
        while rest.as_bytes().get(at)? != &b'"' {
            // Others are the general reader's.
            rest.as_bytes().get(at + 1).filter(|byte| matches!(byte, b'"' | b'\\'))?;
            name.push_str(&rest[from..at]);
            from = at + 1;
            at += 2;
            at += plain(&rest.as_bytes()[at..]);
        }
        name.push_str(&rest[from..at]);
        self.at += at + 1;
        Some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::{Value, json};
    use proptest::prelude::*;

    /// What may stand as a name: as it is written, as others write it, and what is none.
    const NAMES: [&str; 24] = [
        ".",
        "f:a",
        "f:b",
        "f:",
        "f:ü",
        "f:<&>",
        "f:a\"b",
        "f:\u{7f}\u{2028}",
        "f:a\nb",
        "k:{\"name\":\"a\"}",
        "k:{\"name\":\"b\",\"port\":80}",
        "k:{\"port\":80,\"name\":\"b\"}",
        "k:{\"name\": \"a\"}",
        "k:{\"name\":\"\\\"\"}",
        "k:{\"a\":1,\"a\":2}",
        "k:{}",
        "k:[]",
        "v:1",
        "v:1.0",
        "v:01",
        "v:\"x\"",
        "i:0",
        "i:07",
        "x",
    ];

    fn documents() -> impl Strategy<Value = Value> {
        Just(json!({})).prop_recursive(4, 40, 6, |below| {
            prop::collection::vec((0..NAMES.len(), below), 0..6)
                .prop_map(|fields| fields.into_iter().map(|(at, value)| (NAMES[at].to_owned(), value)).collect())
        })
    }

    fn general(text: &str) -> Option<Set<'_>> {
        serde_json::from_str(text).ok()
    }

    fn written(set: &Set<'_>) -> String {
        let mut out = Vec::new();
        set.put(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn of_one(fields: &str, subresource: &str) -> String {
        format!(
            r#"[{{"manager":"m","operation":"Update","apiVersion":"v1","time":"2026-01-01T00:00:00Z","fieldsType":"FieldsV1","fieldsV1":{fields}{subresource}}}]"#
        )
    }

    /// Agrees with the general reader wherever it reads at all.
    fn check(text: &str) {
        let Some(read) = entries(text.as_bytes()) else { return };
        let general: Vec<Entry<'_>> = serde_json::from_str(text).expect(text);
        assert_eq!(read.len(), general.len(), "{text}");
        for (read, general) in read.iter().zip(&general) {
            assert_eq!(read.held.set(), general.held.set(), "{text}");
            let written = |entry: &Entry<'_>| {
                let mut out = Vec::new();
                entry.put(&mut out);
                String::from_utf8(out).unwrap()
            };
            assert_eq!(written(read), written(general));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_as_the_general_reader_does(document in documents(), at in any::<prop::sample::Index>(), byte: u8) {
            let fields = document.to_string();
            let mut text = of_one(&fields, if byte < 128 { ",\"subresource\":\"status\"" } else { "" });
            check(&text);
            // What is written here is read here, unless more than quotes has to be escaped.
            let set = general(&fields).unwrap_or_default();
            let account = of_one(&written(&set), "");
            let is_read = entries(account.as_bytes()).is_some_and(|read| *read[0].held.set() == set && read[0].held.is_text());
            assert!(is_read || account.contains("\\n"), "{account}");
            // Broken anywhere.
            let at = at.index(text.len());
            if text.is_char_boundary(at) && text.is_char_boundary(at + 1) {
                text.replace_range(at..=at, &char::from(byte).to_string());
                check(&text);
            }
            text.truncate(text.floor_char_boundary(at));
            check(&text);
        }
    }

    #[test]
    fn depth_has_an_end() {
        let deep = |levels: usize| "{\"f:a\":".repeat(levels) + "{}" + &"}".repeat(levels);
        assert!(entries(of_one(&deep(100), "").as_bytes()).is_some());
        assert!(entries(of_one(&deep(100_000), "").as_bytes()).is_none());
    }
}
