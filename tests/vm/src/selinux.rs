//! A machine whose kernel has SELinux, with a policy of our own.

use std::{fmt::Write as _, fs, process::Command};

use anyhow::Result;

use crate::{Machine, Tree, run};

const POLICY: &str = include_str!("../selinux/policy.conf");
/// The newest format that Debian's kernel reads (`/sys/fs/selinux/policyvers`).
const VERSION: &str = "33";
const CATEGORIES: usize = 1024;
/// What containers are called, as policies of distributions say it.
const CONTEXTS: &str = "process = \"system_u:system_r:container_t:s0\"
content = \"system_u:object_r:container_file_t:s0\"
file = \"system_u:object_r:container_file_t:s0\"
ro_file = \"system_u:object_r:container_ro_file_t:s0\"
";
/// The module beside those that the kernel may have, and from the first moment on: what the policy forbids does not happen.
const COMMAND_LINE: &str = "lsm=landlock,lockdown,yama,selinux,bpf enforcing=1";
/// Loads the policy, which the kernel wants in one write, and becomes what a service is.
const LOAD: &str = "mount -t selinuxfs selinuxfs /sys/fs/selinux
dd if=/etc/selinux/tests/policy of=/sys/fs/selinux/load bs=16M 2> /dev/null || exit 1
test $(cat /sys/fs/selinux/enforce) = 1 || exit 1
printf %s system_u:system_r:init_t:s0-s0:c0.c1023 > /proc/self/attr/exec
exec sh /confined
";

impl Tree {
    /// Puts the policy onto the disk; `script` runs under it.
    pub fn selinux(&self, script: &str) -> Result<()> {
        let mut text = String::new();
        for number in 0..CATEGORIES {
            writeln!(text, "category c{number};")?;
        }
        let (source, compiled) = (self.beside("policy.conf"), self.beside("policy"));
        fs::write(&source, POLICY.replace("\n@CATEGORIES@\n", &format!("\n{text}")))?;
        let mut checkpolicy = Command::new("checkpolicy");
        checkpolicy.args(["-M", "-U", "allow", "-c", VERSION, "-o"]).arg(&compiled).arg(&source);
        run(&mut checkpolicy)?;
        self.copy(&compiled, "/etc/selinux/tests/policy")?;
        self.file("/etc/selinux/config", "SELINUX=enforcing\nSELINUXTYPE=tests\n", 0o644)?;
        self.file("/etc/selinux/tests/contexts/lxc_contexts", CONTEXTS, 0o644)?;
        self.file("/confined", script, 0o755)?;
        self.file("/script", LOAD, 0o755)
    }
}

impl Machine {
    /// Lets SELinux decide in it, from a disk with a policy ([`Tree::selinux`]).
    pub fn with_selinux(mut self) -> Machine {
        self.command_line = COMMAND_LINE.into();
        self
    }
}
