//! The fuzz targets' checks over their seeds, and over what comes of small damage to these.

#[path = "../../fuzz/checks.rs"]
mod checks;

#[path = "../../../tests/fuzz_seeds.rs"]
mod seeds;

use seeds::run;

#[test]
fn decoding() {
    run("decoding", checks::decoding);
}

#[test]
fn patches() {
    run("patches", checks::patches);
}

#[test]
fn apply() {
    run("apply", checks::apply);
}

#[test]
fn selectors() {
    run("selectors", checks::selectors);
}

#[test]
fn protobuf() {
    run("protobuf", checks::protobuf);
}

#[test]
fn expressions() {
    run("expressions", checks::expressions);
}
