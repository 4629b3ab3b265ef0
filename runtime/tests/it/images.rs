//! Images from a registry in this process, from archives and layouts. The registry's answers can be made bad.

use std::{
    collections::HashMap,
    fs,
    io::Write,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::Response,
};
use coracle_link::{Links, Place};
use coracle_runtime::{
    Kind,
    digest::Digest,
    images::{
        Images,
        events::{Event, Sink, Step},
        manifest::{OCI_INDEX, OCI_MANIFEST, Platform},
        pull::PullOptions,
        push::PushOptions,
        registry::{Credentials, Registries},
    },
    snapshots::{apply::Limits, overlay::Overlay},
};
use http::{StatusCode, header};
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};

use crate::isolation::isolated;

/// An answer to some request.
pub type Odd = Arc<dyn Fn(&Request) -> Option<Response<Body>> + Send + Sync>;

/// Whether a request is meant.
pub type Slow = Arc<dyn Fn(&Request) -> bool + Send + Sync>;

#[derive(Default)]
pub struct Registry {
    /// Path below /v2/ → type and bytes.
    content: Mutex<HashMap<String, (String, Vec<u8>)>>,
    requests: AtomicUsize,
    /// Blobs are cut off after this many bytes, unless a range is asked for.
    cut: Option<usize>,
    /// A path below /v2/ that is not answered for as long as it stands here.
    hold: Mutex<Option<String>>,
    /// What answers first; where it says nothing, the registry answers as ever.
    pub odd: Mutex<Option<Odd>>,
    /// What is answered a minute and more later, by Tokio's clock.
    pub slow: Mutex<Option<Slow>>,
    /// What those who came by TLS showed of themselves.
    pub peers: Mutex<Vec<Option<CertificateDer<'static>>>>,
    /// How often manifests were read.
    pub reads: AtomicUsize,
    /// `Authorization` that is asked for, by way of a token.
    secret: Option<&'static str>,
}

/// Takes TLS connections by a certificate for 127.0.0.1 and `registry.test`, which is given too.
pub fn acceptor() -> (tokio_rustls::TlsAcceptor, String) {
    use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = (dir.path().join("c.pem"), dir.path().join("k.pem"));
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"])
        .args(["-subj", "/CN=registry.test", "-addext", "subjectAltName=DNS:registry.test,IP:127.0.0.1"])
        .arg("-out")
        .arg(&certificate)
        .arg("-keyout")
        .arg(&key)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let certificates = CertificateDer::pem_file_iter(&certificate).unwrap().map(Result::unwrap).collect();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config =
        config.with_no_client_auth().with_single_cert(certificates, PrivateKeyDer::from_pem_file(&key).unwrap());
    (tokio_rustls::TlsAcceptor::from(Arc::new(config.unwrap())), fs::read_to_string(certificate).unwrap())
}

impl Registry {
    /// One that asks who pulls: `u`, with the password `p`.
    pub fn guarded() -> Registry {
        Registry { secret: Some("s3cret"), ..Registry::default() }
    }
}

async fn answer(State(registry): State<Arc<Registry>>, request: Request) -> Response<Body> {
    registry.requests.fetch_add(1, Ordering::Relaxed);
    let slow = registry.slow.lock().clone();
    if slow.is_some_and(|slow| slow(&request)) {
        // One after the other.
        static CLOCK: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
        let _turning = CLOCK.lock().await;
        tokio::time::pause();
        tokio::time::advance(std::time::Duration::from_secs(70)).await;
        tokio::time::resume();
        // With this timer those of others come whose time it was before.
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    let odd = registry.odd.lock().clone();
    if let Some(odd) = odd.and_then(|odd| odd(&request)) {
        return odd;
    }
    let reply = |status: StatusCode, body: Vec<u8>| Response::builder().status(status).body(Body::from(body)).unwrap();
    let authorization =
        request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let host = request.headers()[header::HOST].to_str().unwrap().to_owned();
    if let Some(secret) = registry.secret {
        if request.uri().path() == "/token" {
            assert_eq!(request.uri().query().unwrap(), "scope=repository:test/app:pull&service=here");
            let known = authorization == "Basic dTpw";
            return reply(
                if known { StatusCode::OK } else { StatusCode::UNAUTHORIZED },
                format!(r#"{{"token":"{secret}"}}"#).into_bytes(),
            );
        }
        if authorization != format!("Bearer {secret}") {
            let challenge =
                format!(r#"Bearer realm="http://{host}/token",service="here",scope="repository:test/app:pull""#);
            return Response::builder()
                .status(StatusCode::UNAUTHORIZED)
                .header(header::WWW_AUTHENTICATE, challenge)
                .body(Body::empty())
                .unwrap();
        }
    }
    while registry.hold.lock().as_deref() == Some(request.uri().path().trim_start_matches("/v2/")) {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let Some((kind, bytes)) = registry.content.lock().get(request.uri().path().trim_start_matches("/v2/")).cloned()
    else {
        return reply(StatusCode::NOT_FOUND, Vec::new());
    };
    if request.uri().path().contains("/manifests/") {
        registry.reads.fetch_add(usize::from(request.method() == http::Method::GET), Ordering::Relaxed);
        let digest = Digest::of(&bytes).to_string();
        let answer = Response::builder().header(header::CONTENT_TYPE, kind).header("Docker-Content-Digest", digest);
        return answer.body(Body::from(bytes)).unwrap();
    }
    let range = request
        .headers()
        .get(header::RANGE)
        .and_then(|value| value.to_str().ok()?.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let blob = request.uri().path().contains("/blobs/");
    match (range, registry.cut) {
        (Some(start), _) => {
            Response::builder().status(StatusCode::PARTIAL_CONTENT).body(Body::from(bytes[start..].to_vec())).unwrap()
        }
        (None, Some(cut)) if blob && bytes.len() > cut => {
            let begin = futures::stream::iter([Ok(bytes[..cut].to_vec())]);
            // What is ready in one turn is thrown away with the connection; the break comes in the next.
            let cut = futures::stream::once(async {
                tokio::task::yield_now().await;
                Err(std::io::Error::other("cut"))
            });
            let parts = futures::StreamExt::chain(begin, cut);
            Response::builder().header(header::CONTENT_LENGTH, bytes.len()).body(Body::from_stream(parts)).unwrap()
        }
        _ => Response::builder().header(header::CONTENT_TYPE, kind).body(Body::from(bytes)).unwrap(),
    }
}

impl Registry {
    pub fn put(&self, path: &str, kind: &str, bytes: &[u8]) -> serde_json::Value {
        let digest = Digest::of(bytes);
        for name in
            [path.replace("DIGEST", digest.as_str()), path.replace("manifests/v1", &format!("manifests/{digest}"))]
        {
            self.content.lock().insert(name, (kind.into(), bytes.to_vec()));
        }
        json!({ "mediaType": kind, "digest": digest, "size": bytes.len() })
    }

    /// What was put under a path.
    pub fn get(&self, path: &str) -> Vec<u8> {
        self.content.lock()[path].1.clone()
    }

    /// An index with one image of two layers, compressed differently.
    pub fn fill(&self) {
        let first = tar(&[("a", b"one"), ("b", &[7; 200_000])]);
        let second = tar(&[("a", b"two"), ("dir/c", b"three")]);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&first).unwrap();
        let gzip = gzip.finish().unwrap();
        let zstd = zstd::encode_all(&second[..], 1).unwrap();
        let layers = [
            self.put("test/app/blobs/DIGEST", "application/vnd.oci.image.layer.v1.tar+gzip", &gzip),
            self.put("test/app/blobs/DIGEST", "application/vnd.oci.image.layer.v1.tar+zstd", &zstd),
        ];
        let config = json!({ "architecture": "any", "os": "linux", "config": { "Cmd": ["/x"], "Env": null }, "rootfs": { "type": "layers", "diff_ids": [Digest::of(&first), Digest::of(&second)] } });
        let config = self.put(
            "test/app/blobs/DIGEST",
            "application/vnd.oci.image.config.v1+json",
            config.to_string().as_bytes(),
        );
        let manifest = json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers });
        let mut manifest = self.put("test/app/manifests/DIGEST", OCI_MANIFEST, manifest.to_string().as_bytes());
        manifest["platform"] = json!(Platform::own());
        let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [manifest] });
        self.put("test/app/manifests/v1", OCI_INDEX, index.to_string().as_bytes());
    }

    /// The same by TLS, with a certificate for 127.0.0.1 and `registry.test`, which is given too.
    pub async fn serve_tls(self: &Arc<Registry>) -> (String, String) {
        let (acceptor, certificate) = acceptor();
        (self.serve_tls_by(acceptor).await, certificate)
    }

    /// The same by what takes connections.
    pub async fn serve_tls_by(self: &Arc<Registry>, acceptor: tokio_rustls::TlsAcceptor) -> String {
        Links::open(&Place::Current).unwrap().up("lo").await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let registry = self.clone();
        let app = Router::new().fallback(answer).with_state(self.clone());
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, app, registry) = (acceptor.clone(), app.clone(), registry.clone());
                tokio::spawn(async move {
                    // What speaks no TLS is hung up on.
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first).cloned();
                    registry.peers.lock().push(shown.map(CertificateDer::into_owned));
                    let service = hyper_util::service::TowerToHyperService::new(app);
                    let connection = hyper::server::conn::http1::Builder::new();
                    let _ = connection.serve_connection(hyper_util::rt::TokioIo::new(stream), service).await;
                });
            }
        });
        address
    }

    /// Serves on loopback; gives `HOST:PORT`.
    pub async fn serve(self: &Arc<Registry>) -> String {
        Links::open(&Place::Current).unwrap().up("lo").await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let app = Router::new().fallback(answer).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        address
    }
}

pub fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

pub fn open(dir: &Path) -> Images {
    open_with(dir, Registries::default())
}

pub fn open_with(dir: &Path, registries: Registries) -> Images {
    let overlay = Arc::new(Overlay::open(&dir.join("snapshots")).unwrap());
    Images::open(dir, overlay, Place::Current, registries, Default::default()).unwrap()
}

#[test]
fn images_of_too_many_layers_are_refused_before_they_come() {
    isolated("images::images_of_too_many_layers_are_refused_before_they_come", || async {
        let registry = Arc::new(Registry::default());
        registry.fill();
        let name = format!("{}/test/app:v1", registry.serve().await);
        let dir = tempfile::tempdir().unwrap();
        let open = |name: &str, layers: usize| {
            let dir = dir.path().join(name);
            let overlay = Arc::new(Overlay::open(&dir.join("snapshots")).unwrap());
            let limits = Limits { layers, ..Limits::default() };
            Images::open(&dir, overlay, Place::Current, Registries::default(), limits).unwrap()
        };
        let image = open("two", 2).pull(&name, Credentials::Anonymous).await.unwrap();
        // It is as large as all of its content, the documents included.
        let read = |path: String| (registry.get(&path), serde_json::from_slice::<Value>(&registry.get(&path)).unwrap());
        let (index, parsed) = read("test/app/manifests/v1".into());
        let (manifest, parsed) =
            read(format!("test/app/manifests/{}", parsed["manifests"][0]["digest"].as_str().unwrap()));
        let blobs = parsed["layers"].as_array().unwrap().iter().chain([&parsed["config"]]);
        let blobs: u64 = blobs.map(|blob| blob["size"].as_u64().unwrap()).sum();
        assert_eq!(image.size, blobs + (index.len() + manifest.len()) as u64);
        let before = registry.requests.load(Ordering::Relaxed);
        let error = open("one", 1).pull(&name, Credentials::Anonymous).await.unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidArgument);
        assert!(error.to_string().ends_with("max depth exceeded: image has more than 1 layers"), "{error}");
        // The index, and the manifest.
        assert!(registry.requests.load(Ordering::Relaxed) - before <= 2);
    });
}

#[test]
fn pulls_resume_share_work_and_are_collected() {
    isolated("images::pulls_resume_share_work_and_are_collected", || async {
        let registry = Arc::new(Registry { cut: Some(100), secret: Some("s3cret"), ..Registry::default() });
        registry.fill();
        let name = format!("{}/test/app:v1", registry.serve().await);
        let dir = tempfile::tempdir().unwrap();
        let images = open(dir.path());
        let credentials = Credentials::Basic { username: "u".into(), password: "p".into() };
        let refused = images.pull(&name, Credentials::Anonymous).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::PermissionDenied, "{refused}");
        let (one, two) = tokio::join!(images.pull(&name, credentials.clone()), images.pull(&name, credentials.clone()));
        let image = one.unwrap();
        assert_eq!(image.id, two.unwrap().id);
        assert_eq!(image.tags, std::slice::from_ref(&name));
        assert_eq!(images.config(&image).unwrap().config.cmd, ["/x"]);
        // By the digest that the name stands for, without a byte of a layer moving again.
        let before = registry.requests.load(Ordering::Relaxed);
        images.pull(&image.repo_digests[0], credentials).await.unwrap();
        assert!(registry.requests.load(Ordering::Relaxed) - before <= 5);
        images.remove(&name, Vec::new).await.unwrap();
        images.remove(image.id.as_str(), Vec::new).await.unwrap();
        assert!(images.list().is_empty());
        assert_eq!(fs::read_dir(dir.path().join("content/sha256")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(dir.path().join("snapshots/l")).unwrap().count(), 0);
    });
}

#[test]
fn bad_registries_are_told_apart() {
    isolated("images::bad_registries_are_told_apart", || async {
        let registry = Arc::new(Registry::default());
        registry.fill();
        let host = registry.serve().await;
        let dir = tempfile::tempdir().unwrap();
        let images = open(dir.path());
        let name = format!("{host}/test/app:nothing");
        let error = images.pull(&name, Credentials::Anonymous).await.unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound);
        assert_eq!(
            error.to_string(),
            format!(
                "failed to pull and unpack image \"{name}\": failed to resolve reference \"{name}\": {name}: not found"
            )
        );
        // A layer that is not what its digest says.
        for (path, (kind, bytes)) in registry.content.lock().iter_mut() {
            if path.contains("blobs") && kind.contains("gzip") {
                bytes[50] ^= 1;
            }
        }
        let error = images.pull(&format!("{host}/test/app:v1"), Credentials::Anonymous).await.unwrap_err().to_string();
        assert!(error.contains("failed to copy") || error.contains("failed to extract"), "{error}");
        assert!(images.list().is_empty());
        let error = images.pull("127.0.0.1:1/x:y", Credentials::Anonymous).await.unwrap_err().to_string();
        assert!(
            error.contains("failed to do request") && error.to_lowercase().contains("connection refused"),
            "{error}"
        );
    });
}

#[test]
fn hostile_manifests_are_refused() {
    isolated("images::hostile_manifests_are_refused", || async {
        let registry = Arc::new(Registry::default());
        let layer = tar(&[("a", b"one")]);
        let blob = "test/app/blobs/DIGEST";
        let good = registry.put(blob, "application/vnd.oci.image.layer.v1.tar", &layer);
        let with_config = |diff_ids: &[Digest]| {
            let config = json!({ "architecture": Platform::own().architecture, "os": "linux", "config": { "Cmd": ["/x"] }, "rootfs": { "type": "layers", "diff_ids": diff_ids } });
            registry.put(blob, "application/vnd.oci.image.config.v1+json", config.to_string().as_bytes())
        };
        let publish = |tag: &str, kind: &str, document: serde_json::Value| {
            registry.put(&format!("test/app/manifests/{tag}"), kind, document.to_string().as_bytes());
        };
        let image = |tag: &str, config: serde_json::Value, layers: Vec<serde_json::Value>| {
            publish(
                tag,
                OCI_MANIFEST,
                json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers }),
            );
        };
        let sized = |size: u64| {
            let mut layer = good.clone();
            layer["size"] = json!(size);
            layer
        };
        let own = Digest::of(&layer);
        image("short", with_config(std::slice::from_ref(&own)), vec![sized(layer.len() as u64 - 1)]);
        image("long", with_config(std::slice::from_ref(&own)), vec![sized(layer.len() as u64 + 1)]);
        image("other", with_config(&[Digest::of(b"another layer")]), vec![good.clone()]);
        image("fewer", with_config(&[]), vec![good.clone()]);
        image("many", with_config(&vec![own.clone(); 3000]), vec![good.clone(); 3000]);
        let mut foreign = good.clone();
        foreign["mediaType"] = json!("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
        image("foreign", with_config(std::slice::from_ref(&own)), vec![foreign]);
        let mut huge = with_config(std::slice::from_ref(&own));
        huge["size"] = json!(1u64 << 40);
        image("config", huge, vec![good.clone()]);
        // A digest cannot be its own, but a tag can say what it likes: an index that leads to itself again and again.
        let mut next =
            json!({ "mediaType": OCI_INDEX, "digest": Digest::of(b"nothing"), "size": 2, "platform": Platform::own() });
        for _ in 0..10 {
            let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [next] });
            next = registry.put("test/app/manifests/DIGEST", OCI_INDEX, index.to_string().as_bytes());
            next["platform"] = json!(Platform::own());
        }
        publish("deep", OCI_INDEX, json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [next] }));
        let chart =
            json!({ "mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": Digest::of(b"x"), "size": 1 });
        publish("chart", OCI_MANIFEST, json!({ "schemaVersion": 2, "config": chart, "layers": [] }));
        publish("bomb", OCI_MANIFEST, json!({ "schemaVersion": 2, "padding": "x".repeat(5 << 20) }));
        let host = registry.serve().await;
        let dir = tempfile::tempdir().unwrap();
        let images = open(dir.path());
        for (tag, words) in [
            ("short", "more than the announced"),
            ("long", "failed to copy"),
            ("other", "wrong diff id calculated on extraction"),
            ("fewer", "its configuration names 0"),
            ("many", "more than 500 layers"),
            ("foreign", "foreign layer"),
            ("config", "image configuration is larger than"),
            ("deep", "indexes are nested too deeply"),
            ("chart", "(helm) when fetching"),
            ("bomb", "is larger than 4194304 bytes"),
        ] {
            let pulled = images.pull(&format!("{host}/test/app:{tag}"), Credentials::Anonymous).await;
            let error = pulled.unwrap_err().to_string();
            assert!(error.contains(words), "{tag}: {error}");
        }
        assert!(images.list().is_empty());
        // What came with them goes with the next collection.
        images.collect(Vec::new).await.unwrap();
        assert_eq!(fs::read_dir(dir.path().join("content/sha256")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(dir.path().join("content/ingest")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(dir.path().join("snapshots/l")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(dir.path().join("snapshots/t")).unwrap().count(), 0);
    });
}

/// A `docker save` of two images, one file linked.
#[tokio::test]
async fn archives_and_layouts_are_imported() {
    let dir = tempfile::tempdir().unwrap();
    let images = open(&dir.path().join("data"));
    let layer = tar(&[("hello", b"world")]);
    let config = json!({ "architecture": "amd64", "os": "linux", "config": {}, "rootfs": { "type": "layers", "diff_ids": [Digest::of(&layer)] } }).to_string();
    let manifest =
        json!([{ "Config": "c.json", "RepoTags": ["app:1", "app:2"], "Layers": ["l/layer.tar"] }]).to_string();
    let archive =
        tar(&[("l/layer.tar", &layer), ("c.json", config.as_bytes()), ("manifest.json", manifest.as_bytes())]);
    let imported = images.import(std::io::Cursor::new(archive), None).await.unwrap();
    assert_eq!(imported[0].id, Digest::of(config.as_bytes()));
    assert_eq!(images.find("app:2").unwrap().tags, ["docker.io/library/app:1", "docker.io/library/app:2"]);

    let layout = dir.path().join("layout");
    fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    let blob = |bytes: &[u8]| {
        let digest = Digest::of(bytes);
        fs::write(layout.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
        json!({ "mediaType": "", "digest": digest, "size": bytes.len() })
    };
    let manifest = json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": blob(config.as_bytes()), "layers": [blob(&layer)] }).to_string();
    let mut entry = blob(manifest.as_bytes());
    entry["mediaType"] = json!(OCI_MANIFEST);
    entry["annotations"] = json!({ "org.opencontainers.image.ref.name": "v9" });
    fs::write(layout.join("index.json"), json!({ "schemaVersion": 2, "manifests": [entry] }).to_string()).unwrap();
    let imported = images.import_layout(&layout, Some("other:v9")).await.unwrap();
    assert!(imported[0].tags.contains(&"docker.io/library/other:v9".to_owned()));
    let hostile = tar(&[("manifest.json", br#"[{"Config":"../../etc/passwd","Layers":[]}]"#)]);
    assert!(images.import(std::io::Cursor::new(hostile), None).await.is_err());
    assert!(images.import(std::io::Cursor::new(b"rubbish".to_vec()), None).await.is_err());
}

/// Debian's registry on loopback, ended with the test.
struct DockerRegistry {
    child: std::process::Child,
    host: String,
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl DockerRegistry {
    async fn start(dir: &Path) -> DockerRegistry {
        Links::open(&Place::Current).unwrap().up("lo").await.unwrap();
        let config = dir.join("registry.yml");
        let host = "127.0.0.1:5000";
        let text = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: {host}}}\n",
            dir.join("registry").display()
        );
        fs::write(&config, text).unwrap();
        let child = std::process::Command::new("docker-registry").arg("serve").arg(&config).spawn().unwrap();
        let registry = DockerRegistry { child, host: host.into() };
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while tokio::net::TcpStream::connect(host).await.is_err() {
            assert!(std::time::Instant::now() < deadline, "the registry does not come up");
            tokio::task::yield_now().await;
        }
        registry
    }
}

/// A sink and what went into it.
fn recorder() -> (Sink, Arc<Mutex<Vec<Event>>>) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let into = events.clone();
    (Arc::new(move |event| into.lock().push(event)), events)
}

fn steps(events: &Mutex<Vec<Event>>) -> Vec<Step> {
    let step = |event: &Event| if let Event::Layer { step, .. } = event { Some(step.clone()) } else { None };
    events.lock().iter().filter_map(step).collect()
}

#[test]
fn what_is_pushed_comes_back() {
    isolated("images::what_is_pushed_comes_back", || async {
        let dir = tempfile::tempdir().unwrap();
        let registry = DockerRegistry::start(dir.path()).await;
        let images = open(&dir.path().join("a"));
        let mut layer = tar(&[("hello", b"world"), ("noise", &[0; 300_000])]);
        // Not what gzip makes small.
        let mut state = 1u32;
        for byte in &mut layer[2048..200_000] {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = (state >> 24) as u8;
        }
        let stored = images.store_layer(std::io::Cursor::new(layer)).await.unwrap();
        let config = serde_json::from_value(json!({
            "architecture": Platform::own().architecture, "os": "linux", "config": { "Cmd": ["/x"], "Unknown": 7 },
            "history": [{ "created_by": "COPY", "comment": "c" }, { "created_by": "CMD", "empty_layer": true }],
        }));
        let name = format!("{}/app:v1", registry.host);
        let made = images.assemble(config.unwrap(), vec![stored], std::slice::from_ref(&name)).await.unwrap();
        let history = images.history(&made).unwrap();
        assert_eq!((history[0].history.created_by.as_str(), history[0].size), ("CMD", 0));
        assert!(history.len() == 2 && history[1].size > 200_000, "{history:?}");

        let (sink, events) = recorder();
        let pushed = images.push(&name, PushOptions { events: Some(sink), ..Default::default() }).await.unwrap();
        assert!(steps(&events).starts_with(&[Step::Waiting]) && steps(&events).ends_with(&[Step::Done]));
        // Under another name the registry takes the layer over by itself.
        let other = format!("{}/other/app:v2", registry.host);
        images.tag(&name, &other).unwrap();
        let (sink, events) = recorder();
        images.push(&other, PushOptions { events: Some(sink), ..Default::default() }).await.unwrap();
        assert_eq!(steps(&events).last(), Some(&Step::Mounted { from: "app".into() }));
        let error = images.push("127.0.0.1:5000/no:x", PushOptions::default()).await.unwrap_err();
        assert_eq!(error.to_string(), "An image does not exist locally with the tag: 127.0.0.1:5000/no");

        let second = open(&dir.path().join("b"));
        let (sink, events) = recorder();
        let pulled = second.pull_with(&other, PullOptions { events: Some(sink), ..Default::default() }).await.unwrap();
        assert_eq!(pulled.id, made.id);
        assert_eq!(events.lock()[0], Event::Resolved { digest: pushed.digest });
        let told = steps(&events);
        assert!(told.contains(&Step::Downloaded) && told.last() == Some(&Step::Done), "{told:?}");
        assert_eq!(second.config(&pulled).unwrap().config.other["Unknown"], 7);
        let error = second
            .pull_with(&other, PullOptions { platform: Some("linux/riscv64".parse().unwrap()), ..Default::default() })
            .await
            .unwrap_err();
        assert!(error.to_string().contains("wanted linux/riscv64, actual: linux/"), "{error}");

        // Saved, and loaded by a third.
        let file = dir.path().join("saved.tar");
        second.tag(&other, "app:local").unwrap();
        second.save(&["app:local".into(), other.clone()], fs::File::create(&file).unwrap()).await.unwrap();
        assert!(second.save(&["none".into()], std::io::sink()).await.unwrap_err().is_not_found());
        let third = open(&dir.path().join("c"));
        let loaded = third.load(fs::File::open(&file).unwrap()).await.unwrap();
        assert_eq!(loaded.len(), 1);
        assert_eq!(loaded[0].image.id, made.id);
        assert_eq!(loaded[0].names, ["docker.io/library/app:local", &other]);
        let removed = third.remove("app:local", Vec::new).await.unwrap();
        // A repository's digest goes with its last tag.
        assert_eq!(removed.names[0], "docker.io/library/app:local");
        assert!(removed.names[1].starts_with("docker.io/library/app@") && removed.image.is_none());
        let removed = third.remove(&other, Vec::new).await.unwrap();
        assert_eq!((removed.image.as_ref(), removed.layers.len()), (Some(&made.id), 1));
    });
}

/// What lies below a directory of images' content or layers.
fn count(dir: &Path, part: &str) -> usize {
    fs::read_dir(dir.join(part)).unwrap().count()
}

#[test]
fn a_digest_beside_a_tag_decides_alone() {
    isolated("images::a_digest_beside_a_tag_decides_alone", || async {
        let registry = Arc::new(Registry::default());
        registry.fill();
        let host = registry.serve().await;
        let dir = tempfile::tempdir().unwrap();
        let images = open(dir.path());
        let name = format!("{host}/test/app:v1");
        let old = images.pull(&name, Credentials::Anonymous).await.unwrap();
        // Another image has the tag, here as there.
        let stored = images.store_layer(std::io::Cursor::new(tar(&[("new", b"new")]))).await.unwrap();
        let new = images.assemble(Default::default(), vec![stored], std::slice::from_ref(&name)).await.unwrap();
        let digest = old.repo_digests[0].rsplit_once('@').unwrap().1;
        let both = format!("{name}@{digest}");
        let pulled = images.pull(&both, Credentials::Anonymous).await.unwrap();
        assert_eq!((&pulled.id, pulled.tags.len()), (&old.id, 0));
        assert_eq!(images.find(&name).unwrap().id, new.id);
        assert_eq!(images.find(&both).unwrap().id, old.id);
        // And so it goes: by this name nothing but the digest is removed.
        images.tag(old.id.as_str(), "kept:1").unwrap();
        let removed = images.remove(&both, Vec::new).await.unwrap();
        assert_eq!((removed.names, removed.image), (vec![format!("{host}/test/app@{digest}")], None));
        assert_eq!(images.find("kept:1").unwrap().id, old.id);
    });
}

#[test]
fn what_failed_pulls_brought_goes_and_slow_ones_hold_nothing_up() {
    isolated("images::what_failed_pulls_brought_goes_and_slow_ones_hold_nothing_up", || async {
        let registry = Arc::new(Registry::default());
        registry.fill();
        let blob = "test/app/blobs/DIGEST";
        let good = tar(&[("a", b"one")]);
        let layers = [&good[..], &tar(&[("b", b"two")])].map(|tar| (Digest::of(tar), tar.to_vec()));
        let put = |tag: &str, diff_ids: [&Digest; 2]| {
            let config = json!({ "architecture": Platform::own().architecture, "os": "linux", "rootfs": { "type": "layers", "diff_ids": diff_ids } });
            let config = registry.put(blob, "application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
            let layers =
                layers.iter().map(|(_, tar)| registry.put(blob, "application/vnd.oci.image.layer.v1.tar", tar));
            let manifest = json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers.collect::<Vec<_>>() });
            registry.put(&format!("test/app/manifests/{tag}"), OCI_MANIFEST, manifest.to_string().as_bytes());
        };
        put("torn", [&layers[0].0, &Digest::of(b"something else")]);
        put("slow", [&layers[0].0, &layers[1].0]);
        let host = registry.serve().await;
        let dir = tempfile::tempdir().unwrap();
        let images = open(dir.path());
        images.know_use(|| Some(Vec::new()));
        // The last layer is not what the configuration says: the first is not kept for its sake.
        let torn = images.pull(&format!("{host}/test/app:torn"), Credentials::Anonymous).await.unwrap_err();
        assert!(torn.to_string().contains("wrong diff id"), "{torn}");
        while count(dir.path(), "content/sha256") + count(dir.path(), "snapshots/l") > 0 {
            tokio::task::yield_now().await;
        }
        // One that waits for its registry keeps what it has, and nothing else.
        let image = images.pull(&format!("{host}/test/app:v1"), Credentials::Anonymous).await.unwrap();
        registry.hold.lock().replace(format!("test/app/blobs/{}", layers[1].0));
        let (slow, name) = (images.clone(), format!("{host}/test/app:slow"));
        let pulling = tokio::spawn(async move { slow.pull(&name, Credentials::Anonymous).await });
        while count(dir.path(), "snapshots/l") < 3 {
            tokio::task::yield_now().await;
        }
        let removed = images.remove(image.id.as_str(), Vec::new).await.unwrap();
        assert_eq!(removed.layers.len(), 2);
        assert_eq!(count(dir.path(), "snapshots/l"), 1);
        assert!(!dir.path().join("content/sha256").join(image.id.hex()).exists());
        assert!(dir.path().join("content/sha256").join(layers[0].0.hex()).exists());
        registry.hold.lock().take();
        let pulled = pulling.await.unwrap().unwrap();
        assert_eq!((pulled.chains.len(), count(dir.path(), "snapshots/l")), (2, 2));
        // What could not be collected is when what prevented it is done.
        let hold = images.hold().await;
        assert!(images.remove(pulled.id.as_str(), Vec::new).await.unwrap().layers.is_empty());
        assert_eq!(count(dir.path(), "snapshots/l"), 2);
        drop(hold);
        while count(dir.path(), "content/sha256") + count(dir.path(), "snapshots/l") > 0 {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn another_form_of_an_image_keeps_its_content_whole() {
    isolated("images::another_form_of_an_image_keeps_its_content_whole", || async {
        let registry = Arc::new(Registry::default());
        let blob = "test/app/blobs/DIGEST";
        let layer = tar(&[("a", b"one")]);
        let config = |cmd: &str| {
            let config = json!({ "architecture": Platform::own().architecture, "os": "linux", "config": { "Cmd": [cmd] }, "rootfs": { "type": "layers", "diff_ids": [Digest::of(&layer)] } });
            registry.put(blob, "application/vnd.oci.image.config.v1+json", config.to_string().as_bytes())
        };
        let put = |tag: &str, config: serde_json::Value, bytes: &[u8]| {
            let layers = [registry.put(blob, "application/vnd.oci.image.layer.v1.tar", bytes)];
            let manifest = json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers });
            registry.put(&format!("test/app/manifests/{tag}"), OCI_MANIFEST, manifest.to_string().as_bytes());
        };
        put("plain", config("/x"), &layer);
        put("zstd", config("/x"), &zstd::encode_all(&layer[..], 1).unwrap());
        put("other", config("/y"), &zstd::encode_all(&layer[..], 2).unwrap());
        put("wrong", config("/z"), &tar(&[("a", b"two")]));
        let host = registry.serve().await;
        let dir = tempfile::tempdir().unwrap();
        let images = open(dir.path());
        let name = |tag: &str| format!("{host}/test/app:{tag}");
        let first = images.pull(&name("plain"), Credentials::Anonymous).await.unwrap();
        let again = images.pull(&name("zstd"), Credentials::Anonymous).await.unwrap();
        assert_eq!((&again.manifest, again.repo_digests.len()), (&first.manifest, 2));
        // Another image over the same layer, in a form of its own: what it is called by it has.
        let other = images.pull(&name("other"), Credentials::Anonymous).await.unwrap();
        assert_eq!(other.chains, first.chains);
        images.collect(Vec::new).await.unwrap();
        images.save(&[name("plain"), name("zstd"), name("other")], std::io::sink()).await.unwrap();
        // Not what is unpacked here by that name.
        let wrong = images.pull(&name("wrong"), Credentials::Anonymous).await.unwrap_err();
        assert!(wrong.to_string().contains("wrong diff id"), "{wrong}");
        // Where a blob was lost before, it is fetched.
        fs::remove_file(dir.path().join("content/sha256").join(first.layers[0].hex())).unwrap();
        images.pull(&name("plain"), Credentials::Anonymous).await.unwrap();
        images.save(&[name("zstd")], std::io::sink()).await.unwrap();
    });
}

#[tokio::test]
async fn a_layout_of_several_platforms_is_one_image() {
    let dir = tempfile::tempdir().unwrap();
    let images = open(&dir.path().join("data"));
    let layout = dir.path().join("layout");
    for algorithm in ["sha256", "sha512"] {
        fs::create_dir_all(layout.join("blobs").join(algorithm)).unwrap();
    }
    let blob = |kind: &str, bytes: &[u8]| {
        let digest = Digest::of(bytes);
        fs::write(layout.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
        json!({ "mediaType": kind, "digest": digest, "size": bytes.len() })
    };
    let layer = tar(&[("hello", b"world")]);
    let entry = |config_type: &str, architecture: &str, layer: serde_json::Value| {
        let config = json!({ "architecture": architecture, "os": "linux", "rootfs": { "type": "layers", "diff_ids": [Digest::of(&tar(&[("hello", b"world")]))] } });
        let config = blob(config_type, config.to_string().as_bytes());
        let manifest = json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [layer] });
        let mut entry = blob(OCI_MANIFEST, manifest.to_string().as_bytes());
        entry["platform"] = json!({ "os": "linux", "architecture": architecture });
        entry["annotations"] = json!({ "org.opencontainers.image.ref.name": "app:v1" });
        entry
    };
    const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    let plain = || blob("application/vnd.oci.image.layer.v1.tar", &layer);
    let own = entry(CONFIG, &Platform::own().architecture, plain());
    let foreign = entry(CONFIG, "s390x", plain());
    let mut attestation = entry(CONFIG, "none", blob("application/vnd.in-toto+json", b"{}"));
    attestation["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
    let mut chart = entry("application/vnd.cncf.helm.config.v1+json", "any", plain());
    chart["platform"].take();
    chart["annotations"].take();
    let write = |manifests: serde_json::Value| {
        fs::write(layout.join("index.json"), json!({ "schemaVersion": 2, "manifests": manifests }).to_string())
            .unwrap();
    };
    write(json!([own, attestation, foreign, chart]));
    let imported = images.import_layout(&layout, None).await.unwrap();
    assert_eq!(imported.len(), 1);
    assert_eq!(images.config(&images.find("app:v1").unwrap()).unwrap().architecture, Platform::own().architecture);
    // One image for another machine is taken for its own sake.
    write(json!([foreign]));
    images.import_layout(&layout, None).await.unwrap();
    assert_eq!(images.config(&images.find("app:v1").unwrap()).unwrap().architecture, "s390x");
    // By sha512, too, nothing is taken that is not what it is called.
    let bytes =
        fs::read(layout.join("blobs/sha256").join(own["digest"].as_str().unwrap().trim_start_matches("sha256:")))
            .unwrap();
    let right = "sha512:".to_owned()
        + &String::from_utf8(
            std::process::Command::new("sha512sum")
                .arg(layout.join("blobs/sha256").join(Digest::of(&bytes).hex()))
                .output()
                .unwrap()
                .stdout,
        )
        .unwrap()[..128];
    for (digest, size, words) in [
        (right.clone(), bytes.len(), ""),
        (right.clone(), bytes.len() + 1, "instead of the announced"),
        (format!("sha512:{}", "0".repeat(128)), bytes.len(), "unexpected digest"),
    ] {
        fs::write(layout.join("blobs/sha512").join(digest.trim_start_matches("sha512:")), &bytes).unwrap();
        write(json!([{ "mediaType": OCI_MANIFEST, "digest": digest, "size": size }]));
        let imported = images.import_layout(&layout, Some("by:512")).await.map(drop);
        let said = imported.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(said.contains(words) && said.is_empty() == words.is_empty(), "{digest}: {said}");
    }
}
