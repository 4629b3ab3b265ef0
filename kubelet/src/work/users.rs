//! Users of a pod's own (`hostUsers: false`): which of the node's users stand for them.
//!
//! Each pod has a range of 65,536 users and groups, written down in its directory, with which it goes. The node's own users
//! are in the first range, which no pod gets (upstream `pkg/kubelet/userns/userns_manager.go`).

use std::{collections::BTreeSet, fs, io, path::Path, sync::Mutex};

use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::{pod, volumes::Paths};

const FILE: &str = "userns";
const LENGTH: u32 = 65_536;
/// The last range ends with the last user there can be.
const RANGES: u32 = 65_535;

/// Held while a range is chosen: what is free is read from the pods' directories.
static CHOOSING: Mutex<()> = Mutex::new(());

/// The users of a pod; none where they are the node's. A range is chosen on the first call. Reads and writes files.
///
/// # Errors
/// No range is free, or what is written down cannot be read.
pub fn of(paths: &Paths, pod: &Pod) -> Result<Option<cri::UserNamespace>, String> {
    if pod::spec(pod).host_users != Some(false) {
        return Ok(None);
    }
    let _choosing = CHOOSING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let directory = paths.pod(pod::uid(pod));
    let chosen = match read(&directory).map_err(|error| format!("cannot read the pod's user namespace: {error}"))? {
        Some(first) => first,
        None => choose(&paths.pods(), &directory)?,
    };
    let mapping = cri::IdMapping { host_id: chosen, container_id: 0, length: LENGTH };
    Ok(Some(cri::UserNamespace { mode: cri::NamespaceMode::Pod as i32, uids: vec![mapping], gids: vec![mapping] }))
}

/// The first user of a pod's range.
fn read(directory: &Path) -> io::Result<Option<u32>> {
    let text = match fs::read(directory.join(FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text?,
    };
    let value: Value = serde_json::from_slice(&text)?;
    let first = value["uidMappings"][0]["hostId"].as_u64().and_then(|id| u32::try_from(id).ok());
    let first = first.filter(|first| *first >= LENGTH && first % LENGTH == 0);
    first.map(Some).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a range of users"))
}

fn choose(pods: &Path, directory: &Path) -> Result<u32, String> {
    let failed = |error: io::Error| format!("cannot choose users for the pod: {error}");
    fs::create_dir_all(directory).map_err(failed)?;
    let mut taken = BTreeSet::new();
    for entry in fs::read_dir(pods).map_err(failed)? {
        // What cannot be read may be anybody's: no range is given twice.
        taken.extend(read(&entry.map_err(failed)?.path()).map_err(failed)?);
    }
    let free = (1..RANGES).map(|range| range * LENGTH).find(|first| !taken.contains(first));
    let first = free.ok_or_else(|| "no range of users is free for the pod".to_owned())?;
    let range = json!([{ "hostId": first, "containerId": 0, "length": LENGTH }]);
    let text = json!({ "uidMappings": range, "gidMappings": range }).to_string();
    let part = directory.join(".userns.part");
    let write = || {
        let mut file = fs::File::create(&part)?;
        io::Write::write_all(&mut file, text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&part, directory.join(FILE))
    };
    write().map_err(failed)?;
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str, host_users: Option<bool>) -> Pod {
        let spec = json!({ "containers": [], "hostUsers": host_users });
        serde_json::from_value(json!({ "metadata": { "name": uid, "uid": uid }, "spec": spec })).unwrap()
    }

    fn first(paths: &Paths, uid: &str) -> Result<u32, String> {
        of(paths, &pod(uid, Some(false))).map(|users| users.unwrap().uids[0].host_id)
    }

    #[test]
    fn each_pod_keeps_a_range_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        assert_eq!(of(&paths, &pod("a", None)).unwrap(), None);
        assert_eq!(of(&paths, &pod("a", Some(true))).unwrap(), None);
        assert_eq!((first(&paths, "a"), first(&paths, "b")), (Ok(65_536), Ok(131_072)));
        assert_eq!((first(&paths, "b"), first(&paths, "a")), (Ok(131_072), Ok(65_536)));
        // A range is free when its pod's directory is gone.
        fs::remove_dir_all(paths.pod("a")).unwrap();
        assert_eq!(first(&paths, "c"), Ok(65_536));
        // With one that cannot be read, none is given: it could be that one.
        fs::write(paths.pod("b").join(FILE), "{").unwrap();
        assert!(first(&paths, "d").is_err() && first(&paths, "b").is_err());
        assert_eq!(first(&paths, "c"), Ok(65_536));
    }
}
