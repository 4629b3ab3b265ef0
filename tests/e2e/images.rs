//! Images from elsewhere: an archive of Debian's busybox.

use std::{fs, path::Path};

use coracle_tests::Lab;

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

/// What `docker save` writes, made by hand: a layer, a configuration, a manifest.
fn busybox_archive() -> Vec<u8> {
    let program = Path::new("/bin/busybox");
    assert!(program.exists(), "install Debian's busybox-static");
    let mut layer = tar::Builder::new(Vec::new());
    layer.append_path_with_name(program, "bin/busybox").unwrap();
    let layer = layer.into_inner().unwrap();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/busybox", "sh"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", hex::encode(sha2(&layer)))]},
    });
    let manifest = serde_json::json!([{"Config": "config.json", "RepoTags": ["busybox:test"], "Layers": ["layer.tar"]}]);
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in [("layer.tar", layer), ("config.json", config.to_string().into_bytes()), ("manifest.json", manifest.to_string().into_bytes())] {
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
