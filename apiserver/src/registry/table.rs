//! The table: one row a resource.

use super::Subresource::{
    Approval, Attach, Binding, EphemeralContainers, Eviction, Exec, Finalize, Log, PortForward, Proxy, Resize, Scale,
    Status, Token,
};
use super::admission_configs::AdmissionConfig;
use super::reviews::ReviewStrategy;
use super::row::Row;
use super::{
    aggregation, apps, autoscaling, batch, certificates, coordination, core, devices, events, flow_control, networking,
    policy, rbac, storage,
};
use crate::custom::definition::DefinitionStrategy;

/// Every built-in resource.
pub fn rows() -> Vec<Row> {
    let mut rows = core_rows();
    rows.extend(apps_rows());
    rows.extend(other_rows());
    rows.extend(control_rows());
    rows.extend(review_rows());
    rows
}

/// What configures the server itself, and devices.
fn control_rows() -> Vec<Row> {
    const ADMISSION: &str = "admissionregistration.k8s.io";
    const FLOW: &str = "flowcontrol.apiserver.k8s.io";
    const DEVICES: &str = "resource.k8s.io";
    let admission = |kind, plural, strategy: AdmissionConfig| {
        Row::new(ADMISSION, "v1", kind, plural, strategy).cluster().category("api-extensions")
    };
    vec![
        admission("MutatingAdmissionPolicy", "mutatingadmissionpolicies", AdmissionConfig::Policy),
        admission(
            "MutatingAdmissionPolicyBinding",
            "mutatingadmissionpolicybindings",
            AdmissionConfig::MutatingBinding,
        ),
        admission("MutatingWebhookConfiguration", "mutatingwebhookconfigurations", AdmissionConfig::MutatingWebhooks),
        admission("ValidatingAdmissionPolicy", "validatingadmissionpolicies", AdmissionConfig::ValidatingPolicy)
            .status(),
        admission(
            "ValidatingAdmissionPolicyBinding",
            "validatingadmissionpolicybindings",
            AdmissionConfig::ValidatingBinding,
        ),
        admission("ValidatingWebhookConfiguration", "validatingwebhookconfigurations", AdmissionConfig::Webhooks),
        Row::new("apiregistration.k8s.io", "v1", "APIService", "apiservices", aggregation::ApiServiceStrategy)
            .cluster()
            .stored_as("apiregistration.k8s.io/apiservices")
            .category("api-extensions")
            .status(),
        Row::new(FLOW, "v1", "FlowSchema", "flowschemas", flow_control::FlowSchemaStrategy).cluster().status(),
        Row::new(FLOW, "v1", "PriorityLevelConfiguration", "prioritylevelconfigurations", flow_control::LevelStrategy)
            .cluster()
            .status(),
        Row::new(DEVICES, "v1", "DeviceClass", "deviceclasses", devices::ClassStrategy).shown_when_deleted().cluster(),
        Row::new(DEVICES, "v1", "ResourceClaim", "resourceclaims", devices::ClaimStrategy)
            .shown_when_deleted()
            .status(),
        Row::new(DEVICES, "v1", "ResourceClaimTemplate", "resourceclaimtemplates", devices::TemplateStrategy)
            .shown_when_deleted(),
        Row::new(DEVICES, "v1", "ResourceSlice", "resourceslices", devices::SliceStrategy)
            .shown_when_deleted()
            .cluster(),
    ]
}

/// Questions.
fn review_rows() -> Vec<Row> {
    const AUTHENTICATION: &str = "authentication.k8s.io";
    const AUTHORIZATION: &str = "authorization.k8s.io";
    let review =
        |group, kind, plural| Row::new(group, "v1", kind, plural, ReviewStrategy).cluster().answered(&["create"]);
    let mut local = review(AUTHORIZATION, "LocalSubjectAccessReview", "localsubjectaccessreviews");
    local.namespaced = true;
    vec![
        review(AUTHENTICATION, "SelfSubjectReview", "selfsubjectreviews"),
        review(AUTHENTICATION, "TokenReview", "tokenreviews"),
        local,
        review(AUTHORIZATION, "SelfSubjectAccessReview", "selfsubjectaccessreviews"),
        review(AUTHORIZATION, "SelfSubjectRulesReview", "selfsubjectrulesreviews"),
        review(AUTHORIZATION, "SubjectAccessReview", "subjectaccessreviews"),
    ]
}

fn core_rows() -> Vec<Row> {
    vec![
        Row::new("", "v1", "ComponentStatus", "componentstatuses", ReviewStrategy)
            .cluster()
            .short(&["cs"])
            .deprecated("v1.19+")
            .answered(&["get", "list"]),
        Row::new("", "v1", "ConfigMap", "configmaps", core::config::ConfigMapStrategy).short(&["cm"]),
        Row::new("", "v1", "Endpoints", "endpoints", core::endpoints::EndpointsStrategy)
            .short(&["ep"])
            .deprecated("v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
        Row::new("", "v1", "Event", "events", events::EventStrategy).also("events.k8s.io", "v1").short(&["ev"]),
        Row::new("", "v1", "LimitRange", "limitranges", core::limits::LimitRangeStrategy).short(&["limits"]),
        Row::new("", "v1", "Namespace", "namespaces", core::namespace::NamespaceStrategy)
            .shown_when_deleted()
            .deleted_one_by_one()
            .cluster()
            .short(&["ns"])
            .with(&[Finalize, Status]),
        Row::new("", "v1", "Node", "nodes", core::node::NodeStrategy).cluster().short(&["no"]).with(&[Proxy, Status]),
        Row::new("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", core::claim::ClaimStrategy)
            .shown_when_deleted()
            .short(&["pvc"])
            .status(),
        Row::new("", "v1", "PersistentVolume", "persistentvolumes", core::volume::VolumeStrategy)
            .shown_when_deleted()
            .cluster()
            .short(&["pv"])
            .status(),
        Row::new("", "v1", "Pod", "pods", core::pod::PodStrategy).shown_when_deleted().short(&["po"]).in_all().with(&[
            Binding,
            EphemeralContainers,
            Eviction,
            Log,
            Exec,
            Attach,
            PortForward,
            Proxy,
            Resize,
            Status,
        ]),
        Row::new("", "v1", "PodTemplate", "podtemplates", core::pod_template::PodTemplateStrategy).shown_when_deleted(),
        Row::new(
            "",
            "v1",
            "ReplicationController",
            "replicationcontrollers",
            core::replication_controller::ReplicationControllerStrategy,
        )
        .short(&["rc"])
        .in_all()
        .with(&[Scale, Status]),
        Row::new("", "v1", "ResourceQuota", "resourcequotas", core::limits::QuotaStrategy)
            .shown_when_deleted()
            .short(&["quota"])
            .status(),
        Row::new("", "v1", "Secret", "secrets", core::config::SecretStrategy),
        Row::new("", "v1", "ServiceAccount", "serviceaccounts", core::service_account::ServiceAccountStrategy)
            .shown_when_deleted()
            .short(&["sa"])
            .with(&[Token]),
        Row::new("", "v1", "Service", "services", core::service::ServiceStrategy)
            .shown_when_deleted()
            .short(&["svc"])
            .in_all()
            .with(&[Proxy, Status]),
    ]
}

fn apps_rows() -> Vec<Row> {
    vec![
        Row::new(
            "apps",
            "v1",
            "ControllerRevision",
            "controllerrevisions",
            apps::controller_revision::ControllerRevisionStrategy,
        ),
        Row::new("apps", "v1", "DaemonSet", "daemonsets", apps::daemon_set::DaemonSetStrategy)
            .short(&["ds"])
            .in_all()
            .status(),
        Row::new("apps", "v1", "Deployment", "deployments", apps::deployment::DeploymentStrategy)
            .short(&["deploy"])
            .in_all()
            .with(&[Scale, Status]),
        Row::new("apps", "v1", "ReplicaSet", "replicasets", apps::replica_set::ReplicaSetStrategy)
            .short(&["rs"])
            .in_all()
            .with(&[Scale, Status]),
        Row::new("apps", "v1", "StatefulSet", "statefulsets", apps::stateful_set::StatefulSetStrategy)
            .short(&["sts"])
            .in_all()
            .with(&[Scale, Status]),
    ]
}

fn other_rows() -> Vec<Row> {
    const RBAC: &str = "rbac.authorization.k8s.io";
    const NETWORKING: &str = "networking.k8s.io";
    const STORAGE: &str = "storage.k8s.io";
    vec![
        Row::new(
            "apiextensions.k8s.io",
            "v1",
            "CustomResourceDefinition",
            "customresourcedefinitions",
            DefinitionStrategy,
        )
        .cluster()
        .stored_as(crate::custom::definition::STORAGE)
        .short(&["crd", "crds"])
        .category("api-extensions")
        .status(),
        Row::new(
            "autoscaling",
            "v2",
            "HorizontalPodAutoscaler",
            "horizontalpodautoscalers",
            autoscaling::AutoscalerStrategy,
        )
        .also("autoscaling", "v1")
        .short(&["hpa"])
        .in_all()
        .status(),
        Row::new("batch", "v1", "CronJob", "cronjobs", batch::CronJobStrategy).short(&["cj"]).in_all().status(),
        Row::new("batch", "v1", "Job", "jobs", batch::JobStrategy).in_all().status(),
        Row::new(
            "certificates.k8s.io",
            "v1",
            "CertificateSigningRequest",
            "certificatesigningrequests",
            certificates::signing_request::SigningRequestStrategy,
        )
        .cluster()
        .short(&["csr"])
        .with(&[Approval, Status]),
        Row::new("coordination.k8s.io", "v1", "Lease", "leases", coordination::lease::LeaseStrategy),
        Row::new(
            "discovery.k8s.io",
            "v1",
            "EndpointSlice",
            "endpointslices",
            core::endpoint_slices::EndpointSliceStrategy,
        ),
        Row::new(NETWORKING, "v1", "IngressClass", "ingressclasses", networking::IngressClassStrategy).cluster(),
        Row::new(NETWORKING, "v1", "Ingress", "ingresses", networking::IngressStrategy).short(&["ing"]).status(),
        Row::new(NETWORKING, "v1", "IPAddress", "ipaddresses", networking::AddressStrategy).cluster().short(&["ip"]),
        Row::new(NETWORKING, "v1", "NetworkPolicy", "networkpolicies", networking::NetworkPolicyStrategy)
            .short(&["netpol"]),
        Row::new(NETWORKING, "v1", "ServiceCIDR", "servicecidrs", networking::ServiceRangeStrategy).cluster().status(),
        Row::new("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses", storage::RuntimeClassStrategy).cluster(),
        Row::new("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", policy::BudgetStrategy)
            .short(&["pdb"])
            .status(),
        Row::new(RBAC, "v1", "ClusterRoleBinding", "clusterrolebindings", rbac::BindingStrategy).cluster(),
        Row::new(RBAC, "v1", "ClusterRole", "clusterroles", rbac::RoleStrategy).cluster(),
        Row::new(RBAC, "v1", "RoleBinding", "rolebindings", rbac::BindingStrategy),
        Row::new(RBAC, "v1", "Role", "roles", rbac::RoleStrategy),
        Row::new("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", core::priority::PriorityClassStrategy)
            .cluster()
            .short(&["pc"]),
        Row::new(STORAGE, "v1", "CSIDriver", "csidrivers", storage::DriverStrategy).shown_when_deleted().cluster(),
        Row::new(STORAGE, "v1", "CSINode", "csinodes", storage::NodeStrategy).shown_when_deleted().cluster(),
        Row::new(STORAGE, "v1", "CSIStorageCapacity", "csistoragecapacities", storage::CapacityStrategy),
        Row::new(STORAGE, "v1", "StorageClass", "storageclasses", storage::ClassStrategy)
            .shown_when_deleted()
            .cluster()
            .short(&["sc"]),
        Row::new(STORAGE, "v1", "VolumeAttachment", "volumeattachments", storage::AttachmentStrategy)
            .shown_when_deleted()
            .cluster()
            .status(),
        Row::new(STORAGE, "v1", "VolumeAttributesClass", "volumeattributesclasses", storage::AttributesStrategy)
            .shown_when_deleted()
            .cluster()
            .short(&["vac"]),
    ]
}
