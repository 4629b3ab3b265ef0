//! One client: bytes in, frames out.

use std::{
    io::{ErrorKind, Read, Write},
    os::unix::net::UnixStream,
};

use coracle_shim::protocol::{MAX_FRAME, Malformed, Reply, Request, split};

/// Above this much unsent output a client holds its process back.
const HIGH_WATER: usize = 256 << 10;

/// A process's streams on this connection.
pub struct Attachment {
    pub process: String,
    /// The number of the request.
    pub number: u32,
    pub stdin: bool,
    pub output: bool,
}

pub struct Connection {
    pub key: u64,
    pub socket: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    sent: usize,
    pub greeted: bool,
    /// The number of a `Watch`.
    pub watch: Option<u32>,
    pub attached: Option<Attachment>,
    pub closed: bool,
}

impl Connection {
    pub fn new(key: u64, socket: UnixStream) -> std::io::Result<Connection> {
        socket.set_nonblocking(true)?;
        Ok(Connection {
            key,
            socket,
            input: Vec::new(),
            output: Vec::new(),
            sent: 0,
            greeted: false,
            watch: None,
            attached: None,
            closed: false,
        })
    }

    /// Reads what is there. A client whose frames are not taken further waits in its own socket.
    pub fn receive(&mut self, buffer: &mut [u8]) {
        match (&self.socket).read(buffer) {
            Ok(0) => self.closed = true,
            Ok(count) => self.input.extend_from_slice(&buffer[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => self.closed = true,
        }
    }

    /// The next whole request.
    pub fn next_request(&mut self) -> Option<(u32, Request)> {
        let (request, used) = match split(&self.input) {
            Ok(None) => return None,
            Ok(Some((kind, number, body, used))) => {
                (Request::decode(kind, body).map(|request| (number, request)), used)
            }
            Err(Malformed) => (Err(Malformed), 0),
        };
        match request {
            Ok(request) => {
                self.input.drain(..used);
                if self.input.is_empty() && self.input.capacity() > 64 << 10 {
                    self.input = Vec::new();
                }
                Some(request)
            }
            Err(Malformed) => {
                self.send(0, &Reply::Failed { message: "malformed frame".into() });
                self.closed = true;
                None
            }
        }
    }

    pub fn send(&mut self, number: u32, reply: &Reply) {
        reply.encode(number, &mut self.output);
        if self.output.len() - self.sent > 4 * MAX_FRAME {
            // It asks and never reads.
            self.closed = true;
        }
        self.flush();
    }

    pub fn flush(&mut self) {
        while self.sent < self.output.len() {
            match (&self.socket).write(&self.output[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    self.closed = true;
                    return;
                }
            }
        }
        self.sent = 0;
        self.output.clear();
        if self.output.capacity() > 64 << 10 {
            self.output = Vec::new();
        }
    }

    pub fn has_output(&self) -> bool {
        self.sent < self.output.len()
    }

    pub fn is_full(&self) -> bool {
        self.output.len() - self.sent > HIGH_WATER
    }
}
