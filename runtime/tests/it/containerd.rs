//! containerd with our launcher as its runtime, driven by `ctr`: its shim is the other great user of `runc`.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::{Child, Command},
    time::{Duration, Instant},
};

use coracle_launcher::sys;

use crate::isolation::{group, isolated};

/// Ended with the test.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// containerd without its CRI service, all of it below a directory.
fn start(dir: &Path) -> Daemon {
    let config = format!(
        "version = 2\nroot = \"{0}/root\"\nstate = \"{0}/state\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\"]\n[grpc]\naddress = \"{0}/socket\"\n",
        dir.display()
    );
    fs::write(dir.join("config.toml"), config).unwrap();
    let log = fs::File::create(dir.join("log")).unwrap();
    let daemon = Command::new("containerd").arg("-c").arg(dir.join("config.toml")).stderr(log).spawn().unwrap();
    Daemon(daemon)
}

#[test]
fn containerd_runs_containers_with_the_launcher() {
    const TEST: &str = "containerd::containerd_runs_containers_with_the_launcher";
    if Command::new("containerd").arg("--version").output().is_err() {
        eprintln!("containerd is not installed: not tested");
        return;
    }
    isolated(TEST, || async {
        let dir = tempfile::tempdir().unwrap();
        // Its shims' sockets lie in /run, whatever else is said.
        sys::mount("run", "/run", "tmpfs", 0, "").unwrap();
        let launcher = dir.path().join("coracle-oci");
        fs::write(&launcher, coracle_programs::LAUNCHER.bytes()).unwrap();
        fs::set_permissions(&launcher, fs::Permissions::from_mode(0o755)).unwrap();
        let rootfs = dir.path().join("rootfs");
        fs::create_dir_all(rootfs.join("bin")).unwrap();
        fs::copy("/bin/busybox", rootfs.join("bin/busybox")).unwrap();
        symlink("busybox", rootfs.join("bin/sh")).unwrap();
        let _daemon = start(dir.path());
        let ctr = |arguments: &[&str]| {
            let output = Command::new("ctr").arg("-a").arg(dir.path().join("socket")).args(arguments).output().unwrap();
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
            (output.status.code(), text(&output.stdout), text(&output.stderr))
        };
        let deadline = Instant::now() + Duration::from_secs(30);
        while ctr(&["version"]).0 != Some(0) {
            assert!(Instant::now() < deadline, "{}", fs::read_to_string(dir.path().join("log")).unwrap());
        }
        let run = |id: &str, options: &[&str], command: &[&str]| {
            let cgroup = format!("{}/{id}", group(TEST));
            let (launcher, rootfs) = (launcher.to_str().unwrap(), rootfs.to_str().unwrap());
            let fixed = ["run", "--runc-binary", launcher, "--cgroup", &cgroup, "--rootfs"];
            ctr(&[&fixed[..], options, &[rootfs, id], command].concat())
        };
        let (code, out, error) = run("one", &["--rm"], &["/bin/sh", "-c", "echo inside; exit 5"]);
        assert_eq!((code, out.as_str()), (Some(5), "inside"), "{error}");
        let (code, _, error) = run("none", &["--rm"], &["/bin/nothing"]);
        assert!(code == Some(1) && error.contains("exec: \"/bin/nothing\": stat /bin/nothing"), "{code:?} {error}");
        let (code, _, error) = run("two", &["-d"], &["/bin/busybox", "sleep", "1000"]);
        assert_eq!(code, Some(0), "{error}");
        let (code, out, error) =
            ctr(&["task", "exec", "--exec-id", "e", "two", "/bin/sh", "-c", "echo executed; exit 3"]);
        assert_eq!((code, out.as_str()), (Some(3), "executed"), "{error}");
        let done = |arguments: &[&str]| {
            let (code, out, error) = ctr(arguments);
            assert_eq!(code, Some(0), "{arguments:?}: {error}");
            out
        };
        done(&["task", "pause", "two"]);
        assert!(done(&["task", "ls"]).contains("PAUSED"));
        done(&["task", "resume", "two"]);
        assert!(done(&["task", "metrics", "two"]).contains("memory.usage_in_bytes"));
        done(&["task", "kill", "--signal", "SIGKILL", "two"]);
        // Its exit code is the container's, if that has ended by then.
        let (code, _, error) = ctr(&["task", "rm", "--force", "two"]);
        assert!(matches!(code, Some(0 | 137)), "{code:?} {error}");
        done(&["container", "rm", "two"]);
    });
}
