//! Images and containers that mean harm, through CRI.

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt, symlink},
        process::CommandExt,
    },
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use coracle_launcher::cgroup::Hierarchy;
use coracle_runtime::{digest::Digest, images::manifest::OCI_MANIFEST};
use k8s_cri::v1;
use serde_json::json;

use crate::{
    cri::assert_nothing_left,
    harness::{Clients, Node, Running, log, sandbox, script},
    images::Registry,
    isolation::isolated,
    launcher::Bundle,
};

/// An image of busybox and of what a test adds to its one layer.
pub fn publish(
    registry: &Registry,
    tag: &str,
    config: serde_json::Value,
    add: impl FnOnce(&mut tar::Builder<Vec<u8>>),
) {
    let mut layer = tar::Builder::new(Vec::new());
    let mut header = entry(tar::EntryType::Regular, 0o755);
    let busybox = fs::read("/bin/busybox").unwrap();
    header.set_size(busybox.len() as u64);
    layer.append_data(&mut header, "bin/busybox", &busybox[..]).unwrap();
    for name in
        ["sh", "cat", "ls", "id", "head", "sleep", "mount", "echo", "readlink", "mkdir", "rm", "pwd", "ln", "true"]
    {
        link(&mut layer, &format!("bin/{name}"), "/bin/busybox");
    }
    add(&mut layer);
    let layer = layer.into_inner().unwrap();
    let blob = "test/app/blobs/DIGEST";
    let config = json!({ "architecture": "amd64", "os": "linux", "config": config, "rootfs": { "type": "layers", "diff_ids": [Digest::of(&layer)] } });
    let config = registry.put(blob, "application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
    let layer = registry.put(blob, "application/vnd.oci.image.layer.v1.tar", &layer);
    let manifest = json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [layer] });
    registry.put(&format!("test/app/manifests/{tag}"), OCI_MANIFEST, manifest.to_string().as_bytes());
}

pub fn entry(kind: tar::EntryType, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

pub fn link(layer: &mut tar::Builder<Vec<u8>>, path: &str, target: &str) {
    layer.append_link(&mut entry(tar::EntryType::Symlink, 0o777), path, target).unwrap();
}

/// A runtime with a pod.
pub async fn pod(test: &str) -> (Node, Clients, String, Running) {
    let node = Node::new(test);
    node.install_network();
    let running = node.start().await;
    let mut cri = running.clients.clone();
    let pod = cri.run_sandbox(sandbox(&node, "web")).await;
    (node, cri, pod, running)
}

pub async fn end(node: &Node, mut cri: Clients, pod: &str, running: Running) {
    cri.remove_sandbox(pod).await;
    running.stop().await;
    assert_nothing_left(node);
}

pub async fn pull(cri: &mut Clients, host: &str, tag: &str) -> v1::ImageSpec {
    let spec = v1::ImageSpec { image: format!("{host}/test/app:{tag}"), ..Default::default() };
    let request = v1::PullImageRequest { image: Some(spec.clone()), ..Default::default() };
    cri.images.pull_image(request).await.unwrap();
    spec
}

pub fn of(image: &v1::ImageSpec, mut config: v1::ContainerConfig) -> v1::ContainerConfig {
    config.image = Some(image.clone());
    config
}

#[test]
fn links_and_devices_of_images_lead_nowhere() {
    const TEST: &str = "hostile::links_and_devices_of_images_lead_nowhere";
    isolated(TEST, || async {
        let outside = tempfile::tempdir().unwrap();
        let victim = outside.path().to_str().unwrap();
        fs::write(outside.path().join("passwd"), "evil:x:0:0::/:/bin/sh\n").unwrap();
        fs::write(outside.path().join("hosts"), "untouched").unwrap();
        let registry = Arc::new(Registry::default());
        publish(&registry, "etc", json!({ "WorkingDir": "/srv/deep" }), |layer| {
            link(layer, "etc", victim);
            link(layer, "srv", &format!("../../../../..{victim}"));
            link(layer, "data", &format!("{victim}/passwd"));
            let mut device = entry(tar::EntryType::Char, 0o666);
            device.set_device_major(1).unwrap();
            device.set_device_minor(1).unwrap();
            device.set_path("memory").unwrap();
            device.set_cksum();
            layer.append(&device, std::io::empty()).unwrap();
        });
        publish(&registry, "passwd", json!({}), |layer| link(layer, "etc/passwd", &format!("{victim}/passwd")));
        publish(&registry, "dev", json!({}), |layer| link(layer, "dev", victim));
        publish(&registry, "proc", json!({}), |layer| link(layer, "proc", victim));
        let host = registry.serve().await;
        let (node, mut cri, pod, running) = pod(TEST).await;

        let image = pull(&mut cri, &host, "etc").await;
        let source = node.path("source");
        fs::write(&source, "bound").unwrap();
        let mut config = of(
            &image,
            script(
                "etc",
                "pwd; cat /data; cat /etc/hostname; cat /etc/hosts | head -c 1; head -c 1 /memory 2>&1; exit 0",
            ),
        );
        config.mounts = vec![v1::Mount {
            container_path: "/data".into(),
            host_path: source.to_str().unwrap().into(),
            ..Default::default()
        }];
        let id = cri.run(&pod, config).await;
        assert_eq!(cri.wait(&id).await.exit_code, 0);
        let said = log(&node, "web", "etc");
        // Where the link leads inside the image.
        assert!(said.starts_with(&format!("{victim}/deep\nboundweb\n")), "{said}");
        assert!(said.contains("/memory: Operation not permitted"), "{said}");

        let image = pull(&mut cri, &host, "passwd").await;
        let mut config = of(&image, script("passwd", "id"));
        config.linux.as_mut().unwrap().security_context.as_mut().unwrap().run_as_username = "evil".into();
        let request =
            v1::CreateContainerRequest { pod_sandbox_id: pod.clone(), config: Some(config), sandbox_config: None };
        let error = cri.runtime.create_container(request).await.unwrap_err();
        assert!(error.message().contains("evil"), "{error}");

        let image = pull(&mut cri, &host, "dev").await;
        let id = cri.run(&pod, of(&image, script("dev", "echo x > /dev/null; ls /dev | head -n 1"))).await;
        assert_eq!(cri.wait(&id).await.exit_code, 0);

        let image = pull(&mut cri, &host, "proc").await;
        let id = cri.create(&pod, of(&image, script("proc", "exit 0"))).await;
        let error = cri.runtime.start_container(v1::StartContainerRequest { container_id: id }).await.unwrap_err();
        assert!(error.message().contains("leads elsewhere"), "{error}");

        assert_eq!(fs::read_to_string(outside.path().join("hosts")).unwrap(), "untouched");
        assert!(fs::read_to_string(outside.path().join("passwd")).unwrap().starts_with("evil:"));
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 2);
        end(&node, cri, &pod, running).await;
    });
}

#[test]
fn containers_get_no_descriptor_and_no_program_of_ours() {
    const TEST: &str = "hostile::containers_get_no_descriptor_and_no_program_of_ours";
    isolated(TEST, || async {
        let registry = Arc::new(Registry::default());
        // Whatever is run in it is run by whoever runs it (CVE-2019-5736).
        publish(&registry, "self", json!({}), |layer| link(layer, "bin/self", "/proc/self/exe"));
        let host = registry.serve().await;
        let (node, mut cri, pod, running) = pod(TEST).await;
        let image = pull(&mut cri, &host, "self").await;
        // Looks for programs that are not its own, and writes to them: one that can be opened for writing is ours.
        let hunt = "echo fds: $(ls /proc/self/fd); echo ready; while :; do for p in /proc/[0-9]*; do \
                    case \"$(readlink $p/exe)\" in /bin/*|'') ;; *) echo seen; (echo x > $p/exe) 2>/dev/null && echo WRITTEN;; esac; \
                    for f in $p/fd/*; do case \"$(readlink $f)\" in *memfd*|*coracle*) echo LEAKED $f;; esac; done; done; done";
        let hunter = cri.run(&pod, of(&image, script("hunter", hunt))).await;
        let log_path = node.path("logs/web/hunter/0.log");
        while !fs::read_to_string(&log_path).is_ok_and(|text| text.contains("ready")) {
            tokio::task::yield_now().await;
        }
        for _ in 0..40 {
            assert_eq!(cri.exec(&hunter, &["/bin/true"]).await.exit_code, 0);
        }
        // The launcher, told to run itself inside: it is the container's program then, and may do nothing to ours.
        let request = v1::ExecSyncRequest {
            container_id: hunter.clone(),
            cmd: vec!["/bin/self".into(), "--root".into(), "/tmp".into(), "list".into()],
            timeout: 10,
        };
        let _ = cri.runtime.exec_sync(request).await;
        let fds = cri.exec(&hunter, &["/bin/ls", "/proc/self/fd"]).await;
        assert_eq!(String::from_utf8_lossy(&fds.stdout), "0\n1\n2\n3\n");
        let said = fs::read_to_string(&log_path).unwrap();
        assert!(said.contains("fds: 0 1 2 3\n"), "{said}");
        assert!(!said.contains("WRITTEN") && !said.contains("LEAKED"), "{said}");
        // The runtime still has what it runs.
        let next = cri.run(&pod, script("next", "exit 4")).await;
        assert_eq!(cri.wait(&next).await.exit_code, 4);
        end(&node, cri, &pod, running).await;
    });
}

#[test]
fn commands_in_a_container_that_lies_do_no_harm() {
    const TEST: &str = "hostile::commands_in_a_container_that_lies_do_no_harm";
    isolated(TEST, || async {
        let (node, mut cri, pod, running) = pod(TEST).await;
        // A root with rights puts its own files where a runtime would look.
        let lies = "mount -t tmpfs x /proc && mount -t tmpfs x /dev && mount -t tmpfs x /sys && > /dev/ptmx && \
                    mkdir -p /dev/pts /proc/self/fd /proc/self/attr /proc/thread-self && > /proc/self/attr/exec && \
                    > /proc/self/setgroups && echo root:x:4711:4711::/:/bin/sh > /etc/passwd && echo ready; sleep 1000";
        let mut config = script("liar", lies);
        let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
        security.capabilities =
            Some(v1::Capability { add_capabilities: vec!["SYS_ADMIN".into()], ..Default::default() });
        // Else it could mount nothing where the kernel has AppArmor.
        let unconfined = v1::security_profile::ProfileType::Unconfined.into();
        security.apparmor = Some(v1::SecurityProfile { profile_type: unconfined, ..Default::default() });
        let liar = cri.run(&pod, config).await;
        let log_path = node.path("logs/web/liar/0.log");
        while !fs::read_to_string(&log_path).is_ok_and(|text| text.contains("ready")) {
            assert_ne!(
                cri.status(&liar).await.state(),
                v1::ContainerState::ContainerExited,
                "{:?}",
                fs::read_to_string(&log_path)
            );
        }
        let who = cri.exec(&liar, &["/bin/id", "-u"]).await;
        assert_eq!((String::from_utf8_lossy(&who.stdout).as_ref(), who.exit_code), ("0\n", 0));
        let said = cri.exec(&liar, &["/bin/cat", "/proc/self/attr/exec"]).await;
        assert_eq!((said.stdout.len(), said.exit_code), (0, 0), "what it wrote there: {:?}", said.stdout);
        end(&node, cri, &pod, running).await;
    });
}

#[test]
fn mount_targets_that_move_lead_nowhere() {
    const TEST: &str = "hostile::mount_targets_that_move_lead_nowhere";
    isolated(TEST, || async {
        // As two containers of a pod that share a volume: one swaps what the other's mount is to lie on (CVE-2021-30465).
        let outside = tempfile::tempdir().unwrap();
        fs::create_dir(outside.path().join("target")).unwrap();
        let volume = tempfile::tempdir().unwrap();
        let source = tempfile::tempdir().unwrap();
        fs::write(source.path().join("planted"), "").unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, shared, victim) = (stop.clone(), volume.path().to_owned(), outside.path().to_owned());
        let swapper = std::thread::spawn(move || {
            let (name, other) = (shared.join("dir"), shared.join("link"));
            while !stopped.load(Ordering::Relaxed) {
                let _ = fs::create_dir_all(name.join("target"));
                let _ = symlink(&victim, &other);
                let _ = rename_exchange(&name, &other);
            }
        });
        let mut ran = 0;
        let name = source.path().file_name().unwrap().to_str().unwrap();
        for _ in 0..60 {
            let mut bundle = Bundle::new(TEST, "cat /proc/self/mountinfo");
            let mounts = bundle.config["mounts"].as_array_mut().unwrap();
            mounts.push(
                json!({ "destination": "/volume", "type": "bind", "source": volume.path(), "options": ["bind"] }),
            );
            mounts.push(json!({ "destination": "/volume/dir/target", "type": "bind", "source": source.path(), "options": ["bind", "ro"] }));
            let (code, said, _) = bundle.run();
            ran += usize::from(code == 0);
            // Wherever it came to lie: nobody can write to it, and it is what was asked for.
            for line in said.lines().filter(|line| line.split(' ').nth(3).is_some_and(|root| root.ends_with(name))) {
                assert!(line.split(' ').nth(5).unwrap().starts_with("ro"), "{line}");
            }
        }
        stop.store(true, Ordering::Relaxed);
        swapper.join().unwrap();
        assert!(ran > 0, "no container ran");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(outside.path().to_str().unwrap()), "{mounts}");
        let names =
            |dir: &Path| fs::read_dir(dir).unwrap().flatten().map(|entry| entry.file_name()).collect::<Vec<_>>();
        assert_eq!(names(outside.path()), ["target"]);
        assert!(names(&outside.path().join("target")).is_empty());
    });
}

#[test]
fn sources_that_move_lead_nowhere() {
    const TEST: &str = "hostile::sources_that_move_lead_nowhere";
    isolated(TEST, || async {
        // A part of a volume is mounted while another container of the volume swaps its parent for a link to the host.
        let outside = tempfile::tempdir().unwrap();
        fs::create_dir(outside.path().join("part")).unwrap();
        fs::write(outside.path().join("part/secret"), "").unwrap();
        let volume = tempfile::tempdir().unwrap();
        fs::create_dir_all(volume.path().join("dir/part")).unwrap();
        fs::write(volume.path().join("dir/part/own"), "").unwrap();
        symlink(outside.path(), volume.path().join("link")).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, shared) = (stop.clone(), volume.path().to_owned());
        let swapper = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let _ = rename_exchange(&shared.join("dir"), &shared.join("link"));
            }
        });
        let (mut ran, mut refused) = (0, 0);
        for round in 0..60 {
            let mut bundle = Bundle::new(TEST, "ls /part");
            let options = json!([if round % 2 == 0 { "bind" } else { "rbind" }, "ro", "x-coracle.subpath=dir/part"]);
            bundle.config["mounts"]
                .as_array_mut()
                .unwrap()
                .push(json!({ "destination": "/part", "type": "bind", "source": volume.path(), "options": options }));
            match bundle.run() {
                (0, said, _) => {
                    assert_eq!(said, "own\n");
                    ran += 1;
                }
                (_, _, error) => {
                    assert!(error.contains("find the source"), "{error}");
                    refused += 1;
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
        swapper.join().unwrap();
        assert!(ran > 0 && refused > 0, "{ran} ran, {refused} were refused");
    });
}

fn rename_exchange(from: &Path, to: &Path) -> std::io::Result<()> {
    let path = |path: &Path| std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
    let (from, to) = (path(from), path(to));
    // SAFETY: both paths are terminated.
    let result =
        unsafe { libc::renameat2(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), libc::RENAME_EXCHANGE) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

#[test]
fn fork_bombs_stay_in_their_group() {
    const TEST: &str = "hostile::fork_bombs_stay_in_their_group";
    isolated(TEST, || async {
        let bundle = Bundle::new(TEST, "echo started; f() { f | f & f; }; f 2>/dev/null & exec sleep 1000");
        let launcher = coracle_programs::LAUNCHER.memfd().unwrap();
        let mut command = std::process::Command::new(coracle_programs::exec_path(&launcher));
        command.arg("--root").arg(bundle.dir.path().join("state")).args(["run", "c"]).current_dir(bundle.write());
        let mut run = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null()).spawn().unwrap();
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(run.stdout.take().unwrap()));
        assert_eq!(lines.next().unwrap().unwrap(), "started");
        let group = Hierarchy::discover().unwrap().group(&format!("{}/c", crate::isolation::group(TEST))).unwrap();
        // The limit is 16, whatever it does; at the limit it hits it again and again.
        let mut most = 0;
        for _ in 0..50 {
            most = most.max(group.processes().len());
        }
        assert!((1..=16).contains(&most), "{most} processes");
        assert!(bundle.oci(&["kill", "c", "KILL"]).status.success());
        run.wait().unwrap();
        assert!(!bundle.dir.path().join("state/c").exists());
    });
}

#[test]
fn masked_paths_that_are_links_mask_inside() {
    const TEST: &str = "hostile::masked_paths_that_are_links_mask_inside";
    isolated(TEST, || async {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("file"), "untouched").unwrap();
        let mut bundle = Bundle::new(TEST, "cat /masked; cat /inner/file; ls /dir | head -n 1; cat /gone; exit 0");
        let root = bundle.rootfs();
        symlink(outside.path().join("file"), root.join("masked")).unwrap();
        symlink(outside.path(), root.join("dir")).unwrap();
        symlink("/nowhere/at/all", root.join("gone")).unwrap();
        symlink("/real", root.join("inner")).unwrap();
        fs::create_dir(root.join("real")).unwrap();
        fs::write(root.join("real/file"), "secret").unwrap();
        bundle.config["linux"]["maskedPaths"] = json!(["/masked", "/dir", "/gone", "/inner/file"]);
        bundle.config["linux"]["readonlyPaths"] = json!(["/dir", "/masked"]);
        let (code, out, error) = bundle.run();
        assert_eq!((code, out.as_str()), (0, ""), "{error}");
        assert_eq!(fs::read_to_string(outside.path().join("file")).unwrap(), "untouched");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(outside.path().to_str().unwrap()), "{mounts}");
    });
}

#[test]
fn logs_take_whatever_comes() {
    const TEST: &str = "hostile::logs_take_whatever_comes";
    isolated(TEST, || async {
        let (node, mut cri, pod, running) = pod(TEST).await;
        // A line without end, then every byte there is, then nothing that ends a line.
        let bytes: String = (0..=255u8).filter(|byte| *byte != b'\n').map(|byte| format!("\\{byte:03o}")).collect();
        let text = format!("head -c 50000000 /dev/zero; echo; printf '{bytes}'; echo; echo -n end");
        let mut config = script("main", &text);
        config.command[0] = "/bin/busybox".into();
        config.command.insert(1, "sh".into());
        let id = cri.run(&pod, config).await;
        assert_eq!(cri.wait(&id).await.exit_code, 0);
        let log = fs::read(node.path("logs/web/main/0.log")).unwrap();
        let mut lines = vec![Vec::new()];
        for line in log.strip_suffix(b"\n").unwrap().split(|&byte| byte == b'\n') {
            // TIMESTAMP STREAM TAG CONTENT (CRI logging, "P" for a part).
            let mut words = line.splitn(4, |&byte| byte == b' ');
            let (time, stream, tag) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
            assert!(time.len() >= 20 && stream == b"stdout" && matches!(tag, b"P" | b"F"));
            let content = words.next().unwrap();
            assert!(content.len() <= 16 << 10, "{} bytes in one line", content.len());
            lines.last_mut().unwrap().extend_from_slice(content);
            if tag == b"F" {
                lines.push(Vec::new());
            }
        }
        lines.retain(|line| !line.is_empty());
        assert_eq!(lines.len(), 3);
        assert!(lines[0].len() == 50_000_000 && lines[0].iter().all(|&byte| byte == 0));
        let every: Vec<u8> = (0..=255u8).filter(|byte| *byte != b'\n').collect();
        assert_eq!(lines[1], every);
        assert_eq!(lines[2], b"end");
        end(&node, cri, &pod, running).await;
    });
}

/// What somebody without rights on this machine reads of a path.
fn stranger_reads(path: &Path) -> bool {
    let word = if path.is_dir() { "ls" } else { "cat" };
    let mut command = Command::new("/bin/busybox");
    command.arg(word).arg(path).uid(65534).gid(65534).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().unwrap().success()
}

#[test]
fn nobody_else_on_the_machine_reads_what_containers_have() {
    isolated("hostile::nobody_else_on_the_machine_reads_what_containers_have", || async {
        let (node, mut cri, pod, running) = pod("hostile::nobody_else_on_the_machine_reads_what_containers_have").await;
        let id = cri.run(&pod, script("secret", "sleep 1000")).await;
        // The directory of a test is closed; that of a daemon, /var/lib, is not.
        fs::set_permissions(node.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert!(stranger_reads(&node.path("conf/10-fake.conflist")));
        let (kept, volatile) = (node.path("data"), node.path("run"));
        let images = kept.join("images.redb");
        let record = kept.join("containers").join(&id).join("container.json");
        let bundle = volatile.join("containers").join(&id).join("config.json");
        for path in [kept.clone(), kept.join("snapshots"), images, record, volatile, bundle] {
            assert!(path.exists() && !stranger_reads(&path), "{}", path.display());
        }
        end(&node, cri, &pod, running).await;
    });
}
