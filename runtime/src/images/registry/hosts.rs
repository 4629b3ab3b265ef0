//! How registries are reached, from files (containerd's `docs/hosts.md` and `core/remotes/docker/config/hosts.go`).
//!
//! ```text
//! DIR/HOST/hosts.toml       HOST is `quay.io`, `127.0.0.1:5000` or `127.0.0.1_5000_`, or `_default` for all others
//! DIR/HOST/*.crt            certificate authorities, and
//! DIR/HOST/NAME.{cert,key}  a client's certificate, where there is no hosts.toml (Docker's form)
//! ```
//!
//! They are read for each pull and push: what is changed holds from the next on.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use http::{HeaderName, HeaderValue, Uri};
use toml_edit::{DocumentMut, Item, TableLike, Value};
use tracing::error;

use super::connect::{Pem, Transport};
use crate::{
    docker::system::go_duration,
    error::{Context, Error, Result},
    images::reference::Reference,
};

/// One server of a registry.
#[derive(Clone)]
pub(super) struct Host {
    /// `SCHEME://HOST/v2`, without a slash at its end.
    pub base: String,
    pub transport: Transport,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Whether it may say what a tag stands for, give out what is known by its digest, take what is pushed.
    pub resolve: bool,
    pub pull: bool,
    pub push: bool,
}

/// A registry's servers in the order in which they are asked, the registry itself last; none if nothing is said of it.
/// `own` is the registry itself where nothing else is said.
pub(super) fn find(dirs: &[PathBuf], reference: &Reference, own: &Host) -> Result<Option<Vec<Host>>> {
    let registry = &reference.registry;
    let underscored = registry.rsplit_once(':').map(|(host, port)| format!("{host}_{port}_"));
    let names = [underscored.as_deref(), Some(registry.as_str()), Some("_default")];
    for (dir, name) in dirs.iter().flat_map(|dir| names.iter().flatten().map(move |name| (dir, name))) {
        let dir = dir.join(name);
        let file = dir.join("hosts.toml");
        let said = match fs::read(&file) {
            Ok(bytes) if bytes.is_empty() => None,
            Ok(bytes) => match parse(&bytes, own) {
                Ok(said) => Some(said),
                // Not to be a reason for all of a node's pods to fail: it is as if it were not there (loadHostDir).
                Err(error) => {
                    error!("failed to decode {}, which is passed over: {error}", file.display());
                    None
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).context(format!("read {}", file.display())),
        };
        let said = match said {
            Some(said) => said,
            None if dir.is_dir() => vec![(own.clone(), certificates(&dir)?)],
            None => continue,
        };
        return said.into_iter().map(|(host, files)| files.read(host, &dir)).collect::<Result<_>>().map(Some);
    }
    Ok(None)
}

/// What a host needs besides, which is not looked at before it is known who is asked: a file that cannot be read fails the
/// pull.
#[derive(Default)]
struct Files {
    roots: Vec<PathBuf>,
    /// Certificates with their keys, which may be in the same file.
    clients: Vec<(PathBuf, Option<PathBuf>)>,
    headers: Vec<(String, String)>,
}

impl Files {
    fn read(&self, mut host: Host, dir: &Path) -> Result<Host> {
        let read = |path: &PathBuf| {
            let from = dir.join(path).display().to_string();
            // Not as if an image were not found.
            let text = fs::read(dir.join(path)).map_err(|error| Error::invalid(format!("read {from}: {error}")))?;
            Ok(Pem { from, text })
        };
        host.transport.roots = self.roots.iter().map(read).collect::<Result<_>>()?;
        for (certificate, key) in &self.clients {
            host.transport.identities.push((read(certificate)?, read(key.as_ref().unwrap_or(certificate))?));
        }
        for (name, value) in &self.headers {
            let bad = || Error::invalid(format!("header {name:?} is none"));
            host.headers.push((name.parse().map_err(|_| bad())?, value.parse().map_err(|_| bad())?));
        }
        Ok(host)
    }
}

/// The servers that a hosts.toml names. All that it says must be of the kind that containerd reads (`hostFileConfig`).
fn parse(bytes: &[u8], own: &Host) -> Result<Vec<(Host, Files)>> {
    let text = str::from_utf8(bytes).map_err(|error| Error::invalid(error.to_string()))?;
    let document: DocumentMut = text.parse().map_err(|error| Error::invalid(format!("{error}")))?;
    let top = document.as_table();
    let mut out = Vec::new();
    if let Some(hosts) = typed(top, "host", "tables", Item::as_table_like)? {
        for (address, item) in hosts.iter() {
            let table = item.as_table_like().ok_or_else(|| Error::invalid(format!("host {address:?} is no table")))?;
            out.push(host(Some(address), table, own)?);
        }
    }
    let server = typed(top, "server", "a text", Item::as_str)?.filter(|server| !server.is_empty());
    out.push(host(server, top, own)?);
    Ok(out)
}

/// A server at its address, or the registry itself as it is without one.
fn host(address: Option<&str>, table: &dyn TableLike, own: &Host) -> Result<(Host, Files)> {
    let override_path = typed(table, "override_path", "true or false", Item::as_bool)?.unwrap_or(false);
    let able = typed(table, "capabilities", "a list of words", list)?.unwrap_or_default();
    let able: Vec<String> = able.iter().map(|word| word.to_lowercase()).collect();
    if let Some(unknown) = able.iter().find(|word| !["pull", "resolve", "push"].contains(&word.as_str())) {
        return Err(Error::invalid(format!("unknown capability {unknown}")));
    }
    let files = files(table)?;
    let mut transport = own.transport.clone();
    if let Some(limit) =
        typed(table, "dial_timeout", "a text, as \"5s\"", Item::as_str)?.filter(|text| !text.is_empty())
    {
        // 0 has no unit.
        let nanoseconds = if limit == "0" { Some(0) } else { go_duration(limit) };
        let nanoseconds = nanoseconds.and_then(|count| u64::try_from(count).ok());
        let nanoseconds =
            nanoseconds.ok_or_else(|| Error::invalid(format!("dial_timeout: invalid duration {limit:?}")))?;
        transport.dial_limit = Some(Duration::from_nanos(nanoseconds));
    }
    let unverified = typed(table, "skip_verify", "true or false", Item::as_bool)?;
    let Some(address) = address else {
        // Whatever is said of what it can do: it is the only one that has everything (ConfigureHosts).
        transport.unverified |= unverified == Some(true);
        return Ok((Host { transport, ..own.clone() }, files));
    };
    transport.unverified = unverified == Some(true);
    let address = if address.contains("://") { address.to_owned() } else { format!("https://{address}") };
    let uri: Uri = address.parse().map_err(|_| Error::invalid(format!("{address:?} is not an address")))?;
    let (Some(scheme @ ("http" | "https")), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(Error::invalid(format!("{address:?} is not the address of a registry")));
    };
    let path = match uri.path().trim_end_matches('/') {
        path if override_path || path.ends_with("/v2") => path.to_owned(),
        path => format!("{path}/v2"),
    };
    // Who names none has all.
    let can = |what: &str| able.is_empty() || able.iter().any(|own| own == what);
    let base = format!("{scheme}://{authority}{path}");
    let (resolve, pull, push) = (can("resolve"), can("pull"), can("push"));
    Ok((Host { base, transport, headers: Vec::new(), resolve, pull, push }, files))
}

fn files(table: &dyn TableLike) -> Result<Files> {
    let mut out = Files::default();
    let names = typed(table, "ca", "a file or a list of them", texts)?.unwrap_or_default();
    out.roots = names.into_iter().map(PathBuf::from).collect();
    out.clients = typed(table, "client", "a file, or a list of files or of pairs of them", pairs)?.unwrap_or_default();
    let headers = typed(table, "header", "a table", Item::as_table_like)?;
    for (name, values) in headers.into_iter().flat_map(|table| table.iter()) {
        let values = texts(values).ok_or_else(|| Error::invalid(format!("header {name:?} is no text and no list")))?;
        out.headers.extend(values.into_iter().map(|value| (name.to_owned(), value)));
    }
    Ok(out)
}

/// What a key says, if it is there and of the right kind.
fn typed<'a, T>(
    table: &'a dyn TableLike,
    key: &str,
    kind: &str,
    read: impl FnOnce(&'a Item) -> Option<T>,
) -> Result<Option<T>> {
    let Some(item) = table.get(key) else { return Ok(None) };
    read(item).map(Some).ok_or_else(|| Error::invalid(format!("{key} must be {kind}")))
}

fn list(item: &Item) -> Option<Vec<String>> {
    item.as_array()?.iter().map(|text| text.as_str().map(str::to_owned)).collect()
}

/// One text or several.
fn texts(item: &Item) -> Option<Vec<String>> {
    item.as_str().map(|text| vec![text.to_owned()]).or_else(|| list(item))
}

/// `"FILE"`, `["FILE", …]` or `[["CERTIFICATE", "KEY"], …]`.
fn pairs(item: &Item) -> Option<Vec<(PathBuf, Option<PathBuf>)>> {
    if let Some(one) = item.as_str() {
        return Some(vec![(one.into(), None)]);
    }
    let pair = |entry: &Value| match (entry.as_str(), entry.as_array()) {
        (Some(one), _) => Some((one.into(), None)),
        (_, Some(pair)) if pair.len() == 2 => {
            Some((pair.get(0)?.as_str()?.into(), Some(pair.get(1)?.as_str()?.into())))
        }
        _ => None,
    };
    item.as_array()?.iter().map(pair).collect()
}

/// What lies in a directory without a hosts.toml.
fn certificates(dir: &Path) -> Result<Files> {
    let mut out = Files::default();
    let entries = fs::read_dir(dir).context(format!("read {}", dir.display()))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| !path.is_dir()).collect();
    paths.sort();
    for path in paths {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => out.roots.push(path),
            Some("cert") => {
                // Without one of its own the key is in the same file.
                let key = Some(path.with_extension("key")).filter(|key| key.exists());
                out.clients.push((path, key));
            }
            _ => {}
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(host: &str) -> Host {
        let (base, transport) = (format!("https://{host}/v2"), Transport::default());
        Host { base, transport, headers: Vec::new(), resolve: true, pull: true, push: true }
    }

    #[test]
    fn files_say_who_is_asked() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(
            "docker.io/hosts.toml",
            r#"
                ca = "own.crt"
                dial_timeout = "1m30s"
                [host."http://mirror.example:5000/proxy/"]
                capabilities = ["pull"]
                skip_verify = true
                client = [["own.crt", "own.crt"], "own.crt"]
                [host."http://mirror.example:5000/proxy/".header]
                x-who = ["us", "them"]
                [host."odd.example/api"]
                override_path = true
                capabilities = []
                dial_timeout = "0"
            "#,
        );
        write("docker.io/own.crt", "pem");
        write("plain_5000_/hosts.toml", "server = \"http://plain:5000\"");
        write("certified/ca.crt", "authority");
        write("certified/client.cert", "certificate");
        write("certified/client.key", "key");
        write("together/hosts.toml", "");
        write("together/client.cert", "both");
        write("broken/hosts.toml", "server = ");
        write("broken/ca.crt", "authority");
        for (name, text) in [
            ("late", "dial_timeout = \"5\""),
            ("able", "capabilities = [\"pul\"]"),
            ("kind", "skip_verify = \"yes\""),
            ("pair", "client = [[\"a\", \"b\", \"c\"]]"),
        ] {
            write(&format!("{name}/hosts.toml"), &format!("server = \"http://elsewhere\"\n{text}"));
        }
        write("gone/hosts.toml", "server = \"http://elsewhere\"\nca = \"gone.crt\"");
        let dirs = [dir.path().join("none"), dir.path().to_owned()];
        let find = |reference: &Reference| find(&dirs, reference, &own(reference.host()));
        let found = |name: &str| find(&name.parse().unwrap()).unwrap();
        let named = |name: &str| find(&Reference { registry: name.into(), ..("localhost/a").parse().unwrap() });
        let hosts = found("busybox").unwrap();
        let bases: Vec<&str> = hosts.iter().map(|host| host.base.as_str()).collect();
        assert_eq!(
            bases,
            ["http://mirror.example:5000/proxy/v2", "https://odd.example/api", "https://registry-1.docker.io/v2"]
        );
        assert_eq!((hosts[0].resolve, hosts[0].pull, hosts[0].push, hosts[1].push), (false, true, false, true));
        assert!(
            hosts[0].transport.unverified && hosts[0].transport.identities.len() == 2 && hosts[0].headers.len() == 2
        );
        assert_eq!(hosts[2].transport.roots[0].text, b"pem");
        assert!(hosts[2].transport.roots[0].from.ends_with("docker.io/own.crt"));
        assert_eq!(found("plain:5000/a").unwrap()[0].base, "http://plain:5000/v2");
        let certified = named("certified").unwrap().unwrap();
        assert!(certified[0].transport.roots.len() == 1 && certified[0].transport.identities.len() == 1);
        let limits: Vec<_> = hosts.iter().map(|host| host.transport.dial_limit.map(|limit| limit.as_secs())).collect();
        assert_eq!(limits, [None, Some(0), Some(90)]);
        let together = named("together").unwrap().unwrap();
        let [(certificate, key)] = &together[0].transport.identities[..] else { panic!("one pair") };
        assert_eq!((&*certificate.text, &*key.text), (&b"both"[..], &b"both"[..]));
        assert!(found("quay.io/a/b").is_none());
        // One that cannot be read is as if it were not there; what lies beside it counts.
        for name in ["broken", "late", "able", "kind", "pair"] {
            let hosts = named(name).unwrap().unwrap();
            let roots = hosts[0].transport.roots.len();
            assert_eq!(
                (hosts[0].base.as_str(), roots),
                (&*format!("https://{name}/v2"), usize::from(name == "broken"))
            );
        }
        let error = named("gone").map(drop).unwrap_err();
        assert!(error.to_string().contains("gone.crt") && !error.is_not_found(), "{error}");
        let empty = Pem { from: "/x/no.crt".to_owned(), text: b"nothing".to_vec() };
        assert!(empty.certificates().unwrap_err().to_string().contains("/x/no.crt: there is no certificate in it"));
        write("_default/hosts.toml", "[host.\"https://cache.example\"]");
        assert_eq!(found("quay.io/a/b").unwrap()[0].base, "https://cache.example/v2");
    }
}
