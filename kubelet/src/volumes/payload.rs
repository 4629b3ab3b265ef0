//! What is in volumes whose content comes from the API.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret, ServiceAccountTokenProjection, Volume, VolumeProjection,
};

use crate::pod::env::{Facts, Objects, Reference, field, resource};
use crate::pod::{self};

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    pub content: Vec<u8>,
    pub mode: u32,
    /// The user that owns it, when that is not root.
    pub owner: Option<u32>,
}

/// Files by their path in the volume.
pub type Payload = BTreeMap<String, File>;

/// Tokens of the pod's service account, by audience and lifetime.
pub type Tokens = BTreeMap<(String, i64), String>;

const DEFAULT_MODE: i32 = 0o644;
/// Seconds a token is valid when the pod does not say.
const TOKEN_LIFETIME: i64 = 3600;

/// The ConfigMaps and Secrets that a pod's volumes hold.
pub fn references(pod: &Pod) -> Vec<Reference> {
    let mut found = Vec::new();
    let spec = pod::spec(pod);
    for volume in spec.volumes.iter().flatten() {
        found.extend(volume.config_map.as_ref().map(|source| Reference::ConfigMap(source.name.clone())));
        found.extend(volume.secret.as_ref().and_then(|source| source.secret_name.clone()).map(Reference::Secret));
        for source in projections(volume) {
            found.extend(source.config_map.as_ref().map(|source| Reference::ConfigMap(source.name.clone())));
            found.extend(source.secret.as_ref().map(|source| Reference::Secret(source.name.clone())));
        }
    }
    found.sort();
    found.dedup();
    found
}

/// The tokens that a pod's volumes hold: audience (empty for the API server's own) and lifetime in seconds.
pub fn token_requests(pod: &Pod) -> Vec<(String, i64)> {
    let spec = pod::spec(pod);
    let sources = spec.volumes.iter().flatten().flat_map(projections);
    let mut found: Vec<_> = sources.filter_map(|source| source.service_account_token.as_ref()).map(token_key).collect();
    found.sort();
    found.dedup();
    found
}

fn token_key(source: &ServiceAccountTokenProjection) -> (String, i64) {
    (source.audience.clone().unwrap_or_default(), source.expiration_seconds.unwrap_or(TOKEN_LIFETIME))
}

fn projections(volume: &Volume) -> &[VolumeProjection] {
    volume.projected.as_ref().and_then(|source| source.sources.as_deref()).unwrap_or_default()
}

fn mode(mode: Option<i32>) -> u32 {
    u32::try_from(mode.unwrap_or(DEFAULT_MODE)).unwrap_or(0o644) & 0o7777
}

/// The files of a volume.
///
/// # Errors
/// Names what is missing and not optional, in upstream's words.
pub fn payload(
    pod: &Pod,
    volume: &Volume,
    objects: &Objects,
    facts: &Facts,
    tokens: &Tokens,
) -> Result<Payload, String> {
    let mut out = Payload::new();
    if let Some(source) = &volume.config_map {
        let object = config_map(objects, &source.name, source.optional)?;
        select(&mut out, contents(object), source.items.as_deref(), mode(source.default_mode), source.optional)?;
    } else if let Some(source) = &volume.secret {
        let object = secret(objects, source.secret_name.as_deref().unwrap_or_default(), source.optional)?;
        select(&mut out, secret_contents(object), source.items.as_deref(), mode(source.default_mode), source.optional)?;
    } else if let Some(source) = &volume.downward_api {
        downward(&mut out, pod, source.items.as_deref(), mode(source.default_mode), facts)?;
    } else if let Some(source) = &volume.projected {
        let default = mode(source.default_mode);
        for part in projections(volume) {
            project(&mut out, pod, part, default, objects, facts, tokens)?;
        }
    }
    Ok(out)
}

fn project(
    out: &mut Payload,
    pod: &Pod,
    part: &VolumeProjection,
    default: u32,
    objects: &Objects,
    facts: &Facts,
    tokens: &Tokens,
) -> Result<(), String> {
    if let Some(source) = &part.config_map {
        let object = config_map(objects, &source.name, source.optional)?;
        select(out, contents(object), source.items.as_deref(), default, source.optional)?;
    }
    if let Some(source) = &part.secret {
        let object = secret(objects, &source.name, source.optional)?;
        select(out, secret_contents(object), source.items.as_deref(), default, source.optional)?;
    }
    if let Some(source) = &part.downward_api {
        downward(out, pod, source.items.as_deref(), default, facts)?;
    }
    if let Some(source) = &part.service_account_token {
        let token = tokens.get(&token_key(source)).ok_or("the service account's token is not there yet")?;
        // A token is the bearer's: only its user may read it, or its group (upstream gives it 0600 for a pod of one user).
        let user = pod
            .spec
            .as_ref()
            .and_then(|s| s.security_context.as_ref())
            .and_then(|c| c.run_as_user)
            .and_then(|u| u32::try_from(u).ok());
        let mode = if user.is_some() { 0o600 } else { default };
        out.insert(source.path.clone(), File { content: token.clone().into_bytes(), mode, owner: user });
    }
    if part.cluster_trust_bundle.is_some() {
        return Err("clusterTrustBundle is not supported by this node".into());
    }
    if part.pod_certificate.is_some() {
        return Err("podCertificate is not supported by this node".into());
    }
    Ok(())
}

fn config_map<'o>(objects: &'o Objects, name: &str, optional: Option<bool>) -> Result<Option<&'o ConfigMap>, String> {
    match objects.config_maps.get(name).and_then(Option::as_ref) {
        None if optional != Some(true) => Err(format!("configmap \"{name}\" not found")),
        found => Ok(found),
    }
}

fn secret<'o>(objects: &'o Objects, name: &str, optional: Option<bool>) -> Result<Option<&'o Secret>, String> {
    match objects.secrets.get(name).and_then(Option::as_ref) {
        None if optional != Some(true) => Err(format!("secret \"{name}\" not found")),
        found => Ok(found),
    }
}

fn contents(object: Option<&ConfigMap>) -> BTreeMap<String, Vec<u8>> {
    let Some(object) = object else { return BTreeMap::new() };
    let text = object.data.iter().flatten().map(|(key, value)| (key.clone(), value.clone().into_bytes()));
    text.chain(object.binary_data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone()))).collect()
}

fn secret_contents(object: Option<&Secret>) -> BTreeMap<String, Vec<u8>> {
    object
        .and_then(|object| object.data.as_ref())
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.0.clone()))
        .collect()
}

fn select(
    out: &mut Payload,
    contents: BTreeMap<String, Vec<u8>>,
    items: Option<&[KeyToPath]>,
    default: u32,
    optional: Option<bool>,
) -> Result<(), String> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        out.extend(contents.into_iter().map(|(key, content)| (key, File { content, mode: default, owner: None })));
        return Ok(());
    };
    for item in items {
        match contents.get(&item.key) {
            Some(content) => {
                let mode = item.mode.map_or(default, |own| mode(Some(own)));
                out.insert(item.path.clone(), File { content: content.clone(), mode, owner: None });
            }
            None if optional == Some(true) => {}
            None => return Err(format!("references non-existent config key: {}", item.key)),
        }
    }
    Ok(())
}

fn downward(
    out: &mut Payload,
    pod: &Pod,
    items: Option<&[DownwardAPIVolumeFile]>,
    default: u32,
    facts: &Facts,
) -> Result<(), String> {
    for item in items.unwrap_or_default() {
        let text = match (&item.field_ref, &item.resource_field_ref) {
            (Some(reference), _) => field(pod, &reference.field_path, facts)?,
            (None, Some(reference)) => resource(pod, None, reference, facts)?,
            (None, None) => String::new(),
        };
        let mode = item.mode.map_or(default, |own| mode(Some(own)));
        out.insert(item.path.clone(), File { content: text.into_bytes(), mode, owner: None });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_projected_volume() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "labels": {"a": "b"}}, "spec": {"containers": [], "volumes": [{"name": "v", "projected": {"defaultMode": 256, "sources": [
            {"configMap": {"name": "c", "items": [{"key": "k", "path": "d/k", "mode": 420}]}}, {"secret": {"name": "gone", "optional": true}},
            {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}, {"serviceAccountToken": {"path": "token"}}]}}]}})).unwrap();
        let objects = Objects {
            config_maps: [(
                "c".to_owned(),
                Some(serde_json::from_value(json!({"data": {"k": "v", "other": "x"}})).unwrap()),
            )]
            .into(),
            ..Objects::default()
        };
        assert_eq!(references(&pod), [Reference::ConfigMap("c".into()), Reference::Secret("gone".into())]);
        assert_eq!(token_requests(&pod), [(String::new(), 3600)]);
        let tokens = Tokens::from([((String::new(), 3600), "jwt".to_owned())]);
        let volume = &pod.spec.as_ref().unwrap().volumes.as_ref().unwrap()[0];
        let made = payload(&pod, volume, &objects, &Facts::default(), &tokens).unwrap();
        let text: Vec<_> = made
            .iter()
            .map(|(name, file)| (name.as_str(), std::str::from_utf8(&file.content).unwrap(), file.mode))
            .collect();
        assert_eq!(text, [("d/k", "v", 0o644), ("labels", "a=\"b\"", 0o400), ("token", "jwt", 0o400)]);
    }
}
