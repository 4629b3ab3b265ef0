//! What of the machine is not for pods (kubernetes `pkg/kubelet/cm/node_container_manager_linux.go`, "Node Allocatable").

use std::str::FromStr;

use coracle_api::quantity::Quantity;

use super::facts::{Facts, HugePages};

/// What is kept for the system and the cluster's own programs: `cpu=500m,memory=1Gi,ephemeral-storage=1Gi,pid=1000`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reserved {
    pub cpu_millis: u64,
    pub memory: u64,
    pub storage: u64,
    pub processes: u64,
}

impl FromStr for Reserved {
    type Err = String;

    /// Upstream's `--system-reserved` and `--kube-reserved`, with its words for what is wrong (`cmd/kubelet/app/server.go`,
    /// `parseResourceList`).
    fn from_str(text: &str) -> Result<Self, String> {
        let mut out = Self::default();
        for entry in text.split(',').filter(|entry| !entry.is_empty()) {
            let (name, value) = entry.split_once('=').ok_or_else(|| format!("{entry:?} is not NAME=QUANTITY"))?;
            let amount = Quantity::parse(value)
                .map_err(|_| format!("failed to parse quantity {value:?} for {name:?} resource"))?;
            if amount.is_negative() {
                return Err(format!("resource quantity for {name:?} cannot be negative: {value}"));
            }
            let whole = u64::try_from(amount.units()).unwrap_or(0);
            match name {
                "cpu" => out.cpu_millis = u64::try_from(amount.millis()).unwrap_or(0),
                "memory" => out.memory = whole,
                "ephemeral-storage" => out.storage = whole,
                "pid" => out.processes = whole,
                _ => return Err(format!("cannot reserve {name:?} resource")),
            }
        }
        Ok(out)
    }
}

impl Reserved {
    /// Both together.
    pub fn plus(self, other: Self) -> Self {
        Self {
            cpu_millis: self.cpu_millis.saturating_add(other.cpu_millis),
            memory: self.memory.saturating_add(other.memory),
            storage: self.storage.saturating_add(other.storage),
            processes: self.processes.saturating_add(other.processes),
        }
    }
}

/// What is left for pods: the limit of their group. What the kubelet evicts below is not taken off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    pub cpu_millis: u64,
    pub memory: u64,
    pub storage: u64,
    /// Not known without /proc.
    pub processes: Option<u64>,
    pub huge_pages: Vec<HugePages>,
}

impl Share {
    pub fn of(facts: &Facts, reserved: Reserved) -> Self {
        Self {
            cpu_millis: facts.cpus.saturating_mul(1000).saturating_sub(reserved.cpu_millis),
            memory: facts.memory.saturating_sub(reserved.memory),
            storage: facts.storage.saturating_sub(reserved.storage),
            processes: facts.processes.map(|most| most.saturating_sub(reserved.processes)),
            huge_pages: facts.huge_pages.clone(),
        }
    }

    /// The memory that is in huge pages, which is no other's.
    pub fn huge(&self) -> u64 {
        self.huge_pages.iter().map(|pages| pages.size.saturating_mul(pages.count)).fold(0, u64::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservations_are_read_as_upstream_reads_them() {
        let read = |text: &str| text.parse::<Reserved>();
        let some = read("cpu=500m,memory=1Gi,ephemeral-storage=2Gi,pid=100").unwrap();
        assert_eq!(some, Reserved { cpu_millis: 500, memory: 1 << 30, storage: 2 << 30, processes: 100 });
        assert_eq!(some.plus(read("cpu=1").unwrap()).cpu_millis, 1500);
        assert_eq!(read("").unwrap(), Reserved::default());
        assert_eq!(read("gpu=1").unwrap_err(), "cannot reserve \"gpu\" resource");
        assert_eq!(read("cpu=-1").unwrap_err(), "resource quantity for \"cpu\" cannot be negative: -1");
        assert!(read("cpu=x").is_err() && read("cpu").is_err());
    }

    #[test]
    fn what_is_reserved_is_not_the_pods() {
        let mut facts = Facts::read(std::path::Path::new("/"));
        (facts.cpus, facts.memory, facts.processes) = (2, 1 << 30, Some(1000));
        facts.huge_pages = vec![HugePages { size: 2 << 20, count: 3 }];
        let share = Share::of(&facts, "cpu=250m,memory=256Mi,pid=10".parse().unwrap());
        assert_eq!((share.cpu_millis, share.memory, share.processes), (1750, 768 << 20, Some(990)));
        assert_eq!(share.huge(), 6 << 20);
        assert_eq!(Share::of(&facts, "memory=2Gi".parse().unwrap()).memory, 0);
    }
}
