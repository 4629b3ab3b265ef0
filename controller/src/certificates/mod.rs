//! Approves and signs the certificates of kubelets, and removes old requests
//! (upstream's pkg/controller/certificates: approver, signer, cleaner).

use std::{sync::Arc, time::Duration};

use coracle_client::{Action, Context, Informer, Informers, Key, Plan, Reconciler, Snapshot, Verb, Wires};
use coracle_pki::{Authority, CertificateRequest, Usage};
use jiff::Timestamp;
use k8s_openapi::{
    ByteString,
    api::{
        certificates::v1::{
            CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestSpec,
        },
        core::v1::Node,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};

const CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const SERVING: &str = "kubernetes.io/kubelet-serving";
const NODES: &str = "system:nodes";
const BOOTSTRAPPERS: &str = "system:bootstrappers";
const NODE_PREFIX: &str = "system:node:";

/// What a certificate is valid for unless the request asks for less (upstream's `cluster-signing-duration`).
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);
const SHORTEST: Duration = Duration::from_secs(600);
/// When requests are removed (pkg/controller/certificates/cleaner).
const KEEP_DECIDED: Duration = Duration::from_secs(3600);
const KEEP_PENDING: Duration = Duration::from_secs(24 * 3600);

/// Approves and signs.
pub struct Certificates {
    requests: Arc<Informer<CertificateSigningRequest>>,
    nodes: Arc<Informer<Node>>,
    authority: Arc<Authority>,
}

/// What a plan reads.
pub struct State {
    pub requests: Arc<Snapshot<CertificateSigningRequest>>,
    pub nodes: Arc<Snapshot<Node>>,
}

impl Certificates {
    /// Signs with `authority`.
    pub fn new(informers: &Informers, authority: Arc<Authority>) -> Self {
        Self { requests: informers.get(), nodes: informers.get(), authority }
    }
}

impl Reconciler for Certificates {
    type Key = Key;
    type Snapshot = State;

    fn name(&self) -> &'static str {
        "certificate"
    }

    fn wire(&self, wires: &mut Wires<Key>) {
        wires.on(&self.requests, |event, emit| emit(Key::of(&event.object().metadata)));
        // A serving certificate waits for the node to say its addresses.
        let requests = self.requests.clone();
        wires.on(&self.nodes, move |event, emit| {
            let user = format!("{NODE_PREFIX}{}", event.object().metadata.name.as_deref().unwrap_or_default());
            for request in requests.snapshot().iter() {
                if request.spec.username.as_ref() == Some(&user) && decision(request).is_none() {
                    emit(Key::of(&request.metadata));
                }
            }
        });
    }

    fn snapshot(&self) -> State {
        State { requests: self.requests.snapshot(), nodes: self.nodes.snapshot() }
    }

    fn plan(&self, state: &State, key: &Key, context: &Context<'_>) -> Plan {
        plan(state, key, &self.authority, context.now)
    }
}

/// What has to be done for one request. Signing draws the certificate's serial number: the one random thing in a plan.
pub fn plan(state: &State, key: &Key, authority: &Authority, now: Timestamp) -> Plan {
    let Some(request) = state.requests.get(key) else { return Plan::nothing() };
    let mut plan = Plan::default();
    let decided = decision(request);
    let created = request.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
    let age = Duration::try_from(now.duration_since(created)).unwrap_or_default();
    let keep = if decided.is_some() { KEEP_DECIDED } else { KEEP_PENDING };
    if age >= keep {
        return Plan::one(Action::delete(request.as_ref()));
    }
    plan.requeue(keep - age);
    let Some(usage) = usage(&request.spec) else { return plan };
    let parsed = std::str::from_utf8(&request.spec.request.0).ok().and_then(|pem| CertificateRequest::parse(pem).ok());
    let Some(parsed) = parsed else { return plan };
    if decided.is_none() {
        if let Some(message) = approval(state, &request.spec, &parsed, usage) {
            plan.push(approve(request, message, now));
        }
    } else if decided == Some("Approved") && issued(request).is_none() && is_well_formed(&request.spec, &parsed, usage)
    {
        // Somebody else may have approved what no kubelet may have; the signer has the last word.
        let asked = request
            .spec
            .expiration_seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map_or(LONGEST, Duration::from_secs);
        if let Ok(certificate) = authority.sign(&parsed, usage, now, asked.clamp(SHORTEST, LONGEST)) {
            plan.push(deliver(request, certificate));
        }
    }
    plan
}

/// Approved, Denied or Failed; None while nobody has said anything.
fn decision(request: &CertificateSigningRequest) -> Option<&str> {
    let conditions = request.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let find = |kind: &str| {
        conditions.iter().find(|condition| condition.type_ == kind).map(|condition| condition.type_.as_str())
    };
    // A refusal outweighs an approval.
    find("Denied").or_else(|| find("Failed")).or_else(|| find("Approved"))
}

fn issued(request: &CertificateSigningRequest) -> Option<&ByteString> {
    request.status.as_ref()?.certificate.as_ref().filter(|certificate| !certificate.0.is_empty())
}

/// What the certificate is for; None where the signer or the usages are not ours.
fn usage(spec: &CertificateSigningRequestSpec) -> Option<Usage> {
    let (usage, needed) = match spec.signer_name.as_str() {
        CLIENT => (Usage::Client, "client auth"),
        SERVING => (Usage::Server, "server auth"),
        _ => return None,
    };
    let usages = spec.usages.as_deref().unwrap_or_default();
    let has = |name: &str| usages.iter().any(|usage| usage == name);
    let known = usages.iter().all(|usage| [needed, "digital signature", "key encipherment"].contains(&usage.as_str()));
    (known && has(needed) && has("digital signature")).then_some(usage)
}

/// Whether a kubelet may have such a certificate at all (upstream's `ValidateKubeletClientCSR` and `ValidateKubeletServingCSR`).
fn is_well_formed(spec: &CertificateSigningRequestSpec, request: &CertificateRequest, usage: Usage) -> bool {
    let node = request.common_name.strip_prefix(NODE_PREFIX).is_some_and(|name| !name.is_empty());
    let named = match usage {
        Usage::Client => request.names.is_empty(),
        Usage::Server => !request.names.is_empty() && spec.username.as_deref() == Some(&request.common_name),
    };
    node && named && request.organizations == [NODES] && !request.has_other_names
}

/// Why the request is approved, or None where it is not (yet) for us to do.
fn approval(
    state: &State,
    spec: &CertificateSigningRequestSpec,
    request: &CertificateRequest,
    usage: Usage,
) -> Option<&'static str> {
    if !is_well_formed(spec, request, usage) {
        return None;
    }
    let member = |group: &str| spec.groups.iter().flatten().any(|have| have == group);
    let own = spec.username.as_deref() == Some(&request.common_name) && member(NODES);
    match usage {
        Usage::Client if own => Some("Auto approving self kubelet client certificate after SubjectAccessReview."),
        Usage::Client if member(BOOTSTRAPPERS) => {
            Some("Auto approving kubelet client certificate after SubjectAccessReview.")
        }
        Usage::Client => None,
        Usage::Server => (own && has_only_own_names(state, request))
            .then_some("Auto approving kubelet serving certificate for the node's own names."),
    }
}

/// Whether all names are the node's own: its name, or an address that it reports.
fn has_only_own_names(state: &State, request: &CertificateRequest) -> bool {
    let name = request.common_name.strip_prefix(NODE_PREFIX).unwrap_or_default();
    let Some(node) = state.nodes.find("", name) else { return false };
    let addresses = node.status.as_ref().and_then(|status| status.addresses.as_deref()).unwrap_or_default();
    request.names.iter().all(|wanted| wanted == name || addresses.iter().any(|address| address.address == *wanted))
}

fn approve(request: &CertificateSigningRequest, message: &str, now: Timestamp) -> Action {
    let mut approved = request.clone();
    approved.status.get_or_insert_default().conditions.get_or_insert_default().push(
        CertificateSigningRequestCondition {
            type_: "Approved".to_owned(),
            status: "True".to_owned(),
            reason: Some("AutoApproved".to_owned()),
            message: Some(message.to_owned()),
            last_update_time: Some(Time(now)),
            last_transition_time: Some(Time(now)),
        },
    );
    let mut action = Action::update(&approved);
    if let Verb::Update { subresource, .. } = &mut action.verb {
        *subresource = Some("approval");
    }
    action
}

fn deliver(request: &CertificateSigningRequest, certificate: String) -> Action {
    let mut signed = request.clone();
    signed.status.get_or_insert_default().certificate = Some(ByteString(certificate.into_bytes()));
    Action::update_status(&signed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;
    use coracle_pki::{Subject, request as make_request};

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    struct Asked {
        signer: &'static str,
        usages: [&'static str; 2],
        user: &'static str,
        group: &'static str,
        subject: Subject,
        names: Vec<String>,
    }

    fn asked(group: &'static str, user: &'static str) -> Asked {
        Asked {
            signer: CLIENT,
            usages: ["digital signature", "client auth"],
            user,
            group,
            subject: Subject::member("system:node:a", NODES),
            names: vec![],
        }
    }

    fn request(asked: &Asked) -> CertificateSigningRequest {
        let (pem, _) = make_request(&asked.subject, &asked.names).unwrap();
        CertificateSigningRequest {
            metadata: coracle_api::json::from_value(
                json!({"name": "r", "uid": "r", "creationTimestamp": "2026-01-01T00:00:00Z"}),
            )
            .unwrap(),
            spec: CertificateSigningRequestSpec {
                request: ByteString(pem.into_bytes()),
                signer_name: asked.signer.to_owned(),
                usages: Some(asked.usages.map(str::to_owned).to_vec()),
                username: Some(asked.user.to_owned()),
                groups: Some(vec![asked.group.to_owned()]),
                ..CertificateSigningRequestSpec::default()
            },
            status: None,
        }
    }

    fn planned(request: CertificateSigningRequest, at: Timestamp) -> Plan {
        let node: Node = coracle_api::json::from_value(json!({"metadata": {"name": "a"}, "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]}})).unwrap();
        let state =
            State { requests: Arc::new(Snapshot::of([request], &[])), nodes: Arc::new(Snapshot::of([node], &[])) };
        plan(&state, &Key::cluster("r"), &Authority::create("ca", now()).unwrap(), at)
    }

    #[test]
    fn nodes_get_their_own_certificates_and_no_other() {
        let serving = |names: &[&str]| Asked {
            signer: SERVING,
            usages: ["digital signature", "server auth"],
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            ..asked(NODES, "system:node:a")
        };
        let cases = [
            ("bootstrap", asked(BOOTSTRAPPERS, "system:bootstrap:x"), true),
            ("renewal", asked(NODES, "system:node:a"), true),
            ("another node's", asked(NODES, "system:node:b"), false),
            ("a stranger", asked("system:authenticated", "eve"), false),
            ("no node", Asked { subject: Subject::member("admin", NODES), ..asked(BOOTSTRAPPERS, "x") }, false),
            (
                "another group",
                Asked { subject: Subject::member("system:node:a", "system:masters"), ..asked(BOOTSTRAPPERS, "x") },
                false,
            ),
            ("names in a client's", Asked { names: vec!["a".into()], ..asked(NODES, "system:node:a") }, false),
            ("other usages", Asked { usages: ["client auth", "cert sign"], ..asked(NODES, "system:node:a") }, false),
            ("serving", serving(&["a", "10.0.0.1"]), true),
            ("serving as another", serving(&["a", "kubernetes.default"]), false),
            ("serving without names", serving(&[]), false),
        ];
        for (why, asked, approved) in cases {
            let plan = planned(request(&asked), now());
            let expected: &[&str] =
                if approved { &["update certificatesigningrequests.certificates.k8s.io/approval r"] } else { &[] };
            assert_eq!(plan.describe(), expected, "{why}");
        }
    }

    fn with_condition(asked: &Asked, kind: &str) -> CertificateSigningRequest {
        let mut request = request(asked);
        let condition =
            json!({"conditions": [{"type": "Approved", "status": "True"}, {"type": kind, "status": "True"}]});
        request.status = Some(coracle_api::json::from_value(condition).unwrap());
        request
    }

    #[test]
    fn approved_requests_are_signed_and_old_ones_removed() {
        let good = asked(NODES, "system:node:a");
        let plan = planned(with_condition(&good, "Approved"), now());
        assert_eq!(plan.describe(), ["update certificatesigningrequests.certificates.k8s.io/status r"]);
        let Verb::Update { body, .. } = &plan.actions[0].actions()[0].verb else { panic!() };
        assert!(
            body["status"]["certificate"].as_str().unwrap().starts_with("LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS"),
            "PEM in base64"
        );
        assert_eq!(plan.requeue_after, Some(KEEP_DECIDED));
        assert_eq!(planned(with_condition(&good, "Denied"), now()).describe(), Vec::<String>::new());
        let forged =
            Asked { subject: Subject::member("system:node:a", "system:masters"), ..asked(NODES, "system:node:a") };
        assert_eq!(
            planned(with_condition(&forged, "Approved"), now()).describe(),
            Vec::<String>::new(),
            "approved by a careless admin"
        );
        let later = now().checked_add(KEEP_DECIDED).unwrap();
        assert_eq!(
            planned(with_condition(&good, "Approved"), later).describe(),
            ["delete certificatesigningrequests.certificates.k8s.io r"]
        );
        assert_eq!(planned(request(&good), later).describe().len(), 1, "a pending one is kept, and approved at last");
    }
}
