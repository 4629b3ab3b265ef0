//! Seccomp filters that the daemon compiled: who gets them, and that they are the profile.

use std::fs;

use k8s_cri::v1::{self, security_profile::ProfileType};
use serde_json::{Value, json};

use crate::{
    cri::assert_nothing_left,
    harness::{Node, log, sandbox, script},
    isolation::isolated,
};

/// A call that the default profile refuses to everybody without rights, and one that it allows.
const PROBE: &str =
    "busybox unshare -U true && echo unshared; mkdir /d$$ && echo made; grep Seccomp: /proc/self/status; ";

fn filtered(name: &str, then: &str, profile: Option<&str>) -> v1::ContainerConfig {
    let mut config = script(name, &format!("{PROBE}{then}"));
    let kind = if profile.is_some() { ProfileType::Localhost } else { ProfileType::RuntimeDefault };
    let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    security.capabilities = Some(v1::Capability { add_capabilities: vec!["NET_ADMIN".into()], ..Default::default() });
    security.seccomp =
        Some(v1::SecurityProfile { profile_type: kind as i32, localhost_ref: profile.unwrap_or_default().to_owned() });
    config
}

#[test]
fn filters_are_compiled_for_launchers_that_know_them() {
    const TEST: &str = "filters::filters_are_compiled_for_launchers_that_know_them";
    isolated(TEST, || async {
        let node = Node::new(TEST);
        node.install_network();
        let seccomp = |id: &str| -> Value {
            let config = fs::read(node.path("run").join("containers").join(id).join("config.json")).unwrap();
            serde_json::from_slice::<Value>(&config).unwrap()["linux"]["seccomp"].take()
        };
        // Everything but one call.
        let profile = node.path("profile.json");
        let no_mkdir = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]});
        fs::write(&profile, no_mkdir.to_string()).unwrap();
        let profile = profile.to_str().unwrap();
        let mut daemon = node.start_process();
        let mut cri = node.connect().await;
        let pod = cri.run_sandbox(sandbox(&node, "web")).await;
        let lasting = cri.run(&pod, filtered("lasting", "sleep 1000", None)).await;
        let own = cri.run(&pod, filtered("own", "exit 3", Some(profile))).await;
        assert_eq!(cri.wait(&own).await.exit_code, 3);
        assert!(seccomp(&lasting)["syscalls"].is_null() && seccomp(&own)["syscalls"].is_null());
        daemon.kill().unwrap();
        daemon.wait().unwrap();

        // The pod has a shim now that another daemon started: its launcher may be an older one.
        let running = node.start().await;
        let mut cri = running.clients.clone();
        let later = cri.run(&pod, filtered("later", "exit 4", None)).await;
        assert_eq!(cri.wait(&later).await.exit_code, 4);
        assert!(seccomp(&later)["syscalls"].is_array());
        let exec = cri.exec(&lasting, &["/bin/sh", "-c", PROBE]).await;
        for said in [log(&node, "web", "later"), String::from_utf8_lossy(&exec.stdout).into_owned()] {
            assert!(said.contains("made\n") && said.contains("Seccomp:\t2") && !said.contains("unshared\n"), "{said}");
        }
        let said = log(&node, "web", "own");
        assert!(said.contains("Seccomp:\t2") && said.contains("unshared\n") && !said.contains("made\n"), "{said}");
        let next = cri.run_sandbox(sandbox(&node, "next")).await;
        let fresh = cri.run(&next, filtered("fresh", "exit 5", None)).await;
        assert_eq!(cri.wait(&fresh).await.exit_code, 5);
        assert!(seccomp(&fresh)["syscalls"].is_null());
        for id in [pod, next] {
            cri.remove_sandbox(&id).await;
        }
        running.stop().await;
        assert_nothing_left(&node);
    });
}
