//! A pod's sandbox.

use std::collections::HashMap;
use std::sync::Arc;

use coracle_client::EventType;
use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1::Pod;

use super::{Shared, Trouble, users};
use crate::allocation;
use crate::observed::{annotation, label};
use crate::pod::{self, dns, resources, security, sysctls};

/// The sandbox that a pod wants.
pub fn config(shared: &Shared, pod: &Pod, attempt: u32) -> cri::PodSandboxConfig {
    let (name, namespace, uid) = (pod::name(pod), pod::namespace(pod), pod::uid(pod));
    let mut labels: HashMap<String, String> = pod.metadata.labels.clone().unwrap_or_default().into_iter().collect();
    labels.insert(label::POD_NAME.into(), name.into());
    labels.insert(label::POD_NAMESPACE.into(), namespace.into());
    labels.insert(label::POD_UID.into(), uid.into());
    let mut annotations: HashMap<String, String> =
        pod.metadata.annotations.clone().unwrap_or_default().into_iter().collect();
    annotations.extend(allocation::annotation_of_pod(pod).map(|text| (annotation::POD_RESOURCES.to_owned(), text)));
    let dns_config = dns::of(pod, &shared.cluster_dns, &shared.host_dns);
    cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: name.into(),
            uid: uid.into(),
            namespace: namespace.into(),
            attempt,
        }),
        // In the node's network a pod has the node's name.
        hostname: if pod::host_network(pod) { String::new() } else { pod::hostname(pod) },
        log_directory: shared.paths.pod_logs(namespace, name, uid).display().to_string(),
        dns_config: Some(dns_config),
        port_mappings: if pod::host_network(pod) { Vec::new() } else { port_mappings(pod) },
        labels,
        annotations,
        linux: Some(cri::LinuxPodSandboxConfig {
            cgroup_parent: resources::cgroup_parent(&shared.cgroup_parent, pod),
            security_context: Some(security::of_sandbox(pod)),
            sysctls: sysctls::of(pod).collect(),
            resources: Some(resources::of_pod(pod)),
            ..Default::default()
        }),
        windows: None,
    }
}

fn port_mappings(pod: &Pod) -> Vec<cri::PortMapping> {
    let ports = pod::containers(pod).flat_map(|(_, container)| container.ports.iter().flatten());
    let mapped = ports.filter(|port| port.host_port.is_some_and(|port| port > 0));
    mapped
        .map(|port| cri::PortMapping {
            protocol: match port.protocol.as_deref() {
                Some("UDP") => cri::Protocol::Udp,
                Some("SCTP") => cri::Protocol::Sctp,
                _ => cri::Protocol::Tcp,
            } as i32,
            container_port: port.container_port,
            host_port: port.host_port.unwrap_or_default(),
            host_ip: port.host_ip.clone().unwrap_or_default(),
        })
        .collect()
}

/// Says which users the pod's are; none where they are the node's.
pub fn set_users(config: &mut cri::PodSandboxConfig, users: Option<cri::UserNamespace>) {
    let security = config.linux.as_mut().and_then(|linux| linux.security_context.as_mut());
    if let Some(namespaces) = security.and_then(|security| security.namespace_options.as_mut()) {
        namespaces.userns_options = users;
    }
}

/// Makes the sandbox: the pod's namespaces, cgroup and network.
pub async fn create(shared: &Arc<Shared>, pod: &Pod, attempt: u32) -> Result<(), Trouble> {
    let failed = |message: String| {
        shared.tell(pod, None, EventType::Warning, "FailedCreatePodSandBox", &message);
        Trouble::new("FailedCreatePodSandBox", message)
    };
    let mut config = config(shared, pod, attempt);
    let (logs, of, with) = (config.log_directory.clone(), pod.clone(), shared.clone());
    // The runtime opens log files there; it may be another program with other rights.
    let made = tokio::task::spawn_blocking(move || {
        std::fs::create_dir_all(&logs).map_err(|error| format!("cannot make {logs}: {error}"))?;
        with.cgroups.set(&of)?;
        users::of(&with.paths, &of)
    })
    .await;
    let users = made.map_err(|error| failed(error.to_string()))?.map_err(failed)?;
    set_users(&mut config, users);
    let handler = pod.spec.as_ref().and_then(|spec| spec.runtime_class_name.clone()).unwrap_or_default();
    let request = cri::RunPodSandboxRequest { config: Some(config), runtime_handler: handler };
    match shared.cri.run_pod_sandbox(request).await {
        Ok(_) => Ok(()),
        Err(error) => Err(failed(format!("Failed to create pod sandbox: {error}"))),
    }
}
