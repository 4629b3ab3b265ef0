//! What verbose answers tell of sandboxes and containers, under containerd's names (`internal/cri/server/container_status.go`,
//! `podsandbox/types/sandbox_info.go`): `crictl inspect` and `inspectp` show it, and scripts read it.

use k8s_cri::v1;
use serde::Serialize;
use serde_json::{Map, Value, json};
use tonic::Status;

use super::{convert, status};
use crate::{
    cni,
    engine::{
        Container, Engine, Sandbox,
        model::{self, ContainerConfig, Mount, SandboxConfig, Seccomp, Security},
        spec::{self, LauncherAge},
    },
};

/// Reads it where files are waited for. The one entry of an answer's `info`.
pub async fn read(read: impl FnOnce() -> Value + Send + 'static) -> Result<(String, String), Status> {
    let info = tokio::task::spawn_blocking(read).await.map_err(|error| status(error.into()))?;
    Ok(("info".to_owned(), info.to_string()))
}

pub fn container(engine: &Engine, container: &Container) -> Value {
    // Gone with the machine's last start.
    let mut spec = engine.oci_config(container).unwrap_or_default();
    let security = &container.config.security;
    // In words, where the launcher was given it compiled.
    if spec["linux"]["seccomp"].is_object()
        && let Ok(profile) = spec::seccomp(security, LauncherAge::Unknown)
    {
        spec["linux"]["seccomp"] = profile;
    }
    json!({
        "sandboxID": container.sandbox,
        "pid": container.state().pid,
        "removing": false,
        "snapshotKey": container.id,
        "snapshotter": engine.snapshots().name(),
        "runtimeType": "coracle",
        "config": message(&container_config(container)),
        "runtimeSpec": spec,
    })
}

pub fn sandbox(engine: &Engine, sandbox: &Sandbox) -> Value {
    let (config, state) = (&sandbox.config, sandbox.state());
    let namespaces = engine.namespaces_of(&sandbox.id);
    let network = namespaces.iter().find(|(kind, _)| *kind == "network").map(|(_, path)| path);
    let containers = engine.containers_of(&sandbox.id);
    let mut running: Vec<_> = containers.iter().map(|container| container.state()).collect();
    running.retain(|state| state.status == model::Status::Running);
    // There is no process but those of containers. Whoever asks for one wants to enter the namespaces that they share.
    let pid = running.iter().min_by_key(|state| state.started_at).map_or(0, |state| state.pid);
    let result = engine.network_result(&sandbox.id).map(|result| network_result(&result));
    let (ip, more) = state.ips.split_first().map_or(("", &[][..]), |(ip, more)| (ip.as_str(), more));
    let paths = namespaces.iter().map(|(kind, path)| json!({ "type": kind, "path": path }));
    json!({
        "pid": pid,
        "processStatus": if state.ready { "running" } else { "deleted" },
        "netNamespaceClosed": !config.host_network && network.is_none(),
        "runtimeHandler": config.runtime_handler,
        "runtimeType": "coracle",
        "cgroupParent": config.cgroup_parent,
        "overhead": state.overhead,
        "resources": state.resources,
        "config": message(&sandbox_config(config)),
        "runtimeSpec": {
            "ociVersion": "1.2.0",
            "hostname": config.hostname,
            "annotations": config.annotations,
            "linux": {
                "sysctl": config.sysctls,
                "cgroupsPath": engine.sandbox_group(sandbox),
                "namespaces": paths.collect::<Vec<_>>(),
            },
        },
        "cniResult": result,
        "sandboxMetadata": {
            "Version": "v1",
            "Metadata": {
                "ID": sandbox.id,
                "NetNSPath": network,
                "IP": ip,
                "AdditionalIPs": more,
                "RuntimeHandler": config.runtime_handler,
            },
        },
    })
}

/// A CNI result as go-cni's `Result` has it: addresses by interface.
fn network_result(result: &Value) -> Value {
    let mut interfaces = Map::new();
    let listed = result["interfaces"].as_array().map(Vec::as_slice).unwrap_or_default();
    for interface in listed {
        let name = interface["name"].as_str().unwrap_or_default();
        interfaces.insert(
            name.to_owned(),
            json!({ "IPConfigs": [], "Mac": interface["mac"], "Sandbox": interface["sandbox"] }),
        );
    }
    for address in result["ips"].as_array().into_iter().flatten() {
        let index = address["interface"].as_u64().and_then(|index| usize::try_from(index).ok());
        let name = index.and_then(|index| listed.get(index)?["name"].as_str()).unwrap_or(cni::INTERFACE);
        let ip = address["address"].as_str().and_then(|address| address.split('/').next());
        let of = interfaces.entry(name).or_insert_with(|| json!({ "IPConfigs": [] }));
        if let Some(list) = of["IPConfigs"].as_array_mut() {
            list.push(json!({ "IP": ip, "Gateway": address["gateway"] }));
        }
    }
    json!({ "Interfaces": interfaces, "DNS": [result["dns"]], "Routes": result["routes"] })
}

/// A message as Go writes it: under the names of its fields, without those that say nothing.
fn message(message: &impl Serialize) -> Value {
    fn pruned(value: Value) -> Option<Value> {
        match value {
            Value::Null | Value::Bool(false) => None,
            Value::Number(number) => (number.as_f64() != Some(0.0)).then_some(Value::Number(number)),
            Value::String(text) => (!text.is_empty()).then_some(Value::String(text)),
            Value::Array(items) if items.is_empty() => None,
            // An entry of a list, or of a map, is there whatever it says.
            Value::Array(items) => {
                let whole =
                    |item: Value| if item.is_object() { pruned(item).unwrap_or_else(|| json!({})) } else { item };
                Some(items.into_iter().map(whole).collect())
            }
            Value::Object(members) if members.is_empty() => None,
            Value::Object(members) => {
                let member = |(name, value): (String, Value)| {
                    let map = matches!(name.as_str(), "labels" | "annotations" | "sysctls" | "unified");
                    let empty = value.as_object().is_some_and(Map::is_empty);
                    let value = if map && !empty { Some(value) } else { pruned(value) };
                    Some((name, value?))
                };
                Some(Value::Object(members.into_iter().filter_map(member).collect()))
            }
            other => Some(other),
        }
    }
    serde_json::to_value(message).ok().and_then(pruned).unwrap_or_else(|| json!({}))
}

fn sandbox_config(config: &SandboxConfig) -> v1::PodSandboxConfig {
    let mapping = |mapping: &model::PortMapping| {
        let protocol = match mapping.protocol.as_str() {
            "udp" => v1::Protocol::Udp,
            "sctp" => v1::Protocol::Sctp,
            _ => v1::Protocol::Tcp,
        };
        v1::PortMapping {
            protocol: protocol as i32,
            container_port: mapping.container_port.into(),
            host_port: mapping.host_port.into(),
            host_ip: mapping.host_ip.clone(),
        }
    };
    let security = v1::LinuxSandboxSecurityContext {
        namespace_options: Some(convert::sandbox_namespaces(config)),
        selinux_options: selinux(&config.selinux),
        privileged: config.privileged,
        ..Default::default()
    };
    v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: config.name.clone(),
            uid: config.uid.clone(),
            namespace: config.namespace.clone(),
            attempt: config.attempt,
        }),
        hostname: config.hostname.clone(),
        log_directory: config.log_directory.clone(),
        dns_config: config.dns.clone().map(|dns| v1::DnsConfig {
            servers: dns.servers,
            searches: dns.searches,
            options: dns.options,
        }),
        port_mappings: config.port_mappings.iter().map(mapping).collect(),
        labels: convert::unordered(&config.labels),
        annotations: convert::unordered(&config.annotations),
        linux: Some(v1::LinuxPodSandboxConfig {
            cgroup_parent: config.cgroup_parent.clone(),
            security_context: Some(security),
            sysctls: convert::unordered(&config.sysctls),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn container_config(container: &Container) -> v1::ContainerConfig {
    let ContainerConfig { command, args, working_dir, env, mounts, devices, security, .. } = &container.config;
    let config = &container.config;
    v1::ContainerConfig {
        metadata: Some(convert::container_metadata(container)),
        image: Some(convert::image_spec(container)),
        command: command.clone(),
        args: args.clone(),
        working_dir: working_dir.clone(),
        envs: env.iter().map(|(key, value)| v1::KeyValue { key: key.clone(), value: value.clone() }).collect(),
        mounts: mounts.iter().map(mount).collect(),
        devices: devices
            .iter()
            .map(|device| v1::Device {
                container_path: device.container_path.clone(),
                host_path: device.host_path.clone(),
                permissions: device.permissions.clone(),
            })
            .collect(),
        labels: convert::unordered(&config.labels),
        annotations: convert::unordered(&config.annotations),
        log_path: config.log_path.clone(),
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        tty: config.tty,
        linux: Some(v1::LinuxContainerConfig {
            resources: Some(convert::resources_message(&config.resources)),
            security_context: Some(security_context(security)),
        }),
        cdi_devices: config.cdi_devices.iter().map(|name| v1::CdiDevice { name: name.clone() }).collect(),
        ..Default::default()
    }
}

fn mount(mount: &Mount) -> v1::Mount {
    v1::Mount {
        container_path: mount.container_path.clone(),
        host_path: mount.host_path.clone(),
        readonly: mount.readonly,
        selinux_relabel: mount.relabel,
        propagation: convert::propagation(mount.propagation),
        uid_mappings: convert::id_mapping_messages(&mount.owners.users),
        gid_mappings: convert::id_mapping_messages(&mount.owners.groups),
        recursive_read_only: mount.recursive_read_only,
        image: mount.image.as_ref().map(|image| v1::ImageSpec { image: image.name.clone(), ..Default::default() }),
    }
}

fn security_context(security: &Security) -> v1::LinuxContainerSecurityContext {
    use v1::security_profile::ProfileType;
    let profile = |kind: ProfileType, name: &str| {
        Some(v1::SecurityProfile { profile_type: kind as i32, localhost_ref: name.to_owned() })
    };
    let number = |value: Option<i64>| value.map(|value| v1::Int64Value { value });
    v1::LinuxContainerSecurityContext {
        capabilities: Some(v1::Capability {
            add_capabilities: security.add_capabilities.clone(),
            drop_capabilities: security.drop_capabilities.clone(),
            add_ambient_capabilities: security.add_ambient_capabilities.clone(),
        }),
        privileged: security.privileged,
        namespace_options: Some(v1::NamespaceOption {
            network: convert::namespace_mode(security.host_network),
            ipc: convert::namespace_mode(security.host_ipc),
            pid: match security.pid_of {
                Some(_) => v1::NamespaceMode::Target as i32,
                None => convert::pid_mode(security.host_pid, security.shared_pid),
            },
            target_id: security.pid_of.clone().unwrap_or_default(),
            ..Default::default()
        }),
        selinux_options: selinux(&security.selinux),
        run_as_user: number(security.run_as_user),
        run_as_group: number(security.run_as_group),
        run_as_username: security.run_as_username.clone(),
        readonly_rootfs: security.readonly_rootfs,
        supplemental_groups: security.supplemental_groups.clone(),
        supplemental_groups_policy: i32::from(security.strict_groups),
        no_new_privs: security.no_new_privileges,
        masked_paths: security.masked_paths.clone(),
        readonly_paths: security.readonly_paths.clone(),
        seccomp: match &security.seccomp {
            Seccomp::Unconfined => profile(ProfileType::Unconfined, ""),
            Seccomp::RuntimeDefault => profile(ProfileType::RuntimeDefault, ""),
            Seccomp::Localhost(path) => profile(ProfileType::Localhost, path),
        },
        apparmor: match security.apparmor.as_str() {
            "" => profile(ProfileType::RuntimeDefault, ""),
            crate::engine::apparmor::UNCONFINED => profile(ProfileType::Unconfined, ""),
            name => profile(ProfileType::Localhost, name),
        },
        ..Default::default()
    }
}

/// The options that the engine has as `name:value`.
fn selinux(options: &[String]) -> Option<v1::SeLinuxOption> {
    let option = |name: &str| {
        let value = options.iter().find_map(|option| option.strip_prefix(name)?.strip_prefix(':'));
        value.unwrap_or_default().to_owned()
    };
    (!options.is_empty()).then(|| v1::SeLinuxOption {
        user: option("user"),
        role: option("role"),
        r#type: option("type"),
        level: option("level"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_written_as_go_does() {
        let config = v1::ContainerConfig {
            metadata: Some(v1::ContainerMetadata { name: "a".into(), attempt: 0 }),
            envs: vec![v1::KeyValue { key: "EMPTY".into(), value: String::new() }],
            args: vec![String::new()],
            labels: [("empty".to_owned(), String::new())].into(),
            linux: Some(v1::LinuxContainerConfig {
                security_context: Some(v1::LinuxContainerSecurityContext {
                    run_as_user: Some(v1::Int64Value { value: 0 }),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let expected = json!({
            "metadata": { "name": "a" },
            "envs": [{ "key": "EMPTY" }],
            "args": [""],
            "labels": { "empty": "" },
            "linux": { "security_context": { "run_as_user": {} } },
        });
        assert_eq!(message(&config), expected);
    }

    #[test]
    fn addresses_are_told_by_their_interfaces() {
        let result = json!({
            "interfaces": [{ "name": "veth1" }, { "name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/ns" }],
            "ips": [{ "interface": 1, "address": "10.0.0.2/24", "gateway": "10.0.0.1" }, { "interface": 9, "address": "fd00::2/64" }],
            "routes": [{ "dst": "0.0.0.0/0" }],
        });
        let told = network_result(&result);
        assert_eq!(told["Interfaces"]["eth0"]["IPConfigs"][0], json!({ "IP": "10.0.0.2", "Gateway": "10.0.0.1" }));
        assert_eq!(told["Interfaces"]["eth0"]["IPConfigs"][1]["IP"], "fd00::2");
        assert_eq!(
            (&told["Interfaces"]["eth0"]["Sandbox"], &told["Interfaces"]["veth1"]["IPConfigs"]),
            (&json!("/ns"), &json!([]))
        );
        assert_eq!(told["Routes"][0]["dst"], "0.0.0.0/0");
        for odd in [json!(null), json!({ "ips": [3, null, { "interface": -1 }], "interfaces": "x" })] {
            network_result(&odd);
        }
    }
}
