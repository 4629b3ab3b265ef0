//! Bytes that are no text: Go's decoder puts U+FFFD for each of them, and for halves of surrogate pairs.

/// The JSON with each such thing replaced; None where there is none. Only what could not be read comes here.
pub(super) fn repaired(bytes: &[u8]) -> Option<String> {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    let lone = lone_surrogates(&text);
    if lone.is_empty() && text.len() == bytes.len() {
        return None;
    }
    // The escape is as long as the one that stands for it.
    for at in lone {
        text.replace_range(at..at + ESCAPE, "\\ufffd");
    }
    Some(text)
}

/// The length of `\u0000`.
const ESCAPE: usize = 6;

/// Where escapes are that stand for half a character.
fn lone_surrogates(text: &str) -> Vec<usize> {
    let bytes = text.as_bytes();
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(next) = bytes[at..].iter().position(|byte| *byte == b'\\') {
        at += next;
        match escape(bytes, at) {
            Some(0xd800..0xdc00) if matches!(escape(bytes, at + ESCAPE), Some(0xdc00..0xe000)) => at += 2 * ESCAPE,
            Some(0xd800..0xe000) => {
                found.push(at);
                at += ESCAPE;
            }
            Some(_) => at += ESCAPE,
            // `\\` or another short one; the text may end in the middle of it.
            None => at = (at + 2).min(bytes.len()),
        }
    }
    found
}

/// The number in the escape `\u0000` at a place.
fn escape(bytes: &[u8], at: usize) -> Option<u32> {
    let digits = bytes.get(at..at + ESCAPE)?.strip_prefix(b"\\u")?;
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_is_replaced() {
        let rows: [(&[u8], Option<&str>); 8] = [
            (b"\"a\"", None),
            (b"\"\xff\xfe\"", Some("\"\u{fffd}\u{fffd}\"")),
            (b"\"\xe2\x82\"", Some("\"\u{fffd}\u{fffd}\"")),
            (br#""\ud800x""#, Some(r#""\ufffdx""#)),
            (br#""\udc00\ud83d\ude00\ud83d""#, Some(r#""\ufffd\ud83d\ude00\ufffd""#)),
            (br#""\\ud800""#, None),
            (br#""\ud800"#, Some(r#""\ufffd"#)),
            (br#""\"#, None),
        ];
        for (bytes, expected) in rows {
            assert_eq!(repaired(bytes).as_deref(), expected, "{}", String::from_utf8_lossy(bytes));
        }
    }
}
