//! Links of what is proxied: a page that believes itself at the root of its host is read below the proxy's path
//! (apimachinery `util/proxy/transport.go`).

use std::borrow::Cow;

/// The longest tag that is looked into. A longer one passes as it is.
const TAG_MAX: usize = 64 << 10;

/// Which attributes of which elements hold a URL.
const ATTRIBUTES: [(&str, &[&str]); 26] = [
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("track", &["src"]),
    ("video", &["poster", "src"]),
];

/// Elements whose content is text, whatever it looks like.
const RAW: [&str; 6] = ["script", "style", "textarea", "title", "xmp", "iframe"];

/// How URLs change.
#[derive(Clone, Debug)]
pub struct Links {
    /// The path of the proxy, without a slash at its end.
    pub prefix: String,
    /// Hosts that mean the one behind the proxy.
    pub own: Vec<String>,
}

impl Links {
    /// A URL of the other side as the client must ask for it.
    pub fn url<'u>(&self, url: &'u str) -> Cow<'u, str> {
        let (host, rest) = match url.split_once("://") {
            Some((scheme, rest)) if is_scheme(scheme) => split_host(rest),
            _ => match url.strip_prefix("//") {
                Some(rest) => split_host(rest),
                None => ("", url),
            },
        };
        let elsewhere = !host.is_empty() && !self.own.iter().any(|own| own.eq_ignore_ascii_case(host));
        if elsewhere || !rest.starts_with('/') || rest.starts_with(&self.prefix) {
            return Cow::Borrowed(url);
        }
        let end = rest.find(['?', '#']).unwrap_or(rest.len());
        Cow::Owned(format!("{}{}{}", self.prefix, clean(&rest[..end]), &rest[end..]))
    }
}

fn is_scheme(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

fn split_host(rest: &str) -> (&str, &str) {
    rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()))
}

/// An absolute path without empty, `.` and `..` parts; a slash at its end stays (apimachinery `JoinPreservingTrailingSlash`).
pub fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let mut out = String::with_capacity(path.len());
    for part in &parts {
        out.push('/');
        out.push_str(part);
    }
    if path.ends_with('/') {
        out.push('/');
    }
    out
}

/// Rewrites HTML as it passes.
#[derive(Debug)]
pub struct Page {
    links: Links,
    /// The beginning of something whose end has not come yet.
    pending: Vec<u8>,
    /// The element whose end is waited for, because it holds text alone.
    raw: Option<&'static str>,
}

impl Page {
    pub fn new(links: Links) -> Self {
        Self { links, pending: Vec::new(), raw: None }
    }

    /// What can be passed on after another piece.
    pub fn push(&mut self, piece: &[u8]) -> Vec<u8> {
        let mut input = std::mem::take(&mut self.pending);
        input.extend_from_slice(piece);
        let mut out = Vec::with_capacity(input.len() + 64);
        let mut rest = input.as_slice();
        while let Some(at) = memchr::memchr(b'<', rest) {
            out.extend_from_slice(&rest[..at]);
            rest = &rest[at..];
            let Some(length) = self.length(rest) else {
                match rest.len() {
                    0..=TAG_MAX => self.pending = rest.to_vec(),
                    _ => out.extend_from_slice(rest),
                }
                return out;
            };
            let (tag, after) = rest.split_at(length);
            self.tag(tag, &mut out);
            rest = after;
        }
        out.extend_from_slice(rest);
        out
    }

    /// What was held back.
    pub fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.pending)
    }

    /// How long what begins with `<` is; None when its end is not there yet.
    fn length(&self, rest: &[u8]) -> Option<usize> {
        if let Some(element) = self.raw {
            let end = 2 + element.len();
            if rest.len() <= end {
                return if b"</".starts_with(&rest[..rest.len().min(2)]) { None } else { Some(1) };
            }
            let closes = rest.starts_with(b"</") && rest[2..end].eq_ignore_ascii_case(element.as_bytes());
            return if closes { memchr::memchr(b'>', rest).map(|at| at + 1) } else { Some(1) };
        }
        if rest.starts_with(b"<!--") {
            return memchr::memmem::find(&rest[4..], b"-->").map(|at| 4 + at + 3);
        }
        let &second = rest.get(1)?;
        if !(second.is_ascii_alphabetic() || matches!(second, b'/' | b'!' | b'?')) {
            return Some(1);
        }
        if rest.len() < 4 && b"<!--".starts_with(rest) {
            return None;
        }
        let mut quote = None;
        for (at, &byte) in rest.iter().enumerate() {
            match (quote, byte) {
                (None, b'>') => return Some(at + 1),
                // A quote begins a value only behind an equals sign.
                (None, b'"' | b'\'') if rest[..at].trim_ascii_end().ends_with(b"=") => quote = Some(byte),
                (Some(open), byte) if open == byte => quote = None,
                _ => {}
            }
        }
        None
    }

    /// Passes on one tag, comment or stray sign.
    fn tag(&mut self, tag: &[u8], out: &mut Vec<u8>) {
        if self.raw.is_some() {
            if tag.len() > 1 {
                self.raw = None;
            }
            return out.extend_from_slice(tag);
        }
        let Some(text) = std::str::from_utf8(tag).ok().filter(|text| text.len() > 2) else {
            return out.extend_from_slice(tag);
        };
        let end = text[1..].find(|c: char| !c.is_ascii_alphanumeric()).map_or(text.len(), |at| at + 1);
        let name = text[1..end].to_ascii_lowercase();
        self.raw = RAW.into_iter().find(|raw| *raw == name).filter(|_| !text.ends_with("/>"));
        match ATTRIBUTES.iter().find(|(element, _)| *element == name) {
            Some((_, attributes)) => self.attributes(text, end, attributes, out),
            None => out.extend_from_slice(tag),
        }
    }

    fn attributes(&self, tag: &str, start: usize, wanted: &[&str], out: &mut Vec<u8>) {
        let mut copied = 0;
        let mut rest = start;
        while let Some((name, value)) = next_attribute(tag, &mut rest) {
            if !wanted.iter().any(|wanted| name.eq_ignore_ascii_case(wanted)) {
                continue;
            }
            if let Cow::Owned(url) = self.links.url(&tag[value.clone()]) {
                out.extend_from_slice(&tag.as_bytes()[copied..value.start]);
                out.extend_from_slice(url.as_bytes());
                copied = value.end;
            }
        }
        out.extend_from_slice(&tag.as_bytes()[copied..]);
    }
}

/// The next attribute of a tag that has a value: its name, and where the value stands.
fn next_attribute<'t>(tag: &'t str, at: &mut usize) -> Option<(&'t str, std::ops::Range<usize>)> {
    let bytes = tag.as_bytes();
    let skip = |mut from: usize, while_true: &dyn Fn(u8) -> bool| {
        while from < bytes.len() && while_true(bytes[from]) {
            from += 1;
        }
        from
    };
    loop {
        let start = skip(*at, &|byte| byte.is_ascii_whitespace() || matches!(byte, b'/' | b'"' | b'\''));
        if start >= bytes.len() || bytes[start] == b'>' {
            return None;
        }
        let end = skip(start + 1, &|byte| !byte.is_ascii_whitespace() && !matches!(byte, b'=' | b'>' | b'/'));
        let equals = skip(end, &|byte| byte.is_ascii_whitespace());
        if bytes.get(equals) != Some(&b'=') {
            *at = end;
            continue;
        }
        let value = skip(equals + 1, &|byte| byte.is_ascii_whitespace());
        let range = match bytes.get(value) {
            Some(&quote @ (b'"' | b'\'')) => value + 1..skip(value + 1, &|byte| byte != quote),
            _ => value..skip(value, &|byte| !byte.is_ascii_whitespace() && byte != b'>'),
        };
        *at = range.end;
        return Some((&tag[start..end], range));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links() -> Links {
        Links { prefix: "/p/proxy".into(), own: vec!["10.0.0.1:80".into(), "front".into()] }
    }

    #[test]
    fn urls_of_the_own_host_move_below_the_prefix() {
        let rows = [
            ("/a/b/?q=/x#f", "/p/proxy/a/b/?q=/x#f"),
            ("/", "/p/proxy/"),
            ("/a/../../b", "/p/proxy/b"),
            ("http://10.0.0.1:80/a", "/p/proxy/a"),
            ("//front/a", "/p/proxy/a"),
            ("http://other/a", "http://other/a"),
            ("http://10.0.0.1:80", "http://10.0.0.1:80"),
            ("a/b", "a/b"),
            ("#x", "#x"),
            ("?x=1", "?x=1"),
            ("mailto:a@b", "mailto:a@b"),
            ("/p/proxy/a", "/p/proxy/a"),
        ];
        for (url, wanted) in rows {
            assert_eq!(links().url(url), wanted, "{url}");
        }
    }

    #[test]
    fn paths_are_cleaned() {
        for (path, wanted) in
            [("", ""), ("/", "/"), ("//a//b/./c/../d/", "/a/b/d/"), ("/../..", ""), ("/a%2Fb", "/a%2Fb")]
        {
            assert_eq!(clean(path), wanted, "{path}");
        }
    }

    #[test]
    fn pages_are_rewritten_however_they_are_cut() {
        let page = concat!(
            "<!DOCTYPE html><html><head><LINK REL=x href='/s.css'><script src=\"/a.js\">if (1</2) x='<a href=\"/no\">'</script >",
            "<!-- <a href=\"/no\"> --></head><body data-x='>' background = /bg.png ><a href=/b title=\"a > b\">b</a> 1 < 2 <3",
            "<a hidden href='//other/x'>o</a><img src='rel.png' usemap='/m'/><form action=/go><p href=/no>é</body></html>"
        );
        let wanted = page
            .replace("'/s.css'", "'/p/proxy/s.css'")
            .replace("\"/a.js\"", "\"/p/proxy/a.js\"")
            .replace("/bg.png", "/p/proxy/bg.png")
            .replace("href=/b ", "href=/p/proxy/b ")
            .replace("'/m'", "'/p/proxy/m'")
            .replace("action=/go", "action=/p/proxy/go");
        for size in [1, 2, 3, 7, 64, page.len()] {
            let mut rewriter = Page::new(links());
            let mut out: Vec<u8> = page.as_bytes().chunks(size).flat_map(|piece| rewriter.push(piece)).collect();
            out.extend(rewriter.finish());
            assert_eq!(String::from_utf8(out).unwrap(), wanted, "in pieces of {size}");
        }
    }

    #[test]
    fn what_never_ends_is_not_kept() {
        let mut rewriter = Page::new(links());
        let mut out = rewriter.push(b"<a href=\"");
        for _ in 0..8 {
            out.extend(rewriter.push(&[b'x'; 16 << 10]));
            assert!(rewriter.pending.len() <= TAG_MAX);
        }
        out.extend(rewriter.finish());
        assert_eq!(out.len(), 9 + (128 << 10));
    }
}
