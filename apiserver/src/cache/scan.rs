//! Finding one's way in a JSON document without reading it.
//!
//! What is passed over is not looked at but for its strings and brackets: it was checked when it was written.

use coracle_api::json::plain;
use std::ops::Range;

/// The deepest nesting that is passed over; what is stored nests less (`decode`).
const DEEPEST: u32 = 127;

/// A place in a document.
pub(crate) struct Scan<'a> {
    json: &'a [u8],
    at: usize,
}

impl<'a> Scan<'a> {
    pub fn new(json: &'a [u8]) -> Self {
        Self::from(json, 0)
    }

    /// From another place than the first.
    pub fn from(json: &'a [u8], at: usize) -> Self {
        Self { json, at }
    }

    /// The next byte that is no white space.
    pub fn peek(&mut self) -> Option<u8> {
        loop {
            match *self.json.get(self.at)? {
                b' ' | b'\n' | b'\r' | b'\t' => self.at += 1,
                byte => return Some(byte),
            }
        }
    }

    /// Takes a byte, if it is the next.
    pub fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// A string with its quotes, and whether it has escapes.
    pub fn string(&mut self) -> Option<(&'a [u8], bool)> {
        (self.peek()? == b'"').then_some(())?;
        let start = self.at;
        let (end, escapes) = string_end(self.json, start + 1)?;
        self.at = end + 1;
        Some((&self.json[start..self.at], escapes))
    }

    /// A number or a word.
    pub fn scalar(&mut self) -> Option<&'a [u8]> {
        self.peek()?;
        let rest = &self.json[self.at..];
        let length = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte)).count();
        self.at += length;
        (length > 0).then(|| &rest[..length])
    }

    /// Passes over a value.
    pub fn skip(&mut self) -> Option<()> {
        match self.peek()? {
            b'"' => self.string().map(drop),
            b'{' | b'[' => self.skip_nested(),
            _ => self.scalar().map(drop),
        }
    }

    fn skip_nested(&mut self) -> Option<()> {
        // A bit for each open bracket: whether it is a curly one.
        let (mut open, mut depth, mut at, json) = (0_u128, 0, self.at, self.json);
        loop {
            match *json.get(at)? {
                b'"' => at = string_end(json, at + 1)?.0,
                bracket @ (b'{' | b'[') if depth < DEEPEST => {
                    open = open << 1 | u128::from(bracket == b'{');
                    depth += 1;
                }
                b'{' | b'[' => return None,
                bracket @ (b'}' | b']') => {
                    if (open & 1 == 1) != (bracket == b'}') {
                        return None;
                    }
                    open >>= 1;
                    depth -= 1;
                    if depth == 0 {
                        self.at = at + 1;
                        return Some(());
                    }
                }
                _ => {}
            }
            at += 1;
        }
    }

    /// What stands at its place: the bytes of a value, and where they begin.
    pub fn value(&mut self) -> Option<Range<usize>> {
        self.peek()?;
        let start = self.at;
        self.skip()?;
        Some(start..self.at)
    }

    /// The fields of the object at its place: their names without quotes, and where their values stand. None when it is none,
    /// or a name is written with escapes.
    pub fn fields(&mut self) -> Option<Vec<(&'a [u8], Range<usize>)>> {
        let mut fields = Vec::new();
        self.take(b'{').then_some(())?;
        if self.take(b'}') {
            return Some(fields);
        }
        loop {
            let (name, escapes) = self.string()?;
            (!escapes && self.take(b':')).then_some(())?;
            fields.push((&name[1..name.len() - 1], self.value()?));
            if self.take(b'}') {
                return Some(fields);
            }
            self.take(b',').then_some(())?;
        }
    }

    /// Whether nothing follows.
    pub fn is_at_end(&mut self) -> bool {
        self.peek().is_none()
    }
}

/// Where the quote stands that ends a string, and whether the string has escapes; `at` is behind its first quote.
fn string_end(json: &[u8], mut at: usize) -> Option<(usize, bool)> {
    let mut escapes = false;
    loop {
        at += plain(json.get(at..)?);
        if *json.get(at)? == b'"' {
            return Some((at, escapes));
        }
        escapes = true;
        at += 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skips(json: &str) -> bool {
        let mut scan = Scan::new(json.as_bytes());
        scan.skip().is_some() && scan.is_at_end()
    }

    #[test]
    fn a_string_ends_where_it_ends_however_long() {
        for before in 0..20 {
            for after in 0..20 {
                for middle in ["", "\\\\", "\\\"", "é", "\\u0022", "!#[]", "\u{a2}\u{dc}"] {
                    let text = format!("\"{}{middle}{}\"", "a".repeat(before), "}".repeat(after));
                    let json = format!("{text},\"b\"");
                    let mut scan = Scan::new(json.as_bytes());
                    assert_eq!(scan.string(), Some((text.as_bytes(), middle.contains('\\'))), "{text}");
                    assert!(skips(&text) && skips(&format!("[{text},{{{text}:1}}]")), "{text}");
                    assert!(!skips(&text[..text.len() - 1]), "{text}");
                }
            }
        }
    }

    #[test]
    fn values_are_passed_over_whole() {
        for json in
            [r#""a""#, r#""\"\\""#, "1", "-1.5e3", "true", " null ", "{}", "[]", r#"{"a":[{"b":"}"},"]\""],"c":{}} "#]
        {
            assert!(skips(json), "{json}");
        }
        for json in ["", "\"", r#""\"#, r#""a\""#, "{", "[", "{]", "[}", r#"{"a":["#, r#"{"a":"}"#, "{}}", "1 2"] {
            assert!(!skips(json), "{json}");
        }
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(skips(&nested(127)) && !skips(&nested(128)));
    }
}
