//! Which words fields take that take no other: constants of types that are marked `+enum` (staging/src/k8s.io/api, `types.go`),
//! as kube-openapi publishes them (KEP-2887).

use coracle_api::json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::LazyLock;

/// A line a field: the type's published name, the field, and its words in order; before them `[]` where the field is a list of
/// them, `{}` where it is a map to them; `""` for none.
const TABLE: &str = include_str!("enums.txt");

/// What is published where the constants say nothing of themselves.
const HEADING: &str = "Possible enum values:";

/// Of the table, from which documents follow, too.
pub(super) static DIGEST: LazyLock<[u8; 32]> = LazyLock::new(|| Sha256::digest(TABLE).into());

struct Words {
    /// Where in the property the words stand.
    place: Option<&'static str>,
    words: Vec<&'static str>,
}

static WORDS: LazyLock<HashMap<(&'static str, &'static str), Words>> = LazyLock::new(|| {
    let lines = TABLE.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(read).collect()
});

fn read(line: &'static str) -> Option<((&'static str, &'static str), Words)> {
    let mut parts = line.splitn(3, ' ');
    let (ty, field, words) = (parts.next()?, parts.next()?, parts.next()?);
    let (place, words) = match (words.strip_prefix("[]"), words.strip_prefix("{}")) {
        (Some(words), _) => (Some("items"), words),
        (_, Some(words)) => (Some("additionalProperties"), words),
        _ => (None, words),
    };
    let words = words.split(',').map(|word| if word == "\"\"" { "" } else { word }).collect();
    Some(((ty, field), Words { place, words }))
}

/// Says of a property of a type which words it takes.
pub(super) fn add(ty: &str, field: &str, property: &mut Map) {
    let Some(known) = WORDS.get(&(ty, field)) else { return };
    let list: Vec<String> = known.words.iter().map(|word| format!(" - `{word:?}`")).collect();
    let text = format!("{HEADING}\n{}", list.join("\n"));
    let described = property.get("description").and_then(Value::as_str);
    let described = described.map_or_else(|| text.clone(), |described| format!("{described}\n\n{text}"));
    property.insert("description", described.into());
    let place = match known.place {
        Some(place) => property.get_mut(place).and_then(Value::as_object_mut),
        None => Some(property),
    };
    if let Some(place) = place {
        place.insert("enum", json!(known.words));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::schema::{self, Kind, Scalar};

    #[test]
    fn every_line_is_of_a_field_of_texts() {
        let lines: Vec<&str> = TABLE.lines().filter(|line| !line.starts_with('#')).collect();
        assert!(lines.len() > 50 && lines.len() == WORDS.len(), "{} lines", lines.len());
        for line in lines {
            let ((ty, field), words) = read(line).unwrap_or_else(|| panic!("{line}"));
            let ty = schema::named(ty).unwrap_or_else(|| panic!("{line}: no such type"));
            let field =
                ty.fields().find(|have| have.name() == field).unwrap_or_else(|| panic!("{line}: no such field"));
            let text = |value: coracle_api::schema::ValueRef<'_>| matches!(value.kind(), Kind::Scalar(Scalar::String));
            let is_text = match field.value().kind() {
                Kind::List(item) => words.place == Some("items") && text(item),
                Kind::Map(item) => words.place == Some("additionalProperties") && text(item),
                _ => words.place.is_none() && text(field.value()),
            };
            assert!(is_text, "{line}");
            assert!(words.words.is_sorted() && !words.words.is_empty(), "{line}");
        }
    }
}
