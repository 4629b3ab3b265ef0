//! Registries that answer as real ones do and ours in the tests does not: other ways to be let in, broken connections,
//! redirects, refusals in words.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{body::Body, extract::Request, response::Response};
use coracle_runtime::{
    Kind,
    digest::Digest,
    images::{
        Images,
        manifest::{OCI_MANIFEST, Platform},
        registry::Credentials,
    },
};
use http::{Method, StatusCode, header};
use parking_lot::Mutex;
use serde_json::json;

use crate::{
    images::{Registry, open, tar},
    isolation::isolated,
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

fn header<'a>(request: &'a Request, name: header::HeaderName) -> &'a str {
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
                    (&Method::GET, "/oauth") if known == "Basic OnNlY3JldA==" => {
                        Some(respond(302, &[("Location", "moved?yes")], ""))
                    }
                    (&Method::GET, "/moved") if known == "Basic OnNlY3JldA==" => {
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
