//! What a pod's operating system forbids, and the options of Windows (core `validateWindows`, `validateLinux`,
//! `validateWindowsSecurityContextOptions`, `validateWindowsHostProcessPod`). No node here runs Windows; the API takes such pods.

use crate::registry::fields::{invalid_all, is_set, items, text};
use coracle_api::json::Value;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};

const FOR_LINUX: &str = "cannot be set for a windows pod";
const FOR_WINDOWS: &str = "windows options cannot be set for a linux pod";

const CREDENTIALS_KIB: usize = 64;
const DOMAIN_LENGTH: usize = 256;
const USER_LENGTH: usize = 104;

/// What a Windows pod must not say, some of it in its security context, in the order in which it is told.
const POD_FIELDS: [(&str, bool); 15] = [
    ("appArmorProfile", true),
    ("seLinuxOptions", true),
    ("hostUsers", false),
    ("hostPID", false),
    ("hostIPC", false),
    ("seccompProfile", true),
    ("fsGroup", true),
    ("fsGroupChangePolicy", true),
    ("sysctls", true),
    ("shareProcessNamespace", false),
    ("runAsUser", true),
    ("runAsGroup", true),
    ("supplementalGroups", true),
    ("supplementalGroupsPolicy", true),
    ("seLinuxChangePolicy", true),
];

/// What its containers' must not say.
const CONTAINER_FIELDS: [&str; 10] = [
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
];

/// What a pod's own system forbids: Windows or Linux.
pub fn validate(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    match text(&spec["os"], "name") {
        "windows" => on_windows(spec, path, causes),
        "linux" => on_linux(spec, path, causes),
        _ => {}
    }
}

/// All containers of a pod, with where they are (`podshelper.VisitContainersWithPath`).
pub(super) fn containers<'a>(spec: &'a Value, path: &'a FieldPath) -> impl Iterator<Item = (&'a Value, FieldPath)> {
    ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(move |list| {
        items(spec, list).iter().enumerate().map(move |(nth, one)| (one, path.child(list).index(nth)))
    })
}

fn on_windows(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    for (name, in_context) in POD_FIELDS {
        let (holder, path) = match in_context {
            true => (&spec["securityContext"], &path.child("securityContext")),
            false => (spec, path),
        };
        // These two are no pointers upstream: false is what they are when they are not given.
        let given = match name {
            "hostPID" | "hostIPC" => holder[name] == true,
            _ => is_set(holder, name),
        };
        if given {
            causes.push(Cause::forbidden(&path.child(name), FOR_LINUX));
        }
    }
    for (container, path) in containers(spec, path) {
        let (context, path) = (&container["securityContext"], path.child("securityContext"));
        for name in CONTAINER_FIELDS.iter().filter(|name| is_set(context, name)) {
            causes.push(Cause::forbidden(&path.child(name), FOR_LINUX));
        }
    }
}

fn on_linux(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let whole = (spec, path.clone());
    for (object, path) in std::iter::once(whole).chain(containers(spec, path)) {
        if object.pointer("/securityContext/windowsOptions").is_some_and(|options| !options.is_null()) {
            causes.push(Cause::forbidden(&path.child("securityContext").child("windowsOptions"), FOR_WINDOWS));
        }
    }
}

/// The options of Windows in a security context, of a pod or of a container.
pub(super) fn options(context: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let Some(options) = context.get("windowsOptions").filter(|options| options.is_object()) else { return };
    let path = path.child("windowsOptions");
    let field = |name: &str| options.get(name).and_then(Value::as_str);
    if let Some(name) = field("gmsaCredentialSpecName") {
        invalid_all(&path.child("gmsaCredentialSpecName"), name, validation::dns1123_subdomain(name), causes);
    }
    if let Some(spec) = field("gmsaCredentialSpec") {
        let path = path.child("gmsaCredentialSpec");
        if spec.is_empty() {
            causes.push(Cause::invalid(&path, spec, "gmsaCredentialSpec cannot be an empty string"));
        } else if spec.len() > CREDENTIALS_KIB * 1024 {
            let why = format!("gmsaCredentialSpec size must be under {CREDENTIALS_KIB} KiB");
            causes.push(Cause::invalid(&path, spec, why));
        }
    }
    if let Some(name) = field("runAsUserName") {
        for why in user_name(name) {
            causes.push(Cause::invalid(&path.child("runAsUserName"), name, why));
        }
    }
}

/// What is wrong with a user's name: `user` or `domain\user`.
fn user_name(name: &str) -> Vec<String> {
    let one = |why: &str| vec![why.to_owned()];
    if name.is_empty() {
        return one("runAsUserName cannot be an empty string");
    }
    if name.chars().any(|c| c.is_ascii_control()) {
        return one("runAsUserName cannot contain control characters");
    }
    let parts: Vec<&str> = name.split('\\').collect();
    let (domain, user) = match parts.as_slice() {
        [user] => (None, *user),
        [domain, user] => (Some(*domain), *user),
        _ => return one("runAsUserName cannot contain more than one backslash"),
    };
    let mut wrong = Vec::new();
    if let Some(domain) = domain {
        if domain.len() >= DOMAIN_LENGTH {
            wrong.push(format!("runAsUserName's Domain length must be under {DOMAIN_LENGTH} characters"));
        }
        if !is_net_bios(domain) && !is_dns(domain) {
            wrong.push("runAsUserName's Domain doesn't match the NetBios nor the DNS format".to_owned());
        }
    }
    if user.is_empty() {
        wrong.push("runAsUserName's User cannot be empty".to_owned());
    } else if user.len() > USER_LENGTH {
        wrong.push(format!("runAsUserName's User length must not be longer than {USER_LENGTH} characters"));
    }
    if !user.is_empty() && user.chars().all(|c| matches!(c, '.' | ' ')) {
        wrong.push("runAsUserName's User cannot contain only periods or spaces".to_owned());
    }
    if user.contains(['"', '/', '\\', ':', ';', '|', '=', ',', '+', '*', '?', '<', '>', '@', '[', ']']) {
        wrong.push("runAsUserName's User cannot contain the following characters: \"/\\:;|=,+*?<>@[]".to_owned());
    }
    wrong
}

/// One to fifteen characters, none of them special, the first no dot.
fn is_net_bios(domain: &str) -> bool {
    let length = domain.chars().count();
    (1..=15).contains(&length)
        && !domain.starts_with('.')
        && !domain.contains(['\\', '/', ':', '*', '?', '"', '<', '>', '|'])
}

/// Labels of letters, digits and inner dashes, between dots.
fn is_dns(domain: &str) -> bool {
    domain.split('.').all(|label| {
        let bytes = label.as_bytes();
        let plain = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        label.len() <= 63
            && plain(bytes.first())
            && plain(bytes.last())
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
    })
}

/// Either all of a pod's containers are processes of the host, or none (core `validateWindowsHostProcessPod`).
pub(super) fn host_process(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let flag = |object: &Value| object.pointer("/securityContext/windowsOptions/hostProcess").and_then(Value::as_bool);
    let (of_pod, mut all, mut of_host) = (flag(spec), 0, 0);
    for (container, path) in containers(spec, path) {
        let own = flag(container);
        if let (Some(of_pod), Some(own)) = (of_pod, own)
            && of_pod != own
        {
            let path = path.child("securityContext").child("windowsOptions").child("hostProcess");
            let why = format!("pod hostProcess value must be identical if both are specified, was {of_pod}");
            causes.push(Cause::invalid(&path, own, why));
        }
        all += 1;
        of_host += usize::from(own.or(of_pod) == Some(true));
    }
    if of_host == 0 {
        return;
    }
    if of_host != all {
        let why = "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        causes.push(Cause::invalid(path, "", why));
    }
    if spec.get("hostNetwork").and_then(Value::as_bool) != Some(true) {
        let why = "hostNetwork must be true if pod contains any hostProcess containers";
        causes.push(Cause::invalid(&path.child("hostNetwork"), false, why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    fn causes(spec: Value) -> Vec<String> {
        let mut causes = Vec::new();
        let path = FieldPath::new("spec");
        host_process(&spec, &path, &mut causes);
        validate(&spec, &path, &mut causes);
        causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    #[test]
    fn each_system_has_its_own() {
        let spec = json!({"os": {"name": "windows"}, "hostPID": true, "securityContext": {"runAsUser": 1, "sysctls": []},
            "containers": [{"securityContext": {"privileged": false}}]});
        let forbidden = |field: &str| format!("{field}: Forbidden: cannot be set for a windows pod");
        let fields =
            ["spec.hostPID", "spec.securityContext.runAsUser", "spec.containers[0].securityContext.privileged"];
        assert_eq!(causes(spec), fields.map(forbidden));
        let options = json!({"windowsOptions": {"hostProcess": false}});
        let spec =
            json!({"os": {"name": "linux"}, "securityContext": options, "containers": [{"securityContext": options}]});
        let forbidden = |field: &str| format!("{field}: Forbidden: windows options cannot be set for a linux pod");
        let fields = ["spec.securityContext.windowsOptions", "spec.containers[0].securityContext.windowsOptions"];
        assert_eq!(causes(spec), fields.map(forbidden));
    }

    #[test]
    fn names_of_users() {
        let long = "x".repeat(105);
        for (name, why) in [
            ("ContainerAdministrator", None),
            ("NT AUTHORITY\\SYSTEM", None),
            ("example.com\\jane", None),
            ("", Some("an empty string")),
            ("a\u{7}", Some("control characters")),
            ("a\\b\\c", Some("more than one backslash")),
            (".a\\b", Some("NetBios nor the DNS format")),
            ("a\\", Some("User cannot be empty")),
            (". .", Some("only periods or spaces")),
            ("a@b", Some("following characters")),
            (&long, Some("longer than 104")),
        ] {
            let wrong = user_name(name);
            match why {
                None => assert!(wrong.is_empty(), "{name}: {wrong:?}"),
                Some(why) => assert!(wrong.len() == 1 && wrong[0].contains(why), "{name}: {wrong:?}"),
            }
        }
    }

    #[test]
    fn all_or_none_are_of_the_host() {
        let container = |own: Value| json!({"securityContext": {"windowsOptions": {"hostProcess": own}}});
        let spec = json!({"containers": [container(json!(true)), container(json!(null))]});
        let found = causes(spec);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("all containers must be HostProcess") && found[1].starts_with("spec.hostNetwork"));
        let spec = json!({"hostNetwork": true, "securityContext": {"windowsOptions": {"hostProcess": true}}, "containers": [container(json!(null))]});
        assert!(causes(spec).is_empty());
    }
}
