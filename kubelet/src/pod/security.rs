//! From security contexts to CRI's (kubernetes `pkg/kubelet/kuberuntime/security_context.go`).

use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1::{
    AppArmorProfile, Container, Pod, PodSecurityContext, SeccompProfile, SecurityContext,
};

use super::spec;

/// Paths hidden from containers unless `procMount` is `Unmasked` (containerd's and Docker's default).
const MASKED: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READ_ONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

fn number(value: i64) -> Option<cri::Int64Value> {
    Some(cri::Int64Value { value })
}

/// The namespaces that a pod shares with the node, and its containers with each other.
pub fn namespaces(pod: &Pod) -> cri::NamespaceOption {
    use cri::NamespaceMode::{Container, Node, Pod};
    let spec = spec(pod);
    let mode = |host: Option<bool>, otherwise| if host == Some(true) { Node } else { otherwise } as i32;
    let pid = if spec.share_process_namespace == Some(true) { Pod } else { Container };
    cri::NamespaceOption {
        network: mode(spec.host_network, Pod),
        pid: mode(spec.host_pid, pid),
        ipc: mode(spec.host_ipc, Pod),
        ..Default::default()
    }
}

fn seccomp(profile: Option<&SeccompProfile>) -> cri::SecurityProfile {
    use cri::security_profile::ProfileType;
    let kind = profile.map(|profile| profile.type_.as_str());
    let profile_type = match kind {
        Some("RuntimeDefault") => ProfileType::RuntimeDefault,
        Some("Localhost") => ProfileType::Localhost,
        _ => ProfileType::Unconfined,
    };
    let localhost_ref = profile.and_then(|profile| profile.localhost_profile.clone()).unwrap_or_default();
    cri::SecurityProfile { profile_type: profile_type as i32, localhost_ref }
}

/// The profile of AppArmor's; none leaves it to the runtime, which applies its default one. With it the text that runtimes of
/// before 1.30 read instead.
fn apparmor(profile: Option<&AppArmorProfile>) -> (Option<cri::SecurityProfile>, String) {
    use cri::security_profile::ProfileType;
    let Some(profile) = profile else { return (None, String::new()) };
    let name = profile.localhost_profile.clone().unwrap_or_default();
    let (profile_type, localhost_ref, text) = match profile.type_.as_str() {
        "Localhost" => (ProfileType::Localhost, name.clone(), format!("localhost/{name}")),
        "RuntimeDefault" => (ProfileType::RuntimeDefault, String::new(), "runtime/default".to_owned()),
        _ => (ProfileType::Unconfined, String::new(), "unconfined".to_owned()),
    };
    (Some(cri::SecurityProfile { profile_type: profile_type as i32, localhost_ref }), text)
}

fn selinux(options: Option<&k8s_openapi::api::core::v1::SELinuxOptions>) -> Option<cri::SeLinuxOption> {
    let options = options?;
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    Some(cri::SeLinuxOption {
        user: text(&options.user),
        role: text(&options.role),
        r#type: text(&options.type_),
        level: text(&options.level),
    })
}

fn groups(pod: Option<&PodSecurityContext>) -> Vec<i64> {
    let Some(pod) = pod else { return Vec::new() };
    let mut groups = pod.supplemental_groups.clone().unwrap_or_default();
    groups.extend(pod.fs_group);
    groups
}

/// Whether any container of the pod is privileged: then its sandbox must be.
fn any_privileged(pod: &Pod) -> bool {
    super::containers(pod).any(|(_, c)| c.security_context.as_ref().and_then(|s| s.privileged) == Some(true))
}

/// The sandbox's security.
pub fn of_sandbox(pod: &Pod) -> cri::LinuxSandboxSecurityContext {
    let spec = spec(pod);
    let context = spec.security_context.as_ref();
    cri::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(pod)),
        selinux_options: selinux(context.and_then(|c| c.se_linux_options.as_ref())),
        run_as_user: context.and_then(|c| c.run_as_user).and_then(number),
        run_as_group: context
            .and_then(|c| c.run_as_group)
            .filter(|_| context.is_some_and(|c| c.run_as_user.is_some()))
            .and_then(number),
        supplemental_groups: groups(context),
        privileged: any_privileged(pod),
        seccomp: Some(seccomp(context.and_then(|c| c.seccomp_profile.as_ref()))),
        ..Default::default()
    }
}

/// The user and group a container runs as, its own before its pod's.
pub fn user(pod: &Pod, container: &Container) -> (Option<i64>, Option<i64>) {
    let own = container.security_context.as_ref();
    let pods = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let user = own.and_then(|c| c.run_as_user).or_else(|| pods?.run_as_user);
    (user, own.and_then(|c| c.run_as_group).or_else(|| pods?.run_as_group))
}

/// Whether the container may only run as another user than root.
pub fn must_be_non_root(pod: &Pod, container: &Container) -> bool {
    let own = container.security_context.as_ref().and_then(|c| c.run_as_non_root);
    own.or_else(|| pod.spec.as_ref()?.security_context.as_ref()?.run_as_non_root) == Some(true)
}

/// A container's security. `image_user` is the user its image names: needed when the pod names none.
///
/// # Errors
/// When the container would run as root and must not; the words are upstream's.
#[expect(deprecated, reason = "runtimes of before Kubernetes 1.30 read `apparmor_profile`")]
pub fn of_container(
    pod: &Pod,
    container: &Container,
    image_user: &ImageUser,
) -> Result<cri::LinuxContainerSecurityContext, String> {
    let spec = spec(pod);
    let pods = spec.security_context.as_ref();
    let empty = SecurityContext::default();
    let own = container.security_context.as_ref().unwrap_or(&empty);
    let (user, group) = user(pod, container);
    if must_be_non_root(pod, container) {
        check_non_root(user, image_user, super::described(pod), &container.name)?;
    }
    let privileged = own.privileged == Some(true);
    let unmasked = privileged || own.proc_mount.as_deref() == Some("Unmasked");
    let paths =
        |paths: &[&str]| if unmasked { Vec::new() } else { paths.iter().map(|path| (*path).to_owned()).collect() };
    let by_image = user.is_none();
    let (apparmor, apparmor_text) =
        apparmor(own.app_armor_profile.as_ref().or_else(|| pods?.app_armor_profile.as_ref()));
    Ok(cri::LinuxContainerSecurityContext {
        capabilities: own.capabilities.as_ref().map(|c| cri::Capability {
            add_capabilities: c.add.clone().unwrap_or_default(),
            drop_capabilities: c.drop.clone().unwrap_or_default(),
            ..Default::default()
        }),
        privileged,
        namespace_options: Some(namespaces(pod)),
        selinux_options: selinux(own.se_linux_options.as_ref().or_else(|| pods?.se_linux_options.as_ref())),
        run_as_user: user.or(image_user.uid).and_then(number),
        run_as_group: group.and_then(number),
        run_as_username: if by_image && image_user.uid.is_none() { image_user.name.clone() } else { String::new() },
        readonly_rootfs: own.read_only_root_filesystem == Some(true),
        supplemental_groups: groups(pods),
        no_new_privs: own.allow_privilege_escalation == Some(false),
        masked_paths: paths(MASKED),
        readonly_paths: paths(READ_ONLY),
        seccomp: Some(if privileged {
            seccomp(None)
        } else {
            seccomp(own.seccomp_profile.as_ref().or_else(|| pods?.seccomp_profile.as_ref()))
        }),
        apparmor,
        apparmor_profile: apparmor_text,
        ..Default::default()
    })
}

/// The user that an image names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageUser {
    /// A number, when the image names one or none (then it is root).
    pub uid: Option<i64>,
    /// A name, when the image names one.
    pub name: String,
}

fn check_non_root(user: Option<i64>, image: &ImageUser, pod: String, container: &str) -> Result<(), String> {
    let place = format!("(pod: \"{pod}\", container: {container})");
    match (user, image.uid, image.name.as_str()) {
        (Some(0), ..) => Err(format!("container's runAsUser breaks non-root policy {place}")),
        (None, Some(0), _) => Err(format!("container has runAsNonRoot and image will run as root {place}")),
        (None, None, name) if !name.is_empty() => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root {place}"
        )),
        (None, None, _) => Err(format!("container has runAsNonRoot and image will run as root {place}")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn of(pod: Value, container: Value, image: &ImageUser) -> Result<cri::LinuxContainerSecurityContext, String> {
        let mut own = json!({"name": "c"});
        own["securityContext"] = container;
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": {"containers": [own], "securityContext": pod}})).unwrap();
        of_container(&pod, &pod.spec.as_ref().unwrap().containers[0], image)
    }

    #[test]
    fn the_containers_own_words_count_first() {
        let security = of(
            json!({"runAsUser": 1, "fsGroup": 5, "seccompProfile": {"type": "RuntimeDefault"}}),
            json!({"runAsUser": 2, "allowPrivilegeEscalation": false}),
            &ImageUser::default(),
        )
        .unwrap();
        assert_eq!(security.run_as_user.unwrap().value, 2);
        assert!(security.no_new_privs && security.supplemental_groups == [5]);
        assert_eq!(security.seccomp.unwrap().profile_type, cri::security_profile::ProfileType::RuntimeDefault as i32);
        assert!(!security.masked_paths.is_empty());
        let privileged = of(
            json!({"seccompProfile": {"type": "RuntimeDefault"}}),
            json!({"privileged": true}),
            &ImageUser { uid: None, name: "web".into() },
        )
        .unwrap();
        assert!(privileged.masked_paths.is_empty() && privileged.run_as_username == "web");
        assert_eq!(privileged.seccomp.unwrap().profile_type, cri::security_profile::ProfileType::Unconfined as i32);
    }

    #[test]
    #[expect(deprecated, reason = "the text for older runtimes is what is tested, too")]
    fn a_profile_of_apparmor_is_the_containers_or_the_pods() {
        use cri::security_profile::ProfileType;
        for (pod, own, expected) in [
            (json!({}), json!({}), None),
            (json!({"type": "RuntimeDefault"}), json!({}), Some((ProfileType::RuntimeDefault, "", "runtime/default"))),
            (
                json!({"type": "RuntimeDefault"}),
                json!({"type": "Unconfined"}),
                Some((ProfileType::Unconfined, "", "unconfined")),
            ),
            (
                json!({}),
                json!({"type": "Localhost", "localhostProfile": "mine"}),
                Some((ProfileType::Localhost, "mine", "localhost/mine")),
            ),
        ] {
            let context =
                |profile: Value| if profile == json!({}) { json!({}) } else { json!({"appArmorProfile": profile}) };
            let security = of(context(pod), context(own), &ImageUser::default()).unwrap();
            let found = security.apparmor.map(|profile| (profile.profile_type(), profile.localhost_ref));
            let (found, text) = (found.as_ref().map(|(kind, name)| (*kind, name.as_str())), security.apparmor_profile);
            assert_eq!(found, expected.map(|(kind, name, _)| (kind, name)));
            assert_eq!(text, expected.map_or("", |(.., text)| text));
        }
    }

    #[test]
    fn non_root_is_verified() {
        let root = ImageUser { uid: Some(0), name: String::new() };
        let must = json!({"runAsNonRoot": true});
        assert!(of(must.clone(), json!({}), &root).unwrap_err().contains("image will run as root"));
        assert!(
            of(must.clone(), json!({}), &ImageUser { uid: None, name: "web".into() })
                .unwrap_err()
                .contains("non-numeric user (web)")
        );
        assert!(of(must.clone(), json!({"runAsUser": 7}), &root).is_ok());
        assert!(of(must.clone(), json!({"runAsUser": 0}), &root).is_err());
        assert!(of(must, json!({"runAsNonRoot": false}), &root).is_ok());
    }
}
