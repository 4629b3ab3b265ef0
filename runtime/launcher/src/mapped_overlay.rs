//! An overlay whose layers belong to the host's users, for a container with users of its own.
//!
//! The layers are shared by containers of many mappings, so each is mounted once more with its owners mapped (overlayfs
//! takes such layers since Linux 5.19). What is written belongs to the namespace's users as it is on the disk.

use std::{
    fs,
    os::fd::{AsFd, OwnedFd},
    os::unix::fs::{MetadataExt, chown},
    path::{Path, PathBuf},
};

use crate::{
    error::{Context, Error, Result},
    identity::{self, Detached, Mappings},
    mount_options::MountOptions,
    sys,
};

/// More than any file system takes.
const MAX_LAYERS: usize = 500;

/// An overlay's layers, taken from its options.
#[derive(Debug, Default, PartialEq)]
struct Layers {
    lower: Vec<PathBuf>,
    upper: Option<PathBuf>,
    work: Option<PathBuf>,
    others: Vec<String>,
}

impl Layers {
    fn parse(data: &str) -> Result<Layers> {
        let mut out = Layers::default();
        for option in split(data, ',') {
            match option.split_once('=') {
                Some(("lowerdir", dirs)) => out.lower = split(dirs, ':').iter().map(|dir| plain(dir)).collect(),
                Some(("upperdir", dir)) => out.upper = Some(plain(dir)),
                Some(("workdir", dir)) => out.work = Some(plain(dir)),
                _ => out.others.push(option.to_owned()),
            }
        }
        if out.lower.is_empty() || out.lower.len() > MAX_LAYERS {
            return Err(Error::new(format!("an overlay of {} layers", out.lower.len())));
        }
        Ok(out)
    }
}

/// Splits at a separator that no backslash comes before.
fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut out, mut start, mut escaped) = (Vec::new(), 0, false);
    for (at, character) in text.char_indices() {
        if character == separator && !escaped {
            out.push(&text[start..at]);
            start = at + 1;
        }
        escaped = character == '\\' && !escaped;
    }
    out.push(&text[start..]);
    out
}

fn plain(text: &str) -> PathBuf {
    let (mut out, mut escaped) = (String::new(), false);
    for character in text.chars() {
        escaped = character == '\\' && !escaped;
        if !escaped {
            out.push(character);
        }
    }
    out.into()
}

/// Makes the overlay, mounted nowhere. `scratch` is a directory to work on; nobody else sees that.
pub fn make(options: &MountOptions, mappings: &Mappings, scratch: &Path) -> Result<OwnedFd> {
    let layers = Layers::parse(&options.data)?;
    let lower = layers.lower.iter().map(|dir| {
        identity::detached(&dir.to_string_lossy(), Detached { mappings: Some(mappings), ..Detached::default() })
    });
    let lower = lower.collect::<Result<Vec<_>>>()?;
    if let Some(upper) = &layers.upper {
        give_away(upper, mappings).context(|| format!("give {} to the container", upper.display()))?;
    }
    let open = |path: &str, flags: i32| sys::open(path, flags, 0).context(|| format!("open {path}"));
    let home = open("/proc/self/ns/mnt", libc::O_RDONLY)?;
    let (root, here) = (open("/", libc::O_PATH)?, open(".", libc::O_PATH)?);
    // Layers have to be mounted somewhere (before Linux 6.15): in a namespace that ends with this.
    sys::unshare(libc::CLONE_NEWNS).context(|| "unshare the mount namespace".into())?;
    let made = put_together(&layers, &lower, options.flags, scratch);
    sys::setns(&home, libc::CLONE_NEWNS).context(|| "return to the mount namespace".into())?;
    // Joining it changed them.
    sys::fchdir(&root).and_then(|()| sys::chroot(".")).and_then(|()| sys::fchdir(&here)).context(|| "return".into())?;
    made
}

/// The container's root directory is its root's.
fn give_away(dir: &Path, mappings: &Mappings) -> std::io::Result<()> {
    let metadata = fs::symlink_metadata(dir)?;
    let (uid, gid) = mappings.outside(0, 0).ok_or(std::io::ErrorKind::InvalidInput)?;
    // Once: what a container changed stays.
    if (metadata.uid(), metadata.gid()) == (0, 0) { chown(dir, Some(uid), Some(gid)) } else { Ok(()) }
}

fn put_together(layers: &Layers, lower: &[OwnedFd], flags: u64, scratch: &Path) -> Result<OwnedFd> {
    sys::mount("", "/", "", libc::MS_PRIVATE | libc::MS_REC, "").context(|| "make the mounts private".into())?;
    sys::mount("tmpfs", scratch, "tmpfs", 0, "mode=700").context(|| format!("mount at {}", scratch.display()))?;
    std::env::set_current_dir(scratch).context(|| format!("enter {}", scratch.display()))?;
    let mut names = Vec::new();
    for (index, layer) in lower.iter().enumerate() {
        let name = index.to_string();
        fs::create_dir(&name).context(|| "make a place for a layer".into())?;
        let place = sys::open(&name, libc::O_PATH, 0).context(|| "open a place for a layer".into())?;
        sys::move_mount(layer, &place).context(|| "mount a layer".into())?;
        names.push(name);
    }
    fs::create_dir("all").context(|| "make a place for the overlay".into())?;
    let mut data = vec![format!("lowerdir={}", names.join(":"))];
    let escape = |path: &Path| {
        let text = path.to_string_lossy();
        text.replace('\\', "\\\\").replace(',', "\\,").replace(':', "\\:")
    };
    data.extend(layers.upper.iter().map(|path| format!("upperdir={}", escape(path))));
    data.extend(layers.work.iter().map(|path| format!("workdir={}", escape(path))));
    data.extend(layers.others.iter().cloned());
    sys::mount("overlay", "all", "overlay", flags, &data.join(",")).context(|| "mount the overlay".into())?;
    let tree = sys::open_tree("all", false).context(|| "open the overlay".into())?;
    let private = sys::MountAttributes { propagation: libc::MS_PRIVATE, ..Default::default() };
    sys::set_mount(&tree.as_fd(), false, private).context(|| "make the overlay private".into())?;
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_read_from_options() {
        let layers = Layers::parse(r"lowerdir=/a\:b:/c\\:/d\,e,upperdir=/u,workdir=/w,volatile").unwrap();
        assert_eq!(layers.lower, [r"/a:b", r"/c\", r"/d,e"].map(PathBuf::from));
        assert_eq!((layers.upper, layers.work), (Some("/u".into()), Some("/w".into())));
        assert_eq!(layers.others, ["volatile"]);
        assert!(Layers::parse("upperdir=/u,workdir=/w").is_err());
    }
}
