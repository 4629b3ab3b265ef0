//! Every field of the body of a create (API 1.50, `ContainerCreate`: ContainerConfig, HostConfig, NetworkingConfig), each
//! alone with a value that is not its default: it is served and shown, or refused by its name, never passed over.

use std::fs;

use serde_json::{Value, json};

use crate::engine::{Engine, IMAGE, ours_alone};

/// What becomes of a field.
enum Outcome {
    /// A container's own process sees it: what a shell prints, of which one is enough where kernels differ.
    Seen(&'static str, &'static [&'static str]),
    /// `inspect` shows it. Where it is at work stands beside it.
    Shown,
    /// What `inspect` shows there is the engine's, as the API's description says of it.
    Engine,
    /// Refused, with these words.
    Refused(&'static str),
}
use Outcome::{Engine as OfEngine, Refused, Seen, Shown};

struct Row {
    /// The field, by dots.
    field: &'static str,
    value: Value,
    /// What else it needs to make sense.
    with: Value,
    outcome: Outcome,
    /// The minor version of the API that brought it.
    since: u32,
    /// Why a peer does otherwise.
    ours: Option<&'static str>,
    /// Words of a refusal before API 1.44.
    older: Option<&'static str>,
}

fn row(field: &'static str, value: Value, outcome: Outcome) -> Row {
    Row { field, value, with: json!({}), outcome, since: 0, ours: None, older: None }
}

impl Row {
    fn with(self, with: Value) -> Row {
        Row { with, ..self }
    }

    fn since(self, minor: u32) -> Row {
        Row { since: minor, ..self }
    }

    fn older(self, words: &'static str) -> Row {
        Row { older: Some(words), ..self }
    }

    fn ours(self, why: &'static str) -> Row {
        Row { ours: Some(why), ..self }
    }

    /// Whether it is asked of this daemon; what is not asked of a peer is told.
    fn is_asked(&self, engine: &Engine) -> bool {
        if engine.is_older(self.since, self.field) {
            return false;
        }
        self.ours.is_none_or(|why| !ours_alone(&format!("{} = {}: {why}", self.field, self.value)))
    }
}

fn config() -> Vec<Row> {
    let health = |field, value, test: bool| {
        let row = row(field, value, Shown);
        if test { row.with(json!({ "Healthcheck": { "Test": ["CMD", "true"] } })) } else { row }
    };
    vec![
        row("Hostname", json!("box"), Seen("hostname", &["box"])),
        row("Domainname", json!("example.org"), Seen("cat /proc/sys/kernel/domainname", &["example.org"])),
        row("User", json!("33"), Seen("id -u", &["33"])),
        // Kept for clients, which read from it what to attach.
        row("AttachStdin", json!(true), Shown),
        row("AttachStdout", json!(true), Shown),
        row("AttachStderr", json!(true), Shown),
        // At work with PublishAllPorts.
        row("ExposedPorts", json!({ "7/tcp": {} }), Shown),
        row("Tty", json!(true), Seen("test -t 1 && echo terminal", &["terminal"])),
        row("OpenStdin", json!(true), Seen("busybox readlink /proc/self/fd/0", &["pipe:"])),
        // At work in `run -i`: containers.rs.
        row("StdinOnce", json!(true), Shown).with(json!({ "OpenStdin": true })),
        row("Env", json!(["COLOUR=red"]), Seen("echo $COLOUR", &["red"])),
        row("Cmd", json!(["echo", "said"]), Seen("", &["said"])),
        // At work in containers.rs.
        health("Healthcheck.Test", json!(["CMD", "true"]), false),
        health("Healthcheck.Interval", json!(7_000_000_000_i64), true),
        health("Healthcheck.Timeout", json!(7_000_000_000_i64), true),
        health("Healthcheck.Retries", json!(7), true),
        health("Healthcheck.StartPeriod", json!(7_000_000_000_i64), true),
        health("Healthcheck.StartInterval", json!(7_000_000_000_i64), true).since(44),
        // Of Windows; kept, as dockerd keeps it.
        row("ArgsEscaped", json!(true), Shown),
        row("Image", json!(IMAGE), Shown),
        row("Volumes", json!({ "/volume": {} }), Seen("mount", &[" /volume "])),
        row("WorkingDir", json!("/tmp"), Seen("pwd", &["/tmp"])),
        row("Entrypoint", json!(["echo", "entry"]), Seen("", &["entry"])),
        row("NetworkDisabled", json!(true), Seen("echo [$(ls /sys/class/net)]", &["[lo]"])),
        row("MacAddress", json!("02:42:00:00:00:09"), Seen("cat /sys/class/net/eth0/address", &["02:42:00:00:00:09"])),
        // For images that are committed from it.
        row("OnBuild", json!(["RUN true"]), Shown),
        row("Labels", json!({ "a": "b" }), Shown),
        // At work in containers.rs.
        row("StopSignal", json!("SIGUSR1"), Shown),
        row("StopTimeout", json!(3), Shown),
        // At work in health checks.
        row("Shell", json!(["/bin/sh", "-ec"]), Shown),
    ]
}

/// A disk of the host.
fn disk() -> String {
    let names = fs::read_dir("/sys/block").unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> =
        names.filter(|name| !["loop", "ram", "zram"].iter().any(|kind| name.starts_with(kind))).collect();
    names.sort();
    format!("/dev/{}", names.last().expect("the host has a disk"))
}

fn limits() -> Vec<Row> {
    let disk = disk();
    let device = |field, key: &str, value: u32, outcome| row(field, json!([{ "Path": disk, key: value }]), outcome);
    let throttled = || Seen("cat /sys/fs/cgroup/blkio/blkio.throttle.*_device /sys/fs/cgroup/io.max", &["1048576"]);
    vec![
        row(
            "HostConfig.CpuShares",
            json!(77),
            Seen("cat /sys/fs/cgroup/cpu/cpu.shares /sys/fs/cgroup/cpu.weight", &["77", "14"]),
        ),
        row(
            "HostConfig.Memory",
            json!(64 << 20),
            Seen("cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max", &["67108864"]),
        ),
        row("HostConfig.CgroupParent", json!("/GROUP/inner"), Seen("cat /proc/self/cgroup", &["/inner/"])),
        row(
            "HostConfig.BlkioWeight",
            json!(77),
            Seen("cat /sys/fs/cgroup/blkio/blkio.*weight /sys/fs/cgroup/io.weight", &["77", "677"]),
        )
        .ours("dockerd knows the weights of CFQ only, not those of BFQ"),
        // At work where the disk's scheduler is BFQ.
        device("HostConfig.BlkioWeightDevice", "Weight", 77, Shown)
            .ours("dockerd knows the weights of CFQ only, not those of BFQ"),
        device("HostConfig.BlkioDeviceReadBps", "Rate", 1 << 20, throttled()),
        device("HostConfig.BlkioDeviceWriteBps", "Rate", 1 << 20, throttled()),
        device("HostConfig.BlkioDeviceReadIOps", "Rate", 1 << 20, throttled()),
        device("HostConfig.BlkioDeviceWriteIOps", "Rate", 1 << 20, throttled()),
        row(
            "HostConfig.CpuPeriod",
            json!(50_000),
            Seen("cat /sys/fs/cgroup/cpu/cpu.cfs_period_us /sys/fs/cgroup/cpu.max", &["50000"]),
        ),
        row(
            "HostConfig.CpuQuota",
            json!(70_000),
            Seen("cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu.max", &["70000"]),
        ),
        row("HostConfig.CpuRealtimePeriod", json!(1_000_000), Refused("CpuRealtimePeriod"))
            .ours("dockerd leaves it to the kernel, at the start"),
        row("HostConfig.CpuRealtimeRuntime", json!(900_000), Refused("CpuRealtimeRuntime"))
            .ours("dockerd leaves it to the kernel, at the start"),
        row("HostConfig.CpusetCpus", json!("0"), Seen("grep Cpus_allowed_list /proc/self/status", &["\t0\n"])),
        row("HostConfig.CpusetMems", json!("0"), Seen("grep Mems_allowed_list /proc/self/status", &["\t0\n"])),
        row(
            "HostConfig.Devices",
            json!([{ "PathOnHost": "/dev/null", "PathInContainer": "/dev/void", "CgroupPermissions": "rwm" }]),
            Seen("echo x >/dev/void && echo gone", &["gone"]),
        ),
        row(
            "HostConfig.DeviceCgroupRules",
            json!(["c 7:9 rwm"]),
            Seen("cat /sys/fs/cgroup/devices/devices.list || echo c 7:9 rwm", &["c 7:9 rwm"]),
        ),
        row(
            "HostConfig.DeviceRequests",
            json!([{ "Driver": "", "Count": 1, "Capabilities": [["gpu"]] }]),
            Refused("could not select device driver \"\" with capabilities: [[gpu]]"),
        )
        .ours("dockerd refuses it in the same words, at the start"),
        row("HostConfig.KernelMemory", json!(64 << 20), Refused("KernelMemory")).ours("dockerd has it until 23.0"),
        row("HostConfig.KernelMemoryTCP", json!(64 << 20), Refused("KernelMemoryTCP"))
            .ours("dockerd has it on the first version of cgroups"),
        row(
            "HostConfig.MemoryReservation",
            json!(32 << 20),
            Seen("cat /sys/fs/cgroup/memory/memory.soft_limit_in_bytes /sys/fs/cgroup/memory.low", &["33554432"]),
        ),
        row(
            "HostConfig.MemorySwap",
            json!(80 << 20),
            Seen(
                "cat /sys/fs/cgroup/memory/memory.memsw.limit_in_bytes /sys/fs/cgroup/memory.swap.max",
                &["83886080", "16777216"],
            ),
        )
        .with(json!({ "HostConfig": { "Memory": 64 << 20 } })),
        row("HostConfig.MemorySwappiness", json!(7), Seen("cat /sys/fs/cgroup/memory/memory.swappiness", &["7"])),
        row(
            "HostConfig.NanoCpus",
            json!(500_000_000),
            Seen("cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu.max", &["50000"]),
        ),
        row(
            "HostConfig.OomKillDisable",
            json!(true),
            Seen("cat /sys/fs/cgroup/memory/memory.oom_control", &["oom_kill_disable 1"]),
        ),
        row("HostConfig.Init", json!(true), Seen("cat /proc/1/comm", &["docker-init"])),
        row(
            "HostConfig.PidsLimit",
            json!(77),
            Seen("cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max", &["77"]),
        ),
        row("HostConfig.Ulimits", json!([{ "Name": "nofile", "Soft": 77, "Hard": 99 }]), Seen("ulimit -n", &["77"])),
        row("HostConfig.CpuCount", json!(1), Refused("CpuCount")).ours("dockerd passes it over, being of Windows"),
        row("HostConfig.CpuPercent", json!(7), Refused("CpuPercent")).ours("dockerd passes it over, being of Windows"),
        row("HostConfig.IOMaximumIOps", json!(7), Refused("IOMaximumIOps"))
            .older("linux does not support configuration of maximum IOPs"),
        row("HostConfig.IOMaximumBandwidth", json!(7), Refused("IOMaximumBandwidth"))
            .older("linux does not support configuration of maximum bandwidth"),
    ]
}

fn host() -> Vec<Row> {
    vec![
        row("HostConfig.Binds", json!(["/tmp:/bound:ro"]), Seen("mount", &[" /bound "])),
        // Written by the CLI.
        row("HostConfig.ContainerIDFile", json!("/nowhere"), Shown),
        row("HostConfig.LogConfig.Type", json!("local"), Shown),
        // At work in logs.rs.
        row("HostConfig.LogConfig.Config", json!({ "max-size": "1m" }), Shown),
        row("HostConfig.NetworkMode", json!("none"), Seen("echo [$(ls /sys/class/net)]", &["[lo]"])),
        // At work in networks.rs.
        row("HostConfig.PortBindings", json!({ "7/tcp": [{ "HostIp": "127.0.0.1", "HostPort": "7007" }] }), Shown),
        row("HostConfig.PublishAllPorts", json!(true), Shown).with(json!({ "ExposedPorts": { "7/tcp": {} } })),
        // At work in restart.rs and containers.rs.
        row("HostConfig.RestartPolicy.Name", json!("always"), Shown),
        row("HostConfig.RestartPolicy.MaximumRetryCount", json!(3), Shown)
            .with(json!({ "HostConfig": { "RestartPolicy": { "Name": "on-failure" } } })),
        row("HostConfig.AutoRemove", json!(true), Shown),
        row("HostConfig.VolumeDriver", json!("strange"), Refused("error looking up volume plugin strange"))
            .ours("dockerd looks for the driver when a volume needs it"),
        row("HostConfig.VolumesFrom", json!(["donor:ro"]), Seen("mount", &[" /donated "])),
        row("HostConfig.ConsoleSize", json!([33, 77]), Seen("stty size", &["33 77"]))
            .with(json!({ "Tty": true }))
            .since(42),
        // Given to the runtime: `config.json`.
        row("HostConfig.Annotations", json!({ "a": "b" }), Shown).since(43),
        row("HostConfig.CapAdd", json!(["SYS_ADMIN"]), Seen("grep CapBnd /proc/self/status", &["a82425fb"])),
        row("HostConfig.CapDrop", json!(["CHOWN"]), Seen("grep CapBnd /proc/self/status", &["a80425fa"])),
        row("HostConfig.CgroupnsMode", json!("private"), Seen("cat /proc/self/cgroup", &[":/\n"])),
        row("HostConfig.Dns", json!(["192.0.2.7"]), Seen("cat /etc/resolv.conf", &["nameserver 192.0.2.7"])),
        row("HostConfig.DnsOptions", json!(["ndots:7"]), Seen("cat /etc/resolv.conf", &["options ndots:7"])),
        row("HostConfig.DnsSearch", json!(["example.org"]), Seen("cat /etc/resolv.conf", &["search example.org"])),
        row("HostConfig.ExtraHosts", json!(["far:192.0.2.7"]), Seen("cat /etc/hosts", &["192.0.2.7\tfar"])),
        row("HostConfig.GroupAdd", json!(["77"]), Seen("id -G", &["77"])),
        row("HostConfig.IpcMode", json!("none"), Seen("mount | grep -c /dev/shm", &["0"])),
        row("HostConfig.Cgroup", json!("container:donor"), Refused("Cgroup")).ours("dockerd passes it over"),
        row("HostConfig.Links", json!(["donor:friend"]), Seen("cat /etc/hosts", &["\tfriend "])),
        row("HostConfig.OomScoreAdj", json!(77), Seen("cat /proc/self/oom_score_adj", &["77"])),
        row("HostConfig.PidMode", json!("container:donor"), Seen("ps", &["sleep 1000"])),
        row("HostConfig.Privileged", json!(true), Seen("ls /dev", &["kmsg"]))
            .ours("runc fails where the machine itself lacks a capability"),
        row("HostConfig.ReadonlyRootfs", json!(true), Seen("touch /file || echo refused", &["refused"])),
        row(
            "HostConfig.SecurityOpt",
            json!(["no-new-privileges"]),
            Seen("grep NoNewPrivs /proc/self/status", &["\t1"]),
        ),
        row("HostConfig.StorageOpt", json!({ "size": "1g" }), Refused("--storage-opt")),
        row("HostConfig.Tmpfs", json!({ "/memory": "size=64k" }), Seen("mount", &[" /memory type tmpfs"])),
        row("HostConfig.UTSMode", json!("host"), Shown),
        row("HostConfig.UsernsMode", json!("private"), Refused("UsernsMode"))
            .ours("dockerd passes over what is not \"host\""),
        row("HostConfig.ShmSize", json!(1 << 20), Seen("mount | grep /dev/shm", &["size=1024k"])),
        row(
            "HostConfig.Sysctls",
            json!({ "net.ipv4.ip_forward": "0" }),
            Seen("cat /proc/sys/net/ipv4/ip_forward", &["0"]),
        ),
        row("HostConfig.Runtime", json!("strange"), Refused("unknown or invalid runtime name: strange"))
            .older("Unknown runtime specified strange"),
        row("HostConfig.Isolation", json!("hyperv"), Refused("invalid isolation (hyperv)"))
            .older("Invalid isolation: \"hyperv\""),
        row("HostConfig.MaskedPaths", json!(["/data/seed"]), Seen("wc -c /data/seed", &["0 /data/seed"])),
        row("HostConfig.ReadonlyPaths", json!(["/data"]), Seen("touch /data/x || echo refused", &["refused"])),
    ]
}

/// Fields of one mount, `HostConfig.Mounts[0]`.
fn mounts() -> Vec<Row> {
    let bind = || json!({ "HostConfig": { "Mounts": [{ "Type": "bind", "Source": "/tmp", "Target": "/m" }] } });
    let readonly = || {
        let mut bind = bind();
        bind["HostConfig"]["Mounts"][0]["ReadOnly"] = json!(true);
        bind
    };
    let volume = || json!({ "HostConfig": { "Mounts": [{ "Type": "volume", "Source": "mine", "Target": "/data" }] } });
    let tmpfs = || json!({ "HostConfig": { "Mounts": [{ "Type": "tmpfs", "Target": "/m" }] } });
    let image = || json!({ "HostConfig": { "Mounts": [{ "Type": "image", "Source": IMAGE, "Target": "/m" }] } });
    vec![
        row("HostConfig.Mounts.0.Target", json!("/other"), Seen("mount", &[" /other "])).with(bind()),
        row("HostConfig.Mounts.0.Source", json!("/etc"), Seen("ls /m", &["passwd"])).with(bind()),
        row("HostConfig.Mounts.0.Type", json!("cluster"), Refused("invalid mount config for type \"cluster\""))
            .with(bind()),
        row("HostConfig.Mounts.0.ReadOnly", json!(true), Seen("touch /m/x || echo refused", &["refused"])).with(bind()),
        // Of other systems; kept, as dockerd keeps it.
        row("HostConfig.Mounts.0.Consistency", json!("cached"), Shown).with(bind()),
        row(
            "HostConfig.Mounts.0.BindOptions.Propagation",
            json!("rslave"),
            Seen("grep ' /m ' /proc/self/mountinfo", &["master:", " /m "]),
        )
        .with(bind())
        .ours("dockerd refuses it where nobody else would see a mount"),
        row(
            "HostConfig.Mounts.0.BindOptions.NonRecursive",
            json!(true),
            Seen("grep -c ' /m/' /proc/self/mountinfo", &["0"]),
        )
        .with(bind()),
        row("HostConfig.Mounts.0.BindOptions.CreateMountpoint", json!(true), Seen("mount", &[" /m "]))
            .with(bind())
            .since(42),
        row("HostConfig.Mounts.0.BindOptions.ReadOnlyNonRecursive", json!(true), Seen("mount", &[" /m "]))
            .with(readonly())
            .since(44),
        row("HostConfig.Mounts.0.BindOptions.ReadOnlyForceRecursive", json!(true), Refused("ReadOnlyForceRecursive"))
            .with(bind())
            .since(44),
        row("HostConfig.Mounts.0.BindOptions.ReadOnlyForceRecursive", json!(true), Seen("mount", &[" /m "]))
            .with(readonly())
            .since(44),
        row("HostConfig.Mounts.0.VolumeOptions.NoCopy", json!(true), Seen("echo [$(ls /data)]", &["[]"]))
            .with(volume()),
        row("HostConfig.Mounts.0.VolumeOptions.Labels", json!({ "a": "b" }), Shown).with(volume()),
        row(
            "HostConfig.Mounts.0.VolumeOptions.DriverConfig.Name",
            json!("strange"),
            Refused("error looking up volume plugin strange"),
        )
        .with(volume()),
        row(
            "HostConfig.Mounts.0.VolumeOptions.DriverConfig.Options",
            json!({ "type": "tmpfs", "device": "tmpfs" }),
            Seen("mount", &[" /data type tmpfs"]),
        )
        .with(volume()),
        row("HostConfig.Mounts.0.VolumeOptions.Subpath", json!("nothing"), Refused("nothing")).with(volume()).since(45),
        row("HostConfig.Mounts.0.TmpfsOptions.SizeBytes", json!(1 << 20), Seen("mount", &[",size=1024k"]))
            .with(tmpfs()),
        row("HostConfig.Mounts.0.TmpfsOptions.Mode", json!(0o700), Seen("mount", &["mode=700"])).with(tmpfs()),
        row("HostConfig.Mounts.0.TmpfsOptions.Options", json!([["nr_inodes", "77"]]), Seen("mount", &["nr_inodes=77"]))
            .with(tmpfs())
            .since(46),
        row("HostConfig.Mounts.0.ImageOptions.Subpath", json!("etc"), Seen("ls /m", &["passwd"]))
            .with(image())
            .since(48),
        row(
            "HostConfig.Mounts.0.ImageOptions",
            json!({ "Subpath": "data" }),
            Refused("field ImageOptions must not be specified"),
        )
        .with(bind())
        .since(48),
        row(
            "HostConfig.Mounts.0.TmpfsOptions",
            json!({ "Mode": 0o700 }),
            Refused("field TmpfsOptions must not be specified"),
        )
        .with(bind())
        .since(44),
        row("HostConfig.Mounts.0.ClusterOptions", json!({}), Refused("field ClusterOptions must not be specified"))
            .with(bind())
            .since(42),
    ]
}

/// Fields of the place on the network `own`.
fn endpoints() -> Vec<Row> {
    let own = || json!({ "HostConfig": { "NetworkMode": "own" } });
    let of = |field, value, outcome| row(field, value, outcome).with(own());
    vec![
        of(
            "NetworkingConfig.EndpointsConfig.own.IPAMConfig.IPv4Address",
            json!("10.77.0.7"),
            Seen("ip -4 addr", &["10.77.0.7/"]),
        ),
        of(
            "NetworkingConfig.EndpointsConfig.own.IPAMConfig.IPv6Address",
            json!("fd77::7"),
            Seen("ip -6 addr", &["fd77::7/"]),
        ),
        of(
            "NetworkingConfig.EndpointsConfig.own.IPAMConfig.LinkLocalIPs",
            json!(["169.254.7.7"]),
            Seen("ip -4 addr", &["169.254.7.7/16"]),
        ),
        // At work in networks.rs.
        of("NetworkingConfig.EndpointsConfig.own.Links", json!(["donor:friend"]), Shown),
        of("NetworkingConfig.EndpointsConfig.own.Aliases", json!(["also"]), Shown),
        of(
            "NetworkingConfig.EndpointsConfig.own.MacAddress",
            json!("02:42:00:00:00:07"),
            Seen("cat /sys/class/net/eth0/address", &["02:42:00:00:00:07"]),
        )
        .since(44),
        of(
            "NetworkingConfig.EndpointsConfig.own.DriverOpts",
            json!({ "com.docker.network.endpoint.ifname": "wire7" }),
            Seen("ls /sys/class/net", &["wire7"]),
        )
        .since(48),
        of(
            "NetworkingConfig.EndpointsConfig.own.DriverOpts",
            json!({ "strange": "1" }),
            Refused("endpoint option strange"),
        )
        .ours("dockerd passes over what it does not know"),
        of("NetworkingConfig.EndpointsConfig.own.GwPriority", json!(7), Shown).since(48),
        // An older dockerd shows these as they were asked for, until the start.
        of("NetworkingConfig.EndpointsConfig.own.NetworkID", json!("77"), OfEngine).since(44),
        of("NetworkingConfig.EndpointsConfig.own.EndpointID", json!("77"), OfEngine).since(44),
        of("NetworkingConfig.EndpointsConfig.own.Gateway", json!("10.77.0.77"), OfEngine).since(44),
        of("NetworkingConfig.EndpointsConfig.own.IPAddress", json!("10.77.0.77"), OfEngine).since(44),
        of("NetworkingConfig.EndpointsConfig.own.IPPrefixLen", json!(7), OfEngine).since(44),
        of("NetworkingConfig.EndpointsConfig.own.IPv6Gateway", json!("fd77::77"), OfEngine).since(44),
        of("NetworkingConfig.EndpointsConfig.own.GlobalIPv6Address", json!("fd77::77"), OfEngine).since(44),
        of("NetworkingConfig.EndpointsConfig.own.GlobalIPv6PrefixLen", json!(7), OfEngine).since(44),
        of("NetworkingConfig.EndpointsConfig.own.DNSNames", json!(["stranger"]), OfEngine).since(44),
    ]
}

/// Puts `value` at a path of names and indices.
fn put(body: &mut Value, field: &str, value: Value) {
    let mut place = body;
    for name in field.split('.') {
        place = match name.parse::<usize>() {
            Ok(index) => &mut place[index],
            Err(_) => &mut place[name],
        };
    }
    *place = value;
}

/// Where `inspect` shows a field of a create.
fn shown<'a>(inspected: &'a Value, field: &str) -> &'a Value {
    let path = match field.strip_prefix("NetworkingConfig.EndpointsConfig.") {
        Some(rest) => format!("NetworkSettings.Networks.{rest}"),
        None if field.starts_with("HostConfig.") => field.to_owned(),
        None => format!("Config.{field}"),
    };
    inspected.pointer(&format!("/{}", path.replace('.', "/"))).unwrap_or(&Value::Null)
}

/// Whether all of `wanted` is in `found`: what the image adds may be there too.
fn holds(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => {
            wanted.iter().all(|(key, value)| found.get(key).is_some_and(|found| holds(found, value)))
        }
        (Value::Array(found), Value::Array(wanted)) => {
            wanted.iter().all(|value| found.iter().any(|found| holds(found, value)))
        }
        // A link that was asked for as `donor:friend` is shown by the paths of both ends; networks.rs has the whole.
        (Value::String(found), Value::String(wanted)) if found.starts_with('/') && wanted == "donor:friend" => {
            found.starts_with("/donor:/") && found.ends_with("/friend")
        }
        // A container that is named is shown by its id.
        (Value::String(found), Value::String(wanted)) if wanted.starts_with("container:") => {
            found.starts_with("container:")
        }
        _ => found == wanted,
    }
}

/// What went wrong with a row, if anything.
fn try_row(engine: &Engine, row: &Row) -> Result<(), String> {
    let mut body = row.with.clone();
    body["Image"] = json!(IMAGE);
    if let Seen(script, _) = &row.outcome
        && !script.is_empty()
    {
        body["Cmd"] = json!(["sh", "-c", format!("{script} 2>/dev/null")]);
    }
    // Below the daemon's own, which the test takes away.
    let value = match row.value.as_str() {
        Some(text) => json!(text.replace("GROUP", engine.group())),
        None => row.value.clone(),
    };
    put(&mut body, row.field, value.clone());
    let (status, answer) = engine.request("POST", "/containers/create", &body);
    if let Refused(words) = row.outcome {
        let words = row.older.filter(|_| engine.minor() < 44).unwrap_or(words);
        let message = answer["message"].as_str().unwrap_or_default();
        return match status {
            400..=599 if message.contains(words) => Ok(()),
            _ => Err(format!("{status} {answer} without {words:?}")),
        };
    }
    let id = answer["Id"].as_str().ok_or_else(|| format!("{status} {answer}"))?;
    let (_, inspected) = engine.request("GET", &format!("/containers/{id}/json"), &Value::Null);
    let found = shown(&inspected, row.field);
    let ours = matches!(row.outcome, OfEngine);
    // An endpoint's address of the Ethernet is shown once it is there.
    let later = row.field.ends_with(".own.MacAddress");
    if holds(found, &value) == ours && !later {
        return Err(format!("inspect shows {found}"));
    }
    let result = match &row.outcome {
        Seen(_, words) => {
            let output = engine.docker(&["start", "-a", id]);
            match words.iter().any(|word| output.stdout.contains(word)) {
                true => Ok(()),
                false => Err(format!("printed {:?} {:?}, not {words:?}", output.stdout, output.stderr)),
            }
        }
        _ => Ok(()),
    };
    engine.request("DELETE", &format!("/containers/{id}?force=1&v=1"), &Value::Null);
    engine.request("DELETE", "/volumes/mine", &Value::Null);
    result
}

fn walk(rows: &[Row]) {
    let engine = Engine::start();
    engine.ok(&["run", "-d", "--name", "donor", "-v", "/donated", IMAGE, "sleep", "1000"]);
    engine.ok(&["network", "create", "--subnet", "10.77.0.0/24", "--ipv6", "--subnet", "fd77::/64", "own"]);
    let wrong: Vec<String> = rows
        .iter()
        .filter(|row| row.is_asked(&engine))
        .filter_map(|row| try_row(&engine, row).err().map(|why| format!("{} = {}: {why}", row.field, row.value)))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_field_of_a_containers_configuration_is_passed_over() {
    walk(&config());
}

#[test]
fn no_limit_is_passed_over() {
    walk(&limits());
}

#[test]
fn no_field_of_the_hosts_part_is_passed_over() {
    walk(&host());
}

#[test]
fn no_field_of_a_mount_or_an_endpoint_is_passed_over() {
    walk(&mounts());
    walk(&endpoints());
}
