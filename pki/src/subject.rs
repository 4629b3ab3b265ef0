//! Subjects in several groups. rcgen's names hold each attribute once, so that what it makes for such a subject is signed once
//! more, with another name in it.

use rcgen::{KeyPair, SigningKey};
use x509_parser::asn1_rs::{FromDer, Header};

use crate::{Error, Subject, crypto};

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const UTF8_STRING: u8 = 0x0c;
const BIT_STRING: u8 = 0x03;
/// 2.5.4.3 and 2.5.4.10, with tag and length.
const COMMON_NAME: [u8; 5] = [0x06, 3, 0x55, 4, 3];
const ORGANIZATION: [u8; 5] = [0x06, 3, 0x55, 4, 10];

/// Where the subject stands in the part that is signed of a certificate (RFC 5280 section 4.1) …
pub(crate) const OF_CERTIFICATE: usize = 5;
/// … and of a request (RFC 2986 section 4).
pub(crate) const OF_REQUEST: usize = 1;

/// A certificate or a request with this subject, signed with the key that signed it before.
pub(crate) fn with_subject(der: &[u8], place: usize, subject: &Subject, key: &KeyPair) -> Result<Vec<u8>, Error> {
    let signed = replaced(der, place, &name(subject)).ok_or(Error::Invalid("signed document"))?;
    let signature = key.sign(&signed.content).map_err(crypto("sign"))?;
    let signature = tagged(BIT_STRING, &[&[0], &signature]);
    Ok(tagged(SEQUENCE, &[&signed.content, &signed.algorithm, &signature]))
}

/// What is signed, and by which algorithm.
struct Signed {
    content: Vec<u8>,
    algorithm: Vec<u8>,
}

fn replaced(der: &[u8], place: usize, name: &[u8]) -> Option<Signed> {
    let (content, rest) = first(inside(der)?)?;
    let (algorithm, _) = first(rest)?;
    let mut fields = Vec::new();
    let mut rest = inside(content)?;
    while !rest.is_empty() {
        let (field, others) = first(rest)?;
        fields.push(field);
        rest = others;
    }
    *fields.get_mut(place)? = name;
    Some(Signed { content: tagged(SEQUENCE, &fields), algorithm: algorithm.to_vec() })
}

/// The name as Go writes it: all organizations in one part, the common name in another (crypto/x509/pkix
/// `ToRDNSequence`).
fn name(subject: &Subject) -> Vec<u8> {
    let attribute = |kind: &[u8], text: &str| tagged(SEQUENCE, &[kind, &tagged(UTF8_STRING, &[text.as_bytes()])]);
    let mut groups: Vec<Vec<u8>> = subject.organizations.iter().map(|group| attribute(&ORGANIZATION, group)).collect();
    // The members of a set stand in order (X.690 section 11.6).
    groups.sort();
    let groups: Vec<&[u8]> = groups.iter().map(Vec::as_slice).collect();
    let common_name = attribute(&COMMON_NAME, &subject.common_name);
    tagged(SEQUENCE, &[&tagged(SET, &groups), &tagged(SET, &[&common_name])])
}

/// A value with its tag and length (X.690 section 8.1).
fn tagged(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut der = vec![tag];
    if length < 0x80 {
        der.push(length as u8);
    } else {
        let bytes = length.to_be_bytes();
        let bytes = &bytes[length.leading_zeros() as usize / 8..];
        // At most eight of them.
        der.push(0x80 | bytes.len() as u8);
        der.extend(bytes);
    }
    der.extend(parts.concat());
    der
}

/// The first value, and what comes after it.
fn first(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (rest, header) = Header::from_der(der).ok()?;
    let end = (der.len() - rest.len()).checked_add(header.length().definite().ok()?)?;
    der.split_at_checked(end)
}

/// What a value holds.
fn inside(der: &[u8]) -> Option<&[u8]> {
    Header::from_der(der).ok().map(|(content, _)| content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths() {
        assert_eq!(tagged(4, &[&[7; 3]])[..2], [4, 3]);
        assert_eq!(tagged(4, &[&[7; 127]])[..2], [4, 127]);
        assert_eq!(tagged(4, &[&[7; 128]])[..3], [4, 0x81, 128]);
        assert_eq!(tagged(4, &[&[7; 300], &[7; 1]])[..4], [4, 0x82, 1, 45]);
        let both = [tagged(4, &[&[7; 300]]), tagged(4, &[])].concat();
        let (value, rest) = first(&both).unwrap();
        assert_eq!((inside(value).unwrap(), rest), (&[7; 300][..], &[4, 0][..]));
        assert_eq!(first(&both[..200]), None);
    }
}
