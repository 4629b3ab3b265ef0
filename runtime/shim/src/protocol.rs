//! What the shim and its clients say to each other.
//!
//! A stream socket carries frames in both directions:
//!
//! ```text
//! u32 length of the rest | u8 kind | u32 number | body          (all little-endian)
//! ```
//!
//! The client begins with [`Request::Hello`]; the shim answers with the version it speaks and refuses others. Every
//! request is answered by one frame with its number, in any order. Requests may be sent without waiting: `Create`,
//! `Attach` and `Start` of a process are usually one write. After `Attach` the connection also carries the process's
//! streams ([`Request::Stdin`], [`Reply::Stdout`], …) and, last, [`Reply::Exited`]; after `Watch` it carries `Exited` of
//! every process. Those have the number of the `Attach` or `Watch` they belong to.
//!
//! A *process* is a container's first process or one executed in it; both are created, attached to, started,
//! signalled and deleted alike. Any number of clients may attach, before the start too. A client that does not read
//! holds its process's output back, as a full pipe would.

/// Raised when a frame changes its meaning.
pub const VERSION: u16 = 1;
/// No frame is longer.
pub const MAX_FRAME: usize = 4 << 20;
/// Bytes before the body.
pub const HEADER: usize = 9;

/// Where a process's output is kept.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum LogDriver {
    #[default]
    None,
    /// Lines in the CRI format at a path.
    Cri { path: String },
    /// Docker's json-file.
    JsonFile(JsonFile),
}

/// Lines of JSON, in files of a bounded size.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct JsonFile {
    pub path: String,
    /// A file of this many bytes becomes `PATH.1`; 0: any.
    pub max_size: u64,
    /// How many are kept, the one that is written to included.
    pub max_files: u32,
    /// Those that are moved away are compressed: `PATH.1.gz`.
    pub compress: bool,
    /// The JSON object that stands in each line as `attrs`; empty for none.
    pub attributes: String,
    /// Bytes of output that wait for the disk at most, beyond which it is dropped; 0: the process waits.
    pub buffer: u64,
}

/// What a process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The first process of a bundle.
    Container { bundle: String },
    /// A process in a running container, by the JSON of the OCI specification.
    Exec { container: String, process: String },
}

/// A process to be started later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Create {
    pub id: String,
    pub kind: Kind,
    pub terminal: bool,
    /// Keep standard input open for attached clients; otherwise it is `/dev/null`.
    pub stdin: bool,
    /// Close standard input when the first client that had it attached goes.
    pub stdin_once: bool,
    pub log: LogDriver,
    /// The cgroup file that counts OOM kills under `oom_kill`; empty for none.
    pub oom_file: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    Hello {
        version: u16,
    },
    Create(Create),
    Start {
        id: String,
    },
    Attach {
        id: String,
        stdin: bool,
        output: bool,
    },
    Signal {
        id: String,
        signal: u32,
    },
    Resize {
        id: String,
        rows: u16,
        columns: u16,
    },
    State,
    Watch,
    ReopenLog {
        id: String,
    },
    Delete {
        id: String,
    },
    /// End, if no process runs.
    Shutdown,
    Stdin {
        data: Vec<u8>,
    },
    CloseStdin,
    /// Begin a pid namespace for processes that share one; answered with its first process.
    ShareProcesses {
        /// The user namespace that it belongs to; empty for the shim's own.
        users: String,
    },
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Exit {
    /// 128 + N after signal N.
    pub code: u32,
    pub oom_killed: bool,
    /// Nanoseconds since 1970.
    pub at: u64,
}

/// A process as `State` lists it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ProcessState {
    pub id: String,
    /// 0 until it is started.
    pub pid: u32,
    /// Nanoseconds since 1970; 0 until it is started.
    pub started_at: u64,
    pub exit: Option<Exit>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Hello { version: u16 },
    Done,
    Failed { message: String },
    Started { pid: u32, at: u64 },
    State { processes: Vec<ProcessState> },
    Stdout { data: Vec<u8> },
    Stderr { data: Vec<u8> },
    Exited { id: String, exit: Exit },
}

/// A frame that is not one.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

/// A frame's kind, number, body, and how many bytes it took.
pub type Frame<'a> = (u8, u32, &'a [u8], usize);

/// Takes one whole frame from the front of `buffer`; none if it has not all come yet.
pub fn split(buffer: &[u8]) -> Result<Option<Frame<'_>>, Malformed> {
    let Some(length) = buffer.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_le_bytes(*length) as usize;
    if !(5..=MAX_FRAME).contains(&length) {
        return Err(Malformed);
    }
    let Some(frame) = buffer.get(4..4 + length) else { return Ok(None) };
    let number = u32::from_le_bytes([frame[1], frame[2], frame[3], frame[4]]);
    Ok(Some((frame[0], number, &frame[5..], 4 + length)))
}

/// Begins a frame; [`Writer::end`] fills in its length.
struct Writer<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> Writer<'a> {
    fn new(out: &'a mut Vec<u8>, kind: u8, number: u32) -> Writer<'a> {
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        out.push(kind);
        out.extend_from_slice(&number.to_le_bytes());
        Writer { out, start }
    }

    fn byte(self, value: u8) -> Self {
        self.out.push(value);
        self
    }

    fn flag(self, value: bool) -> Self {
        self.byte(u8::from(value))
    }

    fn u16(self, value: u16) -> Self {
        self.out.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn u32(self, value: u32) -> Self {
        self.out.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn u64(self, value: u64) -> Self {
        self.out.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn text(self, value: &str) -> Self {
        let writer = self.u32(value.len() as u32);
        writer.out.extend_from_slice(value.as_bytes());
        writer
    }

    fn rest(self, value: &[u8]) -> Self {
        self.out.extend_from_slice(value);
        self
    }

    fn exit(self, exit: &Exit) -> Self {
        self.u32(exit.code).flag(exit.oom_killed).u64(exit.at)
    }

    fn end(self) {
        let length = (self.out.len() - self.start - 4) as u32;
        self.out[self.start..self.start + 4].copy_from_slice(&length.to_le_bytes());
    }
}

/// Reads a body; every read checks that there is enough of it.
struct Reader<'a> {
    body: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (head, tail) = self.body.split_at_checked(count).ok_or(Malformed)?;
        self.body = tail;
        Ok(head)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn flag(&mut self) -> Result<bool, Malformed> {
        self.byte().map(|byte| byte != 0)
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        self.take(2).map(|bytes| u16::from_le_bytes([bytes[0], bytes[1]]))
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.take(4).map(|bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        let low = self.u32()?;
        let high = self.u32()?;
        Ok(u64::from(high) << 32 | u64::from(low))
    }

    fn text(&mut self) -> Result<String, Malformed> {
        let length = self.u32()? as usize;
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| Malformed)
    }

    fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.body).to_vec()
    }

    fn exit(&mut self) -> Result<Exit, Malformed> {
        Ok(Exit { code: self.u32()?, oom_killed: self.flag()?, at: self.u64()? })
    }
}

impl Request {
    /// Appends the request as a frame.
    pub fn encode(&self, number: u32, out: &mut Vec<u8>) {
        let writer = |out, kind| Writer::new(out, kind, number);
        match self {
            Request::Hello { version } => writer(out, 1).u16(*version).end(),
            Request::Create(create) => {
                let frame = writer(out, 2)
                    .text(&create.id)
                    .flag(create.terminal)
                    .flag(create.stdin)
                    .flag(create.stdin_once)
                    .text(&create.oom_file);
                let frame = match &create.kind {
                    Kind::Container { bundle } => frame.byte(0).text(bundle),
                    Kind::Exec { container, process } => frame.byte(1).text(container).text(process),
                };
                match &create.log {
                    LogDriver::None => frame.byte(0).end(),
                    LogDriver::Cri { path } => frame.byte(1).text(path).end(),
                    LogDriver::JsonFile(file) => frame
                        .byte(3)
                        .text(&file.path)
                        .u64(file.max_size)
                        .u32(file.max_files)
                        .flag(file.compress)
                        .text(&file.attributes)
                        .u64(file.buffer)
                        .end(),
                }
            }
            Request::Start { id } => writer(out, 3).text(id).end(),
            Request::Attach { id, stdin, output } => writer(out, 4).text(id).flag(*stdin).flag(*output).end(),
            Request::Signal { id, signal } => writer(out, 5).text(id).u32(*signal).end(),
            Request::Resize { id, rows, columns } => writer(out, 6).text(id).u16(*rows).u16(*columns).end(),
            Request::State => writer(out, 7).end(),
            Request::Watch => writer(out, 8).end(),
            Request::ReopenLog { id } => writer(out, 9).text(id).end(),
            Request::Delete { id } => writer(out, 10).text(id).end(),
            Request::Shutdown => writer(out, 11).end(),
            Request::Stdin { data } => writer(out, 12).rest(data).end(),
            Request::CloseStdin => writer(out, 13).end(),
            Request::ShareProcesses { users } => writer(out, 14).text(users).end(),
        }
    }

    pub fn decode(kind: u8, body: &[u8]) -> Result<Request, Malformed> {
        let mut read = Reader { body };
        Ok(match kind {
            1 => Request::Hello { version: read.u16()? },
            2 => Request::Create(decode_create(&mut read)?),
            3 => Request::Start { id: read.text()? },
            4 => Request::Attach { id: read.text()?, stdin: read.flag()?, output: read.flag()? },
            5 => Request::Signal { id: read.text()?, signal: read.u32()? },
            6 => Request::Resize { id: read.text()?, rows: read.u16()?, columns: read.u16()? },
            7 => Request::State,
            8 => Request::Watch,
            9 => Request::ReopenLog { id: read.text()? },
            10 => Request::Delete { id: read.text()? },
            11 => Request::Shutdown,
            12 => Request::Stdin { data: read.rest() },
            13 => Request::CloseStdin,
            14 => Request::ShareProcesses { users: read.text()? },
            _ => return Err(Malformed),
        })
    }
}

fn decode_create(read: &mut Reader<'_>) -> Result<Create, Malformed> {
    let id = read.text()?;
    let (terminal, stdin, stdin_once) = (read.flag()?, read.flag()?, read.flag()?);
    let oom_file = read.text()?;
    let kind = match read.byte()? {
        0 => Kind::Container { bundle: read.text()? },
        1 => Kind::Exec { container: read.text()?, process: read.text()? },
        _ => return Err(Malformed),
    };
    let log = match read.byte()? {
        0 => LogDriver::None,
        1 => LogDriver::Cri { path: read.text()? },
        3 => LogDriver::JsonFile(JsonFile {
            path: read.text()?,
            max_size: read.u64()?,
            max_files: read.u32()?,
            compress: read.flag()?,
            attributes: read.text()?,
            buffer: read.u64()?,
        }),
        _ => return Err(Malformed),
    };
    Ok(Create { id, kind, terminal, stdin, stdin_once, log, oom_file })
}

impl Reply {
    /// Appends the reply as a frame.
    pub fn encode(&self, number: u32, out: &mut Vec<u8>) {
        let writer = |out, kind| Writer::new(out, kind, number);
        match self {
            Reply::Hello { version } => writer(out, 129).u16(*version).end(),
            Reply::Done => writer(out, 130).end(),
            Reply::Failed { message } => writer(out, 131).text(message).end(),
            Reply::Started { pid, at } => writer(out, 132).u32(*pid).u64(*at).end(),
            Reply::State { processes } => {
                let mut frame = writer(out, 133).u32(processes.len() as u32);
                for process in processes {
                    frame =
                        frame.text(&process.id).u32(process.pid).u64(process.started_at).flag(process.exit.is_some());
                    frame = frame.exit(process.exit.as_ref().unwrap_or(&Exit::default()));
                }
                frame.end();
            }
            Reply::Stdout { data } => writer(out, 134).rest(data).end(),
            Reply::Stderr { data } => writer(out, 135).rest(data).end(),
            Reply::Exited { id, exit } => writer(out, 136).text(id).exit(exit).end(),
        }
    }

    pub fn decode(kind: u8, body: &[u8]) -> Result<Reply, Malformed> {
        let mut read = Reader { body };
        Ok(match kind {
            129 => Reply::Hello { version: read.u16()? },
            130 => Reply::Done,
            131 => Reply::Failed { message: read.text()? },
            132 => Reply::Started { pid: read.u32()?, at: read.u64()? },
            133 => {
                let count = read.u32()?;
                let mut processes = Vec::new();
                for _ in 0..count {
                    let (id, pid, started_at) = (read.text()?, read.u32()?, read.u64()?);
                    let (exited, exit) = (read.flag()?, read.exit()?);
                    processes.push(ProcessState { id, pid, started_at, exit: exited.then_some(exit) });
                }
                Reply::State { processes }
            }
            134 => Reply::Stdout { data: read.rest() },
            135 => Reply::Stderr { data: read.rest() },
            136 => Reply::Exited { id: read.text()?, exit: read.exit()? },
            _ => return Err(Malformed),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_as_they_were() {
        let create = Create {
            id: "c".into(),
            kind: Kind::Exec { container: "x".into(), process: "{}".into() },
            terminal: true,
            stdin: false,
            stdin_once: true,
            log: LogDriver::JsonFile(JsonFile {
                path: "/l".into(),
                max_size: 1 << 40,
                max_files: 3,
                compress: true,
                attributes: "{}".into(),
                buffer: 1 << 20,
            }),
            oom_file: "/o".into(),
        };
        let requests = [
            Request::Hello { version: 1 },
            Request::Create(create),
            Request::Attach { id: "c".into(), stdin: true, output: false },
            Request::Stdin { data: vec![1, 2] },
        ];
        let mut bytes = Vec::new();
        for (number, request) in requests.iter().enumerate() {
            request.encode(number as u32, &mut bytes);
        }
        let mut rest = &bytes[..];
        for (index, request) in requests.iter().enumerate() {
            let (kind, number, body, used) = split(rest).unwrap().unwrap();
            assert_eq!((number as usize, &Request::decode(kind, body).unwrap()), (index, request));
            rest = &rest[used..];
        }
        assert!(rest.is_empty());
        let exit = Exit { code: 137, oom_killed: true, at: u64::MAX };
        let reply = Reply::State {
            processes: vec![
                ProcessState { id: "c".into(), pid: 7, started_at: 9, exit: Some(exit) },
                ProcessState::default(),
            ],
        };
        let mut bytes = Vec::new();
        reply.encode(5, &mut bytes);
        let (kind, _, body, _) = split(&bytes).unwrap().unwrap();
        assert_eq!(Reply::decode(kind, body).unwrap(), reply);
    }

    #[test]
    fn broken_frames_are_refused() {
        assert_eq!(split(&[1, 0]), Ok(None));
        assert_eq!(split(&u32::MAX.to_le_bytes()), Err(Malformed));
        assert_eq!(Request::decode(3, &[200, 0, 0, 0, b'a']), Err(Malformed));
        assert_eq!(Request::decode(99, &[]), Err(Malformed));
        assert_eq!(Reply::decode(133, &u32::MAX.to_le_bytes()), Err(Malformed));
    }
}
