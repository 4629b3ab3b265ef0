//! Whether a certificate and a private key belong together, in the words of Go's `tls.X509KeyPair`. What is told holds nothing
//! of the key but the labels of PEM blocks.

use super::certificate::next_block;
use super::request::{Curve, Key, bits, curve_of};
use aws_lc_rs::agreement;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use x509_parser::asn1_rs::{Any, Class, FromDer as _, Tag};
use x509_parser::prelude::X509Certificate;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

const NO_PAIR: &str = "tls: private key does not match public key";
const OTHER_TYPE: &str = "tls: private key type does not match public key type";

/// The lengths of RSA keys whose parts are checked against each other, in bits; of others the modulus alone counts.
const CHECKED_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Checks a certificate and its key, each PEM; of a chain the first certificate counts.
pub fn check(certificate: &[u8], key: &[u8]) -> Result<(), String> {
    let certificate = certificate_block(&String::from_utf8_lossy(certificate))?;
    let key = key_block(&String::from_utf8_lossy(key))?;
    let read = X509Certificate::from_der(&certificate);
    let (rest, certificate) = read.map_err(|_| "x509: malformed certificate".to_owned())?;
    if !rest.is_empty() {
        return Err("x509: trailing data".to_owned());
    }
    let info = certificate.public_key();
    let kind = Key::of(info)?;
    belong(&kind, info, &Private::read(&key)?)
}

/// The first certificate.
fn certificate_block(text: &str) -> Result<Vec<u8>, String> {
    let (mut rest, mut skipped) = (text, Vec::new());
    while let Some(block) = next_block(&mut rest) {
        if block.label == "CERTIFICATE" {
            return Ok(block.content);
        }
        skipped.push(block.label);
    }
    Err(match &*skipped {
        [] => "tls: failed to find any PEM data in certificate input".to_owned(),
        [one] if one.ends_with("PRIVATE KEY") => {
            "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have been switched".to_owned()
        }
        _ => format!(
            "tls: failed to find \"CERTIFICATE\" PEM block in certificate input after skipping PEM blocks of the following types: [{}]",
            skipped.join(" ")
        ),
    })
}

/// The first private key.
fn key_block(text: &str) -> Result<Vec<u8>, String> {
    let (mut rest, mut skipped) = (text, Vec::new());
    while let Some(block) = next_block(&mut rest) {
        if block.label == "PRIVATE KEY" || block.label.ends_with(" PRIVATE KEY") {
            return Ok(block.content);
        }
        skipped.push(block.label);
    }
    Err(match &*skipped {
        [] => "tls: failed to find any PEM data in key input".to_owned(),
        ["CERTIFICATE"] => "tls: found a certificate rather than a key in the PEM for the private key".to_owned(),
        _ => format!(
            "tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input after skipping PEM blocks of the following types: [{}]",
            skipped.join(" ")
        ),
    })
}

/// Whether the public key of a certificate is that of a private key.
fn belong(kind: &Key, info: &SubjectPublicKeyInfo, private: &Private) -> Result<(), String> {
    let public = &*info.subject_public_key.data;
    let same = match (kind, private) {
        (Key::Rsa { .. }, Private::Rsa { modulus }) => {
            matches!(info.parsed(), Ok(PublicKey::RSA(key)) if without_zeros(key.modulus) == modulus)
        }
        (Key::Curve(_), Private::Curve { point }) => point.as_ref().is_none_or(|point| point == public),
        (Key::Edwards, Private::Edwards { public: own }) => own == public,
        (Key::Other, _) => return Err("tls: unknown public key algorithm".to_owned()),
        _ => return Err(OTHER_TYPE.to_owned()),
    };
    if same { Ok(()) } else { Err(NO_PAIR.to_owned()) }
}

fn without_zeros(number: &[u8]) -> &[u8] {
    &number[number.iter().take_while(|byte| **byte == 0).count()..]
}

/// What tells a private key's public one.
enum Private {
    Rsa {
        modulus: Vec<u8>,
    },
    /// No point where none can be found.
    Curve {
        point: Option<Vec<u8>>,
    },
    Edwards {
        public: Vec<u8>,
    },
    /// A key that is for no signatures.
    Other,
}

impl Private {
    /// A key in any of the forms that there are (`parsePrivateKey`).
    fn read(der: &[u8]) -> Result<Self, String> {
        match pkcs1(der).or_else(|| pkcs8(der)).or_else(|| sec1(der, None)) {
            None => Err("tls: failed to parse private key".to_owned()),
            Some(Self::Other) => Err("tls: found unknown private key type in PKCS#8 wrapping".to_owned()),
            Some(key) => Ok(key),
        }
    }
}

/// The fields of a sequence, one after the other; what follows it is no matter.
struct Fields<'d>(&'d [u8]);

impl<'d> Fields<'d> {
    fn of(der: &'d [u8]) -> Option<Self> {
        Some(Self(Fields(der).take(Tag::Sequence)?))
    }

    fn next(&mut self) -> Option<Any<'d>> {
        let (rest, field) = Any::from_der(self.0).ok()?;
        self.0 = rest;
        Some(field)
    }

    /// The next one, which must be of this kind.
    fn take(&mut self, tag: Tag) -> Option<&'d [u8]> {
        let field = self.next()?;
        (field.class() == Class::Universal && field.tag() == tag).then_some(field.data)
    }
}

/// RFC 8017: version, modulus, exponents and the rest of it, and nothing behind.
fn pkcs1(der: &[u8]) -> Option<Private> {
    let (rest, _) = Any::from_der(der).ok()?;
    let mut fields = Fields::of(der).filter(|_| rest.is_empty())?;
    let version = fields.take(Tag::Integer)?;
    let numbers: Vec<&[u8]> = (0..8).map_while(|_| fields.take(Tag::Integer)).collect();
    let is_positive = |number: &&[u8]| number[..].first().is_some_and(|first| *first < 0x80);
    if !matches!(version, [0 | 1]) || numbers.len() < 8 || !numbers.iter().all(is_positive) {
        return None;
    }
    let modulus = without_zeros(numbers[0]).to_vec();
    if CHECKED_BITS.contains(&bits(&modulus)) && rsa::KeyPair::from_der(der).is_err() {
        return None;
    }
    Some(Private::Rsa { modulus })
}

/// RFC 5208: version, algorithm and a key in a form of its own.
fn pkcs8(der: &[u8]) -> Option<Private> {
    let mut fields = Fields::of(der)?;
    fields.take(Tag::Integer)?;
    let mut algorithm = Fields(fields.take(Tag::Sequence)?);
    let key = fields.take(Tag::OctetString)?;
    let oid = algorithm.next()?.oid().ok()?.to_id_string();
    let seed = || Fields(key).take(Tag::OctetString).filter(|seed| seed.len() == 32 && algorithm.0.is_empty());
    match &*oid {
        "1.2.840.113549.1.1.1" => pkcs1(key),
        "1.2.840.10045.2.1" => {
            let curve = algorithm.next().and_then(|parameters| parameters.oid().ok());
            sec1(key, curve.map(|curve| curve.to_id_string()))
        }
        "1.3.101.112" => {
            let pair = Ed25519KeyPair::from_seed_unchecked(seed()?).ok()?;
            Some(Private::Edwards { public: pair.public_key().as_ref().to_vec() })
        }
        "1.3.101.110" => seed().map(|_| Private::Other),
        _ => None,
    }
}

/// RFC 5915: version, the secret number, and the curve where it is not said outside.
fn sec1(der: &[u8], curve: Option<String>) -> Option<Private> {
    let mut fields = Fields::of(der)?;
    let version = fields.take(Tag::Integer)?;
    let secret = fields.take(Tag::OctetString).filter(|_| version == [1])?;
    let (mut own, mut public) = (None, None);
    while let Some(field) = fields.next().filter(|field| field.class() == Class::ContextSpecific) {
        match field.tag().0 {
            0 => own = Fields(field.data).next()?.oid().ok().map(|oid| oid.to_id_string()),
            1 => public = Fields(field.data).take(Tag::BitString),
            _ => {}
        }
    }
    let curve = curve_of(&curve.or(own)?)?;
    let (algorithm, length): (_, usize) = match curve {
        Curve::P256 => (&agreement::ECDH_P256, 32),
        Curve::P384 => (&agreement::ECDH_P384, 48),
        Curve::P521 => (&agreement::ECDH_P521, 66),
        // Nothing here computes on it: what the key says of itself has to do, behind the number of unused bits.
        Curve::P224 => return Some(Private::Curve { point: public.and_then(|bits| Some(bits.get(1..)?.to_vec())) }),
    };
    // Some have zeros before the number, or too few.
    let number = without_zeros(secret);
    let mut padded = vec![0; length.checked_sub(number.len())?];
    padded.extend_from_slice(number);
    let key = agreement::PrivateKey::from_private_key(algorithm, &padded).ok()?;
    Some(Private::Curve { point: Some(key.compute_public_key().ok()?.as_ref().to_vec()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    /// Certificates and keys of all kinds, as OpenSSL makes them; the keys are for these tests alone.
    fn der(name: &str) -> Vec<u8> {
        let found = include_str!("pairs.txt").lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        STANDARD.decode(found.unwrap()).unwrap()
    }

    fn pem(label: &str, der: &[u8]) -> String {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
    }

    fn told_of(certificate: &[u8], key: &[u8]) -> String {
        let (certificate, key) = (pem("CERTIFICATE", certificate), pem("PRIVATE KEY", key));
        check(certificate.as_bytes(), key.as_bytes()).err().unwrap_or_default()
    }

    fn told(certificate: &str, key: &str) -> String {
        told_of(&der(&format!("{certificate}.certificate")), &der(key))
    }

    #[test]
    fn pairs_belong_together() {
        for (name, form) in [
            ("rsa-2048", "pkcs1"),
            ("rsa-2048", "pkcs8"),
            ("rsa-1024", "pkcs8"),
            ("p224", "pkcs8"),
            ("p256", "sec1"),
            ("p256", "pkcs8"),
            ("p384", "pkcs8"),
            ("p521", "pkcs8"),
            ("ed25519", "pkcs8"),
        ] {
            assert_eq!(told(name, &format!("{name}.{form}")), "", "{name} {form}");
        }
        for (certificate, key, why) in [
            ("p256", "p256-other.pkcs8", NO_PAIR),
            ("p256", "p384.pkcs8", NO_PAIR),
            ("p224", "p256.sec1", NO_PAIR),
            ("rsa-2048", "rsa-1024.pkcs8", NO_PAIR),
            ("rsa-2048", "p256.sec1", OTHER_TYPE),
            ("p256", "rsa-2048.pkcs1", OTHER_TYPE),
            ("ed25519", "p256.pkcs8", OTHER_TYPE),
            ("p256", "x25519.pkcs8", "tls: found unknown private key type in PKCS#8 wrapping"),
            ("p256", "k256.pkcs8", "tls: failed to parse private key"),
            ("k256", "k256.pkcs8", "x509: unsupported elliptic curve"),
            ("ed448", "p256.pkcs8", "tls: unknown public key algorithm"),
        ] {
            assert_eq!(told(certificate, key), why, "{certificate} {key}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_told_so() {
        let (certificate, key) = (der("p256.certificate"), der("p256.pkcs8"));
        assert_eq!(told_of(&[&*certificate, &[0]].concat(), &key), "x509: trailing data");
        assert_eq!(told_of(&certificate[1..], &key), "x509: malformed certificate");
        for end in 0..key.len() {
            assert_eq!(told_of(&certificate, &key[..end]), "tls: failed to parse private key", "{end}");
        }
        // Parts of RSA keys belong together; their modulus is not all there is.
        let mut changed = der("rsa-2048.pkcs1");
        changed[600] ^= 1;
        assert_eq!(told_of(&der("rsa-2048.certificate"), &changed), "tls: failed to parse private key");
        for at in 0..changed.len() {
            let mut changed = der("rsa-2048.pkcs1");
            changed.truncate(at);
            assert_eq!(told_of(&der("rsa-2048.certificate"), &changed), "tls: failed to parse private key", "{at}");
        }
    }

    #[test]
    fn blocks_of_other_types_are_passed_over() {
        let (certificate, key) =
            (pem("CERTIFICATE", &der("p256.certificate")), pem("EC PRIVATE KEY", &der("p256.sec1")));
        let parameters = pem("EC PARAMETERS", &[6, 0]);
        let told =
            |certificate: &str, key: &str| check(certificate.as_bytes(), key.as_bytes()).err().unwrap_or_default();
        assert_eq!(told(&format!("{parameters}{certificate}{key}"), &format!("a\n{parameters}{key}{certificate}")), "");
        for (first, second, why) in [
            ("", &*key, "tls: failed to find any PEM data in certificate input"),
            (
                &*key,
                &*certificate,
                "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have been switched",
            ),
            (
                &format!("{parameters}{key}"),
                &key,
                "tls: failed to find \"CERTIFICATE\" PEM block in certificate input after skipping PEM blocks of the following types: [EC PARAMETERS EC PRIVATE KEY]",
            ),
            (&certificate, "", "tls: failed to find any PEM data in key input"),
            (&certificate, &certificate, "tls: found a certificate rather than a key in the PEM for the private key"),
            (
                &certificate,
                &parameters,
                "tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input after skipping PEM blocks of the following types: [EC PARAMETERS]",
            ),
        ] {
            assert_eq!(told(first, second), why);
        }
    }
}
