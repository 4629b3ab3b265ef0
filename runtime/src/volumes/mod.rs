//! Volumes of the local driver: directories under the data directory, or what their options mount there.
//!
//! `volumes/NAME/volume.json` is the record, `volumes/NAME/_data` the content. A volume with a `device` option is mounted
//! at `_data` when its first container starts and unmounted after its last (moby `volume/local`).

pub mod copy_up;
pub mod tree;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use coracle_launcher::{mount_options::MountOptions, sys};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::{
    error::{Context, Error, Result},
    placement,
};

/// A volume.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Volume {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub options: BTreeMap<String, String>,
    /// RFC 3339.
    pub created: String,
    /// Made for one container that named none.
    pub anonymous: bool,
}

/// All volumes of a data directory.
pub struct Volumes {
    dir: PathBuf,
    volumes: Mutex<BTreeMap<String, Entry>>,
}

struct Entry {
    volume: Arc<Volume>,
    /// Containers that run with it.
    users: usize,
}

const OPTIONS: [&str; 4] = ["type", "o", "device", "size"];

impl Volumes {
    /// Finds the volumes of an earlier daemon.
    pub fn open(dir: &Path) -> Result<Volumes> {
        placement::create_unrelated(dir)?;
        let mut volumes = BTreeMap::new();
        for entry in fs::read_dir(dir).context(format!("read {}", dir.display()))?.flatten() {
            let path = entry.path().join("volume.json");
            match fs::read(&path).map(|bytes| serde_json::from_slice::<Volume>(&bytes)) {
                Ok(Ok(volume)) => {
                    volumes.insert(volume.name.clone(), Entry { volume: Arc::new(volume), users: 0 });
                }
                Ok(Err(error)) => tracing::warn!(volume = %path.display(), %error, "a volume cannot be read"),
                // Killed before the record was written, or after it was removed: nobody knows it.
                Err(_) => drop(fs::remove_dir_all(entry.path())),
            }
        }
        Ok(Volumes { dir: dir.to_owned(), volumes: Mutex::new(volumes) })
    }

    pub fn list(&self) -> Vec<Arc<Volume>> {
        self.volumes.lock().values().map(|entry| entry.volume.clone()).collect()
    }

    pub fn get(&self, name: &str) -> Option<Arc<Volume>> {
        self.volumes.lock().get(name).map(|entry| entry.volume.clone())
    }

    /// Where the content is.
    pub fn mountpoint(&self, name: &str) -> PathBuf {
        self.dir.join(name).join("_data")
    }

    /// Makes a volume, or finds the one of that name; whether it is new.
    pub fn create(
        &self,
        name: &str,
        options: BTreeMap<String, String>,
        labels: BTreeMap<String, String>,
        anonymous: bool,
    ) -> Result<(Arc<Volume>, bool)> {
        check_name(name)?;
        check_options(&options)?;
        let mut volumes = self.volumes.lock();
        if let Some(entry) = volumes.get(name) {
            return Ok((entry.volume.clone(), false));
        }
        let volume = Volume {
            name: name.to_owned(),
            labels,
            options,
            created: jiff::Timestamp::now().round(jiff::Unit::Second).unwrap_or_default().to_string(),
            anonymous,
        };
        let dir = self.dir.join(name);
        let data = dir.join("_data");
        fs::create_dir_all(&data).context(format!("create {}", data.display()))?;
        let bytes =
            serde_json::to_vec(&volume).map_err(|error| Error::internal(format!("encode volume {name}: {error}")))?;
        fs::write(dir.join("volume.json"), bytes).context(format!("write the record of volume {name}"))?;
        let volume = Arc::new(volume);
        volumes.insert(name.to_owned(), Entry { volume: volume.clone(), users: 0 });
        Ok((volume, true))
    }

    /// Removes a volume and its content. The caller knows that no container names it.
    pub fn remove(&self, name: &str) -> Result<()> {
        let mut volumes = self.volumes.lock();
        if volumes.get(name).is_some_and(|entry| entry.users > 0) {
            return Err(Error::precondition(format!("remove {name}: volume is in use")));
        }
        if volumes.remove(name).is_none() {
            return Err(Error::not_found(format!("get {name}: no such volume")));
        }
        unmount(&self.mountpoint(name))?;
        let dir = self.dir.join(name);
        // Out of sight first: a half removed volume must not come back.
        fs::remove_file(dir.join("volume.json")).context(format!("remove volume {name}"))?;
        fs::remove_dir_all(&dir).context(format!("remove volume {name}"))
    }

    /// Makes the content reachable for a container; each call wants one [`Volumes::release`].
    pub fn acquire(&self, name: &str) -> Result<PathBuf> {
        let mut volumes = self.volumes.lock();
        let entry = volumes.get_mut(name).ok_or_else(|| Error::not_found(format!("get {name}: no such volume")))?;
        let path = self.mountpoint(name);
        if entry.users == 0 && entry.volume.options.contains_key("device") && !is_mounted(&path) {
            mount(&entry.volume, &path)?;
        }
        entry.users += 1;
        Ok(path)
    }

    /// A container that had the volume has ended.
    pub fn release(&self, name: &str) {
        let mut volumes = self.volumes.lock();
        let Some(entry) = volumes.get_mut(name) else { return };
        entry.users = entry.users.saturating_sub(1);
        if entry.users == 0
            && entry.volume.options.contains_key("device")
            && let Err(error) = unmount(&self.mountpoint(name))
        {
            tracing::warn!(volume = name, %error, "a volume cannot be unmounted");
        }
    }
}

/// The local driver's names.
pub fn check_name(name: &str) -> Result<()> {
    if name.len() < 2 {
        return Err(Error::invalid(format!(
            "create {name}: volume name is too short, names should be at least two alphanumeric characters"
        )));
    }
    let bytes = name.as_bytes();
    let good = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    if !bytes[0].is_ascii_alphanumeric() || !bytes.iter().all(good) || name.len() > 255 {
        return Err(Error::invalid(format!(
            "create {name}: \"{name}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
        )));
    }
    Ok(())
}

fn check_options(options: &BTreeMap<String, String>) -> Result<()> {
    if let Some(key) = options.keys().find(|key| !OPTIONS.contains(&key.as_str())) {
        return Err(Error::invalid(format!("invalid option: {key:?}")));
    }
    if options.contains_key("size") {
        return Err(Error::invalid("quota size requested but no quota support"));
    }
    let given = |key: &str| options.get(key).is_some_and(|value| !value.is_empty());
    if (given("type") || given("o")) && !given("device") {
        return Err(Error::invalid("missing required option: \"device\""));
    }
    if given("device") && !given("type") && !given("o") {
        return Err(Error::invalid("missing required option: \"type\""));
    }
    Ok(())
}

fn mount(volume: &Volume, path: &Path) -> Result<()> {
    let option = |key: &str| volume.options.get(key).map(String::as_str).unwrap_or_default();
    let words: Vec<String> = option("o").split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect();
    let mut parsed = MountOptions::parse(&words).map_err(|error| Error::invalid(error.to_string()))?;
    if option("type") == "nfs" || option("type") == "cifs" {
        // The kernel wants an address, where people write names.
        if let Some(word) = words.iter().find_map(|word| word.strip_prefix("addr="))
            && word.parse::<std::net::IpAddr>().is_err()
        {
            let address = std::net::ToSocketAddrs::to_socket_addrs(&(word, 0))
                .ok()
                .and_then(|mut addresses| addresses.next())
                .ok_or_else(|| Error::invalid(format!("error resolving passed in network volume address: {word}")))?;
            parsed.data = parsed.data.replace(&format!("addr={word}"), &format!("addr={}", address.ip()));
        }
    }
    let flags = if parsed.flags == 0 { String::new() } else { format!(", flags: 0x{:x}", parsed.flags) };
    let data = if parsed.data.is_empty() { String::new() } else { format!(", data: {}", parsed.data) };
    let mounted = sys::mount(option("device"), path, option("type"), parsed.flags, &parsed.data);
    let mut what = format!("failed to mount local volume: mount {}:{}{flags}{data}", option("device"), path.display());
    // mount(2), where the kernel has no such file system; the words alone would be of a device.
    if mounted.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::ENODEV)) {
        what.push_str(&format!(": the kernel of this host has no file system {:?}", option("type")));
    }
    mounted.context(what)
}

fn is_mounted(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino())).ok();
    // A bind of the same file system shows by its inode only.
    match (device(path), path.parent().and_then(device)) {
        (Some((own, _)), Some((parent, _))) if own != parent => true,
        _ => fs::read_to_string("/proc/self/mountinfo").is_ok_and(|text| {
            text.lines().any(|line| line.split(' ').nth(4).is_some_and(|mounted| Path::new(mounted) == path))
        }),
    }
}

fn unmount(path: &Path) -> Result<()> {
    while is_mounted(path) {
        match sys::umount(path, libc::MNT_DETACH) {
            Err(error) if !matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => {
                return Err(error).context(format!("unmount {}", path.display()));
            }
            Err(_) => break,
            Ok(()) => {}
        }
    }
    Ok(())
}

/// A path without `.`, `..` and double slashes, as Go's `path.Clean` for absolute paths.
pub fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Whether a directory has nothing in it.
pub fn is_empty(path: &Path) -> io::Result<bool> {
    Ok(fs::read_dir(path)?.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_made_found_again_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(dir.path()).unwrap();
        let (first, new) = volumes.create("data", BTreeMap::new(), BTreeMap::new(), false).unwrap();
        assert!(new);
        assert_eq!(volumes.create("data", BTreeMap::new(), BTreeMap::new(), false).unwrap(), (first, false));
        fs::write(volumes.mountpoint("data").join("file"), "x").unwrap();
        drop(volumes);
        let again = Volumes::open(dir.path()).unwrap();
        assert!(again.mountpoint("data").join("file").exists());
        again.acquire("data").unwrap();
        assert!(again.remove("data").unwrap_err().to_string().contains("volume is in use"));
        again.release("data");
        again.remove("data").unwrap();
        assert!(again.remove("data").unwrap_err().is_not_found());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn names_and_options_are_checked() {
        for (name, word) in [("a", "too short"), ("../x", "invalid characters"), ("-ab", "invalid characters")] {
            assert!(check_name(name).unwrap_err().to_string().contains(word), "{name}");
        }
        let options = |pairs: &[(&str, &str)]| {
            let options = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            check_options(&options).err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert_eq!(options(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m")]), "");
        assert!(options(&[("type", "tmpfs")]).contains("\"device\""));
        assert!(options(&[("color", "red")]).contains("invalid option: \"color\""));
        assert!(options(&[("size", "1g")]).contains("no quota support"));
    }
}
