//! The container's root and what is put into it.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink},
    path::Path,
};

use serde_json::json;

use crate::bundle::{Bundle, isolated};

#[test]
fn a_root_that_is_a_link_is_refused() {
    const TEST: &str = "roots::a_root_that_is_a_link_is_refused";
    isolated(TEST, || {
        let mut bundle = Bundle::new(TEST, "exit 3");
        let dir = bundle.dir.path().to_owned();
        symlink("rootfs", dir.join("link")).unwrap();
        symlink(".", dir.join("way")).unwrap();
        for root in ["link".into(), "link/".into(), "way/rootfs".into(), dir.join("link").display().to_string()] {
            bundle.config["root"]["path"] = json!(root);
            let (code, out, error) = bundle.run();
            assert!(
                code == 1 && error.contains("invalid rootfs: not an absolute path, or a symlink"),
                "{root} {out}{error}"
            );
        }
        // What leads to the bundle is the caller's.
        let elsewhere = tempfile::tempdir().unwrap();
        symlink(&dir, elsewhere.path().join("bundle")).unwrap();
        let absolute = elsewhere.path().join("bundle/rootfs").display().to_string();
        for root in ["rootfs".to_owned(), "./rootfs/".into(), "x/../rootfs".into(), absolute] {
            fs::create_dir_all(dir.join("x")).unwrap();
            bundle.config["root"]["path"] = json!(root);
            let (code, out, error) = bundle.run();
            assert_eq!(code, 3, "{root} {out}{error}");
        }
    });
}

#[test]
fn links_in_dev_are_there() {
    const TEST: &str = "roots::links_in_dev_are_there";
    isolated(TEST, || {
        let links = "for i in fd ptmx core; do readlink /dev/$i; done; exit 0";
        // Not every kernel shows its memory.
        let core = if Path::new("/proc/kcore").exists() { "/proc/kcore\n" } else { "" };
        let expected = format!("/proc/self/fd\npts/ptmx\n{core}");
        let mut bundle = Bundle::new(TEST, links);
        let (code, out, error) = bundle.run();
        assert_eq!((code, out.as_str()), (0, expected.as_str()), "{error}");
        // An image's own multiplexer is the host's.
        bundle.config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/dev");
        fs::create_dir_all(bundle.rootfs().join("dev")).unwrap();
        fs::write(bundle.rootfs().join("dev/ptmx"), "").unwrap();
        for _ in 0..2 {
            let (code, out, error) = bundle.run();
            assert_eq!((code, out.as_str()), (0, expected.as_str()), "{error}");
        }
    });
}

#[test]
fn flags_of_a_personality_are_told_of() {
    const TEST: &str = "roots::flags_of_a_personality_are_told_of";
    isolated(TEST, || {
        let mut bundle = Bundle::new(TEST, "busybox uname -m");
        bundle.config["linux"]["personality"] = json!({ "domain": "LINUX32", "flags": ["NEWEST"] });
        let said = bundle.ok(&["--log", "log", "run", "c"]);
        let log = fs::read_to_string(bundle.dir.path().join("log")).unwrap();
        assert!(
            !said.contains("x86_64") && log.contains("ignoring unsupported personality flags: NEWEST"),
            "{said}{log}"
        );
    });
}

#[test]
fn owners_are_mapped_as_in_a_namespace_that_is_joined() {
    const TEST: &str = "roots::owners_are_mapped_as_in_a_namespace_that_is_joined";
    const OUTSIDE: u32 = 200_000;
    isolated(TEST, || {
        let with_users = |script: &str, namespace: serde_json::Value| {
            let mut bundle = Bundle::new(TEST, script);
            bundle.push("/linux/namespaces", namespace);
            fs::set_permissions(bundle.dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
            for dir in [bundle.rootfs(), bundle.rootfs().join("bin")] {
                chown(dir, Some(OUTSIDE), Some(OUTSIDE)).unwrap();
            }
            bundle
        };
        let mut first = with_users("sleep 1000", json!({ "type": "user" }));
        let range = json!([{ "containerID": 0, "hostID": OUTSIDE, "size": 65536 }]);
        (first.config["linux"]["uidMappings"], first.config["linux"]["gidMappings"]) = (range.clone(), range);
        first.quiet(&["run", "-d", "--pid-file", "pid", "c"]);
        let pid = fs::read_to_string(first.dir.path().join("pid")).unwrap();

        let path = format!("/proc/{pid}/ns/user");
        let mut second =
            with_users("stat -c %u:%g /bound /plain; touch /bound/new", json!({ "type": "user", "path": path }));
        let source = tempfile::tempdir().unwrap();
        let group = second.config["linux"]["cgroupsPath"].as_str().unwrap();
        second.config["linux"]["cgroupsPath"] = json!(format!("{}/second", group.trim_end_matches("/c")));
        for (target, options) in [("/bound", json!(["bind", "idmap"])), ("/plain", json!(["bind"]))] {
            second.push(
                "/mounts",
                json!({ "destination": target, "type": "bind", "source": source.path(), "options": options }),
            );
        }
        let (code, out, error) = second.run();
        let error_of_none = {
            second.without("user");
            second.run().2
        };
        first.ok(&["delete", "--force", "c"]);
        if error.contains("map the owners") {
            // tmpfs learnt it in Linux 6.3.
            return;
        }
        assert_eq!((code, out.as_str()), (0, "0:0\n65534:65534\n"), "{error}");
        // What root makes there is root's outside.
        assert_eq!(fs::metadata(source.path().join("new")).unwrap().uid(), 0);
        assert!(error_of_none.contains("idmap without mappings"), "{error_of_none}");
    });
}
