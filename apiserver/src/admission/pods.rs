//! Defaults that new pods and nodes get from the cluster rather than from their kind.

use crate::registry::fields::{items, set, set_default, text};
use crate::verbs::Call;
use coracle_api::json::{Value, json};
use coracle_api::{Gvr, Status, meta};

/// Seconds that a pod tolerates its node being away (upstream's DefaultTolerationSeconds).
const TOLERATION_SECONDS: i64 = 300;
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// Every pod has a service account (upstream's ServiceAccount, which also mounts its token).
pub fn service_account(pod: &mut Value) {
    // Mirror pods stand for files on a node and have none.
    if meta::annotation(pod, "kubernetes.io/config.mirror").is_some() {
        return;
    }
    let spec = &mut pod["spec"];
    set_default(spec, "serviceAccountName", "default");
    let name = text(spec, "serviceAccountName").to_owned();
    set(spec, "serviceAccount", name);
}

/// Tolerations of a node that is not ready or out of reach, for a while.
pub fn default_tolerations(pod: &mut Value) {
    let tolerates = |key: &str, pod: &Value| {
        items(&pod["spec"], "tolerations").iter().any(|toleration| {
            (text(toleration, "key") == key || text(toleration, "key").is_empty())
                && matches!(text(toleration, "effect"), "NoExecute" | "")
        })
    };
    let missing: Vec<Value> = [NOT_READY, UNREACHABLE]
        .iter()
        .filter(|key| !tolerates(key, pod))
        .map(|key| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATION_SECONDS}))
        .collect();
    if missing.is_empty() {
        return;
    }
    let mut tolerations = items(&pod["spec"], "tolerations").to_vec();
    tolerations.extend(missing);
    set(&mut pod["spec"], "tolerations", tolerations);
}

/// What tells where a node is.
const TOPOLOGY: [&str; 2] = ["topology.kubernetes.io/region", "topology.kubernetes.io/zone"];

/// A pod says where its node is, unless it says so itself (upstream's PodTopologyLabels, KEP-4742).
pub fn topology_labels(call: &Call, object: &mut Value, node: &str) -> Result<(), Status> {
    if node.is_empty() {
        return Ok(());
    }
    let snapshot = call.server.cache_of("", "nodes")?.snapshot();
    let Some(node) = snapshot.get(node).map(|node| node.parse()) else { return Ok(()) };
    for label in TOPOLOGY {
        if let Some(place) = meta::label(&node, label).map(str::to_owned)
            && meta::label(object, label).is_none()
            && let Some(metadata) = meta::metadata_mut(object)
        {
            set_label(metadata, label, place);
        }
    }
    Ok(())
}

fn set_label(metadata: &mut coracle_api::json::Map, label: &str, value: String) {
    let labels = metadata.entry("labels").or_insert_with(|| json!({}));
    if !labels.is_object() {
        *labels = json!({});
    }
    labels[label] = value.into();
}

/// Priority classes: group and resource.
pub const CLASSES: (&str, &str) = ("scheduling.k8s.io", "priorityclasses");

/// The number behind a priority class (upstream's Priority).
pub fn priority(call: &Call, pod: &mut Value) -> Result<(), Status> {
    let snapshot = call.server.cache_of(CLASSES.0, CLASSES.1)?.snapshot();
    let name = text(&pod["spec"], "priorityClassName").to_owned();
    let class = if name.is_empty() {
        // Hardly a class is the default: a look at the encoding spares parsing all of them for every pod.
        let candidates = snapshot
            .objects
            .values()
            .filter(|object| memchr::memmem::find(object.json_slice(), b"\"globalDefault\":true").is_some());
        candidates
            .map(|object| object.parse())
            .filter(|class| class["globalDefault"].as_bool() == Some(true))
            .min_by_key(|class| class["value"].as_i64())
    } else {
        let class = snapshot.get(&name).map(|object| object.parse());
        if class.is_none() {
            let why = format!("no PriorityClass with name {name} was found");
            return Err(Status::forbidden(&Gvr::of("", "v1", "pods"), meta::name(pod), &why));
        }
        class
    };
    let (value, policy) = match &class {
        Some(class) => {
            set(&mut pod["spec"], "priorityClassName", meta::name(class));
            (class["value"].as_i64().unwrap_or(0), text(class, "preemptionPolicy").to_owned())
        }
        None => (0, "PreemptLowerPriority".to_owned()),
    };
    if let Some(given) = pod["spec"].get("priority").and_then(Value::as_i64)
        && given != value
    {
        let why = format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name"
        );
        return Err(Status::forbidden(&Gvr::of("", "v1", "pods"), meta::name(pod), &why));
    }
    set(&mut pod["spec"], "priority", value);
    if policy.is_empty() {
        return Ok(());
    }
    if let Some(given) = pod["spec"].get("preemptionPolicy").and_then(Value::as_str)
        && given != policy
    {
        let why = format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
        );
        return Err(Status::forbidden(&Gvr::of("", "v1", "pods"), meta::name(pod), &why));
    }
    set(&mut pod["spec"], "preemptionPolicy", policy);
    Ok(())
}

/// What was computed when the pod was made stays when an update leaves it out.
pub fn keep_priority(pod: &mut Value, old: &Value) {
    for field in ["priority", "preemptionPolicy"] {
        if let Some(known) = old["spec"].get(field) {
            set_default(&mut pod["spec"], field, known.clone());
        }
    }
}

/// A new node takes no pods before it is known to be ready (upstream's TaintNodesByCondition).
pub fn taint_new_node(node: &mut Value) {
    if !node["spec"].is_object() {
        set(node, "spec", json!({}));
    }
    let mut taints = items(&node["spec"], "taints").to_vec();
    if !taints.iter().any(|taint| text(taint, "key") == NOT_READY && text(taint, "effect") == "NoSchedule") {
        taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
        set(&mut node["spec"], "taints", taints);
    }
}
