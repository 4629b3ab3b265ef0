//! Where a pod's names are looked up (core `validatePodDNSConfig`), and what the pod itself is called.

use crate::registry::fields::{invalid_all, items, text};
use coracle_api::json::Value;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};

const SERVERS: usize = 3;
const SEARCHES: usize = 32;
const SEARCH_CHARACTERS: usize = 2048;

/// How long a name is that a kernel takes for its host.
const HOSTNAME_MAX: usize = 64;

pub fn validate(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let (config, own) = (&spec["dnsConfig"], text(spec, "dnsPolicy") == "None");
    if config.is_null() && !own {
        return;
    }
    let path = path.child("dnsConfig");
    if config.is_null() {
        causes.push(Cause::required(&path, "must provide `dnsConfig` when `dnsPolicy` is None"));
        return;
    }
    let (servers, at) = (items(config, "nameservers"), path.child("nameservers"));
    if own && servers.is_empty() {
        let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        causes.push(Cause::required(&at, why));
        return;
    }
    if servers.len() > SERVERS {
        let why = format!("must not have more than {SERVERS} nameservers");
        causes.push(Cause::invalid(&at, servers.to_vec(), why));
    }
    for (nth, ip) in servers.iter().filter_map(Value::as_str).enumerate() {
        invalid_all(&at.index(nth), ip, validation::ip(ip), causes);
    }
    searches(items(config, "searches"), &path.child("searches"), causes);
    for (nth, option) in items(config, "options").iter().enumerate() {
        if text(option, "name").is_empty() {
            causes.push(Cause::required(&path.child("options").index(nth), "must not be empty"));
        }
    }
}

fn searches(searches: &[Value], path: &FieldPath, causes: &mut Vec<Cause>) {
    if searches.len() > SEARCHES {
        let why = format!("must not have more than {SEARCHES} search paths");
        causes.push(Cause::invalid(path, searches.to_vec(), why));
    }
    let names = || searches.iter().filter_map(Value::as_str);
    let blanks = searches.len().saturating_sub(1);
    if names().map(str::len).sum::<usize>() + blanks > SEARCH_CHARACTERS {
        let why =
            format!("must not have more than {SEARCH_CHARACTERS} characters (including spaces) in the search list");
        causes.push(Cause::invalid(path, searches.to_vec(), why));
    }
    for (nth, name) in names().enumerate().filter(|(_, name)| *name != ".") {
        let name = name.strip_suffix('.').unwrap_or(name);
        invalid_all(&path.index(nth), name, domain(name), causes);
    }
}

/// A domain, whose labels may begin with one underscore and hold more (apimachinery `IsDNS1123SubdomainWithUnderscore`, KEP-4427).
fn domain(name: &str) -> Vec<String> {
    let label = |label: &str| {
        let bytes = label.strip_prefix('_').unwrap_or(label).as_bytes();
        let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        bytes.first().is_some_and(plain)
            && bytes.last().is_some_and(plain)
            && bytes.iter().all(|byte| plain(byte) || matches!(byte, b'-' | b'_'))
    };
    let mut told = Vec::new();
    if name.len() > validation::DNS_SUBDOMAIN_MAX {
        told.push(format!("must be no more than {} characters", validation::DNS_SUBDOMAIN_MAX));
    }
    if !name.split('.').all(label) {
        told.push("a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*')".into());
    }
    told
}

/// A name in the place of the one that follows from hostname and subdomain (core `validatePodHostName`, KEP-4762).
pub fn hostname_override(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let Some(name) = spec.get("hostnameOverride").and_then(Value::as_str) else { return };
    let path = path.child("hostnameOverride");
    for field in ["setHostnameAsFQDN", "hostNetwork"] {
        if spec[field] == true {
            causes.push(Cause::forbidden(&path, format!("may not be specified when {field} is true")));
        }
    }
    if name.len() > HOSTNAME_MAX {
        causes.push(Cause::too_long(&path, HOSTNAME_MAX));
    }
    invalid_all(&path, name, validation::dns1123_subdomain(name), causes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    fn told(spec: Value, check: impl Fn(&Value, &FieldPath, &mut Vec<Cause>)) -> Vec<String> {
        let mut causes = Vec::new();
        check(&spec, &FieldPath::new("spec"), &mut causes);
        causes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn domains_may_hold_underscores() {
        for (name, good) in [
            ("a", true),
            ("_a.b_c", true),
            ("_sip._tcp.example.com.", true),
            (".", true),
            ("__a", false),
            ("a_", false),
            ("a_.b", false),
            ("", false),
            ("A", false),
            ("a..b", false),
        ] {
            let causes = told(json!({"dnsConfig": {"searches": [name]}}), validate);
            assert_eq!(causes.is_empty(), good, "{name}: {causes:?}");
        }
        let causes = told(json!({"dnsConfig": {"searches": ["a_."]}}), validate);
        assert!(
            causes[0].starts_with("spec.dnsConfig.searches[0]: Invalid value: \"a_\": a lowercase RFC"),
            "{causes:?}"
        );
        assert!(causes[0].contains("'_', '-' or '.'"), "{causes:?}");
    }

    #[test]
    fn searches_are_few_and_short() {
        let of = |names: Vec<String>| told(json!({"dnsConfig": {"searches": names}}), validate);
        let name = |length: usize| "a".repeat(length);
        assert!(of(vec![name(99); 20]).is_empty());
        assert_eq!(of(vec![name(200); 11]).len(), 1);
        assert_eq!(of(vec![name(1); 33]).len(), 1);
        assert_eq!(
            of(vec![name(254)]),
            [format!(
                "spec.dnsConfig.searches[0]: Invalid value: \"{}\": must be no more than 253 characters",
                name(254)
            )]
        );
    }

    #[test]
    fn a_name_in_the_place_of_another_fits_a_host() {
        let path = "spec.hostnameOverride";
        assert!(told(json!({"hostnameOverride": "a.b"}), hostname_override).is_empty());
        assert_eq!(
            told(json!({"hostnameOverride": "a", "hostNetwork": true, "setHostnameAsFQDN": true}), hostname_override),
            [
                format!("{path}: Forbidden: may not be specified when setHostnameAsFQDN is true"),
                format!("{path}: Forbidden: may not be specified when hostNetwork is true"),
            ]
        );
        let long = "a".repeat(63) + ".b";
        assert_eq!(
            told(json!({"hostnameOverride": long}), hostname_override),
            [format!("{path}: Too long: may not be more than 64 bytes")]
        );
        assert_eq!(told(json!({"hostnameOverride": ""}), hostname_override).len(), 1);
    }
}
