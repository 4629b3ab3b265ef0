//! HorizontalPodAutoscalers as autoscaling/v1 tells of them: it knows one metric, and keeps everything else in annotations, in forms
//! of its own (upstream `pkg/apis/autoscaling/v1/conversion.go`, `types.go` of autoscaling/v1).

use super::fields::{object_mut, remove, set, text};
use coracle_api::json::{Map, Value, json};
use coracle_api::meta;

/// The annotations; what stands there is what the conversion put there.
const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
/// All of them.
pub const ANNOTATIONS: [&str; 4] = [METRICS, CURRENT_METRICS, BEHAVIOR, CONDITIONS];
/// The target when none is given, in percent.
const DEFAULT_UTILIZATION: i64 = 80;

/// A field: its name in v1, where v2 has it, and whether v1 shows it always, as 0.
type Pair = (&'static str, &'static [&'static str], bool);

/// The kinds of metrics by their field, as they are wanted.
const WANTED: [(&str, &[Pair]); 5] = [
    (
        "object",
        &[
            ("target", &["describedObject"], false),
            ("metricName", &["metric", "name"], false),
            ("targetValue", &["target", "value"], true),
            ("selector", &["metric", "selector"], false),
            ("averageValue", &["target", "averageValue"], false),
        ],
    ),
    (
        "pods",
        &[
            ("metricName", &["metric", "name"], false),
            ("targetAverageValue", &["target", "averageValue"], true),
            ("selector", &["metric", "selector"], false),
        ],
    ),
    (
        "resource",
        &[
            ("name", &["name"], false),
            ("targetAverageUtilization", &["target", "averageUtilization"], false),
            ("targetAverageValue", &["target", "averageValue"], false),
        ],
    ),
    (
        "containerResource",
        &[
            ("name", &["name"], false),
            ("targetAverageUtilization", &["target", "averageUtilization"], false),
            ("targetAverageValue", &["target", "averageValue"], false),
            ("container", &["container"], false),
        ],
    ),
    (
        "external",
        &[
            ("metricName", &["metric", "name"], false),
            ("metricSelector", &["metric", "selector"], false),
            ("targetValue", &["target", "value"], false),
            ("targetAverageValue", &["target", "averageValue"], false),
        ],
    ),
];

/// The same, as they are.
const CURRENT: [(&str, &[Pair]); 5] = [
    (
        "object",
        &[
            ("target", &["describedObject"], false),
            ("metricName", &["metric", "name"], false),
            ("currentValue", &["current", "value"], true),
            ("selector", &["metric", "selector"], false),
            ("averageValue", &["current", "averageValue"], false),
        ],
    ),
    (
        "pods",
        &[
            ("metricName", &["metric", "name"], false),
            ("currentAverageValue", &["current", "averageValue"], true),
            ("selector", &["metric", "selector"], false),
        ],
    ),
    (
        "resource",
        &[
            ("name", &["name"], false),
            ("currentAverageUtilization", &["current", "averageUtilization"], false),
            ("currentAverageValue", &["current", "averageValue"], true),
        ],
    ),
    (
        "containerResource",
        &[
            ("name", &["name"], false),
            ("currentAverageUtilization", &["current", "averageUtilization"], false),
            ("currentAverageValue", &["current", "averageValue"], true),
            ("container", &["container"], false),
        ],
    ),
    (
        "external",
        &[
            ("metricName", &["metric", "name"], false),
            ("metricSelector", &["metric", "selector"], false),
            ("currentValue", &["current", "value"], true),
            ("currentAverageValue", &["current", "averageValue"], false),
        ],
    ),
];

/// Rules of scaling, which are told of under the names of upstream's own structures.
const RULES: [(&str, &str); 4] = [
    ("StabilizationWindowSeconds", "stabilizationWindowSeconds"),
    ("SelectPolicy", "selectPolicy"),
    ("Policies", "policies"),
    ("Tolerance", "tolerance"),
];
const POLICY: [(&str, &str); 3] = [("Type", "type"), ("Value", "value"), ("PeriodSeconds", "periodSeconds")];
const WAYS: [(&str, &str); 2] = [("ScaleUp", "scaleUp"), ("ScaleDown", "scaleDown")];

/// From v2 to v1.
pub fn from_v2(object: &mut Value) {
    meta::drop_annotations(object, &ANNOTATIONS);
    let spec = object_mut(object, "spec");
    let metrics = take_list(spec, "metrics");
    let behavior = remove(spec, "behavior").filter(Value::is_object);
    if let Some(percent) = metrics.iter().find(|metric| is_cpu(metric)).and_then(|metric| utilization(metric, "target"))
    {
        set(spec, "targetCPUUtilizationPercentage", percent);
    }
    let (mut current, mut conditions) = (Vec::new(), Vec::new());
    if let Some(status) = object.get_mut("status").filter(|status| status.is_object()) {
        (current, conditions) = (take_list(status, "currentMetrics"), take_list(status, "conditions"));
        let cpu = current.iter().filter(|metric| is_cpu(metric));
        if let Some(percent) = cpu.filter_map(|metric| utilization(metric, "current")).next_back() {
            set(status, "currentCPUUtilizationPercentage", percent);
        }
    }
    let is_told = |metric: &&Value| !(is_cpu(metric) && utilization(metric, "target").is_some());
    let others = metrics.iter().filter(is_told).map(|metric| to_v1(metric, &WANTED)).collect();
    annotate(object, METRICS, others);
    annotate(object, CURRENT_METRICS, current.iter().map(|metric| to_v1(metric, &CURRENT)).collect());
    if let Some(behavior) = behavior {
        put(
            object,
            BEHAVIOR,
            &renamed(&behavior, &WAYS, |rules| {
                renamed(rules, &RULES, |value| match value {
                    Value::Array(policies) => {
                        policies.iter().map(|policy| renamed(policy, &POLICY, Value::clone)).collect()
                    }
                    value => value.clone(),
                })
            }),
        );
    }
    annotate(object, CONDITIONS, conditions);
}

/// From v1 to v2.
pub fn to_v2(object: &mut Value) {
    set(object, "apiVersion", "autoscaling/v2");
    let [metrics, current, behavior, conditions] = ANNOTATIONS.map(|name| annotated(object, name));
    meta::drop_annotations(object, &ANNOTATIONS);
    let list = |value: Option<Value>| match value {
        Some(Value::Array(items)) => Some(items),
        _ => None,
    };
    let spec = object_mut(object, "spec");
    let percent = remove(spec, "targetCPUUtilizationPercentage").and_then(|percent| percent.as_i64());
    let mut wanted: Vec<Value> = list(metrics).unwrap_or_default().iter().map(wanted_of_v1).collect();
    wanted.extend(percent.map(cpu));
    if wanted.is_empty() {
        wanted.push(cpu(DEFAULT_UTILIZATION));
    }
    set(spec, "metrics", wanted);
    if let Some(behavior) = behavior.filter(|behavior| WAYS.iter().any(|(way, _)| behavior[*way].is_object())) {
        set(spec, "behavior", behavior_of_v1(&behavior));
    }
    let Some(status) = object.get_mut("status").filter(|status| status.is_object()) else { return };
    let percent = remove(status, "currentCPUUtilizationPercentage");
    if let Some(current) = list(current) {
        let current: Vec<Value> = current.iter().map(|metric| of_v1(metric, &CURRENT)).collect();
        set(status, "currentMetrics", current);
    } else if let Some(percent) = percent {
        let metric =
            json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": percent}}});
        set(status, "currentMetrics", json!([metric]));
    }
    if let Some(conditions) = list(conditions) {
        set(status, "conditions", conditions);
    }
}

/// The metric of CPU.
pub fn cpu(percent: i64) -> Value {
    json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}}})
}

fn is_cpu(metric: &Value) -> bool {
    text(metric, "type") == "Resource" && metric.get("resource").is_some_and(|resource| text(resource, "name") == "cpu")
}

fn utilization(metric: &Value, part: &str) -> Option<i64> {
    metric.get("resource")?.get(part)?.get("averageUtilization")?.as_i64()
}

fn to_v1(metric: &Value, kinds: &[(&str, &[Pair])]) -> Value {
    let mut told = Map::from_iter([("type", text(metric, "type"))]);
    for (field, pairs) in kinds {
        let Some(source) = metric.get(*field).filter(|source| source.is_object()) else { continue };
        let mut inner = Map::new();
        for (name, path, always) in *pairs {
            let found = path.iter().try_fold(source, |value, name| value.get(*name)).filter(|found| !found.is_null());
            if let Some(value) = found.cloned().or_else(|| always.then(|| "0".into())) {
                inner.insert((*name).to_owned(), value);
            }
        }
        told.insert((*field).to_owned(), inner.into());
    }
    told.into()
}

fn of_v1(metric: &Value, kinds: &[(&str, &[Pair])]) -> Value {
    let mut told = json!({"type": text(metric, "type")});
    for (field, pairs) in kinds {
        let Some(source) = metric.get(*field).filter(|source| source.is_object()) else { continue };
        let inner = object_mut(&mut told, field);
        for (name, path, always) in *pairs {
            let value = source.get(*name).filter(|value| !value.is_null()).cloned();
            let (Some(value), Some((last, above))) = (value.or_else(|| always.then(|| "0".into())), path.split_last())
            else {
                continue;
            };
            let holder = above.iter().fold(&mut *inner, |holder, name| object_mut(holder, name));
            set(holder, last, value);
        }
    }
    told
}

/// A metric that is wanted: in v1 its fields alone say what kind of target it has.
fn wanted_of_v1(metric: &Value) -> Value {
    let mut told = of_v1(metric, &WANTED);
    for (field, source) in told.as_object_mut().into_iter().flatten().filter(|(field, _)| *field != "type") {
        let target = object_mut(source, "target");
        let has = |name: &str| target.get(name).is_some();
        let kind = match field.as_str() {
            "object" if !has("averageValue") => "Value",
            "external" if has("value") => "Value",
            "resource" | "containerResource" if has("averageUtilization") => "Utilization",
            _ => "AverageValue",
        };
        set(target, "type", kind);
    }
    told
}

fn renamed(value: &Value, names: &[(&str, &str)], inner: impl Fn(&Value) -> Value) -> Value {
    let given = |name: &str| value.get(name).filter(|value| !value.is_null());
    let field = |(new, old): &(&str, &str)| ((*new).to_owned(), given(old).map_or(Value::Null, &inner));
    Value::Object(names.iter().map(field).collect())
}

fn behavior_of_v1(behavior: &Value) -> Value {
    let swap = |names: &[(&'static str, &'static str)]| names.iter().map(|(a, b)| (*b, *a)).collect::<Vec<_>>();
    let (rules, policy) = (swap(&RULES), swap(&POLICY));
    renamed(behavior, &swap(&WAYS), |found| {
        renamed(found, &rules, |value| match value {
            Value::Array(policies) => policies.iter().map(|found| renamed(found, &policy, Value::clone)).collect(),
            value => value.clone(),
        })
    })
}

fn take_list(value: &mut Value, name: &str) -> Vec<Value> {
    match remove(value, name) {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    }
}

fn annotate(object: &mut Value, name: &str, list: Vec<Value>) {
    if !list.is_empty() {
        put(object, name, &list.into());
    }
}

fn put(object: &mut Value, name: &str, value: &Value) {
    object_mut(object_mut(object, "metadata"), "annotations")[name] = value.to_string().into();
}

fn annotated(object: &Value, name: &str) -> Option<Value> {
    serde_json::from_str(meta::annotation(object, name)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_go_round() {
        let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
        let stored = json!({"apiVersion": "autoscaling/v2", "metadata": {"name": "a"}, "spec": {"maxReplicas": 3, "metrics": [
                {"type": "Object", "object": {"describedObject": {"kind": "S", "name": "s"}, "metric": {"name": "m"}, "target": {"value": "5", "type": "Value"}}},
                {"type": "Pods", "pods": {"metric": {"name": "m", "selector": {}}, "target": {"averageValue": "5", "type": "AverageValue"}}},
                {"type": "Resource", "resource": {"name": "memory", "target": {"averageUtilization": 5, "type": "Utilization"}}},
                {"type": "ContainerResource", "containerResource": {"name": "cpu", "target": {"averageValue": "1", "type": "AverageValue"}, "container": "c"}},
                {"type": "External", "external": {"metric": {"name": "m"}, "target": {"averageValue": "5", "type": "AverageValue"}}},
                cpu(50)],
                "behavior": {"scaleUp": null, "scaleDown": {"stabilizationWindowSeconds": 5, "selectPolicy": "Max", "policies": [percent], "tolerance": null}}},
            "status": {"conditions": [{"type": "x"}], "currentMetrics": [
                {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 7, "averageValue": "1"}}}]}});
        let mut object = stored.clone();
        from_v2(&mut object);
        assert_eq!(object["spec"], json!({"maxReplicas": 3, "targetCPUUtilizationPercentage": 50}));
        assert_eq!(object["status"], json!({"currentCPUUtilizationPercentage": 7}));
        let annotation = |name: &str| object["metadata"]["annotations"][name].as_str().unwrap().to_owned();
        assert_eq!(
            annotation(CURRENT_METRICS),
            r#"[{"type":"Resource","resource":{"name":"cpu","currentAverageUtilization":7,"currentAverageValue":"1"}}]"#
        );
        assert_eq!(
            annotation(BEHAVIOR),
            r#"{"ScaleUp":null,"ScaleDown":{"StabilizationWindowSeconds":5,"SelectPolicy":"Max","Policies":[{"Type":"Percent","Value":100,"PeriodSeconds":15}],"Tolerance":null}}"#
        );
        assert!(annotation(METRICS).starts_with(
            r#"[{"type":"Object","object":{"target":{"kind":"S","name":"s"},"metricName":"m","targetValue":"5"}},{"type":"Pods","#
        ));
        to_v2(&mut object);
        assert_eq!(object, stored);
    }
}
