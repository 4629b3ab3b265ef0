//! Hooks: programs of the caller's that run at points of a container's life, with its state on standard input
//! (config.md "POSIX-platform Hooks").
//!
//! | hook | when | where |
//! |---|---|---|
//! | prestart, createRuntime | namespaces and mounts are made, the root is not changed | the runtime's namespaces |
//! | createContainer | right after those | the container's namespaces, the runtime's files |
//! | startContainer | `start`, right before the program | the container |
//! | poststart | after the program began | the runtime's namespaces |
//! | poststop | after everything is deleted | the runtime's namespaces |

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::{
    error::{Context, Error, Result},
    json::Json,
    sys,
};

/// A program to run.
#[derive(Clone, Debug)]
struct Hook {
    path: PathBuf,
    args: Vec<String>,
    /// None: the launcher's own, as in runc.
    env: Option<Vec<String>>,
    /// Seconds.
    timeout: Option<u32>,
}

/// The hooks of one point.
#[derive(Clone, Debug, Default)]
pub struct Hooks {
    name: &'static str,
    /// Where they run: those of the creation in the bundle, as in runc; none is where the launcher is.
    dir: Option<PathBuf>,
    list: Vec<Hook>,
}

impl Hooks {
    /// Reads `hooks.NAME` of a configuration.
    pub fn parse(hooks: &Json, name: &'static str) -> Result<Hooks> {
        let list = hooks.get(name).items().iter().map(|entry| Hook::parse(entry, name)).collect::<Result<_>>()?;
        Ok(Hooks { name, dir: None, list })
    }

    /// The same, run in a directory.
    pub fn in_dir(self, dir: &Path) -> Hooks {
        Hooks { dir: Some(dir.to_owned()), ..self }
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Runs them all in order, whatever fails; returns what did (runtime.md "Lifecycle" 9 and 13).
    pub fn run_each(&self, state: &Json) -> Vec<Error> {
        let state = state.to_string();
        let run = |(index, hook): (usize, &Hook)| self.run_one(index, hook, &state).err();
        self.list.iter().enumerate().filter_map(run).collect()
    }

    /// Runs them in order; the first that fails ends it.
    pub fn run(&self, state: &Json) -> Result<()> {
        let state = state.to_string();
        self.list.iter().enumerate().try_for_each(|(index, hook)| self.run_one(index, hook, &state))
    }

    fn run_one(&self, index: usize, hook: &Hook, state: &str) -> Result<()> {
        hook.run(state, self.dir.as_deref()).context(|| format!("error running {} hook #{index}", self.name))
    }
}

impl Hook {
    fn parse(entry: &Json, name: &str) -> Result<Hook> {
        let path = entry.get("path").str().unwrap_or_default();
        if !path.starts_with('/') {
            return Err(Error::new(format!("hooks.{name}: path {path:?} must be absolute")));
        }
        let timeout = entry.get("timeout");
        if !timeout.is_null() && timeout.u32().is_none_or(|seconds| seconds == 0) {
            return Err(Error::new(format!("hooks.{name}: timeout must be greater than zero")));
        }
        Ok(Hook {
            path: path.into(),
            args: entry.get("args").strings(),
            env: (!entry.get("env").is_null()).then(|| entry.get("env").strings()),
            timeout: timeout.u32(),
        })
    }

    fn run(&self, state: &str, dir: Option<&Path>) -> Result<()> {
        // In memory files nothing can block: not a hook that never reads, nor one that says too much.
        let input = memory(state.as_bytes())?;
        let (out, err) = (memory(b"")?, memory(b"")?);
        let mut command = Command::new(&self.path);
        if let Some((first, rest)) = self.args.split_first() {
            std::os::unix::process::CommandExt::arg0(&mut command, first);
            command.args(rest);
        }
        if let Some(env) = &self.env {
            command.env_clear().envs(env.iter().filter_map(|entry| entry.split_once('=')));
        }
        if let Some(dir) = dir {
            command.current_dir(dir);
        }
        let copy = |file: &File| file.try_clone().map(Stdio::from).context(|| "duplicate a descriptor".into());
        command.stdin(Stdio::from(input)).stdout(copy(&out)?).stderr(copy(&err)?);
        let mut child = command.spawn().context(|| format!("run {}", self.path.display()))?;
        if let Some(seconds) = self.timeout
            && !ends_within(&mut child, Duration::from_secs(seconds.into())).context(|| "wait for the hook".into())?
        {
            let _ = child.kill();
            let _ = child.wait();
            return Err(Error::new(format!("hook ran past specified timeout of {seconds}s")));
        }
        let status = child.wait().context(|| "wait for the hook".into())?;
        if status.success() {
            return Ok(());
        }
        let why = status.code().map_or_else(|| format!("{status}"), |code| format!("exit status {code}"));
        Err(Error::new(format!("{why}, stdout: {}, stderr: {}", said(out), said(err))))
    }
}

/// Waits until a child has ended, or the time is over.
fn ends_within(child: &mut Child, limit: Duration) -> io::Result<bool> {
    match sys::pidfd_open(child.id() as i32) {
        Ok(pidfd) => return Ok(sys::poll_in(&pidfd, i32::try_from(limit.as_millis()).unwrap_or(i32::MAX))),
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {}
        Err(error) => return Err(error),
    }
    // Before Linux 5.3. Inside a container /proc may be that of other numbers, so that only waiting tells.
    let end = Instant::now() + limit;
    while child.try_wait()?.is_none() {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        std::thread::sleep(left.min(Duration::from_millis(5)));
    }
    Ok(true)
}

fn memory(content: &[u8]) -> Result<File> {
    let mut file = File::from(sys::memfd().context(|| "create a memory file".into())?);
    file.write_all(content).and_then(|()| file.rewind()).context(|| "write a memory file".into())?;
    Ok(file)
}

/// The beginning of what a hook wrote.
fn said(mut file: File) -> String {
    const MAX: u64 = 4096;
    let mut text = Vec::new();
    let _ = file.seek(SeekFrom::Start(0)).and_then(|_| file.take(MAX).read_to_end(&mut text));
    String::from_utf8_lossy(&text).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hooks(text: &str) -> Result<Hooks> {
        Hooks::parse(&Json::parse(text.as_bytes()).unwrap(), "poststop")
    }

    #[test]
    fn hooks_get_the_state_their_arguments_and_nothing_else() {
        let run = |script: &str| {
            let text = format!(
                r#"{{"poststop":[{{"path":"/bin/sh","args":["sh","-c",{}],"env":["A=b"],"timeout":20}}]}}"#,
                Json::from(script)
            );
            hooks(&text).unwrap().run(&Json::parse(br#"{"id":"x"}"#).unwrap())
        };
        run(r#"[ "$(cat)" = '{"id":"x"}' ] && [ "$A" = b ] && [ -z "$HOME" ]"#).unwrap();
        let error = run("echo out; echo err >&2; exit 3").unwrap_err().to_string();
        assert_eq!(error, "error running poststop hook #0: exit status 3, stdout: out, stderr: err");
    }

    #[test]
    fn hooks_without_variables_have_the_launchers_and_run_where_they_are_told() {
        let script = |env: &str| {
            let text = format!(
                r#"{{"poststop":[{{"path":"/bin/sh","args":["sh","-c","[ \"$PATH\" = '{}' ] && [ \"$PWD\" = /proc ]"]{env}}}]}}"#,
                std::env::var("PATH").unwrap()
            );
            hooks(&text).unwrap().in_dir(Path::new("/proc")).run(&Json::Null)
        };
        script("").unwrap();
        assert!(script(r#","env":["PATH=/none"]"#).is_err());
    }

    #[test]
    fn hooks_end_with_their_time_and_bad_ones_are_refused() {
        let text = r#"{"poststop":[{"path":"/bin/sh","args":["sh","-c","exec sleep 100"],"env":["PATH=/bin:/usr/bin"],"timeout":1}]}"#;
        assert!(hooks(text).unwrap().run(&Json::Null).unwrap_err().to_string().contains("timeout of 1s"));
        assert!(hooks(r#"{"poststop":[{"path":"sh"}]}"#).is_err());
        assert!(hooks(r#"{"poststop":[{"path":"/sh","timeout":0}]}"#).is_err());
        assert!(hooks("{}").unwrap().is_empty());
    }
}
