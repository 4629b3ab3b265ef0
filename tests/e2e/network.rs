//! Every pod reaches every pod by address, without translation; a cut node is cut, and healed again.

use coracle_tests::Lab;

#[test]
fn pods_reach_each_other_across_nodes() {
    let lab = Lab::up("net", 2);
    lab.lite("create deployment web --image=coracle/hello:v1 --replicas=4").ok();
    lab.lite("rollout status deployment/web --timeout=60s").ok();
    let pods = lab.get("pods -l app=web");
    let addresses: Vec<String> = pods["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pod| pod["status"]["podIP"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(addresses.len(), 4);
    for node in ["net-1", "net-2"] {
        for address in &addresses {
            let manifest = client(node, address);
            lab.lite_with("create -f -", &manifest).ok();
            lab.lite("wait --for=jsonpath={.status.phase}=Succeeded pod/client --timeout=30s").ok();
            assert!(lab.lite("logs client").ok().starts_with("version v1\n"));
            lab.lite("delete pod client --now").ok();
        }
    }
}

#[test]
fn a_node_that_is_cut_off_is_not_ready_and_healed_it_is() {
    let lab = Lab::up("cut", 2);
    lab.lab(&["partition", "cut-2", "cut-1,server"]).ok();
    lab.lite("wait --for=condition=Ready=Unknown node/cut-2 --timeout=90s").ok();
    lab.lite("wait --for=condition=Ready node/cut-1 --timeout=5s").ok();
    lab.lab(&["heal"]).ok();
    lab.lite("wait --for=condition=Ready node/cut-2 --timeout=60s").ok();
    let twice = lab.lab(&["partition", "cut-1", "cut-1,server"]).fails();
    assert_eq!(twice, "coracle: \"cut-1\" is in two groups\n");
}

/// A pod on `node` that asks `address` once.
fn client(node: &str, address: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: client}}\nspec:\n  nodeName: {node}\n  restartPolicy: Never\n  containers:\n  - name: client\n    image: coracle/hello:v1\n    args: [get, \"http://{address}:8080/\"]\n"
    )
}
