//! Disruption budgets, autoscalers, priorities, quotas.

use crate::json::Value;

use super::access::{int_at, joined, map_at, or_none, shown, str_at};
use super::{AGE, Column, NAME, Printer, age, number, text};
use crate::meta;

pub(super) fn find(group: &str, kind: &str) -> Option<&'static Printer> {
    Some(match (group, kind) {
        ("policy", "PodDisruptionBudget") => &BUDGET,
        ("scheduling.k8s.io", "PriorityClass") => &PRIORITY_CLASS,
        ("", "ResourceQuota") => &QUOTA,
        ("autoscaling", "HorizontalPodAutoscaler") => &AUTOSCALER,
        ("apiregistration.k8s.io", "APIService") => &API_SERVICE,
        ("flowcontrol.apiserver.k8s.io", "FlowSchema") => &FLOW_SCHEMA,
        ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration") => &PRIORITY_LEVEL,
        ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration") => {
            &WEBHOOKS
        }
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy") => &VALIDATING_POLICY,
        ("admissionregistration.k8s.io", "MutatingAdmissionPolicy") => &MUTATING_POLICY,
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding" | "MutatingAdmissionPolicyBinding") => {
            &POLICY_BINDING
        }
        ("resource.k8s.io", "DeviceClass" | "ResourceClaimTemplate") => super::aged(),
        ("resource.k8s.io", "ResourceClaim") => &CLAIM,
        ("resource.k8s.io", "ResourceSlice") => &SLICE,
        _ => return None,
    })
}

/// Text or number, `N/A` when it is not said.
fn or_not_applicable(value: Option<&Value>) -> String {
    value.filter(|v| !v.is_null()).map_or_else(|| "N/A".into(), shown)
}

static BUDGET: Printer = Printer {
    columns: &[NAME, text("Min Available"), text("Max Unavailable"), number("Allowed Disruptions"), AGE],
    cells: |o, now| {
        vec![
            meta::name(o).into(),
            or_not_applicable(o.pointer("/spec/minAvailable")).into(),
            or_not_applicable(o.pointer("/spec/maxUnavailable")).into(),
            int_at(o, "/status/disruptionsAllowed").into(),
            age(o, now).into(),
        ]
    },
};

static PRIORITY_CLASS: Printer = Printer {
    columns: &[
        NAME,
        number("Value"),
        Column { kind: "boolean", ..text("Global-Default") },
        AGE,
        text("PreemptionPolicy"),
    ],
    cells: |o, now| {
        let policy = match str_at(o, "/preemptionPolicy") {
            "" => "PreemptLowerPriority",
            policy => policy,
        };
        vec![
            meta::name(o).into(),
            int_at(o, "/value").into(),
            o.get("globalDefault").and_then(Value::as_bool).unwrap_or(false).into(),
            age(o, now).into(),
            policy.into(),
        ]
    },
};

static QUOTA: Printer = Printer {
    columns: &[NAME, text("Request"), text("Limit"), AGE],
    cells: |o, now| {
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        let mut hard: Vec<_> = map_at(o, "/status/hard").into_iter().flatten().collect();
        hard.sort_by_key(|(name, _)| name.as_str());
        for (name, most) in hard {
            let used = map_at(o, "/status/used").and_then(|used| used.get(name)).map_or_else(|| "0".into(), shown);
            let list = if name.starts_with("limits") { &mut limits } else { &mut requests };
            list.push(format!("{name}: {used}/{}", shown(most)));
        }
        vec![meta::name(o).into(), requests.join(", ").into(), limits.join(", ").into(), age(o, now).into()]
    },
};

static AUTOSCALER: Printer = Printer {
    columns: &[NAME, text("Reference"), text("Targets"), text("MinPods"), text("MaxPods"), text("Replicas"), AGE],
    cells: |o, now| {
        let reference =
            format!("{}/{}", str_at(o, "/spec/scaleTargetRef/kind"), str_at(o, "/spec/scaleTargetRef/name"));
        vec![
            meta::name(o).into(),
            reference.into(),
            or_none(&autoscaler_targets(o)).into(),
            o.pointer("/spec/minReplicas").map_or_else(|| "<unset>".into(), shown).into(),
            int_at(o, "/spec/maxReplicas").to_string().into(),
            int_at(o, "/status/currentReplicas").to_string().into(),
            age(o, now).into(),
        ]
    },
};

/// Resource metrics by utilization or value, in both versions of the kind.
fn autoscaler_targets(o: &Value) -> String {
    let list = |pointer: &str| o.pointer(pointer).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let percent =
        |value: Option<&Value>| value.filter(|v| v.is_number()).map_or_else(|| "<unknown>".into(), |v| format!("{v}%"));
    if let Some(target) = o.pointer("/spec/targetCPUUtilizationPercentage") {
        return format!(
            "cpu: {}/{}",
            percent(o.pointer("/status/currentCPUUtilizationPercentage")),
            percent(Some(target))
        );
    }
    let current = list("/status/currentMetrics");
    joined(list("/spec/metrics").iter().enumerate().map(|(i, metric)| {
        let now = current.get(i);
        let read = |field: &str| now.and_then(|now| now.pointer(&format!("/resource/current/{field}")));
        let name = str_at(metric, "/resource/name");
        match metric.pointer("/resource/target/averageUtilization") {
            Some(target) => format!("{name}: {}/{}", percent(read("averageUtilization")), percent(Some(target))),
            None => {
                let target = metric.pointer("/resource/target/averageValue").map_or_else(|| "<auto>".into(), shown);
                format!("{name}: {}/{target}", read("averageValue").map_or_else(|| "<unknown>".into(), shown))
            }
        }
    }))
}

static API_SERVICE: Printer = Printer {
    columns: &[NAME, text("Service"), text("Available"), AGE],
    cells: |o, now| {
        let service = match str_at(o, "/spec/service/name") {
            "" => "Local".into(),
            name => format!("{}/{name}", str_at(o, "/spec/service/namespace")),
        };
        let available =
            super::access::list_at(o, "/status/conditions").iter().find(|c| str_at(c, "/type") == "Available");
        let available = available.map_or_else(
            || "Unknown".to_owned(),
            |c| match str_at(c, "/status") {
                "True" => "True".to_owned(),
                status => format!("{status} ({})", str_at(c, "/reason")),
            },
        );
        vec![meta::name(o).into(), service.into(), available.into(), age(o, now).into()]
    },
};

fn count(o: &Value, pointer: &str) -> usize {
    super::access::list_at(o, pointer).len()
}

/// Where the precedence stands among the columns of flow schemas.
pub(super) const PRECEDENCE: usize = 2;

static FLOW_SCHEMA: Printer = Printer {
    columns: &[
        NAME,
        text("PriorityLevel"),
        number("MatchingPrecedence"),
        text("DistinguisherMethod"),
        AGE,
        text("MissingPL"),
    ],
    cells: |o, now| {
        let dangling =
            super::access::list_at(o, "/status/conditions").iter().find(|c| str_at(c, "/type") == "Dangling");
        vec![
            meta::name(o).into(),
            str_at(o, "/spec/priorityLevelConfiguration/name").into(),
            int_at(o, "/spec/matchingPrecedence").into(),
            or_none(str_at(o, "/spec/distinguisherMethod/type")).into(),
            age(o, now).into(),
            dangling.map_or("?", |condition| str_at(condition, "/status")).into(),
        ]
    },
};

static PRIORITY_LEVEL: Printer = Printer {
    columns: &[
        NAME,
        text("Type"),
        text("NominalConcurrencyShares"),
        text("Queues"),
        text("HandSize"),
        text("QueueLengthLimit"),
        AGE,
    ],
    cells: |o, now| {
        let shares = o
            .pointer("/spec/limited/nominalConcurrencyShares")
            .or_else(|| o.pointer("/spec/exempt/nominalConcurrencyShares"));
        let queuing = |name: &str| o.pointer(&format!("/spec/limited/limitResponse/queuing/{name}"));
        let cell = |value: Option<&Value>| value.map_or_else(|| "<none>".to_owned(), shown);
        vec![
            meta::name(o).into(),
            str_at(o, "/spec/type").into(),
            cell(shares).into(),
            cell(queuing("queues")).into(),
            cell(queuing("handSize")).into(),
            cell(queuing("queueLengthLimit")).into(),
            age(o, now).into(),
        ]
    },
};

static WEBHOOKS: Printer = Printer {
    columns: &[NAME, number("Webhooks"), AGE],
    cells: |o, now| vec![meta::name(o).into(), count(o, "/webhooks").into(), age(o, now).into()],
};

fn param_kind(o: &Value) -> String {
    match (str_at(o, "/spec/paramKind/apiVersion"), str_at(o, "/spec/paramKind/kind")) {
        ("", "") => "<unset>".into(),
        (version, kind) => format!("{version}/{kind}"),
    }
}

static VALIDATING_POLICY: Printer = Printer {
    columns: &[NAME, number("Validations"), text("ParamKind"), AGE],
    cells: |o, now| {
        vec![meta::name(o).into(), count(o, "/spec/validations").into(), param_kind(o).into(), age(o, now).into()]
    },
};

static MUTATING_POLICY: Printer = Printer {
    columns: &[NAME, number("Mutations"), text("ParamKind"), AGE],
    cells: |o, now| {
        vec![meta::name(o).into(), count(o, "/spec/mutations").into(), param_kind(o).into(), age(o, now).into()]
    },
};

static POLICY_BINDING: Printer = Printer {
    columns: &[NAME, text("PolicyName"), text("ParamRef"), AGE],
    cells: |o, now| {
        let param = match (str_at(o, "/spec/paramRef/namespace"), str_at(o, "/spec/paramRef/name")) {
            ("", "") => "<unset>".into(),
            ("", name) => name.to_owned(),
            (namespace, name) => format!("{namespace}/{name}"),
        };
        vec![meta::name(o).into(), str_at(o, "/spec/policyName").into(), param.into(), age(o, now).into()]
    },
};

static CLAIM: Printer = Printer {
    columns: &[NAME, text("State"), AGE],
    cells: |o, now| {
        let mut states = Vec::new();
        if meta::deletion_timestamp(o).is_some() {
            states.push("deleted");
        }
        if o.pointer("/status/allocation").is_none() {
            states.push("pending");
        } else {
            states.push("allocated");
            if count(o, "/status/reservedFor") > 0 {
                states.push("reserved");
            }
        }
        vec![meta::name(o).into(), states.join(",").into(), age(o, now).into()]
    },
};

static SLICE: Printer = Printer {
    columns: &[NAME, text("Node"), text("Driver"), text("Pool"), AGE],
    cells: |o, now| {
        let node = match str_at(o, "/spec/nodeName") {
            "" => "<unset>",
            node => node,
        };
        vec![
            meta::name(o).into(),
            node.into(),
            str_at(o, "/spec/driver").into(),
            str_at(o, "/spec/pool/name").into(),
            age(o, now).into(),
        ]
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::json;
    use jiff::Timestamp;

    #[test]
    fn a_budget_and_an_autoscaler() {
        let budget =
            json!({"metadata": {"name": "b"}, "spec": {"minAvailable": "50%"}, "status": {"disruptionsAllowed": 1}});
        assert_eq!(BUDGET.row(&budget, Timestamp::UNIX_EPOCH)[1..4], [json!("50%"), json!("N/A"), json!(1)]);
        let autoscaler = json!({"spec": {"maxReplicas": 5, "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": 80}}}]}});
        assert_eq!(AUTOSCALER.row(&autoscaler, Timestamp::UNIX_EPOCH)[2], "cpu: <unknown>/80%");
    }
}
