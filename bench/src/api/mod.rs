//! `bench api`: an API server under load, beside a server that does nothing and, with `--kubeconfig`, any other one.
//!
//! ```text
//! 32 clients on 8 connections (HTTP/2, TLS): create 5,000 pods, get, list, 100 watchers and 500 updates, delete them all
//! ```

mod ceiling;
mod client;
mod crowd;
mod inside;
mod load;
mod slow;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

pub use ceiling::serve as serve_ceiling;
use client::Target;
pub use inside::run as run_inside;
use load::{Load, Results};
pub use slow::serve as serve_slow;

use crate::figures::Figures;

/// Pods of a load, clients, watchers, updates.
const FULL: Load =
    Load { pods: 5000, clients: 32, connections: 8, watchers: 100, updates: 500, gets: 20_000, lists: 10 };
const QUICK: Load = Load { pods: 500, clients: 32, connections: 8, watchers: 20, updates: 100, gets: 2000, lists: 3 };

/// How long a server idles before its memory is looked at: what counts as resident is what stays after a minute.
const IDLE: Duration = Duration::from_secs(60);
const QUICK_IDLE: Duration = Duration::from_secs(10);

/// What a server is measured against.
const CREATE_AT_256: &str = "create at 256 clients";

/// A server started for the bench, ended with this.
struct Server {
    process: Child,
    kubeconfig: PathBuf,
}

impl Server {
    /// Starts a server and waits for the line that says it is ready.
    fn start(mut command: Command, kubeconfig: PathBuf) -> Result<Self> {
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let stdout = process.stdout.take().context("the server has no output")?;
        let server = Self { process, kubeconfig };
        BufReader::new(stdout).lines().next().context("the server did not start")??;
        Ok(server)
    }

    fn coracle(binaries: &Path, role: &str, dir: &Path, more: &[&str]) -> Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = Command::new(binaries.join("coracle"));
        command.args([role, "--data-dir"]).arg(dir).args(["--bind", &format!("127.0.0.1:{port}")]).args(more);
        Self::start(command, dir.join("admin.kubeconfig"))
    }

    /// A server that this program is, in another role.
    fn own(role: &str, dir: &Path) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(role).arg("--binaries").arg(dir);
        Self::start(command, dir.join(format!("{role}.kubeconfig")))
    }

    fn resident(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib: f64 = line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0.0);
        kib / 1024.0
    }
}

impl Server {
    /// Processor time so far, of all its threads (`/proc/PID/schedstat` tells of one alone).
    fn spent(&self) -> Duration {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.process.id())).into_iter().flatten().flatten();
        let of = |path: PathBuf| -> Option<u64> {
            std::fs::read_to_string(path.join("schedstat")).ok()?.split_whitespace().next()?.parse().ok()
        };
        Duration::from_nanos(threads.filter_map(|thread| of(thread.path())).sum())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It is this process's own child; it may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Measures; a peer is measured in the same run.
pub async fn run(binaries: &Path, peer: Option<&Path>, quick: bool) -> Result<Figures> {
    let load = if quick { QUICK } else { FULL };
    let mut figures = Figures::default();
    let dir = tempfile::Builder::new().prefix("bench").tempdir_in("/tmp")?;

    eprintln!("a server that does nothing: the ceiling");
    let ceiling = Server::own("ceiling", dir.path())?;
    let top = load.ceiling(&Target::of(&ceiling.kubeconfig).await?, || ceiling.spent()).await?;
    drop(ceiling);

    eprintln!("coracle apiserver");
    let server = Server::coracle(binaries, "apiserver", &dir.path().join("apiserver"), &[])?;
    figures.value("API server resident, empty", server.resident(), "MiB", None);
    let target = Target::of(&server.kubeconfig).await?;
    let ours = load.run(&target, || server.spent()).await?;
    figures.value("API server resident, after the load", server.resident(), "MiB", None);
    let wide = Load { clients: 256, ..load };
    let crowded = wide.create(&target, "crowd").await?;
    let before = server.spent();
    let different = load.create_different(&target, "different").await?;
    let cost = (server.spent() - before).as_secs_f64() * 1e6 / load.pods as f64;
    drop(server);
    let theirs = match peer {
        Some(kubeconfig) => {
            eprintln!("the peer");
            Some(load.run(&Target::of(kubeconfig).await?, || Duration::ZERO).await?)
        }
        None => None,
    };
    report(&mut figures, &top, &ours, theirs.as_ref());
    figures.value(CREATE_AT_256, crowded, "1/s", None);
    figures.value("create, no two pods alike", different, "1/s", None);
    figures.value("processor time of such a create", cost, "µs", None);

    eprintln!("the same with 2 ms under every sync");
    let slow = Server::own("slow", dir.path())?;
    let rate = wide.create(&Target::of(&slow.kubeconfig).await?, "bench").await?;
    figures.value("create at 256 clients, 2 ms under every sync", rate, "1/s", None);
    drop(slow);

    measure_etcd(&mut figures, binaries, dir.path(), &load).await?;
    measure_crowd(&mut figures, binaries, dir.path(), if quick { 1000 } else { 10_000 }).await?;
    measure_memory(&mut figures, binaries, dir.path(), &load, if quick { QUICK_IDLE } else { IDLE }).await?;
    Ok(figures)
}

/// What a whole control plane keeps in memory: at rest, and with pods on a node that is there. (Pods of one that is not would
/// be removed meanwhile.)
async fn measure_memory(figures: &mut Figures, binaries: &Path, dir: &Path, load: &Load, idle: Duration) -> Result<()> {
    eprintln!("coracle server");
    let server = Server::coracle(binaries, "server", &dir.join("server"), &[])?;
    figures.value("control plane resident, empty, at once", server.resident(), "MiB", None);
    // What is resident is what stays so: pages that only a start needs go a moment later.
    tokio::time::sleep(idle).await;
    figures.value("control plane resident, empty", server.resident(), "MiB", Some(40.0));
    let target = Target::of(&server.kubeconfig).await?;
    load.register_node(&target).await?;
    load.create(&target, "bench").await?;
    let pods = format!("control plane resident, with {} pods on a node", load.pods);
    figures.value(&format!("{pods}, at once"), server.resident(), "MiB", None);
    tokio::time::sleep(idle).await;
    figures.value(&pods, server.resident(), "MiB", Some(120.0));
    ensure!(load.count(&target).await? == load.pods, "some of the pods went while the server was idle");
    load.delete(&target).await?;
    tokio::time::sleep(idle).await;
    figures.value("control plane resident, after the load", server.resident(), "MiB", Some(120.0));
    Ok(())
}

/// On a real etcd, where one is installed.
async fn measure_etcd(figures: &mut Figures, binaries: &Path, dir: &Path, load: &Load) -> Result<()> {
    let Some(etcd) = Etcd::start(&dir.join("etcd"))? else {
        eprintln!("etcd is not installed: not measured on it");
        return Ok(());
    };
    eprintln!("coracle apiserver on etcd");
    let server = Server::coracle(binaries, "apiserver", &dir.join("on-etcd"), &["--etcd-servers", &etcd.url])?;
    let rate = load.create(&Target::of(&server.kubeconfig).await?, "bench").await?;
    figures.value("create, on etcd", rate, "1/s", None);
    Ok(())
}

async fn measure_crowd(figures: &mut Figures, binaries: &Path, dir: &Path, watchers: usize) -> Result<()> {
    eprintln!("{watchers} watchers");
    let server = Server::coracle(binaries, "apiserver", &dir.join("crowd"), &[])?;
    let target = Target::of(&server.kubeconfig).await?;
    let mut resident = 0.0;
    let told = crowd::tell(&target, watchers, 10, || resident = server.resident()).await?;
    figures.value(&format!("API server resident, {watchers} watchers"), resident, "MiB", Some(400.0));
    figures.median(&format!("an event at all of {watchers} watchers"), &told.all_within, Some(1000.0));
    Ok(())
}

/// How long an etcd may take to be there.
const ETCD_WITHIN: Duration = Duration::from_secs(20);

/// An etcd of the bench's own on the loopback, ended with this.
struct Etcd {
    process: Child,
    url: String,
}

impl Etcd {
    /// None when etcd is not installed.
    fn start(dir: &Path) -> Result<Option<Self>> {
        let port = || -> Result<u16> { Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port()) };
        let (url, peers) = (format!("http://127.0.0.1:{}", port()?), format!("http://127.0.0.1:{}", port()?));
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(dir).args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
        command.args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]);
        command.args(["--initial-cluster", &format!("default={peers}"), "--log-level", "error"]);
        match command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn() {
            Ok(process) => Self { process, url }.ready().map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context("start etcd"),
        }
    }
}

impl Etcd {
    /// Waits until it leads itself and answers.
    fn ready(mut self) -> Result<Self> {
        let deadline = Instant::now() + ETCD_WITHIN;
        while !self.is_healthy() {
            if let Some(status) = self.process.try_wait()? {
                bail!("etcd ended with {status}");
            }
            ensure!(Instant::now() < deadline, "etcd does not answer within {ETCD_WITHIN:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(self)
    }

    fn is_healthy(&self) -> bool {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(self.url.trim_start_matches("http://"))?;
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            stream.write_all(b"GET /health HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            stream.take(4096).read_to_string(&mut answer)?;
            Ok(answer)
        };
        ask().is_ok_and(|answer| answer.contains("\"health\":\"true\""))
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // As above.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn report(figures: &mut Figures, top: &Results, ours: &Results, theirs: Option<&Results>) {
    for ((name, unit, ours), ceiling) in ours.rows().into_iter().zip(top.rows()) {
        figures.value(&name, ours, unit, None);
        if ceiling.2 > 0.0 {
            figures.value(&format!("  of a server that does nothing ({:.0})", ceiling.2), ours / ceiling.2, "", None);
        }
        let peer = theirs.and_then(|theirs| theirs.rows().into_iter().find(|row| row.0 == name));
        if let Some((_, _, peer)) = peer {
            figures.value(&format!("  of the peer ({peer:.0})"), ours / peer, "×", None);
        }
    }
}
