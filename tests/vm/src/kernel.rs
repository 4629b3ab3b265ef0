//! Debian's kernel: the image, and the modules with what they depend on.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, anyhow};

use crate::run;

const PACKAGE: &str = "linux-image-cloud-amd64";

/// A kernel, unpacked.
#[derive(Clone, Debug)]
pub struct Kernel {
    pub image: PathBuf,
    modules: HashMap<String, PathBuf>,
}

impl Kernel {
    /// Finds the kernel below a directory, or fetches Debian's there.
    pub fn debian(dir: &Path) -> Result<Kernel> {
        if let Ok(kernel) = Kernel::find(dir) {
            return Ok(kernel);
        }
        let part = dir.with_extension("part");
        let _ = fs::remove_dir_all(&part);
        fs::create_dir_all(&part)?;
        // The package is empty and depends on the newest version's.
        let depends = run(Command::new("apt-cache").args(["depends", PACKAGE]))?;
        let newest = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
        let newest = newest.ok_or_else(|| anyhow!("apt knows no {PACKAGE}; run apt-get update"))?;
        run(Command::new("apt-get").args(["download", newest]).current_dir(&part))?;
        let package = fs::read_dir(&part)?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.extension() == Some("deb".as_ref()));
        let package = package.ok_or_else(|| anyhow!("apt-get left no package"))?;
        run(Command::new("dpkg").arg("-x").arg(&package).arg(&part))?;
        fs::remove_file(package)?;
        let _ = fs::remove_dir_all(dir);
        fs::rename(&part, dir)?;
        Kernel::find(dir)
    }

    fn find(dir: &Path) -> Result<Kernel> {
        let boot = fs::read_dir(dir.join("boot")).with_context(|| format!("no kernel below {}", dir.display()))?;
        let image = boot
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz")));
        let image = image.ok_or_else(|| anyhow!("no kernel below {}", dir.display()))?;
        let mut modules = HashMap::new();
        let mut pending = vec![dir.join("lib/modules")];
        while let Some(dir) = pending.pop() {
            for entry in fs::read_dir(&dir)?.flatten() {
                let path = entry.path();
                if entry.file_type()?.is_dir() {
                    pending.push(path);
                } else if path.extension() == Some("ko".as_ref())
                    && let Some(name) = path.file_stem()
                {
                    modules.insert(normal(&name.to_string_lossy()), path);
                }
            }
        }
        Ok(Kernel { image, modules })
    }

    /// The files of these modules and of all they depend on, in the order in which they can be loaded.
    pub fn modules(&self, names: &[&str]) -> Result<Vec<PathBuf>> {
        let mut out = Vec::new();
        for name in names {
            self.add_module(&normal(name), &mut out)?;
        }
        Ok(out)
    }

    fn add_module(&self, name: &str, out: &mut Vec<PathBuf>) -> Result<()> {
        let path = self.modules.get(name).ok_or_else(|| anyhow!("the kernel has no module {name}"))?;
        if out.contains(path) {
            return Ok(());
        }
        for dependency in dependencies(&fs::read(path)?) {
            self.add_module(&normal(&dependency), out)?;
        }
        out.push(path.clone());
        Ok(())
    }
}

fn normal(name: &str) -> String {
    name.replace('-', "_")
}

/// `depends=a,b` of a module's `.modinfo` (modinfo(8)).
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let list = module[at + KEY.len()..].split(|&byte| byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(list).split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_found_in_the_file() {
        assert_eq!(dependencies(b"\x7fELF\0x=y\0depends=bridge,stp-x\0z=1\0"), ["bridge", "stp-x"]);
        assert!(dependencies(b"\x7fELF\0depends=\0").is_empty());
    }
}
