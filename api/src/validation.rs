//! The forms names and labels must have, with upstream's messages (apimachinery `util/validation`).
//!
//! Each check answers with the messages of what is wrong; none means that the text is valid.

mod addresses;

pub use addresses::{canonical_cidr, canonical_ip, cidr, ip, sloppy_cidr, sloppy_ip, unusual_cidr, unusual_ip};

use std::borrow::Cow;

/// Longest DNS label (RFC 1123).
pub const DNS_LABEL_MAX: usize = 63;
/// Longest DNS subdomain (RFC 1123).
pub const DNS_SUBDOMAIN_MAX: usize = 253;
/// Longest label value.
pub const LABEL_VALUE_MAX: usize = 63;
/// Longest name part of a qualified name.
const QUALIFIED_NAME_MAX: usize = 63;

fn max_length(text: &str, max: usize, messages: &mut Vec<String>) {
    if text.len() > max {
        messages.push(format!("must be no more than {max} characters"));
    }
}

fn alphanumeric(b: u8) -> bool {
    b.is_ascii_alphanumeric()
}
fn lower(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

/// Starts and ends with `edge`, and holds `edge` and `inner` between.
fn shaped(text: &str, edge: impl Fn(u8) -> bool, inner: impl Fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(&first), Some(&last)) => edge(first) && edge(last) && bytes.iter().all(|&b| edge(b) || inner(b)),
        _ => false,
    }
}

fn is_label(text: &str) -> bool {
    shaped(text, lower, |b| b == b'-')
}

/// A DNS label: names of namespaces, services' ports, containers.
pub fn dns1123_label(text: &str) -> Vec<String> {
    let mut messages = Vec::new();
    max_length(text, DNS_LABEL_MAX, &mut messages);
    if !is_label(text) {
        messages.push(if shaped(text, |b| lower(b) || b == b'-', |b| b == b'.') && text.contains('.') && text.split('.').all(is_label) {
            "must not contain dots".into()
        } else {
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')".into()
        });
    }
    messages
}

/// A DNS subdomain: most objects' names.
pub fn dns1123_subdomain(text: &str) -> Vec<String> {
    let mut messages = Vec::new();
    max_length(text, DNS_SUBDOMAIN_MAX, &mut messages);
    if !text.split('.').all(is_label) {
        messages.push("a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')".into());
    }
    messages
}

/// A DNS label that starts with a letter: services' names.
pub fn dns1035_label(text: &str) -> Vec<String> {
    let mut messages = Vec::new();
    max_length(text, DNS_LABEL_MAX, &mut messages);
    if !is_label(text) || !text.starts_with(|c: char| c.is_ascii_lowercase()) {
        messages.push("a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')".into());
    }
    messages
}

/// What the beginning of a name is judged as. A dash at its end is none, for something follows: two characters go for a letter
/// (apimachinery `maskTrailingDash`).
pub fn masked(prefix: &str) -> Cow<'_, str> {
    let start = prefix.strip_suffix('-').and_then(|rest| prefix.get(..rest.len().checked_sub(1)?));
    start.map_or(Cow::Borrowed(prefix), |start| Cow::Owned(format!("{start}a")))
}

/// A name that may stand in a path: RBAC objects.
pub fn path_segment(text: &str) -> Vec<String> {
    if matches!(text, "." | "..") {
        return vec![format!("may not be '{text}'")];
    }
    path_prefix(text)
}

/// The beginning of such a name.
pub fn path_prefix(text: &str) -> Vec<String> {
    ["/", "%"].iter().filter(|part| text.contains(**part)).map(|part| format!("may not contain '{part}'")).collect()
}

/// `[domain/]name`: keys of labels and annotations, extended resources, finalizers, conditions.
pub fn qualified_name(text: &str) -> Vec<String> {
    let mut messages = Vec::new();
    let name = match text.split_once('/') {
        None => text,
        Some((_, name)) if name.contains('/') => {
            return vec!["a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')".into()];
        }
        Some(("", name)) => {
            messages.push("prefix part must be non-empty".into());
            name
        }
        Some((prefix, name)) => {
            // Of keys upstream counts bytes, of names characters (apimachinery `api/validate/content`, `util/validation`).
            let told = |m: String| match m.strip_suffix(" characters") {
                Some(counted) => format!("prefix part {counted} bytes"),
                None => format!("prefix part {m}"),
            };
            messages.extend(dns1123_subdomain(prefix).into_iter().map(told));
            name
        }
    };
    if name.is_empty() {
        messages.push("name part must be non-empty".into());
    } else if name.len() > QUALIFIED_NAME_MAX {
        messages.push(format!("name part must be no more than {QUALIFIED_NAME_MAX} bytes"));
    }
    if !shaped(name, alphanumeric, |b| b"-_.".contains(&b)) {
        messages.push("name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')".into());
    }
    messages
}

/// A label's value.
pub fn label_value(text: &str) -> Vec<String> {
    let mut messages = Vec::new();
    if text.len() > LABEL_VALUE_MAX {
        messages.push(format!("must be no more than {LABEL_VALUE_MAX} bytes"));
    }
    if !text.is_empty() && !shaped(text, alphanumeric, |b| b"-_.".contains(&b)) {
        messages.push("a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')".into());
    }
    messages
}

/// A number of a port, 1 to 65535.
pub fn port_number(port: i64) -> Vec<String> {
    if (1..=65535).contains(&port) { Vec::new() } else { vec!["must be between 1 and 65535, inclusive".into()] }
}

/// A port's name: at most 15 characters, a letter among them (RFC 6335).
pub fn port_name(text: &str) -> Vec<String> {
    let mut messages = Vec::new();
    if text.len() > 15 {
        messages.push("must be no more than 15 characters".into());
    }
    if text.is_empty() || !text.bytes().all(|b| lower(b) || b == b'-') {
        messages.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".into());
    }
    if !text.bytes().any(|b| b.is_ascii_lowercase()) {
        messages.push("must contain at least one letter (a-z)".into());
    }
    if text.contains("--") {
        messages.push("must not contain consecutive hyphens".into());
    }
    if text.starts_with('-') || text.ends_with('-') {
        messages.push("must not begin or end with a hyphen".into());
    }
    messages
}

/// An environment variable's name: any printable ASCII but `=` (KEP-4369).
pub fn env_var_name(text: &str) -> Vec<String> {
    if text.is_empty() || !text.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'=') {
        vec!["a valid environment variable name must consist only of printable ASCII characters other than '='".into()]
    } else {
        Vec::new()
    }
}

/// A key of a ConfigMap or Secret.
pub fn config_map_key(text: &str) -> Vec<String> {
    let mut messages = Vec::new();
    max_length(text, DNS_SUBDOMAIN_MAX, &mut messages);
    if text.is_empty() || !text.bytes().all(|b| alphanumeric(b) || b"-._".contains(&b)) {
        messages.push("a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')".into());
    }
    match text {
        "." => messages.push("must not be '.'".into()),
        ".." => messages.push("must not be '..'".into()),
        _ if text.starts_with("..") => messages.push("must not start with '..'".into()),
        _ => {}
    }
    messages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_and_invalid_forms() {
        type Check = fn(&str) -> Vec<String>;
        let rows: [(Check, &[&str], &[&str]); 8] = [
            (dns1123_label, &["a", "a-1", "0"], &["", "-a", "a-", "A", "a.b", "a_b"]),
            (dns1123_subdomain, &["a.b", "a-1.2"], &["", "a..b", ".a", "a.", "A"]),
            (dns1035_label, &["a1"], &["1a", "", "a.b"]),
            (qualified_name, &["a", "A.b_c-d", "x.io/Y"], &["", "/a", "a/", "a/b/c", "X.io/y", "-a"]),
            (label_value, &["", "A.b_c-d"], &["-a", "a b", "a/b"]),
            (port_name, &["http", "a-1"], &["", "80", "-a", "a--b", "sixteencharacter"]),
            (env_var_name, &["A", "a.b-c", "1 x"], &["", "a=b", "é"]),
            (config_map_key, &["a.b", "_"], &["", ".", "..", "..a", "a/b"]),
        ];
        for (check, valid, invalid) in rows {
            for text in valid {
                assert_eq!(check(text), Vec::<String>::new(), "{text:?}");
            }
            for text in invalid {
                assert!(!check(text).is_empty(), "{text:?}");
            }
        }
        assert!(!label_value(&"a".repeat(64)).is_empty());
    }

    #[test]
    fn a_beginning_may_end_with_one_dash() {
        for (prefix, judged) in
            [("a-", "a"), ("ab-", "aa"), ("a.-", "aa"), ("a--", "aa"), ("-", "-"), ("", ""), ("a", "a"), ("é-", "é-")]
        {
            assert_eq!(masked(prefix), judged, "{prefix}");
        }
        assert!(!dns1123_subdomain(&masked("a.-b.--")).is_empty());
        assert!(path_prefix("..").is_empty() && !path_segment("..").is_empty() && !path_prefix("a/").is_empty());
    }
}
