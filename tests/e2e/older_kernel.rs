//! A lab on a kernel that has none of the calls that Linux 4.18 lacks.

use std::process::Command;

use coracle_tests::{Host, Lab, on_an_older_kernel, run};

/// Set for the test that is run again there.
const INSIDE: &str = "CORACLE_TEST_OLDER_KERNEL";

const POD: &str = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "part"}, "spec": {
    "containers": [{"name": "c", "image": "coracle/hello:v1", "volumeMounts": [
        {"name": "words", "mountPath": "/word", "subPath": "word"},
        {"name": "empty", "mountPath": "/made", "subPath": "not/there/before"}]}],
    "volumes": [{"name": "words", "configMap": {"name": "words"}}, {"name": "empty", "emptyDir": {}}]}}"#;

#[test]
fn a_lab_lives_and_leaves_nothing() {
    if std::env::var_os(INSIDE).is_none() {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["older_kernel::a_lab_lives_and_leaves_nothing", "--exact", "--nocapture"]).env(INSIDE, "1");
        run(on_an_older_kernel(&mut command), "").ok();
        return;
    }
    let host = Host::look();
    let lab = Lab::up("older", 1);
    lab.lite("create configmap words --from-literal=word=aft").ok();
    lab.lite_with("apply -f -", POD).ok();
    lab.lite("wait --for=condition=Ready pod/part --timeout=60s").ok();
    assert_eq!(lab.lite("exec part -- /hello cat /word").ok(), "aft");
    // A shell of the host's in the node's namespaces.
    assert_eq!(lab.lab(&["shell", "older-1", "--", "hostname"]).ok(), "older-1\n");
    lab.lab(&["node", "stop", "older-1"]).ok();
    assert_eq!(lab.status()["nodes"][0]["state"], "stopped");
    lab.lab(&["node", "start", "older-1"]).ok();
    lab.lab(&["down"]).ok();
    host.assert_unchanged();
}
