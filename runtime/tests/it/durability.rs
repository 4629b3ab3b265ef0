//! What survives: kills at any moment, a full disk, a power loss; and what finds and mends what does not.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use coracle_launcher::{cgroup::Hierarchy, sys};
use coracle_runtime::{
    Config, Kind,
    check::{Check, Finding, Outcome, What},
    images::{
        manifest::RunConfig,
        pack::{PackedContent, PackedFile, PackedImage},
    },
};
use k8s_cri::v1;

use crate::{
    cri::{assert_nothing_left, running_pid},
    harness::{Clients, Node, config, sandbox, script},
    images::{Registry, open},
    isolation::{group, isolated},
};

/// Seeded, so that a failure comes again: moments to kill at.
struct Moments(u64);

impl Moments {
    fn next(&mut self, limit: u64) -> u64 {
        // Knuth's MMIX generator.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// What was acknowledged: pods, and the process of each one's container.
#[derive(Default)]
struct Promised {
    pods: BTreeMap<String, (String, u32)>,
    image: bool,
}

/// Makes, removes, pulls and drops without end. What is written down is acknowledged; what is about to go is crossed out
/// before.
async fn churn(node: Arc<Node>, mut cri: Clients, image: String, promised: Arc<Mutex<Promised>>, round: u64) {
    for step in 0.. {
        let name = format!("p{round}-{step}");
        let pulled = v1::PullImageRequest {
            image: Some(v1::ImageSpec { image: image.clone(), ..Default::default() }),
            ..Default::default()
        };
        if cri.images.pull_image(pulled).await.is_err() {
            return;
        }
        promised.lock().unwrap().image = true;
        let made = cri
            .runtime
            .run_pod_sandbox(v1::RunPodSandboxRequest { config: Some(sandbox(&node, &name)), ..Default::default() });
        let Ok(made) = made.await else { return };
        let pod = made.into_inner().pod_sandbox_id;
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: pod.clone(),
            config: Some(script("main", "sleep 1000")),
            sandbox_config: None,
        };
        let Ok(made) = cri.runtime.create_container(request).await else { return };
        let id = made.into_inner().container_id;
        if cri.runtime.start_container(v1::StartContainerRequest { container_id: id.clone() }).await.is_err() {
            return;
        }
        let request = v1::ContainerStatusRequest { container_id: id.clone(), verbose: true };
        let Ok(status) = cri.runtime.container_status(request).await else { return };
        let info: serde_json::Value = serde_json::from_str(&status.into_inner().info["info"]).unwrap();
        promised.lock().unwrap().pods.insert(pod, (id, info["pid"].as_u64().unwrap() as u32));
        promised.lock().unwrap().image = false;
        let dropped =
            v1::RemoveImageRequest { image: Some(v1::ImageSpec { image: image.clone(), ..Default::default() }) };
        if cri.images.remove_image(dropped).await.is_err() {
            return;
        }
        let old = {
            let mut promised = promised.lock().unwrap();
            if promised.pods.len() > 3 { promised.pods.pop_first().map(|(pod, _)| pod) } else { None }
        };
        if let Some(old) = old {
            let stop = v1::StopPodSandboxRequest { pod_sandbox_id: old.clone() };
            if cri.runtime.stop_pod_sandbox(stop).await.is_err() {
                return;
            }
            if cri.runtime.remove_pod_sandbox(v1::RemovePodSandboxRequest { pod_sandbox_id: old }).await.is_err() {
                return;
            }
        }
    }
}

fn findings(node: &Node) -> Vec<Finding> {
    // A runtime in this process lets go of its files when the last of its tasks has ended.
    let deadline = Instant::now() + Duration::from_secs(20);
    let check = loop {
        match Check::open(node.config()) {
            Err(error) if error.kind() == Kind::FailedPrecondition && Instant::now() < deadline => {
                std::thread::yield_now();
            }
            opened => break opened.unwrap(),
        }
    };
    check.find().unwrap()
}

#[test]
fn a_kill_at_any_moment_loses_nothing_and_leaks_nothing() {
    const TEST: &str = "durability::a_kill_at_any_moment_loses_nothing_and_leaks_nothing";
    isolated(TEST, || async {
        let node = Arc::new(Node::new(TEST));
        node.install_network();
        let registry = Arc::new(Registry::default());
        registry.fill();
        let image = format!("{}/test/app:v1", registry.serve().await);
        let promised = Arc::new(Mutex::new(Promised::default()));
        let mut moments = Moments(4);
        for round in 0..10 {
            let mut daemon = node.start_process();
            let mut cri = node.connect().await;
            let (pods, pulled) = {
                let promised = promised.lock().unwrap();
                (promised.pods.clone(), promised.image)
            };
            for (id, pid) in pods.values() {
                assert_eq!(running_pid(&mut cri, id).await, *pid, "round {round}");
            }
            let images = cri.images.list_images(v1::ListImagesRequest::default()).await.unwrap().into_inner().images;
            assert!(!pulled || images.iter().any(|found| found.repo_tags.contains(&image)), "round {round}");
            let work = tokio::spawn(churn(node.clone(), cri, image.clone(), promised.clone(), round));
            // The moment is the point of the test, not a wait for something.
            tokio::time::sleep(Duration::from_millis(moments.next(400))).await;
            daemon.kill().unwrap();
            daemon.wait().unwrap();
            work.await.unwrap();
            // Blobs may be half written and layers half unpacked, but none is wrong under its name.
            for finding in findings(&node) {
                let in_progress = finding.what != What::Image && !finding.problem.contains("has the digest");
                assert!(in_progress, "round {round}: {finding}");
            }
        }
        // One start puts everything right that a kill can leave.
        let mut daemon = node.start_process();
        drop(node.connect().await);
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        let left: Vec<String> = findings(&node).iter().map(ToString::to_string).collect();
        assert!(left.is_empty(), "{left:#?}");
        let mut daemon = node.start_process();
        let mut cri = node.connect().await;
        let listed = v1::ListPodSandboxRequest::default();
        for pod in cri.runtime.list_pod_sandbox(listed).await.unwrap().into_inner().items {
            cri.remove_sandbox(&pod.id).await;
        }
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        assert_nothing_left(&node);
    });
}

/// Something of everything that can be left behind, none of it by us.
fn leave_things_behind(node: &Node, test: &str) -> Vec<PathBuf> {
    let id = "0123456789abcdef".repeat(4);
    let shm = node.path("data/sandboxes").join(&id).join("shm");
    fs::create_dir_all(&shm).unwrap();
    sys::mount("x", &shm, "tmpfs", 0, "").unwrap();
    let pin = node.path("run/sandboxes").join(&id).join("ns/net");
    fs::create_dir_all(pin.parent().unwrap()).unwrap();
    fs::write(&pin, "").unwrap();
    sys::mount("/proc/self/ns/net", &pin, "", libc::MS_BIND, "").unwrap();
    for dir in ["run/containers", "run/oci", "data/snapshots/c", "data/containers"] {
        fs::create_dir_all(node.path(dir).join(&id)).unwrap();
    }
    fs::create_dir_all(node.path("data/snapshots/t/77/fs")).unwrap();
    fs::create_dir_all(node.path("data/snapshots/l/99/fs")).unwrap();
    fs::write(node.path("data/content/ingest/5"), "half").unwrap();
    fs::write(node.path("data/content/sha256").join(&id), "whatever").unwrap();
    let leaked = Hierarchy::discover().unwrap().group(&format!("{}/{id}", group(test))).unwrap();
    let leaked = leaked.dir("pids").unwrap().to_owned();
    fs::create_dir_all(&leaked).unwrap();
    vec![shm, pin, leaked]
}

#[test]
fn what_is_wrong_is_found_and_put_right() {
    const TEST: &str = "durability::what_is_wrong_is_found_and_put_right";
    isolated(TEST, || async {
        let node = Node::new(TEST);
        node.install_network();
        let mut daemon = node.start_process();
        let mut cri = node.connect().await;
        let pod = cri.run_sandbox(sandbox(&node, "web")).await;
        let main = cri.run(&pod, script("main", "sleep 1000")).await;
        let pid = running_pid(&mut cri, &main).await;
        let error = Check::open(node.config()).err().unwrap();
        assert_eq!(error.kind(), Kind::FailedPrecondition, "{error}");
        assert!(error.to_string().contains("stop it first"), "{error}");
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        assert!(findings(&node).is_empty(), "{:#?}", findings(&node));

        let left = leave_things_behind(&node, TEST);
        // A bit of the image's layer turned over on the disk.
        let blobs = fs::read_dir(node.path("data/content/sha256")).unwrap().flatten();
        let largest = blobs.max_by_key(|entry| entry.metadata().unwrap().len()).unwrap().path();
        fs::OpenOptions::new().append(true).open(&largest).unwrap().write_all(b"x").unwrap();

        let check = Check::open(node.config()).unwrap();
        let found = check.find().unwrap();
        let text: Vec<String> = found.iter().map(ToString::to_string).collect();
        for (what, words) in [
            (What::Sandbox, "sandbox.json"),
            (What::Sandbox, "belongs to no sandbox"),
            (What::Container, "container.json"),
            (What::Container, "belongs to no container"),
            (What::Container, "is the state of no container"),
            (What::Mount, "belongs to no sandbox"),
            (What::Namespace, "belongs to no sandbox"),
            (What::Cgroup, "belongs to no sandbox and no container"),
            (What::Snapshot, "belongs to no container"),
            (What::Layer, "was being unpacked or removed"),
            (What::Layer, "is not whole"),
            (What::Blob, "is half written"),
            (What::Blob, "has the digest"),
            (What::Image, "cannot be pushed or saved"),
        ] {
            let is_it = |finding: &&Finding| finding.what == what && finding.problem.contains(words);
            assert!(found.iter().any(|finding| is_it(&finding)), "no {what} {words:?} in {text:#?}");
        }
        // What lives is not touched.
        assert!(!text.iter().any(|line| line.contains(&pod) || line.contains(&main)), "{text:#?}");
        for finding in &found {
            assert!(matches!(check.repair(finding), Outcome::Repaired), "{finding}");
        }
        let again: Vec<String> = check.find().unwrap().iter().map(ToString::to_string).collect();
        assert!(again.iter().all(|line| line.contains("named by no image")), "{again:#?}");
        drop(check);
        assert!(left.iter().all(|path| !path.exists()), "{left:?}");

        let mut daemon = node.start_process();
        let mut cri = node.connect().await;
        assert_eq!(running_pid(&mut cri, &main).await, pid);
        assert_eq!(cri.exec(&main, &["/bin/echo", "here"]).await.stdout, b"here\n");
        cri.remove_sandbox(&pod).await;
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        assert_nothing_left(&node);
    });
}

#[test]
fn a_full_disk_stops_what_is_new_and_nothing_else() {
    const TEST: &str = "durability::a_full_disk_stops_what_is_new_and_nothing_else";
    isolated(TEST, || async {
        let node = Node::new(TEST);
        node.install_network();
        fs::create_dir(node.path("data")).unwrap();
        sys::mount("disk", node.path("data"), "tmpfs", 0, "size=24m").unwrap();
        let running = node.start().await;
        let mut cri = running.clients.clone();
        let pod = cri.run_sandbox(sandbox(&node, "full")).await;
        let other = cri.run_sandbox(sandbox(&node, "other")).await;
        let fill = "dd if=/dev/zero of=/hog bs=4096; echo $?; while [ ! -e /go ]; do sleep 0.05; done; exit 3";
        let filler = cri.run(&pod, script("filler", fill)).await;
        while !fs::read_to_string(node.path("logs/full/filler/0.log")).is_ok_and(|log| log.contains("stdout F 1\n")) {
            assert_ne!(cri.status(&filler).await.state(), v1::ContainerState::ContainerExited);
        }
        // Nothing new can be made, and it says why.
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: pod.clone(),
            config: Some(script("new", "exit 0")),
            sandbox_config: None,
        };
        let error = cri.runtime.create_container(request).await.unwrap_err();
        assert!(error.message().contains("No space left on device"), "{error}");
        let request = v1::RunPodSandboxRequest { config: Some(sandbox(&node, "third")), ..Default::default() };
        let error = cri.runtime.run_pod_sandbox(request).await.unwrap_err();
        assert!(error.message().contains("No space left on device"), "{error}");
        // What runs is told of, and what is there can go: that is how the disk gets room again.
        assert_eq!(cri.exec(&filler, &["/bin/echo", "alive"]).await.stdout, b"alive\n");
        cri.remove_sandbox(&other).await;
        assert_eq!(
            cri.exec(&filler, &["/bin/sh", "-c", "mkdir /tmp/x 2>/dev/null; rm /hog; > /go"]).await.exit_code,
            0
        );
        assert_eq!(cri.wait(&filler).await.exit_code, 3);
        let next = cri.run(&pod, script("next", "exit 0")).await;
        assert_eq!(cri.wait(&next).await.exit_code, 0);
        cri.remove_sandbox(&pod).await;
        running.stop().await;
        let left: Vec<String> = findings(&node).iter().map(ToString::to_string).collect();
        assert!(left.is_empty(), "{left:#?}");
        sys::umount(node.path("data"), 0).unwrap();
        assert_nothing_left(&node);
    });
}

#[test]
fn an_image_that_does_not_fit_leaves_nothing() {
    const TEST: &str = "durability::an_image_that_does_not_fit_leaves_nothing";
    isolated(TEST, || async {
        let dir = tempfile::tempdir().unwrap();
        sys::mount("disk", dir.path(), "tmpfs", 0, "size=8m").unwrap();
        let images = open(dir.path());
        let error = images.pack("big:1", numbered(1, 12 << 20)).await.unwrap_err().to_string();
        assert!(error.contains("No space left on device"), "{error}");
        assert!(images.list().is_empty());
        images.collect(Vec::new).await.unwrap();
        for name in ["content/sha256", "content/ingest", "snapshots/l", "snapshots/t"] {
            assert_eq!(fs::read_dir(dir.path().join(name)).unwrap().count(), 0, "{name}");
        }
        images.pack("small:1", numbered(1, 1 << 20)).await.unwrap();
        drop(images);
        sys::umount(dir.path(), libc::MNT_DETACH).unwrap();
    });
}

/// An image of its own for each number.
fn numbered(number: u64, size: usize) -> PackedImage {
    let line = format!("image {number}\n");
    let bytes: Vec<u8> = line.bytes().cycle().take(size / 8).collect();
    let file = |index: usize| PackedFile {
        path: format!("/d{index}/file"),
        mode: 0o644,
        content: PackedContent::File([format!("{index} ").into_bytes(), bytes.clone()].concat()),
    };
    PackedImage { files: (0..8).map(file).collect(), config: RunConfig::default() }
}

#[tokio::test]
async fn layers_that_were_lost_are_unpacked_again() {
    let dir = tempfile::tempdir().unwrap();
    let images = open(dir.path());
    images.pack("one:1", numbered(1, 100_000)).await.unwrap();
    images.pack("two:1", numbered(2, 100_000)).await.unwrap();
    drop(images);
    // As if power was lost before either was on the disk; of the second the content went, too.
    for layer in fs::read_dir(dir.path().join("snapshots/l")).unwrap().flatten() {
        fs::write(layer.path().join("unsettled"), "another boot").unwrap();
    }
    let images = open(dir.path());
    let second = images.find("two:1").unwrap();
    fs::remove_file(dir.path().join("content/sha256").join(second.layers[0].hex())).unwrap();
    images.mend().await.unwrap();
    assert!(images.find("two:1").is_none());
    let first = images.find("one:1").unwrap();
    assert!(images.unpacked_size(&first) > 90_000);
}

/// Set for the two tests that are none: they run on a machine whose power is cut between them.
const POWER_DIR: &str = "CORACLE_TEST_POWER_DIR";

/// Makes images and says so, until the power goes.
#[tokio::test]
async fn makes_images_until_the_power_goes() {
    let Some(dir) = std::env::var_os(POWER_DIR).map(PathBuf::from) else { return };
    let images = open(&dir);
    for number in 0..10_000 {
        images.pack(&format!("power/n{number}:1"), numbered(number, 400_000)).await.unwrap();
        println!("@@made {number}");
    }
}

/// Finds what was acknowledged before the power went, whole.
#[tokio::test]
async fn finds_what_was_made_before_the_power_went() {
    let Some(dir) = std::env::var_os(POWER_DIR).map(PathBuf::from) else { return };
    let last: u64 = std::env::var("CORACLE_TEST_POWER_MADE").unwrap().parse().unwrap();
    let images = open(&dir);
    // Before anything is mended: what was acknowledged had been written down, not only what it can be made from again.
    for number in 0..=last {
        let image = images.find(&format!("power/n{number}:1")).unwrap_or_else(|| panic!("image {number} is lost"));
        let PackedContent::File(expected) = &numbered(number, 400_000).files[7].content else { unreachable!() };
        let layer = layer_of(&dir, image.top().unwrap().as_str());
        assert!(fs::read(layer.join("fs/d7/file")).unwrap() == *expected, "image {number} is not what it was");
    }
    images.mend().await.unwrap();
    assert!((0..=last).all(|number| images.find(&format!("power/n{number}:1")).is_some()), "mending loses images");
    println!("@@found {}", last + 1);
    drop(images);
    // And nothing is there that is not what it is called.
    for name in ["sandboxes", "containers"] {
        fs::create_dir_all(dir.join(name)).unwrap();
    }
    let config = Config { data_dir: dir.clone(), ..config(&dir, "/none") };
    let wrong = Check::open(config).unwrap().find().unwrap();
    let wrong: Vec<_> = wrong.iter().filter(|finding| finding.what == What::Image).map(ToString::to_string).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn layer_of(dir: &Path, chain: &str) -> PathBuf {
    let layers = fs::read_dir(dir.join("snapshots/l")).unwrap().flatten().map(|entry| entry.path());
    let mut found = layers.filter(|path| fs::read_to_string(path.join("chain")).is_ok_and(|text| text.trim() == chain));
    found.next().unwrap_or_else(|| panic!("{chain} is not unpacked"))
}
