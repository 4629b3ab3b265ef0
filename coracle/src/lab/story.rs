//! The main job as a list of commands and what their output must show.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

use super::paths::Paths;

/// How long one command of the story may take.
const PATIENCE: Duration = Duration::from_secs(90);

/// What a command's output must be like.
#[derive(Debug, Clone, Copy)]
pub enum Expect {
    /// Standard output contains every one of these.
    Shows(&'static [&'static str]),
    /// As many lines of standard output contain the text.
    Lines(usize, &'static str),
    /// The command fails, and says this on standard error.
    Fails(&'static str),
}

/// A command with what it must show.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// As the user types it, behind `kubectl-lite`.
    pub arguments: &'static str,
    /// What its output must be like.
    pub expect: Expect,
}

/// Runs the steps one by one, printing each command and its output, and stops at the first that is wrong.
pub async fn tell(paths: &Paths, steps: &[Step]) -> Result<()> {
    for step in steps {
        let (prompt, reset) = (anstyle::Style::new().bold(), anstyle::Reset);
        anstream::println!("\n{prompt}$ kubectl-lite {}{reset}", step.arguments);
        let start = Instant::now();
        let output = run(paths, step.arguments).await?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        print!("{out}");
        eprint!("{err}");
        if let Err(wrong) = check(step.expect, output.status.success(), &out, &err) {
            bail!("kubectl-lite {}: {wrong} (after {:?})", step.arguments, start.elapsed());
        }
    }
    Ok(())
}

async fn run(paths: &Paths, arguments: &str) -> Result<std::process::Output> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("kubectl").args(arguments.split(' ')).env("KUBECONFIG", paths.kubeconfig());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().context("start kubectl-lite")?;
    if arguments.ends_with("-f -") {
        let manifest = super::demo::GUESTBOOK;
        let mut input = child.stdin.take().context("the child's input was asked for")?;
        input.write_all(manifest.as_bytes()).await?;
    }
    drop(child.stdin.take());
    let output = timeout(PATIENCE, child.wait_with_output()).await;
    Ok(output.with_context(|| format!("kubectl-lite {arguments} did not end within {PATIENCE:?}"))??)
}

fn check(expect: Expect, succeeded: bool, out: &str, err: &str) -> std::result::Result<(), String> {
    match expect {
        Expect::Fails(text) if succeeded => Err(format!("succeeded, but should have failed with {text:?}")),
        Expect::Fails(text) if err.contains(text) => Ok(()),
        Expect::Fails(text) => Err(format!("did not say {text:?}")),
        _ if !succeeded => Err("failed".into()),
        Expect::Shows(texts) => match texts.iter().find(|text| !out.contains(*text)) {
            Some(text) => Err(format!("did not show {text:?}")),
            None => Ok(()),
        },
        Expect::Lines(count, text) => {
            let found = out.lines().filter(|line| line.contains(text)).count();
            if found == count { Ok(()) } else { Err(format!("showed {text:?} on {found} lines instead of {count}")) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_checked() {
        assert!(check(Expect::Shows(&["a", "b"]), true, "b a", "").is_ok());
        assert!(check(Expect::Shows(&["a"]), false, "a", "").is_err());
        assert!(check(Expect::Lines(2, "x"), true, "x\nx\ny", "").is_ok());
        assert!(check(Expect::Lines(2, "x"), true, "x\n", "").is_err());
        assert!(check(Expect::Fails("NotFound"), false, "", "Error (NotFound)").is_ok());
        assert!(check(Expect::Fails("NotFound"), true, "", "").is_err());
    }
}
