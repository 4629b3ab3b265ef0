//! Control groups as the launcher has them for its containers: whose they are, what is written to them and taken back, which
//! there are.

use std::fs;

use coracle_launcher::cgroup::Cgroup;
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
        // A weight that no kernel takes.
        request(r#","blockIO":{"weight":99999999}"#);
        let error = bundle.refused(&["update", "-r", "request", "c"]);
        assert!(error.contains("weight") && !error.contains("not all is as it was"), "{error}");
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
