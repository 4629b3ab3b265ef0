//! TLS of the node's server: its certificate can be replaced while it runs, and callers must show one.

use std::sync::Arc;

use arc_swap::ArcSwap;
use coracle_pki::Identity;
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::Error;

/// The server's certificate and key.
#[derive(Debug)]
pub struct Credentials(ArcSwap<CertifiedKey>);

impl Credentials {
    /// From PEM.
    pub fn new(identity: &Identity) -> Result<Arc<Self>, Error> {
        Ok(Arc::new(Self(ArcSwap::from_pointee(certified(identity)?))))
    }

    /// Takes others from now on.
    pub fn replace(&self, identity: &Identity) -> Result<(), Error> {
        self.0.store(Arc::new(certified(identity)?));
        Ok(())
    }
}

impl ResolvesServerCert for Credentials {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

fn certified(identity: &Identity) -> Result<CertifiedKey, Error> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(identity.cert_pem.as_bytes()).collect();
    let chain = chain.map_err(|error| Error::Tls(error.to_string()))?;
    let key =
        PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).map_err(|error| Error::Tls(error.to_string()))?;
    let key = aws_lc_rs::sign::any_supported_type(&key).map_err(|error| Error::Tls(error.to_string()))?;
    Ok(CertifiedKey::new(chain, key))
}

/// An acceptor that asks callers for a certificate of `client_ca` (PEM).
pub fn acceptor(credentials: Arc<Credentials>, client_ca: &str) -> Result<TlsAcceptor, Error> {
    let failed = |error: String| Error::Tls(error);
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(client_ca.as_bytes()) {
        roots
            .add(certificate.map_err(|error| failed(error.to_string()))?)
            .map_err(|error| failed(error.to_string()))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let verifier = verifier.build().map_err(|error| failed(error.to_string()))?;
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(error.to_string()))?;
    let mut config = config.with_client_cert_verifier(verifier).with_cert_resolver(credentials);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Other nodes have certificates of the same authority, and nothing to look for here.
pub(super) fn may_enter(certificate: &CertificateDer<'_>) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return false };
    !parsed.subject().iter_organization().any(|group| group.as_str() == Ok("system:nodes"))
}
