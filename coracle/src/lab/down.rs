//! `lab down`: ends everything and removes every trace.

use std::{fs, io, path::Path, time::Duration};

use anyhow::{Context, Result};

use super::{
    cgroups::Cgroups,
    inspect,
    lock::Lock,
    paths::Paths,
    process::{Process, kill_all_in},
    progress::Step,
    spec::Spec,
};

/// How long the server gets to close its store, and the kernel to let go of a cgroup.
const SERVER_GRACE: Duration = Duration::from_secs(10);
const CGROUP_LIMIT: Duration = Duration::from_secs(10);

/// Removes the lab.
pub async fn down(paths: &Paths) -> Result<()> {
    let Some(_lock) = Lock::open(paths)? else {
        println!("There is no lab {:?}; nothing to do.", paths.name());
        return Ok(());
    };
    let step = Step::begin(format!("taking lab {:?} down", paths.name()));
    remove(paths).await?;
    step.done(&format!("lab {:?} is gone", paths.name()));
    Ok(())
}

/// Ends and removes everything of the lab. The caller holds the lock.
pub async fn remove(paths: &Paths) -> Result<()> {
    halt(paths).await?;
    for dir in [paths.run(), paths.state()] {
        remove_dir(&dir)?;
    }
    paths.remove_empty_parents();
    Ok(())
}

/// Ends every process of the lab and removes its cgroups; its data stays.
pub async fn halt(paths: &Paths) -> Result<()> {
    // A spec that cannot be read must not keep the lab from being taken down: the records and the cgroup tell.
    let names = match Spec::load(paths) {
        Ok(Some(spec)) => inspect::process_names(&spec).collect(),
        _ => recorded(paths),
    };
    // A node's end frees its containers at once; then nobody calls the server any more.
    // (A node's name has a dash: LAB-NUMBER.)
    let (servers, nodes): (Vec<_>, Vec<_>) =
        names.iter().partition(|name| name.starts_with("server") && !name.contains('-'));
    for name in nodes {
        if let Some(process) = Process::find(paths, name)? {
            process.kill().await?;
        }
    }
    for name in servers {
        if let Some(process) = Process::find(paths, name)? {
            process.stop(SERVER_GRACE).await?;
        }
    }
    let cgroups = Cgroups::find()?;
    remove_cgroups(&cgroups, &paths.cgroup())?;
    cgroups.remove_if_empty("coracle");
    remove_dir(&paths.run())
}

/// Removes a cgroup of the lab with all below it, ending who is still in it.
pub fn remove_cgroups(cgroups: &Cgroups, path: &str) -> Result<()> {
    for dir in cgroups.directories(path) {
        kill_all_in(&dir)?;
    }
    cgroups.remove(path, CGROUP_LIMIT)
}

/// The processes that were recorded.
fn recorded(paths: &Paths) -> Vec<String> {
    let entries = fs::read_dir(paths.run()).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".pid").map(str::to_owned)).collect()
}

fn remove_dir(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}
