//! Why a text is no JSON, in the words of Go's decoder, which clients and people know.

/// The words; None for what is JSON.
pub(super) fn why_no_json(text: &[u8]) -> Option<String> {
    Scan { text, at: 0, open: Vec::new() }.document().err()
}

/// Deepest nesting that Go's decoder takes.
const MAX_DEPTH: usize = 10_000;

const ENDED: &str = "unexpected end of JSON input";

/// Goes over a text without recursion: what nests is remembered by its brackets.
struct Scan<'t> {
    text: &'t [u8],
    at: usize,
    open: Vec<u8>,
}

type Step<T = ()> = Result<T, String>;

impl Scan<'_> {
    fn document(&mut self) -> Step {
        self.value("looking for beginning of value")?;
        // A value is done; what may follow depends on what it stands in.
        while let Some(bracket) = self.open.last().copied() {
            let next = self.next_byte()?;
            match (bracket, next) {
                (b'[', b']') | (b'{', b'}') => {
                    self.open.pop();
                }
                (b'[', b',') => self.value("looking for beginning of value")?,
                (b'{', b',') => self.member(None)?,
                (b'[', _) => return Err(self.wrong("after array element")),
                _ => return Err(self.wrong("after object key:value pair")),
            }
        }
        self.space();
        if self.at < self.text.len() {
            self.at += 1;
            return Err(self.wrong("after top-level value"));
        }
        Ok(())
    }

    fn space(&mut self) {
        while matches!(self.text.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// The next byte that is no space.
    fn next_byte(&mut self) -> Step<u8> {
        self.space();
        self.byte()
    }

    fn byte(&mut self) -> Step<u8> {
        let byte = *self.text.get(self.at).ok_or(ENDED)?;
        self.at += 1;
        Ok(byte)
    }

    /// The byte just read does not belong there.
    fn wrong(&self, place: &str) -> String {
        let byte = self.text[self.at - 1];
        let shown = match byte {
            b'\'' => r"'\''".to_owned(),
            b'"' => r#"'"'"#.to_owned(),
            b'\\' => r"'\\'".to_owned(),
            0x07 => r"'\a'".to_owned(),
            0x08 => r"'\b'".to_owned(),
            0x0b => r"'\v'".to_owned(),
            0x0c => r"'\f'".to_owned(),
            b'\n' => r"'\n'".to_owned(),
            b'\r' => r"'\r'".to_owned(),
            b'\t' => r"'\t'".to_owned(),
            0..0x20 | 0x7f.. => format!("'\\x{byte:02x}'"),
            _ => format!("'{}'", char::from(byte)),
        };
        format!("invalid character {shown} {place}")
    }

    /// Reads a value to its end; of an array or object, to the end of the first value in it.
    fn value(&mut self, place: &str) -> Step {
        let mut first = self.next_byte()?;
        loop {
            match first {
                b'{' | b'[' => {
                    if self.open.len() >= MAX_DEPTH {
                        return Err("exceeded max depth".to_owned());
                    }
                    self.open.push(first);
                    let next = self.next_byte()?;
                    if next == first + 2 {
                        self.open.pop();
                        return Ok(());
                    }
                    if first == b'{' {
                        return self.member(Some(next));
                    }
                    first = next;
                }
                b'"' => return self.string(),
                b'-' | b'0'..=b'9' => return self.number(first),
                b't' => return self.literal("true"),
                b'f' => return self.literal("false"),
                b'n' => return self.literal("null"),
                _ => return Err(self.wrong(place)),
            }
        }
    }

    /// A member's name, and its value as [`Scan::value`] reads it. `quote`: the byte it begins with, if that was read.
    fn member(&mut self, quote: Option<u8>) -> Step {
        let mut quote = quote;
        loop {
            let first = match quote.take() {
                Some(first) => first,
                None => self.next_byte()?,
            };
            if first != b'"' {
                return Err(self.wrong("looking for beginning of object key string"));
            }
            self.string()?;
            if self.next_byte()? != b':' {
                return Err(self.wrong("after object key"));
            }
            // An object in an object is gone into here, so that nesting takes no stack.
            match self.next_byte()? {
                b'{' if self.open.len() < MAX_DEPTH => {
                    self.open.push(b'{');
                    match self.next_byte()? {
                        b'}' => {
                            self.open.pop();
                            return Ok(());
                        }
                        next => quote = Some(next),
                    }
                }
                _ => {
                    self.at -= 1;
                    return self.value("looking for beginning of value");
                }
            }
        }
    }

    fn string(&mut self) -> Step {
        loop {
            match self.byte()? {
                b'"' => return Ok(()),
                b'\\' => match self.byte()? {
                    b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => {}
                    b'u' => {
                        for _ in 0..4 {
                            if !self.byte()?.is_ascii_hexdigit() {
                                return Err(self.wrong("in \\u hexadecimal character escape"));
                            }
                        }
                    }
                    _ => return Err(self.wrong("in string escape code")),
                },
                0..0x20 => return Err(self.wrong("in string literal")),
                _ => {}
            }
        }
    }

    fn digits(&mut self) {
        while matches!(self.text.get(self.at), Some(b'0'..=b'9')) {
            self.at += 1;
        }
    }

    /// At least one digit.
    fn number_part(&mut self, place: &str) -> Step {
        if !self.byte()?.is_ascii_digit() {
            return Err(self.wrong(place));
        }
        self.digits();
        Ok(())
    }

    fn number(&mut self, first: u8) -> Step {
        let mut first = first;
        if first == b'-' {
            first = self.byte()?;
            if !first.is_ascii_digit() {
                return Err(self.wrong("in numeric literal"));
            }
        }
        if first != b'0' {
            self.digits();
        }
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.number_part("after decimal point in numeric literal")?;
        }
        if matches!(self.text.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.text.get(self.at), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.number_part("in exponent of numeric literal")?;
        }
        Ok(())
    }

    /// The rest of a word of which the first letter was read.
    fn literal(&mut self, word: &str) -> Step {
        for expected in &word.as_bytes()[1..] {
            if self.byte()? != *expected {
                return Err(self.wrong(&format!("in literal {word} (expecting '{}')", char::from(*expected))));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a kube-apiserver answered.
    #[test]
    fn gos_words() {
        let rows: [(&[u8], &str); 24] = [
            (b"", ENDED),
            (b"{", ENDED),
            (br#"{"a":1} x"#, "invalid character 'x' after top-level value"),
            (b"x", "invalid character 'x' looking for beginning of value"),
            (br#"{"a"}"#, "invalid character '}' after object key"),
            (br#"{"a":1,}"#, "invalid character '}' looking for beginning of object key string"),
            (br#"{"a":01}"#, "invalid character '1' after object key:value pair"),
            (br#"{"a":1.}"#, "invalid character '}' after decimal point in numeric literal"),
            (br#"{"a":1e}"#, "invalid character '}' in exponent of numeric literal"),
            (br#"{"a":-x}"#, "invalid character 'x' in numeric literal"),
            (br#"{"a":tru}"#, "invalid character '}' in literal true (expecting 'e')"),
            (b"{\"a\":\"\x01\"}", r"invalid character '\x01' in string literal"),
            (br#"{"a":"\x"}"#, "invalid character 'x' in string escape code"),
            (br#"{"a":"\u12g4"}"#, "invalid character 'g' in \\u hexadecimal character escape"),
            (b"[1 2]", "invalid character '2' after array element"),
            (b"[1,]", "invalid character ']' looking for beginning of value"),
            (b"{a:1}", "invalid character 'a' looking for beginning of object key string"),
            (br#"{"a":1 "b":2}"#, r#"invalid character '"' after object key:value pair"#),
            (br#"{"a" 1}"#, "invalid character '1' after object key"),
            (br#"{"a":{"b":{"c":}}}"#, "invalid character '}' looking for beginning of value"),
            (br#"{"a":{"b":{},"c"}}"#, "invalid character '}' after object key"),
            (b"\"abc", ENDED),
            (b"\xff", r"invalid character '\xff' looking for beginning of value"),
            (b"[[[1],[2}]]", "invalid character '}' after array element"),
        ];
        for (text, expected) in rows {
            assert_eq!(why_no_json(text).as_deref(), Some(expected), "{}", String::from_utf8_lossy(text));
        }
        for text in ["null", " [] ", "{}", r#"{"a":[{"b":-1.5e+3},[],{},"\u00e9\n",true,false]}"#, "0", "-0.1"] {
            assert_eq!(why_no_json(text.as_bytes()), None, "{text}");
        }
        let deep = [vec![b'['; MAX_DEPTH + 1], vec![b']'; MAX_DEPTH + 1]].concat();
        assert_eq!(why_no_json(&deep).as_deref(), Some("exceeded max depth"));
    }
}
