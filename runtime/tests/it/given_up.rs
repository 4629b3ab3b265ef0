//! What callers leave behind that give up, and ask again.

use std::{fs, io::Write};

use coracle_runtime::engine::shim::Shim;
use k8s_cri::v1;

use crate::{
    cri::{assert_nothing_left, pid_of_script, wait_gone},
    harness::{Clients, Node, log, sandbox, script},
    isolation::isolated,
};

/// Looks again until it is so; there is no event for what others do.
async fn until(mut so: impl FnMut() -> bool) {
    while !so() {
        tokio::task::yield_now().await;
    }
}

fn logged(node: &Node, container: &str, text: &str) -> bool {
    fs::read_to_string(node.path(&format!("logs/web/{container}/0.log"))).is_ok_and(|log| log.contains(text))
}

#[test]
fn a_command_that_nobody_waits_for_is_killed_and_forgotten() {
    const TEST: &str = "given_up::a_command_that_nobody_waits_for_is_killed_and_forgotten";
    isolated(TEST, || async {
        let node = Node::new(TEST);
        node.install_network();
        let running = node.start().await;
        let mut cri = running.clients.clone();
        let pod = cri.run_sandbox(sandbox(&node, "web")).await;
        let id = cri.run(&pod, script("main", "sleep 1000")).await;
        let started = "echo $$ > /tmp/runs; sleep 4321";
        let cmd = ["/bin/sh", "-c", started].map(str::to_owned).to_vec();
        let request = v1::ExecSyncRequest { container_id: id.clone(), cmd, timeout: 0 };
        let mut client = cri.runtime.clone();
        let waiting = tokio::spawn(async move { client.exec_sync(request).await });
        let file = node.path("data/snapshots/c").join(&id).join("fs/tmp/runs");
        until(|| fs::read_to_string(&file).is_ok_and(|text| text.ends_with('\n'))).await;
        let pid = pid_of_script("4321");
        waiting.abort();
        wait_gone(pid);
        let late = v1::ExecSyncRequest {
            container_id: id.clone(),
            cmd: ["/bin/sleep", "8765"].map(str::to_owned).to_vec(),
            timeout: 1,
        };
        let error = cri.runtime.exec_sync(late).await.unwrap_err();
        assert_eq!(error.code(), tonic::Code::DeadlineExceeded, "{error}");
        let (shim, _events) = Shim::find(&node.path("run/sandboxes").join(&pod).join("shim")).await.unwrap();
        while shim.state().await.unwrap().len() > 1 {}
        assert_eq!(shim.state().await.unwrap()[0].id, id);
        cri.remove_sandbox(&pod).await;
        running.stop().await;
        assert_nothing_left(&node);
    });
}

/// A request for a container whose profile of seccomp is a pipe: it is being made as long as nobody writes there.
fn held_up(node: &Node, pod: &str, name: &str) -> v1::CreateContainerRequest {
    let pipe = node.path(name);
    make_pipe(&pipe);
    let mut config = script(name, "exit 3");
    let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    security.seccomp = Some(v1::SecurityProfile {
        profile_type: v1::security_profile::ProfileType::Localhost as i32,
        localhost_ref: pipe.to_str().unwrap().to_owned(),
    });
    v1::CreateContainerRequest { pod_sandbox_id: pod.to_owned(), config: Some(config), sandbox_config: None }
}

fn make_pipe(path: &std::path::Path) {
    let status = std::process::Command::new("mkfifo").arg(path).status().unwrap();
    assert!(status.success());
}

/// Waits until the pipe is read.
async fn reader(node: &Node, name: &str) -> fs::File {
    let pipe = node.path(name);
    tokio::task::spawn_blocking(move || fs::File::options().write(true).open(pipe).unwrap()).await.unwrap()
}

async fn listed(cri: &mut Clients) -> Vec<String> {
    let answer = cri.runtime.list_containers(v1::ListContainersRequest::default()).await.unwrap().into_inner();
    answer.containers.into_iter().map(|container| container.id).collect()
}

#[test]
fn a_container_that_nobody_waits_for_is_made_or_not_at_all() {
    const TEST: &str = "given_up::a_container_that_nobody_waits_for_is_made_or_not_at_all";
    isolated(TEST, || async {
        let node = Node::new(TEST);
        node.install_network();
        let running = node.start().await;
        let mut cri = running.clients.clone();
        let pod = cri.run_sandbox(sandbox(&node, "web")).await;
        // It cannot be made after all: nothing of it stays, and its name is free.
        let request = held_up(&node, &pod, "bad");
        let mut client = cri.runtime.clone();
        let given_up = tokio::spawn(async move { client.create_container(request).await });
        let mut profile = reader(&node, "bad").await;
        assert_eq!(listed(&mut cri).await.len(), 1);
        given_up.abort();
        assert!(given_up.await.unwrap_err().is_cancelled());
        // By this the server knows that the call was given up.
        cri.runtime.version(v1::VersionRequest::default()).await.unwrap();
        profile.write_all(b"no profile").unwrap();
        drop(profile);
        while !listed(&mut cri).await.is_empty() {}
        let id = cri.run(&pod, script("bad", "exit 5")).await;
        assert_eq!(cri.wait(&id).await.exit_code, 5);
        // One that is removed while it is made does not come back.
        let request = held_up(&node, &pod, "removed");
        let mut client = cri.runtime.clone();
        let made = tokio::spawn(async move { client.create_container(request).await });
        let mut profile = reader(&node, "removed").await;
        let removed = listed(&mut cri).await.into_iter().find(|other| *other != id).unwrap();
        let mut client = cri.runtime.clone();
        let request = v1::RemoveContainerRequest { container_id: removed.clone() };
        let removal = tokio::spawn(async move { client.remove_container(request).await });
        cri.runtime.version(v1::VersionRequest::default()).await.unwrap();
        profile.write_all(br#"{"defaultAction": "SCMP_ACT_ALLOW"}"#).unwrap();
        drop(profile);
        made.await.unwrap().unwrap();
        removal.await.unwrap().unwrap();
        assert_eq!(listed(&mut cri).await, [id]);
        assert!(!node.path("data/containers").join(&removed).exists());
        cri.remove_sandbox(&pod).await;
        running.stop().await;
        assert_nothing_left(&node);
    });
}

#[test]
fn a_container_is_asked_to_stop_once() {
    const TEST: &str = "given_up::a_container_is_asked_to_stop_once";
    isolated(TEST, || async {
        let node = Node::new(TEST);
        node.install_network();
        let running = node.start().await;
        let mut cri = running.clients.clone();
        let pod = cri.run_sandbox(sandbox(&node, "web")).await;
        let text = "trap 'echo asked' TERM; trap 'echo other; exit 0' USR1; echo ready; while :; do sleep 0.05; done";
        let id = cri.run(&pod, script("main", text)).await;
        until(|| logged(&node, "main", "ready")).await;
        let mut client = cri.runtime.clone();
        let request = v1::StopContainerRequest { container_id: id.clone(), timeout: 60 };
        let given_up = tokio::spawn(async move { client.stop_container(request).await });
        until(|| logged(&node, "main", "asked")).await;
        given_up.abort();
        cri.runtime.stop_container(v1::StopContainerRequest { container_id: id.clone(), timeout: 1 }).await.unwrap();
        assert_eq!(cri.status(&id).await.exit_code, 137);
        assert_eq!(log(&node, "web", "main"), "ready\nasked\n");
        cri.remove_sandbox(&pod).await;
        running.stop().await;
        assert_nothing_left(&node);
    });
}
