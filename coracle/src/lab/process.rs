//! The processes of a lab: started once, found again, ended.

use std::{
    fs,
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd, RawFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use coracle_launcher::process_fd::ProcessFd;
use coracle_link::Netns;
use coracle_programs::{INIT, exec_path};
use nix::{libc, sched::CloneFlags, sys::signal::Signal};
use tokio::io::{Interest, unix::AsyncFd};

use super::paths::Paths;

/// Descriptors that the init and everything under it find at fixed numbers.
const STATUS_FD: RawFd = 3;
const NODE_FD: RawFd = 4;
/// The lab's network namespace, held open by every init: the lab's segment lives as long as one of them.
pub const LAB_FD: RawFd = 5;
/// The host's network namespace.
pub const HOST_FD: RawFd = 6;

/// A process of a lab that is alive: a node's first, or the server's keeper.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    handle: Arc<ProcessFd>,
}

/// What to start.
pub struct Start<'a> {
    /// `server` or the node's name.
    pub name: &'a str,
    /// The node's network namespace; none for the server.
    pub node: Option<&'a Netns>,
    /// The lab's segment.
    pub lab: &'a Netns,
    /// Directories of cgroups to join.
    pub cgroups: &'a [std::path::PathBuf],
    /// Program and arguments.
    pub command: Vec<String>,
    /// More environment.
    pub environment: Vec<(&'static str, String)>,
}

impl Process {
    /// The process that was recorded under `name`, if it is still that one.
    pub fn find(paths: &Paths, name: &str) -> Result<Option<Self>> {
        let path = paths.process(name);
        let record = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            record => record.with_context(|| format!("read {}", path.display()))?,
        };
        let Some((pid, started)) = record.trim().split_once(' ') else { return Ok(None) };
        let Ok(pid) = pid.parse() else { return Ok(None) };
        let Some(handle) = open(pid)? else { return Ok(None) };
        // Numbers are reused; the start time tells whether this is still the same process. The handle was opened
        // first, so that it is this process that is meant even if it ends now.
        Ok((start_time(pid).as_deref() == Some(started)).then_some(Self { pid, handle }))
    }

    /// Starts an init with its command and records it.
    pub fn start(paths: &Paths, start: &Start<'_>) -> Result<Self> {
        let record = paths.process(start.name);
        let program = INIT.memfd().context("load the init")?;
        let (mut answer, tell) = pipe()?;
        let host = Netns::current().context("open the host's network namespace")?;
        let mut command = Command::new(exec_path(&program));
        command.arg0("coracle-init");
        if start.node.is_some() {
            command.args(["--node", start.name, "--netns", &NODE_FD.to_string()]);
        }
        for cgroup in start.cgroups {
            command.arg("--cgroup").arg(cgroup);
        }
        command.args(["--status", &STATUS_FD.to_string(), "--log"]).arg(paths.log(start.name));
        command.arg("--").args(&start.command);
        command.env_clear().envs(environment()).envs(start.environment.iter().cloned());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
        let node = start.node.unwrap_or(start.lab);
        hand_over(
            &mut command,
            [
                (tell.as_raw_fd(), STATUS_FD),
                (node.as_fd().as_raw_fd(), NODE_FD),
                (start.lab.as_fd().as_raw_fd(), LAB_FD),
                (host.as_fd().as_raw_fd(), HOST_FD),
            ],
        );
        let mut child = command.spawn().with_context(|| format!("start the init of {}", start.name))?;
        drop(tell);
        let mut text = String::new();
        answer.read_to_string(&mut text).context("hear from the init")?;
        child.wait().context("wait for the init to go to the background")?;
        let text = text.trim();
        let Ok(pid) = text.parse::<i32>() else {
            bail!("start {}: {}", start.name, text.strip_prefix("error: ").unwrap_or(text));
        };
        let (handle, started) = (open(pid)?, start_time(pid));
        let (Some(handle), Some(started)) = (handle, started) else {
            bail!("{} ended as soon as it was started; see {}", start.name, paths.log(start.name).display());
        };
        coracle_pki::write_private(&record, format!("{pid} {started}\n").as_bytes())?;
        Ok(Self { pid, handle })
    }

    /// The process's number on the host.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Joins namespaces of the process (`CLONE_NEW*`); for a process with one thread.
    pub fn join(&self, namespaces: CloneFlags) -> io::Result<()> {
        self.handle.join(namespaces.bits())
    }

    /// The lab's network namespace, which every init holds open.
    pub fn lab_netns(&self) -> Result<Netns> {
        let path = format!("/proc/{}/fd/{LAB_FD}", self.pid);
        Netns::open(Path::new(&path)).with_context(|| format!("open {path}"))
    }

    /// Sends a signal; a process that is gone is no error.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        match self.handle.signal(signal as libc::c_int) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            result => result.with_context(|| format!("send {signal} to process {}", self.pid)),
        }
    }

    /// Waits until the process is gone; for a node's first process that means everything in the node.
    pub async fn gone(&self, limit: Duration) -> Result<()> {
        if self.ends_within(limit).await.with_context(|| format!("wait for process {}", self.pid))? {
            return Ok(());
        }
        bail!("process {} did not end within {limit:?}", self.pid);
    }

    async fn ends_within(&self, limit: Duration) -> io::Result<bool> {
        let Ok(pidfd) = self.handle.pidfd() else {
            // Without pidfds (before 5.3) the end is looked for, on a thread that may wait.
            let (handle, limit) = (self.handle.clone(), i32::try_from(limit.as_millis()).unwrap_or(i32::MAX));
            return Ok(tokio::task::spawn_blocking(move || handle.ends_within(limit)).await?);
        };
        // SAFETY: the descriptor is owned, open, and neither replaced nor closed while it is registered.
        let pidfd = unsafe { AsyncFd::register_with_interest(pidfd.try_clone()?, Interest::READABLE) };
        let pidfd = pidfd.map_err(io::Error::from)?;
        // A process ends once: there is no readiness to clear.
        match tokio::time::timeout(limit, pidfd.readable()).await {
            Ok(ready) => ready.map(|_| true),
            Err(_) => Ok(false),
        }
    }

    /// SIGTERM, and SIGKILL when that does not end it within `grace`.
    pub async fn stop(&self, grace: Duration) -> Result<()> {
        self.signal(Signal::SIGTERM)?;
        if self.gone(grace).await.is_err() {
            self.kill().await?;
        }
        Ok(())
    }

    /// SIGKILL, and the wait for its effect.
    pub async fn kill(&self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.gone(Duration::from_secs(30)).await
    }
}

/// The processes in a cgroup and below it, as one hierarchy tells.
pub fn kill_all_in(cgroup: &Path) -> Result<()> {
    let Ok(procs) = fs::read_to_string(cgroup.join("cgroup.procs")) else { return Ok(()) };
    for pid in procs.lines().filter_map(|line| line.parse::<i32>().ok()) {
        // SAFETY: no memory is involved. The process was in the lab's own cgroup a moment ago.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            kill_all_in(&entry.path())?;
        }
    }
    Ok(())
}

/// What a lab's processes keep of the caller's environment.
fn environment() -> impl Iterator<Item = (String, String)> {
    const KEPT: [&str; 8] =
        ["PATH", "TZ", "RUST_LOG", "RUST_BACKTRACE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE"];
    std::env::vars().filter(|(name, _)| KEPT.contains(&name.as_str()))
}

/// Puts descriptors at fixed numbers in the child, open across exec.
fn hand_over<const N: usize>(command: &mut Command, pairs: [(RawFd, RawFd); N]) {
    // SAFETY: only async-signal-safe calls between fork and exec.
    unsafe {
        command.pre_exec(move || {
            let mut copies = [0; N];
            for (copy, (from, _)) in copies.iter_mut().zip(pairs) {
                // Out of the way of the fixed numbers first.
                *copy = libc::fcntl(from, libc::F_DUPFD_CLOEXEC, 64);
                if *copy < 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            for (copy, (_, to)) in copies.iter().zip(pairs) {
                if libc::dup2(*copy, to) < 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
}

fn pipe() -> Result<(File, OwnedFd)> {
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).context("make a pipe")?;
    Ok((File::from(read), write))
}

/// The process that has the number now, if one has.
fn open(pid: i32) -> Result<Option<Arc<ProcessFd>>> {
    match ProcessFd::open(pid) {
        Ok(handle) => Ok(Some(Arc::new(handle))),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::EINVAL)) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("open process {pid}")),
    }
}

/// Field 22 of /proc/PID/stat (proc_pid_stat(5)): when the process started, in ticks since boot. `None` for a zombie.
fn start_time(pid: i32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, field 2, is in parentheses and may hold anything.
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    let state = fields.next()?;
    if state == "Z" || state == "X" {
        return None;
    }
    fields.nth(18).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_live_process_has_a_start_time_and_a_missing_one_has_none() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(start_time(own).unwrap().parse::<u64>().is_ok());
        assert!(open(own).unwrap().is_some());
        assert!(start_time(i32::MAX).is_none());
        assert!(open(i32::MAX).unwrap().is_none());
    }
}
