//! Labels of the kernel's security modules: AppArmor profiles and SELinux contexts, where the kernel has them.

use std::{
    fs::{self, File},
    io::Write,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use crate::{
    error::{Context, Error, Result},
    json::Json,
    sys,
};

/// The extended attribute that a file's SELinux context is.
pub const SELINUX: &str = "security.selinux";
const SELINUX_MOUNT: &str = "/sys/fs/selinux";
/// `SELINUX_MAGIC` (linux/magic.h).
const SELINUX_MAGIC: i64 = 0xf97c_ff8c;

/// Whether AppArmor confines anything here.
pub fn has_apparmor() -> bool {
    fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'))
}

/// Whether SELinux decides here: its file system is there and can be written to, and it has a policy; without one all processes
/// are called `kernel` (opencontainers/selinux, `GetEnabled`).
pub fn has_selinux() -> bool {
    selinuxfs().is_some()
        && fs::read("/proc/self/attr/current").is_ok_and(|label| !matches!(trim(&label), b"" | b"kernel"))
}

/// The text of a context as the kernel gives it, which ends with a NUL or a line.
fn trim(label: &[u8]) -> &[u8] {
    let end = label.iter().position(|byte| matches!(byte, 0 | b'\n')).unwrap_or(label.len());
    &label[..end]
}

/// Where SELinux's file system is mounted, to be written to.
pub fn selinuxfs() -> Option<PathBuf> {
    let usable = |path: &Path| {
        const READ_ONLY: u64 = 1;
        sys::statfs(path).is_ok_and(|(magic, flags)| magic & 0xffff_ffff == SELINUX_MAGIC && flags & READ_ONLY == 0)
    };
    if usable(Path::new(SELINUX_MOUNT)) {
        return Some(SELINUX_MOUNT.into());
    }
    if !fs::read_to_string("/proc/filesystems").is_ok_and(|text| text.lines().any(|line| line == "nodev\tselinuxfs")) {
        return None;
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    // The fifth word is the place; blanks in it are written in octal (proc(5)), and such a place is not looked at.
    let places = mounts.lines().filter(|line| line.contains(" - selinuxfs ")).filter_map(|line| line.split(' ').nth(4));
    places.map(PathBuf::from).find(|place| usable(place))
}

/// What a program gets when it begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    pub apparmor: Option<String>,
    pub selinux: Option<String>,
}

impl Labels {
    /// Reads `process`; a label that this kernel cannot give is refused.
    pub fn parse(process: &Json) -> Result<Labels> {
        let given = |key: &str| process.get(key).str().filter(|label| !label.is_empty()).map(str::to_owned);
        let labels = Labels { apparmor: given("apparmorProfile"), selinux: given("selinuxLabel") };
        labels.check()?;
        Ok(labels)
    }

    pub fn check(&self) -> Result<()> {
        if let Some(profile) = self.apparmor.as_ref().filter(|profile| *profile != "unconfined" && !has_apparmor()) {
            return Err(Error::new(format!(
                "process.apparmorProfile: profile {profile:?} is specified but AppArmor is not enabled on the host"
            )));
        }
        if self.selinux.is_some() && !has_selinux() {
            return Err(Error::new(
                "process.selinuxLabel: a label is specified but SELinux is not enabled on the host",
            ));
        }
        Ok(())
    }

    /// Does what makes a keyring, which then is called as the program will be: keys are the container's, not the runtime's
    /// (runc `libcontainer/standard_init_linux.go`). The host's `/proc` has to be there.
    pub fn make_keyring(&self, make: impl FnOnce() -> Result<()>) -> Result<()> {
        let Some(label) = &self.selinux else { return make() };
        // Kept for all writes: by the next one this process may be elsewhere.
        let file = sys::open("/proc/self/attr/keycreate", libc::O_WRONLY, 0).context(|| "open keycreate".into())?;
        let mut file = File::from(file);
        file.write_all(label.as_bytes()).context(|| format!("apply SELinux label {label:?} to keys"))?;
        make()?;
        // Nothing at all, or a lone line, is how to say "as usual" (proc_pid_attr(5)).
        file.write_all(b"\n").context(|| "reset the SELinux label of keys".into())
    }

    /// Opens what the labels are written to, while the host's `/proc` is there: a container's own may be anything.
    pub fn open(&self) -> Result<OpenLabels> {
        let open = |wanted: bool, paths: &[&str]| -> Result<Option<OwnedFd>> {
            if !wanted {
                return Ok(None);
            }
            // The file without the module's name is whichever module came first (since 5.8 AppArmor has its own).
            let first = paths.iter().find_map(|path| sys::open(path, libc::O_WRONLY, 0).ok());
            first.map(Some).ok_or_else(|| Error::new(format!("open {}", paths.join(" or "))))
        };
        let confined = self.apparmor.is_some() && has_apparmor();
        Ok(OpenLabels {
            apparmor: open(confined, &["/proc/self/attr/apparmor/exec", "/proc/self/attr/exec"])?,
            selinux: open(self.selinux.is_some(), &["/proc/self/attr/exec"])?,
        })
    }
}

/// Gives an open file or directory, also one that is open for nothing (O_PATH), its SELinux context.
pub fn set_file(file: &impl AsRawFd, label: &str) -> std::io::Result<()> {
    sys::setxattr(format!("/proc/self/fd/{}", file.as_raw_fd()), SELINUX, label.as_bytes())
}

/// Where labels are written.
pub struct OpenLabels {
    apparmor: Option<OwnedFd>,
    selinux: Option<OwnedFd>,
}

impl OpenLabels {
    /// Gives the next program its labels.
    pub fn apply(self, labels: &Labels) -> Result<()> {
        if let (Some(fd), Some(profile)) = (self.apparmor, &labels.apparmor) {
            let mut file = File::from(fd);
            file.write_all(format!("exec {profile}").as_bytes())
                .context(|| format!("apply apparmor profile {profile:?}"))?;
        }
        if let (Some(fd), Some(label)) = (self.selinux, &labels.selinux) {
            let mut file = File::from(fd);
            file.write_all(label.as_bytes()).context(|| format!("apply SELinux label {label:?}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_ends_with_the_text() {
        assert_eq!(trim(b"system_u:system_r:init_t:s0\0"), b"system_u:system_r:init_t:s0");
        assert_eq!(trim(b"kernel\n"), b"kernel");
        assert_eq!(trim(b""), b"");
    }
}
