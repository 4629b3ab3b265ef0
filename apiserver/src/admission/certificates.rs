//! Who may approve and sign requests for certificates, and what none may ask for (upstream's CertificateApproval, CertificateSigning and
//! CertificateSubjectRestriction).

use crate::auth::{Attributes, Decision, MASTERS, authorize};
use crate::registry::Subresource;
use crate::registry::certificates::request;
use crate::registry::fields::{same, text};
use crate::verbs::Call;
use coracle_api::json::Value;
use coracle_api::{Status, meta};

pub const GROUP: &str = "certificates.k8s.io";
pub const REQUESTS: &str = "certificatesigningrequests";

/// The signer of what the server knows users by.
const OF_USERS: &str = "kubernetes.io/kube-apiserver-client";

/// Nobody gets a certificate by which he may do everything (plugin/pkg/admission/certificates/subjectrestriction).
pub fn check_subject(call: &Call, asked: &Value) -> Result<(), Status> {
    let signer = text(&asked["spec"], "signerName");
    if signer != OF_USERS {
        return Ok(());
    }
    let refused = |why: &str| Status::forbidden(&call.gvr(), meta::name(asked), why);
    let groups = request::organizations(text(&asked["spec"], "request"))
        .map_err(|why| refused(&format!("failed to parse CSR: {why}")))?;
    if groups.iter().any(|group| group == MASTERS) {
        return Err(refused(&format!("use of {signer} signer with {MASTERS} group is not allowed")));
    }
    Ok(())
}

/// Whoever approves or signs must be allowed to for this signer: the one that the request had before
/// (plugin/pkg/admission/certificates/approval and signing).
pub fn check_signer(call: &Call, asked: &Value, old: &Value) -> Result<(), Status> {
    let changes = |field: &str| !same(&asked["status"], &old["status"], field);
    let verb = match call.subresource {
        Some(Subresource::Approval) => "approve",
        Some(Subresource::Status) if changes("certificate") || changes("conditions") => "sign",
        _ => return Ok(()),
    };
    let signer = text(&old["spec"], "signerName");
    // Or for all signers of its domain (`certauthorization.IsAuthorizedForSignerName`).
    let all = format!("{}/*", signer.split_once('/').map_or(signer, |(domain, _)| domain));
    let may = |name| {
        let attributes =
            Attributes { verb, group: GROUP, version: "*", resource: "signers", name, ..Attributes::default() };
        authorize(&call.user, &attributes) == Decision::Allow
    };
    if may(signer) || may(&all) {
        return Ok(());
    }
    let why = format!("user not permitted to {verb} requests with signerName {signer:?}");
    Err(Status::forbidden(&call.gvr(), &call.name, &why))
}
