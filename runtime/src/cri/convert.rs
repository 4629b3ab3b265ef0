//! Messages to the engine's nouns and back.

use std::collections::{BTreeMap, HashMap};

use coracle_cri::{ContainerStats, ContainerStatus, CpuUsage, IoUsage, MemoryUsage, PsiData, PsiStats, Signal};
use k8s_cri::v1::{self, security_profile::ProfileType};

use crate::{
    cni::Bandwidth,
    engine::{
        Container, Engine, Sandbox, apparmor, cdi,
        model::{
            ContainerConfig, Device, Dns, IdMappings, IdRange, Mount, MountedImage, PortMapping, Propagation,
            Resources, SandboxConfig, Seccomp, Security, Status,
        },
        namespaces::can_map_users,
        selinux,
        stats::{Interface, Pressure, Stats, Wait},
    },
    error::{Error, Result},
    images::catalogue::ImageRecord,
};

fn ordered(map: HashMap<String, String>) -> BTreeMap<String, String> {
    map.into_iter().collect()
}

pub fn unordered(map: &BTreeMap<String, String>) -> HashMap<String, String> {
    map.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

const NODE: i32 = v1::NamespaceMode::Node as i32;

pub fn sandbox_config(config: v1::PodSandboxConfig, runtime_handler: String) -> Result<SandboxConfig> {
    let metadata = config.metadata.ok_or_else(|| Error::invalid("sandbox config must include metadata"))?;
    let linux = config.linux.unwrap_or_default();
    let security = linux.security_context.unwrap_or_default();
    let selinux = selinux(security.selinux_options.as_ref())?;
    let namespaces = security.namespace_options.unwrap_or_default();
    let users = user_namespace(namespaces.userns_options.as_ref())?;
    let has_user = security.run_as_user.is_some();
    check_group(security.run_as_group.as_ref(), has_user)?;
    if !users.is_empty() {
        let shared = [("pid", namespaces.pid), ("ipc", namespaces.ipc)];
        if let Some((kind, _)) = shared.iter().find(|(_, mode)| *mode == NODE) {
            return Err(Error::invalid(format!("a user namespace cannot go with the node's {kind} namespace")));
        }
    }
    let port_mappings = config.port_mappings.into_iter().map(|mapping| {
        let protocol = match mapping.protocol() {
            v1::Protocol::Tcp => "tcp",
            v1::Protocol::Udp => "udp",
            v1::Protocol::Sctp => "sctp",
        };
        let port = |port: i32| u16::try_from(port).map_err(|_| Error::invalid(format!("invalid port {port}")));
        Ok(PortMapping {
            protocol: protocol.into(),
            container_port: port(mapping.container_port)?,
            host_port: port(mapping.host_port)?,
            host_ip: mapping.host_ip,
        })
    });
    let annotations = ordered(config.annotations);
    let host_network = namespaces.network == NODE;
    Ok(SandboxConfig {
        name: metadata.name,
        uid: metadata.uid,
        namespace: metadata.namespace,
        attempt: metadata.attempt,
        hostname: config.hostname,
        log_directory: config.log_directory,
        dns: config.dns_config.map(|dns| Dns { servers: dns.servers, searches: dns.searches, options: dns.options }),
        port_mappings: port_mappings.collect::<Result<_>>()?,
        labels: ordered(config.labels),
        // Of no concern to whoever has the node's network.
        bandwidth: if host_network { Bandwidth::default() } else { Bandwidth::asked_for(&annotations)? },
        annotations,
        cgroup_parent: linux.cgroup_parent,
        sysctls: ordered(linux.sysctls),
        host_network,
        host_ipc: namespaces.ipc == NODE,
        host_pid: namespaces.pid == NODE,
        shared_pid: namespaces.pid == v1::NamespaceMode::Pod as i32,
        privileged: security.privileged,
        runtime_handler,
        selinux,
        users,
        standalone: false,
    })
}

/// The ranges of a sandbox's own users (containerd `internal/cri/server/podsandbox`, `parseUsernsIDs`).
fn user_namespace(options: Option<&v1::UserNamespace>) -> Result<IdMappings> {
    let Some(options) = options else { return Ok(IdMappings::default()) };
    let mode = options.mode();
    let mappings = id_mappings(&options.uids, &options.gids)?;
    let given = !options.uids.is_empty() || !options.gids.is_empty();
    match mode {
        v1::NamespaceMode::Node if given => Err(Error::invalid(format!(
            "can't use user namespace mode {:?} with mappings. Got {} UID mappings and {} GID mappings",
            mode.as_str_name(),
            options.uids.len(),
            options.gids.len()
        ))),
        v1::NamespaceMode::Node => Ok(IdMappings::default()),
        v1::NamespaceMode::Pod if mappings.is_empty() => Err(Error::invalid(format!(
            "can't use user namespace mode {:?} without UID and GID mappings",
            mode.as_str_name()
        ))),
        v1::NamespaceMode::Pod if !can_map_users() => {
            Err(Error::unimplemented("user namespaces need Linux 5.19 or newer"))
        }
        v1::NamespaceMode::Pod => Ok(mappings),
        _ => Err(Error::invalid(format!("unsupported user namespace mode: {:?}", mode.as_str_name()))),
    }
}

fn id_mappings(users: &[v1::IdMapping], groups: &[v1::IdMapping]) -> Result<IdMappings> {
    let range = |mapping: &v1::IdMapping| {
        let fits = |first: u32| first.checked_add(mapping.length).is_some();
        if mapping.length == 0 || !fits(mapping.host_id) || !fits(mapping.container_id) {
            return Err(Error::invalid(format!("invalid mapping length: {}", mapping.length)));
        }
        Ok(IdRange { inside: mapping.container_id, outside: mapping.host_id, size: mapping.length })
    };
    let ranges = |mappings: &[v1::IdMapping]| match mappings.len() {
        0..=340 => mappings.iter().map(range).collect::<Result<Vec<_>>>(),
        count => Err(Error::invalid(format!("{count} mapping lines: the kernel takes 340"))),
    };
    let mappings = IdMappings { users: ranges(users)?, groups: ranges(groups)? };
    if mappings.users.is_empty() != mappings.groups.is_empty() {
        return Err(Error::invalid("UID and GID mappings go together"));
    }
    Ok(mappings)
}

pub fn id_mapping_messages(ranges: &[IdRange]) -> Vec<v1::IdMapping> {
    let of = |range: &IdRange| v1::IdMapping { host_id: range.outside, container_id: range.inside, length: range.size };
    ranges.iter().map(of).collect()
}

pub fn resources(resources: v1::LinuxContainerResources) -> Resources {
    Resources {
        cpu_period: resources.cpu_period,
        cpu_quota: resources.cpu_quota,
        cpu_shares: resources.cpu_shares,
        memory_limit: resources.memory_limit_in_bytes,
        memory_swap_limit: resources.memory_swap_limit_in_bytes,
        oom_score_adj: resources.oom_score_adj,
        cpuset_cpus: resources.cpuset_cpus,
        cpuset_mems: resources.cpuset_mems,
        pids_limit: 0,
        hugepages: resources.hugepage_limits.into_iter().map(|limit| (limit.page_size, limit.limit)).collect(),
        unified: ordered(resources.unified),
    }
}

pub fn resources_message(resources: &Resources) -> v1::LinuxContainerResources {
    v1::LinuxContainerResources {
        cpu_period: resources.cpu_period,
        cpu_quota: resources.cpu_quota,
        cpu_shares: resources.cpu_shares,
        memory_limit_in_bytes: resources.memory_limit,
        memory_swap_limit_in_bytes: resources.memory_swap_limit,
        oom_score_adj: resources.oom_score_adj,
        cpuset_cpus: resources.cpuset_cpus.clone(),
        cpuset_mems: resources.cpuset_mems.clone(),
        hugepage_limits: resources
            .hugepages
            .iter()
            .map(|(page_size, limit)| v1::HugepageLimit { page_size: page_size.clone(), limit: *limit })
            .collect(),
        unified: unordered(&resources.unified),
    }
}

pub fn container_config(config: coracle_cri::ContainerConfig) -> Result<ContainerConfig> {
    let metadata = config.metadata.ok_or_else(|| Error::invalid("container config must include metadata"))?;
    let image = config.image.ok_or_else(|| Error::invalid("container config must include an image"))?;
    let stop_signal = Signal::try_from(config.stop_signal)
        .map_err(|_| Error::invalid(format!("unknown stop signal {}", config.stop_signal)))?
        .number();
    let linux = config.linux.unwrap_or_default();
    let annotations = ordered(config.annotations);
    let cdi_devices = config.cdi_devices.into_iter().map(|device| device.name).collect();
    Ok(ContainerConfig {
        name: metadata.name,
        attempt: metadata.attempt,
        image: image.image,
        user_image: image.user_specified_image,
        image_annotations: ordered(image.annotations),
        image_handler: image.runtime_handler,
        command: config.command,
        args: config.args,
        working_dir: config.working_dir,
        // The OCI specification is JSON, which has text alone: containerd, too, puts U+FFFD in place of other bytes.
        env: config
            .envs
            .into_iter()
            .map(|entry| (entry.key, String::from_utf8_lossy(&entry.value).into_owned()))
            .collect(),
        mounts: config.mounts.into_iter().map(mount).collect::<Result<_>>()?,
        devices: config
            .devices
            .into_iter()
            .map(|device| Device {
                container_path: device.container_path,
                host_path: device.host_path,
                permissions: device.permissions,
            })
            .collect(),
        labels: ordered(config.labels),
        cdi_devices: cdi::asked_for(cdi_devices, &annotations),
        annotations,
        log_path: config.log_path,
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        tty: config.tty,
        stop_signal,
        resources: linux.resources.map(resources).unwrap_or_default(),
        security: security(linux.security_context.unwrap_or_default())?,
    })
}

fn mount(mount: coracle_cri::Mount) -> Result<Mount> {
    let image = mount.image.as_ref().filter(|image| !image.image.is_empty());
    if image.is_none() && !mount.image_sub_path.is_empty() {
        let (path, part) = (mount.container_path, mount.image_sub_path);
        return Err(Error::invalid(format!("mount at {path:?} has a part {part:?} of no image")));
    }
    if image.is_some() && !mount.host_path.is_empty() {
        return Err(Error::invalid(format!("mount at {:?} has both an image and a host path", mount.container_path)));
    }
    let owners = id_mappings(&mount.uid_mappings, &mount.gid_mappings)?;
    let propagation = match mount.propagation() {
        v1::MountPropagation::PropagationPrivate => Propagation::Private,
        v1::MountPropagation::PropagationHostToContainer => Propagation::HostToContainer,
        v1::MountPropagation::PropagationBidirectional => Propagation::Bidirectional,
    };
    Ok(Mount {
        container_path: mount.container_path,
        host_path: mount.host_path,
        readonly: mount.readonly,
        recursive_read_only: mount.recursive_read_only,
        propagation,
        relabel: mount.selinux_relabel,
        owners,
        image: image.map(|image| MountedImage {
            name: image.image.clone(),
            sub_path: mount.image_sub_path.clone(),
            ..MountedImage::default()
        }),
    })
}

/// SELinux's options as the engine takes them (containerd `internal/cri/server`, `toLabel`). What a level looks like is looked
/// at everywhere; the rest does nothing where the kernel has no SELinux.
fn selinux(options: Option<&v1::SeLinuxOption>) -> Result<Vec<String>> {
    let Some(options) = options else { return Ok(Vec::new()) };
    selinux::check_level(&options.level).map_err(|error| error.context("failed to init selinux options"))?;
    let parts =
        [("user", &options.user), ("role", &options.role), ("type", &options.r#type), ("level", &options.level)];
    Ok(parts.iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| format!("{name}:{value}")).collect())
}

/// A group goes with a user (`LinuxContainerSecurityContext.run_as_group`: "otherwise, the runtime MUST error").
fn check_group(group: Option<&v1::Int64Value>, has_user: bool) -> Result<()> {
    match group {
        Some(group) if !has_user => {
            Err(Error::invalid(format!("user group \"{}\" is specified without user", group.value)))
        }
        _ => Ok(()),
    }
}

/// The filter to run under: what the message says, or its older, textual form (containerd `internal/cri/server`,
/// `generateSeccompSecurityProfile`).
fn seccomp(profile: Option<v1::SecurityProfile>, text: &str) -> Result<Seccomp> {
    if let Some(profile) = profile {
        return Ok(match profile.profile_type() {
            ProfileType::RuntimeDefault => Seccomp::RuntimeDefault,
            ProfileType::Unconfined => Seccomp::Unconfined,
            ProfileType::Localhost => Seccomp::Localhost(profile.localhost_ref),
        });
    }
    match text {
        "" | "unconfined" => Ok(Seccomp::Unconfined),
        "runtime/default" | "docker/default" => Ok(Seccomp::RuntimeDefault),
        _ => match text.strip_prefix("localhost/") {
            Some(path) => Ok(Seccomp::Localhost(path.to_owned())),
            None => Err(Error::invalid(format!("invalid seccomp profile {text:?}"))),
        },
    }
}

fn security(security: v1::LinuxContainerSecurityContext) -> Result<Security> {
    let has_user = security.run_as_user.is_some() || !security.run_as_username.is_empty();
    check_group(security.run_as_group.as_ref(), has_user)?;
    let strict_groups = match v1::SupplementalGroupsPolicy::try_from(security.supplemental_groups_policy) {
        Ok(policy) => policy == v1::SupplementalGroupsPolicy::Strict,
        Err(_) => {
            let number = security.supplemental_groups_policy;
            return Err(Error::invalid(format!("unsupported supplementalGroupsPolicy: {number}")));
        }
    };
    let apparmor = apparmor(&security)?;
    #[expect(deprecated, reason = "older clients say nothing else")]
    let seccomp = seccomp(security.seccomp, &security.seccomp_profile_path)?;
    let capabilities = security.capabilities.unwrap_or_default();
    let namespaces = security.namespace_options.unwrap_or_default();
    let selinux = selinux(security.selinux_options.as_ref())?;
    let users = namespaces.userns_options.as_ref().map(|options| user_namespace(Some(options))).transpose()?;
    let pid_of = (namespaces.pid == v1::NamespaceMode::Target as i32).then_some(namespaces.target_id);
    Ok(Security {
        add_capabilities: capabilities.add_capabilities,
        drop_capabilities: capabilities.drop_capabilities,
        add_ambient_capabilities: capabilities.add_ambient_capabilities,
        privileged: security.privileged,
        host_network: namespaces.network == NODE,
        host_pid: namespaces.pid == NODE,
        host_ipc: namespaces.ipc == NODE,
        shared_pid: namespaces.pid == v1::NamespaceMode::Pod as i32,
        pid_of,
        users,
        run_as_user: security.run_as_user.map(|value| value.value),
        run_as_group: security.run_as_group.map(|value| value.value),
        run_as_username: security.run_as_username,
        readonly_rootfs: security.readonly_rootfs,
        supplemental_groups: security.supplemental_groups,
        strict_groups,
        no_new_privileges: security.no_new_privs,
        masked_paths: security.masked_paths,
        readonly_paths: security.readonly_paths,
        seccomp,
        apparmor,
        selinux,
    })
}

/// The AppArmor profile to run under; empty for the default one, which is also that of a container that says nothing. What
/// is asked for and cannot be applied is refused (containerd `internal/cri/server/container_create.go`).
fn apparmor(security: &v1::LinuxContainerSecurityContext) -> Result<String> {
    let enabled = apparmor::enabled();
    let unsupported = |what: &str| Error::invalid(format!("apparmor is not supported: {what} cannot be applied"));
    match apparmor_wish(security)? {
        (ProfileType::Localhost, name) => {
            apparmor::check_name(&name)?;
            if enabled { Ok(name) } else { Err(unsupported(&format!("profile {name:?}"))) }
        }
        (ProfileType::RuntimeDefault, _) if security.apparmor.is_some() && !enabled => {
            Err(unsupported("the runtime's default profile"))
        }
        (ProfileType::RuntimeDefault, _) => Ok(String::new()),
        (ProfileType::Unconfined, _) => Ok(apparmor::UNCONFINED.into()),
    }
}

/// What the message says, or its older, textual form.
fn apparmor_wish(security: &v1::LinuxContainerSecurityContext) -> Result<(ProfileType, String)> {
    if let Some(profile) = &security.apparmor {
        let name = profile.localhost_ref.strip_prefix("localhost/").unwrap_or(&profile.localhost_ref);
        return Ok((profile.profile_type(), name.to_owned()));
    }
    #[expect(deprecated, reason = "clients of before Kubernetes 1.30 say nothing else")]
    let text = security.apparmor_profile.as_str();
    match text {
        "" | "runtime/default" => Ok((ProfileType::RuntimeDefault, String::new())),
        "unconfined" => Ok((ProfileType::Unconfined, String::new())),
        _ => match text.strip_prefix("localhost/") {
            Some(name) => Ok((ProfileType::Localhost, name.to_owned())),
            None => Err(Error::invalid(format!("invalid apparmor profile {text:?}"))),
        },
    }
}

pub fn sandbox_metadata(sandbox: &Sandbox) -> v1::PodSandboxMetadata {
    let config = &sandbox.config;
    v1::PodSandboxMetadata {
        name: config.name.clone(),
        uid: config.uid.clone(),
        namespace: config.namespace.clone(),
        attempt: config.attempt,
    }
}

fn sandbox_state(sandbox: &Sandbox) -> i32 {
    let state =
        if sandbox.state().ready { v1::PodSandboxState::SandboxReady } else { v1::PodSandboxState::SandboxNotready };
    state as i32
}

pub fn sandbox_summary(sandbox: &Sandbox) -> v1::PodSandbox {
    v1::PodSandbox {
        id: sandbox.id.clone(),
        metadata: Some(sandbox_metadata(sandbox)),
        state: sandbox_state(sandbox),
        created_at: sandbox.state().created_at,
        labels: unordered(&sandbox.config.labels),
        annotations: unordered(&sandbox.config.annotations),
        runtime_handler: sandbox.config.runtime_handler.clone(),
    }
}

/// What `Status` tells whoever asks for more, under containerd's names.
pub fn runtime_info(engine: &Engine, network_problem: Option<&str>) -> HashMap<String, String> {
    let mut info = HashMap::from([
        ("config".to_owned(), engine.settings().to_string()),
        ("lastCNILoadStatus".to_owned(), network_problem.unwrap_or("OK").to_owned()),
    ]);
    info.extend(engine.network_settings().map(|network| ("cniconfig".to_owned(), network.to_string())));
    info
}

pub fn namespace_mode(host: bool) -> i32 {
    if host { NODE } else { v1::NamespaceMode::Pod as i32 }
}

pub fn pid_mode(host: bool, shared: bool) -> i32 {
    if host || shared { namespace_mode(host) } else { v1::NamespaceMode::Container as i32 }
}

pub fn sandbox_namespaces(config: &SandboxConfig) -> v1::NamespaceOption {
    v1::NamespaceOption {
        network: namespace_mode(config.host_network),
        ipc: namespace_mode(config.host_ipc),
        pid: pid_mode(config.host_pid, config.shared_pid),
        userns_options: (!config.users.is_empty()).then(|| v1::UserNamespace {
            mode: v1::NamespaceMode::Pod as i32,
            uids: id_mapping_messages(&config.users.users),
            gids: id_mapping_messages(&config.users.groups),
        }),
        ..Default::default()
    }
}

pub fn sandbox_status(sandbox: &Sandbox) -> v1::PodSandboxStatus {
    let (config, state) = (&sandbox.config, sandbox.state());
    let options = sandbox_namespaces(config);
    // A stopped one's may be another's by now (containerd `internal/cri/server/sandbox_status.go`, `getIPs`).
    let mut ips = state.ips.into_iter().filter(|_| state.ready);
    let network = ips
        .next()
        .map(|ip| v1::PodSandboxNetworkStatus { ip, additional_ips: ips.map(|ip| v1::PodIp { ip }).collect() });
    v1::PodSandboxStatus {
        id: sandbox.id.clone(),
        metadata: Some(sandbox_metadata(sandbox)),
        state: sandbox_state(sandbox),
        created_at: state.created_at,
        network: Some(network.unwrap_or_default()),
        linux: Some(v1::LinuxPodSandboxStatus { namespaces: Some(v1::Namespace { options: Some(options) }) }),
        labels: unordered(&config.labels),
        annotations: unordered(&config.annotations),
        runtime_handler: config.runtime_handler.clone(),
    }
}

pub fn container_state(status: Status) -> v1::ContainerState {
    match status {
        Status::Created => v1::ContainerState::ContainerCreated,
        Status::Running => v1::ContainerState::ContainerRunning,
        Status::Exited => v1::ContainerState::ContainerExited,
    }
}

pub fn container_metadata(container: &Container) -> v1::ContainerMetadata {
    v1::ContainerMetadata { name: container.config.name.clone(), attempt: container.config.attempt }
}

pub fn image_spec(container: &Container) -> v1::ImageSpec {
    v1::ImageSpec {
        image: container.config.image.clone(),
        user_specified_image: container.config.user_image.clone(),
        annotations: unordered(&container.config.image_annotations),
        runtime_handler: container.config.image_handler.clone(),
    }
}

pub fn container_summary(container: &Container) -> v1::Container {
    let state = container.state();
    v1::Container {
        id: container.id.clone(),
        pod_sandbox_id: container.sandbox.clone(),
        metadata: Some(container_metadata(container)),
        image: Some(image_spec(container)),
        image_ref: container.image.reference.clone(),
        state: container_state(state.status) as i32,
        created_at: state.created_at,
        labels: unordered(&container.config.labels),
        annotations: unordered(&container.config.annotations),
        image_id: container.image.id.to_string(),
    }
}

pub fn propagation(propagation: Propagation) -> i32 {
    let propagation = match propagation {
        Propagation::Private => v1::MountPropagation::PropagationPrivate,
        Propagation::HostToContainer => v1::MountPropagation::PropagationHostToContainer,
        Propagation::Bidirectional => v1::MountPropagation::PropagationBidirectional,
    };
    propagation as i32
}

/// `tags` are the image's names now: the status shows the name the user knows.
pub fn container_status(container: &Container, tags: &[String]) -> ContainerStatus {
    let (config, state) = (&container.config, container.state());
    let mounts = config.mounts.iter().map(|mount| coracle_cri::Mount {
        container_path: mount.container_path.clone(),
        host_path: mount.host_path.clone(),
        readonly: mount.readonly,
        propagation: propagation(mount.propagation),
        recursive_read_only: mount.recursive_read_only,
        selinux_relabel: mount.relabel,
        uid_mappings: id_mapping_messages(&mount.owners.users),
        gid_mappings: id_mapping_messages(&mount.owners.groups),
        image: mount.image.as_ref().map(|image| coracle_cri::ImageSpec {
            image: image.name.clone(),
            image_ref: image.reference.clone(),
            ..Default::default()
        }),
        image_sub_path: mount.image.as_ref().map(|image| image.sub_path.clone()).unwrap_or_default(),
    });
    let user = container.user();
    let user = v1::LinuxContainerUser {
        uid: user.uid.into(),
        gid: user.gid.into(),
        supplemental_groups: user.groups.iter().map(|&gid| gid.into()).collect(),
    };
    let image = coracle_cri::ImageSpec {
        image: tags.first().cloned().unwrap_or_else(|| config.image.clone()),
        user_specified_image: config.user_image.clone(),
        annotations: unordered(&config.image_annotations),
        runtime_handler: config.image_handler.clone(),
        ..Default::default()
    };
    ContainerStatus {
        id: container.id.clone(),
        metadata: Some(container_metadata(container)),
        state: container_state(state.status) as i32,
        created_at: state.created_at,
        started_at: state.started_at,
        finished_at: state.finished_at,
        exit_code: state.exit_code,
        image: Some(image),
        image_ref: container.image.reference.clone(),
        reason: state.reason.clone(),
        message: state.message.clone(),
        labels: unordered(&config.labels),
        annotations: unordered(&config.annotations),
        mounts: mounts.collect(),
        log_path: container.log_path.clone(),
        resources: Some(v1::ContainerResources { linux: Some(resources_message(&state.resources)), windows: None }),
        image_id: container.image.id.to_string(),
        user: Some(v1::ContainerUser { linux: Some(user) }),
        stop_signal: Signal::of_number(container.stop_signal()).unwrap_or_default() as i32,
    }
}

fn value(value: u64) -> Option<v1::UInt64Value> {
    Some(v1::UInt64Value { value })
}

pub fn cpu_usage(stats: &Stats) -> CpuUsage {
    CpuUsage {
        timestamp: stats.at,
        usage_core_nano_seconds: value(stats.cpu_total),
        usage_nano_cores: stats.cpu_rate.and_then(value),
        psi: stats.cpu_pressure.as_ref().map(pressure),
    }
}

pub fn memory_usage(stats: &Stats) -> MemoryUsage {
    MemoryUsage {
        timestamp: stats.at,
        working_set_bytes: value(stats.working_set),
        available_bytes: value(stats.available),
        usage_bytes: value(stats.memory_usage),
        rss_bytes: value(stats.rss),
        page_faults: value(stats.page_faults),
        major_page_faults: value(stats.major_page_faults),
        psi: stats.memory_pressure.as_ref().map(pressure),
    }
}

/// None where the kernel does not measure it.
pub fn io_usage(stats: &Stats) -> Option<IoUsage> {
    let psi = Some(pressure(stats.io_pressure.as_ref()?));
    Some(IoUsage { timestamp: stats.at, psi })
}

fn pressure(pressure: &Pressure) -> PsiStats {
    let data = |wait: &Wait| PsiData {
        total: wait.total,
        avg10: wait.averages[0],
        avg60: wait.averages[1],
        avg300: wait.averages[2],
    };
    PsiStats { full: Some(data(&pressure.full)), some: Some(data(&pressure.some)) }
}

/// None where there is no network of one's own. The first interface is the one that CNI made.
pub fn network_usage(at: i64, interfaces: &[Interface]) -> Option<v1::NetworkUsage> {
    let usage = |interface: &Interface| v1::NetworkInterfaceUsage {
        name: interface.name.clone(),
        rx_bytes: value(interface.received.bytes),
        rx_errors: value(interface.received.errors),
        tx_bytes: value(interface.sent.bytes),
        tx_errors: value(interface.sent.errors),
    };
    let mut interfaces = interfaces.iter().map(usage);
    let default_interface = Some(interfaces.next()?);
    Some(v1::NetworkUsage { timestamp: at, default_interface, interfaces: interfaces.collect() })
}

/// `stats` are none of a container that does not run: nothing is told of what it uses then, as 0 would be told of an idle one.
pub fn container_stats(container: &Container, stats: Option<&Stats>, writable: v1::FilesystemUsage) -> ContainerStats {
    ContainerStats {
        attributes: Some(v1::ContainerAttributes {
            id: container.id.clone(),
            metadata: Some(container_metadata(container)),
            labels: unordered(&container.config.labels),
            annotations: unordered(&container.config.annotations),
        }),
        cpu: stats.map(cpu_usage),
        memory: stats.map(memory_usage),
        writable_layer: Some(writable),
        swap: stats.map(swap_usage),
        io: stats.and_then(io_usage),
    }
}

fn swap_usage(stats: &Stats) -> v1::SwapUsage {
    v1::SwapUsage {
        timestamp: stats.at,
        swap_available_bytes: stats.swap_limit.and_then(|limit| value(limit.saturating_sub(stats.swap))),
        swap_usage_bytes: value(stats.swap),
    }
}

pub fn sandbox_attributes(sandbox: &Sandbox) -> v1::PodSandboxAttributes {
    v1::PodSandboxAttributes {
        id: sandbox.id.clone(),
        metadata: Some(sandbox_metadata(sandbox)),
        labels: unordered(&sandbox.config.labels),
        annotations: unordered(&sandbox.config.annotations),
    }
}

pub fn filesystem_usage(mountpoint: String, at: i64, bytes: u64, inodes: u64) -> v1::FilesystemUsage {
    v1::FilesystemUsage {
        timestamp: at,
        fs_id: Some(v1::FilesystemIdentifier { mountpoint }),
        used_bytes: value(bytes),
        inodes_used: value(inodes),
    }
}

pub fn image(record: &ImageRecord) -> v1::Image {
    let user = record.user.split(':').next().unwrap_or_default();
    let uid = user.parse::<i64>().ok();
    v1::Image {
        id: record.id.to_string(),
        repo_tags: record.tags.clone(),
        repo_digests: record.repo_digests.clone(),
        size: record.size,
        uid: uid.map(|value| v1::Int64Value { value }),
        username: if uid.is_none() { user.to_owned() } else { String::new() },
        spec: None,
        pinned: record.pinned,
    }
}

/// Whether every label asked for is there.
pub fn selected(labels: &BTreeMap<String, String>, selector: &HashMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(deprecated, reason = "the older form is what is tested")]
    fn a_filter_may_be_asked_for_in_words() {
        let text = |text: &str| {
            security(v1::LinuxContainerSecurityContext { seccomp_profile_path: text.into(), ..Default::default() })
        };
        for (asked, filter) in [
            ("", Seccomp::Unconfined),
            ("unconfined", Seccomp::Unconfined),
            ("runtime/default", Seccomp::RuntimeDefault),
            ("docker/default", Seccomp::RuntimeDefault),
            ("localhost/a/b", Seccomp::Localhost("a/b".into())),
        ] {
            assert_eq!(text(asked).unwrap().seccomp, filter, "{asked}");
        }
        assert_eq!(text("default").unwrap_err().to_string(), "invalid seccomp profile \"default\"");
        let given = v1::SecurityProfile { profile_type: ProfileType::Unconfined as i32, ..Default::default() };
        let both = v1::LinuxContainerSecurityContext {
            seccomp: Some(given),
            seccomp_profile_path: "runtime/default".into(),
            ..Default::default()
        };
        assert_eq!(security(both).unwrap().seccomp, Seccomp::Unconfined);
    }

    #[test]
    fn a_group_goes_with_a_user_and_a_policy_is_known() {
        let with = |user: Option<i64>, name: &str, policy: i32| {
            let number = |value| v1::Int64Value { value };
            security(v1::LinuxContainerSecurityContext {
                run_as_user: user.map(number),
                run_as_username: name.into(),
                run_as_group: Some(number(5)),
                supplemental_groups_policy: policy,
                ..Default::default()
            })
        };
        assert!(with(Some(1), "", 0).is_ok() && with(None, "web", 1).unwrap().strict_groups);
        assert_eq!(with(None, "", 0).unwrap_err().to_string(), "user group \"5\" is specified without user");
        assert_eq!(with(Some(1), "", 2).unwrap_err().to_string(), "unsupported supplementalGroupsPolicy: 2");
    }

    #[test]
    fn selinux_options_are_passed_on_and_levels_looked_at() {
        let of = |level: &str| {
            let given = v1::SeLinuxOption { r#type: "spc_t".into(), level: level.to_owned(), ..Default::default() };
            let selinux_options = Some(given);
            let of_sandbox =
                v1::LinuxSandboxSecurityContext { selinux_options: selinux_options.clone(), ..Default::default() };
            let config = v1::PodSandboxConfig {
                metadata: Some(v1::PodSandboxMetadata::default()),
                linux: Some(v1::LinuxPodSandboxConfig { security_context: Some(of_sandbox), ..Default::default() }),
                ..Default::default()
            };
            let of_container = v1::LinuxContainerSecurityContext { selinux_options, ..Default::default() };
            let sandbox = sandbox_config(config, String::new()).map(|config| config.selinux);
            (sandbox, security(of_container).map(|security| security.selinux))
        };
        let (sandbox, container) = of("s0:c1,c2");
        assert_eq!(sandbox.unwrap(), ["type:spc_t", "level:s0:c1,c2"]);
        assert_eq!(container.unwrap(), ["type:spc_t", "level:s0:c1,c2"]);
        let (sandbox, container) = of("s0,c1,c2");
        for refused in [sandbox, container] {
            assert!(refused.unwrap_err().to_string().contains("the format of 'level' \"s0,c1,c2\" is not correct"));
        }
    }
}
