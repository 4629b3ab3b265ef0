//! The main job, with kubectl-lite and with the unmodified kubectl.

use coracle_tests::{Lab, Output};

/// The same story, told by either program.
fn story(lab: &Lab, kubectl: impl Fn(&str) -> Output) {
    let guestbook = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/guestbook");
    let nodes = kubectl("get nodes -o wide").ok();
    assert_eq!(nodes.lines().filter(|line| line.contains(" Ready ")).count(), 3, "{nodes}");

    let created = kubectl("create deployment web --image=coracle/hello:v1 --replicas=3").ok();
    assert_eq!(created, "deployment.apps/web created\n");
    assert!(kubectl("rollout status deployment/web --timeout=60s").ok().contains("successfully rolled out"));
    assert_eq!(running(&kubectl), 3);
    assert_eq!(hosts(lab), 3, "three pods stand on three nodes");

    assert_eq!(kubectl("scale deployment web --replicas=9").ok(), "deployment.apps/web scaled\n");
    kubectl("rollout status deployment/web --timeout=60s").ok();
    assert_eq!(running(&kubectl), 9);

    assert_eq!(kubectl("set image deployment/web hello=coracle/hello:v2").ok(), "deployment.apps/web image updated\n");
    kubectl("rollout status deployment/web --timeout=60s").ok();
    kubectl("wait --for=jsonpath={.status.replicas}=9 deployment/web --timeout=60s").ok();
    assert!(kubectl("logs deployment/web").ok().contains("hello v2 listens on port 8080"));
    let history = kubectl("rollout history deployment/web").ok();
    assert!(history.contains("\n1 ") && history.contains("\n2 ") && !history.contains("\n3 "), "{history}");

    assert_eq!(kubectl("rollout undo deployment/web").ok(), "deployment.apps/web rolled back\n");
    kubectl("rollout status deployment/web --timeout=60s").ok();
    let image = kubectl("get deployment web -o jsonpath={.spec.template.spec.containers[0].image}").ok();
    assert_eq!(image, "coracle/hello:v1");
    let history = kubectl("rollout history deployment/web").ok();
    assert!(history.contains("\n2 ") && history.contains("\n3 ") && !history.contains("\n1 "), "{history}");

    let applied = kubectl(&format!("apply -f {guestbook}")).ok();
    for line in [
        "service/backend created",
        "deployment.apps/frontend created",
        "configmap/frontend created",
        "secret/frontend created",
    ] {
        assert!(applied.contains(line), "{applied}");
    }
    kubectl("rollout status deployment/frontend --timeout=60s").ok();
    kubectl("rollout status deployment/backend --timeout=60s").ok();
    let again = kubectl(&format!("apply -f {guestbook}")).ok();
    assert!(again.lines().all(|line| line.ends_with(" unchanged") || line.starts_with("secret/")), "{again}");

    let described = kubectl("describe deployment web").ok();
    assert!(described.contains("ScalingReplicaSet"), "{described}");
    let deleted = kubectl("delete deployment web").ok();
    assert!(deleted.starts_with("deployment.apps \"web\" deleted"), "{deleted}");
    kubectl("wait --for=delete pod -l app=web --timeout=60s").ok();
    kubectl(&format!("delete -f {guestbook}")).ok();
}

fn running(kubectl: impl Fn(&str) -> Output) -> usize {
    kubectl("wait --for=condition=Ready pod -l app=web --timeout=60s").ok();
    kubectl("get pods -l app=web -o wide").ok().lines().filter(|line| line.contains(" Running ")).count()
}

fn hosts(lab: &Lab) -> usize {
    let nodes = lab.lite("get pods -l app=web -o jsonpath={.items[*].spec.nodeName}").ok();
    nodes.split(' ').collect::<std::collections::HashSet<_>>().len()
}

#[test]
fn kubectl_lite_tells_the_story() {
    let lab = Lab::up("story", 3);
    story(&lab, |arguments| lab.lite(arguments));
}

#[test]
fn the_unmodified_kubectl_tells_the_story() {
    let lab = Lab::up("story", 3);
    story(&lab, |arguments| lab.kubectl(arguments));
}
