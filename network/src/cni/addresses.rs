//! Which address of the node's range is whose.
//!
//! ```text
//! ADDRESS                      holds its owner
//! owners/CONTAINER:INTERFACE   a symbolic link that names the address: nobody reads all of the others for it
//! last                         the address given last
//! lock
//! ```
//!
//! A note is made with `O_EXCL`, so that an address is given away once even to plugins that race; it alone decides, and a
//! link that a kill left without one is nothing. As the reference `host-local` plugin does, the search begins behind the last
//! address given, so that one that was just given back is not at once somebody else's.

use std::{
    fmt, fs,
    fs::{File, OpenOptions},
    io::{self, Write},
    net::Ipv4Addr,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use ipnet::Ipv4Net;
use nix::fcntl::{Flock, FlockArg};

const LAST: &str = "last";
const LOCK: &str = "lock";
const OWNERS: &str = "owners";
/// The most bytes that a file's name may have.
const NAME_MAX: usize = 255;

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

    /// The name of its link; none where it would be too long for a file's.
    fn link_name(&self) -> Option<String> {
        // No interface's name holds a colon (`dev_valid_name` in Linux net/core/dev.c).
        Some(format!("{}:{}", self.container, self.interface)).filter(|name| name.len() <= NAME_MAX)
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
        let addresses = Self { dir: dir.to_path_buf(), subnet, _lock: lock };
        addresses.make_links()?;
        Ok(addresses)
    }

    /// Notes of a plugin that made no links get theirs.
    fn make_links(&self) -> Result<(), Error> {
        let (links, part) = (self.dir.join(OWNERS), self.dir.join("owners.part"));
        if links.exists() {
            return Ok(());
        }
        match fs::remove_dir_all(&part) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove", &part)(error)),
            _ => {}
        }
        fs::create_dir(&part).map_err(failed("make directory", &part))?;
        for (address, owner) in self.all()? {
            if let Some(name) = owner.link_name() {
                // Where there can be none the note is still found, by reading all of them.
                let _ = symlink(address.to_string(), part.join(name));
            }
        }
        fs::rename(&part, &links).map_err(failed("rename", &part))
    }

    /// Takes a free address for `owner`.
    pub fn take(&self, owner: &Owner) -> Result<Ipv4Addr, Error> {
        if self.of(owner)?.is_some() {
            return Err(Error::Taken(owner.clone()));
        }
        let (first, last) = self.bounds();
        let start = self.last_given().filter(|given| (first..last).contains(given)).map_or(first, |given| given + 1);
        for address in (start..=last).chain(first..start).map(Ipv4Addr::from) {
            if self.dir.join(address.to_string()).exists() {
                continue;
            }
            // First: without its note it is nothing, and a note without it would be found by nobody who takes.
            self.link(address, owner)?;
            if self.note(address, owner)? {
                self.note_last(address)?;
                return Ok(address);
            }
        }
        Err(Error::Exhausted(self.subnet))
    }

    /// Frees every address of `owner`; one without is no error.
    pub fn give_back(&self, owner: &Owner) -> Result<(), Error> {
        // After a power loss there may be a note without its link, which only reading all of them finds.
        let addresses = match self.linked(owner)? {
            Some(address) => vec![address],
            None => self.all()?.into_iter().filter(|(_, holder)| holder == owner).map(|(address, _)| address).collect(),
        };
        let notes = addresses.into_iter().map(|address| self.dir.join(address.to_string()));
        // The note goes last: until then the link, or else the search, finds it.
        for path in self.link_path(owner).into_iter().chain(notes) {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove", &path)(error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// The address of `owner`.
    pub fn of(&self, owner: &Owner) -> Result<Option<Ipv4Addr>, Error> {
        if owner.link_name().is_some() {
            return self.linked(owner);
        }
        Ok(self.all()?.into_iter().find(|(_, holder)| holder == owner).map(|(address, _)| address))
    }

    fn link_path(&self, owner: &Owner) -> Option<PathBuf> {
        owner.link_name().map(|name| self.dir.join(OWNERS).join(name))
    }

    /// The address that the owner's link names, if the address's note says so, too.
    fn linked(&self, owner: &Owner) -> Result<Option<Ipv4Addr>, Error> {
        let Some(path) = self.link_path(owner) else { return Ok(None) };
        let target = match fs::read_link(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            target => target.map_err(failed("read", &path))?,
        };
        let Some(Ok(address)) = target.to_str().map(str::parse::<Ipv4Addr>) else { return Ok(None) };
        let note = self.dir.join(address.to_string());
        let holder = Owner::read(&note).map_err(failed("read", &note))?;
        Ok(holder.filter(|holder| holder == owner).map(|_| address))
    }

    fn link(&self, address: Ipv4Addr, owner: &Owner) -> Result<(), Error> {
        let Some(path) = self.link_path(owner) else { return Ok(()) };
        let make = || symlink(address.to_string(), &path);
        match make() {
            // Its note is another's, or gone.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => fs::remove_file(&path).and_then(|()| make()),
            made => made,
        }
        .map_err(failed("make link", &path))
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

    /// Over what is there: a file that is cut gives its block back, which a file system mounted with `discard` may wait for.
    fn note_last(&self, address: Ipv4Addr) -> Result<(), Error> {
        let path = self.dir.join(LAST);
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        // As long as the longest address.
        let text = format!("{:<15}\n", address.to_string());
        file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(failed("write", &path))
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
    fn what_is_half_made_takes_no_address() {
        let dir = tempfile::tempdir().unwrap();
        let addresses = Addresses::open(dir.path(), "10.1.0.0/29".parse().unwrap()).unwrap();
        let a = addresses.take(&owner("a")).unwrap();
        // A link without a note, and a note without a link.
        fs::remove_file(dir.path().join(a.to_string())).unwrap();
        assert_eq!(addresses.of(&owner("a")).unwrap(), None);
        let b = addresses.take(&owner("b")).unwrap();
        fs::remove_file(dir.path().join("owners/b:eth0")).unwrap();
        addresses.give_back(&owner("b")).unwrap();
        assert!(!dir.path().join(b.to_string()).exists());
        let again = addresses.take(&owner("a")).unwrap();
        assert_eq!(addresses.of(&owner("a")).unwrap(), Some(again));
        // A link whose address is another's by now.
        std::os::unix::fs::symlink(again.to_string(), dir.path().join("owners/c:eth0")).unwrap();
        addresses.give_back(&owner("c")).unwrap();
        assert_eq!(addresses.of(&owner("a")).unwrap(), Some(again));
        addresses.give_back(&owner("a")).unwrap();
        assert_eq!(addresses.owners().unwrap(), []);
        assert_eq!(fs::read_dir(dir.path().join("owners")).unwrap().count(), 0);
    }

    #[test]
    fn notes_without_links_and_names_too_long_for_links_count() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Addresses::open(dir.path(), "10.1.0.0/29".parse().unwrap()).unwrap();
        fs::write(dir.path().join("10.1.0.3"), "old\neth0\n").unwrap();
        fs::write(dir.path().join("last"), "10.1.0.3").unwrap();
        let long = owner(&"x".repeat(300));
        assert_eq!(open().take(&owner("old")).unwrap_err().to_string(), "eth0 of old has an address already");
        assert_eq!(open().take(&long).unwrap().to_string(), "10.1.0.4");
        assert!(open().take(&long).is_err());
        open().give_back(&owner("old")).unwrap();
        open().give_back(&long).unwrap();
        assert_eq!(open().owners().unwrap(), []);
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
