//! `cp`: files to a container and back, by the `tar` in it.

use std::{
    io::{self, Read, Write},
    path::{Component, Path, PathBuf},
};

use clap::Args;
use coracle_api::meta;
use tokio::io::AsyncReadExt;
use tokio_util::io::SyncIoBridge;

use super::exec::api;
use crate::{
    error::{Error, Result},
    pods,
    session::Session,
    terminal::{Wanted, ended},
};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  kubectl-lite cp notes.txt web-0:/tmp/notes.txt\n  kubectl-lite cp web-0:/var/log ./log -c app\nThe container must have tar."
)]
pub struct Options {
    /// PATH, or POD:PATH
    source: String,
    /// POD:PATH, or PATH
    destination: String,
    /// The container
    #[arg(short, long)]
    container: Option<String>,
}

pub async fn run(session: &Session, options: &Options) -> Result<()> {
    match (remote(&options.source), remote(&options.destination)) {
        (None, Some((pod, path))) => send(session, options, Path::new(&options.source), pod, path).await,
        (Some((pod, path)), None) => fetch(session, options, pod, path, Path::new(&options.destination)).await,
        (Some(_), Some(_)) => Err(Error::usage("one of src or dest must be a local file specification")),
        (None, None) => Err(Error::usage("one of src or dest must be a remote file specification")),
    }
}

/// `POD:PATH`; a colon behind a slash belongs to a file's name.
fn remote(text: &str) -> Option<(&str, &str)> {
    text.split_once(':').filter(|(pod, path)| !pod.is_empty() && !path.is_empty() && !pod.starts_with(['.', '/']))
}

struct Place {
    pod: String,
    container: String,
}

async fn place(session: &Session, options: &Options, pod: &str) -> Result<Place> {
    let pod = pods::of(session, pod, "copy files of").await?;
    Ok(Place {
        pod: meta::name(&pod).to_owned(),
        container: pods::container(&pod, options.container.as_deref(), false)?,
    })
}

impl Place {
    /// Runs a command in the container, with input and what it prints, and complains with its words.
    async fn run(
        &self,
        session: &Session,
        command: &[&str],
        input: Option<impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static>,
        output: impl FnOnce(&mut dyn Read) -> io::Result<()> + Send + 'static,
    ) -> Result<()> {
        let wanted = Wanted { stdin: input.is_some(), tty: false };
        let command = command.iter().copied();
        let mut process = api(session).exec(&self.pod, command, &wanted.parameters(&self.container)).await?;
        let status = process.take_status();
        let mut tasks = Vec::new();
        if let (Some(input), Some(stdin)) = (input, process.stdin()) {
            tasks.push(tokio::task::spawn_blocking(move || {
                let mut bridge = SyncIoBridge::new(stdin);
                input(&mut bridge)?;
                bridge.shutdown()
            }));
        }
        if let Some(stdout) = process.stdout() {
            tasks.push(tokio::task::spawn_blocking(move || output(&mut SyncIoBridge::new(stdout))));
        }
        let mut complaint = String::new();
        if let Some(mut stderr) = process.stderr() {
            stderr.read_to_string(&mut complaint).await?;
        }
        eprint!("{complaint}");
        for task in tasks {
            task.await.map_err(|error| Error::usage(error.to_string()))??;
        }
        match status {
            Some(status) => ended(coracle_api::json::to_value(&status.await).unwrap_or_default()),
            None => Ok(()),
        }
    }
}

async fn send(session: &Session, options: &Options, source: &Path, pod: &str, path: &str) -> Result<()> {
    let metadata = std::fs::symlink_metadata(source)
        .map_err(|_| Error::usage(format!("{} doesn't exist in local filesystem", source.display())))?;
    let place = place(session, options, pod).await?;
    let nothing = |_: &mut dyn Read| Ok(());
    let no_input = None::<fn(&mut dyn Write) -> io::Result<()>>;
    // Into a directory that is there, under the source's own name.
    let test = ["test", "-d", path];
    let is_directory = place.run(session, &test, no_input, nothing);
    let mut target = PathBuf::from(path);
    if path.ends_with('/') || quietly(is_directory).await? {
        let name = source.file_name().ok_or_else(|| Error::usage(format!("{} has no name", source.display())))?;
        target.push(name);
    }
    let name = target.file_name().map(PathBuf::from).ok_or_else(|| Error::usage(format!("{path} has no name")))?;
    let directory = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (source, directory) = (source.to_owned(), directory.to_string_lossy().into_owned());
    let pack = move |to: &mut dyn Write| {
        let mut archive = tar::Builder::new(to);
        archive.follow_symlinks(false);
        match metadata.is_dir() {
            true => archive.append_dir_all(&name, &source)?,
            false => archive.append_path_with_name(&source, &name)?,
        }
        archive.finish()
    };
    place.run(session, &["tar", "-xmf", "-", "-C", &directory], Some(pack), nothing).await
}

/// Whether a command ended well; only a command that ran and said no is no.
async fn quietly(run: impl Future<Output = Result<()>>) -> Result<bool> {
    match run.await {
        Ok(()) => Ok(true),
        Err(Error::Quiet(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn fetch(session: &Session, options: &Options, pod: &str, path: &str, destination: &Path) -> Result<()> {
    let place = place(session, options, pod).await?;
    let target = match destination.is_dir() {
        true => destination.join(Path::new(path).file_name().unwrap_or_default()),
        false => destination.to_owned(),
    };
    let prefix = PathBuf::from(path.trim_matches('/'));
    let no_input = None::<fn(&mut dyn Write) -> io::Result<()>>;
    place.run(session, &["tar", "cf", "-", path], no_input, move |from| unpack(from, &prefix, &target)).await
}

/// Unpacks what the container sends below `target`. The container is not trusted: no name leads out, and links are left.
fn unpack(from: &mut dyn Read, prefix: &Path, target: &Path) -> io::Result<()> {
    let mut archive = tar::Archive::new(from);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.into_owned();
        let name = name.strip_prefix("/").unwrap_or(&name);
        let Ok(rest) = name.strip_prefix(prefix) else {
            eprintln!("warning: skipping {}: it is not below {}", name.display(), prefix.display());
            continue;
        };
        if !rest.components().all(|part| matches!(part, Component::Normal(_))) {
            eprintln!("warning: skipping {}: it leads out of the destination", name.display());
            continue;
        }
        let path = if rest.as_os_str().is_empty() { target.to_owned() } else { target.join(rest) };
        match entry.header().entry_type() {
            kind if kind.is_dir() => std::fs::create_dir_all(&path)?,
            kind if kind.is_file() => {
                if let Some(parent) = path.parent() {
                    std::fs::create_dir_all(parent)?;
                }
                // Opened anew: an old file, or a link that somebody put there, is not followed.
                let _ = std::fs::remove_file(&path);
                io::copy(&mut entry, &mut std::fs::File::create_new(&path)?)?;
            }
            _ => eprintln!("warning: skipping {}: it is a link or a device", name.display()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_container_sends_stays_below_the_destination() {
        let dir = tempfile::tempdir().unwrap();
        let mut archive = tar::Builder::new(Vec::new());
        let mut put = |name: &str, kind: tar::EntryType| {
            let mut header = tar::Header::new_gnu();
            // Set by hand: the builder would refuse such names.
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(kind);
            header.set_size(2);
            header.set_mode(0o644);
            header.set_cksum();
            archive.append(&header, &b"hi"[..]).unwrap();
        };
        put("var/log/a", tar::EntryType::Regular);
        put("var/log/../../../../escaped", tar::EntryType::Regular);
        put("etc/passwd", tar::EntryType::Regular);
        put("var/log/link", tar::EntryType::Symlink);
        let bytes = archive.into_inner().unwrap();
        let target = dir.path().join("log");
        unpack(&mut &bytes[..], Path::new("var/log"), &target).unwrap();
        assert_eq!(std::fs::read(target.join("a")).unwrap(), b"hi");
        let names: Vec<_> = std::fs::read_dir(&target).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["a"]);
    }

    #[test]
    fn a_remote_place_has_a_pod_and_a_path() {
        assert_eq!(remote("web-0:/tmp/x"), Some(("web-0", "/tmp/x")));
        for local in ["x", "/a:b", "./a:b", "web:", ":x"] {
            assert_eq!(remote(local), None, "{local}");
        }
    }
}
