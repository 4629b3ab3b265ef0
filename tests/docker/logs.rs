//! Log options: what stands beside each line, files that are compressed, a process that is not held back.

use std::{fs, path::Path};

use crate::engine::{Engine, IMAGE};

#[test]
fn lines_carry_the_attributes_that_were_asked_for() {
    let engine = Engine::start();
    let options = [
        ["--label", "colour=dark red"],
        ["--label", "size.x=7"],
        ["-e", "WHO=me"],
        ["-e", "OTHER=no"],
        ["--log-opt", "labels=colour,nothing"],
        ["--log-opt", "labels-regex=^size"],
        ["--log-opt", "env=WHO"],
        ["--log-opt", "env-regex=^NONE"],
        ["--log-opt", "tag={{.Name}}/{{.ImageName}}"],
    ];
    let options = options.concat();
    engine.ok(&[&["run", "--name", "teller"], &options[..], &[IMAGE, "echo", "hello"]].concat());
    assert_eq!(
        engine.ok(&["logs", "--details", "teller"]),
        "WHO=me,colour=dark+red,size.x=7,tag=teller%2Fbusybox%3Atest hello"
    );
    assert_eq!(engine.ok(&["logs", "teller"]), "hello");
    let path = engine.ok(&["inspect", "-f", "{{.LogPath}}", "teller"]);
    if !engine.is_peer() {
        let line: serde_json::Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!(line["attrs"]["colour"], "dark red");
        assert_eq!(line["attrs"]["tag"], "teller/busybox:test");
    }
    let refused = engine.docker(&["run", "--log-driver", "local", "--log-opt", "tag=x", IMAGE]);
    assert!(refused.stderr.contains("unknown log opt 'tag' for log driver local"), "{}", refused.stderr);
}

#[test]
fn files_that_are_moved_away_are_compressed_and_still_read() {
    let engine = Engine::start();
    let script = "i=0; while [ $i -lt 200 ]; do i=$((i+1)); echo line $i; done";
    let options = ["max-size=4k", "max-file=3", "compress=true"].map(|option| ["--log-opt", option]).concat();
    engine.ok(&[&["run", "--name", "long"], &options[..], &[IMAGE, "sh", "-c", script]].concat());
    let said = engine.ok(&["logs", "long"]);
    let first: u32 = said.lines().next().and_then(|line| line.strip_prefix("line ")?.parse().ok()).unwrap();
    let expected: Vec<String> = (first..=200).map(|number| format!("line {number}")).collect();
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
    // Three files, of which the last is not full.
    assert!((2..100).contains(&first), "from line {first}");
    assert_eq!(engine.ok(&["logs", "--tail", "70", "long"]).lines().next(), Some("line 131"));
    if !engine.is_peer() {
        let path = engine.ok(&["inspect", "-f", "{{.LogPath}}", "long"]);
        let there = |suffix: &str| Path::new(&format!("{path}{suffix}")).exists();
        assert!(there(".2.gz") && !there(".2") && !there(".3") && !there(".3.gz"));
    }
}

#[test]
fn a_log_that_does_not_hold_its_process_back_keeps_what_fits() {
    let engine = Engine::start();
    let options = ["mode=non-blocking", "max-buffer-size=1m"].map(|option| ["--log-opt", option]).concat();
    let run = [&["run", "--name", "quick"], &options[..], &[IMAGE, "sh", "-c", "echo out; echo err >&2"]].concat();
    engine.ok(&run);
    let said = engine.docker(&["logs", "quick"]);
    assert_eq!((said.stdout.as_str(), said.stderr.as_str()), ("out\n", "err\n"));
    let refused = engine.docker(&["run", "--log-opt", "max-buffer-size=1m", IMAGE]);
    assert!(refused.stderr.contains("max-buffer-size option is only supported with 'mode=non-blocking'"));
}
