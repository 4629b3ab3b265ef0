//! A cluster whose state is in a real etcd.

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use coracle_tests::{Lab, binary, run};
use tempfile::TempDir;

/// Debian's etcd on 127.0.0.1, ended with this.
struct Etcd {
    process: Child,
    url: String,
    address: String,
    _dir: TempDir,
}

/// An address that nobody listens at.
fn free() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

impl Etcd {
    fn start() -> Self {
        Self::with("http", &[])
    }

    fn with(scheme: &str, options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (address, peer) = (free(), free());
        let (url, peer) = (format!("{scheme}://{address}"), format!("http://{peer}"));
        let mut command = Command::new("etcd");
        command.args(["--name", "test", "--log-level", "error", "--data-dir"]).arg(dir.path().join("data"));
        command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url, "--listen-peer-urls", &peer]);
        command.args(["--initial-advertise-peer-urls", &peer, "--initial-cluster", &format!("test={peer}")]);
        command.args(options).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().expect("install Debian's etcd-server");
        Self { process, url, address, _dir: dir }
    }

    /// Waits until it takes connections.
    fn wait(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while std::net::TcpStream::connect(&self.address).is_err() {
            assert!(Instant::now() < deadline, "etcd does not listen at {}", self.address);
            std::thread::yield_now();
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

#[test]
fn two_servers_on_one_etcd_stand_in_for_each_other() {
    let etcd = Etcd::start();
    etcd.wait();
    let lab = Lab::prepare("twins");
    let refused = lab.lab(&["up", "--servers", "2"]).fails();
    assert!(refused.contains("--servers 2 needs an etcd"), "{refused}");
    lab.lab(&["up", "--nodes", "2", "--servers", "2", "--etcd", &etcd.url]).ok();
    lab.lite("create deployment web --image=coracle/hello:v1 --replicas=2").ok();
    lab.lite("rollout status deployment/web --timeout=60s").ok();
    for (number, server) in ["server", "server2"].into_iter().enumerate() {
        // Whichever of the two leads: the keeper goes too, so nobody brings it back.
        lab.kill_tree(lab.process(server));
        let replicas = number + 3;
        lab.until_ok(&format!("scale deployment web --replicas={replicas}"));
        lab.until_ok("rollout status deployment/web --timeout=60s");
        lab.lite(&format!("wait --for=jsonpath={{.status.readyReplicas}}={replicas} deployment/web --timeout=60s"))
            .ok();
        assert_eq!(lab.status()["servers"][number]["state"], "dead");
        lab.lab(&["up"]).ok();
        assert_eq!(lab.status()["servers"][number]["state"], "running");
    }
    lab.lite("wait --for=condition=Ready node --all --timeout=60s").ok();
}

#[test]
fn a_lab_keeps_its_state_in_etcd() {
    let etcd = Etcd::start();
    etcd.wait();
    let lab = Lab::prepare("tree");
    lab.lab(&["up", "--nodes", "1", "--etcd", &etcd.url]).ok();
    lab.lite("create deployment web --image=coracle/hello:v1 --replicas=2").ok();
    lab.lite("rollout status deployment/web --timeout=60s").ok();
    assert!(!lab.home().join("labs/tree/server/store.redb").exists(), "the embedded store was used all the same");
    // The server forgets everything but what etcd holds.
    lab.kill_command("server");
    lab.until_ok("get deployment web");
    lab.lite("scale deployment web --replicas=3").ok();
    lab.lite("rollout status deployment/web --timeout=60s").ok();
}

/// An API server alone, ended with this.
struct ApiServer(Child);

impl ApiServer {
    fn command(dir: &Path, options: &[&str]) -> Command {
        let mut command = Command::new(binary("coracle"));
        command.args(["apiserver", "--bind", &free(), "--data-dir"]).arg(dir).args(options);
        command
    }

    /// Started, and ready.
    fn start(dir: &Path, options: &[&str]) -> Self {
        let mut command = Self::command(dir, options);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut server = Self(command.spawn().unwrap());
        let line = BufReader::new(server.0.stdout.take().unwrap()).lines().next();
        let line = line.expect("the server did not start").unwrap();
        assert!(line.starts_with("ready https://127.0.0.1:"), "{line}");
        server
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn a_server_shows_its_certificate_to_etcd() {
    let dir = tempfile::tempdir().unwrap();
    // Its authority, and what that has signed, serve etcd just as well.
    drop(ApiServer::start(&dir.path().join("first"), &[]));
    let pki = |name: &str| dir.path().join("first/pki").join(name).display().to_string();
    let (authority, certificate, key) = (pki("ca.crt"), pki("apiserver.crt"), pki("apiserver.key"));
    let etcd = Etcd::with(
        "https",
        &["--client-cert-auth", "--trusted-ca-file", &authority, "--cert-file", &certificate, "--key-file", &key],
    );
    etcd.wait();
    let data = dir.path().join("second");
    let servers = ["--etcd-servers", &etcd.url, "--etcd-cafile", &authority];
    let refused = run(&mut ApiServer::command(&data, &servers), "").fails();
    assert!(refused.contains(&format!("connect to etcd at {}", etcd.url)), "{refused}");
    let (client, client_key) = (pki("admin.crt"), pki("admin.key"));
    let identity = ["--etcd-certfile", &client, "--etcd-keyfile", &client_key];
    let server = ApiServer::start(&data, &[&servers[..], &identity].concat());
    let mut lite = Command::new(binary("kubectl-lite"));
    lite.env("KUBECONFIG", data.join("admin.kubeconfig")).args(["create", "configmap", "kept", "--from-literal=a=b"]);
    assert_eq!(run(&mut lite, "").ok(), "configmap/kept created\n");
    assert!(!data.join("store.redb").exists(), "the embedded store was used all the same");
    drop(server);
}
