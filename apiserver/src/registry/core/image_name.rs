//! Names of images, as far as their tags go (distribution/reference `ParseNormalizedNamed`, kubernetes `parsers.ParseImageName`).

/// The most bytes of a path.
const PATH_MAX: usize = 255;
const TAG_MAX: usize = 128;
/// The length of what is an image's identifier, and so no name.
const ID_LENGTH: usize = 64;

/// Digests, and how many hexadecimal digits they have.
const DIGESTS: [(&str, usize); 3] = [("sha256", 64), ("sha384", 96), ("sha512", 128)];

/// The tag of an image: `latest` when it has neither tag nor digest; None when it has a digest alone, or its name is none.
pub fn tag(image: &str) -> Option<&str> {
    if image.len() == ID_LENGTH && image.bytes().all(is_hex) {
        return None;
    }
    let (named, digest) = match image.split_once('@') {
        Some((named, digest)) => (named, Some(digest)),
        None => (image, None),
    };
    let (domain, rest) = match named.split_once('/') {
        Some((first, rest)) if is_domain_like(first) => (Some(first), rest),
        _ => (None, named),
    };
    let (path, tag) = match rest.split_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (rest, None),
    };
    // A name without a domain and a path is short for one of the library.
    let before = if domain.is_none() && !path.contains('/') { "library/".len() } else { 0 };
    let is_name = domain.is_none_or(is_domain)
        && path.split('/').all(is_component)
        && before + path.len() <= PATH_MAX
        && tag.is_none_or(is_tag)
        && digest.is_none_or(is_digest);
    match (tag, digest) {
        _ if !is_name => None,
        (Some(tag), _) => Some(tag),
        (None, None) => Some("latest"),
        (None, Some(_)) => None,
    }
}

fn is_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

/// Whether what stands before the first slash is a registry, not part of the path.
fn is_domain_like(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn is_domain(domain: &str) -> bool {
    let is_label = |label: &str| {
        let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = label.as_bytes();
        edge(bytes.first())
            && edge(bytes.last())
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
    };
    let is_address = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':');
    let (is_host, behind) = match domain.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, behind)) => (is_address(address), behind),
            None => return false,
        },
        None => {
            let (host, behind) = domain.split_at(domain.find(':').unwrap_or(domain.len()));
            (host.split('.').all(is_label), behind)
        }
    };
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    is_host && (behind.is_empty() || behind.strip_prefix(':').is_some_and(is_port))
}

/// Part of a path: small letters and digits, with one point, one or two underscores, or any number of dashes between them.
fn is_component(component: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let edges = [bytes.first(), bytes.last()].into_iter().all(|byte| byte.is_some_and(|byte| is_word(*byte)));
    let between =
        |separator: &[u8]| matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|byte| *byte == b'-');
    edges && bytes.split(|byte| is_word(*byte)).all(between)
}

fn is_tag(tag: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.len() <= TAG_MAX
        && tag.bytes().next().is_some_and(is_word)
        && tag.bytes().all(|byte| is_word(byte) || matches!(byte, b'.' | b'-'))
}

fn is_digest(digest: &str) -> bool {
    let Some((algorithm, hex)) = digest.split_once(':') else { return false };
    let length = DIGESTS.iter().find(|(known, _)| *known == algorithm).map(|(_, length)| *length);
    length == Some(hex.len()) && hex.bytes().all(is_hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_those_of_names() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let id = "0123456789abcdef".repeat(4);
        let with = |name: &str| format!("{name}@{digest}");
        let long = "a".repeat(PATH_MAX - "library/".len());
        let longer = format!("{long}a");
        let rows = [
            ("a".to_owned(), Some("latest")),
            ("a:latest".into(), Some("latest")),
            ("a:1".into(), Some("1")),
            ("r:5000/a".into(), Some("latest")),
            ("r:5000/a:1".into(), Some("1")),
            ("r.io/Foo".into(), None),
            ("Reg/foo".into(), Some("latest")),
            ("foo/Bar".into(), None),
            ("foo/Bar:latest".into(), None),
            ("localhost/a/b_c/d__e/f---g.h".into(), Some("latest")),
            ("a___b".into(), None),
            ("a..b".into(), None),
            ("a-".into(), None),
            ("a//b".into(), None),
            ("a/".into(), None),
            ("/a".into(), None),
            (" a".into(), None),
            ("a b".into(), None),
            ("a:".into(), None),
            ("a:-x".into(), None),
            ("a:1:2".into(), None),
            ("[::1]:5000/a".into(), Some("latest")),
            ("[::1]/a".into(), Some("latest")),
            ("[::1/a".into(), None),
            ("[]/a".into(), None),
            ("r:/a".into(), None),
            ("-r.io/a".into(), None),
            (with("a"), None),
            (with("a:latest"), Some("latest")),
            (with("a:1"), Some("1")),
            ("a:latest@sha256:x".into(), None),
            ("a:latest@md5:0123456789abcdef0123456789abcdef".into(), None),
            (format!("{}@{digest}", with("a:latest")), None),
            (id.clone(), None),
            (format!("{id}:latest"), Some("latest")),
            (id.to_uppercase(), None),
            (long, Some("latest")),
            (longer, None),
            ("é".into(), None),
            (String::new(), None),
        ];
        for (image, wanted) in rows {
            assert_eq!(tag(&image), wanted, "{image:?}");
        }
    }
}
