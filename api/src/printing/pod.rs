//! Pods: the state of a pod in one word.

use crate::json::Value;
use jiff::Timestamp;

use super::access::{int_at, list_at, or_none, str_at};
use super::duration::since;
use super::{AGE, Cell, NAME, Printer, age, text, wide};
use crate::meta;

pub(super) static POD: Printer = Printer {
    columns: &[
        NAME,
        text("Ready"),
        text("Status"),
        text("Restarts"),
        AGE,
        wide("IP"),
        wide("Node"),
        wide("Nominated Node"),
        wide("Readiness Gates"),
    ],
    cells,
};

fn cells(pod: &Value, now: Timestamp) -> Vec<Cell> {
    let summary = Summary::of(pod);
    let address = match str_at(pod, "/status/podIPs/0/ip") {
        "" => str_at(pod, "/status/podIP"),
        address => address,
    };
    vec![
        meta::name(pod).into(),
        format!("{}/{}", summary.ready, summary.containers).into(),
        summary.reason.into(),
        match summary.restarts.last {
            "" => summary.restarts.count.to_string().into(),
            last if summary.restarts.count > 0 => {
                format!("{} ({} ago)", summary.restarts.count, since(last, now)).into()
            }
            _ => "0".into(),
        },
        age(pod, now).into(),
        or_none(address).into(),
        or_none(str_at(pod, "/spec/nodeName")).into(),
        or_none(str_at(pod, "/status/nominatedNodeName")).into(),
        readiness_gates(pod).into(),
    ]
}

/// The word, the restarts and the ready containers of a pod.
struct Summary<'v> {
    reason: String,
    ready: usize,
    containers: usize,
    restarts: Restarts<'v>,
}

#[derive(Default, Clone, Copy)]
struct Restarts<'v> {
    count: i64,
    /// When the last one was, RFC 3339.
    last: &'v str,
}

impl<'v> Restarts<'v> {
    fn add(&mut self, status: &'v Value) {
        self.count += int_at(status, "/restartCount");
        // Times of one form compare as text does.
        self.last = self.last.max(str_at(status, "/lastState/terminated/finishedAt"));
    }
}

fn condition_is_true(pod: &Value, kind: &str) -> bool {
    list_at(pod, "/status/conditions").iter().any(|c| str_at(c, "/type") == kind && str_at(c, "/status") == "True")
}

/// Why a container ended.
fn ending(terminated: &Value) -> String {
    match (str_at(terminated, "/reason"), int_at(terminated, "/signal")) {
        ("", 0) => format!("ExitCode:{}", int_at(terminated, "/exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

impl<'v> Summary<'v> {
    fn of(pod: &'v Value) -> Self {
        let init = list_at(pod, "/spec/initContainers");
        let sidecar =
            |name: &str| init.iter().any(|c| str_at(c, "/name") == name && str_at(c, "/restartPolicy") == "Always");
        let phase = str_at(pod, "/status/phase");
        let gated = list_at(pod, "/status/conditions")
            .iter()
            .any(|c| str_at(c, "/type") == "PodScheduled" && str_at(c, "/reason") == "SchedulingGated");
        let mut summary = Self {
            reason: match str_at(pod, "/status/reason") {
                _ if gated => "SchedulingGated",
                "" => phase,
                reason => reason,
            }
            .to_owned(),
            ready: 0,
            containers: list_at(pod, "/spec/containers").len()
                + init.iter().filter(|c| str_at(c, "/restartPolicy") == "Always").count(),
            restarts: Restarts::default(),
        };
        let mut sidecars = Restarts::default();
        let initializing = summary.init(pod, init.len(), sidecar, &mut sidecars);
        if !initializing || condition_is_true(pod, "Initialized") {
            summary.restarts = sidecars;
            summary.main(pod);
        }
        if meta::deletion_timestamp(pod).is_some() {
            if str_at(pod, "/status/reason") == "NodeLost" {
                summary.reason = "Unknown".into();
            } else if !matches!(phase, "Succeeded" | "Failed") {
                summary.reason = "Terminating".into();
            }
        }
        summary
    }

    /// Init containers, up to the first that is not done. Whether there is such a one.
    fn init(
        &mut self,
        pod: &'v Value,
        total: usize,
        sidecar: impl Fn(&str) -> bool,
        sidecars: &mut Restarts<'v>,
    ) -> bool {
        for (i, status) in list_at(pod, "/status/initContainerStatuses").iter().enumerate() {
            self.restarts.add(status);
            let sidecar = sidecar(str_at(status, "/name"));
            if sidecar {
                sidecars.add(status);
            }
            let terminated = status.pointer("/state/terminated").filter(|t| !t.is_null());
            match (terminated, str_at(status, "/state/waiting/reason")) {
                (Some(ended), _) if int_at(ended, "/exitCode") == 0 => continue,
                _ if sidecar && status["started"] == true => {
                    self.ready += usize::from(status["ready"] == true);
                    continue;
                }
                (Some(ended), _) => self.reason = format!("Init:{}", ending(ended)),
                (None, "" | "PodInitializing") => self.reason = format!("Init:{i}/{total}"),
                (None, reason) => self.reason = format!("Init:{reason}"),
            }
            return true;
        }
        false
    }

    fn main(&mut self, pod: &'v Value) {
        let mut running = false;
        for status in list_at(pod, "/status/containerStatuses").iter().rev() {
            self.restarts.add(status);
            let terminated = status.pointer("/state/terminated").filter(|t| !t.is_null());
            match (str_at(status, "/state/waiting/reason"), terminated) {
                ("", Some(ended)) => self.reason = ending(ended),
                ("", None) => {
                    if status["ready"] == true && status.pointer("/state/running").is_some_and(|r| !r.is_null()) {
                        running = true;
                        self.ready += 1;
                    }
                }
                (reason, _) => self.reason = reason.to_owned(),
            }
        }
        if self.reason == "Completed" && running {
            self.reason = if condition_is_true(pod, "Ready") { "Running" } else { "NotReady" }.into();
        }
    }
}

fn readiness_gates(pod: &Value) -> String {
    let gates = list_at(pod, "/spec/readinessGates");
    if gates.is_empty() {
        return "<none>".into();
    }
    let open = gates.iter().filter(|gate| condition_is_true(pod, str_at(gate, "/conditionType"))).count();
    format!("{open}/{}", gates.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::parse_rfc3339;
    use crate::json::json;

    fn row(status: Value, extra: Value) -> (String, String, String) {
        let mut pod = json!({"metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"containers": [{"name": "c"}, {"name": "d"}], "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}]}, "status": status});
        crate::patch::merge(&mut pod, extra);
        let cells = POD.row(&pod, parse_rfc3339("2026-01-01T00:01:30Z").unwrap());
        let text = |i: usize| cells[i].as_str().unwrap().to_owned();
        (text(1), text(2), text(3))
    }

    #[test]
    fn states_read_as_upstreams() {
        let running = json!({"name": "c", "ready": true, "state": {"running": {}}});
        let waiting = |reason: &str| json!({"name": "c", "state": {"waiting": {"reason": reason}}, "restartCount": 3, "lastState": {"terminated": {"finishedAt": "2026-01-01T00:01:25Z"}}});
        let ended = |code: i64, reason: &str| json!({"name": "d", "state": {"terminated": {"exitCode": code, "reason": reason}}});
        let rows = [
            (json!({"phase": "Pending"}), json!({}), ("0/3", "Pending", "0")),
            (json!({"phase": "Running", "containerStatuses": [running, running]}), json!({}), ("2/3", "Running", "0")),
            (
                json!({"phase": "Running", "containerStatuses": [waiting("CrashLoopBackOff"), running]}),
                json!({}),
                ("1/3", "CrashLoopBackOff", "3 (5s ago)"),
            ),
            (
                json!({"phase": "Pending", "containerStatuses": [waiting("ErrImagePull")]}),
                json!({}),
                ("0/3", "ErrImagePull", "3 (5s ago)"),
            ),
            (json!({"phase": "Failed", "containerStatuses": [ended(1, "Error")]}), json!({}), ("0/3", "Error", "0")),
            (json!({"phase": "Failed", "containerStatuses": [ended(2, "")]}), json!({}), ("0/3", "ExitCode:2", "0")),
            (
                json!({"phase": "Running", "containerStatuses": [ended(0, "Completed"), running]}),
                json!({}),
                ("1/3", "NotReady", "0"),
            ),
            (
                json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}]}),
                json!({}),
                ("0/3", "Init:0/2", "0"),
            ),
            (
                json!({"phase": "Pending", "initContainerStatuses": [ended(3, "Error")]}),
                json!({}),
                ("0/3", "Init:Error", "0"),
            ),
            (
                json!({"phase": "Pending", "initContainerStatuses": [ended(0, ""), {"name": "s", "started": true, "ready": true, "state": {"running": {}}}], "containerStatuses": [waiting("PodInitializing")]}),
                json!({}),
                ("1/3", "PodInitializing", "3 (5s ago)"),
            ),
            (
                json!({"phase": "Running", "containerStatuses": [running]}),
                json!({"metadata": {"deletionTimestamp": "2026-01-01T00:01:00Z"}}),
                ("1/3", "Terminating", "0"),
            ),
            (
                json!({"phase": "Failed", "reason": "Evicted"}),
                json!({"metadata": {"deletionTimestamp": "2026-01-01T00:01:00Z"}}),
                ("0/3", "Evicted", "0"),
            ),
            (
                json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "reason": "SchedulingGated"}]}),
                json!({}),
                ("0/3", "SchedulingGated", "0"),
            ),
        ];
        for (status, extra, (ready, word, restarts)) in rows {
            assert_eq!(row(status.clone(), extra), (ready.into(), word.into(), restarts.into()), "{status}");
        }
    }
}
