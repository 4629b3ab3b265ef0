//! Processes executed in running containers.

use std::{sync::Arc, time::Duration};

use coracle_shim::protocol::{Create, Kind, LogDriver, Reply, Request};
use serde_json::Value;
use tokio::time::timeout;

use super::{
    Engine,
    container::KILL_LIMIT,
    model::{Status, new_id},
    shim::{SessionReader, SessionWriter, Shim},
    spec,
};
use crate::error::{Error, Result};

/// Output of an executed process that is kept for the caller, each stream (CVE-2022-1708).
const MAX_EXEC_OUTPUT: usize = 16 << 20;

/// What of a command's failure is told before its reason, as by containerd and runc.
pub const EXEC_FAILED: &str = "failed to exec in container: failed to start exec: OCI runtime exec failed: exec failed";

/// What an executed process said and how it ended.
#[derive(Debug)]
pub struct ExecResult {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub exit_code: i32,
}

/// A process that was executed in a container. Whoever lets go of it before its end, because time is over or because the
/// client is gone, ends it; in any case the shim forgets it then.
pub struct Executed {
    /// Its name at the shim.
    id: String,
    shim: Arc<Shim>,
    started: bool,
    /// None once it has ended, or could not be started.
    reader: Option<SessionReader>,
}

impl Executed {
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What comes of it next: its output, and at last its end.
    pub async fn next(&mut self) -> Result<Reply> {
        let Some(reader) = &mut self.reader else { return Err(Error::internal("the process has ended")) };
        let reply = reader.next().await;
        match &reply {
            Ok(Reply::Started { .. }) => self.started = true,
            Ok(Reply::Exited { .. }) => self.reader = None,
            Err(_) if !self.started => self.reader = None,
            _ => {}
        }
        reply
    }
}

impl Drop for Executed {
    fn drop(&mut self) {
        let (id, shim, started) = (std::mem::take(&mut self.id), self.shim.clone(), self.started);
        let reader = self.reader.take();
        tokio::spawn(async move {
            if let Some(mut reader) = reader {
                // The signal goes by another connection than the request to start, and must not come before it.
                if started || pass(&mut reader, |reply| matches!(reply, Reply::Started { .. })).await {
                    // One that has ended in between is not there to be killed.
                    let _ = shim.call(&Request::Signal { id: id.clone(), signal: libc::SIGKILL as u32 }).await;
                    let ended = pass(&mut reader, |reply| matches!(reply, Reply::Exited { .. }));
                    let _ = timeout(KILL_LIMIT, ended).await;
                }
            }
            let _ = shim.call(&Request::Delete { id }).await;
        });
    }
}

/// Passes over what comes until it is what is waited for; false if that never comes.
async fn pass(reader: &mut SessionReader, last: impl Fn(&Reply) -> bool) -> bool {
    loop {
        match reader.next().await {
            Ok(reply) if last(&reply) => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
}

impl Engine {
    /// Prepares a command in a running container and starts it; its streams come by the session. A terminal may have its
    /// size, rows and columns, from the start.
    pub async fn start_exec(
        &self,
        id: &str,
        command: &[String],
        terminal: bool,
        size: Option<(u16, u16)>,
        stdin: bool,
    ) -> Result<(Executed, SessionWriter)> {
        let container = self.container(id)?;
        if container.state().status != Status::Running {
            return Err(Error::precondition(format!("container is in {} state", container.state().status)));
        }
        let config: Value = super::load(&self.paths.bundle(&container.id).join("config.json"))?;
        let mut process = spec::exec_process(&config, command, terminal);
        if let Some((rows, columns)) = size {
            process["consoleSize"] = serde_json::json!({"height": rows, "width": columns});
        }
        let sandbox = self.sandbox(&container.sandbox)?;
        let shim = self.shim(&sandbox).await?;
        let exec = format!("exec-{}", &new_id()[..32]);
        let create = Create {
            id: exec.clone(),
            kind: Kind::Exec { container: container.id.clone(), process: process.to_string() },
            terminal,
            stdin,
            stdin_once: stdin,
            log: LogDriver::None,
            oom_file: String::new(),
        };
        let (mut writer, reader) = shim.session().await?.split();
        let start = [
            Request::Create(create),
            Request::Attach { id: exec.clone(), stdin, output: true },
            Request::Start { id: exec.clone() },
        ];
        // Before they are sent: who asks may be gone before the last of them is.
        let process = Executed { id: exec, shim, started: false, reader: Some(reader) };
        writer.send(&start).await?;
        Ok((process, writer))
    }

    /// Runs a command in a container and waits for its end; killed after `limit` if there is one, and when nobody waits any
    /// more (containerd `internal/cri/server/container_execsync.go`).
    pub async fn exec_sync(&self, id: &str, command: &[String], limit: Option<Duration>) -> Result<ExecResult> {
        let (process, _writer) = self.start_exec(id, command, false, None, false).await?;
        match limit {
            None => finish(process).await,
            Some(limit) => timeout(limit, finish(process)).await.unwrap_or_else(|_| {
                Err(Error::deadline(format!(
                    "failed to exec in container: timeout {limit:?} exceeded: context deadline exceeded"
                )))
            }),
        }
    }
}

/// All that a process says until its end.
async fn finish(mut process: Executed) -> Result<ExecResult> {
    let mut result = ExecResult { stdout: Vec::new(), stderr: Vec::new(), exit_code: -1 };
    loop {
        match process.next().await {
            Ok(Reply::Stdout { data }) => keep(&mut result.stdout, &data),
            Ok(Reply::Stderr { data }) => keep(&mut result.stderr, &data),
            Ok(Reply::Exited { exit, .. }) => {
                result.exit_code = exit.code as i32;
                return Ok(result);
            }
            Ok(_) => {}
            Err(error) => {
                return Err(error.context(EXEC_FAILED));
            }
        }
    }
}

fn keep(buffer: &mut Vec<u8>, data: &[u8]) {
    let room = MAX_EXEC_OUTPUT - buffer.len();
    buffer.extend_from_slice(&data[..data.len().min(room)]);
}
