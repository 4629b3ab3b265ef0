//! A small JSON reader and writer (RFC 8259), enough for `config.json`, `state.json` and process files.
//!
//! Input is bounded in size and depth, numbers that fit keep all 64 bits (memory limits use them), and the last of
//! two equal keys wins, as in Go's `encoding/json`, which every other OCI runtime reads these files with.

use std::fmt;

/// Deepest nesting accepted; the deepest path of the OCI runtime specification has eight levels.
const MAX_DEPTH: usize = 64;

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    Null,
    Bool(bool),
    /// A whole number that fits: `i128` holds every `i64` and `u64`.
    Int(i128),
    /// Any other number, in its spelling.
    Number(String),
    Str(String),
    Arr(Vec<Json>),
    Obj(Vec<(String, Json)>),
}

/// Where and why a text is not JSON.
#[derive(Debug, PartialEq, Eq)]
pub struct ParseError {
    pub offset: usize,
    pub what: &'static str,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.what, self.offset)
    }
}

static NULL: Json = Json::Null;

impl Json {
    /// Parses one value that fills the whole text.
    pub fn parse(text: &[u8]) -> Result<Json, ParseError> {
        let mut parser = Parser { text, at: 0 };
        let value = parser.value(0)?;
        parser.space();
        if parser.at < text.len() { Err(parser.error("unexpected text after the value")) } else { Ok(value) }
    }

    /// The member `key`, or null.
    pub fn get(&self, key: &str) -> &Json {
        match self {
            Json::Obj(members) => members.iter().rev().find(|(name, _)| name == key).map_or(&NULL, |(_, value)| value),
            _ => &NULL,
        }
    }

    /// The value below a dotted path, or null.
    pub fn at(&self, path: &str) -> &Json {
        path.split('.').fold(self, |value, key| value.get(key))
    }

    pub fn str(&self) -> Option<&str> {
        match self {
            Json::Str(text) => Some(text),
            _ => None,
        }
    }

    pub fn bool(&self) -> Option<bool> {
        match self {
            Json::Bool(value) => Some(*value),
            _ => None,
        }
    }

    pub fn i64(&self) -> Option<i64> {
        match self {
            Json::Int(value) => i64::try_from(*value).ok(),
            _ => None,
        }
    }

    pub fn u64(&self) -> Option<u64> {
        match self {
            Json::Int(value) => u64::try_from(*value).ok(),
            _ => None,
        }
    }

    pub fn u32(&self) -> Option<u32> {
        self.u64().and_then(|value| u32::try_from(value).ok())
    }

    /// The elements; nothing for any other value.
    pub fn items(&self) -> &[Json] {
        match self {
            Json::Arr(items) => items,
            _ => &[],
        }
    }

    /// The members; nothing for any other value.
    pub fn members(&self) -> &[(String, Json)] {
        match self {
            Json::Obj(members) => members,
            _ => &[],
        }
    }

    /// The strings of an array; other elements are left out.
    pub fn strings(&self) -> Vec<String> {
        self.items().iter().filter_map(|item| item.str().map(str::to_owned)).collect()
    }

    /// For people: a line for each member and element, indented by tabs.
    pub fn pretty(&self) -> String {
        let mut out = String::new();
        self.indented(1, &mut out);
        out
    }

    fn indented(&self, depth: usize, out: &mut String) {
        let (parts, open, close): (Vec<(String, &Json)>, char, char) = match self {
            Json::Arr(items) => (items.iter().map(|item| (String::new(), item)).collect(), '[', ']'),
            Json::Obj(members) => {
                let named = |(key, value)| (format!("{}: ", Json::from(key)), value);
                (members.iter().map(|(key, value)| named((key.as_str(), value))).collect(), '{', '}')
            }
            _ => return out.push_str(&self.to_string()),
        };
        out.push(open);
        for (index, (name, part)) in parts.iter().enumerate() {
            out.push_str(if index == 0 { "\n" } else { ",\n" });
            out.push_str(&"\t".repeat(depth));
            out.push_str(name);
            part.indented(depth + 1, out);
        }
        if !parts.is_empty() {
            out.push('\n');
            out.push_str(&"\t".repeat(depth - 1));
        }
        out.push(close);
    }

    pub fn is_null(&self) -> bool {
        matches!(self, Json::Null)
    }
}

/// Makes an object of its members.
pub fn object<'a>(members: impl IntoIterator<Item = (&'a str, Json)>) -> Json {
    Json::Obj(members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

impl From<&str> for Json {
    fn from(text: &str) -> Json {
        Json::Str(text.to_owned())
    }
}

impl From<String> for Json {
    fn from(text: String) -> Json {
        Json::Str(text)
    }
}

impl From<bool> for Json {
    fn from(value: bool) -> Json {
        Json::Bool(value)
    }
}

macro_rules! from_int {
    ($($int:ty),*) => {$(
        impl From<$int> for Json {
            fn from(value: $int) -> Json {
                Json::Int(value as i128)
            }
        }
    )*};
}
from_int!(i32, u32, i64, u64, usize);

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    fn error(&self, what: &'static str) -> ParseError {
        ParseError { offset: self.at, what }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn word(&mut self, word: &str, value: Json) -> Result<Json, ParseError> {
        if self.text[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            Ok(value)
        } else {
            Err(self.error("unexpected character"))
        }
    }

    fn value(&mut self, depth: usize) -> Result<Json, ParseError> {
        if depth > MAX_DEPTH {
            return Err(self.error("nested too deeply"));
        }
        self.space();
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string().map(Json::Str),
            Some(b't') => self.word("true", Json::Bool(true)),
            Some(b'f') => self.word("false", Json::Bool(false)),
            Some(b'n') => self.word("null", Json::Null),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(_) => Err(self.error("unexpected character")),
            None => Err(self.error("unexpected end")),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json, ParseError> {
        self.at += 1;
        let mut members = Vec::new();
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Json::Obj(members));
        }
        loop {
            self.space();
            if self.peek() != Some(b'"') {
                return Err(self.error("expected a key"));
            }
            let key = self.string()?;
            self.space();
            if self.peek() != Some(b':') {
                return Err(self.error("expected ':'"));
            }
            self.at += 1;
            members.push((key, self.value(depth + 1)?));
            if self.end_of_list(b'}')? {
                return Ok(Json::Obj(members));
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Json, ParseError> {
        self.at += 1;
        let mut items = Vec::new();
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Json::Arr(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            if self.end_of_list(b']')? {
                return Ok(Json::Arr(items));
            }
        }
    }

    fn end_of_list(&mut self, close: u8) -> Result<bool, ParseError> {
        self.space();
        let end = match self.peek() {
            Some(b',') => false,
            Some(byte) if byte == close => true,
            _ => return Err(self.error("expected ',' or the end of the list")),
        };
        self.at += 1;
        Ok(end)
    }

    fn number(&mut self) -> Result<Json, ParseError> {
        let start = self.at;
        while matches!(self.peek(), Some(b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9')) {
            self.at += 1;
        }
        let text = std::str::from_utf8(&self.text[start..self.at]).unwrap_or_default();
        if let Ok(value) = text.parse::<i128>() {
            return Ok(Json::Int(value));
        }
        match text.parse::<f64>() {
            // 1e9 is a whole number in another spelling; Go refuses it for an integer field, we need not.
            Ok(value) if value.fract() == 0.0 && value.abs() < 9e15 => Ok(Json::Int(value as i128)),
            Ok(value) if value.is_finite() => Ok(Json::Number(text.to_owned())),
            _ => Err(ParseError { offset: start, what: "malformed number" }),
        }
    }

    fn string(&mut self) -> Result<String, ParseError> {
        self.at += 1;
        let mut out = Vec::new();
        loop {
            let rest = &self.text[self.at..];
            let plain = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f)).unwrap_or(rest.len());
            out.extend_from_slice(&rest[..plain]);
            self.at += plain;
            let byte = self.peek().ok_or_else(|| self.error("unterminated string"))?;
            self.at += 1;
            match byte {
                b'"' => break,
                b'\\' => self.escape(&mut out)?,
                _ => return Err(self.error("control character in a string")),
            }
        }
        String::from_utf8(out).map_err(|_| self.error("string is not UTF-8"))
    }

    fn escape(&mut self, out: &mut Vec<u8>) -> Result<(), ParseError> {
        let byte = self.peek().ok_or_else(|| self.error("unterminated string"))?;
        self.at += 1;
        out.push(match byte {
            b'"' | b'\\' | b'/' => byte,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let mut code = self.hex4()?;
                if (0xd800..0xdc00).contains(&code) && self.text[self.at..].starts_with(b"\\u") {
                    self.at += 2;
                    let low = self.hex4()?;
                    code = 0x10000 + ((code - 0xd800) << 10) + (low.wrapping_sub(0xdc00) & 0x3ff);
                }
                let mut buffer = [0; 4];
                let letter = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
                out.extend_from_slice(letter.encode_utf8(&mut buffer).as_bytes());
                return Ok(());
            }
            _ => return Err(self.error("unknown escape")),
        });
        Ok(())
    }

    fn hex4(&mut self) -> Result<u32, ParseError> {
        let digits = self.text.get(self.at..self.at + 4).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        self.at += 4;
        code.ok_or_else(|| self.error("malformed escape"))
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Json::Null => f.write_str("null"),
            Json::Bool(value) => write!(f, "{value}"),
            Json::Int(value) => write!(f, "{value}"),
            Json::Number(text) => f.write_str(text),
            Json::Str(text) => quote(text, f),
            Json::Arr(items) => {
                f.write_str("[")?;
                for (index, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if index == 0 { "" } else { "," })?;
                }
                f.write_str("]")
            }
            Json::Obj(members) => {
                f.write_str("{")?;
                for (index, (key, value)) in members.iter().enumerate() {
                    f.write_str(if index == 0 { "" } else { "," })?;
                    quote(key, f)?;
                    write!(f, ":{value}")?;
                }
                f.write_str("}")
            }
        }
    }
}

fn quote(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("\"")?;
    let mut rest = text;
    while let Some(at) = rest.find(|letter: char| letter < ' ' || letter == '"' || letter == '\\') {
        f.write_str(&rest[..at])?;
        match rest.as_bytes()[at] {
            b'\n' => f.write_str("\\n")?,
            b'\r' => f.write_str("\\r")?,
            b'\t' => f.write_str("\\t")?,
            byte @ ..b' ' => write!(f, "\\u{byte:04x}")?,
            byte => write!(f, "\\{}", byte as char)?,
        }
        rest = &rest[at + 1..];
    }
    f.write_str(rest)?;
    f.write_str("\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_specs_hold_and_writes_it_back() {
        assert_eq!(Json::from("\u{1}\"\\é\t").to_string(), r#""\u0001\"\\é\t""#);
        let text = r#"{"a":[1,-2,18446744073709551615,true,null],"b":{"c":"x\n\u00e9\ud83d\ude00"},"d":1.5}"#;
        let value = Json::parse(text.as_bytes()).unwrap();
        assert_eq!(value.get("a").items()[2].u64(), Some(u64::MAX));
        assert_eq!(value.at("b.c").str(), Some("x\né😀"));
        assert_eq!(Json::parse(value.to_string().as_bytes()).unwrap(), value);
        assert!(value.at("b.c.d").is_null());
        let pretty = Json::parse(br#"{"a":[1,{"b":"c"}],"d":{},"e":[]}"#).unwrap().pretty();
        assert_eq!(
            pretty,
            "{\n\t\"a\": [\n\t\t1,\n\t\t{\n\t\t\t\"b\": \"c\"\n\t\t}\n\t],\n\t\"d\": {},\n\t\"e\": []\n}"
        );
    }

    #[test]
    fn refuses_what_is_not_json() {
        for text in ["", "{", "[1,]", "{\"a\" 1}", "\"\u{1}\"", "1 2", "nul", "\"\\x\"", "--1", "\"\\u12\""] {
            assert!(Json::parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(Json::parse(&[b'['; 1000]).is_err());
    }
}
