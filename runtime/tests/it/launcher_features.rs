//! What of the runtime specification is rarely used, one bundle each. What a kernel lacks is refused by its name.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        net::UnixListener,
    },
    path::Path,
};

use serde_json::{Value, json};

use crate::{isolation::isolated, launcher::Bundle};

fn push(list: &mut Value, entry: Value) {
    list.as_array_mut().unwrap().push(entry);
}

#[test]
fn hooks_run_in_order_with_the_state() {
    const TEST: &str = "launcher_features::hooks_run_in_order_with_the_state";
    isolated(TEST, || async {
        let mut bundle = Bundle::new(TEST, "cat /from-hook; exit 0");
        let log = bundle.dir.path().join("log");
        let hook = |name: &str, extra: &str| {
            let script = format!(
                "read -r state; echo {name} \"$(echo \"$state\" | busybox sed 's/.*\"status\":\"\\([a-z]*\\)\".*/\\1/')\" >> {}; {extra}",
                log.display()
            );
            json!([{ "path": "/bin/busybox", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"], "timeout": 60 }])
        };
        // startContainer's file system is the container's: its log is its own.
        let inside = json!([{ "path": "/bin/busybox", "args": ["sh", "-c", "/bin/busybox cat > /from-hook"] }]);
        bundle.config["hooks"] = json!({
            "prestart": hook("prestart", ""), "createRuntime": hook("createRuntime", ""),
            "createContainer": hook("createContainer", ""), "startContainer": inside,
            "poststart": hook("poststart", "exit 1"), "poststop": hook("poststop", ""),
        });
        let (code, out, error) = bundle.run();
        assert_eq!(code, 0, "{out}{error}");
        let state: Value = serde_json::from_str(&out).unwrap();
        assert_eq!((&state["id"], &state["pid"], &state["status"]), (&json!("c"), &json!(1), &json!("created")));
        let log = fs::read_to_string(&log).unwrap();
        let expected = "prestart creating\ncreateRuntime creating\ncreateContainer creating\npoststart running\npoststop stopped\n";
        assert_eq!(log, expected);
        bundle.config["hooks"] =
            json!({ "createRuntime": [{ "path": "/bin/busybox", "args": ["sh", "-c", "echo no $PWD >&2; exit 4"] }] });
        let (code, _, error) = bundle.run();
        let dir = fs::canonicalize(bundle.dir.path()).unwrap();
        let words = format!(
            "runc run failed: unable to start container process: error running createRuntime hook #0: exit status 4, stdout: , stderr: no {}",
            dir.display()
        );
        assert!(code == 1 && error.contains(&words) && error.contains("level=error msg="), "{error}");
        assert!(!bundle.dir.path().join("state/c").exists());
    });
}

/// Users of the host that stand for those of a container.
const OUTSIDE: u32 = 200_000;

fn with_users(bundle: &mut Bundle) {
    let range = json!([{ "containerID": 0, "hostID": OUTSIDE, "size": 65536 }]);
    bundle.config["linux"]["uidMappings"] = range.clone();
    bundle.config["linux"]["gidMappings"] = range;
    push(&mut bundle.config["linux"]["namespaces"], json!({ "type": "user" }));
    // The bundle's directory is the test's alone; a container of other users has to pass.
    fs::set_permissions(bundle.dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
    chown(bundle.rootfs(), Some(OUTSIDE), Some(OUTSIDE)).unwrap();
    chown(bundle.rootfs().join("bin"), Some(OUTSIDE), Some(OUTSIDE)).unwrap();
}

#[test]
fn root_inside_is_nobody_outside() {
    const TEST: &str = "launcher_features::root_inside_is_nobody_outside";
    isolated(TEST, || async {
        let mut bundle = Bundle::new(
            TEST,
            "id -u; echo mine > /made; cat /bound/file; ls -ln /bound/file | cat; echo x > /bound/new && echo written; echo x > /host/new || echo refused; ls /dev/null",
        );
        with_users(&mut bundle);
        // A source that the container's users could never reach themselves.
        let hidden = bundle.dir.path().join("hidden");
        fs::create_dir_all(hidden.join("data")).unwrap();
        fs::set_permissions(&hidden, fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(hidden.join("data/file"), "bound\n").unwrap();
        for (target, options) in [("/bound", vec!["bind", "idmap"]), ("/host", vec!["bind"])] {
            let mount =
                json!({ "destination": target, "type": "bind", "source": hidden.join("data"), "options": options });
            push(&mut bundle.config["mounts"], mount);
        }
        let (code, out, error) = bundle.run();
        if error.contains("map the owners") {
            // tmpfs learnt it in Linux 6.3; without it the rest is tested.
            return;
        }
        assert_eq!(code, 0, "{out}{error}");
        assert!(out.starts_with("0\nbound\n"), "{out}{error}");
        // Through the mapping root's file is root's, and what root makes there is root's outside too.
        assert!(out.contains(" 0        0 ") && out.contains("written\nrefused\n/dev/null\n"), "{out}{error}");
        assert_eq!(fs::metadata(bundle.rootfs().join("made")).unwrap().uid(), OUTSIDE);
        assert_eq!(fs::metadata(hidden.join("data/new")).unwrap().uid(), 0);
    });
}

/// What the launcher knows is in the memory of a container that is not started yet.
#[test]
fn memory_is_roots_alone_until_the_program_runs() {
    const TEST: &str = "launcher_features::memory_is_roots_alone_until_the_program_runs";
    isolated(TEST, || async {
        let mut bundle = Bundle::new(TEST, "busybox stat -c %u /proc/self/environ");
        with_users(&mut bundle);
        let (code, out, error) = bundle.run();
        if error.contains("map the owners") {
            return;
        }
        assert_eq!((code, out.as_str()), (0, "0\n"), "{error}");
        let program = coracle_programs::LAUNCHER.memfd().unwrap();
        let mut create = std::process::Command::new(coracle_programs::exec_path(&program));
        create.arg("--root").arg(bundle.dir.path().join("state"));
        create.args(["create", "--pid-file", "pid", "created"]).current_dir(bundle.write());
        assert!(create.status().unwrap().success());
        let pid = fs::read_to_string(bundle.dir.path().join("pid")).unwrap();
        let owner = |name: &str| fs::metadata(format!("/proc/{pid}/{name}")).unwrap().uid();
        let owners = (owner(""), owner("environ"), owner("mem"));
        assert!(bundle.oci(&["delete", "--force", "created"]).status.success());
        // The kernel shows the directory's owner as the process's user, and the files' as root when they are kept from it.
        assert_eq!(owners, (OUTSIDE, 0, 0));
    });
}

#[test]
fn namespaces_are_joined_by_path() {
    const TEST: &str = "launcher_features::namespaces_are_joined_by_path";
    isolated(TEST, || async {
        let mut first = Bundle::new(TEST, "hostname; sleep 1000");
        with_users(&mut first);
        first.config["linux"]["cgroupsPath"] = json!(format!("{}/first", crate::isolation::group(TEST)));
        first.write();
        let program = coracle_programs::LAUNCHER.memfd().unwrap();
        let mut detached = std::process::Command::new(coracle_programs::exec_path(&program));
        detached.arg("--root").arg(first.dir.path().join("state")).args(["run", "-d", "--pid-file", "pid", "c"]);
        let null = || std::process::Stdio::null();
        let status = detached.current_dir(first.dir.path()).stdin(null()).stdout(null()).stderr(null()).status();
        assert!(status.unwrap().success());
        let pid = fs::read_to_string(first.dir.path().join("pid")).unwrap();
        let link = |name: &str| fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap().display().to_string();
        let mut second = Bundle::new(
            TEST,
            "id -u; for i in user net pid ipc; do busybox readlink /proc/self/ns/$i; done; ls -d /proc/[0-9]* | cat",
        );
        fs::set_permissions(second.dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
        for path in ["", "bin"] {
            chown(second.rootfs().join(path), Some(OUTSIDE), Some(OUTSIDE)).unwrap();
        }
        let joined = [("user", "user"), ("network", "net"), ("pid", "pid"), ("ipc", "ipc")];
        let mut namespaces: Vec<Value> = joined
            .iter()
            .map(|(kind, name)| json!({ "type": kind, "path": format!("/proc/{pid}/ns/{name}") }))
            .collect();
        namespaces.extend(["mount", "uts"].map(|kind| json!({ "type": kind })));
        second.config["linux"]["namespaces"] = json!(namespaces);
        let (code, out, error) = second.run();
        let expected = format!("0\n{}\n{}\n{}\n{}\n/proc/1\n", link("user"), link("net"), link("pid"), link("ipc"));
        assert!(code == 0 && out.starts_with(&expected), "{out}{error} instead of {expected}");
        // And by exec, as root of its user namespace.
        let output = first.oci(&["exec", "c", "/bin/sh", "-c", "busybox id -u; busybox readlink /proc/self/ns/user"]);
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(out, format!("0\n{}\n", link("user")), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(first.oci(&["delete", "--force", "c"]).status.success());
    });
}

#[test]
fn clocks_have_offsets() {
    const TEST: &str = "launcher_features::clocks_have_offsets";
    isolated(TEST, || async {
        let mut bundle = Bundle::new(TEST, "cat /proc/uptime; cat /proc/self/timens_offsets");
        push(&mut bundle.config["linux"]["namespaces"], json!({ "type": "time" }));
        bundle.config["linux"]["timeOffsets"] = json!({ "boottime": { "secs": 7_000_000, "nanosecs": 5 } });
        let (code, out, error) = bundle.run();
        assert_eq!(code, 0, "{out}{error}");
        let uptime: f64 = out.split(['.', ' ']).next().unwrap().parse().unwrap();
        assert!(uptime > 7_000_000.0 && out.contains("7000000"), "{out}");
    });
}

#[test]
fn processes_are_scheduled_as_asked() {
    const TEST: &str = "launcher_features::processes_are_scheduled_as_asked";
    isolated(TEST, || async {
        let mut bundle =
            Bundle::new(TEST, "busybox awk '{print $18, $19, $41}' /proc/self/stat; busybox ionice; busybox uname -m");
        let process = &mut bundle.config["process"];
        process["scheduler"] = json!({ "policy": "SCHED_BATCH", "nice": 7 });
        process["ioPriority"] = json!({ "class": "IOPRIO_CLASS_IDLE", "priority": 0 });
        process["capabilities"]["bounding"] = json!(["CAP_SYS_NICE"]);
        bundle.config["linux"]["personality"] = json!({ "domain": "LINUX32" });
        let (code, out, error) = bundle.run();
        assert_eq!(code, 0, "{out}{error}");
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!((lines[0], lines[2]), ("27 7 3", "i686"), "{out}");
        assert!(lines[1].starts_with("idle"), "{out}");
    });
}

#[test]
fn a_tmpfs_begins_with_what_it_covers() {
    const TEST: &str = "launcher_features::a_tmpfs_begins_with_what_it_covers";
    isolated(TEST, || async {
        let mut bundle = Bundle::new(
            TEST,
            "cat /data/sub/file /data/link; ls -ln /data/sub | cat; echo x > /data/new || echo refused",
        );
        let data = bundle.rootfs().join("data");
        fs::create_dir_all(data.join("sub")).unwrap();
        fs::write(data.join("sub/file"), "kept\n").unwrap();
        chown(data.join("sub/file"), Some(5), Some(6)).unwrap();
        std::os::unix::fs::symlink("sub/file", data.join("link")).unwrap();
        let options = ["tmpcopyup", "ro", "nosuid"];
        let mount = json!({ "destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": options });
        push(&mut bundle.config["mounts"], mount);
        let (code, out, error) = bundle.run();
        assert_eq!(code, 0, "{out}{error}");
        assert!(
            out.starts_with("kept\nkept\n") && out.contains(" 5        6 ") && out.ends_with("refused\n"),
            "{out}{error}"
        );
    });
}

#[test]
fn somebody_else_may_judge_calls() {
    const TEST: &str = "launcher_features::somebody_else_may_judge_calls";
    isolated(TEST, || async {
        let mut bundle = Bundle::new(TEST, "busybox mkdir /made || echo refused; ls /proc/self/fd | cat");
        let path = bundle.dir.path().join("listener");
        let listener = UnixListener::bind(&path).unwrap();
        bundle.config["process"]["noNewPrivileges"] = json!(true);
        bundle.config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "listenerMetadata": "words",
            "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY" }],
        });
        // Who listens takes the state and goes: nobody judges, and the kernel answers ENOSYS.
        let judge = std::thread::spawn(move || {
            let (socket, _) = listener.accept().unwrap();
            let mut text = String::new();
            std::io::Read::read_to_string(&mut &socket, &mut text).unwrap();
            text
        });
        let (code, out, error) = bundle.run();
        assert_eq!(code, 0, "{out}{error}");
        assert_eq!(out, "refused\n0\n1\n2\n3\n", "{error}");
        let said: Value = serde_json::from_str(&judge.join().unwrap()).unwrap();
        assert_eq!(said["fds"], json!(["seccompFd"]));
        assert_eq!((&said["metadata"], &said["state"]["id"]), (&json!("words"), &json!("c")));
    });
}

#[test]
fn labels_are_given_or_refused() {
    const TEST: &str = "launcher_features::labels_are_given_or_refused";
    isolated(TEST, || async {
        let mut bundle = Bundle::new(TEST, "cat /proc/self/attr/current 2>/dev/null; exit 0");
        bundle.config["process"]["apparmorProfile"] = json!("no-such-profile");
        let (code, _, error) = bundle.run();
        let words = if coracle_launcher::labels::has_apparmor() {
            // As it is written to a terminal.
            r#"apply apparmor profile \"no-such-profile\""#
        } else {
            "AppArmor is not enabled on the host"
        };
        assert!(code == 1 && error.contains(words), "{error}");
        bundle.config["process"]["apparmorProfile"] = json!("unconfined");
        assert_eq!(bundle.run().0, 0);
        if !Path::new("/sys/fs/selinux/enforce").exists() {
            bundle.config["process"]["selinuxLabel"] = json!("a:b:c:s0");
            let (code, _, error) = bundle.run();
            assert!(code == 1 && error.contains("SELinux is not enabled on the host"), "{error}");
        }
    });
}

#[test]
fn the_command_line_is_runcs() {
    const TEST: &str = "launcher_features::the_command_line_is_runcs";
    isolated(TEST, || async {
        let mut bundle = Bundle::new(TEST, "cat <&3; exit 0");
        let output = bundle.oci(&["features"]);
        let features: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(features["hooks"].as_array().unwrap().len(), 6);
        assert_eq!(features["linux"]["mountExtensions"]["idmap"]["enabled"], json!(true));
        assert!(features["linux"]["namespaces"].as_array().unwrap().contains(&json!("time")));
        bundle.config["linux"]["intelRdt"] = json!({ "closID": "x" });
        let (code, _, error) = bundle.run();
        // No machine that tests run on has it.
        assert!(code == 1 && error.contains("Intel RDT is not supported or enabled"), "{error}");
        bundle.config["linux"]["intelRdt"] = json!(null);
        // Descriptors that are preserved, and no others.
        let file = bundle.dir.path().join("file");
        fs::write(&file, "given\n").unwrap();
        let program = coracle_programs::LAUNCHER.memfd().unwrap();
        let script = "exec 3< \"$1\" 4< \"$1\"; shift; exec \"$@\"";
        let launcher = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&program));
        bundle.write();
        let output = std::process::Command::new("/bin/busybox")
            .args(["sh", "-c", script, "sh"])
            .arg(&file)
            .args([&launcher, "--root", "state", "run", "--preserve-fds", "1", "c"])
            .current_dir(bundle.dir.path())
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "given\n", "{}", String::from_utf8_lossy(&output.stderr));
    });
}

#[test]
fn a_terminal_in_the_foreground_is_the_callers() {
    use std::{io::Read, io::Write, os::fd::OwnedFd, process::Stdio};

    use coracle_launcher::sys;
    const TEST: &str = "launcher_features::a_terminal_in_the_foreground_is_the_callers";
    isolated(TEST, || async {
        let mut bundle = Bundle::new(TEST, "stty size; read word; stty size; echo got $word; exit 5");
        bundle.config["process"]["terminal"] = json!(true);
        let master = sys::open("/dev/ptmx", libc::O_RDWR | libc::O_NOCTTY, 0).unwrap();
        let slave = sys::pty_peer(&master).unwrap();
        let settings = |fd: &OwnedFd| sys::terminal(fd).map(|settings| (settings.c_lflag, settings.c_oflag)).unwrap();
        let before = settings(&slave);
        sys::set_window_size(&master, 33, 77).unwrap();
        let program = coracle_programs::LAUNCHER.memfd().unwrap();
        let mut run = std::process::Command::new(coracle_programs::exec_path(&program));
        run.arg("--root").arg(bundle.dir.path().join("state")).args(["run", "c"]).current_dir(bundle.write());
        let stream = || Stdio::from(slave.try_clone().unwrap());
        let mut run = run.stdin(stream()).stdout(stream()).stderr(stream()).spawn().unwrap();
        let mut master = fs::File::from(master);
        let mut said = String::new();
        let mut read_until = |master: &mut fs::File, words: &str| {
            while !said.contains(words) {
                let mut buffer = [0; 256];
                let count = master.read(&mut buffer).unwrap();
                said.push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
            said.clone()
        };
        read_until(&mut master, "33 77\r\n");
        assert_eq!(settings(&slave).0 & (libc::ICANON | libc::ECHO | libc::ISIG), 0, "it is raw");
        sys::set_window_size(&master, 20, 60).unwrap();
        // The change alone tells only who has it as the controlling terminal.
        sys::kill(run.id() as i32, libc::SIGWINCH).unwrap();
        master.write_all(b"hello\r").unwrap();
        let said = read_until(&mut master, "got hello\r\n");
        assert!(said.contains("hello\r\n20 60\r\n"), "{said:?}");
        assert_eq!(run.wait().unwrap().code(), Some(5));
        assert_eq!(settings(&slave), before);
        // Of exec, too; what does not go to a terminal has no carriage returns, and nothing of it is lost.
        bundle.config["process"]["terminal"] = json!(false);
        bundle.config["process"]["args"] = json!(["/bin/busybox", "sleep", "1000"]);
        let mut detached = std::process::Command::new(coracle_programs::exec_path(&program));
        detached.arg("--root").arg(bundle.dir.path().join("state")).args(["run", "-d", "c"]);
        let null = Stdio::null;
        detached.current_dir(bundle.write()).stdin(null()).stdout(null()).stderr(null());
        assert!(detached.status().unwrap().success());
        let script = "[ -t 0 ] && [ -t 1 ] && [ -t 2 ] && busybox seq 1 20000; exit 3";
        let output = bundle.oci(&["exec", "-t", "c", "/bin/sh", "-c", script]);
        let out = String::from_utf8_lossy(&output.stdout);
        assert_eq!((output.status.code(), out.lines().count()), (Some(3), 20000));
        assert!(out.ends_with("\n20000\n") && !out.contains('\r'));
        let refused = |arguments: &[&str]| {
            let output = bundle.oci(arguments);
            assert!(!output.status.success());
            String::from_utf8_lossy(&output.stderr).into_owned()
        };
        assert!(refused(&["exec", "-t", "-d", "c", "/bin/sh"]).contains("without setting console socket"));
        assert!(refused(&["exec", "-t", "--console-socket", "x", "c", "/bin/sh"]).contains("will not detach"));
        assert!(bundle.oci(&["delete", "--force", "c"]).status.success());
    });
}

#[test]
fn later_processes_are_as_the_container_was_made() {
    const TEST: &str = "launcher_features::later_processes_are_as_the_container_was_made";
    isolated(TEST, || async {
        let mut bundle = Bundle::new(TEST, "sleep 1000");
        bundle.config["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 77, "hard": 77 }]);
        bundle.config["linux"]["personality"] = json!({ "domain": "LINUX32" });
        let refused = json!([{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO" }]);
        bundle.config["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": refused });
        let program = coracle_programs::LAUNCHER.memfd().unwrap();
        let root = bundle.dir.path().join("state");
        let oci = |arguments: &[&str]| {
            let mut command = std::process::Command::new(coracle_programs::exec_path(&program));
            command.arg("--root").arg(&root).args(arguments).current_dir(bundle.dir.path());
            command
        };
        bundle.write();
        let null = std::process::Stdio::null;
        let created = oci(&["create", "c"]).stdin(null()).stdout(null()).stderr(null()).status().unwrap();
        assert!(created.success());
        let config = bundle.dir.path().join("config.json");
        fs::write(&config, "nothing any more").unwrap();
        let script =
            "busybox mkdir /made || echo refused; busybox uname -m; ulimit -n; busybox grep CapBnd /proc/self/status";
        let process =
            json!({ "args": ["/bin/busybox", "sh", "-c", script], "cwd": "/", "env": ["PATH=/bin"] }).to_string();
        fs::write(bundle.dir.path().join("process.json"), &process).unwrap();
        // Not started yet, and with nothing but what it runs.
        let exec = || {
            let output = oci(&["exec", "--process", "process.json", "c"]).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        let out = exec();
        assert!(out.starts_with("refused\ni686\n77\nCapBnd:") && out.ends_with("20\n"), "{out}");
        let output = oci(&["exec", "c", "/nothing"]).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(255) && error.contains("exec failed: "), "{error}");
        let mut state: Value = serde_json::from_slice(&oci(&["state", "c"]).output().unwrap().stdout).unwrap();
        assert_eq!((&state["status"], &state["owner"]), (&json!("created"), &json!("root")));
        assert_eq!(state["rootfs"], json!(fs::canonicalize(bundle.rootfs()).unwrap()));
        // An older launcher kept nothing, and looked at the bundle.
        let file = root.join("c/state.json");
        state = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        state.as_object_mut().unwrap().remove("defaults").unwrap();
        fs::write(&file, state.to_string()).unwrap();
        bundle.write();
        assert_eq!(exec(), out);
        assert!(oci(&["delete", "--force", "c"]).status().unwrap().success());
    });
}

/// On a tree of v2 alone, with whatever controller it has: a group that has passed one on takes no processes.
#[test]
fn exec_goes_where_the_first_process_is() {
    const TEST: &str = "launcher_features::exec_goes_where_the_first_process_is";
    isolated(TEST, || async {
        let top = Path::new("/sys/fs/cgroup");
        nix::mount::umount2(top, nix::mount::MntFlags::MNT_DETACH).unwrap();
        nix::mount::mount(Some("none"), top, Some("cgroup2"), nix::mount::MsFlags::empty(), None::<&str>).unwrap();
        let controllers = fs::read_to_string(top.join("cgroup.controllers")).unwrap();
        let of_domain = |name: &&str| matches!(*name, "memory" | "io" | "hugetlb");
        let Some(controller) = controllers.split_whitespace().find(of_domain) else { return };
        let mut bundle = Bundle::new(TEST, "sleep 1000");
        bundle.config["linux"]["resources"] = json!({});
        let program = coracle_programs::LAUNCHER.memfd().unwrap();
        let mut container = std::process::Command::new(coracle_programs::exec_path(&program));
        container.arg("--root").arg(bundle.dir.path().join("state")).args(["run", "-d", "c"]);
        let null = std::process::Stdio::null;
        container.current_dir(bundle.write()).stdin(null()).stdout(null()).stderr(null());
        assert!(container.status().unwrap().success());
        let group = top.join(crate::isolation::group(TEST).trim_start_matches('/')).join("c");
        fs::create_dir(group.join("init")).unwrap();
        // The shell may have started what it runs by now.
        loop {
            let processes = fs::read_to_string(group.join("cgroup.procs")).unwrap();
            let Some(pid) = processes.lines().next() else { break };
            fs::write(group.join("init/cgroup.procs"), pid).unwrap();
        }
        fs::write(group.join("cgroup.subtree_control"), format!("+{controller}")).unwrap();
        let output = bundle.oci(&["exec", "c", "/bin/busybox", "grep", "0::", "/proc/self/cgroup"]);
        let out = String::from_utf8_lossy(&output.stdout);
        assert!(out.ends_with("/c/init\n"), "{out}{}", String::from_utf8_lossy(&output.stderr));
        // Nobody's else than the one that was named.
        let output = bundle.oci(&["exec", "--cgroup", "/", "c", "/bin/busybox", "true"]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(255) && error.contains("device or resource busy"), "{error}");
        assert!(bundle.oci(&["delete", "--force", "c"]).status.success());
    });
}

#[test]
fn all_of_a_container_is_killed() {
    const TEST: &str = "launcher_features::all_of_a_container_is_killed";
    isolated(TEST, || async {
        let mut bundle = Bundle::new(TEST, "sleep 1000 & sleep 1000");
        bundle.config["linux"]["namespaces"].as_array_mut().unwrap().retain(|kind| kind["type"] != "pid");
        let program = coracle_programs::LAUNCHER.memfd().unwrap();
        let mut run = std::process::Command::new(coracle_programs::exec_path(&program));
        run.arg("--root").arg(bundle.dir.path().join("state")).args(["run", "-d", "c"]).current_dir(bundle.write());
        let null = std::process::Stdio::null;
        assert!(run.stdin(null()).stdout(null()).stderr(null()).status().unwrap().success());
        let processes = || {
            let output = bundle.oci(&["ps", "-f", "json", "c"]);
            serde_json::from_slice::<Vec<i32>>(&output.stdout).unwrap().len()
        };
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        let wait = async |count: std::ops::RangeInclusive<usize>| {
            while !count.contains(&processes()) {
                assert!(std::time::Instant::now() < deadline, "{} processes", processes());
                tokio::task::yield_now().await;
            }
        };
        wait(2..=3).await;
        assert!(bundle.oci(&["kill", "c", "KILL"]).status.success());
        wait(0..=0).await;
        assert!(bundle.oci(&["delete", "c"]).status.success());
    });
}

#[test]
fn memory_hogs_are_told_of() {
    const TEST: &str = "launcher_features::memory_hogs_are_told_of";
    isolated(TEST, || async {
        // A shell that doubles a string until the kernel ends it; the container goes on.
        let mut bundle = Bundle::new(TEST, "read line; (x=xxxxxxxxxxxxxxxx; while :; do x=$x$x; done) ; sleep 1000");
        bundle.config["linux"]["resources"]["memory"] = json!({ "limit": 32 << 20, "swap": 32 << 20 });
        bundle.write();
        let program = coracle_programs::LAUNCHER.memfd().unwrap();
        let root = bundle.dir.path().join("state");
        let oci = |arguments: &[&str]| {
            let mut command = std::process::Command::new(coracle_programs::exec_path(&program));
            command.arg("--root").arg(&root).args(arguments).current_dir(bundle.dir.path());
            command
        };
        let mut container =
            oci(&["run", "--pid-file", "pid", "c"]).stdin(std::process::Stdio::piped()).spawn().unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while !root.join("c/state.json").exists() {
            assert!(std::time::Instant::now() < deadline, "the container does not come up");
            tokio::task::yield_now().await;
        }
        let mut events =
            oci(&["events", "--interval", "20ms", "c"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(events.stdout.take().unwrap()));
        let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
        let stats = next();
        assert_eq!(stats["data"]["memory"]["usage"]["limit"], json!(32 << 20), "{stats}");
        std::io::Write::write_all(container.stdin.as_mut().unwrap(), b"go\n").unwrap();
        while next()["type"] != "oom" {}
        assert!(oci(&["kill", "c", "KILL"]).status().unwrap().success());
        container.wait().unwrap();
        // It ends with the container.
        events.wait().unwrap();
    });
}

#[test]
fn the_root_may_be_moved_instead_of_changed() {
    const TEST: &str = "launcher_features::the_root_may_be_moved_instead_of_changed";
    isolated(TEST, || async {
        let bundle = Bundle::new(TEST, "cat /proc/1/comm; ls /; exit 0");
        let output = bundle.oci(&["run", "--no-pivot", "c"]);
        let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{out}{error}");
        assert!(out.starts_with("sh\nbin\ndev\nproc\n"), "{out}{error}");
        // Another view of the kernel than the container's own is nowhere to be seen.
        let other = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(other.contains(" - proc "), "the host's stays where it was");
    });
}

#[test]
fn a_descriptor_of_the_process_is_given_away() {
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
    const TEST: &str = "launcher_features::a_descriptor_of_the_process_is_given_away";
    isolated(TEST, || async {
        let bundle = Bundle::new(TEST, "exit 0");
        let path = bundle.dir.path().join("pidfd");
        let listener = UnixListener::bind(&path).unwrap();
        let receiver = std::thread::spawn(move || {
            let (socket, _) = listener.accept().unwrap();
            let mut bytes = [0u8; 16];
            let mut control = [0u64; 4];
            // SAFETY: the message points at live buffers of the given lengths; a descriptor in it is new and owned here.
            unsafe {
                let mut iov = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
                let mut message: libc::msghdr = std::mem::zeroed();
                message.msg_iov = &mut iov;
                message.msg_iovlen = 1;
                message.msg_control = control.as_mut_ptr().cast();
                message.msg_controllen = size_of_val(&control) as _;
                assert!(libc::recvmsg(socket.as_raw_fd(), &mut message, 0) > 0);
                let header = libc::CMSG_FIRSTHDR(&message);
                assert!(!header.is_null() && (*header).cmsg_type == libc::SCM_RIGHTS);
                OwnedFd::from_raw_fd(std::ptr::read_unaligned(libc::CMSG_DATA(header).cast::<i32>()))
            }
        });
        let output = bundle.oci(&["run", "--pidfd-socket", path.to_str().unwrap(), "c"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let pidfd = receiver.join().unwrap();
        let link = fs::read_link(format!("/proc/self/fd/{}", pidfd.as_raw_fd())).unwrap();
        assert!(link.to_string_lossy().contains("pidfd"), "{link:?}");
        // It has ended, and the descriptor says so.
        assert!(coracle_launcher::sys::poll_in(&pidfd, 10_000));
    });
}
