//! ServiceCIDRs are said to be ready, and do not go while Services have addresses of theirs alone (upstream's
//! pkg/controller/servicecidrs).

use std::{net::IpAddr, sync::Arc, time::Duration};

use coracle_api::json::json;
use coracle_client::{Action, Context, Informer, Informers, Key, Plan, Reconciler, Snapshot, Wires, action::PatchKind};
use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::{
    api::networking::v1::{IPAddress, ServiceCIDR},
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};

use crate::protection;

const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
const READY: &str = "Ready";
const MANAGED: (&str, &str) = ("ipaddress.kubernetes.io/managed-by", "ipallocator.k8s.io");
/// An API server may still give out addresses before it sees that the range is to go (upstream's `deletionGracePeriod`).
const GRACE: Duration = Duration::from_secs(10);

/// Keeps ServiceCIDRs ready, or while they are used.
pub struct ServiceCidrs {
    ranges: Arc<Informer<ServiceCIDR>>,
    addresses: Arc<Informer<IPAddress>>,
}

/// What a plan reads.
pub struct State {
    pub ranges: Arc<Snapshot<ServiceCIDR>>,
    pub addresses: Arc<Snapshot<IPAddress>>,
}

impl ServiceCidrs {
    /// The controller over the process's informers.
    pub fn new(informers: &Informers) -> Self {
        Self { ranges: informers.get(), addresses: informers.get() }
    }
}

impl Reconciler for ServiceCidrs {
    type Key = Key;
    type Snapshot = State;

    fn name(&self) -> &'static str {
        "service-cidrs"
    }

    fn wire(&self, wires: &mut Wires<Key>) {
        let ranges = self.ranges.clone();
        wires.on(&self.ranges, move |event, emit| {
            emit(Key::of(&event.object().metadata));
            // Another one may hold the addresses for which one that is to go waits, or did.
            leaving(&ranges.snapshot()).for_each(|range| emit(Key::of(&range.metadata)));
        });
        let ranges = self.ranges.clone();
        wires.on(&self.addresses, move |_, emit| {
            leaving(&ranges.snapshot()).for_each(|range| emit(Key::of(&range.metadata)));
        });
    }

    fn snapshot(&self) -> State {
        State { ranges: self.ranges.snapshot(), addresses: self.addresses.snapshot() }
    }

    fn plan(&self, state: &State, key: &Key, context: &Context<'_>) -> Plan {
        plan(state, key, context.now)
    }
}

fn leaving(ranges: &Snapshot<ServiceCIDR>) -> impl Iterator<Item = &Arc<ServiceCIDR>> {
    ranges.iter().filter(|range| range.metadata.deletion_timestamp.is_some())
}

/// What has to be done for one ServiceCIDR.
pub fn plan(state: &State, key: &Key, now: Timestamp) -> Plan {
    let Some(range) = state.ranges.get(key) else { return Plan::nothing() };
    let Some(since) = &range.metadata.deletion_timestamp else {
        let mut plan = Plan::default();
        if protection::is_unprotected(&range.metadata, FINALIZER) {
            // What it is now is written first; what it says of itself follows when that is seen.
            plan.push(protection::protect(range.as_ref(), FINALIZER));
        } else if ready(range).is_none_or(|condition| condition.status != "True") {
            plan.push(say(range, "True", "", "Kubernetes Service CIDR is ready", now));
        }
        return plan;
    };
    if !protection::is_leaving(&range.metadata, FINALIZER) {
        return Plan::nothing();
    }
    if is_needed(state, range) {
        const WHY: &str =
            "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";
        let said = ready(range).is_some_and(|condition| condition.status == "False" && condition.message == WHY);
        return if said { Plan::nothing() } else { Plan::one(say(range, "False", "Terminating", WHY, now)) };
    }
    let gone = Duration::try_from(now.duration_since(since.0)).unwrap_or_default();
    if gone >= GRACE {
        return Plan::one(protection::release(range.as_ref(), FINALIZER));
    }
    let mut plan = Plan::default();
    plan.requeue(GRACE - gone);
    plan
}

fn ready(range: &ServiceCIDR) -> Option<&Condition> {
    range.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == READY)
}

/// Whether a Service has an address of this range that no other range holds. One that is to go as well holds none: both would
/// go.
fn is_needed(state: &State, range: &ServiceCIDR) -> bool {
    let staying = state.ranges.iter().filter(|other| other.metadata.deletion_timestamp.is_none());
    let others: Vec<IpNet> = staying.flat_map(|other| cidrs(other)).collect();
    let own = cidrs(range);
    let is_managed = |address: &&Arc<IPAddress>| {
        let labels = address.metadata.labels.as_ref();
        labels.and_then(|labels| labels.get(MANAGED.0)).is_some_and(|by| by == MANAGED.1)
    };
    let holds = |ranges: &[IpNet], ip: IpAddr| ranges.iter().any(|range| range.contains(&ip));
    let mut ips = state.addresses.iter().filter(is_managed).filter_map(|ip| ip.metadata.name.as_ref()?.parse().ok());
    ips.any(|ip| holds(&own, ip) && !holds(&others, ip))
}

fn cidrs(range: &ServiceCIDR) -> Vec<IpNet> {
    let cidrs = range.spec.as_ref().and_then(|spec| spec.cidrs.as_deref()).unwrap_or_default();
    cidrs.iter().filter_map(|cidr| cidr.parse().ok()).collect()
}

/// Writes the condition; the others stay.
fn say(range: &ServiceCIDR, status: &str, reason: &str, message: &str, now: Timestamp) -> Action {
    let known = range.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let mut conditions: Vec<Condition> = known.iter().filter(|known| known.type_ != READY).cloned().collect();
    let since = ready(range).filter(|known| known.status == status).map(|known| known.last_transition_time.clone());
    conditions.push(Condition {
        type_: READY.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: since.unwrap_or(Time(now)),
        observed_generation: None,
    });
    let patch =
        json!({"metadata": {"resourceVersion": range.metadata.resource_version}, "status": {"conditions": conditions}});
    Action::patch_status(range, PatchKind::Merge, patch).lenient()
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::{Value, from_value};
    use coracle_client::Verb;

    const NOW: &str = "2026-01-01T00:00:20Z";

    fn range(name: &str, cidrs: &[&str], finalizers: &[&str], since: Option<&str>, ready: Value) -> ServiceCIDR {
        from_value(json!({
            "metadata": {"name": name, "uid": name, "resourceVersion": "7", "finalizers": finalizers, "deletionTimestamp": since},
            "spec": {"cidrs": cidrs}, "status": {"conditions": ready}}))
        .unwrap()
    }

    fn address(ip: &str) -> IPAddress {
        from_value(
            json!({"metadata": {"name": ip, "labels": {"ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"}},
            "spec": {"parentRef": {"resource": "services", "name": "a", "namespace": "default"}}}),
        )
        .unwrap()
    }

    fn planned(ranges: Vec<ServiceCIDR>, addresses: Vec<IPAddress>) -> (Vec<Value>, Option<Duration>) {
        let key = Key::of(&ranges[0].metadata);
        let state =
            State { ranges: Arc::new(Snapshot::of(ranges, &[])), addresses: Arc::new(Snapshot::of(addresses, &[])) };
        let plan = plan(&state, &key, NOW.parse().unwrap());
        let actions = plan.actions.iter().flat_map(|step| step.actions());
        let patches = actions.map(|action| match &action.verb {
            Verb::Patch { body, .. } => body.clone(),
            other => panic!("{other:?}"),
        });
        (patches.collect(), plan.requeue_after)
    }

    #[test]
    fn a_new_range_is_protected_then_said_to_be_ready() {
        let of = |finalizers: &[&str], ready: Value| {
            planned(vec![range("a", &["10.1.0.0/24"], finalizers, None, ready)], vec![]).0
        };
        assert_eq!(of(&[], json!([]))[0]["metadata"]["finalizers"], json!([FINALIZER]));
        let other = json!({"type": "Other", "status": "True", "reason": "", "message": "", "lastTransitionTime": NOW});
        let said = &of(&[FINALIZER], json!([other]))[0]["status"]["conditions"];
        assert_eq!(
            (&said[0]["type"], &said[1]["type"], &said[1]["status"]),
            (&json!("Other"), &json!("Ready"), &json!("True"))
        );
        let ready = json!({"type": "Ready", "status": "True", "reason": "", "message": "Other words", "lastTransitionTime": NOW});
        assert!(of(&[FINALIZER], json!([ready])).is_empty());
    }

    #[test]
    fn a_range_goes_when_all_its_addresses_are_free_or_of_another() {
        let old = Some("2026-01-01T00:00:00Z");
        let leaving = |since| range("a", &["10.1.0.0/24"], &[FINALIZER], since, json!([]));
        let released = |found: (Vec<Value>, Option<Duration>)| found.0[0]["metadata"]["finalizers"] == json!([]);
        assert!(released(planned(vec![leaving(old)], vec![address("10.2.0.1")])));
        let (patches, again) = planned(vec![leaving(Some("2026-01-01T00:00:17Z"))], vec![]);
        assert!(patches.is_empty() && again == Some(Duration::from_secs(7)), "servers may not have seen it: {again:?}");

        let used = || vec![address("10.1.0.9")];
        let (patches, _) = planned(vec![leaving(old)], used());
        let said = &patches[0]["status"]["conditions"][0];
        assert_eq!((&said["status"], &said["reason"]), (&json!("False"), &json!("Terminating")));
        let message = said["message"].as_str().unwrap();
        let told = json!([{"type": "Ready", "status": "False", "reason": "Terminating", "message": message, "lastTransitionTime": NOW}]);
        assert!(planned(vec![range("a", &["10.1.0.0/24"], &[FINALIZER], old, told)], used()).0.is_empty(), "said once");

        let larger = |since| range("b", &["10.0.0.0/8"], &[FINALIZER], since, json!([]));
        assert!(released(planned(vec![leaving(old), larger(None)], used())));
        assert!(!released(planned(vec![leaving(old), larger(old)], used())), "the other is to go, too");
        let mut foreign = address("10.1.0.9");
        foreign.metadata.labels = None;
        assert!(released(planned(vec![leaving(old)], vec![foreign])), "of somebody else");
        assert!(planned(vec![range("a", &["10.1.0.0/24"], &["other.example/f"], old, json!([]))], used()).0.is_empty());
    }
}
