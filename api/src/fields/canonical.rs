//! Whether what names an item is written as it is written here.

use crate::json::plain;

/// Whether the JSON text of an item's keys is what it would be written as, as far as that can be seen at a glance.
pub(super) fn is_canonical_key(text: &str) -> bool {
    behind_key(text, "\"") == Some("")
}

/// The same of a value.
pub(super) fn is_canonical_value(text: &str) -> bool {
    behind_value(text, "\"") == Some("")
}

/// What is behind the keys of an item that are written as they would be. `quote`: how quotes are written, which may themselves
/// be in a text.
pub(super) fn behind_key<'t>(text: &'t str, quote: &str) -> Option<&'t str> {
    let mut rest = text.strip_prefix('{')?;
    let mut last = "";
    loop {
        let (name, behind) = plain_string(rest, quote)?;
        if name <= last {
            return None;
        }
        last = name;
        let behind = behind_value(behind.strip_prefix(':')?, quote)?;
        match behind.split_at_checked(1)? {
            (",", more) => rest = more,
            ("}", behind) => return Some(behind),
            _ => return None,
        }
    }
}

/// What is behind a text without escapes, or a whole number as everybody writes it.
pub(super) fn behind_value<'t>(text: &'t str, quote: &str) -> Option<&'t str> {
    if let Some((_, rest)) = plain_string(text, quote) {
        return Some(rest);
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let is_one = digits == 1 || ((2..=18).contains(&digits) && !text.starts_with('0'));
    // What follows could make it another number.
    let ends = |rest: &str| rest.is_empty() || rest.starts_with([',', '}', '"']);
    Some(&text[digits..]).filter(|rest| is_one && ends(rest))
}

/// A text without escapes, and what is behind it.
fn plain_string<'t>(text: &'t str, quote: &str) -> Option<(&'t str, &'t str)> {
    let inside = text.strip_prefix(quote)?;
    let end = plain(inside.as_bytes());
    Some((&inside[..end], inside[end..].strip_prefix(quote)?))
}
