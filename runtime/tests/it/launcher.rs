//! The launcher's command line on bundles, some of them hostile.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::{Value, json};

use crate::isolation::{group, isolated};

/// A bundle with busybox in it.
pub struct Bundle {
    pub dir: tempfile::TempDir,
    pub config: Value,
}

impl Bundle {
    pub fn new(test: &str, script: &str) -> Bundle {
        let dir = tempfile::tempdir().unwrap();
        let rootfs = dir.path().join("rootfs");
        fs::create_dir_all(rootfs.join("bin")).unwrap();
        fs::copy("/bin/busybox", rootfs.join("bin/busybox")).unwrap();
        symlink("/bin/busybox", rootfs.join("bin/sh")).unwrap();
        let mount = |at: &str, kind: &str, options: &[&str]| json!({ "destination": at, "type": kind, "source": kind, "options": options });
        let namespaces = ["pid", "network", "ipc", "uts", "mount"].map(|kind| json!({ "type": kind }));
        let config = json!({
            "ociVersion": "1.2.0",
            "root": { "path": "rootfs" },
            "hostname": "inside",
            "process": {
                "args": ["/bin/sh", "-c", format!("export PATH=/bin; for i in cat id ls hostname sleep mount stty; do [ -e /bin/$i ] || busybox ln -s busybox /bin/$i; done; {script}")],
                "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 },
                "capabilities": { "bounding": ["CAP_KILL", "CAP_SYS_RESOURCE"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"] },
                "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 1 << 30, "hard": 1 << 30 }],
            },
            "mounts": [
                mount("/proc", "proc", &[]), mount("/dev", "tmpfs", &["mode=755"]),
                mount("/dev/pts", "devpts", &["newinstance", "ptmxmode=0666", "mode=0620"]),
            ],
            "linux": {
                "cgroupsPath": format!("{}/c", group(test)),
                "namespaces": namespaces,
                "maskedPaths": ["/proc/kcore", "/proc/nothing", "/secret"],
                "readonlyPaths": ["/proc/sys"],
                "resources": { "pids": { "limit": 16 } },
            },
        });
        Bundle { dir, config }
    }

    pub fn rootfs(&self) -> PathBuf {
        self.dir.path().join("rootfs")
    }

    pub fn write(&self) -> &Path {
        fs::write(self.dir.path().join("config.json"), self.config.to_string()).unwrap();
        self.dir.path()
    }

    pub fn oci(&self, arguments: &[&str]) -> Output {
        let program = coracle_programs::LAUNCHER.memfd().unwrap();
        let mut command = Command::new(coracle_programs::exec_path(&program));
        command
            .arg("--root")
            .arg(self.dir.path().join("state"))
            .args(arguments)
            .current_dir(self.write())
            .output()
            .unwrap()
    }

    pub fn run(&self) -> (i32, String, String) {
        let output = self.oci(&["run", "c"]);
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
    }
}

#[test]
fn a_container_sees_only_its_own() {
    const TEST: &str = "launcher::a_container_sees_only_its_own";
    isolated(TEST, || async {
        let bundle = Bundle::new(
            TEST,
            "hostname; cat /proc/1/comm; cat /secret; ls /proc/sys/kernel/hostname; echo x > /proc/sys/kernel/hostname || echo refused; ls /proc/self/fd | cat; exit 7",
        );
        fs::write(bundle.rootfs().join("secret"), "secret").unwrap();
        let (code, out, error) = bundle.run();
        assert_eq!(code, 7, "{out}{error}");
        assert!(out.starts_with("inside\nsh\n/proc/sys/kernel/hostname\nrefused\n"), "{out}{error}");
        assert!(!out.contains("secret\n"), "{out}");
        // Standard streams and the directory itself.
        assert!(out.ends_with("refused\n0\n1\n2\n3\n"), "{out}");
        assert!(!bundle.dir.path().join("state/c").exists());
    });
}

#[test]
fn states_follow_the_specification() {
    const TEST: &str = "launcher::states_follow_the_specification";
    isolated(TEST, || async {
        let bundle = Bundle::new(TEST, "echo started; sleep 1000");
        let ok = |arguments: &[&str]| {
            let output = bundle.oci(arguments);
            assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        let refused = |arguments: &[&str], words: &str| {
            let output = bundle.oci(arguments);
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.code() == Some(1) && error.contains(words), "{arguments:?}: {error}");
        };
        let status =
            || serde_json::from_str::<Value>(&ok(&["state", "c"])).unwrap()["status"].as_str().unwrap().to_owned();
        refused(&["state", "c"], "container does not exist: c");
        // Its output must not be a pipe that `create` would be waited for.
        let program = coracle_programs::LAUNCHER.memfd().unwrap();
        let mut create = Command::new(coracle_programs::exec_path(&program));
        create
            .arg("--root")
            .arg(bundle.dir.path().join("state"))
            .args(["create", "--pid-file", "pid", "c"])
            .current_dir(bundle.write());
        assert!(create.status().unwrap().success());
        assert_eq!(status(), "created");
        refused(&["create", "c"], "container with given ID already exists: c");
        ok(&["start", "c"]);
        assert_eq!(status(), "running");
        refused(&["start", "c"], "cannot start an already running container");
        refused(&["delete", "c"], "is not stopped: running");
        ok(&["pause", "c"]);
        assert_eq!(status(), "paused");
        ok(&["resume", "c"]);
        assert_eq!(ok(&["exec", "c", "/bin/busybox", "id", "-u"]), "0\n");
        assert_eq!(bundle.oci(&["exec", "c", "/bin/sh", "-c", "exit 9"]).status.code(), Some(9));
        ok(&["update", "--pids-limit", "20", "c"]);
        assert!(ok(&["events", "--stats", "c"]).contains("\"limit\":20"));
        if !Path::new("/run/systemd/system").exists() {
            refused(&["--systemd-cgroup", "run", "d"], "systemd support for managing cgroups is not available");
        }
        refused(&["run", "--no-such-option", "d"], "--no-such-option");
        let pid: i32 = fs::read_to_string(bundle.dir.path().join("pid")).unwrap().parse().unwrap();
        ok(&["kill", "c", "KILL"]);
        coracle_launcher::sys::waitpid(pid).unwrap();
        assert_eq!(status(), "stopped");
        ok(&["delete", "c"]);
        refused(&["state", "c"], "container does not exist: c");
    });
}

#[test]
fn hostile_roots_do_not_lead_outside() {
    const TEST: &str = "launcher::hostile_roots_do_not_lead_outside";
    isolated(TEST, || async {
        let outside = tempfile::tempdir().unwrap();
        let outside_path = outside.path().to_str().unwrap().to_owned();
        fs::write(outside.path().join("file"), "untouched").unwrap();
        let mut bundle = Bundle::new(TEST, "cat /etc/file; exit 0");
        symlink(&outside_path, bundle.rootfs().join("etc")).unwrap();
        symlink(format!("../../../../../../..{outside_path}"), bundle.rootfs().join("data")).unwrap();
        let source = bundle.dir.path().join("source");
        fs::write(&source, "bound").unwrap();
        for target in ["/etc/file", "/data/made/deep"] {
            bundle.config["mounts"]
                .as_array_mut()
                .unwrap()
                .push(json!({ "destination": target, "type": "bind", "source": source, "options": ["bind", "ro"] }));
        }
        let (code, out, error) = bundle.run();
        assert_eq!((code, out.as_str()), (0, "bound"), "{error}");
        assert_eq!(fs::read_to_string(outside.path().join("file")).unwrap(), "untouched");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
        // A /proc that is a link to somewhere else is not mounted over.
        let bundle = Bundle::new(TEST, "exit 0");
        fs::create_dir(bundle.rootfs().join("elsewhere")).unwrap();
        symlink("/elsewhere", bundle.rootfs().join("proc")).unwrap();
        let (code, _, error) = bundle.run();
        assert!(code == 1 && error.contains("leads elsewhere"), "{error}");
        let mut bundle = Bundle::new(TEST, "exit 0");
        bundle.config["process"]["args"] = json!(["nothing"]);
        let (code, _, error) = bundle.run();
        assert!(
            code == 1
                && error.contains(
                    r#"unable to start container process: exec: \"nothing\": executable file not found in $PATH"#
                ),
            "{error}"
        );
    });
}

/// The device program of v2, on whatever v2 tree there is: the kernel must take it, and it must decide.
#[test]
fn devices_are_refused_by_a_program() {
    use coracle_launcher::{cgroup::devices, json::Json};
    const TEST: &str = "launcher::devices_are_refused_by_a_program";
    isolated(TEST, || async {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let tree = mounts.lines().find(|line| line.contains(" - cgroup2 ")).map(|line| line.split(' ').nth(4).unwrap());
        let Some(tree) = tree else { return };
        let dir = Path::new(tree).join(group(TEST).trim_start_matches('/'));
        fs::create_dir_all(&dir).unwrap();
        // kmsg may be written and not read; null is always there.
        let rules = br#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":11,"access":"w"}]"#;
        devices::v2(&dir, Json::parse(rules).unwrap().items()).unwrap();
        let script = "echo $$ > $0/cgroup.procs; (: > /dev/null) || exit 1; (: >> /dev/kmsg) || exit 2; \
                      (: < /dev/kmsg) && exit 3; (: < /dev/fuse) && exit 4; exit 0";
        let status = Command::new("/bin/busybox").args(["sh", "-c", script]).arg(&dir).status().unwrap();
        fs::remove_dir(&dir).unwrap();
        assert_eq!(status.code(), Some(0));
    });
}
