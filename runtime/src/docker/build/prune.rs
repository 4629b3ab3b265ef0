//! The build cache from outside: what it takes, and how it is made smaller.

use std::{collections::HashSet, fs, sync::Arc};

use serde_json::{Value, json};

use super::super::{
    Docker,
    http::{Answer, Call, Problem, ok},
};
use crate::{digest::Digest, images::build_cache::CachedStep, snapshots::measure};

/// What the cache may take of a disk, at most and at least, and its part of the whole.
const MOST: u64 = 20 << 30;
const LEAST: u64 = 2 << 30;
const PART: u64 = 10;

const FILTERS: [&str; 10] =
    ["until", "unused-for", "id", "parent", "type", "description", "inuse", "shared", "private", "mutable"];

/// `POST /build/prune`
pub async fn prune(call: Call) -> Answer {
    let filters = call.query.filters(&FILTERS)?;
    let until = super::super::system::until(&filters)?;
    let all = call.query.flag("all");
    let number =
        |name: &str| -> Result<u64, Problem> { Ok(u64::try_from(call.query.number(name)?.unwrap_or(0)).unwrap_or(0)) };
    // The newer names of the same (API 1.48).
    let keep = number("keep-storage")?.max(number("reserved-space")?);
    let (most, free) = (number("max-used-space")?, number("min-free-space")?);
    if free > 0 {
        return Err(Problem::bad("min-free-space is not supported by this engine"));
    }
    let docker = call.docker.clone();
    let work = move || -> Result<(Vec<String>, u64), Problem> {
        let rows = docker.build_cache();
        let total: u64 = rows.iter().filter(|row| !row.shared).map(|row| row.size).sum();
        let fits = |row: &&Row| {
            let text = |key: &str, own: &str| filters.any(key, |wanted| wanted == own);
            let truth = |key: &str, own: bool| !filters.has(key) || own;
            (all || !row.shared)
                && !row.in_use
                && until.is_none_or(|until| row.used < until)
                && filters.any("id", |wanted| row.id.starts_with(wanted))
                && text("type", row.kind)
                && filters.any("parent", |wanted| row.parent.starts_with(wanted))
                && filters.any("description", |wanted| row.description.contains(wanted))
                && truth("shared", row.shared)
                && truth("private", !row.shared)
        };
        let mut wanted: Vec<&Row> = rows.iter().filter(fits).collect();
        // What was used last stays longest; a step never outlives the one it stands on.
        wanted.sort_by_key(|row| (row.used, std::cmp::Reverse(row.created)));
        let (mut left, mut removed, mut reclaimed) = (total, Vec::new(), 0);
        let bound = if most > 0 { most } else { keep };
        for row in wanted {
            if (keep > 0 || most > 0) && left <= bound {
                break;
            }
            if row.kind == "exec.cachemount" {
                fs::remove_dir_all(docker.build_mounts_dir().join(&row.id))
                    .map_err(|error| Problem::internal(format!("remove a cache mount: {error}")))?;
            }
            let own = if row.shared { 0 } else { row.size };
            left = left.saturating_sub(own);
            reclaimed += own;
            removed.push(row.id.clone());
        }
        docker.engine.images().build_cache().remove(&removed)?;
        Ok((removed, reclaimed))
    };
    let (removed, reclaimed) = tokio::task::spawn_blocking(work).await.map_err(crate::Error::from)??;
    let docker = call.docker.clone();
    call.docker.engine.images().collect(move || docker.engine.chains_in_use()).await?;
    call.docker.events.tell("builder", "prune", "", [("reclaimed".to_owned(), reclaimed.to_string())].into());
    let removed = if removed.is_empty() { Value::Null } else { json!(removed) };
    ok(&json!({ "CachesDeleted": removed, "SpaceReclaimed": reclaimed }))
}

/// One entry of the cache as `docker system df -v` shows it.
pub struct Row {
    pub id: String,
    pub parent: String,
    pub kind: &'static str,
    pub description: String,
    pub size: u64,
    /// An image stands on it too, so that removing it frees nothing.
    pub shared: bool,
    pub in_use: bool,
    pub created: i64,
    pub used: i64,
    pub uses: u64,
}

impl Row {
    fn json(&self) -> Value {
        let time = |at: i64| jiff::Timestamp::from_nanosecond(at.into()).unwrap_or_default().to_string();
        json!({
            "ID": self.id,
            "Parents": if self.parent.is_empty() { Value::Null } else { json!([self.parent]) },
            "Type": self.kind,
            "Description": self.description,
            "InUse": self.in_use,
            "Shared": self.shared,
            "Size": self.size,
            "CreatedAt": time(self.created),
            "LastUsedAt": time(self.used),
            "UsageCount": self.uses,
        })
    }
}

impl Docker {
    /// Layers that images stand on.
    fn chains_of_images(&self) -> HashSet<Digest> {
        self.engine.images().list().iter().flat_map(|image| image.chains.clone()).collect()
    }

    fn step_size(&self, step: &CachedStep) -> u64 {
        let top = step.chains.last().filter(|_| step.added);
        top.map_or(0, |chain| self.engine.snapshots().layer_usage(chain).bytes)
    }

    fn build_cache(&self) -> Vec<Row> {
        let steps = self.engine.images().build_cache().list();
        let (images, chains) = (self.engine.images().list(), self.chains_of_images());
        let ids: HashSet<Digest> = images.iter().map(|image| image.id.clone()).collect();
        let by_image: std::collections::HashMap<Digest, String> =
            steps.iter().map(|step| (step.image.clone(), step.key.clone())).collect();
        // Those that lead to an image are the image's, though they add nothing themselves.
        let mut led: HashSet<Digest> = ids;
        for step in steps.iter().rev() {
            if let (true, Some(parent)) = (led.contains(&step.image), &step.parent) {
                led.insert(parent.clone());
            }
        }
        let mut rows: Vec<Row> = steps
            .iter()
            .map(|step| Row {
                id: step.key.clone(),
                parent: step.parent.as_ref().and_then(|parent| by_image.get(parent).cloned()).unwrap_or_default(),
                kind: "regular",
                description: step.description.clone(),
                size: self.step_size(step),
                shared: led.contains(&step.image)
                    || step.added && step.chains.last().is_some_and(|chain| chains.contains(chain)),
                in_use: false,
                created: step.created,
                used: step.used,
                uses: step.uses,
            })
            .collect();
        for entry in fs::read_dir(self.build_mounts_dir()).into_iter().flatten().flatten() {
            let Ok(id) = entry.file_name().into_string() else { continue };
            let at = entry.metadata().and_then(|metadata| metadata.modified()).ok();
            let at = at.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
            let at = at.and_then(|at| i64::try_from(at.as_nanos()).ok()).unwrap_or(0);
            rows.push(Row {
                in_use: self.build_mounts.is_used(&id),
                id,
                parent: String::new(),
                kind: "exec.cachemount",
                description: "mount of RUN --mount=type=cache".into(),
                size: measure(&entry.path()).bytes,
                shared: false,
                created: at,
                used: at,
                uses: 0,
            });
        }
        rows
    }

    /// The cache for `docker system df`, and what it takes in all.
    pub fn build_cache_use(&self) -> (Vec<Value>, u64) {
        let rows = self.build_cache();
        let size = rows.iter().filter(|row| !row.shared).map(|row| row.size).sum();
        (rows.iter().map(Row::json).collect(), size)
    }

    /// Drops what was not used for the longest time, where the cache has grown beyond its part of the disk.
    pub fn keep_build_cache_small(self: &Arc<Docker>) {
        let disk = rustix::fs::statvfs(self.engine.data_dir()).map_or(0, |stat| stat.f_blocks * stat.f_frsize);
        let limit = (disk / PART).clamp(LEAST, MOST);
        let chains = self.chains_of_images();
        let own = |step: &CachedStep| match step.chains.last() {
            Some(chain) if step.added && !chains.contains(chain) => self.step_size(step),
            _ => 0,
        };
        let cache = self.engine.images().build_cache();
        let excess = cache.excess(limit, own);
        // Writes what builds added and used, too.
        if let Err(error) = cache.remove(&excess) {
            tracing::warn!(%error, "the build cache cannot be written");
        }
        if !excess.is_empty() {
            // The layers go with the next collection.
            tracing::info!(steps = excess.len(), "the build cache was made smaller");
        }
    }
}
