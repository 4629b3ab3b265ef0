//! podman with our launcher as its runtime: somebody else's idea of what `runc` does.

use std::{fs, process::Command};

use crate::isolation::isolated;

#[test]
fn podman_runs_containers_with_the_launcher() {
    const TEST: &str = "podman::podman_runs_containers_with_the_launcher";
    if Command::new("podman").arg("--version").output().is_err() {
        eprintln!("podman is not installed: not tested");
        return;
    }
    isolated(TEST, || async {
        let dir = tempfile::tempdir().unwrap();
        let program = coracle_programs::LAUNCHER.bytes();
        let launcher = dir.path().join("coracle-oci");
        fs::write(&launcher, program).unwrap();
        fs::set_permissions(&launcher, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        // A root without CAP_SYS_RESOURCE can set no higher limits; there is no systemd, and no journal.
        let settings = "[containers]\ndefault_ulimits=[\"nofile=1024:20000\",\"nproc=10000:10000\"]\n\
                        [engine]\ncgroup_manager=\"cgroupfs\"\nevents_logger=\"file\"\n";
        fs::write(dir.path().join("containers.conf"), settings).unwrap();
        // Not on hybrid systems alone; podman takes a second tree for the only one.
        let _ = Command::new("umount").arg("/sys/fs/cgroup/unified").output();
        let podman = |arguments: &[&str]| {
            let path = |name: &str| dir.path().join(name);
            let mut command = Command::new("podman");
            command.env("CONTAINERS_CONF", path("containers.conf"));
            command.arg("--root").arg(path("root")).arg("--runroot").arg(path("run")).arg("--tmpdir").arg(path("tmp"));
            command.args(["--storage-driver", "vfs", "--runtime"]).arg(&launcher).args(arguments);
            let output = command.output().unwrap();
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
            (output.status.code(), text(&output.stdout), text(&output.stderr))
        };
        let archive = dir.path().join("root.tar");
        let mut tar = tar::Builder::new(fs::File::create(&archive).unwrap());
        tar.append_path_with_name("/bin/busybox", "bin/busybox").unwrap();
        let mut link = tar::Header::new_gnu();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_size(0);
        tar.append_link(&mut link, "bin/sh", "busybox").unwrap();
        tar.finish().unwrap();
        let (code, _, error) = podman(&["import", archive.to_str().unwrap(), "box"]);
        assert_eq!(code, Some(0), "{error}");
        let run = [
            "run",
            "--rm",
            "--cgroups",
            "no-conmon",
            "--network",
            "none",
            "--cgroup-parent",
            &crate::isolation::group(TEST),
            "box",
        ];
        let (code, out, error) = podman(&[&run[..], &["/bin/sh", "-c", "echo inside; exit 5"]].concat());
        assert_eq!((code, out.as_str()), (Some(5), "inside"), "{error}");
        let (code, _, error) = podman(&[&run[..], &["/bin/nothing"]].concat());
        assert!(code == Some(127) || code == Some(126), "{code:?} {error}");
        let group = crate::isolation::group(TEST);
        let detached = [
            "run",
            "-d",
            "--cgroups",
            "no-conmon",
            "--name",
            "one",
            "--network",
            "none",
            "--cgroup-parent",
            &group,
            "box",
        ];
        let (code, _, error) = podman(&[&detached[..], &["/bin/busybox", "sleep", "1000"]].concat());
        assert_eq!(code, Some(0), "{error}");
        let (code, out, error) = podman(&["exec", "one", "/bin/sh", "-c", "echo executed; exit 3"]);
        assert_eq!((code, out.as_str()), (Some(3), "executed"), "{error}");
        for arguments in [&["pause", "one"][..], &["unpause", "one"], &["rm", "-f", "-t", "0", "one"]] {
            let (code, _, error) = podman(arguments);
            assert_eq!(code, Some(0), "{arguments:?}: {error}");
        }
    });
}
