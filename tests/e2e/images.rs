//! Images from elsewhere: Debian's busybox as an archive, and from a registry.

use std::{fs, path::Path};

use coracle_tests::Lab;

use crate::registry::Registry;

#[test]
fn an_image_archive_is_loaded_and_runs() {
    let lab = Lab::up("cargo", 1);
    let archive = lab.home().join("busybox.tar");
    fs::write(&archive, busybox_archive()).unwrap();
    let said = lab.lab(&["load", archive.to_str().unwrap()]).ok();
    assert_eq!(said, "Loaded docker.io/library/busybox:test into every node.\n");
    lab.lite("run box --image=busybox:test --restart=Never --command -- /bin/busybox echo aboard").ok();
    lab.lite("wait --for=jsonpath={.status.phase}=Succeeded pod/box --timeout=30s").ok();
    assert_eq!(lab.lite("logs box").ok(), "aboard\n");
    fs::remove_file(archive).unwrap();
}

#[test]
fn an_image_is_pulled_from_a_registry() {
    let registry = Registry::start();
    registry.push("tools/busybox", "1", &busybox_layer());
    let lab = Lab::up("pull", 1);
    let image = format!("{}/tools/busybox:1", registry.host());
    lab.lite(&format!("run box --image={image} --restart=Never -- echo from the registry")).ok();
    lab.lite("wait --for=jsonpath={.status.phase}=Succeeded pod/box --timeout=30s").ok();
    assert_eq!(lab.lite("logs box").ok(), "from the registry\n");
    let events = lab.lite("get events").ok();
    assert!(events.contains(&format!("Successfully pulled image \"{image}\"")), "{events}");

    lab.lite(&format!("run lost --image={}/tools/busybox:2", registry.host())).ok();
    lab.lite(
        "wait --for=jsonpath={.status.containerStatuses[0].state.waiting.reason}=ErrImagePull pod/lost --timeout=30s",
    )
    .ok();
    let described = lab.lite("describe pod lost").ok();
    assert!(described.contains("not found"), "{described}");
}

fn busybox_layer() -> Vec<u8> {
    let program = Path::new("/bin/busybox");
    assert!(program.exists(), "install Debian's busybox-static");
    let mut layer = tar::Builder::new(Vec::new());
    layer.append_path_with_name(program, "bin/busybox").unwrap();
    layer.into_inner().unwrap()
}

/// What `docker save` writes, made by hand: a layer, a configuration, a manifest.
pub fn busybox_archive() -> Vec<u8> {
    let layer = busybox_layer();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/busybox", "sh"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", hex::encode(sha2(&layer)))]},
    });
    let manifest =
        serde_json::json!([{"Config": "config.json", "RepoTags": ["busybox:test"], "Layers": ["layer.tar"]}]);
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in [
        ("layer.tar", layer),
        ("config.json", config.to_string().into_bytes()),
        ("manifest.json", manifest.to_string().into_bytes()),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, &content[..]).unwrap();
    }
    archive.into_inner().unwrap()
}

fn sha2(bytes: &[u8]) -> impl AsRef<[u8]> {
    use sha2::Digest;
    sha2::Sha256::digest(bytes)
}
