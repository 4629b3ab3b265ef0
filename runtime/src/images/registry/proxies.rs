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

/// An HTTP proxy. Others (https, socks5) are not spoken: what would go through one fails.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    pub address: Result<(String, u16), String>,
    /// The header that lets us in there.
    pub authorization: Option<String>,
}

/// The header is a secret.
impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.address)
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
        let host = address.host()?.trim_matches(['[', ']']).trim_end_matches('.').to_lowercase();
        let port = address.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let ip = host.parse::<IpAddr>().ok();
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
        let rest = rest.split('/').next().unwrap_or_default();
        let (user, host) = rest.rsplit_once('@').map_or((None, rest), |(user, host)| (Some(user), host));
        let authorization = user.map(|user| {
            let (name, password) = user.split_once(':').unwrap_or((user, ""));
            format!("Basic {}", STANDARD.encode(format!("{}:{}", percent(name), percent(password))))
        });
        let authority = host.parse::<http::uri::Authority>().ok().filter(|_| scheme == "http");
        let address = authority.map(|authority| {
            (authority.host().trim_matches(['[', ']']).to_owned(), authority.port_u16().unwrap_or(80))
        });
        let address = address.ok_or_else(|| format!("proxy {scheme}://{host}: only HTTP proxies are supported"));
        Some(Proxy { address, authorization })
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
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port.parse().ok()?)),
            _ => (word, None),
        };
        let host = host.trim_matches(['[', ']']);
        if let Ok(ip) = host.parse() {
            return Some(Without::Address(ip, port));
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
        let without = "10.0.0.0/8, .inner.org,example.com:8443,*.wild.net,192.168.1.1:81,::1/128,";
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
        ] {
            assert_eq!(of(address), port, "{address}");
        }
        let proxy = proxies.of(&"https://quay.io/".parse().unwrap()).unwrap();
        assert_eq!(proxy.authorization.as_deref(), Some("Basic dTpwQA=="));
        assert!(Proxies::new("a", "a", "x,*").of(&"http://quay.io/".parse().unwrap()).is_none());
        let socks = Proxies::new("socks5://a:1", "", "");
        assert!(socks.of(&"http://quay.io/".parse().unwrap()).unwrap().address.is_err());
        assert!(socks.of(&"https://quay.io/".parse().unwrap()).is_none());
    }
}
