//! Stories through CRI.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use k8s_cri::v1;

use crate::{
    harness::{IMAGE, Node, log, newer, sandbox, script},
    isolation::isolated,
};

#[test]
fn a_pod_lives_and_leaves_nothing() {
    isolated("cri::a_pod_lives_and_leaves_nothing", || async {
        let node = Node::new("cri::a_pod_lives_and_leaves_nothing");
        let running = node.start().await;
        let mut cri = running.clients.clone();
        let network_ready = |status: v1::StatusResponse| {
            status.status.unwrap().conditions.into_iter().find(|condition| condition.r#type == "NetworkReady").unwrap()
        };
        let condition =
            network_ready(cri.runtime.status(v1::StatusRequest { verbose: false }).await.unwrap().into_inner());
        assert!(!condition.status && condition.reason == "NetworkPluginNotReady", "{condition:?}");
        node.install_network();
        assert!(
            network_ready(cri.runtime.status(v1::StatusRequest { verbose: false }).await.unwrap().into_inner()).status
        );
        let told = cri.runtime.status(v1::StatusRequest { verbose: true }).await.unwrap().into_inner().info;
        let part = |name: &str| serde_json::from_str::<serde_json::Value>(&told[name]).unwrap();
        assert_eq!(part("config")["rootDir"], node.path("data").to_str().unwrap());
        assert_eq!(part("cniconfig")["Networks"][0]["Config"]["Plugins"][0]["Network"]["type"], "fake");
        assert_eq!(told["lastCNILoadStatus"], "OK");

        let pod = cri.run_sandbox(sandbox(&node, "web")).await;
        let resources = v1::LinuxContainerResources { cpu_shares: 512, ..Default::default() };
        let mut request = coracle_cri::UpdatePodSandboxResourcesRequest {
            pod_sandbox_id: pod.clone(),
            overhead: None,
            resources: Some(resources),
        };
        cri.newer.update_pod_sandbox_resources(request.clone()).await.unwrap();
        request.pod_sandbox_id = "nothing".into();
        let error = cri.newer.update_pod_sandbox_resources(request).await.unwrap_err();
        assert_eq!(error.code(), tonic::Code::NotFound);
        let request = v1::PodSandboxStatusRequest { pod_sandbox_id: pod.clone(), verbose: true };
        let answer = cri.runtime.pod_sandbox_status(request).await.unwrap().into_inner();
        let info: serde_json::Value = serde_json::from_str(&answer.info["info"]).unwrap();
        assert_eq!(info["resources"]["cpu_shares"], 512, "{info}");
        let status = answer.status.unwrap();
        assert_eq!(status.network.unwrap().ip, "10.9.8.7");
        assert_eq!(status.state, v1::PodSandboxState::SandboxReady as i32);

        let text = "hostname; id -u; echo $FROM_IMAGE; cat /proc/1/comm; echo oops >&2; ls -A /proc/sys/net/ipv4/conf; sleep 100";
        let main = cri.run(&pod, script("main", text)).await;
        let exec = cri.exec(&main, &["/bin/sh", "-c", "echo out; echo err >&2; exit 7"]).await;
        assert_eq!((exec.stdout.as_slice(), exec.stderr.as_slice(), exec.exit_code), (&b"out\n"[..], &b"err\n"[..], 7));
        let shared = cri.run(&pod, script("peer", "hostname; exit 3")).await;
        let ended = cri.wait(&shared).await;
        assert_eq!((ended.exit_code, ended.reason.as_str()), (3, "Error"));
        assert_eq!(log(&node, "web", "peer"), "web\n");
        // Two processes are in the group; the second is the exec, which is over.
        let stats = cri
            .runtime
            .container_stats(v1::ContainerStatsRequest { container_id: main.clone() })
            .await
            .unwrap()
            .into_inner()
            .stats
            .unwrap();
        assert!(stats.memory.unwrap().working_set_bytes.unwrap().value > 0);

        assert_new_cpusets_are_filled(&node);
        cri.runtime.stop_container(v1::StopContainerRequest { container_id: main.clone(), timeout: 1 }).await.unwrap();
        let ended = cri.status(&main).await;
        assert_eq!((ended.exit_code, ended.state()), (137, v1::ContainerState::ContainerExited));
        let lines = log(&node, "web", "main");
        assert!(lines.starts_with("web\n0\nyes\nsh\n"), "{lines}");
        assert!(lines.contains("oops\n") && lines.contains("lo\n"), "{lines}");

        cri.remove_sandbox(&pod).await;
        assert!(
            cri.runtime
                .list_containers(v1::ListContainersRequest::default())
                .await
                .unwrap()
                .into_inner()
                .containers
                .is_empty()
        );
        let calls = fs::read_to_string(node.path("cni.log")).unwrap();
        assert_eq!(calls, format!("ADD {pod}\nDEL {pod}\n"));
        running.stop().await;
        assert_nothing_left(&node);
    });
}

/// What is made below a group of the runtime's has processors and memory from the start, so that a process can enter.
fn assert_new_cpusets_are_filled(node: &Node) {
    let group = Path::new("/sys/fs/cgroup/cpuset").join(node.config().cgroup_parent.trim_start_matches('/'));
    // With cgroup v2 the kernel does so by itself.
    if !group.exists() {
        return;
    }
    let new = group.join("new");
    fs::create_dir(&new).unwrap();
    let filled = ["cpuset.cpus", "cpuset.mems"].map(|name| fs::read_to_string(new.join(name)).unwrap());
    fs::remove_dir(&new).unwrap();
    assert!(filled.iter().all(|value| !value.trim().is_empty()), "{filled:?}");
}

/// No mount, no process but our own, no file of a pod.
pub fn assert_nothing_left(node: &Node) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let dir = node.dir.path().to_str().unwrap();
    assert!(!mounts.contains(dir), "{mounts}");
    for name in [
        "data/sandboxes",
        "data/containers",
        "run/sandboxes",
        "run/containers",
        "run/oci",
        "data/snapshots/c",
        "data/cni",
    ] {
        let left: Vec<_> =
            fs::read_dir(node.path(name)).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        assert!(left.is_empty(), "{left:?}");
    }
    let others = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|&pid| pid != std::process::id());
    // This process is the first of its namespace and gets every orphan, but nobody waits for them.
    let alive = others.filter(|pid| {
        fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| !status.contains("\nState:\tZ"))
    });
    let names: Vec<String> = alive
        .map(|pid| format!("{pid} {}", fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default()))
        .collect();
    assert!(names.is_empty(), "{names:?}");
}

#[test]
fn a_killed_runtime_finds_its_containers_again() {
    isolated("cri::a_killed_runtime_finds_its_containers_again", || async {
        let node = Node::new("cri::a_killed_runtime_finds_its_containers_again");
        node.install_network();
        let mut daemon = node.start_process();
        let mut cri = node.connect().await;
        let pod = cri.run_sandbox(sandbox(&node, "web")).await;
        let lasting = cri
            .run(&pod, script("lasting", "echo begin; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo end; exit 5"))
            .await;
        let ending = cri.run(&pod, script("ending", "while [ ! -e /tmp/go ]; do sleep 0.05; done; exit 4")).await;
        let created = cri.create(&pod, script("created", "exit 0")).await;
        let pid = running_pid(&mut cri, &lasting).await;
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        // One ends while nobody is there to see it.
        let ending_pid = pid_of_script("exit 4");
        fs::write(format!("/proc/{ending_pid}/root/tmp/go"), "").unwrap();
        wait_gone(ending_pid);

        let mut daemon = node.start_process();
        let mut cri = node.connect().await;
        assert_eq!(running_pid(&mut cri, &lasting).await, pid);
        // Its process is gone; the shim may hear of it a moment later.
        assert_eq!(cri.wait(&ending).await.exit_code, 4);
        assert_eq!(cri.status(&created).await.state(), v1::ContainerState::ContainerCreated);
        cri.start(&created).await;
        assert_eq!(cri.wait(&created).await.exit_code, 0);
        assert_eq!(cri.exec(&lasting, &["/bin/sh", "-c", "exit 0"]).await.exit_code, 0);
        // From outside: who made it inside could be killed with the container before it has ended itself.
        fs::write(format!("/proc/{pid}/root/tmp/go"), "").unwrap();
        assert_eq!(cri.wait(&lasting).await.exit_code, 5);
        assert_eq!(log(&node, "web", "lasting"), "begin\nend\n");
        cri.remove_sandbox(&pod).await;
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        assert_nothing_left(&node);
    });
}

pub async fn running_pid(cri: &mut crate::harness::Clients, id: &str) -> u32 {
    let request = v1::ContainerStatusRequest { container_id: id.into(), verbose: true };
    let response = cri.runtime.container_status(request).await.unwrap().into_inner();
    assert_eq!(response.status.unwrap().state(), v1::ContainerState::ContainerRunning);
    let info: serde_json::Value = serde_json::from_str(&response.info["info"]).unwrap();
    info["pid"].as_u64().unwrap() as u32
}

pub fn pid_of_script(part: &str) -> u32 {
    let is_it = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains(part));
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        let pids = fs::read_dir("/proc").unwrap().flatten();
        let mut pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        if let Some(pid) = pids.find(is_it) {
            return pid;
        }
        // While a program takes the place of another one its process has no command line.
        assert!(std::time::Instant::now() < deadline, "the script runs");
        std::thread::yield_now();
    }
}

pub fn wait_gone(pid: u32) {
    use std::os::fd::FromRawFd;
    // SAFETY: no pointers; the descriptor is new and owned from here on.
    let Some(pidfd) = (unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0) as i32;
        (fd >= 0).then(|| std::os::fd::OwnedFd::from_raw_fd(fd))
    }) else {
        return;
    };
    assert!(coracle_launcher::sys::poll_in(&pidfd, 10_000), "process {pid} goes on");
}

#[test]
fn a_killed_shim_takes_its_containers_along() {
    isolated("cri::a_killed_shim_takes_its_containers_along", || async {
        let node = Node::new("cri::a_killed_shim_takes_its_containers_along");
        node.install_network();
        let running = node.start().await;
        let mut cri = running.clients.clone();
        let pod = cri.run_sandbox(sandbox(&node, "web")).await;
        let first = cri.run(&pod, script("a", "sleep 1000")).await;
        let pid = running_pid(&mut cri, &first).await;
        let shim = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let shim: i32 = shim.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap();
        assert_eq!(fs::read_to_string(format!("/proc/{shim}/comm")).unwrap(), "coracle-shim\n");
        coracle_launcher::sys::kill(shim, libc::SIGKILL).unwrap();
        let ended = cri.wait(&first).await;
        assert_eq!((ended.exit_code, ended.reason.as_str()), (255, "Unknown"));
        wait_gone(pid);
        let mut again = script("a", "exit 0");
        again.metadata.as_mut().unwrap().attempt = 1;
        let second = cri.run(&pod, again).await;
        assert_eq!(cri.wait(&second).await.exit_code, 0);
        cri.remove_sandbox(&pod).await;
        running.stop().await;
        assert_nothing_left(&node);
    });
}

#[test]
fn a_closed_umask_closes_no_container() {
    isolated("cri::a_closed_umask_closes_no_container", || async {
        coracle_launcher::sys::umask(0o077);
        let node = Node::new("cri::a_closed_umask_closes_no_container");
        node.install_network();
        let mut running = node.start().await;
        let pod = running.clients.run_sandbox(sandbox(&node, "p")).await;
        let mut config = script("c", "stat -c %a / /etc; ls / >/dev/null && echo read");
        config.linux.as_mut().unwrap().security_context.as_mut().unwrap().run_as_user =
            Some(v1::Int64Value { value: 33 });
        let id = running.clients.run(&pod, config).await;
        running.clients.wait(&id).await;
        assert_eq!(log(&node, "p", "c"), "755\n755\nread\n");
        running.clients.remove_sandbox(&pod).await;
        running.stop().await;
    });
}

#[test]
fn limits_hold_and_errors_are_told() {
    isolated("cri::limits_hold_and_errors_are_told", || async {
        let node = Node::new("cri::limits_hold_and_errors_are_told");
        node.install_network();
        let running = node.start().await;
        let mut cri = running.clients.clone();
        let pod = cri.run_sandbox(sandbox(&node, "web")).await;
        let mut hog = script("hog", "x=$(yes | head -c 200000000); echo survived");
        let resources = v1::LinuxContainerResources {
            memory_limit_in_bytes: 32 << 20,
            oom_score_adj: 500,
            cpu_shares: 100,
            ..Default::default()
        };
        hog.linux.as_mut().unwrap().resources = Some(resources);
        let hog = cri.run(&pod, hog).await;
        let ended = cri.wait(&hog).await;
        assert_eq!((ended.reason.as_str(), ended.exit_code), ("OOMKilled", 137));

        let mut missing = script("missing", "");
        missing.command = vec!["/no/such/program".into()];
        let missing = cri.create(&pod, missing).await;
        let error =
            cri.runtime.start_container(v1::StartContainerRequest { container_id: missing.clone() }).await.unwrap_err();
        assert!(error.message().contains("unable to start container process: exec: \"/no/such/program\": stat /no/such/program: no such file or directory"), "{error}");
        assert_eq!(cri.status(&missing).await.reason, "StartError");

        let mut user = script("user", "id -u; id -g; cat /proc/self/status; exit 0");
        let security = v1::LinuxContainerSecurityContext {
            run_as_username: "web".into(),
            no_new_privs: true,
            readonly_rootfs: true,
            masked_paths: vec!["/proc/kcore".into()],
            capabilities: Some(v1::Capability { drop_capabilities: vec!["ALL".into()], ..Default::default() }),
            ..Default::default()
        };
        user.linux.as_mut().unwrap().security_context = Some(security);
        let user = cri.run(&pod, user).await;
        assert_eq!(cri.wait(&user).await.exit_code, 0);
        let lines = log(&node, "web", "user");
        assert!(lines.starts_with("33\n33\n"), "{lines}");
        assert!(lines.contains("CapBnd:\t0000000000000000") && lines.contains("NoNewPrivs:\t1"), "{lines}");

        let mut filtered = script("filtered", "mount -t tmpfs x /tmp; cat /proc/self/status");
        let security = v1::LinuxContainerSecurityContext {
            seccomp: Some(v1::SecurityProfile {
                profile_type: v1::security_profile::ProfileType::RuntimeDefault as i32,
                ..Default::default()
            }),
            capabilities: Some(v1::Capability { add_capabilities: vec!["NET_ADMIN".into()], ..Default::default() }),
            ..Default::default()
        };
        filtered.linux.as_mut().unwrap().security_context = Some(security);
        let filtered = cri.run(&pod, filtered).await;
        assert_eq!(cri.wait(&filtered).await.exit_code, 0);
        let lines = log(&node, "web", "filtered");
        assert!(lines.contains("Operation not permitted") || lines.contains("permission denied"), "{lines}");
        assert!(lines.contains("Seccomp:\t2"), "{lines}");

        let request = v1::ExecSyncRequest { container_id: user, cmd: vec!["true".into()], timeout: 1 };
        assert!(cri.runtime.exec_sync(request).await.is_err());
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: pod.clone(),
            config: Some(v1::ContainerConfig {
                image: Some(v1::ImageSpec { image: "nothing:here".into(), ..Default::default() }),
                ..script("x", "")
            }),
            sandbox_config: None,
        };
        assert_eq!(cri.runtime.create_container(request).await.unwrap_err().code(), tonic::Code::NotFound);
        let images = cri.images.list_images(v1::ListImagesRequest::default()).await.unwrap().into_inner().images;
        assert_eq!(images[0].repo_tags, [IMAGE]);
        cri.remove_sandbox(&pod).await;
        running.stop().await;
        assert_nothing_left(&node);
    });
}

#[test]
fn a_container_has_limits_of_huge_pages_where_the_kernel_counts_them() {
    const TEST: &str = "cri::a_container_has_limits_of_huge_pages_where_the_kernel_counts_them";
    isolated(TEST, || async {
        let node = Node::new(TEST);
        node.install_network();
        let running = node.start().await;
        let mut cri = running.clients.clone();
        let pod = cri.run_sandbox(sandbox(&node, "web")).await;
        let mut config = script("a", "sleep 1000");
        let limits = vec![v1::HugepageLimit { page_size: "2MB".into(), limit: 6 << 20 }];
        config.linux.as_mut().unwrap().resources =
            Some(v1::LinuxContainerResources { hugepage_limits: limits, ..Default::default() });
        let id = cri.create(&pod, config).await;
        let started = cri.runtime.start_container(v1::StartContainerRequest { container_id: id.clone() }).await;
        // There with cgroup v2 alone.
        let all = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
        if all.split_whitespace().any(|name| name == "hugetlb") {
            started.unwrap();
            let pid = running_pid(&mut cri, &id).await;
            let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
            let group = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
            let limit = Path::new("/sys/fs/cgroup").join(group).join("hugetlb.2MB.max");
            assert_eq!(fs::read_to_string(limit).unwrap().trim(), (6 << 20).to_string());
        } else {
            let refused = started.unwrap_err();
            assert!(refused.message().contains("the hugetlb controller is not mounted"), "{refused}");
        }
        cri.remove_sandbox(&pod).await;
        running.stop().await;
        assert_nothing_left(&node);
    });
}

#[test]
fn containers_share_processes_only_when_asked() {
    isolated("cri::containers_share_processes_only_when_asked", || async {
        let node = Node::new("cri::containers_share_processes_only_when_asked");
        node.install_network();
        let running = node.start().await;
        let mut cri = running.clients.clone();
        let mut shared = sandbox(&node, "shared");
        shared.linux = Some(Default::default());
        let pod = cri.run_sandbox(shared).await;
        let with =
            |name: &str, text: &str| v1::ContainerConfig { linux: Some(Default::default()), ..script(name, text) };
        let first = cri.run(&pod, with("first", "sleep 1234")).await;
        let second = cri.run(&pod, with("second", "ps; echo /proc/1/cmdline; cat /proc/1/cmdline /proc/1/comm")).await;
        assert_eq!(cri.wait(&second).await.exit_code, 0);
        let seen = log(&node, "shared", "second");
        // Nothing of the shim's arguments, which are the host's paths.
        assert!(seen.contains("sleep 1234") && seen.ends_with("/proc/1/cmdline\n/pause\0pause\n"), "{seen:?}");
        cri.runtime.stop_container(v1::StopContainerRequest { container_id: first, timeout: 0 }).await.unwrap();
        let alone = cri.run(&pod, script("alone", "cat /proc/1/comm")).await;
        assert_eq!(cri.wait(&alone).await.exit_code, 0);
        assert_eq!(log(&node, "shared", "alone"), "cat\n");
        cri.remove_sandbox(&pod).await;
        running.stop().await;
        assert_nothing_left(&node);
    });
}

#[test]
fn images_are_mounted_and_kept_while_they_are() {
    isolated("cri::images_are_mounted_and_kept_while_they_are", || async {
        let registry = std::sync::Arc::new(crate::images::Registry::default());
        registry.fill();
        let name = format!("{}/test/app:v1", registry.serve().await);
        let node = Node::new("cri::images_are_mounted_and_kept_while_they_are");
        node.install_network();
        let running = node.start().await;
        let mut cri = running.clients.clone();
        let pod = cri.run_sandbox(sandbox(&node, "web")).await;
        let volume = |image: &str, host_path: &str| v1::Mount {
            container_path: "/vol".into(),
            host_path: host_path.into(),
            image: Some(v1::ImageSpec { image: image.into(), ..Default::default() }),
            ..Default::default()
        };
        let with = |mount: v1::Mount, script: v1::ContainerConfig| v1::CreateContainerRequest {
            pod_sandbox_id: pod.clone(),
            config: Some(v1::ContainerConfig { mounts: vec![mount], ..script }),
            sandbox_config: None,
        };
        let error = cri.runtime.create_container(with(volume(&name, ""), script("early", ""))).await.unwrap_err();
        assert_eq!(error.code(), tonic::Code::NotFound);
        let spec = v1::ImageSpec { image: name.clone(), ..Default::default() };
        let request = v1::PullImageRequest { image: Some(spec.clone()), ..Default::default() };
        cri.images.pull_image(request).await.unwrap();
        let error = cri.runtime.create_container(with(volume(&name, "/tmp"), script("both", ""))).await.unwrap_err();
        assert_eq!(error.code(), tonic::Code::InvalidArgument);
        // Two layers, the upper one's file over the lower one's; nothing can be written or run.
        let text = "cat /vol/a; ls /vol; echo x > /vol/a || echo refused; grep ' /vol ' /proc/self/mountinfo; exit 0";
        let config = script("reader", &text.replace("grep", "/bin/busybox grep"));
        let id = cri.runtime.create_container(with(volume(&name, ""), config)).await.unwrap().into_inner().container_id;
        // Of a part, only that is seen; nothing leads out of the image.
        let part = |path: &str, text: &str| {
            let mut request = newer(with(volume(&name, ""), script(&format!("part-{}", path.len()), text)));
            request.config.as_mut().unwrap().mounts[0].image_sub_path = path.to_owned();
            request
        };
        let text = "cat /vol/c; ls /vol; echo x > /vol/c || echo refused; ls /vol/..; exit 0";
        let shown = cri.newer.create_container(part("dir", text)).await.unwrap().into_inner().container_id;
        cri.start(&shown).await;
        assert_eq!(cri.wait(&shown).await.exit_code, 0);
        let request = v1::ContainerStatusRequest { container_id: shown, verbose: false };
        let status = cri.newer.container_status(request).await.unwrap().into_inner().status.unwrap();
        let mounted = status.mounts[0].image.clone().unwrap();
        assert_eq!((status.mounts[0].image_sub_path.as_str(), mounted.image.as_str()), ("dir", name.as_str()));
        assert!(mounted.image_ref.contains("/test/app@sha256:"), "{}", mounted.image_ref);
        let said = log(&node, "web", "part-3");
        assert!(said.starts_with("threec\n") && said.contains("refused") && said.contains("vol"), "{said}");
        for (path, why) in
            [("nowhere", "no such file"), ("a", "only directory subpath is supported"), ("../../etc", "cross-device")]
        {
            let error = cri.newer.create_container(part(path, "exit 0")).await.unwrap_err();
            assert!(error.message().contains(path) && error.message().contains(why), "{error}");
        }
        // The image goes by name, and stays as long as it is mounted.
        cri.images.remove_image(v1::RemoveImageRequest { image: Some(spec) }).await.unwrap();
        cri.start(&id).await;
        assert_eq!(cri.wait(&id).await.exit_code, 0);
        let said = log(&node, "web", "reader");
        assert!(said.starts_with("twoa\nb\n") && said.contains("refused") && said.contains("noexec"), "{said}");
        let status = cri.status(&id).await;
        assert_eq!(status.mounts[0].image.as_ref().unwrap().image, name);
        cri.remove_sandbox(&pod).await;
        // It goes with the last that used it.
        assert_eq!(fs::read_dir(node.path("data/snapshots/l")).unwrap().count(), 1);
        running.stop().await;
        assert_nothing_left(&node);
    });
}

#[test]
fn use_is_told_in_all_forms() {
    isolated("cri::use_is_told_in_all_forms", || async {
        let node = Node::new("cri::use_is_told_in_all_forms");
        node.install_network();
        let running = node.start().await;
        let mut cri = running.clients.clone();
        let pod = cri.run_sandbox(sandbox(&node, "web")).await;
        let text = "dd if=/dev/zero of=/file bs=1024 count=300 2>/dev/null; echo ready; while :; do :; done";
        let mut config = script("busy", text);
        config.linux.as_mut().unwrap().resources =
            Some(v1::LinuxContainerResources { memory_limit_in_bytes: 64 << 20, ..Default::default() });
        let id = cri.run(&pod, config).await;
        while !fs::read_to_string(node.path("logs/web/busy/0.log")).is_ok_and(|text| text.contains("ready")) {
            tokio::task::yield_now().await;
        }
        let descriptors = cri.runtime.list_metric_descriptors(v1::ListMetricDescriptorsRequest {}).await.unwrap();
        let descriptors = descriptors.into_inner().descriptors;
        // A second of time used: the loop above goes on until then.
        let metrics = loop {
            let pods = cri.runtime.list_pod_sandbox_metrics(v1::ListPodSandboxMetricsRequest {}).await.unwrap();
            let pods = pods.into_inner().pod_metrics;
            assert_eq!((pods.len(), pods[0].pod_sandbox_id.as_str()), (1, pod.as_str()));
            let container = &pods[0].container_metrics[0];
            assert_eq!(container.container_id, id);
            let cpu = container.metrics.iter().find(|metric| metric.name == "container_cpu_usage_seconds_total");
            if cpu.unwrap().value.unwrap().value >= 1 {
                break container.metrics.clone();
            }
        };
        for metric in &metrics {
            let descriptor = descriptors.iter().find(|descriptor| descriptor.name == metric.name).unwrap();
            assert_eq!(descriptor.label_keys.len(), metric.label_values.len(), "{}", metric.name);
            let label =
                |name: &str| &metric.label_values[descriptor.label_keys.iter().position(|key| key == name).unwrap()];
            assert_eq!(
                (label("pod").as_str(), label("namespace").as_str(), label("container").as_str()),
                ("web", "default", "busy")
            );
        }
        let value = |name: &str| metrics.iter().find(|metric| metric.name == name).unwrap().value.unwrap().value;
        assert!(value("container_fs_usage_bytes") >= 300 << 10);
        assert_eq!(value("container_spec_memory_limit_bytes"), 64 << 20);
        // Each is cut to whole seconds.
        let parts = value("container_cpu_user_seconds_total") + value("container_cpu_system_seconds_total");
        assert!(parts <= value("container_cpu_usage_seconds_total") + 1, "{parts}");
        assert!(value("container_memory_cache") >= value("container_memory_mapped_file"));
        assert!(value("container_fs_inodes_total") >= value("container_fs_inodes_free"));
        assert!(value("container_fs_limit_bytes") > value("container_fs_usage_bytes"));
        assert_eq!((value("container_spec_cpu_shares"), value("container_oom_events_total")), (1_024, 0));
        assert!(value("container_memory_working_set_bytes") > 0 && value("container_processes") > 0);
        let stats = cri.runtime.list_pod_sandbox_stats(v1::ListPodSandboxStatsRequest::default()).await.unwrap();
        let linux = stats.into_inner().stats.remove(0).linux.unwrap();
        assert_eq!(linux.containers.len(), 1);
        assert!(linux.cpu.unwrap().usage_core_nano_seconds.unwrap().value >= 1_000_000_000);
        // Of some seconds, which have to pass first: it is busy all of the time, on one CPU.
        let rate = loop {
            let request = v1::PodSandboxStatsRequest { pod_sandbox_id: pod.clone() };
            let stats = cri.runtime.pod_sandbox_stats(request).await.unwrap().into_inner().stats.unwrap();
            if let Some(rate) = stats.linux.unwrap().cpu.unwrap().usage_nano_cores {
                break rate.value;
            }
        };
        assert!((1..1_500_000_000).contains(&rate), "{rate}");
        // The fake plugin makes no interface.
        assert!(linux.network.is_none());
        let error = cri.runtime.checkpoint_container(v1::CheckpointContainerRequest::default()).await.unwrap_err();
        assert_eq!(error.code(), tonic::Code::Unimplemented);
        let config = cri.runtime.runtime_config(v1::RuntimeConfigRequest {}).await.unwrap().into_inner();
        assert_eq!(config.linux.unwrap().cgroup_driver(), v1::CgroupDriver::Cgroupfs);
        let resources =
            v1::LinuxContainerResources { memory_limit_in_bytes: 96 << 20, oom_score_adj: 600, ..Default::default() };
        let request = v1::UpdateContainerResourcesRequest {
            container_id: id.clone(),
            linux: Some(resources),
            ..Default::default()
        };
        cri.runtime.update_container_resources(request).await.unwrap();
        let nobody = v1::UpdateContainerResourcesRequest { container_id: "nobody".into(), ..Default::default() };
        let refused = cri.runtime.update_container_resources(nobody).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::NotFound, "{refused}");
        assert_eq!(cri.status(&id).await.resources.unwrap().linux.unwrap().memory_limit_in_bytes, 96 << 20);
        let score = cri.exec(&id, &["/bin/cat", "/proc/1/oom_score_adj"]).await.stdout;
        assert_eq!(score, b"600\n");
        // A log that was moved away is begun anew when asked to.
        let path = node.path("logs/web/busy/0.log");
        fs::rename(&path, node.path("logs/web/busy/0.log.old")).unwrap();
        let request = v1::ReopenContainerLogRequest { container_id: id.clone() };
        cri.runtime.reopen_container_log(request).await.unwrap();
        assert!(path.exists());
        cri.remove_sandbox(&pod).await;
        running.stop().await;
        assert_nothing_left(&node);
    });
}

#[test]
fn pods_have_users_of_their_own() {
    const TEST: &str = "cri::pods_have_users_of_their_own";
    isolated(TEST, || async {
        let registry = std::sync::Arc::new(crate::images::Registry::default());
        registry.fill();
        let image = format!("{}/test/app:v1", registry.serve().await);
        let node = Node::new(TEST);
        node.install_network();
        let mut daemon = node.start_process();
        let mut cri = node.connect().await;
        let spec = v1::ImageSpec { image: image.clone(), ..Default::default() };
        cri.images.pull_image(v1::PullImageRequest { image: Some(spec.clone()), ..Default::default() }).await.unwrap();
        let range = vec![v1::IdMapping { host_id: 300_000, container_id: 0, length: 65_536 }];
        let users = v1::UserNamespace { mode: v1::NamespaceMode::Pod as i32, uids: range.clone(), gids: range.clone() };
        let with = |name: &str, change: &dyn Fn(&mut v1::NamespaceOption)| {
            let mut config = sandbox(&node, name);
            let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
            let options = security.namespace_options.as_mut().unwrap();
            options.userns_options = Some(users.clone());
            change(options);
            v1::RunPodSandboxRequest { config: Some(config), ..Default::default() }
        };
        type Change<'a> = &'a dyn Fn(&mut v1::NamespaceOption);
        let wrong: [(Change<'_>, &str); 4] = [
            (&|options| options.ipc = v1::NamespaceMode::Node as i32, "ipc"),
            (&|options| options.userns_options.as_mut().unwrap().uids.clear(), "go together"),
            (&|options| options.userns_options.as_mut().unwrap().uids[0].length = 0, "invalid mapping length: 0"),
            (
                &|options| options.userns_options.as_mut().unwrap().mode = v1::NamespaceMode::Node as i32,
                "with mappings",
            ),
        ];
        for (change, words) in wrong {
            let error = cri.runtime.run_pod_sandbox(with("wrong", change)).await.unwrap_err();
            assert!(error.code() == tonic::Code::InvalidArgument && error.message().contains(words), "{error}");
        }
        let made = cri.runtime.run_pod_sandbox(with("web", &|_| ())).await.unwrap();
        let pod = made.into_inner().pod_sandbox_id;
        let request = v1::PodSandboxStatusRequest { pod_sandbox_id: pod.clone(), verbose: false };
        let status = cri.runtime.pod_sandbox_status(request).await.unwrap().into_inner().status.unwrap();
        assert_eq!(status.linux.unwrap().namespaces.unwrap().options.unwrap().userns_options, Some(users.clone()));

        let (plain, mapped) = (node.path("plain"), node.path("mapped"));
        for dir in [&plain, &mapped] {
            fs::create_dir(dir).unwrap();
            fs::write(dir.join("file"), "there\n").unwrap();
        }
        let mount = |at: &str, path: &std::path::Path, mappings: &[v1::IdMapping]| v1::Mount {
            container_path: at.into(),
            host_path: path.to_str().unwrap().into(),
            uid_mappings: mappings.to_vec(),
            gid_mappings: mappings.to_vec(),
            ..Default::default()
        };
        let text = "id -u; hostname; stat -c %u:%g /bin/busybox /etc/hosts /plain/file /mapped/file /vol/a; \
                    echo x > /made; echo x > /mapped/new && echo written; (echo x > /plain/new) 2>/dev/null || echo refused; \
                    hostname inside && hostname; echo x > /dev/shm/x && echo x > /dev/null && cat /vol/a; echo; sleep 1000";
        let mut config = script("main", text);
        config.mounts = vec![
            mount("/plain", &plain, &[]),
            mount("/mapped", &mapped, &range),
            v1::Mount { container_path: "/vol".into(), image: Some(spec), ..Default::default() },
        ];
        let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
        let capabilities = vec!["SYS_ADMIN".to_owned()];
        security.capabilities = Some(v1::Capability { add_capabilities: capabilities, ..Default::default() });
        let main = cri.run(&pod, config).await;
        let path = node.path("logs/web/main/0.log");
        while !fs::read_to_string(&path).is_ok_and(|text| text.contains("two")) {
            assert_ne!(
                cri.status(&main).await.state(),
                v1::ContainerState::ContainerExited,
                "{}",
                log(&node, "web", "main")
            );
        }
        let said = log(&node, "web", "main");
        let owners = "0:0\n0:0\n65534:65534\n0:0\n0:0\n";
        assert_eq!(said, format!("0\nweb\n{owners}written\nrefused\ninside\ntwo\n"));
        // Root inside is nobody outside, and writes as nobody but where owners are mapped.
        let pid = running_pid(&mut cri, &main).await;
        assert_eq!(fs::metadata(format!("/proc/{pid}")).unwrap().uid(), 300_000);
        let upper = node.path("data/snapshots/c").join(&main).join("fs/made");
        assert_eq!(fs::metadata(upper).unwrap().uid(), 300_000);
        assert_eq!(fs::metadata(mapped.join("new")).unwrap().uid(), 0);
        // Processes are shared among those users too; their first is one of them.
        let both = with("both", &|options| options.pid = v1::NamespaceMode::Pod as i32);
        let both = cri.runtime.run_pod_sandbox(both).await.unwrap().into_inner().pod_sandbox_id;
        let sharing =
            |name: &str, text: &str| v1::ContainerConfig { linux: Some(Default::default()), ..script(name, text) };
        cri.run(&both, sharing("first", "sleep 1234")).await;
        let second = cri.run(&both, sharing("second", "ps; stat -c %u /proc/1; cat /proc/1/comm")).await;
        assert_eq!(cri.wait(&second).await.exit_code, 0);
        let seen = log(&node, "both", "second");
        assert!(seen.contains("sleep 1234") && seen.ends_with("\n0\npause\n"), "{seen}");
        // In the network that stands for the node's they own nothing of it.
        let node_net = |options: &mut v1::NamespaceOption| options.network = v1::NamespaceMode::Node as i32;
        let net = cri.runtime.run_pod_sandbox(with("net", &node_net)).await.unwrap().into_inner().pod_sandbox_id;
        let text = "id -u; stat -c %u /proc/1 /sys/kernel; (echo 1 > /sys/kernel/mm/ksm/run) 2>/dev/null || \
                    echo read-only; hostname other 2>/dev/null || echo no; ls /proc/self/ns/net > /dev/null && cat /etc/hostname";
        let peer = cri.run(&net, script("peer", text)).await;
        assert_eq!(cri.wait(&peer).await.exit_code, 0);
        assert_eq!(log(&node, "net", "peer"), "0\n0\n65534\nread-only\nno\nnet\n");
        cri.remove_sandbox(&net).await;
        // What a container says of its users is what its sandbox has.
        let mut stranger = script("stranger", "exit 0");
        let others = vec![v1::IdMapping { host_id: 500_000, container_id: 0, length: 65_536 }];
        let security = stranger.linux.as_mut().unwrap().security_context.as_mut().unwrap();
        security.namespace_options.as_mut().unwrap().userns_options =
            Some(v1::UserNamespace { mode: v1::NamespaceMode::Pod as i32, uids: others.clone(), gids: others });
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: both.clone(),
            config: Some(stranger.clone()),
            sandbox_config: None,
        };
        let error = cri.runtime.create_container(request).await.unwrap_err();
        assert!(error.message().contains("is different from container"), "{error}");
        let security = stranger.linux.as_mut().unwrap().security_context.as_mut().unwrap();
        security.namespace_options.as_mut().unwrap().userns_options = Some(users.clone());
        let same = cri.run(&both, stranger).await;
        assert_eq!(cri.wait(&same).await.exit_code, 0);
        // A container that shares nothing with it sees the same image, as the host's users.
        let other = cri.run_sandbox(sandbox(&node, "other")).await;
        let peer = cri.run(&other, script("peer", "stat -c %u /bin/busybox; exit 0")).await;
        assert_eq!(cri.wait(&peer).await.exit_code, 0);
        assert_eq!(log(&node, "other", "peer"), "0\n");

        daemon.kill().unwrap();
        daemon.wait().unwrap();
        let mut daemon = node.start_process();
        let mut cri = node.connect().await;
        assert_eq!(cri.exec(&main, &["/bin/id", "-u"]).await.stdout, b"0\n");
        let next = cri.run(&pod, script("next", "hostname; id -u; exit 5")).await;
        assert_eq!(cri.wait(&next).await.exit_code, 5);
        assert_eq!(log(&node, "web", "next"), "inside\n0\n");
        cri.remove_sandbox(&pod).await;
        cri.remove_sandbox(&other).await;
        cri.remove_sandbox(&both).await;
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        assert_nothing_left(&node);
    });
}
