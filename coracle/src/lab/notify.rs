//! Being told when the server is ready: the datagrams of sd_notify(3).

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail};
use tokio::{net::UnixDatagram, time::timeout};

/// A socket that a service tells its state to.
pub struct Notify {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Notify {
    /// Listens at `path`.
    pub fn listen(path: PathBuf) -> Result<Self> {
        let _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).with_context(|| format!("listen at {}", path.display()))?;
        Ok(Self { socket, path })
    }

    /// What `NOTIFY_SOCKET` must be.
    pub fn address(&self) -> String {
        self.path.display().to_string()
    }

    /// Waits until the service is ready, or has told why it is not.
    pub async fn ready(&self, limit: Duration) -> Result<()> {
        let mut buffer = [0; 4096];
        let wait = async {
            loop {
                let length = self.socket.recv(&mut buffer).await?;
                let text = String::from_utf8_lossy(&buffer[..length]);
                for line in text.lines() {
                    match line.split_once('=') {
                        Some(("READY", "1")) => return Ok(()),
                        Some(("STATUS", status)) if text.contains("ERRNO=") => bail!("{status}"),
                        _ => {}
                    }
                }
            }
        };
        timeout(limit, wait).await.with_context(|| format!("the service was not ready within {limit:?}"))?
    }
}

impl Drop for Notify {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
