//! Networks.

use crate::engine::{Engine, IMAGE};

#[test]
fn names_are_found_on_own_networks_only() {
    let engine = Engine::start();
    engine.ok(&["network", "create", "front"]);
    engine.ok(&["network", "create", "back"]);
    engine.ok(&[
        "run",
        "-d",
        "--name",
        "db",
        "--network",
        "front",
        "--network-alias",
        "search",
        IMAGE,
        "sleep",
        "1000",
    ]);
    let ask = |network: &str, name: &str| {
        engine
            .docker(&["run", "--rm", "--network", network, IMAGE, "ping", "-c", "1", "-W", "2", name])
            .status
            .success()
    };
    assert!(ask("front", "db") && ask("front", "search"));
    assert!(!ask("back", "db") && !ask("bridge", "db"));
    engine.ok(&["network", "connect", "--alias", "later", "back", "db"]);
    assert!(ask("back", "later"));
    engine.ok(&["network", "disconnect", "back", "db"]);
    assert!(!ask("back", "db"));
    let busy = engine.docker(&["network", "rm", "front"]).fails();
    assert!(busy.contains("has active endpoints"), "{busy}");
    engine.ok(&["rm", "-f", "db"]);
    engine.ok(&["network", "rm", "front", "back"]);
}

#[test]
fn ports_are_published_and_taken_ports_are_refused() {
    let engine = Engine::start();
    let serve = "while true; do echo answer | nc -l -p 80; done";
    engine.ok(&["run", "-d", "--name", "web", "-p", "8080:80", "-p", "127.0.0.1::81", IMAGE, "sh", "-c", serve]);
    let ports = engine.ok(&["port", "web"]);
    assert!(ports.contains("80/tcp -> 0.0.0.0:8080") && ports.contains("81/tcp -> 127.0.0.1:"), "{ports}");
    let said = engine.on_host(&["busybox", "nc", "-w", "5", "127.0.0.1", "8080"]);
    assert_eq!(said.stdout, "answer\n");
    let taken = engine.docker(&["run", "--rm", "-p", "8080:80", IMAGE, "true"]);
    assert_eq!(taken.status.code(), Some(125));
    assert!(
        taken.stderr.contains("address already in use") || taken.stderr.contains("port is already allocated"),
        "{}",
        taken.stderr
    );
    engine.ok(&["rm", "-f", "web"]);
    engine.ok(&["run", "--rm", "-p", "8080:80", IMAGE, "true"]);
}

#[test]
fn subnets_addresses_and_modes_are_as_asked() {
    let engine = Engine::start();
    engine.ok(&["network", "create", "--subnet", "182.18.0.0/16", "wide"]);
    let address =
        engine.ok(&["run", "--rm", "--network", "wide", "--ip", "182.18.5.6", IMAGE, "ip", "-4", "a", "s", "eth0"]);
    assert!(address.contains("182.18.5.6/16"), "{address}");
    let overlapping = engine.docker(&["network", "create", "--subnet", "182.18.1.0/24", "narrow"]).fails();
    assert!(overlapping.contains("Pool overlaps with other one on this address space"), "{overlapping}");
    assert_eq!(engine.ok(&["run", "--rm", "--network", "none", IMAGE, "ls", "/sys/class/net"]), "lo");
    engine.ok(&["run", "-d", "--name", "first", IMAGE, "sleep", "1000"]);
    let own = engine.ok(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "first"]);
    let shared = engine.ok(&["run", "--rm", "--network", "container:first", IMAGE, "ip", "-4", "a"]);
    assert!(shared.contains(&own), "{shared}");
    assert!(
        engine
            .ok(&["run", "--rm", "--link", "first:alias", IMAGE, "cat", "/etc/hosts"])
            .contains(&format!("{own}\talias"))
    );
    let predefined = engine.docker(&["network", "rm", "bridge"]).fails();
    assert!(predefined.contains("is a pre-defined network and cannot be removed"), "{predefined}");
}
