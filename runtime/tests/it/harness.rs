//! A runtime in a directory of its own, driven through its CRI socket.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use coracle_runtime::{
    Config, Runtime,
    images::{
        manifest::RunConfig,
        pack::{PackedContent, PackedFile, PackedImage},
    },
};
use hyper_util::rt::TokioIo;
use k8s_cri::v1::{self, image_service_client::ImageServiceClient, runtime_service_client::RuntimeServiceClient};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

pub const IMAGE: &str = "docker.io/test/busybox:1";
const BUSYBOX: &str = "/bin/busybox";

/// Directories of one runtime.
pub struct Node {
    pub dir: tempfile::TempDir,
    group: String,
}

impl Node {
    pub fn new(test: &str) -> Node {
        let dir = tempfile::tempdir().unwrap();
        for name in ["conf", "bin", "logs"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        Node { dir, group: super::isolation::group(test) }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn config(&self) -> Config {
        config(self.dir.path(), &self.group)
    }

    /// A plugin that gives every sandbox the same address and writes down how it was called.
    pub fn install_network(&self) {
        let log = self.path("cni.log");
        let script = format!(
            "#!/bin/sh\ncat >/dev/null\necho $CNI_COMMAND $CNI_CONTAINERID >> {}\n[ $CNI_COMMAND = ADD ] && echo '{{\"cniVersion\":\"1.0.0\",\"ips\":[{{\"address\":\"10.9.8.7/24\"}}]}}'\nexit 0\n",
            log.display()
        );
        fs::write(self.path("bin/fake"), script).unwrap();
        fs::set_permissions(self.path("bin/fake"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(
            self.path("conf/10-fake.conflist"),
            r#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"fake"}]}"#,
        )
        .unwrap();
    }

    /// The runtime in this process.
    pub async fn start(&self) -> Running {
        self.start_with(self.config()).await
    }

    pub async fn start_with(&self, config: Config) -> Running {
        let runtime = Runtime::start(config).await.unwrap();
        runtime.images().pack(IMAGE, busybox()).await.unwrap();
        let stop = CancellationToken::new();
        let token = stop.clone();
        let task = tokio::spawn(async move { runtime.serve(token).await.unwrap() });
        let clients = self.connect().await;
        Running { stop, task, clients }
    }

    /// The runtime in a process of its own, which can be killed.
    pub fn start_process(&self) -> Child {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["daemon", "--exact", "--nocapture"])
            .env(super::DAEMON_DIR, self.dir.path())
            .env(super::DAEMON_GROUP, &self.group);
        command.stdout(Stdio::null()).spawn().unwrap()
    }

    /// Waits until the socket answers.
    pub async fn connect(&self) -> Clients {
        let socket = self.path("cri.sock");
        let connector = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        // Emulated, a daemon takes long to start.
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while std::time::Instant::now() < deadline {
            if let Ok(channel) =
                Endpoint::from_static("http://localhost").connect_with_connector(connector.clone()).await
            {
                return Clients {
                    runtime: RuntimeServiceClient::new(channel.clone()),
                    newer: coracle_cri::Client::new(channel.clone()),
                    images: ImageServiceClient::new(channel),
                };
            }
            // The socket has no event for appearing.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the runtime does not come up");
    }
}

pub fn config(dir: &Path, group: &str) -> Config {
    Config {
        data_dir: dir.join("data"),
        run_dir: dir.join("run"),
        cri_socket: dir.join("cri.sock"),
        cgroup_parent: group.to_owned(),
        cni_conf_dir: dir.join("conf"),
        cni_bin_dir: dir.join("bin"),
        cni_own: None,
        cdi_dirs: vec![dir.join("cdi")],
        selinux: true,
        pull_place: Default::default(),
        registries: Default::default(),
        layer_limits: Default::default(),
        docker: Vec::new(),
    }
}

/// An image with busybox as its shell and everything else.
pub fn busybox() -> PackedImage {
    let content = PackedContent::File(fs::read(BUSYBOX).expect("the package busybox-static is installed"));
    let mut files = vec![PackedFile { path: "/bin/busybox".into(), mode: 0o755, content }];
    for name in [
        "sh", "cat", "echo", "sleep", "id", "hostname", "mount", "ls", "head", "yes", "true", "kill", "stat", "tail",
        "dd", "stty", "ps",
    ] {
        files.push(PackedFile {
            path: format!("/bin/{name}"),
            mode: 0o777,
            content: PackedContent::Symlink("/bin/busybox".into()),
        });
    }
    let passwd = b"root:x:0:0::/:/bin/sh\nweb:x:33:33::/web:/bin/sh\n".to_vec();
    files.push(PackedFile { path: "/etc/passwd".into(), mode: 0o644, content: PackedContent::File(passwd) });
    files.push(PackedFile { path: "/tmp".into(), mode: 0o1777, content: PackedContent::Directory });
    let config = RunConfig { cmd: vec!["/bin/sh".into()], env: vec!["FROM_IMAGE=yes".into()], ..RunConfig::default() };
    PackedImage { files, config }
}

/// A runtime that serves in this process.
pub struct Running {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    pub clients: Clients,
}

impl Running {
    pub async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

/// Both services of CRI.
#[derive(Clone)]
pub struct Clients {
    pub runtime: RuntimeServiceClient<Channel>,
    pub images: ImageServiceClient<Channel>,
    pub newer: coracle_cri::Client,
}

impl Clients {
    pub async fn run_sandbox(&mut self, config: v1::PodSandboxConfig) -> String {
        self.runtime
            .run_pod_sandbox(v1::RunPodSandboxRequest { config: Some(config), ..Default::default() })
            .await
            .unwrap()
            .into_inner()
            .pod_sandbox_id
    }

    pub async fn create(&mut self, sandbox: &str, config: v1::ContainerConfig) -> String {
        let request =
            v1::CreateContainerRequest { pod_sandbox_id: sandbox.into(), config: Some(config), sandbox_config: None };
        self.runtime.create_container(request).await.unwrap().into_inner().container_id
    }

    pub async fn start(&mut self, id: &str) {
        self.runtime.start_container(v1::StartContainerRequest { container_id: id.into() }).await.unwrap();
    }

    pub async fn run(&mut self, sandbox: &str, config: v1::ContainerConfig) -> String {
        let id = self.create(sandbox, config).await;
        self.start(&id).await;
        id
    }

    pub async fn status(&mut self, id: &str) -> v1::ContainerStatus {
        let request = v1::ContainerStatusRequest { container_id: id.into(), verbose: false };
        self.runtime.container_status(request).await.unwrap().into_inner().status.unwrap()
    }

    /// Waits for a container's end, by events.
    pub async fn wait(&mut self, id: &str) -> v1::ContainerStatus {
        let mut events = self.runtime.get_container_events(v1::GetEventsRequest {}).await.unwrap().into_inner();
        loop {
            let status = self.status(id).await;
            if status.state() == v1::ContainerState::ContainerExited {
                return status;
            }
            events.message().await.unwrap().expect("events go on");
        }
    }

    pub async fn exec(&mut self, id: &str, command: &[&str]) -> v1::ExecSyncResponse {
        let cmd = command.iter().map(|word| (*word).to_owned()).collect();
        self.runtime
            .exec_sync(v1::ExecSyncRequest { container_id: id.into(), cmd, timeout: 10 })
            .await
            .unwrap()
            .into_inner()
    }

    pub async fn remove_sandbox(&mut self, id: &str) {
        self.runtime.stop_pod_sandbox(v1::StopPodSandboxRequest { pod_sandbox_id: id.into() }).await.unwrap();
        self.runtime.remove_pod_sandbox(v1::RemovePodSandboxRequest { pod_sandbox_id: id.into() }).await.unwrap();
    }
}

/// Own processes, as the kubelet asks for unless a pod shares them.
fn namespaces() -> Option<v1::NamespaceOption> {
    Some(v1::NamespaceOption { pid: v1::NamespaceMode::Container as i32, ..Default::default() })
}

/// A sandbox that logs below the node's directory.
pub fn sandbox(node: &Node, name: &str) -> v1::PodSandboxConfig {
    v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: name.into(),
            uid: format!("uid-{name}"),
            namespace: "default".into(),
            attempt: 0,
        }),
        hostname: name.into(),
        log_directory: node.path("logs").join(name).to_string_lossy().into_owned(),
        labels: HashMap::from([("app".to_owned(), name.to_owned())]),
        linux: Some(v1::LinuxPodSandboxConfig {
            security_context: Some(v1::LinuxSandboxSecurityContext {
                namespace_options: namespaces(),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// A container that runs a shell script.
pub fn script(name: &str, text: &str) -> v1::ContainerConfig {
    v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: name.into(), attempt: 0 }),
        image: Some(v1::ImageSpec { image: IMAGE.into(), ..Default::default() }),
        command: vec!["/bin/sh".into(), "-c".into(), text.into()],
        log_path: format!("{name}/0.log"),
        linux: Some(v1::LinuxContainerConfig {
            security_context: Some(v1::LinuxContainerSecurityContext {
                namespace_options: namespaces(),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The text of a log, without times and tags.
pub fn log(node: &Node, sandbox: &str, container: &str) -> String {
    let text = fs::read_to_string(node.path("logs").join(sandbox).join(container).join("0.log")).unwrap();
    text.lines().map(|line| line.splitn(4, ' ').nth(3).unwrap_or_default().to_owned() + "\n").collect()
}

/// The same, as a message that has the newer fields, too.
pub fn newer(request: v1::CreateContainerRequest) -> coracle_cri::CreateContainerRequest {
    prost::Message::decode(&prost::Message::encode_to_vec(&request)[..]).unwrap()
}
