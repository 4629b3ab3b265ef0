//! Manifests, indexes and configurations: OCI image specification 1.1 and Docker's schema 2, which differ in names only.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    digest::Digest,
    error::{Error, Result},
};

pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// Largest manifest, index or configuration (containerd's and the distribution specification's limit).
pub const MAX_DOCUMENT: u64 = 4 << 20;
/// An overlay holds no more; Docker's own limit is 127.
const MAX_LAYERS: usize = 127;
const MAX_INDEX_ENTRIES: usize = 1024;

/// A reference to content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    pub architecture: String,
    pub os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// `os`, `os/architecture`, `os/architecture/variant` or an architecture alone, as `--platform` takes it.
impl std::str::FromStr for Platform {
    type Err = Error;

    fn from_str(text: &str) -> Result<Platform> {
        let words: Vec<&str> = text.split('/').collect();
        let word = |word: &str| {
            !word.is_empty()
                && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
        };
        if words.len() > 3 || !words.iter().all(|part| word(part)) {
            return Err(Error::invalid(format!("{text:?}: unknown operating system or architecture")));
        }
        let own = Platform::own();
        let (os, architecture) = match words[..] {
            ["linux"] => ("linux", own.architecture.as_str()),
            ["windows" | "darwin" | "freebsd"] => (words[0], own.architecture.as_str()),
            [architecture] => ("linux", architecture),
            [os, architecture, ..] => (os, architecture),
            [] => ("", ""),
        };
        let architecture = match architecture {
            "x86_64" | "x86-64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let variant = words.get(2).map(|variant| (*variant).to_owned());
        Ok(Platform { architecture: architecture.into(), os: os.into(), variant })
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

impl Platform {
    /// What runs on this machine, in the names of Go.
    pub fn own() -> Platform {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Platform { architecture: architecture.into(), os: "linux".into(), variant: None }
    }

    /// Whether an image for this platform is one for `wanted`.
    pub fn fits(&self, wanted: &Platform) -> bool {
        // arm64's only variant is v8.
        let variant = |platform: &Platform| match platform.variant.as_deref() {
            None | Some("") if platform.architecture == "arm64" => "v8".to_owned(),
            variant => variant.unwrap_or_default().to_owned(),
        };
        let any_variant = wanted.variant.is_none() && variant(self).is_empty();
        self.os == wanted.os
            && self.architecture == wanted.architecture
            && (any_variant || variant(self) == variant(wanted))
    }
}

/// One image for one platform.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
}

impl Manifest {
    /// What it points at.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        self.layers.iter().chain([&self.config])
    }
}

/// Several images under one name.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    pub manifests: Vec<Descriptor>,
}

/// What a digest or tag stands for.
#[derive(Clone, Debug)]
pub enum Document {
    Manifest(Manifest),
    Index(Index),
}

/// Parses a manifest or index by its media type, or by what it contains if that is missing.
pub fn parse(bytes: &[u8], media_type: &str) -> Result<Document> {
    if bytes.len() as u64 > MAX_DOCUMENT {
        return Err(Error::invalid(format!("manifest is larger than {MAX_DOCUMENT} bytes")));
    }
    let bad = |error: serde_json::Error| Error::invalid(format!("malformed manifest: {error}"));
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(bad)?;
    let inside = value.get("mediaType").and_then(serde_json::Value::as_str).unwrap_or_default();
    if value.get("schemaVersion").and_then(serde_json::Value::as_u64) != Some(2) {
        return Err(Error::invalid("unsupported manifest schema: only schema 2 and OCI are"));
    }
    // A document that is both could be read differently by others (CVE-2021-41190).
    if value.get("manifests").is_some() && (value.get("layers").is_some() || value.get("config").is_some()) {
        return Err(Error::invalid("ambiguous manifest: both a manifest and an index"));
    }
    let known = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST];
    if known.contains(&media_type) && known.contains(&inside) && media_type != inside {
        return Err(Error::invalid(format!("manifest of type {inside} was served as {media_type}")));
    }
    if value.get("manifests").is_some() {
        let index: Index = serde_json::from_value(value).map_err(bad)?;
        if index.manifests.len() > MAX_INDEX_ENTRIES {
            return Err(Error::invalid(format!("index has more than {MAX_INDEX_ENTRIES} manifests")));
        }
        return Ok(Document::Index(index));
    }
    let manifest: Manifest = serde_json::from_value(value).map_err(bad)?;
    if manifest.layers.len() > MAX_LAYERS {
        return Err(Error::invalid(format!("image has more than {MAX_LAYERS} layers")));
    }
    if let Some(layer) = manifest
        .layers
        .iter()
        .find(|layer| layer.media_type.contains("foreign") || layer.media_type.contains("nondistributable"))
    {
        return Err(Error::invalid(format!("layer {} is a foreign layer, which is not supported", layer.digest)));
    }
    Ok(Document::Manifest(manifest))
}

impl Index {
    /// The manifest for a platform.
    pub fn choose(&self, wanted: &Platform) -> Result<&Descriptor> {
        // Attestations name the platform unknown/unknown; entries without a platform fit a single-image index.
        let fitting =
            self.manifests.iter().find(|entry| entry.platform.as_ref().is_some_and(|platform| platform.fits(wanted)));
        let only = || self.manifests.iter().find(|entry| entry.platform.is_none());
        fitting
            .or_else(only)
            .ok_or_else(|| Error::not_found(format!("no matching manifest for {wanted} in the manifest list entries")))
    }
}

/// The image configuration (config.md). What it does not name is kept and written again.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ImageConfig {
    #[serde(default)]
    pub architecture: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    #[serde(default)]
    pub os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub author: String,
    #[serde(default, deserialize_with = "null_default")]
    pub config: RunConfig,
    #[serde(default)]
    pub rootfs: RootFs,
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

/// How a layer, or a change of the configuration alone, came about.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub author: String,
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub comment: String,
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

/// How containers of the image start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RunConfig {
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub user: String,
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, serde_json::Value>,
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, serde_json::Value>,
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Docker's: as the Docker Engine API describes HealthConfig.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<serde_json::Value>,
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub on_build: Vec<String>,
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub shell: Vec<String>,
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "std::ops::Not::not")]
    pub args_escaped: bool,
    /// Seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RootFs {
    #[serde(default, rename = "type")]
    pub kind: String,
    #[serde(default, deserialize_with = "null_default")]
    pub diff_ids: Vec<Digest>,
}

/// Go writes an empty list or map as null.
fn null_default<'de, D, T>(deserializer: D) -> std::result::Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

impl ImageConfig {
    pub fn parse(bytes: &[u8]) -> Result<ImageConfig> {
        serde_json::from_slice(bytes).map_err(|error| Error::invalid(format!("malformed image configuration: {error}")))
    }

    /// Manifest and configuration must speak of the same layers.
    pub fn check_layers(&self, manifest: &Manifest) -> Result<()> {
        let (layers, named) = (manifest.layers.len(), self.rootfs.diff_ids.len());
        if layers == named {
            return Ok(());
        }
        Err(Error::invalid(format!("image has {layers} layers but its configuration names {named}")))
    }

    pub fn platform(&self) -> Platform {
        Platform { architecture: self.architecture.clone(), os: self.os.clone(), variant: self.variant.clone() }
    }

    /// The identity of each layer together with all below it (config.md "Layer ChainID").
    pub fn chain_ids(&self) -> Vec<Digest> {
        let mut out: Vec<Digest> = Vec::new();
        for diff in &self.rootfs.diff_ids {
            let chain = match out.last() {
                None => diff.clone(),
                Some(parent) => Digest::of(format!("{parent} {diff}").as_bytes()),
            };
            out.push(chain);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_documents_are_refused() {
        let digest = Digest::of(b"");
        let entry = format!(r#"{{"mediaType":"x","digest":"{digest}","size":1}}"#);
        let layers = vec![entry.clone(); 200].join(",");
        for (document, word) in [
            ("{".to_owned(), "malformed"),
            (r#"{"schemaVersion":1}"#.to_owned(), "schema"),
            (format!(r#"{{"schemaVersion":2,"manifests":[],"layers":[],"config":{entry}}}"#), "ambiguous"),
            (format!(r#"{{"schemaVersion":2,"config":{entry},"layers":[{layers}]}}"#), "127 layers"),
            (
                format!(
                    r#"{{"schemaVersion":2,"config":{entry},"layers":[{{"mediaType":"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip","digest":"{digest}","size":1}}]}}"#
                ),
                "foreign",
            ),
            (
                format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{entry},"layers":[]}}"#),
                "was served as",
            ),
        ] {
            let error = parse(document.as_bytes(), DOCKER_MANIFEST).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn the_platform_is_chosen() {
        let entry = |arch: &str, os: &str, seed: &[u8]| {
            format!(
                r#"{{"digest":"{}","size":1,"platform":{{"architecture":"{arch}","os":"{os}"}}}}"#,
                Digest::of(seed)
            )
        };
        let own = Platform::own().architecture;
        let text = format!(
            r#"{{"schemaVersion":2,"manifests":[{},{}]}}"#,
            entry(&own, "windows", b"w"),
            entry(&own, "linux", b"l")
        );
        let Document::Index(index) = parse(text.as_bytes(), OCI_INDEX).unwrap() else { panic!("an index") };
        assert_eq!(index.choose(&Platform::own()).unwrap().digest, Digest::of(b"l"));
    }
}
