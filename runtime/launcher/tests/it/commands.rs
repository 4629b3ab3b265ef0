//! Commands that need no container.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

use crate::bundle::{Bundle, isolated, launcher};

fn oci(dir: &Path, arguments: &[&str]) -> Output {
    launcher().args(arguments).current_dir(dir).output().unwrap()
}

fn says(arguments: &[&str]) -> String {
    let output = oci(Path::new("/"), arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn configuration(dir: &Path) -> Value {
    serde_json::from_slice(&fs::read(dir.join("config.json")).unwrap()).unwrap()
}

#[test]
fn a_configuration_to_begin_with_is_runcs() {
    let runc = Command::new("runc").arg("--version").output().ok();
    // What it writes has changed since.
    let is_there = runc.is_some_and(|output| String::from_utf8_lossy(&output.stdout).contains("runc version 1.1."));
    for options in [&[][..], &["--rootless"]] {
        let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert!(oci(ours.path(), &[&["spec"], options].concat()).status.success());
        assert_eq!(fs::metadata(ours.path().join("config.json")).unwrap().permissions().mode() & 0o600, 0o600);
        let again = oci(ours.path(), &["spec"]);
        assert!(String::from_utf8_lossy(&again.stderr).contains("File config.json exists. Remove it first"));
        assert_eq!(again.status.code(), Some(1));
        let elsewhere = tempfile::tempdir().unwrap();
        let bundle = elsewhere.path().to_str().unwrap();
        assert!(oci(Path::new("/"), &[&["spec", "--bundle", bundle], options].concat()).status.success());
        assert_eq!(configuration(elsewhere.path()), configuration(ours.path()));
        if is_there {
            let status = Command::new("runc").arg("spec").args(options).current_dir(theirs.path()).status();
            assert!(status.unwrap().success());
            let text = |dir: &Path| fs::read_to_string(dir.join("config.json")).unwrap();
            // In the same order and the same form, too.
            assert_eq!(text(ours.path()), text(theirs.path()), "{options:?}");
        }
    }
}

#[test]
fn a_configuration_to_begin_with_runs() {
    const TEST: &str = "commands::a_configuration_to_begin_with_runs";
    isolated(TEST, || {
        let mut bundle = Bundle::new(TEST, "");
        let group = bundle.config["linux"]["cgroupsPath"].take();
        let dir = tempfile::tempdir().unwrap();
        assert!(oci(dir.path(), &["spec"]).status.success());
        bundle.config = configuration(dir.path());
        bundle.config["linux"]["cgroupsPath"] = group;
        bundle.config["process"]["terminal"] = false.into();
        bundle.config["process"]["args"] = serde_json::json!(["/bin/sh", "-c", "busybox hostname; busybox touch /new"]);
        let (code, out, error) = bundle.run();
        assert!(code == 1 && out == "runc\n" && error.contains("Read-only"), "{out}{error}");
    });
}

#[test]
fn every_command_has_a_page() {
    let all = says(&["--help"]);
    assert_eq!(says(&["help"]), all);
    let commands = all.split("\nCommands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let names: Vec<&str> = commands.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    for name in [
        "create", "start", "run", "exec", "state", "kill", "delete", "ps", "list", "update", "pause", "resume",
        "events", "features", "spec",
    ] {
        assert!(names.contains(&name), "{name}: {all}");
        let page = says(&[name, "--help"]);
        assert_eq!((says(&[name, "-h"]), says(&["help", name])), (page.clone(), page.clone()));
        let parts = [
            format!("coracle oci {name}: "),
            format!("\nUsage: coracle oci {name}"),
            "\nOptions:\n".into(),
            "\nExample:\n  coracle oci ".into(),
        ];
        assert!(parts.iter().all(|part| page.contains(part)), "{page}");
    }
    let page = says(&["exec", "--user", "1", "--help"]);
    assert!(page.contains("--user, -u UID[:GID]") && page.contains("--preserve-fds N"), "{page}");
    assert!(!oci(Path::new("/"), &["help", "nothing"]).status.success());
    assert!(!oci(Path::new("/"), &["nothing", "--help"]).status.success());
}
