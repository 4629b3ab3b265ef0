//! From what the user names to one pod and one container of it.

use coracle_api::json::Value;
use coracle_api::{meta, selector::LabelSelector};

use crate::{
    cmd::get::{encode, select},
    error::{Error, Result},
    session::Session,
    targets,
};

/// The pod called `resource`, or the best one of TYPE/NAME: of several the newest that is ready.
pub async fn of(session: &Session, resource: &str, doing: &str) -> Result<Value> {
    let pods = session.discovery().await?.find("pods")?.clone();
    if !resource.contains('/') {
        return session.get(&pods.object_path(session.namespace(), resource)).await;
    }
    let targets = targets::parse(session, &[resource.to_owned()]).await?;
    let (kind, object) = select(session, &targets, None, false).await?.remove(0);
    if kind.kind == "Pod" {
        return Ok(object);
    }
    let selector = &object["spec"]["selector"];
    if !selector.is_object() {
        return Err(Error::usage(format!("cannot {doing} {}: selector is missing", kind.qualified_plural())));
    }
    let path = format!("{}?labelSelector={}", pods.path(Some(session.namespace())), encode(&selector_text(selector)?));
    let mut list = session.get(&path).await?;
    let mut found = list["items"].as_array_mut().map(std::mem::take).unwrap_or_default();
    if found.is_empty() {
        return Err(Error::usage(format!("timed out waiting for the condition: no pods of {resource}")));
    }
    // Of several the best to read is the newest that runs (upstream's ActivePods order, the other way round).
    found.sort_by_key(|pod| {
        let newest = std::cmp::Reverse(meta::creation_timestamp(pod).to_owned());
        (!is_ready(pod), meta::deletion_timestamp(pod).is_some(), newest)
    });
    if found.len() > 1 {
        eprintln!("Found {} pods, using pod/{}", found.len(), meta::name(&found[0]));
    }
    Ok(found.swap_remove(0))
}

/// The container that is meant: the one that is named, else the pod's default one, which is said unless `quiet`.
pub fn container(pod: &Value, named: Option<&str>, quiet: bool) -> Result<String> {
    let names = |list: &str| -> Vec<String> {
        let containers = pod["spec"][list].as_array().into_iter().flatten();
        containers.filter_map(|container| container["name"].as_str()).map(str::to_owned).collect()
    };
    let (main, init, ephemeral) = (names("containers"), names("initContainers"), names("ephemeralContainers"));
    if let Some(named) = named {
        let known = main.iter().chain(&init).chain(&ephemeral).any(|name| name == named);
        let unknown = || Error::usage(format!("container {named} is not valid for pod {}", meta::name(pod)));
        return if known { Ok(named.to_owned()) } else { Err(unknown()) };
    }
    let default = meta::annotation(pod, "kubectl.kubernetes.io/default-container")
        .filter(|name| main.iter().any(|it| it == name));
    let chosen = default.map(str::to_owned).or_else(|| main.first().cloned());
    let chosen = chosen.ok_or_else(|| Error::usage(format!("pod {} has no containers", meta::name(pod))))?;
    if main.len() > 1 && default.is_none() && !quiet {
        let init = init.iter().map(|name| format!("{name} (init)"));
        let ephemeral = ephemeral.iter().map(|name| format!("{name} (ephem)"));
        let all: Vec<_> = main.iter().cloned().chain(ephemeral).chain(init).collect();
        eprintln!("Defaulted container \"{chosen}\" out of: {}", all.join(", "));
    }
    Ok(chosen)
}

fn is_ready(pod: &Value) -> bool {
    let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// A selector as text, from a metav1 selector or a plain map (services, replication controllers).
fn selector_text(selector: &Value) -> Result<String> {
    let plain = selector.get("matchLabels").is_none() && selector.get("matchExpressions").is_none();
    let selector = if plain { coracle_api::json::json!({"matchLabels": selector}) } else { selector.clone() };
    let parsed = LabelSelector::from_json(&selector).map_err(|error| Error::usage(error.to_string()))?;
    Ok(parsed.to_string())
}

#[cfg(test)]
mod tests {
    use coracle_api::json::json;

    use super::*;

    #[test]
    fn the_default_container_is_the_annotated_or_the_first() {
        let mut pod = json!({"metadata": {"name": "p"}, "spec": {
            "containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}});
        assert_eq!(container(&pod, None, true).unwrap(), "a");
        assert_eq!(container(&pod, Some("i"), true).unwrap(), "i");
        let unknown = container(&pod, Some("x"), true).unwrap_err().to_string();
        assert_eq!(unknown, "error: container x is not valid for pod p");
        pod["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/default-container": "b"});
        assert_eq!(container(&pod, None, true).unwrap(), "b");
    }
}
