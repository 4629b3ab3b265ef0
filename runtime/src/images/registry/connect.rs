//! Connections to registries: in a place, through a proxy where the environment says so, with the TLS of their own.

use std::{
    future::Future,
    io,
    net::{SocketAddr, ToSocketAddrs},
    pin::Pin,
    sync::Arc,
    task::{self, Poll},
    time::Duration,
};

use coracle_link::Place;
use http::Uri;
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connected, Connection},
    },
    rt::{TokioExecutor, TokioIo},
};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::ParsedCertificate,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::spawn_blocking,
    time::timeout,
};

use super::{
    Body,
    proxies::{Proxies, Proxy},
};
use crate::error::{Error, Result};

const CONNECT_LIMIT: Duration = Duration::from_secs(20);
/// Of what a proxy answers before it lets us through.
const MAX_PROXY_ANSWER: usize = 16 << 10;

pub(super) type Http = Client<HttpsConnector<Dialler>, Body>;

/// How a host proves who it is, and we to it. PEM.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Tls {
    /// Besides the system's.
    pub roots: Vec<Vec<u8>>,
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    /// It need not prove anything.
    pub unverified: bool,
}

impl Tls {
    /// Certificate authorities, and its own.
    pub fn with_roots(&self, others: &RootCertStore) -> Result<RootCertStore> {
        let mut roots = others.clone();
        for pem in &self.roots {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|error| bad("certificate authority", format!("{error:?}")))?;
                roots.add(certificate).map_err(|error| bad("certificate authority", error.to_string()))?;
            }
        }
        Ok(roots)
    }

    /// A client that speaks it.
    pub fn client(&self, dialler: Dialler, system: &RootCertStore) -> Result<Http> {
        let roots = self.with_roots(system)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::internal(format!("TLS: {error}")))?;
        let config = if self.unverified {
            config.dangerous().with_custom_certificate_verifier(coracle_pki::unchecked::verifier(provider))
        } else if self.roots.is_empty() {
            config.with_root_certificates(roots)
        } else {
            let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
            let inner = inner.map_err(|error| bad("certificate authority", error.to_string()))?;
            let named = self.roots.iter().flat_map(|pem| CertificateDer::pem_slice_iter(pem)).flatten().collect();
            config.dangerous().with_custom_certificate_verifier(Arc::new(SelfSigned { inner, named }))
        };
        let config = match &self.identity {
            None => config.with_no_client_auth(),
            Some((certificates, key)) => {
                let certificates = CertificateDer::pem_slice_iter(certificates).collect::<std::result::Result<_, _>>();
                let certificates = certificates.map_err(|error| bad("client certificate", format!("{error:?}")))?;
                let key =
                    PrivateKeyDer::from_pem_slice(key).map_err(|error| bad("client key", format!("{error:?}")))?;
                config
                    .with_client_auth_cert(certificates, key)
                    .map_err(|error| bad("client certificate", error.to_string()))?
            }
        };
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_or_http()
            .enable_http1()
            .wrap_connector(dialler);
        Ok(Client::builder(TokioExecutor::new()).pool_idle_timeout(Duration::from_secs(30)).build(connector))
    }
}

/// Takes certificates of authorities that were named, and those authorities themselves as servers: a registry that signed
/// its own certificate, as Docker's documentation makes one. Go takes it; webpki does not, for it may sign others. Its name
/// must be right; how long it holds is for who named it to know.
#[derive(Debug)]
struct SelfSigned {
    inner: Arc<WebPkiServerVerifier>,
    named: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for SelfSigned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        match self.inner.verify_server_cert(certificate, others, name, ocsp, now) {
            Err(rustls::Error::InvalidCertificate(CertificateError::Other(_)))
                if self.named.iter().any(|named| named.as_ref() == certificate.as_ref()) =>
            {
                rustls::client::verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            result => result,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

fn bad(what: &str, error: String) -> Error {
    Error::invalid(format!("registry {what}: {error}"))
}

/// Opens connections.
#[derive(Clone)]
pub(super) struct Dialler {
    pub place: Place,
    pub proxies: Arc<Proxies>,
}

impl Dialler {
    async fn dial(&self, host: String, port: u16) -> io::Result<TcpStream> {
        let resolver = self.place.clone();
        let resolve =
            move || resolver.run(|| (host.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<SocketAddr>>));
        let addresses = spawn_blocking(resolve).await.map_err(io::Error::other)??;
        let mut last = io::Error::new(io::ErrorKind::NotFound, "no such host");
        for address in addresses {
            match self.place.connect_tcp(address, CONNECT_LIMIT).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = io::Error::new(error.kind(), format!("dial tcp {address}: {error}")),
            }
        }
        Err(last)
    }

    async fn open(self, uri: Uri) -> io::Result<Dialled> {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let tls = uri.scheme_str() != Some("http");
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let Some(proxy) = self.proxies.of(&uri) else {
            return Ok(Dialled { stream: TokioIo::new(self.dial(host, port).await?), proxied: false });
        };
        let (proxy_host, proxy_port) = proxy.address.clone().map_err(io::Error::other)?;
        let mut stream = self
            .dial(proxy_host, proxy_port)
            .await
            .map_err(|error| io::Error::new(error.kind(), format!("proxyconnect tcp: {error}")))?;
        if tls {
            let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
            timeout(CONNECT_LIMIT, tunnel(&mut stream, &authority, proxy))
                .await
                .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the proxy does not answer"))??;
        }
        Ok(Dialled { stream: TokioIo::new(stream), proxied: !tls })
    }
}

/// Has the proxy lead a connection on (RFC 9110, "CONNECT").
async fn tunnel(stream: &mut TcpStream, authority: &str, proxy: &Proxy) -> io::Result<()> {
    let authorization = proxy.authorization.as_ref();
    let authorization = authorization.map(|header| format!("Proxy-Authorization: {header}\r\n")).unwrap_or_default();
    let request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{authorization}\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    // Byte by byte: what comes behind the answer is the other side's.
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() == MAX_PROXY_ANSWER {
            return Err(io::Error::other("the proxy's answer does not end"));
        }
        answer.push(stream.read_u8().await?);
    }
    let line = String::from_utf8_lossy(&answer);
    let line = line.lines().next().unwrap_or_default();
    match line.split(' ').nth(1) {
        Some(status) if status.starts_with('2') => Ok(()),
        _ => Err(io::Error::other(format!("the proxy refuses: {line}"))),
    }
}

impl tower::Service<Uri> for Dialler {
    type Response = Dialled;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Dialled>> + Send>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().open(uri))
    }
}

/// A connection that knows whether a proxy reads its requests.
pub(super) struct Dialled {
    stream: TokioIo<TcpStream>,
    proxied: bool,
}

impl Connection for Dialled {
    fn connected(&self) -> Connected {
        Connected::new().proxy(self.proxied)
    }
}

impl hyper::rt::Read for Dialled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
        buffer: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl hyper::rt::Write for Dialled {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut task::Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }
}
