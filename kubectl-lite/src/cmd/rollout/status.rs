//! How far a deployment's rollout is (k8s.io/kubectl/pkg/polymorphichelpers/rollout_status.go).

use coracle_api::meta;
use futures::StreamExt;
use http_body_util::BodyExt;
use serde_json::Value;

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
    if tell(object, revision, &mut told)? || !watch {
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
                    Some("ADDED" | "MODIFIED") if tell(&event["object"], revision, &mut told)? => return Ok(()),
                    _ => {}
                }
            }
        }
        // The watch ended, as watches do: look again, and go on from there.
        let current = session.get(&resource.object_path(session.namespace(), name)).await?;
        version = meta::resource_version(&current).to_owned();
        if tell(&current, revision, &mut told)? {
            return Ok(());
        }
    }
}

/// Prints the state unless it was told already; true when the rollout is done.
fn tell(object: &Value, revision: i64, told: &mut String) -> Result<bool> {
    let (message, done) = state(object, revision)?;
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
