//! A server that does nothing: hyper and rustls, and an answer of the right size. What others reach is to be compared with it.

use std::{convert::Infallible, path::Path, sync::Arc};

use anyhow::{Context, Result};
use bytes::Bytes;
use coracle_pki::{Authority, Subject, Usage};
use http::{Method, Response};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::{client::write_kubeconfig, load::pod};

/// How many pods a list of it has.
const LISTED: usize = 5000;
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
    let one = Bytes::from(pod("p").to_string());
    let list: Bytes = one.repeat(LISTED).into();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (acceptor, one, list) = (acceptor.clone(), one.clone(), list.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let (one, list) = (one.clone(), list.clone());
                async move {
                    let is_list = request.method() == Method::GET && request.uri().path().ends_with("/pods");
                    // The body is read, as by any server.
                    let _ = request.into_body().collect().await;
                    Ok::<_, Infallible>(Response::new(Full::new(if is_list { list } else { one })))
                }
            });
            let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            builder.initial_stream_window_size(1 << 20).initial_connection_window_size(4 << 20);
            // The bench ends connections by dropping them.
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
