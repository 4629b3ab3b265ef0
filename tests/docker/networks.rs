//! Networks.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use crate::engine::{Engine, IMAGE, ours_alone};

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
    engine.ok(&["create", "--name", "linked", "--link", "first:alias", IMAGE, "cat", "/etc/hosts"]);
    assert!(engine.ok(&["start", "-a", "linked"]).contains(&format!("{own}\talias")));
    assert_eq!(engine.ok(&["inspect", "-f", "{{.HostConfig.Links}}", "linked"]), "[/first:/linked/alias]");
    let predefined = engine.docker(&["network", "rm", "bridge"]).fails();
    assert!(predefined.contains("is a pre-defined network and cannot be removed"), "{predefined}");
}

#[test]
fn networks_have_both_families_and_lead_out_by_priority() {
    let engine = Engine::start();
    engine.ok(&["network", "create", "--ipv6", "--subnet", "10.90.0.0/24", "--subnet", "fd00:90::/64", "six"]);
    engine.ok(&["run", "-d", "--name", "first", "--network", "six", "--ip6", "fd00:90::77", IMAGE, "sleep", "1000"]);
    let addresses = engine.ok(&["exec", "first", "ip", "-6", "-o", "a", "s", "eth0", "scope", "global"]);
    assert!(addresses.contains("fd00:90::77/64"), "{addresses}");
    let shown =
        "{{with .NetworkSettings.Networks.six}}{{.GlobalIPv6Address}}/{{.GlobalIPv6PrefixLen}} {{.IPv6Gateway}}{{end}}";
    assert_eq!(engine.ok(&["inspect", "-f", shown, "first"]), "fd00:90::77/64 fd00:90::1");
    // By name, over IPv6.
    engine.ok(&["run", "--rm", "--network", "six", IMAGE, "ping", "-6", "-c", "1", "-W", "5", "first"]);
    // An interface without a network's IPv6 address has none of its own making.
    assert_eq!(engine.ok(&["run", "--rm", IMAGE, "ip", "-6", "-o", "a", "s", "eth0"]), "");

    engine.ok(&["network", "create", "--subnet", "10.91.0.0/24", "alpha"]);
    let way_out = || {
        let routes = engine.ok(&["exec", "first", "ip", "-4", "r"]);
        routes.lines().find(|line| line.starts_with("default")).unwrap_or_default().to_owned()
    };
    assert!(way_out().contains("10.90.0.1"), "{}", way_out());
    engine.ok(&["network", "connect", "alpha", "first"]);
    // dockerd before 28 has those with IPv6 come first (libnetwork `sandbox.go`, `Less`).
    let first = engine.since(48, "10.91.0.1", "10.90.0.1");
    assert!(way_out().contains(first), "the first by name: {}", way_out());
    engine.ok(&["network", "disconnect", "alpha", "first"]);
    assert!(way_out().contains("10.90.0.1"), "{}", way_out());
    engine.ok(&["network", "create", "--internal", "inside"]);
    // dockerd of old has one there too, though nothing gets out by it.
    let leads_out = engine.ok(&["run", "--rm", "--network", "inside", IMAGE, "ip", "r"]).contains("default");
    assert_eq!(leads_out, engine.since(44, false, true));
}

#[test]
fn link_local_addresses_are_added_to_the_interface() {
    let engine = Engine::start();
    let own = ["--link-local-ip", "169.254.8.9", "--link-local-ip", "169.254.8.10"];
    engine.ok(&[&["run", "-d", "--name", "first"], &own[..], &[IMAGE, "sleep", "1000"]].concat());
    let addresses = |interface: &str| {
        let shown = engine.ok(&["exec", "first", "ip", "-o", "a", "s", interface]);
        shown.lines().filter_map(|line| line.split_whitespace().nth(3).map(str::to_owned)).collect::<Vec<_>>()
    };
    assert_eq!(addresses("eth0")[1..], ["169.254.8.9/16", "169.254.8.10/16"]);
    let asked = "{{json .NetworkSettings.Networks.bridge.IPAMConfig.LinkLocalIPs}}";
    assert_eq!(engine.ok(&["inspect", "-f", asked, "first"]), r#"["169.254.8.9","169.254.8.10"]"#);
    // A network that a running container joins.
    engine.ok(&["network", "create", "--ipv6", "--subnet", "fd00:98::/64", "six"]);
    engine.ok(&["network", "connect", "--link-local-ip", "fe80::77", "--link-local-ip", "169.254.9.9", "six", "first"]);
    let there = addresses("eth1");
    assert!(there.iter().any(|address| address == "fe80::77/64"), "{there:?}");
    assert!(there.iter().any(|address| address == "169.254.9.9/16"), "{there:?}");
    engine.ok(&["network", "disconnect", "six", "first"]);
    // What belongs to other networks, and what is no address. Since 25.0 dockerd looks at the latter before it tries.
    let connect =
        |address: &str| engine.docker(&["network", "connect", "--link-local-ip", address, "six", "first"]).fails();
    assert!(connect("10.1.2.3").ends_with("invalid link local IP address: 10.1.2.3\n"), "{}", connect("10.1.2.3"));
    for wrong in ["nonsense", "0.0.0.0"] {
        let said = connect(wrong).to_lowercase().replace("link-local", "link local").replace(['[', ']'], "");
        assert!(said.contains(&format!("invalid link local ip address: {wrong}")), "{said}");
    }
    // An interface on a network without IPv6 takes none of its addresses.
    let refused = engine.docker(&["run", "--rm", "--link-local-ip", "fe80::77", IMAGE, "true"]);
    assert!(refused.stderr.contains("link local IPs to [fe80::77/64]: permission denied"), "{}", refused.stderr);
    let refused = engine.docker(&["run", "--rm", "--link-local-ip", "10.1.2.3", IMAGE, "true"]);
    assert_eq!(refused.status.code(), Some(125));
    assert!(refused.stderr.contains("invalid link local IP address: 10.1.2.3"), "{}", refused.stderr);
    if engine.is_peer() {
        // dockerd keeps a place on a network that could not be taken, and then does not start the container with it.
        let kept = engine.docker(&["restart", "-t", "0", "first"]).fails();
        assert!(kept.contains("invalid link local IP address"), "{kept}");
        engine.ok(&["network", "disconnect", "-f", "six", "first"]);
    }
    engine.ok(&["restart", "-t", "0", "first"]);
    assert_eq!(addresses("eth0")[1..], ["169.254.8.9/16", "169.254.8.10/16"]);
}

#[test]
fn containers_that_may_not_speak_to_each_other_do_not() {
    let engine = Engine::start();
    let icc = "com.docker.network.bridge.enable_icc=false";
    engine.ok(&["network", "create", "-o", icc, "--subnet", "10.92.0.0/24", "apart"]);
    engine.ok(&["run", "-d", "--network", "apart", "--ip", "10.92.0.9", IMAGE, "sleep", "1000"]);
    let ask = |address: &str| {
        let asked = engine.docker(&["run", "--rm", "--network", "apart", IMAGE, "ping", "-c", "1", "-W", "1", address]);
        asked.status.success()
    };
    assert!(ask("10.92.0.1"), "the host is reached");
    assert!(!ask("10.92.0.9"), "the neighbour is not");
}

#[test]
fn macvlans_share_a_wire_with_addresses_of_their_own() {
    if ours_alone("dockerd wants a dummy link where no parent is given, which many kernels have not") {
        return;
    }
    let engine = Engine::start();
    engine.ok(&["network", "create", "-d", "macvlan", "--subnet", "10.93.0.0/24", "wire"]);
    let options = ["--network", "wire", "--ip", "10.93.0.9", "--mac-address", "02:00:00:00:00:09"];
    engine.ok(&[&["run", "-d", "--name", "first"], &options[..], &[IMAGE, "sleep", "1000"]].concat());
    assert!(engine.ok(&["exec", "first", "ip", "link", "show", "eth0"]).contains("02:00:00:00:00:09"));
    engine.ok(&["run", "--rm", "--network", "wire", IMAGE, "ping", "-c", "1", "-W", "5", "first"]);
    engine.ok(&["restart", "-t", "0", "first"]);
    assert!(engine.ok(&["exec", "first", "ip", "link", "show", "eth0"]).contains("02:00:00:00:00:09"));
    engine.ok(&["rm", "-f", "first"]);
    engine.ok(&["network", "rm", "wire"]);
    for (parent, why) in [
        ("nothing", "invalid subinterface vlan name nothing, example formatting is eth0.10"),
        ("nothing.x", "unable to parse a valid vlan id from: x (ex. eth0.10 for vlan 10)"),
        ("nothing.5", "-o parent interface does was not found on the host: nothing"),
        ("lo.4095", "vlan id must be between 1-4094, received: 4095"),
        ("lo.1.2", "required interface name format is: name.vlan_id, ex. eth0.10 for vlan 10, instead received lo.1.2"),
        ("lo", "loopback interface is not a valid macvlan parent link"),
    ] {
        let refused =
            engine.docker(&["network", "create", "-d", "macvlan", "-o", &format!("parent={parent}"), "wrong"]);
        assert!(refused.clone().fails().contains(why), "{parent}: {}", refused.stderr);
    }
    assert_eq!(engine.ok(&["network", "ls", "-q", "--filter", "type=custom"]), "");
    let wrong = ["network", "create", "-d", "ipvlan", "-o", "ipvlan_flag=sideways", "wrong"];
    let why = "requested ipvlan flag 'sideways' is not valid, 'bridge' is the ipvlan driver default";
    assert!(engine.docker(&wrong).fails().contains(why));
    let none = engine.docker(&["network", "create", "-d", "ipvlan", "thin"]);
    assert!(none.status.success() || none.stderr.contains("the kernel of this host has no ipvlan"), "{}", none.stderr);
    let links = engine.on_host(&["busybox", "ip", "-o", "link"]).ok();
    assert!(!links.contains("dm-"), "{links}");
}

/// dockerd's own rules lead packets to a published port around the chain in which a host refuses them.
#[test]
fn a_port_that_the_host_refuses_stays_refused_though_it_is_published() {
    let engine = Engine::start();
    let serve = "while true; do echo answer | nc -l -p 80; done";
    engine.ok(&["run", "-d", "-p", "8080:80", "-p", "8081:80", IMAGE, "sh", "-c", serve]);
    engine.ok(&["network", "create", "--subnet", "10.94.0.0/24", "elsewhere"]);
    let asked = |port: &str| {
        engine.docker(&["run", "--rm", "--network", "elsewhere", IMAGE, "nc", "-w", "5", "10.94.0.1", port]).stdout
    };
    // Between two answers nobody listens for a moment.
    let ask = |port: &str| (0..20).map(|_| asked(port)).find(|said| !said.is_empty()).unwrap_or_default();
    assert_eq!(ask("8080"), "answer\n", "through the host, from another network");
    // Somebody on another machine, by a wire of their own.
    let mut outside =
        engine.in_network(&["unshare", "-n", "busybox", "sh", "-c", "echo here; exec busybox sleep 1000"]);
    let mut outside = outside.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(outside.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let (pid, ip) = (outside.id().to_string(), |words: &str| {
        engine.on_host(&[&["ip"], &words.split(' ').collect::<Vec<_>>()[..]].concat()).ok();
    });
    ip(&format!("link add wire type veth peer name far netns {pid}"));
    ip("address add 10.95.0.1/24 dev wire");
    ip("link set wire up");
    let far = |words: &[&str]| engine.on_host(&[&["nsenter", "-t", pid.as_str(), "-n"], words].concat()).stdout;
    far(&["ip", "address", "add", "10.95.0.2/24", "dev", "far"]);
    far(&["ip", "link", "set", "far", "up"]);
    let asked_far = |port: &str| far(&["busybox", "nc", "-w", "5", "10.95.0.1", port]);
    let ask_far = |port: &str| (0..20).map(|_| asked_far(port)).find(|said| !said.is_empty()).unwrap_or_default();
    assert_eq!(ask_far("8080"), "answer\n", "from another machine");
    engine.on_host(&["iptables", "-A", "INPUT", "-p", "tcp", "--dport", "8080", "-j", "REJECT"]).ok();
    assert_eq!(ask("8080"), "");
    assert_eq!(ask("8081"), "answer\n", "only what was refused is");
    assert_eq!(ask_far("8080"), if engine.is_peer() { "answer\n" } else { "" });
    assert_eq!(ask_far("8081"), "answer\n", "only what was refused is");
    outside.kill().unwrap();
    outside.wait().unwrap();
}

#[test]
fn rules_that_somebody_flushed_come_back() {
    if ours_alone("dockerd makes its rules again when firewalld is reloaded only") {
        return;
    }
    let engine = Engine::start();
    engine.ok(&["network", "create", "--internal", "inside"]);
    let rules = || engine.on_host(&["nft", "list", "table", "inet", "coracle-docker"]).stdout;
    let before = rules();
    assert!(before.contains("masquerade"), "{before}");
    for flush in [&["nft", "flush", "ruleset"][..], &["nft", "flush", "table", "inet", "coracle-docker"]] {
        engine.on_host(flush).ok();
        // Each look is a process of its own: a thousand take longer than any daemon to look.
        let back = (0..1000).any(|_| rules() == before);
        assert!(back, "{flush:?}: {}", rules());
    }
}

#[test]
fn many_networks_and_containers_at_once_leave_nothing() {
    let engine = Engine::start();
    let listed = || engine.on_host(&["busybox", "ip", "-o", "link"]).ok();
    let links = || listed().lines().count();
    engine.ok(&["run", "--rm", IMAGE, "true"]);
    // The kernel takes namespaces down by itself, one batch after the other, and pairs (`name@peer`) with them; each look
    // is a process of its own.
    assert!((0..10_000).any(|_| !listed().contains('@')), "a link is left of one container");
    let before = links();
    std::thread::scope(|scope| {
        for number in 0..8 {
            let engine = &engine;
            scope.spawn(move || {
                let (network, name) = (format!("net{number}"), format!("box{number}"));
                for _ in 0..3 {
                    engine.ok(&["network", "create", &network]);
                    engine.ok(&["run", "-d", "--name", &name, "--network", &network, "-P", IMAGE, "sleep", "1000"]);
                    engine.ok(&["rm", "-f", &name]);
                    engine.ok(&["network", "rm", &network]);
                }
            });
        }
    });
    assert_eq!(engine.ok(&["network", "ls", "-q", "--filter", "type=custom"]), "");
    assert!((0..10_000).any(|_| links() == before), "links are left");
}
