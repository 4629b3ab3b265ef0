//! Addresses of webhooks, judged as upstream does (apiserver `util/webhook/validation.go`), which has Go read them (`net/url`).

use coracle_api::Cause;
use coracle_api::status::FieldPath;

const FORM: &str = "; desired format: https://host[/path]";

/// Checks an address.
pub fn check(url: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    let parts = match Parts::of(url) {
        Ok(parts) => parts,
        Err(why) => return causes.push(Cause::required(path, &format!("url must be a valid URL: {why}{FORM}"))),
    };
    let mut wrong = |value: &str, why: &str| causes.push(Cause::invalid(path, value, why));
    if parts.scheme != "https" {
        wrong(&parts.scheme, &format!("'https' is the only allowed URL scheme{FORM}"));
    }
    if parts.host.is_empty() {
        wrong(parts.host, &format!("host must be provided{FORM}"));
    }
    if let Some(user) = parts.user {
        wrong(user, "user information is not permitted in the URL");
    }
    if !parts.fragment.is_empty() {
        wrong(parts.fragment, "fragments are not permitted in the URL");
    }
    if !parts.query.is_empty() {
        wrong(parts.query, "query parameters are not permitted in the URL");
    }
}

/// What an address says.
#[derive(Debug, Default, PartialEq)]
struct Parts<'u> {
    scheme: String,
    user: Option<&'u str>,
    host: &'u str,
    query: &'u str,
    fragment: &'u str,
}

impl<'u> Parts<'u> {
    /// Go's `url.Parse`, with its messages.
    fn of(url: &'u str) -> Result<Self, String> {
        let (rest, fragment) = url.split_once('#').unwrap_or((url, ""));
        let mut parts = Self::before_fragment(rest).map_err(|why| format!("parse {rest:?}: {why}"))?;
        check_escapes(fragment).map_err(|why| format!("parse {url:?}: {why}"))?;
        parts.fragment = fragment;
        Ok(parts)
    }

    fn before_fragment(url: &'u str) -> Result<Self, String> {
        if url.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
            return Err("net/url: invalid control character in URL".to_owned());
        }
        let (scheme, rest) = scheme(url)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut parts = Self { scheme: scheme.to_ascii_lowercase(), query, ..Self::default() };
        if !rest.starts_with('/') {
            // What follows a scheme without a slash is taken as it is.
            if scheme.is_empty() && rest.split('/').next().unwrap_or_default().contains(':') {
                return Err("first path segment in URL cannot contain colon".to_owned());
            }
            if scheme.is_empty() {
                check_escapes(rest)?;
            }
            return Ok(parts);
        }
        let mut below = rest;
        if let Some(authority) = rest.strip_prefix("//")
            && !(scheme.is_empty() && rest.starts_with("///"))
        {
            let end = authority.find('/').unwrap_or(authority.len());
            below = &authority[end..];
            parts.read_authority(&authority[..end])?;
        }
        check_escapes(below)?;
        Ok(parts)
    }

    fn read_authority(&mut self, authority: &'u str) -> Result<(), String> {
        let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
        check_host(host)?;
        let in_user = |c: char| c.is_ascii_alphanumeric() || "-._:~!$&'()*+,;=%@".contains(c);
        if user.is_some_and(|user| !user.chars().all(in_user)) {
            return Err("net/url: invalid userinfo".to_owned());
        }
        (self.user, self.host) = (user, host);
        Ok(())
    }
}

/// The scheme, and what follows it; none where a character stands that no scheme has.
fn scheme(url: &str) -> Result<(&str, &str), String> {
    let end = url.find(|c: char| !(c.is_ascii_alphanumeric() || "+-.".contains(c)));
    match end {
        Some(0) if url.starts_with(':') => Err("missing protocol scheme".to_owned()),
        Some(end) if url[end..].starts_with(':') && url.starts_with(|c: char| c.is_ascii_alphabetic()) => {
            Ok((&url[..end], &url[end + 1..]))
        }
        _ => Ok(("", url)),
    }
}

fn check_host(host: &str) -> Result<(), String> {
    let port = if host.starts_with('[') {
        let end = host.rfind(']').ok_or("missing ']' in host")?;
        &host[end + 1..]
    } else {
        host.rfind(':').map_or("", |at| &host[at..])
    };
    let digits = port.strip_prefix(':');
    if !port.is_empty() && !digits.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err(format!("invalid port {port:?} after host"));
    }
    check_escapes(host)?;
    for (at, c) in host.char_indices() {
        // Of what is escaped, only a percent sign and what is not ASCII may be.
        let escape = host.get(at..at + 3).unwrap_or_default();
        if c == '%' && escape != "%25" && escape.as_bytes()[1] < b'8' {
            return Err(format!("invalid URL escape {escape:?}"));
        }
        if c.is_ascii() && !c.is_ascii_alphanumeric() && !"-_.~!$&'()*+,;=:[]<>\"%".contains(c) {
            return Err(format!("invalid character {:?} in host name", c.to_string()));
        }
    }
    Ok(())
}

/// Every percent sign comes with two hexadecimal digits.
fn check_escapes(text: &str) -> Result<(), String> {
    for (at, _) in text.match_indices('%') {
        let escape: String = text[at..].chars().take(3).collect();
        if escape.len() != 3 || !escape[1..].bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(format!("invalid URL escape {escape:?}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a kube-apiserver told of them.
    #[test]
    fn what_cannot_be_read_is_told_as_go_tells_it() {
        let rows = [
            ("https://a b", r#"parse "https://a b": invalid character " " in host name"#),
            ("https://x:port/", r#"parse "https://x:port/": invalid port ":port" after host"#),
            ("ht tp://x", r#"parse "ht tp://x": first path segment in URL cannot contain colon"#),
            (":x", r#"parse ":x": missing protocol scheme"#),
            ("https://x/%zz", r#"parse "https://x/%zz": invalid URL escape "%zz""#),
            ("https://[::1", r#"parse "https://[::1": missing ']' in host"#),
            ("https://x/\u{1}", "parse \"https://x/\\u{1}\": net/url: invalid control character in URL"),
        ];
        for (url, why) in rows {
            assert_eq!(Parts::of(url).unwrap_err(), why);
        }
        for url in ["https://x", "https://[::1]:8443/a%20b?c#d", "x", "", "https:opaque", "https://u:p@h/%41", "/a:b"] {
            Parts::of(url).unwrap();
        }
        let parts = Parts::of("HTTPS://u:p@h:1/a?b#c").unwrap();
        assert_eq!(
            (&*parts.scheme, parts.user, parts.host, parts.query, parts.fragment),
            ("https", Some("u:p"), "h:1", "b", "c")
        );
    }
}
