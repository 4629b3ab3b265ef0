//! Approves and signs the certificates of kubelets, signs those of users that somebody approved, and removes old requests
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

const USER: &str = "kubernetes.io/kube-apiserver-client";
const CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const SERVING: &str = "kubernetes.io/kubelet-serving";
const NODES: &str = "system:nodes";
const MASTERS: &str = "system:masters";
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
    authorities: Authorities,
}

/// Who signs.
#[derive(Clone, Debug)]
pub struct Authorities {
    /// Clients of the API; the API server's own certificate is of this one, too.
    pub cluster: Arc<Authority>,
    /// Kubelets' serving certificates: of an authority by which nobody but the API server knows anybody, as nodes say
    /// themselves what they are called. None: they are not signed.
    pub kubelets: Option<Arc<Authority>>,
}

/// What a plan reads.
pub struct State {
    pub requests: Arc<Snapshot<CertificateSigningRequest>>,
    pub nodes: Arc<Snapshot<Node>>,
}

impl Certificates {
    /// Signs with `authorities`.
    pub fn new(informers: &Informers, authorities: Authorities) -> Self {
        Self { requests: informers.get(), nodes: informers.get(), authorities }
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
        plan(state, key, &self.authorities, context.now)
    }
}

/// What has to be done for one request. Signing draws the certificate's serial number: the one random thing in a plan.
pub fn plan(state: &State, key: &Key, authorities: &Authorities, now: Timestamp) -> Plan {
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
    let spec = &request.spec;
    let Some((usage, authority)) = signer(spec, authorities) else { return plan };
    let parsed = std::str::from_utf8(&spec.request.0).ok().and_then(|pem| CertificateRequest::parse(pem).ok());
    let Some(parsed) = parsed else { return plan };
    if decided.is_none() {
        if let Some(message) = approval(state, spec, &parsed, usage) {
            plan.push(approve(request, message, now));
        }
    } else if decided == Some("Approved") && issued(request).is_none() {
        // Somebody else may have approved what nobody may have; the signer has the last word.
        let asked = spec
            .expiration_seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map_or(LONGEST, Duration::from_secs)
            .clamp(SHORTEST, LONGEST);
        let signed = check(spec, &parsed, usage)
            .and_then(|()| authority.sign(&parsed, usage, now, asked).map_err(|error| error.to_string()));
        plan.push(match signed {
            Ok(certificate) => deliver(request, certificate),
            Err(refusal) => fail(request, refusal, now),
        });
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

/// What the certificate is for and who signs it; None where the signer is not ours.
fn signer<'a>(spec: &CertificateSigningRequestSpec, authorities: &'a Authorities) -> Option<(Usage, &'a Authority)> {
    match spec.signer_name.as_str() {
        USER | CLIENT => Some((Usage::Client, &authorities.cluster)),
        SERVING => Some((Usage::Server, authorities.kubelets.as_deref()?)),
        _ => None,
    }
}

/// Whether anybody may have such a certificate at all (pkg/apis/certificates/helpers `ValidateKubeletClientCSR`,
/// `ValidateKubeletServingCSR`; pkg/controller/certificates/signer `validAPIServerClientUsages`), or why not.
fn check(spec: &CertificateSigningRequestSpec, request: &CertificateRequest, usage: Usage) -> Result<(), String> {
    let (needed, what) = if usage == Usage::Client { ("client auth", "client") } else { ("server auth", "serving") };
    let usages = spec.usages.as_deref().unwrap_or_default();
    let has = |name: &str| usages.iter().any(|usage| usage == name);
    if let Some(other) =
        usages.iter().find(|u| ![needed, "digital signature", "key encipherment"].contains(&u.as_str()))
    {
        return Err(format!("invalid usage for {what} certificate: {other}"));
    }
    let of_user = spec.signer_name == USER;
    for needed in [needed, "digital signature"].into_iter().take(if of_user { 1 } else { 2 }) {
        if !has(needed) {
            return Err(format!("missing required usage for {what} certificate: {needed}"));
        }
    }
    if request.has_other_names {
        return Err("mail addresses and URIs are not signed".to_owned());
    }
    if of_user {
        // Admission refuses it, but a request may be older than the rule.
        if request.organizations.iter().any(|group| group == MASTERS) {
            return Err(format!("use of {USER} signer with {MASTERS} group is not allowed"));
        }
        return Ok(());
    }
    if request.organizations != [NODES] {
        return Err(format!("subject organization is not {NODES}"));
    }
    if request.common_name.strip_prefix(NODE_PREFIX).is_none_or(str::is_empty) {
        return Err(format!("subject common name does not begin with {NODE_PREFIX}"));
    }
    match usage {
        Usage::Client if !request.names.is_empty() => Err("subjectAltNames are not allowed".to_owned()),
        Usage::Server if request.names.is_empty() => Err("DNS or IP subjectAltName is required".to_owned()),
        Usage::Server if spec.username.as_deref() != Some(&request.common_name) => {
            Err("subject common name is not the requesting user".to_owned())
        }
        _ => Ok(()),
    }
}

/// Why the request is approved, or None where it is not (yet) for us to do.
fn approval(
    state: &State,
    spec: &CertificateSigningRequestSpec,
    request: &CertificateRequest,
    usage: Usage,
) -> Option<&'static str> {
    // Users' are for somebody to approve.
    if spec.signer_name == USER || check(spec, request, usage).is_err() {
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
    // An address that another node has, too, is at best one of the two's.
    let is_others = |wanted: &str| {
        let others = state.nodes.iter().filter(|other| other.metadata.name.as_deref() != Some(name));
        let mut addresses = others.filter_map(|other| other.status.as_ref()?.addresses.as_ref()).flatten();
        addresses.any(|address| address.address == wanted)
    };
    let is_own = |wanted: &String| {
        wanted == name || (addresses.iter().any(|address| address.address == *wanted) && !is_others(wanted))
    };
    request.names.iter().all(is_own)
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

/// Tells why the signer does not sign (pkg/controller/certificates/signer `setFailed…`).
fn fail(request: &CertificateSigningRequest, refusal: String, now: Timestamp) -> Action {
    let mut failed = request.clone();
    failed.status.get_or_insert_default().conditions.get_or_insert_default().push(CertificateSigningRequestCondition {
        type_: "Failed".to_owned(),
        status: "True".to_owned(),
        reason: Some("SignerValidationFailure".to_owned()),
        message: Some(refusal),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    });
    Action::update_status(&failed)
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
        let node = |name: &str, addresses: &[&str]| -> Node {
            let address = |address: &&str| json!({"type": "InternalIP", "address": address});
            let addresses: Vec<_> = addresses.iter().map(address).collect();
            coracle_api::json::from_value(json!({"metadata": {"name": name}, "status": {"addresses": addresses}}))
                .unwrap()
        };
        let nodes = [node("a", &["10.0.0.1", "10.0.0.2"]), node("b", &["10.0.0.2"])];
        let state =
            State { requests: Arc::new(Snapshot::of([request], &[])), nodes: Arc::new(Snapshot::of(nodes, &[])) };
        let authority = |name: &str| Arc::new(Authority::create(name, now()).unwrap());
        let authorities = Authorities { cluster: authority("ca"), kubelets: Some(authority("kubelets")) };
        plan(&state, &Key::cluster("r"), &authorities, at)
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
            ("serving as another node", serving(&["10.0.0.2"]), false),
            ("serving without names", serving(&[]), false),
            ("a user's", Asked { signer: USER, ..asked(NODES, "system:node:a") }, false),
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

    fn refusal(plan: &Plan) -> String {
        let Verb::Update { body, .. } = &plan.actions[0].actions()[0].verb else { panic!() };
        let last = body["status"]["conditions"].as_array().unwrap().last().unwrap();
        assert_eq!(
            [&last["type"], &last["status"], &last["reason"]],
            ["Failed", "True", "SignerValidationFailure"].map(coracle_api::json::Value::from).each_ref()
        );
        last["message"].as_str().unwrap().to_owned()
    }

    #[test]
    fn users_get_what_somebody_approved() {
        let jane =
            |usages| Asked { signer: USER, usages, subject: Subject::member("jane", "dev"), ..asked("x", "jane") };
        let plan = planned(with_condition(&jane(["client auth", "key encipherment"]), "Approved"), now());
        let Verb::Update { body, .. } = &plan.actions[0].actions()[0].verb else { panic!() };
        let certificate: ByteString = coracle_api::json::from_value(body["status"]["certificate"].clone()).unwrap();
        assert!(String::from_utf8(certificate.0).unwrap().starts_with("-----BEGIN CERTIFICATE-----"));
        let of_server = planned(with_condition(&jane(["client auth", "server auth"]), "Approved"), now());
        assert_eq!(refusal(&of_server), "invalid usage for client certificate: server auth");
        let master = Asked { subject: Subject::member("jane", MASTERS), ..jane(["client auth", "key encipherment"]) };
        assert_eq!(
            refusal(&planned(with_condition(&master, "Approved"), now())),
            "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"
        );
        let in_groups = |groups: &[&str]| Asked {
            subject: Subject {
                common_name: "jane".to_owned(),
                organizations: groups.iter().map(|group| (*group).to_owned()).collect(),
            },
            ..jane(["client auth", "key encipherment"])
        };
        let plan = planned(with_condition(&in_groups(&["dev", "ops"]), "Approved"), now());
        let Verb::Update { body, .. } = &plan.actions[0].actions()[0].verb else { panic!() };
        assert!(body["status"]["certificate"].is_string(), "{body}");
        assert!(
            refusal(&planned(with_condition(&in_groups(&["dev", MASTERS]), "Approved"), now()))
                .contains("with system:masters group is not allowed")
        );
        let none = planned(with_condition(&jane(["digital signature", "key encipherment"]), "Approved"), now());
        assert_eq!(refusal(&none), "missing required usage for client certificate: client auth");
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
            refusal(&planned(with_condition(&forged, "Approved"), now())),
            "subject organization is not system:nodes",
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
