//! What must hold for any bytes of an image, a bundle or the kernel. The fuzz targets call these, and so does a test with
//! every seed.

use std::{fs, path::Path};

use coracle_launcher::{
    cgroup::{self, Hierarchy},
    json::Json,
    seccomp::Filter,
    spec::{Process, Spec},
};
use coracle_runtime::{
    engine::stats,
    images::{
        manifest::{self, Document, ImageConfig, Platform},
        reference::Reference,
    },
    snapshots::{
        Snapshotter,
        apply::{self, Limits},
        copy::Copy,
        overlay::Overlay,
    },
};
use coracle_shim::protocol::{self, Reply, Request};

/// A layer is unpacked or refused, and nothing outside its directory changes. Needs root.
pub fn layers(data: &[u8]) {
    let dir = tempfile::tempdir().expect("a directory for the layer");
    let victim = dir.path().join("victim");
    fs::create_dir(&victim).expect("a directory beside it");
    fs::write(victim.join("file"), "untouched").expect("a file beside it");
    let limits = Limits { entries: 200, bytes: 1 << 20, names: 1 << 20, ..Limits::default() };
    let stores: [Box<dyn Snapshotter>; 2] = [
        Box::new(Overlay::open(&dir.path().join("overlay")).expect("a store")),
        Box::new(Copy::open(&dir.path().join("copy")).expect("a store")),
    ];
    for store in stores {
        let draft = store.draft(None).expect("a draft");
        let _ = apply::apply(data, &draft, limits);
        // What was unpacked can be looked through and thrown away.
        coracle_runtime::snapshots::measure(&draft.root());
        let root = draft.root();
        drop(draft);
        assert!(!root.exists());
    }
    assert_eq!(fs::read(victim.join("file")).expect("the file beside it"), b"untouched");
    let names = |dir: &Path| fs::read_dir(dir).map_or(0, |entries| entries.count());
    assert_eq!((names(&victim), names(dir.path())), (1, 3));
}

/// What was read of a manifest is the same when it is written and read again.
pub fn manifests(data: &[u8]) {
    for media_type in ["", manifest::OCI_INDEX, manifest::DOCKER_MANIFEST] {
        match manifest::parse(data, media_type) {
            Ok(Document::Manifest(read)) => {
                let text = serde_json::to_vec(&read).expect("a manifest can be written");
                let Ok(Document::Manifest(again)) = manifest::parse(&text, "") else { panic!("it is no manifest now") };
                assert_eq!((again.config, again.layers), (read.config, read.layers));
            }
            Ok(Document::Index(index)) => drop(index.choose(&Platform::own())),
            Err(_) => {}
        }
    }
    if let Ok(config) = ImageConfig::parse(data) {
        let text = serde_json::to_vec(&config).expect("a configuration can be written");
        let again = ImageConfig::parse(&text).expect("what was written can be read");
        assert_eq!(again.chain_ids(), config.chain_ids());
        assert_eq!(again.config, config.config);
    }
    if let Some(reference) = std::str::from_utf8(data).ok().and_then(|text| text.parse::<Reference>().ok()) {
        let again: Reference = reference.to_string().parse().expect("a whole name is a name");
        assert_eq!(again.to_string(), reference.to_string());
    }
}

/// A bundle's configuration is understood or refused; so is what its parts are compiled to.
pub fn specs(data: &[u8]) {
    let Ok(config) = Json::parse(data) else { return };
    let text = config.to_string();
    let again = Json::parse(text.as_bytes()).expect("what was written can be read");
    assert_eq!(again.to_string(), text);
    let _ = Spec::parse(&config, Path::new("/bundle"));
    let _ = Process::parse(config.get("process"));
    let _ = Filter::of(config.at("linux.seccomp"));
    let _ = cgroup::devices::Table::parse(config.at("linux.resources.devices").items());
}

/// What the kernel says of mounts and groups is a file like any other.
pub fn cgroups(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Some(hierarchy) = Hierarchy::parse(&text)
        && let Ok(group) = hierarchy.group("/a/b")
    {
        for (_, dir) in group.dirs() {
            assert!(dir.ends_with("a/b"), "{dir:?}");
        }
        assert!(hierarchy.group("/a/../b").is_err());
    }
    let _ = stats::interfaces(&text);
    let dir = tempfile::tempdir().expect("a directory for the group's files");
    fs::write(dir.path().join("file"), data).expect("a file of the group");
    let _ = cgroup::read_number(dir.path(), "file");
    let _ = cgroup::read_key(dir.path(), "file", "key");
}

/// A shim's frames are taken apart without a word more or less than there is.
pub fn frames(data: &[u8]) {
    let Ok(Some((kind, number, body, used))) = protocol::split(data) else { return };
    assert!(used <= data.len() && body.len() <= used);
    let mut bytes = Vec::new();
    if let Ok(request) = Request::decode(kind, body) {
        request.encode(number, &mut bytes);
        let again = protocol::split(&bytes).expect("a frame").expect("a whole one");
        assert_eq!(Request::decode(again.0, again.2), Ok(request));
    }
    if let Ok(reply) = Reply::decode(kind, body) {
        bytes.clear();
        reply.encode(number, &mut bytes);
        let again = protocol::split(&bytes).expect("a frame").expect("a whole one");
        assert_eq!(Reply::decode(again.0, again.2), Ok(reply));
    }
}
