//! Bytes that are no text of YAML, in the words of go-yaml's `readerc.go`.

/// What is wrong with the text, if anything is.
pub(super) fn wrong(bytes: &[u8]) -> Option<&'static str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => has_control(text).then_some("control characters are not allowed"),
        Err(error) => {
            let (good, rest) = bytes.split_at(error.valid_up_to());
            let before = std::str::from_utf8(good).is_ok_and(has_control);
            Some(if before { "control characters are not allowed" } else { no_character(rest) })
        }
    }
}

fn has_control(text: &str) -> bool {
    // Text of ASCII without controls needs no look at its characters.
    text.bytes().any(|byte| !(0x20..0x7f).contains(&byte))
        && text.chars().any(|c| {
            !matches!(c,
                '\t' | '\n' | '\r' | '\u{20}'..='\u{7e}' | '\u{85}' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}'
                | '\u{10000}'..)
        })
}

fn no_character(bytes: &[u8]) -> &'static str {
    let Some(&first) = bytes.first() else { return "incomplete UTF-8 octet sequence" };
    let width = match first {
        0x00..0x80 => 1,
        0xc0..0xe0 => 2,
        0xe0..0xf0 => 3,
        0xf0..0xf8 => 4,
        _ => return "invalid leading UTF-8 octet",
    };
    let Some(sequence) = bytes.get(..width) else { return "incomplete UTF-8 octet sequence" };
    if sequence[1..].iter().any(|octet| octet & 0xc0 != 0x80) {
        return "invalid trailing UTF-8 octet";
    }
    let start = u32::from(first) & (0x7f >> width);
    let value = sequence[1..].iter().fold(start, |value, octet| value << 6 | u32::from(octet & 0x3f));
    let is_longer = matches!((width, value), (2, ..0x80) | (3, ..0x800) | (4, ..0x10000));
    if is_longer { "invalid length of a UTF-8 sequence" } else { "invalid Unicode character" }
}
