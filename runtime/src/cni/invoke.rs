//! One call of a plugin: environment, standard input, standard output (CNI specification, section 2).

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
    time::timeout,
};

use crate::error::{Context, Error, Result};

/// A plugin may wait for an address server; it may not hang a pod for ever.
const LIMIT: Duration = Duration::from_secs(60);
/// Results are a few kilobytes.
const MAX_OUTPUT: u64 = 1 << 20;

/// A plugin that is part of this program: the file of its name in the plugin directory is this program too. It is called
/// here, with what a process of its own would be given and would answer; any other file under its name is a plugin like others.
#[derive(Clone, Copy, Debug)]
pub struct OwnPlugin {
    pub name: &'static str,
    /// Command, container, namespace, interface, configuration. None for what is better done by a process.
    pub call: fn(&str, &str, &str, &str, &Value) -> Option<Answer>,
}

/// A plugin's result or its error, as JSON.
pub type Answer = std::result::Result<Option<Value>, Value>;

impl OwnPlugin {
    fn is(&self, kind: &str, path: &Path) -> bool {
        let same = |a: &fs::Metadata, b: &fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
        kind == self.name
            && matches!((fs::metadata(path), fs::metadata("/proc/self/exe")), (Ok(a), Ok(b)) if same(&a, &b))
    }
}

pub struct Call<'a> {
    pub path: PathBuf,
    pub kind: &'a str,
    pub command: &'a str,
    pub container_id: &'a str,
    pub netns: &'a str,
    pub interface: &'a str,
    pub args: &'a str,
    pub bin_dir: &'a Path,
    pub own: Option<OwnPlugin>,
}

/// A call that failed, with the plugin's own code if it gave one (CNI specification, section 5 "Error").
#[derive(Debug)]
pub struct Failure {
    pub code: Option<u64>,
    message: String,
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        Error::internal(failure.message)
    }
}

impl Call<'_> {
    /// Runs the plugin; its result, if it has one.
    pub async fn run(&self, config: &Value) -> std::result::Result<Option<Value>, Failure> {
        let failure = |code, why: String| Failure {
            code,
            message: format!("plugin type={:?} failed ({}): {why}", self.kind, self.command.to_lowercase()),
        };
        let failed = |why: String| failure(None, why);
        if !self.path.exists() {
            return Err(failed(format!("failed to find plugin {:?} in path [{}]", self.kind, self.bin_dir.display())));
        }
        let late = |_| failed(format!("no answer within {LIMIT:?}"));
        let own = self.own.filter(|own| own.is(self.kind, &self.path));
        let done_here = match own {
            Some(own) => timeout(LIMIT, self.call_here(own, config)).await.map_err(late)?,
            None => None,
        };
        let (success, answer, stderr) = match done_here {
            Some(Ok(answer)) => (true, answer, Vec::new()),
            Some(Err(answer)) => (false, Some(answer), Vec::new()),
            None => {
                let outcome = timeout(LIMIT, self.exchange(config)).await.map_err(late)?;
                let (success, stdout, stderr) = outcome.map_err(|error| failed(error.to_string()))?;
                (success, serde_json::from_slice::<Value>(&stdout).ok(), stderr)
            }
        };
        if success {
            return Ok(answer);
        }
        let message = answer.as_ref().and_then(|answer| answer["msg"].as_str()).map(str::to_owned);
        let details =
            answer.as_ref().and_then(|answer| answer["details"].as_str()).filter(|details| !details.is_empty());
        let message =
            message.unwrap_or_else(|| format!("netplugin failed: {}", String::from_utf8_lossy(&stderr).trim()));
        let code = answer.as_ref().and_then(|answer| answer["code"].as_u64());
        Err(failure(code, details.map_or(message.clone(), |details| format!("{message}; {details}"))))
    }

    async fn call_here(&self, own: OwnPlugin, config: &Value) -> Option<std::result::Result<Option<Value>, Value>> {
        let words = [self.command, self.container_id, self.netns, self.interface].map(str::to_owned);
        let config = config.clone();
        let called = tokio::task::spawn_blocking(move || {
            let [command, container, netns, interface] = &words;
            (own.call)(command, container, netns, interface, &config)
        });
        called.await.unwrap_or_else(|_| Some(Err(serde_json::json!({ "msg": "the plugin panicked" }))))
    }

    async fn exchange(&self, config: &Value) -> Result<(bool, Vec<u8>, Vec<u8>)> {
        let what = || format!("run plugin {}", self.path.display());
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into());
        let mut child = Command::new(&self.path)
            .env_clear()
            .env("PATH", path)
            .env("CNI_COMMAND", self.command)
            .env("CNI_CONTAINERID", self.container_id)
            .env("CNI_NETNS", self.netns)
            .env("CNI_IFNAME", self.interface)
            .env("CNI_ARGS", self.args)
            .env("CNI_PATH", self.bin_dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context(what())?;
        let (Some(mut stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(Error::internal(what()));
        };
        let input = config.to_string();
        let write = async move {
            // A plugin that fails early does not read; its answer says why.
            let _ = stdin.write_all(input.as_bytes()).await;
            drop(stdin);
        };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let (mut stdout, mut stderr) = (stdout.take(MAX_OUTPUT), stderr.take(MAX_OUTPUT));
        let ((), stdout_read, stderr_read) =
            tokio::join!(write, stdout.read_to_end(&mut out), stderr.read_to_end(&mut err));
        stdout_read.context(what())?;
        stderr_read.context(what())?;
        let status = child.wait().await.context(what())?;
        Ok((status.success(), out, err))
    }
}
