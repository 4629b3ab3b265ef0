//! Control groups as the launcher has them for its containers: whose they are, what is written to them and taken back, which
//! there are.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use coracle_launcher::{cgroup::Cgroup, sys};
use serde_json::json;

use crate::bundle::{Bundle, isolated, until};

#[test]
fn a_group_that_another_has_taken_is_left_to_it() {
    const TEST: &str = "groups::a_group_that_another_has_taken_is_left_to_it";
    isolated(TEST, || {
        for anew in [false, true] {
            let first = Bundle::new(TEST, "exit 0");
            first.quiet(&["run", "--keep", "c"]);
            if anew {
                first.cgroup().remove().unwrap();
            }
            let second = Bundle::new(TEST, "sleep 1000");
            second.quiet(&["run", "-d", "c"]);
            assert!(first.refused(&["kill", "--all", "c", "KILL"]).contains("container not running"));
            assert_eq!(first.ok(&["ps", "-f", "json", "c"]), "[]\n");
            assert_eq!(first.ok(&["delete", "c"]), "");
            assert!(!first.dir.path().join("state/c").exists());
            let state = second.ok(&["state", "c"]);
            assert!(state.contains("\"status\":\"running\""), "made anew: {anew}: {state}");
            assert_eq!(second.ok(&["delete", "--force", "c"]), "");
            assert!(!second.cgroup().exists());
        }
        // One below another's is not the other's.
        let outer = Bundle::new(TEST, "exit 0");
        outer.quiet(&["run", "--keep", "c"]);
        let mut inner = Bundle::new(TEST, "sleep 1000");
        inner.config["linux"]["cgroupsPath"] =
            json!(format!("{}/inner", outer.config["linux"]["cgroupsPath"].as_str().unwrap()));
        inner.quiet(&["run", "-d", "c"]);
        assert!(outer.refused(&["delete", "c"]).contains("unable to remove container's cgroup"));
        assert!(inner.ok(&["state", "c"]).contains("\"status\":\"running\""));
        inner.ok(&["delete", "--force", "c"]);
        outer.ok(&["delete", "c"]);
        // A stopped process is killed, too.
        let paused = Bundle::new(TEST, "sleep 1000");
        paused.quiet(&["run", "-d", "c"]);
        paused.ok(&["pause", "c"]);
        let begin = Instant::now();
        assert_eq!(paused.ok(&["delete", "--force", "c"]), "");
        assert!(!paused.cgroup().exists() && begin.elapsed() < Duration::from_secs(8));
        // What a container leaves in its own ends with it.
        let mut left = Bundle::new(TEST, "sleep 1000 & exit 0");
        left.without("pid");
        left.quiet(&["run", "--keep", "c"]);
        assert!(!left.cgroup().processes().is_empty());
        assert_eq!(left.ok(&["delete", "c"]), "");
        assert!(!left.cgroup().exists());
    });
}

/// What control files hold; of a file that the kernel has not here, nothing.
fn held(group: &Cgroup, files: &[(&str, &str)]) -> Vec<Option<String>> {
    let read = |&(controller, file): &(&str, &str)| fs::read_to_string(group.dir(controller)?.join(file)).ok();
    files.iter().map(read).collect()
}

#[test]
fn an_update_is_made_whole_or_not_at_all() {
    const TEST: &str = "groups::an_update_is_made_whole_or_not_at_all";
    isolated(TEST, || {
        let mut bundle = Bundle::new(TEST, "sleep 1000");
        bundle.config["linux"]["resources"] = json!({ "pids": { "limit": 50 }, "memory": { "limit": 64 << 20 } });
        bundle.quiet(&["run", "-d", "c"]);
        let group = bundle.cgroup();
        let files: &[(&str, &str)] = match group.is_v2() {
            true => &[("", "cpu.weight"), ("", "cpu.max"), ("", "memory.max"), ("", "pids.max")],
            false => &[
                ("cpu", "cpu.shares"),
                ("cpu", "cpu.cfs_quota_us"),
                ("cpu", "cpu.cfs_period_us"),
                ("memory", "memory.limit_in_bytes"),
                ("pids", "pids.max"),
            ],
        };
        let before = held(&group, files);
        let request = |last: &str| {
            let text = format!(
                r#"{{"cpu":{{"shares":512,"quota":30000,"period":50000}},"memory":{{"limit":{}}},"pids":{{"limit":9}}{last}}}"#,
                32 << 20
            );
            fs::write(bundle.dir.path().join("request"), text).unwrap();
        };
        // The last of it, which no kernel takes.
        request(match group.is_v2() {
            true => r#","unified":{"memory.low":"99999999x"}"#,
            false => r#","blockIO":{"weight":99999999}"#,
        });
        let error = bundle.refused(&["update", "-r", "request", "c"]);
        assert!(error.contains("99999999") && !error.contains("not all is as it was"), "{error}");
        assert_eq!(held(&group, files), before);
        request("");
        bundle.ok(&["update", "-r", "request", "c"]);
        let after = held(&group, files);
        assert!(after.iter().zip(&before).all(|(after, before)| after != before), "{before:?} {after:?}");
        bundle.ok(&["kill", "c", "KILL"]);
        until("stopped", || bundle.ok(&["state", "c"]).contains("\"status\":\"stopped\""));
        assert!(bundle.refused(&["update", "--pids-limit", "7", "c"]).contains("container not running"));
        bundle.ok(&["delete", "c"]);
    });
}

#[test]
fn later_processes_go_to_groups_below() {
    const TEST: &str = "groups::later_processes_go_to_groups_below";
    isolated(TEST, || {
        let bundle = Bundle::new(TEST, "sleep 1000");
        bundle.quiet(&["run", "-d", "c"]);
        let group = bundle.cgroup();
        for (_, dir) in group.dirs() {
            fs::create_dir(dir.join("below")).unwrap();
        }
        let exec = |words: &[&str]| {
            let arguments = [&["exec"], words, &["c", "/bin/cat", "/proc/self/cgroup"]].concat();
            arguments.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>()
        };
        let run = |words: &[&str]| bundle.oci(&exec(words).iter().map(String::as_str).collect::<Vec<_>>());
        let groups = |words: &[&str]| {
            let output = run(words);
            assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        let refused = |words: &[&str]| {
            let output = run(words);
            assert_eq!(output.status.code(), Some(255), "{words:?}");
            String::from_utf8(output.stderr).unwrap()
        };
        let all = groups(&["--cgroup", "/below"]);
        assert_eq!(all.lines().filter(|line| line.ends_with("/c/below")).count(), group.dirs().count(), "{all}");
        assert!(refused(&["--cgroup", "../c"]).contains("../c is not a sub cgroup path"));
        assert!(refused(&["--cgroup", "a", "--cgroup", "b"]).contains("(missing <controller>: prefix)"));
        assert!(refused(&["--cgroup", ":a"]).contains("(empty <controller> prefix)"));
        assert!(refused(&["--cgroup", "pids:a", "--cgroup", "pids:b"]).contains("pids specified multiple times"));
        assert!(refused(&["--cgroup", "nothing:a"]).contains("unknown controller nothing in SubCgroupPaths"));
        if !group.is_v2() {
            let some = groups(&["--cgroup", "pids,cpu:below", "--cgroup", "memory:/"]);
            for (controller, end) in [("pids", "/c/below"), ("cpu", "/c/below"), ("memory", "/c"), ("freezer", "/c")] {
                let line = some.lines().find(|line| line.contains(&format!(":{controller}:"))).unwrap();
                assert!(line.ends_with(end), "{some}");
            }
        }
        bundle.ok(&["delete", "--force", "c"]);
    });
}

/// Hierarchies of v1 that the machine has not mounted; in the test's mount namespace alone, and gone with their groups.
struct Mounted(Vec<PathBuf>);

impl Mounted {
    fn new(dir: &Path, controllers: &[&str]) -> Mounted {
        let mount = |names: &&str| {
            let point = dir.join(names);
            fs::create_dir(&point).unwrap();
            // One that has just ended may still be on its way.
            until("a hierarchy", || sys::mount("none", &point, "cgroup", 0, names).is_ok());
            point
        };
        Mounted(controllers.iter().map(mount).collect())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        for point in &self.0 {
            let names = point.file_name().unwrap().to_str().unwrap();
            // Its groups end a moment after they are removed, and it ends at an unmounting with none.
            let is_there = || fs::read_to_string("/proc/self/cgroup").unwrap().contains(&format!(":{names}:"));
            let mut looks = 0;
            sys::umount(point, 0).unwrap();
            until("the end of a hierarchy", || {
                looks += 1;
                if looks % 50 == 0 && is_there() && sys::mount("none", point, "cgroup", 0, names).is_ok() {
                    sys::umount(point, 0).unwrap();
                }
                !is_there()
            });
        }
    }
}

#[test]
fn containers_are_in_every_hierarchy_of_v1() {
    const TEST: &str = "groups::containers_are_in_every_hierarchy_of_v1";
    isolated(TEST, || {
        let mut bundle = Bundle::new(
            TEST,
            "cat /proc/self/cgroup; cd /sys/fs/cgroup; readlink net_cls; readlink net_prio; cat net_cls/net_cls.classid; \
             grep '^lo ' net_prio/net_prio.ifpriomap; ls; exit 0",
        );
        if bundle.cgroup().is_v2() {
            return;
        }
        bundle.push(
            "/mounts",
            json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"] }),
        );
        bundle.config["linux"]["resources"]["network"] =
            json!({ "classID": 0x10_0001, "priorities": [{ "name": "lo", "priority": 3 }] });
        let (code, _, error) = bundle.run();
        let words = "cannot set net_cls limit: container could not join or create cgroup";
        assert!(code == 1 && error.contains(words), "{error}");
        let points = tempfile::tempdir().unwrap();
        let mounted = Mounted::new(points.path(), &["net_cls,net_prio", "perf_event"]);
        let (code, out, error) = bundle.run();
        bundle.parent().remove().unwrap();
        drop(mounted);
        assert_eq!(code, 0, "{error}");
        for controllers in ["net_cls,net_prio", "perf_event", "name=systemd", "pids"] {
            let line = out.lines().find(|line| line.contains(&format!(":{controllers}:"))).unwrap();
            assert!(line.ends_with("/c"), "{out}");
        }
        assert!(out.contains("\nnet_cls,net_prio\nnet_cls,net_prio\n1048577\nlo 3\n"), "{out}");
        assert!(out.contains("\nperf_event\n") && out.contains("\nsystemd\n"), "{out}");
    });
}

/// With the tree of v2 alone, whatever controllers it has.
#[test]
fn the_tree_of_v2_is_seen_from_its_namespace() {
    const TEST: &str = "groups::the_tree_of_v2_is_seen_from_its_namespace";
    isolated(TEST, || {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        if !mounts.contains(" - cgroup2 ") {
            return;
        }
        for line in mounts.lines().filter(|line| line.contains(" - cgroup ")) {
            sys::umount(line.split(' ').nth(4).unwrap(), libc::MNT_DETACH).unwrap();
        }
        let script = "group=$(busybox sed -n s/^0:://p /proc/self/cgroup); echo $group; ls -d /sys/fs/cgroup$group/cgroup.procs; \
                      grep -c . /sys/fs/cgroup$group/cgroup.procs; touch /sys/fs/cgroup/new; ls -d /sys/fs/cgroup/coracle*; exit 0";
        let mut bundle = Bundle::new(TEST, script);
        assert!(bundle.cgroup().is_v2());
        bundle.push(
            "/mounts",
            json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"] }),
        );
        let own = bundle.config["linux"]["cgroupsPath"].as_str().unwrap().to_owned();
        let (code, out, error) = bundle.run();
        let top = own.strip_suffix("/c").unwrap();
        assert_eq!(code, 0, "{error}");
        assert!(out.starts_with(&format!("{own}\n/sys/fs/cgroup{own}/cgroup.procs\n")), "{out}{error}");
        assert!(
            out.contains(&format!("\n/sys/fs/cgroup{top}\n")) && error.contains("Read-only file system"),
            "{out}{error}"
        );
        // Of its own namespace it is the root.
        bundle.push("/linux/namespaces", json!({ "type": "cgroup" }));
        let (code, out, error) = bundle.run();
        assert!(code == 0 && out.starts_with("/\n/sys/fs/cgroup//cgroup.procs\n"), "{out}{error}");
        assert!(!out.contains("coracle"), "{out}");
        bundle.parent().remove().unwrap();
    });
}
