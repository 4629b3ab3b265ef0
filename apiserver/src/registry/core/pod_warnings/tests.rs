use super::*;
use coracle_api::json::json;

fn told(pod: Value) -> Vec<String> {
    let mut pod = pod;
    pod["metadata"]["name"] = "p".into();
    of_pod(&pod)
}

/// What is told of one container.
fn of_container(container: Value) -> Vec<String> {
    told(json!({"metadata": {}, "spec": {"containers": [container]}}))
}

#[test]
fn what_was_hardly_meant_is_told_in_upstreams_order() {
    let pod = json!({"metadata": {"annotations": {
        "container.seccomp.security.alpha.kubernetes.io/c": "x", "seccomp.security.alpha.kubernetes.io/pod": "x",
        "container.seccomp.security.alpha.kubernetes.io/other": "x",
        "container.apparmor.security.beta.kubernetes.io/c": "unconfined",
        "security.alpha.kubernetes.io/sysctls": "a=b", "scheduler.alpha.kubernetes.io/critical-pod": "", "a": "b"}}, "spec": {
        "nodeSelector": {"beta.kubernetes.io/os": "linux", "disk": "ssd"},
        "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference":
            {"matchExpressions": [{"key": "failure-domain.beta.kubernetes.io/zone", "operator": "Exists"}]}}]},
            "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"labelSelector": {}}, {}]},
            "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"podAffinityTerm": {"labelSelector": null}}]}},
        "topologySpreadConstraints": [{"topologyKey": "beta.kubernetes.io/arch"}, {"topologyKey": "a", "labelSelector": {}}],
        "volumes": [{"name": "v", "emptyDir": {}}, {"name": "g", "gitRepo": {"repository": "x"}}, {"name": "s", "storageos": {}},
            {"name": "e", "ephemeral": {"volumeClaimTemplate": {"spec": {"resources": {"requests": {"storage": "0.5"}}}}}}],
        "hostAliases": [{"ip": "FD00::1"}, {"ip": "1.2.3.4"}, {"ip": "1.2.3.4"}],
        "imagePullSecrets": [{"name": "a"}, {}, {"name": "a"}],
        "overhead": {"memory": "0.1", "cpu": "0.1"},
        "terminationGracePeriodSeconds": -1,
        "dnsConfig": {"nameservers": ["1.2.3.4", "01.2.3.4"]},
        "containers": [{"name": "c", "env": [{"name": "A"}, {"name": "B"}, {"name": "A"}],
            "ports": [{"containerPort": 80}, {"containerPort": 80}, {"containerPort": 81}],
            "resources": {"limits": {"memory": "0.1", "cpu": "100m", "ephemeral-storage": "1m"},
                "requests": {"memory": "10m", "ephemeral-storage": "1"}}}]}});
    let expected = [
        "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
        "spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchExpressions[0].key: failure-domain.beta.kubernetes.io/zone is deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
        "spec.topologySpreadConstraints[0].topologyKey: beta.kubernetes.io/arch is deprecated since v1.14; use \"kubernetes.io/arch\" instead",
        "spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod",
        "metadata.annotations[scheduler.alpha.kubernetes.io/critical-pod]: non-functional in v1.16+; use the \"priorityClassName\" field instead",
        "metadata.annotations[security.alpha.kubernetes.io/sysctls]: non-functional in v1.11+; use the \"sysctls\" field instead",
        "spec.volumes[1].gitRepo: deprecated in v1.11, and disabled by default in v1.33+",
        "spec.volumes[2].storageOS: deprecated in v1.22, non-functional in v1.25+",
        "spec.volumes[3].ephemeral.volumeClaimTemplate.spec.resources.requests[storage]: fractional byte value \"500m\" is invalid, must be an integer",
        "spec.hostAliases[2].ip: duplicate ip \"1.2.3.4\"",
        "spec.imagePullSecrets[2].name: duplicate name \"a\"",
        "spec.imagePullSecrets[1].name: invalid empty name \"\"",
        "spec.overhead[memory]: fractional byte value \"100m\" is invalid, must be an integer",
        "metadata.annotations[seccomp.security.alpha.kubernetes.io/pod]: non-functional in v1.27+; use the \"seccompProfile\" field instead",
        "metadata.annotations[container.seccomp.security.alpha.kubernetes.io/c]: non-functional in v1.27+; use the \"seccompProfile\" field instead",
        "spec.containers[0].resources.limits[memory]: fractional byte value \"100m\" is invalid, must be an integer",
        "spec.containers[0].resources.requests[memory]: fractional byte value \"10m\" is invalid, must be an integer",
        "spec.containers[0].resources.limits[ephemeral-storage]: fractional byte value \"1m\" is invalid, must be an integer",
        "spec.containers[0].env[2]: hides previous definition of \"A\", which may be dropped when using apply",
        "spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]",
        "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1",
        "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[1].labelSelector: a null labelSelector results in matching no pod",
        "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.labelSelector: a null labelSelector results in matching no pod",
        "spec.dnsConfig.nameservers[1]: non-standard IP address \"01.2.3.4\" will be considered invalid in a future Kubernetes release: use \"1.2.3.4\"",
        "spec.hostAliases[0].ip: IPv6 address \"FD00::1\" should be in RFC 5952 canonical format (\"fd00::1\")",
    ];
    assert_eq!(told(pod.clone()), expected);

    // A template's are the same at another place, and its AppArmor annotations are told.
    let object = json!({"metadata": {"generation": 1}, "spec": {"template": pod}});
    let of_template = |old: Option<&Value>| super::of_template(&object, old, "/spec/template");
    let all = of_template(None);
    let armor = "spec.template.metadata.annotations[container.apparmor.security.beta.kubernetes.io/c]: deprecated since v1.30; use the \"appArmorProfile\" field instead";
    assert_eq!(all[15], armor);
    assert!(all.iter().all(|text| text.starts_with("spec.template.")) && all.len() == expected.len() + 1, "{all:?}");
    assert!(of_template(Some(&object)).is_empty(), "the template is what it was");
    assert_eq!(of_template(Some(&json!({"metadata": {"generation": 0}}))), all);
}

#[test]
fn profiles_in_fields_make_up_for_annotations() {
    let told = |of_pod: Value, of_container: Value| {
        let annotations = json!({"seccomp.security.alpha.kubernetes.io/pod": "", "container.seccomp.security.alpha.kubernetes.io/c": "",
            "container.apparmor.security.beta.kubernetes.io/c": ""});
        let pod = json!({"metadata": {"annotations": annotations}, "spec": {"securityContext": of_pod,
            "initContainers": [{"name": "c", "securityContext": of_container}]}});
        super::of_template(&json!({"template": pod}), None, "/template").len()
    };
    let (seccomp, armor) = (json!({"seccompProfile": {}}), json!({"appArmorProfile": {}}));
    assert_eq!(told(Value::Null, Value::Null), 3);
    assert_eq!(told(seccomp.clone(), Value::Null), 2, "the container's own is none");
    assert_eq!(told(seccomp, json!({"seccompProfile": {}})), 1);
    assert_eq!((told(armor.clone(), Value::Null), told(Value::Null, armor)), (2, 2));
}

#[test]
fn names_that_are_no_labels() {
    let of = |name: &str| of_pod(&json!({"metadata": {"name": name}, "spec": {}}));
    let why = "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [must not contain dots]";
    assert_eq!(of("a.b"), [why]);
    let long = of(&format!("{}.b", "a".repeat(63)));
    assert!(long[0].ends_with(": [must be no more than 63 characters must not contain dots]"), "{long:?}");
    assert!(of("a").is_empty());
}

#[test]
fn variables_that_build_upon_others() {
    let of = |again: Value| of_container(json!({"env": [{"name": "PATH", "value": "a"}, again]})).len();
    assert_eq!(of(json!({"name": "PATH", "value": "$(PATH):b"})), 0);
    assert_eq!(of(json!({"name": "OTHER", "value": "a"})), 0);
    for again in
        [json!({"value": "$(PATH)"}), json!({"value": "b"}), json!({}), json!({"value": "$(PATH):b", "valueFrom": {}})]
    {
        let mut again = again;
        again["name"] = "PATH".into();
        assert_eq!(of(again.clone()), 1, "{again}");
    }
}

#[test]
fn ports_that_clash() {
    let port = |host_ip: &str, host_port: i64| json!({"name": "", "containerPort": 80, "protocol": "TCP", "hostIP": host_ip, "hostPort": host_port});
    let of = |first: Value, second: Value| {
        told(
            json!({"metadata": {}, "spec": {"initContainers": [{"ports": [first]}], "containers": [{"ports": [second]}]}}),
        )
    };
    let why = |what: &str| {
        vec![format!("spec.containers[0].ports[0]: {what} port definition with spec.initContainers[0].ports[0]")]
    };
    assert_eq!(of(port("", 0), port("", 0)), why("duplicate"));
    assert_eq!(of(port("1.2.3.4", 80), port("1.2.3.4", 80)), why("duplicate"));
    assert_eq!(of(port("", 80), port("", 80)), why("duplicate"));
    assert_eq!(of(port("", 0), port("", 80)), why("overlapping"));
    assert_eq!(of(port("1.2.3.4", 80), port("", 0)), why("overlapping"));
    assert_eq!(of(port("1.2.3.4", 80), port("", 80)), why("dangerously ambiguous"));
    assert_eq!(of(port("", 80), port("1.2.3.4", 80)), why("dangerously ambiguous"));
    assert!(of(port("1.2.3.4", 80), port("1.2.3.5", 80)).is_empty());
    assert!(of(port("", 80), port("", 81)).is_empty());
    let mut udp = port("", 80);
    udp["protocol"] = "UDP".into();
    assert!(of(port("", 80), udp).is_empty());
    assert_eq!(
        of(json!({}), port("1.2.3.4", 0)),
        [
            "spec.containers[0].ports[0]: hostIP set without hostPort: {Name: HostPort:0 ContainerPort:80 Protocol:TCP HostIP:1.2.3.4}"
        ]
    );
    // Each clashes with all before it.
    let all = of_container(json!({"ports": [port("", 0), port("", 80), port("1.2.3.4", 80), port("1.2.3.5", 80)]}));
    let at = |nth: usize, what: &str, before: usize| {
        format!("spec.containers[0].ports[{nth}]: {what} port definition with spec.containers[0].ports[{before}]")
    };
    let expected = [
        at(1, "overlapping", 0),
        at(2, "overlapping", 0),
        at(2, "dangerously ambiguous", 1),
        at(3, "overlapping", 0),
        at(3, "dangerously ambiguous", 1),
    ];
    assert_eq!(all, expected);
    let all = of_container(json!({"ports": [port("", 80), port("", 0), port("", 80)]}));
    assert_eq!(all, [at(1, "overlapping", 0), at(2, "duplicate", 0), at(2, "overlapping", 1)]);
}

#[test]
fn names_of_ports_are_one_ports() {
    let port = |name: &str, number: i64| json!({"ports": [{"name": name, "containerPort": number, "protocol": "TCP"}]});
    let (mut stays, passes) = (port("a", 1), port("a", 2));
    stays["restartPolicy"] = "Always".into();
    let found = told(json!({"metadata": {}, "spec": {"initContainers": [passes, stays],
        "containers": [port("a", 3), port("", 4), port("b", 5), port("a", 6)]}}));
    let why = |at: &str| {
        let first = "spec.initContainers[1].ports[0]";
        format!(
            "{at}.ports[0]: duplicate port name \"a\" with {first}, services and probes that select ports by name will use {first}"
        )
    };
    assert_eq!(found, [why("spec.containers[0]"), why("spec.containers[3]")]);
}

#[test]
fn files_in_each_others_way() {
    let paths = |paths: &[&str]| Value::from(paths.iter().map(|path| json!({"path": path})).collect::<Vec<_>>());
    let of = |volume: Value| {
        let mut volume = volume;
        volume["name"] = "v".into();
        told(json!({"metadata": {}, "spec": {"volumes": [volume]}}))
    };
    let map = of(json!({"configMap": {"name": "m", "items": paths(&["a/b", "ab", "a/b/c/", "", "/", "a", "a/b"])}}));
    let pair =
        |this: &str, other: &str| format!("volume \"v\" (ConfigMap \"m\"): overlapping paths: {this:?} with {other:?}");
    let expected = [
        pair("a/b/c", "a/b"),
        pair("a", "a/b"),
        pair("a", "a/b/c"),
        pair("a/b", "a/b"),
        pair("a/b", "a/b/c"),
        pair("a/b", "a"),
    ];
    assert_eq!(map, expected);
    assert_eq!(
        of(json!({"secret": {"secretName": "s", "items": paths(&["x", "x"])}})),
        ["volume \"v\" (Secret \"s\"): overlapping paths: \"x\" with \"x\""]
    );
    assert_eq!(
        of(json!({"downwardAPI": {"items": paths(&["x", "x/y"])}})),
        ["volume \"v\" (DownwardAPI): overlapping paths: \"x/y\" with \"x\""]
    );
    let projected = of(json!({"projected": {"sources": [
        {"configMap": {"name": "m", "items": paths(&["a"])}}, {}, {"secret": {"name": "s", "items": paths(&["a"])}},
        {"serviceAccountToken": {"path": "a/t"}}, {"clusterTrustBundle": {"signerName": "x/y", "path": "t"}},
        {"podCertificate": {"keyPath": "t", "certificateChainPath": "c", "credentialBundlePath": "c"}}]}}));
    let pair = |this: &str, other: &str| format!("volume \"v\" (Projected): overlapping paths: {this} with {other}");
    let expected = [
        "volume \"v\" (Projected) has no sources provided".to_owned(),
        pair("\"a\" (Secret \"s\")", "\"a\" (ConfigMap \"m\")"),
        pair("\"a/t\" (ServiceAccountToken)", "\"a\" (ConfigMap \"m\")"),
        pair("\"a/t\" (ServiceAccountToken)", "\"a\" (Secret \"s\")"),
        pair("\"t\" (PodCertificate key)", "\"t\" (ClusterTrustBundle \"x/y\")"),
        pair("\"c\" (PodCertificate credential bundle)", "\"c\" (PodCertificate chain)"),
    ];
    assert_eq!(projected, expected);
}

/// Each with each would be minutes.
#[test]
fn long_lists_are_looked_through_once() {
    let many = 100_000;
    let ports: Vec<Value> = (0..many).map(|nth| json!({"containerPort": 1, "hostPort": nth + 1})).collect();
    assert!(of_container(json!({"ports": ports})).is_empty());
    let at = |nth: usize| format!("10.{}.{}.{}", nth >> 16, nth >> 8 & 255, nth & 255);
    let ports: Vec<Value> =
        (0..many).map(|nth| json!({"containerPort": 1, "hostPort": 1, "hostIP": at(nth)})).collect();
    assert!(of_container(json!({"ports": ports})).is_empty());
    let ports = vec![json!({"containerPort": 1}); many];
    assert!((16..1000).contains(&of_container(json!({"ports": ports})).len()));
    let names: Vec<Value> = (0..many).map(|nth| json!({"name": format!("n{nth}")})).collect();
    assert!(of_container(json!({"env": names})).is_empty());

    let volume = |items: Vec<Value>| {
        told(json!({"metadata": {}, "spec": {"volumes": [{"name": "v", "configMap": {"items": items}}]}})).len()
    };
    assert_eq!(volume((0..many).map(|nth| json!({"path": format!("a/{nth}")})).collect()), 0);
    assert_eq!(volume(vec![json!({"path": "a"}); many]), 1);
    // Deep paths beside each other.
    let deep = |nth: usize| json!({"path": format!("{}{nth}", "a/".repeat(1000))});
    assert_eq!(volume((0..2000).map(deep).collect()), 0);
    assert!((16..1000).contains(&volume((1..2000).map(|nth| json!({"path": "a/".repeat(nth)})).collect())));
}
