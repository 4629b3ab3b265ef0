//! The files that Docker keeps for a container and mounts into it: `/etc/hosts`, `/etc/hostname`, `/etc/resolv.conf`.

use std::{fmt::Write as _, fs, net::IpAddr, path::Path, sync::Arc};

use super::{
    super::{Docker, http::Problem},
    Container, Record,
    mounts::MountPlan,
};

/// Where a container's init is, with `--init`.
pub const INIT_PATH: &str = "/sbin/docker-init";

/// Name servers where the host has none that a container can reach (libnetwork `resolvconf`).
const FALLBACK_SERVERS: [&str; 2] = ["8.8.8.8", "8.8.4.4"];

impl Docker {
    /// Mounts of the files, and of what another container's files are borrowed.
    pub fn file_mounts(
        &self,
        container: &Arc<Container>,
        record: &Record,
        given: &[MountPlan],
    ) -> Result<Vec<MountPlan>, Problem> {
        let owner = match record.host.network_mode.strip_prefix("container:") {
            Some(target) => self.container(target)?.id.clone(),
            None => container.id.clone(),
        };
        let dir = self.engine.files_of(&owner);
        let label = |path: &Path| {
            // Borrowed, they are for both (moby `daemon/container_operations_unix.go`).
            let labelled = self.engine.selinux().relabel(path, &container.engine.labels.mount, owner != container.id);
            labelled.map_err(|error| Problem::internal(format!("label {}: {error}", path.display())))
        };
        let access = if record.host.readonly_rootfs { "ro" } else { "rw" };
        let bind = |source: &Path, destination: &str, access: &str| MountPlan {
            destination: destination.into(),
            kind: "bind",
            source: source.to_string_lossy().into_owned(),
            options: ["rbind", "rprivate", access].map(str::to_owned).into(),
            propagation: "rprivate".into(),
        };
        let mut out = Vec::new();
        for name in ["resolv.conf", "hostname", "hosts"] {
            let destination = format!("/etc/{name}");
            let source = dir.join(name);
            if !given.iter().any(|plan| plan.destination == destination) && source.exists() {
                label(&source)?;
                out.push(bind(&source, &destination, access));
            }
        }
        if record.host.init == Some(true) {
            let program = self.init_program()?;
            self.engine.selinux().label_read_only(&program)?;
            out.push(bind(&program, INIT_PATH, "ro"));
        }
        Ok(out)
    }

    /// Writes the files for a start. `addresses` are the container's own, `peers` further lines of hosts.
    pub fn write_files(
        &self,
        container: &Container,
        record: &Record,
        addresses: &[IpAddr],
        peers: &[(String, String)],
        embedded_dns: bool,
    ) -> Result<(), Problem> {
        let dir = self.engine.files_of(&container.id);
        let write = |name: &str, text: String| {
            fs::write(dir.join(name), text).map_err(|error| Problem::internal(format!("write {name}: {error}")))
        };
        write("hostname", format!("{}\n", record.config.hostname))?;
        write("hosts", self.hosts(record, addresses, peers))?;
        write("resolv.conf", resolv_conf(record, embedded_dns))
    }

    fn hosts(&self, record: &Record, addresses: &[IpAddr], peers: &[(String, String)]) -> String {
        let mut out = if record.host.network_mode == "host" {
            fs::read_to_string("/etc/hosts").unwrap_or_default()
        } else {
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n".to_owned()
        };
        let mut line = |address: &str, names: &str| {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "{address}\t{names}");
        };
        for extra in record.host.extra_hosts.iter().flatten() {
            let (name, address) = extra.split_once([':', '=']).unwrap_or((extra, ""));
            let address = address.trim_start_matches('[').trim_end_matches(']');
            if address == "host-gateway" {
                line(&self.networks.host_gateway(), name);
            } else {
                line(address, name);
            }
        }
        for (address, names) in peers {
            line(address, names);
        }
        let names = if record.config.domainname.is_empty() {
            record.config.hostname.clone()
        } else {
            format!("{0}.{1} {0}", record.config.hostname, record.config.domainname)
        };
        for address in addresses {
            line(&address.to_string(), &names);
        }
        out
    }
}

/// The host's resolver unless told otherwise, or the embedded one before it.
fn resolv_conf(record: &Record, embedded_dns: bool) -> String {
    let host_text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let words = |key: &str| -> Vec<String> {
        let lines = host_text.lines().filter_map(|line| line.trim().strip_prefix(key));
        lines.filter(|rest| rest.starts_with([' ', '\t'])).flat_map(str::split_whitespace).map(str::to_owned).collect()
    };
    let of_host_network = record.host.network_mode == "host";
    let mut servers = if record.host.dns.is_empty() { words("nameserver") } else { record.host.dns.clone() };
    let mut search = if record.host.dns_search.is_empty() { words("search") } else { record.host.dns_search.clone() };
    let mut options =
        if record.host.dns_options.is_empty() { words("options") } else { record.host.dns_options.clone() };
    if search.iter().any(|domain| domain == ".") {
        search.clear();
    }
    if embedded_dns {
        servers = vec!["127.0.0.11".into()];
        if !options.iter().any(|option| option.starts_with("ndots:")) {
            options.push("ndots:0".into());
        }
    } else if !of_host_network && record.host.dns.is_empty() {
        // A container's loopback is its own.
        servers.retain(|server| server.parse::<IpAddr>().is_ok_and(|server| !server.is_loopback()));
        if servers.is_empty() {
            servers = FALLBACK_SERVERS.map(str::to_owned).into();
        }
    }
    let mut out = String::new();
    // Writing to a string cannot fail.
    for server in servers {
        let _ = writeln!(out, "nameserver {server}");
    }
    if !search.is_empty() {
        let _ = writeln!(out, "search {}", search.join(" "));
    }
    if !options.is_empty() {
        let _ = writeln!(out, "options {}", options.join(" "));
    }
    out
}

/// The servers that the embedded one asks: those given, or the host's.
pub fn upstreams(record: &Record) -> Vec<IpAddr> {
    let given: Vec<IpAddr> = record.host.dns.iter().filter_map(|server| server.parse().ok()).collect();
    if !given.is_empty() {
        return given;
    }
    let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver")?.trim().parse().ok());
    servers.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_are_given_or_embedded() {
        let mut record = Record::default();
        record.host.dns = vec!["1.2.3.4".into()];
        record.host.dns_search = vec!["example.org".into()];
        assert!(resolv_conf(&record, false).starts_with("nameserver 1.2.3.4\nsearch example.org\n"));
        let embedded = resolv_conf(&record, true);
        assert!(embedded.starts_with("nameserver 127.0.0.11\n") && embedded.contains("ndots:0"), "{embedded}");
    }
}
