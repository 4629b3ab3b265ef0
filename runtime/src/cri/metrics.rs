//! Metrics of pods and containers under the names that cAdvisor gave them, which dashboards know (KEP-2371).

use k8s_cri::v1;

use crate::{
    engine::{
        Container, Engine, Sandbox,
        model::Status,
        stats::{Interface, Stats},
    },
    error::Result,
    snapshots::Usage,
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
const MEMORY: Descriptor = descriptor("container_memory_usage_bytes", "Memory in use, caches included", &[], false);
const WORKING_SET: Descriptor = descriptor(
    "container_memory_working_set_bytes",
    "Memory in use without what the kernel could drop at once",
    &[],
    false,
);
const RSS: Descriptor = descriptor("container_memory_rss", "Anonymous memory", &[], false);
const SWAP: Descriptor = descriptor("container_memory_swap", "Memory that is swapped out", &[], false);
const LIMIT: Descriptor = descriptor("container_spec_memory_limit_bytes", "Memory limit, 0 for none", &[], false);
const FAULTS: Descriptor =
    descriptor("container_memory_failures_total", "Page faults", &["failure_type", "scope"], true);
const PROCESSES: Descriptor = descriptor("container_processes", "Processes and threads", &[], false);
const START: Descriptor =
    descriptor("container_start_time_seconds", "When the container was started, in seconds since 1970", &[], false);
const LAST_SEEN: Descriptor =
    descriptor("container_last_seen", "When the container was last looked at, in seconds since 1970", &[], false);
const DISK: Descriptor =
    descriptor("container_fs_usage_bytes", "Bytes of the container's own files", &["device"], false);
const INODES: Descriptor =
    descriptor("container_fs_inodes_total", "Inodes of the container's own files", &["device"], false);
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
const ALL: [&[Descriptor]; 3] = [
    &[CPU, MEMORY, WORKING_SET, RSS, SWAP, LIMIT, FAULTS, PROCESSES, START, LAST_SEEN, DISK, INODES],
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
        self.add(&CPU, &["total"], stats.cpu_total / 1_000_000_000);
        self.add(&MEMORY, &[], stats.memory_usage);
        self.add(&WORKING_SET, &[], stats.working_set);
        self.add(&RSS, &[], stats.rss);
        self.add(&SWAP, &[], stats.swap);
        self.add(&LIMIT, &[], stats.limit);
        self.add(&FAULTS, &["pgfault", "container"], stats.page_faults);
        self.add(&FAULTS, &["pgmajfault", "container"], stats.major_page_faults);
        self.add(&PROCESSES, &[], stats.pids);
        self.add(&LAST_SEEN, &[], seconds(stats.at));
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

fn seconds(nanoseconds: i64) -> u64 {
    u64::try_from(nanoseconds / 1_000_000_000).unwrap_or(0)
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
    engine.sandbox_interfaces(sandbox).iter().for_each(|interface| pod.add_interface(interface));
    let mut container_metrics = Vec::new();
    for container in engine.containers_of(&sandbox.id) {
        if container.state().status == Status::Running {
            let labels = labels(&container.config.name, &container.id, &container.config.user_image);
            container_metrics.push(of_container(engine, &container, labels)?);
        }
    }
    Ok(v1::PodSandboxMetrics { pod_sandbox_id: sandbox.id.clone(), metrics: pod.out, container_metrics })
}

fn of_container(engine: &Engine, container: &Container, labels: [String; 6]) -> Result<v1::ContainerMetrics> {
    let stats = engine.container_stats(container)?;
    let Usage { bytes, inodes, .. } = engine.writable_usage(container);
    let mut metrics = Collector { labels, at: stats.at, out: Vec::new() };
    metrics.add_stats(&stats);
    metrics.add(&START, &[], seconds(container.state().started_at));
    metrics.add(&DISK, &[""], bytes);
    metrics.add(&INODES, &[""], inodes);
    Ok(v1::ContainerMetrics { container_id: container.id.clone(), metrics: metrics.out })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fit_their_descriptors() {
        let mut collector = Collector { labels: Default::default(), at: 5, out: Vec::new() };
        collector.add_stats(&Stats { cpu_total: 3_000_000_000, ..Stats::default() });
        collector.add_interface(&Interface { name: "eth0".into(), ..Interface::default() });
        let all = descriptors();
        for metric in &collector.out {
            let descriptor = all.iter().find(|descriptor| descriptor.name == metric.name).unwrap();
            assert_eq!(descriptor.label_keys.len(), metric.label_values.len(), "{}", metric.name);
        }
        assert_eq!(collector.out[0].value.unwrap().value, 3);
        let mut names: Vec<&String> = all.iter().map(|descriptor| &descriptor.name).collect();
        names.dedup();
        assert_eq!(names.len(), all.len());
    }
}
