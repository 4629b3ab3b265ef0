//! What every program counts that uses Prometheus' own client: `process_…` (client_golang `process_collector.go`), from
//! proc(5).

use std::fs;

use nix::{
    sys::resource::{Resource, getrlimit},
    unistd::{SysconfVar, sysconf},
};

use super::{head, one};

/// Fields of `/proc/PID/stat` after the name, which may hold anything.
const USER: usize = 11;
const SYSTEM: usize = 12;
const STARTED: usize = 19;
const VIRTUAL: usize = 20;
const RESIDENT: usize = 21;

/// Writes them as they are now; what the kernel does not tell is not there.
pub fn write(out: &mut String) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<u64> = stat
        .rsplit_once(") ")
        .map(|(_, rest)| rest.split(' ').map(|field| field.trim().parse().unwrap_or(0)).collect())
        .unwrap_or_default();
    let field = |index: usize| fields.get(index).copied().unwrap_or(0);
    let system = |what: SysconfVar| sysconf(what).ok().flatten().and_then(|value| u64::try_from(value).ok());
    let seconds = |ticks: u64| ticks as f64 / system(SysconfVar::CLK_TCK).unwrap_or(100) as f64;
    let limit = |of: Resource| getrlimit(of).map_or(u64::MAX, |(soft, _)| soft);

    let name = "process_cpu_seconds_total";
    real(
        out,
        name,
        "counter",
        "Total user and system CPU time spent in seconds.",
        seconds(field(USER) + field(SYSTEM)),
    );
    let help = "Maximum number of open file descriptors.";
    one(out, "process_max_fds", "gauge", help, limit(Resource::RLIMIT_NOFILE));
    // The directory that is read is open meanwhile, and not the daemon's.
    let open = fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count().saturating_sub(1)) as u64;
    one(out, "process_open_fds", "gauge", "Number of open file descriptors.", open);
    let resident = field(RESIDENT) * system(SysconfVar::PAGE_SIZE).unwrap_or(4096);
    one(out, "process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", resident);
    let started = booted() as f64 + seconds(field(STARTED));
    let help = "Start time of the process since unix epoch in seconds.";
    real(out, "process_start_time_seconds", "gauge", help, started);
    one(out, "process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", field(VIRTUAL));
    let help = "Maximum amount of virtual memory available in bytes.";
    one(out, "process_virtual_memory_max_bytes", "gauge", help, limit(Resource::RLIMIT_AS));
}

fn real(out: &mut String, name: &str, kind: &str, help: &str, value: f64) {
    head(out, name, kind, help);
    out.push_str(&format!("{name} {value}\n"));
}

/// When the machine started, in seconds since 1970.
fn booted() -> u64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    #[test]
    fn the_values_are_this_processs() {
        let mut text = String::new();
        super::write(&mut text);
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).expect(name);
            line.parse().expect(name)
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let started = value("process_start_time_seconds");
        assert!(started <= now + 1.0 && started > now - 3600.0, "{started} {now}");
        assert!(value("process_open_fds") >= 3.0 && value("process_open_fds") <= value("process_max_fds"));
        let (resident, all) = (value("process_resident_memory_bytes"), value("process_virtual_memory_bytes"));
        assert!(resident > 100_000.0 && resident <= all && all <= value("process_virtual_memory_max_bytes"));
        assert!(value("process_cpu_seconds_total") >= 0.0);
    }
}
