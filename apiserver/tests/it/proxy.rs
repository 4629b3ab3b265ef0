//! `proxy` of pods, services and nodes, with a server behind it in a network namespace of the test's own.

use crate::harness::{Client, Harness, LIMIT, Served, identity, pod};
use axum::body::Body;
use coracle_api::clock::SystemClock;
use coracle_apiserver::store::embedded::Embedded;
use coracle_link::{Links, Netns, Place};
use coracle_pki::{Subject, Usage};
use flate2::{Compression, write::GzEncoder};
use http::{Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::io::Write;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tower::ServiceExt;

const ADDRESS: &str = "10.9.8.7";
const PAGE: &str = "<html><a href=\"/there\">there</a><img src='near.png'></html>";
const REWRITTEN: &str = "<html><a href=\"PREFIX/there\">there</a><img src='near.png'></html>";

/// Says what it was asked; some paths have their own answers.
async fn answer(mut request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let response = Response::builder().header("access-control-allow-origin", "*");
    Ok(match request.uri().path() {
        "/page" => response.header(header::CONTENT_TYPE, "text/html; charset=utf-8").body(PAGE.into()),
        "/packed" => {
            let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
            packed.write_all(PAGE.as_bytes()).unwrap();
            let packed = packed.finish().unwrap();
            response
                .header(header::CONTENT_TYPE, "text/html")
                .header(header::CONTENT_ENCODING, "gzip")
                .header(header::CONTENT_LENGTH, packed.len())
                .body(packed.into())
        }
        "/many" => {
            let many = (0..1000).fold(response, |response, nth| response.header(format!("x-{nth}"), "y".repeat(600)));
            many.body(Body::empty())
        }
        "/moved" => response.status(302).header(header::LOCATION, "/elsewhere?x=1").body(Body::empty()),
        "/shout" => {
            let joined = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut stream = TokioIo::new(joined.await.unwrap());
                let mut word = [0; 5];
                stream.read_exact(&mut word).await.unwrap();
                stream.write_all(&word.to_ascii_uppercase()).await.unwrap();
                stream.shutdown().await.ok();
            });
            response
                .status(101)
                .header(header::CONNECTION, "Upgrade")
                .header(header::UPGRADE, "shout")
                .body(Body::empty())
        }
        _ => {
            let headers: serde_json::Map<String, Value> = request
                .headers()
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().into()))
                .collect();
            let asked = format!("{} {}", request.method(), request.uri());
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let said = json!({"asked": asked, "headers": headers, "body": String::from_utf8_lossy(&body)});
            response.status(if asked.contains("teapot") { 418 } else { 200 }).body(said.to_string().into())
        }
    }
    .unwrap())
}

async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)).with_upgrades().await;
}

/// What stands behind the proxy.
struct Behind {
    served: Served,
    client: Client,
    plain: u16,
    secure: u16,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Drop for Behind {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

impl Behind {
    async fn start() -> Self {
        let place = Place::Netns(Netns::create().unwrap());
        let links = Links::open(&place).unwrap();
        links.up("lo").await.unwrap();
        links.add_address("lo", format!("{ADDRESS}/32").parse().unwrap()).await.unwrap();
        let store = Arc::new(Embedded::in_memory(Arc::new(SystemClock::new())).unwrap());
        let there = place.clone();
        let harness = Harness::with(store, move |config, authority| {
            let kubelet = identity(authority, &Subject::member("kubelet-client", "system:masters"), Usage::Client);
            config.kubelet_client = Some((kubelet.cert_pem, kubelet.key_pem));
            config.node_place = there;
        })
        .await;
        let served = Served::of(harness).await;
        let plain = place.listen_tcp(format!("{ADDRESS}:0").parse().unwrap()).unwrap();
        let secure = place.listen_tcp(format!("{ADDRESS}:0").parse().unwrap()).unwrap();
        let ports = (plain.local_addr().unwrap().port(), secure.local_addr().unwrap().port());
        // For the address, as a kubelet's certificate is.
        let names = [ADDRESS.to_owned()];
        let own = served.harness.authority.issue(
            &Subject::member("system:node:n1", "system:nodes"),
            &names,
            Usage::Server,
            jiff::Timestamp::now(),
            std::time::Duration::from_secs(3600),
        );
        let own = own.unwrap();
        let tls = served.harness.server.tls(&own.cert_pem, &own.key_pem).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(tls);
        let tasks = vec![
            tokio::spawn(async move {
                while let Ok((stream, _)) = plain.accept().await {
                    tokio::spawn(converse(stream));
                }
            }),
            tokio::spawn(async move {
                while let Ok((stream, _)) = secure.accept().await {
                    let acceptor = acceptor.clone();
                    tokio::spawn(async move {
                        if let Ok(stream) = acceptor.accept(stream).await {
                            converse(stream).await;
                        }
                    });
                }
            }),
        ];
        let client = served.harness.admin();
        let this = Self { served, client, plain: ports.0, secure: ports.1, tasks };
        this.objects().await;
        this
    }

    /// A pod at the address, a service in front of it, and the node that it is on.
    async fn objects(&self) {
        let client = &self.client;
        let mut web = pod("web");
        web["spec"]["containers"][0]["ports"] = json!([{"containerPort": self.plain}]);
        let pods = "/api/v1/namespaces/default/pods";
        assert_eq!(client.post(pods, &web).await.0, StatusCode::CREATED);
        let status = json!({"status": {"phase": "Running", "podIP": ADDRESS, "podIPs": [{"ip": ADDRESS}]}});
        assert_eq!(client.merge(&format!("{pods}/web/status"), &status).await.0, StatusCode::OK);
        assert_eq!(client.post(pods, &pod("early")).await.0, StatusCode::CREATED);
        let loops = json!({"status": {"podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}});
        assert_eq!(client.post(pods, &pod("loop")).await.0, StatusCode::CREATED);
        assert_eq!(client.merge(&format!("{pods}/loop/status"), &loops).await.0, StatusCode::OK);
        let service = json!({"metadata": {"name": "front"}, "spec": {"ports": [
            {"name": "http", "port": 80, "targetPort": self.plain}, {"name": "https", "port": 443, "targetPort": self.secure}]}});
        assert_eq!(client.post("/api/v1/namespaces/default/services", &service).await.0, StatusCode::CREATED);
        let address = json!({"ip": ADDRESS, "targetRef": {"kind": "Pod", "namespace": "default", "name": "web"}});
        // What points at no pod of the namespace is never asked.
        let foreign = json!({"ip": "10.9.8.8", "targetRef": {"kind": "Pod", "namespace": "default", "name": "web"}});
        let endpoints = json!({"metadata": {"name": "front"}, "subsets": [{"addresses": [address, foreign, {"ip": "10.9.8.9"}],
            "ports": [{"name": "http", "port": self.plain}, {"name": "https", "port": self.secure}]}]});
        assert_eq!(client.post("/api/v1/namespaces/default/endpoints", &endpoints).await.0, StatusCode::CREATED);
        let bare = json!({"metadata": {"name": "bare"}, "spec": {"ports": [{"port": 80}]}});
        assert_eq!(client.post("/api/v1/namespaces/default/services", &bare).await.0, StatusCode::CREATED);
        let node = json!({"metadata": {"name": "n1"}});
        assert_eq!(client.post("/api/v1/nodes", &node).await.0, StatusCode::CREATED);
        let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": ADDRESS}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self.secure}}}});
        assert_eq!(client.merge("/api/v1/nodes/n1/status", &status).await.0, StatusCode::OK);
    }

    async fn raw(&self, request: Request<Body>) -> (StatusCode, http::HeaderMap, String) {
        let response = self.client.0.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = tokio::time::timeout(LIMIT, body.collect()).await.unwrap().unwrap().to_bytes();
        (head.status, head.headers, String::from_utf8_lossy(&body).into_owned())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_go_to_what_an_object_stands_for() {
    let behind = Behind::start().await;
    let (plain, secure) = (behind.plain, behind.secure);
    let namespaced = "/api/v1/namespaces/default";
    let ok = [
        (format!("{namespaced}/pods/web/proxy/a/b?c=d&limit=x"), "GET /a/b?c=d&limit=x"),
        (format!("{namespaced}/pods/web:{plain}/proxy/"), "GET /"),
        (format!("{namespaced}/pods/http:web:{plain}/proxy/a/../b//c/"), "GET /b/c/"),
        (format!("{namespaced}/pods/https:web:{secure}/proxy/x%2Fy"), "GET /x%2Fy"),
        (format!("{namespaced}/services/front:http/proxy/s"), "GET /s"),
        (format!("{namespaced}/services/front:80/proxy/s"), "GET /s"),
        (format!("{namespaced}/services/https:front:https/proxy/s?watch=true"), "GET /s?watch=true"),
        ("/api/v1/nodes/n1/proxy/pods".to_owned(), "GET /pods"),
        (format!("/api/v1/nodes/n1:{secure}/proxy/pods"), "GET /pods"),
        (format!("/api/v1/nodes/http:n1:{plain}/proxy/pods"), "GET /pods"),
    ];
    for (path, asked) in ok {
        let (code, said) = behind.client.get(&path).await;
        assert_eq!((code, said["asked"].as_str()), (StatusCode::OK, Some(asked)), "{path}: {said}");
    }
    let refused = [
        ("pods/ftp:web:1/proxy/", 400, "invalid pod request \"ftp:web:1\""),
        ("pods/early/proxy/", 400, "address not allowed"),
        ("pods/loop/proxy/", 400, "address not allowed"),
        ("pods/none/proxy/", 404, "pods \"none\" not found"),
        ("pods/web:1/proxy/", 503, "error trying to reach service: dial tcp 10.9.8.7:1"),
        ("services/front:81/proxy/", 503, "no service port 81 found for service \"front\""),
        ("services/front/proxy/", 503, "no endpoints available for service \"front\""),
        ("services/bare:80/proxy/", 404, "endpoints \"bare\" not found"),
        ("services/none:80/proxy/", 404, "services \"none\" not found"),
        ("configmaps/a/proxy/", 404, "the server could not find the requested resource"),
    ];
    for (path, code, why) in refused {
        let (found, status) = behind.client.get(&format!("{namespaced}/{path}")).await;
        let message = status["message"].as_str().or(status.as_str()).unwrap_or_default();
        assert!(found.as_u16() == code && message.starts_with(why), "{path}: {status}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn methods_headers_and_bodies_pass() {
    let behind = Behind::start().await;
    let base = "/api/v1/namespaces/default/pods/web/proxy";
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        let request = Request::builder()
            .method(method)
            .uri(format!("{base}/teapot"))
            .header("content-type", "text/strange")
            .header("authorization", "Bearer secret")
            .header("impersonate-user", "me")
            .header("impersonate-group", "system:masters")
            .header("connection", "x-private")
            .header("x-private", "1")
            .header("x-mine", "2")
            .header("host", "front.example")
            .body("{not json".into())
            .unwrap();
        let (code, headers, said) = behind.raw(request).await;
        let said: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(code, StatusCode::IM_A_TEAPOT, "{said}");
        assert!(!headers.contains_key("access-control-allow-origin"), "{headers:?}");
        assert_eq!(
            (said["asked"].as_str(), said["body"].as_str()),
            (Some(&*format!("{method} /teapot")), Some("{not json"))
        );
        let has = |name: &str| said["headers"].get(name).and_then(Value::as_str);
        for gone in ["authorization", "impersonate-user", "impersonate-group", "x-private"] {
            assert_eq!(has(gone), None, "{said}");
        }
        assert_eq!(
            (has("x-mine"), has("host"), has("content-type")),
            (Some("2"), Some("front.example"), Some("text/strange"))
        );
        assert_eq!(has("x-forwarded-uri"), Some(&*format!("{base}/teapot")));
    }
    let request = Request::get(format!("{base}/many")).body(Body::empty()).unwrap();
    let (code, headers, said) = behind.raw(request).await;
    assert_eq!((code, headers.contains_key("x-999")), (StatusCode::OK, true), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_are_read_below_the_proxy() {
    let behind = Behind::start().await;
    let base = "/api/v1/namespaces/default/services/front:http/proxy";
    let get = |path: &str| Request::get(format!("{base}{path}")).body(Body::empty()).unwrap();
    for path in ["/page", "/packed"] {
        let (code, headers, page) = behind.raw(get(path)).await;
        assert_eq!((code, page), (StatusCode::OK, REWRITTEN.replace("PREFIX", base)), "{path}");
        assert!(!headers.contains_key(header::CONTENT_ENCODING));
    }
    let (code, headers, _) = behind.raw(get("/moved")).await;
    assert_eq!((code.as_u16(), headers["location"].to_str().unwrap()), (302, &*format!("{base}/elsewhere?x=1")));
    let (code, headers, _) = behind.raw(get("?x=1")).await;
    assert_eq!((code.as_u16(), headers["location"].to_str().unwrap()), (301, &*format!("{base}/?x=1")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_joins_the_connections() {
    let behind = Behind::start().await;
    let mut stream = behind.served.dial(b"http/1.1", true).await;
    let head = "GET /api/v1/namespaces/default/services/https:front:443/proxy/shout HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: shout\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(b"ahoy!").await.unwrap();
    let mut said = Vec::new();
    tokio::time::timeout(LIMIT, stream.read_to_end(&mut said)).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&said).to_lowercase();
    assert!(said.starts_with("http/1.1 101 ") && said.contains("upgrade: shout"), "{said}");
    let all = String::from_utf8_lossy(said.as_bytes()).into_owned();
    assert!(all.ends_with("ahoy!"), "{all}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_is_told_behind_the_proxy() {
    let behind = Behind::start().await;
    let mut stream = behind.served.dial(b"http/1.1", true).await;
    let head = "GET /api/v1/namespaces/default/pods/web/proxy/who HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut said = Vec::new();
    tokio::time::timeout(LIMIT, stream.read_to_end(&mut said)).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains(r#""x-forwarded-for":"192.0.2.7, 127.0.0.1""#), "{said}");
    assert!(said.contains(r#""x-forwarded-proto":"https""#), "{said}");
}
