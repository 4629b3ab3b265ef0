//! Profiles of seccomp and AppArmor that annotations and fields give alike (core `validateSeccompAnnotationsAndFields`,
//! `validateAppArmorAnnotationsAndFieldsMatchOnCreate`).

use super::windows::containers;
use crate::registry::fields::{alike, field, items_mut, object_mut, set, text};
use crate::registry::warnings::Warnings;
use coracle_api::json::{Map, Value, json};
use coracle_api::status::FieldPath;
use coracle_api::{Cause, meta};

pub const SECCOMP_OF_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
pub const SECCOMP_OF_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
pub const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
pub const LOCALHOST: &str = "localhost/";

/// What is told of annotations that name profiles of AppArmor.
pub const DEPRECATED: &str = "deprecated since v1.30; use the \"appArmorProfile\" field instead";

/// How long the name of a profile of AppArmor can be: a path without its ending zero.
const NAME_MAX: usize = 4095;

fn of_context<'v>(holder: &'v Value, name: &str) -> Option<&'v Value> {
    field(field(holder, "securityContext")?, name).filter(|profile| profile.is_object())
}

/// Where a new pod or a template gives a profile in both ways, it is one profile.
pub fn agree(annotations: &Map, spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let given = |key: &str| annotations.get(key).and_then(Value::as_str);
    let any = |prefix: &str| annotations.keys().any(|key| key.starts_with(prefix));
    let place = |path: &FieldPath, name: &str| path.child("securityContext").child(name);
    if let (Some(profile), Some(given)) = (of_context(spec, "seccompProfile"), given(SECCOMP_OF_POD)) {
        same("seccomp", profile, given, &place(path, "seccompProfile"), causes);
    }
    if any(SECCOMP_OF_CONTAINER) {
        for (container, path) in containers(spec, path) {
            let Some(profile) = of_context(container, "seccompProfile") else { continue };
            if let Some(given) = given(&format!("{SECCOMP_OF_CONTAINER}{}", text(container, "name"))) {
                same("seccomp", profile, given, &place(&path, "seccompProfile"), causes);
            }
        }
    }
    if any(APP_ARMOR) && !is_windows(spec) {
        let of_pod = of_context(spec, "appArmorProfile");
        for (container, path) in containers(spec, path) {
            let Some(profile) = of_context(container, "appArmorProfile").or(of_pod) else { continue };
            if let Some(given) = given(&format!("{APP_ARMOR}{}", text(container, "name"))) {
                same("apparmor", profile, given, &place(&path, "appArmorProfile"), causes);
            }
        }
    }
}

fn is_windows(spec: &Value) -> bool {
    spec.pointer("/os/name").and_then(Value::as_str) == Some("windows")
}

fn same(what: &str, profile: &Value, given: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    let alike = match text(profile, "type") {
        "Unconfined" => given == "unconfined",
        "RuntimeDefault" => given == "runtime/default" || what == "seccomp" && given == "docker/default",
        "Localhost" => given.starts_with(LOCALHOST),
        _ => return,
    };
    if !alike {
        causes.push(Cause::forbidden(&path.child("type"), format!("{what} type in annotation and field must match")));
    } else if let Some(file) = given.strip_prefix(LOCALHOST)
        && field(profile, "localhostProfile").and_then(Value::as_str) != Some(file)
    {
        let why = format!("{what} profile in annotation and field must match");
        causes.push(Cause::forbidden(&path.child("localhostProfile"), why));
    }
}

/// What to tell of the annotations of a new pod, before [`take_over`] makes fields of them. One that says what the pod does is
/// as good as none.
pub fn warnings(pod: &Value) -> Vec<String> {
    let mut told = Warnings::default();
    let spec = &pod["spec"];
    let named = |annotations: &&Map| annotations.keys().any(|key| key.starts_with(APP_ARMOR)) && !is_windows(spec);
    let Some(annotations) = meta::annotations(pod).filter(named) else { return Vec::new() };
    let of_pod = of_context(spec, "appArmorProfile");
    for (container, _) in containers(spec, &FieldPath::default()) {
        let key = format!("{APP_ARMOR}{}", text(container, "name"));
        let Some(given) = annotations.get(&key).filter(|_| of_context(container, "appArmorProfile").is_none()) else {
            continue;
        };
        let profile = given.as_str().and_then(read);
        if profile.is_none() || !of_pod.is_some_and(|of_pod| profile.is_some_and(|profile| alike(of_pod, &profile))) {
            told.at(&FieldPath::new("metadata.annotations").key(&key), DEPRECATED);
        }
    }
    told.into()
}

/// Gives the containers of a new pod the profiles of AppArmor that its annotations name (core/pod `applyAppArmorVersionSkew`).
pub fn take_over(pod: &mut Value) {
    let named = |annotations: &Map| annotations.keys().any(|key| key.starts_with(APP_ARMOR));
    let Some(annotations) = meta::annotations(pod).filter(|annotations| named(annotations)).cloned() else { return };
    let Some(spec) = field(pod, "spec").filter(|spec| !is_windows(spec)) else { return };
    let of_pod = of_context(spec, "appArmorProfile").cloned();
    let spec = object_mut(pod, "spec");
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in items_mut(spec, list).filter(|container| of_context(container, "appArmorProfile").is_none()) {
            let named = annotations.get(&format!("{APP_ARMOR}{}", text(container, "name"))).and_then(Value::as_str);
            let Some(profile) = named.and_then(read) else { continue };
            if !of_pod.as_ref().is_some_and(|of_pod| alike(of_pod, &profile)) {
                set(object_mut(container, "securityContext"), "appArmorProfile", profile);
            }
        }
    }
}

/// The profile that an annotation names, when there can be such a one.
fn read(annotation: &str) -> Option<Value> {
    match annotation {
        "unconfined" => Some(json!({"type": "Unconfined"})),
        "runtime/default" => Some(json!({"type": "RuntimeDefault"})),
        _ => {
            let name = annotation.strip_prefix(LOCALHOST)?;
            let fits = !name.is_empty() && name.trim() == name && name.len() <= NAME_MAX;
            fits.then(|| json!({"type": "Localhost", "localhostProfile": name}))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(annotations: Value, spec: Value) -> Vec<String> {
        let mut causes = Vec::new();
        agree(annotations.as_object().unwrap(), &spec, &FieldPath::new("spec"), &mut causes);
        causes.iter().map(ToString::to_string).collect()
    }

    fn with(name: &str, profile: &Value) -> Value {
        json!({"name": "c", "securityContext": {name: profile}})
    }

    #[test]
    fn a_profile_given_twice_is_one() {
        let local = |file: &str| json!({"type": "Localhost", "localhostProfile": file});
        let container = format!("{SECCOMP_OF_CONTAINER}c");
        for (profile, given, why) in [
            (json!({"type": "Unconfined"}), "unconfined", ""),
            (json!({"type": "Unconfined"}), "runtime/default", "type"),
            (json!({"type": "RuntimeDefault"}), "docker/default", ""),
            (json!({"type": "RuntimeDefault"}), "localhost/a", "type"),
            (local("a"), "localhost/a", ""),
            (local("a"), "localhost/b", "localhostProfile"),
            (local("a"), "unconfined", "type"),
            (json!({"type": "Localhost"}), "localhost/", "localhostProfile"),
        ] {
            let words = if why == "type" { "type" } else { "profile" };
            let wanted = |path: &str| match why {
                "" => Vec::new(),
                why => vec![format!(
                    "{path}.securityContext.seccompProfile.{why}: Forbidden: seccomp {words} in annotation and field must match"
                )],
            };
            let pod = json!({"securityContext": {"seccompProfile": profile}});
            assert_eq!(check(json!({SECCOMP_OF_POD: given}), pod), wanted("spec"), "{profile} {given}");
            let spec = json!({"containers": [with("seccompProfile", &profile)]});
            assert_eq!(
                check(json!({container.as_str(): given}), spec),
                wanted("spec.containers[0]"),
                "{profile} {given}"
            );
        }
    }

    #[test]
    fn containers_have_their_pods_profile_of_app_armor() {
        let annotations = json!({format!("{APP_ARMOR}c"): "docker/default"});
        let spec =
            json!({"securityContext": {"appArmorProfile": {"type": "RuntimeDefault"}}, "containers": [{"name": "c"}]});
        let why = "spec.containers[0].securityContext.appArmorProfile.type: Forbidden: apparmor type in annotation and field must match";
        assert_eq!(check(annotations.clone(), spec.clone()), [why]);
        let mut windows = spec;
        windows["os"] = json!({"name": "windows"});
        assert!(check(annotations, windows).is_empty());
    }

    #[test]
    fn annotations_fill_in_what_fields_do_not_say() {
        let pod = |annotation: &str, of_pod: Value, own: Value| {
            let mut pod = json!({"metadata": {"annotations": {format!("{APP_ARMOR}c"): annotation}},
                "spec": {"securityContext": {"appArmorProfile": of_pod}, "containers": [with("appArmorProfile", &own), {"name": "d"}]}});
            take_over(&mut pod);
            assert_eq!(pod["spec"]["containers"][1], json!({"name": "d"}));
            pod["spec"]["containers"][0]["securityContext"]["appArmorProfile"].take()
        };
        let none = || Value::Null;
        assert_eq!(pod("localhost/x", none(), none()), json!({"type": "Localhost", "localhostProfile": "x"}));
        assert_eq!(pod("runtime/default", none(), none()), json!({"type": "RuntimeDefault"}));
        assert_eq!(pod("unconfined", json!({"type": "Unconfined"}), none()), none(), "the pod's is the same");
        assert_eq!(pod("unconfined", none(), json!({"type": "RuntimeDefault"})), json!({"type": "RuntimeDefault"}));
        assert_eq!(pod("localhost/", none(), none()), none());
        assert_eq!(pod("localhost/ x", none(), none()), none());
    }

    #[test]
    fn annotations_that_fields_are_made_of_are_told() {
        let told = |annotation: &str, of_pod: Value, own: Value| {
            warnings(&json!({"metadata": {"annotations": {format!("{APP_ARMOR}c"): annotation}},
                "spec": {"securityContext": {"appArmorProfile": of_pod}, "containers": [with("appArmorProfile", &own), {"name": "d"}]}}))
        };
        let (none, profile) = (|| Value::Null, json!({"type": "Unconfined"}));
        let why = format!("metadata.annotations[{APP_ARMOR}c]: {DEPRECATED}");
        assert_eq!(told("unconfined", none(), none()), [&*why]);
        assert_eq!(told("runtime/default", profile.clone(), none()), [&*why]);
        assert_eq!(told("nothing", none(), none()), [&*why]);
        assert!(told("unconfined", profile.clone(), none()).is_empty(), "the pod's is the same");
        assert!(told("unconfined", none(), profile).is_empty(), "the field is there");
        let windows = json!({"metadata": {"annotations": {format!("{APP_ARMOR}c"): "unconfined"}},
            "spec": {"os": {"name": "windows"}, "containers": [{"name": "c"}]}});
        assert!(warnings(&windows).is_empty());
    }
}
