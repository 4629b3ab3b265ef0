//! What of CRI is newer than the generated clients.

use std::collections::HashMap;

use coracle_cri::{KeyValue, Part, Signal};
use k8s_cri::v1;

use crate::{
    harness::{Clients, IMAGE, Node, log, newer, sandbox, script},
    isolation::isolated,
};

/// The parts of a list, as they came.
async fn parts<P: Part>(cri: &mut Clients, path: &'static str, request: impl prost::Message + 'static) -> Vec<P> {
    let mut stream = cri.newer.parts::<_, P>(path, request).await.unwrap();
    let mut parts = Vec::new();
    while let Some(part) = stream.message().await.unwrap() {
        parts.push(part);
    }
    parts
}

/// A list that comes in parts, whole.
async fn list<P: Part>(cri: &mut Clients, path: &'static str, request: impl prost::Message + 'static) -> Vec<P::Item> {
    parts::<P>(cri, path, request).await.into_iter().flat_map(P::items).collect()
}

#[test]
fn lists_come_in_parts_too() {
    isolated("newer::lists_come_in_parts_too", || async {
        let node = Node::new("newer::lists_come_in_parts_too");
        node.install_network();
        let running = node.start().await;
        let mut cri = running.clients.clone();
        const SANDBOXES: &str = "/runtime.v1.RuntimeService/StreamPodSandboxes";
        let nothing = parts::<v1::ListPodSandboxResponse>(&mut cri, SANDBOXES, v1::ListPodSandboxRequest::default());
        assert_eq!(nothing.await, []);
        let mut pods = Vec::new();
        for name in ["a", "b", "c"] {
            let large = HashMap::from([("large".to_owned(), "x".repeat(200 << 10))]);
            pods.push(cri.run_sandbox(v1::PodSandboxConfig { annotations: large, ..sandbox(&node, name) }).await);
        }
        // No part is larger than it has to be, and together they are the list.
        let all = v1::ListPodSandboxRequest::default();
        let came = parts::<v1::ListPodSandboxResponse>(&mut cri, SANDBOXES, all.clone()).await;
        assert_eq!(came.iter().map(|part| part.items.len()).collect::<Vec<_>>(), [2, 1]);
        let whole = cri.runtime.list_pod_sandbox(all).await.unwrap().into_inner().items;
        assert_eq!(came.into_iter().flat_map(|part| part.items).collect::<Vec<_>>(), whole);
        // Filters are those of the list in one message.
        let label = HashMap::from([("app".to_owned(), "b".to_owned())]);
        let ready = |state: v1::PodSandboxState| v1::ListPodSandboxRequest {
            filter: Some(v1::PodSandboxFilter {
                state: Some(v1::PodSandboxStateValue { state: state as i32 }),
                label_selector: label.clone(),
                ..Default::default()
            }),
        };
        let found = list::<v1::ListPodSandboxResponse>(&mut cri, SANDBOXES, ready(v1::PodSandboxState::SandboxReady));
        assert_eq!(found.await.iter().map(|item| item.id.as_str()).collect::<Vec<_>>(), [pods[1].as_str()]);
        let ended =
            list::<v1::ListPodSandboxResponse>(&mut cri, SANDBOXES, ready(v1::PodSandboxState::SandboxNotready));
        assert_eq!(ended.await, []);

        let id = cri.run(&pods[0], script("main", "echo hello; sleep 100")).await;
        let other = cri.run(&pods[1], script("main", "sleep 100")).await;
        let filter = v1::ContainerFilter { pod_sandbox_id: pods[0].clone(), ..Default::default() };
        let request = v1::ListContainersRequest { filter: Some(filter) };
        let path = "/runtime.v1.RuntimeService/StreamContainers";
        let found = list::<v1::ListContainersResponse>(&mut cri, path, request.clone()).await;
        assert_eq!(found, cri.runtime.list_containers(request).await.unwrap().into_inner().containers);
        assert_eq!((found.len(), found[0].id.as_str()), (1, id.as_str()));
        let path = "/runtime.v1.RuntimeService/StreamContainerStats";
        let filter = v1::ContainerStatsFilter { id: other.clone(), ..Default::default() };
        let request = v1::ListContainerStatsRequest { filter: Some(filter) };
        let found = list::<coracle_cri::ListContainerStatsResponse>(&mut cri, path, request).await;
        assert_eq!((found.len(), found[0].attributes.as_ref().unwrap().id.as_str()), (1, other.as_str()));
        // Told where the kernel measures it, and only there.
        let group = format!("/proc/{}/cgroup", crate::cri::running_pid(&mut cri, &other).await);
        let v2 = std::fs::read_to_string(group).unwrap().lines().all(|line| line.starts_with("0::"));
        let measured = v2 && std::path::Path::new("/proc/pressure/cpu").exists();
        assert_eq!(found[0].cpu.unwrap().psi.is_some(), measured);
        assert_eq!((found[0].memory.unwrap().psi.is_some(), found[0].io.is_some()), (measured, measured));
        let path = "/runtime.v1.RuntimeService/StreamPodSandboxStats";
        let request = v1::ListPodSandboxStatsRequest::default();
        let found = list::<coracle_cri::ListPodSandboxStatsResponse>(&mut cri, path, request).await;
        let containers = |stats: &coracle_cri::PodSandboxStats| stats.linux.as_ref().unwrap().containers.len();
        assert_eq!((found.len(), found.iter().map(containers).sum::<usize>()), (3, 2));
        let path = "/runtime.v1.RuntimeService/StreamPodSandboxMetrics";
        let request = v1::ListPodSandboxMetricsRequest {};
        let found = list::<v1::ListPodSandboxMetricsResponse>(&mut cri, path, request).await;
        assert_eq!(found.iter().map(|pod| pod.container_metrics.len()).sum::<usize>(), 2);

        let path = "/runtime.v1.ImageService/StreamImages";
        let named = |image: &str| v1::ListImagesRequest {
            filter: Some(v1::ImageFilter { image: Some(v1::ImageSpec { image: image.into(), ..Default::default() }) }),
        };
        let found = list::<v1::ListImagesResponse>(&mut cri, path, v1::ListImagesRequest::default()).await;
        assert_eq!(found.iter().map(|image| image.repo_tags.join(",")).collect::<Vec<_>>(), [IMAGE]);
        assert_eq!(list::<v1::ListImagesResponse>(&mut cri, path, named(IMAGE)).await, found);
        assert_eq!(list::<v1::ListImagesResponse>(&mut cri, path, named("none:latest")).await, []);
        let unknown =
            cri.newer.parts::<_, v1::ListImagesResponse>("/runtime.v1.ImageService/StreamNothing", named("")).await;
        assert_eq!(unknown.unwrap_err().code(), tonic::Code::Unimplemented);
        for pod in pods {
            cri.remove_sandbox(&pod).await;
        }
        running.stop().await;
    });
}

#[test]
fn containers_end_with_their_own_signals_and_take_any_bytes() {
    isolated("newer::containers_end_with_their_own_signals_and_take_any_bytes", || async {
        let node = Node::new("newer::containers_end_with_their_own_signals_and_take_any_bytes");
        node.install_network();
        let running = node.start().await;
        let mut cri = running.clients.clone();
        let pod = cri.run_sandbox(sandbox(&node, "web")).await;
        let text = "trap 'exit 9' USR1; trap 'exit 5' TERM; echo \"ready $ODD\"; while :; do sleep 100 & wait; done";
        let request = |name: &str, signal: i32| {
            let mut request = newer(v1::CreateContainerRequest {
                pod_sandbox_id: pod.clone(),
                config: Some(script(name, text)),
                sandbox_config: None,
            });
            let config = request.config.as_mut().unwrap();
            config.stop_signal = signal;
            config.envs.push(KeyValue { key: "ODD".into(), value: vec![b'a', 0xff, b'b'].into() });
            request
        };
        let cases =
            [("own", Signal::Sigusr1, Signal::Sigusr1, 9), ("plain", Signal::RuntimeDefault, Signal::Sigterm, 5)];
        for (name, asked, told, code) in cases {
            let id = cri.newer.create_container(request(name, asked as i32)).await.unwrap().into_inner().container_id;
            cri.start(&id).await;
            let path = node.path("logs/web").join(name).join("0.log");
            while !std::fs::read_to_string(&path).is_ok_and(|text| text.contains("ready")) {
                tokio::task::yield_now().await;
            }
            assert_eq!(log(&node, "web", name), "ready a\u{fffd}b\n");
            let wanted = v1::ContainerStatusRequest { container_id: id.clone(), verbose: false };
            let status = cri.newer.container_status(wanted).await.unwrap().into_inner().status.unwrap();
            assert_eq!(status.stop_signal(), told);
            let request = v1::StopContainerRequest { container_id: id.clone(), timeout: 30 };
            cri.runtime.stop_container(request).await.unwrap();
            assert_eq!(cri.status(&id).await.exit_code, code);
        }
        let error = cri.newer.create_container(request("wrong", 99)).await.unwrap_err();
        assert!(error.code() == tonic::Code::InvalidArgument && error.message().contains("99"), "{error}");
        cri.remove_sandbox(&pod).await;
        running.stop().await;
    });
}

#[test]
fn images_are_pulled_with_what_is_meant_for_their_registry_and_told_of() {
    isolated("newer::images_are_pulled_with_what_is_meant_for_their_registry_and_told_of", || async {
        let registry = std::sync::Arc::new(crate::images::Registry::guarded());
        registry.fill();
        let host = registry.serve().await;
        let node = Node::new("newer::images_are_pulled_with_what_is_meant_for_their_registry_and_told_of");
        let running = node.start().await;
        let mut cri = running.clients.clone();
        let spec = v1::ImageSpec { image: format!("{host}/test/app:v1"), ..Default::default() };
        let pull = |server: &str, handler: &str| v1::PullImageRequest {
            image: Some(v1::ImageSpec { runtime_handler: handler.into(), ..spec.clone() }),
            auth: Some(v1::AuthConfig {
                username: "u".into(),
                password: "p".into(),
                server_address: server.into(),
                ..Default::default()
            }),
            sandbox_config: None,
        };
        let error = cri.images.pull_image(pull("https://elsewhere.example", "")).await.unwrap_err();
        assert_eq!(error.code(), tonic::Code::PermissionDenied, "{error}");
        let error = cri.images.pull_image(pull("", "kata")).await.unwrap_err();
        assert!(error.code() == tonic::Code::NotFound && error.message().contains("kata"), "{error}");
        let pulled = cri.images.pull_image(pull(&format!("http://{host}/v2/"), "coracle")).await.unwrap().into_inner();
        for verbose in [false, true] {
            let request = v1::ImageStatusRequest { image: Some(spec.clone()), verbose };
            let status = cri.images.image_status(request).await.unwrap().into_inner();
            assert_eq!(status.image.unwrap().id, pulled.image_ref);
            let info = status.info.get("info").map(|text| serde_json::from_str::<serde_json::Value>(text).unwrap());
            let command = info.as_ref().map(|info| info["imageSpec"]["config"]["Cmd"][0].as_str().unwrap());
            assert_eq!(command, verbose.then_some("/x"));
        }
        running.stop().await;
    });
}

#[test]
fn containers_have_the_devices_that_the_node_describes() {
    isolated("newer::containers_have_the_devices_that_the_node_describes", || async {
        let node = Node::new("newer::containers_have_the_devices_that_the_node_describes");
        node.install_network();
        let (given, hooked) = (node.path("given"), node.path("hooked"));
        std::fs::create_dir(&given).unwrap();
        std::fs::write(given.join("file"), "from the node\n").unwrap();
        std::fs::create_dir(node.path("cdi")).unwrap();
        let edits = serde_json::json!({
            "env": ["CARD=one"],
            "deviceNodes": [{"path": "/dev/card", "hostPath": "/dev/zero"}],
            "mounts": [{"hostPath": given, "containerPath": "/given", "options": ["ro", "rbind"]}],
            "hooks": [{"hookName": "createRuntime", "path": "/bin/busybox", "args": ["touch", hooked]}],
            "additionalGids": [4242],
        });
        let spec = serde_json::json!({"cdiVersion": "0.7.0", "kind": "vendor.com/card",
            "devices": [{"name": "one", "containerEdits": edits}]});
        std::fs::write(node.path("cdi/card.json"), spec.to_string()).unwrap();
        let running = node.start().await;
        let mut cri = running.clients.clone();
        let pod = cri.run_sandbox(sandbox(&node, "web")).await;
        let text = "echo $CARD; head -c 5 /dev/card > /tmp/five; stat -c %s /tmp/five; cat /given/file; id -G; echo x > /given/file || echo refused";
        let with = |device: &str, name: &str| v1::ContainerConfig {
            cdi_devices: vec![v1::CdiDevice { name: device.into() }],
            ..script(name, text)
        };
        let id = cri.run(&pod, with("vendor.com/card=one", "main")).await;
        cri.wait(&id).await;
        let said = log(&node, "web", "main");
        let lines: Vec<&str> = said.lines().collect();
        assert!(lines.starts_with(&["one"]) && lines.contains(&"5") && lines.contains(&"from the node"), "{said}");
        assert!(said.contains("4242") && said.contains("refused"), "{said}");
        assert!(hooked.exists());
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: pod.clone(),
            config: Some(with("vendor.com/card=two", "other")),
            sandbox_config: None,
        };
        let error = cri.runtime.create_container(request).await.unwrap_err();
        assert!(error.message().contains("unresolvable CDI devices vendor.com/card=two"), "{error}");
        cri.remove_sandbox(&pod).await;
        running.stop().await;
    });
}
