//! What sandboxes have of their own, through CRI.

use std::{collections::HashMap, fs};

use k8s_cri::v1;
use tonic::Code;

use crate::{
    cri::assert_nothing_left,
    harness::{Clients, Node, log, sandbox, script},
    isolation::isolated,
};

/// A sandbox with these modes of its network and ipc namespaces and one kernel parameter.
fn with_sysctl(node: &Node, network: i32, ipc: i32, key: &str, value: &str) -> v1::PodSandboxConfig {
    let mut config = sandbox(node, "web");
    let linux = config.linux.as_mut().unwrap();
    let options = linux.security_context.as_mut().unwrap().namespace_options.as_mut().unwrap();
    (options.network, options.ipc) = (network, ipc);
    linux.sysctls = HashMap::from([(key.to_owned(), value.to_owned())]);
    config
}

async fn refusal(cri: &mut Clients, config: v1::PodSandboxConfig) -> (Code, String) {
    let request = v1::RunPodSandboxRequest { config: Some(config), ..Default::default() };
    let error = cri.runtime.run_pod_sandbox(request).await.expect_err("the sandbox is refused");
    (error.code(), error.message().to_owned())
}

#[test]
fn a_sandbox_sets_parameters_of_its_own_namespaces_alone() {
    isolated("sandboxes::a_sandbox_sets_parameters_of_its_own_namespaces_alone", || async {
        let node = Node::new("sandboxes::a_sandbox_sets_parameters_of_its_own_namespaces_alone");
        node.install_network();
        let running = node.start().await;
        let mut cri = running.clients.clone();
        let (pod, host) = (v1::NamespaceMode::Pod as i32, v1::NamespaceMode::Node as i32);
        // The value that it has: were it written, nothing would change.
        let panic = fs::read_to_string("/proc/sys/kernel/panic").unwrap();
        // The namespaces that stand for the host's are this test's own.
        for (network, ipc, key, value, why) in [
            (pod, pod, "kernel.panic", panic.trim(), "is not in a separate kernel namespace"),
            (host, host, "kernel.panic", panic.trim(), "is not in a separate kernel namespace"),
            (pod, host, "kernel.shm_rmid_forced", "0", "is not allowed in the hosts ipc namespace"),
            (host, pod, "net.ipv4.ip_unprivileged_port_start", "1000", "not allowed in host network namespace"),
            (host, host, "net.ipv4.ip_unprivileged_port_start", "1000", "not allowed in host network namespace"),
        ] {
            let (code, message) = refusal(&mut cri, with_sysctl(&node, network, ipc, key, value)).await;
            assert_eq!((code, message), (Code::InvalidArgument, format!("sysctl {key:?} {why}")));
        }
        for (network, ipc, key, file) in [
            (pod, host, "net.ipv4.tcp_fin_timeout", "net/ipv4/tcp_fin_timeout"),
            (host, pod, "kernel/shmmni", "kernel/shmmni"),
        ] {
            let id = cri.run_sandbox(with_sysctl(&node, network, ipc, key, "77")).await;
            let mut reader = script("reader", &format!("cat /proc/sys/{file}"));
            let options =
                v1::NamespaceOption { network, ipc, pid: v1::NamespaceMode::Container as i32, ..Default::default() };
            reader.linux.as_mut().unwrap().security_context.as_mut().unwrap().namespace_options = Some(options);
            let reader = cri.run(&id, reader).await;
            assert_eq!(cri.wait(&reader).await.exit_code, 0);
            assert_eq!(log(&node, "web", "reader"), "77\n");
            assert_ne!(fs::read_to_string(format!("/proc/sys/{file}")).unwrap(), "77\n");
            cri.remove_sandbox(&id).await;
            fs::remove_dir_all(node.path("logs/web")).unwrap();
        }
        running.stop().await;
        assert_nothing_left(&node);
    });
}
