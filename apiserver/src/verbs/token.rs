//! `serviceaccounts/token`: a token for a service account (KEP-1205; core/serviceaccount/storage `token.go`).

use super::{Call, Response, manage};
use crate::auth::tokens::ISSUER;
use crate::http::render;
use crate::http::request::Body;
use crate::registry::fields::{is_set, items, set, text};
use coracle_api::clock::rfc3339;
use coracle_api::json::{Value, json};
use coracle_api::status::FieldPath;
use coracle_api::{Cause, Gvk, Gvr, Status, meta};
use http::StatusCode;
use jiff::SignedDuration;

const REQUEST: Gvk = Gvk::of("authentication.k8s.io", "v1", "TokenRequest");

/// Seconds that a token lasts: when not said, at least, at most.
const DEFAULT: i64 = 3600;
const LEAST: i64 = 600;
const MOST: i64 = 1 << 32;

/// What volumes of pods ask for. Whoever reads such a token once is given a year, and is told of after this time
/// (serviceaccount `claims.go`, WarnOnlyBoundTokenExpirationPeriod and ExpirationExtensionSeconds).
const OF_VOLUMES: i64 = 3607;
const EXTENDED: i64 = 365 * 24 * 3600;

pub(super) async fn create(call: Call, body: Body) -> Result<Response, Status> {
    let (mut request, warnings) = body.of_kind(&REQUEST, call.options.field_validation)?;
    check_metadata(&call, &request)?;
    crate::admission::namespace_of_part(&call).await?;
    let account = call.current().await?.value;
    check_uid(&call, &request, &account)?;
    let spec = &mut request["spec"];
    if !spec.is_object() {
        *spec = json!({});
    }
    let seconds = spec.get("expirationSeconds").and_then(Value::as_i64).unwrap_or(DEFAULT);
    set(spec, "expirationSeconds", seconds);
    // The audience that the server chooses is nobody's.
    let managed_fields = manage::answered(&call, &request, &REQUEST);
    let spec = &mut request["spec"];
    if items(spec, "audiences").is_empty() {
        set(spec, "audiences", json!([ISSUER]));
    }
    let mut causes = Vec::new();
    let path = FieldPath::new("spec.expirationSeconds");
    if seconds < LEAST {
        causes.push(Cause::invalid(&path, seconds, "may not specify a duration less than 10 minutes"));
    } else if seconds > MOST {
        causes.push(Cause::invalid(&path, seconds, "may not specify a duration larger than 2^32 seconds"));
    }
    if !causes.is_empty() {
        return Err(Status::invalid(&REQUEST, "", causes));
    }
    let now = call.server.config.clock.now();
    let end = now.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(now);
    let claims = claims(&call, &account, &request["spec"], now.as_second(), seconds)?;
    let token = call.server.signer.sign(&claims)?;
    set(&mut request, "status", json!({"token": token, "expirationTimestamp": rfc3339(end)}));
    for (field, value) in [("name", call.name.as_str()), ("namespace", &call.namespace), ("uid", meta::uid(&account))] {
        meta::set(&mut request, field, value);
    }
    meta::set(&mut request, "creationTimestamp", rfc3339(now));
    if let Some(managed_fields) = managed_fields {
        meta::set(&mut request, "managedFields", managed_fields);
    }
    call.warn(warnings);
    render::value(&call, StatusCode::CREATED, &REQUEST, &request)
}

/// What the request says of the account must be the account in the path.
fn check_metadata(call: &Call, request: &Value) -> Result<(), Status> {
    let namespace = meta::namespace(request);
    if !namespace.is_empty() && namespace != call.namespace {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    let name = meta::name(request);
    if !name.is_empty() && name != call.name {
        let why = "must match the service account name if specified";
        let cause = Cause::invalid(&FieldPath::new("metadata.name"), name, why);
        return Err(Status::invalid(&REQUEST, &call.name, vec![cause]));
    }
    Ok(())
}

/// A token is asked for the account of one life (TokenRequestServiceAccountUIDValidation, on in v1.36).
fn check_uid(call: &Call, request: &Value, account: &Value) -> Result<(), Status> {
    let (asked, known) = (meta::uid(request), meta::uid(account));
    if asked.is_empty() || asked == known {
        return Ok(());
    }
    let why = format!("the UID in the token request ({asked}) does not match the UID of the service account ({known})");
    Err(Status::conflict(&Gvr::of("authentication.k8s.io", "v1", "TokenRequest"), &call.name, &why))
}

fn claims(call: &Call, account: &Value, spec: &Value, now: i64, seconds: i64) -> Result<Value, Status> {
    let mut own =
        json!({"namespace": call.namespace, "serviceaccount": {"name": call.name, "uid": meta::uid(account)}});
    if is_set(spec, "boundObjectRef") {
        bind(call, &spec["boundObjectRef"], &mut own)?;
    }
    let for_the_api = items(spec, "audiences").iter().all(|audience| audience == ISSUER);
    let mut end = now.saturating_add(seconds);
    if seconds == OF_VOLUMES && for_the_api && is_set(&own, "pod") {
        own["warnafter"] = end.into();
        end = now.saturating_add(EXTENDED);
    }
    Ok(json!({
        "iss": ISSUER, "sub": format!("system:serviceaccount:{}:{}", call.namespace, call.name), "aud": spec["audiences"],
        "iat": now, "nbf": now, "exp": end, "jti": call.server.config.names.uid(), "kubernetes.io": own,
    }))
}

/// Binds a token to an object: when that goes, the token is good for nothing.
fn bind(call: &Call, reference: &Value, own: &mut Value) -> Result<(), Status> {
    let (kind, name, uid) = (text(reference, "kind"), text(reference, "name"), text(reference, "uid"));
    let given = text(reference, "apiVersion");
    // Upstream looks at the group, and takes any version of it.
    let (group, version) = given.split_once('/').unwrap_or(("", given));
    let (plural, key) = match (group, kind) {
        ("", "Pod") => ("pods", format!("{}/{name}", call.namespace)),
        ("", "Secret") => ("secrets", format!("{}/{name}", call.namespace)),
        ("", "Node") => ("nodes", name.to_owned()),
        _ => {
            let asked = format!("{group}/{version}, Kind={kind}");
            return Err(Status::bad_request(format!("cannot bind token to object of type {asked}")));
        }
    };
    let find = |plural: &'static str, key: &str| {
        let snapshot = call.server.cache_of("", plural)?.snapshot();
        Ok::<_, Status>(snapshot.get(key).map(|object| object.parse()))
    };
    let gvr = Gvr::of("", "v1", plural);
    let object = find(plural, &key)?.ok_or_else(|| Status::not_found(&gvr, name))?;
    let account = text(&object["spec"], "serviceAccountName");
    if kind == "Pod" && account != call.name {
        return Err(Status::bad_request(format!(
            "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
            call.name
        )));
    }
    let found = meta::uid(&object);
    if !uid.is_empty() && uid != found {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(Status::conflict(&Gvr { resource: kind.to_owned().into(), ..gvr }, name, &why));
    }
    own[&kind.to_ascii_lowercase()] = json!({"name": name, "uid": found});
    let node = if kind == "Pod" { text(&object["spec"], "nodeName") } else { "" };
    if !node.is_empty() {
        own["node"] = json!({"name": node});
        if let Some(found) = find("nodes", node)? {
            own["node"]["uid"] = meta::uid(&found).into();
        }
    }
    Ok(())
}
