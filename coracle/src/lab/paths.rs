//! Where a lab's things are.

use std::{
    env, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

/// Where everything lives unless `CORACLE_HOME` says otherwise.
const DEFAULT_HOME: &str = "/var/lib/coracle";

/// The directories of one lab.
#[derive(Clone, Debug)]
pub struct Paths {
    home: PathBuf,
    name: String,
}

impl Paths {
    /// The lab `name` under `$CORACLE_HOME`.
    pub fn of(name: &str) -> Result<Self> {
        check_name(name)?;
        Ok(Self { home: home()?, name: name.to_owned() })
    }

    /// The lab's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What outlives a reboot.
    pub fn state(&self) -> PathBuf {
        self.home.join("labs").join(&self.name)
    }

    /// What does not: process records and sockets. Short, because a socket's path is at most 107 bytes.
    pub fn run(&self) -> PathBuf {
        self.home.join("run").join(&self.name)
    }

    /// The other labs of this home.
    pub fn others(&self) -> Result<Vec<Self>> {
        let names = labs_of(&self.home)?.into_iter().filter(|name| *name != self.name);
        Ok(names.map(|name| Self { home: self.home.clone(), name }).collect())
    }

    /// What the lab is made of.
    pub fn spec(&self) -> PathBuf {
        self.state().join("lab.json")
    }

    /// The server's data directory.
    pub fn server(&self) -> PathBuf {
        self.state().join("server")
    }

    /// The administrator's kubeconfig; it works from the host.
    pub fn kubeconfig(&self) -> PathBuf {
        self.server().join("admin.kubeconfig")
    }

    /// A node's data directory.
    pub fn node(&self, node: &str) -> PathBuf {
        self.state().join("nodes").join(node)
    }

    /// A node's sockets.
    pub fn node_run(&self, node: &str) -> PathBuf {
        self.run().join(node)
    }

    /// The record of a process: a node's first, or the server's keeper.
    pub fn process(&self, process: &str) -> PathBuf {
        self.run().join(format!("{process}.pid"))
    }

    /// The log of the server or of a node.
    pub fn log(&self, process: &str) -> PathBuf {
        self.state().join("log").join(format!("{process}.log"))
    }

    /// The cgroup of the lab, below the root of every hierarchy. Labs of another home are somewhere else.
    pub fn cgroup(&self) -> String {
        if self.home == Path::new(DEFAULT_HOME) {
            return format!("coracle/{}", self.name);
        }
        let hash = sha2_hex(self.home.as_os_str().as_encoded_bytes());
        format!("coracle/{}-{}", self.name, &hash[..8])
    }

    /// Removes the directories that are empty now that this lab is gone.
    pub fn remove_empty_parents(&self) {
        for dir in [self.home.join("labs"), self.home.join("run"), self.home.clone()] {
            // Not empty: another lab's, and so left alone.
            let _ = std::fs::remove_dir(dir);
        }
    }
}

/// The names of the labs that exist.
pub fn labs() -> Result<Vec<String>> {
    labs_of(&home()?)
}

fn labs_of(home: &Path) -> Result<Vec<String>> {
    let dir = home.join("labs");
    let entries = match dir.read_dir() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("list {}", dir.display()))?,
    };
    let mut names: Vec<_> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}

fn home() -> Result<PathBuf> {
    let home = env::var_os("CORACLE_HOME").filter(|home| !home.is_empty()).unwrap_or_else(|| DEFAULT_HOME.into());
    std::path::absolute(&home).with_context(|| format!("CORACLE_HOME is not a path: {}", Path::new(&home).display()))
}

/// A lab's name is the beginning of its nodes' names, which are DNS labels (RFC 1123) and host names.
fn check_name(name: &str) -> Result<()> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let edges = |c: char| c != '-';
    if name.is_empty()
        || name.len() > 40
        || !name.chars().all(fits)
        || !name.starts_with(edges)
        || !name.ends_with(edges)
    {
        bail!(
            "invalid lab name {name:?}: use up to 40 lower case letters, digits and '-', beginning and ending with a letter or digit"
        );
    }
    Ok(())
}

fn sha2_hex(bytes: &[u8]) -> String {
    use sha2::Digest;
    hex::encode(sha2::Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for good in ["default", "a", "my-lab-2"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a/b", "..", "a.b", &"x".repeat(41)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
