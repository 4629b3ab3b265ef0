//! A pod with users of its own: nobody in it is anybody on the node.

use std::fs;

use coracle_tests::Lab;

const POD: &str = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "NAME"}, "spec": {"hostUsers": false, "containers": [
    {"name": "c", "image": "coracle/hello:v1", "env": [{"name": "MAPPED", "value": "mapped-users-NAME"}]}]}}"#;

/// The first user of the node that stands for the pod's root, and the user that its process is on the node.
fn users(pod: &str) -> (u32, u32) {
    let mark = format!("MAPPED=mapped-users-{pod}");
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let mut ours = processes.filter(|process| {
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
    });
    let process = ours.next().expect("the pod's process");
    let map = fs::read_to_string(process.join("uid_map")).unwrap();
    let map: Vec<u32> = map.split_whitespace().map(|word| word.parse().unwrap()).collect();
    assert!(map[0] == 0 && map[2] == 65_536, "{map:?}");
    let status = fs::read_to_string(process.join("status")).unwrap();
    let user = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
    (map[1], user.split_whitespace().next().unwrap().parse().unwrap())
}

#[test]
fn pods_have_users_of_their_own() {
    let lab = Lab::up("users", 1);
    for name in ["one", "two"] {
        lab.lite_with("apply -f -", &POD.replace("NAME", name)).ok();
    }
    lab.lite("wait --for=condition=Ready pod/one pod/two --timeout=60s").ok();
    let (one, two) = (users("one"), users("two"));
    assert!(one.0 >= 65_536 && two.0 >= 65_536 && one.0.abs_diff(two.0) >= 65_536, "{one:?} {two:?}");
    assert_eq!((one.0, two.0), (one.1, two.1), "root of the pod is the first user of its range");
    let joined = lab.lite("exec one -- /hello cat /proc/self/uid_map").ok();
    assert_eq!(joined.split_whitespace().nth(1), Some(one.0.to_string().as_str()), "a second process joins");
}
