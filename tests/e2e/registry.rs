//! A real registry, spoken to as any client does, to push to and let nodes pull from.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::json;
use sha2::Digest;
use tempfile::TempDir;

/// Debian's docker-registry on 127.0.0.1, ended with this.
pub struct Registry {
    process: Child,
    _dir: TempDir,
    address: SocketAddr,
}

impl Registry {
    /// Starts it on a free port and waits until it answers.
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = dir.path().join("config.yml");
        let storage = dir.path().join("storage");
        std::fs::write(
            &config,
            format!(
                "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{address}\"}}\n",
                storage.display()
            ),
        )
        .unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = command.spawn().expect("install Debian's docker-registry");
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        assert!(lines.any(|line| line.is_ok_and(|line| line.contains("listening on"))), "the registry did not start");
        // Its log must go somewhere, or it stops when the pipe is full.
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, _dir: dir, address }
    }

    /// `HOST:PORT`
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Pushes an image of one layer.
    pub fn push(&self, name: &str, tag: &str, layer: &[u8]) {
        let layer_digest = digest(layer);
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": {"Entrypoint": ["/bin/busybox"]},
            "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
        })
        .to_string();
        let config_digest = digest(config.as_bytes());
        for (bytes, digest) in [(layer, &layer_digest), (config.as_bytes(), &config_digest)] {
            let (status, location) = self.request("POST", &format!("/v2/{name}/blobs/uploads/"), "", b"");
            assert_eq!(status, 202);
            let path = location.split_once(&self.host()).map_or(location.as_str(), |(_, path)| path).to_owned();
            let (status, _) =
                self.request("PUT", &format!("{path}&digest={digest}"), "application/octet-stream", bytes);
            assert_eq!(status, 201);
        }
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "size": config.len(), "digest": config_digest},
            "layers": [{"mediaType": "application/vnd.docker.image.rootfs.diff.tar", "size": layer.len(), "digest": layer_digest}],
        })
        .to_string();
        let media_type = "application/vnd.docker.distribution.manifest.v2+json";
        let (status, _) = self.request("PUT", &format!("/v2/{name}/manifests/{tag}"), media_type, manifest.as_bytes());
        assert_eq!(status, 201);
    }

    /// One request; the status and the Location of the answer.
    fn request(&self, method: &str, path: &str, media_type: &str, body: &[u8]) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            self.host(),
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        let location = answer
            .lines()
            .find_map(|line| line.split_once(": ").filter(|(name, _)| name.eq_ignore_ascii_case("location")));
        (status, location.map(|(_, value)| value.trim().to_owned()).unwrap_or_default())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(sha2::Sha256::digest(bytes)))
}
