//! Readiness told from within (sd_notify(3)): the container gets a socket of its own, and what it says of being ready goes
//! on to who called the launcher, with the process that is to be watched (runc `notify_socket.go`).
//!
//! The socket is made by who waits for the word: `run`, or `start`. The directory of it is mounted when the container is
//! made, so that the one can be put into the other later.

use std::{
    fs,
    os::{
        fd::AsRawFd,
        linux::net::SocketAddrExt,
        unix::{
            fs::PermissionsExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    path::{Path, PathBuf},
};

use crate::{
    error::{Context, Result},
    identity::Mappings,
    log::Log,
    mount_options::MountOptions,
    spec::MountSpec,
    state::start_time,
    sys,
};

const VARIABLE: &str = "NOTIFY_SOCKET";
/// Where the container has the directory.
const INSIDE: &str = "/run/notify";
const NAME: &str = "notify.sock";

/// Who wants to hear of it.
#[derive(Clone, Debug)]
pub struct Listener(String);

impl Listener {
    /// The caller's, if there is one.
    pub fn from_environment() -> Option<Listener> {
        std::env::var(VARIABLE).ok().filter(|address| !address.is_empty()).map(Listener)
    }

    /// Makes the directory of a container's socket, below that of its state; returns the mount and the variable for it.
    pub fn prepare(&self, dir: &Path) -> Result<(MountSpec, String)> {
        let source = dir.join("notify");
        fs::create_dir(&source).context(|| format!("create {}", source.display()))?;
        let options = ["bind", "nosuid", "noexec", "nodev", "ro"].map(str::to_owned);
        let mount = MountSpec {
            destination: INSIDE.into(),
            kind: "bind".into(),
            source: source.to_string_lossy().into_owned(),
            options: MountOptions::parse(&options)?,
            mappings: Mappings::default(),
        };
        Ok((mount, format!("{VARIABLE}={INSIDE}/{NAME}")))
    }

    /// Makes the socket; nothing for a container that was made without a place for it.
    pub fn open(self, dir: &Path) -> Result<Option<Relay>> {
        let place = dir.join("notify");
        if !place.exists() {
            return Ok(None);
        }
        let what = || format!("make {}", place.join(NAME).display());
        // An address has at most 108 bytes (unix(7)), which a path may not fit into.
        let opened = sys::open(&place, libc::O_PATH | libc::O_DIRECTORY, 0).context(what)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}/{NAME}", opened.as_raw_fd()));
        let socket = UnixDatagram::bind(&path).context(what)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).context(what)?;
        socket.set_nonblocking(true).context(what)?;
        Ok(Some(Relay { socket, listener: self }))
    }

    fn connect(&self) -> std::io::Result<UnixDatagram> {
        let socket = UnixDatagram::unbound()?;
        match self.0.strip_prefix('@') {
            Some(name) => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
            None => socket.connect(&self.0)?,
        }
        Ok(socket)
    }
}

/// A container's socket, and where its word goes.
pub struct Relay {
    socket: UnixDatagram,
    listener: Listener,
}

impl Relay {
    /// Waits until the container is ready or `pid`, its process, has ended, and says so; `main` is whom to watch then.
    /// Best effort: the container runs, whoever hears of it.
    pub fn wait(&self, pid: i32, main: u32, log: &Log) {
        const LOOK: i32 = 100;
        let mut buffer = [0; 4096];
        loop {
            let said = sys::poll_in(&self.socket, LOOK);
            // What it said before its end counts.
            let ended = !said && start_time(pid).is_none();
            while let Ok(count) = self.socket.recv(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..count]);
                if let Some(ready) = text.lines().find(|line| line.starts_with("READY=")) {
                    if let Err(error) = self.tell(ready, main) {
                        log.warn(&format!("tell {VARIABLE} {:?}: {error}", self.listener.0));
                    }
                    return;
                }
            }
            if ended {
                return;
            }
        }
    }

    fn tell(&self, ready: &str, main: u32) -> std::io::Result<()> {
        /// sd_notify_barrier(3) leaves the time to the caller; runc waits as long.
        const PATIENCE: i32 = 30_000;
        let socket = self.listener.connect()?;
        socket.send(format!("{ready}\n").as_bytes())?;
        socket.send(format!("MAINPID={main}\n").as_bytes())?;
        // Whoever has read it all closes the pipe; before that this process, which it may be judged by, must not end.
        let (read, write) = sys::pipe()?;
        sys::send_with_fd(socket.as_raw_fd(), b"BARRIER=1", Some(write.as_raw_fd()))?;
        drop(write);
        sys::poll_in(&read, PATIENCE);
        Ok(())
    }
}
