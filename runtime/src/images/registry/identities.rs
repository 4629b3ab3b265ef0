//! Who we are to a registry that wants to know it in the TLS handshake.

use std::sync::Arc;

use rustls::{
    SignatureScheme,
    client::ResolvesClientCert,
    crypto::CryptoProvider,
    pki_types::{PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::connect::Pem;
use crate::error::Result;

/// Certificates in the order in which they were named. A server gets the first that it can make use of, or none (Go's
/// `crypto/tls`: getClientCertificate, CertificateRequestInfo.SupportsCertificate).
#[derive(Debug)]
pub(super) struct Identities(Vec<Identity>);

#[derive(Debug)]
struct Identity {
    key: Arc<CertifiedKey>,
    /// Who signed the certificate and those that come with it: names as they are in them.
    issuers: Vec<Vec<u8>>,
}

impl Identities {
    /// Of certificates with their keys.
    pub fn new(pairs: &[(Pem, Pem)], provider: &CryptoProvider) -> Result<Identities> {
        pairs.iter().map(|(chain, key)| Identity::new(chain, key, provider)).collect::<Result<_>>().map(Identities)
    }
}

impl Identity {
    fn new(chain: &Pem, key: &Pem, provider: &CryptoProvider) -> Result<Identity> {
        let certificates = chain.certificates()?;
        let issuers = certificates.iter().map(|certificate| {
            let (_, certificate) = X509Certificate::from_der(certificate).map_err(|error| chain.bad(error))?;
            Ok(certificate.issuer().as_raw().to_vec())
        });
        let issuers = issuers.collect::<Result<_>>()?;
        let read = PrivateKeyDer::from_pem_slice(&key.text).map_err(|error| key.bad(format_args!("{error:?}")))?;
        // They must belong to each other.
        let key = CertifiedKey::from_der(certificates, read, provider).map_err(|error| chain.bad(error))?;
        Ok(Identity { key: Arc::new(key), issuers })
    }
}

impl ResolvesClientCert for Identities {
    fn resolve(&self, authorities: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let fits = |identity: &&Identity| {
            let known = authorities.is_empty()
                || identity.issuers.iter().any(|issuer| authorities.contains(&issuer.as_slice()));
            known && identity.key.key.choose_scheme(schemes).is_some()
        };
        self.0.iter().find(fits).map(|identity| identity.key.clone())
    }

    fn has_certs(&self) -> bool {
        !self.0.is_empty()
    }
}
