//! `coracle server backup` and `restore`: the cluster's state as one file.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand};
use coracle_apiserver::http::BACKUP;
use coracle_apiserver::store::embedded::{journal_path, snapshot};
use futures::StreamExt;
use http_body_util::BodyExt;

/// The store's file in a data directory.
pub const STORE: &str = "store.redb";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write the cluster's state to a file, while the server runs or not
    Backup(Files),
    /// Put the state of a backup in the place of what a data directory has; the server must not run
    Restore(Files),
    /// Give back space that the store's file does not need; the server must not run
    Defragment {
        /// Where the cluster's state and keys are kept
        #[arg(long, value_name = "DIR")]
        data_dir: PathBuf,
    },
}

#[derive(Debug, Args)]
pub struct Files {
    /// The backup
    file: PathBuf,
    /// Where the cluster's state and keys are kept
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
}

/// Does what is asked for and says what came of it.
pub async fn run(command: Command) -> Result<()> {
    match command {
        Command::Backup(files) => back_up(&files).await,
        Command::Restore(files) => tokio::task::spawn_blocking(move || restore(&files)).await?,
        Command::Defragment { data_dir } => tokio::task::spawn_blocking(move || defragment(&data_dir)).await?,
    }
}

async fn back_up(files: &Files) -> Result<()> {
    let store = files.data_dir.join(STORE);
    let kubeconfig = files.data_dir.join("admin.kubeconfig");
    ensure!(store.exists() || kubeconfig.exists(), "{} is no data directory of a server", files.data_dir.display());
    let partial = beside(&files.file, "partial");
    let _ = fs::remove_file(&partial);
    let mut out = private(&partial)?;
    // A store that does not exist is that of a server on etcd, which says so itself.
    let written = if store.exists() && !snapshot::is_in_use(&store)? {
        snapshot::back_up_file(&store, &mut BufWriter::new(&mut out)).map(drop).map_err(Into::into)
    } else {
        download(&kubeconfig, &mut out).await
    };
    // What was written is read again: a backup that cannot be read is none.
    let checked = written.and_then(|()| {
        out.sync_all()?;
        Ok(snapshot::verify(File::open(&partial)?)?)
    });
    let summary = checked.inspect_err(|_| drop(fs::remove_file(&partial)))?;
    fs::rename(&partial, &files.file).with_context(|| format!("write {}", files.file.display()))?;
    sync_directory(&files.file)?;
    println!("{}: {} keys at revision {}", files.file.display(), summary.keys, summary.revision);
    Ok(())
}

/// From the server that runs on the data directory.
async fn download(kubeconfig: &Path, out: &mut File) -> Result<()> {
    let client = coracle_client::connect(kubeconfig).await.context("read the kubeconfig of the server that runs")?;
    let request = axum::http::Request::get(BACKUP).body(kube::client::Body::empty())?;
    let response = client.send(request).await.context("ask the server that runs for a backup")?;
    let status = response.status();
    if !status.is_success() {
        let body = http_body_util::Limited::new(response.into_body(), 64 << 10).collect().await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        let message = serde_json::from_slice::<serde_json::Value>(&body).ok();
        let message = message.and_then(|status| status["message"].as_str().map(str::to_owned));
        bail!("{}", message.unwrap_or_else(|| format!("the server answered {status}")));
    }
    let mut pieces = response.into_body().into_data_stream();
    while let Some(piece) = pieces.next().await {
        out.write_all(&piece.context("read the backup from the server")?)?;
    }
    Ok(())
}

fn restore(files: &Files) -> Result<()> {
    let store = files.data_dir.join(STORE);
    let open = || File::open(&files.file).with_context(|| format!("read {}", files.file.display()));
    // All of it is read before anything is touched.
    snapshot::verify(open()?).with_context(|| format!("read {}", files.file.display()))?;
    fs::create_dir_all(&files.data_dir)?;
    ensure!(!snapshot::is_in_use(&store)?, "{} is in use: stop the server first", store.display());
    let fresh = beside(&store, "restoring");
    let _ = fs::remove_file(&fresh);
    let summary = snapshot::restore(open()?, &fresh).inspect_err(|_| drop(fs::remove_file(&fresh)))?;
    if store.exists() {
        let kept = beside(&store, "before-restore");
        fs::rename(&store, &kept)?;
        // The newest writes of a server that was killed are in its journal alone.
        for nth in 0..2 {
            let (journal, kept) = (journal_path(&store, nth), journal_path(&kept, nth));
            match fs::rename(&journal, &kept) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    let what =
                        format!("keep {} as {}; do so by hand, and restore again", journal.display(), kept.display());
                    return Err(error).context(what);
                }
                _ => {}
            }
        }
        println!("what was there is kept as {}", kept.display());
    }
    fs::rename(&fresh, &store)?;
    sync_directory(&store)?;
    println!("{}: {} keys, the store goes on from revision {}", store.display(), summary.keys, summary.revision);
    Ok(())
}

fn defragment(data_dir: &Path) -> Result<()> {
    let store = data_dir.join(STORE);
    let size =
        |path: &Path| fs::metadata(path).map(|file| file.len()).with_context(|| format!("find {}", path.display()));
    let before = size(&store)?;
    ensure!(!snapshot::is_in_use(&store)?, "{} is in use: stop the server first", store.display());
    snapshot::defragment(&store)?;
    println!("{}: {before} bytes before, {} now", store.display(), size(&store)?);
    Ok(())
}

/// A file that nobody else may read: it holds every secret of the cluster.
fn private(path: &Path) -> Result<File> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.with_context(|| format!("write {}", path.display()))
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(ending);
    path.with_file_name(name)
}

fn sync_directory(path: &Path) -> Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(File::open(parent)?.sync_all()?)
}
