//! Capabilities: names, sets, and cutting them to what this process may give (capabilities(7)).

use std::io;

use crate::{
    error::{Context, Result},
    json::Json,
    sys,
};

const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The five sets, each a bit mask.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Capabilities {
    pub bounding: u64,
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
    pub ambient: u64,
    /// What was asked for and cannot be given.
    pub missing: u64,
}

/// The bit of `CAP_NAME` (the prefix may be left out, letters may be small).
pub fn bit(name: &str) -> Option<u64> {
    let upper = name.to_uppercase();
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES.iter().position(|known| *known == short).map(|index| 1 << index)
}

/// Every capability's name with prefix, in the kernel's order.
pub fn names() -> impl Iterator<Item = String> {
    NAMES.iter().map(|name| format!("CAP_{name}"))
}

/// Names of the bits in a mask.
pub fn describe(mask: u64) -> String {
    let set = NAMES.iter().enumerate().filter(|(index, _)| mask & (1 << index) != 0);
    set.map(|(_, name)| format!("CAP_{name}")).collect::<Vec<_>>().join(", ")
}

/// Reads `process.capabilities`. What this process does not have itself cannot be given and is left out: a root
/// without CAP_SYS_RESOURCE can still run containers.
pub fn parse(capabilities: &Json) -> Result<Capabilities> {
    let have = own()?;
    let mut missing = 0;
    let mut set = |key: &str| {
        let mut mask = 0;
        for name in capabilities.get(key).strings() {
            let Some(bit) = bit(&name) else { continue };
            missing |= bit & !have;
            mask |= bit & have;
        }
        mask
    };
    let (bounding, effective, permitted) = (set("bounding"), set("effective"), set("permitted"));
    let (inheritable, ambient) = (set("inheritable"), set("ambient"));
    // The kernel wants ambient ⊆ inheritable ∩ permitted.
    Ok(Capabilities {
        bounding,
        effective: effective & permitted,
        permitted,
        inheritable,
        ambient: ambient & permitted & inheritable,
        missing,
    })
}

/// The names in it that are none.
pub fn unknown(capabilities: &Json) -> Vec<String> {
    let mut names: Vec<String> = capabilities.members().iter().flat_map(|(_, set)| set.strings()).collect();
    names.retain(|name| bit(name).is_none());
    names.sort_unstable();
    names.dedup();
    names
}

/// What this process holds, effective or not; nothing if that cannot be read.
pub fn held() -> u64 {
    own().unwrap_or(0)
}

/// What this process can give away: permitted and in the bounding set.
fn own() -> Result<u64> {
    let status = sys::read_file("/proc/self/status").context(|| "read /proc/self/status".into())?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
    };
    Ok(field("CapPrm:") & field("CapBnd:"))
}

impl Capabilities {
    /// Drops what is not in the bounding set; needs CAP_SETPCAP, so it comes first.
    pub fn drop_bounding(&self) -> io::Result<()> {
        for index in 0..64u64 {
            if self.bounding & (1 << index) == 0 {
                match sys::prctl(libc::PR_CAPBSET_DROP, index) {
                    Ok(_) => {}
                    // Past the kernel's last capability.
                    Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Sets the other four, after the change of user.
    pub fn apply(&self) -> io::Result<()> {
        sys::capset(self.effective, self.permitted, self.inheritable)?;
        sys::prctl_ambient(libc::PR_CAP_AMBIENT_CLEAR_ALL, 0)?;
        for index in (0..64).filter(|index| self.ambient & (1 << index) != 0) {
            sys::prctl_ambient(libc::PR_CAP_AMBIENT_RAISE, index)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bits() {
        assert_eq!(bit("CAP_CHOWN"), Some(1));
        assert_eq!(bit("sys_admin"), Some(1 << 21));
        assert_eq!(bit("CAP_CHECKPOINT_RESTORE"), Some(1 << 40));
        assert_eq!(bit("CAP_NONSENSE"), None);
        assert_eq!(describe(0b11), "CAP_CHOWN, CAP_DAC_OVERRIDE");
    }
}
