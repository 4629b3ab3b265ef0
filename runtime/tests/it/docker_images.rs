//! Images by the Docker API: what clients hear of pulls, removals and archives that go wrong.

use std::{fs, sync::Arc};

use coracle_link::{Links, Place};
use coracle_runtime::{
    digest::Digest,
    docker::Listener,
    images::manifest::{OCI_MANIFEST, Platform},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use crate::{
    apparmor::{docker, docker_json},
    harness::{Node, Running},
    images::{Registry, tar},
    isolation::isolated,
    registries::publish,
};

async fn start(test: &str) -> (Node, Running) {
    Links::open(&Place::Current).unwrap().up("lo").await.unwrap();
    let node = Node::new(test);
    node.install_network();
    let mut config = node.config();
    config.docker = vec![Listener::Unix(node.path("docker.sock"))];
    let running = node.start_with(config).await;
    (node, running)
}

/// One request, given and answered as it is.
async fn raw(node: &Node, request: &[u8]) -> String {
    let mut stream = UnixStream::connect(node.path("docker.sock")).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

async fn pull(node: &Node, query: &str, headers: &str) -> (String, String) {
    let request = format!(
        "POST /v1.43/images/create?{query} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n{headers}Content-Length: 0\r\n\r\n"
    );
    let answer = raw(node, request.as_bytes()).await;
    let status = answer.split(' ').nth(1).unwrap().to_owned();
    (status, answer)
}

#[test]
fn pulls_that_find_nothing_have_a_status() {
    const TEST: &str = "docker_images::pulls_that_find_nothing_have_a_status";
    isolated(TEST, || async {
        let (node, running) = start(TEST).await;
        let registry = Arc::new(Registry::default());
        publish(&registry, &tar(&[("a", b"one")]));
        let host = registry.serve().await;
        let (status, answer) = pull(&node, &format!("fromImage={host}/test/app&tag=none"), "").await;
        let text = format!("manifest for {host}/test/app:none not found: manifest unknown: manifest unknown\"");
        assert!(status == "404" && answer.contains(&text), "{answer}");
        let (status, answer) = pull(&node, "fromImage=127.0.0.1:1/a&tag=b", "").await;
        assert!(status == "500" && answer.contains("connection refused"), "{answer}");
        let guarded = Arc::new(Registry::guarded()).serve().await;
        let (status, answer) = pull(&node, &format!("fromImage={guarded}/test/app&tag=v1"), "").await;
        assert!(status == "401" && answer.contains("failed to authorize"), "{answer}");
        let denied = Registry::default();
        *denied.odd.lock() = Some(Arc::new(|_| {
            Some(axum::response::Response::builder().status(403).body(axum::body::Body::empty()).unwrap())
        }));
        let host_denied = Arc::new(denied).serve().await;
        let (status, answer) = pull(&node, &format!("fromImage={host_denied}/test/app&tag=v1"), "").await;
        let text = format!(
            "pull access denied for {host_denied}/test/app, repository does not exist or may require 'docker login': denied: requested access to the resource is denied"
        );
        assert!(status == "404" && answer.contains(&text), "{answer}");
        // What is found is told as ever; a header that nobody can read is no credentials.
        let headers = "X-Registry-Auth: %%%\r\n";
        let (status, answer) = pull(&node, &format!("fromImage={host}/test/app:other&tag=v1"), headers).await;
        assert!(status == "200" && answer.contains("Pulling from") && answer.contains("Downloaded newer"), "{answer}");
        running.stop().await;
    });
}

#[test]
fn a_name_without_a_tag_is_every_tag() {
    const TEST: &str = "docker_images::a_name_without_a_tag_is_every_tag";
    isolated(TEST, || async {
        let (node, running) = start(TEST).await;
        let registry = Arc::new(Registry::default());
        publish(&registry, &tar(&[("a", b"one")]));
        let manifest = registry.get("test/app/manifests/v1");
        registry.put("test/app/manifests/v2", OCI_MANIFEST, &manifest);
        // Two pages.
        *registry.odd.lock() = Some(Arc::new(|request| {
            let answer = axum::response::Response::builder();
            let page = |answer: http::response::Builder, tags: Value| {
                Some(answer.body(json!({ "name": "test/app", "tags": tags }).to_string().into()).unwrap())
            };
            match (request.uri().path(), request.uri().query()) {
                ("/v2/test/app/tags/list", None) => {
                    page(answer.header("Link", r#"</v2/test/app/tags/list?last=v1&n=1>; rel="next""#), json!(["v1"]))
                }
                ("/v2/test/app/tags/list", Some("last=v1&n=1")) => page(answer, json!(["v2"])),
                _ => None,
            }
        }));
        let host = registry.serve().await;
        let (status, answer) = pull(&node, &format!("fromImage={host}/test/app:"), "").await;
        assert_eq!(status, "200", "{answer}");
        let (_, images) = docker_json(&node, "GET", "/images/json", json!({})).await;
        let tags = json!([format!("{host}/test/app:v1"), format!("{host}/test/app:v2")]);
        assert!(images.as_array().unwrap().iter().any(|image| image["RepoTags"] == tags), "{images}");
        running.stop().await;
    });
}

#[test]
fn an_image_that_runs_loses_its_name_alone() {
    const TEST: &str = "docker_images::an_image_that_runs_loses_its_name_alone";
    isolated(TEST, || async {
        let (node, running) = start(TEST).await;
        let host = json!({ "NetworkMode": "none" });
        let config = json!({ "Image": "test/busybox:1", "Cmd": ["sleep", "1000"], "HostConfig": host });
        let (_, created) = docker_json(&node, "POST", "/containers/create", config).await;
        let id = created["Id"].as_str().unwrap();
        let (_, shown) = docker_json(&node, "GET", "/images/test/busybox:1/json", json!({})).await;
        let image = shown["Id"].as_str().unwrap();
        assert_eq!(docker(&node, "POST", &format!("/containers/{id}/start"), json!({})).await.0, 204);
        let (status, removed) = docker_json(&node, "DELETE", "/images/test/busybox:1?force=1", json!({})).await;
        assert_eq!(status, 200);
        let words: Vec<&str> = removed
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|line| line.as_object().unwrap().keys())
            .map(String::as_str)
            .collect();
        assert!(!words.is_empty() && words.iter().all(|word| *word == "Untagged"), "{removed}");
        let (status, shown) = docker_json(&node, "GET", &format!("/images/{image}/json"), json!({})).await;
        assert_eq!((status, &shown["RepoTags"]), (200, &json!([])));
        let (status, made) = docker_json(&node, "POST", &format!("/commit?container={id}"), json!({})).await;
        assert_eq!(status, 201, "{made}");
        // Mounted by another, it is in use as well.
        let (_, made) = docker_json(&node, "DELETE", &format!("/images/{image}?force=1"), json!({})).await;
        assert!(made["message"].as_str().unwrap().contains("running container"), "{made}");
        docker(&node, "DELETE", &format!("/containers/{id}?force=1"), json!({})).await;
        let (status, removed) = docker_json(&node, "DELETE", &format!("/images/{image}"), json!({})).await;
        assert!(status == 200 && removed.to_string().contains("Deleted"), "{removed}");
        running.stop().await;
    });
}

#[test]
fn archives_that_break_off_do_not_look_whole() {
    const TEST: &str = "docker_images::archives_that_break_off_do_not_look_whole";
    isolated(TEST, || async {
        let (node, running) = start(TEST).await;
        let (_, shown) = docker_json(&node, "GET", "/images/test/busybox:1/json", json!({})).await;
        let layer = shown["RootFS"]["Layers"][0].as_str().unwrap().trim_start_matches("sha256:").to_owned();
        let layer = node.path("data/content/sha256").join(layer);
        let get = b"GET /v1.43/images/test/busybox:1/get HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n";
        let whole = raw(&node, get).await;
        assert!(whole.starts_with("HTTP/1.1 200") && whole.ends_with("\r\n0\r\n\r\n"));
        // Shorter than it is: found out only on the way.
        let bytes = fs::read(&layer).unwrap();
        fs::write(&layer, &bytes[..bytes.len() - 1000]).unwrap();
        let torn = raw(&node, get).await;
        assert!(torn.starts_with("HTTP/1.1 200") && !torn.ends_with("\r\n0\r\n\r\n"));
        fs::remove_file(&layer).unwrap();
        let (status, answer) = docker_json(&node, "GET", "/images/test/busybox:1/get", json!({})).await;
        assert!(status == 500 && answer["message"].as_str().unwrap().contains("is not whole"), "{answer}");
        running.stop().await;
    });
}

#[test]
fn packed_layers_are_called_what_they_are() {
    const TEST: &str = "docker_images::packed_layers_are_called_what_they_are";
    isolated(TEST, || async {
        let (node, running) = start(TEST).await;
        let layer = tar(&[("a", b"one")]);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut gzip, &layer).unwrap();
        let mut bzip2 = std::process::Command::new("bzip2")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut bzip2.stdin.take().unwrap(), &layer).unwrap();
        let bzip2 = bzip2.wait_with_output().unwrap().stdout;
        let config = json!({ "architecture": Platform::own().architecture, "os": "linux", "rootfs": { "type": "layers", "diff_ids": [Digest::of(&layer), Digest::of(&layer)] } }).to_string();
        let manifest =
            json!([{ "Config": "c.json", "RepoTags": ["packed:1"], "Layers": ["a.tar.gz", "b.tar.bz2"] }]).to_string();
        let archive = tar(&[
            ("a.tar.gz", &gzip.finish().unwrap()),
            ("b.tar.bz2", &bzip2),
            ("c.json", config.as_bytes()),
            ("manifest.json", manifest.as_bytes()),
        ]);
        let mut request = format!(
            "POST /v1.43/images/load HTTP/1.1\r\nHost: docker\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            archive.len()
        )
        .into_bytes();
        request.extend(archive);
        let answer = raw(&node, &request).await;
        assert!(answer.contains("Loaded image: packed:1"), "{answer}");
        // What is saved again, and pushed, has these types.
        let (_, saved) = docker(&node, "GET", "/images/packed:1/get", json!({})).await;
        let mut manifest = Value::Null;
        for entry in tar::Archive::new(&saved[..]).entries().unwrap() {
            let document = serde_json::from_reader::<_, Value>(entry.unwrap()).unwrap_or_default();
            if document.get("layers").is_some() {
                manifest = document;
            }
        }
        let kinds: Vec<&str> =
            manifest["layers"].as_array().unwrap().iter().map(|layer| layer["mediaType"].as_str().unwrap()).collect();
        let plain = "application/vnd.oci.image.layer.v1.tar";
        assert_eq!(kinds, [format!("{plain}+gzip").as_str(), plain]);
        running.stop().await;
    });
}

#[test]
fn file_systems_are_imported_from_addresses() {
    const TEST: &str = "docker_images::file_systems_are_imported_from_addresses";
    isolated(TEST, || async {
        let (node, running) = start(TEST).await;
        let registry = Arc::new(Registry::default());
        registry.put("root.tar", "application/x-tar", &tar(&[("a", b"one")]));
        let host = registry.serve().await;
        let (status, answer) = pull(&node, &format!("fromSrc={host}/v2/root.tar&repo=got&tag=1"), "").await;
        assert!(status == "200" && answer.contains("Downloading from") && answer.contains("sha256:"), "{answer}");
        let (_, shown) = docker_json(&node, "GET", "/images/got:1/json", json!({})).await;
        assert_eq!(shown["Comment"], json!(format!("Imported from {host}/v2/root.tar")));
        let (status, _) = pull(&node, &format!("fromSrc=http://{host}/v2/none.tar&repo=got"), "").await;
        assert_eq!(status, "400");
        running.stop().await;
    });
}
