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

    fn runs(&self) -> bool {
        let own = Platform::own();
        // arm64's only variant is v8.
        let variant = self
            .variant
            .as_deref()
            .is_none_or(|variant| variant.is_empty() || self.architecture == "arm64" && variant == "v8");
        self.os == own.os && self.architecture == own.architecture && variant
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
    /// The manifest for this machine.
    pub fn choose(&self) -> Result<&Descriptor> {
        // Attestations name the platform unknown/unknown; entries without a platform fit a single-image index.
        let fitting = self.manifests.iter().find(|entry| entry.platform.as_ref().is_some_and(Platform::runs));
        let only = || self.manifests.iter().find(|entry| entry.platform.is_none());
        let own = Platform::own();
        fitting.or_else(only).ok_or_else(|| {
            Error::not_found(format!("no match for platform in manifest: {}/{}", own.os, own.architecture))
        })
    }
}

/// The image configuration (config.md), as far as the runtime reads it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ImageConfig {
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(default, deserialize_with = "null_default")]
    pub config: RunConfig,
    #[serde(default)]
    pub rootfs: RootFs,
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
        assert_eq!(index.choose().unwrap().digest, Digest::of(b"l"));
    }
}
