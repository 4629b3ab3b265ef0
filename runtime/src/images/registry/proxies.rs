//! Which requests go through a proxy (Go's `golang.org/x/net/http/httpproxy`, as containerd and dockerd use it).

use std::{env, net::IpAddr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::Uri;
use ipnet::IpNet;

/// Proxies by scheme, and what is reached without one.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    http: Option<Proxy>,
    https: Option<Proxy>,
    without: Vec<Without>,
    /// `NO_PROXY=*`
    none: bool,
}

/// A proxy. One whose address says nothing leads nowhere: what would go through it fails.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    pub kind: ProxyKind,
    pub address: Result<(String, u16), String>,
    /// As whom, and with which password.
    pub user: Option<(String, String)>,
}

/// How a proxy is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyKind {
    Http,
    /// The same through TLS.
    Https,
    /// `socks5://` and `socks5h://` are one: names are looked up there (Go's `net/http`, Transport.Proxy).
    Socks,
}

/// The password is a secret.
impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.address {
            Ok((host, port)) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Ok((host, port)) => write!(f, "{host}:{port}"),
            Err(error) => f.write_str(error),
        }
    }
}

#[derive(Clone, Debug)]
enum Without {
    Network(IpNet),
    /// An address, and its port if one is named.
    Address(IpAddr, Option<u16>),
    /// A domain with a dot before it; whether it is meant itself; its port if one is named.
    Domain(String, bool, Option<u16>),
}

impl Proxies {
    /// Those of `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`, or the same in small letters.
    pub fn from_environment() -> Proxies {
        let get = |name: &str| {
            let value = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
            value(name).or_else(|| value(&name.to_lowercase())).unwrap_or_default()
        };
        Proxies::new(&get("HTTP_PROXY"), &get("HTTPS_PROXY"), &get("NO_PROXY"))
    }

    /// By the values of the three variables.
    pub fn new(http: &str, https: &str, without: &str) -> Proxies {
        let words = || without.split(',').map(|word| word.trim().to_lowercase());
        Proxies {
            http: Proxy::parse(http),
            https: Proxy::parse(https),
            none: words().any(|word| word == "*"),
            without: words().filter_map(|word| Without::parse(&word)).collect(),
        }
    }

    /// The proxy that an address is reached through, if one is.
    pub fn of(&self, address: &Uri) -> Option<&Proxy> {
        let tls = address.scheme_str() == Some("https");
        let proxy = if tls { &self.https } else { &self.http }.as_ref()?;
        let host = address.host()?.trim_matches(['[', ']']).to_lowercase();
        let port = address.port_u16().unwrap_or(if tls { 443 } else { 80 });
        // To Go an IPv4 address is the same in IPv6's form.
        let ip = host.parse().ok().map(|ip: IpAddr| ip.to_canonical());
        let direct = self.none
            || host == "localhost"
            || ip.is_some_and(|ip| ip.is_loopback())
            || self.without.iter().any(|without| without.names(&host, ip, port));
        (!direct).then_some(proxy)
    }
}

impl Proxy {
    fn parse(text: &str) -> Option<Proxy> {
        let text = text.trim();
        if text.is_empty() {
            return None;
        }
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let known = match scheme.to_ascii_lowercase().as_str() {
            "http" => Some((ProxyKind::Http, 80)),
            "https" => Some((ProxyKind::Https, 443)),
            "socks5" | "socks5h" => Some((ProxyKind::Socks, 1080)),
            _ => None,
        };
        let (kind, port) = known.unwrap_or((ProxyKind::Http, 80));
        let rest = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (user, host) = rest.rsplit_once('@').map_or((None, rest), |(user, host)| (Some(user), host));
        let user = user.map(|user| {
            let (name, password) = user.split_once(':').unwrap_or((user, ""));
            (percent(name), percent(password))
        });
        let authority = host.parse::<http::uri::Authority>().ok().filter(|_| known.is_some());
        let address = authority
            .map(|authority| {
                (authority.host().trim_matches(['[', ']']).to_owned(), authority.port_u16().unwrap_or(port))
            })
            .ok_or_else(|| {
                format!("proxy {scheme}://{host}: neither http://, https:// nor socks5:// with a host's name")
            });
        Some(Proxy { kind, address, user })
    }

    /// The header that lets us in there, where it reads headers.
    pub fn authorization(&self) -> Option<String> {
        let (name, password) = self.user.as_ref().filter(|_| self.kind != ProxyKind::Socks)?;
        Some(format!("Basic {}", STANDARD.encode(format!("{name}:{password}"))))
    }
}

fn percent(text: &str) -> String {
    crate::docker::http::percent(text)
}

impl Without {
    fn parse(word: &str) -> Option<Without> {
        if let Ok(network) = word.parse() {
            return Some(Without::Network(network));
        }
        let (host, port) = match word.rsplit_once(':') {
            Some((host, "")) if !host.contains(':') || host.ends_with(']') => (host, None),
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port.parse().ok()?)),
            _ => (word, None),
        };
        let host = host.trim_matches(['[', ']']);
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Some(Without::Address(ip.to_canonical(), port));
        }
        let host = host.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(host);
        match host.strip_prefix('.') {
            _ if host.is_empty() => None,
            Some(_) => Some(Without::Domain(host.to_owned(), false, port)),
            None => Some(Without::Domain(format!(".{host}"), true, port)),
        }
    }

    fn names(&self, host: &str, ip: Option<IpAddr>, port: u16) -> bool {
        match self {
            Without::Network(network) => ip.is_some_and(|ip| network.contains(&ip)),
            Without::Address(own, named) => ip == Some(*own) && named.is_none_or(|named| named == port),
            Without::Domain(domain, itself, named) => {
                (host.ends_with(domain.as_str()) || *itself && host == &domain[1..])
                    && named.is_none_or(|named| named == port)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_read_as_go_reads_them() {
        let without = "10.0.0.0/8, .inner.org,example.com:8443,*.wild.net,192.168.1.1:81,::1/128,2001:db8::/32,any.net:,[2001:db9::1]:443,";
        let proxies = Proxies::new("proxy:3128", "http://u:p%40@[::2]:8080/", without);
        let of = |address: &str| proxies.of(&address.parse().unwrap()).map(|proxy| proxy.address.clone().unwrap().1);
        for (address, port) in [
            ("https://quay.io/v2/", Some(8080)),
            ("http://quay.io/v2/", Some(3128)),
            ("https://localhost:5000/", None),
            ("http://127.8.9.1/", None),
            ("https://[::1]/", None),
            ("https://10.1.2.3:443/", None),
            ("https://inner.org/", Some(8080)),
            ("https://a.inner.org/", None),
            ("https://example.com/", Some(8080)),
            ("https://example.com:8443/", None),
            ("https://b.example.com:8443/", None),
            ("https://wild.net/", Some(8080)),
            ("https://x.wild.net/", None),
            ("http://192.168.1.1/", Some(3128)),
            ("http://192.168.1.1:81/", None),
            ("https://[::ffff:10.1.2.3]/", None),
            ("https://[::ffff:127.0.0.1]/", None),
            ("https://[2001:db8:1::2]:5000/", None),
            ("https://[2001:db9::1]/", None),
            ("https://[2001:db9::1]:5000/", Some(8080)),
            ("https://any.net:5000/", None),
            ("https://10.org/", Some(8080)),
            ("https://notinner.org/", Some(8080)),
        ] {
            assert_eq!(of(address), port, "{address}");
        }
        let proxy = proxies.of(&"https://quay.io/".parse().unwrap()).unwrap();
        assert_eq!(proxy.authorization().as_deref(), Some("Basic dTpwQA=="));
        assert!(Proxies::new("a", "a", "x,*").of(&"http://quay.io/".parse().unwrap()).is_none());
        assert!(Proxies::new("a", "", "").of(&"https://quay.io/".parse().unwrap()).is_none());
        for (text, kind, address) in [
            ("proxy", ProxyKind::Http, Some(("proxy", 80))),
            ("HTTPS://u@proxy/", ProxyKind::Https, Some(("proxy", 443))),
            ("socks5://u:p@proxy", ProxyKind::Socks, Some(("proxy", 1080))),
            ("socks5h://[::2]:9050?x", ProxyKind::Socks, Some(("::2", 9050))),
            ("ftp://proxy", ProxyKind::Http, None),
        ] {
            let proxy = Proxy::parse(text).unwrap();
            let read = proxy.address.as_ref().ok().map(|(host, port)| (host.as_str(), *port));
            assert_eq!((proxy.kind, read), (kind, address), "{text}");
            // What is shown has no password, and a SOCKS proxy reads no header.
            assert!(!format!("{proxy:?}").contains("u:p") && proxy.authorization().is_some() == text.contains("u@"));
        }
    }
}
