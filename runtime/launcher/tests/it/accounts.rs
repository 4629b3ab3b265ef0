//! What `events` tells of a container.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::bundle::{Bundle, isolated};

#[test]
fn accounts_have_what_runcs_have() {
    const TEST: &str = "accounts::accounts_have_what_runcs_have";
    isolated(TEST, || {
        let mut bundle = Bundle::new(TEST, "sleep 1000");
        bundle.config["linux"]["resources"] = json!({ "pids": { "limit": 20 } });
        bundle.quiet(&["run", "-d", "c"]);
        let v2 = bundle.cgroup().is_v2();
        let stats: Value = serde_json::from_str(&bundle.ok(&["events", "--stats", "c"])).unwrap();
        bundle.ok(&["delete", "--force", "c"]);
        let data = &stats["data"];
        let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<String>>();
        // As runc 1.1 tells it, with a time for each processor on v1.
        let mut all = vec![
            "cpu_exclusive",
            "mem_hardwall",
            "mem_exclusive",
            "memory_migrate",
            "memory_spread_page",
            "memory_spread_slab",
            "memory_pressure",
            "sched_load_balance",
            "sched_relax_domain_level",
        ];
        if !v2 {
            all.extend(["cpus", "mems"]);
            assert_eq!(data["cpuset"]["sched_relax_domain_level"], -1);
            let count = |key: &str| data["cpu"]["usage"][key].as_array().unwrap().len();
            let counts = ["percpu", "percpu_kernel", "percpu_user"].map(count);
            assert!(counts[0] > 0 && counts == [counts[0]; 3], "{data}");
        }
        assert_eq!(keys(&data["cpuset"]), all.into_iter().map(str::to_owned).collect());
        assert_eq!(data["pids"]["limit"], 20);
        if std::path::Path::new("/proc/pressure").exists() && v2 {
            assert!(data["memory"]["psi"]["full"]["avg300"].is_number(), "{data}");
        }
    });
}
