//! A service's addresses and their families (core `ValidateServiceClusterIPsRelatedFields`, core/service/storage
//! `alloc.go`). Clusters have one family: IPv4.

use crate::registry::fields::{copy, invalid_all, items, one_of, remove, set, text};
use coracle_api::json::{Value, json};
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};
use std::collections::HashSet;
use std::net::IpAddr;

const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];
const POLICIES: [&str; 3] = ["PreferDualStack", "RequireDualStack", "SingleStack"];

/// The family that clusters have.
const OWN: &str = "IPv4";

const FIXED: &str = "may not change once set";

/// The two lists that hold one or two values, and what one of their values is called.
const LISTS: [(&str, &str); 2] = [("clusterIPs", "cluster IP"), ("ipFamilies", "IP family")];

fn is_external_name(spec: &Value) -> bool {
    text(spec, "type") == "ExternalName"
}

/// Whether a Service has no address of its own (core `isHeadlessService`).
pub fn is_headless(spec: &Value) -> bool {
    matches!(items(spec, "clusterIPs"), [ip] if ip == "None")
}

/// A headless Service without a selector: nobody says which families its endpoints have, so it may have any.
fn has_any_family(spec: &Value) -> bool {
    let has_selector = spec.get("selector").and_then(Value::as_object).is_some_and(|selector| !selector.is_empty());
    text(spec, "clusterIP") == "None" && !has_selector
}

/// The family of an address in any form that was ever taken; IPv4 written as IPv6 is IPv4, as for Go.
fn family_of(ip: &str) -> Option<&'static str> {
    Some(match validation::sloppy_ip(ip)?.to_canonical() {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    })
}

fn policy(spec: &Value) -> Option<&str> {
    spec.get("ipFamilyPolicy").and_then(Value::as_str)
}

fn path(field: &str) -> FieldPath {
    FieldPath::new("spec").child(field)
}

fn shown(spec: &Value, list: &str) -> Value {
    items(spec, list).to_vec().into()
}

/// Makes `clusterIPs` follow `clusterIP`, which is all that older clients know (core/service/storage `normalizeClusterIPs`).
pub fn pair(spec: &mut Value, old: Option<&Value>) {
    let ip = text(spec, "clusterIP").to_owned();
    let before = old.map_or("", |old| text(old, "clusterIP"));
    let follows = match old {
        None => items(spec, "clusterIPs").is_empty(),
        Some(old) => items(spec, "clusterIPs") == items(old, "clusterIPs"),
    };
    match old {
        Some(old) if ip == before => {
            if items(spec, "clusterIPs").is_empty() {
                copy(spec, old, "clusterIPs");
            }
        }
        _ if !follows => {}
        _ if ip.is_empty() => drop(remove(spec, "clusterIPs")),
        _ => set(spec, "clusterIPs", json!([ip])),
    }
}

/// What a Service gets beside what it asks for.
struct Chosen {
    policy: String,
    ips: Vec<Value>,
    families: Vec<Value>,
}

/// Fills in the policy and the families. A spec that is refused stays as it is.
pub fn fill(spec: &mut Value, old: Option<&Value>) {
    let Ok(Some(chosen)) = choose(spec, old) else { return };
    set(spec, "ipFamilyPolicy", chosen.policy);
    set(spec, "ipFamilies", chosen.families);
    if chosen.ips.len() != items(spec, "clusterIPs").len() {
        set(spec, "clusterIPs", chosen.ips);
    }
}

/// Why the families that are asked for cannot be had.
pub fn refused(spec: &Value, old: Option<&Value>) -> Vec<Cause> {
    choose(spec, old).err().unwrap_or_default()
}

/// The policy, the families and the addresses that are kept (core/service/storage `initIPFamilyFields`).
fn choose(spec: &Value, old: Option<&Value>) -> Result<Option<Chosen>, Vec<Cause>> {
    if is_external_name(spec) || old.is_some_and(|old| prefers_what_it_has(spec, old)) {
        return Ok(None);
    }
    let mut causes = Vec::new();
    related(spec, old, &mut causes);
    if !causes.is_empty() {
        return Err(causes);
    }
    let mut chosen = Chosen {
        policy: policy(spec).unwrap_or_else(|| default_policy(spec, old)).to_owned(),
        ips: items(spec, "clusterIPs").to_vec(),
        families: items(spec, "ipFamilies").to_vec(),
    };
    if let Some(old) = old {
        give_up_second(&mut chosen, spec, old, &mut causes);
    }
    agrees_with_policy(&chosen, &mut causes);
    families_of_addresses(&mut chosen, &mut causes);
    if !causes.is_empty() {
        return Err(causes);
    }
    if has_any_family(spec) {
        any_families(&mut chosen);
        return Ok(Some(chosen));
    }
    are_there(&chosen, &mut causes);
    if !causes.is_empty() {
        return Err(causes);
    }
    if chosen.families.is_empty() {
        chosen.families.push(OWN.into());
    }
    Ok(Some(chosen))
}

/// A Service that prefers two families keeps the ones that it has until it asks for others
/// (`isMatchingPreferDualStackClusterIPFields`).
fn prefers_what_it_has(spec: &Value, old: &Value) -> bool {
    const PREFER: &str = "PreferDualStack";
    policy(spec) == Some(PREFER)
        && policy(old).is_none_or(|policy| policy == PREFER)
        && text(spec, "type") == text(old, "type")
        && LISTS.iter().all(|(list, _)| items(spec, list) == items(old, list))
}

fn default_policy<'a>(spec: &Value, old: Option<&'a Value>) -> &'a str {
    let default = if has_any_family(spec) { "RequireDualStack" } else { "SingleStack" };
    old.and_then(policy).unwrap_or(default)
}

/// One family in the place of two must be asked for; then the lists need not be shortened, too.
fn give_up_second(chosen: &mut Chosen, spec: &Value, old: &Value, causes: &mut Vec<Cause>) {
    let one = chosen.policy == "SingleStack";
    for ((list, what), kept) in LISTS.into_iter().zip([&mut chosen.ips, &mut chosen.families]) {
        let before = items(old, list);
        if one && items(spec, list) == before {
            kept.truncate(1);
        } else if !one && !kept.is_empty() && kept.len() < before.len() {
            let why = format!("must be 'SingleStack' to release the secondary {what}");
            causes.push(Cause::invalid(&path("ipFamilyPolicy"), chosen.policy.as_str(), why));
        }
    }
}

fn agrees_with_policy(chosen: &Chosen, causes: &mut Vec<Cause>) {
    if chosen.policy != "SingleStack" {
        return;
    }
    for (list, what) in [(&chosen.ips, "cluster IPs"), (&chosen.families, "IP families")] {
        if list.len() == 2 {
            let why = format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified");
            causes.push(Cause::invalid(&path("ipFamilyPolicy"), chosen.policy.as_str(), why));
        }
    }
}

/// Addresses say their families when nobody else does.
fn families_of_addresses(chosen: &mut Chosen, causes: &mut Vec<Cause>) {
    let said = chosen.families.len();
    for (nth, ip) in chosen.ips.iter().enumerate().skip(said) {
        match ip.as_str().and_then(family_of) {
            None => {}
            Some(OWN) => chosen.families.push(OWN.into()),
            Some(other) => {
                let why = format!("{other} is not configured on this cluster");
                causes.push(Cause::invalid(&path("clusterIPs").index(nth), chosen.ips.clone(), why));
            }
        }
    }
}

fn any_families(chosen: &mut Chosen) {
    if chosen.families.is_empty() {
        chosen.families.push(OWN.into());
    }
    if chosen.families.len() == 1 && chosen.policy != "SingleStack" {
        let other = FAMILIES.into_iter().find(|family| chosen.families[0] != *family);
        chosen.families.extend(other.map(Value::from));
    }
}

/// The cluster has the families.
fn are_there(chosen: &Chosen, causes: &mut Vec<Cause>) {
    if chosen.policy == "RequireDualStack" {
        let why = "this cluster is not configured for dual-stack services";
        causes.push(Cause::invalid(&path("ipFamilyPolicy"), chosen.policy.as_str(), why));
    }
    for (nth, family) in chosen.families.iter().enumerate().filter(|(_, family)| **family != OWN) {
        let why = "not configured on this cluster";
        causes.push(Cause::invalid(&path("ipFamilies").index(nth), family.clone(), why));
    }
}

/// The addresses, the families and the policy, each by itself and together
/// (core `ValidateServiceClusterIPsRelatedFields`).
pub fn related(spec: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    if is_external_name(spec) {
        return;
    }
    first_is_the_one(spec, causes);
    let mut seen = HashSet::new();
    for (nth, family) in items(spec, "ipFamilies").iter().filter_map(Value::as_str).enumerate() {
        let path = path("ipFamilies").index(nth);
        if !FAMILIES.contains(&family) {
            causes.push(Cause::not_supported(&path, family, &FAMILIES));
        }
        if !seen.insert(family) {
            causes.push(Cause::duplicate(&path, family));
        }
    }
    one_of(spec, "ipFamilyPolicy", &POLICIES, &FieldPath::new("spec"), causes);
    // Of addresses that are none, nothing else can be said.
    if addresses(spec, old, causes) {
        one_of_each_family(spec, causes);
        addresses_have_their_families(spec, causes);
    }
}

fn first_is_the_one(spec: &Value, causes: &mut Vec<Cause>) {
    let (one, path) = (text(spec, "clusterIP"), path("clusterIPs"));
    let why = match items(spec, "clusterIPs").first() {
        None if !one.is_empty() => return causes.push(Cause::required(&path, "")),
        Some(_) if one.is_empty() => "must be empty when `clusterIP` is not specified",
        Some(first) if first != one => "first value must match `clusterIP`",
        _ => return,
    };
    causes.push(Cause::invalid(&path, shown(spec, "clusterIPs"), why));
}

/// Whether each of the addresses is one. One that is there already is taken as it is.
fn addresses(spec: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) -> bool {
    let (all, path) = (items(spec, "clusterIPs"), path("clusterIPs"));
    let before = old.map_or(&[][..], |old| items(old, "clusterIPs"));
    let known = causes.len();
    for (nth, ip) in all.iter().enumerate() {
        match ip.as_str().unwrap_or_default() {
            "None" if nth == 0 && all.len() == 1 => {}
            "None" if nth == 0 => {
                let why = "'None' must be the first and only value";
                causes.push(Cause::invalid(&path, shown(spec, "clusterIPs"), why));
            }
            _ if before.contains(ip) => {}
            ip => invalid_all(&path.index(nth), ip, validation::ip(ip), causes),
        }
    }
    let valid = causes.len() == known;
    if all.len() > 2 {
        causes.push(Cause::invalid(&path, shown(spec, "clusterIPs"), "may only hold up to 2 values"));
    }
    valid
}

fn one_of_each_family(spec: &Value, causes: &mut Vec<Cause>) {
    let families: HashSet<_> =
        items(spec, "clusterIPs").iter().filter_map(Value::as_str).filter_map(family_of).collect();
    if items(spec, "clusterIPs").len() > 1 && families.len() < 2 {
        let why = "may specify no more than one IP for each IP family";
        causes.push(Cause::invalid(&path("clusterIPs"), shown(spec, "clusterIPs"), why));
    }
}

fn addresses_have_their_families(spec: &Value, causes: &mut Vec<Cause>) {
    if is_headless(spec) {
        return;
    }
    for (nth, (ip, family)) in items(spec, "clusterIPs").iter().zip(items(spec, "ipFamilies")).enumerate() {
        let (ip, family) = (ip.as_str().unwrap_or_default(), family.as_str().unwrap_or_default());
        if FAMILIES.contains(&family) && family_of(ip).is_some_and(|found| found != family) {
            let why = format!("expected an {family} value as indicated by `ipFamilies[{nth}]`");
            causes.push(Cause::invalid(&path("clusterIPs").index(nth), ip, why));
        }
    }
}

/// What may become of addresses and families that a Service has: the first stay for good, the second as long as there are
/// two. Whoever has or gets another name in their place is free.
pub fn validate_update(now: &Value, before: &Value, causes: &mut Vec<Cause>) {
    if is_external_name(now) || is_external_name(before) {
        return;
    }
    let headless = (is_headless(before), is_headless(now));
    if headless != (true, true) {
        addresses_stay(now, before, causes);
    }
    if headless == (false, false) {
        families_stay(now, before, causes);
    }
}

/// core `validateUpgradeDowngradeClusterIPs`
fn addresses_stay(now: &Value, before: &Value, causes: &mut Vec<Cause>) {
    let (new, old) = (items(now, "clusterIPs"), items(before, "clusterIPs"));
    let path = path("clusterIPs");
    let mut refuse =
        |nth: usize, why: &str| causes.push(Cause::invalid(&path.index(nth), shown(now, "clusterIPs"), why));
    if new.len() == old.len() {
        changed(new, old).for_each(|nth| refuse(nth, FIXED));
        return;
    }
    if new.is_empty() {
        refuse(0, "primary clusterIP can not be unset");
    } else if !old.is_empty() && new[0] != old[0] {
        refuse(0, FIXED);
    }
    if new.len() < old.len() {
        one_must_be_asked_for(now, new, "clusterIP", causes);
    }
}

/// core `validateUpgradeDowngradeIPFamilies`, of which clients know that it always tells of the first family, and shows the
/// addresses when there are fewer or more.
fn families_stay(now: &Value, before: &Value, causes: &mut Vec<Cause>) {
    let (new, old) = (items(now, "ipFamilies"), items(before, "ipFamilies"));
    let path = path("ipFamilies").index(0);
    let mut refuse = |list: &str, why: &str| causes.push(Cause::invalid(&path, shown(now, list), why));
    if new.len() == old.len() {
        changed(new, old).for_each(|_| refuse("ipFamilies", FIXED));
        return;
    }
    let fewer = new.len() < old.len();
    if fewer && items(now, "clusterIPs").is_empty() {
        refuse("ipFamilies", "primary ipFamily can not be unset");
    }
    if let (Some(new), Some(old)) = (new.first(), old.first())
        && new != old
    {
        refuse("clusterIPs", FIXED);
    }
    if fewer {
        one_must_be_asked_for(now, new, "ipFamily", causes);
    }
}

fn changed<'a>(new: &'a [Value], old: &'a [Value]) -> impl Iterator<Item = usize> + 'a {
    new.iter().zip(old).enumerate().filter(|(_, (new, old))| new != old).map(|(nth, _)| nth)
}

fn one_must_be_asked_for(now: &Value, left: &[Value], what: &str, causes: &mut Vec<Cause>) {
    if left.len() == 1 && policy(now) != Some("SingleStack") {
        let shown = policy(now).map_or(Value::Null, Value::from);
        let why = format!("must be set to 'SingleStack' when releasing the secondary {what}");
        causes.push(Cause::invalid(&path("ipFamilyPolicy"), shown, why));
    }
}
