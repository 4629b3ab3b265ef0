//! Talking to shims: starting one, finding one again, requests, and sessions with a process's streams.

use std::{
    collections::{HashMap, VecDeque},
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{
            fs::{DirBuilderExt, PermissionsExt},
            net::{UnixListener, UnixStream as StdUnixStream},
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use coracle_shim::protocol::{self, Create, Exit, MAX_FRAME, ProcessState, Reply, Request, VERSION};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::error::{Context, Error, Result};

const SOCKET: &str = "shim.sock";
/// A shim answers in microseconds; a start waits for the launcher, which a slow disk may hold up.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// The programs that shims are made of.
pub struct Programs {
    pub shim: OwnedFd,
    pub launcher: OwnedFd,
}

impl Programs {
    /// The programs embedded in this one.
    pub fn embedded() -> Result<Programs> {
        let shim = coracle_programs::SHIM.memfd().context("open the shim's program")?;
        let launcher = coracle_programs::LAUNCHER.memfd().context("open the launcher's program")?;
        Ok(Programs { shim, launcher })
    }
}

/// Something a shim tells by itself.
#[derive(Debug)]
pub enum ShimEvent {
    Exited {
        id: String,
        exit: Exit,
    },
    /// The shim ended, and with it all its containers.
    Gone,
}

/// A connection to one shim, shared by everything that concerns its sandbox.
pub struct Shim {
    dir: PathBuf,
    /// Started by this daemon, and so of its programs.
    ours: bool,
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    pending: Arc<Pending>,
    next: AtomicU32,
}

#[derive(Default)]
struct Pending {
    /// `None` once the connection is lost.
    waiting: Mutex<Option<HashMap<u32, oneshot::Sender<Reply>>>>,
}

const HELLO: u32 = 1;
const WATCH: u32 = 2;

impl Shim {
    /// Starts a shim for `dir`; it keeps launcher state under `oci_root`.
    pub async fn spawn(
        programs: &Programs,
        dir: &Path,
        oci_root: &Path,
    ) -> Result<(Arc<Shim>, mpsc::Receiver<ShimEvent>)> {
        let child = start(programs, dir, oci_root).context(format!("start the shim of {}", dir.display()))?;
        Shim::connect(dir, Some(child)).await
    }

    /// Finds a shim that an earlier daemon started; none if it is gone.
    pub async fn find(dir: &Path) -> Option<(Arc<Shim>, mpsc::Receiver<ShimEvent>)> {
        if dir.join(SOCKET).exists() { Shim::connect(dir, None).await.ok() } else { None }
    }

    async fn connect(dir: &Path, child: Option<Child>) -> Result<(Arc<Shim>, mpsc::Receiver<ShimEvent>)> {
        let (mut reader, mut writer) = dial(dir)?.into_split();
        let mut bytes = Vec::new();
        Request::Hello { version: VERSION }.encode(HELLO, &mut bytes);
        Request::Watch.encode(WATCH, &mut bytes);
        writer.write_all(&bytes).await.context("greet the shim")?;
        let mut frames = Frames::default();
        for _ in 0..2 {
            let frame = timeout(CONNECT_LIMIT, frames.next(&mut reader)).await;
            match frame.map_err(|_| Error::deadline("the shim does not answer"))?? {
                (_, Reply::Hello { .. } | Reply::Done) => {}
                (_, Reply::Failed { message }) => return Err(Error::precondition(message)),
                _ => return Err(Error::internal("the shim answered something else")),
            }
        }
        let pending = Arc::new(Pending { waiting: Mutex::new(Some(HashMap::new())) });
        let ours = child.is_some();
        let (sender, events) = mpsc::channel(64);
        tokio::spawn(listen(reader, frames, pending.clone(), sender, child));
        let shim = Shim {
            dir: dir.to_owned(),
            ours,
            writer: tokio::sync::Mutex::new(writer),
            pending,
            next: AtomicU32::new(WATCH + 1),
        };
        Ok((Arc::new(shim), events))
    }

    /// Whether this daemon started it: then its launcher is this program's.
    pub fn is_ours(&self) -> bool {
        self.ours
    }

    /// Sends one request and waits for its answer.
    async fn request(&self, request: &Request) -> Result<Reply> {
        let [answer] = self.requests([request]).await?;
        answer
    }

    /// Sends requests in one write; the shim does them one after the other, whatever becomes of those before.
    async fn requests<const N: usize>(&self, requests: [&Request; N]) -> Result<[Result<Reply>; N]> {
        let first = self.next.fetch_add(N as u32, Ordering::Relaxed);
        let mut bytes = Vec::new();
        let receivers = {
            let mut waiting = self.pending.waiting.lock();
            let waiting = waiting.as_mut().ok_or_else(|| Error::unavailable("the shim is gone"))?;
            let mut number = first;
            requests.map(|request| {
                let (sender, receiver) = oneshot::channel();
                waiting.insert(number, sender);
                request.encode(number, &mut bytes);
                number = number.wrapping_add(1);
                receiver
            })
        };
        self.writer.lock().await.write_all(&bytes).await.context("write to the shim")?;
        let answers = futures::future::join_all(receivers.map(|receiver| timeout(ANSWER_LIMIT, receiver))).await;
        let mut answers = answers.into_iter().map(|answer| match answer {
            Ok(Ok(Reply::Failed { message })) => Err(Error::internal(message)),
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_)) => Err(Error::unavailable("the shim is gone")),
            Err(_) => Err(Error::deadline("the shim does not answer")),
        });
        // There are as many answers as requests.
        Ok(std::array::from_fn(|_| answers.next().unwrap_or_else(|| Err(Error::unavailable("the shim is gone")))))
    }

    /// A request whose answer says nothing but that it was done.
    pub async fn call(&self, request: &Request) -> Result<()> {
        self.request(request).await.map(drop)
    }

    /// Starts a created process; returns its pid and when.
    pub async fn start_process(&self, id: &str) -> Result<(u32, u64)> {
        started(self.request(&Request::Start { id: id.to_owned() }).await?)
    }

    /// Makes a process known, in place of what an earlier run left of it.
    pub async fn create_process(&self, create: Create) -> Result<()> {
        let forget = Request::Delete { id: create.id.clone() };
        // That there is nothing to forget is fine.
        let [_, created] = self.requests([&forget, &Request::Create(create)]).await?;
        created.map(drop)
    }

    /// The same, and starts it; returns its pid and when.
    pub async fn run_process(&self, create: Create) -> Result<(u32, u64)> {
        let forget = Request::Delete { id: create.id.clone() };
        let start = Request::Start { id: create.id.clone() };
        let [_, created, answer] = self.requests([&forget, &Request::Create(create), &start]).await?;
        created?;
        started(answer?)
    }

    /// The first process of the sandbox's shared pid namespace.
    pub async fn share_processes(&self, users: String) -> Result<u32> {
        match self.request(&Request::ShareProcesses { users }).await? {
            Reply::Started { pid, .. } => Ok(pid),
            _ => Err(Error::internal("the shim answered something else")),
        }
    }

    pub async fn state(&self) -> Result<Vec<ProcessState>> {
        match self.request(&Request::State).await? {
            Reply::State { processes } => Ok(processes),
            _ => Err(Error::internal("the shim answered something else")),
        }
    }

    /// A connection of its own, for a process's streams.
    pub async fn session(&self) -> Result<Session> {
        Session::open(&self.dir).await
    }
}

fn started(reply: Reply) -> Result<(u32, u64)> {
    match reply {
        Reply::Started { pid, at } => Ok((pid, at)),
        _ => Err(Error::internal("the shim answered something else")),
    }
}

/// Paths of sockets are short (108 bytes), those of labs are not: the directory is named by a descriptor.
fn socket_path(dir: &File) -> PathBuf {
    format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()).into()
}

fn open_dir(dir: &Path) -> Result<File> {
    File::open(dir).context(format!("open {}", dir.display()))
}

fn dial(dir: &Path) -> Result<UnixStream> {
    let handle = open_dir(dir)?;
    let stream =
        StdUnixStream::connect(socket_path(&handle)).context(format!("connect to the shim of {}", dir.display()))?;
    stream.set_nonblocking(true).context("set the socket non-blocking")?;
    UnixStream::from_std(stream).context("watch the socket")
}

fn start(programs: &Programs, dir: &Path, oci_root: &Path) -> Result<Child> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).context("create its directory")?;
    let handle = open_dir(dir)?;
    let path = socket_path(&handle);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).context("remove the old socket"),
        _ => {}
    }
    // Made here and handed over: whoever connects from now on waits in its backlog until the shim is up.
    let listener = UnixListener::bind(&path).context("listen")?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).context("set the socket's mode")?;
    let launcher = programs.launcher.try_clone().context("duplicate a descriptor")?;
    let mut command = Command::new(coracle_programs::exec_path(&programs.shim.as_fd()));
    command.env_clear().arg("--dir").arg(dir).arg("--root").arg(oci_root);
    command.stdin(Stdio::from(OwnedFd::from(listener))).stdout(Stdio::from(launcher)).stderr(Stdio::null());
    command.spawn().context("run the shim")
}

/// Hands answers to those who wait and events to the engine, until the shim is gone.
async fn listen(
    mut reader: OwnedReadHalf,
    mut frames: Frames,
    pending: Arc<Pending>,
    events: mpsc::Sender<ShimEvent>,
    child: Option<Child>,
) {
    while let Ok((number, reply)) = frames.next(&mut reader).await {
        if let (WATCH, Reply::Exited { id, exit }) = (number, &reply) {
            let event = ShimEvent::Exited { id: id.clone(), exit: exit.clone() };
            if events.send(event).await.is_err() {
                break;
            }
            continue;
        }
        let waiting = pending.waiting.lock().as_mut().and_then(|waiting| waiting.remove(&number));
        if let Some(waiting) = waiting {
            // Whoever gave up waiting does not need it.
            let _ = waiting.send(reply);
        }
    }
    drop(pending.waiting.lock().take());
    if let Some(mut child) = child {
        // It has closed its socket, so it has ended or is about to.
        let _ = tokio::task::spawn_blocking(move || child.wait()).await;
    }
    let _ = events.send(ShimEvent::Gone).await;
}

/// Cuts a byte stream into replies.
#[derive(Default)]
struct Frames {
    buffer: Vec<u8>,
    start: usize,
}

impl Frames {
    async fn next(&mut self, reader: &mut OwnedReadHalf) -> Result<(u32, Reply)> {
        loop {
            let split = protocol::split(&self.buffer[self.start..])
                .map_err(|_| Error::internal("malformed frame from the shim"))?;
            if let Some((kind, number, body, used)) = split {
                let reply = Reply::decode(kind, body).map_err(|_| Error::internal("malformed frame from the shim"))?;
                self.start += used;
                return Ok((number, reply));
            }
            self.buffer.drain(..std::mem::take(&mut self.start));
            if self.buffer.len() > MAX_FRAME + 8 {
                return Err(Error::internal("frame from the shim is too long"));
            }
            if reader.read_buf(&mut self.buffer).await.context("read from the shim")? == 0 {
                return Err(Error::unavailable("the shim is gone"));
            }
        }
    }
}

/// One client's view of one process: requests go out, streams and the exit come in.
///
/// A client that writes much must read at the same time ([`Session::split`]): the process may be waiting for its output
/// to be taken before it reads on.
pub struct Session {
    writer: SessionWriter,
    reader: SessionReader,
}

/// The half that sends requests and input.
pub struct SessionWriter {
    /// There until it is dropped.
    socket: Option<OwnedWriteHalf>,
    next: u32,
}

impl Drop for SessionWriter {
    /// The shim takes the end of what a client says for the end of the client, and tells it nothing more: with this half
    /// alone the connection does not end.
    fn drop(&mut self) {
        if let Some(socket) = self.socket.take() {
            socket.forget();
        }
    }
}

/// The half that receives answers, output and the exit.
pub struct SessionReader {
    socket: OwnedReadHalf,
    frames: Frames,
    /// Replies that came before what was waited for.
    held: VecDeque<Reply>,
}

impl Session {
    async fn open(dir: &Path) -> Result<Session> {
        let (reader, writer) = dial(dir)?.into_split();
        let mut session = Session {
            writer: SessionWriter { socket: Some(writer), next: HELLO },
            reader: SessionReader { socket: reader, frames: Frames::default(), held: VecDeque::new() },
        };
        session.send(&[Request::Hello { version: VERSION }]).await?;
        Ok(session)
    }

    /// Sends requests in one write; their answers come by [`Session::next`].
    pub async fn send(&mut self, requests: &[Request]) -> Result<()> {
        self.writer.send(requests).await
    }

    /// The next reply; a refusal is an error.
    pub async fn next(&mut self) -> Result<Reply> {
        self.reader.next().await
    }

    /// Waits until the process that was asked for runs; its output until then comes by [`Session::next`] all the same.
    pub async fn wait_started(&mut self) -> Result<(u32, u64)> {
        let mut early = VecDeque::new();
        let started = loop {
            match self.next().await? {
                Reply::Started { pid, at } => break (pid, at),
                reply @ (Reply::Stdout { .. } | Reply::Stderr { .. } | Reply::Exited { .. }) => early.push_back(reply),
                _ => {}
            }
        };
        self.reader.held = early;
        Ok(started)
    }

    pub fn split(self) -> (SessionWriter, SessionReader) {
        (self.writer, self.reader)
    }
}

impl SessionWriter {
    pub async fn send(&mut self, requests: &[Request]) -> Result<()> {
        let mut bytes = Vec::new();
        for request in requests {
            request.encode(self.next, &mut bytes);
            self.next += 1;
        }
        let socket = self.socket.as_mut().ok_or_else(|| Error::unavailable("the shim is gone"))?;
        socket.write_all(&bytes).await.context("write to the shim")
    }
}

impl SessionReader {
    pub async fn next(&mut self) -> Result<Reply> {
        if let Some(reply) = self.held.pop_front() {
            return Ok(reply);
        }
        match self.frames.next(&mut self.socket).await?.1 {
            Reply::Failed { message } => Err(Error::internal(message)),
            reply => Ok(reply),
        }
    }
}
