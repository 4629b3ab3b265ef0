//! One constructor per way to fail, in upstream's words (apimachinery `pkg/api/errors`).

use super::{Cause, CauseReason, Details, Reason, Status, aggregate};
use crate::gvk::{Gvk, Gvr};

/// Why an update with an old resource version is refused (apiserver `registry/generic/registry`).
pub const OPTIMISTIC_LOCK: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

fn about(resource: &Gvr, name: &str) -> Option<Box<Details>> {
    Some(Box::new(Details {
        name: name.into(),
        group: resource.group.to_string(),
        kind: resource.resource.to_string(),
        ..Details::default()
    }))
}

impl Status {
    /// The answer to a delete that finished: what was deleted.
    pub fn deleted(resource: &Gvr, name: &str, uid: &str) -> Self {
        let mut details = about(resource, name);
        if let Some(details) = &mut details {
            details.uid = uid.into();
        }
        Self { code: 200, reason: Reason::Unknown, message: String::new(), details }
    }

    /// Success, nothing more to say.
    pub fn success() -> Self {
        Self { code: 200, reason: Reason::Unknown, message: String::new(), details: None }
    }

    /// 404: `deployments.apps "x" not found`
    pub fn not_found(resource: &Gvr, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", resource.group_resource());
        Self { details: about(resource, name), ..Self::new(404, Reason::NotFound, message) }
    }

    /// 404 for a path that is no resource of this server.
    pub fn no_such_resource() -> Self {
        Self {
            details: Some(Box::default()),
            ..Self::new(404, Reason::NotFound, "the server could not find the requested resource")
        }
    }

    /// 409: `pods "x" already exists`
    pub fn already_exists(resource: &Gvr, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", resource.group_resource());
        Self { details: about(resource, name), ..Self::new(409, Reason::AlreadyExists, message) }
    }

    /// 409 after several generated names were all taken.
    pub fn generate_name_conflict(resource: &Gvr, name: &str) -> Self {
        let message = format!(
            "{} \"{name}\" already exists, the server was not able to generate a unique name for the object",
            resource.group_resource()
        );
        Self { details: about(resource, name), ..Self::new(409, Reason::AlreadyExists, message) }.with_retry_after(1)
    }

    /// 409: `Operation cannot be fulfilled on deployments.apps "x": why`
    pub fn conflict(resource: &Gvr, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", resource.group_resource());
        Self { details: about(resource, name), ..Self::new(409, Reason::Conflict, message) }
    }

    /// 409: the object changed since it was read.
    pub fn modified(resource: &Gvr, name: &str) -> Self {
        Self::conflict(resource, name, OPTIMISTIC_LOCK)
    }

    /// 422: `Deployment.apps "x" is invalid: [spec.a: Required value, spec.b: …]`
    pub fn invalid(gvk: &Gvk, name: &str, causes: Vec<Cause>) -> Self {
        let mut message = format!("{} \"{name}\" is invalid", gvk.group_kind());
        if !causes.is_empty() {
            message.push_str(": ");
            message.push_str(&aggregate(causes.iter().map(Cause::to_string)));
        }
        let details = Details {
            name: name.into(),
            group: gvk.group.to_string(),
            kind: gvk.kind.to_string(),
            causes,
            ..Details::default()
        };
        Self { details: Some(Box::new(details)), ..Self::new(422, Reason::Invalid, message) }
    }

    /// 400
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, Reason::BadRequest, message)
    }

    /// 401
    pub fn unauthorized() -> Self {
        Self::new(401, Reason::Unauthorized, "Unauthorized")
    }

    /// 403: `pods "x" is forbidden: why`, `pods is forbidden: why` for a collection.
    pub fn forbidden(resource: &Gvr, name: &str, why: &str) -> Self {
        let message = match (&*resource.resource, name) {
            ("", _) => format!("forbidden: {why}"),
            (_, "") => format!("{} is forbidden: {why}", resource.group_resource()),
            (_, name) => format!("{} \"{name}\" is forbidden: {why}", resource.group_resource()),
        };
        Self { details: about(resource, name), ..Self::new(403, Reason::Forbidden, message) }
    }

    /// 405: `delete is not supported on resources of kind "pods"`
    pub fn method_not_supported(resource: &Gvr, verb: &str) -> Self {
        let message = format!("{verb} is not supported on resources of kind \"{}\"", resource.group_resource());
        Self { details: about(resource, ""), ..Self::new(405, Reason::MethodNotAllowed, message) }
    }

    /// 405 for a path that takes other methods.
    pub fn method_not_allowed() -> Self {
        Self {
            details: Some(Box::default()),
            ..Self::new(
                405,
                Reason::MethodNotAllowed,
                "the server does not allow this method on the requested resource",
            )
        }
    }

    /// 406
    pub fn not_acceptable(accepted: &[&str]) -> Self {
        let message = format!("only the following media types are accepted: {}", accepted.join(", "));
        Self::new(406, Reason::NotAcceptable, message)
    }

    /// 410: the resource version is too old; the client lists again.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, Reason::Expired, message)
    }

    /// 410: what was asked for is gone for good.
    pub fn gone(message: impl Into<String>) -> Self {
        Self::new(410, Reason::Gone, message)
    }

    /// 413
    pub fn too_large(message: &str) -> Self {
        Self::new(413, Reason::RequestEntityTooLarge, format!("Request entity too large: {message}"))
    }

    /// 415
    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        Self::new(415, Reason::UnsupportedMediaType, message)
    }

    /// 429
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        Self::new(429, Reason::TooManyRequests, message).with_retry_after(retry_after_seconds)
    }

    /// 500: `Internal error occurred: why`
    pub fn internal(why: impl std::fmt::Display) -> Self {
        let why = why.to_string();
        let message = format!("Internal error occurred: {why}");
        Self::new(500, Reason::InternalError, message).with_causes(vec![Cause::new(CauseReason::None, "", why)])
    }

    /// 500: the operation could not be done in time and may be tried again.
    pub fn server_timeout(resource: &Gvr, operation: &str, retry_after_seconds: u32) -> Self {
        let message = format!(
            "The {operation} operation against {} could not be completed at this time, please try again.",
            resource.group_resource()
        );
        Self { details: about(resource, operation), ..Self::new(500, Reason::ServerTimeout, message) }
            .with_retry_after(retry_after_seconds)
    }

    /// 503
    pub fn service_unavailable(message: impl Into<String>) -> Self {
        Self::new(503, Reason::ServiceUnavailable, message)
    }

    /// 504: `Timeout: why`
    pub fn timeout(why: &str, retry_after_seconds: u32) -> Self {
        Self::new(504, Reason::Timeout, format!("Timeout: {why}")).with_retry_after(retry_after_seconds)
    }

    /// 504: the cache did not reach the asked-for resource version in time.
    pub fn too_large_resource_version(requested: u64, current: u64) -> Self {
        let message = format!("Too large resource version: {requested}, current: {current}");
        let cause = Cause::new(CauseReason::ResourceVersionTooLarge, "", "Too large resource version");
        Self::timeout(&message, 1).with_causes(vec![cause])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::{Value, json};
    use crate::status::FieldPath;

    const DEPLOYMENTS: Gvr = Gvr::of("apps", "v1", "deployments");
    const PODS: Gvr = Gvr::of("", "v1", "pods");

    #[test]
    fn messages_are_upstreams() {
        let rows = [
            (Status::not_found(&DEPLOYMENTS, "x"), 404, r#"deployments.apps "x" not found"#),
            (Status::already_exists(&PODS, "x"), 409, r#"pods "x" already exists"#),
            (Status::forbidden(&PODS, "", "no"), 403, "pods is forbidden: no"),
            (
                Status::modified(&DEPLOYMENTS, "x"),
                409,
                "Operation cannot be fulfilled on deployments.apps \"x\": the object has been modified; please apply your changes to the latest version and try again",
            ),
            (
                Status::method_not_supported(&PODS, "delete"),
                405,
                r#"delete is not supported on resources of kind "pods""#,
            ),
            (Status::internal("boom"), 500, "Internal error occurred: boom"),
        ];
        for (status, code, message) in rows {
            assert_eq!((status.code, status.to_string().as_str()), (code, message));
        }
    }

    #[test]
    fn invalid_names_every_cause_once() {
        let spec = FieldPath::new("spec");
        let causes = vec![
            Cause::required(&spec.child("a"), ""),
            Cause::invalid(&spec.child("b"), "x", "must be y"),
            Cause::required(&spec.child("a"), ""),
            Cause::not_supported(&spec.child("c"), "z", &["p", "q"]),
            Cause::too_long(&spec.child("d"), 63),
            Cause::too_many(&spec.child("e"), 9, 8),
            Cause::invalid(&spec.child("f"), -1, "must be greater than or equal to 0"),
        ];
        let status = Status::invalid(&Gvk::of("apps", "v1", "Deployment"), "x", causes);
        assert_eq!(
            status.message,
            r#"Deployment.apps "x" is invalid: [spec.a: Required value, spec.b: Invalid value: "x": must be y, spec.c: Unsupported value: "z": supported values: "p", "q", spec.d: Too long: may not be more than 63 bytes, spec.e: Too many: 9: must have at most 8 items, spec.f: Invalid value: -1: must be greater than or equal to 0]"#
        );
        let one = Status::invalid(&Gvk::of("", "v1", "Pod"), "x", vec![Cause::required(&spec, "why")]);
        assert_eq!(one.message, r#"Pod "x" is invalid: spec: Required value: why"#);
    }

    #[test]
    fn the_wire_form_is_upstreams_and_reads_back() {
        let status = Status::not_found(&DEPLOYMENTS, "x");
        let wire: Value = serde_json::from_slice(&status.to_json()).unwrap();
        assert_eq!(
            wire,
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "deployments.apps \"x\" not found",
                "reason": "NotFound", "details": {"name": "x", "group": "apps", "kind": "deployments"}, "code": 404})
        );
        let internal = Status::internal("boom").with_retry_after(3);
        assert_eq!(serde_json::from_slice::<Status>(&internal.to_json()).unwrap(), internal);
        let deleted: Value = serde_json::from_slice(&Status::deleted(&PODS, "a", "u").to_json()).unwrap();
        assert_eq!(deleted["status"], "Success");
        assert_eq!(deleted["details"], json!({"name": "a", "kind": "pods", "uid": "u"}));
    }
}
