//! Connections to registries: in a place, through a proxy where the environment says so, with the TLS of their own.
//!
//! ```text
//! dial ─▶ registry                                   ─▶ TLS if https
//! dial ─▶ proxy ─▶ TLS if https:// ─▶ CONNECT │ SOCKS ─▶ TLS if https
//! ```
//! As Go's `net/http` goes about it (`transport.go`, dialConn), which containerd and dockerd leave it to.

use std::{
    fmt,
    future::Future,
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    pin::Pin,
    sync::Arc,
    task::{self, Poll},
    time::{Duration, Instant},
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
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
    server::ParsedCertificate,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    task::spawn_blocking,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{
    Body,
    identities::Identities,
    proxies::{Proxies, Proxy, ProxyKind},
};
use crate::error::{Error, Result};

/// Until a server is reached, where nothing is said of it (containerd's `registry.go`, DefaultHTTPTransport).
const DIAL_LIMIT: Duration = Duration::from_secs(30);
/// Until a proxy has let us through.
const PROXY_LIMIT: Duration = Duration::from_secs(60);
/// Of what a proxy answers before it lets us through.
const MAX_PROXY_ANSWER: usize = 16 << 10;

pub(super) type Http = Client<HttpsConnector<Dialler>, Body>;

/// Certificates or keys, and where they stand.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Pem {
    pub from: String,
    pub text: Vec<u8>,
}

impl Pem {
    /// Its certificates, of which there must be one.
    pub fn certificates(&self) -> Result<Vec<CertificateDer<'static>>> {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.text).collect();
        let certificates = certificates.map_err(|error| self.bad(format_args!("{error:?}")))?;
        if certificates.is_empty() { Err(self.bad("there is no certificate in it")) } else { Ok(certificates) }
    }

    /// It cannot be used.
    pub fn bad(&self, why: impl fmt::Display) -> Error {
        Error::invalid(format!("certificates and keys of registries: {}: {why}", self.from))
    }
}

/// How a host is connected to: how it proves who it is, and we to it, and how long it may take.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Transport {
    /// Besides the system's.
    pub roots: Vec<Pem>,
    /// Certificates with their keys, of which a server gets the first that it takes.
    pub identities: Vec<(Pem, Pem)>,
    /// It need not prove anything.
    pub unverified: bool,
    /// Until there is a connection; zero for as long as the system tries.
    pub dial_limit: Option<Duration>,
}

impl Transport {
    /// Whether anything is said of TLS.
    pub fn says_tls(&self) -> bool {
        *self != Transport { dial_limit: self.dial_limit, ..Transport::default() }
    }

    /// Certificate authorities, and its own.
    pub fn with_roots(&self, others: &RootCertStore) -> Result<RootCertStore> {
        let mut roots = others.clone();
        for pem in &self.roots {
            for certificate in pem.certificates()? {
                roots.add(certificate).map_err(|error| pem.bad(error))?;
            }
        }
        Ok(roots)
    }

    /// A client that speaks it.
    pub fn client(&self, place: Place, proxies: Arc<Proxies>, system: &RootCertStore) -> Result<Http> {
        let roots = self.with_roots(system)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::internal(format!("TLS: {error}")))?;
        let config = if self.unverified {
            config.dangerous().with_custom_certificate_verifier(coracle_pki::unchecked::verifier(provider.clone()))
        } else if self.roots.is_empty() {
            config.with_root_certificates(roots)
        } else {
            let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
            let inner = inner.map_err(|error| Error::invalid(format!("registry certificate authority: {error}")))?;
            let named = self.roots.iter().map(Pem::certificates).collect::<Result<Vec<_>>>()?.concat();
            config.dangerous().with_custom_certificate_verifier(Arc::new(SelfSigned { inner, named }))
        };
        let config = if self.identities.is_empty() {
            config.with_no_client_auth()
        } else {
            config.with_client_cert_resolver(Arc::new(Identities::new(&self.identities, &provider)?))
        };
        let limit = self.dial_limit.unwrap_or(DIAL_LIMIT);
        let dialler = Dialler { place, proxies, limit, tls: Arc::new(config.clone()) };
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

/// What a connection is made of.
trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// Opens connections.
#[derive(Clone)]
pub(super) struct Dialler {
    place: Place,
    proxies: Arc<Proxies>,
    /// Zero for none.
    limit: Duration,
    /// For proxies that speak it: that of the host behind them, as Go has it.
    tls: Arc<ClientConfig>,
}

impl Dialler {
    async fn dial(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let limit = if self.limit.is_zero() { Duration::MAX } else { self.limit };
        let deadline = Instant::now().checked_add(limit);
        let (resolver, host) = (self.place.clone(), host.to_owned());
        let resolve =
            move || resolver.run(|| (host.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<SocketAddr>>));
        let resolved = timeout(limit, spawn_blocking(resolve)).await;
        let resolved =
            resolved.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "dial tcp: lookup: i/o timeout"))?;
        let addresses = resolved.map_err(io::Error::other)??;
        let mut last = io::Error::new(io::ErrorKind::NotFound, "no such host");
        let count = addresses.len();
        for (index, address) in addresses.into_iter().enumerate() {
            // Each address has its share of what is left (Go's `net.Dialer`, Timeout).
            let left = deadline.map_or(Duration::MAX, |deadline| {
                deadline.saturating_duration_since(Instant::now()) / u32::try_from(count - index).unwrap_or(1)
            });
            match self.place.connect_tcp(address, left).await {
                Ok(stream) => return Ok(stream),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    last = io::Error::new(error.kind(), format!("dial tcp {address}: i/o timeout"));
                }
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
            return Ok(Dialled::new(self.dial(&host, port).await?, false));
        };
        let mut stream = self
            .reach(proxy)
            .await
            .map_err(|error| io::Error::new(error.kind(), format!("proxyconnect tcp: {error}")))?;
        let target = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let through = async {
            match proxy.kind {
                ProxyKind::Socks => socks(&mut stream, &host, port, proxy.user.as_ref()).await.map_err(|error| {
                    io::Error::new(error.kind(), format!("socks connect tcp {proxy:?}->{target}: {error}"))
                }),
                ProxyKind::Http | ProxyKind::Https if tls => tunnel(&mut stream, &target, proxy).await,
                ProxyKind::Http | ProxyKind::Https => Ok(()),
            }
        };
        timeout(PROXY_LIMIT, through)
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the proxy does not answer"))??;
        Ok(Dialled::new(stream, !tls && proxy.kind != ProxyKind::Socks))
    }

    /// A connection to a proxy itself.
    async fn reach(&self, proxy: &Proxy) -> io::Result<Box<dyn Wire>> {
        let (host, port) = proxy.address.clone().map_err(io::Error::other)?;
        let stream = self.dial(&host, port).await?;
        if proxy.kind != ProxyKind::Https {
            return Ok(Box::new(stream));
        }
        let name = ServerName::try_from(host).map_err(io::Error::other)?;
        let handshake = TlsConnector::from(self.tls.clone()).connect(name, stream);
        let handshake = timeout(PROXY_LIMIT, handshake).await;
        Ok(Box::new(handshake.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "TLS handshake timeout"))??))
    }
}

/// Has the proxy lead a connection on (RFC 9110, "CONNECT").
async fn tunnel(stream: &mut impl Wire, authority: &str, proxy: &Proxy) -> io::Result<()> {
    let authorization = proxy.authorization();
    let authorization = authorization.map(|header| format!("Proxy-Authorization: {header}\r\n")).unwrap_or_default();
    let request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{authorization}\r\n");
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
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

/// The same by a proxy that speaks SOCKS (RFC 1928, RFC 1929). Names are its to look up.
async fn socks(stream: &mut impl Wire, host: &str, port: u16, user: Option<&(String, String)>) -> io::Result<()> {
    const VERSION: u8 = 5;
    const NO_AUTHENTICATION: u8 = 0;
    const PASSWORD: u8 = 2;
    let short = |text: &str, what: &str| {
        u8::try_from(text.len()).map_err(|_| io::Error::other(format!("{what} of more than 255 bytes")))
    };
    let checked = |version: u8| match version {
        VERSION => Ok(()),
        version => Err(io::Error::other(format!("unexpected protocol version {version}"))),
    };
    let methods: &[u8] = if user.is_some() { &[NO_AUTHENTICATION, PASSWORD] } else { &[NO_AUTHENTICATION] };
    stream.write_all(&[&[VERSION, methods.len() as u8], methods].concat()).await?;
    stream.flush().await?;
    checked(stream.read_u8().await?)?;
    match (stream.read_u8().await?, user) {
        (NO_AUTHENTICATION, _) => {}
        (PASSWORD, Some((name, password))) => {
            let mut request = vec![1, short(name, "a user's name")?];
            request.extend(name.bytes());
            request.push(short(password, "a password")?);
            request.extend(password.bytes());
            stream.write_all(&request).await?;
            stream.flush().await?;
            let mut answer = [0; 2];
            stream.read_exact(&mut answer).await?;
            if answer[1] != 0 {
                return Err(io::Error::other("username/password authentication failed"));
            }
        }
        _ => return Err(io::Error::other("no acceptable authentication methods")),
    }
    let mut request = vec![VERSION, 1, 0];
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => {
            request.push(1);
            request.extend(address.octets());
        }
        Ok(IpAddr::V6(address)) => {
            request.push(4);
            request.extend(address.octets());
        }
        Err(_) => {
            request.extend([3, short(host, "a host's name")?]);
            request.extend(host.bytes());
        }
    }
    request.extend(port.to_be_bytes());
    stream.write_all(&request).await?;
    stream.flush().await?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await?;
    checked(answer[0])?;
    let refusal = match answer[1] {
        0 => None,
        1 => Some("general SOCKS server failure".to_owned()),
        2 => Some("connection not allowed by ruleset".to_owned()),
        3 => Some("network unreachable".to_owned()),
        4 => Some("host unreachable".to_owned()),
        5 => Some("connection refused".to_owned()),
        6 => Some("TTL expired".to_owned()),
        7 => Some("command not supported".to_owned()),
        8 => Some("address type not supported".to_owned()),
        code => Some(format!("unknown code: {code}")),
    };
    if let Some(refusal) = refusal {
        return Err(io::Error::other(refusal));
    }
    // Where it dialled from is of no use.
    let length = match answer[3] {
        1 => 4,
        4 => 16,
        3 => usize::from(stream.read_u8().await?),
        kind => return Err(io::Error::other(format!("unknown address type {kind}"))),
    };
    stream.read_exact(&mut vec![0; length + 2]).await.map(drop)
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
    stream: TokioIo<Box<dyn Wire>>,
    proxied: bool,
}

impl Dialled {
    fn new(stream: impl Wire + 'static, proxied: bool) -> Dialled {
        Dialled { stream: TokioIo::new(Box::new(stream)), proxied }
    }
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
