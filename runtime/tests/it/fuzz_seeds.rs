//! The fuzz targets' checks over their seeds, and over what comes of small damage to these.

#[path = "../../fuzz/checks.rs"]
mod checks;

#[path = "../../../tests/fuzz_seeds.rs"]
mod seeds;

use seeds::run;

#[test]
fn layers() {
    run("layers", checks::layers);
}

#[test]
fn manifests() {
    run("manifests", checks::manifests);
}

#[test]
fn specs() {
    run("specs", checks::specs);
}

#[test]
fn cgroups() {
    run("cgroups", checks::cgroups);
}

#[test]
fn frames() {
    run("frames", checks::frames);
}
