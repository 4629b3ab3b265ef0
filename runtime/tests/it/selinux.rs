//! SELinux's labels of containers, on a kernel that has SELinux and the policy of `tests/vm/selinux` (the other kernel's tests);
//! elsewhere that who asks for them gets containers all the same.

use std::{fs, path::Path, process::Command};

use coracle_launcher::{
    labels::{SELINUX, has_selinux},
    sys,
};
use coracle_runtime::docker::Listener;
use k8s_cri::v1;
use serde_json::{Value, json};

use crate::{
    apparmor::{docker, docker_json, text_of},
    cri::assert_nothing_left,
    harness::{Clients, Node, log, sandbox, script},
    isolation::isolated,
};

const FILE: &str = "system_u:object_r:container_file_t";
const PROCESS: &str = "system_u:system_r:container_t";
/// What runs with rights like the runtime's.
const UNCONFINED: &str = "system_u:system_r:spc_t:s0-s0:c0.c1023";
const NAME: &str = "cat /proc/self/attr/current; echo";

/// The context of a file, seen from outside.
fn label_of(path: impl AsRef<Path>) -> String {
    let label = sys::getxattr(path.as_ref(), SELINUX).unwrap();
    String::from_utf8(label).unwrap().trim_end_matches('\0').to_owned()
}

fn options(kind: &str, level: &str) -> Option<v1::SeLinuxOption> {
    Some(v1::SeLinuxOption { r#type: kind.into(), level: level.into(), ..Default::default() })
}

fn security(config: &mut v1::ContainerConfig) -> &mut v1::LinuxContainerSecurityContext {
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap()
}

fn labelled(name: &str, text: &str, options: Option<v1::SeLinuxOption>) -> v1::ContainerConfig {
    let mut config = script(name, text);
    security(&mut config).selinux_options = options;
    config
}

fn mounting(name: &str, text: &str, source: &Path, relabel: bool) -> v1::ContainerConfig {
    let mount = v1::Mount {
        container_path: "/data".into(),
        host_path: source.to_str().unwrap().into(),
        selinux_relabel: relabel,
        ..Default::default()
    };
    v1::ContainerConfig { mounts: vec![mount], ..script(name, text) }
}

/// What a container wrote. The kernel ends names with a NUL.
fn text(node: &Node, pod: &str, container: &str) -> String {
    log(node, pod, container).replace('\0', "")
}

/// What a container that ends wrote.
async fn seen(node: &Node, cri: &mut Clients, pod: (&str, &str), config: v1::ContainerConfig) -> String {
    let name = config.metadata.as_ref().unwrap().name.clone();
    let id = cri.run(pod.0, config).await;
    let status = cri.wait(&id).await;
    let text = text(node, pod.1, &name);
    assert_eq!(status.exit_code, 0, "{name}: {text}");
    text
}

async fn refused(cri: &mut Clients, pod: &str, config: v1::ContainerConfig) -> String {
    let request = v1::CreateContainerRequest { pod_sandbox_id: pod.into(), config: Some(config), sandbox_config: None };
    cri.runtime.create_container(request).await.unwrap_err().message().to_owned()
}

/// Two categories, low and high.
fn level(label: &str) -> &str {
    let level = label.trim_end().strip_prefix(PROCESS).and_then(|rest| rest.strip_prefix(':')).expect(label);
    assert!(level.starts_with("s0:c") && level.contains(",c"), "{label}");
    level
}

#[test]
fn containers_of_pods_have_labels() {
    const TEST: &str = "selinux::containers_of_pods_have_labels";
    isolated(TEST, || async {
        let node = Node::new(TEST);
        node.install_network();
        let mut daemon = node.start_process();
        let mut cri = node.connect().await;
        let web = cri.run_sandbox(sandbox(&node, "web")).await;
        // The form of a level is looked at everywhere.
        let why = refused(&mut cri, &web, labelled("bad-level", NAME, options("", "s0,c1"))).await;
        assert!(why.contains("the format of 'level' \"s0,c1\" is not correct"), "{why}");
        if has_selinux() {
            let level = pods_are_told_apart(&node, &mut cri, &web).await;
            labels_are_asked_for(&node, &mut cri, &web).await;
            // Another runtime goes on with what the records say.
            daemon.kill().unwrap();
            daemon.wait().unwrap();
            daemon = node.start_process();
            cri = node.connect().await;
            let seen = seen(&node, &mut cri, (&web, "web"), script("again", NAME)).await;
            assert_eq!(seen, format!("{PROCESS}:{level}\n"));
        } else {
            let ignored = labelled("ignored", "echo runs", options("nonsense_t", "s0:c1,c2"));
            assert_eq!(seen(&node, &mut cri, (&web, "web"), ignored).await, "runs\n");
        }
        cri.remove_sandbox(&web).await;
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        assert_nothing_left(&node);
    });
}

/// Returns the first pod's level.
async fn pods_are_told_apart(node: &Node, cri: &mut Clients, web: &str) -> String {
    let (web, other_pod) = ((web, "web"), cri.run_sandbox(sandbox(node, "other")).await);
    let other = (other_pod.as_str(), "other");
    let first = seen(node, cri, web, script("first", NAME)).await;
    let level = level(&first).to_owned();
    assert_eq!(seen(node, cri, web, script("second", NAME)).await, first, "a pod's containers are one");
    let others = seen(node, cri, other, script("first", NAME)).await;
    assert_ne!(self::level(&others), level);

    // Relabelled, a directory is the pod's that it was relabelled for; as it was, nobody's.
    let (own, hosts) = (node.path("own"), node.path("hosts"));
    for dir in [&own, &hosts] {
        fs::create_dir(dir).unwrap();
        fs::write(dir.join("file"), "text").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.join("link")).unwrap();
    }
    let outside = label_of("/etc/passwd");
    let write = mounting("write", "cat /data/file; echo; echo new > /data/new; cat /data/new", &own, true);
    assert_eq!(seen(node, cri, web, write).await, "text\nnew\n");
    for path in [own.clone(), own.join("file"), own.join("new")] {
        assert_eq!(label_of(&path), format!("{FILE}:{level}"), "{path:?}");
    }
    assert_eq!(label_of("/etc/passwd"), outside, "no link is followed");
    let steal = "cat /data/file && echo read; echo x > /data/file && echo written; exit 0";
    for (pod, dir) in [(other, &own), (web, &hosts)] {
        let name = format!("steal-{}", pod.1);
        let seen = seen(node, cri, pod, mounting(&name, steal, dir, false)).await;
        assert!(!seen.contains("text") && seen.contains("Permission denied") && !seen.contains("written"), "{seen}");
    }

    everything_inside_is_called_so(node, cri, web, &level).await;
    cri.remove_sandbox(&other_pod).await;
    level
}

async fn everything_inside_is_called_so(node: &Node, cri: &mut Clients, web: (&str, &str), level: &str) {
    // The keyring is the container's: the runtime's own it may not see.
    let mut config = script("lasting", "cat /proc/keys; echo x > /dev/shm/x; echo done; while true; do sleep 1; done");
    security(&mut config).masked_paths = vec!["/proc/scsi".into(), "/proc/acpi".into(), "/sys/firmware".into()];
    let id = cri.run(web.0, config).await;
    let exec = cri.exec(&id, &["cat", "/proc/self/attr/current", "/proc/keys", "/proc/mounts"]).await;
    let exec = String::from_utf8(exec.stdout).unwrap();
    assert!(exec.starts_with(&format!("{PROCESS}:{level}")), "{exec}");
    assert!(exec.contains("keyring   _ses"), "{exec}");
    let root = exec.lines().find(|line| line.contains(" / overlay ")).unwrap();
    assert!(root.contains(&format!("context=\"{FILE}:{level}\"")), "{root}");

    // Once it wrote, the log tells of its own keyring, too.
    while !log(node, web.1, "lasting").contains("done\n") {
        cri.exec(&id, &["true"]).await;
    }
    assert!(log(node, web.1, "lasting").contains("keyring   _ses"));
    let request = v1::ContainerStatusRequest { container_id: id.clone(), verbose: true };
    let info = cri.runtime.container_status(request).await.unwrap().into_inner().info;
    let info: Value = serde_json::from_str(&info["info"]).unwrap();
    let inside = Path::new("/proc").join(info["pid"].to_string()).join("root");
    for path in ["", "bin/busybox", "dev", "dev/null", "dev/pts", "dev/shm", "dev/shm/x", "dev/mqueue", "etc/hosts"] {
        assert_eq!(label_of(inside.join(path)), format!("{FILE}:{level}"), "/{path}");
    }
    assert!(!label_of(inside.join("proc/version")).contains("container"));
    cri.runtime.stop_container(v1::StopContainerRequest { container_id: id, timeout: 0 }).await.unwrap();
}

async fn labels_are_asked_for(node: &Node, cri: &mut Clients, web: &str) {
    let web = (web, "web");
    let mut chosen = sandbox(node, "chosen");
    chosen.linux.as_mut().unwrap().security_context.as_mut().unwrap().selinux_options = options("other_t", "s0:c5,c6");
    let pod = cri.run_sandbox(chosen).await;
    let chosen = (pod.as_str(), "chosen");
    let expected = "system_u:system_r:other_t:s0:c5,c6\n";
    assert_eq!(seen(node, cri, chosen, script("pods", NAME)).await, expected);
    // Who says a level alone is of the usual type; who says no level gets one for itself.
    let own = labelled("level", NAME, options("", "s0:c7,c8"));
    assert_eq!(seen(node, cri, chosen, own).await, format!("{PROCESS}:s0:c7,c8\n"));
    let own = seen(node, cri, chosen, labelled("type", NAME, options("container_t", ""))).await;
    assert_ne!(level(&own), "s0:c5,c6");
    cri.remove_sandbox(&pod).await;

    let mut free = sandbox(node, "free");
    free.linux.as_mut().unwrap().security_context.as_mut().unwrap().privileged = true;
    let pod = cri.run_sandbox(free).await;
    let mut config = mounting("free", &format!("{NAME}; cat /data/file; echo"), &node.path("hosts"), false);
    security(&mut config).privileged = true;
    assert_eq!(seen(node, cri, (&pod, "free"), config).await, format!("{UNCONFINED}\ntext\n"));
    cri.remove_sandbox(&pod).await;

    // Also with users of its own, whose root is put together in another way.
    let range = vec![v1::IdMapping { host_id: 300_000, container_id: 0, length: 65_536 }];
    let users = v1::UserNamespace { mode: v1::NamespaceMode::Pod as i32, uids: range.clone(), gids: range };
    let mut mapped = sandbox(node, "mapped");
    let context = mapped.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    context.namespace_options.as_mut().unwrap().userns_options = Some(users.clone());
    let pod = cri.run_sandbox(mapped).await;
    let mut config = script("mapped", &format!("{NAME}; cat /proc/mounts; cat /proc/keys"));
    security(&mut config).namespace_options.as_mut().unwrap().userns_options = Some(users);
    let seen_there = seen(node, cri, (&pod, "mapped"), config).await;
    let own = level(seen_there.lines().next().unwrap());
    let root = seen_there.lines().find(|line| line.contains(" / overlay ")).unwrap();
    assert!(root.contains(&format!("context=\"{FILE}:{own}\"")), "{root}");
    assert!(seen_there.contains("keyring   _ses"), "{seen_there}");
    cri.remove_sandbox(&pod).await;

    // The host's shared memory stays the host's.
    let mut hosts = sandbox(node, "hosts-ipc");
    let context = hosts.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    context.namespace_options.as_mut().unwrap().ipc = v1::NamespaceMode::Node as i32;
    let pod = cri.run_sandbox(hosts).await;
    let before = label_of("/dev/shm");
    let mut config = script("hosts-ipc", &format!("{NAME}; echo x > /dev/shm/hosts && cat /dev/shm/hosts"));
    security(&mut config).namespace_options.as_mut().unwrap().ipc = v1::NamespaceMode::Node as i32;
    let seen_there = seen(node, cri, (&pod, "hosts-ipc"), config).await;
    level(seen_there.lines().next().unwrap());
    assert!(seen_there.ends_with("\nx\n"), "{seen_there}");
    assert!(before.contains("kernel_file_t"), "{before}");
    assert_eq!(label_of("/dev/shm"), before);
    assert!(label_of("/dev/shm/hosts").contains("kernel_file_t"));
    fs::remove_file("/dev/shm/hosts").unwrap();
    cri.remove_sandbox(&pod).await;

    // Also a process that may gain no rights changes to its label.
    let mut config = script("no-new-privileges", NAME);
    security(&mut config).no_new_privs = true;
    level(&seen(node, cri, web, config).await);

    let why = refused(cri, web.0, labelled("bad-type", NAME, options("nonsense_t", ""))).await;
    assert!(why.contains("the policy has no context \"system_u:system_r:nonsense_t:s0:c"), "{why}");
    let why = refused(cri, web.0, mounting("system", NAME, Path::new("/etc"), true)).await;
    assert!(why.contains("SELinux relabeling of /etc is not allowed"), "{why}");
}

/// Runs a script in a container; what inspect shows of it, and what it wrote.
async fn run(node: &Node, mut host: Value, text: &str) -> (Value, String) {
    host["NetworkMode"] = json!("none");
    let config = json!({ "Image": "test/busybox:1", "Cmd": ["sh", "-c", text], "HostConfig": host });
    let (status, created) = docker_json(node, "POST", "/containers/create", config).await;
    assert_eq!(status, 201, "{created}");
    let id = created["Id"].as_str().unwrap();
    let (status, started) = docker_json(node, "POST", &format!("/containers/{id}/start"), json!({})).await;
    assert_eq!(status, 204, "{started}");
    docker(node, "POST", &format!("/containers/{id}/wait"), json!({})).await;
    let (_, shown) = docker_json(node, "GET", &format!("/containers/{id}/json"), json!({})).await;
    let (_, frames) = docker(node, "GET", &format!("/containers/{id}/logs?stdout=1&stderr=1"), json!({})).await;
    docker(node, "DELETE", &format!("/containers/{id}?force=1"), json!({})).await;
    (shown, text_of(&frames).replace('\0', ""))
}

#[test]
fn dockers_options_choose_the_labels() {
    const TEST: &str = "selinux::dockers_options_choose_the_labels";
    isolated(TEST, || async {
        // The bridge's address makes the loopback's necessary.
        let up = Command::new("/bin/busybox").args(["ip", "link", "set", "lo", "up"]).status().unwrap();
        assert!(up.success());
        let node = Node::new(TEST);
        let mut config = node.config();
        config.docker = vec![Listener::Unix(node.path("docker.sock"))];
        let running = node.start_with(config).await;
        let (_, info) = docker_json(&node, "GET", "/info", json!({})).await;
        let named = info["SecurityOptions"].as_array().unwrap().contains(&json!("name=selinux"));
        assert_eq!(named, has_selinux());
        if has_selinux() {
            docker_labels(&node).await;
            docker_labels_of_others(&node).await;
        } else {
            let host = json!({ "SecurityOpt": ["label=type:nonsense_t"], "Binds": [format!("{}:/data:Z", node.path("logs").display())] });
            let (shown, seen) = run(&node, host, "echo runs").await;
            assert_eq!(
                (&shown["ProcessLabel"], &shown["MountLabel"], seen.as_str()),
                (&json!(""), &json!(""), "runs\n")
            );
        }
        running.stop().await;
        // Told so, it is as if the kernel had none.
        let mut config = node.config();
        config.docker = vec![Listener::Unix(node.path("docker.sock"))];
        config.selinux = false;
        let running = node.start_with(config).await;
        let (_, info) = docker_json(&node, "GET", "/info", json!({})).await;
        assert!(!info["SecurityOptions"].as_array().unwrap().contains(&json!("name=selinux")), "{info}");
        let (shown, seen) = run(&node, json!({}), &format!("{{ {NAME}; }} 2>/dev/null; echo end")).await;
        assert_eq!((&shown["ProcessLabel"], &shown["MountLabel"]), (&json!(""), &json!("")));
        assert!(seen.ends_with("end\n") && !seen.contains("container_t"), "{seen}");
        running.stop().await;
    });
}

/// Starts a container that lasts; its id and its processes' label.
async fn begin(node: &Node) -> (String, String) {
    let host = json!({ "NetworkMode": "none", "IpcMode": "shareable" });
    let config = json!({ "Image": "test/busybox:1", "Cmd": ["sleep", "1000"], "HostConfig": host });
    let (status, created) = docker_json(node, "POST", "/containers/create", config).await;
    assert_eq!(status, 201, "{created}");
    let id = created["Id"].as_str().unwrap().to_owned();
    let (status, started) = docker_json(node, "POST", &format!("/containers/{id}/start"), json!({})).await;
    assert_eq!(status, 204, "{started}");
    let (_, shown) = docker_json(node, "GET", &format!("/containers/{id}/json"), json!({})).await;
    (id, shown["ProcessLabel"].as_str().unwrap().to_owned())
}

/// Who shares another container's processes or shared memory is called as it is.
async fn docker_labels_of_others(node: &Node) {
    let ((one, label), (two, other)) = (begin(node).await, begin(node).await);
    assert_ne!(level(&label), level(&other));
    for host in [json!({ "IpcMode": format!("container:{one}") }), json!({ "PidMode": format!("container:{one}") })] {
        let (shown, seen) = run(node, host, &format!("{NAME}; echo x > /dev/shm/x && echo written")).await;
        assert_eq!((&shown["ProcessLabel"], seen), (&json!(label), format!("{label}\nwritten\n")));
    }
    let both = json!({ "IpcMode": format!("container:{one}"), "PidMode": format!("container:{two}") });
    let config = json!({ "Image": "test/busybox:1", "HostConfig": both });
    let (status, answer) = docker_json(node, "POST", "/containers/create", config).await;
    let why = answer["message"].as_str().unwrap();
    assert!(
        status == 500 && why.contains("--ipc and --pid containers SELinux labels aren't the same"),
        "{status} {why}"
    );
    for id in [one, two] {
        docker(node, "DELETE", &format!("/containers/{id}?force=1"), json!({})).await;
    }
}

async fn docker_labels(node: &Node) {
    let (shown, seen) = run(node, json!({}), NAME).await;
    let level = level(&seen).to_owned();
    assert_eq!(shown["ProcessLabel"], seen.trim_end());
    assert_eq!(shown["MountLabel"], format!("{FILE}:{level}"));

    let data = node.path("data-of-all");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("file"), "text").unwrap();
    let bound = |options: &[&str], mode: &str| json!({ "SecurityOpt": options, "Binds": [format!("{}:/data:{mode}", data.display())] });
    let options = ["label=type:other_t", "label=level:s0:c5,c6"];
    let (_, seen) = run(node, bound(&options, "Z"), &format!("{NAME}; cat /data/file; echo; cat /proc/mounts")).await;
    assert!(seen.starts_with("system_u:system_r:other_t:s0:c5,c6\ntext\n"), "{seen}");
    let shm = seen.lines().find(|line| line.contains(" /dev/shm ")).unwrap();
    assert!(shm.contains(&format!("context=\"{FILE}:s0:c5,c6\"")), "{shm}");
    assert_eq!(label_of(data.join("file")), format!("{FILE}:s0:c5,c6"));
    let (_, seen) = run(node, bound(&["label=level:s0:c7,c8"], "ro"), "cat /data/file; echo $?").await;
    assert!(seen.contains("Permission denied") && seen.ends_with("\n1\n"), "{seen}");
    let (_, seen) =
        run(node, bound(&["label=level:s0:c7,c8"], "z"), "cat /data/file; echo; echo 1 > /data/new; echo $?").await;
    assert_eq!(seen, "text\n0\n");
    assert_eq!(label_of(data.join("file")), format!("{FILE}:s0"));
    // A named volume is for all of its containers.
    for level in ["s0:c1,c2", "s0:c3,c4"] {
        let host = json!({ "SecurityOpt": [format!("label=level:{level}")], "Binds": ["shared:/data"] });
        let (_, seen) = run(node, host, "echo x >> /data/file; cat /data/file").await;
        assert!(seen.starts_with("x\n") && !seen.contains("denied"), "{seen}");
    }
    // Without a label it is as the policy has what the runtime starts; so is who sees the host's processes.
    for host in
        [json!({ "SecurityOpt": ["label=disable"] }), json!({ "PidMode": "host" }), json!({ "Privileged": true })]
    {
        let (shown, seen) = run(node, host, NAME).await;
        assert_eq!(seen, format!("{UNCONFINED}\n"));
        assert_eq!(
            (&shown["ProcessLabel"], &shown["MountLabel"]),
            (&json!(""), &json!(format!("{FILE}:s0:c1022,c1023")))
        );
        assert_eq!(shown["HostConfig"]["SecurityOpt"], json!(["label=disable"]));
    }
    for (option, why) in [
        ("label=nonsense:x", "bad label option \"nonsense:x\""),
        ("label=type:nonsense_t", "the policy has no context"),
    ] {
        let host = json!({ "SecurityOpt": [option] });
        let config = json!({ "Image": "test/busybox:1", "HostConfig": host });
        let (status, answer) = docker_json(node, "POST", "/containers/create", config).await;
        assert!(status == 400 && answer["message"].as_str().unwrap().contains(why), "{status} {answer}");
    }
}
