//! Certificate signing requests (RFC 2986).

use rcgen::{CertificateParams, KeyPair, SubjectPublicKeyInfo};
use x509_parser::{
    certification_request::X509CertificationRequest, extensions::ParsedExtension, prelude::FromDer, x509::X509Name,
};

use crate::subject::{OF_REQUEST, with_subject};
use crate::{Error, Subject, authority::distinguished_name, crypto, identity};

/// Makes a key and a request for a certificate; returns both as PEM, the request first.
pub fn request(subject: &Subject, names: &[String]) -> Result<(String, String), Error> {
    let key = KeyPair::generate().map_err(crypto("make a key"))?;
    let mut params = CertificateParams::new(names).map_err(crypto("read the names"))?;
    params.distinguished_name = distinguished_name(subject);
    let csr = params.serialize_request(&key).map_err(crypto("make a certificate request"))?;
    if subject.organizations.len() < 2 {
        return Ok((csr.pem().map_err(crypto("write a certificate request"))?, key.serialize_pem()));
    }
    let der = with_subject(csr.der(), OF_REQUEST, subject, &key)?;
    Ok((pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", der)), key.serialize_pem()))
}

/// A request whose signature proves that the requester holds the key.
#[derive(Clone, Debug)]
pub struct CertificateRequest {
    /// CN
    pub common_name: String,
    /// Every O.
    pub organizations: Vec<String>,
    /// DNS names and addresses.
    pub names: Vec<String>,
    /// Whether the request asks for names of other kinds (mail, URI); such are never signed.
    pub has_other_names: bool,
    pub(crate) key: SubjectPublicKeyInfo,
}

impl CertificateRequest {
    /// Reads a PEM request and checks its signature.
    pub fn parse(pem: &str) -> Result<Self, Error> {
        let invalid = Error::Invalid("certificate request");
        let Ok(block) = pem::parse(pem) else { return Err(invalid) };
        let Ok((_, csr)) = X509CertificationRequest::from_der(block.contents()) else { return Err(invalid) };
        csr.verify_signature().map_err(|_| Error::Invalid("signature of a certificate request"))?;
        let info = &csr.certification_request_info;
        let key = SubjectPublicKeyInfo::from_der(info.subject_pki.raw).map_err(crypto("read the key of a request"))?;
        let subject = &info.subject;
        let (names, has_other_names) = names(&csr);
        Ok(Self {
            common_name: common_name(subject),
            organizations: organizations(subject),
            names,
            has_other_names,
            key,
        })
    }

    pub(crate) fn subject(&self) -> Subject {
        Subject { common_name: self.common_name.clone(), organizations: self.organizations.clone() }
    }
}

fn common_name(subject: &X509Name<'_>) -> String {
    subject.iter_common_name().next().and_then(|name| name.as_str().ok()).unwrap_or_default().to_owned()
}

fn organizations(subject: &X509Name<'_>) -> Vec<String> {
    subject.iter_organization().filter_map(|name| name.as_str().ok()).map(str::to_owned).collect()
}

fn names(csr: &X509CertificationRequest<'_>) -> (Vec<String>, bool) {
    let (mut names, mut others) = (Vec::new(), false);
    for extension in csr.requested_extensions().into_iter().flatten() {
        let ParsedExtension::SubjectAlternativeName(alternative) = extension else { continue };
        for name in &alternative.general_names {
            match identity::name(name) {
                Some(name) => names.push(name),
                None => others = true,
            }
        }
    }
    (names, others)
}
