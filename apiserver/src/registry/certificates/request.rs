//! What a client may put into `spec.request` (certificates `validateCSR`): a request whose signature shows that who made it
//! has the key.

use super::certificate::next_block;
use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::signature_algorithm::RsaSsaPssParams;
use x509_parser::x509::{AlgorithmIdentifier, SubjectPublicKeyInfo};

const UNKNOWN: &str = "x509: cannot verify signature: algorithm unimplemented";

/// The shortest RSA keys that count, in bits.
const RSA_BITS: usize = 1024;

/// Checks a request, which is PEM in base64.
pub(super) fn check(encoded: &str) -> Result<(), String> {
    let pem = STANDARD.decode(encoded).map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&pem);
    let block = next_block(&mut text.as_ref()).filter(|block| block.label == "CERTIFICATE REQUEST");
    let block = block.ok_or("PEM block type must be CERTIFICATE REQUEST")?;
    check_outer(&block.content)?;
    let read = X509CertificationRequest::from_der(&block.content);
    let (rest, request) = read.map_err(|_| "x509: malformed certificate request".to_owned())?;
    if !rest.is_empty() {
        return Err("asn1: syntax error: trailing data".to_owned());
    }
    check_signature(&request)
}

/// The groups that who is asked for would be in.
///
/// # Errors
/// What is wrong with the request.
pub fn organizations(encoded: &str) -> Result<Vec<String>, String> {
    let pem = STANDARD.decode(encoded).map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&pem);
    let block = next_block(&mut text.as_ref()).ok_or("PEM block type must be CERTIFICATE REQUEST")?;
    let read = X509CertificationRequest::from_der(&block.content);
    let (_, request) = read.map_err(|_| "x509: malformed certificate request".to_owned())?;
    let subject = &request.certification_request_info.subject;
    Ok(subject.iter_organization().map(|group| String::from_utf8_lossy(group.as_slice()).into_owned()).collect())
}

/// Whether there is one sequence at all, in the words of Go's `encoding/asn1` (`parseTagAndLength`, `parseField`).
fn check_outer(der: &[u8]) -> Result<(), String> {
    const TRUNCATED: &str = "asn1: syntax error: truncated tag or length";
    const SEQUENCE: u8 = 0x30;
    let Some((tag, rest)) = der.split_first() else { return Err("asn1: syntax error: sequence truncated".into()) };
    let (first, rest) = rest.split_first().ok_or(TRUNCATED)?;
    let bytes = if *first < 0x80 { 0 } else { usize::from(first & 0x7f) };
    let length = match *first {
        0x80 => return Err("asn1: syntax error: indefinite length found (not DER)".into()),
        0..0x80 => usize::from(*first),
        _ if bytes > 4 => return Err("asn1: structure error: length too large".into()),
        _ => rest.get(..bytes).ok_or(TRUNCATED)?.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
    };
    if *tag != SEQUENCE {
        let (class, number, is_compound) = (tag >> 6, tag & 0x1f, tag & 0x20 != 0);
        return Err(format!(
            "asn1: structure error: tags don't match (16 vs {{class:{class} tag:{number} length:{length} isCompound:{is_compound}}}) {{optional:false explicit:false application:false private:false defaultValue:<nil> tag:<nil> stringType:0 timeType:0 set:false omitEmpty:false}} certificateRequest @{}",
            2 + bytes
        ));
    }
    if rest.len() < bytes + length { Err("asn1: syntax error: data truncated".into()) } else { Ok(()) }
}

/// The public key that a request or a certificate brings along.
pub(super) enum Key {
    Rsa { bits: usize },
    Curve(Curve),
    Edwards,
    Other,
}

#[derive(Clone, Copy)]
pub(super) enum Curve {
    P224,
    P256,
    P384,
    P521,
}

impl Key {
    pub(super) fn of(info: &SubjectPublicKeyInfo) -> Result<Self, String> {
        Ok(match &*info.algorithm.algorithm.to_id_string() {
            "1.2.840.113549.1.1.1" => match info.parsed() {
                Ok(PublicKey::RSA(key)) => Self::Rsa { bits: bits(key.modulus) },
                _ => return Err("x509: invalid RSA public key".into()),
            },
            "1.2.840.10045.2.1" => {
                let curve = info.algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok());
                let curve = curve.ok_or("x509: invalid ECDSA parameters")?;
                Self::Curve(curve_of(&curve.to_id_string()).ok_or("x509: unsupported elliptic curve")?)
            }
            "1.3.101.112" => Self::Edwards,
            _ => Self::Other,
        })
    }

    /// The name of its type in Go.
    fn go_type(&self) -> &'static str {
        match self {
            Self::Rsa { .. } => "*rsa.PublicKey",
            Self::Curve(_) => "*ecdsa.PublicKey",
            Self::Edwards => "ed25519.PublicKey",
            Self::Other => "<nil>",
        }
    }
}

/// The curve of an object identifier.
pub(super) fn curve_of(oid: &str) -> Option<Curve> {
    Some(match oid {
        "1.3.132.0.33" => Curve::P224,
        "1.2.840.10045.3.1.7" => Curve::P256,
        "1.3.132.0.34" => Curve::P384,
        "1.3.132.0.35" => Curve::P521,
        _ => return None,
    })
}

/// How long a number is that is written in these bytes.
pub(super) fn bits(number: &[u8]) -> usize {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number[zeros..].first().map_or(0, |first| (number.len() - zeros) * 8 - first.leading_zeros() as usize)
}

#[derive(Clone, Copy)]
enum Hash {
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

/// How a request says that it is signed.
enum Method {
    Pkcs1(Hash),
    Pss(Hash),
    Curve(Hash),
    Edwards,
}

impl Method {
    fn of(algorithm: &AlgorithmIdentifier) -> Result<Self, String> {
        Ok(match &*algorithm.algorithm.to_id_string() {
            "1.2.840.113549.1.1.4" => {
                return Err("x509: cannot verify signature: insecure algorithm MD5-RSA".into());
            }
            "1.2.840.113549.1.1.5" | "1.3.14.3.2.29" => Self::Pkcs1(Hash::Sha1),
            "1.2.840.113549.1.1.10" => Self::Pss(pss_hash(algorithm).ok_or(UNKNOWN)?),
            "1.2.840.113549.1.1.11" => Self::Pkcs1(Hash::Sha256),
            "1.2.840.113549.1.1.12" => Self::Pkcs1(Hash::Sha384),
            "1.2.840.113549.1.1.13" => Self::Pkcs1(Hash::Sha512),
            "1.2.840.10045.4.1" => Self::Curve(Hash::Sha1),
            "1.2.840.10045.4.3.2" => Self::Curve(Hash::Sha256),
            "1.2.840.10045.4.3.3" => Self::Curve(Hash::Sha384),
            "1.2.840.10045.4.3.4" => Self::Curve(Hash::Sha512),
            "1.3.101.112" => Self::Edwards,
            _ => return Err(UNKNOWN.into()),
        })
    }

    /// The kind of the key that it needs.
    fn key(&self) -> &'static str {
        match self {
            Self::Pkcs1(_) | Self::Pss(_) => "RSA",
            Self::Curve(_) => "ECDSA",
            Self::Edwards => "Ed25519",
        }
    }
}

/// The one hash of a signature with a salt, which is as long as that hash.
fn pss_hash(algorithm: &AlgorithmIdentifier) -> Option<Hash> {
    let parameters = RsaSsaPssParams::try_from(algorithm.parameters.as_ref()?).ok()?;
    let mask = parameters.mask_gen_algorithm().ok()?;
    let hash = parameters.hash_algorithm_oid().to_id_string();
    let (found, length) = match &*hash {
        "2.16.840.1.101.3.4.2.1" => (Hash::Sha256, 32),
        "2.16.840.1.101.3.4.2.2" => (Hash::Sha384, 48),
        "2.16.840.1.101.3.4.2.3" => (Hash::Sha512, 64),
        _ => return None,
    };
    let is_mask = mask.mgf.to_id_string() == "1.2.840.113549.1.1.8" && mask.hash.to_id_string() == hash;
    (is_mask && parameters.salt_length() == length && parameters.trailer_field() == 1).then_some(found)
}

/// Whether a request is signed with its own key (Go's `x509.checkSignature`).
fn check_signature(request: &X509CertificationRequest) -> Result<(), String> {
    let info = &request.certification_request_info;
    let key = Key::of(&info.subject_pki)?;
    let method = Method::of(&request.signature_algorithm)?;
    let (how, failed): (&dyn VerificationAlgorithm, _) = match (&method, &key) {
        (Method::Pkcs1(_) | Method::Pss(_), Key::Rsa { bits }) => {
            if *bits < RSA_BITS {
                let see = "https://go.dev/pkg/crypto/rsa#hdr-Minimum_key_size";
                return Err(format!("crypto/rsa: {bits}-bit keys are insecure (see {see})"));
            }
            (with_rsa(&method).ok_or(UNKNOWN)?, "crypto/rsa: verification error")
        }
        (Method::Curve(hash), Key::Curve(curve)) => {
            (on_curve(*curve, *hash).ok_or(UNKNOWN)?, "x509: ECDSA verification failure")
        }
        (Method::Edwards, Key::Edwards) => (&signature::ED25519, "x509: Ed25519 verification failure"),
        (_, Key::Other) => return Err(UNKNOWN.into()),
        _ => {
            let (wanted, had) = (method.key(), key.go_type());
            let why = format!("specifies an {wanted} public key, but have public key of type {had}");
            return Err(format!("x509: signature algorithm {why}"));
        }
    };
    let public = UnparsedPublicKey::new(how, &info.subject_pki.subject_public_key.data);
    public.verify(info.raw, &request.signature_value.data).map_err(|_| failed.to_owned())
}

/// What is not known for keys of less than 2048 bits fails for these.
fn with_rsa(method: &Method) -> Option<&'static dyn VerificationAlgorithm> {
    Some(match method {
        Method::Pkcs1(Hash::Sha1) => &signature::RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY,
        Method::Pkcs1(Hash::Sha256) => &signature::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
        Method::Pkcs1(Hash::Sha384) => &signature::RSA_PKCS1_2048_8192_SHA384,
        Method::Pkcs1(Hash::Sha512) => &signature::RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
        Method::Pss(Hash::Sha256) => &signature::RSA_PSS_2048_8192_SHA256,
        Method::Pss(Hash::Sha384) => &signature::RSA_PSS_2048_8192_SHA384,
        Method::Pss(Hash::Sha512) => &signature::RSA_PSS_2048_8192_SHA512,
        Method::Pss(Hash::Sha1) | Method::Curve(_) | Method::Edwards => return None,
    })
}

fn on_curve(curve: Curve, hash: Hash) -> Option<&'static dyn VerificationAlgorithm> {
    Some(match (curve, hash) {
        (Curve::P256, Hash::Sha1) => &signature::ECDSA_P256_SHA1_ASN1,
        (Curve::P256, Hash::Sha256) => &signature::ECDSA_P256_SHA256_ASN1,
        (Curve::P256, Hash::Sha384) => &signature::ECDSA_P256_SHA384_ASN1,
        (Curve::P256, Hash::Sha512) => &signature::ECDSA_P256_SHA512_ASN1,
        (Curve::P384, Hash::Sha256) => &signature::ECDSA_P384_SHA256_ASN1,
        (Curve::P384, Hash::Sha384) => &signature::ECDSA_P384_SHA384_ASN1,
        (Curve::P384, Hash::Sha512) => &signature::ECDSA_P384_SHA512_ASN1,
        (Curve::P521, Hash::Sha1) => &signature::ECDSA_P521_SHA1_ASN1,
        (Curve::P521, Hash::Sha256) => &signature::ECDSA_P521_SHA256_ASN1,
        (Curve::P521, Hash::Sha384) => &signature::ECDSA_P521_SHA384_ASN1,
        (Curve::P521, Hash::Sha512) => &signature::ECDSA_P521_SHA512_ASN1,
        (Curve::P224, _) | (Curve::P384, Hash::Sha1) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Requests of all kinds, as OpenSSL signs them.
    fn signed(name: &str) -> Vec<u8> {
        let found = include_str!("signed.txt").lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        STANDARD.decode(found.unwrap()).unwrap()
    }

    fn told_as(label: &str, der: &[u8]) -> String {
        let text = STANDARD.encode(der);
        let pem = format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n");
        check(&STANDARD.encode(pem)).err().unwrap_or_default()
    }

    fn told(der: &[u8]) -> String {
        told_as("CERTIFICATE REQUEST", der)
    }

    #[test]
    fn requests_are_signed_with_their_own_key() {
        const NAMES: [(&str, &str); 8] = [
            ("rsa-2048-sha256", "crypto/rsa: verification error"),
            ("rsa-1024-sha512", "crypto/rsa: verification error"),
            ("rsa-1024-sha1", "crypto/rsa: verification error"),
            ("pss-2048-sha256", "crypto/rsa: verification error"),
            ("p256-sha512", "x509: ECDSA verification failure"),
            ("p384-sha256", "x509: ECDSA verification failure"),
            ("p521-sha512", "x509: ECDSA verification failure"),
            ("ed25519", "x509: Ed25519 verification failure"),
        ];
        for (name, failed) in NAMES {
            let mut der = signed(name);
            assert_eq!(told(&der), "", "{name}");
            // The name it asks for is signed as well.
            let at = der.windows(3).position(|found| found == [0x0c, 1, b'a']).unwrap();
            der[at + 2] = b'b';
            assert_eq!(told(&der), failed, "{name}");
        }
    }

    #[test]
    fn some_ways_to_sign_do_not_count() {
        for (name, why) in [
            ("p224-sha256", UNKNOWN),
            ("pss-2048-salt20", UNKNOWN),
            ("k256-sha256", "x509: unsupported elliptic curve"),
            (
                "rsa-512-sha256",
                "crypto/rsa: 512-bit keys are insecure (see https://go.dev/pkg/crypto/rsa#hdr-Minimum_key_size)",
            ),
            ("rsa-1024-md5", "x509: cannot verify signature: insecure algorithm MD5-RSA"),
        ] {
            assert_eq!(told(&signed(name)), why, "{name}");
        }
        // A signature of another kind than the key.
        let mut der = signed("ed25519");
        let at = der.windows(3).rposition(|found| found == [0x2b, 0x65, 0x70]).unwrap();
        der[at + 2] = 0x71;
        assert_eq!(told(&der), UNKNOWN);
        let mut der = signed("p256-sha512");
        let curve = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x04];
        let at = der.windows(curve.len()).rposition(|found| found == curve).unwrap();
        der[at..at + curve.len()].copy_from_slice(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x05]);
        assert_eq!(told(&der), UNKNOWN);
    }

    #[test]
    fn what_is_no_request_is_told_so() {
        let none = "PEM block type must be CERTIFICATE REQUEST";
        assert_eq!(check(""), Err(none.to_owned()));
        assert_eq!(told_as("NEW CERTIFICATE REQUEST", &signed("ed25519")), none);
        let good = signed("ed25519");
        assert_eq!(told(&[&good[..], &[0]].concat()), "asn1: syntax error: trailing data");
        assert_eq!(told(&good[..good.len() - 1]), "asn1: syntax error: data truncated");
        assert_eq!(told(&[]), "asn1: syntax error: sequence truncated");
        assert_eq!(told(&[0x30]), "asn1: syntax error: truncated tag or length");
        assert_eq!(told(&[0x30, 0x82, 1]), "asn1: syntax error: truncated tag or length");
        assert_eq!(told(&[0x30, 0x80]), "asn1: syntax error: indefinite length found (not DER)");
        assert_eq!(told(&[0x30, 0x85, 1, 1, 1, 1, 1]), "asn1: structure error: length too large");
        assert_eq!(told(&[0x30, 0x84, 255, 255, 255, 255]), "asn1: syntax error: data truncated");
        let other = "asn1: structure error: tags don't match (16 vs {class:0 tag:2 length:1 isCompound:false}) ";
        let told_of = told(&[2, 1, 0]);
        assert!(told_of.starts_with(other) && told_of.ends_with(" certificateRequest @2"), "{told_of}");
        assert_eq!(told(&[0x30, 0]), "x509: malformed certificate request");
    }

    #[test]
    fn a_request_cut_short_or_changed_anywhere_is_refused() {
        let good = signed("p256-sha512");
        for end in 0..good.len() {
            assert_ne!(told(&good[..end]), "");
        }
        for at in 0..good.len() {
            let mut der = good.clone();
            der[at] ^= 0xff;
            assert_ne!(told(&der), "", "{at}");
        }
    }
}
