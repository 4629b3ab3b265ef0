//! What the kernel counts of a group beyond its use at the moment: for metrics, and read for them alone.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use coracle_launcher::cgroup::{Cgroup, memory, read_number};

use super::{Container, Engine, Sandbox};
use crate::error::{Context, Result};

/// Times in nanoseconds, the rest in bytes and counts. None for what the kernel does not count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub cpu_user: u64,
    pub cpu_system: u64,
    /// Periods of a CPU limit; those in which it was reached, and for how long.
    pub periods: u64,
    pub throttled_periods: u64,
    pub throttled: u64,
    /// Memory of files.
    pub cache: u64,
    pub mapped_file: u64,
    pub active_file: u64,
    pub inactive_file: u64,
    /// The kernel's own for it.
    pub kernel: Option<u64>,
    /// The most that was in use.
    pub max_usage: Option<u64>,
    /// How often the memory limit was reached.
    pub failures: u64,
    pub oom_kills: u64,
    /// Of processes and threads; none without a limit.
    pub pids_limit: Option<u64>,
    pub devices: Vec<DeviceIo>,
}

/// What went from and to a block device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceIo {
    pub major: u32,
    pub minor: u32,
    pub read: Io,
    pub written: Io,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Io {
    pub bytes: u64,
    pub operations: u64,
}

impl DeviceIo {
    pub fn path(&self) -> String {
        block_device(self.major, self.minor)
    }
}

/// The file system that containers' own files are in.
#[derive(Clone, Debug, Default)]
pub struct FileSystem {
    pub device: String,
    pub bytes: u64,
    pub inodes: u64,
    pub free_inodes: u64,
}

impl Engine {
    pub fn container_counters(&self, container: &Container) -> Result<Counters> {
        self.counters(&container.cgroups_path)
    }

    pub fn sandbox_counters(&self, sandbox: &Sandbox) -> Result<Counters> {
        self.counters(&self.sandbox_group(sandbox))
    }

    fn counters(&self, path: &str) -> Result<Counters> {
        Ok(count(&self.hierarchy.group(path).context("find the cgroup")?))
    }

    pub fn file_system(&self) -> Result<FileSystem> {
        let dir = self.paths.data.join("snapshots");
        let what = || format!("look at the file system of {}", dir.display());
        let device = fs::metadata(&dir).context(what())?.dev();
        let found = rustix::fs::statvfs(&dir).map_err(std::io::Error::from).context(what())?;
        Ok(FileSystem {
            device: block_device(rustix::fs::major(device), rustix::fs::minor(device)),
            bytes: found.f_blocks.saturating_mul(found.f_frsize),
            inodes: found.f_files,
            free_inodes: found.f_ffree,
        })
    }
}

/// As sysfs calls it; by its numbers where there is no such device, as for a file system without one.
fn block_device(major: u32, minor: u32) -> String {
    let link = fs::read_link(format!("/sys/dev/block/{major}:{minor}")).ok();
    let name = link.as_deref().and_then(Path::file_name).and_then(|name| name.to_str());
    name.map_or_else(|| format!("{major}:{minor}"), |name| format!("/dev/{name}"))
}

fn count(group: &Cgroup) -> Counters {
    let dir = |controller: &str| group.dir(controller).unwrap_or(Path::new("/nonexistent"));
    let out = if group.is_v2() { of_v2(dir("")) } else { of_v1(dir) };
    Counters {
        pids_limit: read_number(dir("pids"), "pids.max").filter(|&limit| limit != u64::MAX),
        oom_kills: memory::oom_kills(dir("memory"), group.is_v2()),
        ..out
    }
}

/// The kernel's `Documentation/admin-guide/cgroup-v2.rst`.
fn of_v2(dir: &Path) -> Counters {
    let (cpu, memory) = (Keyed::read(dir, "cpu.stat"), Keyed::read(dir, "memory.stat"));
    let time = |key: &str| cpu.get(key).unwrap_or(0).saturating_mul(1000);
    let stat = |key: &str| memory.get(key).unwrap_or(0);
    Counters {
        cpu_user: time("user_usec"),
        cpu_system: time("system_usec"),
        periods: cpu.get("nr_periods").unwrap_or(0),
        throttled_periods: cpu.get("nr_throttled").unwrap_or(0),
        throttled: time("throttled_usec"),
        cache: stat("file"),
        mapped_file: stat("file_mapped"),
        active_file: stat("active_file"),
        inactive_file: stat("inactive_file"),
        // All of it since Linux 5.18, its largest parts before.
        kernel: memory.get("kernel").or_else(|| Some(memory.get("slab")?.saturating_add(stat("kernel_stack")))),
        // Since Linux 5.19.
        max_usage: read_number(dir, "memory.peak"),
        failures: Keyed::read(dir, "memory.events").get("max").unwrap_or(0),
        devices: io_stat(&text(dir, "io.stat")),
        ..Counters::default()
    }
}

/// `Documentation/admin-guide/cgroup-v1/memory.rst` and `blkio-controller.rst`; what begins with `total_` is with the groups
/// below.
fn of_v1<'a>(dir: impl Fn(&str) -> &'a Path) -> Counters {
    let (cpu, memory) = (Keyed::read(dir("cpu"), "cpu.stat"), Keyed::read(dir("memory"), "memory.stat"));
    let stat = |key: &str| memory.get(key).unwrap_or(0);
    let number = |controller: &str, file: &str| read_number(dir(controller), file);
    // Without the groups below before Linux 4.16.
    let block = |file: &str| match text(dir("blkio"), &format!("blkio.throttle.{file}_recursive")) {
        missing if missing.is_empty() => text(dir("blkio"), &format!("blkio.throttle.{file}")),
        found => found,
    };
    Counters {
        cpu_user: number("cpuacct", "cpuacct.usage_user").unwrap_or(0),
        cpu_system: number("cpuacct", "cpuacct.usage_sys").unwrap_or(0),
        periods: cpu.get("nr_periods").unwrap_or(0),
        throttled_periods: cpu.get("nr_throttled").unwrap_or(0),
        throttled: cpu.get("throttled_time").unwrap_or(0),
        cache: stat("total_cache"),
        mapped_file: stat("total_mapped_file"),
        active_file: stat("total_active_file"),
        inactive_file: stat("total_inactive_file"),
        kernel: number("memory", "memory.kmem.usage_in_bytes"),
        max_usage: number("memory", "memory.max_usage_in_bytes"),
        failures: number("memory", "memory.failcnt").unwrap_or(0),
        devices: throttle(&block("io_service_bytes"), &block("io_serviced")),
        ..Counters::default()
    }
}

fn text(dir: &Path, file: &str) -> String {
    fs::read_to_string(dir.join(file)).unwrap_or_default()
}

/// A flat keyed file, read once for all of its keys.
struct Keyed(String);

impl Keyed {
    fn read(dir: &Path, file: &str) -> Keyed {
        Keyed(text(dir, file))
    }

    fn get(&self, key: &str) -> Option<u64> {
        let mut lines = self.0.lines().filter_map(|line| line.split_once(' '));
        lines.find(|(name, _)| *name == key).and_then(|(_, value)| value.trim().parse().ok())
    }
}

fn device(numbers: &str) -> Option<DeviceIo> {
    let (major, minor) = numbers.split_once(':')?;
    Some(DeviceIo { major: major.parse().ok()?, minor: minor.parse().ok()?, ..DeviceIo::default() })
}

/// `8:0 rbytes=90112 wbytes=299008 rios=22 wios=73 dbytes=0 dios=0`, a line for each device.
fn io_stat(text: &str) -> Vec<DeviceIo> {
    let line = |line: &str| {
        let (numbers, counts) = line.split_once(' ')?;
        let count = |key: &str| {
            let value = counts.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('=')?.parse().ok());
            value.unwrap_or(0)
        };
        Some(DeviceIo {
            read: Io { bytes: count("rbytes"), operations: count("rios") },
            written: Io { bytes: count("wbytes"), operations: count("wios") },
            ..device(numbers)?
        })
    };
    text.lines().filter_map(line).collect()
}

/// `8:0 Read 90112`, a line for each device and operation, and a last one that sums them up.
fn throttle(bytes: &str, operations: &str) -> Vec<DeviceIo> {
    let mut out: Vec<DeviceIo> = Vec::new();
    for (text, is_bytes) in [(bytes, true), (operations, false)] {
        for line in text.lines() {
            let mut words = line.split(' ');
            let (Some(known), Some(operation), Some(Ok(value))) =
                (words.next().and_then(device), words.next(), words.next().map(str::parse::<u64>))
            else {
                continue;
            };
            let same = |io: &DeviceIo| (io.major, io.minor) == (known.major, known.minor);
            let at = out.iter().position(same).unwrap_or_else(|| {
                out.push(known);
                out.len() - 1
            });
            let place = &mut out[at];
            let io = match operation {
                "Read" => &mut place.read,
                "Write" => &mut place.written,
                _ => continue,
            };
            *(if is_bytes { &mut io.bytes } else { &mut io.operations }) = value;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, files: &[(&str, &str)]) {
        files.iter().for_each(|(name, text)| fs::write(dir.join(name), text).unwrap());
    }

    #[test]
    fn both_kinds_of_groups_count_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let device = DeviceIo {
            major: 8,
            minor: 16,
            read: Io { bytes: 4096, operations: 1 },
            written: Io { bytes: 512, operations: 2 },
        };
        let expected = Counters {
            cpu_user: 2_000_000,
            cpu_system: 1_000_000,
            periods: 10,
            throttled_periods: 3,
            throttled: 7_000,
            cache: 100,
            mapped_file: 50,
            active_file: 30,
            inactive_file: 70,
            kernel: Some(9),
            max_usage: Some(200),
            failures: 4,
            oom_kills: 0,
            pids_limit: None,
            devices: vec![device],
        };
        write(
            dir.path(),
            &[
                (
                    "cpu.stat",
                    "usage_usec 3000\nuser_usec 2000\nsystem_usec 1000\nnr_periods 10\nnr_throttled 3\nthrottled_usec 7\n",
                ),
                ("memory.stat", "anon 1\nfile 100\nkernel 9\nfile_mapped 50\ninactive_file 70\nactive_file 30\n"),
                ("memory.peak", "200\n"),
                ("memory.events", "low 0\nhigh 0\nmax 4\noom 1\noom_kill 1\n"),
                ("io.stat", "8:16 rbytes=4096 wbytes=512 rios=1 wios=2 dbytes=0 dios=0\nodd\n"),
            ],
        );
        assert_eq!(of_v2(dir.path()), expected);
        let dir = tempfile::tempdir().unwrap();
        write(
            dir.path(),
            &[
                ("cpu.stat", "nr_periods 10\nnr_throttled 3\nthrottled_time 7000\n"),
                ("cpuacct.usage_user", "2000000\n"),
                ("cpuacct.usage_sys", "1000000\n"),
                (
                    "memory.stat",
                    "cache 1\nmapped_file 1\ntotal_cache 100\ntotal_mapped_file 50\ntotal_inactive_file 70\ntotal_active_file 30\n",
                ),
                ("memory.kmem.usage_in_bytes", "9\n"),
                ("memory.max_usage_in_bytes", "200\n"),
                ("memory.failcnt", "4\n"),
                (
                    "blkio.throttle.io_service_bytes_recursive",
                    "8:16 Read 4096\n8:16 Write 512\n8:16 Total 4608\nTotal 4608\n",
                ),
                ("blkio.throttle.io_serviced", "8:16 Read 1\n8:16 Write 2\n8:16 Total 3\nTotal 3\n"),
            ],
        );
        assert_eq!(of_v1(|_| dir.path()), expected);
        let nothing = tempfile::tempdir().unwrap();
        assert_eq!(of_v1(|_| nothing.path()), Counters::default());
        assert_eq!(of_v2(nothing.path()), Counters::default());
    }

    #[test]
    fn the_kernels_memory_is_summed_up_where_it_is_not_told() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &[("memory.stat", "kernel_stack 16384\nslab 100\n")]);
        assert_eq!(of_v2(dir.path()).kernel, Some(16_484));
    }
}
