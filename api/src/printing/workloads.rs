//! Deployments and what else makes pods.

use crate::json::{Value, json};

use super::access::{containers, int_at, labels, list_at, map_at, selector, str_at};
use super::{AGE, Cell, NAME, Printer, age, number, text, wide};
use crate::meta;

const TEMPLATE: &str = "/spec/template/spec/containers";

pub(super) fn find(group: &str, kind: &str) -> Option<&'static Printer> {
    Some(match (group, kind) {
        ("apps", "Deployment") => &DEPLOYMENT,
        ("apps", "ReplicaSet") => &REPLICA_SET,
        ("apps", "StatefulSet") => &STATEFUL_SET,
        ("apps", "DaemonSet") => &DAEMON_SET,
        ("apps", "ControllerRevision") => &CONTROLLER_REVISION,
        ("", "ReplicationController") => &REPLICATION_CONTROLLER,
        ("", "PodTemplate") => &POD_TEMPLATE,
        ("autoscaling", "Scale") => &SCALE,
        _ => return None,
    })
}

/// `spec.replicas`, 1 when it is not said.
fn desired(object: &Value) -> i64 {
    object.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1)
}

fn with_template(mut cells: Vec<Cell>, object: &Value, selector: Option<String>) -> Vec<Cell> {
    let (names, images) = containers(object, TEMPLATE);
    cells.extend([names.into(), images.into()]);
    cells.extend(selector.map(Cell::from));
    cells
}

static DEPLOYMENT: Printer = Printer {
    columns: &[
        NAME,
        text("Ready"),
        number("Up-to-date"),
        number("Available"),
        AGE,
        wide("Containers"),
        wide("Images"),
        wide("Selector"),
    ],
    cells: |o, now| {
        let cells = vec![
            meta::name(o).into(),
            format!("{}/{}", int_at(o, "/status/readyReplicas"), desired(o)).into(),
            int_at(o, "/status/updatedReplicas").into(),
            int_at(o, "/status/availableReplicas").into(),
            age(o, now).into(),
        ];
        with_template(cells, o, Some(selector(o.pointer("/spec/selector"))))
    },
};

static REPLICA_SET: Printer = Printer {
    columns: &[
        NAME,
        number("Desired"),
        number("Current"),
        number("Ready"),
        AGE,
        wide("Containers"),
        wide("Images"),
        wide("Selector"),
    ],
    cells: |o, now| with_template(replicas(o, now), o, Some(selector(o.pointer("/spec/selector")))),
};

static REPLICATION_CONTROLLER: Printer = Printer {
    columns: &[
        NAME,
        number("Desired"),
        number("Current"),
        number("Ready"),
        AGE,
        wide("Containers"),
        wide("Images"),
        wide("Selector"),
    ],
    cells: |o, now| with_template(replicas(o, now), o, Some(labels(map_at(o, "/spec/selector")))),
};

fn replicas(o: &Value, now: jiff::Timestamp) -> Vec<Cell> {
    vec![
        meta::name(o).into(),
        desired(o).into(),
        int_at(o, "/status/replicas").into(),
        int_at(o, "/status/readyReplicas").into(),
        age(o, now).into(),
    ]
}

static STATEFUL_SET: Printer = Printer {
    columns: &[NAME, text("Ready"), AGE, wide("Containers"), wide("Images")],
    cells: |o, now| {
        let ready = format!("{}/{}", int_at(o, "/status/readyReplicas"), desired(o));
        with_template(vec![meta::name(o).into(), ready.into(), age(o, now).into()], o, None)
    },
};

static DAEMON_SET: Printer = Printer {
    columns: &[
        NAME,
        number("Desired"),
        number("Current"),
        number("Ready"),
        number("Up-to-date"),
        number("Available"),
        text("Node Selector"),
        AGE,
        wide("Containers"),
        wide("Images"),
        wide("Selector"),
    ],
    cells: |o, now| {
        let counts = [
            "desiredNumberScheduled",
            "currentNumberScheduled",
            "numberReady",
            "updatedNumberScheduled",
            "numberAvailable",
        ];
        let mut cells = vec![meta::name(o).into()];
        cells.extend(counts.map(|field| json!(int_at(o, &format!("/status/{field}")))));
        cells.push(labels(map_at(o, "/spec/template/spec/nodeSelector")).into());
        cells.push(age(o, now).into());
        with_template(cells, o, Some(selector(o.pointer("/spec/selector"))))
    },
};

static POD_TEMPLATE: Printer = Printer {
    columns: &[NAME, text("Containers"), text("Images"), text("Pod Labels")],
    cells: |o, _| {
        let (names, images) = containers(o, "/template/spec/containers");
        vec![meta::name(o).into(), names.into(), images.into(), labels(map_at(o, "/template/metadata/labels")).into()]
    },
};

static SCALE: Printer = Printer {
    columns: &[text("Name"), number("Desired"), number("Available"), AGE],
    cells: |o, now| {
        vec![
            meta::name(o).into(),
            int_at(o, "/spec/replicas").into(),
            int_at(o, "/status/replicas").into(),
            age(o, now).into(),
        ]
    },
};

static CONTROLLER_REVISION: Printer = Printer {
    columns: &[NAME, text("Controller"), number("Revision"), AGE],
    cells: |o, now| {
        let controller = list_at(o, "/metadata/ownerReferences").iter().find(|r| r["controller"] == true).map(|r| {
            let group = str_at(r, "/apiVersion").split_once('/').map_or("", |(group, _)| group);
            let kind = str_at(r, "/kind").to_lowercase();
            format!("{}/{}", crate::gvk::qualified(&kind, group), str_at(r, "/name"))
        });
        vec![
            meta::name(o).into(),
            controller.unwrap_or_else(|| "<none>".into()).into(),
            int_at(o, "/revision").into(),
            age(o, now).into(),
        ]
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    #[test]
    fn templates_and_scales() {
        let template = json!({"metadata": {"name": "t"}, "template": {"metadata": {"labels": {"b": "2", "a": "1"}},
            "spec": {"containers": [{"name": "x", "image": "i:1"}, {"name": "y", "image": "j:2"}]}}});
        assert_eq!(POD_TEMPLATE.row(&template, Timestamp::UNIX_EPOCH), ["t", "x,y", "i:1,j:2", "a=1,b=2"]);
        let scale = json!({"metadata": {"name": "s"}, "spec": {"replicas": 3}, "status": {"replicas": 2}});
        assert_eq!(Value::from(SCALE.row(&scale, Timestamp::UNIX_EPOCH)), json!(["s", 3, 2, "<unknown>"]));
    }

    #[test]
    fn a_deployment() {
        let deployment = json!({"metadata": {"name": "web"}, "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}},
            "template": {"spec": {"containers": [{"name": "a", "image": "x:1"}, {"name": "b", "image": "y:2"}]}}},
            "status": {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 2}});
        assert_eq!(
            DEPLOYMENT.row(&deployment, Timestamp::UNIX_EPOCH),
            [
                json!("web"),
                json!("2/3"),
                json!(3),
                json!(2),
                json!("<unknown>"),
                json!("a,b"),
                json!("x:1,y:2"),
                json!("app=web")
            ]
        );
    }

    #[test]
    fn a_controller_revision() {
        let revision = json!({"metadata": {"name": "r", "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "controller": true}]}, "revision": 4});
        assert_eq!(
            CONTROLLER_REVISION.row(&revision, Timestamp::UNIX_EPOCH)[1..3],
            [json!("statefulset.apps/db"), json!(4)]
        );
    }
}
