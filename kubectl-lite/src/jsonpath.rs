//! JSONPath as kubectl takes it and tells of its mistakes (cli-runtime `printers/jsonpath.go`, kubectl `get/customcolumn.go`).

use coracle_api::go;
use coracle_api::json::Value;
pub use coracle_api::json_path::JsonPath;

use crate::error::{Error, Result};

/// Reads a template.
pub fn parse(template: &str) -> Result<JsonPath> {
    JsonPath::parse(template).map_err(|why| Error::usage(format!("error parsing jsonpath {template}, {why}")))
}

/// Reads one path, whose braces and first dot may be left out.
pub fn parse_relaxed(path: &str) -> Result<JsonPath> {
    let inner = path.strip_prefix('{').map_or(Some(path), |inner| inner.strip_suffix('}'));
    let inner = inner.map(|inner| inner.strip_prefix('.').unwrap_or(inner));
    let Some(inner) = inner.filter(|inner| !inner.is_empty() && !inner.contains(['{', '}'])) else {
        return Err(Error::usage(
            "unexpected path string, expected a 'name1.name2' or '.name1.name2' or '{name1.name2}' or '{.name1.name2}'",
        ));
    };
    JsonPath::parse(&format!("{{.{inner}}}")).map_err(|why| Error::usage(why.to_string()))
}

/// The text that a template makes of an object.
pub fn render(path: &JsonPath, object: &Value) -> Result<String> {
    path.render(object).map_err(|why| {
        Error::usage(format!(
            "error executing jsonpath {}: Error executing template: {why}. Printing more information for debugging the \
             template:\n\ttemplate was:\n\t\t{path}\n\tobject given to jsonpath engine was:\n\t\t{}\n",
            go::quote(&path.to_string()),
            go::print_source(object)
        ))
    })
}

#[cfg(test)]
mod tests {
    use coracle_api::json::json;

    use super::*;

    #[test]
    fn mistakes_are_named() {
        for template in ["{.a", "{.a[}", "{.a[?(@.b==)]}", "{'a}"] {
            assert!(parse(template).unwrap_err().to_string().contains("jsonpath"), "{template}");
        }
        let object = json!({"kind": "Widget", "n": [1, null]});
        let words = |template: &str| render(&parse(template).unwrap(), &object).unwrap_err().to_string();
        assert_eq!(
            words("{end}"),
            "error: error executing jsonpath \"{end}\": Error executing template: not in range, nothing to end. Printing more \
             information for debugging the template:\n\ttemplate was:\n\t\t{end}\n\tobject given to jsonpath engine was:\n\t\t\
             map[string]interface {}{\"kind\":\"Widget\", \"n\":[]interface {}{1, interface {}(nil)}}\n"
        );
        assert!(words("{.n[?(@==\"x\")]}").starts_with("error: error executing jsonpath \"{.n[?(@==\\\"x\\\")]}\": "));
        // A range may be left open.
        assert_eq!(render(&parse("{range .a}x").unwrap(), &object).unwrap(), "x");
    }

    #[test]
    fn braces_and_dots_may_be_left_out() {
        let object = json!({"a": {"b": 1}});
        for path in ["a.b", ".a.b", "{a.b}", "{.a.b}"] {
            assert_eq!(render(&parse_relaxed(path).unwrap(), &object).unwrap(), "1", "{path}");
        }
        for path in ["", "{.a", ".a}", "{.a}{.b}", "{}", "x{.a}"] {
            assert!(parse_relaxed(path).unwrap_err().to_string().contains("unexpected path string"), "{path}");
        }
    }
}
