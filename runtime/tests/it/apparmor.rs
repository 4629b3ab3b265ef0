//! The AppArmor profile of containers, on a kernel that has AppArmor (the other kernel's tests); elsewhere that what cannot
//! be applied is refused.

use std::process::Command;

use coracle_launcher::labels::has_apparmor;
use coracle_runtime::docker::Listener;
use k8s_cri::v1::{self, security_profile::ProfileType};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use crate::{
    cri::assert_nothing_left,
    harness::{Clients, Node, log, sandbox, script},
    isolation::isolated,
};

/// What only AppArmor keeps from a container that may administrate the system and has a writable /proc; and what it may do.
const PROBE: &str = "cat /proc/self/attr/current; mount -t tmpfs x /tmp && echo mounted; \
    v=$(cat /proc/sys/kernel/sysrq); (echo $v > /proc/sys/kernel/sysrq) && echo written; \
    echo 5 > /proc/self/oom_score_adj && echo adjusted; sleep 100 & kill $! && echo killed; \
    ls -l /proc/1/exe; v=$(cat /proc/sys/kernel/shmmni); echo $v > /proc/sys/kernel/shmmni && echo shared; exit 0";
const ALLOWED: [&str; 4] = ["adjusted\n", "killed\n", "busybox\n", "shared\n"];

fn assert_confined(seen: &str, confined: bool) {
    let label = if confined { "coracle-default (enforce)\n" } else { "unconfined\n" };
    assert!(seen.starts_with(label), "{seen}");
    for word in ["mounted\n", "written\n"] {
        assert_eq!(seen.contains(word), !confined, "{word}: {seen}");
    }
    for word in ALLOWED {
        assert!(seen.contains(word), "{word}: {seen}");
    }
}

/// How a container asks for a profile.
enum Wish {
    Nothing,
    Message(ProfileType, &'static str),
    Text(&'static str),
    Privileged,
}

fn wishing(name: &str, wish: &Wish) -> v1::ContainerConfig {
    let mut config = script(name, PROBE);
    let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    security.capabilities = Some(v1::Capability { add_capabilities: vec!["SYS_ADMIN".into()], ..Default::default() });
    // A process that may not gain rights may change to a profile all the same.
    security.no_new_privs = matches!(wish, Wish::Message(ProfileType::RuntimeDefault, _));
    match wish {
        Wish::Nothing => {}
        Wish::Message(kind, name) => {
            let profile_type = *kind as i32;
            security.apparmor = Some(v1::SecurityProfile { profile_type, localhost_ref: (*name).into() });
        }
        #[expect(deprecated, reason = "the older form is what is tested")]
        Wish::Text(text) => security.apparmor_profile = (*text).into(),
        Wish::Privileged => security.privileged = true,
    }
    config
}

async fn refused(cri: &mut Clients, pod: &str, wish: Wish) -> tonic::Status {
    let config = Some(wishing("refused", &wish));
    let request = v1::CreateContainerRequest { pod_sandbox_id: pod.into(), config, sandbox_config: None };
    match cri.runtime.create_container(request).await {
        Err(error) => error,
        Ok(created) => {
            let container_id = created.into_inner().container_id;
            cri.runtime.start_container(v1::StartContainerRequest { container_id }).await.unwrap_err()
        }
    }
}

#[test]
fn containers_of_pods_are_confined() {
    const TEST: &str = "apparmor::containers_of_pods_are_confined";
    isolated(TEST, || async {
        // In a mount namespace without the kernel's directory the runtime loads its profile all the same.
        let _ = Command::new("umount").arg("/sys/kernel/security").output();
        let node = Node::new(TEST);
        node.install_network();
        let running = node.start().await;
        let mut cri = running.clients.clone();
        let mut config = sandbox(&node, "web");
        config.linux.as_mut().unwrap().security_context.as_mut().unwrap().privileged = true;
        let pod = cri.run_sandbox(config).await;
        let error = refused(&mut cri, &pod, Wish::Text("nonsense")).await;
        assert_eq!(error.code(), tonic::Code::InvalidArgument, "{error}");
        if has_apparmor() {
            confine(&node, &mut cri, &pod).await;
        } else {
            let unnamed = cri.run(&pod, wishing("unnamed", &Wish::Nothing)).await;
            assert_eq!(cri.wait(&unnamed).await.exit_code, 0);
            for kind in [ProfileType::RuntimeDefault, ProfileType::Localhost] {
                let error = refused(&mut cri, &pod, Wish::Message(kind, "mine")).await;
                assert!(error.message().contains("apparmor is not supported"), "{error}");
            }
        }
        cri.remove_sandbox(&pod).await;
        running.stop().await;
        assert_nothing_left(&node);
    });
}

async fn confine(node: &Node, cri: &mut Clients, pod: &str) {
    let cases = [
        ("nothing", Wish::Nothing, true),
        ("default", Wish::Message(ProfileType::RuntimeDefault, ""), true),
        ("old-default", Wish::Text("runtime/default"), true),
        ("named", Wish::Text("localhost/coracle-default"), true),
        ("unconfined", Wish::Message(ProfileType::Unconfined, ""), false),
        ("old-unconfined", Wish::Text("unconfined"), false),
        ("privileged", Wish::Privileged, false),
    ];
    for (name, wish, confined) in cases {
        let id = cri.run(pod, wishing(name, &wish)).await;
        assert_eq!(cri.wait(&id).await.exit_code, 0, "{name}");
        assert_confined(&log(node, "web", name), confined);
    }
    // Told when it is made, not when it is started.
    let config = Some(wishing("refused", &Wish::Message(ProfileType::Localhost, "no-such-profile")));
    let request = v1::CreateContainerRequest { pod_sandbox_id: pod.into(), config, sandbox_config: None };
    let error = cri.runtime.create_container(request).await.unwrap_err();
    assert!(error.message().contains("apparmor profile not found no-such-profile"), "{error}");

    let lasting = cri.run(pod, script("lasting", "trap 'exit 7' TERM; while true; do sleep 1; done")).await;
    let exec = cri.exec(&lasting, &["cat", "/proc/self/attr/current"]).await;
    assert_eq!(String::from_utf8_lossy(&exec.stdout), "coracle-default (enforce)\n");
    // The host's signal reaches it.
    cri.runtime.stop_container(v1::StopContainerRequest { container_id: lasting.clone(), timeout: 60 }).await.unwrap();
    assert_eq!(cri.status(&lasting).await.exit_code, 7);
}

/// One request to the Docker API; status and body.
pub async fn docker(node: &Node, method: &str, path: &str, body: Value) -> (u16, Vec<u8>) {
    let mut stream = UnixStream::connect(node.path("docker.sock")).await.unwrap();
    let body = body.to_string();
    let request = format!(
        "{method} /v1.43{path} HTTP/1.0\r\nHost: docker\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let status = String::from_utf8_lossy(&answer[..end]).split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer[end + 4..].to_vec())
}

pub async fn docker_json(node: &Node, method: &str, path: &str, body: Value) -> (u16, Value) {
    let (status, body) = docker(node, method, path, body).await;
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

/// The text of a log's frames: eight bytes of header, the last four of them its length.
pub fn text_of(mut frames: &[u8]) -> String {
    let mut text = Vec::new();
    while let Some((header, rest)) = frames.split_first_chunk::<8>() {
        let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
        text.extend_from_slice(&rest[..length]);
        frames = &rest[length..];
    }
    String::from_utf8(text).unwrap()
}

/// Runs the probe; the profile that inspect shows, and what the probe wrote or why it did not start.
async fn probe(node: &Node, options: &[&str], privileged: bool) -> (String, Result<String, String>) {
    let mut host = json!({
        "NetworkMode": "none", "CapAdd": ["SYS_ADMIN"], "Privileged": privileged, "ReadonlyPaths": [],
        "SecurityOpt": ["seccomp=unconfined"],
    });
    host["SecurityOpt"].as_array_mut().unwrap().extend(options.iter().map(|option| json!(option)));
    let config = json!({ "Image": "test/busybox:1", "Cmd": ["sh", "-c", PROBE], "HostConfig": host });
    let (status, created) = docker_json(node, "POST", "/containers/create", config).await;
    assert_eq!(status, 201, "{created}");
    let id = created["Id"].as_str().unwrap();
    let (status, started) = docker_json(node, "POST", &format!("/containers/{id}/start"), json!({})).await;
    let (_, shown) = docker_json(node, "GET", &format!("/containers/{id}/json"), json!({})).await;
    let seen = if status == 204 {
        docker(node, "POST", &format!("/containers/{id}/wait"), json!({})).await;
        let (_, frames) = docker(node, "GET", &format!("/containers/{id}/logs?stdout=1"), json!({})).await;
        Ok(text_of(&frames))
    } else {
        Err(started["message"].as_str().unwrap().to_owned())
    };
    docker(node, "DELETE", &format!("/containers/{id}?force=1"), json!({})).await;
    (shown["AppArmorProfile"].as_str().unwrap().to_owned(), seen)
}

#[test]
fn dockers_options_choose_the_profile() {
    const TEST: &str = "apparmor::dockers_options_choose_the_profile";
    isolated(TEST, || async {
        // The bridge's address makes the loopback's necessary.
        let up = Command::new("/bin/busybox").args(["ip", "link", "set", "lo", "up"]).status().unwrap();
        assert!(up.success());
        let node = Node::new(TEST);
        let mut config = node.config();
        config.docker = vec![Listener::Unix(node.path("docker.sock"))];
        let running = node.start_with(config).await;
        let (_, info) = docker_json(&node, "GET", "/info", json!({})).await;
        let options = info["SecurityOptions"].as_array().unwrap();
        assert_eq!(options.contains(&json!("name=apparmor")), has_apparmor(), "{options:?}");
        if has_apparmor() {
            for (option, privileged, profile) in [
                (&[][..], false, "coracle-default"),
                (&["apparmor=docker-default"], false, "coracle-default"),
                (&["apparmor=unconfined"], false, "unconfined"),
                (&[], true, "unconfined"),
            ] {
                let (shown, seen) = probe(&node, option, privileged).await;
                assert_eq!(shown, profile);
                assert_confined(&seen.unwrap(), profile != "unconfined");
            }
            let (shown, seen) = probe(&node, &["apparmor=no-such-profile"], false).await;
            assert_eq!(shown, "no-such-profile");
            assert!(seen.unwrap_err().contains("apply apparmor profile \"no-such-profile\""));
        } else {
            let (shown, seen) = probe(&node, &["apparmor=unconfined"], false).await;
            assert_eq!(shown, "");
            seen.unwrap();
        }
        running.stop().await;
    });
}
