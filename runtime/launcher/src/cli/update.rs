//! `update`.

use std::path::Path;

use super::{
    arguments::{Arguments, Flag, unknown},
    exec::read_process,
};
use crate::{
    cgroup::update::bytes,
    create::Options,
    error::{Error, Result},
    json::{Json, object},
    rdt,
    state::{State, Status},
};

pub fn update_command(arguments: &mut Arguments, options: &Options) -> Result<u8> {
    let mut resources: Option<Json> = None;
    let (mut cpu, mut memory, mut pids, mut io) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut cache, mut bandwidth) = (None, None);
    while let Some(flag) = arguments.flag() {
        let integer = |arguments: &mut Arguments, flag| arguments.number::<i64>(flag).map(Json::from);
        let amount = |arguments: &mut Arguments, flag: Flag| {
            let name = flag.name.clone();
            let value = arguments.value(flag)?;
            let bytes =
                bytes(&value).ok_or_else(|| Error::new(format!("--{name}: {value:?} is not an amount of memory")));
            bytes.map(Json::from)
        };
        match flag.name.as_str() {
            "r" | "resources" => resources = Some(read_process(Path::new(&arguments.value(flag)?))?),
            "cpu-share" | "cpu-shares" => cpu.push(("shares".to_owned(), integer(arguments, flag)?)),
            "cpu-quota" => cpu.push(("quota".to_owned(), integer(arguments, flag)?)),
            "cpu-period" => cpu.push(("period".to_owned(), integer(arguments, flag)?)),
            "cpuset-cpus" => cpu.push(("cpus".to_owned(), arguments.value(flag)?.into())),
            "cpuset-mems" => cpu.push(("mems".to_owned(), arguments.value(flag)?.into())),
            "memory" => memory.push(("limit".to_owned(), amount(arguments, flag)?)),
            "memory-swap" => memory.push(("swap".to_owned(), amount(arguments, flag)?)),
            "memory-reservation" => memory.push(("reservation".to_owned(), amount(arguments, flag)?)),
            "pids-limit" => pids.push(("limit".to_owned(), integer(arguments, flag)?)),
            "cpu-burst" => cpu.push(("burst".to_owned(), integer(arguments, flag)?)),
            "cpu-idle" => cpu.push(("idle".to_owned(), integer(arguments, flag)?)),
            "cpu-rt-period" => cpu.push(("realtimePeriod".to_owned(), integer(arguments, flag)?)),
            "cpu-rt-runtime" => cpu.push(("realtimeRuntime".to_owned(), integer(arguments, flag)?)),
            "l3-cache-schema" => cache = Some(arguments.value(flag)?),
            "mem-bw-schema" => bandwidth = Some(arguments.value(flag)?),
            "blkio-weight" => io.push(("weight".to_owned(), integer(arguments, flag)?)),
            // Kernel memory has had no limit of its own since 5.4; runc takes and ignores these too.
            "kernel-memory" | "kernel-memory-tcp" => drop(arguments.value(flag)?),
            _ => return Err(unknown("update", &flag)),
        }
    }
    let id = arguments.operand("a container id")?;
    arguments.end()?;
    let resources = resources.unwrap_or_else(|| {
        let parts = [("cpu", cpu), ("memory", memory), ("pids", pids), ("blockIO", io)];
        object(parts.map(|(key, members)| (key, Json::Obj(members))))
    });
    let mut state = State::load(&options.root, &id)?;
    if state.status() == Status::Stopped {
        return Err(Error::new("container not running"));
    }
    let (set, journal) = state.cgroup()?.update(&resources)?;
    let told = state.unit.as_ref().map_or(Ok(()), |unit| unit.change(&set));
    match told.and_then(|()| rdt::change(&mut state, cache.as_deref(), bandwidth.as_deref())) {
        Ok(()) => Ok(0),
        Err(error) => Err(journal.failed(error)),
    }
}
