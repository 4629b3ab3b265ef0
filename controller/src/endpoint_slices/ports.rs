//! The ports of a service as they are on one pod.

use coracle_client::outline::Pod;
use k8s_openapi::{
    api::core::v1::{Service, ServicePort},
    apimachinery::pkg::util::intstr::IntOrString,
};

/// A port as pods have it. Pods with the same ports share a slice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    pub name: String,
    pub protocol: String,
    pub number: i32,
    pub app_protocol: Option<String>,
}

/// The service's ports on this pod, in order. A name that the pod does not have is left out.
pub fn of(service: &Service, pod: &Pod) -> Vec<Port> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
    let resolved = ports.into_iter().flatten().filter_map(|port| {
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
        let number = number(port, &protocol, pod)?;
        Some(Port {
            name: port.name.clone().unwrap_or_default(),
            protocol,
            number,
            app_protocol: port.app_protocol.clone(),
        })
    });
    let mut resolved: Vec<Port> = resolved.collect();
    resolved.sort();
    resolved
}

fn number(port: &ServicePort, protocol: &str, pod: &Pod) -> Option<i32> {
    match &port.target_port {
        None | Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) if name.is_empty() => Some(port.port),
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            let sidecars = spec
                .init_containers
                .iter()
                .flatten()
                .filter(|container| container.restart_policy.as_deref() == Some("Always"));
            let mut all = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
            let found = all.find(|have| {
                have.name.as_ref() == Some(name) && have.protocol.as_deref().unwrap_or("TCP") == protocol
            })?;
            Some(found.container_port)
        }
    }
}
