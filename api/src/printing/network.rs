//! Services, endpoints and what routes to them.

use crate::json::Value;

use super::access::{int_at, joined, labels, list_at, map_at, or_none, selector, shown, str_at};
use super::{AGE, NAME, Printer, age, text, wide};
use crate::meta;

pub(super) fn find(group: &str, kind: &str) -> Option<&'static Printer> {
    Some(match (group, kind) {
        ("", "Service") => &SERVICE,
        ("", "Endpoints") => &ENDPOINTS,
        ("discovery.k8s.io", "EndpointSlice") => &ENDPOINT_SLICE,
        ("networking.k8s.io", "Ingress") => &INGRESS,
        ("networking.k8s.io", "IngressClass") => &INGRESS_CLASS,
        ("networking.k8s.io", "NetworkPolicy") => &NETWORK_POLICY,
        ("networking.k8s.io", "ServiceCIDR") => &SERVICE_RANGE,
        ("networking.k8s.io", "IPAddress") => &ADDRESS,
        _ => return None,
    })
}

static SERVICE_RANGE: Printer = Printer {
    columns: &[NAME, text("CIDRs"), AGE],
    cells: |o, now| {
        let ranges = joined(list_at(o, "/spec/cidrs").iter().map(shown));
        vec![meta::name(o).into(), ranges.into(), age(o, now).into()]
    },
};

/// Whose address it is: `services/default/kubernetes`.
static ADDRESS: Printer = Printer {
    columns: &[NAME, text("ParentRef")],
    cells: |o, _| {
        let of = |parent: &Value| {
            let resource = str_at(parent, "/resource").to_lowercase();
            let kind = crate::gvk::qualified(&resource, str_at(parent, "/group"));
            match str_at(parent, "/namespace") {
                "" => format!("{kind}/{}", str_at(parent, "/name")),
                namespace => format!("{kind}/{namespace}/{}", str_at(parent, "/name")),
            }
        };
        let parent = o.pointer("/spec/parentRef").filter(|parent| parent.is_object()).map(of);
        vec![meta::name(o).into(), parent.unwrap_or_else(|| "<none>".into()).into()]
    },
};

static SERVICE: Printer = Printer {
    columns: &[NAME, text("Type"), text("Cluster-IP"), text("External-IP"), text("Port(s)"), AGE, wide("Selector")],
    cells: |o, now| {
        let cluster_ip = match str_at(o, "/spec/clusterIPs/0") {
            "" => str_at(o, "/spec/clusterIP"),
            address => address,
        };
        vec![
            meta::name(o).into(),
            str_at(o, "/spec/type").into(),
            or_none(cluster_ip).into(),
            external_ip(o).into(),
            or_none(&joined(list_at(o, "/spec/ports").iter().map(port))).into(),
            age(o, now).into(),
            labels(map_at(o, "/spec/selector")).into(),
        ]
    },
};

fn port(port: &Value) -> String {
    let (number, protocol) = (int_at(port, "/port"), str_at(port, "/protocol"));
    match int_at(port, "/nodePort") {
        0 => format!("{number}/{protocol}"),
        node => format!("{number}:{node}/{protocol}"),
    }
}

fn external_ip(service: &Value) -> String {
    let external = joined(list_at(service, "/spec/externalIPs").iter().map(shown));
    match str_at(service, "/spec/type") {
        "LoadBalancer" => {
            let ingress = load_balancer(service, 16);
            match (ingress.is_empty(), external.is_empty()) {
                (true, true) => "<pending>".into(),
                (true, false) => external,
                (false, true) => ingress,
                (false, false) => format!("{ingress},{external}"),
            }
        }
        "ExternalName" => str_at(service, "/spec/externalName").to_owned(),
        _ => or_none(&external).to_owned(),
    }
}

/// Addresses of the load balancer, cut to `width` characters as the narrow table does.
fn load_balancer(object: &Value, width: usize) -> String {
    let address = |i: &Value| match str_at(i, "/ip") {
        "" => str_at(i, "/hostname").to_owned(),
        ip => ip.to_owned(),
    };
    let all = joined(list_at(object, "/status/loadBalancer/ingress").iter().map(address));
    if all.chars().count() > width {
        let cut: String = all.chars().take(width - 3).collect();
        return format!("{cut}...");
    }
    all
}

static ENDPOINTS: Printer = Printer {
    columns: &[NAME, text("Endpoints"), AGE],
    cells: |o, now| vec![meta::name(o).into(), endpoints(o).into(), age(o, now).into()],
};

/// Up to three are shown.
const SHOWN: usize = 3;

fn endpoints(o: &Value) -> String {
    let mut all = Vec::new();
    for subset in list_at(o, "/subsets") {
        for address in list_at(subset, "/addresses") {
            let ip = str_at(address, "/ip");
            let ports = list_at(subset, "/ports");
            if ports.is_empty() {
                all.push(ip.to_owned());
            }
            for port in ports {
                let number = int_at(port, "/port");
                all.push(if ip.contains(':') { format!("[{ip}]:{number}") } else { format!("{ip}:{number}") });
            }
        }
    }
    limited(all, "<none>", " + ")
}

fn limited(all: Vec<String>, none: &str, more: &str) -> String {
    match all.len() {
        0 => none.to_owned(),
        n if n > SHOWN => format!("{}{more}{} more...", all[..SHOWN].join(","), n - SHOWN),
        _ => all.join(","),
    }
}

static ENDPOINT_SLICE: Printer = Printer {
    columns: &[NAME, text("AddressType"), text("Ports"), text("Endpoints"), AGE],
    cells: |o, now| {
        let ports = list_at(o, "/ports").iter().map(|port| match port.get("port") {
            Some(number) if !number.is_null() => number.to_string(),
            _ => "*".into(),
        });
        let addresses = list_at(o, "/endpoints").iter().flat_map(|e| list_at(e, "/addresses")).map(shown);
        vec![
            meta::name(o).into(),
            str_at(o, "/addressType").into(),
            limited(ports.collect(), "<unset>", " + ").into(),
            limited(addresses.collect(), "<unset>", " + ").into(),
            age(o, now).into(),
        ]
    },
};

static INGRESS: Printer = Printer {
    columns: &[NAME, text("Class"), text("Hosts"), text("Address"), text("Ports"), AGE],
    cells: |o, now| {
        let hosts: Vec<String> =
            list_at(o, "/spec/rules").iter().map(|r| str_at(r, "/host").to_owned()).filter(|h| !h.is_empty()).collect();
        let ports = if list_at(o, "/spec/tls").is_empty() { "80" } else { "80, 443" };
        vec![
            meta::name(o).into(),
            or_none(str_at(o, "/spec/ingressClassName")).into(),
            limited(hosts, "*", " + ").into(),
            load_balancer(o, 16).into(),
            ports.into(),
            age(o, now).into(),
        ]
    },
};

static INGRESS_CLASS: Printer = Printer {
    columns: &[NAME, text("Controller"), text("Parameters"), AGE],
    cells: |o, now| {
        let parameters = match (str_at(o, "/spec/parameters/apiGroup"), str_at(o, "/spec/parameters/kind")) {
            (_, "") => "<none>".into(),
            (group, kind) => format!("{}/{}", crate::gvk::qualified(kind, group), str_at(o, "/spec/parameters/name")),
        };
        vec![meta::name(o).into(), str_at(o, "/spec/controller").into(), parameters.into(), age(o, now).into()]
    },
};

static NETWORK_POLICY: Printer = Printer {
    columns: &[NAME, text("Pod-Selector"), AGE],
    cells: |o, now| vec![meta::name(o).into(), selector(o.pointer("/spec/podSelector")).into(), age(o, now).into()],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::json;
    use jiff::Timestamp;

    #[test]
    fn a_service() {
        let service = json!({"metadata": {"name": "s"}, "spec": {"type": "NodePort", "clusterIP": "10.0.0.1", "selector": {"b": "2", "a": "1"},
            "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}});
        assert_eq!(
            SERVICE.row(&service, Timestamp::UNIX_EPOCH),
            ["s", "NodePort", "10.0.0.1", "<none>", "80:30080/TCP,53/UDP", "<unknown>", "a=1,b=2"]
        );
        let balanced = json!({"spec": {"type": "LoadBalancer"}, "status": {"loadBalancer": {"ingress": [{"hostname": "a.very.long.host.example"}]}}});
        assert_eq!(external_ip(&balanced), "a.very.long.h...");
        assert_eq!(external_ip(&json!({"spec": {"type": "LoadBalancer"}})), "<pending>");
    }

    #[test]
    fn ranges_and_whose_addresses_are() {
        let at = Timestamp::UNIX_EPOCH;
        let range = json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/16", "fd00::/108"]}});
        assert_eq!(SERVICE_RANGE.row(&range, at), ["kubernetes", "10.96.0.0/16,fd00::/108", "<unknown>"]);
        let of = |parent: Value| ADDRESS.row(&json!({"metadata": {"name": "a"}, "spec": {"parentRef": parent}}), at);
        let service = json!({"resource": "services", "namespace": "default", "name": "kubernetes"});
        assert_eq!(of(service), ["a", "services/default/kubernetes"]);
        let gateway = json!({"group": "net.example", "resource": "Gateways", "name": "g"});
        assert_eq!(of(gateway), ["a", "gateways.net.example/g"]);
        assert_eq!(of(Value::Null), ["a", "<none>"]);
    }

    #[test]
    fn endpoints_are_cut_after_three() {
        let addresses: Vec<_> = (1..=5).map(|i| json!({"ip": format!("10.0.0.{i}")})).collect();
        let object = json!({"subsets": [{"addresses": addresses, "ports": [{"port": 80}]}]});
        assert_eq!(endpoints(&object), "10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 2 more...");
        let slice =
            json!({"addressType": "IPv4", "ports": [{"port": 80}, {}], "endpoints": [{"addresses": ["10.0.0.1"]}]});
        assert_eq!(ENDPOINT_SLICE.row(&slice, Timestamp::UNIX_EPOCH)[1..4], ["IPv4", "80,*", "10.0.0.1"]);
    }
}
