//! What a container gets, and what it is refused, where its configuration says nothing or too much.

use std::{fs, os::unix::fs::symlink};

use serde_json::json;

use crate::{isolation::isolated, launcher::Bundle};

#[test]
fn the_loopback_interface_is_up() {
    const TEST: &str = "launcher_defaults::the_loopback_interface_is_up";
    isolated(TEST, || async {
        let bundle = Bundle::new(TEST, "busybox ifconfig lo; exit 0");
        let (code, out, error) = bundle.run();
        assert!(code == 0 && out.contains("127.0.0.1") && out.contains("UP "), "{out}{error}");
    });
}

#[test]
fn home_is_the_users_directory() {
    const TEST: &str = "launcher_defaults::home_is_the_users_directory";
    isolated(TEST, || async {
        let mut bundle = Bundle::new(TEST, "echo \"$HOME\"; exit 0");
        let home = |bundle: &Bundle| {
            let (code, out, error) = bundle.run();
            assert_eq!(code, 0, "{error}");
            out
        };
        assert_eq!(home(&bundle), "/\n");
        let etc = bundle.rootfs().join("etc");
        fs::create_dir(&etc).unwrap();
        fs::write(etc.join("passwd"), "daemon:x:1:1::/sbin:\nroot:x:0:0::/root:/bin/sh\n").unwrap();
        assert_eq!(home(&bundle), "/root\n");
        bundle.config["process"]["env"] = json!(["PATH=/bin", "HOME="]);
        assert_eq!(home(&bundle), "/root\n");
        bundle.config["process"]["env"] = json!(["PATH=/bin", "HOME=/given"]);
        assert_eq!(home(&bundle), "/given\n");
        bundle.config["process"]["env"] = json!(["PATH=/bin"]);
        // Nobody else's file, and none that would be waited for.
        let outside = tempfile::NamedTempFile::new().unwrap();
        fs::write(outside.path(), "root:x:0:0::/outside:\n").unwrap();
        fs::remove_file(etc.join("passwd")).unwrap();
        symlink(outside.path(), etc.join("passwd")).unwrap();
        assert_eq!(home(&bundle), "/\n");
        fs::remove_file(etc.join("passwd")).unwrap();
        coracle_launcher::sys::mkfifo(etc.join("passwd"), 0o644).unwrap();
        assert_eq!(home(&bundle), "/\n");
        // And in what is executed there.
        fs::remove_file(etc.join("passwd")).unwrap();
        fs::write(etc.join("passwd"), "other:x:7:7::/seven:\n").unwrap();
        bundle.write();
        let null = || std::process::Stdio::null();
        let program = coracle_programs::LAUNCHER.memfd().unwrap();
        let mut detached = std::process::Command::new(coracle_programs::exec_path(&program));
        detached.arg("--root").arg(bundle.dir.path().join("state")).args(["create", "c"]);
        let created = detached.current_dir(bundle.dir.path()).stdin(null()).stdout(null()).stderr(null()).status();
        assert!(created.unwrap().success());
        bundle.config["process"]["args"] = json!(["/bin/busybox", "sleep", "1000"]);
        assert!(bundle.oci(&["delete", "--force", "c"]).status.success());
        let mut detached = std::process::Command::new(coracle_programs::exec_path(&program));
        detached.arg("--root").arg(bundle.dir.path().join("state")).args(["run", "-d", "c"]);
        let started = detached.current_dir(bundle.write()).stdin(null()).stdout(null()).stderr(null()).status();
        assert!(started.unwrap().success());
        let output = bundle.oci(&["exec", "--user", "7", "c", "/bin/sh", "-c", "echo \"$HOME\""]);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "/seven\n", "{}", String::from_utf8_lossy(&output.stderr));
        assert!(bundle.oci(&["delete", "--force", "c"]).status.success());
    });
}

#[test]
fn devices_that_nobody_named_are_refused() {
    const TEST: &str = "launcher_defaults::devices_that_nobody_named_are_refused";
    isolated(TEST, || async {
        let mut bundle = Bundle::new(
            TEST,
            "for i in 'kmsg c 1 11' 'loop b 7 0' 'tun c 10 200'; do busybox mknod /dev/$i && echo made; done; \
             : > /dev/null && echo null; (: < /dev/kmsg) 2>/dev/null && echo kmsg; (: < /dev/loop) 2>&1; exit 0",
        );
        bundle.config["process"]["capabilities"] =
            json!({ "bounding": ["CAP_MKNOD"], "effective": ["CAP_MKNOD"], "permitted": ["CAP_MKNOD"] });
        let (code, out, error) = bundle.run();
        assert_eq!(code, 0, "{out}{error}");
        assert!(out.starts_with("made\nmade\nmade\nnull\n") && !out.contains("kmsg\n"), "{out}{error}");
        assert!(out.contains("/dev/loop: Operation not permitted"), "{out}{error}");
    });
}
