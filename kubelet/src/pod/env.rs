//! A container's environment, and `$(VARIABLE)` in it, in commands and in arguments.

use std::collections::BTreeMap;

use coracle_api::quantity::Quantity;
use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVarSource, Pod, ResourceFieldSelector, Secret};

use super::{name, namespace, qos, spec, uid};

/// The ConfigMaps and Secrets that containers and volumes refer to; `None` for one that is not there.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    pub config_maps: BTreeMap<String, Option<ConfigMap>>,
    pub secrets: BTreeMap<String, Option<Secret>>,
}

/// What a pod is told about itself that is not in its object yet.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    pub pod_ips: Vec<String>,
    pub host_ip: String,
    /// What a container without a limit may use: the node's.
    pub node_cpu_millis: i64,
    pub node_memory: i64,
    pub node_ephemeral_storage: i64,
}

/// A name that the environment refers to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reference {
    ConfigMap(String),
    Secret(String),
}

/// What has to be fetched before [`compose`].
pub fn references(container: &Container) -> Vec<Reference> {
    let mut found = Vec::new();
    for from in container.env_from.iter().flatten() {
        found.extend(from.config_map_ref.as_ref().map(|r| Reference::ConfigMap(r.name.clone())));
        found.extend(from.secret_ref.as_ref().map(|r| Reference::Secret(r.name.clone())));
    }
    for source in container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref()) {
        found.extend(source.config_map_key_ref.as_ref().map(|r| Reference::ConfigMap(r.name.clone())));
        found.extend(source.secret_key_ref.as_ref().map(|r| Reference::Secret(r.name.clone())));
    }
    found.sort();
    found.dedup();
    found
}

/// Variables by name. Values are any bytes but NUL: a Secret's need not be text, and CRI passes them on as they are.
pub type Variables = [(String, Vec<u8>)];

/// The container's variables in the order in which they are set.
///
/// # Errors
/// In upstream's words, for what is missing and not optional.
pub fn compose(
    pod: &Pod,
    container: &Container,
    objects: &Objects,
    facts: &Facts,
) -> Result<Vec<(String, Vec<u8>)>, String> {
    let mut variables: Vec<(String, Vec<u8>)> = Vec::new();
    let mut set = |key: String, value: Vec<u8>| match variables.iter_mut().find(|(have, _)| *have == key) {
        Some((_, old)) => *old = value,
        None => variables.push((key, value)),
    };
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &from.config_map_ref {
            let data = config_map(objects, &reference.name, reference.optional)?.and_then(|map| map.data.as_ref());
            data.into_iter()
                .flatten()
                .for_each(|(key, value)| set(format!("{prefix}{key}"), value.clone().into_bytes()));
        }
        if let Some(reference) = &from.secret_ref {
            let data = secret(objects, &reference.name, reference.optional)?.and_then(|secret| secret.data.as_ref());
            for (key, value) in data.into_iter().flatten() {
                set(format!("{prefix}{key}"), value.0.clone());
            }
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (_, Some(source)) => match from_source(pod, container, source, objects, facts)? {
                Some(value) => value,
                // Optional and not there: the variable is not set.
                None => continue,
            },
            (value, None) => expand_bytes(value.as_deref().unwrap_or_default(), &variables),
        };
        match variables.iter_mut().find(|(have, _)| *have == variable.name) {
            Some((_, old)) => *old = value,
            None => variables.push((variable.name.clone(), value)),
        }
    }
    Ok(variables)
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

fn from_source(
    pod: &Pod,
    container: &Container,
    source: &EnvVarSource,
    objects: &Objects,
    facts: &Facts,
) -> Result<Option<Vec<u8>>, String> {
    if let Some(reference) = &source.field_ref {
        return field(pod, &reference.field_path, facts).map(|value| Some(value.into_bytes()));
    }
    if let Some(reference) = &source.resource_field_ref {
        return resource(pod, Some(container), reference, facts).map(|value| Some(value.into_bytes()));
    }
    if let Some(reference) = &source.config_map_key_ref {
        let data = config_map(objects, &reference.name, reference.optional)?.and_then(|map| map.data.as_ref());
        return match data.and_then(|data| data.get(&reference.key)) {
            None if reference.optional != Some(true) => {
                Err(format!("couldn't find key {} in ConfigMap {}/{}", reference.key, namespace(pod), reference.name))
            }
            found => Ok(found.map(|value| value.clone().into_bytes())),
        };
    }
    if let Some(reference) = &source.secret_key_ref {
        let data = secret(objects, &reference.name, reference.optional)?.and_then(|secret| secret.data.as_ref());
        return match data.and_then(|data| data.get(&reference.key)) {
            None if reference.optional != Some(true) => {
                Err(format!("couldn't find key {} in Secret {}/{}", reference.key, namespace(pod), reference.name))
            }
            found => Ok(found.map(|value| value.0.clone())),
        };
    }
    Err("environment variable source is not supported by this node".into())
}

/// A field of the pod by the downward API's paths.
pub fn field(pod: &Pod, path: &str, facts: &Facts) -> Result<String, String> {
    let spec = spec(pod);
    let metadata = &pod.metadata;
    if let Some((map, key)) = path.strip_suffix("']").and_then(|path| path.split_once("['")) {
        let map = match map {
            "metadata.labels" => &metadata.labels,
            "metadata.annotations" => &metadata.annotations,
            _ => return Err(format!("unsupported fieldPath: {path}")),
        };
        return Ok(map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => name(pod).into(),
        "metadata.namespace" => namespace(pod).into(),
        "metadata.uid" => uid(pod).into(),
        "metadata.labels" => lines(metadata.labels.as_ref()),
        "metadata.annotations" => lines(metadata.annotations.as_ref()),
        "spec.nodeName" => spec.node_name.clone().unwrap_or_default(),
        "spec.serviceAccountName" => spec.service_account_name.clone().unwrap_or_default(),
        "status.hostIP" | "status.hostIPs" => facts.host_ip.clone(),
        "status.podIP" => facts.pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => facts.pod_ips.join(","),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

/// A map as lines `key="value"`, sorted.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    map.into_iter().flatten().map(|(key, value)| format!("{key}={value:?}")).collect::<Vec<_>>().join("\n")
}

/// A request or limit of a container, in units of the divisor, rounded up.
pub fn resource(
    pod: &Pod,
    own: Option<&Container>,
    reference: &ResourceFieldSelector,
    facts: &Facts,
) -> Result<String, String> {
    let named = reference.container_name.as_deref().filter(|name| !name.is_empty());
    let container = match named {
        Some(name) => super::container(pod, name)
            .map(|(_, container)| container)
            .ok_or_else(|| format!("container {name} not found"))?,
        None => std::borrow::Cow::Borrowed(own.ok_or("containerName is required")?),
    };
    let container = &*container;
    let (kind, resource) = reference.resource.split_once('.').unwrap_or_default();
    let mut amount = match kind {
        "limits" => qos::limit(container, resource),
        "requests" => qos::request(container, resource),
        _ => return Err(format!("unsupported container resource : {}", reference.resource)),
    };
    if kind == "limits" && amount.is_zero() {
        // What bounds the container is said: the pod's own limit, or the node (kubelet `defaultPodLimitsForDownwardAPI`).
        amount = qos::own_limit(pod, resource).unwrap_or_else(|| match resource {
            "cpu" => Quantity::from_millis(facts.node_cpu_millis),
            "memory" => Quantity::from_units(facts.node_memory),
            "ephemeral-storage" => Quantity::from_units(facts.node_ephemeral_storage),
            _ => amount,
        });
    }
    let divisor =
        reference.divisor.as_ref().and_then(|quantity| Quantity::parse(&quantity.0).ok()).filter(|d| !d.is_zero());
    let divisor = divisor.unwrap_or(Quantity::from_units(1));
    let up = |value: i64, by: i64| value / by.max(1) + i64::from(value % by.max(1) > 0);
    Ok(if resource == "cpu" { up(amount.millis(), divisor.millis()) } else { up(amount.units(), divisor.units()) }
        .to_string())
}

/// The same as text, for what is text in CRI: commands, arguments and paths.
pub fn expand(text: &str, variables: &Variables) -> String {
    let bytes = expand_bytes(text, variables);
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// Replaces `$(NAME)` by the variable's value; `$$` is a dollar, and a name that is not set stays as it is.
fn expand_bytes(text: &str, variables: &Variables) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push(b'$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match variables.iter().find(|(have, _)| have == name) {
                Some((_, value)) => out.extend_from_slice(value),
                None => ["$(", name, ")"].iter().for_each(|part| out.extend_from_slice(part.as_bytes())),
            }
            rest = after;
        } else {
            out.push(b'$');
        }
    }
    out.extend_from_slice(rest.as_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(container: Value) -> Pod {
        serde_json::from_value(
            json!({"metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"a": "1", "b/c": "x\"y"}},
            "spec": {"nodeName": "node", "containers": [container]}}),
        )
        .unwrap()
    }

    fn objects() -> Objects {
        let map = serde_json::from_value(json!({"data": {"A": "1", "B": "2"}})).unwrap();
        let secret = serde_json::from_value(json!({"data": {"K": "c2VjcmV0", "RAW": "/wD+"}})).unwrap();
        Objects { config_maps: [("c".to_owned(), Some(map))].into(), secrets: [("s".to_owned(), Some(secret))].into() }
    }

    fn env(container: Value) -> Result<Vec<(String, Vec<u8>)>, String> {
        let pod = pod(container);
        let facts = Facts {
            pod_ips: vec!["10.0.0.1".into()],
            host_ip: "192.0.2.1".into(),
            node_cpu_millis: 1500,
            node_memory: 1 << 30,
            ..Facts::default()
        };
        compose(&pod, &pod.spec.as_ref().unwrap().containers[0], &objects(), &facts)
    }

    #[test]
    fn sources_and_expansion() {
        let container = json!({"name": "a", "resources": {"limits": {"memory": "100Mi"}},
            "envFrom": [{"prefix": "P_", "configMapRef": {"name": "c"}}, {"secretRef": {"name": "gone", "optional": true}}],
            "env": [{"name": "X", "value": "$(P_A)-$(NONE)-$$(P_A)-$"}, {"name": "P_B", "value": "own"}, {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "K"}}},
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}, {"name": "L", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['b/c']"}}},
                {"name": "M", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}}, {"name": "C", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
                {"name": "O", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "none", "optional": true}}}, {"name": "Y", "value": "$(X)$(S)"}]});
        let expected = [
            ("P_A", "1"),
            ("P_B", "own"),
            ("X", "1-$(NONE)-$(P_A)-$"),
            ("S", "secret"),
            ("IP", "10.0.0.1"),
            ("L", "x\"y"),
            ("M", "100"),
            ("C", "2"),
            ("Y", "1-$(NONE)-$(P_A)-$secret"),
        ];
        let expected: Vec<_> = expected.map(|(k, v)| (k.to_owned(), v.as_bytes().to_vec())).into();
        assert_eq!(env(container).unwrap(), expected);
    }

    #[test]
    fn values_are_the_bytes_that_they_are() {
        let container = json!({"name": "a", "envFrom": [{"secretRef": {"name": "s"}}], "env": [
            {"name": "ONE", "valueFrom": {"secretKeyRef": {"name": "s", "key": "RAW"}}}, {"name": "IN", "value": "<$(RAW)>"}]});
        let raw = b"\xff\x00\xfe";
        let variables = env(container).unwrap();
        let of = |name: &str| variables.iter().find(|(have, _)| have == name).unwrap().1.clone();
        assert_eq!((of("RAW"), of("ONE"), of("IN")), (raw.to_vec(), raw.to_vec(), [b"<", &raw[..], b">"].concat()));
        assert_eq!(expand("$(ONE)", &variables), "\u{fffd}\0\u{fffd}");
    }

    #[test]
    fn what_is_missing_is_named() {
        let one = |source: Value| env(json!({"name": "a", "env": [{"name": "X", "valueFrom": source}]})).unwrap_err();
        assert_eq!(one(json!({"configMapKeyRef": {"name": "gone", "key": "k"}})), "configmap \"gone\" not found");
        assert_eq!(one(json!({"configMapKeyRef": {"name": "c", "key": "k"}})), "couldn't find key k in ConfigMap n/c");
        assert_eq!(one(json!({"secretKeyRef": {"name": "s", "key": "k"}})), "couldn't find key k in Secret n/s");
        assert!(one(json!({"fieldRef": {"fieldPath": "spec.x"}})).contains("unsupported"));
    }

    #[test]
    fn fields_as_files() {
        assert_eq!(
            field(&pod(json!({"name": "a"})), "metadata.labels", &Facts::default()).unwrap(),
            "a=\"1\"\nb/c=\"x\\\"y\""
        );
    }
}
