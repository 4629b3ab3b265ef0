//! What sandboxes and their containers have of their own, and what they may not have, through CRI.

use std::{collections::HashMap, fs, path::Path};

use coracle_launcher::sys;
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

fn security(config: &mut v1::ContainerConfig) -> &mut v1::LinuxContainerSecurityContext {
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap()
}

/// What a script says in a container of its own.
async fn said(node: &Node, cri: &mut Clients, pod: (&str, &str), config: v1::ContainerConfig) -> String {
    let name = config.metadata.as_ref().unwrap().name.clone();
    let id = cri.run(pod.0, config).await;
    assert_eq!(cri.wait(&id).await.exit_code, 0);
    log(node, pod.1, &name)
}

async fn create_refused(cri: &mut Clients, pod: &str, config: v1::ContainerConfig) -> (Code, String) {
    let request = v1::CreateContainerRequest { pod_sandbox_id: pod.into(), config: Some(config), sandbox_config: None };
    let error = cri.runtime.create_container(request).await.expect_err("the container is refused");
    (error.code(), error.message().to_owned())
}

#[test]
fn processes_know_their_home_and_host() {
    isolated("sandboxes::processes_know_their_home_and_host", || async {
        let node = Node::new("sandboxes::processes_know_their_home_and_host");
        node.install_network();
        let running = node.start().await;
        let mut cri = running.clients.clone();
        let pod = cri.run_sandbox(sandbox(&node, "web")).await;
        let web = (pod.as_str(), "web");
        let ports = "cd /proc/sys/net/ipv4; cat ip_unprivileged_port_start ping_group_range";
        let own = said(&node, &mut cri, web, script("root", &format!("echo $HOME $HOSTNAME; {ports}"))).await;
        assert_eq!(own, "/ web\n0\n0\t2147483647\n");
        let mut user = script("user", "echo $HOME; sleep 1000");
        security(&mut user).run_as_username = "web".into();
        let user = cri.run(&pod, user).await;
        assert_eq!(cri.exec(&user, &["/bin/sh", "-c", "echo $HOME"]).await.stdout, b"/web\n");
        let mut given = script("given", "echo $HOME");
        given.envs = vec![v1::KeyValue { key: "HOME".into(), value: "/given".into() }];
        assert_eq!(said(&node, &mut cri, web, given).await, "/given\n");
        cri.remove_sandbox(&pod).await;

        // In the network that stands for the host's nothing is changed, and the name is the host's.
        let before = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
        let mut config = sandbox(&node, "host");
        config.hostname = String::new();
        let options = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
        options.namespace_options.as_mut().unwrap().network = v1::NamespaceMode::Node as i32;
        let pod = cri.run_sandbox(config).await;
        let mut named = script("named", "echo $HOSTNAME; cat /etc/hostname");
        security(&mut named).namespace_options.as_mut().unwrap().network = v1::NamespaceMode::Node as i32;
        let name = nix::unistd::gethostname().unwrap().into_string().unwrap();
        assert_eq!(said(&node, &mut cri, (&pod, "host"), named).await, format!("{name}\n{name}\n"));
        assert_eq!(fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap(), before);
        cri.remove_sandbox(&pod).await;
        running.stop().await;
        assert_nothing_left(&node);
    });
}

#[test]
fn a_container_fits_its_sandbox() {
    isolated("sandboxes::a_container_fits_its_sandbox", || async {
        let node = Node::new("sandboxes::a_container_fits_its_sandbox");
        node.install_network();
        let running = node.start().await;
        let mut cri = running.clients.clone();
        let (pod, other) =
            (cri.run_sandbox(sandbox(&node, "web")).await, cri.run_sandbox(sandbox(&node, "other")).await);
        let mut privileged = script("privileged", "true");
        security(&mut privileged).privileged = true;
        let refused = create_refused(&mut cri, &pod, privileged).await;
        assert_eq!(refused, (Code::FailedPrecondition, "no privileged container allowed in sandbox".into()));
        let target = cri.run(&other, script("target", "sleep 1000")).await;
        let mut debugger = script("debugger", "cat /proc/1/cmdline");
        let options = security(&mut debugger).namespace_options.as_mut().unwrap();
        (options.pid, options.target_id) = (v1::NamespaceMode::Target as i32, target.clone());
        let words = format!("container {target:?} (sandbox {other}) does not belong to sandbox {pod}");
        assert_eq!(create_refused(&mut cri, &pod, debugger.clone()).await, (Code::InvalidArgument, words));
        assert!(said(&node, &mut cri, (&other, "other"), debugger).await.contains("sleep"));
        cri.remove_sandbox(&other).await;
        cri.remove_sandbox(&pod).await;
        running.stop().await;
        assert_nothing_left(&node);
    });
}

#[test]
fn mounts_lie_on_one_another_as_they_should() {
    isolated("sandboxes::mounts_lie_on_one_another_as_they_should", || async {
        let node = Node::new("sandboxes::mounts_lie_on_one_another_as_they_should");
        node.install_network();
        let running = node.start().await;
        let mut cri = running.clients.clone();
        let pod = cri.run_sandbox(sandbox(&node, "web")).await;
        let web = (pod.as_str(), "web");
        let dir = node.path("volume");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("hostname"), "volume\n").unwrap();
        let mounting = |name: &str, text: &str, at: &str, propagation: v1::MountPropagation| v1::ContainerConfig {
            mounts: vec![v1::Mount {
                container_path: at.into(),
                host_path: dir.to_string_lossy().into_owned(),
                propagation: propagation as i32,
                ..Default::default()
            }],
            ..script(name, text)
        };
        let private = v1::MountPropagation::PropagationPrivate;
        // The sandbox's files are on what is mounted around them.
        let etc = said(&node, &mut cri, web, mounting("etc", "cat /etc/hostname", "/etc", private)).await;
        assert_eq!(etc, "web\n");
        // Nothing is shared here: what is asked for could not be had.
        let both = v1::MountPropagation::PropagationBidirectional;
        for (propagation, kind) in
            [(both, "shared"), (v1::MountPropagation::PropagationHostToContainer, "shared or slave")]
        {
            let (code, words) = create_refused(&mut cri, &pod, mounting(kind, "true", "/mnt", propagation)).await;
            assert!(words.ends_with(&format!("but it is not a {kind} mount")), "{words}");
            assert_eq!(code, Code::FailedPrecondition);
        }
        let path = dir.to_str().unwrap();
        sys::mount(path, &dir, "", libc::MS_BIND, "").unwrap();
        sys::mount("", &dir, "", libc::MS_SHARED, "").unwrap();
        assert_eq!(said(&node, &mut cri, web, mounting("both", "echo yes", "/mnt", both)).await, "yes\n");
        cri.remove_sandbox(&pod).await;
        sys::umount(&dir, libc::MNT_DETACH).unwrap();
        running.stop().await;
        assert_nothing_left(&node);
    });
}

#[test]
fn who_has_a_limit_does_not_swap() {
    isolated("sandboxes::who_has_a_limit_does_not_swap", || async {
        let node = Node::new("sandboxes::who_has_a_limit_does_not_swap");
        node.install_network();
        let running = node.start().await;
        let mut cri = running.clients.clone();
        let pod = cri.run_sandbox(sandbox(&node, "web")).await;
        let limit = |memory_limit_in_bytes, memory_swap_limit_in_bytes| {
            Some(v1::LinuxContainerResources {
                memory_limit_in_bytes,
                memory_swap_limit_in_bytes,
                ..Default::default()
            })
        };
        let mut config = script("limited", "sleep 1000");
        config.linux.as_mut().unwrap().resources = limit(32 << 20, 0);
        let id = cri.run(&pod, config).await;
        let group = format!("{}/{pod}/{id}", node.config().cgroup_parent);
        let of_kernel = |file: &str, hierarchy: &str| {
            let dir = Path::new("/sys/fs/cgroup").join(hierarchy).join(group.trim_start_matches('/'));
            fs::read_to_string(dir.join(file)).ok().map(|value| value.trim().to_owned())
        };
        // Together with memory, or swap alone.
        let expect = |memory: u64, swap: u64| {
            let v1 = of_kernel("memory.memsw.limit_in_bytes", "memory");
            let v2 = of_kernel("memory.swap.max", "");
            assert!(v1.is_none_or(|value| value == (memory + swap).to_string()), "{memory} {swap}");
            assert!(v2.is_none_or(|value| value == swap.to_string()), "{memory} {swap}");
        };
        expect(32 << 20, 0);
        for (memory, both, swap) in [(64, 0, 0), (48, 0, 0), (48, 96, 48), (32, 0, 0)] {
            let linux = limit(memory << 20, both << 20);
            let request = v1::UpdateContainerResourcesRequest { container_id: id.clone(), linux, ..Default::default() };
            cri.runtime.update_container_resources(request).await.unwrap();
            expect((memory as u64) << 20, swap << 20);
        }
        cri.remove_sandbox(&pod).await;
        running.stop().await;
        assert_nothing_left(&node);
    });
}

#[test]
fn what_is_asked_for_is_told_or_refused() {
    const TEST: &str = "sandboxes::what_is_asked_for_is_told_or_refused";
    isolated(TEST, || async {
        let node = Node::new(TEST);
        node.install_network();
        // A plugin that names the address of the other family first.
        let plugin = node.path("bin/fake");
        let text = fs::read_to_string(&plugin).unwrap();
        fs::write(&plugin, text.replace(r#""ips":["#, r#""ips":[{"address":"fd00::7/64"},"#)).unwrap();
        let running = node.start().await;
        let mut cri = running.clients.clone();
        // Nothing in /etc/resolv.conf is not the host's.
        let mut bare = sandbox(&node, "bare");
        bare.dns_config = Some(v1::DnsConfig::default());
        let (bare, web) = (cri.run_sandbox(bare).await, cri.run_sandbox(sandbox(&node, "web")).await);
        let host = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        for (pod, expected) in [((bare.as_str(), "bare"), ""), ((web.as_str(), "web"), host.as_str())] {
            let text = said(&node, &mut cri, pod, script("dns", "cat /etc/resolv.conf; echo -n")).await;
            assert_eq!(text.trim_end(), expected.trim_end());
        }
        let request = v1::PodSandboxStatusRequest { pod_sandbox_id: web.clone(), verbose: false };
        let network =
            cri.runtime.pod_sandbox_status(request).await.unwrap().into_inner().status.unwrap().network.unwrap();
        assert_eq!((network.ip.as_str(), network.additional_ips[0].ip.as_str()), ("10.9.8.7", "fd00::7"));

        let mut annotated = script("annotated", "exit 0");
        let image = annotated.image.as_mut().unwrap();
        image.annotations = HashMap::from([("a".to_owned(), "b".to_owned())]);
        (image.runtime_handler, image.user_specified_image) = ("coracle".into(), "busybox".into());
        let image = image.clone();
        let id = cri.create(&web, annotated).await;
        let status = cri.status(&id).await;
        assert_eq!(status.image, Some(image.clone()));
        assert_eq!(status.user.unwrap().linux.unwrap().uid, 0);
        let filter = v1::ContainerFilter { id: id.clone(), ..Default::default() };
        let request = v1::ListContainersRequest { filter: Some(filter) };
        let listed = cri.runtime.list_containers(request).await.unwrap().into_inner().containers.remove(0);
        assert_eq!((listed.image, listed.image_id), (Some(image), status.image_id));

        // Classes are an administrator's, and there are none.
        let mut slow = script("slow", "exit 0");
        slow.annotations.insert("io.kubernetes.cri.blockio-class".into(), "slow".into());
        let words = "failed to set blockio class: blockio disabled, refusing to set blockio class of container \"slow\" to \"slow\"";
        assert_eq!(create_refused(&mut cri, &web, slow).await, (Code::FailedPrecondition, words.into()));
        let mut gold = sandbox(&node, "gold");
        gold.annotations.insert("rdt.resources.beta.kubernetes.io/container.main".into(), "gold".into());
        let gold = cri.run_sandbox(gold).await;
        let words = "failed to set RDT class: RDT not initialized, class \"gold\" not available";
        let refused = create_refused(&mut cri, &gold, script("main", "exit 0")).await;
        assert_eq!(refused, (Code::FailedPrecondition, words.into()));
        cri.create(&gold, script("other", "exit 0")).await;
        let mut unknown = script("unknown", "exit 0");
        let add_capabilities = vec!["NET_ADMIN".to_owned(), "FLY".to_owned()];
        security(&mut unknown).capabilities = Some(v1::Capability { add_capabilities, ..Default::default() });
        let refused = create_refused(&mut cri, &web, unknown).await;
        assert_eq!(refused, (Code::InvalidArgument, "unknown capability \"FLY\"".into()));
        for pod in [bare, web, gold] {
            cri.remove_sandbox(&pod).await;
        }
        running.stop().await;
        assert_nothing_left(&node);
    });
}
