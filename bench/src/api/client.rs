//! Raw requests over HTTP/2 and TLS: what a client costs is not to be measured.

use std::{net::SocketAddr, path::Path, sync::Arc};

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use coracle_pki::{Authority, Identity};
use http::{Method, Request, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A server and who speaks to it.
#[derive(Clone)]
pub struct Target {
    host: String,
    port: u16,
    tls: TlsConnector,
}

/// Writes the kubeconfig of a server of the bench's own; without a client the server asks for none.
pub fn write_kubeconfig(
    path: &Path,
    server: SocketAddr,
    authority: &Authority,
    client: Option<&Identity>,
) -> Result<()> {
    let user = client.map(|client| {
        json!({"client-certificate-data": STANDARD.encode(&client.cert_pem), "client-key-data": STANDARD.encode(&client.key_pem)})
    });
    let config = json!({
        "apiVersion": "v1", "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": format!("https://{server}"),
            "certificate-authority-data": STANDARD.encode(authority.cert_pem())}}],
        "users": [{"name": "u", "user": user}],
    });
    Ok(std::fs::write(path, config.to_string())?)
}

/// A connection.
#[derive(Clone)]
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    authority: Arc<str>,
}

impl Target {
    /// The server of a kubeconfig, with its client certificate.
    pub async fn of(kubeconfig: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(kubeconfig).with_context(|| format!("read {}", kubeconfig.display()))?;
        let config: Value = serde_saphyr::from_str(&text).with_context(|| format!("read {}", kubeconfig.display()))?;
        let (cluster, user) = (&config["clusters"][0]["cluster"], &config["users"][0]["user"]);
        let uri: Uri = cluster["server"].as_str().context("no server")?.parse()?;
        let pem = |section: &Value, name: &str| -> Result<Option<Vec<u8>>> {
            match (section[format!("{name}-data")].as_str(), section[name].as_str()) {
                (Some(data), _) => Ok(Some(STANDARD.decode(data.trim())?)),
                (None, Some(file)) => Ok(Some(std::fs::read(file)?)),
                (None, None) => Ok(None),
            }
        };
        let mut roots = rustls::RootCertStore::empty();
        for certificate in
            CertificateDer::pem_slice_iter(&pem(cluster, "certificate-authority")?.context("no authority")?)
        {
            roots.add(certificate?)?;
        }
        let builder = rustls::ClientConfig::builder().with_root_certificates(roots);
        let mut tls = match (pem(user, "client-certificate")?, pem(user, "client-key")?) {
            (Some(certificate), Some(key)) => {
                let chain = CertificateDer::pem_slice_iter(&certificate).collect::<Result<Vec<_>, _>>()?;
                builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(&key)?)?
            }
            _ => builder.with_no_client_auth(),
        };
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let host = uri.host().context("no host")?.to_owned();
        Ok(Self { host, port: uri.port_u16().unwrap_or(443), tls: TlsConnector::from(Arc::new(tls)) })
    }

    /// A connection of its own.
    pub async fn connect(&self) -> Result<Connection> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        let stream = self.tls.connect(ServerName::try_from(self.host.clone())?, stream).await?;
        let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(4 << 20).initial_connection_window_size(16 << 20).max_frame_size(1 << 20);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            // The bench ends connections by dropping them.
            let _ = connection.await;
        });
        Ok(Connection { sender, authority: format!("{}:{}", self.host, self.port).into() })
    }
}

impl Connection {
    /// Sends a request; the body of the answer is still to come.
    pub async fn open(
        &mut self,
        method: Method,
        path: &str,
        kind: &str,
        body: Bytes,
    ) -> Result<http::Response<Incoming>> {
        let request = Request::builder()
            .method(method)
            .uri(format!("https://{}{path}", self.authority))
            .header(header::CONTENT_TYPE, kind)
            .header(header::ACCEPT, "application/json")
            .body(Full::new(body))?;
        self.sender.ready().await?;
        Ok(self.sender.send_request(request).await?)
    }

    /// Sends a request and reads the answer; how many bytes it had.
    pub async fn call(&mut self, method: Method, path: &str, kind: &str, body: Bytes) -> Result<u64> {
        let response = self.open(method, path, kind, body).await?;
        let status = response.status();
        let mut length = 0;
        let mut body = response.into_body();
        let mut first = Bytes::new();
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame?.into_data() {
                length += data.len() as u64;
                if first.is_empty() {
                    first = data;
                }
            }
        }
        if !status.is_success() {
            bail!("{path}: {status}: {}", String::from_utf8_lossy(&first));
        }
        ensure!(length > 0, "{path}: an empty answer");
        Ok(length)
    }
}
