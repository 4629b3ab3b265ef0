//! What is told of pods: by events, statistics, verbose answers, and to plugins.

use std::{fs, os::unix::fs::MetadataExt};

use k8s_cri::v1;

use crate::{
    cri::{assert_nothing_left, running_pid},
    harness::{Node, log, sandbox, script},
    isolation::isolated,
};

#[test]
fn the_end_of_a_sandbox_is_told_with_its_last_state() {
    const TEST: &str = "answers::the_end_of_a_sandbox_is_told_with_its_last_state";
    isolated(TEST, || async {
        let node = Node::new(TEST);
        node.install_network();
        let running = node.start().await;
        let mut cri = running.clients.clone();
        let pod = cri.run_sandbox(sandbox(&node, "web")).await;
        let id = cri.run(&pod, script("main", "exit 0")).await;
        cri.wait(&id).await;
        let mut events = cri.runtime.get_container_events(v1::GetEventsRequest {}).await.unwrap().into_inner();
        let request = v1::StopPodSandboxRequest { pod_sandbox_id: pod.clone() };
        cri.runtime.stop_pod_sandbox(request).await.unwrap();
        let request = v1::PodSandboxStatusRequest { pod_sandbox_id: pod.clone(), verbose: false };
        let status = cri.runtime.pod_sandbox_status(request).await.unwrap().into_inner().status.unwrap();
        assert_eq!(status.network.unwrap().ip, "", "the address may be another's by now");
        let request = v1::PortForwardRequest { pod_sandbox_id: pod.clone(), port: vec![80] };
        let error = cri.runtime.port_forward(request).await.unwrap_err();
        assert_eq!(error.code(), tonic::Code::FailedPrecondition, "{error}");
        // Of a container that has ended, what is told of it changes.
        let resources = v1::LinuxContainerResources { memory_limit_in_bytes: 96 << 20, ..Default::default() };
        let request = v1::UpdateContainerResourcesRequest {
            container_id: id.clone(),
            linux: Some(resources),
            ..Default::default()
        };
        cri.runtime.update_container_resources(request).await.unwrap();
        assert_eq!(cri.status(&id).await.resources.unwrap().linux.unwrap().memory_limit_in_bytes, 96 << 20);
        let request = v1::RemovePodSandboxRequest { pod_sandbox_id: pod.clone() };
        cri.runtime.remove_pod_sandbox(request).await.unwrap();
        loop {
            let event = events.message().await.unwrap().expect("events go on");
            let status = event.pod_sandbox_status.as_ref().expect("every event has its sandbox's state");
            assert_eq!(status.id, pod);
            let deleted = v1::ContainerEventType::ContainerDeletedEvent;
            if event.container_event_type() == deleted && event.container_id == pod {
                assert_eq!(status.state(), v1::PodSandboxState::SandboxNotready);
                break;
            }
        }
        running.stop().await;
        assert_nothing_left(&node);
    });
}

#[test]
fn what_runs_no_more_uses_nothing_and_what_cannot_be_read_hides_nothing() {
    const TEST: &str = "answers::what_runs_no_more_uses_nothing_and_what_cannot_be_read_hides_nothing";
    isolated(TEST, || async {
        let node = Node::new(TEST);
        node.install_network();
        let running = node.start().await;
        let mut cri = running.clients.clone();
        let pod = cri.run_sandbox(sandbox(&node, "web")).await;
        let id = cri.run(&pod, script("main", "exit 0")).await;
        cri.wait(&id).await;
        let request = v1::ContainerStatsRequest { container_id: id.clone() };
        let stats = cri.runtime.container_stats(request).await.unwrap().into_inner().stats.unwrap();
        assert!(stats.cpu.is_none() && stats.memory.is_none() && stats.swap.is_none(), "{stats:?}");
        assert!(stats.attributes.is_some() && stats.writable_layer.unwrap().timestamp > 0);
        // A group that no path leads to.
        let mut lost = sandbox(&node, "lost");
        lost.linux.as_mut().unwrap().cgroup_parent = "/a/../b".into();
        let lost = cri.run_sandbox(lost).await;
        let request = v1::PodSandboxStatsRequest { pod_sandbox_id: lost.clone() };
        assert!(cri.runtime.pod_sandbox_stats(request).await.is_err());
        let request = v1::ListPodSandboxStatsRequest::default();
        let stats = cri.runtime.list_pod_sandbox_stats(request).await.unwrap().into_inner().stats;
        let ids: Vec<_> = stats.into_iter().map(|stats| stats.attributes.unwrap().id).collect();
        assert_eq!(ids, [pod.as_str()]);
        let request = v1::ListPodSandboxMetricsRequest {};
        let metrics = cri.runtime.list_pod_sandbox_metrics(request).await.unwrap().into_inner().pod_metrics;
        assert_eq!(metrics.len(), 1);
        cri.remove_sandbox(&lost).await;
        cri.remove_sandbox(&pod).await;
        running.stop().await;
        assert_nothing_left(&node);
    });
}

#[test]
fn a_pods_containers_are_in_its_namespaces_whatever_they_say() {
    const TEST: &str = "answers::a_pods_containers_are_in_its_namespaces_whatever_they_say";
    isolated(TEST, || async {
        let node = Node::new(TEST);
        node.install_network();
        let running = node.start().await;
        let mut cri = running.clients.clone();
        let own = |kind: &str| fs::metadata(format!("/proc/self/ns/{kind}")).unwrap().ino().to_string();
        let text = "stat -L -c %i /proc/self/ns/net; stat -L -c %i /proc/self/ns/pid; exit 0";
        let with = |name: &str, options: Option<v1::NamespaceOption>| {
            let mut config = script(name, text);
            config.linux.as_mut().unwrap().security_context.as_mut().unwrap().namespace_options = options;
            config
        };
        let pod = cri.run_sandbox(sandbox(&node, "web")).await;
        let network = v1::NamespaceMode::Node as i32;
        let id = cri.run(&pod, with("node", Some(v1::NamespaceOption { network, ..Default::default() }))).await;
        cri.wait(&id).await;
        assert_ne!(log(&node, "web", "node").lines().next(), Some(own("net").as_str()));
        let mut shared = sandbox(&node, "host");
        let security = shared.linux.as_mut().unwrap().security_context.as_mut().unwrap();
        security.namespace_options = Some(v1::NamespaceOption { network, pid: network, ..Default::default() });
        let shared = cri.run_sandbox(shared).await;
        let id = cri.run(&shared, with("silent", None)).await;
        cri.wait(&id).await;
        assert_eq!(log(&node, "host", "silent"), format!("{}\n{}\n", own("net"), own("pid")));
        let alone = v1::NamespaceOption { pid: v1::NamespaceMode::Container as i32, ..Default::default() };
        let id = cri.run(&shared, with("alone", Some(alone))).await;
        cri.wait(&id).await;
        assert_ne!(log(&node, "host", "alone").lines().nth(1), Some(own("pid").as_str()));
        cri.remove_sandbox(&pod).await;
        cri.remove_sandbox(&shared).await;
        running.stop().await;
        assert_nothing_left(&node);
    });
}

#[test]
fn verbose_answers_and_plugins_are_told_what_a_pod_is() {
    const TEST: &str = "answers::verbose_answers_and_plugins_are_told_what_a_pod_is";
    isolated(TEST, || async {
        let node = Node::new(TEST);
        node.install_network();
        let told = node.path("told");
        let plugin = fs::read_to_string(node.path("bin/fake")).unwrap();
        fs::write(node.path("bin/fake"), plugin.replace(">/dev/null", &format!("> {}", told.display()))).unwrap();
        let list = serde_json::json!({ "cniVersion": "1.0.0", "name": "n", "plugins": [
            { "type": "fake", "capabilities": { "bandwidth": true, "cgroupPath": true, "dns": false } }
        ] });
        fs::write(node.path("conf/10-fake.conflist"), list.to_string()).unwrap();
        let running = node.start().await;
        let mut cri = running.clients.clone();
        let mut config = sandbox(&node, "web");
        let rate = "kubernetes.io/ingress-bandwidth";
        config.annotations.insert(rate.into(), "fast".into());
        config.linux.as_mut().unwrap().cgroup_parent = node.config().cgroup_parent;
        config.dns_config = Some(v1::DnsConfig { servers: vec!["10.0.0.10".into()], ..Default::default() });
        let request = v1::RunPodSandboxRequest { config: Some(config.clone()), ..Default::default() };
        let error = cri.runtime.run_pod_sandbox(request).await.unwrap_err();
        assert!(error.code() == tonic::Code::InvalidArgument && error.message().contains(rate), "{error}");
        config.annotations.insert(rate.into(), "10M".into());
        let pod = cri.run_sandbox(config.clone()).await;
        let given: serde_json::Value = serde_json::from_slice(&fs::read(&told).unwrap()).unwrap();
        let bandwidth = serde_json::json!({
            "ingressRate": 10_000_000, "ingressBurst": u32::MAX, "egressRate": 0, "egressBurst": 0,
        });
        let group = config.linux.unwrap().cgroup_parent;
        let expected = serde_json::json!({ "bandwidth": bandwidth, "cgroupPath": group });
        assert_eq!(given["runtimeConfig"], expected);

        let mut config = script("main", "sleep 1000");
        config.envs = vec![v1::KeyValue { key: "A".into(), value: "b".into() }];
        let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
        security.seccomp = Some(v1::SecurityProfile::default());
        security.run_as_user = Some(v1::Int64Value { value: 33 });
        let id = cri.run(&pod, config).await;
        let pid = running_pid(&mut cri, &id).await;
        let request = v1::ContainerStatusRequest { container_id: id.clone(), verbose: true };
        let answer = cri.runtime.container_status(request).await.unwrap().into_inner();
        let info: serde_json::Value = serde_json::from_str(&answer.info["info"]).unwrap();
        assert_eq!((&info["sandboxID"], &info["snapshotKey"]), (&pod.as_str().into(), &id.as_str().into()));
        assert_eq!(info["config"]["metadata"]["name"], "main");
        assert_eq!(info["config"]["envs"], serde_json::json!([{ "key": "A", "value": "b" }]));
        assert_eq!(info["config"]["linux"]["security_context"]["run_as_user"]["value"], 33);
        assert_eq!(info["runtimeSpec"]["process"]["args"][2], "sleep 1000");
        assert!(info["runtimeSpec"]["linux"]["seccomp"]["syscalls"][0]["names"].is_array(), "{info}");

        let request = v1::PodSandboxStatusRequest { pod_sandbox_id: pod.clone(), verbose: true };
        let answer = cri.runtime.pod_sandbox_status(request).await.unwrap().into_inner();
        let info: serde_json::Value = serde_json::from_str(&answer.info["info"]).unwrap();
        assert_eq!((&info["pid"], &info["processStatus"]), (&pid.into(), &"running".into()));
        assert_eq!((&info["config"]["metadata"]["name"], &info["config"]["hostname"]), (&"web".into(), &"web".into()));
        assert_eq!(info["config"]["dns_config"]["servers"][0], "10.0.0.10");
        assert_eq!(info["cniResult"]["Interfaces"]["eth0"]["IPConfigs"][0]["IP"], "10.9.8.7");
        let namespaces = info["runtimeSpec"]["linux"]["namespaces"].as_array().unwrap();
        let network = namespaces.iter().find(|namespace| namespace["type"] == "network").unwrap();
        let pinned = fs::metadata(network["path"].as_str().unwrap()).unwrap().ino();
        assert_eq!(pinned, fs::metadata(format!("/proc/{pid}/ns/net")).unwrap().ino());
        assert_eq!(info["sandboxMetadata"]["Metadata"]["NetNSPath"], network["path"]);
        cri.remove_sandbox(&pod).await;
        running.stop().await;
        assert_nothing_left(&node);
    });
}
