//! Pods that this node cannot run as they ask, and so never begins (kubernetes `pkg/kubelet/lifecycle/handlers.go`,
//! `pkg/security/apparmor/validate.go`, `pkg/kubelet/sysctl/allowlist.go`, `Kubelet.rejectPod`).

use coracle_api::node_features;
use k8s_openapi::api::core::v1::{AppArmorProfile, Pod, PodStatus};

use super::{Action, Draft, Input, status};
use crate::pod::{self, qos, sysctls};

/// The reason of a pod that asks for AppArmor where there is none.
const APPARMOR: &str = "AppArmor";
/// The reason of a pod that needs what the node does not declare.
const FEATURE: &str = "PodFeatureUnsupported";
/// The reason of a pod that wants to set a kernel parameter which it may not set.
const SYSCTL: &str = "SysctlForbidden";
/// How profiles were asked for before Kubernetes 1.30, container by container.
const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";

/// What stands in the way of an AppArmor profile, in upstream's words.
fn apparmor(pod: &Pod, enabled: bool) -> Option<&'static str> {
    let of_pod = || pod.spec.as_ref()?.security_context.as_ref()?.app_armor_profile.as_ref();
    let ephemeral = pod::ephemeral(pod).iter().map(|one| one.security_context.as_ref());
    let own = pod::containers(pod).map(|(_, container)| container.security_context.as_ref()).chain(ephemeral);
    let own: Vec<Option<&AppArmorProfile>> =
        own.map(|context| context.and_then(|context| context.app_armor_profile.as_ref())).collect();
    let confines = |profile: &&AppArmorProfile| profile.type_ != "Unconfined";
    let annotated = || {
        let mut all = pod.metadata.annotations.iter().flatten();
        all.any(|(key, value)| key.starts_with(ANNOTATION) && value != "unconfined")
    };
    if of_pod().into_iter().chain(own.iter().flatten().copied()).all(|profile| !confines(&profile)) && !annotated() {
        return None;
    }
    if !enabled {
        return Some("AppArmor is not enabled on the host");
    }
    let nameless = |profile: &AppArmorProfile| {
        profile.type_ == "Localhost" && profile.localhost_profile.as_deref().is_none_or(|name| name.trim().is_empty())
    };
    let mut used = own.iter().filter_map(|own| own.or_else(of_pod));
    used.any(nameless).then_some("missing localhost apparmor profile name")
}

/// What the pod needs and the node lacks, in upstream's words.
fn features(pod: &Pod) -> Option<String> {
    let needed = pod.spec.iter().flat_map(node_features::needed);
    let missing: Vec<&str> = needed.filter(|name| !node_features::DECLARED.contains(name)).collect();
    (!missing.is_empty()).then(|| format!("Pod requires node features that are not available: {}", missing.join(", ")))
}

impl Draft<'_> {
    /// Rejects the pod if it cannot be run here as it asks. One that has begun was admitted.
    pub(super) fn admit(&mut self) {
        let phase = self.input.old().and_then(|status| status.phase.as_deref());
        if !matches!(phase, None | Some("Pending")) || !self.input.observed.instances.is_empty() {
            return;
        }
        let profile = || {
            let why = apparmor(self.input.pod, self.input.apparmor)?;
            Some((APPARMOR, format!("Cannot enforce AppArmor: {why}")))
        };
        let sysctl = sysctls::forbidden(self.input.pod, self.input.sysctls)
            .map(|why| (SYSCTL, format!("forbidden sysctl: {why}")));
        let feature = || features(self.input.pod).map(|why| (FEATURE, why));
        let Some((reason, message)) = sysctl.or_else(feature).or_else(profile) else { return };
        self.actions.push(Action::Tell { warning: true, reason, message: message.clone(), container: None });
        self.rejected = Some((reason.to_owned(), format!("Pod was rejected: {message}")));
    }

    /// The status of a pod that was rejected, now or before: it says nothing of containers, which were never to be.
    pub(super) fn rejection(&self) -> Option<PodStatus> {
        let Input { pod, now, observed, .. } = self.input;
        let old = self.input.old();
        let before = || {
            let old = old.filter(|old| old.phase.as_deref() == Some("Failed") && observed.instances.is_empty())?;
            let reason = old.reason.clone().filter(|reason| matches!(reason.as_str(), APPARMOR | FEATURE | SYSCTL))?;
            Some((reason, old.message.clone()?))
        };
        let (reason, message) = self.rejected.clone().or_else(before)?;
        Some(PodStatus {
            phase: Some("Failed".into()),
            reason: Some(reason),
            message: Some(message),
            qos_class: old.and_then(|old| old.qos_class.clone()).or_else(|| Some(qos::of(pod).as_str().to_owned())),
            start_time: old.and_then(|old| old.start_time.clone()).or_else(|| status::api_time(Some(now))),
            observed_generation: pod.metadata.generation,
            ..PodStatus::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn why(pod: Value, own: Value, annotations: Value, enabled: bool) -> Option<&'static str> {
        let context = |profile: Value| if profile.is_null() { json!({}) } else { json!({"appArmorProfile": profile}) };
        let spec = json!({"securityContext": context(pod),
            "containers": [{"name": "a"}, {"name": "b", "securityContext": context(own)}]});
        let pod = json!({"metadata": {"uid": "u", "annotations": annotations}, "spec": spec});
        apparmor(&serde_json::from_value(pod).unwrap(), enabled)
    }

    #[test]
    fn a_profile_needs_apparmor_and_a_name() {
        const NONE: Option<&str> = Some("AppArmor is not enabled on the host");
        const NAMELESS: Option<&str> = Some("missing localhost apparmor profile name");
        let (default, open) = (json!({"type": "RuntimeDefault"}), json!({"type": "Unconfined"}));
        let (named, nameless) = (json!({"type": "Localhost", "localhostProfile": "p"}), json!({"type": "Localhost"}));
        let (old, old_open) =
            (json!({format!("{ANNOTATION}a"): "localhost/p"}), json!({format!("{ANNOTATION}a"): "unconfined"}));
        for (pod, own, annotations, without, with) in [
            (Value::Null, Value::Null, json!({}), None, None),
            (open.clone(), open.clone(), old_open, None, None),
            (default.clone(), Value::Null, json!({}), NONE, None),
            (open, default.clone(), json!({}), NONE, None),
            (Value::Null, named.clone(), json!({}), NONE, None),
            (Value::Null, Value::Null, old, NONE, None),
            (Value::Null, nameless.clone(), json!({}), NONE, NAMELESS),
            // Container a has the pod's.
            (nameless, named, json!({}), NONE, NAMELESS),
        ] {
            let of = |enabled| why(pod.clone(), own.clone(), annotations.clone(), enabled);
            assert_eq!((of(false), of(true)), (without, with), "{pod} {own} {annotations}");
        }
    }
}
