//! Deployments and replica sets.

use coracle_api::json::Value;
use coracle_api::{meta, selector::LabelSelector};

use super::{Text, moment, pod_template, text};
use crate::{error::Result, session::Session};

const REVISION: &str = "deployment.kubernetes.io/revision";

/// A deployment with its replica sets.
pub async fn deployment(session: &Session, object: &Value) -> Result<String> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let count = |field: &str| status[field].as_i64().unwrap_or(0);
    let mut out = Text::new();
    out.head(object);
    out.line(0, "CreationTimestamp", moment(&object["metadata"]["creationTimestamp"]));
    out.labels(object);
    out.line(0, "Selector", selector(&spec["selector"]));
    out.line(
        0,
        "Replicas",
        format!(
            "{} desired | {} updated | {} total | {} available | {} unavailable",
            spec["replicas"].as_i64().unwrap_or(1),
            count("updatedReplicas"),
            count("replicas"),
            count("availableReplicas"),
            count("unavailableReplicas")
        ),
    );
    out.line(0, "StrategyType", text(&spec["strategy"]["type"]));
    out.line(0, "MinReadySeconds", spec["minReadySeconds"].as_i64().unwrap_or(0));
    let rolling = &spec["strategy"]["rollingUpdate"];
    if rolling.is_object() {
        let (unavailable, surge) = (text(&rolling["maxUnavailable"]), text(&rolling["maxSurge"]));
        out.line(0, "RollingUpdateStrategy", format!("{unavailable} max unavailable, {surge} max surge"));
    }
    let mut text = out.into_string();
    text.push_str(&pod_template(&spec["template"], "Pod Template:", None));
    let mut out = Text::new();
    out.conditions(object, true);
    let (old, new) = replica_sets(session, object).await?;
    out.line(0, "OldReplicaSets", old).line(0, "NewReplicaSet", new);
    text.push_str(&out.into_string());
    Ok(text)
}

/// The old replica sets that have pods or had, and the new one, as one line each.
async fn replica_sets(session: &Session, deployment: &Value) -> Result<(String, String)> {
    let resource = session.discovery().await?.find("replicasets.apps")?;
    let list = session.get(&resource.path(Some(meta::namespace(deployment)))).await?;
    let revision = meta::annotation(deployment, REVISION);
    let (mut old, mut new) = (Vec::new(), None);
    for set in list["items"].as_array().into_iter().flatten() {
        if meta::controller(set).is_none_or(|owner| owner.uid != meta::uid(deployment)) {
            continue;
        }
        let (made, wanted) =
            (set["status"]["replicas"].as_i64().unwrap_or(0), set["spec"]["replicas"].as_i64().unwrap_or(0));
        let line = format!("{} ({made}/{wanted} replicas created)", meta::name(set));
        if meta::annotation(set, REVISION) == revision { new = Some(line) } else { old.push(line) }
    }
    let old = if old.is_empty() { "<none>".into() } else { old.join(", ") };
    Ok((old, new.unwrap_or_else(|| "<none>".into())))
}

/// A replica set.
pub fn replica_set(object: &Value) -> String {
    let (spec, status) = (&object["spec"], &object["status"]);
    let mut out = Text::new();
    out.head(object);
    out.line(0, "Selector", selector(&spec["selector"]));
    out.labels(object);
    if let Some(owner) = meta::controller(object) {
        out.line(0, "Controlled By", format!("{}/{}", owner.kind, owner.name));
    }
    let (current, wanted) = (status["replicas"].as_i64().unwrap_or(0), spec["replicas"].as_i64().unwrap_or(1));
    out.line(0, "Replicas", format!("{current} current / {wanted} desired"));
    let mut text = out.into_string();
    text.push_str(&pod_template(&spec["template"], "Pod Template:", None));
    let mut out = Text::new();
    out.conditions(object, true);
    text.push_str(&out.into_string());
    text
}

fn selector(selector: &Value) -> String {
    let parsed = LabelSelector::from_json(selector).map(|parsed| parsed.to_string());
    parsed.ok().filter(|text| !text.is_empty()).unwrap_or_else(|| "<none>".into())
}
