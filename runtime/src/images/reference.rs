//! Image names, normalised as Docker does (distribution/reference: `normalize.go`, `regexp.go`).

use std::{fmt, str::FromStr};

use crate::{digest::Digest, error::Error};

/// A whole name: registry, repository, and a tag or digest (or both).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    /// `docker.io` for names without one.
    pub registry: String,
    pub repository: String,
    pub tag: Option<String>,
    pub digest: Option<Digest>,
}

const DEFAULT_REGISTRY: &str = "docker.io";
/// Longest repository name, without its registry.
const MAX_NAME: usize = 255;
const MAX_TAG: usize = 128;

impl Reference {
    /// Registry and repository without tag and digest: `docker.io/library/busybox`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The same name with the tag only, `latest` if it has neither tag nor digest. None if it has a digest: that decides
    /// what is meant, and whoever gave both says nothing of what the tag stands for (containerd's
    /// `distribution.ParseDockerRef`, moby's `ReferenceStore.AddDigest`).
    pub fn tagged(&self) -> Option<String> {
        let tag = self.tag.as_ref().filter(|_| self.digest.is_none())?;
        Some(format!("{}:{tag}", self.name()))
    }

    pub fn with_digest(&self, digest: &Digest) -> String {
        format!("{}@{digest}", self.name())
    }

    /// The name as Docker's users write it: without Docker Hub and its library.
    pub fn familiar(&self) -> String {
        let name = match self.registry.as_str() {
            DEFAULT_REGISTRY => self.repository.strip_prefix("library/").unwrap_or(&self.repository).to_owned(),
            _ => self.name(),
        };
        let tag = self.tag.as_ref().map(|tag| format!(":{tag}")).unwrap_or_default();
        let digest = self.digest.as_ref().map(|digest| format!("@{digest}")).unwrap_or_default();
        format!("{name}{tag}{digest}")
    }

    /// What the registry's API calls the manifest: the digest if there is one.
    pub fn manifest(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".into(),
        }
    }

    /// The host that serves the registry's API.
    pub fn host(&self) -> &str {
        if self.registry == DEFAULT_REGISTRY { "registry-1.docker.io" } else { &self.registry }
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Reference, Error> {
        let bad = |why: &str| Error::invalid(format!("failed to parse image reference {text:?}: {why}"));
        // Wherever a name can be given it would be taken for an image's id.
        if text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(bad("cannot specify 64-byte hexadecimal strings"));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse::<Digest>().map_err(|_| bad("invalid digest format"))?)),
            None => (text, None),
        };
        // A colon after the last slash begins the tag; one before belongs to the registry's port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(bad("invalid tag format"));
        }
        let (registry, repository) = match name.split_once('/') {
            Some((first, rest))
                if first.contains(['.', ':']) || first == "localhost" || first.to_lowercase() != first =>
            {
                (first, rest.to_owned())
            }
            _ => (DEFAULT_REGISTRY, name.to_owned()),
        };
        let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
        let repository = if registry == DEFAULT_REGISTRY && !repository.contains('/') {
            format!("library/{repository}")
        } else {
            repository
        };
        if repository.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(bad("repository name must be lowercase"));
        }
        if !is_host(registry) || name.is_empty() || !repository.split('/').all(is_component) {
            return Err(bad("invalid reference format"));
        }
        if repository.len() > MAX_NAME {
            return Err(bad("repository name must not be more than 255 characters"));
        }
        let tag = match (tag, &digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, Some(_)) => None,
            (None, None) => Some("latest".into()),
        };
        Ok(Reference { registry: registry.into(), repository, tag, digest })
    }
}

/// Whether a name has neither tag nor digest.
pub fn is_name_only(name: &str) -> bool {
    !name.contains('@') && !name.rsplit('/').next().unwrap_or(name).contains(':')
}

fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.len() <= MAX_TAG
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|byte| word(byte) || matches!(byte, b'.' | b'-'))
}

/// Names of letters, digits and inner hyphens between dots, or an IPv6 address in brackets; then perhaps a port.
fn is_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, port),
        _ => (host, "0"),
    };
    let label = |label: &str| {
        let word = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        word && !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')
    };
    let address = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
        .is_some_and(|name| name.parse::<std::net::Ipv6Addr>().is_ok());
    port.parse::<u16>().is_ok() && (address || name.split('.').all(label))
}

/// Letters and digits, separated by `.`, `_`, `__` or any number of `-`.
fn is_component(component: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    let separators_are_short = component
        .split(|letter: char| letter.is_ascii_alphanumeric())
        .all(|separator| matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-'));
    alphanumeric(first) && alphanumeric(last) && separators_are_short
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normalised() {
        let digest = Digest::of(b"");
        for (name, normal) in [
            ("busybox", "docker.io/library/busybox:latest".to_owned()),
            ("coracle/hello:v1", "docker.io/coracle/hello:v1".to_owned()),
            ("localhost/x", "localhost/x:latest".to_owned()),
            ("127.0.0.1:5000/a/b:c", "127.0.0.1:5000/a/b:c".to_owned()),
            ("index.docker.io/library/a", "docker.io/library/a:latest".to_owned()),
            (&format!("quay.io/a/b@{digest}"), format!("quay.io/a/b@{digest}")),
            (&format!("a:1@{digest}"), format!("docker.io/library/a:1@{digest}")),
        ] {
            assert_eq!(name.parse::<Reference>().unwrap().to_string(), normal);
        }
    }

    #[test]
    fn a_digest_leaves_no_tag_and_registries_do_not_count() {
        let digest = Digest::of(b"");
        let both: Reference = format!("a:1@{digest}").parse().unwrap();
        assert_eq!((both.tagged(), both.tag.as_deref()), (None, Some("1")));
        assert_eq!("a:1".parse::<Reference>().unwrap().tagged().as_deref(), Some("docker.io/library/a:1"));
        let long = "a/".repeat(126) + "b";
        assert!(format!("registry.example:5000/{long}").parse::<Reference>().is_ok());
        assert!(digest.hex().parse::<Reference>().is_err() && digest.hex()[1..].parse::<Reference>().is_ok());
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for name in ["", "A", "a//b", "a:b c", "../x", "a/../b", "-a", "a:", "x@sha256:1", "a___b", &"a".repeat(300)] {
            assert!(name.parse::<Reference>().is_err(), "{name}");
        }
    }
}
