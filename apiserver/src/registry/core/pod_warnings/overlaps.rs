//! Files of one volume that stand in each other's way (core/pod `warningsForOverlappingVirtualPaths`).

use crate::registry::fields::{field, items, text};
use crate::registry::warnings::Warnings;
use coracle_api::json::Value;
use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hasher};
use std::rc::Rc;

/// What a source of a projected volume can be, in the order in which upstream looks.
const SOURCES: [&str; 6] =
    ["configMap", "secret", "downwardAPI", "serviceAccountToken", "clusterTrustBundle", "podCertificate"];

pub fn tell(spec: &Value, told: &mut Warnings) {
    for volume in items(spec, "volumes") {
        let name = text(volume, "name");
        for (kind, shown, named_by) in
            [("configMap", "ConfigMap", "name"), ("secret", "Secret", "secretName"), ("downwardAPI", "DownwardAPI", "")]
        {
            let Some(source) = there(volume, kind) else { continue };
            let what = if named_by.is_empty() { shown.into() } else { format!("{shown} {:?}", text(source, named_by)) };
            let mut known = Known::of(format!("volume {name:?} ({what})"));
            for item in items(source, "items") {
                known.add(text(item, "path"), "".into(), told);
            }
        }
        let Some(projected) = there(volume, "projected") else { continue };
        let mut known = Known::of(format!("volume {name:?} (Projected)"));
        for source in items(projected, "sources") {
            if SOURCES.iter().all(|kind| there(source, kind).is_none()) {
                told.add(format!("{} has no sources provided", known.volume));
            }
            for (path, source) in files(source) {
                known.add(path, source, told);
            }
        }
    }
}

fn there<'v>(of: &'v Value, name: &str) -> Option<&'v Value> {
    field(of, name).filter(|value| !value.is_null())
}

/// The files of a source of a projected volume, and what is told of where they come from.
fn files(source: &Value) -> Vec<(&str, Rc<str>)> {
    let listed = |of: &'static str, shown: String| {
        let shown: Rc<str> = shown.into();
        let items = there(&source[of], "items")?.as_array()?;
        Some(items.iter().map(|item| (text(item, "path"), shown.clone())).collect())
    };
    let named = |of: &'static str, shown: &str| listed(of, format!("{shown} {:?}", text(&source[of], "name")));
    let found = named("configMap", "ConfigMap").or_else(|| named("secret", "Secret"));
    if let Some(found) = found.or_else(|| listed("downwardAPI", "DownwardAPI".into())) {
        return found;
    }
    if let Some(token) = there(source, "serviceAccountToken") {
        return vec![(text(token, "path"), "ServiceAccountToken".into())];
    }
    if let Some(bundle) = there(source, "clusterTrustBundle") {
        let name = there(bundle, "name").or_else(|| there(bundle, "signerName")).and_then(Value::as_str);
        return vec![(text(bundle, "path"), format!("ClusterTrustBundle {:?}", name.unwrap_or_default()).into())];
    }
    let Some(certificate) = there(source, "podCertificate") else { return Vec::new() };
    let parts = [("certificateChainPath", "chain"), ("keyPath", "key"), ("credentialBundlePath", "credential bundle")];
    let files = parts.map(|(field, what)| (text(certificate, field), format!("PodCertificate {what}").into()));
    files.into_iter().filter(|(path, _)| !path.is_empty()).collect()
}

/// The files of a volume so far. There may be tens of thousands, and few of them above or below each other: both are looked
/// up.
struct Known<'p> {
    volume: String,
    /// Paths, and what is told of where they come from.
    all: Vec<(&'p str, Rc<str>)>,
    /// By the hash of their paths.
    at: HashMap<u64, Vec<usize>>,
    /// By their paths with a `/` behind.
    below: BTreeMap<String, Vec<usize>>,
    state: RandomState,
}

impl<'p> Known<'p> {
    fn of(volume: String) -> Self {
        Self { volume, all: Vec::new(), at: HashMap::new(), below: BTreeMap::new(), state: RandomState::new() }
    }

    /// Adds a file, and tells of each earlier one that is the same, or one is a directory above the other.
    fn add(&mut self, path: &'p str, source: Rc<str>, told: &mut Warnings) {
        let path = path.trim_end_matches('/');
        if path.is_empty() || told.is_full() {
            return;
        }
        let directory = format!("{path}/");
        let (mut found, hash) = self.above(path);
        let below = self.below.range(directory.clone()..);
        let below = below.take_while(|(other, _)| other.starts_with(&directory)).map(|(_, files)| files);
        found.extend(below.flatten());
        found.sort_unstable();
        for (other, of) in found.into_iter().map(|nth| &self.all[nth]) {
            if told.is_full() {
                return;
            }
            let from = |source: &str| if source.is_empty() { String::new() } else { format!(" ({source})") };
            let pair = format!("{path:?}{} with {other:?}{}", from(&source), from(of));
            told.add(format!("{}: overlapping paths: {pair}", self.volume));
        }
        let nth = self.all.len();
        self.all.push((path, source));
        self.at.entry(hash).or_default().push(nth);
        self.below.entry(directory).or_default().push(nth);
    }

    /// The files that are directories above a path, and its hash. The path is read once, however many directories it has.
    fn above(&self, path: &str) -> (Vec<usize>, u64) {
        let (mut hasher, mut found, mut start) = (self.state.build_hasher(), Vec::new(), 0);
        for (end, _) in path.match_indices('/') {
            hasher.write(&path.as_bytes()[start..end]);
            let files = self.at.get(&hasher.finish()).map_or(&[][..], Vec::as_slice);
            // Others may have the same hash.
            found.extend(files.iter().copied().filter(|nth| self.all[*nth].0 == &path[..end]));
            start = end;
        }
        hasher.write(&path.as_bytes()[start..]);
        (found, hasher.finish())
    }
}
