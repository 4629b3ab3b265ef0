//! What a node says that it can do, and what pods need of it (component-helpers v0.36 `nodedeclaredfeatures`, KEP-5328).
//!
//! A feature is declared while it is new: nodes of one cluster may differ in it. The names are those of upstream's gates.

use k8s_openapi::api::core::v1::{ContainerRestartRule, PodSpec};

/// The node takes exec, attach and port-forward over WebSockets itself.
pub const WEB_SOCKETS: &str = "ExtendWebSocketsToKubelet";
/// Resources of a whole pod can be changed while it runs.
pub const RESIZE_POD: &str = "InPlacePodLevelResourcesVerticalScaling";
/// Those of init containers can, too.
pub const RESIZE_INIT: &str = "InPlacePodVerticalScalingInitContainers";
/// The end of a container can have all of its pod's containers run anew.
pub const RESTART_ALL: &str = "RestartAllContainersOnContainerExits";
/// A pod in the node's network can have users of its own. In v1.36 its gate is off.
pub const HOST_NETWORK_USERS: &str = "UserNamespacesHostNetworkSupport";

/// What nodes of v1.36 declare when they have all that is on by default there, in order.
pub const DECLARED: [&str; 4] = [WEB_SOCKETS, RESIZE_POD, RESIZE_INIT, RESTART_ALL];

/// What a node must declare to be given the pod, in order.
pub fn needed(spec: &PodSpec) -> impl Iterator<Item = &'static str> {
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let rules = containers.flat_map(|one| one.restart_policy_rules.iter().flatten());
    needed_by(rules, spec.host_network, spec.host_users)
}

/// The same, from the rules of all containers and the two fields that it depends on.
pub fn needed_by<'a>(
    rules: impl IntoIterator<Item = &'a ContainerRestartRule>,
    host_network: Option<bool>,
    host_users: Option<bool>,
) -> impl Iterator<Item = &'static str> {
    let restarts = rules.into_iter().any(|rule| rule.action == "RestartAllContainers");
    let users = host_network == Some(true) && host_users == Some(false);
    [(RESTART_ALL, restarts), (HOST_NETWORK_USERS, users)].into_iter().filter(|(_, needs)| *needs).map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::json;

    #[test]
    fn a_pod_needs_what_its_specification_asks_for() {
        let of = |spec: crate::json::Value| -> Vec<&str> {
            let spec: PodSpec = crate::json::from_value(spec).unwrap();
            needed(&spec).collect()
        };
        let rule = |action: &str| json!({"name": "c", "restartPolicyRules": [{"action": action, "exitCodes": {"operator": "In", "values": [1]}}]});
        let plain = json!({"name": "a"});
        assert_eq!(of(json!({"containers": [plain, rule("Restart")]})), [""; 0]);
        assert_eq!(of(json!({"containers": [plain, rule("RestartAllContainers")]})), [RESTART_ALL]);
        assert_eq!(of(json!({"containers": [plain], "initContainers": [rule("RestartAllContainers")]})), [RESTART_ALL]);
        assert_eq!(of(json!({"containers": [plain], "hostNetwork": true, "hostUsers": true})), [""; 0]);
        let both = json!({"containers": [rule("RestartAllContainers")], "hostNetwork": true, "hostUsers": false});
        assert_eq!(of(both), [RESTART_ALL, HOST_NETWORK_USERS]);
        assert!(DECLARED.is_sorted());
    }
}
