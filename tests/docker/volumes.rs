//! Volumes.

use crate::engine::{Engine, IMAGE};

#[test]
fn a_volume_outlives_its_containers_and_begins_with_the_images_content() {
    let engine = Engine::start();
    assert_eq!(engine.ok(&["volume", "create", "data"]), "data");
    assert_eq!(engine.ok(&["run", "--rm", "-v", "data:/data", IMAGE, "ls", "/data"]), "seed");
    engine.ok(&["run", "--rm", "-v", "data:/data", IMAGE, "sh", "-c", "echo kept > /data/file"]);
    assert_eq!(engine.ok(&["run", "--rm", "-v", "data:/data:ro", IMAGE, "cat", "/data/file"]), "kept");
    engine.ok(&["run", "-d", "--name", "user", "-v", "data:/data", IMAGE, "sleep", "1000"]);
    let busy = engine.docker(&["volume", "rm", "data"]).fails();
    assert!(busy.contains("volume is in use - ["), "{busy}");
    assert_eq!(engine.ok(&["run", "--rm", "--volumes-from", "user", IMAGE, "cat", "/data/file"]), "kept");
    engine.ok(&["rm", "-f", "user"]);
    engine.ok(&["volume", "rm", "data"]);
    assert_eq!(engine.ok(&["volume", "ls", "-q"]), "");
}

#[test]
fn anonymous_volumes_go_with_their_container_and_binds_are_the_hosts() {
    let engine = Engine::start();
    engine.ok(&["run", "--rm", "-v", "/scratch", IMAGE, "touch", "/scratch/x"]);
    assert_eq!(engine.ok(&["volume", "ls", "-q"]), "");
    let dir = engine.path("shared");
    std::fs::create_dir(&dir).unwrap();
    engine.ok(&["run", "--rm", "-v", &format!("{}:/in", dir.display()), IMAGE, "sh", "-c", "echo x > /in/file"]);
    assert_eq!(std::fs::read_to_string(dir.join("file")).unwrap(), "x\n");
    let read_only =
        engine.docker(&["run", "--rm", "-v", &format!("{}:/in:ro", dir.display()), IMAGE, "touch", "/in/y"]);
    assert!(read_only.stderr.contains("Read-only file system"), "{}", read_only.stderr);
    for (mount, word) in [
        ("type=bind,src=~/a,dst=/x", "mount path must be absolute"),
        ("type=tmpfs,src=a,dst=/x", "must not be specified"),
    ] {
        let refused = engine.docker(&["run", "--rm", "--mount", mount, IMAGE]);
        assert!(refused.stderr.contains(word), "{mount}: {}", refused.stderr);
    }
}

#[test]
fn a_file_system_that_the_kernel_lacks_is_named() {
    let engine = Engine::start();
    engine.ok(&["volume", "create", "-o", "type=nosuchfs", "-o", "device=:/far", "far"]);
    let refused = engine.docker(&["run", "--rm", "-v", "far:/far", IMAGE, "true"]);
    assert!(refused.stderr.contains("no such device"), "{}", refused.stderr);
    let why = "the kernel of this host has no file system \"nosuchfs\"";
    assert!(engine.is_peer() || refused.stderr.contains(why), "{}", refused.stderr);
}

#[test]
fn a_part_of_a_volume_is_never_more_than_that() {
    let engine = Engine::start();
    if engine.is_older(45, "parts of volumes") {
        return;
    }
    engine.ok(&["volume", "create", "shared"]);
    let inside = |script: &str| engine.ok(&["run", "--rm", "-v", "shared:/all", IMAGE, "sh", "-c", script]);
    inside("busybox mkdir -p /all/sub && echo own > /all/sub/file");
    let mount = "type=volume,src=shared,dst=/part,volume-subpath=sub";
    engine.ok(&["create", "--name", "part", "--mount", mount, IMAGE, "ls", "/part"]);
    assert_eq!(engine.ok(&["start", "-a", "part"]), "file");
    // Between two starts another container puts a link to the host's root in its place.
    inside("busybox mv /all/sub /all/moved && busybox ln -s / /all/sub");
    let refused = engine.docker(&["start", "-a", "part"]);
    assert!(!refused.status.success() && refused.stdout.is_empty(), "{refused:?}");
    inside("rm /all/sub && busybox mv /all/moved /all/sub");
    assert_eq!(engine.ok(&["start", "-a", "part"]), "file");
}

#[test]
fn images_are_mounted_to_be_read_whole_or_in_part() {
    let engine = Engine::start();
    if engine.is_older(48, "mounts of images") {
        return;
    }
    engine.ok(&[
        "run",
        "--name",
        "more",
        IMAGE,
        "sh",
        "-c",
        "busybox mkdir -p /data/sub && echo words > /data/sub/file",
    ]);
    engine.ok(&["commit", "more", "data:1"]);
    engine.ok(&["rm", "more"]);
    let with = |mount: &str, script: &str| engine.docker(&["run", "--rm", "--mount", mount, IMAGE, "sh", "-c", script]);
    let whole = "type=image,src=data:1,dst=/img";
    assert_eq!(with(whole, "cat /img/data/sub/file; /img/bin/busybox echo run").ok(), "words\nrun\n");
    let refused = with(whole, "echo x > /img/data/sub/file");
    assert!(refused.stderr.contains("Read-only file system"), "{refused:?}");
    let part = |path: &str| format!("{whole},image-subpath={path}");
    assert_eq!(with(&part("data/sub"), "ls /img").ok(), "file\n");
    for (mount, why) in [
        (part("data/none"), "no such file or directory"),
        (part("../etc"), "subpath must be a relative path within the image: ../etc"),
        ("type=image,src=nothing,dst=/img".into(), "No such image: nothing:latest"),
        ("type=image,dst=/img".into(), "field Source must not be empty"),
    ] {
        let refused = with(&mount, "true");
        assert!(!refused.status.success() && refused.stderr.contains(why), "{mount}: {refused:?}");
    }
    // It is there as long as a container has it mounted.
    engine.ok(&["create", "--name", "reader", "--mount", whole, IMAGE, "cat", "/img/data/sub/file"]);
    let shown =
        engine.ok(&["inspect", "-f", "{{range .Mounts}}{{.Type}} {{.Name}} {{.Destination}} {{.RW}}{{end}}", "reader"]);
    assert_eq!(shown, "image data:1 /img false");
    let refused = engine.docker(&["rmi", "data:1"]).fails();
    assert!(refused.contains("is using its referenced image"), "{refused}");
    engine.ok(&["rmi", "-f", "data:1"]);
    assert_eq!(engine.ok(&["start", "-a", "reader"]), "words");
}
