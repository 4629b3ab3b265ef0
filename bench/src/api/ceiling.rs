//! A server that does nothing: hyper and rustls, and an answer of the right size. What others reach is to be compared with it.

use std::{convert::Infallible, error::Error, path::Path, sync::Arc};

use anyhow::{Context, Result};
use bytes::Bytes;
use coracle_pki::{Authority, Subject, Usage};
use futures::{StreamExt, stream};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Either, Full, StreamBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::{net::TcpListener, sync::broadcast};
use tokio_rustls::TlsAcceptor;

use super::{client::write_kubeconfig, load::pod};

/// How many pods a list of it has.
const LISTED: usize = 5000;
/// What a pod of the load has as servers answer it, with its defaults and managed fields, in bytes.
const ANSWERED: usize = 2760;
/// Events that a watcher may be behind: more than a load has.
const BEHIND: usize = 4096;
const DAY: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

/// Serves until it is ended; its kubeconfig is in `dir`.
pub async fn serve(dir: &Path) -> Result<()> {
    let now = jiff::Timestamp::now();
    let authority = Authority::create("ceiling", now)?;
    let identity = authority.issue(&Subject::user("ceiling"), &["127.0.0.1".to_owned()], Usage::Server, now, DAY)?;
    let chain = CertificateDer::pem_slice_iter(identity.cert_pem.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    let mut tls = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes())?)?;
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    write_kubeconfig(&dir.join("ceiling.kubeconfig"), listener.local_addr()?, &authority, None)
        .context("write the kubeconfig")?;
    println!("ready");
    let answers = Answers::new();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (acceptor, answers) = (acceptor.clone(), answers.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = service_fn(move |request| {
                let answers = answers.clone();
                async move { Ok::<_, Infallible>(answers.to(request).await) }
            });
            let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            builder.initial_stream_window_size(1 << 20).initial_connection_window_size(4 << 20);
            // The bench ends connections by dropping them.
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// What it answers, made once.
#[derive(Clone)]
struct Answers {
    one: Bytes,
    list: Bytes,
    event: Bytes,
    /// To all watchers, at every patch.
    events: broadcast::Sender<Bytes>,
}

impl Answers {
    fn new() -> Self {
        let mut pod = pod("p");
        // A pod as it is sent; the rest is what a server adds.
        let missing = ANSWERED.saturating_sub(pod.to_string().len());
        pod["metadata"]["annotations"]["example.com/added"] = "x".repeat(missing).into();
        let one = pod.to_string();
        let event = format!("{{\"type\":\"MODIFIED\",\"object\":{one}}}\n");
        let mut list = String::from("{\"metadata\":{\"resourceVersion\":\"1\"},\"items\":[");
        list.push_str(&vec![one.as_str(); LISTED].join(","));
        list.push_str("]}");
        Self { one: one.into(), list: list.into(), event: event.into(), events: broadcast::channel(BEHIND).0 }
    }

    async fn to(
        self,
        request: Request<Incoming>,
    ) -> Response<impl hyper::body::Body<Data = Bytes, Error = Box<dyn Error + Send + Sync>>> {
        let is_list = request.method() == Method::GET && request.uri().path().ends_with("/pods");
        let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        let is_patch = request.method() == Method::PATCH;
        // The body is read, as by any server.
        let _ = request.into_body().collect().await;
        if is_watch {
            let events = stream::unfold(self.events.subscribe(), |mut events| async {
                let event = events.recv().await.ok()?;
                Some((Ok::<_, Infallible>(Frame::data(event)), events))
            });
            return Response::new(Either::Right(StreamBody::new(events.boxed())));
        }
        if is_patch {
            // Nobody may be watching.
            let _ = self.events.send(self.event.clone());
        }
        Response::new(Either::Left(Full::new(if is_list { self.list.clone() } else { self.one.clone() })))
    }
}
