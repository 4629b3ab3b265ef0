//! Images.

use crate::engine::{Engine, IMAGE};

#[test]
fn images_are_named_untagged_and_removed() {
    let engine = Engine::start();
    let id = engine.ok(&["images", "-q", "--no-trunc", IMAGE]);
    engine.ok(&["tag", IMAGE, "other:1"]);
    assert_eq!(engine.ok(&["image", "inspect", "-f", "{{.Id}}", "other:1"]), id);
    let refused = engine.docker(&["rmi", &id]).fails();
    assert!(refused.contains("image is referenced in multiple repositories"), "{refused}");
    assert!(engine.ok(&["rmi", "other:1"]).contains("Untagged: other:1"));
    engine.ok(&["run", "-d", "--name", "user", IMAGE, "sleep", "1000"]);
    let refused = engine.docker(&["rmi", IMAGE]).fails();
    assert!(refused.contains("is using its referenced image"), "{refused}");
    let missing = engine.docker(&["image", "inspect", "nothing:1"]).fails();
    assert!(missing.contains("o such image: nothing:1"), "{missing}");
    engine.ok(&["rm", "-f", "user"]);
    assert!(engine.ok(&["rmi", IMAGE]).contains("Deleted: sha256:"));
    assert_eq!(engine.ok(&["images", "-q"]), "");
}

#[test]
fn commits_saves_and_loads_keep_content() {
    let engine = Engine::start();
    engine.docker(&["run", "--name", "work", IMAGE, "sh", "-c", "echo new > /root/new; rm /data/seed"]).ok();
    engine.ok(&["commit", "-m", "made here", "-c", "ENV WHO=me", "work", "made:1"]);
    assert_eq!(engine.ok(&["run", "--rm", "made:1", "sh", "-c", "cat /root/new; ls /data; echo $WHO"]), "new\nme");
    assert!(engine.ok(&["history", "made:1"]).contains("made here"));
    let archive = engine.path("saved.tar");
    engine.ok(&["save", "-o", archive.to_str().unwrap(), "made:1"]);
    engine.ok(&["rmi", "made:1"]);
    assert_eq!(engine.ok(&["load", "-i", archive.to_str().unwrap()]), "Loaded image: made:1");
    assert_eq!(engine.ok(&["run", "--rm", "made:1", "cat", "/root/new"]), "new");
    let exported = engine.path("exported.tar");
    engine.ok(&["export", "-o", exported.to_str().unwrap(), "work"]);
    assert!(std::fs::metadata(exported).unwrap().len() > 1 << 20);
}
