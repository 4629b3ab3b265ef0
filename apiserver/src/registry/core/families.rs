//! A service's addresses and their families (core `ValidateServiceClusterIPsRelatedFields`, core/service/storage
//! `alloc.go`). Clusters have one family: IPv4.

use crate::registry::fields::{invalid_all, is_set, items, one_of, set, set_default, text};
use coracle_api::json::{Value, json};
use coracle_api::status::FieldPath;
use coracle_api::{Cause, validation};
use std::collections::HashSet;
use std::net::IpAddr;

const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];
const POLICIES: [&str; 3] = ["PreferDualStack", "RequireDualStack", "SingleStack"];

/// The family that clusters have.
const OWN: &str = "IPv4";

fn is_headless(spec: &Value) -> bool {
    text(spec, "clusterIP") == "None" || items(spec, "clusterIPs").first().is_some_and(|ip| ip == "None")
}

fn without_selector(spec: &Value) -> bool {
    spec.get("selector").and_then(Value::as_object).is_none_or(coracle_api::json::Map::is_empty)
}

fn family_of(ip: &str) -> Option<&'static str> {
    Some(match ip.parse().ok()? {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    })
}

/// Fills in the policy and the families, and keeps the two fields of addresses together.
pub fn default(spec: &mut Value) {
    if text(spec, "clusterIP").is_empty()
        && let Some(first) = items(spec, "clusterIPs").first().cloned()
    {
        set(spec, "clusterIP", first);
    }
    if !is_set(spec, "clusterIPs") && !text(spec, "clusterIP").is_empty() {
        let ip = spec["clusterIP"].clone();
        set(spec, "clusterIPs", json!([ip]));
    }
    // Without a selector nobody says which families its endpoints have.
    let any = is_headless(spec) && without_selector(spec);
    set_default(spec, "ipFamilyPolicy", if any { "RequireDualStack" } else { "SingleStack" });
    let mut families: Vec<Value> = items(spec, "ipFamilies").to_vec();
    if families.is_empty() {
        let given = items(spec, "clusterIPs").iter().filter_map(Value::as_str).filter_map(family_of);
        families = given.map(Value::from).collect();
    }
    if families.is_empty() {
        families.push(OWN.into());
    }
    if any && families.len() == 1 && text(spec, "ipFamilyPolicy") != "SingleStack" {
        let other = FAMILIES.into_iter().find(|family| families[0] != **family);
        families.extend(other.map(Value::from));
    }
    set(spec, "ipFamilies", families);
}

pub fn validate(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    if text(spec, "type") == "ExternalName" {
        return;
    }
    let before = causes.len();
    addresses(spec, &path.child("clusterIPs"), causes);
    one_of(spec, "ipFamilyPolicy", &POLICIES, path, causes);
    let families = items(spec, "ipFamilies");
    let mut seen = HashSet::new();
    for (nth, family) in families.iter().filter_map(Value::as_str).enumerate() {
        let path = path.child("ipFamilies").index(nth);
        if !FAMILIES.contains(&family) {
            causes.push(Cause::not_supported(&path, family, &FAMILIES));
        }
        if !seen.insert(family) {
            causes.push(Cause::duplicate(&path, family));
        }
    }
    if causes.len() > before {
        return;
    }
    let policy = text(spec, "ipFamilyPolicy");
    let ips = items(spec, "clusterIPs");
    if policy == "SingleStack" {
        for (count, what) in [(ips.len(), "cluster IPs"), (families.len(), "IP families")] {
            if count == 2 {
                let why = format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified");
                causes.push(Cause::invalid(&path.child("ipFamilyPolicy"), policy, why));
            }
        }
    }
    if is_headless(spec) && without_selector(spec) {
        return;
    }
    for (nth, (ip, family)) in ips.iter().zip(families).enumerate().filter(|_| !is_headless(spec)) {
        let (ip, family) = (ip.as_str().unwrap_or_default(), family.as_str().unwrap_or_default());
        if family_of(ip).is_some_and(|found| found != family) {
            let article = if family == "IPv4" { "an IPv4" } else { "an IPv6" };
            let why = format!("expected {article} value as indicated by `ipFamilies[{nth}]`");
            causes.push(Cause::invalid(&path.child("clusterIPs").index(nth), ip, why));
        }
    }
    if policy == "RequireDualStack" {
        let why = "this cluster is not configured for dual-stack services";
        causes.push(Cause::invalid(&path.child("ipFamilyPolicy"), policy, why));
    }
    for (nth, family) in families.iter().enumerate().filter(|(_, family)| *family != OWN) {
        let why = "not configured on this cluster";
        causes.push(Cause::invalid(&path.child("ipFamilies").index(nth), family.clone(), why));
    }
}

fn addresses(spec: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let (one, all) = (text(spec, "clusterIP"), items(spec, "clusterIPs"));
    let shown = || Value::Array(all.to_vec());
    match (one, all.first()) {
        ("", Some(_)) => {
            causes.push(Cause::invalid(path, shown(), "must be empty when `clusterIP` is not specified"));
        }
        (one, Some(first)) if first != one => {
            causes.push(Cause::invalid(path, shown(), "first value must match `clusterIP`"));
        }
        _ => {}
    }
    for (nth, ip) in all.iter().filter_map(Value::as_str).enumerate() {
        if nth == 0 && ip == "None" {
            if all.len() > 1 {
                causes.push(Cause::invalid(path, shown(), "'None' must be the first and only value"));
            }
            continue;
        }
        invalid_all(&path.index(nth), ip, validation::ip(ip), causes);
    }
    if all.len() > 2 {
        causes.push(Cause::invalid(path, shown(), "may only hold up to 2 values"));
    }
    let families: Vec<_> = all.iter().filter_map(Value::as_str).filter_map(family_of).collect();
    if matches!(families.as_slice(), [one, other] if one == other) {
        causes.push(Cause::invalid(path, shown(), "may specify no more than one IP for each IP family"));
    }
}

/// The first address and family stay for good, the second as long as there are two (core `validateUpgradeDowngrade…`).
pub fn validate_update(now: &Value, before: &Value, causes: &mut Vec<Cause>) {
    if [now, before].iter().any(|spec| text(spec, "type") == "ExternalName") {
        return;
    }
    let path = FieldPath::new("spec");
    let kept = text(now, "clusterIP") == text(before, "clusterIP");
    if !text(before, "clusterIP").is_empty() && !kept {
        let (shown, path) = (now.get("clusterIPs").cloned().unwrap_or(Value::Null), path.child("clusterIPs").index(0));
        causes.push(Cause::invalid(&path, shown, "may not change once set"));
    }
    let first = |spec: &Value| items(spec, "ipFamilies").first().cloned();
    if let (Some(new), Some(old)) = (first(now), first(before))
        && new != old
    {
        let path = path.child("ipFamilies").index(0);
        causes.push(Cause::invalid(&path, new, "may not change once set"));
    }
}
