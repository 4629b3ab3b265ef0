//! Removal: one container, those that ended, and containers that remove themselves.

use std::sync::Arc;

use serde_json::json;

use super::{
    super::{
        Docker,
        http::{Answer, Call, Problem, no_content, ok},
        metrics::Action,
    },
    Container,
};

pub async fn remove(call: Call) -> Answer {
    let (volumes, force, link) = (call.query.flag("v"), call.query.flag("force"), call.query.flag("link"));
    if link {
        return Err(Problem::bad("removing a link is not supported by this engine: remove the container"));
    }
    let container = call.docker.container(call.name())?;
    let docker = call.docker.clone();
    let work = async move { docker.remove(&container, force, volumes).await };
    tokio::spawn(work).await.map_err(crate::Error::from)??;
    no_content()
}

pub async fn prune(call: Call) -> Answer {
    let filters = call.query.filters(&["until", "label", "label!"])?;
    let until = super::super::system::until(&filters)?;
    let (mut deleted, mut reclaimed) = (Vec::new(), 0);
    for container in call.docker.store.all() {
        let old = until.is_none_or(|until| container.with(|record| record.created) < until);
        let fits = old && container.with(|record| filters.labels(&record.config.labels));
        if !fits || !matches!(container.status(), "created" | "exited" | "dead") {
            continue;
        }
        let size = call.docker.engine.writable_usage(&container.engine).content;
        // One that is started or removed by somebody else meanwhile is left to them.
        if call.docker.remove(&container, false, false).await.is_ok() {
            reclaimed += size;
            deleted.push(container.id.clone());
        }
    }
    call.docker.events.tell("container", "prune", "", [("reclaimed".to_owned(), reclaimed.to_string())].into());
    ok(&json!({ "ContainersDeleted": deleted, "SpaceReclaimed": reclaimed }))
}

impl Docker {
    /// Removes a container, with `force` also one that runs, with `volumes` also its anonymous volumes.
    pub async fn remove(
        self: &Arc<Docker>,
        container: &Arc<Container>,
        force: bool,
        volumes: bool,
    ) -> Result<(), Problem> {
        let name = container.name();
        let status = container.status();
        let runs = matches!(status, "running" | "paused" | "restarting");
        if runs && !force {
            let hint = if status == "paused" {
                "container is paused and must be unpaused first"
            } else {
                "container is running: stop the container before removing or force remove"
            };
            return Err(Problem::conflict(format!("cannot remove container \"/{name}\": {hint}")));
        }
        if container.pod {
            // The kubelet makes it again.
            return Ok(self.engine.remove_container(&container.id).await?);
        }
        {
            let mut live = container.live.lock();
            if live.removing {
                return Err(Problem::conflict(format!("removal of container {name} is already in progress")));
            }
            live.removing = true;
            live.stop_requested = true;
            if let Some(waiting) = live.waiting.take() {
                waiting.cancel();
            }
        }
        let removed = self.remove_marked(container, force, volumes).await;
        if removed.is_err() {
            container.live.lock().removing = false;
        }
        removed
    }

    async fn remove_marked(
        self: &Arc<Docker>,
        container: &Arc<Container>,
        force: bool,
        volumes: bool,
    ) -> Result<(), Problem> {
        let began = std::time::Instant::now();
        let mut changing = None;
        // A start by policy that is under way ends with a container that runs; marked as it is, there is no other.
        for _ in 0..2 {
            if container.runs() && force {
                self.kill_to_remove(container).await?;
            }
            let held = container.changing.lock().await;
            if !force || !container.runs() {
                changing = Some(held);
                break;
            }
        }
        if changing.is_none() || container.runs() {
            return Err(Problem::conflict(format!(
                "cannot remove container \"/{}\": container is running: stop the container before removing or force remove",
                container.name()
            )));
        }
        self.give_back(container).await;
        self.release_addresses(container);
        self.engine
            .remove_standalone(&container.engine)
            .await
            .map_err(|error| Problem::internal(format!("unable to remove filesystem for {}: {error}", container.id)))?;
        self.store.remove(container);
        self.drop_execs(&container.id);
        if volumes {
            self.remove_anonymous_volumes(container);
        }
        self.tell(container, "destroy");
        self.metrics.did(Action::Delete, began);
        container.moments.send_modify(|moments| moments.removed = true);
        Ok(())
    }

    async fn kill_to_remove(self: &Arc<Docker>, container: &Arc<Container>) -> Result<(), Problem> {
        if container.live.lock().paused {
            self.engine.freeze(&container.engine, false).await?;
        }
        self.tell_with(container, "kill", &[("signal", libc::SIGKILL.to_string())]);
        self.engine.kill_container(&container.engine).await?;
        super::lifecycle::wait_ended(self, container).await;
        Ok(())
    }

    /// `--rm`
    pub async fn remove_after_end(self: &Arc<Docker>, container: &Arc<Container>) {
        if let Err(problem) = self.remove(container, false, true).await {
            tracing::warn!(
                container = container.id,
                error = problem.message,
                "a container could not be removed after its end"
            );
            // Waiters must not wait for ever.
            container.moments.send_modify(|moments| moments.removed = true);
        }
    }

    fn remove_anonymous_volumes(&self, container: &Container) {
        for point in container.with(|record| record.mounts.clone()) {
            let anonymous = self.volumes.get(&point.name).is_some_and(|volume| volume.anonymous);
            if point.kind == "volume" && anonymous && self.volume_users(&point.name).is_empty() {
                match self.volumes.remove(&point.name) {
                    Ok(()) => self.events.tell(
                        "volume",
                        "destroy",
                        &point.name,
                        [("driver".to_owned(), "local".to_owned())].into(),
                    ),
                    Err(error) => tracing::warn!(volume = point.name, %error, "an anonymous volume stays"),
                }
            }
        }
    }

    /// The containers that name a volume.
    pub fn volume_users(&self, name: &str) -> Vec<String> {
        let uses = |container: &Arc<Container>| {
            container.with(|record| record.mounts.iter().any(|point| point.kind == "volume" && point.name == name))
        };
        self.store.all().into_iter().filter(uses).map(|container| container.id.clone()).collect()
    }
}
