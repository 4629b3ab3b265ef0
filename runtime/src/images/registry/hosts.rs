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
use toml_edit::{DocumentMut, Item, TableLike};

use super::connect::Transport;
use crate::{
    docker::system::go_duration,
    error::{Context, Error, Result},
    images::reference::Reference,
};

/// One server of a registry.
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
pub(super) fn find(dirs: &[PathBuf], reference: &Reference) -> Result<Option<Vec<Host>>> {
    let registry = &reference.registry;
    let underscored = registry.rsplit_once(':').map(|(host, port)| format!("{host}_{port}_"));
    let names = [underscored.as_deref(), Some(registry.as_str()), Some("_default")];
    for (dir, name) in dirs.iter().flat_map(|dir| names.iter().flatten().map(move |name| (dir, name))) {
        let dir = dir.join(name);
        let file = dir.join("hosts.toml");
        match fs::read_to_string(&file) {
            Ok(text) if text.is_empty() => {}
            Ok(text) => return parse(&text, &dir, reference).context(format!("read {}", file.display())).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).context(format!("read {}", file.display())),
        }
        if dir.is_dir() {
            let transport = certificates(&dir)?;
            return Ok(Some(vec![host(&server_of(reference), None, transport)?]));
        }
    }
    Ok(None)
}

fn server_of(reference: &Reference) -> String {
    format!("https://{}", reference.host())
}

fn host(address: &str, table: Option<&dyn TableLike>, transport: Transport) -> Result<Host> {
    let address = if address.contains("://") { address.to_owned() } else { format!("https://{address}") };
    let uri: Uri = address.parse().map_err(|_| Error::invalid(format!("{address:?} is not an address")))?;
    let (Some(scheme @ ("http" | "https")), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(Error::invalid(format!("{address:?} is not the address of a registry")));
    };
    let get = |key: &str| table.and_then(|table| table.get(key));
    let path = uri.path().trim_end_matches('/');
    let path = match get("override_path").and_then(Item::as_bool) {
        Some(true) => path.to_owned(),
        _ if path.ends_with("/v2") => path.to_owned(),
        _ => format!("{path}/v2"),
    };
    let able = match get("capabilities") {
        None => Vec::new(),
        Some(item) => texts(item).ok_or_else(|| Error::invalid("capabilities: a list of words"))?,
    };
    let able: Vec<String> = able.iter().map(|word| word.to_lowercase()).collect();
    if let Some(unknown) = able.iter().find(|word| !["pull", "resolve", "push"].contains(&word.as_str())) {
        return Err(Error::invalid(format!("unknown capability {unknown}")));
    }
    // Who names none has all.
    let can = |what: &str| able.is_empty() || able.iter().any(|own| own == what);
    let mut headers = Vec::new();
    for (name, values) in get("header").and_then(Item::as_table_like).into_iter().flat_map(|table| table.iter()) {
        let bad = || Error::invalid(format!("header {name:?} is none"));
        for value in texts(values).ok_or_else(bad)? {
            headers.push((name.parse().map_err(|_| bad())?, value.parse().map_err(|_| bad())?));
        }
    }
    Ok(Host {
        base: format!("{scheme}://{authority}{path}"),
        transport,
        headers,
        resolve: can("resolve"),
        pull: can("pull"),
        push: can("push"),
    })
}

fn parse(text: &str, dir: &Path, reference: &Reference) -> Result<Vec<Host>> {
    let document: DocumentMut = text.parse().map_err(|error| Error::invalid(format!("{error}")))?;
    let top = document.as_table();
    let mut out = Vec::new();
    if let Some(hosts) = top.get("host").and_then(Item::as_table_like) {
        for (address, item) in hosts.iter() {
            let table = item.as_table_like().ok_or_else(|| Error::invalid(format!("host {address:?} is no table")))?;
            out.push(host(address, Some(table), transport(table, dir)?)?);
        }
    }
    let own = server_of(reference);
    let server = top.get("server").and_then(Item::as_str).unwrap_or(&own);
    out.push(host(server, Some(top), transport(top, dir)?)?);
    Ok(out)
}

/// One text or several.
fn texts(item: &Item) -> Option<Vec<String>> {
    match (item.as_str(), item.as_array()) {
        (Some(text), _) => Some(vec![text.to_owned()]),
        (_, Some(list)) => list.iter().map(|text| text.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

fn transport(table: &dyn TableLike, dir: &Path) -> Result<Transport> {
    let read = |name: &str| {
        let path = dir.join(name);
        fs::read(&path).context(format!("read {}", path.display()))
    };
    let unverified = table.get("skip_verify").and_then(Item::as_bool) == Some(true);
    let mut out = Transport { unverified, ..Transport::default() };
    let limit = match table.get("dial_timeout").map(Item::as_str) {
        None | Some(Some("")) => None,
        Some(Some(text)) => Some(text.to_owned()),
        Some(None) => return Err(Error::invalid("dial_timeout: a text, as \"5s\"")),
    };
    if let Some(text) = limit {
        // 0 has no unit.
        let nanoseconds = if text == "0" { Some(0) } else { go_duration(&text) };
        let nanoseconds = nanoseconds.and_then(|count| u64::try_from(count).ok());
        let limit = nanoseconds.ok_or_else(|| Error::invalid(format!("dial_timeout: invalid duration {text:?}")))?;
        out.dial_limit = Some(Duration::from_nanos(limit));
    }
    if let Some(item) = table.get("ca") {
        let names = texts(item).ok_or_else(|| Error::invalid("ca: one file or a list of them"))?;
        out.roots = names.iter().map(|name| read(name)).collect::<Result<_>>()?;
    }
    if let Some(item) = table.get("client") {
        let malformed = || Error::invalid("client: a file, or a list of pairs of files");
        // One file with both, or pairs; the first is shown.
        let pair = match item.as_array().and_then(|list| list.get(0)) {
            Some(first) => match (first.as_str(), first.as_array()) {
                (Some(one), _) => vec![one.to_owned()],
                (_, Some(pair)) => pair
                    .iter()
                    .map(|text| text.as_str().map(str::to_owned))
                    .collect::<Option<_>>()
                    .ok_or_else(malformed)?,
                _ => return Err(malformed()),
            },
            None => texts(item).ok_or_else(malformed)?,
        };
        out.identity = match &pair[..] {
            [one] => Some((read(one)?, read(one)?)),
            [certificate, key] => Some((read(certificate)?, read(key)?)),
            _ => return Err(malformed()),
        };
    }
    Ok(out)
}

/// What lies in a directory without a hosts.toml.
fn certificates(dir: &Path) -> Result<Transport> {
    let mut out = Transport::default();
    let entries = fs::read_dir(dir).context(format!("read {}", dir.display()))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let read = |path: &Path| fs::read(path).context(format!("read {}", path.display()));
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => out.roots.push(read(&path)?),
            Some("cert") if out.identity.is_none() => {
                // Without one of its own the key is in the same file.
                let key = Some(path.with_extension("key")).filter(|key| key.exists());
                out.identity = Some((read(&path)?, read(key.as_deref().unwrap_or(&path))?));
            }
            _ => {}
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

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
                client = [["own.crt", "own.crt"]]
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
        write("late/hosts.toml", "dial_timeout = \"5\"");
        write("able/hosts.toml", "capabilities = [\"pul\"]");
        let dirs = [dir.path().join("none"), dir.path().to_owned()];
        let found = |name: &str| find(&dirs, &name.parse().unwrap()).unwrap();
        let hosts = found("busybox").unwrap();
        let bases: Vec<&str> = hosts.iter().map(|host| host.base.as_str()).collect();
        assert_eq!(
            bases,
            ["http://mirror.example:5000/proxy/v2", "https://odd.example/api", "https://registry-1.docker.io/v2"]
        );
        assert_eq!((hosts[0].resolve, hosts[0].pull, hosts[0].push, hosts[1].push), (false, true, false, true));
        assert!(hosts[0].transport.unverified && hosts[0].transport.identity.is_some() && hosts[0].headers.len() == 2);
        assert_eq!(hosts[2].transport.roots, [b"pem"]);
        assert_eq!(found("plain:5000/a").unwrap()[0].base, "http://plain:5000/v2");
        let certified = Reference { registry: "certified".into(), ..("localhost/a").parse().unwrap() };
        let certified = find(&dirs, &certified).unwrap().unwrap();
        assert!(certified[0].transport.roots.len() == 1 && certified[0].transport.identity.is_some());
        let limits: Vec<_> = hosts.iter().map(|host| host.transport.dial_limit.map(|limit| limit.as_secs())).collect();
        assert_eq!(limits, [None, Some(0), Some(90)]);
        let together = Reference { registry: "together".into(), ..("localhost/a").parse().unwrap() };
        let together = find(&dirs, &together).unwrap().unwrap();
        assert_eq!(together[0].transport.identity, Some((b"both".to_vec(), b"both".to_vec())));
        assert!(found("quay.io/a/b").is_none());
        for (name, why) in [("broken", "hosts.toml"), ("late", "dial_timeout"), ("able", "unknown capability pul")] {
            let reference = Reference { registry: name.into(), ..("localhost/a").parse().unwrap() };
            let error = find(&dirs, &reference).map(drop).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        write("_default/hosts.toml", "[host.\"https://cache.example\"]");
        assert_eq!(found("quay.io/a/b").unwrap()[0].base, "https://cache.example/v2");
    }
}
