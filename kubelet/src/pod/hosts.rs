//! A pod's /etc/hosts (kubernetes `pkg/kubelet/kubelet_pods.go`, `managedHostsFileContent`).

use std::fmt::Write;

use k8s_openapi::api::core::v1::Pod;

use super::{hostname, namespace, spec};

/// The file of a pod with these addresses.
pub fn managed(pod: &Pod, addresses: &[String], cluster_domain: &str) -> String {
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    let spec = spec(pod);
    let host = hostname(pod);
    for address in addresses {
        // Writing to a String cannot fail.
        let _ = match spec.subdomain.as_deref().filter(|subdomain| !subdomain.is_empty() && !cluster_domain.is_empty())
        {
            Some(subdomain) => {
                writeln!(text, "{address}\t{host}.{subdomain}.{}.svc.{cluster_domain}\t{host}", namespace(pod))
            }
            None => writeln!(text, "{address}\t{host}"),
        };
    }
    text + &aliases(pod)
}

/// The file of a pod in the node's network: the node's, and the pod's own additions.
pub fn of_node(pod: &Pod, node_file: &str) -> String {
    format!("# Kubernetes-managed hosts file (host network).\n{node_file}{}", aliases(pod))
}

fn aliases(pod: &Pod) -> String {
    let mut text = String::new();
    let spec = spec(pod);
    for alias in spec.host_aliases.iter().flatten() {
        if text.is_empty() {
            text.push_str("\n# Entries added by HostAliases.\n");
        }
        let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
        let _ = writeln!(text, "{}\t{names}", alias.ip);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_and_aliases() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "db-0", "namespace": "shop"},
            "spec": {"containers": [], "subdomain": "db", "hostAliases": [{"ip": "10.1.1.1", "hostnames": ["a", "b"]}]}})).unwrap();
        let text = managed(&pod, &["10.0.0.7".into()], "cluster.local");
        assert!(text.contains("\n10.0.0.7\tdb-0.db.shop.svc.cluster.local\tdb-0\n"), "{text}");
        assert!(text.ends_with("\n# Entries added by HostAliases.\n10.1.1.1\ta\tb\n"), "{text}");
        assert!(of_node(&pod, "127.0.0.1 x\n").contains("(host network).\n127.0.0.1 x\n\n# Entries"));
    }
}
