//! Readers on a pod's specification, and what follows from it alone.

pub mod dns;
pub mod env;
pub mod hosts;
pub mod qos;
pub mod requests;
pub mod resources;
pub mod security;
pub mod sysctls;

use std::borrow::Cow;

use k8s_openapi::api::core::v1::{Container, ContainerPort, ContainerRestartRule, EphemeralContainer, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Seconds that containers get to end when a pod does not say.
pub const DEFAULT_GRACE: i64 = 30;

/// What a container is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Runs to its end before the next one starts.
    Init,
    /// An init container that goes on running.
    Sidecar,
    /// Runs after all init containers.
    App,
    /// Added to a pod that is there already, to look into it; runs once.
    Ephemeral,
}

/// A pod's name, namespace and uid.
pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}
pub fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}
pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// `name_namespace(uid)`, as upstream writes a pod in messages.
pub fn described(pod: &Pod) -> String {
    format!("{}_{}({})", name(pod), namespace(pod), uid(pod))
}

/// The containers with their roles, init containers first.
pub fn containers(pod: &Pod) -> impl Iterator<Item = (Role, &Container)> {
    let spec = pod.spec.as_ref();
    let init = spec.and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
    let app = spec.map_or(&[][..], |spec| &spec.containers);
    let role = |c: &Container| if c.restart_policy.as_deref() == Some("Always") { Role::Sidecar } else { Role::Init };
    init.iter().map(move |c| (role(c), c)).chain(app.iter().map(|c| (Role::App, c)))
}

/// A container by its name, also an ephemeral one.
pub fn container<'p>(pod: &'p Pod, name: &str) -> Option<(Role, Cow<'p, Container>)> {
    let lasting = containers(pod).find(|(_, container)| container.name == name);
    let lasting = lasting.map(|(role, container)| (role, Cow::Borrowed(container)));
    lasting.or_else(|| {
        let found = ephemeral(pod).iter().find(|container| container.name == name)?;
        Some((Role::Ephemeral, Cow::Owned(as_container(found))))
    })
}

/// The ephemeral containers.
pub fn ephemeral(pod: &Pod) -> &[EphemeralContainer] {
    pod.spec.as_ref().and_then(|spec| spec.ephemeral_containers.as_deref()).unwrap_or_default()
}

/// An ephemeral container as any other, but for whose processes it sees. What the API server refuses to such a container
/// (ports, probes, hooks, resources) it does not have.
pub fn as_container(from: &EphemeralContainer) -> Container {
    Container {
        name: from.name.clone(),
        image: from.image.clone(),
        image_pull_policy: from.image_pull_policy.clone(),
        command: from.command.clone(),
        args: from.args.clone(),
        working_dir: from.working_dir.clone(),
        env: from.env.clone(),
        env_from: from.env_from.clone(),
        volume_mounts: from.volume_mounts.clone(),
        volume_devices: from.volume_devices.clone(),
        security_context: from.security_context.clone(),
        stdin: from.stdin,
        stdin_once: from.stdin_once,
        tty: from.tty,
        termination_message_path: from.termination_message_path.clone(),
        termination_message_policy: from.termination_message_policy.clone(),
        ..Container::default()
    }
}

/// `Always`, `OnFailure` or `Never`.
pub fn restart_policy(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()).unwrap_or("Always")
}

/// The action of a rule that has all of a pod's containers run anew (KEP-5532).
const RESTART_ALL: &str = "RestartAllContainers";

/// What a container's own rules say of a run that ended with `exit_code`: the first that matches (kubernetes
/// `pkg/kubelet/container`, `findMatchingContainerRestartRule`).
fn matching_rule(container: &Container, exit_code: i32) -> Option<&ContainerRestartRule> {
    container.restart_policy.as_ref()?;
    let rules = container.restart_policy_rules.as_deref().unwrap_or_default();
    rules.iter().find(|rule| {
        let Some(codes) = &rule.exit_codes else { return false };
        let listed = codes.values.iter().flatten().any(|code| *code == exit_code);
        match codes.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        }
    })
}

/// Whether the end of a run has all of the pod's containers run anew.
pub fn restarts_all(container: &Container, exit_code: i32) -> bool {
    matching_rule(container, exit_code).is_some_and(|rule| rule.action == RESTART_ALL)
}

/// Whether the end of any run could.
pub fn could_restart_all(pod: &Pod) -> bool {
    let mut rules = containers(pod).flat_map(|(_, container)| container.restart_policy_rules.iter().flatten());
    rules.any(|rule| rule.action == RESTART_ALL)
}

/// Whether a container whose run ended with `exit_code` runs again: by its own rules, its own policy or the pod's (KEP-5307;
/// kubernetes `pkg/kubelet/container`, `ContainerShouldRestart`).
pub fn restarts(pod: &Pod, container: &Container, exit_code: i32) -> bool {
    if matching_rule(container, exit_code).is_some() {
        return true;
    }
    match container.restart_policy.as_deref().unwrap_or_else(|| restart_policy(pod)) {
        "Always" => true,
        "OnFailure" => exit_code != 0,
        _ => false,
    }
}

/// Whether the pod shares the node's network.
pub fn host_network(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true))
}

/// Seconds that containers get to end.
pub fn grace(pod: &Pod) -> i64 {
    let said = pod.metadata.deletion_grace_period_seconds;
    said.or_else(|| pod.spec.as_ref()?.termination_grace_period_seconds).unwrap_or(DEFAULT_GRACE)
}

/// Whether the API says that the pod has ended for good.
pub fn is_terminal(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// The host name that the pod's processes see: cut to the 63 characters that Linux and DNS allow.
pub fn hostname(pod: &Pod) -> String {
    let spec = pod.spec.as_ref();
    let wanted =
        spec.and_then(|spec| spec.hostname.as_deref()).filter(|name| !name.is_empty()).unwrap_or_else(|| name(pod));
    let cut = &wanted[..wanted.len().min(63)];
    cut.trim_end_matches(['-', '.']).to_owned()
}

/// Identifies a container's definition: a change of it means a new run. Only the image can change in place.
pub fn definition_hash(container: &Container) -> String {
    // FNV-1a: needs to be the same after a restart of the kubelet, and nothing more.
    let text = [container.name.as_str(), "\0", container.image.as_deref().unwrap_or_default()].concat();
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:x}")
}

/// A port by its number or by its name among a container's ports.
pub fn port(port: &IntOrString, ports: &[ContainerPort]) -> Option<u16> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => match ports.iter().find(|port| port.name.as_deref() == Some(name)) {
            Some(port) => port.container_port,
            None => name.parse().ok()?,
        },
    };
    u16::try_from(number).ok().filter(|number| *number > 0)
}

/// The specification; a pod that comes from the API always has one.
pub fn spec(pod: &Pod) -> Cow<'_, PodSpec> {
    match &pod.spec {
        Some(spec) => Cow::Borrowed(spec),
        None => Cow::Owned(PodSpec::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_fit() {
        let mut pod = Pod::default();
        pod.metadata.name = Some(format!("{}-{}", "a".repeat(62), "b".repeat(9)));
        assert_eq!(hostname(&pod), "a".repeat(62));
    }

    #[test]
    fn a_container_restarts_by_its_own_rules() {
        let pod = |policy: &str, container: serde_json::Value| -> Pod {
            let mut container = container;
            container["name"] = "a".into();
            let pod = serde_json::json!({"metadata": {}, "spec": {"restartPolicy": policy, "containers": [container]}});
            serde_json::from_value(pod).unwrap()
        };
        let again = |pod: &Pod, code: i32| restarts(pod, &pod.spec.as_ref().unwrap().containers[0], code);
        let plain = serde_json::json!({});
        assert!(again(&pod("Always", plain.clone()), 0) && !again(&pod("Never", plain.clone()), 1));
        assert!(again(&pod("OnFailure", plain.clone()), 1) && !again(&pod("OnFailure", plain), 0));
        let own = pod(
            "Always",
            serde_json::json!({"restartPolicy": "Never", "restartPolicyRules":
            [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42, 43]}}]}),
        );
        assert!(again(&own, 43) && !again(&own, 1) && !again(&own, 0));
        let other = pod(
            "Never",
            serde_json::json!({"restartPolicy": "OnFailure", "restartPolicyRules":
            [{"action": "Restart", "exitCodes": {"operator": "NotIn", "values": [0]}}]}),
        );
        assert!(again(&other, 7) && !again(&other, 0));
    }

    #[test]
    fn ports_by_name_and_number() {
        let ports = [ContainerPort { name: Some("web".into()), container_port: 8080, ..Default::default() }];
        assert_eq!(port(&IntOrString::String("web".into()), &ports), Some(8080));
        assert_eq!(port(&IntOrString::String("90".into()), &ports), Some(90));
        assert_eq!(port(&IntOrString::Int(80), &ports), Some(80));
        assert_eq!(port(&IntOrString::Int(0), &ports), None);
        assert_eq!(port(&IntOrString::String("x".into()), &ports), None);
    }
}
