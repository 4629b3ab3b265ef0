//! Acting as somebody else: the `Impersonate-` headers (apiserver `endpoints/filters/impersonation`; KEP-5284, on in v1.36).

use super::{AUTHENTICATED, Attributes, Decision, MASTERS, NODES, UNAUTHENTICATED, UserInfo, authorize, forbidden};
use crate::options::unescape;
use crate::registry::fields::domain_prefixed_path;
use coracle_api::status::{FieldPath, aggregate};
use coracle_api::{Cause, Status, validation};
use http::HeaderMap;
use std::borrow::Cow;
use std::sync::Arc;

const PREFIX: &str = "impersonate-";
const USER: &str = "impersonate-user";
const UID: &str = "impersonate-uid";
const GROUP: &str = "impersonate-group";
const EXTRA: &str = "impersonate-extra-";

const AUTHENTICATION: &str = "authentication.k8s.io";

/// The node that a service account's token is bound to, through its pod.
const NODE_OF_TOKEN: &str = "authentication.kubernetes.io/node-name";

/// From so many on, the right to be all of them is asked for before that to be each.
const MANY: usize = 4;

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
    // The finer rights are asked for first, and it is the first refusal that is told.
    let mut refusal = None;
    let modes = Mode::FINE.into_iter().filter(|mode| mode.is_for(user, &wanted)).map(Some).chain([None]);
    for mode in modes {
        let found = match mode {
            Some(mode) => constrained(user, &wanted, mode, request),
            None => whole(user, &wanted, None),
        };
        match found {
            Ok(found) => {
                tracing::debug!(user = user.name, acts_as = found.name, "impersonation");
                return Ok(Some(Arc::new(found)));
            }
            Err(status) => _ = refusal.get_or_insert(status),
        }
    }
    Err(refusal.unwrap_or_else(|| Status::internal("all impersonation modes failed")))
}

/// A right to be somebody of a sort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// The node that the one who asks runs on.
    AssociatedNode,
    ArbitraryNode,
    ServiceAccount,
    UserInfo,
}

impl Mode {
    /// In the order in which they are tried.
    const FINE: [Self; 4] = [Self::AssociatedNode, Self::ArbitraryNode, Self::ServiceAccount, Self::UserInfo];

    /// As verbs say it.
    fn word(self) -> &'static str {
        match self {
            Self::AssociatedNode => "associated-node",
            Self::ArbitraryNode => "arbitrary-node",
            Self::ServiceAccount => "serviceaccount",
            Self::UserInfo => "user-info",
        }
    }

    /// Whether somebody can be had by this right at all. Of nodes and service accounts nothing but the name can be chosen.
    fn is_for(self, user: &UserInfo, wanted: &UserInfo) -> bool {
        let (node, account) = (node(&wanted.name), service_account(&wanted.name));
        match self {
            Self::AssociatedNode => {
                let bound = user.extra.get(NODE_OF_TOKEN).map(Vec::as_slice);
                let is_its = matches!((bound, node), (Some([bound]), Some(node)) if bound == node);
                is_its && service_account(&user.name).is_some() && only_a_name(wanted)
            }
            Self::ArbitraryNode => node.is_some() && only_a_name(wanted),
            Self::ServiceAccount => account.is_some() && only_a_name(wanted),
            Self::UserInfo => node.is_none() && account.is_none(),
        }
    }
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

/// By the right to make this very request as somebody of that sort.
fn constrained(user: &UserInfo, wanted: &UserInfo, mode: Mode, request: &Attributes) -> Result<UserInfo, Status> {
    let verb = format!("impersonate-on:{}:{}", mode.word(), request.verb);
    check(user, &Attributes { verb: &verb, ..request.clone() })?;
    whole(user, wanted, Some(mode))
}

/// By the rights to be each part of that identity; in the mode of a constrained impersonation, or as ever.
fn whole(user: &UserInfo, wanted: &UserInfo, mode: Option<Mode>) -> Result<UserInfo, Status> {
    let verb: Cow<'_, str> = mode.map_or("impersonate".into(), |mode| format!("impersonate:{}", mode.word()).into());
    let group = if mode.is_some() { AUTHENTICATION } else { "" };
    let part =
        |resource, name| Attributes { verb: &verb, group, version: "v1", resource, name, ..Attributes::default() };
    let mut found = wanted.clone();
    let name = match (node(&wanted.name), service_account(&wanted.name)) {
        (Some(name), _) if mode.is_some() => {
            found.groups = vec![NODES.to_owned()];
            // Which node that is was seen to: the right is one to be whichever it is.
            part("nodes", if mode == Some(Mode::AssociatedNode) { "*" } else { name })
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
    let is_any = |many: bool, asked: &Attributes| many && mode.is_some() && authorize(user, asked) == Decision::Allow;
    if mode.is_some() {
        check_groups(user, wanted, &part("groups", ""))?;
    }
    if !is_any(wanted.groups.len() >= MANY, &part("groups", "*")) {
        wanted.groups.iter().try_for_each(|name| check(user, &part("groups", name)))?;
    }
    let extra = |key, value| Attributes { group: AUTHENTICATION, subresource: key, ..part("userextras", value) };
    if mode.is_some() {
        check_extra(user, wanted, &extra("", ""))?;
    }
    let values = wanted.extra.values().map(Vec::len).sum::<usize>();
    if !is_any(values.max(wanted.extra.len()) >= MANY, &extra("*", "*")) {
        for (key, values) in &wanted.extra {
            values.iter().try_for_each(|value| check(user, &extra(key, value)))?;
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

/// Refuses groups that nobody is in by a constrained impersonation, whatever rights they have (`mode.go`, authorizeGroups).
fn check_groups(user: &UserInfo, wanted: &UserInfo, asked: &Attributes) -> Result<(), Status> {
    if wanted.groups.iter().any(String::is_empty) {
        return Err(refused(user, asked, "impersonating the empty string group is not allowed"));
    }
    if wanted.groups.iter().any(|group| group == MASTERS) {
        let asked = Attributes { name: MASTERS, ..asked.clone() };
        return Err(refused(user, &asked, "impersonating the system:masters group is not allowed"));
    }
    Ok(())
}

/// The same of what else is said of a user (`mode.go`, validateExtra).
fn check_extra(user: &UserInfo, wanted: &UserInfo, asked: &Attributes) -> Result<(), Status> {
    for (key, values) in &wanted.extra {
        let mut invalid = Vec::new();
        domain_prefixed_path(key, &FieldPath::new("extra").child("key"), &mut invalid);
        let why = if key.is_empty() {
            "impersonating the empty string key in extra is not allowed".to_owned()
        } else if !invalid.is_empty() {
            let why = aggregate(invalid.iter().map(Cause::to_string));
            format!("impersonating an invalid key in extra is not allowed: {why}")
        } else if key.to_lowercase() != *key {
            format!("impersonating a non-lowercase key in extra is not allowed: {key:?}")
        } else if values.iter().any(String::is_empty) {
            "impersonating the empty string value in extra is not allowed".to_owned()
        } else {
            continue;
        };
        return Err(refused(user, asked, &why));
    }
    Ok(())
}

/// 403 that says why, too.
fn refused(user: &UserInfo, asked: &Attributes, why: &str) -> Status {
    let status = forbidden(user, asked);
    Status { message: format!("{}: {why}", status.message), ..status }
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
                &[("impersonate-user", "system:node:n1")],
                r#"pods is forbidden: User "system:kube-controller-manager" cannot impersonate-on:arbitrary-node:list resource "pods" in API group "" in the namespace "a""#,
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

    /// The sorts are tried in upstream's order, each for whom it is.
    #[test]
    fn whom_a_sort_is_for() {
        use Mode::{ArbitraryNode, AssociatedNode, ServiceAccount};
        let bound = |name: &str, nodes: &[&str]| {
            let nodes = nodes.iter().map(|node| (*node).to_owned()).collect();
            UserInfo { extra: [(NODE_OF_TOKEN.to_owned(), nodes)].into(), ..UserInfo::new(name, &[]) }
        };
        let (agent, person) = (bound("system:serviceaccount:a:agent", &["n1"]), bound("jane", &["n1"]));
        let several = bound("system:serviceaccount:a:agent", &["n1", "n2"]);
        let named = |name: &str| UserInfo { name: name.to_owned(), ..UserInfo::default() };
        let grouped = UserInfo { groups: vec!["g".to_owned()], ..named("system:node:n1") };
        for (user, wanted, modes) in [
            (&agent, named("system:node:n1"), &[AssociatedNode, ArbitraryNode][..]),
            (&agent, named("system:node:n2"), &[ArbitraryNode]),
            (&several, named("system:node:n1"), &[ArbitraryNode]),
            (&person, named("system:node:n1"), &[ArbitraryNode]),
            (&agent, grouped, &[]),
            (&agent, named("system:serviceaccount:a:b"), &[ServiceAccount]),
            (&agent, named("jane"), &[Mode::UserInfo]),
        ] {
            let found: Vec<_> = Mode::FINE.into_iter().filter(|mode| mode.is_for(user, &wanted)).collect();
            assert_eq!(found, modes, "{} as {}", user.name, wanted.name);
        }
    }

    #[test]
    fn what_nobody_is_by_the_finer_rights() {
        let user = UserInfo::new("jane", &[]);
        let asked = Attributes {
            verb: "impersonate:user-info",
            group: AUTHENTICATION,
            resource: "userextras",
            ..Attributes::default()
        };
        let of = |groups: &[&str], extra: &[(&str, &str)]| UserInfo {
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            extra: extra.iter().map(|(key, value)| ((*key).to_owned(), vec![(*value).to_owned()])).collect(),
            ..UserInfo::default()
        };
        let about = "userextras.authentication.k8s.io is forbidden: User \"jane\" cannot impersonate:user-info resource \"userextras\" \
            in API group \"authentication.k8s.io\" at the cluster scope: impersonating";
        for (extra, why) in [
            (("", "a"), "the empty string key in extra is not allowed"),
            (
                ("scopes", "a"),
                "an invalid key in extra is not allowed: extra.key: Invalid value: \"scopes\": must be a domain-prefixed path (such as \"acme.io/foo\")",
            ),
            (("acme.com/Scopes", "a"), "a non-lowercase key in extra is not allowed: \"acme.com/Scopes\""),
            (("acme.com/scopes", ""), "the empty string value in extra is not allowed"),
        ] {
            assert_eq!(check_extra(&user, &of(&[], &[extra]), &asked).unwrap_err().message, format!("{about} {why}"));
        }
        assert_eq!(check_extra(&user, &of(&[], &[("acme.com/scopes", "a")]), &asked), Ok(()));
        let asked = Attributes { resource: "groups", ..asked };
        for (group, why) in [("", "the empty string group"), (MASTERS, "the system:masters group")] {
            let message = check_groups(&user, &of(&["a", group], &[]), &asked).unwrap_err().message;
            assert!(message.ends_with(&format!(": impersonating {why} is not allowed")), "{message}");
        }
    }
}
