//! Kinds that are questions: they are answered, not kept (authentication.k8s.io, authorization.k8s.io), and component
//! statuses, which are made when they are asked for.

use super::fields::{items, set, text};
use super::strategy::Strategy;
use crate::auth::{self, Attributes, Decision, MASTERS, UserInfo, authorize};
use crate::http::negotiate::Shape;
use crate::http::render;
use crate::http::request::Body;
use crate::http::table;
use crate::verbs::{Call, Response, Verb};
use coracle_api::json::{Value, json};
use coracle_api::printing::{self, Printing};
use coracle_api::status::FieldPath;
use coracle_api::{Cause, Gvk, Status, meta};
use http::StatusCode;

/// A kind that is answered.
#[derive(Debug)]
pub struct ReviewStrategy;

impl Strategy for ReviewStrategy {}

/// Answers a call of a kind that is not stored.
///
/// # Errors
/// 422 for questions that are wrong, 404 for components that there are not.
pub async fn answer(call: Call, verb: Verb, body: Body) -> Result<Response, Status> {
    if verb != Verb::Create {
        return components(&call, verb);
    }
    let mut object = body.object(&call)?;
    let mut causes = Vec::new();
    if &*call.row().kind == "TokenReview" {
        // What the token is bound to must be known as of now.
        call.server.fresh().await?;
    }
    let status = match &*call.row().kind {
        "SelfSubjectReview" => json!({"userInfo": user_info(&call.user)}),
        "TokenReview" => token_review(&call, &object["spec"], &mut causes),
        "SelfSubjectAccessReview" => access(&call.user, &object["spec"], &mut causes),
        "SubjectAccessReview" => subject(&object["spec"], &mut causes),
        "LocalSubjectAccessReview" => local(&call, &object["spec"], &mut causes)?,
        "SelfSubjectRulesReview" => rules(&call.user, &object["spec"], &mut causes),
        _ => return Err(Status::method_not_allowed()),
    };
    if !causes.is_empty() {
        return Err(Status::invalid(&call.gvk(), meta::name(&object), causes));
    }
    set(&mut object, "status", status);
    if !object["metadata"].is_object() {
        set(&mut object, "metadata", json!({}));
    }
    render::value(&call, StatusCode::CREATED, &call.gvk(), &object)
}

/// A user as authentication.k8s.io writes it.
fn user_info(user: &UserInfo) -> Value {
    let mut info = json!({"username": user.name});
    if !user.uid.is_empty() {
        info["uid"] = user.uid.as_str().into();
    }
    if !user.groups.is_empty() {
        info["groups"] = user.groups.iter().map(String::as_str).collect();
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}

fn token_review(call: &Call, spec: &Value, causes: &mut Vec<Cause>) -> Value {
    let token = text(spec, "token");
    if token.is_empty() {
        causes.push(Cause::required(&FieldPath::new("spec.token"), ""));
        return Value::Null;
    }
    let audiences: Vec<String> = items(spec, "audiences").iter().filter_map(Value::as_str).map(str::to_owned).collect();
    match auth::tokens::authenticate(&call.server, token, &audiences) {
        Ok(Some((user, audiences))) => {
            json!({"authenticated": true, "user": user_info(&user), "audiences": audiences})
        }
        Ok(None) => json!({"user": {}, "error": "invalid bearer token"}),
        Err(status) => json!({"user": {}, "error": status.message}),
    }
}

/// What the authorizer says of an access that a spec describes.
fn access(user: &UserInfo, spec: &Value, causes: &mut Vec<Cause>) -> Value {
    let path = FieldPath::new("spec");
    let (resource, other) = (spec.get("resourceAttributes"), spec.get("nonResourceAttributes"));
    let (resource, other) = (resource.filter(|of| of.is_object()), other.filter(|of| of.is_object()));
    let attributes = match (resource, other) {
        (Some(of), None) => Attributes {
            verb: text(of, "verb"),
            group: text(of, "group"),
            version: text(of, "version"),
            resource: text(of, "resource"),
            subresource: text(of, "subresource"),
            namespace: text(of, "namespace"),
            name: text(of, "name"),
            path: None,
        },
        (None, Some(of)) => {
            Attributes { verb: text(of, "verb"), path: Some(text(of, "path")), ..Attributes::default() }
        }
        (Some(_), Some(_)) => {
            let why = "cannot be specified in combination with resourceAttributes";
            causes.push(Cause::invalid(&path.child("nonResourceAttributes"), other.cloned().unwrap_or_default(), why));
            return Value::Null;
        }
        (None, None) => {
            let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            causes.push(Cause::invalid(&path.child("resourceAttributes"), Value::Null, why));
            return Value::Null;
        }
    };
    json!({"allowed": authorize(user, &attributes) == Decision::Allow})
}

fn subject(spec: &Value, causes: &mut Vec<Cause>) -> Value {
    let groups: Vec<String> = items(spec, "groups").iter().filter_map(Value::as_str).map(str::to_owned).collect();
    if text(spec, "user").is_empty() && groups.is_empty() {
        let why = "at least one of user or group must be specified";
        causes.push(Cause::invalid(&FieldPath::new("spec.user"), "", why));
    }
    // Exactly the groups that are asked about: who is authenticated is for the asker to say.
    let user = UserInfo { name: text(spec, "user").to_owned(), groups, ..UserInfo::default() };
    access(&user, spec, causes)
}

fn local(call: &Call, spec: &Value, causes: &mut Vec<Cause>) -> Result<Value, Status> {
    let namespace = spec.pointer("/resourceAttributes/namespace").and_then(Value::as_str).unwrap_or_default();
    if namespace != call.namespace {
        return Err(Status::bad_request(format!(
            "spec.resourceAttributes.namespace must match namespace: {}",
            call.namespace
        )));
    }
    if spec.get("nonResourceAttributes").is_some_and(Value::is_object) {
        let why = "disallowed on this kind of request";
        causes.push(Cause::invalid(&FieldPath::new("spec.nonResourceAttributes"), Value::Null, why));
    }
    Ok(subject(spec, causes))
}

fn rules(user: &UserInfo, spec: &Value, causes: &mut Vec<Cause>) -> Value {
    if text(spec, "namespace").is_empty() {
        causes.push(Cause::required(&FieldPath::new("spec.namespace"), "no namespace on request"));
    }
    if user.is_in(MASTERS) {
        return json!({"incomplete": false,
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]});
    }
    let reviews = json!([
        {"verbs": ["create"], "apiGroups": ["authorization.k8s.io"], "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"]},
        {"verbs": ["create"], "apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"]}]);
    let paths = json!([{"verbs": ["get"], "nonResourceURLs": ["/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz", "/version", "/version/"]}]);
    json!({"incomplete": true, "evaluationError": "the authorizer of system identities does not list its rules",
        "resourceRules": reviews, "nonResourceRules": paths})
}

/// `componentstatuses`: what `readyz` knows, under the names that clients expect.
fn components(call: &Call, verb: Verb) -> Result<Response, Status> {
    let gvk = Gvk::of("", "v1", "ComponentStatus");
    let component = |name: &str| {
        json!({"kind": "ComponentStatus", "apiVersion": "v1", "metadata": {"name": name},
            "conditions": [{"type": "Healthy", "status": "True", "message": "ok"}]})
    };
    let names = ["controller-manager", "etcd-0", "scheduler"];
    let response = match verb {
        Verb::Get if names.contains(&call.name.as_str()) => {
            render::value(call, StatusCode::OK, &gvk, &component(&call.name))?
        }
        Verb::Get => return Err(call.not_found()),
        _ if call.accept.shape == Shape::Table => {
            let printing = Printing::Builtin(printing::of(&gvk));
            let include = table::Include::parse(call.options.include_object.as_deref())?;
            let now = call.server.config.clock.now();
            let rows = names
                .iter()
                .map(|name| table::row(printing, &component(name), include, call.accept.meta, now))
                .collect();
            render::plain(&call.accept, StatusCode::OK, &table::document(printing, "", rows, true, call.accept.meta))
        }
        _ => {
            let items: Value = names.iter().map(|name| component(name)).collect();
            let list = json!({"kind": "ComponentStatusList", "apiVersion": "v1", "metadata": {}, "items": items});
            render::plain(&call.accept, StatusCode::OK, &list)
        }
    };
    Ok(response)
}
