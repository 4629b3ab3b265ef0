//! `cargo xtask test vm`: the launcher's and the shim's tests again on another kernel, with cgroup v2 alone and AppArmor;
//! SELinux's labels; systemd's groups; Docker's tests of what the host's kernel may lack; and a lab there, which goes on after a power
//! cut.

mod docker;
mod lab;
mod power;
mod selinux;
mod systemd;

use std::{path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context, Result, anyhow, bail};
use coracle_vm::{Kernel, Machine, Tree};

use crate::cargo;

/// Emulated, a test takes five to ten times as long.
const LIMIT: Duration = Duration::from_secs(1800);

/// What runs in the machine: a test program and the tests of it. Images need Debian's registry.
const SUITES: [(&str, &[&str]); 4] = [
    ("coracle-launcher", &[]),
    ("coracle-shim", &[]),
    // Groups of pods: only here are huge pages counted.
    ("coracle-kubelet", &["cgroups::"]),
    (
        "coracle-runtime",
        &[
            "answers::",
            "apparmor::",
            "cri::",
            "durability::",
            "filters::",
            "given_up::",
            "hostile::",
            "image_volumes::",
            "launcher::",
            "launcher_defaults::",
            "launcher_features::",
            "logs::",
            "newer::",
            "sandboxes::",
            "shim::",
            "snapshots::",
            "streams::",
        ],
    ),
];

/// Runs them; fails if one fails.
pub fn run() -> Result<()> {
    if let Some(package) = coracle_vm::missing() {
        bail!("the tests on another kernel need the Debian package {package}");
    }
    let work = cargo::target().join("vm");
    std::fs::create_dir_all(&work)?;
    let kernel = Kernel::debian(&work.join("kernel"))?;
    let tree = Tree::new(&work.join("tree"))?;
    // Busybox's have not the options that the tests isolate themselves with, nor the forms of sparse files.
    tree.program("/usr/bin/unshare".as_ref(), "/bin/unshare")?;
    tree.program("/bin/tar".as_ref(), "/bin/tar")?;
    let mut script = String::from("failed=0\n");
    let mut packages = SUITES.map(|(package, _)| package).to_vec();
    packages.push("coracle-tests");
    let programs = test_programs(&packages)?;
    for (package, tests) in SUITES {
        let mut own = programs.iter().filter(|(of, _)| of == package).peekable();
        own.peek().with_context(|| format!("{package} has no tests"))?;
        for (index, (_, program)) in own.enumerate() {
            let name = format!("/tests/{package}-{index}");
            tree.program(program, &name)?;
            // Tests that are not there (a unit-test program has no launcher::) are no failure.
            script.push_str(&format!("{name} --test-threads 2 {} || failed=1\n", tests.join(" ")));
        }
    }
    script.push_str("exit $failed\n");
    tree.file("/script", &script, 0o755)?;
    let disk = tree.disk(&work.join("disk.img"), 1024)?;
    let mut machine = Machine::new(kernel.clone(), disk);
    machine.modules = vec!["veth"];
    // Debian's kernel confines nothing unless told to load the module first.
    machine.command_line = "lsm=landlock,lockdown,yama,apparmor,bpf apparmor=1".into();
    eprintln!("starting a machine with {}", machine.kernel.image.display());
    let (lines, code) = machine.start()?.finish(LIMIT, |line| println!("vm: {line}"))?;
    if !lines.iter().any(|line| line.starts_with("test result: ok. ") && !line.contains(" 0 passed")) {
        bail!("no test ran in the machine");
    }
    if code != 0 {
        return Err(anyhow!("tests failed in the machine"));
    }
    let is_docker = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("docker-"));
    let suite = programs.iter().find(|(of, path)| of == "coracle-tests" && is_docker(path));
    docker::run(kernel.clone(), &work, &suite.context("there are no tests of Docker")?.1)?;
    let runtime = programs.into_iter().filter(|(of, _)| of == "coracle-runtime").map(|(_, program)| program);
    let runtime: Vec<PathBuf> = runtime.collect();
    selinux::run(kernel.clone(), &work, &runtime)?;
    systemd::run(kernel.clone(), &work, &runtime)?;
    power::run(kernel.clone(), &work, &runtime)?;
    lab::run(kernel, &work)
}

/// The test programs of the packages, each with its package, built. All of the workspace is named, as for the other tests:
/// a part of it has other features of its dependencies, and every one of them would be compiled once more.
fn test_programs(packages: &[&str]) -> Result<Vec<(String, PathBuf)>> {
    let output = cargo::command()
        .args(["test", "--no-run", "--locked", "--message-format", "json", "--workspace"])
        .current_dir(cargo::root())
        .stderr(Stdio::inherit())
        .output()
        .context("build the tests")?;
    if !output.status.success() {
        bail!("the tests did not build");
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let artifacts = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let programs = artifacts.filter(|artifact| artifact["profile"]["test"] == true).filter_map(|artifact| {
        let package = cargo::package_of(artifact["package_id"].as_str()?);
        let program = artifact["executable"].as_str()?;
        packages.contains(&package.as_str()).then(|| (package, PathBuf::from(program)))
    });
    Ok(programs.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Modules of the runtime's tests that do not run in the machine.
    const LEFT_OUT: [&str; 11] = [
        // Nothing in them is a test of the kernel.
        "fuzz_seeds",
        "harness",
        "isolation",
        // They drive engines, and look at images, that are not on the machine's disk.
        "containerd",
        "docker_images",
        "images",
        "podman",
        "registries",
        // It plays an older kernel than the host's.
        "older_kernel",
        // They have machines of their own.
        "selinux",
        "systemd",
    ];

    #[test]
    fn no_test_of_the_runtime_is_forgotten() {
        let main = std::fs::read_to_string(cargo::root().join("runtime/tests/it/main.rs")).unwrap();
        let modules = main.lines().filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'));
        let (_, run) = SUITES.iter().find(|(package, _)| *package == "coracle-runtime").unwrap();
        for module in modules {
            let runs = run.contains(&format!("{module}::").as_str());
            assert!(runs != LEFT_OUT.contains(&module), "{module}: it runs in the machine, or it is said why not");
        }
    }
}
