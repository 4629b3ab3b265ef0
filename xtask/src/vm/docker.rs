//! The Docker tests of what the host's kernel may lack, in a machine whose kernel has it.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use coracle_vm::{Kernel, Machine, Tree};

use crate::cargo;

/// Emulated, everything takes five to ten times as long.
const LIMIT: Duration = Duration::from_secs(600);
const MODULES: [&str; 13] = [
    "veth",
    "bridge",
    "nf_tables",
    "nft_chain_nat",
    "nft_masq",
    "nft_nat",
    "nft_ct",
    "8021q",
    "macvlan",
    "ipvlan",
    "sctp",
    "nfsv4",
    "nfsd",
];
/// What the tests run beside the daemon.
const PROGRAMS: [(&str, &str); 4] =
    [("docker", "docker-cli"), ("setpriv", "util-linux"), ("nsenter", "util-linux"), ("nft", "nftables")];

const SCRIPT: &str = "
export CORACLE_BINARIES=/bin
exec /tests/docker other_kernel:: --ignored --test-threads 1
";

/// Runs them; fails if one fails.
pub fn run(kernel: Kernel, work: &Path, program: &Path) -> Result<()> {
    let tree = Tree::new(&work.join("docker-tree"))?;
    tree.program(&cargo::binaries()?.join("coracle"), "/bin/coracle")?;
    tree.program(program, "/tests/docker")?;
    tree.program("/usr/bin/unshare".as_ref(), "/bin/unshare")?;
    for (name, package) in PROGRAMS {
        let found = ["/usr/local/bin", "/usr/bin", "/usr/sbin"].map(|dir| Path::new(dir).join(name));
        let found = found.iter().find(|path| path.exists());
        let found = found.with_context(|| format!("the tests need {name} of the Debian package {package}"))?;
        tree.program(found, &format!("/bin/{name}"))?;
    }
    tree.file("/etc/hosts", "127.0.0.1 localhost\n", 0o644)?;
    tree.file("/script", SCRIPT, 0o755)?;
    let mut machine = Machine::new(kernel, tree.disk(&work.join("docker.img"), 1024)?);
    machine.modules = MODULES.to_vec();
    machine.memory_mebibytes = 2048;
    let (lines, code) = machine.start()?.finish(LIMIT, |line| println!("vm: {line}"))?;
    if code != 0 || !lines.iter().any(|line| line.starts_with("test result: ok. ") && !line.contains(" 0 passed")) {
        bail!("Docker's tests failed in the machine");
    }
    Ok(())
}
