//! What makes a pod of a StatefulSet that pod: its ordinal, its name, its host name, its claims.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::StatefulSet,
        core::v1::{PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume},
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
pub fn pod(set: &StatefulSet, template: &PodTemplateSpec, revision: &str, ordinal: u64) -> Pod {
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
    let mut pod = Pod { metadata, spec: template.spec.clone(), status: None };
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(pod_name(set, ordinal));
    spec.subdomain = set.spec.as_ref().and_then(|spec| spec.service_name.clone()).filter(|name| !name.is_empty());
    apply(set, &mut pod, ordinal);
    label(&mut pod).insert(REVISION_LABEL.to_owned(), revision.to_owned());
    pod
}

/// The pod as its identity wants it; `None` where it is so already (upstream's `identityMatches`, `storageMatches`).
pub fn corrected(set: &StatefulSet, pod: &Pod, ordinal: u64) -> Option<Pod> {
    let mut wanted = pod.clone();
    apply(set, &mut wanted, ordinal);
    (wanted != *pod).then_some(wanted)
}

fn apply(set: &StatefulSet, pod: &mut Pod, ordinal: u64) {
    let name = pod_name(set, ordinal);
    let labels = label(pod);
    labels.insert(NAME_LABEL.to_owned(), name);
    labels.insert(INDEX_LABEL.to_owned(), ordinal.to_string());
    let templates = set.spec.iter().flat_map(|spec| spec.volume_claim_templates.iter().flatten());
    let claims: Vec<(String, Volume)> = templates
        .filter_map(|template| template.metadata.name.as_deref())
        .map(|template| (template.to_owned(), volume(template, claim_name(set, template, ordinal))))
        .collect();
    if claims.is_empty() {
        return;
    }
    let volumes = pod.spec.get_or_insert_default().volumes.get_or_insert_default();
    for (name, volume) in claims {
        // A claim's template goes before a volume of the same name in the pod's.
        match volumes.iter_mut().find(|volume| volume.name == name) {
            Some(known) if claim_of(known) == claim_of(&volume) => {}
            Some(known) => *known = volume,
            None => volumes.push(volume),
        }
    }
}

fn claim_of(volume: &Volume) -> Option<&str> {
    volume.persistent_volume_claim.as_ref().map(|claim| claim.claim_name.as_str())
}

fn volume(name: &str, claim_name: String) -> Volume {
    let claim = PersistentVolumeClaimVolumeSource { claim_name, ..Default::default() };
    Volume { name: name.to_owned(), persistent_volume_claim: Some(claim), ..Volume::default() }
}

fn label(pod: &mut Pod) -> &mut BTreeMap<String, String> {
    pod.metadata.labels.get_or_insert_default()
}
