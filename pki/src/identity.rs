//! A certificate with its key.

use std::path::Path;

use jiff::Timestamp;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::{Error, file};

/// A certificate (with the chain, if there is one) and its private key, both PEM.
#[derive(Clone)]
pub struct Identity {
    /// The certificate.
    pub cert_pem: String,
    /// The PKCS #8 key.
    pub key_pem: String,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("cert_pem", &self.cert_pem).finish_non_exhaustive()
    }
}

/// When a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub not_before: Timestamp,
    /// The last moment.
    pub not_after: Timestamp,
}

impl Validity {
    /// Whether at least a third of its time is left, so that it need not be replaced yet.
    pub fn fresh(&self, now: Timestamp) -> bool {
        let (start, end) = (self.not_before.as_second(), self.not_after.as_second());
        now.as_second() >= start && end.saturating_sub(now.as_second()) > end.saturating_sub(start) / 3
    }

    /// Whether it is valid now.
    pub fn holds(&self, now: Timestamp) -> bool {
        self.not_before <= now && now <= self.not_after
    }
}

impl Identity {
    /// Reads `NAME.crt` and `NAME.key` of `dir`; `None` when either is missing.
    pub fn load(dir: &Path, name: &str) -> Result<Option<Self>, Error> {
        let (cert, key) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
        if !cert.exists() || !key.exists() {
            return Ok(None);
        }
        Ok(Some(Self { cert_pem: file::read(&cert)?, key_pem: file::read(&key)? }))
    }

    /// Writes `NAME.key` and then `NAME.crt` into `dir`.
    pub fn save(&self, dir: &Path, name: &str) -> Result<(), Error> {
        file::write_private(&dir.join(format!("{name}.key")), self.key_pem.as_bytes())?;
        file::write_private(&dir.join(format!("{name}.crt")), self.cert_pem.as_bytes())
    }

    /// When the certificate is valid.
    pub fn validity(&self) -> Result<Validity, Error> {
        with_certificate(&self.cert_pem, |certificate| {
            let validity = certificate.validity();
            let moment = |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).ok();
            Some(Validity { not_before: moment(validity.not_before)?, not_after: moment(validity.not_after)? })
        })
    }
}

/// The DNS names and addresses a certificate is good for, as text.
pub fn certificate_names(cert_pem: &str) -> Result<Vec<String>, Error> {
    with_certificate(cert_pem, |certificate| {
        let names = certificate.subject_alternative_name().ok()?;
        let names = names.map(|names| names.value.general_names.iter().filter_map(name).collect());
        Some(names.unwrap_or_default())
    })
}

/// A DNS name or address as text; other kinds of names are nobody's here.
pub(crate) fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|octets| std::net::Ipv4Addr::from(octets).to_string()),
            16 => <[u8; 16]>::try_from(*bytes).ok().map(|octets| std::net::Ipv6Addr::from(octets).to_string()),
            _ => None,
        },
        _ => None,
    }
}

fn with_certificate<T>(pem: &str, read: impl FnOnce(&X509Certificate<'_>) -> Option<T>) -> Result<T, Error> {
    let block = pem::parse(pem).map_err(|_| Error::Invalid("certificate"))?;
    let (_, certificate) = X509Certificate::from_der(block.contents()).map_err(|_| Error::Invalid("certificate"))?;
    read(&certificate).ok_or(Error::Invalid("certificate"))
}
