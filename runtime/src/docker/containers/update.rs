//! `update` and `rename`.

use serde::Deserialize;
use serde_json::json;

use super::{
    super::{
        http::{Answer, Call, Problem, no_content, ok},
        types::{HostConfig, RestartPolicy},
    },
    create::name_taken,
    names, options, spec,
};

pub async fn rename(call: Call) -> Answer {
    let wanted = call.query.text("name").trim_start_matches('/').to_owned();
    if wanted.is_empty() {
        return Err(Problem::bad("Neither old nor new names may be empty"));
    }
    let container = call.docker.own_container(call.name())?;
    let new_name =
        |problem: Problem| Problem::new(problem.status, format!("Error when allocating new name: {}", problem.message));
    names::check(&wanted).map_err(|problem| {
        // dockerd has put the slash before it by now.
        new_name(Problem::bad(problem.message.replace(&format!("({wanted})"), &format!("(/{wanted})"))))
    })?;
    let _changing = container.changing.lock().await;
    let before = container.name();
    if before == wanted {
        return Err(Problem::bad("Renaming a container with the same name as its current name"));
    }
    call.docker.store.reserve(&wanted, &container.id).map_err(|owner| new_name(name_taken(&wanted, &owner)))?;
    let changed = call.docker.change(&container, |record| {
        record.name = wanted.clone();
        for endpoint in record.networks.values_mut() {
            for name in endpoint.dns_names.iter_mut().flatten().filter(|name| **name == before) {
                name.clone_from(&wanted);
            }
        }
    });
    if let Err(error) = changed {
        call.docker.store.release(&wanted, &container.id);
        return Err(error.into());
    }
    call.docker.store.release(&before, &container.id);
    call.docker.tell_with(&container, "rename", &[("oldName", format!("/{before}"))]);
    no_content()
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct UpdateBody {
    #[serde(flatten)]
    host: HostConfig,
    /// Given or not; the policy inside has defaults of its own.
    #[serde(rename = "RestartPolicy")]
    policy: Option<RestartPolicy>,
}

pub async fn update(mut call: Call) -> Answer {
    let UpdateBody { host: wanted, policy } = call.json().await?;
    let container = call.docker.own_container(call.name())?;
    let _changing = container.changing.lock().await;
    if wanted.kernel_memory != 0 {
        return Err(Problem::bad("HostConfig.KernelMemory is not supported by this engine"));
    }
    let mut host = container.with(|record| record.host.clone());
    merge(&mut host, &wanted)?;
    if let Some(policy) = policy.filter(|policy| !policy.name.is_empty()) {
        if host.auto_remove && policy.name != "no" {
            return Err(Problem::bad(
                "Restart policy cannot be updated because AutoRemove is enabled for the container",
            ));
        }
        host.restart_policy = policy;
    }
    options::check(&host, &container.with(|record| record.config.clone()))?;
    let limits = spec::resources(&host);
    if container.runs() {
        call.docker
            .engine
            .apply_limits(&container.engine, &limits, spec::linux_resources(&host)?)
            .await
            .map_err(|error| Problem::internal(format!("Cannot update container {}: {error}", container.id)))?;
    }
    call.docker.change(&container, |record| record.host = host)?;
    call.docker.tell(&container, "update");
    ok(&json!({ "Warnings": [] }))
}

/// What is given replaces what was (moby `container_unix.go`, `UpdateContainer`).
fn merge(host: &mut HostConfig, wanted: &HostConfig) -> Result<(), Problem> {
    if wanted.nano_cpus > 0 && (host.cpu_quota > 0 || host.cpu_period > 0) {
        return Err(Problem::bad(
            "Conflicting options: Nano CPUs cannot be updated as CPU Period or CPU Quota has already been set",
        ));
    }
    if (wanted.cpu_quota > 0 || wanted.cpu_period > 0) && host.nano_cpus > 0 {
        return Err(Problem::bad("Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set"));
    }
    for (own, new) in [
        (&mut host.cpu_shares, wanted.cpu_shares),
        (&mut host.cpu_period, wanted.cpu_period),
        (&mut host.cpu_quota, wanted.cpu_quota),
        (&mut host.nano_cpus, wanted.nano_cpus),
        (&mut host.memory_reservation, wanted.memory_reservation),
    ] {
        if new != 0 {
            *own = new;
        }
    }
    if wanted.memory != 0 {
        if wanted.memory_swap == 0 && host.memory_swap > 0 && wanted.memory > host.memory_swap {
            return Err(Problem::bad(
                "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
            ));
        }
        host.memory = wanted.memory;
        if wanted.memory_swap == 0 && host.memory_swap == 0 {
            host.memory_swap = wanted.memory.saturating_mul(2);
        }
    }
    if wanted.memory_swap != 0 {
        host.memory_swap = wanted.memory_swap;
    }
    if wanted.blkio_weight != 0 {
        host.blkio_weight = wanted.blkio_weight;
    }
    for (own, new) in [(&mut host.cpuset_cpus, &wanted.cpuset_cpus), (&mut host.cpuset_mems, &wanted.cpuset_mems)] {
        if !new.is_empty() {
            own.clone_from(new);
        }
    }
    if let Some(limit) = wanted.pids_limit {
        host.pids_limit = Some(limit).filter(|&limit| limit > 0);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_replaces_what_was() {
        let mut host = HostConfig { memory: 64 << 20, memory_swap: 128 << 20, ..HostConfig::default() };
        merge(&mut host, &HostConfig { memory: 32 << 20, nano_cpus: 5, ..HostConfig::default() }).unwrap();
        assert_eq!((host.memory, host.memory_swap, host.nano_cpus), (32 << 20, 128 << 20, 5));
        let more = HostConfig { memory: 256 << 20, ..HostConfig::default() };
        assert!(merge(&mut host, &more).unwrap_err().message.contains("memoryswap limit"));
        assert!(merge(&mut host, &HostConfig { cpu_quota: 5000, ..HostConfig::default() }).is_err());
    }
}
