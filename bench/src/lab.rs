//! `bench lab`: how long the main job takes and what it keeps in memory.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use coracle_client::Client;
use tempfile::TempDir;

use crate::{figures::Figures, memory, pods};

const NAME: &str = "bench";
const MIB: f64 = 1024.0;

/// A lab of the bench's own, taken down at the end.
struct Lab<'a> {
    binaries: &'a Path,
    home: TempDir,
}

impl Lab<'_> {
    fn run(&self, program: &str, arguments: &[&str]) -> Result<Duration> {
        let start = Instant::now();
        let mut command = Command::new(self.binaries.join(program));
        command.args(arguments).env("CORACLE_HOME", self.home.path()).env("KUBECONFIG", self.kubeconfig());
        let output = command.stdin(Stdio::null()).output().with_context(|| format!("run {program}"))?;
        let time = start.elapsed();
        ensure!(
            output.status.success(),
            "{program} {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(time)
    }

    fn lab(&self, arguments: &[&str]) -> Result<Duration> {
        self.run("coracle", &[&["lab", "--name", NAME], arguments].concat())
    }

    fn kubeconfig(&self) -> PathBuf {
        self.home.path().join("labs").join(NAME).join("server/admin.kubeconfig")
    }
}

impl Drop for Lab<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.lab(&["down"]) {
            eprintln!("{error:#}");
        }
    }
}

/// Measures.
pub async fn run(binaries: &Path, quick: bool) -> Result<Figures> {
    let mut figures = Figures::default();
    let lab = Lab { binaries, home: tempfile::Builder::new().prefix("bench").tempdir_in("/tmp")? };
    let (rounds, singles, bursts) = if quick { (2, 10, 2) } else { (7, 50, 5) };
    eprintln!("lab up and down, {rounds} times");
    let (mut ups, mut downs) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        ups.push(lab.lab(&["up", "--nodes", "3"])?);
        if round + 1 < rounds {
            downs.push(lab.lab(&["down"])?);
        }
    }
    figures.median("lab up, 3 nodes, to all Ready", &ups, Some(1500.0));
    figures.median("lab down", &downs, None);
    let client = coracle_client::connect(lab.kubeconfig()).await?;
    measure_memory(&mut figures, &lab, "idle")?;
    measure_pods(&mut figures, &client, singles, bursts).await?;
    measure_rollout(&mut figures, &lab)?;
    eprintln!("30 pods, for their memory");
    pods::created_to_running(&client, "memory", 30).await?;
    measure_memory(&mut figures, &lab, "30 pods")?;
    for name in ["coracle", "kubectl-lite"] {
        let size = std::fs::metadata(binaries.join(name))?.len();
        #[allow(clippy::cast_precision_loss, reason = "a file's size")]
        figures.value(&format!("size of {name}"), size as f64 / MIB / MIB, "MiB", None);
    }
    Ok(figures)
}

async fn measure_pods(figures: &mut Figures, client: &Client, singles: usize, bursts: usize) -> Result<()> {
    eprintln!("{singles} pods one at a time, then {bursts} times 30 at once");
    let mut times = Vec::new();
    for round in 0..singles {
        times.extend(pods::created_to_running(client, &format!("one-{round}"), 1).await?);
        if round % 20 == 19 {
            pods::clean(client).await?;
        }
    }
    pods::clean(client).await?;
    figures.percentile("pod created to Running, p50", &times, 0.5, Some(60.0));
    figures.percentile("pod created to Running, p99", &times, 0.99, Some(250.0));
    let mut times = Vec::new();
    for round in 0..bursts {
        times.extend(pods::created_to_running(client, &format!("many-{round}"), 30).await?);
        pods::clean(client).await?;
    }
    figures.percentile("the same, 30 at once, p50", &times, 0.5, None);
    figures.percentile("the same, 30 at once, p99", &times, 0.99, None);
    Ok(())
}

fn measure_rollout(figures: &mut Figures, lab: &Lab<'_>) -> Result<()> {
    eprintln!("a rollout of 9 replicas");
    lab.run("kubectl-lite", &["create", "deployment", "web", "--image=coracle/hello:v1", "--replicas=9"])?;
    let status = ["rollout", "status", "deployment/web"];
    lab.run("kubectl-lite", &status)?;
    let mut times = Vec::new();
    for version in ["v2", "v1", "v2"] {
        let image = format!("hello=coracle/hello:{version}");
        times.push(
            lab.run("kubectl-lite", &["set", "image", "deployment/web", &image])? + lab.run("kubectl-lite", &status)?,
        );
    }
    figures.median("image rollout, 9 replicas", &times, None);
    lab.run("kubectl-lite", &["delete", "deployment", "web"])?;
    Ok(())
}

/// One controller's hierarchy tells of every process; the lab's cgroup is the only one of this home.
fn measure_memory(figures: &mut Figures, lab: &Lab<'_>, when: &str) -> Result<()> {
    let roots = ["/sys/fs/cgroup/pids/coracle", "/sys/fs/cgroup/coracle"];
    let root = roots.iter().map(Path::new).find(|root| root.is_dir()).context("find the lab's cgroup")?;
    let _ = lab;
    #[allow(clippy::cast_precision_loss, reason = "kibibytes of a process")]
    for (name, memory) in memory::of_lab(root)? {
        let goal = (name == "coracle server").then_some(if when == "idle" { 40.0 } else { 120.0 });
        figures.value(
            &format!("{name} ×{}, resident, {when}", memory.processes),
            memory.resident as f64 / MIB,
            "MiB",
            goal,
        );
        figures.value(
            &format!("{name} ×{}, PSS, {when}", memory.processes),
            memory.proportional as f64 / MIB,
            "MiB",
            None,
        );
    }
    Ok(())
}
