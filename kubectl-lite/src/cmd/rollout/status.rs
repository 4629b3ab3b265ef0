//! How far a rollout is (k8s.io/kubectl/pkg/polymorphichelpers/rollout_status.go).

use coracle_api::json::Value;
use coracle_api::meta;
use futures::StreamExt;
use http_body_util::BodyExt;

use super::REVISION;
use crate::{
    cmd::get::encode,
    discovery::Resource,
    error::{Error, Result},
    session::{JSON, Session},
};

/// Prints how the rollout goes, and follows it until it is done.
pub async fn follow(session: &Session, resource: &Resource, object: &Value, watch: bool, revision: i64) -> Result<()> {
    let mut told = String::new();
    if tell(resource, object, revision, &mut told)? || !watch {
        return Ok(());
    }
    let name = meta::name(object);
    let mut version = meta::resource_version(object).to_owned();
    loop {
        let path = resource.path(Some(session.namespace()));
        let query = format!(
            "{path}?watch=true&fieldSelector={}&resourceVersion={}",
            encode(&format!("metadata.name={name}")),
            encode(&version)
        );
        let mut stream = session.stream(&query, JSON).await?.into_data_stream();
        let mut buffer: Vec<u8> = Vec::new();
        while let Some(Ok(piece)) = stream.next().await {
            buffer.extend_from_slice(&piece);
            while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let event: Value = serde_json::from_slice(&buffer.drain(..=end).collect::<Vec<u8>>())?;
                match event["type"].as_str() {
                    Some("DELETED") => return Err(Error::usage("object has been deleted")),
                    Some("ADDED" | "MODIFIED") if tell(resource, &event["object"], revision, &mut told)? => {
                        return Ok(());
                    }
                    _ => {}
                }
            }
        }
        // The watch ended, as watches do: look again, and go on from there.
        let current = session.get(&resource.object_path(session.namespace(), name)).await?;
        version = meta::resource_version(&current).to_owned();
        if tell(resource, &current, revision, &mut told)? {
            return Ok(());
        }
    }
}

/// Prints the state unless it was told already; true when the rollout is done.
fn tell(resource: &Resource, object: &Value, revision: i64, told: &mut String) -> Result<bool> {
    let (message, done) = match resource.kind.as_str() {
        "StatefulSet" => stateful_set(object)?,
        "DaemonSet" => daemon_set(object)?,
        _ => state(object, revision)?,
    };
    if message != *told {
        println!("{message}");
        *told = message;
    }
    Ok(done)
}

fn state(object: &Value, revision: i64) -> Result<(String, bool)> {
    let name = meta::name(object);
    if revision > 0 {
        let current = meta::annotation(object, REVISION).and_then(|text| text.parse().ok()).unwrap_or(0);
        if current != revision {
            return Err(Error::usage(format!(
                "desired revision ({revision}) is different from the running revision ({current})"
            )));
        }
    }
    let status = &object["status"];
    let count = |field: &str| status[field].as_i64().unwrap_or(0);
    if meta::generation(object) > count("observedGeneration") {
        return Ok(("Waiting for deployment spec update to be observed...".into(), false));
    }
    let progressing =
        status["conditions"].as_array().into_iter().flatten().find(|condition| condition["type"] == "Progressing");
    if progressing.is_some_and(|condition| condition["reason"] == "ProgressDeadlineExceeded") {
        return Err(Error::usage(format!("deployment \"{name}\" exceeded its progress deadline")));
    }
    let wanted = object["spec"]["replicas"].as_i64().unwrap_or(1);
    let (updated, replicas, available) = (count("updatedReplicas"), count("replicas"), count("availableReplicas"));
    let waiting = format!("Waiting for deployment \"{name}\" rollout to finish: ");
    Ok(if updated < wanted {
        (format!("{waiting}{updated} out of {wanted} new replicas have been updated..."), false)
    } else if replicas > updated {
        (format!("{waiting}{} old replicas are pending termination...", replicas - updated), false)
    } else if available < updated {
        (format!("{waiting}{available} of {updated} updated replicas are available..."), false)
    } else {
        (format!("deployment \"{name}\" successfully rolled out"), true)
    })
}

fn require_rolling_update(object: &Value) -> Result<()> {
    match object["spec"]["updateStrategy"]["type"].as_str() {
        Some("RollingUpdate") => Ok(()),
        _ => Err(Error::usage("rollout status is only available for RollingUpdate strategy type")),
    }
}

fn stateful_set(object: &Value) -> Result<(String, bool)> {
    require_rolling_update(object)?;
    let (spec, status) = (&object["spec"], &object["status"]);
    let count = |field: &str| status[field].as_i64().unwrap_or(0);
    if count("observedGeneration") == 0 || meta::generation(object) > count("observedGeneration") {
        return Ok(("Waiting for statefulset spec update to be observed...".into(), false));
    }
    let wanted = spec["replicas"].as_i64().unwrap_or(1);
    let (ready, updated) = (count("readyReplicas"), count("updatedReplicas"));
    if ready < wanted {
        return Ok((format!("Waiting for {} pods to be ready...", wanted - ready), false));
    }
    if let Some(rolling) = spec["updateStrategy"]["rollingUpdate"].as_object() {
        let due = wanted - rolling.get("partition").and_then(Value::as_i64).unwrap_or(0);
        return Ok(if updated < due {
            let waiting = "Waiting for partitioned roll out to finish";
            (format!("{waiting}: {updated} out of {due} new pods have been updated..."), false)
        } else {
            (format!("partitioned roll out complete: {updated} new pods have been updated..."), true)
        });
    }
    let revision = |field: &str| status[field].as_str().unwrap_or_default();
    let (current, update) = (revision("currentRevision"), revision("updateRevision"));
    Ok(if current == update {
        let pods = count("currentReplicas");
        (format!("statefulset rolling update complete {pods} pods at revision {current}..."), true)
    } else {
        let waiting = "waiting for statefulset rolling update to complete";
        (format!("{waiting} {updated} pods at revision {update}..."), false)
    })
}

fn daemon_set(object: &Value) -> Result<(String, bool)> {
    require_rolling_update(object)?;
    let (name, status) = (meta::name(object), &object["status"]);
    let count = |field: &str| status[field].as_i64().unwrap_or(0);
    if meta::generation(object) > count("observedGeneration") {
        return Ok(("Waiting for daemon set spec update to be observed...".into(), false));
    }
    let (wanted, updated) = (count("desiredNumberScheduled"), count("updatedNumberScheduled"));
    let available = count("numberAvailable");
    let waiting = format!("Waiting for daemon set \"{name}\" rollout to finish: ");
    Ok(if updated < wanted {
        (format!("{waiting}{updated} out of {wanted} new pods have been updated..."), false)
    } else if available < wanted {
        (format!("{waiting}{available} of {wanted} updated pods are available..."), false)
    } else {
        (format!("daemon set \"{name}\" successfully rolled out"), true)
    })
}

#[cfg(test)]
mod tests {
    use coracle_api::json::json;

    use super::*;

    #[test]
    fn stateful_and_daemon_sets_have_words_of_their_own() {
        let set = |ready: i64, updated: i64, partition: i64| {
            json!({
                "metadata": {"name": "db", "generation": 2},
                "spec": {"replicas": 3, "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": partition}}},
                "status": {"observedGeneration": 2, "readyReplicas": ready, "updatedReplicas": updated},
            })
        };
        for (object, expected, done) in [
            (set(1, 0, 0), "Waiting for 2 pods to be ready...", false),
            (
                set(3, 1, 1),
                "Waiting for partitioned roll out to finish: 1 out of 2 new pods have been updated...",
                false,
            ),
            (set(3, 3, 0), "partitioned roll out complete: 3 new pods have been updated...", true),
        ] {
            assert_eq!(stateful_set(&object).unwrap(), (expected.to_owned(), done));
        }
        let mut on_delete = set(3, 3, 0);
        on_delete["spec"]["updateStrategy"] = json!({"type": "OnDelete"});
        let refused = stateful_set(&on_delete).unwrap_err().to_string();
        assert_eq!(refused, "error: rollout status is only available for RollingUpdate strategy type");
        let daemons = json!({
            "metadata": {"name": "agent", "generation": 1}, "spec": {"updateStrategy": {"type": "RollingUpdate"}},
            "status": {"observedGeneration": 1, "desiredNumberScheduled": 2, "updatedNumberScheduled": 2, "numberAvailable": 1},
        });
        let waiting = "Waiting for daemon set \"agent\" rollout to finish: 1 of 2 updated pods are available...";
        assert_eq!(daemon_set(&daemons).unwrap(), (waiting.to_owned(), false));
    }

    #[test]
    fn a_rollout_is_told_in_order() {
        let deployment = |observed: i64, updated: i64, replicas: i64, available: i64| {
            json!({
                "metadata": {"name": "web", "generation": 2}, "spec": {"replicas": 3},
                "status": {"observedGeneration": observed, "updatedReplicas": updated, "replicas": replicas, "availableReplicas": available},
            })
        };
        for (object, expected, done) in [
            (deployment(1, 3, 3, 3), "Waiting for deployment spec update to be observed...", false),
            (
                deployment(2, 1, 3, 3),
                "Waiting for deployment \"web\" rollout to finish: 1 out of 3 new replicas have been updated...",
                false,
            ),
            (
                deployment(2, 3, 4, 3),
                "Waiting for deployment \"web\" rollout to finish: 1 old replicas are pending termination...",
                false,
            ),
            (
                deployment(2, 3, 3, 2),
                "Waiting for deployment \"web\" rollout to finish: 2 of 3 updated replicas are available...",
                false,
            ),
            (deployment(2, 3, 3, 3), "deployment \"web\" successfully rolled out", true),
        ] {
            assert_eq!(state(&object, 0).unwrap(), (expected.to_owned(), done));
        }
        let mut late = deployment(2, 1, 3, 3);
        late["status"]["conditions"] = json!([{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}]);
        assert_eq!(
            state(&late, 0).unwrap_err().to_string(),
            "error: deployment \"web\" exceeded its progress deadline"
        );
    }
}
