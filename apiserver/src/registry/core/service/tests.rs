use super::*;
use crate::registry::core::families;
use coracle_api::json::same;

/// A Service as it is stored: made of what is asked for, with an address.
fn made(change: Value) -> Value {
    let mut service = json!({"metadata": {"name": "a"}, "spec": {"selector": {"app": "a"}, "ports": [{"port": 80}]}, "status": {"loadBalancer": {}}});
    merge(&mut service, change);
    if text(&service["spec"], "type") != "ExternalName" && text(&service["spec"], "clusterIP").is_empty() {
        set(&mut service["spec"], "clusterIP", "10.96.0.9");
    }
    ServiceStrategy.default(&mut service);
    families::pair(&mut service["spec"], None);
    families::fill(&mut service["spec"], None);
    service
}

/// A JSON merge patch.
fn merge(value: &mut Value, change: Value) {
    let Value::Object(fields) = change else {
        *value = change;
        return;
    };
    for (name, field) in fields.iter() {
        match field {
            Value::Null => drop(remove(value, name)),
            Value::Object(_) => merge(object_mut(value, name), field.clone()),
            field => set(value, name, field.clone()),
        }
    }
}

fn told(causes: Vec<Cause>) -> Vec<String> {
    causes.iter().map(Cause::to_string).collect()
}

/// What becomes of a Service with the change, and what is said of it.
fn changed(old: &Value, change: Value) -> (Value, Vec<String>) {
    let mut service = old.clone();
    merge(&mut service, change);
    ServiceStrategy.default(&mut service);
    kept::prepare(&mut service, old);
    let mut causes = Vec::new();
    ServiceStrategy.validate_changed(&service, old, &mut causes);
    (service["spec"].clone(), told(causes))
}

fn is_fine(old: &Value, change: Value) -> Value {
    let (spec, causes) = changed(old, change);
    assert_eq!(causes, [""; 0], "{spec:?}");
    spec
}

fn refuses(old: &Value, change: Value, wanted: &[&str]) {
    let (spec, causes) = changed(old, change);
    assert_eq!(causes, wanted, "{spec:?}");
}

fn status_causes(service: &Value, ingress: Value) -> Vec<String> {
    let mut now = service.clone();
    now["status"]["loadBalancer"]["ingress"] = ingress;
    ServiceStrategy.default(&mut now);
    let mut causes = Vec::new();
    ServiceStrategy.validate_status(&now, service, &mut causes);
    told(causes)
}

#[test]
fn only_balancers_are_reached_somewhere() {
    let balancer = made(json!({"spec": {"type": "LoadBalancer"}}));
    for fine in [
        json!([{"ip": "192.0.2.1"}]),
        json!([{"ip": "192.0.2.1", "ipMode": "Proxy", "hostname": "a.example"}, {"hostname": "b.example"}]),
        json!([]),
    ] {
        assert_eq!(status_causes(&balancer, fine), [""; 0]);
    }
    let at = |field: &str, why: &str| format!("status.loadBalancer.ingress[0].{field}: {why}");
    for (point, wanted) in [
        (json!({"ip": "010.0.0.1"}), at("ip", "Invalid value: \"010.0.0.1\": must not have leading 0s")),
        (
            json!({"ip": "192.0.2.1", "ipMode": "Other"}),
            at("ipMode", "Unsupported value: \"Other\": supported values: \"Proxy\", \"VIP\""),
        ),
        (json!({"ipMode": "VIP"}), at("ipMode", "Forbidden: may not be specified when `ip` is not set")),
        (
            json!({"hostname": "192.0.2.1"}),
            at("hostname", "Invalid value: \"192.0.2.1\": must be a DNS name, not an IP address"),
        ),
    ] {
        assert_eq!(status_causes(&balancer, json!([point])), [wanted]);
    }
    let mut old = balancer.clone();
    old["status"]["loadBalancer"]["ingress"] = json!([{"ip": "010.0.0.1", "ipMode": "VIP"}]);
    assert_eq!(status_causes(&old, json!([{"ip": "010.0.0.1"}])), [""; 0], "it was there");
    let why = "status.loadBalancer.ingress: Forbidden: may only be used when `spec.type` is 'LoadBalancer'";
    assert_eq!(status_causes(&made(json!({})), json!([{"ip": "x"}])), [why]);
}

#[test]
fn addresses_of_balancers_are_those_of_packets() {
    let mut balancer = made(
        json!({"spec": {"type": "LoadBalancer"}, "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}, {"hostname": "a"}]}}}),
    );
    let points = balancer["status"]["loadBalancer"]["ingress"].clone();
    assert!(same(&points, &json!([{"ip": "192.0.2.1", "ipMode": "VIP"}, {"hostname": "a"}])), "{points:?}");
    let old = balancer.clone();
    set(&mut balancer["spec"], "type", "NodePort");
    kept::prepare(&mut balancer, &old);
    assert!(same(&balancer["status"], &json!({"loadBalancer": {}})), "they go with the type");
}

#[test]
fn the_port_for_health_checks_stays_as_long_as_there_are_some() {
    let old = made(
        json!({"spec": {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 30001, "allocateLoadBalancerNodePorts": false}}),
    );
    let port = |spec: &Value| number(spec, "healthCheckNodePort");
    assert_eq!(port(&is_fine(&old, json!({"spec": {"healthCheckNodePort": null}}))), 30001);
    assert_eq!(port(&is_fine(&old, json!({"spec": {"externalTrafficPolicy": "Cluster"}}))), 0);
    assert_eq!(port(&is_fine(&old, json!({"spec": {"type": "NodePort"}}))), 0);
    refuses(
        &old,
        json!({"spec": {"healthCheckNodePort": 30002}}),
        &["spec.healthCheckNodePort: Forbidden: field is immutable"],
    );
    refuses(
        &old,
        json!({"spec": {"externalTrafficPolicy": "Cluster", "healthCheckNodePort": 30002}}),
        &[
            "spec.healthCheckNodePort: Invalid value: 30002: may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
        ],
    );
}

#[test]
fn what_the_type_has_no_use_for_goes_unless_it_was_changed() {
    let old = made(
        json!({"spec": {"type": "LoadBalancer", "loadBalancerClass": "a/b", "ports": [{"name": "a", "port": 80, "nodePort": 30080}]}}),
    );
    let spec = is_fine(&old, json!({"spec": {"type": "ClusterIP"}}));
    for gone in ["allocateLoadBalancerNodePorts", "loadBalancerClass", "externalTrafficPolicy"] {
        assert!(spec.get(gone).is_none(), "{gone}");
    }
    assert!(spec["ports"][0].get("nodePort").is_none());
    let spec = is_fine(&old, json!({"spec": {"type": "ExternalName", "externalName": "a.example"}}));
    for gone in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        assert!(spec.get(gone).is_none(), "{gone}");
    }
    let port = |node_port: i64| json!([{"name": "a", "port": 80, "nodePort": node_port}]);
    refuses(
        &old,
        json!({"spec": {"type": "ClusterIP", "ports": port(30081), "allocateLoadBalancerNodePorts": false, "loadBalancerClass": "a/c", "externalTrafficPolicy": "Local"}}),
        &[
            "spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'",
            "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
            "spec.allocateLoadBalancerNodePorts: Forbidden: may only be used when `type` is 'LoadBalancer'",
            "spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'",
            "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
        ],
    );
    refuses(
        &old,
        json!({"spec": {"type": "ExternalName", "externalName": "a.example", "clusterIP": "10.96.0.8", "clusterIPs": ["10.96.0.8"], "ipFamilies": ["IPv6"], "ipFamilyPolicy": ""}}),
        &[
            "spec.clusterIPs: Forbidden: may not be set for ExternalName services",
            "spec.ipFamilies: Forbidden: may not be set for ExternalName services",
            "spec.ipFamilyPolicy: Forbidden: may not be set for ExternalName services",
        ],
    );
    let named = json!({"spec": {"type": "ExternalName", "externalName": "a.example", "ports": port(30081)}});
    assert_eq!(number(&is_fine(&old, named)["ports"][0], "nodePort"), 30081, "it may stand there");
}

#[test]
fn without_addresses_outside_there_is_no_traffic_from_outside() {
    let old = made(json!({"spec": {"externalIPs": ["192.0.2.1"]}}));
    assert_eq!(text(&old["spec"], "externalTrafficPolicy"), "Cluster");
    let spec = is_fine(&old, json!({"spec": {"externalIPs": null}}));
    assert!(spec.get("externalTrafficPolicy").is_none());
}

#[test]
fn node_ports_follow_the_names_of_ports() {
    let old = made(
        json!({"spec": {"type": "NodePort", "ports": [{"name": "a", "port": 80, "nodePort": 30080}, {"name": "b", "port": 81, "nodePort": 30081}]}}),
    );
    let ports = |ports: Value| {
        let spec = is_fine(&old, json!({"spec": {"ports": ports}}));
        items(&spec, "ports").iter().map(|port| number(port, "nodePort")).collect::<Vec<_>>()
    };
    assert_eq!(ports(json!([{"name": "b", "port": 8081}, {"name": "a", "port": 80}])), [30081, 30080]);
    assert_eq!(ports(json!([{"name": "c", "port": 80}])), [0], "another name, another port");
    assert_eq!(ports(json!([{"name": "a", "port": 80}, {"name": "c", "port": 90, "nodePort": 30080}])), [0, 30080]);
}

#[test]
fn addresses_stay() {
    let old = made(json!({}));
    let (fixed, path) = ("Invalid value: [\"10.96.0.8\"]: may not change once set", "spec.clusterIPs[0]");
    refuses(&old, json!({"spec": {"clusterIP": "10.96.0.8"}}), &[&format!("{path}: {fixed}")]);
    let both = json!({"spec": {"clusterIP": "10.96.0.8", "clusterIPs": ["10.96.0.8"]}});
    refuses(&old, both, &[&format!("{path}: {fixed}")]);
    let first = "spec.clusterIPs: Invalid value: [\"10.96.0.8\"]: first value must match `clusterIP`";
    refuses(&old, json!({"spec": {"clusterIPs": ["10.96.0.8"]}}), &[first]);
    for given in
        [json!({"clusterIP": null}), json!({"clusterIP": null, "clusterIPs": null}), json!({"clusterIPs": null})]
    {
        let spec = is_fine(&old, json!({"spec": given}));
        assert!(same(&spec, &old["spec"]), "what is left out is as it was: {spec:?}");
    }
    let headless = made(json!({"spec": {"clusterIP": "None"}}));
    let fixed = "Invalid value: [\"None\"]: may not change once set";
    refuses(&old, json!({"spec": {"clusterIP": "None"}}), &[&format!("{path}: {fixed}")]);
    refuses(
        &headless,
        json!({"spec": {"type": "NodePort"}}),
        &["spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services"],
    );
}

/// A Service of a cluster with two families, as it may still be stored.
fn dual(change: Value) -> Value {
    let mut service = made(json!({}));
    let spec = json!({"spec": {"clusterIPs": ["10.96.0.9", "fd00::9"], "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "PreferDualStack"}});
    merge(&mut service, spec);
    merge(&mut service, change);
    service
}

#[test]
fn a_second_family_is_given_up_by_name() {
    let old = dual(json!({}));
    assert!(same(&is_fine(&old, json!({"spec": {"selector": {"app": "b"}}}))["ipFamilies"], &json!(["IPv4", "IPv6"])));
    let spec = is_fine(&old, json!({"spec": {"ipFamilyPolicy": "SingleStack"}}));
    assert!(same(&spec["clusterIPs"], &json!(["10.96.0.9"])) && same(&spec["ipFamilies"], &json!(["IPv4"])));
    refuses(
        &old,
        json!({"spec": {"clusterIPs": ["10.96.0.9"], "ipFamilies": ["IPv4"]}}),
        &[
            "spec.ipFamilyPolicy: Invalid value: \"PreferDualStack\": must be 'SingleStack' to release the secondary cluster IP",
            "spec.ipFamilyPolicy: Invalid value: \"PreferDualStack\": must be 'SingleStack' to release the secondary IP family",
        ],
    );
    let one = made(json!({"spec": {"ipFamilyPolicy": "PreferDualStack"}}));
    assert_eq!(text(&is_fine(&one, json!({"spec": {"ipFamilyPolicy": null}})), "ipFamilyPolicy"), "PreferDualStack");
}

#[test]
fn families_and_addresses_change_place_with_nothing() {
    let update = |now: &Value, before: &Value| {
        let mut causes = Vec::new();
        families::validate_update(&now["spec"], &before["spec"], &mut causes);
        told(causes)
    };
    let (two, one) = (dual(json!({})), made(json!({"spec": {"ipFamilyPolicy": "PreferDualStack"}})));
    assert_eq!(update(&two, &one), [""; 0], "one may become two");
    assert_eq!(
        update(&one, &two),
        [
            "spec.ipFamilyPolicy: Invalid value: \"PreferDualStack\": must be set to 'SingleStack' when releasing the secondary clusterIP",
            "spec.ipFamilyPolicy: Invalid value: \"PreferDualStack\": must be set to 'SingleStack' when releasing the secondary ipFamily",
        ]
    );
    let turned = dual(json!({"spec": {"clusterIPs": ["fd00::9", "10.96.0.9"], "ipFamilies": ["IPv6", "IPv4"]}}));
    let ips = "Invalid value: [\"fd00::9\",\"10.96.0.9\"]: may not change once set";
    let families = "spec.ipFamilies[0]: Invalid value: [\"IPv6\",\"IPv4\"]: may not change once set";
    assert_eq!(
        update(&turned, &two),
        [&format!("spec.clusterIPs[0]: {ips}"), &format!("spec.clusterIPs[1]: {ips}"), families, families]
    );
    let other =
        dual(json!({"spec": {"clusterIPs": ["fd00::9"], "ipFamilies": ["IPv6"], "ipFamilyPolicy": "SingleStack"}}));
    let ips = "Invalid value: [\"fd00::9\"]: may not change once set";
    let wanted = [format!("spec.clusterIPs[0]: {ips}"), format!("spec.ipFamilies[0]: {ips}")];
    assert_eq!(update(&other, &two), wanted, "addresses are shown for families");
    let mut none = two.clone();
    merge(&mut none, json!({"spec": {"clusterIPs": null, "ipFamilies": null}}));
    assert_eq!(
        update(&none, &two),
        [
            "spec.clusterIPs[0]: Invalid value: []: primary clusterIP can not be unset",
            "spec.ipFamilies[0]: Invalid value: []: primary ipFamily can not be unset",
        ]
    );
    let headless =
        |families: Value| made(json!({"spec": {"clusterIP": "None", "selector": null, "ipFamilies": families}}));
    assert_eq!(update(&headless(json!(["IPv6"])), &headless(json!(["IPv4"]))), [""; 0]);
    let name = made(json!({"spec": {"type": "ExternalName", "externalName": "a"}}));
    assert_eq!((update(&two, &name), update(&name, &two)), (Vec::new(), Vec::new()));
}

#[test]
fn addresses_and_ranges_are_strict_but_for_those_that_are_there() {
    let old = made(
        json!({"spec": {"type": "LoadBalancer", "externalIPs": ["::ffff:192.0.2.1"], "loadBalancerSourceRanges": ["10.0.0.5/8"]}}),
    );
    is_fine(&old, json!({"spec": {"loadBalancerSourceRanges": [" 10.0.0.5/8 ", "192.0.2.0/24"]}}));
    refuses(
        &old,
        json!({"spec": {"externalIPs": ["::ffff:192.0.2.1", "192.0.2.010"], "loadBalancerSourceRanges": ["10.0.0.6/8 ", "x"]}}),
        &[
            "spec.externalIPs[1]: Invalid value: \"192.0.2.010\": must not have leading 0s",
            "spec.LoadBalancerSourceRanges[0]: Invalid value: \"10.0.0.6/8\": must not have bits set beyond the prefix length",
            "spec.LoadBalancerSourceRanges[1]: Invalid value: \"x\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
        ],
    );
    let mut sloppy = made(json!({"spec": {"clusterIP": "010.96.0.9"}}));
    merge(
        &mut sloppy,
        json!({"spec": {"clusterIPs": ["010.96.0.9"], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"}}),
    );
    is_fine(&sloppy, json!({"spec": {"selector": {"app": "b"}}}));
}

#[test]
fn annotations_say_what_fields_say() {
    const RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
    let of =
        |kind: &str, ranges: &str| made(json!({"metadata": {"annotations": {RANGES: ranges}}, "spec": {"type": kind}}));
    let path = format!("metadata.annotations[{RANGES}]");
    let bits = format!("{path}: Invalid value: \"10.0.0.5/8\": must not have bits set beyond the prefix length");
    let created = |service: &Value| {
        let mut causes = Vec::new();
        ServiceStrategy.validate_create(service, &mut causes);
        told(causes)
    };
    assert_eq!(created(&of("LoadBalancer", " ")), [""; 0]);
    assert_eq!(created(&of("LoadBalancer", "10.0.0.0/8, 10.0.0.5/8 ")), [bits.as_str()]);
    let only = format!("{path}: Forbidden: may only be used when `type` is 'LoadBalancer'");
    assert_eq!(created(&of("ClusterIP", "")), [only.as_str()]);
    let mut field = of("LoadBalancer", "x");
    set(&mut field["spec"], "loadBalancerSourceRanges", json!(["10.0.0.0/8"]));
    assert_eq!(created(&field), [""; 0], "the field counts");
    is_fine(&of("LoadBalancer", "10.0.0.5/8"), json!({"spec": {"selector": {"app": "b"}}}));

    let (mode, hints) = ("service.kubernetes.io/topology-mode", "service.kubernetes.io/topology-aware-hints");
    let of = |other: &str| made(json!({"metadata": {"annotations": {mode: "Auto", hints: other}}}));
    assert_eq!(created(&of("Auto")), [""; 0]);
    let why = "must match annotations[service.kubernetes.io/topology-aware-hints] when both are specified";
    assert_eq!(created(&of("auto")), [format!("metadata.annotations[{mode}]: Invalid value: \"Auto\": {why}")]);
}
