//! Containers without a mount namespace and in those of others. What runc 1.1 does is asked of it where it is there.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

use serde_json::json;

use crate::bundle::{Bundle, isolated};

/// The mounts that a process sees, each with its place, its root and how it hangs together with others.
fn mounts(process: impl std::fmt::Display) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{process}/mountinfo")).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// What is mounted below a directory, from there.
fn below(process: impl std::fmt::Display, dir: &Path) -> Vec<String> {
    let places = mounts(process).into_iter().filter_map(|line| Some(line.split(' ').nth(4)?.to_owned()));
    let dir = dir.to_str().unwrap();
    places.filter_map(|place| place.strip_prefix(dir).map(str::to_owned)).collect()
}

fn busybox(script: &str) -> Command {
    let mut command = Command::new("/bin/busybox");
    command.args(["sh", "-ec", script]);
    command
}

fn sh(script: &str) {
    assert!(busybox(script).status().unwrap().success(), "{script}");
}

/// A process in namespaces of its own, which have been made ready by a script.
struct Holder {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Holder {
    fn new(options: &[&str], script: &str) -> Holder {
        Holder::of_user(0, options, script)
    }

    fn of_user(user: u32, options: &[&str], script: &str) -> Holder {
        let script = format!("{script}\necho ready\nexec /bin/busybox sleep 1000");
        let mut command = Command::new("unshare");
        command.args(options).args(["/bin/busybox", "sh", "-ec", &script]);
        let mut child = command.uid(user).gid(user).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let mut holder = Holder { child, out };
        holder.wait();
        holder
    }

    /// In a user namespace, too, whose root runs the script.
    fn with_users(first: u32, options: &[&str], script: &str) -> Holder {
        let script = format!("echo ready; read go; /bin/busybox sh -ec '{script}'");
        let mut holder = Holder::of_user(first, &[&["--user"], options].concat(), &script);
        for file in ["uid_map", "gid_map"] {
            fs::write(format!("/proc/{}/{file}", holder.id()), format!("0 {first} 65536")).unwrap();
        }
        holder.child.stdin.take().unwrap().write_all(b"\n").unwrap();
        holder.wait();
        holder
    }

    fn wait(&mut self) {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
    }

    fn id(&self) -> u32 {
        self.child.id()
    }

    fn namespace(&self, kind: &str, file: &str) -> serde_json::Value {
        json!({ "type": kind, "path": format!("/proc/{}/ns/{file}", self.id()) })
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The same bundle under runc, if it is here and there is a version that is known: exit code, output, errors. What it leaves
/// behind is removed.
fn runc(bundle: &Bundle) -> Option<(i32, String, String)> {
    let version = Command::new("runc").arg("--version").output().ok()?;
    if !String::from_utf8_lossy(&version.stdout).contains("runc version 1.1.") {
        return None;
    }
    let mut command = Command::new("runc");
    command.arg("--root").arg(bundle.dir.path().join("runc")).args(["run", "c"]).current_dir(bundle.write());
    let output = command.output().unwrap();
    // It makes groups also where no controller is, and removes the last one alone.
    let group = Path::new(bundle.config["linux"]["cgroupsPath"].as_str().unwrap()).parent().unwrap();
    let _ = fs::remove_dir(Path::new("/sys/fs/cgroup/unified").join(group.strip_prefix("/").unwrap()));
    while !below("self", &bundle.rootfs()).is_empty() {
        sh(&format!("umount -l {}", bundle.rootfs().display()));
    }
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Some((output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr)))
}

/// What the container says, which is what it says under runc.
fn says(bundle: &Bundle) -> String {
    let (code, out, error) = bundle.run();
    assert_eq!(code, 0, "{out}{error}");
    if let Some((code, theirs, error)) = runc(bundle) {
        assert_eq!((code, &theirs), (0, &out), "{error}");
    }
    out
}

fn with_rights(bundle: &mut Bundle) {
    for set in ["bounding", "effective", "permitted"] {
        bundle.push(&format!("/process/capabilities/{set}"), json!("CAP_SYS_ADMIN"));
    }
}

const PLACES: [&str; 4] = ["", "/proc", "/dev", "/dev/pts"];

#[test]
fn without_one_mounts_are_the_callers_until_it_is_deleted() {
    const TEST: &str = "mount_namespaces::without_one_mounts_are_the_callers_until_it_is_deleted";
    isolated(TEST, || {
        let mut bundle = Bundle::new(TEST, "readlink /proc/self/ns/mnt; ls -a /; grep -c . /proc/self/mountinfo");
        bundle.without("mount");
        let own = fs::read_link("/proc/self/ns/mnt").unwrap();
        assert_eq!(says(&bundle), format!("{}\n.\n..\nbin\ndev\nproc\n4\n", own.display()));

        // As most machines have it: all that is mounted is mounted wherever these mounts are seen, too.
        sh("mount --make-rshared /");
        let elsewhere = Holder::new(&["--mount", "--propagation", "unchanged"], "");
        let before = (mounts("self"), mounts(elsewhere.id()));
        bundle.config["process"]["args"][2] = json!("sleep 1000");
        bundle.config["root"]["readonly"] = json!(true);
        for create in [true, false] {
            bundle.quiet(if create { &["create", "c"] } else { &["run", "-d", "c"] });
            assert_eq!(below("self", &bundle.rootfs()), PLACES);
            // The root is seen wherever the caller's mounts are, and nothing that is in it.
            assert_eq!(below(elsewhere.id(), &bundle.rootfs()), [""]);
            let kept: Vec<String> = mounts("self").into_iter().filter(|line| before.0.contains(line)).collect();
            assert_eq!(kept, before.0);
            // runc's sees the host's root.
            assert_eq!(bundle.ok(&["exec", "c", "ls", "/"]), "bin\ndev\nproc\n");
            assert!(bundle.refused(&["exec", "c", "touch", "/new"]).contains("Read-only"));
            let pid = bundle.ok(&["ps", "--format", "json", "c"]);
            assert!(pid.trim_matches(['[', ']', '\n']).parse::<u32>().is_ok(), "{pid}");
            assert!(bundle.ok(&["state", "c"]).contains(if create { "created" } else { "running" }));
            bundle.ok(&["update", "--pids-limit", "20", "c"]);
            if !create {
                assert_eq!(bundle.ok(&["exec", "--tty=false", "--cwd", "/bin", "c", "sh", "-c", "pwd"]), "/bin\n");
                bundle.ok(&["kill", "c", "KILL"]);
            }
            bundle.ok(&["delete", "--force", "c"]);
            assert_eq!((mounts("self"), mounts(elsewhere.id())), before);
        }
        // Also when it has ended in the foreground, and where pivot_root(2) is not to be used.
        bundle.config["process"]["args"][2] = json!("exit 3");
        assert_eq!(bundle.oci(&["run", "--no-pivot", "c"]).status.code(), Some(3));
        assert_eq!((mounts("self"), mounts(elsewhere.id())), before);
    });
}

#[test]
fn without_one_nothing_is_left_of_what_fails() {
    const TEST: &str = "mount_namespaces::without_one_nothing_is_left_of_what_fails";
    isolated(TEST, || {
        let mut bundle = Bundle::new(TEST, "exit 3");
        bundle.without("mount");
        // The caller's own root, which stays.
        let kept = tempfile::tempdir().unwrap();
        sh(&format!("mount --bind {0} {0} && mount --make-shared {0}", bundle.rootfs().display()));
        sh(&format!("mount -t tmpfs kept {}", kept.path().display()));
        bundle.push(
            "/mounts",
            json!({ "destination": "/kept", "type": "bind", "source": kept.path(), "options": ["rbind"] }),
        );
        let before = mounts("self");
        let sound = bundle.config.clone();
        let failing = json!([{ "path": "/bin/busybox", "args": ["sh", "-c", "exit 1"] }]);
        let no_such = json!({ "destination": "/a", "type": "nothing", "source": "nothing" });
        bundle.push("/mounts", no_such);
        assert!(bundle.refused(&["run", "c"]).contains("no such device"));
        assert_eq!(mounts("self"), before);
        for hook in ["createRuntime", "createContainer", "startContainer"] {
            bundle.config = sound.clone();
            bundle.config["hooks"] = json!({ hook: failing });
            bundle.refused(&["run", "c"]);
            assert_eq!(mounts("self"), before, "{hook}");
        }
        bundle.config = sound.clone();
        bundle.config["process"]["args"] = json!(["/nothing"]);
        assert!(bundle.refused(&["create", "c"]).contains("no such file or directory"));
        assert_eq!(mounts("self"), before);
        bundle.config = sound;
        assert_eq!(bundle.run().0, 3);
        assert_eq!(mounts("self"), before);

        // What somebody else mounts over the root is his.
        bundle.config["process"]["args"][2] = json!("sleep 1000");
        bundle.quiet(&["run", "-d", "c"]);
        sh(&format!("mount -t tmpfs over {}", bundle.rootfs().display()));
        bundle.ok(&["delete", "--force", "c"]);
        assert!(mounts("self").last().unwrap().contains(" - tmpfs over "));
        // And a root that was taken off meanwhile is nobody's any more.
        sh(&format!("umount {0} && umount -l {0}", bundle.rootfs().display()));
        assert_eq!(mounts("self"), before);
        bundle.quiet(&["run", "-d", "c"]);
        sh(&format!("umount -l {}", bundle.rootfs().display()));
        bundle.ok(&["delete", "--force", "c"]);
        assert_eq!(mounts("self"), before);
        // Directories that are mounted on cannot be removed.
        sh(&format!("umount -l {} && umount -l {}", bundle.rootfs().display(), kept.path().display()));
    });
}

#[test]
fn what_is_bound_hangs_together_with_the_host_as_it_would_with_one() {
    const TEST: &str = "mount_namespaces::what_is_bound_hangs_together_with_the_host_as_it_would_with_one";
    isolated(TEST, || {
        sh("mount --make-rshared /");
        let source = tempfile::tempdir().unwrap();
        let path = source.path().display();
        sh(&format!(
            "mount -t tmpfs s {path} && mkdir {path}/in {path}/out {path}/sub && mount -t tmpfs sub {path}/sub"
        ));
        // Whether what is mounted in the container is on the host, and what is mounted on the host in the container.
        let reach = |own: bool, propagation: &str, option: Option<&str>| {
            let mut bundle = Bundle::new(TEST, "sleep 1000");
            with_rights(&mut bundle);
            if !own {
                bundle.without("mount");
            }
            if !propagation.is_empty() {
                bundle.config["linux"]["rootfsPropagation"] = json!(propagation);
            }
            let options: Vec<&str> = ["rbind"].into_iter().chain(option).collect();
            let mount = json!({ "destination": "/b", "type": "bind", "source": source.path(), "options": options });
            bundle.push("/mounts", mount);
            let before = mounts("self");
            bundle.quiet(&["run", "-d", "c"]);
            bundle.ok(&["exec", "--cap", "CAP_SYS_ADMIN", "c", "/bin/busybox", "mount", "-t", "tmpfs", "t", "/b/in"]);
            sh(&format!("mount -t tmpfs t {path}/out"));
            let inside = bundle.ok(&["exec", "c", "cat", "/proc/self/mountinfo"]);
            let reached = (
                below("self", source.path()).contains(&"/in".to_owned()),
                inside.lines().any(|line| line.split(' ').nth(4) == Some("/b/out")),
            );
            bundle.ok(&["delete", "--force", "c"]);
            // What the host has of it stays, and goes when the host says so; what the host had is there in any case.
            assert_eq!(below("self", source.path()).contains(&"/in".to_owned()), reached.0);
            if reached.0 {
                sh(&format!("umount {path}/in"));
            }
            sh(&format!("umount {path}/out"));
            assert_eq!(mounts("self"), before, "{own} {propagation} {option:?}");
            reached
        };
        for (propagation, option, expected) in [
            ("", None, (false, true)),
            ("", Some("rprivate"), (false, false)),
            ("", Some("rshared"), (false, true)),
            ("rprivate", None, (false, false)),
            ("rshared", Some("rshared"), (true, true)),
            ("rshared", Some("rslave"), (false, true)),
        ] {
            for own in [true, false] {
                let what = format!("with one of its own: {own}; {propagation} {option:?}");
                assert_eq!(reach(own, propagation, option), expected, "{what}");
            }
        }
        sh(&format!("umount -l {path}"));
    });
}

#[test]
fn without_one_links_of_the_image_lead_nowhere_else() {
    const TEST: &str = "mount_namespaces::without_one_links_of_the_image_lead_nowhere_else";
    isolated(TEST, || {
        let mut bundle = Bundle::new(TEST, "grep -c ' /victim ' /proc/self/mountinfo; ls /dev/null");
        bundle.without("mount");
        let victim = tempfile::Builder::new().tempdir_in(bundle.dir.path()).unwrap();
        let name = victim.path().to_str().unwrap();
        sh(&format!(
            "cd {} && mkdir victim && ln -s {name} absolute && ln -s ../../../../../../victim up",
            bundle.rootfs().display()
        ));
        for destination in ["/absolute", "/up"] {
            let mount = json!({ "destination": destination, "type": "tmpfs", "source": "t" });
            bundle.push("/mounts", mount);
        }
        bundle.quiet(&["run", "-d", "--keep", "c"]);
        let found = below("self", bundle.dir.path());
        bundle.ok(&["delete", "--force", "c"]);
        // The one that leads out by its name leads to the same name in the root.
        let inside = format!("/rootfs{name}");
        let mut expected: Vec<String> = PLACES.iter().map(|place| format!("/rootfs{place}")).collect();
        expected.extend([inside, "/rootfs/victim".to_owned()]);
        assert_eq!(found, expected);
        // Nor do those of the places that are always mounted on.
        for place in ["proc", "dev"] {
            let mut bundle = Bundle::new(TEST, "exit 0");
            bundle.without("mount");
            sh(&format!("ln -s {name} {}/{place}", bundle.rootfs().display()));
            bundle.run();
            assert_eq!(below("self", victim.path()), [""; 0]);
            assert_eq!(fs::read_dir(victim.path()).unwrap().count(), 0);
            assert_eq!(below("self", bundle.dir.path()), [""; 0]);
        }
    });
}

#[test]
fn what_needs_one_is_refused_as_runc_refuses_it() {
    const TEST: &str = "mount_namespaces::what_needs_one_is_refused_as_runc_refuses_it";
    isolated(TEST, || {
        for list in ["maskedPaths", "readonlyPaths"] {
            let mut bundle = Bundle::new(TEST, "exit 0");
            bundle.without("mount");
            bundle.config["linux"][list] = json!(["/proc/sys"]);
            const WORDS: &str = "unable to restrict sys entries without a private MNT namespace";
            assert!(bundle.run().2.contains(WORDS));
            if let Some((code, _, error)) = runc(&bundle) {
                assert!(code == 1 && error.contains(WORDS), "{error}");
            }
        }
        let before = mounts("self");
        for path in ["/proc/self/ns/mnt", "/proc/1/ns/mnt"] {
            let mut bundle = Bundle::new(TEST, "exit 0");
            bundle.without("mount");
            bundle.push("/linux/namespaces", json!({ "type": "mount", "path": path }));
            let error = bundle.run().2;
            assert!(error.contains("would lose its root"), "{error}");
        }
        let mut bundle = Bundle::new(TEST, "exit 0");
        bundle.without("mount");
        bundle.push("/linux/namespaces", json!({ "type": "mount", "path": "/proc/self/ns/uts" }));
        assert!(bundle.run().2.to_lowercase().contains("invalid argument"));
        assert_eq!(mounts("self"), before);
    });
}

/// A mount namespace that sees more of the bundle than the test does: `/only/here` in the root, and in `source`.
fn seeing_more(bundle: &Bundle, options: &[&str], script: &str) -> Holder {
    let (only, source) = (bundle.rootfs().join("only"), bundle.dir.path().join("source"));
    fs::create_dir_all(&only).unwrap();
    fs::create_dir_all(&source).unwrap();
    let mount = |dir: &Path| format!("mount -t tmpfs t {0}; touch {0}/here\n", dir.display());
    Holder::new(options, &format!("{}{}{script}", mount(&only), mount(&source)))
}

#[test]
fn one_that_is_joined_gets_the_containers_root() {
    const TEST: &str = "mount_namespaces::one_that_is_joined_gets_the_containers_root";
    isolated(TEST, || {
        let script = "ls / /only /bound; readlink /proc/self/ns/mnt; touch /new || touch /proc/sys/new || cat /proc/uptime; exit 0";
        let mut bundle = Bundle::new(TEST, script);
        bundle.without("mount");
        let source = bundle.dir.path().join("source");
        bundle.push(
            "/mounts",
            json!({ "destination": "/bound", "type": "bind", "source": source, "options": ["rbind"] }),
        );
        bundle.config["linux"]["maskedPaths"] = json!(["/proc/uptime"]);
        bundle.config["linux"]["readonlyPaths"] = json!(["/proc/sys"]);
        bundle.config["root"]["readonly"] = json!(true);
        fs::create_dir_all(bundle.rootfs().join("bound")).unwrap();
        fs::create_dir_all(bundle.rootfs().join("proc")).unwrap();
        fs::create_dir_all(bundle.rootfs().join("dev")).unwrap();
        let before = mounts("self");
        let found = |program: &dyn Fn(&Bundle) -> (i32, String, String), bundle: &mut Bundle| {
            let holder = seeing_more(bundle, &["--mount"], "");
            bundle.push("/linux/namespaces", holder.namespace("mount", "mnt"));
            let own = fs::read_link(format!("/proc/{}/ns/mnt", holder.id())).unwrap();
            let (code, out, error) = program(bundle);
            bundle.without("mount");
            // Who was there is in the container's root now.
            let mut root = Vec::new();
            for entry in fs::read_dir(format!("/proc/{}/root", holder.id())).unwrap() {
                root.push(entry.unwrap().file_name().into_string().unwrap());
            }
            root.sort();
            let mut places = below(holder.id(), Path::new("/"));
            places.sort();
            (code, out.replace(own.to_str().unwrap(), "NAMESPACE"), error, root, places)
        };
        let ours = found(&Bundle::run, &mut bundle);
        let expected = "/:\nbin\nbound\ndev\nonly\nproc\n\n/bound:\nhere\n\n/only:\nhere\nNAMESPACE\n";
        let places = ["", "bound", "dev", "dev/pts", "only", "proc", "proc/sys", "proc/uptime"];
        let root = ["bin", "bound", "dev", "only", "proc"];
        assert_eq!((ours.0, ours.1.as_str()), (0, expected), "{}", ours.2);
        assert!(ours.2.matches("Read-only").count() + ours.2.matches("No such").count() >= 2, "{}", ours.2);
        assert_eq!(
            (ours.3.as_slice(), ours.4.as_slice()),
            (&root.map(str::to_owned)[..], &places.map(str::to_owned)[..])
        );
        if runc(&bundle).is_some() {
            let theirs = found(&|bundle| runc(bundle).unwrap(), &mut bundle);
            assert_eq!((theirs.0, theirs.1, theirs.3, theirs.4), (ours.0, ours.1, ours.3, ours.4), "{}", theirs.2);
        }
        assert_eq!(mounts("self"), before);

        // A process of it is where it is, and those that were there stay when it is deleted.
        let mut running = Bundle::new(TEST, "sleep 1000");
        running.without("mount");
        let holder = seeing_more(&running, &["--mount"], "");
        running.push("/linux/namespaces", holder.namespace("mount", "mnt"));
        running.quiet(&["run", "-d", "c"]);
        assert_eq!(running.ok(&["exec", "c", "ls", "/only"]), "here\n");
        assert!(running.ok(&["ps", "c"]).contains("sleep"));
        running.ok(&["delete", "--force", "c"]);
        assert!(below(holder.id(), Path::new("/")).contains(&"proc".to_owned()));
        assert_eq!(mounts("self"), before);
    });
}

#[test]
fn one_that_is_joined_is_left_as_it_was_by_what_fails() {
    const TEST: &str = "mount_namespaces::one_that_is_joined_is_left_as_it_was_by_what_fails";
    isolated(TEST, || {
        let mut bundle = Bundle::new(TEST, "exit 0");
        bundle.without("mount");
        let holder = seeing_more(&bundle, &["--mount"], "");
        bundle.push("/linux/namespaces", holder.namespace("mount", "mnt"));
        let before = mounts(holder.id());
        bundle.push("/mounts", json!({ "destination": "/a", "type": "nothing", "source": "nothing" }));
        assert!(bundle.refused(&["run", "c"]).contains("no such device"));
        assert_eq!(mounts(holder.id()), before);
        drop(holder);
        // What is found by /proc would be found where who was there before wants it to be.
        for (script, words) in [
            ("mount -t tmpfs t /proc", "not the kernel's"),
            ("mount --bind /proc/sys /proc", "not the kernel's"),
            ("mount --bind /proc/self/task /proc/1/fd", ""),
            ("mount -t tmpfs t /proc/sys/kernel; touch /proc/sys/kernel/msgmax", "find sys/kernel/msgmax in /proc"),
        ] {
            let mut bundle = Bundle::new(TEST, "exit 0");
            bundle.without("mount");
            bundle.config["linux"]["sysctl"] = json!({ "kernel.msgmax": "5555" });
            let holder = seeing_more(&bundle, &["--mount"], script);
            bundle.push("/linux/namespaces", holder.namespace("mount", "mnt"));
            let (code, _, error) = bundle.run();
            assert!(error.contains(words) && (code == 0) == words.is_empty(), "{script}: {error}");
        }
    });
}

#[test]
fn a_file_that_is_no_such_namespace_is_named() {
    const TEST: &str = "mount_namespaces::a_file_that_is_no_such_namespace_is_named";
    isolated(TEST, || {
        for (kind, path) in
            [("mount", "/bin/busybox"), ("mount", "/proc/self/ns/net"), ("network", "/proc/self/ns/uts")]
        {
            let mut bundle = Bundle::new(TEST, "exit 0");
            bundle.without(kind);
            bundle.push("/linux/namespaces", json!({ "type": kind, "path": path }));
            let (code, _, error) = bundle.run();
            assert!(code != 0 && error.contains(&format!("namespace {path}: ")), "{kind}, {path}: {error}");
        }
    });
}

#[test]
fn one_that_is_joined_with_its_users_is_theirs() {
    const TEST: &str = "mount_namespaces::one_that_is_joined_with_its_users_is_theirs";
    const OUTSIDE: u32 = 200_000;
    isolated(TEST, || {
        let with = |script: &str| {
            let mut bundle = Bundle::new(TEST, script);
            bundle.without("mount");
            sh(&format!(
                "cd {}; mkdir rootfs/proc rootfs/dev rootfs/bound only source; chown -R {OUTSIDE}:{OUTSIDE} .; chmod 711 .",
                bundle.dir.path().display()
            ));
            let source = bundle.dir.path().join("source");
            let mount = json!({ "destination": "/bound", "type": "bind", "source": source, "options": ["bind", "ro"] });
            bundle.push("/mounts", mount);
            bundle
        };
        let mut bundle = with("id -u; ls /bound; cat /proc/self/uid_map; readlink /proc/self/ns/mnt");
        let source = bundle.dir.path().join("source");
        let holder = Holder::with_users(
            OUTSIDE,
            &["--mount"],
            &format!("mount -t tmpfs t {0}; touch {0}/only-there", source.display()),
        );
        // Whatever their order: who has not joined the users may not join what is theirs alone.
        bundle.push("/linux/namespaces", holder.namespace("mount", "mnt"));
        bundle.push("/linux/namespaces", holder.namespace("user", "user"));
        let (code, out, error) = bundle.run();
        let own = fs::read_link(format!("/proc/{}/ns/mnt", holder.id())).unwrap();
        let words: Vec<&str> = out.split_whitespace().collect();
        assert_eq!(code, 0, "{error}");
        assert_eq!(words, ["0", "only-there", "0", "200000", "65536", own.to_str().unwrap()]);

        // The users have no rights in what is another's.
        let (mounts_of, users) = (Holder::new(&["--mount"], ""), Holder::with_users(OUTSIDE, &[], ""));
        let mut bundle = with("exit 0");
        bundle.push("/linux/namespaces", mounts_of.namespace("mount", "mnt"));
        bundle.push("/linux/namespaces", users.namespace("user", "user"));
        let before = mounts(mounts_of.id());
        let error = bundle.run().2;
        assert!(error.contains("operation not permitted"), "{error}");
        assert_eq!(mounts(mounts_of.id()), before);
    });
}
