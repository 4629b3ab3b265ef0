//! What of the node a container sees.

use std::collections::BTreeMap;
use std::path::Path;

use coracle_cri::{ImageSpec, Mount};
use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1::{Container, Pod, Volume, VolumeMount};

use super::{Kind, Paths, path, subpath};
use crate::pod::{
    self,
    env::{Variables, expand},
};

/// What a container's mounts depend on.
#[derive(Debug)]
pub struct MountRequest<'a> {
    pub paths: &'a Paths,
    pub pod: &'a Pod,
    pub container: &'a Container,
    pub attempt: u32,
    /// The images of image volumes, by the volume's name.
    pub images: &'a BTreeMap<String, String>,
    /// For `subPathExpr`.
    pub environment: &'a Variables,
}

/// The mounts of a container: its volumes, /etc/hosts and the file for its termination message. Blocks.
///
/// # Errors
/// Names the volume that is not there or cannot be mounted in part.
pub fn of_container(request: &MountRequest<'_>) -> Result<Vec<Mount>, String> {
    let MountRequest { paths, pod, container, attempt, .. } = *request;
    let uid = pod::uid(pod);
    let mut mounts = Vec::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        mounts.push(of_volume(request, index, mount)?);
    }
    let taken = |path: &str| container.volume_mounts.iter().flatten().any(|mount| mount.mount_path == path);
    relabel(pod, container, &mut mounts);
    // What is the pod's alone is its containers' by name, too (kubernetes `kubelet_pods.go`, `makeHostsMount`, and
    // `kuberuntime_container.go`, `makeMounts`). A runtime where the kernel has no SELinux has nothing to do.
    let own = |path: &str, place: &Path| Mount { selinux_relabel: true, ..plain(path, place, false) };
    if !taken("/etc/hosts") {
        mounts.push(own("/etc/hosts", &paths.etc_hosts(uid)));
    }
    let termination = container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
    if !termination.is_empty() {
        let log = paths.termination_log(uid, &container.name, attempt);
        make_termination_log(&log).map_err(|error| format!("cannot make {}: {error}", log.display()))?;
        mounts.push(own(termination, &log));
    }
    Ok(mounts)
}

/// Volumes that are made for the pod get its containers' SELinux labels, each once for a container; what is the node's keeps
/// its own (kubernetes `kubelet_pods.go`, `makeMounts`, by the plugins' `GetAttributes`).
fn relabel(pod: &Pod, container: &Container, mounts: &mut [Mount]) {
    let spec = pod::spec(pod);
    let mut done: Vec<&str> = Vec::new();
    for (wanted, mount) in container.volume_mounts.iter().flatten().zip(mounts) {
        let volume = spec.volumes.iter().flatten().find(|volume| volume.name == wanted.name);
        let made = volume.and_then(|volume| Kind::of(volume).ok());
        let made = made.is_some_and(|kind| !matches!(kind, Kind::HostPath | Kind::Image));
        if made && !done.contains(&wanted.name.as_str()) {
            done.push(&wanted.name);
            mount.selinux_relabel = true;
        }
    }
}

/// The part of a volume that a mount asks for.
fn part(mount: &VolumeMount, environment: &Variables) -> Result<Option<String>, String> {
    match (&mount.sub_path, &mount.sub_path_expr) {
        (Some(part), _) if !part.is_empty() => Ok(Some(part.clone())),
        (_, Some(expression)) if !expression.is_empty() => {
            let part = expand(expression, environment);
            if part.contains("$(") {
                return Err(format!("missing value for variable in subPathExpr {expression:?}"));
            }
            Ok(Some(part))
        }
        _ => Ok(None),
    }
}

/// An image as a volume (KEP-4639), read-only. The runtime finds the part of it.
fn of_image(request: &MountRequest<'_>, mount: &VolumeMount, volume: &Volume) -> Result<Mount, String> {
    let image = request.images.get(&volume.name);
    let image = image.ok_or_else(|| format!("the image of volume \"{}\" is not there", volume.name))?;
    Ok(Mount {
        container_path: mount.mount_path.clone(),
        readonly: true,
        image: Some(ImageSpec { image: image.clone(), ..Default::default() }),
        image_sub_path: part(mount, request.environment)?.unwrap_or_default(),
        ..Default::default()
    })
}

fn plain(container_path: &str, host_path: &Path, readonly: bool) -> Mount {
    Mount {
        container_path: container_path.to_owned(),
        host_path: host_path.display().to_string(),
        readonly,
        ..Default::default()
    }
}

/// The container writes into it as whoever it runs as.
fn make_termination_log(log: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    if let Some(parent) = log.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::File::create(log)?.set_permissions(std::fs::Permissions::from_mode(0o666))
}

fn of_volume(request: &MountRequest<'_>, index: usize, mount: &VolumeMount) -> Result<Mount, String> {
    let MountRequest { paths, pod, container, environment, .. } = *request;
    let spec = pod::spec(pod);
    let volume = spec.volumes.iter().flatten().find(|volume| volume.name == mount.name);
    let volume = volume.ok_or_else(|| {
        format!("cannot find volume \"{}\" to mount into container \"{}\"", mount.name, container.name)
    })?;
    if volume.image.is_some() {
        return of_image(request, mount, volume);
    }
    let mut place = path(paths, pod, volume)?;
    if let Some(part) = part(mount, environment)? {
        let target = paths.subpaths(pod::uid(pod)).join(&volume.name).join(&container.name).join(index.to_string());
        // A run before this one left its own; what it showed may have been replaced since.
        super::unmount_below(&target).map_err(|error| error.to_string())?;
        place = subpath::bind(&place, &part, &target).map_err(|error| {
            format!(
                "failed to prepare subPath for volumeMount \"{}\" of container \"{}\": {error}",
                mount.name, container.name
            )
        })?;
    }
    let mut out = plain(&mount.mount_path, &place, mount.read_only == Some(true));
    out.propagation = match mount.mount_propagation.as_deref() {
        Some("HostToContainer") => cri::MountPropagation::PropagationHostToContainer,
        Some("Bidirectional") => cri::MountPropagation::PropagationBidirectional,
        _ => cri::MountPropagation::PropagationPrivate,
    } as i32;
    out.recursive_read_only = mount.recursive_read_only.as_deref() == Some("Enabled");
    Ok(out)
}
