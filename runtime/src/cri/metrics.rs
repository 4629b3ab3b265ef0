//! Metrics of pods and containers under the names that cAdvisor gave them, which dashboards know (KEP-2371).

use k8s_cri::v1;

use super::usage::told;
use crate::{
    engine::{
        Container, Engine, Sandbox,
        counters::{Counters, FileSystem},
        model::Resources,
        stats::{Interface, Stats},
    },
    error::Result,
};

/// What every metric says it is of.
const LABELS: [&str; 6] = ["container", "id", "image", "name", "namespace", "pod"];

/// A metric: its name, its help, what it says beside [`LABELS`], and whether it only grows.
struct Descriptor {
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    counter: bool,
}

const fn descriptor(
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    counter: bool,
) -> Descriptor {
    Descriptor { name, help, labels, counter }
}

const CPU: Descriptor = descriptor("container_cpu_usage_seconds_total", "CPU time used, in seconds", &["cpu"], true);
const CPU_USER: Descriptor =
    descriptor("container_cpu_user_seconds_total", "CPU time used by the processes themselves, in seconds", &[], true);
const CPU_SYSTEM: Descriptor = descriptor(
    "container_cpu_system_seconds_total",
    "CPU time used by the kernel for the processes, in seconds",
    &[],
    true,
);
const PERIODS: Descriptor = descriptor("container_cpu_cfs_periods_total", "Periods of the CPU limit", &[], true);
const THROTTLED_PERIODS: Descriptor =
    descriptor("container_cpu_cfs_throttled_periods_total", "Periods in which the CPU limit was reached", &[], true);
const THROTTLED: Descriptor = descriptor(
    "container_cpu_cfs_throttled_seconds_total",
    "How long the CPU limit held processes back, in seconds",
    &[],
    true,
);
const CPU_PERIOD: Descriptor =
    descriptor("container_spec_cpu_period", "Period of the CPU limit, in microseconds", &[], false);
const CPU_QUOTA: Descriptor =
    descriptor("container_spec_cpu_quota", "CPU limit in a period, in microseconds", &[], false);
const CPU_SHARES: Descriptor =
    descriptor("container_spec_cpu_shares", "Share of the CPUs when they are short", &[], false);
const MEMORY: Descriptor = descriptor("container_memory_usage_bytes", "Memory in use, caches included", &[], false);
const MAX_USAGE: Descriptor =
    descriptor("container_memory_max_usage_bytes", "The most memory that was in use", &[], false);
const WORKING_SET: Descriptor = descriptor(
    "container_memory_working_set_bytes",
    "Memory in use without what the kernel could drop at once",
    &[],
    false,
);
const RSS: Descriptor = descriptor("container_memory_rss", "Anonymous memory", &[], false);
const CACHE: Descriptor = descriptor("container_memory_cache", "Memory of files", &[], false);
const MAPPED_FILE: Descriptor =
    descriptor("container_memory_mapped_file", "Memory of files that are mapped", &[], false);
const ACTIVE_FILE: Descriptor =
    descriptor("container_memory_total_active_file_bytes", "Memory of files that were used lately", &[], false);
const INACTIVE_FILE: Descriptor =
    descriptor("container_memory_total_inactive_file_bytes", "Memory of files that were not used lately", &[], false);
const KERNEL: Descriptor =
    descriptor("container_memory_kernel_usage", "Memory of the kernel for the processes", &[], false);
const SWAP: Descriptor = descriptor("container_memory_swap", "Memory that is swapped out", &[], false);
const LIMIT: Descriptor = descriptor("container_spec_memory_limit_bytes", "Memory limit, 0 for none", &[], false);
const FAILURES: Descriptor =
    descriptor("container_memory_failcnt", "How often the memory limit was reached", &[], true);
const FAULTS: Descriptor =
    descriptor("container_memory_failures_total", "Page faults", &["failure_type", "scope"], true);
const OOM: Descriptor =
    descriptor("container_oom_events_total", "Processes that the kernel killed for want of memory", &[], true);
const PROCESSES: Descriptor = descriptor("container_processes", "Processes and threads", &[], false);
const THREADS_MAX: Descriptor =
    descriptor("container_threads_max", "Limit of processes and threads, 0 for none", &[], false);
const START: Descriptor =
    descriptor("container_start_time_seconds", "When the container was started, in seconds since 1970", &[], false);
const LAST_SEEN: Descriptor =
    descriptor("container_last_seen", "When the container was last looked at, in seconds since 1970", &[], false);
const DISK: Descriptor =
    descriptor("container_fs_usage_bytes", "Bytes of the container's own files", &["device"], false);
const DISK_LIMIT: Descriptor =
    descriptor("container_fs_limit_bytes", "Bytes of the file system that they are in", &["device"], false);
const INODES: Descriptor = descriptor("container_fs_inodes_total", "Inodes of the file system", &["device"], false);
const INODES_FREE: Descriptor =
    descriptor("container_fs_inodes_free", "Inodes of the file system that are free", &["device"], false);
const BLOCK: Descriptor = descriptor(
    "container_blkio_device_usage_total",
    "Bytes from and to a block device",
    &["device", "major", "minor", "operation"],
    true,
);
const READS: [Descriptor; 3] = [
    descriptor("container_fs_reads_bytes_total", "Bytes read", &["device"], true),
    descriptor("container_fs_reads_total", "Reads", &["device"], true),
    descriptor("container_fs_sector_reads_total", "Sectors read, of 512 bytes each", &["device"], true),
];
const WRITES: [Descriptor; 3] = [
    descriptor("container_fs_writes_bytes_total", "Bytes written", &["device"], true),
    descriptor("container_fs_writes_total", "Writes", &["device"], true),
    descriptor("container_fs_sector_writes_total", "Sectors written, of 512 bytes each", &["device"], true),
];
/// Of CPU, memory and I/O: how long some waited for it, and how long all did.
const PRESSURE: [[Descriptor; 2]; 3] = [
    [
        descriptor(
            "container_pressure_cpu_waiting_seconds_total",
            "How long some processes waited for a CPU, in seconds",
            &[],
            true,
        ),
        descriptor(
            "container_pressure_cpu_stalled_seconds_total",
            "How long all processes waited for a CPU, in seconds",
            &[],
            true,
        ),
    ],
    [
        descriptor(
            "container_pressure_memory_waiting_seconds_total",
            "How long some processes waited for memory, in seconds",
            &[],
            true,
        ),
        descriptor(
            "container_pressure_memory_stalled_seconds_total",
            "How long all processes waited for memory, in seconds",
            &[],
            true,
        ),
    ],
    [
        descriptor(
            "container_pressure_io_waiting_seconds_total",
            "How long some processes waited for I/O, in seconds",
            &[],
            true,
        ),
        descriptor(
            "container_pressure_io_stalled_seconds_total",
            "How long all processes waited for I/O, in seconds",
            &[],
            true,
        ),
    ],
];
const RECEIVED: [Descriptor; 4] = [
    descriptor("container_network_receive_bytes_total", "Bytes received", &["interface"], true),
    descriptor("container_network_receive_packets_total", "Packets received", &["interface"], true),
    descriptor("container_network_receive_errors_total", "Errors while receiving", &["interface"], true),
    descriptor(
        "container_network_receive_packets_dropped_total",
        "Packets dropped while receiving",
        &["interface"],
        true,
    ),
];
const SENT: [Descriptor; 4] = [
    descriptor("container_network_transmit_bytes_total", "Bytes sent", &["interface"], true),
    descriptor("container_network_transmit_packets_total", "Packets sent", &["interface"], true),
    descriptor("container_network_transmit_errors_total", "Errors while sending", &["interface"], true),
    descriptor(
        "container_network_transmit_packets_dropped_total",
        "Packets dropped while sending",
        &["interface"],
        true,
    ),
];
const ALL: [&[Descriptor]; 8] = [
    &[
        CPU,
        CPU_USER,
        CPU_SYSTEM,
        PERIODS,
        THROTTLED_PERIODS,
        THROTTLED,
        CPU_PERIOD,
        CPU_QUOTA,
        CPU_SHARES,
        MEMORY,
        MAX_USAGE,
        WORKING_SET,
        RSS,
        CACHE,
        MAPPED_FILE,
        ACTIVE_FILE,
        INACTIVE_FILE,
        KERNEL,
        SWAP,
        LIMIT,
        FAILURES,
        FAULTS,
        OOM,
        PROCESSES,
        THREADS_MAX,
        START,
        LAST_SEEN,
        DISK,
        DISK_LIMIT,
        INODES,
        INODES_FREE,
        BLOCK,
    ],
    &READS,
    &WRITES,
    &PRESSURE[0],
    &PRESSURE[1],
    &PRESSURE[2],
    &RECEIVED,
    &SENT,
];

/// Every metric that [`of_sandbox`] may give.
pub fn descriptors() -> Vec<v1::MetricDescriptor> {
    let message = |metric: &Descriptor| v1::MetricDescriptor {
        name: metric.name.into(),
        help: metric.help.into(),
        label_keys: LABELS.iter().chain(metric.labels).map(|label| (*label).to_owned()).collect(),
    };
    ALL.into_iter().flatten().map(message).collect()
}

/// Collects the metrics of one thing.
struct Collector {
    labels: [String; LABELS.len()],
    at: i64,
    out: Vec<v1::Metric>,
}

impl Collector {
    fn add(&mut self, metric: &Descriptor, labels: &[&str], value: u64) {
        let kind = if metric.counter { v1::MetricType::Counter } else { v1::MetricType::Gauge };
        self.out.push(v1::Metric {
            name: metric.name.into(),
            timestamp: self.at,
            metric_type: kind as i32,
            label_values: self.labels.iter().cloned().chain(labels.iter().map(|label| (*label).to_owned())).collect(),
            value: Some(v1::UInt64Value { value }),
        });
    }

    fn add_stats(&mut self, stats: &Stats) {
        self.add(&CPU, &["total"], seconds(stats.cpu_total));
        self.add(&MEMORY, &[], stats.memory_usage);
        self.add(&WORKING_SET, &[], stats.working_set);
        self.add(&RSS, &[], stats.rss);
        self.add(&SWAP, &[], stats.swap);
        self.add(&LIMIT, &[], stats.limit);
        self.add(&FAULTS, &["pgfault", "container"], stats.page_faults);
        self.add(&FAULTS, &["pgmajfault", "container"], stats.major_page_faults);
        self.add(&PROCESSES, &[], stats.pids);
        self.add(&LAST_SEEN, &[], whole_seconds(stats.at));
        let pressures = [stats.cpu_pressure, stats.memory_pressure, stats.io_pressure];
        for ([waiting, stalled], pressure) in PRESSURE.iter().zip(pressures) {
            if let Some(pressure) = pressure {
                self.add(waiting, &[], seconds(pressure.some.total));
                self.add(stalled, &[], seconds(pressure.full.total));
            }
        }
    }

    fn add_counters(&mut self, counters: &Counters) {
        self.add(&CPU_USER, &[], seconds(counters.cpu_user));
        self.add(&CPU_SYSTEM, &[], seconds(counters.cpu_system));
        self.add(&PERIODS, &[], counters.periods);
        self.add(&THROTTLED_PERIODS, &[], counters.throttled_periods);
        self.add(&THROTTLED, &[], seconds(counters.throttled));
        self.add(&CACHE, &[], counters.cache);
        self.add(&MAPPED_FILE, &[], counters.mapped_file);
        self.add(&ACTIVE_FILE, &[], counters.active_file);
        self.add(&INACTIVE_FILE, &[], counters.inactive_file);
        self.add(&FAILURES, &[], counters.failures);
        self.add(&OOM, &[], counters.oom_kills);
        self.add(&THREADS_MAX, &[], counters.pids_limit.unwrap_or(0));
        for (metric, value) in [(&KERNEL, counters.kernel), (&MAX_USAGE, counters.max_usage)] {
            if let Some(value) = value {
                self.add(metric, &[], value);
            }
        }
        for device in &counters.devices {
            let (path, major, minor) = (device.path(), device.major.to_string(), device.minor.to_string());
            for (metrics, io, operation) in [(&READS, device.read, "Read"), (&WRITES, device.written, "Write")] {
                for (metric, value) in metrics.iter().zip([io.bytes, io.operations, io.bytes / 512]) {
                    self.add(metric, &[&path], value);
                }
                self.add(&BLOCK, &[&path, &major, &minor, operation], io.bytes);
            }
        }
    }

    /// What was asked for of the CPUs, with the kernel's values for what was not.
    fn add_limits(&mut self, resources: &Resources) {
        let or = |value: i64, default: u64| u64::try_from(value).ok().filter(|&value| value > 0).unwrap_or(default);
        self.add(&CPU_PERIOD, &[], or(resources.cpu_period, 100_000));
        self.add(&CPU_SHARES, &[], or(resources.cpu_shares, 1_024));
        if resources.cpu_quota > 0 {
            self.add(&CPU_QUOTA, &[], or(resources.cpu_quota, 0));
        }
    }

    fn add_interface(&mut self, interface: &Interface) {
        for (metrics, traffic) in [(&RECEIVED, interface.received), (&SENT, interface.sent)] {
            let values = [traffic.bytes, traffic.packets, traffic.errors, traffic.dropped];
            for (metric, value) in metrics.iter().zip(values) {
                self.add(metric, &[&interface.name], value);
            }
        }
    }
}

/// Values are whole numbers (CRI, `Metric`).
fn seconds(nanoseconds: u64) -> u64 {
    nanoseconds / 1_000_000_000
}

fn whole_seconds(nanoseconds: i64) -> u64 {
    seconds(u64::try_from(nanoseconds).unwrap_or(0))
}

/// The metrics of a sandbox and of its containers that run.
pub fn of_sandbox(engine: &Engine, sandbox: &Sandbox) -> Result<v1::PodSandboxMetrics> {
    let config = &sandbox.config;
    let labels = |container: &str, id: &str, image: &str| {
        [container, id, image, id, &config.namespace, &config.name].map(str::to_owned)
    };
    let stats = engine.sandbox_stats(sandbox)?;
    let mut pod = Collector { labels: labels("POD", &sandbox.id, ""), at: stats.at, out: Vec::new() };
    pod.add_stats(&stats);
    pod.add_counters(&engine.sandbox_counters(sandbox)?);
    if let Some(resources) = sandbox.state().resources {
        pod.add_limits(&resources);
    }
    engine.sandbox_interfaces(sandbox).iter().for_each(|interface| pod.add_interface(interface));
    let file_system = engine.file_system()?;
    let mut container_metrics = Vec::new();
    for container in engine.containers_of(&sandbox.id) {
        let labels = labels(&container.config.name, &container.id, &container.config.user_image);
        container_metrics.extend(told(&container.id, of_container(engine, &container, &file_system, labels)).flatten());
    }
    Ok(v1::PodSandboxMetrics { pod_sandbox_id: sandbox.id.clone(), metrics: pod.out, container_metrics })
}

/// None of one that does not run.
fn of_container(
    engine: &Engine,
    container: &Container,
    file_system: &FileSystem,
    labels: [String; LABELS.len()],
) -> Result<Option<v1::ContainerMetrics>> {
    let Some(stats) = engine.container_stats(container)? else { return Ok(None) };
    let (state, device) = (container.state(), file_system.device.as_str());
    let mut metrics = Collector { labels, at: stats.at, out: Vec::new() };
    metrics.add_stats(&stats);
    metrics.add_counters(&engine.container_counters(container)?);
    metrics.add_limits(&state.resources);
    metrics.add(&START, &[], whole_seconds(state.started_at));
    metrics.add(&DISK, &[device], engine.writable_usage(container).bytes);
    metrics.add(&DISK_LIMIT, &[device], file_system.bytes);
    metrics.add(&INODES, &[device], file_system.inodes);
    metrics.add(&INODES_FREE, &[device], file_system.free_inodes);
    Ok(Some(v1::ContainerMetrics { container_id: container.id.clone(), metrics: metrics.out }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::counters::{DeviceIo, Io};

    #[test]
    fn values_fit_their_descriptors() {
        let mut collector = Collector { labels: Default::default(), at: 5, out: Vec::new() };
        collector.add_stats(&Stats { cpu_total: 3_000_000_000, ..Stats::default() });
        collector.add_interface(&Interface { name: "eth0".into(), ..Interface::default() });
        let devices = vec![DeviceIo { read: Io { bytes: 1_024, operations: 1 }, ..DeviceIo::default() }];
        collector.add_counters(&Counters { throttled: 2_500_000_000, devices, ..Counters::default() });
        collector.add_limits(&Resources { cpu_quota: 50_000, ..Resources::default() });
        let all = descriptors();
        for metric in &collector.out {
            let descriptor = all.iter().find(|descriptor| descriptor.name == metric.name).unwrap();
            assert_eq!(descriptor.label_keys.len(), metric.label_values.len(), "{}", metric.name);
        }
        assert_eq!(collector.out[0].value.unwrap().value, 3);
        let value = |name: &str| collector.out.iter().find(|metric| metric.name == name).unwrap().value.unwrap().value;
        assert_eq!(value("container_cpu_cfs_throttled_seconds_total"), 2);
        assert_eq!((value("container_fs_reads_bytes_total"), value("container_fs_sector_reads_total")), (1_024, 2));
        assert_eq!((value("container_spec_cpu_quota"), value("container_spec_cpu_period")), (50_000, 100_000));
        let mut names: Vec<&String> = all.iter().map(|descriptor| &descriptor.name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all.len());
    }
}
