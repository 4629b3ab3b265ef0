//! What fields mean, in words: from the JSON schemas that `k8s-openapi` carries. They are made when a document is made, and
//! dropped with it.

use k8s_openapi::schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value};

/// Descriptions by the published name of a type.
#[derive(Debug, Default)]
pub(super) struct Descriptions(Map<String, Value>);

impl Descriptions {
    /// Of the kinds of a group and version, and of all they hold.
    pub fn of(group: &str, version: &str) -> Self {
        let mut generator = SchemaSettings::draft07().into_generator();
        collect(&mut generator, group, version);
        Self(generator.take_definitions(false))
    }

    /// What a type is.
    pub fn of_type(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.get("description")?.as_str()
    }

    /// What a field is.
    pub fn of_field(&self, name: &str, field: &str) -> Option<&str> {
        self.0.get(name)?.get("properties")?.get(field)?.get("description")?.as_str()
    }
}

macro_rules! kinds {
    ($generator:ident, $($module:ident)::+, $($kind:ident)+) => {{
        use k8s_openapi::$($module)::+ as kinds;
        $( $generator.subschema_for::<kinds::$kind>(); )+
    }};
}

fn collect(generator: &mut SchemaGenerator, group: &str, version: &str) {
    kinds!(generator, apimachinery::pkg::apis::meta::v1, ObjectMeta ListMeta DeleteOptions Status);
    // Its metadata is described as that of all objects.
    kinds!(generator, api::core::v1, ConfigMap);
    match (group, version) {
        ("", "v1") => {
            kinds!(generator, api::core::v1, Binding ComponentStatus ConfigMap Endpoints Event LimitRange Namespace Node
                PersistentVolume PersistentVolumeClaim Pod PodTemplate ReplicationController ResourceQuota Secret Service
                ServiceAccount);
            kinds!(generator, api::autoscaling::v1, Scale);
            kinds!(generator, api::policy::v1, Eviction);
            kinds!(generator, api::authentication::v1, TokenRequest);
        }
        ("admissionregistration.k8s.io", "v1") => {
            kinds!(generator, api::admissionregistration::v1, MutatingAdmissionPolicy
            MutatingAdmissionPolicyBinding MutatingWebhookConfiguration ValidatingAdmissionPolicy
            ValidatingAdmissionPolicyBinding ValidatingWebhookConfiguration)
        }
        ("apiextensions.k8s.io", "v1") => {
            kinds!(generator, apiextensions_apiserver::pkg::apis::apiextensions::v1, CustomResourceDefinition);
        }
        ("apiregistration.k8s.io", "v1") => {
            kinds!(generator, kube_aggregator::pkg::apis::apiregistration::v1, APIService);
        }
        ("apps", "v1") => {
            kinds!(generator, api::apps::v1, ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet);
            kinds!(generator, api::autoscaling::v1, Scale);
        }
        ("authentication.k8s.io", "v1") => {
            kinds!(generator, api::authentication::v1, SelfSubjectReview TokenRequest TokenReview);
        }
        ("authorization.k8s.io", "v1") => kinds!(generator, api::authorization::v1, LocalSubjectAccessReview
            SelfSubjectAccessReview SelfSubjectRulesReview SubjectAccessReview),
        ("autoscaling", "v1") => kinds!(generator, api::autoscaling::v1, HorizontalPodAutoscaler Scale),
        ("autoscaling", "v2") => kinds!(generator, api::autoscaling::v2, HorizontalPodAutoscaler),
        ("batch", "v1") => kinds!(generator, api::batch::v1, CronJob Job),
        ("certificates.k8s.io", "v1") => kinds!(generator, api::certificates::v1, CertificateSigningRequest),
        ("coordination.k8s.io", "v1") => kinds!(generator, api::coordination::v1, Lease),
        ("discovery.k8s.io", "v1") => kinds!(generator, api::discovery::v1, EndpointSlice),
        ("events.k8s.io", "v1") => kinds!(generator, api::events::v1, Event),
        ("flowcontrol.apiserver.k8s.io", "v1") => {
            kinds!(generator, api::flowcontrol::v1, FlowSchema PriorityLevelConfiguration);
        }
        ("networking.k8s.io", "v1") => {
            kinds!(generator, api::networking::v1, IPAddress Ingress IngressClass NetworkPolicy ServiceCIDR);
        }
        ("node.k8s.io", "v1") => kinds!(generator, api::node::v1, RuntimeClass),
        ("policy", "v1") => kinds!(generator, api::policy::v1, Eviction PodDisruptionBudget),
        ("rbac.authorization.k8s.io", "v1") => {
            kinds!(generator, api::rbac::v1, ClusterRole ClusterRoleBinding Role RoleBinding);
        }
        ("resource.k8s.io", "v1") => {
            kinds!(generator, api::resource::v1, DeviceClass ResourceClaim ResourceClaimTemplate ResourceSlice);
        }
        ("scheduling.k8s.io", "v1") => kinds!(generator, api::scheduling::v1, PriorityClass),
        ("storage.k8s.io", "v1") => {
            kinds!(generator, api::storage::v1, CSIDriver CSINode CSIStorageCapacity StorageClass
            VolumeAttachment VolumeAttributesClass)
        }
        _ => {}
    }
}
