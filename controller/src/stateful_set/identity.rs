//! What makes a pod of a StatefulSet that pod: its ordinal, its name, its host name, its claims.

use coracle_api::json::{Value, json};
use coracle_client::outline::Pod;
use k8s_openapi::{
    api::{
        apps::v1::StatefulSet,
        core::v1::{PersistentVolumeClaimVolumeSource, Pod as WholePod, PodTemplateSpec, Volume},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use crate::ownership;

/// Which revision of the set a pod is of.
pub const REVISION_LABEL: &str = "controller-revision-hash";
const NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
const INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";

/// The first ordinal.
pub fn start(set: &StatefulSet) -> u64 {
    let start = set.spec.as_ref().and_then(|spec| spec.ordinals.as_ref()?.start);
    start.and_then(|start| start.try_into().ok()).unwrap_or(0)
}

/// The ordinal of a pod whose name is of this set: `SET-ORDINAL`, without leading zeros.
pub fn ordinal(set: &StatefulSet, pod: &Pod) -> Option<u64> {
    let name = pod.metadata.name.as_deref()?;
    let ordinal = name.strip_prefix(set.metadata.name.as_deref()?)?.strip_prefix('-')?;
    let number: u64 = ordinal.parse().ok()?;
    (number.to_string() == ordinal).then_some(number)
}

/// The name of the pod with this ordinal.
pub fn pod_name(set: &StatefulSet, ordinal: u64) -> String {
    format!("{}-{ordinal}", set.metadata.name.as_deref().unwrap_or_default())
}

/// The name of a claim of the pod with this ordinal.
pub fn claim_name(set: &StatefulSet, template: &str, ordinal: u64) -> String {
    format!("{template}-{}", pod_name(set, ordinal))
}

/// Whether a claim's name is that of some pod of the set: `TEMPLATE-SET-ORDINAL`.
pub fn is_claim_of(set: &StatefulSet, name: &str) -> bool {
    let templates = set.spec.iter().flat_map(|spec| spec.volume_claim_templates.iter().flatten());
    templates.filter_map(|template| template.metadata.name.as_deref()).any(|template| {
        let ordinal = name.strip_prefix(template).and_then(|rest| rest.strip_prefix('-'));
        let ordinal = ordinal.and_then(|rest| rest.strip_prefix(set.metadata.name.as_deref()?)?.strip_prefix('-'));
        ordinal.is_some_and(|ordinal| ordinal.parse::<u64>().is_ok())
    })
}

/// The revision that a pod is of.
pub fn revision(pod: &Pod) -> &str {
    let label = pod.metadata.labels.as_ref().and_then(|labels| labels.get(REVISION_LABEL));
    label.map_or("", String::as_str)
}

/// The pod with this ordinal, from the template of a revision.
pub fn pod(set: &StatefulSet, template: &PodTemplateSpec, revision: &str, ordinal: u64) -> WholePod {
    let of_template = template.metadata.clone().unwrap_or_default();
    let metadata = ObjectMeta {
        name: Some(pod_name(set, ordinal)),
        namespace: set.metadata.namespace.clone(),
        labels: of_template.labels,
        annotations: of_template.annotations,
        finalizers: of_template.finalizers,
        owner_references: Some(vec![ownership::controlled_by(set)]),
        ..ObjectMeta::default()
    };
    let mut pod = WholePod { metadata, spec: template.spec.clone(), status: None };
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(pod_name(set, ordinal));
    spec.subdomain = set.spec.as_ref().and_then(|spec| spec.service_name.clone()).filter(|name| !name.is_empty());
    apply(set, &mut pod, ordinal);
    pod.metadata.labels.get_or_insert_default().insert(REVISION_LABEL.to_owned(), revision.to_owned());
    pod
}

/// What makes the pod what its identity wants it to be, as a strategic patch; `None` where it is so already (upstream's
/// `identityMatches`, `storageMatches`).
pub fn correction(set: &StatefulSet, pod: &Pod, ordinal: u64) -> Option<Value> {
    let mut patch = json!({});
    let labelled = pod.metadata.labels.as_ref();
    for (label, value) in labels(set, ordinal) {
        if labelled.and_then(|labels| labels.get(label)) != Some(&value) {
            patch["metadata"]["labels"][label] = value.into();
        }
    }
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    let is_there = |name: &str, claim: &str| {
        let mut known = volumes.iter().filter(|volume| &*volume.name == name);
        known.any(|volume| volume.persistent_volume_claim.as_ref().is_some_and(|have| &*have.claim_name == claim))
    };
    let missing = claims(set, ordinal).filter(|(name, claim)| !is_there(name, claim)).map(|(name, claim)| {
        // Whatever else a volume of this name is goes.
        json!({"$retainKeys": ["name", "persistentVolumeClaim"], "name": name, "persistentVolumeClaim": {"claimName": claim}})
    });
    let missing: Vec<Value> = missing.collect();
    if !missing.is_empty() {
        patch["spec"]["volumes"] = Value::Array(missing);
    }
    (patch != json!({})).then_some(patch)
}

/// The labels that tell a pod's place in the set.
fn labels(set: &StatefulSet, ordinal: u64) -> [(&'static str, String); 2] {
    [(NAME_LABEL, pod_name(set, ordinal)), (INDEX_LABEL, ordinal.to_string())]
}

/// Names of the volumes that are claims of the pod's own, and of those claims.
fn claims(set: &StatefulSet, ordinal: u64) -> impl Iterator<Item = (&str, String)> {
    let templates = set.spec.iter().flat_map(|spec| spec.volume_claim_templates.iter().flatten());
    let named = templates.filter_map(|template| template.metadata.name.as_deref());
    named.map(move |name| (name, claim_name(set, name, ordinal)))
}

fn apply(set: &StatefulSet, pod: &mut WholePod, ordinal: u64) {
    let own = labels(set, ordinal).map(|(label, value)| (label.to_owned(), value));
    pod.metadata.labels.get_or_insert_default().extend(own);
    for (name, claim_name) in claims(set, ordinal) {
        let volumes = pod.spec.get_or_insert_default().volumes.get_or_insert_default();
        let volume = volume(name, claim_name);
        // A claim's template goes before a volume of the same name in the pod's.
        match volumes.iter_mut().find(|volume| volume.name == name) {
            Some(known) => *known = volume,
            None => volumes.push(volume),
        }
    }
}

fn volume(name: &str, claim_name: String) -> Volume {
    let claim = PersistentVolumeClaimVolumeSource { claim_name, ..Default::default() };
    Volume { name: name.to_owned(), persistent_volume_claim: Some(claim), ..Volume::default() }
}
