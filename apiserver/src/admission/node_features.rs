//! A pod on a node is changed only in ways that its node says it can follow (upstream's NodeDeclaredFeatureValidator).

use crate::registry::Subresource;
use crate::registry::fields::{field, items, text};
use crate::verbs::Call;
use coracle_api::json::Value;
use coracle_api::node_features::{RESIZE_INIT, RESIZE_POD};
use coracle_api::{Status, json, meta};

/// 403 where the node does not declare what the change needs.
pub fn check(call: &Call, pod: &Value, old: &Value) -> Result<(), Status> {
    let node = text(&pod["spec"], "nodeName");
    let of_spec = matches!(call.subresource, None | Some(Subresource::Resize));
    // The generation counts the changes of the specification.
    if !of_spec || node.is_empty() || meta::generation(pod) == meta::generation(old) {
        return Ok(());
    }
    let needed = needed(&pod["spec"], &old["spec"]);
    if needed.is_empty() {
        return Ok(());
    }
    let refused = |why: &str| Status::forbidden(&call.gvr(), meta::name(pod), why);
    let snapshot = call.server.cache_of("", "nodes")?.snapshot();
    let Some(found) = snapshot.get(node).map(|node| node.parse()) else {
        return Err(refused(&format!("node {node:?} not found")));
    };
    let declared = items(&found["status"], "declaredFeatures");
    let missing: Vec<&str> =
        needed.into_iter().filter(|name| !declared.iter().any(|have| have.as_str() == Some(name))).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(refused(&format!(
        "pod update requires features {} which are not available on node {node:?}",
        missing.join(", ")
    )))
}

/// What a node must declare to follow the change, in order (component-helpers `nodedeclaredfeatures/features`).
fn needed(spec: &Value, old: &Value) -> Vec<&'static str> {
    let differ = |new: &Value, old: &Value| {
        let of = |value| field(value, "resources").unwrap_or(&Value::Null);
        !json::same(of(new), of(old))
    };
    let once = |container: &Value| text(container, "restartPolicy") != "Always";
    // An update adds and removes no init container: the checks before this one see to that.
    let mut init = items(spec, "initContainers").iter().zip(items(old, "initContainers"));
    let changes =
        [(RESIZE_POD, differ(spec, old)), (RESIZE_INIT, init.any(|(new, old)| once(old) && differ(new, old)))];
    changes.into_iter().filter(|(_, changed)| *changed).map(|(name, _)| name).collect()
}
