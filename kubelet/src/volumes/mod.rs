//! A pod's volumes and files on the node.
//!
//! ```text
//! ROOT/pods/UID/volumes/kubernetes.io~KIND/NAME   the volumes
//!              /containers/NAME/ATTEMPT           what a container left as its termination message
//!              /volume-subpaths/…                 bind mounts of parts of volumes
//!              /etc-hosts
//! ROOT/logs/NAMESPACE_NAME_UID/CONTAINER/ATTEMPT.log
//! ```

mod atomic;
mod hostpath;
mod mounts;
mod payload;
mod subpath;

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod, Volume};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

pub use mounts::{MountRequest, of_container};
use payload::payload;
pub use payload::{Tokens, references, token_requests};

use crate::pod::{self, env::Objects};

/// Where a pod's files are.
#[derive(Debug, Clone)]
pub struct Paths {
    root: PathBuf,
}

impl Paths {
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }
    pub fn pods(&self) -> PathBuf {
        self.root.join("pods")
    }
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }
    pub fn pod(&self, uid: &str) -> PathBuf {
        self.pods().join(uid)
    }
    /// The directory of a pod's logs; names cannot hold an underscore, so that it can be read back.
    pub fn pod_logs(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.logs().join(format!("{namespace}_{name}_{uid}"))
    }
    pub fn volume(&self, uid: &str, kind: &str, name: &str) -> PathBuf {
        self.pod(uid).join("volumes").join(format!("kubernetes.io~{kind}")).join(name)
    }
    /// What the pod has been given of the node, once it was resized.
    pub fn resources(&self, uid: &str) -> PathBuf {
        self.pod(uid).join("resources.json")
    }
    pub fn etc_hosts(&self, uid: &str) -> PathBuf {
        self.pod(uid).join("etc-hosts")
    }
    pub fn termination_log(&self, uid: &str, container: &str, attempt: u32) -> PathBuf {
        self.pod(uid).join("containers").join(container).join(attempt.to_string())
    }
    fn subpaths(&self, uid: &str) -> PathBuf {
        self.pod(uid).join("volume-subpaths")
    }
}

/// The kinds of volumes that a node makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    EmptyDir,
    ConfigMap,
    Secret,
    DownwardApi,
    Projected,
    HostPath,
    Image,
}

impl Kind {
    /// The kind of a volume.
    ///
    /// # Errors
    /// Names the source that this node does not make.
    pub fn of(volume: &Volume) -> Result<Self, String> {
        if volume.config_map.is_some() {
            Ok(Self::ConfigMap)
        } else if volume.secret.is_some() {
            Ok(Self::Secret)
        } else if volume.downward_api.is_some() {
            Ok(Self::DownwardApi)
        } else if volume.projected.is_some() {
            Ok(Self::Projected)
        } else if volume.host_path.is_some() {
            Ok(Self::HostPath)
        } else if volume.empty_dir.is_some() {
            Ok(Self::EmptyDir)
        } else if volume.image.is_some() {
            Ok(Self::Image)
        } else {
            let source = serde_json::to_value(volume).unwrap_or_default();
            let source = source.as_object().and_then(|map| map.keys().find(|key| *key != "name").cloned());
            match source {
                // Without a source a volume is an emptyDir.
                None => Ok(Self::EmptyDir),
                Some(source) => Err(format!("volumes of the kind {source} are not supported by this node")),
            }
        }
    }

    /// The name of its directory, upstream's plugin names.
    fn directory(self) -> &'static str {
        match self {
            Self::EmptyDir => "empty-dir",
            Self::ConfigMap => "configmap",
            Self::Secret => "secret",
            Self::DownwardApi => "downward-api",
            Self::Projected => "projected",
            Self::HostPath => "host-path",
            Self::Image => "image",
        }
    }

    /// Whether it must never be on a disk (upstream's volume plugins: these are emptyDirs of the medium Memory).
    fn is_volatile(self) -> bool {
        matches!(self, Self::Secret | Self::DownwardApi | Self::Projected)
    }

    /// Whether its content comes from the API.
    pub fn has_payload(self) -> bool {
        matches!(self, Self::ConfigMap | Self::Secret | Self::DownwardApi | Self::Projected)
    }
}

/// The volume's place on the node.
pub fn path(paths: &Paths, pod: &Pod, volume: &Volume) -> Result<PathBuf, String> {
    let kind = Kind::of(volume)?;
    Ok(match &volume.host_path {
        Some(source) => PathBuf::from(&source.path),
        None => paths.volume(pod::uid(pod), kind.directory(), &volume.name),
    })
}

/// Makes, or brings up to date, all volumes of a pod. Blocks.
///
/// # Errors
/// In upstream's words, naming the first volume that cannot be made.
pub fn prepare(
    paths: &Paths,
    pod: &Pod,
    objects: &Objects,
    facts: &pod::env::Facts,
    tokens: &Tokens,
) -> Result<(), String> {
    let failed =
        |volume: &Volume, why: String| format!("MountVolume.SetUp failed for volume \"{}\" : {why}", volume.name);
    let base = paths.pod(pod::uid(pod));
    make_dir(&base, 0o750).map_err(|error| format!("cannot make {}: {error}", base.display()))?;
    let spec = pod::spec(pod);
    let group =
        spec.security_context.as_ref().and_then(|context| context.fs_group).and_then(|group| u32::try_from(group).ok());
    for volume in spec.volumes.iter().flatten() {
        let kind = Kind::of(volume).map_err(|why| failed(volume, why))?;
        let place = path(paths, pod, volume).map_err(|why| failed(volume, why))?;
        let made = match (kind, &volume.host_path) {
            (Kind::HostPath, Some(source)) => hostpath::check(source).map_err(|why| failed(volume, why)),
            (Kind::EmptyDir, _) => {
                empty_dir(&place, volume.empty_dir.as_ref(), group).map_err(|error| failed(volume, error.to_string()))
            }
            // The runtime mounts it.
            (Kind::Image, _) => Ok(()),
            _ => {
                let payload = payload(pod, volume, objects, facts, tokens).map_err(|why| failed(volume, why))?;
                make_dir(&place, 0o755)
                    .and_then(|()| if kind.is_volatile() { in_memory(&place) } else { Ok(()) })
                    .and_then(|()| atomic::write(&place, &payload, group))
                    .map(drop)
                    .map_err(|error| failed(volume, error.to_string()))
            }
        };
        made?;
    }
    Ok(())
}

fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(path)
}

/// Makes a directory one in memory, if it is not: after a reboot the directory is there, and what was in it is not.
fn in_memory(place: &Path) -> io::Result<()> {
    if nix::sys::statfs::statfs(place)?.filesystem_type() == nix::sys::statfs::TMPFS_MAGIC {
        return Ok(());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    Ok(mount(Some("tmpfs"), place, Some("tmpfs"), flags, Some("mode=0755"))?)
}

fn empty_dir(place: &Path, source: Option<&EmptyDirVolumeSource>, group: Option<u32>) -> io::Result<()> {
    if place.is_dir() {
        return Ok(());
    }
    make_dir(place, 0o777)?;
    let medium = source.and_then(|source| source.medium.as_deref()).unwrap_or_default();
    match medium {
        "" => {}
        "Memory" => {
            let limit = source
                .and_then(|source| source.size_limit.as_ref())
                .and_then(|limit| limit.0.parse::<coracle_api::quantity::Quantity>().ok());
            let options = limit.map(|limit| format!("size={}", limit.units())).unwrap_or_default();
            mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some(options.as_str()))?;
        }
        other => return Err(io::Error::other(format!("the medium {other:?} is not supported by this node"))),
    }
    // The umask took bits away. Everyone in the pod may write, whoever they run as (upstream: 0777).
    fs::set_permissions(place, Permissions::from_mode(if group.is_some() { 0o2777 } else { 0o777 }))?;
    if let Some(group) = group {
        std::os::unix::fs::chown(place, None, Some(group))?;
    }
    Ok(())
}

/// Unmounts and removes everything a pod left on the node. Blocks. Never leaves the pod's own directory: what is mounted
/// there is unmounted first, and symlinks are not followed.
pub fn remove(paths: &Paths, namespace: &str, name: &str, uid: &str) -> io::Result<()> {
    // A uid comes from the API or from a label; it must not lead out of the directory.
    if uid.is_empty() || uid.contains('/') || uid.starts_with('.') {
        return Ok(());
    }
    let base = paths.pod(uid);
    unmount_below(&base)?;
    for directory in [base, paths.pod_logs(namespace, name, uid)] {
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Unmounts what is mounted below a directory, the innermost first.
fn unmount_below(base: &Path) -> io::Result<()> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    // Field 5 is the mount point, with spaces and the like in octal (proc(5)); our own paths hold none.
    let points =
        table.lines().filter_map(|line| line.split(' ').nth(4)).map(Path::new).filter(|point| point.starts_with(base));
    let mut points: Vec<&Path> = points.collect();
    points.reverse();
    for point in points {
        umount2(point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn volumes_are_made_and_removed() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u-1"}, "spec": {"containers": [], "volumes": [
            {"name": "e", "emptyDir": {}}, {"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}, {"name": "c", "configMap": {"name": "c"}},
            {"name": "s", "secret": {"secretName": "s"}}, {"name": "i", "image": {"reference": "i:1"}}]}})).unwrap();
        let objects = Objects {
            secrets: [("s".to_owned(), Some(serde_json::from_value(json!({"data": {"k": "czNjcmV0"}})).unwrap()))]
                .into(),
            config_maps: [("c".to_owned(), Some(serde_json::from_value(json!({"data": {"k": "v"}})).unwrap()))].into(),
        };
        for _ in 0..2 {
            prepare(&paths, &pod, &objects, &Default::default(), &Tokens::default()).unwrap();
        }
        assert_eq!(fs::read_to_string(paths.volume("u-1", "configmap", "c").join("k")).unwrap(), "v");
        assert_eq!(fs::read_to_string(paths.volume("u-1", "secret", "s").join("k")).unwrap(), "s3cret");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let secret = paths.volume("u-1", "secret", "s");
        assert_eq!(mounts.matches(secret.to_str().unwrap()).count(), 1, "in memory, and once: {mounts}");
        assert!(!mounts.contains(paths.volume("u-1", "configmap", "c").to_str().unwrap()));
        let memory = paths.volume("u-1", "empty-dir", "m");
        assert!(fs::read_to_string("/proc/self/mountinfo").unwrap().contains(memory.to_str().unwrap()));
        remove(&paths, "n", "p", "u-1").unwrap();
        assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains(memory.to_str().unwrap()));
        assert!(!paths.pod("u-1").exists());
        remove(&paths, "n", "p", "../x").unwrap();
    }

    #[test]
    fn what_is_made_for_a_pod_gets_its_containers_labels() {
        let root = tempfile::tempdir().unwrap();
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": {"containers": [
            {"name": "c", "volumeMounts": [
                {"name": "e", "mountPath": "/e"}, {"name": "h", "mountPath": "/h"}, {"name": "s", "mountPath": "/s", "readOnly": true},
                {"name": "e", "mountPath": "/again"}, {"name": "i", "mountPath": "/i"}]}],
            "volumes": [{"name": "e", "emptyDir": {}}, {"name": "h", "hostPath": {"path": "/"}}, {"name": "s", "secret": {"secretName": "s"}},
                {"name": "i", "image": {"reference": "i:1"}}]}})).unwrap();
        let images = [("i".to_owned(), "i:1".to_owned())].into();
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let paths = Paths::new(root.path());
        let request =
            MountRequest { paths: &paths, pod: &pod, container, attempt: 0, images: &images, environment: &[] };
        let mounts = of_container(&request).unwrap();
        let relabelled: Vec<&str> =
            mounts.iter().filter(|mount| mount.selinux_relabel).map(|mount| mount.container_path.as_str()).collect();
        assert_eq!(relabelled, ["/e", "/s", "/etc/hosts", "/dev/termination-log"]);
        assert_eq!(mounts.len(), 7);
    }

    #[test]
    fn what_cannot_be_made_is_named() {
        let root = tempfile::tempdir().unwrap();
        let why = |volume: serde_json::Value| {
            let pod = json!({"metadata": {"name": "p", "uid": "u"}, "spec": {"containers": [], "volumes": [volume]}});
            prepare(
                &Paths::new(root.path()),
                &serde_json::from_value(pod).unwrap(),
                &Objects::default(),
                &Default::default(),
                &Tokens::default(),
            )
            .unwrap_err()
        };
        assert_eq!(
            why(json!({"name": "v", "nfs": {"server": "s", "path": "/"}})),
            "MountVolume.SetUp failed for volume \"v\" : volumes of the kind nfs are not supported by this node"
        );
        assert_eq!(
            why(json!({"name": "v", "secret": {"secretName": "gone"}})),
            "MountVolume.SetUp failed for volume \"v\" : secret \"gone\" not found"
        );
    }
}
