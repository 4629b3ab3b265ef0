//! Authorization: an allow-list of system identities. Everything else is refused.

use super::{AUTHENTICATED, BOOTSTRAPPERS, MASTERS, NODES, UserInfo};
use coracle_api::{Gvr, Status};

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Attributes<'a> {
    pub verb: &'a str,
    pub group: &'a str,
    pub version: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    /// The path, when it is no resource.
    pub path: Option<&'a str>,
}

impl Attributes<'_> {
    fn is_read(&self) -> bool {
        matches!(self.verb, "get" | "list" | "watch")
    }
}

/// The answer of the stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow,
    Deny,
}

/// Paths that anybody may read (upstream's `system:public-info-viewer`, and the certificate authority, which is
/// no secret and which a joining node needs before it can trust anybody).
const PUBLIC: [&str; 8] =
    ["/healthz", "/livez", "/readyz", "/version", "/version/", "/cacerts", "/healthz/", "/livez/"];

/// What of the server only those see who watch over it (upstream's `system:monitoring`).
const MONITORING: [&str; 3] = ["/metrics", "/statusz", "/flagz"];

/// What only its administrators see.
const DEBUGGING: &str = "/debug/";

/// Decides one request.
pub fn authorize(user: &UserInfo, request: &Attributes) -> Decision {
    let allowed = if user.is_in(MASTERS) {
        true
    } else if request.verb.starts_with("impersonate") {
        // Who may be anybody may do everything.
        false
    } else if let Some(path) = request.path {
        let public = PUBLIC.contains(&path)
            || ["/healthz/", "/livez/", "/readyz/"].iter().any(|prefix| path.starts_with(prefix));
        // Discovery: upstream's `system:discovery`.
        let is_apart = MONITORING.contains(&path) || path.starts_with(DEBUGGING);
        request.is_read() && (public || user.is_in(AUTHENTICATED) && !is_apart)
    } else if asks_about_itself(request) && user.is_in(AUTHENTICATED) {
        true
    } else {
        match user.name.as_str() {
            // These two write nearly everything, each in its own place; the finer rules are those of RBAC.
            "system:kube-controller-manager" => request.verb != "unsafe-delete-ignore-read-errors",
            "system:kube-scheduler" => scheduler(request),
            _ if user.is_in(NODES) && user.name.starts_with("system:node:") => node(request),
            _ if user.is_in(BOOTSTRAPPERS) => bootstrapper(request),
            _ => false,
        }
    };
    if allowed { Decision::Allow } else { Decision::Deny }
}

/// 403, saying who may not do what (apiserver `endpoints/handlers/responsewriters`).
pub fn forbidden(user: &UserInfo, request: &Attributes) -> Status {
    let gvr = Gvr { group: request.group.into(), version: request.version.into(), resource: request.resource.into() };
    if let Some(path) = request.path {
        let why = format!("User {:?} cannot {} path {path:?}", user.name, request.verb);
        return Status::forbidden(&Gvr::of("", "", ""), "", &why);
    }
    let resource = if request.subresource.is_empty() {
        request.resource.to_owned()
    } else {
        format!("{}/{}", request.resource, request.subresource)
    };
    let scope = if request.namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace {:?}", request.namespace)
    };
    let why = format!(
        "User {:?} cannot {} resource {resource:?} in API group {:?} {scope}",
        user.name, request.verb, request.group
    );
    Status::forbidden(&gvr, request.name, &why)
}

/// Questions about oneself: upstream's `system:basic-user`.
fn asks_about_itself(request: &Attributes) -> bool {
    let own = match request.group {
        "authorization.k8s.io" => ["selfsubjectaccessreviews", "selfsubjectrulesreviews"].contains(&request.resource),
        "authentication.k8s.io" => request.resource == "selfsubjectreviews",
        _ => false,
    };
    own && request.verb == "create"
}

/// The scheduler reads everything, binds pods, writes their status, events and its lease.
fn scheduler(request: &Attributes) -> bool {
    if request.is_read() {
        return request.resource != "secrets";
    }
    match (request.group, request.resource, request.subresource) {
        ("", "pods", "binding" | "status") | ("", "bindings", "") => true,
        ("", "pods", "") => request.verb == "delete",
        ("", "events", _) | ("events.k8s.io", "events", _) => matches!(request.verb, "create" | "patch" | "update"),
        ("coordination.k8s.io", "leases", _) => true,
        ("", "persistentvolumeclaims" | "persistentvolumes", _) => matches!(request.verb, "patch" | "update"),
        ("authorization.k8s.io" | "authentication.k8s.io", ..) => request.verb == "create",
        _ => false,
    }
}

/// A kubelet and the node's network agent (upstream's `system:node` and `system:node-proxier`).
fn node(request: &Attributes) -> bool {
    let writes = |verbs: &[&str]| verbs.contains(&request.verb);
    match (request.group, request.resource, request.subresource) {
        ("", "nodes", "") => request.is_read() || writes(&["create", "update", "patch", "delete"]),
        ("", "nodes", "status") => writes(&["get", "update", "patch"]),
        ("", "pods", "") => request.is_read() || writes(&["create", "delete"]),
        ("", "pods", "status") => writes(&["get", "update", "patch"]),
        ("", "pods", "eviction") => writes(&["create"]),
        ("", "configmaps" | "secrets" | "services" | "endpoints" | "namespaces" | "serviceaccounts", "") => {
            request.is_read()
        }
        ("", "persistentvolumeclaims" | "persistentvolumes", _) => request.is_read(),
        ("", "serviceaccounts", "token") => writes(&["create"]),
        ("", "events", _) | ("events.k8s.io", "events", _) => writes(&["create", "update", "patch"]),
        ("coordination.k8s.io", "leases", _) => {
            request.namespace == "kube-node-lease" && writes(&["get", "create", "update", "patch", "delete"])
        }
        ("certificates.k8s.io", "certificatesigningrequests", "") => request.is_read() || writes(&["create"]),
        ("discovery.k8s.io", "endpointslices", _) | ("node.k8s.io", "runtimeclasses", _) => request.is_read(),
        ("networking.k8s.io", "networkpolicies" | "servicecidrs", _) => request.is_read(),
        ("storage.k8s.io", "csinodes", _) => true,
        ("storage.k8s.io", ..) => request.is_read(),
        ("authorization.k8s.io" | "authentication.k8s.io", ..) => writes(&["create"]),
        _ => false,
    }
}

/// A joining node asks for its certificate and waits for it (upstream's `system:node-bootstrapper`).
fn bootstrapper(request: &Attributes) -> bool {
    (request.group, request.resource, request.subresource) == ("certificates.k8s.io", "certificatesigningrequests", "")
        && matches!(request.verb, "create" | "get" | "list" | "watch")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_allow_list() {
        let node_user = UserInfo::new("system:node:n1", &[NODES]);
        let boot = UserInfo::new("system:bootstrap:abcdef", &[BOOTSTRAPPERS]);
        let scheduler = UserInfo::new("system:kube-scheduler", &[]);
        let nobody = UserInfo::new("jane", &[]);
        let anonymous = UserInfo::anonymous();
        let resource = |verb, group, resource, subresource| Attributes {
            verb,
            group,
            resource,
            subresource,
            ..Attributes::default()
        };
        let path = |path| Attributes { verb: "get", path: Some(path), ..Attributes::default() };
        let rows = [
            (&UserInfo::admin(), resource("delete", "apps", "deployments", ""), true),
            (&node_user, resource("update", "", "nodes", "status"), true),
            (&node_user, resource("update", "apps", "deployments", ""), false),
            (&node_user, resource("create", "", "secrets", ""), false),
            (&scheduler, resource("create", "", "pods", "binding"), true),
            (&scheduler, resource("list", "", "secrets", ""), false),
            (&boot, resource("create", "certificates.k8s.io", "certificatesigningrequests", ""), true),
            (&boot, resource("update", "certificates.k8s.io", "certificatesigningrequests", "approval"), false),
            (&boot, resource("list", "", "secrets", ""), false),
            (&nobody, resource("list", "", "pods", ""), false),
            (&nobody, path("/apis"), true),
            (&anonymous, path("/apis"), false),
            (&anonymous, path("/cacerts"), true),
            (&anonymous, path("/readyz"), true),
            (&anonymous, path("/metrics"), false),
            (&nobody, path("/statusz"), false),
            (&nobody, path("/flagz"), false),
        ];
        for (user, request, allowed) in rows {
            assert_eq!(authorize(user, &request) == Decision::Allow, allowed, "{} {request:?}", user.name);
        }
    }
}
