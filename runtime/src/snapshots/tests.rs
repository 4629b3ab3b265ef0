//! The contract, over both snapshotters, and hostile layers. Needs root: owners, devices, overlay attributes.

use std::{io::Read, os::unix::fs::MetadataExt};

use coracle_launcher::sys;

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
    apply::apply(&tar[..], &draft, Limits { entries: 100, bytes: 10_000, names: 10_000, ..Limits::default() })?;
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
    both(|store, place| {
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
        let away = place.join(format!("{} away", store.name()));
        store.take_away("c1", &away).unwrap();
        assert!(away.is_dir() && store.keys().is_empty() && store.take_away("c1", &place.join("again")).is_err());
        store.prepare("c1", Some(&top)).unwrap();
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
            vec![link("h", tar::EntryType::Link, "../../victim/secret")],
            vec![file(".wh.", b"")],
            vec![file(".wh...", b"")],
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
            vec![file("../../../victim/planted", b"x"), file("a/../../../victim/.wh.secret", b"")],
            vec![
                link("l", tar::EntryType::Symlink, victim_text),
                link("h", tar::EntryType::Link, "l/../victim/secret"),
            ],
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

/// A header as no tool would write it, with its content.
fn raw(name: &[u8], kind: tar::EntryType, size: u64, change: impl FnOnce(&mut tar::Header)) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.as_gnu_mut().unwrap().name[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    change(&mut header);
    header.set_cksum();
    header.as_bytes().to_vec()
}

fn unpack(store: &dyn Snapshotter, tar: impl Read, limits: Limits) -> Result<Draft> {
    let draft = store.draft(None)?;
    apply::apply(tar, &draft, limits)?;
    Ok(draft)
}

const SMALL: Limits = Limits { entries: 1000, bytes: 1 << 20, names: 1 << 20, layers: 1 };

#[test]
fn bombs_are_refused_before_they_go_off() {
    both(|store, _| {
        let refused = |tar: Vec<u8>, words: &str| {
            let endless = (&tar[..]).chain(std::io::repeat(0).take(64 << 30));
            let error = unpack(store, endless, SMALL).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(words), "{}: {error:?} instead of {words:?}", store.name());
        };
        // Names and records that would fill the memory.
        for kind in [tar::EntryType::GNULongName, tar::EntryType::GNULongLink, tar::EntryType::XHeader] {
            refused(raw(b"x", kind, 32 << 30, |_| ()), "bytes of headers for one file");
        }
        refused(raw(b"x", tar::EntryType::XGlobalHeader, 32 << 30, |_| ()), "larger than 1048576 bytes unpacked");
        // Content that would fill the disk, of a file, of what has none, and of a hole.
        refused(raw(b"big", tar::EntryType::Regular, 8 << 30, |_| ()), "larger than 1048576 bytes unpacked");
        let hole = |header: &mut tar::Header| {
            let gnu = header.as_gnu_mut().unwrap();
            gnu.sparse[0].offset.copy_from_slice(b"177777777777");
            gnu.sparse[0].numbytes.copy_from_slice(b"000000000000");
            gnu.realsize.copy_from_slice(b"177777777777");
        };
        refused(raw(b"hole", tar::EntryType::GNUSparse, 0, hole), "larger than 1048576 bytes unpacked");
        // A chain of records that each are small enough.
        let mut many = Vec::new();
        for _ in 0..10_000 {
            many.extend(raw(b"x", tar::EntryType::XGlobalHeader, 0, |_| ()));
        }
        refused(many, "more than 1000 files");
    });
}

/// An archive that is made while it is read: entry after entry, without end.
struct Endless<F> {
    make: F,
    next: u64,
    rest: std::collections::VecDeque<u8>,
}

impl<F: Fn(u64) -> Vec<u8>> Read for Endless<F> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.rest.is_empty() {
            self.rest.extend((self.make)(self.next));
            self.next += 1;
        }
        self.rest.read(buffer)
    }
}

fn endless<F: Fn(u64) -> Vec<u8>>(make: F) -> Endless<F> {
    Endless { make, next: 0, rest: Default::default() }
}

#[test]
fn files_without_end_come_to_one() {
    both(|store, dir| {
        let refused = |make: &dyn Fn(u64) -> Vec<u8>, limits, words: &str| {
            let error = unpack(store, endless(make), limits).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(words), "{}: {error:?} instead of {words:?}", store.name());
        };
        let files = Limits { entries: 2000, ..SMALL };
        let name = |number: u64| format!("d{}/f{number}", number % 100).into_bytes();
        refused(&|number| raw(&name(number), tar::EntryType::Regular, 0, |_| ()), files, "more than 2000 files");
        // The same file over and over, links to it, and names that lead to one place.
        refused(&|_| raw(b"again", tar::EntryType::Regular, 0, |_| ()), files, "more than 2000 files");
        let link = |header: &mut tar::Header| header.set_link_name_literal(b"f").unwrap();
        let links = |number: u64| match number {
            0 => raw(b"f", tar::EntryType::Regular, 0, |_| ()),
            number => raw(format!("./l{}", number % 3).as_bytes(), tar::EntryType::Link, 0, link),
        };
        refused(&links, files, "more than 2000 files");
        // Directories are remembered, by names as long as a path may be.
        let deep = format!("{}/", "n".repeat(200)).repeat(19);
        let directories = |number: u64| {
            let path = format!("{deep}{number}");
            let mut out = raw(b"x", tar::EntryType::GNULongName, path.len() as u64, |_| ());
            out.extend(path.as_bytes());
            out.resize(out.len().next_multiple_of(512), 0);
            out.extend(raw(b"x", tar::EntryType::Directory, 0, |_| ()));
            out
        };
        refused(&directories, files, "directories have more than 1048576 bytes of names");
        // What was made until then is gone.
        for part in ["overlay/t", "copy/t"] {
            assert!(
                fs::read_dir(dir.join(part)).is_ok_and(|mut left| left.next().is_none()) || !dir.join(part).exists()
            );
        }
    });
}

#[test]
fn odd_entries_are_taken_as_they_are() {
    both(|store, _| {
        let mut tar = Vec::new();
        // A hole of a megabyte less a page, and a page behind it.
        let end = (1u64 << 20) - 8192;
        tar.extend(raw(b"hole", tar::EntryType::GNUSparse, 512, |header| {
            let gnu = header.as_gnu_mut().unwrap();
            gnu.sparse[0].offset.copy_from_slice(format!("{:012o}", end - 512).as_bytes());
            gnu.sparse[0].numbytes.copy_from_slice(format!("{:012o}", 512).as_bytes());
            gnu.realsize.copy_from_slice(format!("{end:012o}").as_bytes());
        }));
        tar.extend([b'x'; 512]);
        // A target that is no text, a program that becomes another user, a device of the host's.
        tar.extend(raw(b"link", tar::EntryType::Symlink, 0, |header| {
            header.as_gnu_mut().unwrap().linkname[..3].copy_from_slice(b"\xff/\xfe");
        }));
        tar.extend(raw(b"su", tar::EntryType::Regular, 0, |header| header.set_mode(0o4755)));
        tar.extend(raw(b"sda", tar::EntryType::Block, 0, |header| header.set_device_major(8).unwrap()));
        // The same name as a file, as a directory with something in it, and as a file again.
        tar.extend(raw(b"twice", tar::EntryType::Regular, 0, |_| ()));
        tar.extend(raw(b"twice/", tar::EntryType::Directory, 0, |_| ()));
        tar.extend(raw(b"twice/inner", tar::EntryType::Regular, 0, |_| ()));
        tar.extend(raw(b"twice", tar::EntryType::Regular, 0, |header| header.set_mode(0o600)));
        tar.extend([0; 1024]);
        let draft = unpack(store, &tar[..], SMALL).unwrap();
        let metadata = |name: &str| fs::symlink_metadata(draft.root().join(name)).unwrap();
        assert_eq!(metadata("hole").len(), end);
        assert!(metadata("hole").blocks() * 512 < 64 << 10, "{} blocks", metadata("hole").blocks());
        let target = fs::read_link(draft.root().join("link")).unwrap();
        assert_eq!(target.as_os_str().as_encoded_bytes(), b"\xff/\xfe");
        assert_eq!(metadata("su").mode() & 0o7777, 0o4755);
        assert_eq!(metadata("sda").rdev(), libc::makedev(8, 0));
        assert!(metadata("twice").is_file() && metadata("twice").mode() & 0o777 == 0o600);
        // Fields that say nothing are 0; those that say no number are refused, and so are owners that nobody has.
        let blank = |header: &mut tar::Header| {
            let fields = header.as_old_mut();
            (fields.mode, fields.uid, fields.gid) = ([0; 8], *b"       \0", [b' '; 8]);
            fields.mtime = [0; 12];
        };
        let tar = [raw(b"blank", tar::EntryType::Regular, 0, blank), vec![0; 1024]].concat();
        let draft = unpack(store, &tar[..], SMALL).unwrap();
        let metadata = fs::symlink_metadata(draft.root().join("blank")).unwrap();
        let found = (metadata.mode() & 0o7777, metadata.uid(), metadata.gid(), metadata.mtime());
        assert_eq!(found, (0, 0, 0, 0));
        let garbage: [fn(&mut tar::OldHeader); 5] = [
            |fields| fields.mode = *b"garbage\0",
            |fields| fields.uid = *b"0000009\0",
            |fields| fields.gid = *b"-000001\0",
            |fields| fields.mtime = *b"yesterday  \0",
            |fields| fields.uid = *b"\x80\0\0\x01\0\0\0\0",
        ];
        for spoil in garbage {
            let tar = raw(b"bad", tar::EntryType::Regular, 0, |header| spoil(header.as_old_mut()));
            assert!(unpack(store, &[tar, vec![0; 1024]].concat()[..], SMALL).is_err());
        }
        // Names that no file system takes.
        for name in [vec![b'a'; 300], [vec![b'b'; 200], vec![b'/'], vec![b'c'; 5000]].concat()] {
            let mut tar = raw(b"x", tar::EntryType::GNULongName, name.len() as u64, |_| ());
            tar.extend(&name);
            tar.resize(tar.len().next_multiple_of(512), 0);
            tar.extend(raw(b"x", tar::EntryType::Regular, 0, |_| ()));
            assert!(unpack(store, &tar[..], SMALL).is_err());
        }
    });
}

#[test]
fn what_a_power_loss_took_is_thrown_away() {
    let dir = tempfile::tempdir().unwrap();
    type Open = fn(&Path) -> Box<dyn Snapshotter>;
    let opens: [(&str, Open); 2] =
        [("overlay", |dir| Box::new(Overlay::open(dir).unwrap())), ("copy", |dir| Box::new(Copy::open(dir).unwrap()))];
    for (name, open) in opens {
        let dir = dir.path().join(name);
        let store = open(&dir);
        let settled = layer(&*store, None, &[file("a", b"1")]).unwrap();
        store.settle().unwrap();
        let unsettled = layer(&*store, Some(&settled), &[file("b", b"2")]).unwrap();
        drop(store);
        // The process was killed, the machine went on: nothing is lost, and the next flush covers it.
        let store = open(&dir);
        assert!(store.has_layer(&settled) && store.has_layer(&unsettled), "{name}");
        drop(store);
        // The machine was off: as if the mark were of another boot.
        let marks = walk(&dir.join("l"), "unsettled");
        assert_eq!(marks.len(), 1, "{name}: {marks:?}");
        fs::write(&marks[0], "another boot").unwrap();
        let store = open(&dir);
        assert!(store.has_layer(&settled) && !store.has_layer(&unsettled), "{name}");
        assert_eq!(fs::read_dir(dir.join("l")).unwrap().count(), 1);
        assert_eq!(fs::read_dir(dir.join("t")).unwrap().count(), 0);
        // Unpacked again, it is there again.
        assert_eq!(layer(&*store, Some(&settled), &[file("b", b"2")]).unwrap(), unsettled);
        store.settle().unwrap();
        assert!(walk(&dir.join("l"), "unsettled").is_empty());
    }
}

#[test]
fn a_layer_without_what_it_lies_on_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let store = Overlay::open(dir.path()).unwrap();
    let below = layer(&store, None, &[file("a", b"1")]).unwrap();
    let above = layer(&store, Some(&below), &[file("b", b"2")]).unwrap();
    layer(&store, Some(&above), &[file("c", b"3")]).unwrap();
    drop(store);
    // Half of a layer's directory, as a broken disk leaves it.
    let chains = walk(&dir.path().join("l"), "chain");
    let broken = chains.iter().find(|path| fs::read_to_string(path).unwrap() == below.as_str()).unwrap();
    fs::write(broken, "").unwrap();
    let store = Overlay::open(dir.path()).unwrap();
    assert!(store.layers().is_empty());
    assert_eq!(fs::read_dir(dir.path().join("l")).unwrap().count(), 0);
}

/// The files of a name one directory below.
fn walk(dir: &Path, name: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path().join(name));
    entries.filter(|path| path.exists()).collect()
}

/// A member with extended records, as they lie in an archive.
fn pax(records: &[u8], member: Vec<u8>) -> Vec<u8> {
    let mut out = raw(b"x", tar::EntryType::XHeader, records.len() as u64, |_| ());
    out.extend(records);
    out.resize(out.len().next_multiple_of(512), 0);
    out.extend(member);
    out
}

/// `LENGTH KEY=VALUE`
fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let length = (1..).find(|digits| (rest + digits).to_string().len() == *digits).unwrap() + rest;
    [length.to_string().as_bytes(), b" ", key.as_bytes(), b"=", value, b"\n"].concat()
}

fn attribute(path: &Path, name: &str) -> Option<Vec<u8>> {
    coracle_launcher::sys::getxattr(path, name).ok()
}

#[test]
fn records_say_what_their_lengths_say() {
    both(|store, _| {
        // A capability whose bytes hold a newline, as that of CAP_DAC_OVERRIDE and CAP_FOWNER does.
        let capability = [1, 0, 0, 2, 0x0a, 0, 0, 0, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let mut tar = pax(
            &record("SCHILY.xattr.security.capability", &capability),
            raw(b"able", tar::EntryType::Regular, 0, |_| ()),
        );
        // A value that looks like records to who goes by lines: names, targets and sizes are not taken from it.
        let planted = [b"x\n".to_vec(), record("path", b"planted"), record("linkpath", b"planted")].concat();
        let lying = record("SCHILY.xattr.user.x", &planted);
        let to = |header: &mut tar::Header| header.set_link_name_literal(b"able").unwrap();
        tar.extend(pax(&lying, raw(b"hard", tar::EntryType::Link, 0, to)));
        tar.extend(pax(&lying, raw(b".wh.gone", tar::EntryType::Regular, 0, |_| ())));
        // Of equal keys the last counts.
        let twice = [record("path", b"first"), record("path", b"second"), record("size", b"9"), record("size", b"3")];
        tar.extend(pax(&twice.concat(), raw(b"x", tar::EntryType::Regular, 0, |_| ())));
        tar.extend(raw(b"abc", tar::EntryType::Regular, 0, |_| ())[..3].iter().chain(&[0; 509]));
        let times = [record("mtime", b"-1.25"), record("atime", b"1000000000.5")].concat();
        tar.extend(pax(&times, raw(b"old", tar::EntryType::Regular, 0, |_| ())));
        tar.extend([0; 1024]);
        let draft = unpack(store, &tar[..], SMALL).unwrap();
        let at = |name: &str| draft.root().join(name);
        assert_eq!(attribute(&at("able"), "security.capability").as_deref(), Some(&capability[..]), "{}", store.name());
        assert_eq!(fs::metadata(at("able")).unwrap().ino(), fs::metadata(at("hard")).unwrap().ino());
        assert!(!at("planted").exists() && !at("first").exists() && !at("x").exists());
        assert_eq!(fs::read(at("second")).unwrap(), b"abc");
        let old = fs::metadata(at("old")).unwrap();
        assert_eq!((old.mtime(), old.mtime_nsec()), (-2, 750_000_000));
        assert_eq!((old.atime(), old.atime_nsec()), (1_000_000_000, 500_000_000));
        for bad in [&b"99 a=b\n"[..], b"5 a=b", b"7 path=\n", b"x"] {
            for kind in [tar::EntryType::Regular, tar::EntryType::Link] {
                let tar = pax(bad, raw(b"f", kind, 0, to));
                let error = unpack(store, &tar[..], SMALL).err().map(|error| error.to_string()).unwrap_or_default();
                assert!(error.contains("malformed PAX record"), "{}: {error}", store.name());
            }
        }
    });
}

#[test]
fn sparse_files_of_every_form_are_unpacked() {
    use std::os::unix::fs::FileExt;
    let dir = tempfile::tempdir().unwrap();
    let file = fs::File::create(dir.path().join("holes")).unwrap();
    file.set_len(700_000).unwrap();
    for number in 0..40 {
        file.write_all_at(&[b'a' + (number % 26) as u8; 100], number * 16384).unwrap();
    }
    let content = fs::read(dir.path().join("holes")).unwrap();
    fs::write(dir.path().join("next"), "next").unwrap();
    let forms: [&[&str]; 4] = [
        &["--format=gnu"],
        &["--format=posix", "--sparse-version=0.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=1.0"],
    ];
    for form in forms {
        let made = std::process::Command::new("tar")
            .args(["-S", "-c", "-C"])
            .arg(dir.path())
            .args(form)
            .args(["holes", "next"])
            .output();
        let tar = made.unwrap().stdout;
        assert!(tar.len() < 400_000, "{form:?} made no holes: {} bytes", tar.len());
        both(|store, _| {
            let draft = unpack(store, &tar[..], SMALL).unwrap();
            assert!(fs::read(draft.root().join("holes")).unwrap() == content, "{form:?}, {}", store.name());
            let metadata = fs::metadata(draft.root().join("holes")).unwrap();
            assert!(metadata.blocks() * 512 < 400_000, "{form:?}: {} blocks", metadata.blocks());
            assert_eq!(fs::read(draft.root().join("next")).unwrap(), b"next");
        });
    }
    // Maps that are none.
    let member = |size| raw(b"f", tar::EntryType::Regular, size, |_| ());
    for map in [&b"0,1,0,1"[..], b"5,1,0,1", b"0,2", b"0,1,2", b"0,-1", b"18446744073709551615,1,0,0", b"9,1"] {
        let records = [record("GNU.sparse.map", map), record("GNU.sparse.size", b"9")].concat();
        let tar = [pax(&records, member(1)), vec![b'x'; 512], vec![0; 1024]].concat();
        both(|store, _| assert!(unpack(store, &tar[..], SMALL).is_err(), "{:?}", String::from_utf8_lossy(map)));
    }
    for map in ["", "1\n0\n", "9999999999\n", "x\n", "1\n0\n600\n"] {
        let records = [record("GNU.sparse.major", b"1"), record("GNU.sparse.minor", b"0")].concat();
        let mut tar = pax(&records, member(512));
        tar.extend(map.as_bytes());
        tar.resize(tar.len().next_multiple_of(512).max(2048), 0);
        tar.extend([0; 1024]);
        both(|store, _| assert!(unpack(store, &tar[..], SMALL).is_err(), "{map:?}"));
    }
}

#[test]
fn what_other_tools_take_is_taken() {
    both(|store, _| {
        let mut tar = Vec::new();
        tar.extend(raw(b"a/../b", tar::EntryType::Regular, 0, |_| ()));
        tar.extend(raw(b"../../c", tar::EntryType::Regular, 0, |_| ()));
        // A directory of before there were any, and what is in it.
        tar.extend(raw(b"old/", tar::EntryType::Regular, 0, |header| {
            header.as_old_mut().linkflag = [0];
            header.as_gnu_mut().unwrap().magic = [0; 6];
        }));
        tar.extend(raw(b"old/inner", tar::EntryType::Regular, 0, |_| ()));
        // An attribute that the file system has for no link, and one that no device can have.
        let to = |header: &mut tar::Header| header.set_link_name_literal(b"c").unwrap();
        let list = record("SCHILY.xattr.system.posix_acl_access", b"\x02\0\0\0");
        tar.extend(pax(&list, raw(b"link", tar::EntryType::Symlink, 0, to)));
        tar.extend(pax(&record("SCHILY.xattr.user.x", b"y"), raw(b"pipe", tar::EntryType::Fifo, 0, |_| ())));
        // A link has no content, whatever it says.
        tar.extend(raw(b"hard", tar::EntryType::Link, 77, to));
        tar.extend(raw(b"last", tar::EntryType::Regular, 0, |_| ()));
        tar.extend([0; 1024]);
        let draft = unpack(store, &tar[..], SMALL).unwrap();
        for name in ["b", "c", "old/inner", "pipe", "hard", "last"] {
            assert!(draft.root().join(name).exists(), "{}: {name}", store.name());
        }
        assert!(!draft.root().join("a").exists());
    });
}

#[test]
fn whiteouts_are_those_of_the_layers_below() {
    let place = tempfile::tempdir().unwrap();
    let store = Overlay::open(place.path()).unwrap();
    let base = [file("x", b"below"), file("d/below", b""), file("e/below", b""), file("dev", b"below")];
    let base = layer(&store, None, &base).unwrap();
    let top = [
        file("x", b"own"),
        file(".wh.x", b""),
        dir("d"),
        file("d/own", b"1"),
        file(".wh.d", b""),
        file(".wh.e", b""),
        dir("e"),
        file("e/own", b"2"),
        // As the storage of another overlay has it.
        link("dev", tar::EntryType::Char, ""),
    ];
    let top = layer(&store, Some(&base), &top).unwrap();
    store.prepare("c", Some(&top)).unwrap();
    let shown = |path: &str| text(&store, "c", &top, path);
    assert_eq!((shown("x").as_deref(), shown("d/own").as_deref()), (Some("own"), Some("1")));
    assert_eq!(shown("e/own").as_deref(), Some("2"));
    assert_eq!((shown("d/below"), shown("e/below"), shown("dev")), (None, None, None));
}

#[test]
fn whiteouts_of_another_overlay_hide_in_copies_too() {
    both(|store, _| {
        let base = layer(store, None, &[file("gone", b"below"), file("stays", b"")]).unwrap();
        let top = layer(store, Some(&base), &[link("gone", tar::EntryType::Char, "")]).unwrap();
        store.prepare("c", Some(&top)).unwrap();
        assert_eq!(text(store, "c", &top, "gone"), None);
        let whole = &store.lowers(Some(&top)).unwrap()[0];
        if store.name() != "overlayfs" {
            assert!(whole.join("stays").exists() && fs::symlink_metadata(whole.join("gone")).is_err());
        }
    });
}

#[test]
fn directories_that_a_layer_does_not_mention_are_those_below() {
    let place = tempfile::tempdir().unwrap();
    let victim = place.path().join("victim");
    fs::create_dir_all(victim.join("inner")).unwrap();
    std::os::unix::fs::chown(victim.join("inner"), Some(4711), Some(4711)).unwrap();
    let store = Overlay::open(&place.path().join("s")).unwrap();
    let up = victim.to_str().unwrap();
    // The layer's own directory, not the host's, by a link; a file where there was a directory.
    let mut base = vec![
        link("a", tar::EntryType::Symlink, up),
        dir("was"),
        dir("plain"),
        link("to", tar::EntryType::Symlink, "/plain"),
    ];
    base.push(file("plain/f", b""));
    let base = layer(&store, None, &base).unwrap();
    let middle = layer(&store, Some(&base), &[file("was", b"")]).unwrap();
    let root = store.lowers(Some(&base)).unwrap()[0].join("plain");
    coracle_launcher::sys::setxattr(&root, "user.kept", b"yes").unwrap();
    coracle_launcher::sys::setxattr(&root, "trusted.overlay.x", b"no").unwrap();
    coracle_launcher::sys::umask(0o077);
    let top = [file("a/inner/f", b""), file("was/f", b""), file("plain/g", b""), file("to/g", b""), file("new/f", b"")];
    let top = layer(&store, Some(&middle), &top);
    coracle_launcher::sys::umask(0o022);
    let top = store.lowers(Some(&top.unwrap())).unwrap()[0].clone();
    let of = |name: &str| fs::symlink_metadata(top.join(name)).map(|it| (it.uid(), it.mode() & 0o7777)).unwrap();
    assert_eq!((of("a/inner"), of("was"), of("new")), ((0, 0o755), (0, 0o755), (0, 0o755)));
    assert_eq!((of("plain"), of("to")), ((7, 0o644), (7, 0o644)));
    assert_eq!(attribute(&top.join("plain"), "user.kept").as_deref(), Some(&b"yes"[..]));
    assert_eq!(attribute(&top.join("plain"), "trusted.overlay.x"), None);
}

#[test]
fn files_are_found_as_they_would_be_mounted() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("passwd"), "host").unwrap();
    let store = Overlay::open(&place.path().join("s")).unwrap();
    let outside = place.path().join("passwd");
    let base = [
        dir("etc"),
        file("etc/passwd", b"old"),
        file("etc/group", b"old"),
        file("usr/lib/passwd", b"linked"),
        file("usr/other/group", b"hidden"),
        link("loop", tar::EntryType::Symlink, "loop"),
    ];
    let base = layer(&store, None, &base).unwrap();
    // The link and what it points at are of two layers.
    let second = [
        link("etc/passwd", tar::EntryType::Symlink, "../usr/lib/passwd"),
        link("etc/out", tar::EntryType::Symlink, outside.to_str().unwrap()),
        link("lib", tar::EntryType::Symlink, "/usr/lib"),
        file("usr/.wh.other", b""),
    ];
    let second = layer(&store, Some(&base), &second).unwrap();
    let shown = |top: &Digest, path: &str| text(&store, "c", top, path);
    store.prepare("c", Some(&second)).unwrap();
    assert_eq!(shown(&second, "/etc/passwd").as_deref(), Some("linked"));
    assert_eq!(shown(&second, "/lib/../lib/passwd").as_deref(), Some("linked"));
    assert_eq!(shown(&second, "etc/group").as_deref(), Some("old"));
    for none in ["etc/out", "loop", "usr/other/group", "etc", "etc/passwd/x", "nothing"] {
        assert_eq!(shown(&second, none), None, "{none}");
    }
    // /etc was made again, and taken away.
    let third = [dir("etc"), file("etc/.wh..wh..opq", b""), file("etc/group", b"new")];
    let third = layer(&store, Some(&second), &third).unwrap();
    assert_eq!((shown(&third, "etc/passwd"), shown(&third, "etc/group").as_deref()), (None, Some("new")));
    let fourth = layer(&store, Some(&third), &[file(".wh.etc", b"")]).unwrap();
    assert_eq!(shown(&fourth, "etc/group"), None);
    let fifth = layer(&store, Some(&fourth), &[file("etc", b"a file")]).unwrap();
    assert_eq!((shown(&fifth, "etc/group"), shown(&fifth, "etc").as_deref()), (None, Some("a file")));
}

#[test]
fn many_layers_are_looked_into() {
    let place = tempfile::tempdir().unwrap();
    // As long as a node of a lab has it.
    let deep = place.path().join("d".repeat(60));
    let store = Overlay::open(&deep).unwrap();
    let names: Vec<String> = (0..100).map(|number| format!("f{number}")).collect();
    let mut top = None;
    for name in &names {
        top = Some(layer(&store, top.as_ref(), &[file(name, name.as_bytes())]).unwrap());
    }
    let root = store.prepare("c", top.as_ref()).unwrap();
    let here = std::env::current_dir().unwrap();
    let opened = open_detached(&root, &place.path().join("mount")).unwrap();
    let opened = PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&opened)));
    for name in ["f0", "f99"] {
        assert_eq!(fs::read_to_string(opened.join(name)).unwrap(), name);
    }
    assert_eq!(std::env::current_dir().unwrap(), here);
}

#[test]
fn links_lead_up_in_what_is_mounted_nowhere() {
    use std::os::fd::AsFd;
    let place = tempfile::tempdir().unwrap();
    let store = Overlay::open(place.path()).unwrap();
    let below = [dir("a"), dir("a/b"), file("a/target", b"found")];
    let below = layer(&store, None, &below).unwrap();
    let up = "../b/../b/../../a/b/../../../../a/target";
    let top = [link("a/over", tar::EntryType::Symlink, "b"), link("a/b/link", tar::EntryType::Symlink, up)];
    let top = layer(&store, Some(&below), &top).unwrap();
    let root = store.prepare("c", Some(&top)).unwrap();
    let opened = open_detached(&root, &place.path().join("mount")).unwrap();
    let resolve = sys::RESOLVE_IN_ROOT | sys::RESOLVE_NO_MAGICLINKS;
    // Up behind a link that was followed: what the first let go of must not look as if something had moved.
    let found = sys::openat2(opened.as_fd(), Path::new("a/over/link"), libc::O_RDONLY, 0, resolve);
    let mut text = String::new();
    File::from(found.unwrap()).read_to_string(&mut text).unwrap();
    assert_eq!(text, "found");
}

#[test]
fn layers_are_no_larger_than_there_is_room_for() {
    let place = tempfile::tempdir().unwrap();
    let work = || {
        mount_alone("tmpfs", &["size=4m".into()], 0, place.path()).unwrap();
        let store = Overlay::open(place.path()).unwrap();
        let refused = |size: u64| {
            let tar = raw(b"big", tar::EntryType::Regular, size, |_| ());
            let endless = (&tar[..]).chain(std::io::repeat(0).take(8 << 20));
            unpack(&store, endless, Limits::default()).err().map(|error| error.to_string()).unwrap_or_default()
        };
        // Before any of it is written, and not to the last byte.
        assert!(refused(5 << 20).contains("bytes that there is room for"), "{}", refused(5 << 20));
        assert!(refused((4 << 20) - (100 << 10)).contains("bytes that there is room for"));
        // What is a hole takes none.
        let hole = |header: &mut tar::Header| {
            let gnu = header.as_gnu_mut().unwrap();
            gnu.sparse[0].offset.copy_from_slice(b"000400000000");
            gnu.sparse[0].numbytes.copy_from_slice(b"000000000000");
            gnu.realsize.copy_from_slice(b"000400000000");
        };
        let mut tar = raw(b"hole", tar::EntryType::GNUSparse, 0, hole);
        tar.extend([0; 1024]);
        let draft = unpack(&store, &tar[..], Limits::default()).unwrap();
        assert_eq!(fs::metadata(draft.root().join("hole")).unwrap().len(), 64 << 20);
    };
    std::thread::scope(|scope| scope.spawn(work).join().unwrap());
}
