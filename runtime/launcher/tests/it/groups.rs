//! Control groups as the launcher has them for its containers: whose they are, what is written to them and taken back, which
//! there are.

use crate::bundle::{Bundle, isolated};

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
