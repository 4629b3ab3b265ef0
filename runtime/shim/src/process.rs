//! One process: its streams, its start by the launcher, its end.

use std::{
    fs, io,
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
    process::{Command, Stdio},
};

use coracle_launcher::{cli, sys};
use coracle_shim::{
    exit_file::{self, ExitRecord},
    protocol::{Create, Exit, Kind, LogDriver, ProcessState},
};

use crate::{
    log_file::{Format, LogFile, Stream},
    log_ring::Log,
    os,
};

/// Standard input that the process has not read yet; more is not taken from clients.
const MAX_STDIN: usize = 256 << 10;

/// Who waits for the outcome of a start.
pub struct Waiter {
    pub connection: u64,
    pub number: u32,
}

pub enum Phase {
    Created,
    Starting { launcher: i32, report: OwnedFd, waiter: Waiter },
    Running,
    Exited(Exit),
}

pub struct Process {
    pub create: Create,
    pub phase: Phase,
    pub pid: i32,
    pub started_at: u64,
    log: Option<Log>,
    /// Reading ends; of a terminal only the first, which is then also what is written to.
    pub outputs: [Option<OwnedFd>; 2],
    stdin: Option<OwnedFd>,
    pending: Vec<u8>,
    close_stdin: bool,
}

/// A start that failed, in words for the user.
pub type StartError = String;

impl Process {
    pub fn new(create: Create) -> Result<Process, String> {
        let open = |path: &str, format: Format, buffer: u64| {
            LogFile::create(path, format)
                .and_then(|file| Log::new(file, buffer))
                .map_err(|error| format!("open log file {path:?}: {error}"))
        };
        let log = match &create.log {
            LogDriver::None => None,
            LogDriver::Cri { path } => Some(open(path, Format::Cri, 0)?),
            LogDriver::JsonFile(file) => {
                let format = Format::Json {
                    max_size: file.max_size,
                    max_files: file.max_files,
                    compress: file.compress,
                    attributes: file.attributes.clone(),
                };
                Some(open(&file.path, format, file.buffer)?)
            }
        };
        Ok(Process {
            create,
            phase: Phase::Created,
            pid: 0,
            started_at: 0,
            log,
            outputs: [None, None],
            stdin: None,
            pending: Vec::new(),
            close_stdin: false,
        })
    }

    /// Runs the launcher; what it reports comes later through [`Phase::Starting`].
    pub fn start(&mut self, launcher: &OwnedFd, dir: &Path, root: &Path, waiter: Waiter) -> Result<(), StartError> {
        if !matches!(self.phase, Phase::Created) {
            return Err(format!("process {} was started already", self.create.id));
        }
        self.spawn(launcher, dir, root, waiter).map_err(|error| format!("run the launcher: {error}"))
    }

    fn spawn(&mut self, launcher: &OwnedFd, dir: &Path, root: &Path, waiter: Waiter) -> io::Result<()> {
        let (report, theirs) = os::message_pair()?;
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let mut arguments: Vec<String> = vec!["--root".into(), text(root)];
        arguments.push(if matches!(self.create.kind, Kind::Container { .. }) { "run" } else { "exec" }.into());
        arguments.extend(["--detach", "--child-of-caller", "--report-fd"].map(str::to_owned));
        arguments.push(theirs.as_raw_fd().to_string());
        let mut file = None;
        match &self.create.kind {
            Kind::Container { bundle } => {
                arguments.extend(["--bundle".into(), bundle.clone(), "--".into(), self.create.id.clone()]);
            }
            Kind::Exec { container, process } => {
                let path = dir.join(format!("{}.process.json", self.create.id));
                fs::write(&path, process)?;
                arguments.extend(["--process".into(), text(&path), "--".into(), container.clone()]);
                file = Some(path);
            }
        }
        let streams = self.connect()?;
        let child = if os::has_one_thread() {
            launch_here(&arguments, &streams, &theirs)
        } else {
            launch_program(launcher, &arguments, streams, &theirs)
        };
        match child {
            Ok(launcher) => {
                self.phase = Phase::Starting { launcher, report, waiter };
                Ok(())
            }
            Err(error) => {
                if let Some(path) = file {
                    let _ = fs::remove_file(path);
                }
                Err(error)
            }
        }
    }

    /// Makes the process's streams: pipes, `/dev/null`, or nothing for a terminal, which the launcher sends.
    fn connect(&mut self) -> io::Result<[OwnedFd; 3]> {
        let null = || fs::File::options().read(true).write(true).open("/dev/null").map(OwnedFd::from);
        if self.create.terminal {
            return Ok([null()?, null()?, null()?]);
        }
        let stdin = if self.create.stdin {
            let (read, write) = os::pipe()?;
            os::set_nonblocking(&write)?;
            self.stdin = Some(write);
            read
        } else {
            null()?
        };
        let mut output = |index: usize| {
            let (read, write) = os::pipe()?;
            os::set_nonblocking(&read)?;
            self.outputs[index] = Some(read);
            io::Result::Ok(write)
        };
        Ok([stdin, output(0)?, output(1)?])
    }

    /// The launcher sent the terminal.
    pub fn take_terminal(&mut self, master: OwnedFd) {
        if os::set_nonblocking(&master).is_ok() {
            self.outputs[0] = Some(master);
        }
    }

    pub fn running(&mut self, pid: i32) {
        self.pid = pid;
        self.started_at = os::now();
        self.phase = Phase::Running;
    }

    /// Back to the beginning: nothing runs.
    pub fn failed_to_start(&mut self) {
        self.phase = Phase::Created;
        self.outputs = [None, None];
        self.stdin = None;
    }

    /// Reads output that is there; the data, or `None` when the stream has ended or has nothing now.
    pub fn read_output<'b>(&mut self, index: usize, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
        let fd = self.outputs[index].as_ref()?;
        match os::read(fd, buffer) {
            Ok(0) => self.close_output(index),
            Ok(count) => {
                let stream = if index == 0 { Stream::Stdout } else { Stream::Stderr };
                if let Some(log) = &mut self.log {
                    log.write(stream, &buffer[..count], os::now());
                }
                return Some(&buffer[..count]);
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            // A terminal whose other end is closed answers EIO.
            Err(_) => self.close_output(index),
        }
        None
    }

    fn close_output(&mut self, index: usize) {
        self.outputs[index] = None;
        if let Some(log) = &mut self.log {
            log.finish(if index == 0 { Stream::Stdout } else { Stream::Stderr }, os::now());
        }
    }

    /// Takes input for the process.
    pub fn write_stdin(&mut self, data: &[u8]) {
        if self.create.stdin && !self.close_stdin {
            self.pending.extend_from_slice(data);
            self.flush_stdin();
        }
    }

    pub fn close_stdin(&mut self) {
        self.close_stdin = true;
        self.flush_stdin();
    }

    pub fn flush_stdin(&mut self) {
        if matches!(self.phase, Phase::Created | Phase::Starting { .. }) {
            return;
        }
        let fd = if self.create.terminal { self.outputs[0].as_ref() } else { self.stdin.as_ref() };
        let Some(fd) = fd else {
            self.pending.clear();
            return;
        };
        while !self.pending.is_empty() {
            match os::write(fd, &self.pending) {
                Ok(count) => drop(self.pending.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Nobody reads it any more.
                Err(_) => {
                    self.pending.clear();
                    self.stdin = None;
                    return;
                }
            }
        }
        if self.close_stdin {
            if self.create.terminal {
                // A terminal's end of input is a character.
                let _ = self.outputs[0].as_ref().map(|fd| os::write(fd, &[4]));
                self.close_stdin = false;
            }
            self.stdin = None;
        }
    }

    /// What is waited for to write input, if there is any.
    pub fn stdin_waiting(&self) -> Option<i32> {
        let fd = if self.create.terminal { self.outputs[0].as_ref() } else { self.stdin.as_ref() };
        if self.pending.is_empty() || !matches!(self.phase, Phase::Running) { None } else { fd.map(AsRawFd::as_raw_fd) }
    }

    /// Clients with input wait while this is true.
    pub fn stdin_full(&self) -> bool {
        self.pending.len() > MAX_STDIN
    }

    /// The process ended: its record is written, its streams are closed.
    pub fn exited(&mut self, status: i32, dir: &Path) -> Exit {
        let oom_killed = !self.create.oom_file.is_empty() && oom_kills(&self.create.oom_file) > 0;
        let exit = Exit { code: os::exit_code(status), oom_killed, at: os::now() };
        self.stdin = None;
        self.pending.clear();
        self.close_output(0);
        self.close_output(1);
        // Whoever hears of the end finds all of the output.
        if let Some(log) = &mut self.log {
            log.flush();
        }
        if matches!(self.create.kind, Kind::Container { .. }) {
            let record = ExitRecord { pid: self.pid as u32, started_at: self.started_at, exit: exit.clone() };
            // The daemon, if it is there, is told by the socket; without a disk there is nothing better to do.
            let _ = exit_file::write(dir, &self.create.id, &record);
        } else {
            let _ = fs::remove_file(dir.join(format!("{}.process.json", self.create.id)));
        }
        self.phase = Phase::Exited(exit.clone());
        exit
    }

    pub fn reopen_log(&mut self) -> Result<(), String> {
        match &mut self.log {
            Some(log) => log.reopen().map_err(|error| format!("reopen the log file: {error}")),
            None => Ok(()),
        }
    }

    pub fn resize(&self, rows: u16, columns: u16) -> Result<(), String> {
        match &self.outputs[0] {
            Some(master) if self.create.terminal => {
                os::resize(master, rows, columns).map_err(|error| format!("resize the terminal: {error}"))
            }
            _ => Err(format!("process {} has no terminal", self.create.id)),
        }
    }

    pub fn signal(&self, signal: i32) -> Result<(), String> {
        match self.phase {
            // Not reaped yet, or it would be Exited: the number is still its own.
            Phase::Running => {
                os::kill(self.pid, signal).map_err(|error| format!("signal process {}: {error}", self.create.id))
            }
            _ => Err(format!("process {} does not run", self.create.id)),
        }
    }

    pub fn state(&self) -> ProcessState {
        let exit = if let Phase::Exited(exit) = &self.phase { Some(exit.clone()) } else { None };
        ProcessState { id: self.create.id.clone(), pid: self.pid as u32, started_at: self.started_at, exit }
    }
}

/// Runs the launcher in a copy of this process: a program of its own would have to be loaded, and what the C library does
/// before `main` (it asks the processor for its caches, which in a virtual machine the host answers) takes as long as the
/// rest. In the copy is nothing but the thread that makes it, so there must be no other: it might hold the heap's lock.
fn launch_here(arguments: &[String], streams: &[OwnedFd; 3], report: &OwnedFd) -> io::Result<i32> {
    match sys::clone3(0, None)? {
        0 => {
            let code = if os::become_launcher(streams, report).is_ok() { cli::run_command_line(arguments) } else { 1 };
            sys::exit_now(code.into())
        }
        pid => Ok(pid),
    }
}

/// Runs the launcher's program.
fn launch_program(
    launcher: &OwnedFd,
    arguments: &[String],
    streams: [OwnedFd; 3],
    report: &OwnedFd,
) -> io::Result<i32> {
    let [stdin, stdout, stderr] = streams;
    let mut command = Command::new(format!("/proc/self/fd/{}", launcher.as_raw_fd()));
    command.env_clear().args(arguments);
    command.stdin(Stdio::from(stdin)).stdout(Stdio::from(stdout)).stderr(Stdio::from(stderr));
    os::inherit(report, true)?;
    command.spawn().map(|child| child.id() as i32)
}

/// The count behind `oom_kill` in memory.oom_control or memory.events.
fn oom_kills(path: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}
