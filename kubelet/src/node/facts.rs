//! What the machine is: read once, from /proc, /sys and /etc.

use std::fs;
use std::path::Path;

use coracle_api::quantity::Quantity;
use coracle_launcher::labels::has_apparmor;

/// The machine.
#[derive(Debug, Clone)]
pub struct Facts {
    pub cpus: u64,
    pub memory: u64,
    pub storage: u64,
    /// How many processes there may be.
    pub processes: Option<u64>,
    pub huge_pages: Vec<HugePages>,
    /// AppArmor confines programs here. Not in a container, whose kernel's profiles are not its own (systemd's `container=`).
    pub apparmor: bool,
    pub machine_id: String,
    pub system_uuid: String,
    pub boot_id: String,
    pub kernel: String,
    pub os_image: String,
}

impl Facts {
    /// Reads them. `root` is where pods' files are: its disk is the node's.
    pub fn read(root: &Path) -> Self {
        let line = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let machine_id = line("/etc/machine-id");
        let uuid = line("/sys/class/dmi/id/product_uuid").to_lowercase();
        Self {
            cpus: std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64),
            memory: memory("MemTotal"),
            storage: disk(root).map_or(0, |disk| disk.size),
            processes: processes().map(|(most, _)| most),
            huge_pages: huge_pages(Path::new("/sys/kernel/mm/hugepages")),
            apparmor: has_apparmor() && std::env::var_os("container").is_none_or(|name| name.is_empty()),
            system_uuid: if uuid.is_empty() { machine_id.clone() } else { uuid },
            machine_id,
            boot_id: line("/proc/sys/kernel/random/boot_id"),
            kernel: line("/proc/sys/kernel/osrelease"),
            os_image: os_image(&fs::read_to_string("/etc/os-release").unwrap_or_default()),
        }
    }
}

/// Huge pages of one size, and how many of them the machine has set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HugePages {
    pub size: u64,
    pub count: u64,
}

impl HugePages {
    /// The size as the API names it: `hugepages-2Mi`.
    pub fn resource(self) -> String {
        format!("hugepages-{}", Quantity::from_bytes(self.size))
    }

    /// The size as files of groups name it (Linux mm/hugetlb_cgroup.c, `mem_fmt`).
    pub fn group_name(self) -> String {
        match self.size {
            size if size >= 1 << 30 => format!("{}GB", size >> 30),
            size if size >= 1 << 20 => format!("{}MB", size >> 20),
            size => format!("{}KB", size >> 10),
        }
    }
}

/// By size: `hugepages-2048kB/nr_hugepages`.
fn huge_pages(dir: &Path) -> Vec<HugePages> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut found: Vec<HugePages> = entries
        .filter_map(|entry| {
            let name = entry.file_name();
            let kibi: u64 = name.to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
            let count = fs::read_to_string(entry.path().join("nr_hugepages")).ok()?.trim().parse().ok()?;
            Some(HugePages { size: kibi.checked_mul(1024)?, count })
        })
        .collect();
    found.sort_by_key(|pages| pages.size);
    found
}

/// Go's name of the architecture.
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// A line of /proc/meminfo, in bytes.
pub(super) fn memory(name: &str) -> u64 {
    meminfo(&fs::read_to_string("/proc/meminfo").unwrap_or_default(), name)
}

fn meminfo(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0).saturating_mul(1024)
}

/// The name a distribution gives itself.
fn os_image(text: &str) -> String {
    let value = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    value.map_or_else(|| "Linux".into(), |value| value.trim_matches('"').to_owned())
}

/// A file system's room.
pub(super) struct Disk {
    pub size: u64,
    pub available: u64,
}

pub(super) fn disk(path: &Path) -> Option<Disk> {
    // What will be made later lies where its nearest ancestor lies.
    let there = path.ancestors().find(|path| path.exists())?;
    let found = nix::sys::statvfs::statvfs(there).ok()?;
    let block = found.fragment_size();
    Some(Disk { size: found.blocks().saturating_mul(block), available: found.blocks_available().saturating_mul(block) })
}

/// How many processes there may be, and how many there are.
pub(super) fn processes() -> Option<(u64, u64)> {
    let most = fs::read_to_string("/proc/sys/kernel/pid_max").ok()?.trim().parse().ok()?;
    // `0.5 0.6 0.7 RUNNING/ALL LAST`
    let load = fs::read_to_string("/proc/loadavg").ok()?;
    let now = load.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()?;
    Some((most, now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read() {
        assert_eq!(meminfo("MemTotal:       2048 kB\nMemAvailable:   1024 kB\n", "MemAvailable"), 1024 * 1024);
        assert_eq!(meminfo("", "MemTotal"), 0);
        assert_eq!(
            os_image("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n"),
            "Debian GNU/Linux 12 (bookworm)"
        );
        let dir = tempfile::tempdir().unwrap();
        for (size, count) in [("hugepages-1048576kB", "0\n"), ("hugepages-2048kB", "7\n"), ("other", "1\n")] {
            fs::create_dir(dir.path().join(size)).unwrap();
            fs::write(dir.path().join(size).join("nr_hugepages"), count).unwrap();
        }
        let pages = huge_pages(dir.path());
        assert_eq!(pages, [HugePages { size: 2 << 20, count: 7 }, HugePages { size: 1 << 30, count: 0 }]);
        let names: Vec<_> = pages.iter().map(|pages| (pages.resource(), pages.group_name())).collect();
        assert_eq!(names, [("hugepages-2Mi".into(), "2MB".into()), ("hugepages-1Gi".into(), "1GB".into())]);
        let facts = Facts::read(Path::new("/does/not/exist"));
        assert!(facts.cpus > 0 && facts.memory > 0 && facts.storage > 0 && !facts.kernel.is_empty());
    }
}
