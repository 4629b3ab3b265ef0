//! The runtime through its CRI socket, with our own network plugin: one start, an exec, many starts at a time, and what
//! running containers keep in memory.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use coracle_runtime::{
    Config, Runtime,
    cni::OwnPlugin,
    images::{
        manifest::RunConfig,
        pack::{PackedContent, PackedFile, PackedImage},
    },
};
use futures::{StreamExt, TryStreamExt};
use hyper_util::rt::TokioIo;
use k8s_cri::v1::{self, runtime_service_client::RuntimeServiceClient};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use crate::figures::Figures;

const IMAGE: &str = "docker.io/bench/busybox:1";
const GROUP: &str = "/coracle-bench";
const MANY: usize = 50;
const AT_A_TIME: usize = 8;

type Client = RuntimeServiceClient<Channel>;

pub async fn run(quick: bool, figures: &mut Figures) -> Result<()> {
    let dir = tempfile::Builder::new().prefix("bench").tempdir_in("/tmp")?;
    let path = |name: &str| dir.path().join(name);
    let paths =
        coracle_network::cni::Paths { conf_dir: path("conf"), bin_dir: path("bin"), data_dir: path("addresses") };
    // As in an agent, the plugin is the runtime's own program.
    let program = std::env::current_exe().context("find this program")?;
    coracle_network::cni::install(&paths, &program, "10.77.0.0/16".parse()?, None)?;
    Command::new("ip").args(["link", "set", "lo", "up"]).status()?;
    let volatile = Volatile::mount(path("run"))?;
    let runtime = Runtime::start(Config {
        data_dir: path("data"),
        run_dir: volatile.0.clone(),
        cri_socket: path("cri.sock"),
        cgroup_parent: GROUP.into(),
        cni_conf_dir: paths.conf_dir,
        cni_bin_dir: paths.bin_dir,
        cdi_dirs: Vec::new(),
        selinux: true,
        cni_own: Some(OwnPlugin { name: coracle_network::cni::PLUGIN_NAME, call: coracle_network::cni::call }),
        pull_place: Default::default(),
        registries: Default::default(),
        layer_limits: Default::default(),
        docker: Vec::new(),
    })
    .await?;
    runtime.images().pack(IMAGE, image()?).await?;
    let stop = CancellationToken::new();
    let token = stop.clone();
    let server = tokio::spawn(async move { runtime.serve(token).await });
    let mut client = RuntimeServiceClient::new(connect(path("cri.sock")).await?);

    let rounds = if quick { 5 } else { 30 };
    let (mut starts, mut execs) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let begin = Instant::now();
        let (pod, container) = start(&mut client, dir.path(), &format!("one-{round}"), IMAGE).await?;
        starts.push(begin.elapsed());
        let begin = Instant::now();
        let cmd = vec!["/bin/true".to_owned()];
        client.exec_sync(v1::ExecSyncRequest { container_id: container, cmd, timeout: 10 }).await?;
        execs.push(begin.elapsed());
        remove(&mut client, pod).await?;
    }
    figures.median("RunPodSandbox + CreateContainer + StartContainer, network", &starts, Some(15.0));
    figures.median("ExecSync true", &execs, Some(4.0));

    many(&mut client, dir.path(), if quick { 1 } else { 5 }, figures).await?;
    stop.cancel();
    server.await??;
    crate::cgroups::remove(GROUP);
    Ok(())
}

/// Many pods at a time, several times over: what one round takes depends on what else the machine does.
async fn many(client: &mut Client, dir: &Path, rounds: usize, figures: &mut Figures) -> Result<()> {
    let (mut rates, mut costs, mut shims) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (before, begin) = (processor_time()?, Instant::now());
        let pods = start_many(client, dir, IMAGE).await?;
        let time = begin.elapsed();
        #[allow(clippy::cast_precision_loss, reason = "fifty, and milliseconds")]
        {
            rates.push(MANY as f64 / time.as_secs_f64());
            costs.push(processor_time()?.saturating_sub(before).as_secs_f64() * 1e3 / MANY as f64);
            shims.push(shims_pss()? as f64 / 1024.0 / MANY as f64);
        }
        for (pod, _) in pods {
            remove(client, pod).await?;
        }
    }
    figures.value("50 starts with network, 8 at a time", median(&mut rates), "starts/s", None);
    figures.value("processors' time of one of them, with its client", median(&mut costs), "ms", None);
    figures.value("shim of a running container, PSS", median(&mut shims), "MiB", Some(0.15));
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// How long all threads of the bench's pid namespace have run: this program, shims, containers (proc(5), `schedstat`).
fn processor_time() -> Result<Duration> {
    let mut sum = 0;
    for process in fs::read_dir("/proc")?.flatten() {
        for thread in fs::read_dir(process.path().join("task")).into_iter().flatten().flatten() {
            // One that has ended meanwhile is another's time that is lost.
            let text = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
            sum += text.split(' ').next().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    Ok(Duration::from_nanos(sum))
}

/// What a runtime keeps below `/run` elsewhere: as there, in memory.
struct Volatile(PathBuf);

impl Volatile {
    fn mount(path: PathBuf) -> Result<Self> {
        fs::create_dir(&path)?;
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "mode=711", "tmpfs"]).arg(&path).status()?;
        ensure!(mounted.success(), "mount a tmpfs on {}: {mounted}", path.display());
        Ok(Self(path))
    }
}

impl Drop for Volatile {
    fn drop(&mut self) {
        // The mount lies in a namespace of the bench's own and goes with it at the latest.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Many pods, some at a time.
pub async fn start_many(client: &Client, dir: &Path, image: &str) -> Result<Vec<(String, String)>> {
    futures::stream::iter(0..MANY)
        .map(|index| {
            let mut client = client.clone();
            async move { start(&mut client, dir, &format!("many-{index}"), image).await }
        })
        .buffer_unordered(AT_A_TIME)
        .try_collect()
        .await
}

pub async fn connect(socket: PathBuf) -> Result<Channel> {
    let connector = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { tokio::net::UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match Endpoint::from_static("http://localhost").connect_with_connector(connector.clone()).await {
            Ok(channel) => return Ok(channel),
            Err(error) if Instant::now() > deadline => return Err(error).context("connect to the runtime"),
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

/// A pod with one container; both ids.
async fn start(client: &mut Client, dir: &Path, name: &str, image: &str) -> Result<(String, String)> {
    let namespaces = Some(v1::NamespaceOption { pid: v1::NamespaceMode::Container as i32, ..Default::default() });
    let config = v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: name.into(),
            uid: name.into(),
            namespace: "bench".into(),
            attempt: 0,
        }),
        hostname: name.into(),
        log_directory: dir.join("logs").join(name).to_string_lossy().into_owned(),
        linux: Some(v1::LinuxPodSandboxConfig {
            security_context: Some(v1::LinuxSandboxSecurityContext {
                namespace_options: namespaces.clone(),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let request = v1::RunPodSandboxRequest { config: Some(config.clone()), ..Default::default() };
    let pod = client.run_pod_sandbox(request).await?.into_inner().pod_sandbox_id;
    let container = v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: "main".into(), attempt: 0 }),
        image: Some(v1::ImageSpec { image: image.into(), ..Default::default() }),
        command: vec!["/bin/sleep".into(), "1000".into()],
        log_path: "main/0.log".into(),
        linux: Some(v1::LinuxContainerConfig {
            security_context: Some(v1::LinuxContainerSecurityContext {
                namespace_options: namespaces,
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let request = v1::CreateContainerRequest {
        pod_sandbox_id: pod.clone(),
        config: Some(container),
        sandbox_config: Some(config),
    };
    let container = client.create_container(request).await?.into_inner().container_id;
    client.start_container(v1::StartContainerRequest { container_id: container.clone() }).await?;
    Ok((pod, container))
}

pub async fn remove(client: &mut Client, pod: String) -> Result<()> {
    client.stop_pod_sandbox(v1::StopPodSandboxRequest { pod_sandbox_id: pod.clone() }).await?;
    client.remove_pod_sandbox(v1::RemovePodSandboxRequest { pod_sandbox_id: pod }).await?;
    Ok(())
}

/// KiB of all shims together.
fn shims_pss() -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir("/proc")?.flatten() {
        if fs::read_to_string(entry.path().join("comm")).is_ok_and(|name| name.trim() == "coracle-shim") {
            let rollup = fs::read_to_string(entry.path().join("smaps_rollup")).unwrap_or_default();
            let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
            sum += line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    Ok(sum)
}

fn image() -> Result<PackedImage> {
    let content = PackedContent::File(fs::read("/bin/busybox").context("the package busybox-static is needed")?);
    let mut files = vec![PackedFile { path: "/bin/busybox".into(), mode: 0o755, content }];
    for name in ["sleep", "true"] {
        let content = PackedContent::Symlink("/bin/busybox".into());
        files.push(PackedFile { path: format!("/bin/{name}"), mode: 0o777, content });
    }
    Ok(PackedImage { files, config: RunConfig::default() })
}
