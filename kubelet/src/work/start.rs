//! Starting a container: image, environment, mounts, creation, start, postStart hook.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use coracle_client::EventType;
use coracle_cri::{ContainerConfig, CreateContainerRequest, ImageSpec, KeyValue, Mount};
use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::{Shared, Trouble, sandbox, sandbox_config, stop, users};
use crate::allocation;
use crate::observed::{Observed, annotation, label};
use crate::pod::{self, env, hosts, security};
use crate::volumes::{self, MountRequest};
use crate::{images, objects};

/// Starts a container in the pod's sandbox.
///
/// # Errors
/// The reason is what the container's status waits for: `ErrImagePull`, `CreateContainerConfigError`,
/// `CreateContainerError`, `RunContainerError`, `PostStartHookError`.
pub async fn start(
    shared: Arc<Shared>,
    pod: Arc<Pod>,
    observed: Arc<Observed>,
    container: Container,
    attempt: u32,
) -> Result<(), Trouble> {
    let Some(sandbox) = observed.sandbox() else {
        return Err(Trouble::new("CreateContainerError", "the pod has no sandbox"));
    };
    let mut sandbox_config = sandbox_config(&shared, &pod, sandbox.attempt);
    let users = users_of(&shared, &pod).await.map_err(|message| Trouble::new("CreateContainerConfigError", message))?;
    sandbox::set_users(&mut sandbox_config, users.clone());
    let image = images::ensure(&shared, &pod, &container, &sandbox_config).await?;
    let failed = |reason: &'static str, message: String| {
        shared.tell(&pod, Some(&container.name), EventType::Warning, "Failed", &format!("Error: {message}"));
        Trouble::new(reason, message)
    };
    let volumes = volume_images(&shared, &pod, &container, &sandbox_config).await?;
    let config = config(&shared, &pod, &observed, &container, attempt, &image, volumes).await;
    let mut config = config.map_err(|message| failed("CreateContainerConfigError", message))?;
    let security = config.linux.as_mut().and_then(|linux| linux.security_context.as_mut());
    if let Some(namespaces) = security.and_then(|security| security.namespace_options.as_mut()) {
        // As the sandbox has them: runtimes take it that a container which names none is in the node's.
        namespaces.userns_options = users;
    }
    let request = CreateContainerRequest {
        pod_sandbox_id: sandbox.id.clone(),
        config: Some(config),
        sandbox_config: Some(sandbox_config),
    };
    let created = shared.cri.create_container(request).await;
    let id = created.map_err(|error| failed("CreateContainerError", error.to_string()))?.container_id;
    shared.tell(
        &pod,
        Some(&container.name),
        EventType::Normal,
        "Created",
        &format!("Created container: {}", container.name),
    );
    let started = shared.cri.start_container(cri::StartContainerRequest { container_id: id.clone() }).await;
    started.map_err(|error| failed("RunContainerError", error.to_string()))?;
    shared.tell(
        &pod,
        Some(&container.name),
        EventType::Normal,
        "Started",
        &format!("Started container {}", container.name),
    );
    post_start(&shared, &pod, &observed, &container, &id).await
}

/// The users of a pod's own, where it has such; files are read then.
async fn users_of(shared: &Arc<Shared>, pod: &Arc<Pod>) -> Result<Option<cri::UserNamespace>, String> {
    if pod::spec(pod).host_users != Some(false) {
        return Ok(None);
    }
    let (shared, pod) = (shared.clone(), pod.clone());
    let found = tokio::task::spawn_blocking(move || users::of(&shared.paths, &pod)).await;
    found.map_err(|error| error.to_string())?
}

/// Pulls the images that the container mounts as volumes; their ids by the volumes' names.
async fn volume_images(
    shared: &Shared,
    pod: &Pod,
    container: &Container,
    sandbox: &cri::PodSandboxConfig,
) -> Result<BTreeMap<String, String>, Trouble> {
    let mut out = BTreeMap::new();
    for volume in pod::spec(pod).volumes.iter().flatten() {
        let mounted = container.volume_mounts.iter().flatten().any(|mount| mount.name == volume.name);
        let Some(source) = volume.image.as_ref().filter(|_| mounted) else { continue };
        // Pulled by the same rules as a container's, and told of as the container's that waits for it.
        let wanted = Container {
            name: container.name.clone(),
            image: source.reference.clone(),
            image_pull_policy: source.pull_policy.clone(),
            ..Container::default()
        };
        out.insert(volume.name.clone(), images::ensure(shared, pod, &wanted, sandbox).await?.id);
    }
    Ok(out)
}

async fn post_start(
    shared: &Shared,
    pod: &Pod,
    observed: &Observed,
    container: &Container,
    id: &str,
) -> Result<(), Trouble> {
    let Some(hook) = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref()) else {
        return Ok(());
    };
    let address = shared.facts(pod, observed).pod_ips.into_iter().next();
    let Err(why) = stop::run_hook(shared, hook, container, id, address.as_deref(), None).await else { return Ok(()) };
    let message = format!("PostStartHook failed: {why}");
    shared.tell(pod, Some(&container.name), EventType::Warning, "FailedPostStartHook", &message);
    let message = "FailedPostStartHook".to_owned();
    if let Err(error) = stop::stop(shared, pod, observed, id, &container.name, &message, pod::grace(pod)).await {
        tracing::warn!(container = container.name, error, "the container could not be stopped after its hook failed");
    }
    Err(Trouble::new("PostStartHookError", why))
}

/// Everything the runtime needs to know.
async fn config(
    shared: &Arc<Shared>,
    pod: &Arc<Pod>,
    observed: &Observed,
    container: &Container,
    attempt: u32,
    image: &images::Ready,
    volumes: BTreeMap<String, String>,
) -> Result<ContainerConfig, String> {
    let mut security = security::of_container(pod, container, &image.user)?;
    if let Some(target) = target(pod, observed, container)? {
        let options = security.namespace_options.get_or_insert_default();
        options.pid = cri::NamespaceMode::Target as i32;
        options.target_id = target;
    }
    let facts = shared.facts(pod, observed);
    let objects = objects::fetch(&shared.client, pod::namespace(pod), &env::references(container)).await?;
    let environment = env::compose(pod, container, &objects, &facts)?;
    let mounts = mounts(shared, pod, container, attempt, environment.clone(), facts.pod_ips, volumes).await?;
    let expanded =
        |list: &Option<Vec<String>>| list.iter().flatten().map(|text| env::expand(text, &environment)).collect();
    let wanted = images::with_tag(container.image.as_deref().unwrap_or_default());
    Ok(ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: container.name.clone(), attempt }),
        image: Some(ImageSpec { image: image.id.clone(), user_specified_image: wanted, ..Default::default() }),
        command: expanded(&container.command),
        args: expanded(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        mounts,
        labels: labels(pod, container),
        annotations: annotations(pod, container, attempt),
        log_path: format!("{}/{attempt}.log", container.name),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty: container.tty == Some(true),
        linux: Some(cri::LinuxContainerConfig {
            resources: Some(shared.resources_of(pod, container)),
            security_context: Some(security),
        }),
        envs: environment.into_iter().map(|(key, value)| KeyValue { key, value: value.into() }).collect(),
        ..Default::default()
    })
}

/// The run whose processes an ephemeral container is to see, if it names one.
fn target(pod: &Pod, observed: &Observed, container: &Container) -> Result<Option<String>, String> {
    let ephemeral = pod::ephemeral(pod).iter().find(|one| one.name == container.name);
    let Some(name) = ephemeral.and_then(|one| one.target_container_name.as_deref()).filter(|name| !name.is_empty())
    else {
        return Ok(None);
    };
    let running = observed.latest(name).filter(|latest| latest.running());
    running.map(|latest| Some(latest.id.clone())).ok_or_else(|| format!("unable to find target container {name}"))
}

fn labels(pod: &Pod, container: &Container) -> HashMap<String, String> {
    let pairs = [
        (label::POD_NAME, pod::name(pod)),
        (label::POD_NAMESPACE, pod::namespace(pod)),
        (label::POD_UID, pod::uid(pod)),
        (label::CONTAINER_NAME, &container.name),
    ];
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn annotations(pod: &Pod, container: &Container, attempt: u32) -> HashMap<String, String> {
    let path = container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
    let policy = container.termination_message_policy.as_deref().unwrap_or("File");
    let pairs = [
        (annotation::HASH, pod::definition_hash(container)),
        (annotation::RESTART_COUNT, attempt.to_string()),
        (annotation::TERMINATION_PATH, path.to_owned()),
        (annotation::TERMINATION_POLICY, policy.to_owned()),
        (annotation::GRACE, pod::grace(pod).to_string()),
    ];
    let resources = allocation::annotation(pod, &container.name).map(|text| (annotation::RESOURCES, text));
    pairs.into_iter().chain(resources).map(|(key, value)| (key.to_owned(), value)).collect()
}

async fn mounts(
    shared: &Arc<Shared>,
    pod: &Arc<Pod>,
    container: &Container,
    attempt: u32,
    environment: Vec<(String, Vec<u8>)>,
    addresses: Vec<String>,
    images: BTreeMap<String, String>,
) -> Result<Vec<Mount>, String> {
    let (shared, pod, container) = (shared.clone(), pod.clone(), container.clone());
    let made = tokio::task::spawn_blocking(move || {
        let directory =
            shared.paths.pod_logs(pod::namespace(&pod), pod::name(&pod), pod::uid(&pod)).join(&container.name);
        std::fs::create_dir_all(&directory).map_err(|error| format!("cannot make {}: {error}", directory.display()))?;
        write_hosts(&shared, &pod, &addresses).map_err(|error| format!("cannot write the hosts file: {error}"))?;
        let mut mounts = volumes::of_container(&MountRequest {
            paths: &shared.paths,
            pod: &pod,
            container: &container,
            attempt,
            images: &images,
            environment: &environment,
        })?;
        // Files keep their owners by number: what is the node's root's on the disk is the pod's root's inside (KEP-127).
        if let Some(users) = users::of(&shared.paths, &pod)? {
            for mount in mounts.iter_mut().filter(|mount| mount.image.is_none()) {
                mount.uid_mappings = users.uids.clone();
                mount.gid_mappings = users.gids.clone();
            }
        }
        Ok(mounts)
    });
    made.await.map_err(|error| error.to_string())?
}

/// Writes in place: containers that run have this very file mounted.
fn write_hosts(shared: &Shared, pod: &Pod, addresses: &[String]) -> std::io::Result<()> {
    let text = if pod::host_network(pod) {
        hosts::of_node(pod, &std::fs::read_to_string("/etc/hosts").unwrap_or_default())
    } else {
        hosts::managed(pod, addresses, &shared.cluster_dns.domain)
    };
    let path = shared.paths.etc_hosts(pod::uid(pod));
    if std::fs::read_to_string(&path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(path, text)
}
