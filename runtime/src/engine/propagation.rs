//! Whether mounts can reach a container and the host from each other (mount_namespaces(7), "Shared subtrees").

use std::path::{Path, PathBuf};

use super::model::Propagation;
use crate::error::{Context, Error, Result};

/// Refuses a propagation that the source's own mount does not have: nothing would go through, and nobody would be told
/// (containerd `internal/cri/opts`, `ensureShared`, `ensureSharedOrSlave`).
pub fn check(source: &Path, wanted: Propagation) -> Result<()> {
    if wanted == Propagation::Private {
        return Ok(());
    }
    let mounts = std::fs::read("/proc/self/mountinfo").context("read the mounts")?;
    check_among(&String::from_utf8_lossy(&mounts), source, wanted)
}

fn check_among(mounts: &str, source: &Path, wanted: Propagation) -> Result<()> {
    let (point, options) = mount_of(mounts, source).unwrap_or_default();
    let has = |kind: &str| options.iter().any(|option| option.starts_with(kind));
    let (fits, what) = match wanted {
        Propagation::Private => return Ok(()),
        Propagation::HostToContainer => (has("shared:") || has("master:"), "shared or slave"),
        Propagation::Bidirectional => (has("shared:"), "shared"),
    };
    let refused = || format!("path {source:?} is mounted on {point:?} but it is not a {what} mount");
    if fits { Ok(()) } else { Err(Error::precondition(refused())) }
}

/// Where the mount is that a path is on, and its optional fields (proc_pid_mountinfo(5)). Of several, the innermost, and of
/// those on one another the last.
fn mount_of<'a>(mounts: &'a str, path: &Path) -> Option<(PathBuf, Vec<&'a str>)> {
    let fields = |line: &'a str| {
        let mut fields = line.split(' ').skip(4);
        let point = PathBuf::from(unescaped(fields.next()?));
        path.starts_with(&point).then(|| (point, fields.skip(1).take_while(|field| *field != "-").collect()))
    };
    mounts.lines().filter_map(fields).max_by_key(|(point, _)| point.components().count())
}

/// Space, tab, line feed and backslash are written as three octal digits.
fn unescaped(text: &str) -> String {
    let codes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    codes.iter().fold(text.to_owned(), |text, (code, character)| text.replace(code, character))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "1 0 8:1 / / rw - ext4 /dev/a rw
2 1 8:2 / /data rw,relatime shared:7 - ext4 /dev/b rw
3 2 8:3 / /data/slave rw master:7 - ext4 /dev/c rw
4 2 8:3 / /data/both rw shared:8 master:7 - ext4 /dev/c rw
5 2 8:4 / /data/with\\040space rw - ext4 shared:9 rw
6 2 8:5 / /data/over rw shared:5 - tmpfs a rw
7 6 8:5 / /data/over rw - tmpfs b rw
";

    #[test]
    fn mounts_propagate_where_their_source_lets_them() {
        for (path, to_container, to_both) in [
            ("/", false, false),
            ("/database", false, false),
            ("/data", true, true),
            ("/data/x/y", true, true),
            ("/data/slave/x", true, false),
            ("/data/both", true, true),
            ("/data/with space/x", false, false),
            ("/data/over", false, false),
        ] {
            let can = |wanted| check_among(MOUNTS, Path::new(path), wanted).is_ok();
            let wanted =
                (can(Propagation::HostToContainer), can(Propagation::Bidirectional), can(Propagation::Private));
            assert_eq!(wanted, (to_container, to_both, true), "{path}");
        }
        let error = check_among(MOUNTS, Path::new("/data/slave/x"), Propagation::Bidirectional).unwrap_err();
        let words = "path \"/data/slave/x\" is mounted on \"/data/slave\" but it is not a shared mount";
        assert_eq!(error.to_string(), words);
        assert!(check_among("", Path::new("/a"), Propagation::HostToContainer).is_err());
    }
}
