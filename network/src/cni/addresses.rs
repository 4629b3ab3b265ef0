//! Which address of the node's range is whose.
//!
//! One file an address, named by it, holding its owner; made with `O_EXCL`, so that an address is given away once even
//! to plugins that race. As the reference `host-local` plugin does, the search begins behind the last address given, so
//! that one that was just given back is not at once somebody else's.

use std::{
    fmt, fs,
    fs::{File, OpenOptions},
    io::{self, Write},
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use ipnet::Ipv4Net;
use nix::fcntl::{Flock, FlockArg};

const LAST: &str = "last";
const LOCK: &str = "lock";

/// Whose an address is: one interface of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    container: String,
    interface: String,
}

impl Owner {
    /// The interface `interface` of the container or sandbox `container`.
    pub fn new(container: impl Into<String>, interface: impl Into<String>) -> Self {
        Self { container: container.into(), interface: interface.into() }
    }

    /// The container's identifier.
    pub fn container(&self) -> &str {
        &self.container
    }

    fn read(path: &Path) -> io::Result<Option<Self>> {
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text?,
        };
        Ok(text.split_once('\n').map(|(container, interface)| Self::new(container, interface.trim_end())))
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.interface, self.container)
    }
}

/// What went wrong with an address.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Every address is taken.
    #[error("no address is left in {0}")]
    Exhausted(Ipv4Net),
    /// The owner has one already; ADD twice without DEL is the caller's fault (CNI SPEC, section ADD).
    #[error("{0} has an address already")]
    Taken(Owner),
    /// The range is too small to hold a pod.
    #[error("the range {0} has no room for a pod")]
    TooSmall(Ipv4Net),
    /// The notes could not be read or written.
    #[error("{operation} {}: {source}", path.display())]
    File {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// The addresses of one network on this node, locked against other processes.
pub struct Addresses {
    dir: PathBuf,
    subnet: Ipv4Net,
    _lock: Flock<File>,
}

impl Addresses {
    /// Opens the notes in `dir` (made when missing) and waits until nobody else has them open.
    pub fn open(dir: &Path, subnet: Ipv4Net) -> Result<Self, Error> {
        if subnet.prefix_len() > 30 {
            return Err(Error::TooSmall(subnet));
        }
        fs::create_dir_all(dir).map_err(failed("make directory", dir))?;
        let path = dir.join(LOCK);
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(failed("open", &path))?;
        let lock =
            Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| failed("lock", &path)(errno.into()))?;
        Ok(Self { dir: dir.to_path_buf(), subnet, _lock: lock })
    }

    /// Takes a free address for `owner`.
    pub fn take(&self, owner: &Owner) -> Result<Ipv4Addr, Error> {
        if self.of(owner)?.is_some() {
            return Err(Error::Taken(owner.clone()));
        }
        let (first, last) = self.bounds();
        let start = self.last_given().filter(|given| (first..last).contains(given)).map_or(first, |given| given + 1);
        for address in (start..=last).chain(first..start).map(Ipv4Addr::from) {
            if self.note(address, owner)? {
                let path = self.dir.join(LAST);
                fs::write(&path, address.to_string()).map_err(failed("write", &path))?;
                return Ok(address);
            }
        }
        Err(Error::Exhausted(self.subnet))
    }

    /// Frees every address of `owner`; one without is no error.
    pub fn give_back(&self, owner: &Owner) -> Result<(), Error> {
        for (address, holder) in self.all()? {
            if holder == *owner {
                let path = self.dir.join(address.to_string());
                fs::remove_file(&path).map_err(failed("remove", &path))?;
            }
        }
        Ok(())
    }

    /// The address of `owner`.
    pub fn of(&self, owner: &Owner) -> Result<Option<Ipv4Addr>, Error> {
        Ok(self.all()?.into_iter().find(|(_, holder)| holder == owner).map(|(address, _)| address))
    }

    /// Everybody who has an address.
    pub fn owners(&self) -> Result<Vec<Owner>, Error> {
        Ok(self.all()?.into_iter().map(|(_, owner)| owner).collect())
    }

    fn all(&self) -> Result<Vec<(Ipv4Addr, Owner)>, Error> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(failed("list", &self.dir))? {
            let path = entry.map_err(failed("list", &self.dir))?.path();
            let Some(Ok(address)) = path.file_name().and_then(|name| name.to_str()).map(str::parse) else { continue };
            if let Some(owner) = Owner::read(&path).map_err(failed("read", &path))? {
                all.push((address, owner));
            }
        }
        Ok(all)
    }

    /// The first and last address for pods: not the network's own, not the node's (the first), not the broadcast.
    fn bounds(&self) -> (u32, u32) {
        (u32::from(self.subnet.network()) + 2, u32::from(self.subnet.broadcast()) - 1)
    }

    fn last_given(&self) -> Option<u32> {
        fs::read_to_string(self.dir.join(LAST)).ok()?.trim().parse::<Ipv4Addr>().ok().map(u32::from)
    }

    /// Notes `address` as `owner`'s; false when it is somebody's.
    fn note(&self, address: Ipv4Addr, owner: &Owner) -> Result<bool, Error> {
        let path = self.dir.join(address.to_string());
        let mut file = match OpenOptions::new().write(true).create_new(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            file => file.map_err(failed("write", &path))?,
        };
        write!(file, "{}\n{}\n", owner.container, owner.interface).map_err(failed("write", &path))?;
        Ok(true)
    }
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| Error::File { operation, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(container: &str) -> Owner {
        Owner::new(container, "eth0")
    }

    #[test]
    fn addresses_go_round_and_end() {
        let dir = tempfile::tempdir().unwrap();
        let addresses = Addresses::open(dir.path(), "10.1.0.0/29".parse().unwrap()).unwrap();
        let given: Vec<_> = ["a", "b", "c"].map(|name| addresses.take(&owner(name)).unwrap().to_string()).into();
        assert_eq!(given, ["10.1.0.2", "10.1.0.3", "10.1.0.4"]);
        addresses.give_back(&owner("a")).unwrap();
        addresses.give_back(&owner("a")).unwrap();
        assert_eq!(addresses.take(&owner("d")).unwrap().to_string(), "10.1.0.5", "not the one just given back");
        assert_eq!(addresses.take(&owner("e")).unwrap().to_string(), "10.1.0.6");
        assert_eq!(addresses.take(&owner("f")).unwrap().to_string(), "10.1.0.2");
        assert_eq!(addresses.take(&owner("g")).unwrap_err().to_string(), "no address is left in 10.1.0.0/29");
        assert_eq!(addresses.take(&owner("f")).unwrap_err().to_string(), "eth0 of f has an address already");
        assert_eq!(addresses.of(&owner("c")).unwrap().unwrap().to_string(), "10.1.0.4");
    }

    #[test]
    fn notes_outlive_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let subnet = "10.1.0.0/24".parse().unwrap();
        let first = Addresses::open(dir.path(), subnet).unwrap().take(&owner("a")).unwrap();
        let again = Addresses::open(dir.path(), subnet).unwrap();
        assert_eq!(again.of(&owner("a")).unwrap(), Some(first));
        assert_eq!(again.owners().unwrap(), [owner("a")]);
    }
}
