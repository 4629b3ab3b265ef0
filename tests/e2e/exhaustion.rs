//! Disk and memory run out: errors that say so, nothing lost, and recovery when there is room again.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use coracle_tests::Lab;

/// Fills what is left of a file system; the space is free again when this goes.
struct Filler(PathBuf);

impl Filler {
    fn fill(dir: &Path) -> Self {
        let filler = Self(dir.join("filler"));
        let mut file = fs::File::create(&filler.0).unwrap();
        // Large pieces first, then down to the last byte.
        for size in [1 << 20, 4096, 1] {
            let piece = vec![0; size];
            while file.write_all(&piece).is_ok() {}
        }
        filler
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        fs::remove_file(&self.0).unwrap();
    }
}

#[test]
fn a_full_disk_loses_nothing_and_the_lab_goes_on_when_there_is_room() {
    let lab = Lab::on_disk("brim", 192 << 20);
    lab.lab(&["up", "--nodes", "2"]).ok();
    lab.lite("create deployment web --image=coracle/hello:v1 --replicas=2").ok();
    lab.lite("rollout status deployment/web --timeout=60s").ok();

    let filler = Filler::fill(lab.home());
    let mut kept = Vec::new();
    let refusal = (0..1000).find_map(|number| {
        let name = format!("note-{number}");
        // Each write is larger than what the store may have in reserve for long.
        let output = lab.lite(&format!("create configmap {name} --from-literal=text={}", "x".repeat(64 << 10)));
        match output.status.success() {
            true => {
                kept.push(name);
                None
            }
            false => Some(output.stderr),
        }
    });
    let refusal = refusal.expect("a full disk takes no more");
    assert!(refusal.contains("No space left on device"), "{refusal}");
    // What is there is still answered, and what ran still runs.
    assert!(lab.lite("get deployment web").ok().contains("2/2"));

    drop(filler);
    lab.until_ok("create configmap after --from-literal=text=room");
    for name in kept {
        lab.lite(&format!("get configmap {name}")).ok();
    }
    lab.lite("scale deployment web --replicas=4").ok();
    lab.lite("rollout status deployment/web --timeout=90s").ok();
    lab.lite("wait --for=condition=Ready node --all --timeout=60s").ok();
}

#[test]
fn a_server_and_an_agent_without_memory_are_restarted_and_lose_nothing() {
    let lab = Lab::up("thin", 1);
    lab.lite("create deployment web --image=coracle/hello:v1").ok();
    lab.lite("rollout status deployment/web --timeout=60s").ok();
    // Work makes a process ask for memory that it does not get.
    let text = format!("--from-literal=text={}", "x".repeat(100_000));
    let notes =
        |number: usize| (format!("create configmap note-{number} {text}"), format!("get configmap note-{number}"));
    let pods = |number: usize| (format!("run pod-{number} --image=coracle/hello:v1"), format!("get pod pod-{number}"));
    type Work<'a> = &'a dyn Fn(usize) -> (String, String);
    for (process, cgroup, work) in [("server", "server", &notes as Work<'_>), ("thin-1", "thin-1/init", &pods)] {
        let before = lab.command_of(process);
        let limit = Limit::starve(&lab, cgroup);
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut kept = Vec::new();
        for number in 0.. {
            if lab.command_of(process) != before {
                break;
            }
            assert!(Instant::now() < deadline, "{process} lives on without memory");
            let (create, get) = work(number);
            if lab.lite(&create).status.success() {
                kept.push(get);
            }
        }
        drop(limit);
        for get in kept {
            lab.until_ok(&get);
        }
    }
    lab.until_ok("scale deployment web --replicas=3");
    lab.until_ok("rollout status deployment/web --timeout=90s");
    lab.lite("wait --for=condition=Ready pod --all --timeout=90s").ok();
}

#[test]
fn a_container_over_its_memory_limit_is_killed_and_says_so() {
    let lab = Lab::up("greedy", 1);
    let manifest = "apiVersion: v1\nkind: Pod\nmetadata: {name: eater}\nspec:\n  restartPolicy: Never\n  containers:\n  - name: hello\n    image: \"coracle/hello:v1\"\n    args: [eat, \"256\"]\n    resources: {limits: {memory: 32Mi}}\n";
    lab.lite_with("apply -f -", manifest).ok();
    lab.lite(
        "wait --for=jsonpath={.status.containerStatuses[0].state.terminated.reason}=OOMKilled pod/eater --timeout=60s",
    )
    .ok();
    assert_eq!(lab.get("pod eater")["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"], 137);
    assert!(lab.lite("get pods").ok().contains("OOMKilled"));
}

/// A cgroup that gets no more memory than it has now, until this goes.
struct Limit(PathBuf);

impl Limit {
    fn starve(lab: &Lab, cgroup: &str) -> Self {
        let dir = lab.cgroup("memory").join(cgroup);
        // cgroup v1, or v2 where the machine has no v1 (the kernel's cgroup-v1/memory and cgroup-v2 documents).
        let (limit, usage) = ["memory.limit_in_bytes", "memory.max"]
            .iter()
            .zip(["memory.usage_in_bytes", "memory.current"])
            .map(|(limit, usage)| (dir.join(limit), dir.join(usage)))
            .find(|(limit, _)| limit.exists())
            .unwrap_or_else(|| panic!("{} limits no memory", dir.display()));
        let usage: u64 = fs::read_to_string(usage).unwrap().trim().parse().unwrap();
        // What it has of files can be taken back, so a little less than all it has now.
        fs::write(&limit, (usage / 10 * 9).to_string()).or_else(|_| fs::write(&limit, usage.to_string())).unwrap();
        Self(limit)
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        let none = if self.0.ends_with("memory.max") { "max" } else { "-1" };
        // Gone with the lab if the test failed.
        let _ = fs::write(&self.0, none);
    }
}
