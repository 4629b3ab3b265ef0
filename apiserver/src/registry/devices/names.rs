//! What things are named by: drivers, pools, devices, requests, attributes.

use crate::registry::fields::invalid_all;
use coracle_api::status::FieldPath;
use coracle_api::validation::DNS_SUBDOMAIN_MAX;
use coracle_api::{Cause, validation};

/// A driver has a name as those of CSI have.
pub use crate::registry::storage::driver_name as driver;

const IDENTIFIER_MAX: usize = 32;
/// The longest key of an attribute: a driver's name, a slash, and an identifier.
pub const KEY_MAX: usize = 63 + 1 + IDENTIFIER_MAX;

const NO_IDENTIFIER: &str = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')";

/// A name of one part: of devices, requests, counters.
pub fn label(name: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    invalid_all(path, name, validation::dns1123_label(name), causes);
}

/// Such a name that is not left out.
pub fn required_label(name: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    if name.is_empty() {
        causes.push(Cause::required(path, ""));
    } else {
        label(name, path, causes);
    }
}

/// The key of a label, a taint or a condition.
pub fn qualified(name: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    invalid_all(path, name, validation::qualified_name(name), causes);
}

/// The name of a DeviceClass where one is asked for.
pub fn class(name: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    if name.is_empty() {
        causes.push(Cause::required(path, ""));
    } else {
        subdomain(name, path, causes);
    }
}

/// The name of a node (core `ValidateNodeName`).
pub fn subdomain(name: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    invalid_all(path, name, validation::dns1123_subdomain(name), causes);
}

/// The name of a pool (`validatePoolName`).
pub fn pool(name: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    if name.is_empty() {
        causes.push(Cause::required(path, ""));
        return;
    }
    if name.len() > DNS_SUBDOMAIN_MAX {
        causes.push(Cause::too_long(path, DNS_SUBDOMAIN_MAX));
    }
    for part in name.split('/') {
        subdomain(part, path, causes);
    }
}

/// The key of an attribute or a capacity (`validateQualifiedName`, which lets names with two slashes through).
pub fn attribute(name: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    let Some((domain, id)) = name.split_once('/') else { return identifier(name, path, causes) };
    if id.contains('/') {
        return;
    }
    if domain.is_empty() {
        causes.push(Cause::invalid(path, "", "the domain must not be empty"));
    } else {
        driver(domain, path, causes);
    }
    if id.is_empty() {
        causes.push(Cause::invalid(path, "", "the name must not be empty"));
    } else {
        identifier(id, path, causes);
    }
}

/// The key of an attribute, whoever asks for it (`validateFullyQualifiedName`).
pub fn foreign_attribute(name: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    attribute(name, path, causes);
    if !name.contains('/') {
        let why = "a fully qualified name must be a domain and a name separated by a slash";
        causes.push(Cause::invalid(path, name, why));
    }
}

fn identifier(name: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    if name.len() > IDENTIFIER_MAX {
        causes.push(Cause::too_long(path, IDENTIFIER_MAX));
    }
    let formed = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !formed || !name.starts_with(|first: char| !first.is_ascii_digit()) {
        causes.push(Cause::invalid(path, name, NO_IDENTIFIER));
    }
}

/// A UID, in its usual form (`validateUID`).
pub fn uid(uid: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    if let Err(why) = any_uid(uid) {
        causes.push(Cause::invalid(path, uid, format!("error validating uid: {why}")));
    } else if uid.len() != 36 || uid.bytes().any(|byte| byte.is_ascii_uppercase()) {
        let why = "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal characters";
        causes.push(Cause::invalid(path, uid, why));
    }
}

/// A UID in any of its forms (google/uuid `Validate`).
fn any_uid(uid: &str) -> Result<(), String> {
    const URN: &str = "urn:uuid:";
    const WRONG: &str = "invalid UUID format";
    let bytes = uid.as_bytes();
    let dashed = match bytes.len() {
        36 => bytes,
        45 if bytes[..URN.len()].eq_ignore_ascii_case(URN.as_bytes()) => &bytes[URN.len()..],
        45 => return Err(format!("invalid urn prefix: {:?}", String::from_utf8_lossy(&bytes[..URN.len()]))),
        38 if bytes.starts_with(b"{") && bytes.ends_with(b"}") => &bytes[1..37],
        38 => return Err("invalid bracketed UUID format".to_owned()),
        32 if bytes.iter().all(u8::is_ascii_hexdigit) => return Ok(()),
        32 => return Err(WRONG.to_owned()),
        length => return Err(format!("invalid UUID length: {length}")),
    };
    let formed = dashed.iter().enumerate().all(|(nth, byte)| match nth {
        8 | 13 | 18 | 23 => *byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    });
    if formed { Ok(()) } else { Err(WRONG.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(check: fn(&str, &FieldPath, &mut Vec<Cause>), name: &str) -> Vec<String> {
        let mut causes = Vec::new();
        check(name, &FieldPath::new("n"), &mut causes);
        causes.into_iter().map(|cause| cause.message).collect()
    }

    #[test]
    fn pools_are_subdomains_between_slashes() {
        assert!(told(pool, "a.b/c").is_empty());
        assert_eq!(told(pool, ""), ["Required value"]);
        assert_eq!(told(pool, "a//_").len(), 2);
        assert_eq!(told(pool, &"a/".repeat(127))[0], "Too long: may not be more than 253 bytes");
    }

    #[test]
    fn attributes_are_identifiers_of_a_domain_or_of_the_driver() {
        for name in ["_a1", "Model", "a.b/model", &format!("{}/a", "d".repeat(63)), "a/b/c"] {
            assert!(told(attribute, name).is_empty(), "{name}");
        }
        let no_identifier = |name: &str| format!("Invalid value: {name:?}: {NO_IDENTIFIER}");
        for name in ["1a", "a-b", ""] {
            assert_eq!(told(attribute, name), [no_identifier(name)]);
        }
        assert_eq!(told(attribute, "a/b.c"), [no_identifier("b.c")]);
        assert_eq!(
            told(attribute, "/"),
            ["Invalid value: \"\": the domain must not be empty", "Invalid value: \"\": the name must not be empty"]
        );
        assert_eq!(told(attribute, &"a".repeat(33)), ["Too long: may not be more than 32 bytes"]);
        assert_eq!(told(attribute, &format!("{}/a", "d".repeat(64))), ["Too long: may not be more than 63 bytes"]);
        let no_domain = "a fully qualified name must be a domain and a name separated by a slash";
        assert_eq!(told(foreign_attribute, "model"), [format!("Invalid value: \"model\": {no_domain}")]);
        assert!(told(foreign_attribute, "a.b/model").is_empty());
    }

    #[test]
    fn uids_stand_in_their_usual_form() {
        const UID: &str = "0a1b2c3d-0000-4000-8000-00000000000f";
        assert!(told(uid, UID).is_empty());
        for (name, why) in [
            ("a", "invalid UUID length: 1"),
            (&UID.replace('-', "_"), "invalid UUID format"),
            (&UID.replace('f', "g"), "invalid UUID format"),
            (&format!("urn_uuid:{UID}"), "invalid urn prefix: \"urn_uuid:\""),
            (&format!("({UID})"), "invalid bracketed UUID format"),
            (&"g".repeat(32), "invalid UUID format"),
        ] {
            assert_eq!(told(uid, name), [format!("Invalid value: {name:?}: error validating uid: {why}")]);
        }
        for name in [UID.to_uppercase(), format!("URN:uuid:{UID}"), format!("{{{UID}}}"), "a".repeat(32)] {
            let told = told(uid, &name);
            assert!(told[0].contains("RFC 4122 normalized form"), "{told:?}");
        }
    }
}
