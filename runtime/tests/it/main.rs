//! The runtime as a whole: through CRI, with real namespaces, groups and shims. Needs root.

mod answers;
mod apparmor;
mod containerd;
mod cri;
mod docker_images;
mod durability;
mod filters;
mod fuzz_seeds;
mod given_up;
mod harness;
mod hostile;
mod image_volumes;
mod images;
mod isolation;
mod launcher;
mod launcher_defaults;
mod launcher_features;
mod logs;
mod newer;
mod older_kernel;
mod podman;
mod registries;
mod sandboxes;
mod selinux;
mod shim;
mod streams;
mod systemd;

/// Set for the test that is not one: the runtime as a process that others kill.
const DAEMON_DIR: &str = "CORACLE_TEST_DAEMON_DIR";
const DAEMON_GROUP: &str = "CORACLE_TEST_DAEMON_GROUP";

/// Runs a runtime when another test asks for it, else nothing.
#[test]
fn daemon() {
    let (Some(dir), Ok(group)) = (std::env::var_os(DAEMON_DIR), std::env::var(DAEMON_GROUP)) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let config = harness::config(dir.as_ref(), &group);
        let runtime = coracle_runtime::Runtime::start(config).await.unwrap();
        runtime.images().pack(harness::IMAGE, harness::busybox()).await.unwrap();
        runtime.serve(Default::default()).await.unwrap();
    });
}
