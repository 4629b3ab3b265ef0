//! The certificate authority.

use std::{fs, os::unix::fs::DirBuilderExt, path::Path, time::Duration};

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use crate::subject::{OF_CERTIFICATE, with_subject};
use crate::{CertificateRequest, Error, Identity, Subject, Usage, crypto};

/// How long an authority's own certificate is valid.
const AUTHORITY_VALIDITY: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Certificates are valid a little before they are made: clocks of a cluster differ.
const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

/// A certificate authority with its key.
pub struct Authority {
    identity: Identity,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("fingerprint", &self.fingerprint()).finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes a new authority.
    pub fn create(common_name: &str, now: Timestamp) -> Result<Self, Error> {
        let key = KeyPair::generate().map_err(crypto("make a key"))?;
        let mut params = params(&Subject::user(common_name), &[], now, AUTHORITY_VALIDITY)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(crypto("sign the authority's certificate"))?;
        Self::from_identity(Identity { cert_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    /// An authority from its certificate and key.
    pub fn from_identity(identity: Identity) -> Result<Self, Error> {
        let key = KeyPair::from_pem(&identity.key_pem).map_err(crypto("read the authority's key"))?;
        let issuer = Issuer::from_ca_cert_pem(&identity.cert_pem, key).map_err(crypto("read the authority"))?;
        Ok(Self { identity, issuer })
    }

    /// The authority kept as `ca.crt` and `ca.key` in `dir` (made with mode 0700), made there the first time.
    pub fn load_or_create(dir: &Path, common_name: &str, now: Timestamp) -> Result<Self, Error> {
        let failed = |source| Error::File { operation: "make directory", path: dir.to_path_buf(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        if let Some(identity) = Identity::load(dir, "ca")? {
            return Self::from_identity(identity);
        }
        let authority = Self::create(common_name, now)?;
        authority.identity.save(dir, "ca")?;
        Ok(authority)
    }

    /// The authority's certificate, which everybody may have.
    pub fn cert_pem(&self) -> &str {
        &self.identity.cert_pem
    }

    /// SHA-256 of the certificate's DER, in hex: by it a stranger recognises the authority.
    pub fn fingerprint(&self) -> String {
        let der = pem::parse(&self.identity.cert_pem).map(pem::Pem::into_contents).unwrap_or_default();
        hex::encode(Sha256::digest(der))
    }

    /// Makes a key and a certificate for it. `names` are DNS names and addresses.
    pub fn issue(
        &self,
        subject: &Subject,
        names: &[String],
        usage: Usage,
        now: Timestamp,
        validity: Duration,
    ) -> Result<Identity, Error> {
        let key = KeyPair::generate().map_err(crypto("make a key"))?;
        let mut params = params(subject, names, now, validity)?;
        set_usage(&mut params, usage);
        let certificate = params.signed_by(&key, &self.issuer).map_err(crypto("sign a certificate"))?;
        Ok(Identity { cert_pem: self.finished(&certificate, subject)?, key_pem: key.serialize_pem() })
    }

    /// Signs a request as it stands: who may ask for what is the caller's to decide. Returns the certificate.
    pub fn sign(
        &self,
        request: &CertificateRequest,
        usage: Usage,
        now: Timestamp,
        validity: Duration,
    ) -> Result<String, Error> {
        let subject = request.subject();
        let mut params = params(&subject, &request.names, now, validity)?;
        set_usage(&mut params, usage);
        let certificate = params.signed_by(&request.key, &self.issuer).map_err(crypto("sign a certificate"))?;
        self.finished(&certificate, &subject)
    }

    /// The certificate as PEM, in all groups of its subject.
    fn finished(&self, certificate: &Certificate, subject: &Subject) -> Result<String, Error> {
        if subject.organizations.len() < 2 {
            return Ok(certificate.pem());
        }
        let der = with_subject(certificate.der(), OF_CERTIFICATE, subject, self.issuer.key())?;
        Ok(pem::encode(&pem::Pem::new("CERTIFICATE", der)))
    }
}

fn params(subject: &Subject, names: &[String], now: Timestamp, validity: Duration) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::new(names).map_err(crypto("read the names"))?;
    params.distinguished_name = distinguished_name(subject);
    let moment = |timestamp: Timestamp| {
        OffsetDateTime::from_unix_timestamp(timestamp.as_second()).map_err(|_| Error::Invalid("time"))
    };
    params.not_before = moment(now)? - CLOCK_SKEW;
    params.not_after = moment(now)? + validity;
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// The name of a subject in one group or none; for others see [`crate::subject`].
pub(crate) fn distinguished_name(subject: &Subject) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(organization) = subject.organizations.first() {
        name.push(DnType::OrganizationName, organization.as_str());
    }
    name.push(DnType::CommonName, subject.common_name.as_str());
    name
}

fn set_usage(params: &mut CertificateParams, usage: Usage) {
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![match usage {
        Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
        Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
    }];
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use x509_parser::prelude::{FromDer, X509Certificate};

    use super::*;
    use crate::{certificate_names, request};

    const HOUR: Duration = Duration::from_secs(3600);

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn the_authority_is_kept_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let first = Authority::load_or_create(&dir.path().join("pki"), "coracle", now()).unwrap();
        let again = Authority::load_or_create(&dir.path().join("pki"), "coracle", now()).unwrap();
        assert_eq!(first.fingerprint(), again.fingerprint());
        assert_eq!(first.fingerprint().len(), 64);
        let mode = fs::metadata(dir.path().join("pki/ca.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn issued_certificates_carry_names_and_time() {
        let authority = Authority::create("coracle", now()).unwrap();
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let identity = authority.issue(&Subject::user("server"), &names, Usage::Server, now(), HOUR).unwrap();
        assert_eq!(certificate_names(&identity.cert_pem).unwrap(), names);
        let validity = identity.validity().unwrap();
        assert!(validity.holds(now()) && validity.fresh(now()));
        let late = now() + jiff::SignedDuration::from_mins(50);
        assert!(validity.holds(late) && !validity.fresh(late));
    }

    #[test]
    fn a_request_is_signed_for_its_own_subject_and_never_as_an_authority() {
        let authority = Authority::create("coracle", now()).unwrap();
        let subject = Subject::member("system:node:a", "system:nodes");
        let (csr, key) = request(&subject, &["10.0.0.1".to_owned()]).unwrap();
        let parsed = CertificateRequest::parse(&csr).unwrap();
        assert_eq!(
            (parsed.common_name.as_str(), parsed.organizations.as_slice()),
            ("system:node:a", &["system:nodes".to_owned()][..])
        );
        assert_eq!(parsed.names, ["10.0.0.1"]);
        let cert_pem = authority.sign(&parsed, Usage::Client, now(), HOUR).unwrap();
        assert!(!key.is_empty());
        let block = pem::parse(cert_pem).unwrap();
        let (_, certificate) = X509Certificate::from_der(block.contents()).unwrap();
        assert!(!certificate.is_ca());
        assert!(
            CertificateRequest::parse("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n")
                .is_err()
        );
    }

    #[test]
    fn a_request_of_a_member_of_several_groups_is_signed_for_all() {
        let authority = Authority::create("coracle", now()).unwrap();
        let groups = ["dev", "ops", "dev2"].map(str::to_owned).to_vec();
        let subject = Subject { common_name: "jane".to_owned(), organizations: groups };
        let (csr, key_pem) = request(&subject, &["10.0.0.1".to_owned()]).unwrap();
        let parsed = CertificateRequest::parse(&csr).unwrap();
        assert_eq!(
            (&*parsed.common_name, &parsed.organizations[..]),
            ("jane", &["dev", "ops", "dev2"].map(str::to_owned)[..])
        );
        let cert_pem = authority.sign(&parsed, Usage::Client, now(), HOUR).unwrap();
        let (block, issuer) = (pem::parse(&cert_pem).unwrap(), pem::parse(authority.cert_pem()).unwrap());
        let (_, certificate) = X509Certificate::from_der(block.contents()).unwrap();
        let (_, issuer) = X509Certificate::from_der(issuer.contents()).unwrap();
        certificate.verify_signature(Some(issuer.public_key())).unwrap();
        let mut have: Vec<_> = certificate.subject().iter_organization().map(|group| group.as_str().unwrap()).collect();
        have.sort_unstable();
        assert_eq!(have, ["dev", "dev2", "ops"]);
        assert_eq!(certificate.subject().iter_common_name().next().unwrap().as_str(), Ok("jane"));
        assert_eq!(certificate_names(&cert_pem).unwrap(), ["10.0.0.1"]);
        assert!(!certificate.is_ca() && certificate.extended_key_usage().unwrap().unwrap().value.client_auth);
        let key = KeyPair::from_pem(&key_pem).unwrap();
        assert_eq!(certificate.public_key().raw, rcgen::PublicKeyData::subject_public_key_info(&key));

        // Whoever changes a request has no key to sign it with.
        let mut forged = pem::parse(&csr).unwrap().into_contents();
        let at = forged.windows(3).position(|window| window == b"ops").unwrap();
        forged[at] = b'x';
        assert!(CertificateRequest::parse(&pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", forged))).is_err());
    }
}
