//! What a claim got, who it is for, and what drivers say of it.

use super::claim::default_tolerations;
use super::request::{Names, REQUESTS_MAX};
use super::{config, device, internal, lists, names};
use crate::registry::conditions::conditions;
use crate::registry::core::scheduling;
use crate::registry::fields::{alike, below_mut, field_mut, is_set, items, items_mut, remove, text};
use coracle_api::json::{Value, json};
use coracle_api::status::FieldPath;
use coracle_api::{Cause, meta, validation};
use std::collections::HashSet;
use std::net::IpAddr;

const RESERVED_MAX: usize = 256;
const CONDITIONS_MAX: usize = 8;
const INTERFACE_MAX: usize = 256;
const HARDWARE_MAX: usize = 128;
const IPS_MAX: usize = 16;
const SOURCES: [&str; 2] = ["FromClaim", "FromClass"];

/// Fills in what a client may leave out of a status.
pub fn default(claim: &mut Value) {
    if let Some(allocation) = below_mut(claim, &["status", "allocation"]) {
        default_allocation(allocation);
    }
}

fn default_allocation(allocation: &mut Value) {
    if let Some(devices) = field_mut(allocation, "devices") {
        for result in items_mut(devices, "results") {
            default_tolerations(result);
        }
    }
}

/// A device as upstream's messages show it, the whole of it or a share (structured `SharedDeviceID`).
fn id(device: &Value) -> Value {
    json!({
        "Driver": text(device, "driver"), "Pool": text(device, "pool"), "Device": text(device, "device"),
        "ShareID": text(device, "shareID"),
    })
}

/// The devices that a claim has.
fn allocated(status: &Value) -> HashSet<String> {
    items(&status["allocation"]["devices"], "results").iter().map(|result| id(result).to_string()).collect()
}

/// Nothing is said of devices any more that the claim had and has no longer (`dropDeallocatedStatusDevices`).
pub fn forget_devices(claim: &mut Value, old: &Value) {
    let gone: HashSet<String> = &allocated(&old["status"]) - &allocated(&claim["status"]);
    let Some(status) = field_mut(claim, "status") else { return };
    if let Some(devices) = field_mut(status, "devices").and_then(Value::as_array_mut) {
        devices.retain(|device| !gone.contains(&id(device).to_string()));
    }
    if items(status, "devices").is_empty() {
        remove(status, "devices");
    }
}

/// Everything that is wrong with a change (`validateResourceClaimStatusUpdate`).
pub fn validate(claim: &Value, old: &Value, causes: &mut Vec<Cause>) {
    let (status, before, path) = (&claim["status"], &old["status"], FieldPath::new("status"));
    let at = path.child("reservedFor");
    lists::set(items(status, "reservedFor"), RESERVED_MAX, &at, causes, consumer, lists::by("uid"));
    let (known, list, at) = (allocated(status), items(status, "devices"), path.child("devices"));
    for (nth, device) in list.iter().enumerate() {
        self::device(device, &known, &at.index(nth), causes);
    }
    lists::unique(list, &at, causes, id);
    reserved(claim, before, &path.child("reservedFor"), causes);
    let path = path.child("allocation");
    match (is_set(before, "allocation"), is_set(status, "allocation")) {
        (true, true) => {
            let mut before = before["allocation"].clone();
            default_allocation(&mut before);
            let now = &status["allocation"];
            if !alike(now, &before) || !config::tell_the_same(&now["devices"], &before["devices"]) {
                causes.push(Cause::immutable(&path, internal::allocation(now)));
            }
        }
        (false, true) => {
            let names = Names::of(&claim["spec"]["devices"]);
            allocation(&status["allocation"], &names, &path, causes);
        }
        (_, false) => {}
    }
}

/// Only what has devices is for somebody, and what is to go is for nobody new.
fn reserved(claim: &Value, before: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let consumers = items(&claim["status"], "reservedFor");
    if consumers.is_empty() {
        return;
    }
    if !is_set(&claim["status"], "allocation") {
        return causes.push(Cause::forbidden(path, "may not be specified when `allocated` is not set"));
    }
    let whole = |consumer| ["apiGroup", "resource", "name", "uid"].map(|field| text(consumer, field));
    let known: HashSet<[&str; 4]> = items(before, "reservedFor").iter().map(whole).collect();
    if meta::deletion_timestamp(claim).is_some() && consumers.iter().any(|consumer| !known.contains(&whole(consumer))) {
        let why = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
        causes.push(Cause::forbidden(path, why));
    }
}

/// `validateResourceClaimUserReference`
fn consumer(consumer: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    for field in ["resource", "name", "uid"].into_iter().filter(|field| text(consumer, field).is_empty()) {
        causes.push(Cause::required(&path.child(field), ""));
    }
}

/// A device by its driver, its pool and its name.
fn named(device: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    names::driver(text(device, "driver"), &path.child("driver"), causes);
    names::pool(text(device, "pool"), &path.child("pool"), causes);
    names::label(text(device, "device"), &path.child("device"), causes);
}

fn share(device: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    if let Some(share) = device.get("shareID").and_then(Value::as_str) {
        names::uid(share, &path.child("shareID"), causes);
    }
}

/// What a driver says of a device (`validateDeviceStatus`).
fn device(device: &Value, known: &HashSet<String>, path: &FieldPath, causes: &mut Vec<Cause>) {
    named(device, path, causes);
    share(device, path, causes);
    let id = id(device);
    if !known.contains(&id.to_string()) {
        causes.push(Cause::invalid(path, id, "must be an allocated device in the claim"));
    }
    let (list, at) = (items(device, "conditions"), path.child("conditions"));
    if list.len() > CONDITIONS_MAX {
        causes.push(Cause::too_many(&at, list.len(), CONDITIONS_MAX));
    }
    conditions(list, &at, causes);
    if !device["data"].is_null() {
        config::raw(&device["data"], false, &path.child("data"), causes);
    }
    network(&device["networkData"], &path.child("networkData"), causes);
}

/// `validateNetworkDeviceData`
fn network(data: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    for (field, max) in [("interfaceName", INTERFACE_MAX), ("hardwareAddress", HARDWARE_MAX)] {
        if text(data, field).len() > max {
            causes.push(Cause::too_long(&path.child(field), max));
        }
    }
    lists::set(items(data, "ips"), IPS_MAX, &path.child("ips"), causes, address, Clone::clone);
}

/// An address and the length of its network's prefix (apimachinery `IsValidInterfaceAddress`).
fn address(address: &Value, path: &FieldPath, causes: &mut Vec<Cause>) {
    let text = address.as_str().unwrap_or_default();
    let Some(net) = validation::sloppy_cidr(text) else {
        let why = "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)";
        return causes.push(Cause::invalid(path, text, why));
    };
    let canonical = match (net.addr().to_canonical(), net.prefix_len()) {
        // An IPv4 address that is written as one of IPv6.
        (ip @ IpAddr::V4(_), length @ 33..) => format!("{ip}/{}", length.saturating_sub(96)),
        (ip, length) => format!("{ip}/{length}"),
    };
    if canonical != text {
        causes.push(Cause::invalid(path, text, format!("must be in canonical form (\"{canonical}\")")));
    }
}

/// What a claim newly got (`validateAllocationResult`).
fn allocation(allocation: &Value, names: &Names, path: &FieldPath, causes: &mut Vec<Cause>) {
    let (devices, at) = (&allocation["devices"], path.child("devices"));
    lists::slice(items(devices, "results"), REQUESTS_MAX, &at.child("results"), causes, |result, path, causes| {
        names.reference(text(result, "request"), &path.child("request"), causes);
        named(result, path, causes);
        device::binding(result, path, causes);
        share(result, path, causes);
    });
    // Of the class, and of the claim.
    let most = 2 * config::CONFIG_MAX;
    lists::slice(items(devices, "config"), most, &at.child("config"), causes, |config, path, causes| {
        let source = text(config, "source");
        match source {
            "" => causes.push(Cause::required(&path.child("source"), "")),
            source if SOURCES.contains(&source) => {}
            source => causes.push(Cause::not_supported(&path.child("source"), source, &SOURCES)),
        }
        names.references(config, path, causes);
        config::check(config, false, path, causes);
    });
    if is_set(allocation, "nodeSelector") {
        scheduling::node_selector(&allocation["nodeSelector"], &path.child("nodeSelector"), causes);
    }
}

#[cfg(test)]
mod tests {
    use super::super::told;
    use super::*;

    const UID: &str = "0a1b2c3d-0000-4000-8000-00000000000f";

    fn of(status: Value) -> Value {
        json!({"spec": {"devices": {"requests": [{"name": "r"}]}}, "status": status})
    }

    fn change(now: Value, before: Value) -> Vec<String> {
        told(|causes| validate(&of(now), &of(before), causes))
    }

    fn result(device: &str) -> Value {
        json!({"request": "r", "driver": "a.b", "pool": "p", "device": device})
    }

    fn got(device: &str) -> Value {
        json!({"devices": {"results": [result(device)]}})
    }

    fn pod(uid: &str) -> Value {
        json!({"resource": "pods", "name": "n", "uid": uid})
    }

    #[test]
    fn a_claim_gets_devices_once() {
        assert!(change(json!({"allocation": got("d"), "reservedFor": [pod("u")]}), json!({})).is_empty());
        assert!(change(json!({"allocation": got("d")}), json!({"allocation": got("d")})).is_empty());
        assert!(change(json!({}), json!({"allocation": got("d")})).is_empty());
        let moved = change(json!({"allocation": got("e")}), json!({"allocation": got("d")}));
        let shown = r#"status.allocation: Invalid value: {"Devices":{"Results":[{"Request":"r","Driver":"a.b","Pool":"p","Device":"e","#;
        assert!(
            moved.len() == 1 && moved[0].starts_with(shown) && moved[0].ends_with(": field is immutable"),
            "{moved:?}"
        );
    }

    #[test]
    fn an_allocation_that_was_stored_without_defaults_is_the_same() {
        let mut before = got("d");
        before["devices"]["results"][0]["tolerations"] = json!([{"key": "k"}]);
        let mut now = of(json!({"allocation": before}));
        default(&mut now);
        assert_eq!(now["status"]["allocation"]["devices"]["results"][0]["tolerations"][0]["operator"], "Equal");
        assert!(change(now["status"].clone(), json!({"allocation": before})).is_empty());
    }

    #[test]
    fn what_a_claim_gets_is_named_and_for_one_of_its_requests() {
        let at = "status.allocation.devices";
        let mut wrong = result("d");
        wrong["request"] = json!("other");
        wrong["shareID"] = json!("s");
        wrong["bindingConditions"] = json!(["a"]);
        let config = json!([{}, {"source": "FromClass", "requests": ["r"], "opaque": {"driver": "a.b", "parameters": {}}}, {"source": "Here", "opaque": {"driver": "a.b", "parameters": {}}}]);
        let selector = json!({"nodeSelectorTerms": []});
        let allocation = json!({"devices": {"results": [wrong, {}], "config": config}, "nodeSelector": selector});
        let told = change(json!({"allocation": allocation}), json!({}));
        let places: Vec<&str> = told.iter().map(|told| told.split(": ").next().unwrap()).collect();
        let results = format!("{at}.results");
        assert_eq!(
            places,
            [
                format!("{results}[0].request"),
                format!("{results}[0].bindingFailureConditions"),
                format!("{results}[0].shareID"),
                format!("{results}[1].request"),
                format!("{results}[1].request"),
                format!("{results}[1].driver"),
                format!("{results}[1].driver"),
                format!("{results}[1].pool"),
                format!("{results}[1].device"),
                format!("{at}.config[0].source"),
                format!("{at}.config[0].opaque"),
                format!("{at}.config[2].source"),
                "status.allocation.nodeSelector.nodeSelectorTerms".to_owned(),
            ]
        );
        let many = json!({"allocation": {"devices": {"results": vec![json!({}); 33], "config": vec![json!({}); 65]}}});
        assert_eq!(
            change(many, json!({})),
            [
                format!("{results}: Too many: 33: must have at most 32 items"),
                format!("{at}.config: Too many: 65: must have at most 64 items")
            ]
        );
    }

    #[test]
    fn claims_are_for_somebody_when_they_have_devices() {
        assert_eq!(
            change(json!({"reservedFor": [pod("u")]}), json!({})),
            ["status.reservedFor: Forbidden: may not be specified when `allocated` is not set"]
        );
        let twice = json!({"allocation": got("d"), "reservedFor": [pod("u"), {"uid": "u"}]});
        assert_eq!(
            change(twice, json!({})),
            [
                "status.reservedFor[1].resource: Required value",
                "status.reservedFor[1].name: Required value",
                "status.reservedFor[1]: Duplicate value: \"u\""
            ]
        );
        let ending = |now: Value, before: Value| {
            let mut claim = of(json!({"allocation": got("d"), "reservedFor": now}));
            claim["metadata"] = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
            told(|causes| validate(&claim, &of(json!({"allocation": got("d"), "reservedFor": before})), causes))
        };
        assert!(ending(json!([pod("a")]), json!([pod("a"), pod("b")])).is_empty());
        assert_eq!(
            ending(json!([pod("b")]), json!([pod("a")])),
            [
                "status.reservedFor: Forbidden: new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set"
            ]
        );
    }

    #[test]
    fn drivers_speak_of_devices_that_the_claim_has() {
        let of = |devices: Value| change(json!({"allocation": got("d"), "devices": devices}), json!({}));
        assert!(of(json!([{"driver": "a.b", "pool": "p", "device": "d", "data": {"x": 1},
            "networkData": {"interfaceName": "eth0", "ips": ["10.0.0.1/24", "fd00::1/64"], "hardwareAddress": "00:11"}}]))
        .is_empty());
        let id = |share: &str| format!(r#"{{"Driver":"a.b","Pool":"p","Device":"d","ShareID":"{share}"}}"#);
        let other = json!({"driver": "a.b", "pool": "p", "device": "d", "shareID": UID});
        assert_eq!(
            of(json!([other])),
            [format!("status.devices[0]: Invalid value: {}: must be an allocated device in the claim", id(UID))]
        );
        let one = json!({"driver": "a.b", "pool": "p", "device": "d"});
        assert_eq!(of(json!([one, one])), [format!("status.devices[1]: Duplicate value: {}", id(""))]);
        let long = "l".repeat(257);
        let wrong =
            of(json!([{"driver": "a.b", "pool": "p", "device": "d", "data": [1], "conditions": vec![json!({}); 9],
            "networkData": {"interfaceName": long, "hardwareAddress": long, "ips": vec!["10.0.0.1/24"; 17]}}]));
        let at = "status.devices[0]";
        assert_eq!(wrong[0], format!("{at}.conditions: Too many: 9: must have at most 8 items"));
        assert!(wrong.contains(&format!("{at}.conditions[8].type: Duplicate value: \"\"")));
        assert_eq!(
            wrong[wrong.len() - 4..],
            [
                format!("{at}.data: Invalid value: \"<value omitted>\": must be a valid JSON object"),
                format!("{at}.networkData.interfaceName: Too long: may not be more than 256 bytes"),
                format!("{at}.networkData.hardwareAddress: Too long: may not be more than 128 bytes"),
                format!("{at}.networkData.ips: Too many: 17: must have at most 16 items"),
            ]
        );
    }

    #[test]
    fn addresses_of_devices_stand_as_they_are_printed() {
        let check = |text: &str| told(|causes| address(&json!(text), &FieldPath::new("a"), causes));
        assert!(check("10.0.0.1/24").is_empty());
        for text in ["10.0.0.1", "300.9.8.0/24", "a"] {
            let why = "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)";
            assert_eq!(check(text), [format!("a: Invalid value: \"{text}\": {why}")]);
        }
        for (text, canonical) in [
            ("010.9.8.7/24", "10.9.8.7/24"),
            ("2001:0db8::1/64", "2001:db8::1/64"),
            ("::ffff:10.9.8.7/120", "10.9.8.7/24"),
        ] {
            let why = format!("a: Invalid value: \"{text}\": must be in canonical form (\"{canonical}\")");
            assert_eq!(check(text), [why]);
        }
    }

    #[test]
    fn nothing_is_said_of_devices_that_are_given_back() {
        let device = |name: &str| json!({"driver": "a.b", "pool": "p", "device": name});
        let old = of(json!({"allocation": {"devices": {"results": [result("d"), result("e")]}}}));
        let mut claim = of(json!({"allocation": got("d"), "devices": [device("d"), device("e"), device("f")]}));
        forget_devices(&mut claim, &old);
        assert_eq!(claim["status"]["devices"], json!([device("d"), device("f")]));
        let mut claim = of(json!({"devices": [device("d"), device("e")]}));
        forget_devices(&mut claim, &old);
        assert_eq!(claim["status"], json!({}));
    }
}
