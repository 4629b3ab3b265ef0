//! Things that are killed come back, and what runs goes on.

use coracle_tests::Lab;

#[test]
fn the_server_and_the_agent_restart_and_containers_go_on() {
    let lab = Lab::up("lazarus", 1);
    lab.lite("create deployment web --image=coracle/hello:v1 --replicas=2").ok();
    lab.lite("rollout status deployment/web --timeout=60s").ok();
    let before = containers(&lab);

    for process in ["server", "lazarus-1"] {
        lab.kill_command(process);
        // Back by itself: the next write needs the server, the next pod the agent.
        lab.until_ok("get nodes");
        let name = format!("after-{process}");
        lab.until_ok(&format!("run {name} --image=coracle/hello:v1"));
        lab.lite(&format!("wait --for=condition=Ready pod/{name} --timeout=60s")).ok();
    }
    assert_eq!(containers(&lab), before, "containers were started anew");
}

fn containers(lab: &Lab) -> String {
    lab.lite("get pods -l app=web -o jsonpath={.items[*].status.containerStatuses[*].containerID}{.items[*].status.containerStatuses[*].restartCount}").ok()
}
