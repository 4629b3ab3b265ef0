//! A lab on a machine that has cgroup v2 alone, and whose power is cut.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use coracle_vm::{Kernel, Machine, Tree};

use crate::cargo;

/// Emulated, everything takes five to ten times as long.
const LIMIT: Duration = Duration::from_secs(300);
const CUT: &str = "@@cut";

/// What happens before the cut and after it; the lab's state is all on the disk.
const SCRIPT: &str = r#"
export CORACLE_HOME=/var/lib/coracle KUBECONFIG=/var/lib/coracle/labs/default/server/admin.kubeconfig
set -e
if [ ! -e /root/before ]; then
    coracle lab up --nodes 2
    kubectl-lite get nodes -o wide
    kubectl-lite create deployment web --image=coracle/hello:v1 --replicas=2
    kubectl-lite rollout status deployment/web --timeout=120s
    touch /root/before
    sync
    kubectl-lite create configmap last --from-literal=word=acknowledged
    echo @@cut
    sleep 1000
fi
coracle lab up
test "$(kubectl-lite get configmap last -o jsonpath={.data.word})" = acknowledged
kubectl-lite wait --for=condition=Ready node --all --timeout=120s
kubectl-lite rollout status deployment/web --timeout=120s
kubectl-lite scale deployment web --replicas=3
kubectl-lite rollout status deployment/web --timeout=120s
kubectl-lite get pods -o wide
coracle lab down
test ! -e /sys/fs/cgroup/coracle
test ! -e /var/lib/coracle
! grep -E ' (overlay|nsfs) ' /proc/mounts
"#;

/// Brings a lab up, cuts the machine's power, and goes on with the same disk.
pub fn run(kernel: Kernel, work: &Path) -> Result<()> {
    let binaries = cargo::binaries()?;
    let tree = Tree::new(&work.join("lab-tree"))?;
    for name in ["coracle", "kubectl-lite"] {
        tree.program(&binaries.join(name), &format!("/bin/{name}"))?;
    }
    tree.file("/script", SCRIPT, 0o755)?;
    let mut machine = Machine::new(kernel, tree.disk(&work.join("lab.img"), 1024)?);
    machine.modules = vec!["veth", "bridge", "nf_tables"];
    machine.memory_mebibytes = 2048;
    let see = |line: &str| println!("vm: {line}");
    let mut running = machine.start()?;
    let lines = running.until(LIMIT, |line| {
        see(line);
        line == CUT || line.starts_with("@@exit")
    })?;
    if lines.last().is_none_or(|line| line != CUT) {
        bail!("the lab did not come up in the machine");
    }
    running.cut_power()?;
    println!("vm: the power was cut");
    let (_, code) = machine.start()?.finish(LIMIT, see).context("the lab did not come back after the power cut")?;
    if code != 0 {
        bail!("the lab did not come back after the power cut");
    }
    println!("vm: test result: ok. 1 passed; a lab goes on after its power was cut");
    Ok(())
}
