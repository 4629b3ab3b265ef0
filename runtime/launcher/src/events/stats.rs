//! What a container uses.

use std::{fs, path::Path};

use super::event;
use crate::{
    cgroup::{Cgroup, memory, read_key, read_number},
    error::Result,
    json::{Json, object},
    rdt::Class,
    scheduling,
    state::State,
};

/// The `stats` event.
pub fn stats(state: &State) -> Result<Json> {
    let group = state.cgroup()?;
    let limits = |controller: &str, v1: &str, v2: &str| {
        let file = if group.is_v2() { v2 } else { v1 };
        Json::from(group.dir(controller).and_then(|dir| read_number(dir, file)).unwrap_or(0))
    };
    let data = object([
        ("cpu", cpu(&group)),
        ("cpuset", cpuset(&group)),
        ("memory", memory_stats(&group)),
        (
            "pids",
            object([
                ("current", limits("pids", "pids.current", "pids.current")),
                ("limit", limits("pids", "pids.max", "pids.max")),
            ]),
        ),
        ("blkio", blkio(&group)),
        ("hugetlb", huge_pages(&group)),
        ("intel_rdt", state.class.as_ref().map_or_else(|| object([]), Class::stats)),
        ("network_interfaces", Json::Null),
    ]);
    Ok(event("stats", &state.id, Some(data)))
}

fn cpu(group: &Cgroup) -> Json {
    let dir = group.dir("cpu");
    let stat = |key: &str| dir.and_then(|dir| read_key(dir, "cpu.stat", key)).unwrap_or(0);
    let (mut each, mut each_kernel, mut each_user) = (Vec::new(), Vec::new(), Vec::new());
    let (usage, throttling) = if group.is_v2() {
        let times = [stat("usage_usec"), stat("system_usec"), stat("user_usec")].map(|time| time * 1000);
        (times, stat("throttled_usec") * 1000)
    } else {
        let accounts = group.dir("cpuacct");
        let total = |file: &str| accounts.and_then(|dir| read_number(dir, file)).unwrap_or(0);
        let read = |file: &str| accounts.and_then(|dir| fs::read_to_string(dir.join(file)).ok()).unwrap_or_default();
        // `cpu user system`, a processor a line.
        let (text, modes) = (read("cpuacct.usage_percpu"), read("cpuacct.usage_all"));
        for line in modes.lines().skip(1) {
            let mut words = line.split_whitespace().skip(1).map(|time| time.parse::<u64>().unwrap_or(0));
            if let (Some(user), Some(kernel)) = (words.next(), words.next()) {
                each_user.push(Json::from(user));
                each_kernel.push(Json::from(kernel));
            }
        }
        each.extend(text.split_whitespace().filter_map(|time| time.parse::<u64>().ok()).map(Json::from));
        let times = [total("cpuacct.usage"), total("cpuacct.usage_sys"), total("cpuacct.usage_user")];
        (times, stat("throttled_time"))
    };
    let [total, kernel, user] = usage;
    let mut usage = vec![("total", total.into()), ("kernel", kernel.into()), ("user", user.into())];
    let lists = [("percpu", each), ("percpu_kernel", each_kernel), ("percpu_user", each_user)];
    usage.extend(lists.into_iter().filter(|(_, list)| !list.is_empty()).map(|(key, list)| (key, Json::Arr(list))));
    let parts = [
        ("usage", object(usage)),
        (
            "throttling",
            object([
                ("periods", stat("nr_periods").into()),
                ("throttledPeriods", stat("nr_throttled").into()),
                ("throttledTime", throttling.into()),
            ]),
        ),
    ];
    object(parts.into_iter().chain(pressure(group, "cpu")))
}

/// On which processors and memory nodes it may be; of v2 runc tells nothing of it, but has the fields.
fn cpuset(group: &Cgroup) -> Json {
    let dir = group.dir("cpuset").filter(|_| !group.is_v2());
    let read = |file: &str| dir.and_then(|dir| fs::read_to_string(dir.join(file)).ok()).unwrap_or_default();
    let number = |file: &str| Json::from(read(file).trim().parse::<i64>().unwrap_or(0));
    let set = |key, file: &str| {
        let list = scheduling::processors(read(file).trim()).ok().filter(|list| !list.is_empty())?;
        Some((key, Json::Arr(list.into_iter().map(Json::from).collect())))
    };
    let of_memory = [
        ("mem_hardwall", "cpuset.mem_hardwall"),
        ("mem_exclusive", "cpuset.mem_exclusive"),
        ("memory_migrate", "cpuset.memory_migrate"),
        ("memory_spread_page", "cpuset.memory_spread_page"),
        ("memory_spread_slab", "cpuset.memory_spread_slab"),
        ("memory_pressure", "cpuset.memory_pressure"),
        ("sched_load_balance", "cpuset.sched_load_balance"),
        ("sched_relax_domain_level", "cpuset.sched_relax_domain_level"),
    ];
    let cpus = set("cpus", "cpuset.cpus").into_iter().chain([("cpu_exclusive", number("cpuset.cpu_exclusive"))]);
    let mems = set("mems", "cpuset.mems").into_iter().chain(of_memory.map(|(key, file)| (key, number(file))));
    object(cpus.chain(mems))
}

/// How long processes have waited for a resource (cgroup-v2.rst "Pressure Stall Information"); nothing where the kernel does not
/// tell.
fn pressure(group: &Cgroup, resource: &str) -> Option<(&'static str, Json)> {
    let dir = group.dir("").filter(|_| group.is_v2())?;
    let text = fs::read_to_string(dir.join(format!("{resource}.pressure"))).ok()?;
    let line = |line: &str| {
        let mut words = line.split(' ');
        let kind = words.next().filter(|kind| !kind.is_empty())?.to_owned();
        // They are numbers of JSON as they stand there.
        let number = |text: &str| Json::parse(text.as_bytes()).ok();
        let values = words.filter_map(|word| word.split_once('='));
        let values = values.filter_map(|(key, value)| Some((key.to_owned(), number(value)?)));
        Some((kind, Json::Obj(values.collect())))
    };
    let lines: Vec<_> = text.lines().filter_map(line).collect();
    (!lines.is_empty()).then_some(("psi", Json::Obj(lines)))
}

fn memory_stats(group: &Cgroup) -> Json {
    let Some(dir) = group.dir("memory") else { return object([]) };
    let number = |file: &str| Json::from(read_number(dir, file).unwrap_or(0));
    let entry = |usage: &str, limit: &str, max: &str, fails: u64| {
        object([("limit", number(limit)), ("usage", number(usage)), ("max", number(max)), ("failcnt", fails.into())])
    };
    let fails = |file: &str| read_number(dir, file).unwrap_or(0);
    let raw = fs::read_to_string(dir.join("memory.stat")).unwrap_or_default();
    let raw: Vec<(String, Json)> = raw
        .lines()
        .filter_map(|line| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), Json::from(value.parse::<u64>().ok()?)))
        })
        .collect();
    let cache = raw.iter().find(|(key, _)| key == if group.is_v2() { "file" } else { "cache" });
    let cache = cache.map_or(Json::from(0u64), |(_, value)| value.clone());
    let usage = if group.is_v2() {
        let events = read_key(dir, "memory.events", "max").unwrap_or(0);
        vec![("usage", entry("memory.current", "memory.max", "memory.peak", events)), ("swap", memory_and_swap(dir))]
    } else {
        let v1 = |prefix: &str| {
            entry(
                &format!("{prefix}.usage_in_bytes"),
                &format!("{prefix}.limit_in_bytes"),
                &format!("{prefix}.max_usage_in_bytes"),
                fails(&format!("{prefix}.failcnt")),
            )
        };
        vec![
            ("usage", v1("memory")),
            ("swap", v1("memory.memsw")),
            ("kernel", v1("memory.kmem")),
            ("kernelTCP", v1("memory.kmem.tcp")),
        ]
    };
    let mut members = vec![("cache", cache)];
    members.extend(usage);
    members.extend(pressure(group, "memory"));
    members.push(("raw", Json::Obj(raw)));
    members.push(("oomKills", memory::oom_kills(dir, group.is_v2()).into()));
    Json::Obj(members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

/// Both together, as v1 counts them, of the group of v2 that counts them apart; of the most there is no sum (runc, cgroups
/// `fs2/memory.go`).
fn memory_and_swap(dir: &Path) -> Json {
    let sum = |files: [&str; 2]| {
        let [memory, swap] = files.map(|file| read_number(dir, file).unwrap_or(0));
        if swap == u64::MAX { swap } else { memory.saturating_add(swap) }
    };
    object([
        ("limit", sum(["memory.max", "memory.swap.max"]).into()),
        ("usage", sum(["memory.current", "memory.swap.current"]).into()),
        ("max", 0u64.into()),
        ("failcnt", 0u64.into()),
    ])
}

/// Huge pages by their size, which files are named after: `hugetlb.2MB.current`.
fn huge_pages(group: &Cgroup) -> Json {
    let Some(dir) = group.dir("hugetlb") else { return object([]) };
    let usage = if group.is_v2() { ".current" } else { ".usage_in_bytes" };
    let names =
        fs::read_dir(dir).into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let size = |name: String| Some(name.strip_prefix("hugetlb.")?.strip_suffix(usage)?.to_owned());
    // Reservations are accounted beside.
    let mut sizes: Vec<String> = names.filter_map(size).filter(|size| !size.contains('.')).collect();
    sizes.sort_unstable();
    let of_size = |size: &String| {
        let number = |end: &str| read_number(dir, &format!("hugetlb.{size}{end}")).unwrap_or(0);
        let (most, fails) = if group.is_v2() {
            (0, read_key(dir, &format!("hugetlb.{size}.events"), "max").unwrap_or(0))
        } else {
            (number(".max_usage_in_bytes"), number(".failcnt"))
        };
        let entry = object([("usage", number(usage).into()), ("max", most.into()), ("failcnt", fails.into())]);
        (size.clone(), entry)
    };
    Json::Obj(sizes.iter().map(of_size).collect())
}

/// Bytes and operations by device.
fn blkio(group: &Cgroup) -> Json {
    let Some(dir) = group.dir("blkio") else { return object([]) };
    let entry = |device: &str, op: &str, value: u64| {
        let (major, minor) = device.split_once(':')?;
        let numbers = [("major", major.parse::<u64>().ok()?.into()), ("minor", minor.parse::<u64>().ok()?.into())];
        let op = Some(("op", op.into())).filter(|_| !op.is_empty());
        Some(object(numbers.into_iter().chain(op).chain([("value", value.into())])))
    };
    let (mut bytes, mut operations, mut others) = (Vec::new(), Vec::new(), Vec::new());
    if group.is_v2() {
        for line in fs::read_to_string(dir.join("io.stat")).unwrap_or_default().lines() {
            let Some((device, counts)) = line.split_once(' ') else { continue };
            for (key, op, list) in
                [("rbytes", "Read", 0), ("wbytes", "Write", 0), ("rios", "Read", 1), ("wios", "Write", 1)]
            {
                let count = counts.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('=')?.parse().ok());
                let entry = count.and_then(|count| entry(device, op, count));
                (if list == 0 { &mut bytes } else { &mut operations }).extend(entry);
            }
        }
    } else {
        let read = |file: &str| -> Vec<Json> {
            let text = fs::read_to_string(dir.join(file)).unwrap_or_default();
            let line = |line: &str| {
                let words: Vec<&str> = line.split(' ').collect();
                match words[..] {
                    [device, op, value] => entry(device, op, value.parse().ok()?),
                    [device, value] => entry(device, "", value.parse().ok()?),
                    _ => None,
                }
            };
            text.lines().filter_map(line).collect()
        };
        bytes = read("blkio.throttle.io_service_bytes_recursive");
        operations = read("blkio.throttle.io_serviced_recursive");
        // Of the disks' scheduler, as far as it counts: BFQ, or CFQ before 5.0.
        for (key, file) in [
            ("ioQueueRecursive", "io_queued_recursive"),
            ("ioServiceTimeRecursive", "io_service_time_recursive"),
            ("ioWaitTimeRecursive", "io_wait_time_recursive"),
            ("ioMergedRecursive", "io_merged_recursive"),
            ("ioTimeRecursive", "time_recursive"),
            ("sectorsRecursive", "sectors_recursive"),
        ] {
            let lists = ["blkio.bfq", "blkio"].map(|prefix| read(&format!("{prefix}.{file}")));
            others.extend(lists.into_iter().find(|list| !list.is_empty()).map(|list| (key, Json::Arr(list))));
        }
    }
    let always = [("ioServiceBytesRecursive", Json::Arr(bytes)), ("ioServicedRecursive", Json::Arr(operations))];
    object(always.into_iter().chain(others).chain(pressure(group, "io")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::{Hierarchy, Mount};

    #[test]
    fn memory_and_huge_pages_of_v2_are_shown_as_v1_counts_them() {
        let dir = std::env::temp_dir().join(format!("events-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        for (file, text) in [
            ("memory.current", "100"),
            ("memory.max", "300"),
            ("memory.swap.current", "20"),
            ("memory.swap.max", "50"),
            ("hugetlb.2MB.current", "4096"),
            ("hugetlb.2MB.rsvd.current", "1"),
            ("hugetlb.2MB.events", "max 3\n"),
            (
                "memory.pressure",
                "some avg10=0.25 avg60=1.00 avg300=0.00 total=7\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5\n",
            ),
        ] {
            fs::write(dir.join(file), text).unwrap();
        }
        let mount = Mount { controllers: vec![], point: dir.clone(), root: "/".into() };
        let group = Hierarchy::V2 { mount }.group("/").unwrap();
        let memory = memory_stats(&group);
        assert_eq!((memory.at("swap.usage").u64(), memory.at("swap.limit").u64()), (Some(120), Some(350)));
        assert_eq!((memory.at("usage.usage").u64(), memory.at("usage.limit").u64()), (Some(100), Some(300)));
        assert_eq!(
            (memory.at("psi.full.total").u64(), memory.at("psi.some.avg10").to_string()),
            (Some(5), "0.25".into())
        );
        assert_eq!(huge_pages(&group).to_string(), r#"{"2MB":{"usage":4096,"max":0,"failcnt":3}}"#);
        fs::remove_dir_all(&dir).unwrap();
    }
}
