//! Addresses and ranges of them (apimachinery `util/validation/ip.go`).

use ipnet::IpNet;
use std::net::IpAddr;

const NO_IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
const NO_RANGE: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

/// An IP address in one of its forms (`IsValidIPForLegacyField`, strictly as since v1.36).
pub fn ip(text: &str) -> Vec<String> {
    let told = match (text.parse::<IpAddr>(), sloppy_ip(text)) {
        (_, None) => NO_IP,
        (Err(_), Some(_)) => "must not have leading 0s",
        (Ok(ip), _) if is_mapped(ip) => "must not be an IPv4-mapped IPv6 address",
        _ => return Vec::new(),
    };
    vec![told.into()]
}

/// An IP address in the form that it is printed in (`IsValidIP`).
pub fn canonical_ip(text: &str) -> Vec<String> {
    let told = ip(text);
    match text.parse::<IpAddr>() {
        Ok(ip) if told.is_empty() && ip.to_string() != text => vec![format!("must be in canonical form (\"{ip}\")")],
        _ => told,
    }
}

/// A range of addresses in one of its forms (`IsValidCIDRForLegacyField`, strictly as since v1.36).
pub fn cidr(text: &str) -> Vec<String> {
    let told = match (strict_cidr(text), sloppy_cidr(text)) {
        (_, None) => NO_RANGE,
        (None, Some(_)) => "must not have leading 0s in IP or prefix length",
        (Some(range), _) if is_mapped(range.addr()) => "must not have an IPv4-mapped IPv6 address",
        (Some(range), _) if range.addr() != range.network() => "must not have bits set beyond the prefix length",
        _ => return Vec::new(),
    };
    vec![told.into()]
}

/// A range of addresses in the form that it is printed in (`IsValidCIDR`).
pub fn canonical_cidr(text: &str) -> Vec<String> {
    let told = cidr(text);
    match strict_cidr(text) {
        Some(range) if told.is_empty() && range.to_string() != text => {
            vec![format!("must be in canonical form (\"{range}\")")]
        }
        _ => told,
    }
}

/// What is told of an address that is taken, though not in the form that will be the only one (`GetWarningsForIP`); of what is
/// none nothing is.
pub fn unusual_ip(text: &str) -> Option<String> {
    let ip = sloppy_ip(text)?;
    if text.parse::<IpAddr>().is_err() || is_mapped(ip) {
        let plain = ip.to_canonical().to_string();
        let when = "will be considered invalid in a future Kubernetes release";
        return Some(format!("non-standard IP address {text:?} {when}: use {plain:?}"));
    }
    let plain = ip.to_string();
    (ip.is_ipv6() && plain != text)
        .then(|| format!("IPv6 address {text:?} should be in RFC 5952 canonical format ({plain:?})"))
}

/// The same of a range of addresses (`GetWarningsForCIDR`).
pub fn unusual_cidr(text: &str) -> Vec<String> {
    let Some(range) = sloppy_cidr(text) else { return Vec::new() };
    let network = unmapped(range.trunc()).to_string();
    let mut told = Vec::new();
    if range.addr() != range.network() {
        // The length is that of the address as it is written, also where an IPv4 one is mapped.
        let alone = format!("{}/{}", range.addr().to_canonical(), range.max_prefix_len());
        told.push(format!("CIDR value {text:?} is ambiguous in this context (should be {network:?} or {alone:?}?)"));
    }
    if strict_cidr(text).is_none() || is_mapped(range.addr()) {
        let when = "will be considered invalid in a future Kubernetes release";
        told.push(format!("non-standard CIDR value {text:?} {when}: use {network:?}"));
    }
    let plain = range.to_string();
    if told.is_empty() && range.addr().is_ipv6() && plain != text {
        told.push(format!("IPv6 CIDR value {text:?} should be in RFC 5952 canonical format ({plain:?})"));
    }
    told
}

/// The range of IPv4 that a range of mapped addresses is.
fn unmapped(range: IpNet) -> IpNet {
    const PREFIX: u8 = 96;
    let inner = range.prefix_len().checked_sub(PREFIX).filter(|_| is_mapped(range.addr()));
    inner.and_then(|length| IpNet::new(range.addr().to_canonical(), length).ok()).unwrap_or(range)
}

fn is_mapped(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some())
}

/// Reads an address as Go did before 1.17, which let parts of IPv4 addresses begin with zeros (utils `ParseIPSloppy`).
pub fn sloppy_ip(text: &str) -> Option<IpAddr> {
    if let Ok(ip) = text.parse() {
        return Some(ip);
    }
    let dotted = text.rfind(':').map_or(0, |at| at + 1);
    let parts = text[dotted..].split('.').map(|part| match part.trim_start_matches('0') {
        "" if !part.is_empty() => "0",
        rest => rest,
    });
    (text[dotted..].contains('.'))
        .then(|| format!("{}{}", &text[..dotted], parts.collect::<Vec<_>>().join(".")).parse().ok())?
}

/// Reads a range in the same way (utils `ParseCIDRSloppy`).
pub fn sloppy_cidr(text: &str) -> Option<IpNet> {
    let (ip, length) = text.split_once('/')?;
    let is_number = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
    IpNet::new(sloppy_ip(ip)?, length.parse().ok().filter(|_| is_number)?).ok()
}

fn strict_cidr(text: &str) -> Option<IpNet> {
    let (ip, length) = text.split_once('/')?;
    let has_zeros = length.len() > 1 && length.starts_with('0');
    sloppy_cidr(text).filter(|_| !has_zeros && ip.parse::<IpAddr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZEROS: &str = "must not have leading 0s";
    const MAPPED: &str = "must not be an IPv4-mapped IPv6 address";

    #[test]
    fn addresses_in_every_form() {
        for (text, any, canonical) in [
            ("10.0.0.1", "", ""),
            ("fd00::1", "", ""),
            ("FD00::1", "", "must be in canonical form (\"fd00::1\")"),
            ("fd00:0::1", "", "must be in canonical form (\"fd00::1\")"),
            ("::ffff:1.2.3.4", MAPPED, MAPPED),
            ("010.0.0.1", ZEROS, ZEROS),
            ("10.00.0.1", ZEROS, ZEROS),
            ("::ffff:01.2.3.4", ZEROS, ZEROS),
            ("10.0.0", NO_IP, NO_IP),
            ("10..0.1", NO_IP, NO_IP),
            ("10.0.0.256", NO_IP, NO_IP),
            ("0010.0.0.256", NO_IP, NO_IP),
            ("fe80::1%eth0", NO_IP, NO_IP),
            ("", NO_IP, NO_IP),
        ] {
            assert_eq!((ip(text).concat(), canonical_ip(text).concat()), (any.into(), canonical.into()), "{text}");
        }
    }

    #[test]
    fn ranges_in_every_form() {
        let (zeros, bits) =
            ("must not have leading 0s in IP or prefix length", "must not have bits set beyond the prefix length");
        let mapped = "must not have an IPv4-mapped IPv6 address";
        for (text, any, canonical) in [
            ("10.0.0.0/8", "", ""),
            ("10.0.0.5/32", "", ""),
            ("10.0.0.5/8", bits, bits),
            ("10.0.0.0/08", zeros, zeros),
            ("010.0.0.0/8", zeros, zeros),
            ("FD00::/8", "", "must be in canonical form (\"fd00::/8\")"),
            ("::ffff:1.2.3.0/120", mapped, mapped),
            ("10.0.0.0/33", NO_RANGE, NO_RANGE),
            ("10.0.0.0/+8", NO_RANGE, NO_RANGE),
            ("10.0.0.0", NO_RANGE, NO_RANGE),
            ("/8", NO_RANGE, NO_RANGE),
        ] {
            assert_eq!((cidr(text).concat(), canonical_cidr(text).concat()), (any.into(), canonical.into()), "{text}");
        }
    }

    #[test]
    fn addresses_that_will_be_written_otherwise() {
        let old = |text: &str, plain: &str| {
            format!(
                "non-standard IP address \"{text}\" will be considered invalid in a future Kubernetes release: use \"{plain}\""
            )
        };
        let long = |text: &str, plain: &str| {
            format!("IPv6 address \"{text}\" should be in RFC 5952 canonical format (\"{plain}\")")
        };
        for (text, told) in [
            ("10.0.0.1", None),
            ("fd00::1", None),
            ("010.0.00.1", Some(old("010.0.00.1", "10.0.0.1"))),
            ("::ffff:1.2.3.4", Some(old("::ffff:1.2.3.4", "1.2.3.4"))),
            ("::FFFF:01.2.3.4", Some(old("::FFFF:01.2.3.4", "1.2.3.4"))),
            ("FD00:0::1", Some(long("FD00:0::1", "fd00::1"))),
            ("::1.2.3.4", Some(long("::1.2.3.4", "::102:304"))),
            ("10.0.0", None),
            ("fe80::1%eth0", None),
            ("example.com", None),
            ("", None),
        ] {
            assert_eq!(unusual_ip(text), told, "{text}");
        }
    }

    #[test]
    fn ranges_that_will_be_written_otherwise() {
        let unclear = |text: &str, network: &str, alone: &str| {
            format!("CIDR value \"{text}\" is ambiguous in this context (should be \"{network}\" or \"{alone}\"?)")
        };
        let old = |text: &str, plain: &str| {
            format!(
                "non-standard CIDR value \"{text}\" will be considered invalid in a future Kubernetes release: use \"{plain}\""
            )
        };
        let long = |text: &str, plain: &str| {
            format!("IPv6 CIDR value \"{text}\" should be in RFC 5952 canonical format (\"{plain}\")")
        };
        for (text, told) in [
            ("10.0.0.0/8", vec![]),
            ("fd00::/8", vec![]),
            ("1.2.3.4/24", vec![unclear("1.2.3.4/24", "1.2.3.0/24", "1.2.3.4/32")]),
            ("fd00::1/64", vec![unclear("fd00::1/64", "fd00::/64", "fd00::1/128")]),
            ("010.0.0.0/8", vec![old("010.0.0.0/8", "10.0.0.0/8")]),
            ("10.0.0.0/08", vec![old("10.0.0.0/08", "10.0.0.0/8")]),
            ("01.2.3.4/24", vec![unclear("01.2.3.4/24", "1.2.3.0/24", "1.2.3.4/32"), old("01.2.3.4/24", "1.2.3.0/24")]),
            ("::ffff:1.2.3.0/120", vec![old("::ffff:1.2.3.0/120", "1.2.3.0/24")]),
            (
                "::ffff:1.2.3.4/64",
                vec![unclear("::ffff:1.2.3.4/64", "::/64", "1.2.3.4/128"), old("::ffff:1.2.3.4/64", "::/64")],
            ),
            ("FD00::/8", vec![long("FD00::/8", "fd00::/8")]),
            ("FD00::1/8", vec![unclear("FD00::1/8", "fd00::/8", "fd00::1/128")]),
            ("10.0.0.0/33", vec![]),
            ("10.0.0.0", vec![]),
        ] {
            assert_eq!(unusual_cidr(text), told, "{text}");
        }
    }
}
