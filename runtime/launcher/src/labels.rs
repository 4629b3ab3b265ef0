//! Labels of the kernel's security modules: AppArmor profiles and SELinux contexts, where the kernel has them.

use std::{fs, os::fd::OwnedFd, path::Path};

use crate::{
    error::{Context, Error, Result},
    json::Json,
    sys,
};

/// Whether AppArmor confines anything here.
pub fn has_apparmor() -> bool {
    fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'))
}

/// Whether SELinux is loaded.
pub fn has_selinux() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
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

/// Where labels are written.
pub struct OpenLabels {
    apparmor: Option<OwnedFd>,
    selinux: Option<OwnedFd>,
}

impl OpenLabels {
    /// Gives the next program its labels.
    pub fn apply(self, labels: &Labels) -> Result<()> {
        if let (Some(fd), Some(profile)) = (self.apparmor, &labels.apparmor) {
            let mut file = fs::File::from(fd);
            std::io::Write::write_all(&mut file, format!("exec {profile}").as_bytes())
                .context(|| format!("apply apparmor profile {profile:?}"))?;
        }
        if let (Some(fd), Some(label)) = (self.selinux, &labels.selinux) {
            let mut file = fs::File::from(fd);
            std::io::Write::write_all(&mut file, label.as_bytes())
                .context(|| format!("apply SELinux label {label:?}"))?;
        }
        Ok(())
    }
}
