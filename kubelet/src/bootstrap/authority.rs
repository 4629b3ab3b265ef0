//! The cluster's authority, and connections that are verified by it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use coracle_link::Place;
use coracle_pki::Identity;
use futures::future::BoxFuture;
use http::Uri;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use kube::Client;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Error, Join, Token, failed};

const LIMIT: Duration = Duration::from_secs(10);
/// Largest answer that can be certificates.
const MAX_ANSWER: usize = 256 * 1024;

/// The authority's certificate, PEM: the one kept from an earlier time, or the server's own when the token vouches for it.
pub(super) async fn of_cluster(join: &Join, pki: &Path, token: Option<&Token>) -> Result<String, Error> {
    let file = pki.join("ca.crt");
    let kept = std::fs::read_to_string(&file).ok();
    if let Some(kept) = kept
        && token.is_none_or(|token| vouched(&kept, &token.hash).is_some())
    {
        return Ok(kept);
    }
    let token = token.ok_or(Error::NoToken)?;
    let offered = fetch(join).await?;
    let ca_pem = vouched(&offered, &token.hash).ok_or(Error::Authority)?;
    coracle_pki::write_private(&file, ca_pem.as_bytes())?;
    Ok(ca_pem)
}

/// The one of these certificates that has the hash.
fn vouched(pem: &str, hash: &str) -> Option<String> {
    let certificates = CertificateDer::pem_slice_iter(pem.as_bytes()).filter_map(Result::ok);
    let found = certificates.into_iter().find(|certificate| hex::encode(Sha256::digest(certificate)) == hash)?;
    let text = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &found);
    let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    Some(format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n")))
}

/// Host and port of the server.
fn address(server: &str) -> Result<(String, u16), Error> {
    let invalid = || Error::Server(server.to_owned());
    let uri: Uri = server.parse().map_err(|_| invalid())?;
    if uri.scheme_str() != Some("https") {
        return Err(invalid());
    }
    let host = uri.host().ok_or_else(invalid)?.trim_start_matches('[').trim_end_matches(']');
    Ok((host.to_owned(), uri.port_u16().unwrap_or(443)))
}

async fn dial(place: &Place, host: &str, port: u16) -> std::io::Result<TcpStream> {
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
    let mut last = std::io::Error::new(std::io::ErrorKind::NotFound, format!("{host} has no address"));
    for address in addresses {
        match place.connect_tcp(address, LIMIT).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// `GET /cacerts` from whoever answers: what comes back is worth nothing until its hash is compared.
async fn fetch(join: &Join) -> Result<String, Error> {
    let (host, port) = address(&join.server)?;
    let asked = async {
        let stream = dial(&join.place, &host, port).await.map_err(|error| error.to_string())?;
        let config = coracle_pki::unchecked::client().map_err(|error| error.to_string())?;
        let name = ServerName::try_from(host.clone()).map_err(|error| error.to_string())?;
        let stream =
            TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| error.to_string())?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        let driver = tokio::spawn(connection);
        let request =
            http::Request::get("/cacerts").header("host", format!("{host}:{port}")).body(Empty::<bytes::Bytes>::new());
        let answer = sender
            .send_request(request.map_err(|error| error.to_string())?)
            .await
            .map_err(|error| error.to_string())?;
        if !answer.status().is_success() {
            return Err(format!("the server answered {}", answer.status()));
        }
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await.map_err(|error| error.to_string())?;
        driver.abort();
        String::from_utf8(body.to_bytes().to_vec()).map_err(|error| error.to_string())
    };
    let answer =
        tokio::time::timeout(LIMIT, asked).await.unwrap_or_else(|_| Err("the server did not answer in time".into()));
    answer.map_err(failed("fetch the cluster's certificate authority"))
}

/// How a client proves who it is.
pub(super) enum Proof<'a> {
    Bearer(&'a str),
    Identity(&'a Identity),
}

/// A client that trusts the authority and nobody else.
pub(super) fn connect(join: &Join, ca_pem: &str, proof: Proof<'_>) -> Result<Client, Error> {
    let url: Uri = join.server.parse().map_err(|_| Error::Server(join.server.clone()))?;
    let authorities =
        CertificateDer::pem_slice_iter(ca_pem.as_bytes()).filter_map(Result::ok).map(|c| c.to_vec()).collect();
    let mut config = kube::Config::new(url);
    config.root_cert = Some(authorities);
    config.connect_timeout = Some(LIMIT);
    config.read_timeout = None;
    config.write_timeout = Some(Duration::from_secs(30));
    config.default_retry = false;
    let data = |pem: &str| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, pem);
    match proof {
        Proof::Bearer(token) => config.auth_info.token = Some(token.to_owned().into()),
        Proof::Identity(identity) => {
            config.auth_info.client_certificate_data = Some(data(&identity.cert_pem));
            config.auth_info.client_key_data = Some(data(&identity.key_pem).into());
        }
    }
    Ok(coracle_client::connect_with(config, Dialer { place: join.place.clone() })?)
}

/// Opens connections from a place.
#[derive(Clone)]
struct Dialer {
    place: Place,
}

impl tower::Service<Uri> for Dialer {
    type Response = TokioIo<TcpStream>;
    type Error = std::io::Error;
    type Future = BoxFuture<'static, std::io::Result<TokioIo<TcpStream>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let place = self.place.clone();
        Box::pin(async move {
            let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
            dial(&place, &host, uri.port_u16().unwrap_or(443)).await.map(TokioIo::new)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_pki::Authority;

    #[test]
    fn only_the_named_authority_is_taken() {
        let now = jiff::Timestamp::now();
        let ours = Authority::create("ours", now).unwrap();
        let theirs = Authority::create("theirs", now).unwrap();
        let both = format!("{}{}", theirs.cert_pem(), ours.cert_pem());
        let hash = ours.fingerprint();
        let found = vouched(&both, &hash).unwrap();
        assert_eq!(vouched(&found, &hash).as_deref(), Some(found.as_str()));
        assert_eq!(vouched(theirs.cert_pem(), &hash), None);
    }

    #[test]
    fn servers() {
        assert_eq!(address("https://10.0.0.1:6443").unwrap(), ("10.0.0.1".into(), 6443));
        assert_eq!(address("https://[fd00::1]:6443/").unwrap(), ("fd00::1".into(), 6443));
        assert!(address("http://10.0.0.1").is_err() && address("10.0.0.1:6443").is_err());
    }
}
