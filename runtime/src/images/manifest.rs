//! Manifests, indexes and configurations: OCI image specification 1.1 and Docker's schema 2, which differ in names only.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use super::platform::Platform;
use crate::{
    digest::Digest,
    error::{Error, Result},
};

pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// Largest manifest, index or configuration (containerd's and the distribution specification's limit).
pub const MAX_DOCUMENT: u64 = 4 << 20;
/// An overlay holds no more (Linux, `fs/overlayfs/params.h`, OVL_MAX_STACK), whatever the limit for images is.
pub const MAX_LAYERS: usize = 500;
/// What Docker's manifests before schema 2 were served as.
const SCHEMA_1: [&str; 2] = [
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
    "application/vnd.docker.distribution.manifest.v1+json",
];
/// What is said of these (containerd's `client/pull.go`).
pub const NO_SCHEMA_1: &str = "schema 1 image manifests are no longer supported: invalid argument";
const MAX_INDEX_ENTRIES: usize = 1024;

/// A reference to content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    #[serde(default, deserialize_with = "null_default")]
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    #[serde(default, deserialize_with = "texts", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
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
    /// Whether it is one of an image: other things have manifests too (moby's `checkSupportedMediaType` and
    /// `validateMediaType`).
    pub fn check_types(&self) -> Result<()> {
        // Some registries say nothing, or something of no meaning, of what are images.
        const PLAIN: [&str; 4] = ["", "application/octet-stream", "application/json", "text/html"];
        let config = self.config.media_type.as_str();
        if !PLAIN.contains(&config) && config != OCI_CONFIG && config != DOCKER_CONFIG {
            let class = match config {
                "application/vnd.docker.plugin.v1+json" => "plugin",
                "application/vnd.cncf.helm.config.v1+json" => "helm",
                _ => "unknown",
            };
            return Err(Error::invalid(format!("Encountered remote {config:?}({class}) when fetching")));
        }
        let is_layer = |kind: &str| {
            PLAIN.contains(&kind)
                || kind.starts_with("application/vnd.oci.image.")
                || kind.starts_with("application/vnd.docker.")
        };
        match self.layers.iter().find(|layer| !is_layer(&layer.media_type)) {
            Some(layer) => Err(Error::invalid(format!("unsupported media type {}", layer.media_type))),
            None => Ok(()),
        }
    }

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
    #[serde(deserialize_with = "readable")]
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
    let schema = value.get("schemaVersion").and_then(serde_json::Value::as_u64);
    if schema == Some(1) || SCHEMA_1.contains(&media_type) {
        return Err(Error::invalid(NO_SCHEMA_1));
    }
    if schema != Some(2) {
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
    if let Some(entries) = value.get("manifests") {
        let entries = entries.as_array().map_or(0, Vec::len);
        if entries > MAX_INDEX_ENTRIES {
            return Err(Error::invalid(format!("index has more than {MAX_INDEX_ENTRIES} manifests")));
        }
        let index: Index = serde_json::from_value(value).map_err(bad)?;
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
        let near = |entry: &Descriptor| entry.platform.as_ref().and_then(|platform| platform.distance(wanted));
        let fitting = self.manifests.iter().filter_map(|entry| Some((near(entry)?, entry)));
        let fitting = fitting.min_by_key(|(distance, _)| *distance).map(|(_, entry)| entry);
        let only = || self.manifests.iter().find(|entry| entry.platform.is_none());
        // How much of amd64 a machine has does not matter to whoever finds nothing at all.
        let variant = wanted.variant.clone().filter(|_| wanted.architecture != "amd64");
        let shown = Platform { variant, ..wanted.clone() };
        fitting
            .or_else(only)
            .ok_or_else(|| Error::not_found(format!("no matching manifest for {shown} in the manifest list entries")))
    }
}

/// The image configuration (config.md). What it does not name is kept and written again.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ImageConfig {
    #[serde(default, deserialize_with = "null_default")]
    pub architecture: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    #[serde(default, deserialize_with = "null_default")]
    pub os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub author: String,
    #[serde(default, deserialize_with = "null_default")]
    pub config: RunConfig,
    #[serde(default, deserialize_with = "null_default")]
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
    #[serde(default, deserialize_with = "words", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    #[serde(default, deserialize_with = "words", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    #[serde(default, deserialize_with = "texts", skip_serializing_if = "BTreeMap::is_empty")]
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
    #[serde(default, deserialize_with = "words", skip_serializing_if = "Vec::is_empty")]
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
    #[serde(default, rename = "type", deserialize_with = "null_default")]
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

/// A map of texts in which null is an empty one, as Go reads it.
fn texts<'de, D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<BTreeMap<String, String>, D::Error> {
    let read = Option::<BTreeMap<String, Option<String>>>::deserialize(deserializer)?.unwrap_or_default();
    Ok(read.into_iter().map(|(key, value)| (key, value.unwrap_or_default())).collect())
}

/// A list of texts, or one alone (moby's `strslice`).
fn words<'de, D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Words {
        One(String),
        Several(Vec<String>),
    }
    Ok(match Option::<Words>::deserialize(deserializer)? {
        None => Vec::new(),
        Some(Words::One(word)) => vec![word],
        Some(Words::Several(words)) => words,
    })
}

/// The entries that can be read: one with a digest of an algorithm that nobody here knows is nothing to choose, but the
/// others are.
fn readable<'de, D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Vec<Descriptor>, D::Error> {
    let entries = Option::<Vec<serde_json::Value>>::deserialize(deserializer)?.unwrap_or_default();
    Ok(entries.into_iter().filter_map(|entry| serde_json::from_value(entry).ok()).collect())
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
        let layers = vec![entry.clone(); 501].join(",");
        for (document, word) in [
            ("{".to_owned(), "malformed"),
            (r#"{"schemaVersion":1}"#.to_owned(), "schema 1 image manifests"),
            (r#"{"schemaVersion":3}"#.to_owned(), "unsupported manifest schema"),
            (format!(r#"{{"schemaVersion":2,"manifests":[],"layers":[],"config":{entry}}}"#), "ambiguous"),
            (format!(r#"{{"schemaVersion":2,"config":{entry},"layers":[{layers}]}}"#), "500 layers"),
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
    fn an_index_that_go_reads_is_read() {
        let (good, other) = (Digest::of(b"good"), Digest::of(b"other"));
        let text = format!(
            r#"{{"schemaVersion":2,"manifests":[
                {{"digest":"blake3:00","size":1,"platform":{{"os":"linux","architecture":"{arch}"}}}},
                {{"digest":"{other}","size":1,"platform":{{}}}},
                {{"digest":"{good}","size":1,"annotations":null,"urls":null,"platform":{{"os":"linux","architecture":"{arch}"}}}}]}}"#,
            arch = Platform::own().architecture
        );
        let Document::Index(index) = parse(text.as_bytes(), OCI_INDEX).unwrap() else { panic!("an index") };
        assert_eq!(index.choose(&Platform::host()).unwrap().digest, good);
    }

    #[test]
    fn a_configuration_that_go_reads_is_read() {
        let config = ImageConfig::parse(
            br#"{"architecture":null,"os":"linux","config":{"Cmd":"/x","Entrypoint":null,"Labels":{"a":null}},"rootfs":null}"#,
        );
        let config = config.unwrap();
        assert_eq!((config.config.cmd, config.config.labels["a"].as_str()), (vec!["/x".to_owned()], ""));
    }

    #[test]
    fn images_and_nothing_else_are_images() {
        let manifest = |config: &str, layer: &str| {
            let blob = |kind: &str| format!(r#"{{"mediaType":"{kind}","digest":"{}","size":1}}"#, Digest::of(b""));
            let text = format!(r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#, blob(config), blob(layer));
            let Document::Manifest(manifest) = parse(text.as_bytes(), "").unwrap() else { panic!("a manifest") };
            manifest.check_types().map_err(|error| error.to_string())
        };
        assert!(manifest(OCI_CONFIG, OCI_LAYER).is_ok());
        assert!(manifest("", "application/vnd.docker.image.rootfs.diff.tar.gzip").is_ok());
        let helm = manifest("application/vnd.cncf.helm.config.v1+json", OCI_LAYER).unwrap_err();
        assert_eq!(helm, "Encountered remote \"application/vnd.cncf.helm.config.v1+json\"(helm) when fetching");
        let signature = manifest(OCI_CONFIG, "application/vnd.dev.cosign.simplesigning.v1+json").unwrap_err();
        assert!(signature.contains("unsupported media type"), "{signature}");
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
        // The nearest, wherever it stands.
        let arm = |variant: &str| {
            let digest = Digest::of(variant.as_bytes());
            format!(
                r#"{{"digest":"{digest}","size":1,"platform":{{"architecture":"arm","os":"linux","variant":"{variant}"}}}}"#
            )
        };
        let text = format!(r#"{{"schemaVersion":2,"manifests":[{},{},{}]}}"#, arm("v5"), arm("v7"), arm("v6"));
        let Document::Index(index) = parse(text.as_bytes(), OCI_INDEX).unwrap() else { panic!("an index") };
        assert_eq!(index.choose(&"linux/arm".parse().unwrap()).unwrap().digest, Digest::of(b"v7"));
        assert_eq!(index.choose(&"linux/arm/v6".parse().unwrap()).unwrap().digest, Digest::of(b"v6"));
    }
}
