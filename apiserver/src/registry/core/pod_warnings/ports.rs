//! Ports of all containers of a pod, each of which is compared with those before it.

use crate::registry::core::windows::containers;
use crate::registry::fields::{items, text};
use crate::registry::warnings::Warnings;
use coracle_api::json::Value;
use coracle_api::status::FieldPath;
use std::collections::HashMap;

pub fn tell(spec: &Value, path: &FieldPath, told: &mut Warnings) {
    let mut known = Known::default();
    for (container, path) in containers(spec, path) {
        for (nth, port) in items(container, "ports").iter().enumerate() {
            if told.is_full() {
                return;
            }
            let (port, path) = (Port::of(port), path.child("ports").index(nth));
            if !port.host_ip.is_empty() && port.host_port == 0 {
                told.at(&path, format_args!("hostIP set without hostPort: {}", port.in_go()));
            }
            for before in known.clashing(&port) {
                let (what, before) = (port.clash(&known.all[before].0), &known.all[before].1);
                told.at(&path, format_args!("{what} port definition with {}", before.as_str()));
            }
            known.add(port, path);
        }
    }
    names(spec, path, told);
}

/// Names that stand there more than once, in containers that run beside each other.
fn names(spec: &Value, path: &FieldPath, told: &mut Warnings) {
    let mut known: HashMap<&str, FieldPath> = HashMap::new();
    for list in ["initContainers", "containers"] {
        let stays = |container: &Value| list == "containers" || text(container, "restartPolicy") == "Always";
        for (nth, container) in items(spec, list).iter().enumerate().filter(|(_, container)| stays(container)) {
            let path = path.child(list).index(nth).child("ports");
            for (nth, port) in items(container, "ports").iter().enumerate() {
                let name = text(port, "name");
                if name.is_empty() {
                    continue;
                }
                let Some(first) = known.get(name) else {
                    known.insert(name, path.index(nth));
                    continue;
                };
                let first = first.as_str();
                let why = format!("services and probes that select ports by name will use {first}");
                told.at(&path.index(nth), format_args!("duplicate port name {name:?} with {first}, {why}"));
            }
        }
    }
}

struct Port<'p> {
    name: &'p str,
    number: i64,
    protocol: &'p str,
    host_port: i64,
    host_ip: &'p str,
}

impl<'p> Port<'p> {
    fn of(port: &'p Value) -> Self {
        let number = |name: &str| port.get(name).and_then(Value::as_i64).unwrap_or(0);
        Self {
            name: text(port, "name"),
            number: number("containerPort"),
            protocol: text(port, "protocol"),
            host_port: number("hostPort"),
            host_ip: text(port, "hostIP"),
        }
    }

    /// As `%+v` prints it.
    fn in_go(&self) -> String {
        let Self { name, number, protocol, host_port, host_ip } = self;
        format!("{{Name:{name} HostPort:{host_port} ContainerPort:{number} Protocol:{protocol} HostIP:{host_ip}}}")
    }

    /// What is wrong with this port beside one that clashes with it.
    fn clash(&self, before: &Self) -> &'static str {
        if (self.host_port, self.host_ip) == (before.host_port, before.host_ip) {
            "duplicate"
        } else if self.host_port == 0 || before.host_port == 0 {
            "overlapping"
        } else {
            "dangerously ambiguous"
        }
    }
}

/// A port of a container.
type Key<'p> = (i64, &'p str);

/// The ports so far. A list may hold tens of thousands that have nothing to do with each other: only those that clash are
/// looked at.
#[derive(Default)]
struct Known<'p> {
    all: Vec<(Port<'p>, FieldPath)>,
    by_key: HashMap<Key<'p>, Vec<usize>>,
    by_host_port: HashMap<(Key<'p>, i64), Vec<usize>>,
    by_place: HashMap<(Key<'p>, i64, &'p str), Vec<usize>>,
}

impl<'p> Known<'p> {
    fn add(&mut self, port: Port<'p>, path: FieldPath) {
        let (nth, key) = (self.all.len(), (port.number, port.protocol));
        self.by_key.entry(key).or_default().push(nth);
        self.by_host_port.entry((key, port.host_port)).or_default().push(nth);
        self.by_place.entry((key, port.host_port, port.host_ip)).or_default().push(nth);
        self.all.push((port, path));
    }

    /// Those that a port clashes with: the same port of a container, where either has no port of the host, or both have the
    /// same one at the same address or at any.
    fn clashing(&self, port: &Port<'p>) -> Vec<usize> {
        let key = (port.number, port.protocol);
        let mut found: Vec<usize> = match (port.host_port, port.host_ip) {
            (0, _) => list(self.by_key.get(&key)).to_vec(),
            (host_port, "") => {
                let same = list(self.by_host_port.get(&(key, host_port)));
                [list(self.by_host_port.get(&(key, 0))), same].concat()
            }
            (host_port, ip) => {
                let of = |ip| list(self.by_place.get(&(key, host_port, ip)));
                [list(self.by_host_port.get(&(key, 0))), of(""), of(ip)].concat()
            }
        };
        found.sort_unstable();
        found
    }
}

fn list(found: Option<&Vec<usize>>) -> &[usize] {
    found.map_or(&[], Vec::as_slice)
}
