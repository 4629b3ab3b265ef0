//! What every namespace has: the service account `default` and the ConfigMap with the cluster's certificate authority
//! (upstream's pkg/controller/serviceaccount and pkg/controller/certificates/rootcacertpublisher).

use std::sync::Arc;

use coracle_api::json::json;
use coracle_client::{Action, Context, Informer, Informers, Key, Plan, Reconciler, Scope, Snapshot, Wires};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};

const ROOT_CA: &str = "kube-root-ca.crt";

/// Furnishes namespaces.
pub struct Furniture {
    namespaces: Arc<Informer<Namespace>>,
    accounts: Arc<Informer<ServiceAccount>>,
    maps: Arc<Informer<ConfigMap>>,
    ca: Option<String>,
}

/// What a plan reads.
pub struct State {
    pub namespaces: Arc<Snapshot<Namespace>>,
    pub accounts: Arc<Snapshot<ServiceAccount>>,
    pub maps: Arc<Snapshot<ConfigMap>>,
}

impl Furniture {
    /// With the authority's certificate in PEM, where the cluster has one to publish.
    pub fn new(informers: &Informers, ca: Option<String>) -> Self {
        // Only these maps: those of users can be many and large.
        let maps = informers.scoped(Scope::field("metadata.name", ROOT_CA));
        Self { namespaces: informers.get(), accounts: informers.get(), maps, ca }
    }
}

impl Reconciler for Furniture {
    type Key = Key;
    type Snapshot = State;

    fn name(&self) -> &'static str {
        "namespace-furniture"
    }

    fn wire(&self, wires: &mut Wires<Key>) {
        wires.on(&self.namespaces, |event, emit| emit(Key::of(&event.object().metadata)));
        wires.on(&self.accounts, |event, emit| {
            let meta = &event.object().metadata;
            if meta.name.as_deref() == Some("default") {
                emit(Key::cluster(meta.namespace.as_deref().unwrap_or_default()));
            }
        });
        wires.on(&self.maps, |event, emit| {
            emit(Key::cluster(event.object().metadata.namespace.as_deref().unwrap_or_default()));
        });
    }

    fn snapshot(&self) -> State {
        State { namespaces: self.namespaces.snapshot(), accounts: self.accounts.snapshot(), maps: self.maps.snapshot() }
    }

    fn plan(&self, state: &State, key: &Key, _: &Context<'_>) -> Plan {
        plan(state, key.name(), self.ca.as_deref())
    }
}

/// What has to be done for one namespace.
pub fn plan(state: &State, namespace: &str, ca: Option<&str>) -> Plan {
    let mut plan = Plan::default();
    let alive = |found: &Arc<Namespace>| {
        let phase = found.status.as_ref().and_then(|status| status.phase.as_deref());
        found.metadata.deletion_timestamp.is_none() && phase != Some("Terminating")
    };
    if !state.namespaces.find("", namespace).is_some_and(alive) {
        return plan;
    }
    if state.accounts.find(namespace, "default").is_none() {
        let mut account = ServiceAccount::default();
        account.metadata.name = Some("default".to_owned());
        account.metadata.namespace = Some(namespace.to_owned());
        plan.push(Action::create(&account).lenient());
    }
    let Some(ca) = ca else { return plan };
    match state.maps.find(namespace, ROOT_CA) {
        Some(map) if map.data.as_ref().and_then(|data| data.get("ca.crt")).is_some_and(|have| have == ca) => {}
        Some(map) => {
            let mut map = map.as_ref().clone();
            map.data = Some([("ca.crt".to_owned(), ca.to_owned())].into());
            plan.push(Action::update(&map).lenient());
        }
        None => {
            let mut map = ConfigMap::default();
            map.metadata.name = Some(ROOT_CA.to_owned());
            map.metadata.namespace = Some(namespace.to_owned());
            let about = json!({"kubernetes.io/description": "Contains a CA bundle that can be used to verify the kube-apiserver when using \
                internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters."});
            map.metadata.annotations = coracle_api::json::from_value(about).ok();
            map.data = Some([("ca.crt".to_owned(), ca.to_owned())].into());
            plan.push(Action::create(&map).lenient());
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(namespace: coracle_api::json::Value, maps: Vec<ConfigMap>) -> State {
        State {
            namespaces: Arc::new(Snapshot::of([coracle_api::json::from_value(namespace).unwrap()], &[])),
            accounts: Arc::default(),
            maps: Arc::new(Snapshot::of(maps, &[])),
        }
    }

    #[test]
    fn a_namespace_is_furnished_unless_it_goes() {
        let fresh = state(json!({"metadata": {"name": "n"}}), vec![]);
        assert_eq!(
            plan(&fresh, "n", Some("PEM")).describe(),
            ["create serviceaccounts n/default", "create configmaps n/kube-root-ca.crt"]
        );
        let going = state(json!({"metadata": {"name": "n"}, "status": {"phase": "Terminating"}}), vec![]);
        assert_eq!(plan(&going, "n", Some("PEM")), Plan::nothing());
    }

    #[test]
    fn a_changed_authority_is_published() {
        let map = |content: &str| -> ConfigMap {
            coracle_api::json::from_value(
                json!({"metadata": {"name": ROOT_CA, "namespace": "n"}, "data": {"ca.crt": content}}),
            )
            .unwrap()
        };
        let planned = |content: &str| {
            plan(&state(json!({"metadata": {"name": "n"}}), vec![map(content)]), "n", Some("PEM")).describe()
        };
        assert_eq!(planned("old"), ["create serviceaccounts n/default", "update configmaps n/kube-root-ca.crt"]);
        assert_eq!(planned("PEM"), ["create serviceaccounts n/default"]);
    }
}
