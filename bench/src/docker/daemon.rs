//! Daemons under measurement: each in namespaces of its own, which end with the bench and take everything along.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

pub const REGISTRY: &str = "/usr/bin/docker-registry";
const DOCKERD: &str = "/usr/sbin/dockerd";
const START_LIMIT: Duration = Duration::from_secs(30);

/// A daemon that answers.
pub struct Daemon {
    name: String,
    host: String,
    /// What keeps its namespaces; none for one that was there.
    process: Option<Child>,
    config: PathBuf,
    group: Option<String>,
}

impl Daemon {
    pub fn ours(dir: &Path, binaries: &Path) -> Result<Daemon> {
        let data = dir.join("ours");
        fs::create_dir_all(&data)?;
        let group = format!("coracle-bench-docker-{}", std::process::id());
        let program = binaries.join("coracle");
        let socket = data.join("docker.sock");
        let words = [
            program.as_os_str(),
            "runtime".as_ref(),
            "--data-dir".as_ref(),
            data.as_os_str(),
            "--docker-socket".as_ref(),
            socket.as_os_str(),
            "--cgroup-parent".as_ref(),
            group.as_ref(),
        ];
        start("coracle", &data, "run", &words, group.clone())
    }

    /// Debian's, where it is installed.
    pub fn dockerd(dir: &Path) -> Result<Option<Daemon>> {
        if !Path::new(DOCKERD).exists() {
            eprintln!("docker.io is not installed: there is no peer");
            return Ok(None);
        }
        let data = dir.join("dockerd");
        fs::create_dir_all(&data)?;
        let group = format!("dockerd-bench-{}", std::process::id());
        let path = |name: &str| data.join(name).into_os_string();
        let host = format!("unix://{}", data.join("docker.sock").display());
        let (root, exec, pid) = (path("root"), path("exec"), path("pid"));
        let words = [
            DOCKERD.as_ref(),
            "--data-root".as_ref(),
            root.as_os_str(),
            "--exec-root".as_ref(),
            exec.as_os_str(),
            "--pidfile".as_ref(),
            pid.as_os_str(),
            "-H".as_ref(),
            host.as_ref(),
            "--exec-opt".as_ref(),
            "native.cgroupdriver=cgroupfs".as_ref(),
            "--cgroup-parent".as_ref(),
            group.as_ref(),
        ];
        start("dockerd", &data, "exec", &words, group.clone()).map(Some)
    }

    /// One that somebody else keeps.
    pub fn at(host: &str) -> Daemon {
        Daemon {
            name: host.to_owned(),
            host: host.to_owned(),
            process: None,
            config: "/nonexistent".into(),
            group: None,
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn is_ours(&self) -> bool {
        self.name == "coracle"
    }

    /// Whether this bench started it.
    pub fn is_own(&self) -> bool {
        self.process.is_some()
    }

    /// The CLI on this daemon.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.env("DOCKER_HOST", &self.host).env("DOCKER_CONFIG", &self.config).env("DOCKER_BUILDKIT", "0");
        command.args(arguments).stdin(Stdio::null());
        command
    }

    pub fn ok(&self, arguments: &[&str]) -> Result<String> {
        let output = self.command(arguments).output().context("run docker")?;
        if !output.status.success() {
            bail!("{}: docker {}: {}", self.name, arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// A registry on the daemon's own loopback, which ends when this is dropped.
    pub fn start_registry(&self, dir: &Path) -> Result<Registry> {
        let data = dir.join(format!("registry-{}", self.name));
        fs::create_dir_all(&data)?;
        let config = data.join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: 127.0.0.1:5000}}\n",
            data.display()
        );
        fs::write(&config, text)?;
        let process = self.process.as_ref().context("the daemon is somebody else's")?;
        let first = children(process.id()).first().copied().context("the daemon is gone")?;
        let mut command = Command::new("nsenter");
        command.args(["-t", &first.to_string(), "-n", REGISTRY, "serve"]).arg(&config);
        let registry = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("start the registry")?;
        let registry = Registry(registry);
        wait_until(|| {
            // 127.0.0.1:5000, TCP_LISTEN (proc_pid_net(5)).
            fs::read_to_string(format!("/proc/{first}/net/tcp"))
                .is_ok_and(|text| text.contains("0100007F:1388 00000000:0000 0A"))
        })
        .context("the registry does not answer")?;
        Ok(registry)
    }

    /// What the daemon and its helpers keep, without what runs in the containers.
    pub fn memory(&self) -> Option<Memory> {
        let mut pending = vec![self.process.as_ref()?.id()];
        let parents = parents();
        let mut memory = Memory::default();
        while let Some(pid) = pending.pop() {
            pending.extend(parents.get(&pid).into_iter().flatten());
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            if !["sleep", "setpriv", "unshare", "busybox", "sh"].contains(&name.trim()) {
                memory.proportional += field(&format!("/proc/{pid}/smaps_rollup"), "Pss:");
            }
            if ["coracle", "dockerd"].contains(&name.trim()) {
                memory.resident += field(&format!("/proc/{pid}/status"), "VmRSS:");
            }
        }
        Some(memory)
    }
}

/// KiB of a daemon: with its helpers, and its own process alone.
#[derive(Debug, Default, Clone, Copy)]
pub struct Memory {
    pub proportional: u64,
    pub resident: u64,
}

fn field(path: &str, name: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let Some(process) = &mut self.process else { return };
        // Its namespaces end with it, and everything in them.
        let _ = process.kill();
        let _ = process.wait();
        if let Some(group) = &self.group {
            crate::cgroups::remove(group);
        }
    }
}

/// A registry that runs.
pub struct Registry(Child);

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `volatile` is what the daemon keeps below `/run` elsewhere: as there, in memory.
fn start(name: &str, data: &Path, volatile: &str, words: &[&std::ffi::OsStr], group: String) -> Result<Daemon> {
    let volatile = data.join(volatile);
    fs::create_dir_all(&volatile)?;
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "unshare", "-n", "-m", "-p", "--fork", "--kill-child", "--mount-proc"]);
    let script = "mount -t tmpfs -o mode=711 tmpfs \"$0\" && busybox ip link set lo up && \"$@\"; exit";
    command.args(["busybox", "sh", "-c", script]).arg(&volatile).args(words);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let process = command.spawn().context("start a daemon")?;
    let daemon = Daemon {
        name: name.to_owned(),
        host: format!("unix://{}", data.join("docker.sock").display()),
        process: Some(process),
        config: data.join("config"),
        group: Some(group),
    };
    wait_until(|| daemon.ok(&["version"]).is_ok()).with_context(|| format!("{name} does not answer"))?;
    Ok(daemon)
}

fn wait_until(mut holds: impl FnMut() -> bool) -> Result<()> {
    let start = Instant::now();
    while !holds() {
        if start.elapsed() > START_LIMIT {
            bail!("nothing within {START_LIMIT:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn children(parent: u32) -> Vec<u32> {
    parents().remove(&parent).unwrap_or_default()
}

/// The children of every process.
fn parents() -> HashMap<u32, Vec<u32>> {
    let mut out: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse().ok());
        if let Some(parent) = parent {
            out.entry(parent).or_default().push(pid);
        }
    }
    out
}
