//! Lists and maps that hold no more than so much; one that holds more is not looked at any further.

use coracle_api::Cause;
use coracle_api::json::{Map, Value};
use coracle_api::status::FieldPath;
use std::collections::HashSet;

/// Every item (`validateSlice`); true when there are not too many.
pub fn slice(
    list: &[Value],
    max: usize,
    path: &FieldPath,
    causes: &mut Vec<Cause>,
    mut check: impl FnMut(&Value, &FieldPath, &mut Vec<Cause>),
) -> bool {
    if list.len() > max {
        causes.push(Cause::too_many(path, list.len(), max));
        return false;
    }
    for (nth, item) in list.iter().enumerate() {
        check(item, &path.index(nth), causes);
    }
    true
}

/// Every item, each of which has a key of its own (`validateSet`).
pub fn set(
    list: &[Value],
    max: usize,
    path: &FieldPath,
    causes: &mut Vec<Cause>,
    check: impl FnMut(&Value, &FieldPath, &mut Vec<Cause>),
    key: impl Fn(&Value) -> Value,
) {
    if slice(list, max, path, causes, check) {
        unique(list, path, causes, key);
    }
}

/// Items with a key that one before has.
pub fn unique(list: &[Value], path: &FieldPath, causes: &mut Vec<Cause>, key: impl Fn(&Value) -> Value) {
    let mut seen = HashSet::new();
    for (nth, item) in list.iter().enumerate() {
        let key = key(item);
        if !seen.insert(key.to_string()) {
            causes.push(Cause::duplicate(&path.index(nth), key));
        }
    }
}

/// The key of items that have a field for it.
pub fn by(field: &'static str) -> impl Fn(&Value) -> Value {
    move |item| super::super::fields::text(item, field).into()
}

/// Every entry (`validateMap`). Keys are shown with no more than so many bytes.
pub fn map(
    entries: Option<&Map>,
    shown: usize,
    path: &FieldPath,
    causes: &mut Vec<Cause>,
    check: impl Fn(&str, &Value, &FieldPath, &mut Vec<Cause>),
) {
    for (key, value) in entries.into_iter().flatten() {
        check(key, value, &path.key(&shortened(key, shown)), causes);
    }
}

/// A text without its middle, when it is too long (`truncateIfTooLong`).
fn shortened(text: &str, max: usize) -> String {
    const GAP: &str = "...";
    if text.len() <= max {
        return text.to_owned();
    }
    let (bytes, rest) = (text.as_bytes(), max.saturating_sub(GAP.len()));
    // Upstream cuts through characters, too.
    let (start, end) = (&bytes[..rest.div_ceil(2)], &bytes[bytes.len() - rest / 2..]);
    format!("{}{GAP}{}", String::from_utf8_lossy(start), String::from_utf8_lossy(end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    #[test]
    fn a_list_that_is_too_long_is_not_looked_at() {
        let mut causes = Vec::new();
        let list = vec![json!("a"); 3];
        set(&list, 2, &FieldPath::new("l"), &mut causes, |_, _, _| panic!("looked at"), Clone::clone);
        assert_eq!(causes, [Cause::too_many(&FieldPath::new("l"), 3, 2)]);
    }

    #[test]
    fn what_stands_twice_is_told_after_all_items() {
        let mut causes = Vec::new();
        let list = [json!("a"), json!("b"), json!("a")];
        let required = |_: &Value, path: &FieldPath, causes: &mut Vec<Cause>| causes.push(Cause::required(path, ""));
        set(&list, 3, &FieldPath::new("l"), &mut causes, required, Clone::clone);
        let told: Vec<String> = causes.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            ["l[0]: Required value", "l[1]: Required value", "l[2]: Required value", "l[2]: Duplicate value: \"a\""]
        );
    }

    #[test]
    fn long_keys_are_shown_without_their_middle() {
        assert_eq!(shortened("0123456789abcdef", 16), "0123456789abcdef");
        assert_eq!(shortened("0123456789abcdefg", 16), "0123456...bcdefg");
        assert_eq!(shortened(&"ä".repeat(16), 16), "äää\u{fffd}...äää");
    }
}
