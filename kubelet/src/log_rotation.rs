//! Keeps containers' logs from filling the disk (kubernetes `pkg/kubelet/logs`, `container_log_manager.go`).

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use k8s_cri::v1 as cri;
use tokio_util::sync::CancellationToken;

use crate::cri::Cri;
use crate::work::Shared;

/// A larger log is rotated (upstream's `containerLogMaxSize`).
const MAX_SIZE: u64 = 10 << 20;
/// Files of one run, the current one among them (upstream's `containerLogMaxFiles`).
const MAX_FILES: usize = 5;
/// How often sizes are looked at (upstream's `containerLogMonitorInterval`); a watch on every log would cost more.
const LOOK: Duration = Duration::from_secs(10);

/// Looks after the logs until `shutdown`.
pub async fn run(shared: &Shared, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        let logs = shared.paths.logs();
        let large = tokio::task::spawn_blocking(move || large(&logs)).await;
        let Ok(Ok(large)) = large else { continue };
        if large.is_empty() {
            continue;
        }
        if let Err(error) = rotate(&shared.cri, &large, shared.clock.now()).await {
            tracing::warn!(error = %error, "the logs could not be rotated");
        }
    }
}

/// The logs that are too large.
fn large(logs: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for pod in std::fs::read_dir(logs)? {
        for container in read_dir(&pod?.path()) {
            for file in read_dir(&container) {
                let current = file.extension().is_some_and(|extension| extension == "log");
                let size = std::fs::symlink_metadata(&file).map_or(0, |metadata| metadata.len());
                if current && size > MAX_SIZE {
                    found.push(file);
                }
            }
        }
    }
    Ok(found)
}

/// What is in a directory; nothing when it has just gone.
fn read_dir(path: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(path).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect()
}

async fn rotate(cri: &Cri, large: &[PathBuf], now: Timestamp) -> Result<(), crate::cri::Error> {
    let state = cri::ContainerStateValue { state: cri::ContainerState::ContainerRunning as i32 };
    let filter = cri::ContainerFilter { state: Some(state), ..Default::default() };
    let running = cri.list_containers(cri::ListContainersRequest { filter: Some(filter) }).await?;
    for container in running.containers {
        let request = cri::ContainerStatusRequest { container_id: container.id.clone(), verbose: false };
        let Some(status) = cri.container_status(request).await?.status else { continue };
        let path = PathBuf::from(status.log_path);
        if !large.contains(&path) {
            continue;
        }
        let moved = tokio::task::spawn_blocking(move || move_aside(&path, now)).await;
        match moved {
            Ok(Ok(())) => {
                cri.reopen_container_log(cri::ReopenContainerLogRequest { container_id: container.id }).await?;
            }
            Ok(Err(error)) => tracing::warn!(error = %error, "a log could not be moved aside"),
            Err(error) => tracing::warn!(error = %error, "a log could not be moved aside"),
        }
    }
    Ok(())
}

/// Renames the log, and removes the oldest of those renamed before.
fn move_aside(path: &Path, now: Timestamp) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(now.strftime(".%Y%m%d-%H%M%S").to_string());
    std::fs::rename(path, &name)?;
    let (Some(directory), Some(stem)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Ok(());
    };
    let older = |file: &PathBuf| {
        file.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(&format!("{stem}.")))
    };
    let mut files: Vec<PathBuf> = read_dir(directory).into_iter().filter(older).collect();
    // The names end in the time, so that their order is the files' age.
    files.sort();
    for old in files.iter().rev().skip(MAX_FILES - 1) {
        std::fs::remove_file(old)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_files_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let container = dir.path().join("n_p_u/web");
        std::fs::create_dir_all(&container).unwrap();
        let log = container.join("0.log");
        for i in 0..8 {
            let file = std::fs::File::create(&log).unwrap();
            file.set_len(MAX_SIZE + 1).unwrap();
            assert_eq!(large(dir.path()).unwrap(), std::slice::from_ref(&log));
            move_aside(&log, Timestamp::from_second(1_800_000_000 + i).unwrap()).unwrap();
        }
        assert!(large(dir.path()).unwrap().is_empty());
        let left = read_dir(&container);
        assert_eq!(left.len(), MAX_FILES - 1);
        assert!(left.iter().any(|path| path.to_str().unwrap().ends_with("080007")), "{left:?}");
    }
}
