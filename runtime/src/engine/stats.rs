//! What containers use, from their groups' files.

use std::path::Path;

use coracle_launcher::cgroup::{Cgroup, read_key, read_number};
use coracle_link::Netns;

use super::{
    Container, Engine, Sandbox,
    model::{Status, now},
};
use crate::error::{Context, Result};

/// A rate over less than that says more of the moment than of the process, and of who asked just before.
const SHORTEST_WINDOW: i64 = 1_000_000_000;
/// For so long a sample is what the next ones are compared with (containerd's collector takes one as often).
const WINDOW: i64 = 10_000_000_000;

/// Makes a rate of samples, however many ask for them and however often.
#[derive(Default)]
pub(super) struct CpuMeter(parking_lot::Mutex<Option<Reading>>);

struct Reading {
    /// The sample that the next ones are compared with.
    at: i64,
    total: u64,
    rate: Option<u64>,
}

impl CpuMeter {
    /// Billionths of a processor over the last seconds; none until some have passed.
    fn rate(&self, at: i64, total: u64) -> Option<u64> {
        let mut reading = self.0.lock();
        let fresh = Reading { at, total, rate: None };
        // It counts from the beginning again in another run.
        let Some(last) = reading.as_mut().filter(|last| last.total <= total && last.at <= at) else {
            *reading = Some(fresh);
            return None;
        };
        let elapsed = at - last.at;
        if elapsed >= SHORTEST_WINDOW {
            let rate = u128::from(total - last.total) * 1_000_000_000 / elapsed.unsigned_abs() as u128;
            last.rate = u64::try_from(rate).ok();
        }
        if elapsed >= WINDOW {
            *last = Reading { rate: last.rate, ..fresh };
        }
        last.rate
    }
}

/// One sample; times in nanoseconds since 1970, the rest in bytes, counts and nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    pub at: i64,
    pub cpu_total: u64,
    /// Billionths of a processor over the last seconds; none until some have passed.
    pub cpu_rate: Option<u64>,
    pub memory_usage: u64,
    /// Usage without what the kernel could drop at once.
    pub working_set: u64,
    pub available: u64,
    /// 0 for none.
    pub limit: u64,
    pub rss: u64,
    pub page_faults: u64,
    pub major_page_faults: u64,
    pub swap: u64,
    /// None for no limit of its own.
    pub swap_limit: Option<u64>,
    pub pids: u64,
    /// None where the kernel does not measure them: only cgroups v2 have them (psi(7), CONFIG_PSI).
    pub cpu_pressure: Option<Pressure>,
    pub memory_pressure: Option<Pressure>,
    pub io_pressure: Option<Pressure>,
}

/// How long a group's tasks waited for something.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressure {
    /// One of them, or more.
    pub some: Wait,
    /// All that were not idle.
    pub full: Wait,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Wait {
    /// Nanoseconds.
    pub total: u64,
    /// Percents of the last 10, 60 and 300 seconds.
    pub averages: [f64; 3],
}

impl Pressure {
    /// Reads such a file: a line for each kind, `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, the total in microseconds.
    fn parse(text: &str) -> Option<Pressure> {
        let wait = |kind: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '))?;
            let value = |key: &str| {
                line.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('=')).unwrap_or_default()
            };
            let averages = ["avg10", "avg60", "avg300"].map(|key| value(key).parse().unwrap_or(0.0));
            Some(Wait { total: value("total").parse::<u64>().ok()?.saturating_mul(1000), averages })
        };
        // The processors had no second line before Linux 5.13.
        Some(Pressure { some: wait("some")?, full: wait("full").unwrap_or_default() })
    }

    fn of(dir: &Path, file: &str) -> Option<Pressure> {
        Pressure::parse(&std::fs::read_to_string(dir.join(file)).ok()?)
    }
}

/// Counters of a network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub received: Traffic,
    pub sent: Traffic,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub bytes: u64,
    pub packets: u64,
    pub errors: u64,
    pub dropped: u64,
}

/// Reads `/proc/net/dev` (proc_pid_net(5)): two lines of heads, then a name and sixteen numbers each. Loopback is left out.
pub fn interfaces(text: &str) -> Vec<Interface> {
    let traffic =
        |numbers: &[u64]| Traffic { bytes: numbers[0], packets: numbers[1], errors: numbers[2], dropped: numbers[3] };
    let line = |line: &str| {
        let (name, rest) = line.split_once(':')?;
        let numbers: Vec<u64> = rest.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let name = Some(name.trim().to_owned()).filter(|name| name != "lo" && numbers.len() >= 16)?;
        Some(Interface { name, received: traffic(&numbers[..8]), sent: traffic(&numbers[8..]) })
    };
    text.lines().skip(2).filter_map(line).collect()
}

impl Engine {
    /// The interfaces of a sandbox; none of one in the host's network, or that is stopped.
    pub fn sandbox_interfaces(&self, sandbox: &Sandbox) -> Vec<Interface> {
        if sandbox.config.host_network || !sandbox.state().ready {
            return Vec::new();
        }
        let text = Netns::open(&self.network_namespace(&sandbox.id))
            .and_then(|netns| netns.run(|| std::fs::read_to_string("/proc/thread-self/net/dev")));
        text.map(|text| interfaces(&text)).unwrap_or_default()
    }

    /// A container's use now; none of one that does not run.
    pub fn container_stats(&self, container: &Container) -> Result<Option<Stats>> {
        if container.state().status != Status::Running {
            return Ok(None);
        }
        self.metered(&container.cgroups_path, &container.cpu).map(Some)
    }

    /// The use of all of a sandbox's containers together.
    pub fn sandbox_stats(&self, sandbox: &Sandbox) -> Result<Stats> {
        self.metered(&self.sandbox_group(sandbox), &sandbox.cpu)
    }

    fn metered(&self, path: &str, meter: &CpuMeter) -> Result<Stats> {
        let stats = self.group_stats(path)?;
        Ok(Stats { cpu_rate: meter.rate(stats.at, stats.cpu_total), ..stats })
    }

    fn group_stats(&self, path: &str) -> Result<Stats> {
        let group = self.hierarchy.group(path).context("find the cgroup")?;
        Ok(sample(&group, now()))
    }

    /// Space that a container's own files take.
    pub fn writable_usage(&self, container: &Container) -> crate::snapshots::Usage {
        self.snapshots.usage(&container.id)
    }
}

fn sample(group: &Cgroup, at: i64) -> Stats {
    let v2 = group.is_v2();
    let dir = |controller: &str| group.dir(controller).unwrap_or(Path::new("/nonexistent"));
    let memory = dir("memory");
    let (usage_file, limit_file) =
        if v2 { ("memory.current", "memory.max") } else { ("memory.usage_in_bytes", "memory.limit_in_bytes") };
    let key =
        |v1_key: &str, v2_key: &str| read_key(memory, "memory.stat", if v2 { v2_key } else { v1_key }).unwrap_or(0);
    let usage = read_number(memory, usage_file).unwrap_or(0);
    let working_set = usage.saturating_sub(key("total_inactive_file", "inactive_file"));
    // v1 writes "no limit" as the largest multiple of a page.
    let limit = read_number(memory, limit_file).filter(|&limit| limit < 1 << 60);
    let cpu_total = if v2 {
        read_key(dir("cpu"), "cpu.stat", "usage_usec").unwrap_or(0) * 1000
    } else {
        read_number(dir("cpuacct"), "cpuacct.usage").unwrap_or(0)
    };
    Stats {
        at,
        cpu_total,
        cpu_rate: None,
        memory_usage: usage,
        working_set,
        available: limit.map_or(0, |limit| limit.saturating_sub(working_set)),
        limit: limit.unwrap_or(0),
        rss: key("total_rss", "anon"),
        page_faults: key("total_pgfault", "pgfault"),
        major_page_faults: key("total_pgmajfault", "pgmajfault"),
        swap: if v2 { read_number(memory, "memory.swap.current").unwrap_or(0) } else { key("total_swap", "swap") },
        swap_limit: swap_limit(memory, v2, limit),
        pids: read_number(dir("pids"), "pids.current").unwrap_or(0),
        cpu_pressure: Pressure::of(dir("cpu"), "cpu.pressure").filter(|_| v2),
        memory_pressure: Pressure::of(memory, "memory.pressure").filter(|_| v2),
        io_pressure: Pressure::of(dir("io"), "io.pressure").filter(|_| v2),
    }
}

/// v1 limits memory and swap together.
fn swap_limit(memory: &Path, v2: bool, limit: Option<u64>) -> Option<u64> {
    if v2 {
        return read_number(memory, "memory.swap.max");
    }
    let both = read_number(memory, "memory.memsw.limit_in_bytes").filter(|&both| both < 1 << 60)?;
    Some(both.saturating_sub(limit?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_of_seconds_whoever_asks_in_between() {
        let (meter, second) = (CpuMeter::default(), 1_000_000_000);
        let at = |time: i64, total: u64| meter.rate(time, total);
        assert_eq!(at(100 * second, 5_000), None);
        // A process that works half of the time, and somebody who asks again at once.
        assert_eq!(at(100 * second + 3, 5_003), None);
        assert_eq!(at(104 * second, 2_000_005_000), Some(500_000_000));
        assert_eq!(at(104 * second + 1, 2_000_005_001), Some(500_000_000));
        assert_eq!(at(110 * second, 5_000_005_000), Some(500_000_000));
        // It rests; what is told is of the time since the sample at 110.
        assert_eq!(at(110 * second + 5, 5_000_005_000), Some(500_000_000));
        assert_eq!(at(112 * second, 5_000_005_000), Some(0));
        // Another run, whose group is new; a clock that was set.
        assert_eq!(at(130 * second, 7), None);
        assert_eq!(at(131 * second, 1_000_000_007), Some(1_000_000_000));
        assert_eq!(at(90 * second, 1_000_000_007), None);
    }

    #[test]
    fn interfaces_are_read_from_the_kernels_table() {
        let text = "Inter-|   Receive  |  Transmit\n face |bytes    packets errs drop\n    lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n  eth0:100 2 3 4 0 0 0 0 900 10 11 12 0 0 0 0\n bad: 1 2\n";
        let found = interfaces(text);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].name, "eth0");
        assert_eq!(found[0].received, Traffic { bytes: 100, packets: 2, errors: 3, dropped: 4 });
        assert_eq!(found[0].sent, Traffic { bytes: 900, packets: 10, errors: 11, dropped: 12 });
    }

    #[test]
    fn pressure_is_read_from_the_kernels_lines() {
        let text =
            "some avg10=1.50 avg60=0.25 avg300=0.05 total=1234\nfull avg10=0.00 avg60=0.00 avg300=0.01 total=7\n";
        let found = Pressure::parse(text).unwrap();
        assert_eq!(found.some, Wait { total: 1_234_000, averages: [1.5, 0.25, 0.05] });
        assert_eq!(found.full, Wait { total: 7_000, averages: [0.0, 0.0, 0.01] });
        let before = Pressure::parse("some avg10=0.00 avg60=0.00 avg300=0.00 total=3\n").unwrap();
        assert_eq!((before.some.total, before.full), (3_000, Wait::default()));
        assert_eq!(Pressure::parse(""), None);
    }
}
