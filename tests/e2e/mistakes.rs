//! What goes wrong, and what the user sees of it.

use coracle_tests::{Lab, run};
use std::process::Command;

#[test]
fn mistakes_are_told_in_the_words_people_know() {
    let lab = Lab::up("oops", 1);
    missing(&lab);
    manifests(&lab);
    unknown_image(&lab);
    undo_without_history(&lab);
}

fn missing(lab: &Lab) {
    for kubectl in [Lab::lite, Lab::kubectl] {
        assert_eq!(
            kubectl(lab, "get pod missing").fails(),
            "Error from server (NotFound): pods \"missing\" not found\n"
        );
        let unknown = kubectl(lab, "get boats").fails();
        assert_eq!(unknown, "error: the server doesn't have a resource type \"boats\"\n");
    }
}

fn manifests(lab: &Lab) {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: x\nspec:\n  containers:\n  - name: a\n    image: b\n    imagee: c\n";
    let unknown = lab.lite_with("apply -f -", pod).fails();
    assert!(unknown.contains("strict decoding error: unknown field \"spec.containers[0].imagee\""), "{unknown}");
    let bad = lab.lite_with("apply -f -", "apiVersion: v1\nkind: Pod\nmetadata: {name: x\nspec: 1\n").fails();
    let words =
        "error: error parsing STDIN: error converting YAML to JSON: yaml: line 3: did not find expected ',' or '}'\n";
    assert_eq!(bad, words);
    let untyped = lab.lite_with("apply -f -", "kind: Pod\n").fails();
    assert!(untyped.contains("apiVersion not set"), "{untyped}");
    let invalid = pod.replace("name: x", "name: X_").replace("    imagee: c\n", "");
    let invalid = lab.lite_with("apply -f -", &invalid).fails();
    assert!(invalid.contains("metadata.name: Invalid value: \"X_\""), "{invalid}");
}

fn unknown_image(lab: &Lab) {
    lab.lite("run lost --image=127.0.0.1:1/nobody:none").ok();
    lab.lite(
        "wait --for=jsonpath={.status.containerStatuses[0].state.waiting.reason}=ErrImagePull pod/lost --timeout=30s",
    )
    .ok();
    lab.lite("wait --for=jsonpath={.status.containerStatuses[0].state.waiting.reason}=ImagePullBackOff pod/lost --timeout=60s").ok();
    let listed = lab.lite("get pods").ok();
    assert!(listed.contains("ImagePullBackOff") || listed.contains("ErrImagePull"), "{listed}");
    let described = lab.lite("describe pod lost").ok();
    assert!(described.contains("Failed to pull image \"127.0.0.1:1/nobody:none\""), "{described}");
    lab.lite("delete pod lost --grace-period=0 --force").ok();
}

fn undo_without_history(lab: &Lab) {
    lab.lite("create deployment once --image=coracle/hello:v1").ok();
    lab.lite("rollout status deployment/once --timeout=60s").ok();
    for kubectl in [Lab::lite, Lab::kubectl] {
        let undone = kubectl(lab, "rollout undo deployment/once").fails();
        assert_eq!(undone, "error: no rollout history found for deployment \"once\"\n");
    }
}

#[test]
fn without_a_lab_commands_say_how_to_make_one() {
    let lab = Lab::prepare("none");
    let said = lab.lab(&["status"]).fails();
    assert_eq!(said, "coracle: there is no lab \"none\"; create it with: coracle lab up --name none\n");
    assert_eq!(lab.lab(&["down"]).ok(), "There is no lab \"none\"; nothing to do.\n");
}

#[test]
fn without_root_there_is_one_line() {
    let lab = Lab::prepare("nobody");
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65534", "--clear-groups", "--regid=65534"])
        .arg(coracle_tests::binary("coracle"))
        .args(["lab", "up"]);
    command.env("CORACLE_HOME", lab.home());
    let said = run(&mut command, "").fails();
    assert_eq!(said, "coracle: coracle lab makes namespaces and cgroups and needs root; run it with: sudo\n");
}
