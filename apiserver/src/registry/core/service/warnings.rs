//! What in a Service does nothing, or will not do for ever (api/service `GetWarningsForService`), in upstream's order.

use crate::registry::fields::{is_set, items, text};
use crate::registry::warnings::Warnings;
use coracle_api::json::Value;
use coracle_api::meta;
use coracle_api::status::FieldPath;

const TOPOLOGY_HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const TOPOLOGY_MODE: &str = "service.kubernetes.io/topology-mode";

pub fn of_service(service: &Value) -> Vec<String> {
    let (mut told, spec, path) = (Warnings::default(), &service["spec"], FieldPath::new("spec"));
    let (kind, cluster_ip) = (text(spec, "type"), text(spec, "clusterIP"));
    let has_external_ips = is_set(spec, "externalIPs");
    if meta::annotation(service, TOPOLOGY_HINTS).is_some() {
        told.add(format!("annotation {TOPOLOGY_HINTS} is deprecated, please use {TOPOLOGY_MODE} instead"));
    }
    if !matches!(cluster_ip, "" | "None") {
        ips(spec, "clusterIPs", &path, &mut told);
    }
    if kind == "ClusterIP" && cluster_ip == "None" {
        let rows = [
            ("loadBalancerIP", is_set(spec, "loadBalancerIP")),
            ("externalIPs", has_external_ips),
            // So upstream names the field.
            ("SessionAffinity", text(spec, "sessionAffinity") != "None"),
        ];
        for (field, _) in rows.into_iter().filter(|(_, is_ignored)| *is_ignored) {
            told.add(format!("spec.{field} is ignored for headless services"));
        }
    }
    ips(spec, "externalIPs", &path, &mut told);
    told.ip(|| path.child("loadBalancerIP"), text(spec, "loadBalancerIP"));
    for (nth, range) in items(spec, "loadBalancerSourceRanges").iter().filter_map(Value::as_str).enumerate() {
        told.cidr(|| path.child("loadBalancerSourceRanges").index(nth), range);
    }
    let is_name = kind == "ExternalName";
    let rows = [
        (is_name && has_external_ips, "spec.externalIPs is ignored when spec.type is \"ExternalName\""),
        (
            !is_name && is_set(spec, "externalName"),
            "spec.externalName is ignored when spec.type is not \"ExternalName\"",
        ),
        (
            text(spec, "trafficDistribution") == "PreferClose",
            "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"",
        ),
        // Since v1.36 (KEP-5707).
        (has_external_ips, "spec.externalIPs is deprecated"),
    ];
    rows.into_iter().filter(|(holds, _)| *holds).for_each(|(_, why)| told.add(why.to_owned()));
    told.into()
}

pub fn of_status(service: &Value) -> Vec<String> {
    let (mut told, path) = (Warnings::default(), FieldPath::new("status.loadBalancer.ingress"));
    for (nth, point) in items(&service["status"]["loadBalancer"], "ingress").iter().enumerate() {
        // The place is upstream's.
        told.ip(|| path.index(nth), text(point, "ip"));
    }
    told.into()
}

fn ips(spec: &Value, list: &str, path: &FieldPath, told: &mut Warnings) {
    for (nth, ip) in items(spec, list).iter().filter_map(Value::as_str).enumerate() {
        told.ip(|| path.child(list).index(nth), ip);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    fn told(spec: Value) -> Vec<String> {
        of_service(&json!({"spec": spec}))
    }

    #[test]
    fn fields_that_do_nothing() {
        let headless = json!({"type": "ClusterIP", "clusterIP": "None", "clusterIPs": ["None"], "sessionAffinity": "ClientIP",
            "loadBalancerIP": "1.2.3.4", "externalIPs": ["1.2.3.4"], "externalName": "a.b", "trafficDistribution": "PreferClose"});
        let expected = [
            "spec.loadBalancerIP is ignored for headless services",
            "spec.externalIPs is ignored for headless services",
            "spec.SessionAffinity is ignored for headless services",
            "spec.externalName is ignored when spec.type is not \"ExternalName\"",
            "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"",
            "spec.externalIPs is deprecated",
        ];
        assert_eq!(told(headless), expected);
        let external = json!({"type": "ExternalName", "externalName": "a.b", "externalIPs": ["1.2.3.4"]});
        assert_eq!(
            told(external),
            ["spec.externalIPs is ignored when spec.type is \"ExternalName\"", "spec.externalIPs is deprecated"]
        );
        let plain = json!({"type": "ClusterIP", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "sessionAffinity": "ClientIP"});
        assert!(told(plain).is_empty());
        let service = json!({"metadata": {"annotations": {TOPOLOGY_HINTS: "auto"}}});
        let why = "annotation service.kubernetes.io/topology-aware-hints is deprecated, please use service.kubernetes.io/topology-mode instead";
        assert_eq!(of_service(&service), [why]);
    }

    #[test]
    fn addresses_in_forms_of_their_own() {
        let service = json!({"type": "LoadBalancer", "clusterIP": "FD00::1", "clusterIPs": ["FD00::1", "010.0.0.1"],
            "externalIPs": ["1.2.3.4", "1.2.3.04"], "loadBalancerIP": "::ffff:1.2.3.4", "loadBalancerSourceRanges": ["1.2.3.4/24"]});
        let told = told(service);
        let places = Vec::from_iter(told.iter().filter_map(|text| Some(text.split_once(": ")?.0)));
        assert_eq!(
            places,
            [
                "spec.clusterIPs[0]",
                "spec.clusterIPs[1]",
                "spec.externalIPs[1]",
                "spec.loadBalancerIP",
                "spec.loadBalancerSourceRanges[0]"
            ]
        );
        let status = json!({"status": {"loadBalancer": {"ingress": [{"hostname": "a"}, {"ip": "FD00::1"}]}}});
        let why = "status.loadBalancer.ingress[1]: IPv6 address \"FD00::1\" should be in RFC 5952 canonical format (\"fd00::1\")";
        assert_eq!(of_status(&status), [why]);
    }
}
