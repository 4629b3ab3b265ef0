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

fn push(bundle: &mut Bundle, target: &str, kind: &str, source: &str, options: &[&str]) {
    let mount = json!({ "destination": target, "type": kind, "source": source, "options": options });
    bundle.config["mounts"].as_array_mut().unwrap().push(mount);
}

#[test]
fn read_only_file_systems_take_what_belongs_in_them() {
    const TEST: &str = "launcher_defaults::read_only_file_systems_take_what_belongs_in_them";
    isolated(TEST, || async {
        let mut bundle = Bundle::new(
            TEST,
            "cat /data/below/file; for i in /dev/x /data/x; do echo > $i || echo refused; done; : > /dev/null && ls /dev/pts; \
             busybox grep -c ' /data/below tmpfs ro' /proc/mounts; exit 0",
        );
        bundle.config["mounts"][1]["options"] = json!(["mode=755", "ro"]);
        let file = bundle.dir.path().join("file");
        fs::write(&file, "bound\n").unwrap();
        push(&mut bundle, "/data", "tmpfs", "tmpfs", &["ro"]);
        push(&mut bundle, "/data/below", "tmpfs", "tmpfs", &["ro"]);
        push(&mut bundle, "/data/below/file", "bind", file.to_str().unwrap(), &["bind"]);
        let (code, out, error) = bundle.run();
        assert_eq!((code, out.as_str()), (0, "bound\nrefused\nrefused\nptmx\n1\n"), "{error}");
    });
}

#[test]
fn devices_are_not_taken_for_others() {
    const TEST: &str = "launcher_defaults::devices_are_not_taken_for_others";
    isolated(TEST, || async {
        let mut bundle = Bundle::new(TEST, "exit 0");
        bundle.config["linux"]["devices"] =
            json!([{ "path": "/null", "type": "c", "major": 1, "minor": 3 }, { "path": "/pipe", "type": "p" }]);
        assert_eq!(bundle.run().0, 0);
        // Theirs from before are the ones that are meant.
        assert_eq!(bundle.run().0, 0);
        fs::remove_file(bundle.rootfs().join("null")).unwrap();
        fs::write(bundle.rootfs().join("null"), "").unwrap();
        let (code, _, error) = bundle.run();
        assert!(code == 1 && error.contains("/null") && error.contains("is there already and another file"), "{error}");
        bundle.config["linux"]["devices"] = json!([{ "path": "/pipe", "type": "c", "major": 1, "minor": 3 }]);
        let (code, _, error) = bundle.run();
        assert!(code == 1 && error.contains("/pipe") && error.contains("is there already"), "{error}");
    });
}

#[test]
fn nothing_is_mounted_inside_proc() {
    const TEST: &str = "launcher_defaults::nothing_is_mounted_inside_proc";
    isolated(TEST, || async {
        let refused = |target: &str, kind: &str, source: &str, words: &str| {
            let mut bundle = Bundle::new(TEST, "exit 0");
            // By an image's link, too.
            symlink("/proc/sys", bundle.rootfs().join("data")).unwrap();
            push(&mut bundle, target, kind, source, if kind == "bind" { &["bind"] } else { &[] });
            let (code, out, error) = bundle.run();
            assert!(code == 1 && error.contains(words), "{target}: {out}{error}");
        };
        refused("/proc/self", "tmpfs", "tmpfs", "inside /proc");
        refused("/data", "tmpfs", "tmpfs", "inside /proc");
        refused("/data/kernel", "bind", "/tmp", "inside /proc");
        refused("/proc", "bind", "/tmp", "not of type proc");
        let mut bundle = Bundle::new(TEST, "cat /proc/uptime; ls /host/self > /dev/null; exit 0");
        let file = bundle.dir.path().join("file");
        fs::write(&file, "emulated\n").unwrap();
        push(&mut bundle, "/proc/uptime", "bind", file.to_str().unwrap(), &["bind"]);
        push(&mut bundle, "/host", "bind", "/proc", &["bind"]);
        push(&mut bundle, "/host/uptime", "bind", file.to_str().unwrap(), &["bind"]);
        let (code, out, error) = bundle.run();
        assert_eq!((code, out.as_str()), (0, "emulated\n"), "{error}");
    });
}

#[test]
fn sysctls_are_the_containers_own() {
    const TEST: &str = "launcher_defaults::sysctls_are_the_containers_own";
    isolated(TEST, || async {
        let mut bundle = Bundle::new(TEST, "cat /proc/sys/net/ipv4/conf/late0/rp_filter; exit 0");
        bundle.config["linux"]["sysctl"] = json!({ "net/ipv4/conf/late0/rp_filter": "2" });
        // The interface comes with a hook.
        let script = "read state; exec nsenter -t $(echo \"$state\" | sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/') -n \
                      ip link add late0 type veth peer name late1";
        let env = format!("PATH={}", std::env::var("PATH").unwrap());
        bundle.config["hooks"] =
            json!({ "createRuntime": [{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": [env] }] });
        let (code, out, error) = bundle.run();
        assert_eq!((code, out.as_str()), (0, "2\n"), "{error}");
        // A namespace that is joined and the caller's own is the host's.
        bundle.config["hooks"] = json!({});
        bundle.config["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1" });
        bundle.config["linux"]["namespaces"][1]["path"] = json!("/proc/self/ns/net");
        let (code, _, error) = bundle.run();
        assert!(code == 1 && error.contains("host network namespace"), "{error}");
    });
}

#[test]
fn a_group_in_use_is_refused_and_left_alone() {
    const TEST: &str = "launcher_defaults::a_group_in_use_is_refused_and_left_alone";
    isolated(TEST, || async {
        let mut bundle = Bundle::new(TEST, "sleep 1000");
        let program = coracle_programs::LAUNCHER.memfd().unwrap();
        let null = || std::process::Stdio::null();
        let mut detached = std::process::Command::new(coracle_programs::exec_path(&program));
        detached.arg("--root").arg(bundle.dir.path().join("state")).args(["run", "-d", "c"]);
        let started = detached.current_dir(bundle.write()).stdin(null()).stdout(null()).stderr(null()).status();
        assert!(started.unwrap().success());
        let output = bundle.oci(&["run", "other"]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains("container's cgroup is not empty: ") && error.contains("process(es) found"), "{error}");
        assert!(!bundle.dir.path().join("state/other").exists());
        assert!(String::from_utf8_lossy(&bundle.oci(&["state", "c"]).stdout).contains("\"status\":\"running\""));
        assert!(bundle.oci(&["delete", "--force", "c"]).status.success());
        // A create that fails takes away what it made alone.
        let group = crate::isolation::group(TEST);
        let hierarchy = coracle_launcher::cgroup::Hierarchy::discover().unwrap();
        let found = hierarchy.group(&format!("{group}/c/below")).unwrap();
        drop(found.create().unwrap());
        bundle.config["process"]["args"] = json!(["/nothing"]);
        assert_eq!(bundle.run().0, 1);
        assert!(found.exists());
        found.remove().unwrap();
        hierarchy.group(&format!("{group}/c")).unwrap().remove().unwrap();
    });
}

#[test]
fn later_hooks_all_run_and_the_log_has_what_failed() {
    const TEST: &str = "launcher_defaults::later_hooks_all_run_and_the_log_has_what_failed";
    isolated(TEST, || async {
        let mut bundle = Bundle::new(TEST, "exit 0");
        let marks = bundle.dir.path().join("marks");
        let hook = |name: &str| {
            let script = format!("echo {name} >> {}; echo {name} >&2; exit 3", marks.display());
            json!({ "path": "/bin/sh", "args": ["sh", "-c", script] })
        };
        bundle.config["hooks"] =
            json!({ "poststart": [hook("first"), hook("second")], "poststop": [hook("third"), hook("fourth")] });
        let log = bundle.dir.path().join("log");
        let output = bundle.oci(&["--log", log.to_str().unwrap(), "run", "c"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(fs::read_to_string(&marks).unwrap(), "first\nsecond\nthird\nfourth\n");
        let log = fs::read_to_string(&log).unwrap();
        for words in ["poststart hook #0", "poststart hook #1", "poststop hook #0", "poststop hook #1"] {
            assert!(log.contains(words), "{words}: {log}");
        }
    });
}

#[test]
fn processors_are_the_groups_and_not_the_callers() {
    const TEST: &str = "launcher_defaults::processors_are_the_groups_and_not_the_callers";
    isolated(TEST, || async {
        let mut bundle = Bundle::new(TEST, "busybox grep Cpus_allowed_list /proc/self/status; exec sleep 1000");
        // What `exec` is told is not the first process's.
        bundle.config["process"]["execCPUAffinity"] = json!({ "initial": "0", "final": "0" });
        let program = coracle_programs::LAUNCHER.memfd().unwrap();
        let launcher = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&program));
        let out = fs::File::create(bundle.dir.path().join("out")).unwrap();
        let status = std::process::Command::new("/bin/busybox")
            .args(["taskset", "1", &launcher, "--root"])
            .arg(bundle.dir.path().join("state"))
            .args(["run", "-d", "c"])
            .current_dir(bundle.write())
            .stdout(out)
            .status();
        assert!(status.unwrap().success());
        let seen = || fs::read_to_string(bundle.dir.path().join("out")).unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while !seen().ends_with('\n') {
            assert!(std::time::Instant::now() < deadline, "the container says nothing");
            tokio::task::yield_now().await;
        }
        let exec = bundle.oci(&["exec", "c", "/bin/busybox", "grep", "Cpus_allowed_list", "/proc/self/status"]);
        assert!(bundle.oci(&["delete", "--force", "c"]).status.success());
        assert!(String::from_utf8_lossy(&exec.stdout).ends_with("\t0\n"), "{}", String::from_utf8_lossy(&exec.stderr));
        let own = fs::read_to_string("/proc/self/status").unwrap();
        let own = own.lines().find(|line| line.starts_with("Cpus_allowed_list")).unwrap();
        assert_eq!(seen().trim(), own, "this process may run everywhere");
    });
}

#[test]
fn the_root_may_be_unbindable() {
    const TEST: &str = "launcher_defaults::the_root_may_be_unbindable";
    isolated(TEST, || async {
        let mut bundle = Bundle::new(
            TEST,
            "busybox grep ' / / ' /proc/self/mountinfo; busybox grep -c unbindable /proc/self/mountinfo; exit 0",
        );
        bundle.config["linux"]["rootfsPropagation"] = json!("unbindable");
        push(&mut bundle, "/data", "bind", "/tmp", &["bind"]);
        let (code, out, error) = bundle.run();
        assert!(code == 0 && out.ends_with("1\n"), "{out}{error}");
    });
}
