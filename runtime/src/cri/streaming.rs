//! Streams of containers for the node's streaming server: exec, attach, port-forward.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use coracle_link::{Netns, Place};
use coracle_shim::protocol::{Reply, Request};
use coracle_streaming::{Backend, Duplex, Outcome, Size, Streams, Wanted};
use futures::{FutureExt, future::BoxFuture};
use tokio::sync::mpsc;

use crate::{
    engine::{
        Engine,
        exec::{EXEC_FAILED, Executed},
        model::Status,
        shim::{SessionReader, SessionWriter},
    },
    error::{Context, Error, Result},
};

/// How long a port of a pod may take to accept a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// How long a command waits for the size of its terminal: clients without one never tell it.
const FIRST_SIZE_WITHIN: Duration = Duration::from_millis(100);

/// The engine, as streams see it.
pub struct Containers(pub Arc<Engine>);

impl Backend for Containers {
    fn exec(&self, container: &str, command: &[String], wanted: Wanted, streams: Streams) -> BoxFuture<'_, Outcome> {
        let (container, command) = (container.to_owned(), command.to_owned());
        async move { outcome(self.run(&container, &command, wanted, streams).await) }.boxed()
    }

    fn attach(&self, container: &str, wanted: Wanted, streams: Streams) -> BoxFuture<'_, Outcome> {
        let container = container.to_owned();
        async move {
            match self.join(&container, wanted, streams).await {
                // The end of what one is attached to is the end of the attachment, and no failure of it.
                Ok(_) => Outcome::Exited(0),
                Err(error) => Outcome::Failed(error.to_string()),
            }
        }
        .boxed()
    }

    fn connect(&self, sandbox: &str, port: u16) -> BoxFuture<'static, io::Result<Box<dyn Duplex>>> {
        let (place, sandbox) = (self.place(sandbox), sandbox.to_owned());
        async move {
            let place = place.map_err(io::Error::other)?;
            let to = async |address: IpAddr| place.connect_tcp((address, port).into(), CONNECT_WITHIN).await;
            let connection = match to(Ipv4Addr::LOCALHOST.into()).await {
                Ok(connection) => connection,
                // What listens on IPv6 alone is served, too.
                Err(first) => to(Ipv6Addr::LOCALHOST.into()).await.map_err(|second| {
                    // containerd `internal/cri/server/sandbox_portforward_linux.go`
                    io::Error::other(format!(
                        "failed to connect to localhost:{port} inside namespace {sandbox:?}, IPv4: {first} IPv6 {second}"
                    ))
                })?,
            };
            Ok(Box::new(connection) as Box<dyn Duplex>)
        }
        .boxed()
    }
}

impl Containers {
    async fn run(&self, container: &str, command: &[String], wanted: Wanted, streams: Streams) -> Result<i32> {
        let Streams { stdin, stdout, stderr, mut resize } = streams;
        // A client tells the size of its terminal at once; a command that asks for it at once is to be told.
        let size = match wanted.tty {
            true => tokio::time::timeout(FIRST_SIZE_WITHIN, resize.recv()).await.ok().flatten(),
            false => None,
        };
        let size = size.map(|size| (size.rows, size.columns));
        // Killed and forgotten also when the client goes and this is dropped.
        let (mut process, writer) = self.0.start_exec(container, command, wanted.tty, size, wanted.stdin).await?;
        let input = Input { process: process.id().to_owned(), closes: true };
        tokio::select! {
            ended = output(&mut process, stdout, stderr) => ended.context(EXEC_FAILED),
            never = input.carry(writer, stdin, resize) => never,
        }
    }

    async fn join(&self, container: &str, wanted: Wanted, streams: Streams) -> Result<i32> {
        let container = self.0.container(container)?;
        let status = container.state().status;
        if status != Status::Running {
            return Err(Error::precondition(format!("container is in {status} state")));
        }
        let sandbox = self.0.sandbox(&container.sandbox)?;
        let mut session = self.0.shim(&sandbox).await?.session().await?;
        let stdin = wanted.stdin && container.config.stdin;
        session.send(&[Request::Attach { id: container.id.clone(), stdin, output: true }]).await?;
        let (writer, mut reader) = session.split();
        let input = Input { process: container.id.clone(), closes: container.config.stdin_once };
        tokio::select! {
            ended = output(&mut reader, streams.stdout, streams.stderr) => ended,
            never = input.carry(writer, streams.stdin.filter(|_| stdin), streams.resize) => never,
        }
    }

    fn place(&self, sandbox: &str) -> Result<Place> {
        let sandbox = self.0.sandbox(sandbox)?;
        if sandbox.config.host_network {
            return Ok(Place::Current);
        }
        let path = self.0.network_namespace(&sandbox.id);
        let netns = Netns::open(&path).map_err(|error| {
            Error::internal(format!("open the network namespace of sandbox {}: {error}", sandbox.id))
        })?;
        Ok(Place::Netns(netns))
    }
}

fn outcome(result: Result<i32>) -> Outcome {
    match result {
        Ok(code) => Outcome::Exited(code),
        Err(error) => Outcome::Failed(format!("error executing command in container: {error}")),
    }
}

/// What tells a process's output, and at last its end.
trait Source {
    fn next(&mut self) -> impl Future<Output = Result<Reply>> + Send;
}

impl Source for Executed {
    fn next(&mut self) -> impl Future<Output = Result<Reply>> + Send {
        Executed::next(self)
    }
}

impl Source for SessionReader {
    fn next(&mut self) -> impl Future<Output = Result<Reply>> + Send {
        SessionReader::next(self)
    }
}

/// Passes a process's output on until it ends; its exit code.
async fn output(
    source: &mut impl Source,
    stdout: Option<mpsc::Sender<Bytes>>,
    stderr: Option<mpsc::Sender<Bytes>>,
) -> Result<i32> {
    loop {
        let (stream, data) = match source.next().await? {
            Reply::Stdout { data } => (&stdout, data),
            Reply::Stderr { data } => (&stderr, data),
            Reply::Exited { exit, .. } => return Ok(exit.code as i32),
            _ => continue,
        };
        if let Some(stream) = stream {
            // Who does not listen any more does not stop the process.
            let _ = stream.send(data.into()).await;
        }
    }
}

/// What goes to a process.
struct Input {
    process: String,
    /// Whether the end of the client's input is the end of the process's.
    closes: bool,
}

impl Input {
    /// Passes input and terminal sizes on; ends only when the shim is gone, which ends the process's output, too.
    async fn carry(
        self,
        mut writer: SessionWriter,
        mut stdin: Option<mpsc::Receiver<Bytes>>,
        mut resize: mpsc::Receiver<Size>,
    ) -> Result<i32> {
        let mut resizes = true;
        loop {
            let request = tokio::select! {
                data = receive(&mut stdin), if stdin.is_some() => match data {
                    Some(data) => Request::Stdin { data: data.into() },
                    None => {
                        stdin = None;
                        if !self.closes {
                            continue;
                        }
                        Request::CloseStdin
                    }
                },
                size = resize.recv(), if resizes => match size {
                    Some(size) => Request::Resize { id: self.process.clone(), rows: size.rows, columns: size.columns },
                    None => {
                        resizes = false;
                        continue;
                    }
                },
                else => return std::future::pending().await,
            };
            if writer.send(&[request]).await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

async fn receive(stdin: &mut Option<mpsc::Receiver<Bytes>>) -> Option<Bytes> {
    stdin.as_mut()?.recv().await
}
