//! A request's path and body.

use super::protobuf;
use crate::options::unescape;
use crate::verbs::Call;
use bytes::Bytes;
use coracle_api::decode::{self, Decoded, FieldValidation};
use coracle_api::json::Value;
use coracle_api::schema::TypeRef;
use coracle_api::status::FieldPath;
use coracle_api::{Cause, Gvk, Status, meta, schema};
use http::{HeaderMap, header};
use http_body_util::{BodyExt, Limited};

/// The largest body (apiserver `MaxRequestBodyBytes`).
pub const MAX_BODY: usize = 3 << 20;

/// What bodies can be written in.
const TAKEN: [&str; 3] = ["application/json", "application/yaml", protobuf::MEDIA_TYPE];

/// The subresource whose path goes on.
const PROXY: &str = "proxy";

/// What a path names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub resource: String,
    pub name: String,
    pub subresource: String,
    /// By the path of old: `/api/v1/watch/pods`.
    pub watch: bool,
    /// What comes behind `proxy`, as it was sent; None when nothing does.
    pub subpath: Option<String>,
}

impl Target {
    /// The resource that a path names; None for every other path (apiserver `endpoints/request`, RequestInfo).
    pub fn parse(path: &str) -> Option<Self> {
        let parts: Vec<String> = path.trim_matches('/').split('/').map(|part| unescape(part, false)).collect();
        let whole = parts.len();
        let mut parts = parts.into_iter();
        let mut target = Self::default();
        match parts.next()?.as_str() {
            "api" => target.version = parts.next()?,
            "apis" => {
                target.group = parts.next()?;
                target.version = parts.next()?;
            }
            _ => return None,
        }
        let rest: Vec<String> = parts.collect();
        let mut rest = rest.as_slice();
        // Also the old way of asking for a watch.
        if let [first, tail @ ..] = rest
            && first == "watch"
            && !tail.is_empty()
        {
            target.watch = true;
            rest = tail;
        }
        if let [first, namespace, tail @ ..] = rest
            && first == "namespaces"
            && !tail.is_empty()
            // `namespaces/x/status` is about the namespace itself.
            && !matches!(tail[0].as_str(), "status" | "finalize")
        {
            target.namespace.clone_from(namespace);
            rest = tail;
        }
        match rest {
            [resource] => target.resource.clone_from(resource),
            [resource, name] => {
                target.resource.clone_from(resource);
                target.name.clone_from(name);
            }
            [resource, name, subresource] => {
                target.resource.clone_from(resource);
                target.name.clone_from(name);
                target.subresource.clone_from(subresource);
            }
            // Of what is proxied, the rest of the path is the other side's.
            [resource, name, subresource, ..] if subresource == PROXY => {
                target.resource.clone_from(resource);
                target.name.clone_from(name);
                target.subresource.clone_from(subresource);
            }
            _ => return None,
        }
        if target.resource == "namespaces" && !target.name.is_empty() {
            target.namespace.clone_from(&target.name);
        }
        if target.is_proxy() {
            let before = whole - rest.len() + 3;
            target.subpath = behind(path, before).map(str::to_owned);
        }
        (!target.resource.is_empty()).then_some(target)
    }

    /// Whether it is about what an object stands for.
    pub fn is_proxy(&self) -> bool {
        self.subresource == PROXY
    }
}

/// What comes behind the nth part of a path, with its slash; None when nothing does.
fn behind(path: &str, parts: usize) -> Option<&str> {
    let start = path.len() - path.trim_start_matches('/').len();
    let slashes = path[start..].match_indices('/');
    slashes.map(|(at, _)| start + at).nth(parts - 1).map(|at| &path[at..])
}

/// A body that has been read.
#[derive(Clone, Debug, Default)]
pub struct Body {
    pub bytes: Bytes,
    /// Without parameters; empty when there is none.
    pub content_type: String,
}

impl Body {
    /// Reads a body to its end, within the limit.
    ///
    /// # Errors
    /// 413 for one that is too large, 400 for one that breaks off.
    pub async fn read(headers: &HeaderMap, body: axum::body::Body) -> Result<Self, Status> {
        let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let content_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let bytes = match Limited::new(body, MAX_BODY).collect().await {
            Ok(collected) => collected.to_bytes(),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                return Err(Status::too_large(&format!("limit is {MAX_BODY}")));
            }
            Err(error) => return Err(Status::bad_request(format!("reading the body: {error}"))),
        };
        Ok(Self { bytes, content_type })
    }

    fn format(&self) -> Result<decode::Format, Status> {
        match self.content_type.as_str() {
            "" | "application/json" => Ok(decode::Format::Json),
            "application/yaml" => Ok(decode::Format::Yaml),
            _ => Err(Status::unsupported_media_type(&TAKEN)),
        }
    }

    /// The body as an object of the call's resource. The client is told of what reading it found.
    ///
    /// # Errors
    /// 400 and 415 for what is no such object.
    pub fn object(&self, call: &Call) -> Result<Value, Status> {
        self.object_and_empty(call).map(|(object, _)| object)
    }

    /// The same, and what was given as empty and is null ([`decode::Decoded::empty`]).
    ///
    /// # Errors
    /// As [`Body::object`].
    pub fn object_and_empty(&self, call: &Call) -> Result<(Value, Vec<Vec<String>>), Status> {
        let row = call.row();
        if row.strategy.custom().is_some() && self.content_type == protobuf::MEDIA_TYPE {
            // The list names what servers read of any resource.
            return Err(Status::unsupported_media_type(&TAKEN));
        }
        let ty = row.reading_type(call.resolved.served)?;
        if row.strategy.custom().is_none() {
            let decoded = self.of_type(&call.gvk(), ty, call.options.field_validation)?;
            call.warn(decoded.warnings);
            return Ok((decoded.object, decoded.empty));
        }
        // What reading and measuring find is told together, so neither may stop the other.
        let validation = match call.options.field_validation {
            FieldValidation::Strict => FieldValidation::Warn,
            other => other,
        };
        let decoded = decode::decode(&self.bytes, self.format()?, ty, validation)?;
        let mut object = decoded.object;
        self.check_custom_kind(&object, &call.gvk())?;
        let (mut found, unknown): (Vec<_>, Vec<_>) =
            decoded.warnings.into_iter().partition(|warning| warning.starts_with("duplicate "));
        found.extend(unknown);
        call.warn(drop_unknown(call, &mut object, found)?);
        Ok((object, Vec::new()))
    }

    /// A custom resource must say what it is: its kind tells the server nothing by itself (apiextensions
    /// `customresource_handler.go`, `crdConversionRESTOptionsGetter` and `registry/customresource/validator.go`).
    fn check_custom_kind(&self, object: &Value, gvk: &Gvk) -> Result<(), Status> {
        let (version, kind, expected) = (meta::api_version(object), meta::kind(object), gvk.api_version());
        if kind.is_empty() {
            let text = String::from_utf8_lossy(&self.bytes);
            let why = format!("Object 'Kind' is missing in '{}'", text.trim_end_matches('\n'));
            return Err(Status::bad_request(decode::unrecognized(&gvk.kind, &why, &self.bytes)));
        }
        if version.matches('/').count() > 1 {
            let why = format!("unexpected GroupVersion string: {version}");
            return Err(Status::bad_request(decode::unrecognized(&gvk.kind, &why, &self.bytes)));
        }
        if version != expected {
            return Err(Status::bad_request(format!(
                "the API version in the data ({version}) does not match the expected API version ({expected})"
            )));
        }
        if kind != &*gvk.kind {
            let cause = Cause::invalid(&FieldPath::new("kind"), kind, format!("must be {}", gvk.kind));
            let given = Gvk { kind: kind.into(), ..gvk.clone() };
            return Err(Status::invalid(&given, meta::name(object), vec![cause]));
        }
        Ok(())
    }

    /// The body as an object of one kind.
    ///
    /// # Errors
    /// As [`Body::object`].
    pub fn of_kind(&self, gvk: &Gvk, validation: FieldValidation) -> Result<(Value, Vec<String>), Status> {
        let type_ref = schema::of(gvk).ok_or_else(|| Status::internal(format!("no schema for {gvk}")))?;
        self.of_type(gvk, type_ref, validation).map(|decoded| (decoded.object, decoded.warnings))
    }

    /// The same, where the kind is also written in an older group and version that differs in nothing else.
    ///
    /// # Errors
    /// As [`Body::object`].
    pub fn of_kind_or(
        &self,
        gvk: &Gvk,
        older: &str,
        validation: FieldValidation,
    ) -> Result<(Value, Vec<String>), Status> {
        let type_ref = schema::of(gvk).ok_or_else(|| Status::internal(format!("no schema for {gvk}")))?;
        let Decoded { mut object, warnings, .. } = self.decode(gvk, type_ref, validation)?;
        if meta::api_version(&object) == older
            && let Some(map) = object.as_object_mut()
        {
            map.insert("apiVersion", gvk.api_version().into());
        }
        check_kind(&mut object, gvk)?;
        Ok((object, warnings))
    }

    fn of_type(&self, gvk: &Gvk, type_ref: TypeRef<'_>, validation: FieldValidation) -> Result<Decoded, Status> {
        let mut decoded = self.decode(gvk, type_ref, validation)?;
        check_kind(&mut decoded.object, gvk)?;
        Ok(decoded)
    }

    fn decode(&self, gvk: &Gvk, type_ref: TypeRef<'_>, validation: FieldValidation) -> Result<Decoded, Status> {
        if self.content_type == protobuf::MEDIA_TYPE {
            decode::check(protobuf::decode(&self.bytes, gvk)?, type_ref, validation)
        } else {
            decode::decode(&self.bytes, self.format()?, type_ref, validation)
        }
    }

    /// The body as metav1.DeleteOptions, which clients send under any group and version.
    ///
    /// # Errors
    /// 400 when it is none.
    pub fn delete_options(&self) -> Result<Value, Status> {
        if self.bytes.is_empty() {
            return Ok(Value::Null);
        }
        let options = Gvk::of("", "v1", "DeleteOptions");
        if self.content_type == protobuf::MEDIA_TYPE {
            return protobuf::decode(&self.bytes, &options);
        }
        let type_ref = schema::of(&options).ok_or_else(|| Status::internal("no schema for DeleteOptions"))?;
        let value = decode::decode(&self.bytes, self.format()?, type_ref, FieldValidation::Ignore)?.object;
        match meta::kind(&value) {
            "" | "DeleteOptions" => Ok(value),
            other => Err(Status::bad_request(format!("decoded object cannot be converted to DeleteOptions: {other}"))),
        }
    }
}

/// Drops what the schema of a custom resource does not name, and tells of it.
pub fn unknown_fields(call: &Call, object: &mut Value) -> Vec<String> {
    let mut unknown = call.row().strategy.custom().map(|custom| custom.prune(object)).unwrap_or_default();
    unknown.sort();
    unknown.into_iter().map(|path| format!("unknown field \"{path}\"")).collect()
}

/// Drops what the schema of a custom resource does not name, and gives the warnings about it behind what was `found` before.
/// Its documents are read before they are measured against the schema, because their wrong types are invalid values, not
/// unreadable ones.
///
/// # Errors
/// 400 when fields are validated strictly.
pub fn drop_unknown(call: &Call, object: &mut Value, mut found: Vec<String>) -> Result<Vec<String>, Status> {
    found.extend(unknown_fields(call, object));
    match call.options.field_validation {
        FieldValidation::Ignore => Ok(Vec::new()),
        FieldValidation::Strict if !found.is_empty() => {
            let Gvk { version, kind, .. } = call.gvk();
            Err(Status::bad_request(format!(
                "{kind} in version \"{version}\" cannot be handled as a {kind}: strict decoding error: {}",
                found.join(", ")
            )))
        }
        _ => Ok(found),
    }
}

/// The kind must be the expected one; it is filled in when absent.
fn check_kind(object: &mut Value, gvk: &Gvk) -> Result<(), Status> {
    let expected = gvk.api_version();
    let (version, kind) = (meta::api_version(object).to_owned(), meta::kind(object).to_owned());
    let other = Gvk::parse(&version, &kind).filter(|_| kind != *gvk.kind && version != expected);
    if let Some(other) = other.filter(|other| !kind.is_empty() && schema::of(other).is_some()) {
        return Err(no_conversion(&other, gvk));
    }
    if !version.is_empty() && version != expected {
        return Err(Status::bad_request(format!(
            "the API version in the data ({version}) does not match the expected API version ({expected})"
        )));
    }
    if !kind.is_empty() && kind != *gvk.kind {
        return Err(no_conversion(&Gvk { kind: kind.into(), ..gvk.clone() }, gvk));
    }
    if let Some(map) = object.as_object_mut() {
        map.insert("kind", gvk.kind.to_string().into());
        map.insert("apiVersion", expected.into());
        return Ok(());
    }
    Err(Status::bad_request("the body is not an object"))
}

/// 400: one kind stands where another is expected, each by the name of its type in Go.
fn no_conversion(given: &Gvk, expected: &Gvk) -> Status {
    let package = match expected.group.split('.').next().unwrap_or_default() {
        "" | "events" => "core",
        first => first,
    };
    Status::bad_request(format!(
        "{} in version {:?} cannot be handled as a {}: converting ({}.{}) to ({package}.{}): unknown conversion",
        given.kind, &*given.version, expected.kind, given.version, given.kind, expected.kind
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(
        group: &str,
        version: &str,
        namespace: &str,
        resource: &str,
        name: &str,
        subresource: &str,
    ) -> Option<Target> {
        let own = str::to_owned;
        Some(Target {
            group: own(group),
            version: own(version),
            namespace: own(namespace),
            resource: own(resource),
            name: own(name),
            subresource: own(subresource),
            watch: false,
            subpath: None,
        })
    }

    #[test]
    fn paths() {
        let rows = [
            ("/api/v1/nodes", target("", "v1", "", "nodes", "", "")),
            ("/api/v1/namespaces", target("", "v1", "", "namespaces", "", "")),
            ("/api/v1/namespaces/a", target("", "v1", "a", "namespaces", "a", "")),
            ("/api/v1/namespaces/a/status", target("", "v1", "a", "namespaces", "a", "status")),
            ("/api/v1/namespaces/a/pods", target("", "v1", "a", "pods", "", "")),
            ("/apis/apps/v1/namespaces/a/deployments/b/scale", target("apps", "v1", "a", "deployments", "b", "scale")),
            (
                "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
                target("rbac.authorization.k8s.io", "v1", "", "clusterroles", "system:node", ""),
            ),
            (
                "/api/v1/watch/namespaces/a/pods",
                target("", "v1", "a", "pods", "", "").map(|target| Target { watch: true, ..target }),
            ),
            ("/api/v1", None),
            ("/apis/apps", None),
            ("/apis/apps/v1/", None),
            ("/healthz", None),
            ("/api/v1/a/b/c/d", None),
            ("", None),
        ];
        for (path, expected) in rows {
            assert_eq!(Target::parse(path), expected, "{path}");
        }
    }
}
