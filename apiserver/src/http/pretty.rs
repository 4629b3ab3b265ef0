//! JSON with indentation, for people: as Go's `json.MarshalIndent` with two blanks lays it out.

use bytes::Bytes;
use http::{HeaderMap, header};

/// Whether a request wants it: its option says so, or it comes from a program that people read the answers of (apiserver
/// `endpoints/handlers/negotiation`, isPrettyPrint).
pub fn is_wanted(query: Option<&str>, headers: &HeaderMap) -> bool {
    let pairs = crate::options::pairs(query.filter(|query| query.contains("pretty")).unwrap_or_default());
    if let Some((_, value)) = pairs.iter().find(|(name, value)| name == "pretty" && !value.is_empty()) {
        // Go's strconv.ParseBool.
        return matches!(value.as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True");
    }
    let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    ["curl", "Wget", "Mozilla/5.0"].iter().any(|program| agent.starts_with(program))
}

/// Lays out one document that comes in pieces.
#[derive(Debug, Default)]
pub struct Layout {
    depth: usize,
    in_text: bool,
    escaped: bool,
    /// A bracket was opened, and nothing has come since.
    opened: bool,
}

impl Layout {
    /// The next piece, laid out. The document has no blanks between its parts.
    pub fn piece(&mut self, json: &[u8]) -> Bytes {
        let mut out = Vec::with_capacity(json.len() * 3 / 2);
        for &byte in json {
            self.byte(byte, &mut out);
        }
        out.into()
    }

    fn byte(&mut self, byte: u8, out: &mut Vec<u8>) {
        if self.in_text {
            out.push(byte);
            (self.in_text, self.escaped) = match byte {
                _ if self.escaped => (true, false),
                b'"' => (false, false),
                _ => (true, byte == b'\\'),
            };
            return;
        }
        if byte.is_ascii_whitespace() {
            return;
        }
        match (std::mem::take(&mut self.opened), matches!(byte, b'}' | b']')) {
            // An empty object or list stays on its line.
            (true, true) | (false, false) => {}
            (true, false) => {
                self.depth += 1;
                self.line(out);
            }
            (false, true) => {
                self.depth = self.depth.saturating_sub(1);
                self.line(out);
            }
        }
        out.push(byte);
        match byte {
            b'{' | b'[' => self.opened = true,
            b',' => self.line(out),
            b':' => out.push(b' '),
            b'"' => self.in_text = true,
            _ => {}
        }
    }

    fn line(&self, out: &mut Vec<u8>) {
        out.push(b'\n');
        out.resize(out.len() + 2 * self.depth, b' ');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    #[test]
    fn as_others_lay_it_out() {
        let values = [
            json!({"a": {}, "b": [], "c": [1, {"d": "e\"}{,:"}], "f": "\\", "g": {"h": null}, "": [[]]}),
            json!([]),
            json!("x"),
            json!({"a": ["\\\"", "[ ]"]}),
        ];
        for value in values {
            let plain = value.to_string();
            // Wherever the pieces end.
            for at in 0..plain.len() {
                let mut layout = Layout::default();
                let pieces = [layout.piece(&plain.as_bytes()[..at]), layout.piece(&plain.as_bytes()[at..])].concat();
                assert_eq!(String::from_utf8(pieces).unwrap(), serde_json::to_string_pretty(&value).unwrap());
            }
        }
    }

    #[test]
    fn who_wants_it() {
        let agent = |name: &str| HeaderMap::from_iter([(header::USER_AGENT, name.parse().unwrap())]);
        assert!(is_wanted(None, &agent("curl/8.5.0")) && is_wanted(Some("a=b&pretty=true"), &agent("kubectl")));
        assert!(!is_wanted(None, &agent("kubectl/v1.32")) && !is_wanted(Some("pretty=false"), &agent("curl/8.5.0")));
        assert!(!is_wanted(Some("pretty"), &HeaderMap::new()));
    }
}
