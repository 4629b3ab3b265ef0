//! What is mounted into a container: binds, volumes, tmpfs, and other containers' volumes (moby `volume/mounts`).

use std::{collections::HashSet, path::Path, sync::Arc};

use serde_json::{Value, json};

use super::{
    super::{
        Docker,
        http::Problem,
        types::{BindOptions, Mount, MountPoint, Recursion},
    },
    Container, Record,
};
pub use crate::volumes::clean;
use crate::{
    engine::{model as engine, model::MountedImage, spec::image_mount},
    volumes::{copy_up::copy_up, tree::mounted},
};

/// A mount as the launcher gets it.
#[derive(Clone, Debug, PartialEq)]
pub struct MountPlan {
    pub destination: String,
    pub kind: &'static str,
    pub source: String,
    pub options: Vec<String>,
    pub propagation: String,
}

impl MountPlan {
    pub fn oci(&self) -> Value {
        json!({ "destination": self.destination, "type": self.kind, "source": self.source, "options": self.options })
    }
}

/// A mount as asked for, before volumes are made.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub point: MountPoint,
    pub no_copy: bool,
    /// Options and labels of a volume that is made for it.
    pub driver_options: super::super::types::Map<String>,
    pub labels: super::super::types::Map<String>,
    pub anonymous: bool,
    pub subpath: String,
    /// Whose files are mounted; found when the container is made.
    pub image: Option<MountedImage>,
}

const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "slave", "rslave", "shared", "rshared"];

fn mode_of(mode: &str, spec: &str, volume: bool) -> Result<(bool, String, bool), Problem> {
    let bad = || Problem::bad(format!("invalid mode: {mode}"));
    let (mut rw, mut propagation, mut no_copy, mut labelled) = (None, None, false, false);
    for word in mode.split(',').filter(|word| !word.is_empty()) {
        match word {
            "rw" | "ro" if rw.is_none() => rw = Some(word == "rw"),
            "z" | "Z" if !labelled => labelled = true,
            "consistent" | "cached" | "delegated" | "default" => {}
            "nocopy" if volume => no_copy = true,
            word if PROPAGATIONS.contains(&word) && propagation.is_none() && !volume => {
                propagation = Some(word.to_owned())
            }
            _ => return Err(bad()),
        }
    }
    if spec.is_empty() {
        return Err(bad());
    }
    Ok((rw.unwrap_or(true), propagation.unwrap_or_default(), no_copy))
}

/// `[SOURCE:]DESTINATION[:MODE]`
pub fn parse_bind(spec: &str) -> Result<Wanted, Problem> {
    let invalid = || Problem::bad(format!("invalid volume specification: '{spec}'"));
    let parts: Vec<&str> = spec.split(':').collect();
    let (source, destination, mode) = match parts[..] {
        [destination] => ("", destination, ""),
        [source, destination] if destination.starts_with('/') || !is_mode(destination) => (source, destination, ""),
        [destination, mode] => ("", destination, mode),
        [source, destination, mode] => (source, destination, mode),
        _ => return Err(invalid()),
    };
    if destination.is_empty() || parts.len() > 1 && source.is_empty() && mode.is_empty() {
        return Err(invalid());
    }
    let kind = if source.starts_with('/') { "bind" } else { "volume" };
    check_target(destination, kind)
        .map_err(|problem| Problem::bad(format!("invalid volume specification: '{spec}': {}", problem.message)))?;
    let (rw, propagation, no_copy) = mode_of(mode, spec, kind == "volume")?;
    if kind == "volume" && !source.is_empty() {
        crate::volumes::check_name(source)?;
    }
    let point = MountPoint {
        kind: kind.into(),
        name: if kind == "volume" { source.into() } else { String::new() },
        source: if kind == "bind" { clean(source) } else { String::new() },
        destination: clean(destination),
        driver: if kind == "volume" { "local".into() } else { String::new() },
        // The mode of a named volume's bind that says nothing (moby `volume/mounts/linux_parser.go`).
        mode: if kind == "volume" && !source.is_empty() && mode.is_empty() { "z".into() } else { mode.into() },
        rw,
        propagation: if kind == "bind" && propagation.is_empty() { "rprivate".into() } else { propagation },
        recursion: Recursion::default(),
    };
    Ok(Wanted { anonymous: kind == "volume" && source.is_empty(), point, no_copy, ..Wanted::default() })
}

fn is_mode(word: &str) -> bool {
    word.split(',').all(|word| matches!(word, "rw" | "ro" | "z" | "Z" | "nocopy") || PROPAGATIONS.contains(&word))
}

fn check_target(target: &str, kind: &str) -> Result<(), Problem> {
    if clean(target) == "/" && target.starts_with('/') {
        return Err(Problem::bad(format!(
            "invalid mount config for type \"{kind}\": invalid specification: destination can't be '/'"
        )));
    }
    if !target.starts_with('/') {
        return Err(Problem::bad(format!(
            "invalid mount config for type \"{kind}\": invalid mount path: '{target}' mount path must be absolute"
        )));
    }
    Ok(())
}

/// One `--mount`, judged as dockerd does.
pub fn parse_mount(mount: &Mount) -> Result<Wanted, Problem> {
    let bad = |why: String| Problem::bad(format!("invalid mount config for type \"{}\": {why}", mount.kind));
    if mount.target.is_empty() {
        return Err(bad("field Target must not be empty".into()));
    }
    if clean(&mount.target) == "/" && mount.target.starts_with('/') {
        return Err(bad("invalid specification: destination can't be '/'".into()));
    }
    let relative = |path: &str| bad(format!("invalid mount path: '{path}' mount path must be absolute"));
    if !mount.target.starts_with('/') {
        return Err(relative(&mount.target));
    }
    let unexpected = |field: &str| bad(format!("field {field} must not be specified"));
    let mut wanted = Wanted {
        point: MountPoint {
            kind: mount.kind.clone(),
            destination: clean(&mount.target),
            mode: String::new(),
            rw: !mount.read_only,
            ..MountPoint::default()
        },
        ..Wanted::default()
    };
    for (field, kind, given) in [
        ("BindOptions", "bind", mount.bind_options.is_some()),
        ("VolumeOptions", "volume", mount.volume_options.is_some()),
        ("TmpfsOptions", "tmpfs", mount.tmpfs_options.is_some()),
        ("ImageOptions", "image", mount.image_options.is_some()),
        ("ClusterOptions", "cluster", mount.cluster_options.is_some()),
    ] {
        if given && mount.kind != kind {
            return Err(unexpected(field));
        }
    }
    match mount.kind.as_str() {
        "bind" => {
            if mount.source.is_empty() {
                return Err(bad("field Source must not be empty".into()));
            }
            if !mount.source.starts_with('/') {
                return Err(relative(&mount.source));
            }
            let options = mount.bind_options.clone().unwrap_or_default();
            if !options.propagation.is_empty() && !PROPAGATIONS.contains(&options.propagation.as_str()) {
                return Err(bad(format!("invalid propagation mode: {}", options.propagation)));
            }
            if options.create_mountpoint && !Path::new(&mount.source).exists() {
                std::fs::create_dir_all(&mount.source)
                    .map_err(|error| bad(format!("cannot create {}: {error}", mount.source)))?;
            }
            if !Path::new(&mount.source).exists() {
                return Err(bad(format!("bind source path does not exist: {}", mount.source)));
            }
            wanted.point.source = clean(&mount.source);
            wanted.point.recursion = recursion(mount, &options).map_err(bad)?;
            wanted.point.propagation =
                if options.propagation.is_empty() { "rprivate".into() } else { options.propagation };
        }
        "volume" => {
            let options = mount.volume_options.clone().unwrap_or_default();
            if mount.source.is_empty() && mount.read_only {
                return Err(bad("must not set ReadOnly mode when using anonymous volumes".into()));
            }
            if !mount.source.is_empty() {
                crate::volumes::check_name(&mount.source)?;
            }
            let driver = options.driver_config.unwrap_or_default();
            if !matches!(driver.name.as_str(), "" | "local") {
                return Err(Problem::not_found(format!(
                    "error looking up volume plugin {0}: plugin \"{0}\" not found",
                    driver.name
                )));
            }
            wanted.point.name = mount.source.clone();
            wanted.point.driver = "local".into();
            wanted.anonymous = mount.source.is_empty();
            wanted.no_copy = options.no_copy;
            wanted.labels = options.labels;
            wanted.driver_options = driver.options;
            wanted.subpath = options.subpath;
            wanted.point.mode = "z".into();
        }
        "tmpfs" => {
            if !mount.source.is_empty() {
                return Err(unexpected("Source"));
            }
        }
        "image" => {
            let subpath = mount.image_options.clone().unwrap_or_default().subpath;
            if mount.source.is_empty() {
                return Err(bad("field Source must not be empty".into()));
            }
            if subpath.starts_with('/') || subpath.split('/').any(|part| part == "..") {
                return Err(bad(format!("subpath must be a relative path within the image: {subpath}")));
            }
            wanted.point.name = mount.source.clone();
            // Nobody writes into an image (moby `daemon/volumes.go`, `registerMountPoints`).
            wanted.point.rw = false;
            wanted.image =
                Some(MountedImage { name: mount.source.clone(), sub_path: subpath, ..MountedImage::default() });
        }
        "cluster" | "npipe" => return Err(bad("mount type is not supported by this engine".into())),
        _ => return Err(bad("mount type unknown".into())),
    }
    Ok(wanted)
}

/// What of a bind's mounts below it is wanted (moby `daemon/oci_linux.go`, `withMounts`).
fn recursion(mount: &Mount, options: &BindOptions) -> Result<Recursion, String> {
    if options.read_only_non_recursive && options.read_only_force_recursive {
        return Err("mount options conflict: ReadOnlyNonRecursive && ReadOnlyForceRecursive".into());
    }
    if options.read_only_force_recursive {
        if !mount.read_only {
            return Err("mount must be read-only when ReadOnlyForceRecursive is specified".into());
        }
        if !matches!(options.propagation.as_str(), "" | "rprivate") {
            return Err("mount propagation must be rprivate when ReadOnlyForceRecursive is specified".into());
        }
        if options.non_recursive {
            return Err("mount options conflict: NonRecursive && ReadOnlyForceRecursive".into());
        }
        return Ok(Recursion::Forced);
    }
    Ok(match (options.non_recursive, options.read_only_non_recursive) {
        (true, _) => Recursion::None,
        (false, true) => Recursion::TopReadOnly,
        (false, false) => Recursion::All,
    })
}

/// `CONTAINER[:ro|rw]`
pub fn parse_volumes_from(spec: &str) -> Result<(&str, Option<bool>), Problem> {
    let (name, mode) = spec.split_once(':').unwrap_or((spec, ""));
    if name.is_empty() {
        return Err(Problem::bad("invalid volumes-from specification: ''"));
    }
    match mode {
        "" => Ok((name, None)),
        "ro" | "ro,z" | "z,ro" => Ok((name, Some(false))),
        "rw" | "z" | "Z" => Ok((name, Some(true))),
        _ => Err(Problem::bad(format!("invalid mode: {mode}"))),
    }
}

impl Docker {
    /// Everything that a configuration wants mounted: other containers' volumes, then binds and mounts, then the image's
    /// own volumes where nothing else is.
    pub fn wanted_mounts(&self, record: &Record) -> Result<Vec<Wanted>, Problem> {
        let mut out: Vec<Wanted> = Vec::new();
        let place = |out: &mut Vec<Wanted>, wanted: Wanted| {
            out.retain(|other| other.point.destination != wanted.point.destination);
            out.push(wanted);
        };
        for spec in record.host.volumes_from.iter().flatten() {
            let (name, mode) = parse_volumes_from(spec)?;
            let other = self.container(name)?;
            for mut point in other.with(|record| record.mounts.clone()) {
                if let Some(rw) = mode {
                    point.rw = rw && point.rw;
                }
                let image = image_at(&other, &point);
                place(&mut out, Wanted { point, no_copy: true, image, ..Wanted::default() });
            }
        }
        let mut own: Vec<String> = Vec::new();
        let mut once = |destination: &str| {
            if own.iter().any(|other| other == destination) {
                return Err(Problem::bad(format!("Duplicate mount point: {destination}")));
            }
            own.push(destination.to_owned());
            Ok(())
        };
        for spec in record.host.binds.iter().flatten() {
            let wanted = parse_bind(spec)?;
            once(&wanted.point.destination)?;
            place(&mut out, wanted);
        }
        for mount in &record.host.mounts {
            let wanted = parse_mount(mount)?;
            once(&wanted.point.destination)?;
            place(&mut out, wanted);
        }
        for (target, options) in &record.host.tmpfs {
            check_target(target, "tmpfs")?;
            check_tmpfs(options)?;
            once(&clean(target))?;
            out.retain(|other| other.point.destination != clean(target));
        }
        for target in record.config.volumes.iter().flatten().map(|(target, _)| target) {
            check_target(target, "volume")?;
            let destination = clean(target);
            let taken = out.iter().any(|other| other.point.destination == destination);
            if !taken && !record.host.tmpfs.keys().any(|tmpfs| clean(tmpfs) == destination) {
                let point = MountPoint {
                    kind: "volume".into(),
                    destination,
                    driver: "local".into(),
                    rw: true,
                    ..MountPoint::default()
                };
                out.push(Wanted { point, anonymous: true, ..Wanted::default() });
            }
        }
        Ok(out)
    }

    /// Finds the images that are to be mounted, for the engine to keep.
    pub fn find_images(&self, wanted: &mut [Wanted]) -> Result<Vec<engine::Mount>, Problem> {
        let mut out = Vec::new();
        for Wanted { point, image, .. } in wanted {
            let Some(image) = image else { continue };
            let found = self.find_image(&image.name)?;
            image.chains = found.chains.clone();
            point.source = found.id.to_string();
            out.push(engine::Mount {
                container_path: point.destination.clone(),
                readonly: true,
                image: Some(image.clone()),
                ..engine::Mount::default()
            });
        }
        Ok(out)
    }

    /// Makes the volumes that are missing; the mounts with their names and places. New and empty ones get what the image
    /// has there.
    pub fn make_mounts(&self, container: &Container, wanted: Vec<Wanted>) -> Result<Vec<MountPoint>, Problem> {
        let mut out = Vec::new();
        for mut wanted in wanted {
            if wanted.point.kind == "bind"
                && !wanted.point.source.is_empty()
                && !Path::new(&wanted.point.source).exists()
            {
                std::fs::create_dir_all(&wanted.point.source).map_err(|error| {
                    Problem::internal(format!(
                        "error while creating mount source path '{}': mkdir {}: {error}",
                        wanted.point.source, wanted.point.source
                    ))
                })?;
            }
            if wanted.point.kind == "volume" {
                let fresh = self.make_volume(&mut wanted)?;
                let path = self.volumes.mountpoint(&wanted.point.name);
                wanted.point.source = path.to_string_lossy().into_owned();
                let empty = crate::volumes::is_empty(&path).unwrap_or(false);
                if !wanted.no_copy && empty && (fresh || wanted.driver_options.is_empty()) {
                    self.copy_up(container, &wanted.point.destination, &path)?;
                }
                if !wanted.subpath.is_empty() {
                    wanted.point.source = self.subpath(&wanted, &path)?;
                }
            }
            out.push(wanted.point);
        }
        Ok(out)
    }

    fn make_volume(&self, wanted: &mut Wanted) -> Result<bool, Problem> {
        if wanted.point.name.is_empty() {
            wanted.point.name = crate::engine::model::new_id();
        }
        if wanted.anonymous {
            wanted.labels.insert("com.docker.volume.anonymous".into(), String::new());
        }
        let (volume, fresh) = self.volumes.create(
            &wanted.point.name,
            wanted.driver_options.clone(),
            wanted.labels.clone(),
            wanted.anonymous,
        )?;
        if fresh {
            self.events.tell("volume", "create", &volume.name, [("driver".to_owned(), "local".to_owned())].into());
        }
        Ok(fresh)
    }

    fn subpath(&self, wanted: &Wanted, volume: &Path) -> Result<String, Problem> {
        let missing = |error: std::io::Error| {
            Problem::bad(format!("cannot access path {}: {error}", volume.join(&wanted.subpath).display()))
        };
        if wanted.subpath.starts_with('/') || wanted.subpath.split('/').any(|part| part == "..") {
            return Err(Problem::bad(format!("subpath must be a relative path within the volume: {}", wanted.subpath)));
        }
        let path = std::fs::canonicalize(volume.join(&wanted.subpath)).map_err(missing)?;
        let root = std::fs::canonicalize(volume).map_err(missing)?;
        if !path.starts_with(&root) {
            return Err(Problem::bad(format!("subpath escapes the volume: {}", wanted.subpath)));
        }
        Ok(path.to_string_lossy().into_owned())
    }

    fn copy_up(&self, container: &Container, destination: &str, volume: &Path) -> Result<(), Problem> {
        let (root, target) =
            (self.engine.root_of(&container.engine)?, self.engine.bundle_of(&container.id).join("rootfs"));
        mounted(&root, &target, |tree| copy_up(tree, Path::new(destination), volume, &HashSet::new()))
            .map_err(|error| Problem::internal(format!("copy the image's content to volume: {error}")))
    }

    /// The mounts of a start, outer directories first.
    pub fn mount_plans(&self, container: &Arc<Container>, record: &Record) -> Result<Vec<MountPlan>, Problem> {
        let mut plans = Vec::new();
        for point in &record.mounts {
            self.label_mount(container, point)?;
            plans.push(match point.kind.as_str() {
                "tmpfs" => self.tmpfs_mount(record, point),
                "image" => self.image_plan(container, point)?,
                "volume" => volume_plan(point, &self.volumes.mountpoint(&point.name))?,
                _ => bind_plan(point)?,
            });
        }
        for (target, options) in &record.host.tmpfs {
            plans.push(tmpfs_plan(&clean(target), options));
        }
        plans.extend(self.file_mounts(container, record, &plans)?);
        // Outer directories first, or an outer mount would hide an inner one; the order is otherwise as given.
        plans.sort_by_key(|plan| Path::new(&plan.destination).components().count());
        Ok(plans)
    }

    /// Gives what is mounted the container's label, or one for all containers, where the mode says so (moby
    /// `volume/mounts/mounts.go`, `Setup`). A volume whose mode says nothing is for all.
    fn label_mount(&self, container: &Container, point: &MountPoint) -> Result<(), Problem> {
        let words: Vec<&str> = point.mode.split(',').collect();
        let all = words.contains(&"z") || point.kind == "volume" && point.mode.is_empty();
        let label = &container.engine.labels.mount;
        if label.is_empty() || !matches!(point.kind.as_str(), "bind" | "volume") || !(all || words.contains(&"Z")) {
            return Ok(());
        }
        // Of a part of a volume others can make a link to anywhere.
        let whole = (point.kind == "volume").then(|| self.volumes.mountpoint(&point.name));
        // What is not there is told by who mounts it.
        let source = std::fs::canonicalize(whole.as_deref().unwrap_or(Path::new(&point.source)));
        let Ok(source) = source else { return Ok(()) };
        self.engine.selinux().relabel(&source, label, all).map_err(|error| {
            Problem::internal(format!("error setting label on mount source '{}': {error}", source.display()))
        })
    }

    fn image_plan(&self, container: &Container, point: &MountPoint) -> Result<MountPlan, Problem> {
        let lost = || Problem::internal(format!("the image at {} is not recorded", point.destination));
        let image = image_at(container, point).ok_or_else(lost)?;
        let (kind, source, options) = image_mount(&image, self.engine.snapshots().as_ref(), &["ro"])?;
        Ok(MountPlan { destination: point.destination.clone(), kind, source, options, propagation: String::new() })
    }

    fn tmpfs_mount(&self, record: &Record, point: &MountPoint) -> MountPlan {
        let asked = record.host.mounts.iter().find(|mount| clean(&mount.target) == point.destination);
        let options = asked.and_then(|mount| mount.tmpfs_options.clone()).unwrap_or_default();
        let mut words = vec!["nosuid".to_owned(), "nodev".into(), "noexec".into()];
        if !point.rw {
            words.push("ro".into());
        }
        if options.size_bytes > 0 {
            words.push(format!("size={}", options.size_bytes));
        }
        words.push(format!("mode={:o}", if options.mode == 0 { 0o1777 } else { options.mode }));
        words.extend(options.options.iter().map(|pair| pair.join("=")));
        tmpfs_plan(&point.destination, &words.join(","))
    }
}

/// The image that a container has mounted somewhere.
fn image_at(container: &Container, point: &MountPoint) -> Option<MountedImage> {
    let mounts = container.engine.config.mounts.iter();
    mounts.filter(|mount| mount.container_path == point.destination).find_map(|mount| mount.image.clone())
}

/// Whether a tmpfs can be mounted with these options (moby `sys/mount/flags_unix.go`, `MergeTmpfsOptions`).
fn check_tmpfs(options: &str) -> Result<(), Problem> {
    const VALUES: [&str; 7] = ["mode", "size", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"];
    let known = |option: &str| match option.split_once('=') {
        Some((key, _)) => VALUES.contains(&key),
        None => coracle_launcher::mount_options::words().any(|word| word == option),
    };
    match options.split(',').find(|option| !option.is_empty() && !known(option)) {
        Some(option) => Err(Problem::bad(format!("invalid tmpfs option [{option:?}]"))),
        None => Ok(()),
    }
}

fn tmpfs_plan(destination: &str, options: &str) -> MountPlan {
    let mut words: Vec<String> = ["nosuid", "nodev", "noexec"].map(str::to_owned).into();
    for word in options.split(',').filter(|word| !word.is_empty()) {
        let opposite = match word {
            "exec" => "noexec",
            "suid" => "nosuid",
            "dev" => "nodev",
            _ => "",
        };
        words.retain(|other| other != opposite && other != word);
        words.push(word.to_owned());
    }
    MountPlan {
        destination: destination.into(),
        kind: "tmpfs",
        source: "tmpfs".into(),
        options: words,
        propagation: String::new(),
    }
}

/// A volume or a part of it. Other containers may have put links into it since it was asked for: the launcher finds the
/// part without following any out of it.
fn volume_plan(point: &MountPoint, volume: &Path) -> Result<MountPlan, Problem> {
    let whole = std::fs::canonicalize(volume).ok();
    let part = whole.as_deref().and_then(|whole| Path::new(&point.source).strip_prefix(whole).ok());
    let Some((whole, part)) = whole.as_deref().zip(part).filter(|(_, part)| !part.as_os_str().is_empty()) else {
        return bind_plan(point);
    };
    let mut plan = bind_plan(&MountPoint { source: whole.to_string_lossy().into_owned(), ..point.clone() })?;
    plan.options.push(format!("{}{}", coracle_launcher::mount_options::SUBPATH, part.display()));
    Ok(plan)
}

fn bind_plan(point: &MountPoint) -> Result<MountPlan, Problem> {
    let propagation = if point.propagation.is_empty() { "rprivate" } else { &point.propagation };
    let source = std::fs::canonicalize(&point.source).map_err(|_| {
        Problem::bad(format!(
            "invalid mount config for type \"{}\": bind source path does not exist: {}",
            point.kind, point.source
        ))
    })?;
    let bind = if point.recursion == Recursion::None { "bind" } else { "rbind" };
    let mut options = vec![bind.to_owned(), propagation.to_owned(), if point.rw { "rw" } else { "ro" }.to_owned()];
    // Without being asked for, only where the kernel can (moby `daemon/oci_linux.go`, `supportsRecursivelyReadOnly`).
    let all = match point.recursion {
        Recursion::All => coracle_launcher::sys::has_mount_setattr(),
        recursion => recursion == Recursion::Forced,
    };
    if !point.rw && propagation == "rprivate" && all {
        options.push("rro".into());
    }
    Ok(MountPlan {
        destination: point.destination.clone(),
        kind: "bind",
        source: source.to_string_lossy().into_owned(),
        options,
        propagation: propagation.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binds_are_parsed() {
        for (spec, kind, name, source, destination, rw) in [
            ("/a:/b", "bind", "", "/a", "/b", true),
            ("/a/../c:/b/:ro", "bind", "", "/c", "/b", false),
            ("data:/b:rw", "volume", "data", "", "/b", true),
            ("/only", "volume", "", "", "/only", true),
        ] {
            let point = parse_bind(spec).unwrap().point;
            assert_eq!(
                (point.kind.as_str(), point.name.as_str(), point.source.as_str(), point.destination.as_str(), point.rw),
                (kind, name, source, destination, rw),
                "{spec}"
            );
        }
        for (spec, word) in [
            ("/a:/b:sideways", "invalid mode: sideways"),
            ("/a:/b:z,Z", "invalid mode: z,Z"),
            ("/a:/", "destination can't be '/'"),
            ("/a:b:ro:x", "invalid volume specification"),
            ("/a:b", "mount path must be absolute"),
        ] {
            let message = parse_bind(spec).unwrap_err().message;
            assert!(message.contains(word), "{spec}: {message}");
        }
    }

    #[test]
    fn mounts_are_judged_in_dockers_words() {
        let mount = |kind: &str, source: &str, target: &str| {
            parse_mount(&Mount { kind: kind.into(), source: source.into(), target: target.into(), ..Mount::default() })
                .map(|_| String::new())
                .unwrap_or_else(|problem| problem.message)
        };
        assert_eq!(mount("bind", "/tmp", "/x"), "");
        assert_eq!(
            mount("bind", "~/a", "/x"),
            "invalid mount config for type \"bind\": invalid mount path: '~/a' mount path must be absolute"
        );
        assert!(mount("bind", "/nope/nope", "/x").contains("bind source path does not exist: /nope/nope"));
        assert!(mount("tmpfs", "/a", "/x").contains("field Source must not be specified"));
        assert!(mount("carpet", "/a", "/x").contains("mount type unknown"));
        assert!(
            mount("volume", "v", "").contains("field Target must not be empty")
                || mount("volume", "v1", "").contains("Target")
        );
    }

    #[test]
    fn tmpfs_options_replace_the_defaults() {
        assert_eq!(tmpfs_plan("/x", "exec,size=1m").options, ["nosuid", "nodev", "exec", "size=1m"]);
    }
}
