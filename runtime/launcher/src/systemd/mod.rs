//! Groups that systemd makes (`--systemd-cgroup`): a container is a scope, which systemd starts around a process, and which
//! ends with the last one in it (the new control group interfaces of systemd.io; runc, `libcontainer/cgroups/systemd`).
//!
//! systemd puts processes that are there into a scope, and a container's first process begins in its group. So somebody
//! else holds the place: a process that does nothing, for as long as the container is being made.

mod bus;
mod unit;

use std::{io, os::fd::OwnedFd, path::Path};

use bus::{Bus, SOCKET, Value};
pub use unit::Name;

use crate::{
    error::{Context, Error, Result},
    json::Json,
    sys,
};

/// Whether systemd is what runs this machine (sd_booted(3)).
fn is_running() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Refuses where there is nobody to make groups.
pub fn check(is_v2: bool) -> Result<()> {
    if !is_running() {
        return Err(Error::new(
            "systemd cgroup flag passed, but systemd support for managing cgroups is not available",
        ));
    }
    match is_v2 {
        true => Ok(()),
        false => Err(Error::new("--systemd-cgroup is supported on cgroup v2 only")),
    }
}

/// A process that is in a scope until somebody else is, or until this is dropped.
pub struct Placeholder {
    pid: i32,
    /// Its end is the process's.
    _end: OwnedFd,
}

impl Placeholder {
    fn start() -> Result<Placeholder> {
        let what = || "start a process for the scope".to_owned();
        let (ours, theirs) = sys::message_pair().context(what)?;
        match sys::clone3(0, None).context(what)? {
            0 => {
                drop(ours);
                // The container's process has the other end as well, and must not keep this one if the launcher is killed.
                let _ = sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64);
                let _ = sys::read(&theirs, &mut [0]);
                sys::exit_now(0)
            }
            pid => Ok(Placeholder { pid, _end: ours }),
        }
    }
}

impl Drop for Placeholder {
    fn drop(&mut self) {
        // It is a child that nobody else waits for.
        let _ = sys::kill(self.pid, libc::SIGKILL);
        let _ = sys::waitpid(self.pid);
    }
}

impl Name {
    /// Makes the unit with the limits it has properties for; whoever holds its place until the container does.
    pub fn start(&self, id: &str, resources: &Json, annotations: &Json) -> Result<Option<Placeholder>> {
        let placeholder = if self.is_slice() { None } else { Some(Placeholder::start()?) };
        let mut properties = unit::made_with(self, id, placeholder.as_ref().map(|process| process.pid), annotations)?;
        properties.extend(unit::limits(resources)?);
        let mut bus = Bus::connect(SOCKET.as_ref())?;
        let arguments = [
            Value::Text(self.unit.clone()),
            Value::Text("replace".into()),
            Value::Properties(properties),
            Value::NoUnits,
        ];
        let what = || format!("unable to start unit {:?}", self.unit);
        let mut started = bus.call("StartTransientUnit", &arguments);
        if let Err(refusal) = &started
            && refusal.is("UnitExists")
        {
            if self.is_slice() {
                // It may have others in it.
                return Ok(None);
            }
            // What is left of one that failed is forgotten when it is asked for; one that runs stays.
            let _ = bus.call("ResetFailedUnit", &[Value::Text(self.unit.clone())]);
            started = bus.call("StartTransientUnit", &arguments);
        }
        let job = started.map_err(|refusal| refusal.into_error(what()))?;
        match bus.wait_for(&job) {
            Ok(result) if result == "done" => Ok(placeholder),
            Ok(result) => {
                let _ = bus.call("ResetFailedUnit", &[Value::Text(self.unit.clone())]);
                Err(Error::new(format!("error creating systemd unit `{}`: got `{result}`", self.unit)))
            }
            Err(error) => Err(Error::io(format!("wait for systemd to create {}", self.unit), error)),
        }
    }

    /// Tells systemd of limits that have changed, until the unit ends.
    pub fn change(&self, resources: &Json) -> Result<()> {
        let properties = unit::limits(resources)?;
        if properties.is_empty() {
            return Ok(());
        }
        let arguments = [Value::Text(self.unit.clone()), Value::Bool(true), Value::Properties(properties)];
        let set = Bus::connect(SOCKET.as_ref())?.call("SetUnitProperties", &arguments);
        set.map(drop).map_err(|refusal| refusal.into_error(format!("unable to set properties of {:?}", self.unit)))
    }

    /// Ends the unit; one that has ended is what is wanted.
    pub fn stop(&self) -> Result<()> {
        let mut bus = match Bus::connect(SOCKET.as_ref()) {
            // Without systemd there are no units.
            Err(error) if error.errno() == Some(libc::ENOENT) => return Ok(()),
            result => result?,
        };
        let name = || Value::Text(self.unit.clone());
        let stopped = bus.call("StopUnit", &[name(), Value::Text("replace".into())]);
        let result = match stopped {
            Ok(job) => bus.wait_for(&job).map(drop).or_else(|error| match error.kind() {
                // The group is removed all the same, and systemd goes on by itself.
                io::ErrorKind::TimedOut => Ok(()),
                _ => Err(error),
            }),
            Err(refusal) if refusal.is("NoSuchUnit") => return Ok(()),
            Err(refusal) => return Err(refusal.into_error(format!("unable to stop unit {:?}", self.unit))),
        };
        // One that failed would keep its name.
        let _ = bus.call("ResetFailedUnit", &[name()]);
        result.context(|| format!("wait for systemd to stop {}", self.unit))
    }
}
