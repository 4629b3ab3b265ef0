//! Checks of what lets requests in, and of who is asked about them, in the words that kube-apiserver (1.20) answered the
//! same requests with.

use crate::harness::Harness;
use crate::validation::{causes, creates};
use http::StatusCode;
use serde_json::{Value, json};

#[tokio::test]
async fn ingresses() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let group = "/apis/networking.k8s.io/v1";
    let path = format!("{group}/namespaces/default/ingresses");
    let good = json!({"metadata": {"name": "a"}, "spec": {"tls": [{"hosts": ["*.b.c", "1.2.3.4"], "secretName": "s"}],
        "defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}});
    let backend = |backend: Value| json!({"spec": {"defaultBackend": backend}});
    let rows: [(Value, &[&str]); 7] = [
        (
            backend(json!({"service": null})),
            &["spec.defaultBackend: Invalid value: \"\": resource or service backend is required"],
        ),
        (
            backend(json!({"resource": {"kind": "K", "name": "n"}})),
            &["spec.defaultBackend: Invalid value: \"\": cannot set both resource and service backends"],
        ),
        (
            backend(json!({"service": {"port": {"number": null}}})),
            &["spec.defaultBackend: Required value: port name or number is required"],
        ),
        (
            backend(json!({"service": {"port": {"name": "x"}}})),
            &["spec.defaultBackend: Invalid value: \"\": cannot set both port name & port number"],
        ),
        (
            backend(json!({"service": null, "resource": {"kind": "K/x", "name": ""}})),
            &[
                "spec.defaultBackend.resource.kind: Invalid value: \"K/x\": may not contain '/'",
                "spec.defaultBackend.resource.name: Required value: name is required",
            ],
        ),
        (
            json!({"spec": {"rules": [{"host": "a.*.b", "http": {"paths": [{"pathType": "", "path": "/", "backend": good["spec"]["defaultBackend"]}]}}]}}),
            &[
                "spec.rules[0].host: Invalid value: \"a.*.b\": a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
                "spec.rules[0].http.paths[0].pathType: Unsupported value: \"\": supported values: \"Exact\", \"ImplementationSpecific\", \"Prefix\"",
            ],
        ),
        (
            json!({"spec": {"tls": [{"secretName": "S"}]}}),
            &[
                "spec.tls[0].secretName: Invalid value: \"S\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            ],
        ),
    ];
    creates(&client, &path, &good, &rows).await;
    client.post(&path, &good).await;
    let status = json!({"status": {"loadBalancer": {"ingress": [{"hostname": "1.2.3.4"}]}}});
    let (_, answer) = client.merge(&format!("{path}/a/status"), &status).await;
    let why = "must be a DNS name, not an IP address";
    assert_eq!(
        causes(&answer),
        [format!("status.loadBalancer.ingress[0].hostname: Invalid value: \"1.2.3.4\": {why}")]
    );
    let class =
        json!({"metadata": {"name": "a"}, "spec": {"controller": "a.b/c", "parameters": {"kind": "K", "name": "n"}}});
    let rows: [(Value, &[&str]); 2] = [
        (
            json!({"spec": {"controller": "a.b/c d", "parameters": {"kind": null}}}),
            &[
                "spec.controller: Invalid value: \"c d\": Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')",
                "spec.parameters.kind: Required value: kind is required",
            ],
        ),
        (
            json!({"spec": {"controller": format!("a.b/{}", "c".repeat(250))}}),
            &["spec.controller: Too long: may not be more than 250 bytes"],
        ),
    ];
    creates(&client, &format!("{group}/ingressclasses"), &class, &rows).await;
}

#[tokio::test]
async fn webhooks() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
    let hook = json!({"name": "a.b.c", "sideEffects": "None", "admissionReviewVersions": ["v1"], "clientConfig": {"url": "https://a/b"},
        "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods", "pods/status"]}]});
    let good = json!({"metadata": {"name": "a"}, "webhooks": [hook]});
    let with = |change: Value| {
        let mut hook = hook.clone();
        json_patch::merge(&mut hook, &change);
        json!({"webhooks": [hook]})
    };
    let url = |url: &str| with(json!({"clientConfig": {"url": url}}));
    let service = |service: Value| with(json!({"clientConfig": {"url": null, "service": service}}));
    let rule = |resources: Value| {
        with(
            json!({"rules": [{"operations": ["*", "CREATE"], "apiGroups": ["*"], "apiVersions": [""], "resources": resources}]}),
        )
    };
    const SCHEME: &str = "webhooks[0].clientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]";
    const OPERATIONS: &str = "webhooks[0].rules[0].operations: Invalid value: [\"*\",\"CREATE\"]: if '*' is present, must not specify other operations";
    const VERSION: &str = "webhooks[0].rules[0].apiVersions[0]: Required value";
    let rows: [(Value, &[&str]); 7] = [
        (url("http://x"), &[SCHEME]),
        (
            url("https://u:p@x?a=b#c"),
            &[
                "webhooks[0].clientConfig.url: Invalid value: \"u:p\": user information is not permitted in the URL",
                "webhooks[0].clientConfig.url: Invalid value: \"c\": fragments are not permitted in the URL",
                "webhooks[0].clientConfig.url: Invalid value: \"a=b\": query parameters are not permitted in the URL",
            ],
        ),
        (
            service(json!({"port": 0, "path": "x"})),
            &[
                "webhooks[0].clientConfig.service.name: Required value: service name is required",
                "webhooks[0].clientConfig.service.namespace: Required value: service namespace is required",
                "webhooks[0].clientConfig.service.port: Invalid value: 0: port is not valid: must be between 1 and 65535, inclusive",
                "webhooks[0].clientConfig.service.path: Invalid value: \"x\": must start with a '/'",
                "webhooks[0].clientConfig.service.path: Invalid value: \"x\": segment[0] may not be empty",
            ],
        ),
        (
            rule(json!(["*", "pods"])),
            &[
                OPERATIONS,
                VERSION,
                "webhooks[0].rules[0].resources: Invalid value: [\"*\",\"pods\"]: if '*' is present, must not specify other resources without subresources",
            ],
        ),
        (
            rule(json!(["pods/*", "pods/x"])),
            &[
                OPERATIONS,
                VERSION,
                "webhooks[0].rules[0].resources[1]: Invalid value: \"pods/x\": if 'pods/*' is present, must not specify pods/x",
            ],
        ),
        (
            with(json!({"admissionReviewVersions": ["v1", "v1"]})),
            &["webhooks[0].admissionReviewVersions[1]: Invalid value: \"v1\": duplicate version"],
        ),
        (
            with(json!({"sideEffects": ""})),
            &["webhooks[0].sideEffects: Unsupported value: \"\": supported values: \"None\", \"NoneOnDryRun\""],
        ),
    ];
    creates(&client, path, &good, &rows).await;
}

#[tokio::test]
async fn flow_schemas_and_levels() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let group = "/apis/flowcontrol.apiserver.k8s.io/v1";
    let good = json!({"metadata": {"name": "a"}, "spec": {"priorityLevelConfiguration": {"name": "global-default"},
        "matchingPrecedence": 0, "rules": [{"subjects": [{"kind": "User", "user": {"name": "u"}}],
            "resourceRules": [{"verbs": ["get"], "apiGroups": ["a"], "resources": ["r"], "clusterScope": true}]}]}});
    let rule = |change: Value| {
        let mut rule = good["spec"]["rules"][0].clone();
        json_patch::merge(&mut rule, &change);
        json!({"spec": {"rules": [rule]}})
    };
    const RULE: &str = "spec.rules[0]";
    let path = format!("{group}/flowschemas");
    let rows: [(Value, &[&str]); 4] = [
        (
            json!({"spec": {"matchingPrecedence": 1, "distinguisherMethod": {"type": "X"}, "priorityLevelConfiguration": {"name": null}}}),
            &[
                "spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1",
                "spec.distinguisherMethod.type: Unsupported value: {\"Type\":\"X\"}: supported values: \"ByNamespace\", \"ByUser\"",
                "spec.priorityLevelConfiguration.name: Required value: must reference a priority level",
            ],
        ),
        (
            rule(json!({"subjects": [{"kind": "ServiceAccount", "user": {"name": "u"}}]})),
            &[
                "spec.rules[0].subjects[0].serviceAccount: Required value: serviceAccount is required when subject kind is 'ServiceAccount'",
                "spec.rules[0].subjects[0].user: Forbidden: user is forbidden when subject kind is not 'User'",
            ],
        ),
        (
            rule(json!({"resourceRules": [{"verbs": ["x"], "apiGroups": ["*", "a"]}]})),
            &[
                "spec.rules[0].resourceRules[0].verbs: Unsupported value: [\"x\"]: supported values: \"create\", \"delete\", \"deletecollection\", \"get\", \"list\", \"patch\", \"proxy\", \"update\", \"watch\"",
                "spec.rules[0].resourceRules[0].apiGroups: Invalid value: [\"*\",\"a\"]: if '*' is present, must not specify other api groups",
                "spec.rules[0].resourceRules[0].resources: Required value: resource rules must supply at least one resource",
                "spec.rules[0].resourceRules[0].namespaces: Required value: resource rules that are not cluster scoped must supply at least one namespace",
            ],
        ),
        (
            rule(json!({"resourceRules": null, "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["x"]}]})),
            &["spec.rules[0].nonResourceRules[0].nonResourceURLs[0]: Invalid value: \"x\": must start with slash"],
        ),
    ];
    assert!(rows.iter().skip(1).flat_map(|(_, wanted)| *wanted).all(|cause| cause.starts_with(RULE)));
    creates(&client, &path, &good, &rows).await;
    let (_, made) = client.post(&path, &good).await;
    assert_eq!((&made["spec"]["matchingPrecedence"], &made["metadata"]["annotations"]), (&json!(1000), &Value::Null));
    let status =
        json!({"metadata": {"annotations": {"a": "b"}}, "status": {"conditions": [{"type": "T", "status": "True"}]}});
    let (_, changed) = client.merge(&format!("{path}/a/status"), &status).await;
    assert_eq!(changed["metadata"]["annotations"], Value::Null, "not through the status");
    let level = json!({"metadata": {"name": "a"}, "spec": {"type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": {"queues": 0}}}}});
    let response = |response: Value| json!({"spec": {"limited": {"limitResponse": response}}});
    let rows: [(Value, &[&str]); 4] = [
        (json!({"spec": {"limited": null}}), &["spec.limited: Required value: must not be empty when type is Limited"]),
        (
            response(Value::Null),
            &["spec.limited.limitResponse.type: Unsupported value: \"\": supported values: \"Queue\", \"Reject\""],
        ),
        (
            response(json!({"type": "Reject"})),
            &[
                "spec.limited.limitResponse.queuing: Forbidden: must be nil if limited.limitResponse.type is not Limited",
            ],
        ),
        (
            response(json!({"queuing": null})),
            &[
                "spec.limited.limitResponse.queuing: Required value: must not be empty if limited.limitResponse.type is Limited",
            ],
        ),
    ];
    creates(&client, &format!("{group}/prioritylevelconfigurations"), &level, &rows).await;
}

#[tokio::test]
async fn signing_requests_and_priorities() {
    let harness = Harness::start().await;
    let client = harness.admin();
    let path = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    for (spec, wanted) in [
        (json!({"signerName": "a.b/c"}), "spec.usages: Required value"),
        (json!({"usages": ["any"]}), "spec.signerName: Required value: signerName must be provided"),
        (json!({"usages": ["any", "any"], "signerName": "a.b/c"}), "spec.usages[1]: Duplicate value: \"any\""),
        (
            json!({"signerName": "a.b/c/d"}),
            "spec.signerName: Invalid value: \"a.b/c/d\": must be a fully qualified domain and path of the form 'example.com/signer-name'",
        ),
        (
            json!({"signerName": "ab/c"}),
            "spec.signerName: Invalid value: \"ab\": should be a domain with at least two segments separated by dots",
        ),
        (
            json!({"signerName": "kubernetes.io/legacy-unknown"}),
            "spec.signerName: Invalid value: \"kubernetes.io/legacy-unknown\": the legacy signerName is not allowed via this API version",
        ),
    ] {
        let (code, answer) = client.post(path, &json!({"metadata": {"name": "a"}, "spec": spec})).await;
        assert_eq!(code, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(causes(&answer).iter().any(|cause| cause == wanted), "{wanted}: {answer}");
    }
    let path = "/apis/scheduling.k8s.io/v1/priorityclasses";
    let (_, made) = client.post(path, &json!({"metadata": {"name": "a"}, "value": 5})).await;
    let (_, changed) = client.merge(&format!("{path}/a"), &json!({"description": "d"})).await;
    assert_eq!((&made["metadata"]["generation"], &changed["metadata"]["generation"]), (&json!(1), &json!(1)));
    for (class, wanted) in [
        (json!({"metadata": {"name": "system-x"}, "value": 5}), "system-x is not a known system priority class"),
        (
            json!({"metadata": {"name": "system-node-critical"}, "value": 5}),
            "value of system-node-critical PriorityClass must be 2000001000",
        ),
    ] {
        let (_, answer) = client.post(&format!("{path}?dryRun=All"), &class).await;
        let told = "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error";
        assert_eq!(causes(&answer), [format!("{told}: {wanted}")]);
    }
    let (_, answer) = client.merge(&format!("{path}/a"), &json!({"value": 2_000_000_000})).await;
    assert_eq!(causes(&answer), ["value: Forbidden: may not be changed in an update."]);
    let path = "/apis/storage.k8s.io/v1/volumeattachments";
    let attachment = json!({"metadata": {"name": "a"}, "spec": {"attacher": "a", "nodeName": "n", "source": {"persistentVolumeName": "A"}}});
    let (_, answer) = client.post(path, &attachment).await;
    assert!(
        causes(&answer)[0].starts_with("spec.source.persistentVolumeName: Invalid value: \"A\": a lowercase RFC 1123")
    );
}
