//! Directories that images ask for, through CRI.

use std::{fs, path::Path, sync::Arc};

use coracle_runtime::{digest::Digest, images::manifest::OCI_MANIFEST};
use k8s_cri::v1;
use serde_json::{Value, json};
use tonic::Code;

use crate::{
    cri::assert_nothing_left,
    harness::{Clients, Node, log, newer, sandbox, script},
    hostile::{end, entry, link, of, pod, publish, pull},
    images::Registry,
    isolation::isolated,
};

fn file(layer: &mut tar::Builder<Vec<u8>>, path: &str, owner: u64, mode: u32, content: &str) {
    let mut header = entry(tar::EntryType::Regular, mode);
    header.set_uid(owner);
    header.set_gid(owner);
    header.set_size(content.len() as u64);
    layer.append_data(&mut header, path, content.as_bytes()).unwrap();
}

fn directory(layer: &mut tar::Builder<Vec<u8>>, path: &str, owner: u64, mode: u32) {
    let mut header = entry(tar::EntryType::Directory, mode);
    header.set_uid(owner);
    header.set_gid(owner);
    layer.append_data(&mut header, path, std::io::empty()).unwrap();
}

fn volumes(places: &[&str]) -> Value {
    json!({ "Volumes": places.iter().map(|place| ((*place).to_owned(), json!({}))).collect::<serde_json::Map<_, _>>() })
}

fn read_only(mut config: v1::ContainerConfig) -> v1::ContainerConfig {
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap().readonly_rootfs = true;
    config
}

async fn said(node: &Node, cri: &mut Clients, pod: (&str, &str), config: v1::ContainerConfig) -> (String, String) {
    let name = config.metadata.as_ref().unwrap().name.clone();
    let id = cri.run(pod.0, config).await;
    let code = cri.wait(&id).await.exit_code;
    let text = log(node, pod.1, &name);
    assert_eq!(code, 0, "{text}");
    (id, text)
}

fn publish_database(registry: &Registry) {
    publish(registry, "db", volumes(&["/data", "/data/", "/data/deep", "relative/place", "/given", "/new"]), |layer| {
        directory(layer, "data", 33, 0o750);
        file(layer, "data/seed", 33, 0o640, "seed\n");
        directory(layer, "data/deep", 0, 0o755);
        file(layer, "data/deep/file", 0, 0o644, "deep\n");
        directory(layer, "given", 0, 0o755);
        file(layer, "given/image", 0, 0o644, "image\n");
    });
}

const LOOK: &str = "stat -c %u:%g:%a /data /data/seed; cat /data/seed /data/deep/file; \
                    echo changed > /data/seed && echo x > /relative/place/f && echo x > /new/f && echo written; ls /given; \
                    (echo x > /data2) 2>/dev/null || echo read-only";

/// An image of as many layers as one may have, each with a file.
fn publish_many(registry: &Registry) {
    publish(registry, "first", json!({}), |layer| {
        directory(layer, "data", 33, 0o750);
        file(layer, "data/seed", 33, 0o640, "seed\n");
    });
    let read = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
    let mut manifest = read(&registry.get("test/app/manifests/first"));
    let blob = |digest: &str| format!("test/app/blobs/{digest}");
    let mut config = read(&registry.get(&blob(manifest["config"]["digest"].as_str().unwrap())));
    for number in 1..127 {
        let mut layer = tar::Builder::new(Vec::new());
        file(&mut layer, &format!("many/f{number}"), 0, 0o644, "x");
        let layer = layer.into_inner().unwrap();
        config["rootfs"]["diff_ids"].as_array_mut().unwrap().push(Digest::of(&layer).to_string().into());
        let layer = registry.put(&blob("DIGEST"), "application/vnd.oci.image.layer.v1.tar", &layer);
        manifest["layers"].as_array_mut().unwrap().push(layer);
    }
    config["config"] = volumes(&["/data"]);
    let kind = "application/vnd.oci.image.config.v1+json";
    manifest["config"] = registry.put(&blob("DIGEST"), kind, config.to_string().as_bytes());
    registry.put("test/app/manifests/many", OCI_MANIFEST, manifest.to_string().as_bytes());
}

#[test]
fn images_of_many_layers_are_mounted() {
    const TEST: &str = "image_volumes::images_of_many_layers_are_mounted";
    isolated(TEST, || async {
        let registry = Arc::new(Registry::default());
        publish_many(&registry);
        let host = registry.serve().await;
        let (node, mut cri, pod, running) = crate::hostile::pod(TEST).await;
        let image = pull(&mut cri, &host, "many").await;
        let mount =
            |path: &str| v1::Mount { container_path: path.into(), image: Some(image.clone()), ..Default::default() };
        // As a root, with a volume that is filled from there, and as volumes, whole and in part.
        let text = "cat /data/seed; ls /many | /bin/busybox wc -l; ls /vol/many | /bin/busybox wc -l; ls /part | /bin/busybox wc -l";
        let mut config = of(&image, script("many", text));
        config.mounts = vec![mount("/vol"), mount("/part")];
        let request =
            v1::CreateContainerRequest { pod_sandbox_id: pod.clone(), config: Some(config), sandbox_config: None };
        let mut request = newer(request);
        request.config.as_mut().unwrap().mounts[1].image_sub_path = "many".into();
        let id = cri.newer.create_container(request).await.unwrap().into_inner().container_id;
        cri.start(&id).await;
        let code = cri.wait(&id).await.exit_code;
        assert_eq!((log(&node, "web", "many").as_str(), code), ("seed\n126\n126\n126\n", 0));
        end(&node, cri, &pod, running).await;
    });
}

#[test]
fn volumes_of_an_image_are_the_containers_own() {
    const TEST: &str = "image_volumes::volumes_of_an_image_are_the_containers_own";
    isolated(TEST, || async {
        let registry = Arc::new(Registry::default());
        publish_database(&registry);
        let host = registry.serve().await;
        let node = Node::new(TEST);
        node.install_network();
        let mut daemon = node.start_process();
        let mut cri = node.connect().await;
        let image = pull(&mut cri, &host, "db").await;
        let given = node.path("given");
        fs::create_dir(&given).unwrap();
        fs::write(given.join("host"), "").unwrap();
        let config = |name: &str, text: &str| {
            let mut config = read_only(of(&image, script(name, text)));
            let host_path = given.to_str().unwrap().into();
            config.mounts = vec![v1::Mount { container_path: "/given/".into(), host_path, ..Default::default() }];
            config
        };
        let own = cri.run_sandbox(sandbox(&node, "web")).await;
        let range = vec![v1::IdMapping { host_id: 300_000, container_id: 0, length: 65_536 }];
        let users = v1::UserNamespace { mode: v1::NamespaceMode::Pod as i32, uids: range.clone(), gids: range };
        let mut mapped = sandbox(&node, "mapped");
        let security = mapped.linux.as_mut().unwrap().security_context.as_mut().unwrap();
        security.namespace_options.as_mut().unwrap().userns_options = Some(users);
        let mapped = cri.run_sandbox(mapped).await;
        let expected = "33:33:750\n33:33:640\nseed\ndeep\nwritten\nhost\nread-only\n";
        // Each one has the image's content, also after another has changed its own.
        for (pod, name) in
            [((own.as_str(), "web"), "a"), ((own.as_str(), "web"), "b"), ((mapped.as_str(), "mapped"), "c")]
        {
            let (id, text) = said(&node, &mut cri, pod, config(name, LOOK)).await;
            assert_eq!(text, expected, "{name}");
            let places: Vec<_> = cri.status(&id).await.mounts.into_iter().map(|mount| mount.container_path).collect();
            assert_eq!(places, ["/given/"]);
            let dir = node.path("data/containers").join(&id).join("volumes");
            assert_eq!(fs::read_dir(&dir).unwrap().count(), 4);
            cri.runtime.remove_container(v1::RemoveContainerRequest { container_id: id }).await.unwrap();
            assert!(!dir.exists());
        }
        // What runs keeps its volumes over the runtime's end; one that was made is started with them.
        let lasting = cri.run(&own, config("lasting", "echo kept > /new/f; echo ready; sleep 1000")).await;
        let created = cri.create(&own, config("created", LOOK)).await;
        let path = node.path("logs/web/lasting/0.log");
        while !fs::read_to_string(&path).is_ok_and(|text| text.contains("ready")) {
            tokio::task::yield_now().await;
        }
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        let mut daemon = node.start_process();
        let mut cri = node.connect().await;
        assert_eq!(cri.exec(&lasting, &["/bin/cat", "/new/f"]).await.stdout, b"kept\n");
        cri.start(&created).await;
        assert_eq!(cri.wait(&created).await.exit_code, 0);
        assert_eq!(log(&node, "web", "created"), expected);
        cri.remove_sandbox(&own).await;
        cri.remove_sandbox(&mapped).await;
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        assert_nothing_left(&node);
    });
}

#[test]
fn a_copy_that_was_cut_short_leaves_nothing() {
    const TEST: &str = "image_volumes::a_copy_that_was_cut_short_leaves_nothing";
    isolated(TEST, || async {
        let registry = Arc::new(Registry::default());
        let content = "x".repeat(1 << 20);
        publish(&registry, "large", volumes(&["/data"]), |layer| {
            (0..48).for_each(|number| file(layer, &format!("data/{number}"), 0, 0o644, &content));
        });
        let host = registry.serve().await;
        let node = Node::new(TEST);
        node.install_network();
        let mut daemon = node.start_process();
        let mut cri = node.connect().await;
        let image = pull(&mut cri, &host, "large").await;
        let pod = cri.run_sandbox(sandbox(&node, "web")).await;
        let config = Some(of(&image, script("large", "exit 0")));
        let request = v1::CreateContainerRequest { pod_sandbox_id: pod.clone(), config, sandbox_config: None };
        let mut client = cri.runtime.clone();
        let making = tokio::spawn(async move { client.create_container(request).await });
        let containers = node.path("data/containers");
        let copied = || fs::read_dir(&containers).unwrap().flatten().any(|dir| dir.path().join("volumes/0/0").exists());
        while !copied() {}
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        let _ = making.await.unwrap();
        let mut daemon = node.start_process();
        let mut cri = node.connect().await;
        cri.remove_sandbox(&pod).await;
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        assert_nothing_left(&node);
    });
}

#[test]
fn volumes_of_images_lead_nowhere() {
    const TEST: &str = "image_volumes::volumes_of_images_lead_nowhere";
    isolated(TEST, || async {
        let outside = tempfile::tempdir().unwrap();
        let victim = outside.path().to_str().unwrap();
        fs::write(outside.path().join("secret"), "secret").unwrap();
        let registry = Arc::new(Registry::default());
        let above = format!("/../../../..{victim}");
        publish(
            &registry,
            "out",
            volumes(&["/out", "/loop/../out/below", &above, "/a", "/b", "/tree", "/tree/in"]),
            |layer| {
                link(layer, "out", victim);
                link(layer, "a", "tree/in");
                link(layer, "b", "/tree/in");
                directory(layer, "tree/in", 0, 0o755);
                file(layer, "tree/in/file", 0, 0o644, "file\n");
                link(layer, "tree/shadow", "/proc/1/root/etc/shadow");
            },
        );
        publish(&registry, "root", volumes(&["/x/.."]), |_| ());
        publish(&registry, "toroot", volumes(&["/top"]), |layer| link(layer, "top", "/bin/.."));
        publish(&registry, "loop", volumes(&["/loop"]), |layer| link(layer, "loop", "loop"));
        let many: Vec<String> = (0..5000).map(|number| format!("/v{number}")).collect();
        publish(&registry, "many", volumes(&many.iter().map(String::as_str).collect::<Vec<_>>()), |_| ());
        publish(&registry, "proc", volumes(&["/proc/self"]), |_| ());
        let host = registry.serve().await;
        let (node, mut cri, pod, running) = pod(TEST).await;
        let image = pull(&mut cri, &host, "out").await;
        let text = format!("ls -A /out {victim}; echo x > /out/x; cat /a/file /b/file /tree/in/file; ls -A /tree");
        let (id, text) = said(&node, &mut cri, (&pod, "web"), of(&image, script("out", &text))).await;
        assert!(!text.contains("secret"), "{text}");
        assert!(text.ends_with("file\nfile\nfile\nin\nshadow\n"), "{text}");
        // Of what leads to the same directory there is one copy.
        let copies = fs::read_dir(node.path("data/containers").join(&id).join("volumes")).unwrap().flatten();
        let copies =
            copies.filter(|volume| volume.path().join("file").exists() || volume.path().join("in/file").exists());
        assert_eq!(copies.count(), 1);
        for (tag, code, words) in [
            ("root", Code::InvalidArgument, "a volume that leads to its root"),
            ("toroot", Code::InvalidArgument, "a volume that leads to its root"),
            ("many", Code::InvalidArgument, "the image has 5000 volumes: 256 at most"),
            ("loop", Code::Unknown, "find volume \"/loop\" in the image"),
        ] {
            let config = Some(of(&pull(&mut cri, &host, tag).await, script(tag, "exit 0")));
            let request = v1::CreateContainerRequest { pod_sandbox_id: pod.clone(), config, sandbox_config: None };
            let error = cri.runtime.create_container(request).await.unwrap_err();
            assert!(error.code() == code && error.message().contains(words), "{tag}: {error}");
        }
        let image = pull(&mut cri, &host, "proc").await;
        let id = cri.create(&pod, of(&image, script("proc", "exit 0"))).await;
        let error = cri.runtime.start_container(v1::StartContainerRequest { container_id: id }).await.unwrap_err();
        assert!(error.message().contains("inside /proc"), "{error}");
        let left: Vec<_> = fs::read_dir(outside.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(left, ["secret"]);
        assert!(!Path::new("/x").exists());
        end(&node, cri, &pod, running).await;
    });
}
