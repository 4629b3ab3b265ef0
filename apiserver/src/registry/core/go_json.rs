//! What Go's `encoding/json` says of text that is no JSON object: secrets with a Docker configuration are refused in its words.

use coracle_api::json::Value;
use serde_json::Error;
use serde_json::error::Category;

/// Reads an object, which null stands for too.
pub fn object(text: &[u8]) -> Result<(), String> {
    match serde_json::from_slice(text) {
        Ok(Value::Object(_) | Value::Null) => Ok(()),
        Ok(other) => {
            Err(format!("json: cannot unmarshal {} into Go value of type map[string]interface {{}}", kind(&other)))
        }
        Err(error) => Err(syntax(text, &error)),
    }
}

/// Reads a list of objects of a type of Go's, which null stands for too.
pub fn list(text: &[u8], of: &str) -> Result<Vec<Value>, String> {
    let wrong = |kind: &str, of: String| format!("json: cannot unmarshal {kind} into Go value of type {of}");
    let list = match serde_json::from_slice(text) {
        Ok(Value::Array(list)) => list,
        Ok(Value::Null) => Vec::new(),
        Ok(other) => return Err(wrong(kind(&other), format!("[]{of}"))),
        Err(error) => return Err(syntax(text, &error)),
    };
    match list.iter().find(|one| !one.is_object() && !one.is_null()) {
        Some(other) => Err(wrong(kind(other), of.to_owned())),
        None => Ok(list),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Object(_) => "object",
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Number(_) => "number",
        Value::Bool(_) => "bool",
        Value::Null => "null",
    }
}

fn syntax(text: &[u8], error: &Error) -> String {
    if error.classify() == Category::Eof {
        return "unexpected end of JSON input".to_owned();
    }
    let line = text.split(|byte| *byte == b'\n').nth(error.line().saturating_sub(1)).unwrap_or_default();
    let found = line.get(error.column().saturating_sub(1)).map_or(' ', |byte| char::from(*byte));
    let said = error.to_string();
    let place = [
        ("expected value", "looking for beginning of value"),
        ("key must be a string", "looking for beginning of object key string"),
        ("trailing comma", "looking for beginning of object key string"),
        ("expected `:`", "after object key"),
        ("expected `,` or `}`", "after object key:value pair"),
        ("expected `,` or `]`", "after array element"),
        ("trailing characters", "after top-level value"),
        ("invalid escape", "in string escape code"),
        ("control character", "in string literal"),
        ("invalid number", "in numeric literal"),
    ];
    let place = place
        .iter()
        .find(|(known, _)| said.starts_with(known))
        .map_or("looking for beginning of value", |(_, place)| place);
    format!("invalid character {} {place}", quoted(found))
}

/// A character as Go's messages show it.
fn quoted(found: char) -> String {
    match found {
        '\'' => "'\\''".to_owned(),
        '"' => "'\"'".to_owned(),
        found => format!("'{}'", found.escape_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::object;

    #[test]
    fn text_that_is_no_object_is_named_as_go_does() {
        for (text, why) in [
            ("", "unexpected end of JSON input"),
            ("{", "unexpected end of JSON input"),
            ("Bad", "invalid character 'B' looking for beginning of value"),
            ("{a", "invalid character 'a' looking for beginning of object key string"),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            ("{\"a\": 1 2}", "invalid character '2' after object key:value pair"),
            ("{} x", "invalid character 'x' after top-level value"),
            ("[]", "json: cannot unmarshal array into Go value of type map[string]interface {}"),
        ] {
            assert_eq!(object(text.as_bytes()), Err(why.to_owned()), "{text}");
        }
        assert_eq!(object(b" {\"auths\": {}}\n"), Ok(()));
        assert_eq!(object(b"null"), Ok(()));
    }
}
