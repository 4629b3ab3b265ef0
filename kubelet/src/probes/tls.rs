//! TLS for probes: a probe asks whether a container answers, not who it is, so its certificate is not verified (as upstream's).

use std::net::IpAddr;
use std::sync::Arc;

use coracle_pki::unchecked;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub(super) async fn connect(stream: TcpStream, ip: IpAddr) -> std::io::Result<TlsStream<TcpStream>> {
    let config = unchecked::client().map_err(std::io::Error::other)?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::IpAddress(ip.into()), stream).await
}
