//! Images: how fast a layer is unpacked, how fast an image comes from a registry on the loopback, and what the daemon takes
//! of memory with many containers of one.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use axum::{Router, body::Body, extract::Path as UrlPath, extract::State, http::StatusCode, response::Response};
use coracle_runtime::{Config, Runtime, images::registry::Credentials};
use k8s_cri::v1::{self, image_service_client::ImageServiceClient, runtime_service_client::RuntimeServiceClient};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::cri;
use crate::figures::Figures;

const GROUP: &str = "/coracle-bench-images";
/// Bytes of an image, unpacked; many files of a size that is common.
const SIZE: usize = 200 << 20;
const FILE: usize = 48 << 10;

/// A compressed layer and what it is known by.
struct Layer {
    path: PathBuf,
    digest: String,
    diff_id: String,
}

pub async fn run(binaries: &Path, quick: bool, figures: &mut Figures) -> Result<()> {
    let dir = tempfile::Builder::new().prefix("bench-images").tempdir_in("/tmp")?;
    let rounds = if quick { 1 } else { 3 };
    let layers = (0..rounds).map(|round| layer(dir.path(), round, if quick { SIZE / 8 } else { SIZE }));
    let layers = layers.collect::<Result<Vec<_>>>()?;
    let small = small_layer(dir.path(), rounds)?;
    let manifests = layers.iter().chain([&small]).map(manifest).collect();
    let registry = Registry { dir: dir.path().to_owned(), manifests };
    let host = registry.serve().await?;
    let path = |name: &str| dir.path().join(name);
    let config = Config {
        data_dir: path("data"),
        run_dir: path("run"),
        cri_socket: path("cri.sock"),
        cgroup_parent: GROUP.into(),
        cni_conf_dir: path("conf"),
        cni_bin_dir: path("bin"),
        cni_own: None,
        cdi_dirs: Vec::new(),
        selinux: true,
        pull_place: Default::default(),
        registries: Default::default(),
        layer_limits: Default::default(),
        docker: Vec::new(),
    };
    let runtime = Runtime::start(config).await?;
    let (mut unpacked, mut floor, mut pulled, mut tar) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (round, layer) in layers.iter().enumerate() {
        // Both find the bytes in the page cache.
        floor.push(timed(|| inflate_and_hash(&layer.path, &layer.diff_id))?);
        let stored = runtime.images().store_layer(File::open(&layer.path)?).await?;
        let images = runtime.images().clone();
        let chain = layer.diff_id.parse()?;
        let unpack = tokio::task::spawn_blocking(move || timed(|| Ok(images.unpack_layer(&stored, None, &chain)?)));
        unpacked.push(unpack.await??);
        runtime.images().collect(Vec::new).await?;
        let begin = Instant::now();
        runtime.images().pull(&format!("{host}/bench/big:{round}"), Credentials::default()).await?;
        pulled.push(begin.elapsed());
        let target = path(&format!("tar-{round}"));
        fs::create_dir(&target)?;
        tar.push(timed(|| {
            let status = Command::new("tar").arg("-xzf").arg(&layer.path).arg("-C").arg(&target).status()?;
            ensure!(status.success(), "tar fails");
            Ok(())
        })?);
        fs::remove_dir_all(&target)?;
    }
    drop(runtime);
    // 0.85 of the speed is 1.18 of the time. Of the best rounds: what else the machine did is in the others.
    let ratio = |ours: &[Duration], theirs: &[Duration]| {
        let least = |times: &[Duration]| times.iter().min().map_or(f64::NAN, Duration::as_secs_f64);
        least(ours) / least(theirs)
    };
    figures.median("inflate + hash of a layer, nothing else", &floor, None);
    figures.median("unpack of the layer", &unpacked, None);
    figures.value("unpack / (inflate + hash)", ratio(&unpacked, &floor), "×", Some(1.18));
    figures.median("tar -xzf of it", &tar, None);
    figures.median("pull + unpack from a loopback registry", &pulled, None);
    figures.value("pull + unpack / tar -xzf", ratio(&pulled, &tar), "×", Some(1.3));
    crate::cgroups::remove(GROUP);
    resident(binaries, dir.path(), &format!("{host}/bench/small:{rounds}"), figures).await
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let begin = Instant::now();
    work()?;
    Ok(begin.elapsed())
}

/// Writes a layer of files of words, which pack as text does; no two rounds have the same.
fn layer(dir: &Path, round: usize, size: usize) -> Result<Layer> {
    let path = dir.join(format!("layer-{round}"));
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ round as u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let words: Vec<String> = (0..4096).map(|_| format!("{:x} ", next() >> 36)).collect();
    let packed = Hashed::new(File::create(&path)?);
    let unpacked = Hashed::new(flate2::write::GzEncoder::new(packed, flate2::Compression::default()));
    let mut archive = tar::Builder::new(unpacked);
    for index in 0..size / FILE {
        let mut content = String::with_capacity(FILE + 16);
        while content.len() < FILE {
            // The low bits of this generator are good enough to choose words.
            content.push_str(&words[(next() % 4096) as usize]);
        }
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        let name = format!("usr/share/part-{}/file-{index}", index / 100);
        archive.append_data(&mut header, name, content.as_bytes())?;
    }
    let (gzip, diff_id) = archive.into_inner()?.finish();
    let (_, digest) = gzip.finish()?.finish();
    Ok(Layer { path, digest, diff_id })
}

/// A layer with busybox as the programs that containers run.
fn small_layer(dir: &Path, round: usize) -> Result<Layer> {
    let path = dir.join(format!("layer-{round}"));
    let packed = Hashed::new(File::create(&path)?);
    let unpacked = Hashed::new(flate2::write::GzEncoder::new(packed, flate2::Compression::default()));
    let mut archive = tar::Builder::new(unpacked);
    archive.append_path_with_name("/bin/busybox", "bin/busybox").context("the package busybox-static is needed")?;
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_mode(0o777);
    header.set_size(0);
    archive.append_link(&mut header, "bin/sleep", "busybox")?;
    let (gzip, diff_id) = archive.into_inner()?.finish();
    let (_, digest) = gzip.finish()?.finish();
    Ok(Layer { path, digest, diff_id })
}

/// Hashes what is written through it.
struct Hashed<W> {
    inner: W,
    hash: Sha256,
}

impl<W> Hashed<W> {
    fn new(inner: W) -> Self {
        Self { inner, hash: Sha256::new() }
    }

    fn finish(self) -> (W, String) {
        (self.inner, name(&self.hash.finalize()))
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hash.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn name(hash: &[u8]) -> String {
    let digits: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}

/// What unpacking cannot do without: the bytes inflated, and their digest.
fn inflate_and_hash(path: &Path, diff_id: &str) -> Result<()> {
    let mut inflated = flate2::read::GzDecoder::new(io::BufReader::with_capacity(1 << 17, File::open(path)?));
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 17]);
    loop {
        let count = inflated.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
    }
    ensure!(name(&hash.finalize()) == diff_id, "the layer is another");
    Ok(())
}

/// An image of one layer: its configuration and manifest.
fn manifest(layer: &Layer) -> (Vec<u8>, Vec<u8>) {
    let platform = coracle_runtime::images::manifest::Platform::own();
    let config = json!({
        "architecture": platform.architecture, "os": platform.os, "config": {},
        "rootfs": { "type": "layers", "diff_ids": [layer.diff_id] },
    });
    let config = config.to_string().into_bytes();
    let size = fs::metadata(&layer.path).map_or(0, |metadata| metadata.len());
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": name(&Sha256::digest(&config)), "size": config.len(),
        },
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": layer.digest, "size": size,
        }],
    });
    (config, manifest.to_string().into_bytes())
}

/// What of a registry a pull needs.
struct Registry {
    dir: PathBuf,
    /// Configuration and manifest, by the tag's number.
    manifests: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Registry {
    async fn serve(self) -> Result<String> {
        Command::new("ip").args(["link", "set", "lo", "up"]).status()?;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let host = listener.local_addr()?.to_string();
        let app = Router::new().route("/v2/{*path}", axum::routing::get(answer)).with_state(Arc::new(self));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Ok(host)
    }
}

async fn answer(State(registry): State<Arc<Registry>>, UrlPath(path): UrlPath<String>) -> Response {
    let nothing = |code: StatusCode| Response::builder().status(code).body(Body::empty()).unwrap_or_default();
    let document = |bytes: &[u8]| {
        let response = Response::builder().header("Content-Type", "application/vnd.oci.image.manifest.v1+json");
        response.body(Body::from(bytes.to_vec())).unwrap_or_default()
    };
    let wanted = path.rsplit('/').next().unwrap_or_default().to_owned();
    if path.is_empty() {
        return nothing(StatusCode::OK);
    }
    for (round, (config, manifest)) in registry.manifests.iter().enumerate() {
        if wanted == round.to_string() || wanted == name(&Sha256::digest(manifest)) {
            return document(manifest);
        }
        if wanted == name(&Sha256::digest(config)) {
            return document(config);
        }
        let layer: Option<serde_json::Value> = serde_json::from_slice(manifest).ok();
        let digest = layer.and_then(|manifest| Some(manifest["layers"][0]["digest"].as_str()?.to_owned()));
        if digest.as_deref() == Some(wanted.as_str()) {
            let Ok(file) = tokio::fs::File::open(registry.dir.join(format!("layer-{round}"))).await else { break };
            return Response::new(Body::from_stream(tokio_util::io::ReaderStream::with_capacity(file, 1 << 17)));
        }
    }
    nothing(StatusCode::NOT_FOUND)
}

/// The daemon, as a program of its own.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How long the daemon idles before its memory is looked at.
const IDLE: Duration = Duration::from_secs(5);

/// In MiB.
fn resident_now(daemon: &Daemon) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.0.id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("the daemon has no size")?;
    let kib: f64 = line.split_whitespace().next().unwrap_or_default().parse()?;
    Ok(kib / 1024.0)
}

/// What the daemon keeps in memory with many containers, at once and once it has nothing left to do.
async fn resident(binaries: &Path, dir: &Path, image: &str, figures: &mut Figures) -> Result<()> {
    let data = dir.join("daemon");
    let paths = coracle_network::cni::Paths {
        conf_dir: dir.join("conf"),
        bin_dir: dir.join("bin"),
        data_dir: dir.join("addresses"),
    };
    let program = fs::canonicalize(binaries.join("coracle")).context("find coracle")?;
    coracle_network::cni::install(&paths, &program, "10.78.0.0/16".parse()?, None)?;
    let mut command = Command::new(&program);
    command.arg("runtime").arg("--data-dir").arg(&data).args(["--cgroup-parent", GROUP]);
    command.arg("--cni-conf-dir").arg(&paths.conf_dir).arg("--cni-bin-dir").arg(&paths.bin_dir);
    let daemon = Daemon(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("start the daemon")?);
    let socket = data.join("run/cri.sock");
    let channel = cri::connect(socket).await?;
    let mut client = RuntimeServiceClient::new(channel.clone());
    let spec = v1::ImageSpec { image: image.to_owned(), ..Default::default() };
    let request = v1::PullImageRequest { image: Some(spec), ..Default::default() };
    ImageServiceClient::new(channel).pull_image(request).await?;
    let pods = cri::start_many(&client, dir, image).await?;
    figures.value("daemon with 50 containers, resident, at once", resident_now(&daemon)?, "MiB", None);
    // What is resident is what stays so when the starts are over.
    tokio::time::sleep(IDLE).await;
    figures.value("daemon with 50 containers, resident", resident_now(&daemon)?, "MiB", Some(25.0));
    for (pod, _) in pods {
        cri::remove(&mut client, pod).await?;
    }
    drop(daemon);
    crate::cgroups::remove(GROUP);
    Ok(())
}
