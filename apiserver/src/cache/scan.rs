//! Finding one's way in a JSON document without reading it.
//!
//! What is passed over is not looked at but for its strings and brackets: it was checked when it was written.

/// The deepest nesting that is passed over; what is stored nests less (`decode`).
const DEEPEST: u32 = 127;

/// A place in a document.
pub(super) struct Scan<'a> {
    json: &'a [u8],
    at: usize,
}

impl<'a> Scan<'a> {
    pub fn new(json: &'a [u8]) -> Self {
        Self { json, at: 0 }
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
        let (mut at, mut escapes) = (start + 1, false);
        // Most are so short that looking at each byte costs less than a call.
        loop {
            match *self.json.get(at)? {
                b'"' => break,
                b'\\' => {
                    escapes = true;
                    at += 2;
                }
                _ => at += 1,
            }
        }
        self.at = at + 1;
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
        let (mut open, mut depth) = (0_u128, 0);
        loop {
            match *self.json.get(self.at)? {
                b'"' => {
                    self.string()?;
                    continue;
                }
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
                        self.at += 1;
                        return Some(());
                    }
                }
                _ => {}
            }
            self.at += 1;
        }
    }

    /// Whether nothing follows.
    pub fn is_at_end(&mut self) -> bool {
        self.peek().is_none()
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
