//! Pods in outline: what schedulers and controllers read of them, and nothing else.
//!
//! There are many pods, and whoever plans holds all of them. A whole one is large even where it says little: a container takes
//! two kilobytes and a volume three, for the kinds of volumes and handlers that it might have, and with all that a usual pod
//! takes twenty. In outline it takes four. The fields are called, and nested, as in the API. What is not here cannot be read by
//! mistake as if it were absent, and an outline is never written: changes of pods are patches.
//!
//! To read one more field, add it here.

use std::{borrow::Cow, fmt};

use k8s_openapi::{
    api::core::v1::{
        self as whole, Affinity, ContainerPort, ContainerRestartRule, PodCondition, PodIP, PodSchedulingGate,
        Toleration, TopologySpreadConstraint,
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{ObjectMeta, Time},
    },
};
use kube::{Resource, core::NamespaceResourceScope};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use std::collections::BTreeMap;

/// Says how dear a pod's deletion is to its ReplicaSet (KEP-2255).
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The annotations that are read.
const ANNOTATIONS: [&str; 1] = [DELETION_COST];

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Pod {
    /// Without managed fields, and of annotations only with those that are read.
    #[serde(default, deserialize_with = "metadata")]
    pub metadata: ObjectMeta,
    pub spec: Option<PodSpec>,
    pub status: Option<PodStatus>,
}

/// What is wanted.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSpec {
    pub affinity: Option<Box<Affinity>>,
    #[serde(default, deserialize_with = "or_default")]
    pub containers: Box<[Container]>,
    pub host_network: Option<bool>,
    pub host_users: Option<bool>,
    pub hostname: Option<Box<str>>,
    pub init_containers: Option<Box<[Container]>>,
    pub node_name: Option<Box<str>>,
    pub node_selector: Option<BTreeMap<String, String>>,
    pub overhead: Option<Quantities>,
    pub preemption_policy: Option<Box<str>>,
    pub priority: Option<i32>,
    pub resources: Option<Requests>,
    pub scheduler_name: Option<Box<str>>,
    pub scheduling_gates: Option<Box<[PodSchedulingGate]>>,
    pub subdomain: Option<Box<str>>,
    pub tolerations: Option<Box<[Toleration]>>,
    pub topology_spread_constraints: Option<Box<[TopologySpreadConstraint]>>,
    pub volumes: Option<Box<[Volume]>>,
}

/// A container, or an init container.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    #[serde(default, deserialize_with = "or_default")]
    pub name: Box<str>,
    pub image: Option<Box<str>>,
    pub ports: Option<Box<[ContainerPort]>>,
    pub resources: Option<Requests>,
    pub restart_policy: Option<Box<str>>,
    pub restart_policy_rules: Option<Box<[ContainerRestartRule]>>,
}

/// A volume: which claim it is of, if any.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    #[serde(default, deserialize_with = "or_default")]
    pub name: Box<str>,
    pub persistent_volume_claim: Option<ClaimSource>,
    /// Whether a claim is made for it.
    pub ephemeral: Option<Ephemeral>,
}

/// A claim that is named.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimSource {
    #[serde(default, deserialize_with = "or_default")]
    pub claim_name: Box<str>,
}

/// A claim that is made for a pod.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Ephemeral {}

/// The part of resource requirements that is counted.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Requests {
    pub requests: Option<Quantities>,
}

/// What is the case.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus {
    pub allocated_resources: Option<Quantities>,
    pub conditions: Option<Box<[PodCondition]>>,
    pub container_statuses: Option<Box<[ContainerStatus]>>,
    pub init_container_statuses: Option<Box<[ContainerStatus]>>,
    pub nominated_node_name: Option<Box<str>>,
    pub phase: Option<Box<str>>,
    #[serde(rename = "podIP")]
    pub pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pub pod_ips: Option<Box<[PodIP]>>,
    pub resources: Option<Requests>,
    pub start_time: Option<Time>,
}

/// What is the case with a container.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerStatus {
    pub allocated_resources: Option<Quantities>,
    #[serde(default, deserialize_with = "or_default")]
    pub name: Box<str>,
    pub resources: Option<Requests>,
    #[serde(default, deserialize_with = "or_default")]
    pub restart_count: i32,
}

/// Amounts by the names of resources, in order. A map of the few that there are would take half a kilobyte.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Quantities(Box<[(Box<str>, Quantity)]>);

impl Quantities {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Quantity)> {
        self.0.iter().map(|(name, amount)| (&**name, amount))
    }

    /// Whether there is an amount of this resource.
    pub fn names(&self, resource: &str) -> bool {
        self.0.iter().any(|(name, _)| &**name == resource)
    }
}

impl<'de> Deserialize<'de> for Quantities {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Quantities;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("quantities by name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Quantities, A::Error> {
                let mut all: Vec<(Box<str>, Quantity)> = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    all.push(entry);
                }
                all.sort_by(|(one, _), (other, _)| one.cmp(other));
                Ok(Quantities(all.into()))
            }
        }
        deserializer.deserialize_map(Read)
    }
}

impl Resource for Pod {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        whole::Pod::kind(&())
    }
    fn group((): &()) -> Cow<'_, str> {
        whole::Pod::group(&())
    }
    fn version((): &()) -> Cow<'_, str> {
        whole::Pod::version(&())
    }
    fn plural((): &()) -> Cow<'_, str> {
        whole::Pod::plural(&())
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// Some other program's server may say `null` for what holds nothing.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let mut metadata = or_default::<D, ObjectMeta>(deserializer)?;
    metadata.managed_fields = None;
    if let Some(annotations) = &mut metadata.annotations {
        annotations.retain(|name, _| ANNOTATIONS.contains(&name.as_str()));
    }
    metadata.annotations = metadata.annotations.filter(|annotations| !annotations.is_empty());
    if let Some(owners) = &mut metadata.owner_references {
        owners.shrink_to_fit();
    }
    Ok(metadata)
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::{from_value, json};

    #[test]
    fn what_is_read_is_kept_and_the_rest_is_not() {
        let container = json!({"name": "c", "image": "i", "command": ["sh"],
            "resources": {"requests": {"memory": "1Gi", "cpu": "100m"}, "limits": {"cpu": "1"}},
            "ports": [{"containerPort": 80, "name": "http"}], "livenessProbe": {"httpGet": {"port": 80}}});
        let pod: Pod = from_value(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "namespace": "d", "annotations": {DELETION_COST: "7", "other": "x"},
                "managedFields": [{"manager": "m"}]},
            "spec": {"nodeName": "n", "containers": [container], "initContainers": null,
                "volumes": [{"name": "a", "emptyDir": {}}, {"name": "b", "persistentVolumeClaim": {"claimName": "x"}},
                    {"name": "c", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}]},
            "status": {"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}], "containerStatuses": [
                {"name": "c", "ready": true, "image": "i", "imageID": "", "restartCount": 3, "allocatedResources": {"cpu": "1"}}]},
        }))
        .unwrap();
        assert_eq!(
            (Pod::kind(&()), Pod::plural(&()), Pod::api_version(&())),
            ("Pod".into(), "pods".into(), "v1".into())
        );
        assert_eq!(pod.metadata.annotations, Some(BTreeMap::from([(DELETION_COST.to_owned(), "7".to_owned())])));
        assert!(pod.metadata.managed_fields.is_none());
        let (spec, status) = (pod.spec.unwrap(), pod.status.unwrap());
        let requests = spec.containers[0].resources.as_ref().unwrap().requests.as_ref().unwrap();
        let requests: Vec<_> = requests.iter().map(|(name, amount)| (name, amount.0.as_str())).collect();
        assert_eq!(requests, [("cpu", "100m"), ("memory", "1Gi")]);
        assert_eq!((spec.node_name.as_deref(), spec.init_containers), (Some("n"), None));
        let volumes = spec.volumes.unwrap();
        let claims = volumes.iter().map(|volume| {
            let named = volume.persistent_volume_claim.as_ref().map(|claim| &*claim.claim_name);
            (&*volume.name, named, volume.ephemeral.is_some())
        });
        assert_eq!(claims.collect::<Vec<_>>(), [("a", None, false), ("b", Some("x"), false), ("c", None, true)]);
        assert_eq!((status.pod_ip.as_deref(), status.pod_ips.map_or(0, |ips| ips.len())), (Some("10.0.0.1"), 1));
        assert_eq!(status.container_statuses.unwrap()[0].restart_count, 3);
    }

    #[test]
    fn what_holds_nothing_may_be_null() {
        let pod: Pod = from_value(json!({"metadata": null, "spec": {"containers": null}, "status": null})).unwrap();
        assert_eq!(pod, Pod { spec: Some(PodSpec::default()), ..Pod::default() });
    }

    #[test]
    fn the_parts_of_which_there_are_many_are_small() {
        let sizes = [size_of::<Pod>(), size_of::<Container>(), size_of::<Volume>(), size_of::<ContainerStatus>()];
        assert!(sizes.iter().zip([1024, 128, 48, 64]).all(|(size, limit)| *size <= limit), "{sizes:?}");
    }
}
