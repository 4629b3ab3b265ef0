//! Attaching to a container's first process, before it starts or while it runs; and the size of its terminal.

use std::sync::Arc;

use coracle_shim::protocol::Request;
use tokio::{io::AsyncWriteExt, sync::oneshot};

use super::{
    super::{
        Docker,
        http::{Answer, Call, Problem, empty},
        streams::{self, End, Hijack, Options},
        websocket,
    },
    Container, logs,
};
use crate::engine::standalone::PendingAttach;

/// More clients than anybody attaches to one container that does not run.
const MAX_PENDING: usize = 64;

pub async fn attach(mut call: Call) -> Answer {
    let attaching = Attaching::prepare(&call).await?;
    let (response, hijack) = streams::hijack(&mut call, !attaching.options.tty);
    attaching.run(call.docker, hijack);
    Ok(response)
}

/// The same over a WebSocket, where output is never multiplexed.
pub async fn attach_websocket(mut call: Call) -> Answer {
    let (response, hijack) = websocket::hijack(&mut call)?;
    let mut attaching = Attaching::prepare(&call).await?;
    attaching.options.tty = true;
    attaching.run(call.docker, hijack);
    Ok(response)
}

/// A client that is about to be attached.
struct Attaching {
    container: Arc<Container>,
    options: Options,
    replay: bool,
    waiting: Option<Waiting>,
}

impl Attaching {
    async fn prepare(call: &Call) -> Result<Attaching, Problem> {
        let container = call.docker.container(call.name())?;
        match container.status() {
            "paused" => {
                return Err(Problem::conflict(format!(
                    "container {} is paused, unpause the container before attach",
                    call.name()
                )));
            }
            "restarting" => {
                return Err(Problem::conflict(format!(
                    "container {} is restarting, wait until the container is running",
                    call.name()
                )));
            }
            _ => {}
        }
        let config = container.with(|record| record.config.clone());
        let query = &call.query;
        let options = Options {
            tty: config.tty,
            stdin: query.flag("stdin") && config.open_stdin,
            stdout: query.flag("stdout"),
            stderr: query.flag("stderr"),
            detach_keys: streams::detach_keys(query.text("detachKeys"))?,
            close_stdin: config.stdin_once && !config.tty,
        };
        let (replay, stream) = (query.flag("logs"), query.flag("stream"));
        let waiting = if stream { Some(wait_for_session(call, &container, &options).await?) } else { None };
        Ok(Attaching { container, options, replay, waiting })
    }

    fn run(self, docker: Arc<Docker>, hijack: Hijack) {
        let Attaching { container, options, replay, waiting } = self;
        tokio::spawn(async move {
            let end = follow(&docker, &container, hijack, &options, replay, waiting).await;
            match end {
                Some(End::Detached) => docker.tell(&container, "detach"),
                None => tracing::debug!(container = container.id, "an attached client went away before it was served"),
                _ => {}
            }
        });
    }
}

type Waiting = oneshot::Receiver<crate::error::Result<crate::engine::shim::Session>>;

/// A session now if the container runs, or when it starts.
async fn wait_for_session(call: &Call, container: &Arc<Container>, options: &Options) -> Result<Waiting, Problem> {
    let (ready, waiting) = oneshot::channel();
    let output = options.stdout || options.stderr;
    // Held so that a start that begins meanwhile either finds the client or has finished.
    let _changing = container.changing.lock().await;
    if container.runs() {
        let session = call.docker.engine.attach(&container.engine, options.stdin, output).await?;
        // The receiver is in our hands.
        let _ = ready.send(Ok(session));
        return Ok(waiting);
    }
    let mut live = container.live.lock();
    live.pending.retain(|pending| !pending.ready.is_closed());
    if live.pending.len() >= MAX_PENDING {
        return Err(Problem::conflict("too many clients wait for this container to start"));
    }
    live.pending.push(PendingAttach { stdin: options.stdin, output, ready });
    drop(live);
    call.docker.tell(container, "attach");
    Ok(waiting)
}

async fn follow(
    docker: &Docker,
    container: &Arc<Container>,
    hijack: Hijack,
    options: &Options,
    replay: bool,
    waiting: Option<Waiting>,
) -> Option<End> {
    let mut connection = hijack.take().await.ok()?;
    if replay {
        for bytes in logs::replay(docker, container, options) {
            connection.write.write_all(&bytes).await.ok()?;
        }
    }
    let Some(waiting) = waiting else {
        let _ = connection.write.shutdown().await;
        return Some(End::Lost);
    };
    let started = tokio::select! {
        started = waiting => started,
        () = &mut connection.gone => return None,
    };
    match started {
        Ok(Ok(session)) => Some(streams::pump(connection, session, options, |_| ()).await),
        // The container could not be started, or was removed.
        _ => {
            let _ = connection.write.shutdown().await;
            Some(End::Lost)
        }
    }
}

pub async fn resize(call: Call) -> Answer {
    let container = call.docker.container(call.name())?;
    let (rows, columns) = size(&call)?;
    if !container.runs() {
        return Err(Problem::conflict(format!("container {} is not running", container.id)));
    }
    let request = Request::Resize { id: container.id.clone(), rows, columns };
    call.docker.engine.ask_shim(&container.engine, &request).await?;
    let more = [("height", rows.to_string()), ("width", columns.to_string())];
    call.docker.tell_with(&container, "resize", &more);
    empty(http::StatusCode::OK)
}

/// `h` and `w` of a query.
pub fn size(call: &Call) -> Result<(u16, u16), Problem> {
    let number = |key: &str| {
        let text = call.query.text(key);
        text.parse::<u16>().map_err(|_| Problem::bad(format!("invalid resize {key} \"{text}\": invalid syntax")))
    };
    Ok((number("h")?, number("w")?))
}
