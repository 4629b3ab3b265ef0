//! What may be mounted on `/proc` or inside of it. Programs trust what they find there, and so does this one (runc's
//! `checkProcMount`, CVE-2019-16884).

use std::path::{Path, PathBuf};

use crate::{
    error::{Error, Result},
    rootfs::plain_parts,
    spec::MountSpec,
};

/// What lxcfs and its like stand for.
const INSIDE: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

/// Judges a mount by its name.
pub fn check(mount: &MountSpec) -> Result<()> {
    let place = clean(&mount.destination);
    if place == Path::new("/proc") && !matches!(mount.kind.as_str(), "proc" | "bind") {
        return Err(not_proc(&mount.destination));
    }
    check_place(&place)
}

/// Judges where in the container a mount is put.
pub fn check_place(place: &Path) -> Result<()> {
    let inside = place.starts_with("/proc") && place != Path::new("/proc");
    if inside && !INSIDE.iter().any(|allowed| place == Path::new(allowed)) {
        return Err(Error::new(format!("{place:?} cannot be mounted because it is inside /proc")));
    }
    Ok(())
}

/// `/proc` itself can be another procfs alone.
pub fn not_proc(place: &Path) -> Error {
    Error::new(format!("{place:?} cannot be mounted because it is not of type proc"))
}

pub fn is_proc(mount: &MountSpec) -> bool {
    clean(&mount.destination) == Path::new("/proc")
}

/// A path without `.` and `..`, by name.
fn clean(path: &Path) -> PathBuf {
    Path::new("/").join(PathBuf::from_iter(plain_parts(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_for_something_may_be_inside() {
        let judge = |place: &str, kind: &str| {
            check(&MountSpec {
                destination: place.into(),
                kind: kind.into(),
                source: String::new(),
                options: Default::default(),
                mappings: Default::default(),
            })
        };
        for (place, kind) in [
            ("/proc", "proc"),
            ("/proc/", "bind"),
            ("/proc/meminfo", "bind"),
            ("/proc/sys/../uptime", "bind"),
            ("/process", "bind"),
            ("/proc/../data", "tmpfs"),
        ] {
            assert!(judge(place, kind).is_ok(), "{place} {kind}");
        }
        for (place, kind) in [
            ("/proc", "tmpfs"),
            ("/data/../proc/", "overlay"),
            ("/proc/self/attr", "bind"),
            ("//proc/./sys", "bind"),
            ("/proc/sys/kernel", "tmpfs"),
        ] {
            assert!(judge(place, kind).is_err(), "{place} {kind}");
        }
    }
}
