//! Claims of devices: what a pod asks for (core `validatePodResourceClaims`), and which of it its containers use
//! (core `validateResourceClaimNames`).

use super::pod_annotations::MIRROR;
use crate::registry::fields::{field, invalid_all, items, text};
use coracle_api::json::{Value, json};
use coracle_api::status::{CauseReason, FieldPath};
use coracle_api::{Cause, meta, validation};
use std::collections::{BTreeSet, HashMap, HashSet};

/// How many names a cause tells: each container that is wrong tells all of them.
const TOLD: usize = 64;

/// What a pod claims. `pod` is the pod itself, none of a template.
pub fn validate(spec: &Value, pod: Option<&Value>, path: &FieldPath, causes: &mut Vec<Cause>) {
    let claims = items(spec, "resourceClaims");
    if claims.is_empty() {
        return;
    }
    let (path, mut names) = (path.child("resourceClaims"), HashSet::new());
    let mirrors = pod.is_some_and(|pod| meta::annotation(pod, MIRROR).is_some());
    for (nth, claim) in claims.iter().enumerate() {
        if mirrors {
            causes.push(Cause::forbidden(&FieldPath::new("[]"), "static pods do not support resource claims"));
        } else {
            one(claim, &mut names, &path.index(nth), causes);
        }
    }
}

fn one<'a>(claim: &'a Value, names: &mut HashSet<&'a str>, path: &FieldPath, causes: &mut Vec<Cause>) {
    let (name, at) = (text(claim, "name"), path.child("name"));
    if name.is_empty() {
        causes.push(Cause::required(&at, ""));
    } else if names.insert(name) {
        invalid_all(&at, name, validation::dns1123_label(name), causes);
    } else {
        causes.push(Cause::duplicate(&at, name));
    }
    let [own, made] = ["resourceClaimName", "resourceClaimTemplateName"].map(|source| field(claim, source));
    let why = match (own.and_then(Value::as_str), made.and_then(Value::as_str)) {
        (Some(_), Some(_)) => "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified",
        (None, None) => "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
        _ => "",
    };
    if !why.is_empty() {
        let shown = json!({"Name": name, "ResourceClaimName": own, "ResourceClaimTemplateName": made});
        causes.push(Cause::invalid(path, shown, why));
    }
    for (source, name) in [("resourceClaimName", own), ("resourceClaimTemplateName", made)] {
        if let Some(name) = name.and_then(Value::as_str) {
            invalid_all(&path.child(source), name, validation::dns1123_subdomain(name), causes);
        }
    }
}

/// The names that containers can use, also of claims that are wrong otherwise.
pub fn names(spec: &Value) -> BTreeSet<&str> {
    items(spec, "resourceClaims").iter().map(|claim| text(claim, "name")).filter(|name| !name.is_empty()).collect()
}

/// What a container, or the pod as a whole, uses of the pod's claims: all of a claim, or requests of it, each once.
pub fn used(resources: &Value, known: &BTreeSet<&str>, path: &FieldPath, causes: &mut Vec<Cause>) {
    let claims = items(resources, "claims");
    if claims.is_empty() {
        return;
    }
    let (path, mut whole) = (path.child("claims"), HashSet::new());
    let mut parts: HashMap<&str, HashSet<&str>> = HashMap::new();
    for (nth, claim) in claims.iter().enumerate() {
        let (path, name, request) = (path.index(nth), text(claim, "name"), text(claim, "request"));
        if name.is_empty() {
            causes.push(Cause::required(&path, ""));
            continue;
        }
        if whole.contains(name) {
            causes.push(Cause::duplicate(&path, name));
        } else if request.is_empty() {
            // It overlaps with each of its requests that was there before.
            let before = parts.get(name).map_or(0, HashSet::len);
            causes.extend((0..before).map(|_| Cause::duplicate(&path, name)));
            whole.insert(name);
        } else {
            invalid_all(&path.child("request"), request, validation::dns1123_label(request), causes);
            if !parts.entry(name).or_default().insert(request) {
                causes.push(Cause::duplicate(&path, format!("{name}/{request}")));
            }
        }
        if !known.contains(name) {
            causes.push(unknown(name, known, &path));
        }
    }
}

fn unknown(name: &str, known: &BTreeSet<&str>, path: &FieldPath) -> Cause {
    let mut listed = known.iter().take(TOLD).copied().collect::<Vec<_>>().join(", ");
    if known.len() > TOLD {
        listed.push_str(", …");
    }
    let known = if listed.is_empty() { " which is empty".to_owned() } else { format!(": {listed}") };
    let shown = Value::from(name);
    let message = format!("Not found: {shown}: must be one of the names in pod.spec.resourceClaims{known}");
    Cause::new(CauseReason::NotFound, path, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(causes: &[Cause]) -> Vec<String> {
        causes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_claim_has_a_name_of_its_own_and_one_source() {
        let check = |claims: Value, pod: Option<&Value>| {
            let mut causes = Vec::new();
            validate(&json!({"resourceClaims": claims}), pod, &FieldPath::new("spec"), &mut causes);
            told(&causes)
        };
        let good = json!([{"name": "a", "resourceClaimName": "x"}, {"name": "b", "resourceClaimTemplateName": "y.z"}]);
        assert!(check(good.clone(), None).is_empty());
        assert_eq!(
            check(
                json!([{"name": "a", "resourceClaimName": "x"}, {"name": "a", "resourceClaimName": "x", "resourceClaimTemplateName": "y"}, {"name": ""}]),
                None
            ),
            [
                "spec.resourceClaims[1].name: Duplicate value: \"a\"",
                "spec.resourceClaims[1]: Invalid value: {\"Name\":\"a\",\"ResourceClaimName\":\"x\",\"ResourceClaimTemplateName\":\"y\"}: at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified",
                "spec.resourceClaims[2].name: Required value",
                "spec.resourceClaims[2]: Invalid value: {\"Name\":\"\",\"ResourceClaimName\":null,\"ResourceClaimTemplateName\":null}: must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
            ]
        );
        let wrong = check(json!([{"name": "A", "resourceClaimName": ""}]), None);
        assert_eq!(wrong.len(), 2, "{wrong:?}");
        assert!(wrong[0].starts_with("spec.resourceClaims[0].name: Invalid value: \"A\""), "{wrong:?}");
        assert!(wrong[1].starts_with("spec.resourceClaims[0].resourceClaimName: Invalid value: \"\""), "{wrong:?}");
        let mirror = json!({"metadata": {"annotations": {MIRROR: "x"}}});
        let why = "[]: Forbidden: static pods do not support resource claims";
        assert_eq!(check(good, Some(&mirror)), [why, why]);
    }

    #[test]
    fn containers_use_each_claim_of_the_pod_once() {
        let spec = json!({"resourceClaims": [{"name": "b"}, {"name": "a"}]});
        let check = |claims: Value, known: &BTreeSet<&str>| {
            let mut causes = Vec::new();
            used(&json!({"claims": claims}), known, &FieldPath::new("r"), &mut causes);
            told(&causes)
        };
        let known = names(&spec);
        assert!(
            check(json!([{"name": "a"}, {"name": "b", "request": "x"}, {"name": "b", "request": "y"}]), &known)
                .is_empty()
        );
        assert_eq!(
            check(
                json!([{"name": "a", "request": "x"}, {"name": "a", "request": "x"}, {"name": "a", "request": "y"}, {"name": "a"}, {"name": "a"}, {}]),
                &known
            ),
            [
                "r.claims[1]: Duplicate value: \"a/x\"",
                "r.claims[3]: Duplicate value: \"a\"",
                "r.claims[3]: Duplicate value: \"a\"",
                "r.claims[4]: Duplicate value: \"a\"",
                "r.claims[5]: Required value",
            ]
        );
        assert_eq!(
            check(json!([{"name": "c"}]), &known),
            ["r.claims[0]: Not found: \"c\": must be one of the names in pod.spec.resourceClaims: a, b"]
        );
        assert_eq!(
            check(json!([{"name": "c"}]), &BTreeSet::new()),
            ["r.claims[0]: Not found: \"c\": must be one of the names in pod.spec.resourceClaims which is empty"]
        );
        assert!(check(json!([{"name": "a", "request": "A"}]), &known)[0].starts_with("r.claims[0].request: Invalid"));
    }
}
