//! The contract, over both snapshotters, and hostile layers. Needs root: owners, devices, overlay attributes.

use std::{io::Read, os::unix::fs::MetadataExt};

use super::{apply::Limits, copy::Copy, overlay::Overlay, *};

/// One tar entry.
struct Item<'a> {
    path: &'a str,
    kind: tar::EntryType,
    data: &'a [u8],
    link: &'a str,
}

fn file<'a>(path: &'a str, data: &'a [u8]) -> Item<'a> {
    Item { path, kind: tar::EntryType::Regular, data, link: "" }
}

fn link<'a>(path: &'a str, kind: tar::EntryType, to: &'a str) -> Item<'a> {
    Item { path, kind, data: b"", link: to }
}

fn dir(path: &str) -> Item<'_> {
    Item { path, kind: tar::EntryType::Directory, data: b"", link: "" }
}

/// Writes names as they are: the tar crate refuses the hostile ones.
fn archive(items: &[Item<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for item in items {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(item.kind);
        header.set_size(item.data.len() as u64);
        header.set_mode(0o644);
        header.set_uid(7);
        header.set_gid(8);
        header.set_mtime(1_000_000);
        let gnu = header.as_gnu_mut().unwrap();
        gnu.name[..item.path.len()].copy_from_slice(item.path.as_bytes());
        gnu.linkname[..item.link.len()].copy_from_slice(item.link.as_bytes());
        header.set_cksum();
        builder.append(&header, item.data).unwrap();
    }
    builder.into_inner().unwrap()
}

fn layer(store: &dyn Snapshotter, parent: Option<&Digest>, items: &[Item<'_>]) -> Result<Digest> {
    let tar = archive(items);
    let chain = Digest::of(&tar);
    let draft = store.draft(parent)?;
    apply::apply(&tar[..], &draft, Limits { entries: 100, bytes: 10_000 })?;
    store.commit(draft, parent, &chain)?;
    Ok(chain)
}

fn both(test: impl Fn(&dyn Snapshotter, &Path)) {
    let dir = tempfile::tempdir().unwrap();
    test(&Overlay::open(&dir.path().join("overlay")).unwrap(), dir.path());
    test(&Copy::open(&dir.path().join("copy")).unwrap(), dir.path());
}

fn text(store: &dyn Snapshotter, key: &str, top: &Digest, path: &str) -> Option<String> {
    let mut out = String::new();
    store.open_file(key, Some(top), Path::new(path))?.read_to_string(&mut out).ok()?;
    Some(out)
}

#[test]
fn layers_lie_over_each_other() {
    both(|store, _| {
        let base = [
            dir("etc"),
            file("etc/a", b"one"),
            file("etc/b", b"two"),
            dir("gone"),
            file("gone/x", b"x"),
            link("hard", tar::EntryType::Link, "etc/a"),
        ];
        let base = layer(store, None, &base).unwrap();
        let top = [
            file("etc/.wh.b", b""),
            file("etc/a", b"new"),
            dir("gone"),
            file("gone/.wh..wh..opq", b""),
            file("gone/y", b"y"),
        ];
        let top = layer(store, Some(&base), &top).unwrap();
        assert!(store.has_layer(&base) && store.has_layer(&top));
        store.prepare("c1", Some(&top)).unwrap();
        assert_eq!(text(store, "c1", &top, "/etc/a").as_deref(), Some("new"), "{}", store.name());
        assert_eq!(text(store, "c1", &top, "/etc/b"), None, "{}", store.name());
        assert_eq!(text(store, "c1", &top, "/hard").as_deref(), Some("one"));
        assert_eq!(text(store, "c1", &top, "/gone/y").as_deref(), Some("y"));
        assert_eq!(store.keys(), ["c1"]);
        let metadata = store.open_file("c1", Some(&top), Path::new("etc/a")).unwrap().metadata().unwrap();
        assert_eq!(
            (metadata.uid(), metadata.gid(), metadata.mtime(), metadata.mode() & 0o7777),
            (7, 8, 1_000_000, 0o644)
        );
        store.remove("c1").unwrap();
        store.remove_layer(&top).unwrap();
        assert!(!store.has_layer(&top) && store.keys().is_empty());
        assert!(store.prepare("c2", Some(&top)).is_err());
    });
}

#[test]
fn a_draft_that_is_dropped_leaves_nothing() {
    both(|store, _| {
        let draft = store.draft(None).unwrap();
        let root = draft.root();
        assert!(root.exists());
        drop(draft);
        assert!(!root.exists());
        assert!(store.layers().is_empty());
    });
}

#[test]
fn hostile_layers_stay_in_their_root() {
    both(|store, outside| {
        let victim = outside.join("victim");
        fs::create_dir_all(&victim).unwrap();
        fs::write(victim.join("secret"), "secret").unwrap();
        let victim_text = victim.to_str().unwrap();
        let up = format!("../../../../../../../../..{victim_text}");
        // Refused outright.
        for items in [
            vec![file("../x", b"")],
            vec![file("a/../../x", b"")],
            vec![link("h", tar::EntryType::Link, "../../victim/secret")],
            vec![file(".wh.", b"")],
            vec![file(".wh...", b"")],
            vec![link("dev", tar::EntryType::Char, "")],
            vec![file("big", &[0; 10_001])],
        ] {
            let name = items[0].path.to_owned();
            assert!(layer(store, None, &items).is_err(), "{}: {name}", store.name());
        }
        // Taken, and kept inside.
        for items in [
            vec![link("l", tar::EntryType::Symlink, victim_text), file("l/planted", b"x")],
            vec![link("l", tar::EntryType::Symlink, &up), file("l/planted", b"x")],
            vec![link("l", tar::EntryType::Symlink, victim_text), file("l/.wh.secret", b"")],
            vec![link("l", tar::EntryType::Symlink, victim_text), link("h", tar::EntryType::Link, "l/secret")],
            vec![link("f", tar::EntryType::Symlink, &format!("{victim_text}/secret")), file("f", b"overwritten")],
        ] {
            let _ = layer(store, None, &items);
            assert_eq!(fs::read_to_string(victim.join("secret")).unwrap(), "secret");
            assert_eq!(fs::read_dir(&victim).unwrap().count(), 1, "{}", store.name());
            assert_eq!(fs::metadata(victim.join("secret")).unwrap().nlink(), 1);
        }
        let many: Vec<String> = (0..101).map(|index| format!("f{index}")).collect();
        let many: Vec<Item<'_>> = many.iter().map(|name| file(name, b"")).collect();
        assert!(layer(store, None, &many).unwrap_err().to_string().contains("more than 100 files"));
    });
}

#[test]
fn layers_are_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let chain = layer(&Overlay::open(dir.path()).unwrap(), None, &[file("a", b"1")]).unwrap();
    let again = Overlay::open(dir.path()).unwrap();
    assert_eq!(again.layers(), std::slice::from_ref(&chain));
    assert!(again.layer_usage(&chain).inodes > 0);
    again.prepare("k", Some(&chain)).unwrap();
    assert_eq!(text(&again, "k", &chain, "a").as_deref(), Some("1"));
}
