//! Builds the launcher, the shim, the inits and the hello program as small static programs and leaves their paths to `lib.rs`.
//!
//! They need `+crt-static` and no relocations, which must not reach proc-macros and build scripts: hence an explicit
//! `--target`, and a target directory of its own, which also keeps cargo's build lock free.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

const PROGRAMS: [(&str, &str); 5] = [
    ("coracle-launcher", "runtime/launcher"),
    ("coracle-shim", "runtime/shim"),
    ("coracle-init", "coracle/init"),
    ("coracle-container-init", "runtime/init"),
    ("coracle-hello", "tests/hello"),
];

fn main() {
    let root = variable("CARGO_MANIFEST_DIR").join("..");
    println!("cargo::rerun-if-changed={}", root.join("Cargo.lock").display());
    for (_, source) in PROGRAMS {
        println!("cargo::rerun-if-changed={}", root.join(source).display());
    }
    let triple = env::var("TARGET").expect("cargo sets TARGET for build scripts");
    let target_dir = target_dir(&variable("OUT_DIR")).join("programs");
    build(&root, &triple, &target_dir);
    for (name, _) in PROGRAMS {
        let path = target_dir.join(&triple).join("program").join(name);
        let key = name.trim_start_matches("coracle-").to_uppercase().replace('-', "_");
        println!("cargo::rustc-env=CORACLE_PROGRAM_{key}={}", path.display());
    }
}

fn variable(name: &str) -> PathBuf {
    env::var_os(name).map(PathBuf::from).unwrap_or_else(|| panic!("cargo sets {name} for build scripts"))
}

/// `OUT_DIR` is `<target>/<profile>/build/<package>/out`.
fn target_dir(out_dir: &Path) -> PathBuf {
    let build = out_dir.ancestors().find(|path| path.file_name().is_some_and(|name| name == "build"));
    build.and_then(|path| path.parent()?.parent()).map(Path::to_path_buf).unwrap_or_else(|| out_dir.to_path_buf())
}

fn build(root: &Path, triple: &str, target_dir: &Path) {
    let mut cargo = Command::new(variable("CARGO"));
    cargo.current_dir(root).args(["build", "--quiet", "--profile", "program", "--target", triple, "--target-dir"]);
    cargo.arg(target_dir);
    for (name, _) in PROGRAMS {
        cargo.args(["--package", name]);
    }
    // What the outer build was told (flags, clippy as the compiler, coverage) is not for these.
    for (name, _) in env::vars_os() {
        let Some(name) = name.to_str() else { continue };
        let outer = name.starts_with("CARGO_CFG_")
            || name.starts_with("CARGO_FEATURE_")
            || name.starts_with("CARGO_PKG_")
            || name.starts_with("CARGO_MANIFEST")
            || name.starts_with("CARGO_PROFILE_")
            || name.starts_with("CARGO_BUILD_");
        let wrapper = [
            "RUSTC",
            "RUSTC_WRAPPER",
            "RUSTC_WORKSPACE_WRAPPER",
            "RUSTDOC",
            "CARGO_ENCODED_RUSTFLAGS",
            "TARGET",
            "HOST",
            "OUT_DIR",
            "PROFILE",
            "OPT_LEVEL",
            "DEBUG",
        ];
        if outer || wrapper.contains(&name) {
            cargo.env_remove(name);
        }
    }
    cargo.env("RUSTFLAGS", "-C target-feature=+crt-static -C relocation-model=static");
    let status = cargo.status().expect("cargo that runs this script can be run again");
    assert!(status.success(), "the static programs did not build (see the errors above)");
}
