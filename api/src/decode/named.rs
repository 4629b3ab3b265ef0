//! Texts and numbers whose types have names in Go (k8s.io/api, apimachinery and apiextensions v1.36), which its messages tell.

/// A structure's field and the type of its value, or of the items in it, a line each.
static NAMED: &str = include_str!("named.txt");

/// The name of a type, where `expected` ends in what it is made of.
pub(super) fn of(expected: &str, package: &str, structure: &str, field: &str) -> Option<String> {
    let before = ["string", "int32", "int64"].iter().find_map(|plain| expected.strip_suffix(plain))?;
    let key = format!("{package}.{structure}.{field} ");
    NAMED.lines().find_map(|line| line.strip_prefix(key.as_str())).map(|name| format!("{before}{name}"))
}
