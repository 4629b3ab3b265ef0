//! What is allowed, and told to whoever sends it: over HTTP, in upstream's words and order.

use crate::harness::{Client, Harness, pod};
use http::{Method, StatusCode};
use serde_json::{Value, json};

const NAMESPACED: &str = "/api/v1/namespaces/default";

async fn send(client: &Client, method: Method, path: &str, body: &Value) -> (StatusCode, Vec<String>) {
    let (code, told) = client.send_for_warnings(method, path, "application/json", body.to_string()).await;
    let text = |told: &String| {
        let quoted = told.strip_prefix("299 - \"")?.strip_suffix('"')?;
        Some(quoted.replace("\\\"", "\"").replace("\\\\", "\\"))
    };
    (code, told.iter().map(|told| text(told).unwrap()).collect())
}

/// Creates an object, and then writes it again.
async fn writes(client: &Client, collection: &str, object: Value, created: &[&str], updated: &[&str]) {
    let mut object = object;
    let name = object["metadata"]["name"].as_str().unwrap_or("a").to_owned();
    object["metadata"]["name"] = name.as_str().into();
    assert_eq!(send(client, Method::POST, collection, &object).await, (StatusCode::CREATED, texts(created)));
    let path = format!("{collection}/{name}");
    let (_, found) = client.get(&path).await;
    assert_eq!(send(client, Method::PUT, &path, &found).await, (StatusCode::OK, texts(updated)), "{path}");
    client.delete(&path).await;
}

fn texts(told: &[&str]) -> Vec<String> {
    told.iter().map(|text| (*text).to_owned()).collect()
}

#[tokio::test]
async fn pods_and_their_templates() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let mut object = pod("a.b");
    let container = object["spec"]["containers"][0]["name"].as_str().unwrap().to_owned();
    let armor = format!("container.apparmor.security.beta.kubernetes.io/{container}");
    object["metadata"]["annotations"] = json!({armor.as_str(): "unconfined"});
    object["spec"]["containers"][0]["env"] = json!([{"name": "A"}, {"name": "A"}]);
    let deprecated =
        format!("metadata.annotations[{armor}]: deprecated since v1.30; use the \"appArmorProfile\" field instead");
    let hides = "containers[0].env[1]: hides previous definition of \"A\", which may be dropped when using apply";
    let expected = [
        &*deprecated,
        "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [must not contain dots]",
        &format!("spec.{hides}"),
    ];
    let pods = format!("{NAMESPACED}/pods");
    assert_eq!(send(&client, Method::POST, &pods, &object).await, (StatusCode::CREATED, texts(&expected)));
    let (_, mut found) = client.get(&format!("{pods}/a.b")).await;
    assert_eq!(send(&client, Method::PUT, &format!("{pods}/a.b"), &found).await, (StatusCode::OK, vec![]));
    found["status"]["podIPs"] = json!([{"ip": "FD00::1"}]);
    found["status"]["podIP"] = "FD00::1".into();
    let why = "status.podIPs[0].ip: IPv6 address \"FD00::1\" should be in RFC 5952 canonical format (\"fd00::1\")";
    let path = format!("{pods}/a.b/status");
    assert_eq!(send(&client, Method::PUT, &path, &found).await, (StatusCode::OK, texts(&[why])));

    let mut template = json!({"spec": object["spec"]});
    template["metadata"] = json!({"labels": {"a": "b"}, "annotations": object["metadata"]["annotations"]});
    let spec = json!({"selector": {"matchLabels": {"a": "b"}}, "serviceName": "a", "revisionHistoryLimit": -1, "template": template,
        "volumeClaimTemplates": [{"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1500m"}}}}]});
    let (of_container, of_armor) = (format!("spec.template.spec.{hides}"), format!("spec.template.{deprecated}"));
    let lasts =
        "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended";
    let size = "spec.volumeClaimTemplates[0].resources.requests[storage]: fractional byte value \"1500m\" is invalid, must be an integer";
    let sets = "/apis/apps/v1/namespaces/default/statefulsets";
    writes(&client, sets, json!({"spec": spec}), &[&of_armor, &of_container, size, lasts], &[lasts]).await;
    let controller = json!({"metadata": {"name": "a.b"}, "spec": {"template": template}});
    let (code, told) = send(&client, Method::POST, &format!("{NAMESPACED}/replicationcontrollers"), &controller).await;
    assert_eq!((code, told.len()), (StatusCode::CREATED, 3));
    assert!(told[0].starts_with("metadata.name: this is used in Pod names") && told[1] == of_armor, "{told:?}");
}

#[tokio::test]
async fn what_is_refused_later_has_them_too() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let secrets = format!("{NAMESPACED}/secrets");
    let secret = |name: &str| json!({"metadata": {"name": name}, "type": "kubernetes.io/tls", "stringData": {"tls.crt": "", "tls.key": "x"}});
    let told = texts(&["tls: failed to find any PEM data in certificate input"]);
    assert_eq!(send(&client, Method::POST, &secrets, &secret("a")).await, (StatusCode::CREATED, told.clone()));
    assert_eq!(send(&client, Method::POST, &secrets, &secret("a")).await, (StatusCode::CONFLICT, told.clone()));
    let elsewhere = secrets.replace("default", "nowhere");
    assert_eq!(send(&client, Method::POST, &elsewhere, &secret("a")).await, (StatusCode::NOT_FOUND, vec![]));
}

#[tokio::test]
async fn many_are_cut() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let mut object = pod("a");
    object["spec"]["containers"][0]["env"] =
        (0..20_000).map(|nth| json!({"name": format!("V{}", nth / 2)})).collect::<Vec<_>>().into();
    let (code, told) = send(&client, Method::POST, &format!("{NAMESPACED}/pods"), &object).await;
    let length: usize = told.iter().map(String::len).sum();
    assert!(code == StatusCode::CREATED && (4096..4096 + 256).contains(&length), "{length}");
}

#[tokio::test]
async fn services_and_where_they_lead() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let services = format!("{NAMESPACED}/services");
    let service = json!({"spec": {"clusterIP": "None", "sessionAffinity": "ClientIP", "externalIPs": ["1.2.3.4"], "ports": [{"port": 80}]}});
    let told = [
        "spec.externalIPs is ignored for headless services",
        "spec.SessionAffinity is ignored for headless services",
        "spec.externalIPs is deprecated",
    ];
    writes(&client, &services, service, &told, &told).await;
    let service = json!({"metadata": {"name": "b"}, "spec": {"type": "LoadBalancer", "ports": [{"port": 80}], "externalIPs": ["2001:DB8::1"]}});
    let told = [
        "spec.externalIPs[0]: IPv6 address \"2001:DB8::1\" should be in RFC 5952 canonical format (\"2001:db8::1\")",
        "spec.externalIPs is deprecated",
    ];
    assert_eq!(send(&client, Method::POST, &services, &service).await, (StatusCode::CREATED, texts(&told)));
    let (_, mut found) = client.get(&format!("{services}/b")).await;
    found["status"]["loadBalancer"]["ingress"] = json!([{"ip": "2001:DB8::2"}]);
    let why = "status.loadBalancer.ingress[0]: IPv6 address \"2001:DB8::2\" should be in RFC 5952 canonical format (\"2001:db8::2\")";
    let path = format!("{services}/b/status");
    assert_eq!(send(&client, Method::PUT, &path, &found).await, (StatusCode::OK, texts(&[why])));

    let long = |path: &str| {
        format!("{path}: IPv6 address \"2001:DB8::1\" should be in RFC 5952 canonical format (\"2001:db8::1\")")
    };
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    let slice = |kind: &str, address: &str| json!({"addressType": kind, "endpoints": [{"addresses": [address]}]});
    let told = long("endpoints[0].addresses[0]");
    writes(&client, slices, slice("IPv6", "2001:DB8::1"), &[&told], &[&told]).await;
    writes(&client, slices, slice("FQDN", "a.b"), &["spec.addressType: FQDN endpoints are deprecated"], &[]).await;
    let mut managed = slice("IPv6", "2001:DB8::1");
    managed["metadata"] =
        json!({"labels": {"endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"}});
    writes(&client, slices, managed, &[], &[]).await;

    let of_kind = "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice";
    let mut endpoints = json!({"metadata": {"labels": {}}, "subsets": [{"addresses": [{"ip": "1.2.3.4"}], "notReadyAddresses": [{"ip": "2001:DB8::1"}], "ports": [{"port": 80}]}]});
    let told = [of_kind, &*long("subsets[0].notReadyAddresses[0].ip")];
    let path = format!("{NAMESPACED}/endpoints");
    writes(&client, &path, endpoints.clone(), &told, &told).await;
    endpoints["metadata"]["labels"]["endpoints.kubernetes.io/managed-by"] = "endpoint-controller".into();
    writes(&client, &path, endpoints, &[of_kind], &[of_kind]).await;

    let policies = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies";
    let blocks = json!({"spec": {"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}, {"ipBlock": {"cidr": "2001:DB8::/32", "except": ["2001:DB8:1::/48"]}}]}],
        "egress": [{"to": [{"ipBlock": {"cidr": "2001:DB8::/32"}}]}]}});
    let long = |path: &str, found: &str, plain: &str| {
        format!("spec.{path}: IPv6 CIDR value \"{found}\" should be in RFC 5952 canonical format (\"{plain}\")")
    };
    let told = [
        &*long("ingress[0].from[1].ipBlock.cidr", "2001:DB8::/32", "2001:db8::/32"),
        &*long("ingress[0].from[1].ipBlock.except[0]", "2001:DB8:1::/48", "2001:db8:1::/48"),
        &*long("egress[0].to[0].ipBlock.cidr", "2001:DB8::/32", "2001:db8::/32"),
    ];
    writes(&client, policies, blocks, &told, &told).await;
}

#[tokio::test]
async fn nodes_accounts_and_storage() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let node = json!({"spec": {"externalID": "x", "configSource": {}, "podCIDRs": ["2001:DB8::/64"], "podCIDR": "2001:DB8::/64"}});
    let told = [
        "spec.externalID: this field is deprecated, and is unused by Kubernetes",
        "spec.podCIDRs[0]: IPv6 CIDR value \"2001:DB8::/64\" should be in RFC 5952 canonical format (\"2001:db8::/64\")",
    ];
    writes(&client, "/api/v1/nodes", node, &told, &told).await;
    let account = json!({"metadata": {"annotations": {"kubernetes.io/enforce-mountable-secrets": "false"}}});
    let told = "metadata.annotations[kubernetes.io/enforce-mountable-secrets]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets";
    writes(&client, &format!("{NAMESPACED}/serviceaccounts"), account, &[told], &[]).await;

    let class = "metadata.annotations[volume.beta.kubernetes.io/storage-class]: deprecated since v1.8; use \"storageClassName\" attribute instead";
    let annotations = json!({"annotations": {"volume.beta.kubernetes.io/storage-class": "a"}});
    let term = json!({"matchExpressions": [{"key": "failure-domain.beta.kubernetes.io/zone", "operator": "In", "values": ["a"]}]});
    let volume = json!({"metadata": annotations, "spec": {"capacity": {"storage": "1"}, "accessModes": ["ReadWriteOnce"],
        "persistentVolumeReclaimPolicy": "Recycle", "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}}, "nfs": {"server": "a", "path": "/a"}}});
    let told = [
        class,
        "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.",
        "spec.nodeAffinity.required.nodeSelectorTerms[0].matchExpressions[0].key: failure-domain.beta.kubernetes.io/zone is deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
    ];
    writes(&client, "/api/v1/persistentvolumes", volume, &told, &told).await;
    let volume = json!({"metadata": {"name": "b"}, "spec": {"capacity": {"storage": "1"}, "accessModes": ["ReadWriteOnce"],
        "rbd": {"monitors": ["a"], "image": "a", "pool": "a", "user": "a", "keyring": "a"}}});
    let told = "spec.rbd: deprecated in v1.28, non-functional in v1.31+";
    writes(&client, "/api/v1/persistentvolumes", volume, &[told], &[told]).await;
    let claim = json!({"metadata": annotations, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1500m"}, "limits": {"storage": "2500m"}}}});
    let fraction = |list: &str, amount: &str| {
        format!("spec.resources.{list}[storage]: fractional byte value \"{amount}\" is invalid, must be an integer")
    };
    let told = [class, &fraction("requests", "1500m"), &fraction("limits", "2500m")];
    writes(&client, &format!("{NAMESPACED}/persistentvolumeclaims"), claim, &told, &told).await;

    let class = json!({"provisioner": "a.b/c", "allowedTopologies": [{"matchLabelExpressions": [
        {"key": "failure-domain.beta.kubernetes.io/zone", "values": ["a"]}]}]});
    let told = "allowedTopologies[0].matchLabelExpressions[0].key: deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead";
    writes(&client, "/apis/storage.k8s.io/v1/storageclasses", class, &[told], &[told]).await;
    let capacity = json!({"storageClassName": "a", "nodeTopology": {"matchLabels": {"beta.kubernetes.io/os": "linux"},
        "matchExpressions": [{"key": "beta.kubernetes.io/arch", "operator": "Exists"}]}});
    let told = [
        "nodeTopology.matchExpressions[0].key: beta.kubernetes.io/arch is deprecated since v1.14; use \"kubernetes.io/arch\" instead",
        "nodeTopology.matchLabels.beta.kubernetes.io/os: deprecated since v1.14; use \"kubernetes.io/os\" instead",
    ];
    writes(&client, "/apis/storage.k8s.io/v1/namespaces/default/csistoragecapacities", capacity, &told, &[]).await;
    let class = json!({"handler": "a", "scheduling": {"nodeSelector": {"beta.kubernetes.io/os": "linux"}}});
    let told = "scheduling.nodeSelector: deprecated since v1.14; use \"kubernetes.io/os\" instead";
    writes(&client, "/apis/node.k8s.io/v1/runtimeclasses", class, &[told], &[told]).await;
}
