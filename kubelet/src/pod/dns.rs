//! What pods resolve names with (kubernetes `pkg/kubelet/network/dns`).

use std::net::IpAddr;

use k8s_cri::v1::DnsConfig;
use k8s_openapi::api::core::v1::Pod;

use super::{namespace, spec};

/// Upstream's bounds.
const MAX_SERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARACTERS: usize = 2048;

/// What the node resolves with: read from its resolv.conf.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostDns {
    pub servers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

impl HostDns {
    /// Reads the text of a resolv.conf (resolv.conf(5)).
    pub fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => found.servers.extend(words.next().map(str::to_owned)),
                // The last one of these counts.
                Some("search" | "domain") => found.searches = words.map(str::to_owned).collect(),
                Some("options") => found.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        found
    }
}

/// The cluster's own DNS.
#[derive(Debug, Clone, Default)]
pub struct ClusterDns {
    pub servers: Vec<IpAddr>,
    pub domain: String,
}

/// A pod's resolver. Where the cluster has no DNS of its own, pods that want it resolve as the node does.
pub fn of(pod: &Pod, cluster: &ClusterDns, host: &HostDns) -> DnsConfig {
    let spec = spec(pod);
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let wants_cluster =
        policy == "ClusterFirstWithHostNet" || (policy == "ClusterFirst" && spec.host_network != Some(true));
    let missing = wants_cluster && cluster.servers.is_empty();
    let mut config = match policy {
        "None" => DnsConfig::default(),
        _ if wants_cluster && !missing => cluster_first(namespace(pod), cluster, host),
        _ => {
            DnsConfig { servers: host.servers.clone(), searches: host.searches.clone(), options: host.options.clone() }
        }
    };
    if let Some(own) = &spec.dns_config {
        append(&mut config.servers, own.nameservers.iter().flatten().cloned());
        append(&mut config.searches, own.searches.iter().flatten().cloned());
        for option in own.options.iter().flatten() {
            let name = option.name.as_deref().unwrap_or_default();
            config.options.retain(|have| have.split(':').next() != Some(name));
            config
                .options
                .push(option.value.as_ref().map_or_else(|| name.to_owned(), |value| format!("{name}:{value}")));
        }
    }
    limit(&mut config);
    config
}

fn cluster_first(namespace: &str, cluster: &ClusterDns, host: &HostDns) -> DnsConfig {
    let mut searches = Vec::new();
    if !cluster.domain.is_empty() {
        let domain = &cluster.domain;
        searches.extend([format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()]);
    }
    append(&mut searches, host.searches.iter().cloned());
    DnsConfig {
        servers: cluster.servers.iter().map(IpAddr::to_string).collect(),
        searches,
        options: vec!["ndots:5".into()],
    }
}

fn append(list: &mut Vec<String>, items: impl Iterator<Item = String>) {
    for item in items {
        if !list.contains(&item) {
            list.push(item);
        }
    }
}

fn limit(config: &mut DnsConfig) {
    config.servers.truncate(MAX_SERVERS);
    config.searches.truncate(MAX_SEARCHES);
    while config.searches.iter().map(|search| search.len() + 1).sum::<usize>() > MAX_SEARCH_CHARACTERS {
        config.searches.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn dns(spec: Value, cluster: &ClusterDns) -> DnsConfig {
        let mut pod = json!({"metadata": {"namespace": "shop"}, "spec": {"containers": []}});
        for (key, value) in spec.as_object().unwrap() {
            pod["spec"][key] = value.clone();
        }
        let host = HostDns::parse("# host\nnameserver 192.0.2.1\nsearch corp.example lan\noptions edns0\n");
        of(&serde_json::from_value(pod).unwrap(), cluster, &host)
    }

    #[test]
    fn policies() {
        let cluster = ClusterDns { servers: vec!["10.96.0.10".parse().unwrap()], domain: "cluster.local".into() };
        let config = dns(json!({}), &cluster);
        assert_eq!(config.servers, ["10.96.0.10"]);
        assert_eq!(
            config.searches,
            ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example", "lan"]
        );
        assert_eq!(config.options, ["ndots:5"]);
        assert_eq!(dns(json!({"dnsPolicy": "Default"}), &cluster).servers, ["192.0.2.1"]);
        assert_eq!(dns(json!({"hostNetwork": true}), &cluster).servers, ["192.0.2.1"]);
        assert_eq!(
            dns(json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}), &cluster).servers,
            ["10.96.0.10"]
        );
        let own = json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"], "searches": ["a"], "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}});
        let config = dns(own, &cluster);
        assert_eq!(
            (config.servers, config.searches, config.options),
            (vec!["1.1.1.1".into()], vec!["a".into()], vec!["ndots:2".into(), "edns0".into()])
        );
        assert_eq!(dns(json!({}), &ClusterDns::default()).servers, ["192.0.2.1"]);
    }
}
