//! Namespaces, events, configuration and accounts.

use crate::json::Value;
use jiff::Timestamp;

use super::access::{int_at, joined, list_at, map_at, or_none, str_at};
use super::duration::since;
use super::{AGE, Cell, Column, NAME, Printer, age, number, text, wide};
use crate::meta;

pub(super) fn find(group: &str, kind: &str) -> Option<&'static Printer> {
    Some(match (group, kind) {
        ("", "Namespace") => &NAMESPACE,
        ("" | "events.k8s.io", "Event") => &EVENT,
        ("", "ComponentStatus") => &COMPONENT,
        ("", "ConfigMap") => &CONFIG_MAP,
        ("", "Secret") => &SECRET,
        ("", "ServiceAccount") => &SERVICE_ACCOUNT,
        ("coordination.k8s.io", "Lease") => &LEASE,
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => &ROLE_BINDING,
        ("certificates.k8s.io", "CertificateSigningRequest") => &CSR,
        _ => return None,
    })
}

static NAMESPACE: Printer = Printer {
    columns: &[NAME, text("Status"), AGE],
    cells: |o, now| vec![meta::name(o).into(), str_at(o, "/status/phase").into(), age(o, now).into()],
};

static COMPONENT: Printer = Printer {
    columns: &[NAME, text("Status"), text("Message"), text("Error")],
    cells: |o, _| {
        let healthy = list_at(o, "/conditions").iter().find(|condition| str_at(condition, "/type") == "Healthy");
        let of = |field: &str| healthy.map_or("", |condition| str_at(condition, field));
        let status = if of("/status") == "True" { "Healthy" } else { "Unhealthy" };
        vec![meta::name(o).into(), status.into(), of("/message").into(), of("/error").into()]
    },
};

static EVENT: Printer = Printer {
    columns: &[
        text("Last Seen"),
        text("Type"),
        text("Reason"),
        text("Object"),
        wide("Subobject"),
        wide("Source"),
        text("Message"),
        wide("First Seen"),
        wide("Count"),
        Column { name: "Name", kind: "string", format: "name", priority: 1 },
    ],
    cells: event,
};

/// The two groups name the same things differently; this reads either.
fn event(o: &Value, now: Timestamp) -> Vec<Cell> {
    let either = |a: &str, b: &str| match str_at(o, a) {
        "" => str_at(o, b),
        found => found,
    };
    let object = if o.get("regarding").is_some() { "/regarding" } else { "/involvedObject" };
    let first = either("/firstTimestamp", "/deprecatedFirstTimestamp");
    let first = if first.is_empty() { str_at(o, "/eventTime") } else { first };
    let last = either("/lastTimestamp", "/deprecatedLastTimestamp");
    let series = str_at(o, "/series/lastObservedTime");
    let last = if !series.is_empty() {
        series
    } else if last.is_empty() {
        first
    } else {
        last
    };
    let count = [int_at(o, "/series/count"), int_at(o, "/count"), int_at(o, "/deprecatedCount")]
        .into_iter()
        .find(|n| *n > 0)
        .unwrap_or(1);
    let component = match either("/source/component", "/deprecatedSource/component") {
        "" => either("/reportingComponent", "/reportingController"),
        component => component,
    };
    let host = either("/source/host", "/deprecatedSource/host");
    let kind = str_at(o, &format!("{object}/kind")).to_lowercase();
    vec![
        since(last, now).into(),
        str_at(o, "/type").into(),
        str_at(o, "/reason").into(),
        format!("{kind}/{}", str_at(o, &format!("{object}/name"))).into(),
        str_at(o, &format!("{object}/fieldPath")).into(),
        (if host.is_empty() { component.to_owned() } else { format!("{component}, {host}") }).into(),
        either("/message", "/note").trim().into(),
        since(first, now).into(),
        count.to_string().into(),
        meta::name(o).into(),
    ]
}

static CONFIG_MAP: Printer = Printer {
    columns: &[NAME, number("Data"), AGE],
    cells: |o, now| {
        let entries = map_at(o, "/data").map_or(0, |m| m.len()) + map_at(o, "/binaryData").map_or(0, |m| m.len());
        vec![meta::name(o).into(), entries.into(), age(o, now).into()]
    },
};

static SECRET: Printer = Printer {
    columns: &[NAME, text("Type"), number("Data"), AGE],
    cells: |o, now| {
        vec![
            meta::name(o).into(),
            str_at(o, "/type").into(),
            map_at(o, "/data").map_or(0, |m| m.len()).into(),
            age(o, now).into(),
        ]
    },
};

static SERVICE_ACCOUNT: Printer = Printer {
    columns: &[NAME, number("Secrets"), AGE],
    cells: |o, now| vec![meta::name(o).into(), list_at(o, "/secrets").len().into(), age(o, now).into()],
};

static LEASE: Printer = Printer {
    columns: &[NAME, text("Holder"), AGE],
    cells: |o, now| vec![meta::name(o).into(), str_at(o, "/spec/holderIdentity").into(), age(o, now).into()],
};

static ROLE_BINDING: Printer = Printer {
    columns: &[NAME, text("Role"), AGE, wide("Users"), wide("Groups"), wide("ServiceAccounts")],
    cells: |o, now| {
        let subjects = |kind: &'static str| list_at(o, "/subjects").iter().filter(move |s| str_at(s, "/kind") == kind);
        let names =
            |kind: &'static str| Cell::from(joined(subjects(kind).map(|s| str_at(s, "/name"))).replace(',', ", "));
        let accounts =
            joined(subjects("ServiceAccount").map(|s| format!("{}/{}", str_at(s, "/namespace"), str_at(s, "/name"))));
        vec![
            meta::name(o).into(),
            format!("{}/{}", str_at(o, "/roleRef/kind"), str_at(o, "/roleRef/name")).into(),
            age(o, now).into(),
            names("User"),
            names("Group"),
            accounts.replace(',', ", ").into(),
        ]
    },
};

static CSR: Printer = Printer {
    columns: &[NAME, AGE, text("SignerName"), text("Requestor"), text("RequestedDuration"), text("Condition")],
    cells: |o, now| {
        let duration = o
            .pointer("/spec/expirationSeconds")
            .and_then(Value::as_i64)
            .map_or_else(|| "<none>".into(), super::human_duration);
        vec![
            meta::name(o).into(),
            age(o, now).into(),
            or_none(str_at(o, "/spec/signerName")).into(),
            str_at(o, "/spec/username").into(),
            duration.into(),
            csr_condition(o).into(),
        ]
    },
};

fn csr_condition(o: &Value) -> String {
    let has = |kind: &str| list_at(o, "/status/conditions").iter().any(|c| str_at(c, "/type") == kind);
    let mut word = if has("Denied") {
        "Denied"
    } else if has("Approved") {
        "Approved"
    } else {
        "Pending"
    }
    .to_owned();
    if has("Failed") {
        word.push_str(",Failed");
    }
    if !str_at(o, "/status/certificate").is_empty() {
        word.push_str(",Issued");
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::parse_rfc3339;
    use crate::json::json;

    #[test]
    fn events_of_both_groups() {
        let now = parse_rfc3339("2026-01-01T00:02:00Z").unwrap();
        let core = json!({"metadata": {"name": "e"}, "type": "Normal", "reason": "Pulled", "message": "done\n", "count": 3, "source": {"component": "kubelet", "host": "n1"},
            "involvedObject": {"kind": "Pod", "name": "web", "fieldPath": "spec.containers{a}"}, "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:01:00Z"});
        assert_eq!(
            EVENT.row(&core, now),
            ["60s", "Normal", "Pulled", "pod/web", "spec.containers{a}", "kubelet, n1", "done", "2m", "3", "e"]
        );
        let new = json!({"metadata": {"name": "e"}, "type": "Warning", "reason": "Failed", "note": "no", "reportingController": "x", "eventTime": "2026-01-01T00:01:00.000000Z",
            "regarding": {"kind": "Node", "name": "n"}, "series": {"count": 9, "lastObservedTime": "2026-01-01T00:01:50.000000Z"}});
        assert_eq!(EVENT.row(&new, now), ["10s", "Warning", "Failed", "node/n", "", "x", "no", "60s", "9", "e"]);
    }

    #[test]
    fn a_signing_request() {
        let csr = json!({"status": {"conditions": [{"type": "Approved"}], "certificate": "eA=="}, "spec": {"expirationSeconds": 3600}});
        let row = CSR.row(&csr, Timestamp::UNIX_EPOCH);
        assert_eq!((row[4].as_str(), row[5].as_str()), (Some("60m"), Some("Approved,Issued")));
    }
}
