//! Git repositories as contexts: `ADDRESS[#REF[:DIRECTORY]]`, by the host's `git` where there is one.

use std::{
    fs,
    io::Read,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, ExitStatus, Stdio},
};

use super::super::http::Problem;
use crate::{
    builder::{context::Context, ignore::clean},
    snapshots::apply::Limits,
};

/// What git said, for an error; more is not read.
const MAX_COMPLAINT: u64 = 16 << 10;

/// Fetches one commit, without its history, and takes its files. Refusals are in dockerd's words (moby
/// `builder/remotecontext/git/gitutils.go`), which are the daemon's failures there and not the client's.
pub fn context(remote: &str, dir: &Path, limits: Limits) -> Result<Context, Problem> {
    let (address, fragment) = remote.split_once('#').unwrap_or((remote, ""));
    let (reference, subdirectory) = fragment.split_once(':').unwrap_or((fragment, ""));
    let address = if address.starts_with("github.com/") { format!("https://{address}") } else { address.to_owned() };
    let reference = if reference.is_empty() { "HEAD" } else { reference };
    // Git and ssh would take these for options (CVE-2019-13139).
    if reference.starts_with('-') {
        return Err(Problem::internal(format!("invalid refspec: {reference}")));
    }
    if address.starts_with('-') || address.split_once("://").is_some_and(|(_, host)| host.starts_with('-')) {
        return Err(Problem::internal(format!("remoteURL ({address}) could not be recognized as URL")));
    }
    let repository = Repository::new(dir)?;
    repository.git(&["init", "--quiet", "--bare"])?;
    repository.git(&["fetch", "--quiet", "--depth", "1", "--no-tags", &address, reference])?;
    let tree = repository.tree(subdirectory)?;
    let mut child = repository
        .command(&["archive", "--format=tar", &tree])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| no_git(&error))?;
    let context = match child.stdout.take() {
        Some(stdout) => Context::receive(dir, stdout, limits),
        None => Err(crate::Error::internal("git has no output")),
    };
    let complaint = complaint(&mut child);
    let status = child.wait().map_err(|error| Problem::internal(format!("wait for git: {error}")))?;
    if !status.success() {
        return Err(Problem::internal(format!("error fetching: {complaint}: {}", go_status(status))));
    }
    Ok(context?)
}

/// How Go names the end of a program (`os.ProcessState`).
fn go_status(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, signal) => format!("signal: {}", signal.unwrap_or_default()),
    }
}

/// A repository for a moment.
struct Repository(std::path::PathBuf);

impl Repository {
    fn new(dir: &Path) -> Result<Repository, Problem> {
        let path = dir.join(format!("git-{}", &crate::engine::model::new_id()[..16]));
        fs::create_dir(&path).map_err(|error| Problem::internal(format!("create {}: {error}", path.display())))?;
        Ok(Repository(path))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("git");
        command.arg("-C").arg(&self.0).args(arguments).stdin(Stdio::null());
        // Nothing of the daemon's own surroundings takes part: no questions, no settings, no programs of others.
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("GIT_TERMINAL_PROMPT", "0").env("GIT_CONFIG_NOSYSTEM", "1").env("HOME", &self.0);
        command.env("GIT_ALLOW_PROTOCOL", "http:https:ssh");
        // A server that says nothing is not waited for.
        command.env("GIT_HTTP_LOW_SPEED_LIMIT", "1").env("GIT_HTTP_LOW_SPEED_TIME", "60");
        command.env(
            "GIT_SSH_COMMAND",
            "ssh -o BatchMode=yes -o ConnectTimeout=20 -o ServerAliveInterval=15 -o ServerAliveCountMax=4",
        );
        command
    }

    fn git(&self, arguments: &[&str]) -> Result<(), Problem> {
        let mut command = self.command(arguments);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().map_err(|error| no_git(&error))?;
        let complaint = complaint(&mut child);
        let status = child.wait().map_err(|error| Problem::internal(format!("wait for git: {error}")))?;
        if status.success() {
            return Ok(());
        }
        Err(Problem::internal(format!("error fetching: {complaint}: {}", go_status(status))))
    }

    /// The tree of a directory of the commit that was fetched.
    fn tree(&self, subdirectory: &str) -> Result<String, Problem> {
        let path = clean(subdirectory.trim_start_matches('/'));
        if path == ".." || path.starts_with("../") {
            return Err(Problem::internal(format!("error setting git context, {subdirectory:?} not within git root")));
        }
        if path == "." {
            return Ok("FETCH_HEAD".to_owned());
        }
        let tree = format!("FETCH_HEAD:{path}");
        let asked = self.command(&["cat-file", "-t", &tree]).output().map_err(|error| no_git(&error))?;
        match String::from_utf8_lossy(&asked.stdout).trim() {
            "tree" => Ok(tree),
            "" => Err(Problem::internal(format!("stat {path}: no such file or directory"))),
            _ => Err(Problem::internal(format!("error setting git context, not a directory: {path}"))),
        }
    }
}

impl Drop for Repository {
    fn drop(&mut self) {
        // What is left goes with the next start.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn no_git(error: &std::io::Error) -> Problem {
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            Problem::bad("git contexts need a program git on the daemon's host, and there is none")
        }
        _ => Problem::internal(format!("run git: {error}")),
    }
}

fn complaint(child: &mut std::process::Child) -> String {
    let mut text = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        let mut stderr = stderr.take(MAX_COMPLAINT);
        // What cannot be read is not told.
        let _ = stderr.read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}
