//! The string formats that schemas name (kube-openapi `strfmt`). A format that is not known accepts everything.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coracle_api::{clock, validation};
use regex::Regex;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::LazyLock;

/// Whether a text has a format. Dashes in a format's name count for nothing.
pub fn matches(format: &str, text: &str) -> bool {
    if format.contains('-') {
        return matches(&format.replace('-', ""), text);
    }
    match format {
        // The letters may be small ones (RFC 3339 section 5.6).
        "datetime" => clock::parse_rfc3339(&text.to_ascii_uppercase()).is_some(),
        "date" => text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok(),
        "duration" => duration(text).is_some(),
        "email" => email(text),
        "hostname" => hostname(text),
        "ipv4" => ipv4(text),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => cidr(text),
        "mac" => mac(text),
        "uuid" => uuid(text, None),
        "uuid3" => uuid(text, Some('3')),
        "uuid4" => uuid(text, Some('4')),
        "uuid5" => uuid(text, Some('5')),
        "uri" => {
            text.parse::<http::Uri>().is_ok_and(|uri| uri.scheme().is_some() || text.starts_with('/')) || absolute(text)
        }
        "byte" => {
            !text.is_empty()
                && STANDARD.decode(text.bytes().filter(|b| !matches!(b, b'\r' | b'\n')).collect::<Vec<_>>()).is_ok()
        }
        "bsonobjectid" => text.len() == 24 && hexadecimal(text),
        "hexcolor" => text.strip_prefix('#').is_some_and(|rest| matches!(rest.len(), 3 | 6) && hexadecimal(rest)),
        "rgbcolor" => rgb(text),
        "isbn" => isbn10(text) || isbn13(text),
        "isbn10" => isbn10(text),
        "isbn13" => isbn13(text),
        "creditcard" => luhn(text),
        "ssn" => ssn(text),
        "k8sshortname" => validation::dns1123_label(text).is_empty(),
        "k8slongname" => validation::dns1123_subdomain(text).is_empty(),
        _ => true,
    }
}

/// Whether a format is known, however its words are set apart.
pub fn is_known(format: &str) -> bool {
    const KNOWN: [&str; 26] = [
        "bsonobjectid",
        "uri",
        "email",
        "hostname",
        "ipv4",
        "ipv6",
        "cidr",
        "mac",
        "uuid",
        "uuid3",
        "uuid4",
        "uuid5",
        "isbn",
        "isbn10",
        "isbn13",
        "creditcard",
        "ssn",
        "hexcolor",
        "rgbcolor",
        "byte",
        "password",
        "date",
        "duration",
        "datetime",
        "k8sshortname",
        "k8slongname",
    ];
    KNOWN.contains(&format.replace('-', "").as_str())
}

/// Seconds of a Go duration (`1h2m3.5s`), or of all the amounts that stand in a text, with strfmt's longer units in any case
/// (`3 Days`); what stands between them is passed over.
pub fn duration(text: &str) -> Option<f64> {
    go_duration(text).or_else(|| amounts(text))
}

fn go_duration(text: &str) -> Option<f64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0.0);
    }
    let mut seconds = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        seconds += number
            * match &rest[..unit] {
                "ns" => 1e-9,
                "us" | "µs" | "μs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    Some(sign * seconds)
}

/// Of each unit its names, the last of which may go on: `hours`.
const UNITS: [(&[&str], f64); 8] = [
    (&["ns", "nano"], 1e-9),
    (&["us", "µs", "micro"], 1e-6),
    (&["ms", "milli"], 1e-3),
    (&["s", "sec"], 1.0),
    (&["m", "min"], 60.0),
    (&["h", "hr", "hour"], 3600.0),
    (&["d", "day"], 86_400.0),
    (&["w", "wk", "week"], 604_800.0),
];

fn amounts(text: &str) -> Option<f64> {
    let mut found = None;
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let number = &rest[start..];
        let (number, behind) = number.split_at(number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len()));
        let behind = behind.trim_start_matches([' ', '\t', '\n', '\x0c', '\r']);
        let is_letter = |c: char| c.is_ascii_alphabetic() || c == 'µ';
        let (unit, behind) = behind.split_at(behind.find(|c| !is_letter(c)).unwrap_or(behind.len()));
        rest = behind;
        if unit.is_empty() {
            continue;
        }
        // A number that is too large is none.
        let number: i64 = number.parse().ok()?;
        let unit = unit.to_ascii_lowercase();
        let is = |names: &[&str]| names.contains(&&*unit) || names.last().is_some_and(|last| unit.starts_with(last));
        if let Some((_, seconds)) = UNITS.iter().find(|(names, _)| is(names)) {
            *found.get_or_insert(0.0) += number as f64 * seconds;
        }
    }
    found
}

fn hexadecimal(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn email(text: &str) -> bool {
    let plain =
        |part: &str| !part.is_empty() && part.chars().all(|c| !c.is_whitespace() && !"<>()[],;:\\\"@".contains(c));
    text.rsplit_once('@').is_some_and(|(local, domain)| {
        plain(local) && plain(domain) && !local.starts_with('.') && !local.ends_with('.') && !local.contains("..")
    })
}

/// One label, or several of which the last is two letters or more (kube-openapi `strfmt`).
fn hostname(text: &str) -> bool {
    static HOSTNAME: LazyLock<Option<Regex>> = LazyLock::new(|| {
        let single = r"[a-zA-Z0-9\p{S}\p{L}]((-?[a-zA-Z0-9\p{S}\p{L}]{0,62})?)";
        let label = r"([a-zA-Z0-9\p{S}\p{L}](([a-zA-Z0-9\-\p{S}\p{L}]{0,61}[a-zA-Z0-9\p{S}\p{L}])?)(\.)){1,}";
        Regex::new(&format!(r"^({single}|{label}([a-zA-Z\p{{L}}]){{2,63}})$")).ok()
    });
    text.len() <= 255
        && text.split('.').all(|label| label.len() <= 63)
        && HOSTNAME.as_ref().is_some_and(|pattern| pattern.is_match(text))
}

/// An address whose parts may begin with zeros, as Kubernetes reads them everywhere.
fn ipv4(text: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_digit())
            && part.parse::<u64>().is_ok_and(|n| n <= 255)
    };
    text.split('.').count() == 4 && text.split('.').all(part)
}

fn cidr(text: &str) -> bool {
    text.split_once('/').is_some_and(|(address, length)| {
        let most = match address.parse() {
            Ok(IpAddr::V4(_)) => 32,
            Ok(IpAddr::V6(_)) => 128,
            Err(_) => return false,
        };
        length.bytes().all(|b| b.is_ascii_digit()) && length.parse::<u8>().is_ok_and(|length| length <= most)
    })
}

fn mac(text: &str) -> bool {
    [(':', 2), ('-', 2), ('.', 4)].iter().any(|(separator, digits)| {
        let parts: Vec<&str> = text.split(*separator).collect();
        matches!(parts.len() * digits, 12 | 16 | 40)
            && parts.iter().all(|part| part.len() == *digits && hexadecimal(part))
    })
}

fn uuid(text: &str, version: Option<char>) -> bool {
    let bare: String = text.chars().filter(|c| *c != '-').collect();
    let dashes = text.len() == 32 || text.len() == 36 && [8, 13, 18, 23].iter().all(|at| text.as_bytes()[*at] == b'-');
    let variant = version.is_none_or(|version| {
        bare.chars().nth(12) == Some(version)
            && (version == '3' || bare.chars().nth(16).is_some_and(|c| "89abAB".contains(c)))
    });
    dashes && bare.len() == 32 && hexadecimal(&bare) && variant
}

/// A URI with a scheme that the HTTP crate does not take, such as `urn:x` or `mailto:a@b`.
fn absolute(text: &str) -> bool {
    text.split_once(':').is_some_and(|(scheme, rest)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
            && !rest.is_empty()
            && !rest.contains(char::is_whitespace)
    })
}

fn rgb(text: &str) -> bool {
    text.strip_prefix("rgb(").and_then(|rest| rest.strip_suffix(')')).is_some_and(|rest| {
        let parts: Vec<&str> = rest.split(',').map(str::trim).collect();
        parts.len() == 3 && parts.iter().all(|part| part.parse::<u8>().is_ok())
    })
}

fn digits(text: &str) -> String {
    text.chars().filter(|c| !matches!(c, ' ' | '-')).collect()
}

fn isbn10(text: &str) -> bool {
    let text = digits(text);
    let value = |(at, c): (usize, char)| match c {
        'X' if at == 9 => Some(10),
        c => c.to_digit(10),
    };
    let values: Option<Vec<u32>> = text.chars().enumerate().map(value).collect();
    values.is_some_and(|values| {
        values.len() == 10 && values.iter().zip(1..).map(|(digit, weight)| digit * weight).sum::<u32>() % 11 == 0
    })
}

fn isbn13(text: &str) -> bool {
    let values: Option<Vec<u32>> = digits(text).chars().map(|c| c.to_digit(10)).collect();
    values.is_some_and(|values| {
        values.len() == 13
            && values.iter().zip([1, 3].iter().cycle()).map(|(digit, weight)| digit * weight).sum::<u32>() % 10 == 0
    })
}

fn luhn(text: &str) -> bool {
    let values: Option<Vec<u32>> = digits(text).chars().map(|c| c.to_digit(10)).collect();
    values.is_some_and(|values| {
        let sum: u32 = values
            .iter()
            .rev()
            .enumerate()
            .map(|(at, digit)| if at % 2 == 1 { (digit * 2) / 10 + (digit * 2) % 10 } else { *digit })
            .sum();
        (13..=16).contains(&values.len()) && sum.is_multiple_of(10)
    })
}

fn ssn(text: &str) -> bool {
    let parts: Vec<&str> = text.split(['-', ' ']).collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    lengths == [3, 2, 4] && parts.iter().all(|part| part.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        let rows = [
            ("date-time", "2026-01-01T00:00:00Z", "2026-01-01"),
            ("date", "2026-01-31", "2026-02-31"),
            ("duration", "1h2m3.5s", "1x"),
            ("duration", "3 Days", "Days"),
            ("duration", "about 2hours and 5 MIN", "2.s.x"),
            ("datetime", "2026-01-01T00:00:00Z", "2026-01-01"),
            ("email", "a@b.c", "a b@c"),
            ("hostname", "a-b.example", "-a"),
            ("hostname", "localhost", "a.b"),
            ("hostname", "münchen.de", "a_b.example"),
            ("ipv4", "1.2.3.4", "1.2.3"),
            ("ipv4", "01.2.3.4", "1.2.3.256"),
            ("date-time", "2026-01-01t00:00:00z", "2026-01-01 00:00:00Z"),
            ("mac", "0011.2233.4455", "0011.2233"),
            ("byte", "YWI=", ""),
            ("ipv6", "::1", "1.2.3.4"),
            ("cidr", "10.0.0.0/8", "10.0.0.0/33"),
            ("mac", "00:11:22:33:44:55", "00:11"),
            ("uuid", "123e4567-e89b-12d3-a456-426614174000", "123e4567"),
            ("uuid4", "123e4567-e89b-42d3-a456-426614174000", "123e4567-e89b-12d3-a456-426614174000"),
            ("uri", "https://a.b/c", "a b"),
            ("uri", "urn:isbn:1", ""),
            ("byte", "YQ==", "%"),
            ("hexcolor", "#fff", "fff"),
            ("rgbcolor", "rgb(1, 2,3)", "rgb(1,2)"),
            ("isbn", "978-3-16-148410-0", "978-3-16-148410-1"),
            ("isbn10", "0-306-40615-2", "0-306-40615-3"),
            ("creditcard", "4111 1111 1111 1111", "4111 1111 1111 1112"),
            ("ssn", "111-22-3333", "1-2-3"),
        ];
        for (format, yes, no) in rows {
            assert!(matches(format, yes), "{format} {yes}");
            assert!(!matches(format, no), "{format} {no}");
        }
        assert!(matches("unheard-of", "x"));
    }
}
