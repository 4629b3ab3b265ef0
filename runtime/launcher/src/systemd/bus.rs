//! A D-Bus connection to systemd itself: the calls that a unit's life needs, one after the other, and the signal that tells
//! how a job ended (D-Bus specification 0.43, "Message Protocol"; org.freedesktop.systemd1(5)).
//!
//! systemd serves root on a socket of its own, which is there without a bus daemon and sends its signals unasked.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use crate::error::{Context, Error, Result};

/// systemd's own socket, for root alone.
pub const SOCKET: &str = "/run/systemd/private";
/// How long an answer may take (libdbus' default).
const ANSWER: Duration = Duration::from_secs(25);
/// How long a job may take (runc's).
const JOB: Duration = Duration::from_secs(30);
/// Signals about units are a few kilobytes.
const LONGEST: usize = 1 << 20;

/// The argument of a call; each knows its place in the body and its letter in the signature.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Bool(bool),
    Int32(i32),
    Int64(i64),
    Uint32(u32),
    Uint64(u64),
    Text(String),
    Texts(Vec<String>),
    Bytes(Vec<u8>),
    Uint32s(Vec<u32>),
    /// `a(sv)`: properties of a unit.
    Properties(Vec<(String, Value)>),
    /// `a(sa(sv))` with nothing in it: units that belong to another one.
    NoUnits,
}

impl Value {
    fn signature(&self) -> &'static str {
        match self {
            Value::Bool(_) => "b",
            Value::Int32(_) => "i",
            Value::Int64(_) => "x",
            Value::Uint32(_) => "u",
            Value::Uint64(_) => "t",
            Value::Text(_) => "s",
            Value::Texts(_) => "as",
            Value::Bytes(_) => "ay",
            Value::Uint32s(_) => "au",
            Value::Properties(_) => "a(sv)",
            Value::NoUnits => "a(sa(sv))",
        }
    }
}

/// Values as they lie in a message: little-endian, each at a multiple of its size.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn u32(&mut self, value: u32) {
        self.align(4);
        self.0.extend(value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.align(8);
        self.0.extend(value.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.u32(text.len() as u32);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, signature: &str) {
        self.0.push(signature.len() as u8);
        self.0.extend(signature.as_bytes());
        self.0.push(0);
    }

    /// An array: its length in bytes, without the padding before the first of its parts.
    fn array(&mut self, alignment: usize, fill: impl FnOnce(&mut Writer)) {
        self.u32(0);
        let length_at = self.0.len() - 4;
        self.align(alignment);
        let start = self.0.len();
        fill(self);
        let length = (self.0.len() - start) as u32;
        self.0[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Bool(value) => self.u32((*value).into()),
            Value::Int32(value) => self.u32(*value as u32),
            Value::Uint32(value) => self.u32(*value),
            Value::Int64(value) => self.u64(*value as u64),
            Value::Uint64(value) => self.u64(*value),
            Value::Text(text) => self.text(text),
            Value::Texts(texts) => self.array(4, |out| texts.iter().for_each(|text| out.text(text))),
            Value::Bytes(bytes) => self.array(1, |out| out.0.extend(bytes)),
            Value::Uint32s(numbers) => self.array(4, |out| numbers.iter().for_each(|&number| out.u32(number))),
            Value::Properties(properties) => self.array(8, |out| {
                for (name, value) in properties {
                    out.align(8);
                    out.text(name);
                    out.signature(value.signature());
                    out.value(value);
                }
            }),
            Value::NoUnits => self.array(8, |_| {}),
        }
    }
}

/// Reads what a [`Writer`] writes. Whatever is not there is none.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize, alignment: usize) -> Option<&'a [u8]> {
        let start = self.at.checked_next_multiple_of(alignment)?;
        let part = self.bytes.get(start..start.checked_add(count)?)?;
        self.at = start + count;
        Some(part)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4, 4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = self.u32()? as usize;
        let text = self.take(length, 1)?;
        self.take(1, 1)?;
        std::str::from_utf8(text).ok()
    }

    fn signature(&mut self) -> Option<&'a str> {
        let length = usize::from(*self.take(1, 1)?.first()?);
        let text = self.take(length, 1)?;
        self.take(1, 1)?;
        std::str::from_utf8(text).ok()
    }
}

/// What a message is.
const CALL: u8 = 1;
const RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

/// Fields of a message's header.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

fn call(serial: u32, member: &str, arguments: &[Value]) -> Vec<u8> {
    let mut body = Writer::default();
    arguments.iter().for_each(|argument| body.value(argument));
    let signature: String = arguments.iter().map(Value::signature).collect();
    let mut out = Writer(vec![b'l', CALL, 0, 1]);
    out.u32(body.0.len() as u32);
    out.u32(serial);
    out.array(8, |out| {
        for (field, kind, text) in [
            (PATH, "o", "/org/freedesktop/systemd1"),
            (INTERFACE, "s", "org.freedesktop.systemd1.Manager"),
            (MEMBER, "s", member),
            (DESTINATION, "s", "org.freedesktop.systemd1"),
        ] {
            out.align(8);
            out.0.push(field);
            out.signature(kind);
            out.text(text);
        }
        if !signature.is_empty() {
            out.align(8);
            out.0.push(SIGNATURE);
            out.signature("g");
            out.signature(&signature);
        }
    });
    out.align(8);
    out.0.extend(body.0);
    out.0
}

/// A message of systemd's.
#[derive(Debug, Default, PartialEq)]
struct Message {
    kind: u8,
    reply_to: u32,
    /// Of a signal its member, of an error its name.
    name: String,
    /// The texts and numbers (as texts) that the body begins with.
    body: Vec<String>,
}

impl Message {
    /// The whole length of a message, by its first sixteen bytes.
    fn length(head: &[u8; 16]) -> Option<usize> {
        let mut reader = Reader { bytes: head, at: 4 };
        let (body, _, fields) = (reader.u32()? as usize, reader.u32()?, reader.u32()? as usize);
        // Whoever is on the same machine's socket writes as the machine does; only this order is read here.
        (head[0] == b'l' && body <= LONGEST && fields <= LONGEST).then(|| (16 + fields).next_multiple_of(8) + body)
    }

    fn read(bytes: &[u8]) -> Option<Message> {
        let mut message = Message { kind: *bytes.get(1)?, ..Message::default() };
        let mut reader = Reader { bytes, at: 12 };
        let end = reader.u32()? as usize + 16;
        let mut signature = "";
        while reader.at < end {
            let field = *reader.take(1, 8)?.first()?;
            match (field, reader.signature()?) {
                (MEMBER | ERROR_NAME, "s") => message.name = reader.text()?.to_owned(),
                (REPLY_SERIAL, "u") => message.reply_to = reader.u32()?,
                (SIGNATURE, "g") => signature = reader.signature()?,
                (_, "s" | "o") => drop(reader.text()?),
                (_, "u") => drop(reader.u32()?),
                (_, "g") => drop(reader.signature()?),
                _ => return None,
            }
        }
        reader.at = end.next_multiple_of(8);
        for letter in signature.chars() {
            match letter {
                's' | 'o' => message.body.push(reader.text()?.to_owned()),
                'u' => message.body.push(reader.u32()?.to_string()),
                // What comes next is of no use here.
                _ => break,
            }
        }
        Some(message)
    }
}

/// What systemd said to a call.
#[derive(Debug)]
pub enum Refusal {
    /// The call was refused: the error's name and its text.
    Said(String, String),
    /// There was no answer.
    Lost(Error),
}

impl Refusal {
    /// Whether it is this one of systemd's errors (`org.freedesktop.systemd1.NAME`).
    pub fn is(&self, name: &str) -> bool {
        matches!(self, Refusal::Said(said, _) if said.strip_prefix("org.freedesktop.systemd1.") == Some(name))
    }

    pub fn into_error(self, what: String) -> Error {
        match self {
            Refusal::Said(_, text) => Error::new(format!("{what}: {text}")),
            Refusal::Lost(error) => Error::new(format!("{what}: {error}")),
        }
    }
}

/// An open connection.
pub struct Bus {
    stream: UnixStream,
    serial: u32,
    /// Jobs that ended while an answer was waited for: the job and its result.
    ended: Vec<(String, String)>,
}

impl Bus {
    /// Connects and says who this is (D-Bus specification, "EXTERNAL").
    pub fn connect(socket: &Path) -> Result<Bus> {
        let what = || format!("connect to systemd at {}", socket.display());
        let stream = UnixStream::connect(socket).context(what)?;
        stream.set_write_timeout(Some(ANSWER)).context(what)?;
        let mut bus = Bus { stream, serial: 0, ended: Vec::new() };
        // The digits of the user's number in hexadecimal: root's, whose socket it is. BEGIN goes with it: systemd (252) does not
        // look at a call that it reads together with BEGIN until something else comes.
        bus.stream.write_all(b"\0AUTH EXTERNAL 30\r\nBEGIN\r\n").context(what)?;
        let answer = bus.line(Instant::now() + ANSWER).context(what)?;
        if !answer.starts_with("OK ") {
            return Err(Error::new(format!("{}: {answer}", what())));
        }
        Ok(bus)
    }

    /// One line of the conversation before the first message; what follows it is not read.
    fn line(&mut self, deadline: Instant) -> io::Result<String> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") && line.len() < 1024 {
            let mut byte = [0];
            self.fill(&mut byte, deadline)?;
            line.push(byte[0]);
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    fn fill(&mut self, buffer: &mut [u8], deadline: Instant) -> io::Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(&mut buffer[filled..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn receive(&mut self, deadline: Instant) -> io::Result<Message> {
        let mut head = [0; 16];
        self.fill(&mut head, deadline)?;
        let malformed = || io::Error::other("a message that is not D-Bus");
        let length = Message::length(&head).ok_or_else(malformed)?;
        let mut bytes = head.to_vec();
        bytes.resize(length, 0);
        self.fill(&mut bytes[head.len()..], deadline)?;
        Message::read(&bytes).ok_or_else(malformed)
    }

    /// Calls a method of the manager's; the first text of the answer.
    pub fn call(&mut self, member: &str, arguments: &[Value]) -> std::result::Result<String, Refusal> {
        let lost = |error| Refusal::Lost(Error::io("wait for systemd's answer", error));
        self.serial += 1;
        self.stream.write_all(&call(self.serial, member, arguments)).map_err(lost)?;
        let deadline = Instant::now() + ANSWER;
        loop {
            let message = self.receive(deadline).map_err(lost)?;
            let text = || message.body.first().cloned().unwrap_or_default();
            match message.kind {
                RETURN if message.reply_to == self.serial => return Ok(text()),
                ERROR if message.reply_to == self.serial => return Err(Refusal::Said(message.name.clone(), text())),
                _ => self.note(message),
            }
        }
    }

    /// `JobRemoved(id, job, unit, result)`; what else comes is nothing to this connection.
    fn note(&mut self, message: Message) {
        if let (SIGNAL, "JobRemoved", [_, job, _, result]) = (message.kind, message.name.as_str(), &message.body[..]) {
            self.ended.push((job.clone(), result.clone()));
        }
    }

    /// Waits for a job's end; its result, `done` if it did what it should.
    pub fn wait_for(&mut self, job: &str) -> io::Result<String> {
        let deadline = Instant::now() + JOB;
        loop {
            if let Some((_, result)) = self.ended.iter().find(|(ended, _)| ended == job) {
                return Ok(result.clone());
            }
            let message = self.receive(deadline)?;
            self.note(message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A call as dbus-send(1) of libdbus 1.14 writes it: `StopUnit("a.scope", "replace")`.
    #[test]
    fn a_call_lies_as_the_specification_says() {
        let bytes = call(7, "StopUnit", &[Value::Text("a.scope".into()), Value::Text("replace".into())]);
        assert_eq!(bytes[..16], [b'l', 1, 0, 1, 24, 0, 0, 0, 7, 0, 0, 0, bytes[12], 0, 0, 0]);
        assert_eq!(bytes.len() % 8, 0);
        assert_eq!(&bytes[bytes.len() - 24..], b"\x07\0\0\0a.scope\0\x07\0\0\0replace\0");
        let head: [u8; 16] = bytes[..16].try_into().unwrap();
        assert_eq!(Message::length(&head), Some(bytes.len()));
        let message = Message::read(&bytes).unwrap();
        let body = vec!["a.scope".to_owned(), "replace".to_owned()];
        assert_eq!(message, Message { kind: CALL, reply_to: 0, name: "StopUnit".into(), body });
    }

    #[test]
    fn properties_are_aligned_each() {
        let mut out = Writer::default();
        out.value(&Value::Properties(vec![
            ("A".into(), Value::Bool(true)),
            ("B".into(), Value::Uint64(5)),
            ("C".into(), Value::Bytes(vec![3])),
        ]));
        let expected = b"\x39\0\0\0\0\0\0\0\
            \x01\0\0\0A\0\x01b\0\0\0\0\x01\0\0\0\
            \x01\0\0\0B\0\x01t\0\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\
            \x01\0\0\0C\0\x02ay\0\0\0\x01\0\0\0\x03";
        assert_eq!(out.0, expected);
    }

    #[test]
    fn what_is_cut_short_or_absurd_is_no_message() {
        let bytes = call(1, "Subscribe", &[Value::Text("x".into())]);
        for length in 0..bytes.len() {
            assert!(Message::read(&bytes[..length]).is_none_or(|message| message.body.is_empty()), "{length}");
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] = 0xff;
            // No panic is what is asked.
            let _ = Message::read(&damaged);
            let head: [u8; 16] = damaged[..16].try_into().unwrap();
            assert!(Message::length(&head).is_none_or(|length| length < 3 * LONGEST));
        }
    }
}
