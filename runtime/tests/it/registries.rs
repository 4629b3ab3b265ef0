//! Registries that answer as real ones do and ours in the tests does not: other ways to be let in, broken connections,
//! redirects, refusals in words.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{body::Body, extract::Request, response::Response};
use coracle_pki::{Authority, Identity, Subject, Usage};
use coracle_runtime::{
    Kind,
    digest::Digest,
    images::{
        Images,
        manifest::{OCI_MANIFEST, Platform},
        registry::{Credentials, Proxies, Registries},
    },
};
use http::{Method, StatusCode, header};
use parking_lot::Mutex;
use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
};

use crate::{
    images::{Registry, acceptor, open, open_with, tar},
    isolation::{isolated, isolated_on},
};

fn respond(status: u16, headers: &[(&str, &str)], body: impl Into<Body>) -> Response<Body> {
    let mut answer = Response::builder().status(status);
    for (name, value) in headers {
        answer = answer.header(*name, *value);
    }
    answer.body(body.into()).unwrap()
}

/// A registry with one image, `test/app:v1`, that answers oddly; and images that know nothing.
async fn odd(answer: impl Fn(&Request) -> Option<Response<Body>> + Send + Sync + 'static) -> Setting {
    let registry = Arc::new(Registry::default());
    registry.fill();
    *registry.odd.lock() = Some(Arc::new(answer));
    let host = registry.serve().await;
    let dir = tempfile::tempdir().unwrap();
    Setting { images: open(dir.path()), registry, host, dir }
}

struct Setting {
    images: Images,
    registry: Arc<Registry>,
    host: String,
    #[expect(dead_code, reason = "kept for its end")]
    dir: tempfile::TempDir,
}

impl Setting {
    async fn pull(&self, credentials: Credentials) -> Result<(), coracle_runtime::Error> {
        self.images.pull(&format!("{}/test/app:v1", self.host), credentials).await.map(drop)
    }
}

fn header(request: &Request, name: header::HeaderName) -> &str {
    request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn basic() -> Credentials {
    Credentials::Basic { username: "u".into(), password: "p".into() }
}

#[test]
fn logins_ask_the_registry_and_no_repository() {
    isolated("registries::logins_ask_the_registry_and_no_repository", || async {
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = asked.clone();
        let setting = odd(move |request| {
            seen.lock().push(request.uri().to_string());
            let host = header(request, header::HOST);
            let known = header(request, header::AUTHORIZATION);
            Some(match request.uri().path() {
                "/token" if known == "Basic dTpw" => respond(200, &[], r#"{"token":"let-in","refresh_token":"later"}"#),
                "/token" => respond(401, &[], r#"{"details":"incorrect username or password"}"#),
                "/v2/" if known == "Bearer let-in" => respond(200, &[], "{}"),
                // As one header with two challenges: the better one comes last.
                "/v2/" => {
                    let challenge = format!(r#"Basic realm="x", Bearer realm="http://{host}/token",service="here""#);
                    respond(401, &[("WWW-Authenticate", &challenge)], "")
                }
                // Docker Hub says so of every repository that is not there.
                _ => respond(403, &[], r#"{"errors":[{"code":"DENIED","message":"requested access is denied"}]}"#),
            })
        })
        .await;
        let token = setting.images.check_login(&setting.host, basic()).await.unwrap();
        assert_eq!(token.as_deref(), Some("later"));
        let asked = asked.lock().clone();
        assert_eq!(asked, ["/v2/", "/token?service=here&client_id=coracle&offline_token=true&account=u", "/v2/"]);
        let wrong = Credentials::Basic { username: "u".into(), password: "wrong".into() };
        let refused = setting.images.check_login(&setting.host, wrong).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::PermissionDenied);
        assert!(refused.to_string().contains("incorrect username or password"), "{refused}");
    });
}

#[test]
fn refresh_tokens_are_posted() {
    isolated("registries::refresh_tokens_are_posted", || async {
        for posts in [true, false] {
            let setting = odd(move |request| {
                let host = header(request, header::HOST);
                let known = header(request, header::AUTHORIZATION);
                match (request.method(), request.uri().path()) {
                    (&Method::POST, "/oauth") if posts => {
                        assert_eq!(header(request, header::CONTENT_TYPE), "application/x-www-form-urlencoded");
                        assert_eq!(known, "");
                        Some(respond(200, &[], r#"{"access_token":"let-in"}"#))
                    }
                    (&Method::POST, "/oauth") => Some(respond(404, &[], "")),
                    // In a password's place, by a server that moved.
                    (&Method::GET, "/oauth") if !posts && known == "Basic OnNlY3JldA==" => {
                        Some(respond(302, &[("Location", "moved?yes")], ""))
                    }
                    (&Method::GET, "/moved") if !posts && known == "Basic OnNlY3JldA==" => {
                        Some(respond(200, &[], r#"{"token":"let-in"}"#))
                    }
                    (_, path) if path.starts_with("/v2/") && known == "Bearer let-in" => None,
                    _ => {
                        let challenge = format!(r#"Bearer realm="http://{host}/oauth",service="here""#);
                        Some(respond(401, &[("WWW-Authenticate", &challenge)], ""))
                    }
                }
            })
            .await;
            setting.pull(Credentials::Refresh("secret".into())).await.unwrap();
            setting.pull(Credentials::Anonymous).await.unwrap_err();
        }
    });
}

#[test]
fn a_name_that_is_here_costs_no_read() {
    isolated("registries::a_name_that_is_here_costs_no_read", || async {
        let setting = odd(|_| None).await;
        // An image whose configuration is for this machine: that of `fill` is for none.
        let layer = tar(&[("a", b"one")]);
        let publish = |cmd: &str| {
            let (registry, blob) = (&setting.registry, "test/app/blobs/DIGEST");
            let config = json!({ "architecture": Platform::own().architecture, "os": "linux", "config": { "Cmd": [cmd] }, "rootfs": { "type": "layers", "diff_ids": [Digest::of(&layer)] } });
            let config = registry.put(blob, "application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
            let layers = [registry.put(blob, "application/vnd.oci.image.layer.v1.tar", &layer)];
            let manifest = json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers });
            registry.put("test/app/manifests/v1", OCI_MANIFEST, manifest.to_string().as_bytes());
        };
        publish("/x");
        setting.pull(Credentials::Anonymous).await.unwrap();
        let reads = || setting.registry.reads.load(Ordering::Relaxed);
        assert_eq!(reads(), 1);
        setting.pull(Credentials::Anonymous).await.unwrap();
        assert_eq!(reads(), 1);
        publish("/y");
        setting.pull(Credentials::Anonymous).await.unwrap();
        assert_eq!(reads(), 2);
        let image = setting.images.find(&format!("{}/test/app:v1", setting.host)).unwrap();
        assert_eq!(setting.images.config(&image).unwrap().config.cmd, ["/y"]);
        // One that knows no HEAD is read.
        *setting.registry.odd.lock() =
            Some(Arc::new(|request| (request.method() == Method::HEAD).then(|| respond(405, &[], ""))));
        setting.pull(Credentials::Anonymous).await.unwrap();
        assert_eq!(reads(), 3);
    });
}

#[test]
fn what_registries_say_is_told_and_secrets_are_not() {
    isolated("registries::what_registries_say_is_told_and_secrets_are_not", || async {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let setting = odd(move |request| {
            count.fetch_add(1, Ordering::Relaxed);
            let said = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit"}]}"#;
            request.uri().path().contains("/manifests/").then(|| respond(429, &[("Retry-After", "3600")], said))
        })
        .await;
        let error = setting.pull(Credentials::Anonymous).await.unwrap_err().to_string();
        assert!(
            error.contains("429 Too Many Requests: toomanyrequests: You have reached your pull rate limit"),
            "{error}"
        );
        // An hour is too long to wait for, and asking again does no good.
        assert_eq!(asked.load(Ordering::Relaxed), 1);

        let setting = odd(|request| {
            let said = r#"{"errors":[{"code":"DENIED","message":"pay first"}]}"#;
            request.uri().path().contains("/manifests/").then(|| respond(403, &[], said))
        })
        .await;
        let error = setting.pull(Credentials::Anonymous).await.unwrap_err().to_string();
        assert!(error.contains("server message: denied: pay first"), "{error}");

        // A blob's storage that nobody listens at, by an address that lets in whoever has it.
        let setting = odd(|request| {
            let address = "http://127.0.0.1:1/bucket/blob?X-Amz-Signature=5ecret&sig=5ecret";
            request.uri().path().contains("/blobs/").then(|| respond(307, &[("Location", address)], ""))
        })
        .await;
        let error = setting.pull(Credentials::Anonymous).await.unwrap_err().to_string();
        assert!(error.contains("http://127.0.0.1:1/bucket/blob?[REDACTED]") && !error.contains("5ecret"), "{error}");
    });
}

#[test]
fn what_is_older_than_images_is_named() {
    isolated("registries::what_is_older_than_images_is_named", || async {
        let old = "application/vnd.docker.distribution.manifest.v1+prettyjws";
        let setting = odd(move |request| {
            let manifest = r#"{"schemaVersion":1,"name":"test/app","fsLayers":[]}"#;
            request.uri().path().contains("/manifests/").then(|| respond(200, &[("Content-Type", old)], manifest))
        })
        .await;
        let error = setting.pull(Credentials::Anonymous).await.unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidArgument);
        let name = format!("{}/test/app:v1", setting.host);
        let words = "schema 1 image manifests are no longer supported: invalid argument";
        assert_eq!(error.to_string(), format!("failed to pull and unpack image \"{name}\": {words}"));
    });
}

#[test]
fn downloads_go_on_as_long_as_something_comes() {
    isolated("registries::downloads_go_on_as_long_as_something_comes", || async {
        // Twelve breaks, each behind a few bytes.
        let setting = odd(|_| None).await;
        let layer = tar(&[("big", &[7; 11_000])]);
        publish(&setting.registry, &layer);
        let parts = Arc::new(AtomicUsize::new(0));
        let (blob, bytes, count) = (format!("/v2/test/app/blobs/{}", Digest::of(&layer)), layer.clone(), parts.clone());
        *setting.registry.odd.lock() = Some(Arc::new(move |request| {
            (request.uri().path() == blob).then(|| part(request, &bytes, 1000, count.fetch_add(1, Ordering::Relaxed)))
        }));
        setting.pull(Credentials::Anonymous).await.unwrap();
        assert_eq!(parts.load(Ordering::Relaxed), layer.len().div_ceil(1000));
    });
}

#[test]
fn parts_that_do_not_fit_are_begun_anew() {
    isolated("registries::parts_that_do_not_fit_are_begun_anew", || async {
        let setting = odd(|_| None).await;
        let layer = tar(&[("big", &[7; 3_000])]);
        publish(&setting.registry, &layer);
        let path = format!("/v2/test/app/blobs/{}", Digest::of(&layer));
        let (blob, bytes, count) = (path.clone(), layer.clone(), AtomicUsize::new(0));
        // The second part is of something else; from the third on all is well.
        *setting.registry.odd.lock() = Some(Arc::new(move |request| {
            let number = (request.uri().path() == blob).then(|| count.fetch_add(1, Ordering::Relaxed))?;
            match number {
                0 => Some(part(request, &bytes, 2000, 0)),
                1 => Some(respond(206, &[], vec![9; bytes.len() - 2000])),
                _ => None,
            }
        }));
        setting.pull(Credentials::Anonymous).await.unwrap();
        // One that sends another range than it was asked for is told apart.
        let setting = odd(|_| None).await;
        publish(&setting.registry, &layer);
        let count = AtomicUsize::new(0);
        *setting.registry.odd.lock() = Some(Arc::new(move |request| {
            let number = (request.uri().path() == path).then(|| count.fetch_add(1, Ordering::Relaxed))?;
            Some(match number {
                0 => part(request, &layer, 1000, 0),
                _ => respond(206, &[("Content-Range", "bytes 1500-4607/4608")], layer[1500..].to_vec()),
            })
        }));
        let error = setting.pull(Credentials::Anonymous).await.unwrap_err().to_string();
        assert!(error.contains("another range than that from 1000 on came"), "{error}");
    });
}

/// At most so many bytes of what is asked for, and then a break.
fn part(request: &Request, bytes: &[u8], most: usize, number: usize) -> Response<Body> {
    let range = header(request, header::RANGE).strip_prefix("bytes=").and_then(|range| range.strip_suffix('-'));
    let start = range.map_or(0, |start| start.parse::<usize>().unwrap());
    let rest = &bytes[start..];
    let whole = rest.len() <= most;
    let first = futures::stream::iter([Ok(rest[..rest.len().min(most)].to_vec())]);
    let end = futures::stream::once(async move {
        tokio::task::yield_now().await;
        if whole { Ok(Vec::new()) } else { Err(std::io::Error::other(format!("cut {number}"))) }
    });
    let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
    let status = if start > 0 { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let mut answer = Response::builder().status(status).header(header::CONTENT_LENGTH, rest.len());
    if start > 0 {
        answer = answer.header(header::CONTENT_RANGE, range);
    }
    answer.body(Body::from_stream(futures::StreamExt::chain(first, end))).unwrap()
}

/// `test/app:v1`, of one layer.
pub fn publish(registry: &Registry, layer: &[u8]) {
    let blob = "test/app/blobs/DIGEST";
    let config = json!({ "architecture": Platform::own().architecture, "os": "linux", "rootfs": { "type": "layers", "diff_ids": [Digest::of(layer)] } });
    let config = registry.put(blob, "application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
    let layers = [registry.put(blob, "application/vnd.oci.image.layer.v1.tar", layer)];
    let manifest = json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers });
    registry.put("test/app/manifests/v1", OCI_MANIFEST, manifest.to_string().as_bytes());
}

/// Images with what a directory says of registries, and these proxies.
fn configured(dir: &Path, files: &[(&str, &str)], proxies: Proxies) -> Images {
    for (name, text) in files {
        let path = dir.join("certs.d").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let registries =
        Registries { config_dirs: vec![dir.join("certs.d")], proxies: Some(proxies), ..Registries::default() };
    open_with(&dir.join("data"), registries)
}

#[test]
fn loopback_may_speak_tls() {
    isolated("registries::loopback_may_speak_tls", || async {
        let registry = Arc::new(Registry::default());
        registry.fill();
        let (host, _) = registry.serve_tls().await;
        let dir = tempfile::tempdir().unwrap();
        let images = open(dir.path());
        for _ in 0..2 {
            images.pull(&format!("{host}/test/app:v1"), Credentials::Anonymous).await.unwrap();
        }
        images.check_login(&host, Credentials::Anonymous).await.unwrap_err();
        // A server that answers so in plain HTTP is what it seems to be.
        *registry.odd.lock() = Some(Arc::new(|_| Some(respond(400, &[], "no"))));
        let plain = registry.serve().await;
        let error = images.pull(&format!("{plain}/test/app:v1"), Credentials::Anonymous).await.unwrap_err();
        assert!(error.to_string().contains("400 Bad Request"), "{error}");
    });
}

#[test]
fn files_say_how_registries_are_reached() {
    isolated("registries::files_say_how_registries_are_reached", || async {
        let (registry, mirror) = (Arc::new(Registry::default()), Arc::new(Registry::default()));
        publish(&registry, &tar(&[("a", b"one")]));
        publish(&mirror, &tar(&[("a", b"one")]));
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = asked.clone();
        *mirror.odd.lock() = Some(Arc::new(move |request| {
            assert_eq!(header(request, "x-who".parse().unwrap()), "us");
            seen.lock().push(request.uri().to_string());
            None
        }));
        let (host, certificate) = registry.serve_tls().await;
        let mirror = mirror.serve().await;
        let server = format!("server = \"https://{host}\"\n");
        let with_mirror = format!(
            "{server}ca = \"ca.pem\"\n[host.\"http://{mirror}\"]\ncapabilities = [\"pull\"]\n[host.\"http://{mirror}\".header]\nx-who = \"us\"\n"
        );
        let dir = tempfile::tempdir().unwrap();
        let files = [
            ("registry.test/hosts.toml", with_mirror.as_str()),
            ("registry.test/ca.pem", certificate.as_str()),
            ("stranger.test/hosts.toml", server.as_str()),
        ];
        let images = configured(dir.path(), &files, Proxies::default());
        images.pull("registry.test/test/app:v1", Credentials::Anonymous).await.unwrap();
        // A tag is the registry's to say; the rest is had from the mirror, which hears whose it is.
        let asked = asked.lock().clone();
        assert!(
            !asked.is_empty() && asked.iter().all(|uri| uri.contains("/blobs/") && uri.ends_with("?ns=registry.test"))
        );
        let error = images.pull("stranger.test/test/app:v1", Credentials::Anonymous).await.unwrap_err().to_string();
        assert!(error.contains("certificate"), "{error}");
        // What is changed holds from then on.
        let rewrite = |text: String| fs::write(dir.path().join("certs.d/stranger.test/hosts.toml"), text).unwrap();
        rewrite(server + "skip_verify = true\n");
        images.pull("stranger.test/test/app:v1", Credentials::Anonymous).await.unwrap();
        // Said to speak none, with what one says of those that do: it is found out. By an address that is not loopback's, and
        // leads there.
        let port = host.rsplit_once(':').unwrap().1;
        for (setting, pulled) in [("", false), ("skip_verify = true\n", true)] {
            rewrite(format!("server = \"http://0.0.0.0:{port}\"\n{setting}"));
            let result = images.pull("stranger.test/test/app:v1", Credentials::Anonymous).await;
            assert_eq!(result.is_ok(), pulled, "{result:?}");
        }
    });
}

#[test]
fn credentials_do_not_leave_tls() {
    isolated("registries::credentials_do_not_leave_tls", || async {
        // A registry that takes itself for plain, and names its token server so; that one is reached in plain HTTP, too.
        let tokens = Arc::new(Registry::default());
        *tokens.odd.lock() = Some(Arc::new(|request| {
            assert_eq!(header(request, header::AUTHORIZATION), "");
            Some(respond(200, &[], r#"{"token":"let-in"}"#))
        }));
        let tokens = tokens.serve().await;
        let registry = Arc::new(Registry::default());
        publish(&registry, &tar(&[("a", b"one")]));
        *registry.odd.lock() = Some(Arc::new(move |request| {
            let challenge = format!(r#"Bearer realm="http://{tokens}/token",service="here""#);
            let known = header(request, header::AUTHORIZATION) == "Bearer let-in";
            (!known).then(|| respond(401, &[("WWW-Authenticate", &challenge)], ""))
        }));
        let (host, _) = registry.serve_tls().await;
        let dir = tempfile::tempdir().unwrap();
        let images = open(dir.path());
        let name = format!("{host}/test/app:v1");
        let refused = images.pull(&name, basic()).await.unwrap_err().to_string();
        assert!(refused.contains("refused to send credentials to"), "{refused}");
        images.pull(&name, Credentials::Anonymous).await.unwrap();
    });
}

#[test]
fn a_broken_file_is_as_if_it_were_not_there() {
    isolated("registries::a_broken_file_is_as_if_it_were_not_there", || async {
        let registry = Arc::new(Registry::default());
        publish(&registry, &tar(&[("a", b"one")]));
        let host = registry.serve().await;
        let dir = tempfile::tempdir().unwrap();
        let name = format!("{host}/hosts.toml");
        // Which of them would lead where nobody is, if they could be read.
        for (index, text) in
            ["server = ", "server = \"http://127.0.0.1:1\"\ncapabilities = [\"pul\"]"].iter().enumerate()
        {
            let images = configured(&dir.path().join(index.to_string()), &[(&name, text)], Proxies::default());
            images.pull(&format!("{host}/test/app:v1"), Credentials::Anonymous).await.unwrap();
        }
    });
}

#[test]
fn a_server_gets_the_certificate_that_it_takes() {
    isolated("registries::a_server_gets_the_certificate_that_it_takes", || async {
        let now = jiff::Timestamp::now();
        let authorities = ["one", "two", "three"].map(|name| Authority::create(name, now).unwrap());
        let dir = tempfile::tempdir().unwrap();
        let issue = |authority: &Authority, name: &str, usage: Usage| {
            let names = ["127.0.0.1".to_owned()];
            authority.issue(&Subject::user(name), &names, usage, now, Duration::from_secs(3600)).unwrap()
        };
        let clients = [0, 1].map(|index| issue(&authorities[index], &format!("client-{index}"), Usage::Client));
        let registry = Arc::new(Registry::default());
        publish(&registry, &tar(&[("a", b"one")]));
        let text =
            "server = \"https://HOST\"\nca = \"ca.crt\"\nclient = [[\"0.crt\", \"0.key\"], [\"1.crt\", \"1.key\"]]";
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            // Whom a server trusts, and whose certificate it gets.
            for (trusted, shown) in [(0, Some(0)), (1, Some(1)), (2, None)] {
                let server = issue(&authorities[0], "registry", Usage::Server);
                let host = registry.serve_tls_by(asking(&server, authorities[trusted].cert_pem(), version)).await;
                let files = [
                    ("registry.test/hosts.toml", &*text.replace("HOST", &host)),
                    ("registry.test/ca.crt", authorities[0].cert_pem()),
                    ("registry.test/0.crt", &clients[0].cert_pem),
                    ("registry.test/0.key", &clients[0].key_pem),
                    ("registry.test/1.crt", &clients[1].cert_pem),
                    ("registry.test/1.key", &clients[1].key_pem),
                ];
                let images = configured(&dir.path().join(host.replace(':', "-")), &files, Proxies::default());
                images.pull("registry.test/test/app:v1", Credentials::Anonymous).await.unwrap();
                let shown = shown.map(|index: usize| certificate(&clients[index].cert_pem));
                let peers = std::mem::take(&mut *registry.peers.lock());
                assert!(!peers.is_empty() && peers.iter().all(|peer| *peer == shown), "{trusted}");
            }
        }
    });
}

/// Takes connections of whom an authority knows and of anybody who shows nothing.
fn asking(
    own: &Identity,
    authority: &str,
    version: &'static rustls::SupportedProtocolVersion,
) -> tokio_rustls::TlsAcceptor {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate(authority)).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
    let key = PrivateKeyDer::from_pem_slice(own.key_pem.as_bytes()).unwrap();
    let config = config
        .with_client_cert_verifier(verifier.allow_unauthenticated().build().unwrap())
        .with_single_cert(vec![certificate(&own.cert_pem)], key);
    tokio_rustls::TlsAcceptor::from(Arc::new(config.unwrap()))
}

fn certificate(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

#[test]
fn registries_may_take_minutes_to_copy() {
    const TEST: &str = "registries::registries_may_take_minutes_to_copy";
    let mut one = tokio::runtime::Builder::new_current_thread();
    isolated_on(&mut one, Duration::from_secs(600), TEST, || async {
        // One that copies a blob when its upload ends, and one that fetches it first from elsewhere.
        let setting = odd(|request| match (request.method(), request.uri().path()) {
            (&Method::POST, _) => Some(respond(202, &[("Location", "/v2/test/app/blobs/uploads/1")], "")),
            (&Method::PATCH, path) => Some(respond(202, &[("Location", path)], "")),
            (&Method::PUT, _) => Some(respond(201, &[], "")),
            _ => None,
        })
        .await;
        let layer = tar(&[("a", b"one")]);
        publish(&setting.registry, &layer);
        let blob = format!("/v2/test/app/blobs/{}", Digest::of(&layer));
        let late = Arc::new(AtomicUsize::new(0));
        let slow = |path: String, method: Method| {
            let late = late.clone();
            let slow = move |request: &Request| {
                let meant = request.uri().path() == path && request.method() == method;
                late.fetch_add(usize::from(meant), Ordering::Relaxed);
                meant
            };
            *setting.registry.slow.lock() = Some(Arc::new(slow));
        };
        slow(blob, Method::GET);
        setting.pull(Credentials::Anonymous).await.unwrap();
        assert_eq!(late.swap(0, Ordering::Relaxed), 1);
        // What it is to be pushed to has none of it yet.
        let name = format!("{}/test/other:v1", setting.host);
        setting.images.tag(&format!("{}/test/app:v1", setting.host), &name).unwrap();
        slow("/v2/test/app/blobs/uploads/1".to_owned(), Method::PUT);
        setting.images.push(&name, Default::default()).await.unwrap();
        // The configuration and the layer, once each.
        assert_eq!(late.load(Ordering::Relaxed), 2);
    });
}

#[test]
fn proxies_lead_to_registries() {
    isolated("registries::proxies_lead_to_registries", || async {
        let registry = Arc::new(Registry::default());
        publish(&registry, &tar(&[("a", b"one")]));
        let (tls, certificate) = registry.serve_tls().await;
        // One that leads on, if it knows who asks.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tunnels = listener.local_addr().unwrap();
        let target = tls.clone();
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                tokio::spawn(tunnel(client, target.clone()));
            }
        });
        // The same by TLS.
        let (acceptor, own) = acceptor();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let by_tls = listener.local_addr().unwrap();
        let target = tls.clone();
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                // Who does not take its certificate is gone.
                let Ok(client) = acceptor.accept(client).await else { continue };
                tokio::spawn(tunnel(client, target.clone()));
            }
        });
        // One that reads requests for plain HTTP: it has what it is asked for.
        let reading = Arc::new(Registry::default());
        publish(&reading, &tar(&[("a", b"two")]));
        *reading.odd.lock() = Some(Arc::new(|request| {
            assert_eq!(request.uri().authority().unwrap(), "plain.test");
            assert_eq!(header(request, header::PROXY_AUTHORIZATION), "Basic dTpw");
            None
        }));
        let reads = reading.serve().await;
        let dir = tempfile::tempdir().unwrap();
        let files = [
            ("registry.test/ca.crt", certificate.as_str()),
            ("plain.test/hosts.toml", "server = \"http://plain.test\""),
        ];
        let proxies = Proxies::new(&format!("u:p@{reads}"), &format!("http://u:p@{tunnels}"), "");
        let images = configured(dir.path(), &files, proxies);
        images.pull("registry.test/test/app:v1", Credentials::Anonymous).await.unwrap();
        images.pull("plain.test/test/app:v1", Credentials::Anonymous).await.unwrap();
        let stranger = configured(&dir.path().join("2"), &files, Proxies::new("", &tunnels.to_string(), ""));
        let error = stranger.pull("registry.test/test/app:v1", Credentials::Anonymous).await.unwrap_err().to_string();
        assert!(error.contains("the proxy refuses: HTTP/1.1 407"), "{error}");
        // A proxy's certificate is judged as the registry's is.
        let proxies = Proxies::new("", &format!("https://u:p@{by_tls}"), "");
        let images = configured(&dir.path().join("3"), &files, proxies.clone());
        let error = images.pull("registry.test/test/app:v1", Credentials::Anonymous).await.unwrap_err().to_string();
        assert!(error.contains("proxyconnect tcp: invalid peer certificate"), "{error}");
        let files = [("registry.test/ca.crt", certificate.as_str()), ("registry.test/proxy.crt", own.as_str())];
        let images = configured(&dir.path().join("4"), &files, proxies);
        images.pull("registry.test/test/app:v1", Credentials::Anonymous).await.unwrap();
    });
}

/// Leads a connection on to `target`, if it is asked for the registry by who is known.
async fn tunnel(mut client: impl AsyncRead + AsyncWrite + Unpin, target: String) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(client.read_u8().await.unwrap());
    }
    let request = String::from_utf8(request).unwrap();
    assert!(request.starts_with("CONNECT registry.test:443 HTTP/1.1\r\n"), "{request}");
    if !request.contains("Proxy-Authorization: Basic dTpw\r\n") {
        let _ = client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await;
        return;
    }
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
    let mut server = TcpStream::connect(target).await.unwrap();
    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
}

#[test]
fn socks_leads_to_registries() {
    isolated("registries::socks_leads_to_registries", || async {
        let registry = Arc::new(Registry::default());
        publish(&registry, &tar(&[("a", b"one")]));
        let (tls, certificate) = registry.serve_tls().await;
        // Requests in plain HTTP go through as they are.
        let plain = registry.serve().await;
        *registry.odd.lock() = Some(Arc::new(|request| {
            assert!(request.uri().authority().is_none() && header(request, header::PROXY_AUTHORIZATION).is_empty());
            None
        }));
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = listener.local_addr().unwrap();
        let seen = asked.clone();
        tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let (seen, tls, plain) = (seen.clone(), tls.clone(), plain.clone());
                tokio::spawn(async move {
                    let Some((host, port)) = socks_target(&mut client).await else { return };
                    seen.lock().push(format!("{host} {port}"));
                    if host == "closed.test" {
                        client.write_all(&[5, 5, 0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap();
                        return;
                    }
                    // By a name, whose length differs.
                    client.write_all(b"\x05\x00\x00\x03\x05proxy\x00\x01").await.unwrap();
                    let mut server = TcpStream::connect(if port == 443 { tls } else { plain }).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        let dir = tempfile::tempdir().unwrap();
        let files = [
            ("registry.test/ca.crt", certificate.as_str()),
            ("10.1.2.3/hosts.toml", "server = \"http://10.1.2.3\""),
            ("ipv6.test/hosts.toml", "server = \"http://[2001:db8::1]:81\""),
        ];
        let socks = format!("socks5://u:p@{proxy}");
        let images = configured(&dir.path().join("1"), &files, Proxies::new(&socks, &socks, ""));
        for name in ["registry.test", "10.1.2.3", "ipv6.test"] {
            images.pull(&format!("{name}/test/app:v1"), Credentials::Anonymous).await.unwrap();
        }
        let mut asked = asked.lock().clone();
        asked.dedup();
        assert_eq!(asked, ["registry.test 443", "10.1.2.3 80", "2001:db8::1 81"]);
        let error = images.pull("closed.test/test/app:v1", Credentials::Anonymous).await.unwrap_err().to_string();
        assert!(error.contains(&format!("socks connect tcp {proxy}->closed.test:443: connection refused")), "{error}");
        for (user, why) in [("u:q@", "username/password authentication failed"), ("", "no acceptable authentication")] {
            let socks = format!("socks5h://{user}{proxy}");
            let images = configured(&dir.path().join(why), &files, Proxies::new("", &socks, ""));
            let error = images.pull("registry.test/test/app:v1", Credentials::Anonymous).await.unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    });
}

/// What a client of SOCKS that is `u` with the password `p` asks for (RFC 1928, RFC 1929).
async fn socks_target(client: &mut TcpStream) -> Option<(String, u16)> {
    let read = async |client: &mut TcpStream, count: u8| {
        let mut bytes = vec![0; count.into()];
        client.read_exact(&mut bytes).await.map(|_| bytes)
    };
    let greeting = read(client, 2).await.ok()?;
    assert_eq!(greeting[0], 5);
    if !read(client, greeting[1]).await.unwrap().contains(&2) {
        client.write_all(&[5, 0xff]).await.unwrap();
        return None;
    }
    client.write_all(&[5, 2]).await.unwrap();
    let length = read(client, 2).await.unwrap()[1];
    let name = read(client, length).await.unwrap();
    let length = read(client, 1).await.unwrap()[0];
    let known = name == b"u" && read(client, length).await.unwrap() == b"p";
    client.write_all(&[1, u8::from(!known)]).await.unwrap();
    if !known {
        return None;
    }
    let request = read(client, 4).await.unwrap();
    assert_eq!(request[..3], [5, 1, 0]);
    let host = match request[3] {
        1 => std::net::Ipv4Addr::from(<[u8; 4]>::try_from(read(client, 4).await.unwrap()).unwrap()).to_string(),
        4 => std::net::Ipv6Addr::from(<[u8; 16]>::try_from(read(client, 16).await.unwrap()).unwrap()).to_string(),
        3 => {
            let length = read(client, 1).await.unwrap()[0];
            String::from_utf8(read(client, length).await.unwrap()).unwrap()
        }
        kind => panic!("address of kind {kind}"),
    };
    let port = client.read_u16().await.unwrap();
    Some((host, port))
}

#[test]
fn dials_end_when_files_say_so() {
    isolated("registries::dials_end_when_files_say_so", || async {
        coracle_link::Links::open(&coracle_link::Place::Current).unwrap().up("lo").await.unwrap();
        // A listener that takes nobody: what comes behind its backlog waits.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        while let Ok(Ok(stream)) =
            tokio::time::timeout(std::time::Duration::from_millis(300), TcpStream::connect(address)).await
        {
            waiting.push(stream);
        }
        let dir = tempfile::tempdir().unwrap();
        let text = format!("server = \"http://{address}\"\ndial_timeout = \"50ms\"");
        let images = configured(dir.path(), &[("slow.test/hosts.toml", &text)], Proxies::default());
        let began = std::time::Instant::now();
        let error = images.pull("slow.test/test/app:v1", Credentials::Anonymous).await.unwrap_err().to_string();
        assert!(error.contains(&format!("dial tcp {address}: i/o timeout")), "{error}");
        // With all that is tried again; without a limit it is half a minute for each.
        assert!(began.elapsed().as_secs() < 25, "{:?}", began.elapsed());
    });
}
