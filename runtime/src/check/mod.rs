//! `coracle runtime check`: what does not belong together below a data directory, and making it right.
//!
//! ```text
//! records (sandboxes, containers, images) ── what must be there ──┐
//! disk, mounts, cgroups ──────────────────── what is there ───────┴─→ findings ─→ repair
//! ```
//!
//! It runs while the runtime does not; containers may go on meanwhile. Whatever names nothing that is recorded is
//! leaked, whatever a record names and is not there is lost.

mod images;
mod leftovers;

use std::{
    fmt,
    path::{Path, PathBuf},
};

use crate::{
    Config,
    engine::recovery::Known,
    error::{Error, Result},
    images::{build_cache::BuildCache, catalogue::Catalogue},
};

pub(crate) use leftovers::mounts;

/// Where a runtime keeps things.
pub(crate) struct Dirs<'a> {
    pub data: &'a Path,
    pub run: &'a Path,
    pub cgroup_parent: &'a str,
}

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    Sandbox,
    Container,
    Mount,
    Namespace,
    Cgroup,
    Snapshot,
    Layer,
    Blob,
    Image,
    Network,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            What::Sandbox => "sandbox",
            What::Container => "container",
            What::Mount => "mount",
            What::Namespace => "namespace",
            What::Cgroup => "cgroup",
            What::Snapshot => "snapshot",
            What::Layer => "layer",
            What::Blob => "blob",
            What::Image => "image",
            What::Network => "network",
        })
    }
}

/// Something that is not as it should be.
#[derive(Clone, Debug)]
pub struct Finding {
    pub what: What,
    /// A path, a digest or an id.
    pub subject: String,
    pub problem: String,
    remedy: Remedy,
}

/// What makes it right.
#[derive(Clone, Debug)]
enum Remedy {
    /// Remove a directory or file of the data or run directory.
    Remove(PathBuf),
    Unmount(PathBuf),
    /// End what is in a group, and remove it: the group's path below the hierarchies.
    EndGroup(String),
    /// Forget an image, so that it is pulled again.
    Forget(String),
    /// The runtime does it when it starts.
    Start,
    /// Nobody can but the user.
    ByHand,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.what, self.subject, self.problem)
    }
}

impl Finding {
    fn new(what: What, subject: impl Into<String>, problem: impl Into<String>, remedy: Remedy) -> Finding {
        Finding { what, subject: subject.into(), problem: problem.into(), remedy }
    }
}

/// How a repair of one finding went.
#[derive(Debug)]
pub enum Outcome {
    Repaired,
    /// Nothing to do by hand: the runtime puts it right when it starts.
    AtStart,
    ByHand,
    Failed(Error),
}

/// A data directory that no runtime works in, for as long as this lives.
pub struct Check {
    config: Config,
    catalogue: Catalogue,
    build_cache: BuildCache,
}

impl Check {
    /// Fails if a runtime works in the directory, or if there is none.
    pub fn open(config: Config) -> Result<Check> {
        let path = config.data_dir.join("images.redb");
        if !path.exists() {
            return Err(Error::not_found(format!("{} is not a runtime's data directory", config.data_dir.display())));
        }
        let catalogue = Catalogue::open(&path)?;
        let build_cache = BuildCache::open(catalogue.database())?;
        Ok(Check { config, catalogue, build_cache })
    }

    /// Everything that is wrong, in a lasting order. Reads every blob.
    pub fn find(&self) -> Result<Vec<Finding>> {
        let Config { data_dir, run_dir, cgroup_parent, .. } = &self.config;
        let dirs = Dirs { data: data_dir, run: run_dir, cgroup_parent };
        let known = Known::read(data_dir)?;
        let mut out = unreadable(data_dir, &known);
        out.extend(leftovers::directories(&dirs, &known));
        out.extend(mounts(&dirs, &known)?);
        out.extend(leftovers::groups(&dirs, &known)?);
        out.extend(images::find(data_dir, &self.catalogue, &self.build_cache, &known));
        // By kind; within one as found, for mounts lie on each other.
        out.sort_by_key(|finding| finding.what);
        Ok(out)
    }

    /// Makes one finding right.
    pub fn repair(&self, finding: &Finding) -> Outcome {
        let done = match &finding.remedy {
            Remedy::Start => return Outcome::AtStart,
            Remedy::ByHand => return Outcome::ByHand,
            Remedy::Forget(id) => self.catalogue.remove(id, false).map(drop),
            _ => finding.repair(),
        };
        done.map_or_else(Outcome::Failed, |()| Outcome::Repaired)
    }
}

impl Finding {
    /// Makes right what needs no more than the kernel.
    pub(crate) fn repair(&self) -> Result<()> {
        match &self.remedy {
            Remedy::Remove(path) => leftovers::remove(path),
            Remedy::Unmount(path) => leftovers::unmount(path),
            Remedy::EndGroup(path) => leftovers::end_group(path),
            Remedy::Forget(_) | Remedy::Start | Remedy::ByHand => Ok(()),
        }
    }
}

/// Records that cannot be read, or that name something that is not there.
fn unreadable(data_dir: &Path, known: &Known) -> Vec<Finding> {
    let finding = |what, place: &str, (id, why): &(String, String)| {
        Finding::new(what, id.clone(), why.clone(), Remedy::Remove(data_dir.join(place).join(id)))
    };
    let sandboxes = known.bad_sandboxes.iter().map(|bad| finding(What::Sandbox, "sandboxes", bad));
    sandboxes.chain(known.bad_containers.iter().map(|bad| finding(What::Container, "containers", bad))).collect()
}
