//! Acting as somebody else: the `Impersonate-` headers (apiserver `endpoints/filters/impersonation`; KEP-5284, on in v1.36).

use super::{AUTHENTICATED, Attributes, Decision, MASTERS, NODES, UNAUTHENTICATED, UserInfo, authorize, forbidden};
use crate::options::unescape;
use coracle_api::{Status, validation};
use http::HeaderMap;
use std::borrow::Cow;
use std::sync::Arc;

const PREFIX: &str = "impersonate-";
const USER: &str = "impersonate-user";
const UID: &str = "impersonate-uid";
const GROUP: &str = "impersonate-group";
const EXTRA: &str = "impersonate-extra-";

const AUTHENTICATION: &str = "authentication.k8s.io";

/// Whom a request is made as: the one that its headers name, if `user` may make this request in that one's name; None when they
/// name nobody.
///
/// # Errors
/// 400 for parts of an identity without a name, 403 for who may not.
pub fn acting(headers: &HeaderMap, user: &UserInfo, request: &Attributes) -> Result<Option<Arc<UserInfo>>, Status> {
    if !headers.keys().any(|name| name.as_str().starts_with(PREFIX)) {
        return Ok(None);
    }
    let Some(wanted) = wanted(headers)? else { return Ok(None) };
    // The finer rights are asked for first, and it is their refusal that is told.
    let found = match constrained(user, &wanted, request) {
        Some(Ok(found)) => found,
        Some(Err(status)) => whole(user, &wanted, None).map_err(|_| status)?,
        None => whole(user, &wanted, None)?,
    };
    tracing::debug!(user = user.name, acts_as = found.name, "impersonation");
    Ok(Some(Arc::new(found)))
}

/// The identity as the headers describe it.
fn wanted(headers: &HeaderMap) -> Result<Option<UserInfo>, Status> {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let first = |name: &str| headers.get(name).map(text).unwrap_or_default();
    let mut wanted = UserInfo {
        name: first(USER),
        uid: first(UID),
        groups: headers.get_all(GROUP).iter().map(text).collect(),
        ..UserInfo::default()
    };
    for (name, value) in headers {
        if let Some(key) = name.as_str().strip_prefix(EXTRA) {
            wanted.extra.entry(unescape(key, false)).or_default().push(text(value));
        }
    }
    if !wanted.name.is_empty() {
        return Ok(Some(wanted));
    }
    if only_a_name(&wanted) {
        return Ok(None);
    }
    let why = format!("requested {} without impersonating a user name", as_go_shows(&wanted));
    Err(Status::bad_request(why))
}

fn only_a_name(user: &UserInfo) -> bool {
    user.uid.is_empty() && user.groups.is_empty() && user.extra.is_empty()
}

/// As `%#v` shows the structure.
fn as_go_shows(user: &UserInfo) -> String {
    let list = |values: &[String]| {
        let values: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
        format!("[]string{{{}}}", values.join(", "))
    };
    let groups = if user.groups.is_empty() { "[]string(nil)".to_owned() } else { list(&user.groups) };
    let extra: Vec<String> = user.extra.iter().map(|(key, values)| format!("{key:?}:{}", list(values))).collect();
    let extra = if extra.is_empty() { "(nil)".to_owned() } else { format!("{{{}}}", extra.join(", ")) };
    format!(
        "&user.DefaultInfo{{Name:{:?}, UID:{:?}, Groups:{groups}, Extra:map[string][]string{extra}}}",
        user.name, user.uid
    )
}

/// By the right to make this very request as somebody of that sort; None for whom there is no such right.
fn constrained(user: &UserInfo, wanted: &UserInfo, request: &Attributes) -> Option<Result<UserInfo, Status>> {
    let is_special = node(&wanted.name).is_some() || service_account(&wanted.name).is_some();
    let mode = match (is_special, only_a_name(wanted)) {
        (true, false) => return None,
        (false, _) => "user-info",
        (true, true) if node(&wanted.name).is_some() => "arbitrary-node",
        (true, true) => "serviceaccount",
    };
    let verb = format!("impersonate-on:{mode}:{}", request.verb);
    let on = Attributes { verb: &verb, ..request.clone() };
    Some(check(user, &on).and_then(|()| whole(user, wanted, Some(mode))))
}

/// By the rights to be each part of that identity; in the mode of a constrained impersonation, or as ever.
fn whole(user: &UserInfo, wanted: &UserInfo, mode: Option<&str>) -> Result<UserInfo, Status> {
    let verb: Cow<'_, str> = mode.map_or("impersonate".into(), |mode| format!("impersonate:{mode}").into());
    let group = if mode.is_some() { AUTHENTICATION } else { "" };
    let part =
        |resource, name| Attributes { verb: &verb, group, version: "v1", resource, name, ..Attributes::default() };
    let mut found = wanted.clone();
    let name = match (node(&wanted.name), service_account(&wanted.name)) {
        (Some(name), _) if mode.is_some() => {
            found.groups = vec![NODES.to_owned()];
            part("nodes", name)
        }
        (_, Some((namespace, name))) => {
            if wanted.groups.is_empty() {
                found.groups = vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
            }
            Attributes { namespace, ..part("serviceaccounts", name) }
        }
        _ => part("users", &wanted.name),
    };
    check(user, &name)?;
    if !wanted.uid.is_empty() {
        check(user, &Attributes { group: AUTHENTICATION, ..part("uids", &wanted.uid) })?;
    }
    for name in &wanted.groups {
        let asked = part("groups", name);
        if mode.is_some() && (name.is_empty() || name == MASTERS) {
            return Err(forbidden(user, &asked));
        }
        check(user, &asked)?;
    }
    for (key, values) in &wanted.extra {
        for value in values {
            let asked = Attributes { group: AUTHENTICATION, subresource: key, ..part("userextras", value) };
            check(user, &asked)?;
        }
    }
    let is_in = |group: &str| found.groups.iter().any(|known| known == group);
    let missing = match found.name.as_str() {
        "system:anonymous" => Some(UNAUTHENTICATED).filter(|group| !is_in(group)),
        _ => Some(AUTHENTICATED).filter(|group| !is_in(group) && !is_in(UNAUTHENTICATED)),
    };
    found.groups.extend(missing.map(str::to_owned));
    Ok(found)
}

fn check(user: &UserInfo, asked: &Attributes) -> Result<(), Status> {
    if authorize(user, asked) == Decision::Allow { Ok(()) } else { Err(forbidden(user, asked)) }
}

/// The node whose kubelet has this name.
fn node(name: &str) -> Option<&str> {
    name.strip_prefix("system:node:").filter(|node| validation::dns1123_subdomain(node).is_empty())
}

/// Namespace and name of the service account that has this name.
fn service_account(name: &str) -> Option<(&str, &str)> {
    let (namespace, name) = name.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    let valid = validation::dns1123_label(namespace).is_empty() && validation::dns1123_subdomain(name).is_empty();
    valid.then_some((namespace, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn act(user: &UserInfo, headers: &[(&'static str, &str)]) -> Result<Option<Arc<UserInfo>>, Status> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let request =
            Attributes { verb: "list", version: "v1", resource: "pods", namespace: "a", ..Attributes::default() };
        acting(&map, user, &request)
    }

    #[test]
    fn groups_follow_from_names() {
        let admin = UserInfo::admin();
        for (headers, groups) in [
            (&[("impersonate-user", "jane")][..], &["system:authenticated"][..]),
            (&[("impersonate-user", "jane"), ("impersonate-group", "a")], &["a", "system:authenticated"]),
            (
                &[("impersonate-user", "jane"), ("impersonate-group", "system:unauthenticated")],
                &["system:unauthenticated"],
            ),
            (&[("impersonate-user", "jane"), ("impersonate-group", MASTERS)], &[MASTERS, "system:authenticated"]),
            (&[("impersonate-user", "system:anonymous")], &["system:unauthenticated"]),
            (&[("impersonate-user", "system:node:n1")], &["system:nodes", "system:authenticated"]),
            (&[("impersonate-user", "system:node:n1"), ("impersonate-uid", "u")], &["system:authenticated"]),
            (
                &[("impersonate-user", "system:serviceaccount:a:b")],
                &["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"],
            ),
            (&[("impersonate-user", "system:serviceaccount:a:b:c")], &["system:authenticated"]),
        ] {
            assert_eq!(act(&admin, headers).unwrap().unwrap().groups, groups, "{headers:?}");
        }
        assert_eq!(act(&admin, &[("user-agent", "x")]), Ok(None));
        let extra = [("impersonate-user", "jane"), ("impersonate-extra-acme.com%2fscopes", "a")];
        assert_eq!(act(&admin, &extra).unwrap().unwrap().extra["acme.com/scopes"], ["a"]);
    }

    #[test]
    fn who_may_not_is_told_what() {
        let manager = UserInfo::new("system:kube-controller-manager", &[]);
        for (headers, message) in [
            (
                &[("impersonate-user", "jane")][..],
                r#"pods is forbidden: User "system:kube-controller-manager" cannot impersonate-on:user-info:list resource "pods" in API group "" in the namespace "a""#,
            ),
            (
                &[("impersonate-user", "system:serviceaccount:a:b"), ("impersonate-group", "g")],
                r#"serviceaccounts "b" is forbidden: User "system:kube-controller-manager" cannot impersonate resource "serviceaccounts" in API group "" in the namespace "a""#,
            ),
        ] {
            let status = act(&manager, headers).unwrap_err();
            assert_eq!((status.code, status.message.as_str()), (403, message));
        }
    }
}
