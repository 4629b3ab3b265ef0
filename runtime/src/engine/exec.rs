//! Processes executed in running containers.

use std::{sync::Arc, time::Duration};

use coracle_shim::protocol::{Create, Kind, LogDriver, Reply, Request};
use serde_json::Value;
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    Engine,
    container::KILL_LIMIT,
    model::{Status, new_id},
    shim::{Session, SessionReader, Shim},
    spec,
};
use crate::error::{Error, Result};

/// Output of an executed process that is kept for the caller, each stream (CVE-2022-1708).
const MAX_EXEC_OUTPUT: usize = 16 << 20;

/// What an executed process said and how it ended.
#[derive(Debug)]
pub struct ExecResult {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub exit_code: i32,
}

/// A process that was executed in a container.
pub struct Executed {
    /// Its name at the shim.
    pub id: String,
    pub shim: Arc<Shim>,
    pub session: Session,
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
    ) -> Result<Executed> {
        let container = self.container(id)?;
        if container.state().status != Status::Running {
            return Err(Error::precondition(format!("container is in {:?} state", container.state().status)));
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
        let mut session = shim.session().await?;
        let start = [
            Request::Create(create),
            Request::Attach { id: exec.clone(), stdin, output: true },
            Request::Start { id: exec.clone() },
        ];
        session.send(&start).await?;
        Ok(Executed { id: exec, shim, session })
    }

    /// Runs a command in a container and waits for its end; killed after `limit` if there is one.
    pub async fn exec_sync(&self, id: &str, command: &[String], limit: Option<Duration>) -> Result<ExecResult> {
        let Executed { id: exec, shim, mut session } = self.start_exec(id, command, false, None, false).await?;
        let deadline = limit.map(|limit| Instant::now() + limit);
        let mut result = ExecResult { stdout: Vec::new(), stderr: Vec::new(), exit_code: -1 };
        let outcome = loop {
            let reply = match deadline {
                Some(deadline) => match timeout_at(deadline, session.next()).await {
                    Ok(reply) => reply,
                    Err(_) => {
                        let _ = shim.call(&Request::Signal { id: exec.clone(), signal: libc::SIGKILL as u32 }).await;
                        break Err(Error::deadline(format!(
                            "failed to exec in container: timeout {:?} exceeded: context deadline exceeded",
                            limit.unwrap_or_default()
                        )));
                    }
                },
                None => session.next().await,
            };
            match reply {
                Ok(Reply::Stdout { data }) => keep(&mut result.stdout, &data),
                Ok(Reply::Stderr { data }) => keep(&mut result.stderr, &data),
                Ok(Reply::Exited { exit, .. }) => {
                    result.exit_code = exit.code as i32;
                    break Ok(result);
                }
                Ok(_) => {}
                Err(error) => {
                    break Err(error.context(
                        "failed to exec in container: failed to start exec: OCI runtime exec failed: exec failed",
                    ));
                }
            }
        };
        // Forgotten in the background; a killed one takes a moment to end.
        let ended = outcome.is_ok();
        tokio::spawn(async move {
            if !ended {
                let (_, mut reader) = session.split();
                wait_killed(&mut reader).await;
            }
            let _ = shim.call(&Request::Delete { id: exec }).await;
        });
        outcome
    }
}

/// Waits for an executed process's end after it was killed.
pub async fn wait_killed(session: &mut SessionReader) {
    let ended = async {
        while let Ok(reply) = session.next().await {
            if matches!(reply, Reply::Exited { .. }) {
                break;
            }
        }
    };
    let _ = timeout(KILL_LIMIT, ended).await;
}

fn keep(buffer: &mut Vec<u8>, data: &[u8]) {
    let room = MAX_EXEC_OUTPUT - buffer.len();
    buffer.extend_from_slice(&data[..data.len().min(room)]);
}
