//! The user's terminal, joined to a process in a container.

use std::io::IsTerminal;

use coracle_api::json::Value;
use futures::SinkExt;
use kube::api::{AttachParams, AttachedProcess, TerminalSize};
use rustix::termios::{self, OptionalActions, Termios};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy},
    signal::unix::{SignalKind, signal},
};

use crate::error::{Error, Result};

/// Bytes that may wait on a stream.
const BUFFER: usize = 128 << 10;

/// The streams that a command asks for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    pub stdin: bool,
    pub tty: bool,
}

impl Wanted {
    /// A terminal only where the user has one.
    pub fn checked(self) -> Self {
        if self.tty && self.stdin && !std::io::stdin().is_terminal() {
            eprintln!("Unable to use a TTY - input is not a terminal or the right kind of file");
            return Self { tty: false, ..self };
        }
        self
    }

    /// What to ask the server for.
    pub fn parameters(self, container: &str) -> AttachParams {
        let parameters = AttachParams::default().stdin(self.stdin).stdout(true).stderr(!self.tty).tty(self.tty);
        let sized = parameters.container(container).max_stdin_buf_size(BUFFER).max_stdout_buf_size(BUFFER);
        if self.tty { sized } else { sized.max_stderr_buf_size(BUFFER) }
    }
}

/// The terminal without echo, lines and signals, until this goes.
struct Raw(Termios);

impl Raw {
    fn enter() -> Option<Self> {
        let before = termios::tcgetattr(std::io::stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _ = termios::tcsetattr(std::io::stdin(), OptionalActions::Flush, &self.0);
    }
}

/// Joins the user's streams to the process's until it ends.
pub async fn join(mut process: AttachedProcess, wanted: Wanted) -> Result<()> {
    let raw = wanted.tty.then(Raw::enter).flatten();
    let status = process.take_status();
    if wanted.tty
        && let Some(mut sizes) = process.terminal_size()
    {
        let mut changes = signal(SignalKind::window_change())?;
        tokio::spawn(async move {
            while let Ok(size) = termios::tcgetwinsize(std::io::stdin()) {
                let size = TerminalSize { width: size.ws_col, height: size.ws_row };
                if sizes.send(size).await.is_err() || changes.recv().await.is_none() {
                    return;
                }
            }
        });
    }
    if let Some(mut stdin) = process.stdin() {
        tokio::spawn(async move {
            // What the process does not read any more is lost, as with a pipe.
            let _ = copy(&mut tokio::io::stdin(), &mut stdin).await;
            let _ = stdin.shutdown().await;
        });
    }
    tokio::try_join!(pass(process.stdout(), tokio::io::stdout()), pass(process.stderr(), tokio::io::stderr()))?;
    let status = match status {
        Some(status) => status.await,
        None => None,
    };
    drop(raw);
    ended(coracle_api::json::to_value(&status).unwrap_or_default())
}

/// Passes a stream on as it comes.
async fn pass(from: Option<impl AsyncRead + Unpin>, mut to: impl AsyncWrite + Unpin) -> Result<()> {
    if let Some(mut from) = from {
        copy(&mut from, &mut to).await?;
        to.flush().await?;
    }
    Ok(())
}

/// What the process's end, as the server tells it, means for this program.
pub fn ended(status: Value) -> Result<()> {
    match (status["status"].as_str(), status["reason"].as_str()) {
        (Some("Failure"), Some("NonZeroExitCode")) => {
            let causes = status["details"]["causes"].as_array().into_iter().flatten();
            let code = causes
                .filter(|cause| cause["reason"] == "ExitCode")
                .find_map(|cause| cause["message"].as_str().and_then(|code| code.parse::<u8>().ok()));
            let code = code.unwrap_or(1);
            eprintln!("command terminated with exit code {code}");
            Err(Error::Quiet(code))
        }
        (Some("Failure"), _) => Err(Error::usage(status["message"].as_str().unwrap_or("the command failed"))),
        _ => Ok(()),
    }
}
