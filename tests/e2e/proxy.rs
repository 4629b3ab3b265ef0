//! What runs in a lab, reached through the API server; and looked into by a container that is added to it.

use std::fs;

use coracle_tests::{Lab, run};

use crate::images::busybox_archive;

#[test]
fn pods_services_and_nodes_answer_through_the_api() {
    let lab = Lab::up("front", 2);
    lab.lite("create deployment web --image=coracle/hello:v1 --replicas=2").ok();
    lab.lite("rollout status deployment/web --timeout=60s").ok();
    lab.kubectl("expose deployment web --port=80 --target-port=8080").ok();
    let pods = lab.lite("get pods -l app=web -o jsonpath={.items[*].metadata.name}").ok();
    assert_eq!(pods.split_whitespace().count(), 2);
    for pod in pods.split_whitespace() {
        let said = lab.kubectl(&format!("get --raw /api/v1/namespaces/default/pods/{pod}:8080/proxy/")).ok();
        assert!(said.contains(&format!("pod {pod}\n")), "{said}");
        let missing = lab.kubectl(&format!("get --raw /api/v1/namespaces/default/pods/{pod}:81/proxy/")).fails();
        assert!(missing.contains("error trying to reach service"), "{missing}");
    }
    lab.kubectl("wait --for=jsonpath={.subsets[0].addresses[0].ip} endpoints/web --timeout=30s").ok();
    let said = lab.kubectl("get --raw /api/v1/namespaces/default/services/http:web:80/proxy/healthz").ok();
    assert_eq!(said, "ok\n");
    let node = lab.kubectl("get --raw /api/v1/nodes/front-2/proxy/healthz").ok();
    assert_eq!(node.trim(), "ok");
}

#[test]
fn kubectl_debug_looks_into_a_pod() {
    let lab = Lab::up("doctor", 1);
    let archive = lab.home().join("busybox.tar");
    fs::write(&archive, busybox_archive()).unwrap();
    lab.lab(&["load", archive.to_str().unwrap()]).ok();
    lab.kubectl("run ill --image=coracle/hello:v1 --env=WHO=patient").ok();
    lab.lite("wait --for=condition=Ready pod/ill --timeout=30s").ok();

    // The debugger sees the processes of its target; its own end ends nothing else, and it is not started again. It waits to be
    // spoken to: what is said before kubectl has attached goes to the log alone.
    let line = "kubectl debug -it ill --image=busybox:test --target=ill -c look -- \
                /bin/busybox sh -c 'read go; tty; tr \"\\0\" \"\\n\" < /proc/1/environ'";
    let line = line.replace(" tr ", " /bin/busybox tr ");
    let mut script = lab.kubectl_command_named("script");
    let said = run(script.args(["-qec", &line, "/dev/null"]), "go\n").ok();
    assert!(said.contains("/dev/pts/0") && said.contains("WHO=patient"), "{said:?}");
    let ended = "wait --for=jsonpath={.status.ephemeralContainerStatuses[0].state.terminated.exitCode}=0 pod/ill";
    lab.lite(&format!("{ended} --timeout=30s")).ok();
    let status = lab.get("pod/ill");
    let look = &status["status"]["ephemeralContainerStatuses"][0];
    assert_eq!((look["name"].as_str(), look["restartCount"].as_u64()), (Some("look"), Some(0)), "{look}");
    assert_eq!(status["status"]["phase"], "Running");
    assert_eq!(status["status"]["containerStatuses"][0]["restartCount"], 0);
    let log = lab.kubectl("logs ill -c look").ok();
    assert!(log.contains("WHO=patient"), "{log}");
    // One that stays is ended with its pod.
    lab.kubectl("debug ill --image=busybox:test -c stay -- /bin/busybox sleep 1000").ok();
    let running = "wait --for=jsonpath={.status.ephemeralContainerStatuses[1].state.running.startedAt} pod/ill";
    lab.kubectl(&format!("{running} --timeout=30s")).ok();
    assert_eq!(lab.kubectl("exec ill -c stay -- /bin/busybox echo here").ok(), "here\n");
    lab.lite("delete pod ill --grace-period=1 --timeout=30").ok();
}
