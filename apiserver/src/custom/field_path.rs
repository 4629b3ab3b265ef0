//! Paths that rules and selectable fields name fields of a schema by: `.spec.labels['a']` (apiextensions
//! `schema/cel/validation.go`, `ValidFieldPath`).

use coracle_api::json::Value;

/// Follows a path into a schema, and gives the schema it leads to.
///
/// # Errors
/// What is wrong with it.
pub fn follow<'s>(text: &str, schema: &'s Value, brackets: bool) -> Result<&'s Value, String> {
    const END: &str = "unexpected end of JSON path";
    let mut schema = schema;
    let mut tokens = Tokens { rest: text };
    while let Some(token) = tokens.next() {
        match token {
            "[" if !brackets => return Err("array notation is not allowed".into()),
            "[" => {
                let token = tokens.next().ok_or(END)?;
                let name = token.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
                let name = name.ok_or_else(|| format!("expected single quoted string but got {token}"))?;
                schema = step(schema, &unescaped(name)?)?;
                match tokens.next().ok_or(END)? {
                    "]" => {}
                    other => return Err(format!("expected ] but got {other}")),
                }
            }
            "." => schema = step(schema, tokens.next().ok_or(END)?)?,
            other => return Err(format!("expected [ or . but got: {other}")),
        }
    }
    Ok(schema)
}

/// The names of the fields that a path leads along; none when it is no path.
pub fn names(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut tokens = Tokens { rest: text };
    while let Some(token) = tokens.next() {
        let name = tokens.next().unwrap_or_default();
        let name = match token {
            "." => Ok(name.to_owned()),
            _ => name.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')).map_or(Err(String::new()), unescaped),
        };
        let Ok(name) = name else { return Vec::new() };
        names.push(name);
        if token == "[" {
            tokens.next();
        }
    }
    names
}

fn step<'s>(schema: &'s Value, name: &str) -> Result<&'s Value, String> {
    let properties = schema.get("properties").and_then(Value::as_object);
    let found = match properties.filter(|properties| !properties.is_empty()) {
        Some(properties) => properties.get(name),
        None => schema.get("additionalProperties").filter(|values| values.is_object()),
    };
    found.ok_or_else(|| "does not refer to a valid field".to_owned())
}

fn unescaped(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.push(match c {
            '\\' => match chars.next() {
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some(c @ ('\\' | '\'' | '"')) => c,
                _ => return Err("invalid string literal: invalid syntax".into()),
            },
            c => c,
        });
    }
    Ok(out)
}

/// Points and brackets, and what stands between them; what is in quotes is one.
struct Tokens<'t> {
    rest: &'t str,
}

impl<'t> Iterator for Tokens<'t> {
    type Item = &'t str;

    fn next(&mut self) -> Option<&'t str> {
        let quoted = self.rest.starts_with('\'');
        let mut before = ' ';
        let mut end = self.rest.len();
        for (at, c) in self.rest.char_indices() {
            if quoted {
                if at > 0 && c == '\'' && before != '\\' {
                    end = at + 1;
                    break;
                }
            } else if matches!(c, '.' | '[' | ']') {
                end = at.max(1);
                break;
            }
            before = c;
        }
        let (token, rest) = self.rest.split_at(end);
        self.rest = rest;
        Some(token).filter(|token| !token.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    #[test]
    fn paths_lead_or_say_why() {
        let schema = json!({"properties": {"spec": {"properties": {"a": {"type": "string"},
            "m": {"additionalProperties": {"type": "integer"}}, "free": {"type": "object"}}}}});
        for (path, brackets, expected) in [
            (".spec.a", false, Ok("string")),
            (".spec.m.x", true, Ok("integer")),
            (".spec.m['x.y']", true, Ok("integer")),
            (".spec['a']", false, Err("array notation is not allowed")),
            (".spec.l[0]", true, Err("does not refer to a valid field")),
            (".spec.m[0]", true, Err("expected single quoted string but got 0")),
            ("spec.a", true, Err("expected [ or . but got: spec")),
            (".spec.a.", true, Err("unexpected end of JSON path")),
            (".", true, Err("unexpected end of JSON path")),
            ("..a", true, Err("does not refer to a valid field")),
            (".spec.free.x", true, Err("does not refer to a valid field")),
            (".spec.m['x'", true, Err("unexpected end of JSON path")),
        ] {
            let found = follow(path, &schema, brackets).map(|schema| schema["type"].as_str().unwrap());
            assert_eq!(found, expected.map_err(str::to_owned), "{path}");
        }
    }
}
