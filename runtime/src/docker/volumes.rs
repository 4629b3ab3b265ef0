//! Endpoints of volumes.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Docker,
    http::{Answer, Call, Problem, created, no_content, ok},
    types::Map,
};
use crate::{engine::model::new_id, snapshots::measure, volumes::Volume};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct CreateBody {
    name: String,
    driver: String,
    driver_opts: Map<String>,
    labels: Map<String>,
    cluster_volume_spec: Option<Value>,
}

pub async fn create(mut call: Call) -> Answer {
    let body: CreateBody = call.json().await?;
    if body.cluster_volume_spec.is_some() {
        return Err(Problem::bad("cluster volumes need a swarm, which this node is not part of"));
    }
    if !matches!(body.driver.as_str(), "" | "local") {
        return Err(Problem::not_found(format!(
            "create {}: error looking up volume plugin {1}: plugin \"{1}\" not found",
            body.name, body.driver
        )));
    }
    let anonymous = body.name.is_empty();
    let name = if anonymous { new_id() } else { body.name };
    let mut labels = body.labels;
    if anonymous {
        labels.insert("com.docker.volume.anonymous".into(), String::new());
    }
    let docker = call.docker.clone();
    let made = tokio::task::spawn_blocking(move || -> Result<(Arc<Volume>, bool, Value), Problem> {
        let (volume, fresh) = docker
            .volumes
            .create(&name, body.driver_opts, labels, anonymous)
            .map_err(|error| volume_problem(&name, error))?;
        let value = docker.volume_json(&volume, false);
        Ok((volume, fresh, value))
    });
    let (volume, fresh, value) = made.await.map_err(crate::Error::from)??;
    if fresh {
        call.docker.tell_volume(&volume.name, "create");
    }
    created(&value)
}

/// The volume's name before what is wrong with it.
fn volume_problem(name: &str, error: crate::Error) -> Problem {
    let prefix = format!("create {name}: ");
    let named = error.to_string().starts_with(&prefix);
    Problem::from(if named { error } else { error.context(prefix.trim_end_matches(": ")) })
}

const FILTERS: [&str; 5] = ["name", "driver", "dangling", "label", "label!"];

pub async fn list(call: Call) -> Answer {
    let filters = call.query.filters(&FILTERS)?;
    let dangling = filters.truth("dangling")?;
    let volumes: Vec<Value> = call
        .docker
        .volumes
        .list()
        .iter()
        .filter(|volume| {
            filters.any("name", |part| volume.name.contains(part))
                && filters.any("driver", |driver| driver == "local")
                && filters.labels(&volume.labels)
                && dangling.is_none_or(|dangling| call.docker.volume_users(&volume.name).is_empty() == dangling)
        })
        .map(|volume| call.docker.volume_json(volume, false))
        .collect();
    ok(&json!({ "Volumes": volumes, "Warnings": null }))
}

pub async fn inspect(call: Call) -> Answer {
    let volume = call.docker.find_volume(call.name())?;
    ok(&call.docker.volume_json(&volume, false))
}

pub async fn remove(call: Call) -> Answer {
    let (name, force) = (call.name().to_owned(), call.query.flag("force"));
    let volume = match call.docker.find_volume(&name) {
        Err(_) if force => return no_content(),
        found => found?,
    };
    let users = call.docker.volume_users(&volume.name);
    if !users.is_empty() {
        return Err(Problem::conflict(format!("remove {name}: volume is in use - [{}]", users.join(", "))));
    }
    let docker = call.docker.clone();
    let removed = tokio::task::spawn_blocking(move || docker.volumes.remove(&volume.name));
    removed.await.map_err(crate::Error::from)??;
    call.docker.tell_volume(&name, "destroy");
    no_content()
}

pub async fn prune(call: Call) -> Answer {
    let filters = call.query.filters(&["label", "label!", "all"])?;
    // Since 1.42 volumes that somebody named stay unless `all` is given.
    let all = call.version < 42 || filters.truth("all")?.unwrap_or(false);
    let docker = call.docker.clone();
    let work = tokio::task::spawn_blocking(move || {
        let (mut deleted, mut reclaimed) = (Vec::new(), 0);
        for volume in docker.volumes.list() {
            let wanted = (all || volume.anonymous) && filters.labels(&volume.labels);
            if !wanted || !docker.volume_users(&volume.name).is_empty() {
                continue;
            }
            let size = measure(&docker.volumes.mountpoint(&volume.name)).content;
            // One that is taken into use meanwhile stays.
            if docker.volumes.remove(&volume.name).is_ok() {
                docker.tell_volume(&volume.name, "destroy");
                deleted.push(volume.name.clone());
                reclaimed += size;
            }
        }
        (deleted, reclaimed)
    });
    let (deleted, reclaimed) = work.await.map_err(crate::Error::from)?;
    call.docker.events.tell("volume", "prune", "", [("reclaimed".to_owned(), reclaimed.to_string())].into());
    ok(&json!({ "VolumesDeleted": deleted, "SpaceReclaimed": reclaimed }))
}

impl Docker {
    fn find_volume(&self, name: &str) -> Result<Arc<Volume>, Problem> {
        self.volumes.get(name).ok_or_else(|| Problem::not_found(format!("get {name}: no such volume")))
    }

    pub fn tell_volume(&self, name: &str, action: &str) {
        self.events.tell("volume", action, name, [("driver".to_owned(), "local".to_owned())].into());
    }

    pub fn volume_json(&self, volume: &Volume, usage: bool) -> Value {
        let path = self.volumes.mountpoint(&volume.name);
        let none = |map: &Map<String>| if map.is_empty() { Value::Null } else { json!(map) };
        let mut out = json!({
            "CreatedAt": volume.created,
            "Driver": "local",
            "Labels": none(&volume.labels),
            "Mountpoint": path,
            "Name": volume.name,
            "Options": none(&volume.options),
            "Scope": "local",
        });
        if usage {
            out["UsageData"] =
                json!({ "Size": measure(&path).content, "RefCount": self.volume_users(&volume.name).len() });
        }
        out
    }
}
