//! Every test runs in pid, mount, network, uts and ipc namespaces of its own: whatever it leaves ends with it. Groups are
//! the one thing that outlives namespaces; they are removed by name.

use std::{
    future::Future,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tokio::runtime::Builder;

/// Set where tests run on what looks like an older kernel, beside the same ones on this.
pub const OLDER_KERNEL: &str = "CORACLE_TEST_OLDER_KERNEL";
const INSIDE: &str = "CORACLE_TEST_INSIDE";
const HIERARCHIES: &str = "/sys/fs/cgroup";

/// Runs `body` in namespaces of its own by running this test again there.
pub fn isolated<F: Future<Output = ()>>(test: &str, body: impl FnOnce() -> F) {
    isolated_on(Builder::new_multi_thread().worker_threads(2), Duration::from_secs(90), test, body);
}

/// The same on threads as they are given, for so long: one alone may turn the clock.
pub fn isolated_on<F: Future<Output = ()>>(
    threads: &mut Builder,
    limit: Duration,
    test: &str,
    body: impl FnOnce() -> F,
) {
    if std::env::var_os(INSIDE).is_some() {
        let runtime = threads.enable_all().build().unwrap();
        runtime.block_on(async { tokio::time::timeout(limit, body()).await.expect("the test takes too long") });
        return;
    }
    let status = Command::new("unshare")
        .args(["--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "--net", "--uts", "--ipc"])
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    let left = remove_groups(&group(test));
    assert!(status.success(), "{test} failed inside its namespaces");
    assert!(left.is_empty(), "{test} left groups behind: {left:?}");
}

/// The group that a test's containers are in.
pub fn group(test: &str) -> String {
    let older = if std::env::var_os(OLDER_KERNEL).is_some() { "-older" } else { "" };
    format!("/coracle-test-{}{older}", test.replace("::", "-"))
}

/// Removes a group from every hierarchy; returns what was still in it.
fn remove_groups(group: &str) -> Vec<String> {
    let mut left = Vec::new();
    let hierarchies = std::fs::read_dir(HIERARCHIES).into_iter().flatten().flatten().map(|entry| entry.path());
    for dir in hierarchies.chain([Path::new(HIERARCHIES).to_owned()]) {
        let dir = dir.join(group.trim_start_matches('/'));
        for child in children(&dir) {
            left.push(child.display().to_string());
            remove_tree(&child);
        }
        let _ = std::fs::remove_dir(&dir);
    }
    left
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// A group goes when those in it are gone: the innermost first.
fn remove_tree(dir: &Path) {
    children(dir).iter().for_each(|child| remove_tree(child));
    let _ = std::fs::remove_dir(dir);
}
