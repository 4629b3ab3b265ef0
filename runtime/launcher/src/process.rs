//! The last steps of a process before it becomes the user's program: limits, user, capabilities, descriptors, exec.

use std::{
    ffi::CString,
    fs,
    io::{self, ErrorKind},
    os::fd::{AsRawFd, OwnedFd},
};

use crate::{
    error::{Context, Error, Result},
    log::Log,
    spec::Process,
    sys,
};

impl Process {
    /// Cuts limits to what this process may set and says what is missing. Called before the process exists.
    pub fn clamp(&mut self, log: &Log) {
        if self.capabilities.missing != 0 {
            log.warn(&format!(
                "capabilities not available here: {}",
                crate::capabilities::describe(self.capabilities.missing)
            ));
        }
        if !self.unknown_capabilities.is_empty() {
            log.warn(&format!("ignoring unknown capabilities: {}", self.unknown_capabilities.join(", ")));
        }
        for (resource, soft, hard) in &mut self.rlimits {
            let Ok((_, own_hard)) = sys::getrlimit(*resource) else { continue };
            // CAP_SYS_RESOURCE raises hard limits; whether this process has it shows in its own capability set.
            let may_raise =
                crate::capabilities::bit("SYS_RESOURCE").is_some_and(|bit| crate::capabilities::held() & bit != 0);
            if *hard > own_hard && !may_raise {
                log.warn(&format!(
                    "rlimit {resource}: hard limit {hard} is above {own_hard}, the most this process may set"
                ));
                *hard = own_hard;
            }
            // Nobody may pass this one, whatever his rights (getrlimit(2), RLIMIT_NOFILE).
            if *resource == libc::RLIMIT_NOFILE
                && let Some(most) = most_files()
                && *hard > most
            {
                log.warn(&format!("rlimit {resource}: hard limit {hard} is above {most}, the kernel's own"));
                *hard = most;
            }
            *soft = (*soft).min(*hard);
        }
    }

    /// Hands on the sockets that the launcher was given (sd_listen_fds(3)), for the container's first process: how many
    /// they are. They come before those of `--preserve-fds` (runc `utils_linux.go`).
    pub fn take_sockets(
        &mut self,
        variable: impl Fn(&'static str) -> std::result::Result<String, std::env::VarError>,
    ) -> u32 {
        let number = |name| variable(name).ok().and_then(|text| text.parse::<u32>().ok());
        let Some(count) = number("LISTEN_FDS").filter(|&count| count > 0) else { return 0 };
        if number("LISTEN_PID") != Some(std::process::id()) {
            return 0;
        }
        self.env.extend([format!("LISTEN_FDS={count}"), "LISTEN_PID=1".to_owned()]);
        count
    }

    /// Raises this process's own hard limits to those that are asked for: a child in a user namespace inherits them and
    /// could not raise them itself (getrlimit(2), CAP_SYS_RESOURCE in the first user namespace).
    pub fn raise_hard_limits(&self) -> Result<()> {
        for &(resource, _, hard) in &self.rlimits {
            let (own_soft, own_hard) = sys::getrlimit(resource).context(|| format!("get rlimit {resource}"))?;
            if hard > own_hard {
                sys::setrlimit(resource, own_soft, hard).context(|| format!("raise rlimit {resource}"))?;
            }
        }
        Ok(())
    }

    /// Sets the OOM score: below the own one only with CAP_SYS_RESOURCE, so a refusal is a warning.
    pub fn set_oom_score(&self, log: &Log) -> Result<()> {
        let Some(score) = self.oom_score_adj else { return Ok(()) };
        match fs::write("/proc/self/oom_score_adj", score.to_string()) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM)) => {
                log.warn(&format!("oomScoreAdj {score} needs CAP_SYS_RESOURCE; left as it is"));
                Ok(())
            }
            result => result.context(|| format!("set oomScoreAdj {score}")),
        }
    }

    /// Makes `slave` the controlling terminal and the standard streams.
    pub fn take_console(&self, slave: &OwnedFd) -> Result<()> {
        sys::set_controlling_tty(slave).context(|| "set the controlling terminal".into())?;
        for number in 0..3 {
            sys::place_fd(slave.as_raw_fd(), number).context(|| "set the standard streams".into())?;
        }
        Ok(())
    }

    /// Everything that takes rights away, in the order the kernel demands; `seccomp` is installed where rights allow.
    ///
    /// `listening` is given the number of the filter's listening descriptor, if it has one.
    pub fn drop_rights(
        &self,
        seccomp: Option<&crate::seccomp::Filter>,
        listening: &dyn Fn(i32) -> Result<()>,
    ) -> Result<()> {
        let install = || match seccomp {
            Some(filter) if filter.listener.is_some() => listening(filter.install()?),
            Some(filter) => filter.install().map(drop),
            None => Ok(()),
        };
        self.scheduling.apply()?;
        for &(resource, soft, hard) in &self.rlimits {
            sys::setrlimit(resource, soft, hard).context(|| format!("set rlimit {resource}"))?;
        }
        self.own_streams();
        self.capabilities.drop_bounding().context(|| "drop capabilities from the bounding set".into())?;
        sys::umask(self.umask.unwrap_or(0o022));
        // Without no_new_privs only CAP_SYS_ADMIN may install a filter, and a change of the user takes its effect away
        // (capabilities(7)).
        if !self.no_new_privileges {
            install()?;
        }
        sys::prctl(libc::PR_SET_KEEPCAPS, 1).context(|| "keep capabilities".into())?;
        sys::setgroups(&self.groups).context(|| "set additional groups".into())?;
        sys::setgid(self.gid).context(|| format!("set group {}", self.gid))?;
        sys::setuid(self.uid).context(|| format!("set user {}", self.uid))?;
        sys::prctl(libc::PR_SET_KEEPCAPS, 0).context(|| "keep capabilities no longer".into())?;
        // From here on the container's own processes have what this one has, and could read its memory, which is more than the
        // program's (CVE-2016-9962); the program is read as any other again (execve(2)).
        sys::prctl(libc::PR_SET_DUMPABLE, 0).context(|| "keep memory from others".into())?;
        self.capabilities.apply().context(|| "set capabilities".into())?;
        if self.no_new_privileges {
            sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1).context(|| "set no_new_privs".into())?;
            install()?;
        }
        Ok(())
    }

    /// The standard streams belong to the user, so that `/dev/stdout` can be opened again. Best effort: a stream can
    /// be a file of somebody else.
    fn own_streams(&self) {
        for number in 0..3 {
            let stream = sys::borrow(number);
            let Ok(stat) = sys::fstat(&stream) else { continue };
            let null = stat.st_mode & libc::S_IFMT == libc::S_IFCHR && stat.st_rdev == libc::makedev(1, 3);
            if stat.st_uid != self.uid && !null {
                let _ = sys::fchown(&stream, self.uid, u32::MAX);
            }
        }
    }

    /// Enters the working directory, making sure it is inside the root (CVE-2024-21626).
    pub fn enter_cwd(&self) -> Result<()> {
        std::env::set_current_dir(&self.cwd)
            .context(|| format!("chdir to cwd ({:?}) set in config.json failed", self.cwd))?;
        match std::env::current_dir() {
            Ok(path) if path.is_absolute() => Ok(()),
            _ => Err(Error::new(format!("cwd {:?} is outside of the container's root", self.cwd))),
        }
    }

    /// Finds the program as a shell does: a name without a slash in each directory of the process's own PATH.
    pub fn program(&self) -> Result<CString> {
        let name = &self.args[0];
        if name.contains('/') {
            let path = sys::cstr(name).context(|| format!("exec: {name:?}"))?;
            return match (sys::access_executable(&path), fs::metadata(name)) {
                (_, Err(error)) => Err(Error::io(format!("exec: {name:?}: stat {name}"), error)),
                (_, Ok(metadata)) if metadata.is_dir() => Err(Error::new(format!("exec: {name:?}: is a directory"))),
                (Err(error), _) => Err(Error::io(format!("exec: {name:?}"), error)),
                (Ok(()), Ok(_)) => Ok(path),
            };
        }
        let path = self.env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or_default();
        let mut found = None;
        for dir in path.split(':') {
            let candidate = format!("{}/{name}", if dir.is_empty() { "." } else { dir });
            if fs::metadata(&candidate).is_ok_and(|metadata| metadata.is_file()) {
                let path = sys::cstr(&candidate).context(|| format!("exec: {name:?}"))?;
                if sys::access_executable(&path).is_ok() {
                    return Ok(path);
                }
                found = Some(candidate);
            }
        }
        match found {
            Some(_) => Err(Error::io(format!("exec: {name:?}"), io::Error::from(ErrorKind::PermissionDenied))),
            None => Err(Error::new(format!("exec: {name:?}: executable file not found in $PATH"))),
        }
    }

    /// Becomes the program. Returns only an error.
    pub fn exec(&self, program: &CString, env: &[String]) -> Error {
        let strings = |list: &[String]| list.iter().map(sys::cstr).collect::<io::Result<Vec<CString>>>();
        match (strings(&self.args), strings(env)) {
            (Ok(args), Ok(env)) => {
                Error::io(format!("exec {}", program.to_string_lossy()), sys::execve(program, &args, &env))
            }
            _ => Error::new("exec: an argument or variable contains a NUL byte"),
        }
    }
}

/// The most files that the kernel lets a process open.
fn most_files() -> Option<u64> {
    sys::read_file("/proc/sys/fs/nr_open").ok()?.trim().parse().ok()
}

/// The child's end of its conversation with the launcher. It closes when the child becomes the program, and that is how
/// the launcher learns of it.
///
/// | message | meaning | answered |
/// |---|---|---|
/// | `U` | the user namespace needs its mappings | yes |
/// | `H` | namespaces and mounts are made | yes |
/// | `M` and a number | the root is mounted in the launcher's own mount namespace, by this number | no |
/// | `N` and a pid | another process takes over | no |
/// | `S` and a number | the descriptor of a seccomp listener | yes |
/// | `R` | ready, waiting for `start` | no |
/// | `C` with a descriptor | the master of a terminal in the foreground | yes |
/// | `E` and words | failed | no |
pub struct Report(pub OwnedFd);

impl Report {
    pub fn send(&self, message: &str) {
        // If nobody listens any more there is nobody to tell.
        let _ = sys::write(&self.0, message.as_bytes());
    }

    /// Sends a message and waits until the launcher has done its part.
    pub fn ask(&self, message: &str) -> Result<()> {
        self.send(message);
        self.wait()
    }

    /// Hands a terminal's master over.
    pub fn give(&self, master: &OwnedFd) -> Result<()> {
        sys::send_with_fd(self.0.as_raw_fd(), b"C", Some(master.as_raw_fd())).context(|| "send the console".into())?;
        self.wait()
    }

    fn wait(&self) -> Result<()> {
        match sys::read(&self.0, &mut [0; 1]) {
            Ok(1..) => Ok(()),
            // It will say itself what went wrong.
            _ => Err(Error::new("the launcher gave up")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Json;

    #[test]
    fn sockets_are_handed_on_to_who_they_are_for() {
        let env = |pid: u32| {
            let mut process = Process::parse(&Json::parse(br#"{"args":["a"],"cwd":"/"}"#).unwrap()).unwrap();
            let variable = |name: &str| match name {
                "LISTEN_FDS" => Ok("2".to_owned()),
                "LISTEN_PID" => Ok(pid.to_string()),
                _ => Err(std::env::VarError::NotPresent),
            };
            (process.take_sockets(variable), process.env)
        };
        assert_eq!(env(std::process::id()), (2, vec!["LISTEN_FDS=2".to_owned(), "LISTEN_PID=1".to_owned()]));
        assert_eq!(env(1), (0, vec![]));
    }
}
