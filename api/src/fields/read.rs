//! Reading `fieldsV1` from its text.
//!
//! Every write of an object reads the account of its owners, and most of that was written by this program: names in order,
//! nothing between them. Such text is read here, in one pass; all other JSON by the general reader, in [`Set`]'s `Deserialize`.

use std::borrow::Cow;

use super::set::{Element, Set};

/// As deep as the general reader goes.
const DEEPEST: usize = 128;

/// Reads a set. None for text that the general reader is to look at. With it, whether the text is what the set is written as.
pub(super) fn read(text: &str) -> Option<(Set<'_>, bool)> {
    let mut reader = Reader { text, at: 0, canonical: true };
    let (set, _) = reader.set(0)?;
    (reader.at == text.len()).then_some((set, reader.canonical))
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// What was read so far is as it would be written.
    canonical: bool,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let is = self.peek() == Some(byte);
        self.at += usize::from(is);
        is
    }

    /// A set, and whether the path that leads to it is a member.
    fn set(&mut self, depth: usize) -> Option<(Set<'a>, bool)> {
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
    fn name(&mut self) -> Option<Option<Element<'a>>> {
        if !self.take(b'"') {
            return None;
        }
        let rest = &self.text[self.at..];
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

    /// A name in which quotes and backslashes are escaped, as they are in keys; `plain` bytes precede the first.
    fn escaped(&mut self, plain: usize) -> Option<String> {
        let rest = &self.text[self.at..];
        let mut name = String::with_capacity(plain * 2 + 16);
        let (mut from, mut at) = (0, plain);
        loop {
            match rest.as_bytes().get(at)? {
                b'"' => {
                    name.push_str(&rest[from..at]);
                    self.at += at + 1;
                    return Some(name);
                }
                b'\\' if matches!(rest.as_bytes().get(at + 1)?, b'"' | b'\\') => {
                    name.push_str(&rest[from..at]);
                    from = at + 1;
                    at += 2;
                }
                byte if is_plain(*byte) => at += 1,
                _ => return None,
            }
        }
    }
}

/// How many bytes at the beginning stand for themselves in JSON.
fn plain(text: &[u8]) -> usize {
    text.iter().position(|byte| !is_plain(*byte)).unwrap_or(text.len())
}

fn is_plain(byte: u8) -> bool {
    byte >= b' ' && byte != b'"' && byte != b'\\'
}

/// Whether the JSON text of an item's keys is what it would be written as, as far as that can be seen at a glance.
pub(super) fn is_canonical_key(text: &str) -> bool {
    let Some(mut rest) = text.strip_prefix('{') else { return false };
    let mut last = "";
    loop {
        let Some((name, behind)) = plain_string(rest) else { return false };
        if name <= last {
            return false;
        }
        last = name;
        let Some(behind) = behind.strip_prefix(':').and_then(plain_value) else { return false };
        match behind.split_at_checked(1) {
            Some((",", more)) => rest = more,
            Some(("}", "")) => return true,
            _ => return false,
        }
    }
}

/// The same of a value.
pub(super) fn is_canonical_value(text: &str) -> bool {
    plain_value(text) == Some("")
}

/// What is behind a text without escapes, or a whole number as everybody writes it.
fn plain_value(text: &str) -> Option<&str> {
    if let Some((_, rest)) = plain_string(text) {
        return Some(rest);
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let is_one = digits == 1 || ((2..=18).contains(&digits) && !text.starts_with('0'));
    // What follows could make it another number.
    let ends = |rest: &str| rest.is_empty() || rest.starts_with([',', '}']);
    Some(&text[digits..]).filter(|rest| is_one && ends(rest))
}

/// A text without escapes, and what is behind it.
fn plain_string(text: &str) -> Option<(&str, &str)> {
    let inside = text.strip_prefix('"')?;
    let end = plain(inside.as_bytes());
    Some((&inside[..end], inside[end..].strip_prefix('"')?))
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

    /// Agrees with the general reader wherever it reads at all.
    fn check(text: &str) {
        let Some((set, canonical)) = read(text) else { return };
        assert_eq!(Some(&set), general(text).as_ref(), "{text}");
        assert_eq!(canonical, written(&set) == text, "{text}");
    }

    proptest! {
        #[test]
        fn any_text_is_read_as_the_general_reader_does(document in documents(), at in any::<prop::sample::Index>(), byte: u8) {
            let mut text = document.to_string();
            check(&text);
            // What is written here is read here, unless more than quotes has to be escaped.
            let set = general(&text).unwrap_or_default();
            let canonical = written(&set);
            assert!(canonical.contains("\\n") || read(&canonical) == Some((set, true)), "{canonical}");
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
        assert!(read(&deep(100)).is_some());
        assert!(read(&deep(100_000)).is_none());
    }
}
