//! The poll loop: clients, children, launchers, streams.

use std::{
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::PathBuf,
};

use coracle_shim::{
    exit_file,
    protocol::{Create, Reply, Request, VERSION},
};

use crate::{
    connection::{Attachment, Connection},
    os, pod_init,
    process::{Phase, Process, Waiter},
};

/// More clients and processes than any pod has; beyond that somebody is wrong.
const MAX_CONNECTIONS: usize = 256;
const MAX_PROCESSES: usize = 1024;
const BUFFER: usize = 16 << 10;

pub struct Server {
    dir: PathBuf,
    root: PathBuf,
    launcher: OwnedFd,
    listener: UnixListener,
    children: OwnedFd,
    connections: Vec<Connection>,
    next_key: u64,
    processes: Vec<Process>,
    /// Children that ended before the launcher said which process they are.
    unclaimed: Vec<(i32, i32)>,
    /// The first process of the shared pid namespace.
    pod_init: Option<i32>,
    buffer: Vec<u8>,
    done: bool,
}

/// What a polled descriptor belongs to.
#[derive(Clone, Copy)]
enum Source {
    Listener,
    Children,
    Connection(usize),
    Report(usize),
    Output(usize, usize),
    Stdin(usize),
}

impl Server {
    pub fn open(dir: PathBuf, root: PathBuf) -> io::Result<Server> {
        let listener = UnixListener::from(os::take_stream(0)?);
        let launcher = os::take_stream(1)?;
        listener.set_nonblocking(true)?;
        let (dir, root) = (std::path::absolute(dir)?, std::path::absolute(root)?);
        // The launcher's too. Set for it alone, it would cost a fork of this process, where a new program needs none.
        std::env::set_current_dir("/")?;
        let children = os::settle()?;
        Ok(Server {
            dir,
            root,
            launcher,
            listener,
            children,
            connections: Vec::new(),
            next_key: 1,
            processes: Vec::new(),
            unclaimed: Vec::new(),
            pod_init: None,
            buffer: vec![0; BUFFER],
            done: false,
        })
    }

    pub fn run(&mut self) {
        while !self.done {
            let (mut entries, sources) = self.interests();
            if os::poll(&mut entries).is_err() {
                // Nothing but a lack of memory; the kernel will have ended somebody by the next turn.
                continue;
            }
            let ready: Vec<(Source, i16)> = entries
                .iter()
                .zip(&sources)
                .filter(|(entry, _)| entry.revents != 0)
                .map(|(entry, source)| (*source, entry.revents))
                .collect();
            // Output before the end of its process: what was written is delivered before `Exited`.
            for &(source, _) in &ready {
                match source {
                    Source::Output(process, index) => self.output(process, index),
                    Source::Stdin(process) => self.processes[process].flush_stdin(),
                    _ => {}
                }
            }
            for &(source, events) in &ready {
                match source {
                    Source::Report(process) => self.report(process),
                    Source::Connection(index) => self.connection(index, events),
                    _ => {}
                }
            }
            for &(source, _) in &ready {
                match source {
                    Source::Children => self.reap(),
                    Source::Listener => self.accept(),
                    _ => {}
                }
            }
            self.drop_closed();
        }
    }

    fn interests(&self) -> (Vec<libc::pollfd>, Vec<Source>) {
        let mut entries = Vec::with_capacity(16);
        let mut sources = Vec::with_capacity(16);
        let mut add = |fd: i32, events: i16, source| {
            entries.push(libc::pollfd { fd, events, revents: 0 });
            sources.push(source);
        };
        add(self.children.as_raw_fd(), libc::POLLIN, Source::Children);
        add(self.listener.as_raw_fd(), libc::POLLIN, Source::Listener);
        for (index, process) in self.processes.iter().enumerate() {
            if let Phase::Starting { report, .. } = &process.phase {
                add(report.as_raw_fd(), libc::POLLIN, Source::Report(index));
            }
            let held = self.connections.iter().any(|connection| {
                connection.is_full()
                    && connection.attached.as_ref().is_some_and(|attached| attached.process == process.create.id)
            });
            for (stream, fd) in process.outputs.iter().enumerate() {
                if let (Some(fd), false) = (fd, held) {
                    add(fd.as_raw_fd(), libc::POLLIN, Source::Output(index, stream));
                }
            }
            if let Some(fd) = process.stdin_waiting() {
                add(fd, libc::POLLOUT, Source::Stdin(index));
            }
        }
        for (index, connection) in self.connections.iter().enumerate() {
            let full = connection.attached.as_ref().is_some_and(|attached| {
                attached.stdin && self.process(&attached.process).is_some_and(Process::stdin_full)
            });
            let events = if full { 0 } else { libc::POLLIN } | if connection.has_output() { libc::POLLOUT } else { 0 };
            add(connection.socket.as_raw_fd(), events, Source::Connection(index));
        }
        (entries, sources)
    }

    fn process(&self, id: &str) -> Option<&Process> {
        self.processes.iter().find(|process| process.create.id == id)
    }

    fn accept(&mut self) {
        while let Ok((socket, _)) = self.listener.accept() {
            if self.connections.len() < MAX_CONNECTIONS
                && let Ok(connection) = Connection::new(self.next_key, socket)
            {
                self.next_key += 1;
                self.connections.push(connection);
            }
        }
    }

    fn connection(&mut self, index: usize, events: i16) {
        if events & libc::POLLOUT != 0 {
            self.connections[index].flush();
        }
        if events & (libc::POLLIN | libc::POLLHUP | libc::POLLERR) == 0 {
            return;
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        self.connections[index].receive(&mut buffer);
        self.buffer = buffer;
        while !self.connections[index].closed
            && let Some((number, request)) = self.connections[index].next_request()
        {
            if let Some(reply) = self.request(index, number, request) {
                self.connections[index].send(number, &reply);
            }
        }
    }

    /// Answers a request at once, or not yet (`Start`), or never (streams).
    fn request(&mut self, index: usize, number: u32, request: Request) -> Option<Reply> {
        let key = self.connections[index].key;
        let done = |result: Result<(), String>| {
            Some(result.map_or_else(|message| Reply::Failed { message }, |()| Reply::Done))
        };
        if !self.connections[index].greeted {
            let Request::Hello { version: VERSION } = request else {
                self.connections[index]
                    .send(number, &Reply::Failed { message: format!("the shim speaks version {VERSION} only") });
                self.connections[index].closed = true;
                return None;
            };
            self.connections[index].greeted = true;
            return Some(Reply::Hello { version: VERSION });
        }
        match request {
            Request::Hello { .. } => done(Err("greeted already".into())),
            Request::Create(create) => done(self.create(create)),
            Request::Start { id } => self
                .start(&id, Waiter { connection: key, number })
                .map_or_else(|message| Some(Reply::Failed { message }), |()| None),
            Request::Attach { id, stdin, output } => self.attach(index, number, id, stdin, output),
            Request::Signal { id, signal } => done(self.find(&id).and_then(|process| process.signal(signal as i32))),
            Request::Resize { id, rows, columns } => {
                done(self.find(&id).and_then(|process| process.resize(rows, columns)))
            }
            Request::State => Some(Reply::State { processes: self.processes.iter().map(Process::state).collect() }),
            Request::Watch => {
                self.connections[index].watch = Some(number);
                Some(Reply::Done)
            }
            Request::ReopenLog { id } => done(self.find(&id).and_then(Process::reopen_log)),
            Request::Delete { id } => done(self.delete(&id)),
            Request::Shutdown => {
                let busy = self
                    .processes
                    .iter()
                    .any(|process| matches!(process.phase, Phase::Running | Phase::Starting { .. }));
                self.done = !busy;
                done(if busy { Err("a process runs".into()) } else { Ok(()) })
            }
            Request::Stdin { data } => {
                self.stdin_of(index, |process| process.write_stdin(&data));
                None
            }
            Request::CloseStdin => {
                self.stdin_of(index, Process::close_stdin);
                None
            }
            Request::ShareProcesses { users } => Some(self.share_processes(&users)),
        }
    }

    fn find(&mut self, id: &str) -> Result<&mut Process, String> {
        self.processes
            .iter_mut()
            .find(|process| process.create.id == id)
            .ok_or_else(|| format!("process {id} does not exist"))
    }

    fn create(&mut self, create: Create) -> Result<(), String> {
        if create.id.is_empty() || create.id.contains('/') || create.id.starts_with('.') {
            return Err(format!("{:?} is not an id", create.id));
        }
        if self.process(&create.id).is_some() {
            return Err(format!("process {} exists already", create.id));
        }
        if self.processes.len() >= MAX_PROCESSES {
            return Err("too many processes".into());
        }
        self.processes.push(Process::new(create)?);
        Ok(())
    }

    fn start(&mut self, id: &str, waiter: Waiter) -> Result<(), String> {
        let process = self.processes.iter_mut().find(|process| process.create.id == id);
        let process = process.ok_or_else(|| format!("process {id} does not exist"))?;
        process.start(&self.launcher, &self.dir, &self.root, waiter)
    }

    fn delete(&mut self, id: &str) -> Result<(), String> {
        let process = self.find(id)?;
        if matches!(process.phase, Phase::Running | Phase::Starting { .. }) {
            return Err(format!("process {id} runs"));
        }
        self.processes.retain(|process| process.create.id != id);
        let _ = std::fs::remove_file(exit_file::path(&self.dir, id));
        Ok(())
    }

    fn attach(&mut self, index: usize, number: u32, id: String, stdin: bool, output: bool) -> Option<Reply> {
        let Some(process) = self.process(&id) else {
            return Some(Reply::Failed { message: format!("process {id} does not exist") });
        };
        let ended = if let Phase::Exited(exit) = &process.phase { Some(exit.clone()) } else { None };
        let connection = &mut self.connections[index];
        if connection.attached.is_some() {
            return Some(Reply::Failed { message: "this connection is attached already".into() });
        }
        connection.send(number, &Reply::Done);
        match ended {
            Some(exit) => return Some(Reply::Exited { id, exit }),
            None => connection.attached = Some(Attachment { process: id, number, stdin, output }),
        }
        None
    }

    fn stdin_of(&mut self, index: usize, act: impl FnOnce(&mut Process)) {
        let Some(attached) = self.connections[index].attached.as_ref().filter(|attached| attached.stdin) else {
            return;
        };
        if let Some(process) = self.processes.iter_mut().find(|process| process.create.id == attached.process) {
            act(process);
        }
    }

    /// Keeps one first process for all who share a pid namespace; asked again, names the one there is.
    fn share_processes(&mut self, users: &str) -> Reply {
        if let Some(pid) = self.pod_init {
            return Reply::Started { pid: pid as u32, at: 0 };
        }
        let empty = self.dir.join("empty");
        let started = std::fs::create_dir_all(&empty).and_then(|()| pod_init::spawn(&empty, users));
        match started {
            Ok(pid) => {
                self.pod_init = Some(pid);
                Reply::Started { pid: pid as u32, at: os::now() }
            }
            Err(error) => Reply::Failed { message: format!("start a pid namespace: {error}") },
        }
    }

    /// Hands new output to the log and to every attached client.
    fn output(&mut self, process: usize, index: usize) {
        let mut buffer = std::mem::take(&mut self.buffer);
        if let Some(data) = self.processes[process].read_output(index, &mut buffer) {
            let id = &self.processes[process].create.id;
            let mut reply = None;
            for connection in &mut self.connections {
                let Some(attached) =
                    connection.attached.as_ref().filter(|attached| attached.output && attached.process == *id)
                else {
                    continue;
                };
                let number = attached.number;
                let reply = reply.get_or_insert_with(|| {
                    if index == 0 {
                        Reply::Stdout { data: data.to_vec() }
                    } else {
                        Reply::Stderr { data: data.to_vec() }
                    }
                });
                connection.send(number, reply);
            }
        }
        self.buffer = buffer;
    }

    /// A message of a launcher: the console, the pid, an error, or its end.
    fn report(&mut self, index: usize) {
        let process = &mut self.processes[index];
        let Phase::Starting { report, .. } = &process.phase else { return };
        let received = os::receive(report, &mut self.buffer);
        let message = match &received {
            Ok((count, _)) => &self.buffer[..*count],
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => return,
            Err(_) => &[],
        };
        let text = String::from_utf8_lossy(message.get(1..).unwrap_or_default()).into_owned();
        match (message.first(), received) {
            (Some(b'C'), Ok((_, Some(master)))) => process.take_terminal(master),
            (Some(b'P'), _) => match text.parse() {
                Ok(pid) => self.started(index, pid),
                Err(_) => self.not_started(index, "the launcher reported no pid".into()),
            },
            (Some(b'E'), _) => self.not_started(index, text),
            _ => self.not_started(index, "the launcher ended without a word".into()),
        }
    }

    fn started(&mut self, index: usize, pid: i32) {
        let process = &mut self.processes[index];
        let previous = std::mem::replace(&mut process.phase, Phase::Running);
        process.running(pid);
        process.flush_stdin();
        let reply = Reply::Started { pid: pid as u32, at: process.started_at };
        if let Phase::Starting { waiter, .. } = previous {
            self.answer(&waiter, &reply);
        }
        if let Some(at) = self.unclaimed.iter().position(|(child, _)| *child == pid) {
            let (_, status) = self.unclaimed.swap_remove(at);
            self.ended(index, status);
        }
    }

    fn not_started(&mut self, index: usize, message: String) {
        let process = &mut self.processes[index];
        let previous = std::mem::replace(&mut process.phase, Phase::Created);
        process.failed_to_start();
        if let Phase::Starting { waiter, .. } = previous {
            self.answer(&waiter, &Reply::Failed { message });
        }
    }

    fn answer(&mut self, waiter: &Waiter, reply: &Reply) {
        if let Some(connection) = self.connections.iter_mut().find(|connection| connection.key == waiter.connection) {
            connection.send(waiter.number, reply);
        }
    }

    fn reap(&mut self) {
        // The descriptor only says that something ended; signals of one kind merge.
        let _ = os::read(&self.children, &mut self.buffer);
        while let Some((pid, status)) = os::reap() {
            let own =
                self.processes.iter().position(|process| process.pid == pid && matches!(process.phase, Phase::Running));
            let launcher = self
                .processes
                .iter()
                .any(|process| matches!(process.phase, Phase::Starting { launcher, .. } if launcher == pid));
            match own {
                Some(index) => self.ended(index, status),
                None if launcher => {}
                None if self.pod_init == Some(pid) => self.pod_init = None,
                // An orphan of a container, or one whose launcher has not reported it yet.
                None if self.processes.iter().any(|process| matches!(process.phase, Phase::Starting { .. }))
                    && self.unclaimed.len() < MAX_PROCESSES =>
                {
                    self.unclaimed.push((pid, status));
                }
                None => {}
            }
        }
        if !self.processes.iter().any(|process| matches!(process.phase, Phase::Starting { .. })) {
            self.unclaimed.clear();
        }
    }

    /// Reads what is left in the pipes, then tells everybody.
    fn ended(&mut self, index: usize, status: i32) {
        for stream in 0..2 {
            // A pipe holds a megabyte at most; a grandchild that goes on writing is not waited for.
            for _ in 0..128 {
                if !self.drain_once(index, stream) {
                    break;
                }
            }
        }
        let exit = self.processes[index].exited(status, &self.dir);
        let id = self.processes[index].create.id.clone();
        let reply = Reply::Exited { id: id.clone(), exit };
        for connection in &mut self.connections {
            let attached =
                connection.attached.as_ref().filter(|attached| attached.process == id).map(|attached| attached.number);
            if let Some(number) = attached {
                connection.attached = None;
                connection.send(number, &reply);
            }
            if let Some(number) = connection.watch {
                connection.send(number, &reply);
            }
        }
    }

    fn drain_once(&mut self, index: usize, stream: usize) -> bool {
        let Some(fd) = self.processes[index].outputs[stream].as_ref().map(AsRawFd::as_raw_fd) else { return false };
        let mut entry = [libc::pollfd { fd, events: libc::POLLIN, revents: 0 }];
        if !os::ready_now(&mut entry) {
            return false;
        }
        self.output(index, stream);
        true
    }

    /// Forgets clients that are gone; the first that had input closes it where that was asked for.
    fn drop_closed(&mut self) {
        let mut index = 0;
        while index < self.connections.len() {
            if !self.connections[index].closed {
                index += 1;
                continue;
            }
            let connection = self.connections.swap_remove(index);
            let attached = connection.attached.filter(|attached| attached.stdin);
            if let Some(attached) = attached
                && let Some(process) = self
                    .processes
                    .iter_mut()
                    .find(|process| process.create.id == attached.process && process.create.stdin_once)
            {
                process.close_stdin();
            }
        }
    }
}
