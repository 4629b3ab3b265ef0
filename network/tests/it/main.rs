//! The plugin as a runtime calls it: a program, the environment, standard input.

use std::{
    io::Write,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Output, Stdio},
};

use coracle_link::{Links, Netns, Place};
use nix::sched::{CloneFlags, setns};
use serde_json::{Value, json};
use std::time::Duration;

/// This test binary is the plugin when it is started with a CNI command.
#[test]
fn plugin() {
    if std::env::var_os("CNI_COMMAND").is_some() {
        coracle_network::cni::main();
    }
}

struct Node {
    netns: Netns,
    dir: tempfile::TempDir,
}

impl Node {
    fn new() -> Self {
        Self { netns: Netns::create().unwrap(), dir: tempfile::tempdir().unwrap() }
    }

    fn pod(&self, name: &str) -> (Netns, std::path::PathBuf) {
        let path = self.dir.path().join(name);
        (Netns::create_pinned(&path).unwrap(), path)
    }

    fn config(&self) -> Value {
        json!({"cniVersion": "1.1.0", "name": "net", "type": "coracle-cni", "subnet": "10.7.0.0/24", "dataDir": self.dir.path().join("data")})
    }

    fn call(&self, command: &str, container: &str, netns: &Path, config: &Value) -> Output {
        let mut plugin = Command::new("/proc/self/exe");
        plugin.args(["plugin", "--exact", "--nocapture", "--quiet"]);
        plugin.env("CNI_COMMAND", command).env("CNI_CONTAINERID", container).env("CNI_NETNS", netns);
        plugin.env("CNI_IFNAME", "eth0").env("CNI_PATH", "/nowhere");
        plugin.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let netns = self.netns.clone();
        // SAFETY: setns is a single system call.
        unsafe { plugin.pre_exec(move || Ok(setns(&netns, CloneFlags::CLONE_NEWNET)?)) };
        let mut child = plugin.spawn().unwrap();
        child.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    fn answer(&self, command: &str, container: &str, netns: &Path, config: &Value) -> Value {
        let output = self.call(command, container, netns, config);
        let text = String::from_utf8(output.stdout).unwrap();
        // The test harness prints around the plugin's answer.
        let json = text.find('{').and_then(|start| text.rfind('}').map(|end| &text[start..=end]));
        json.map_or(Value::Null, |json| serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {text}")))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for entry in self.dir.path().read_dir().unwrap().flatten() {
            if entry.file_type().unwrap().is_file() {
                Netns::unpin(&entry.path()).unwrap();
            }
        }
    }
}

#[tokio::test]
async fn two_pods_reach_each_other_and_leave_nothing() {
    let node = Node::new();
    let ((a, a_path), (b, b_path)) = (node.pod("a"), node.pod("b"));
    let added = node.answer("ADD", "a", &a_path, &node.config());
    assert_eq!(added["ips"][0]["address"], "10.7.0.2/32", "{added}");
    assert_eq!(added["interfaces"][1]["sandbox"], a_path.to_str().unwrap());
    let added = node.answer("ADD", "b", &b_path, &node.config());
    assert_eq!(added["ips"][0]["address"], "10.7.0.3/32", "{added}");
    assert_eq!(node.answer("CHECK", "a", &a_path, &node.config_with(&added)), Value::Null);

    let listener = Place::Netns(b).listen_tcp("10.7.0.3:80".parse().unwrap()).unwrap();
    let connect = Place::Netns(a).connect_tcp("10.7.0.3:80".parse().unwrap(), Duration::from_secs(5)).await.unwrap();
    let (_, from) = listener.accept().await.unwrap();
    assert_eq!(from, connect.local_addr().unwrap(), "nothing translates addresses in between");

    for (container, path) in [("a", &a_path), ("b", &b_path), ("b", &b_path)] {
        assert_eq!(node.answer("DEL", container, path, &node.config()), Value::Null);
    }
    let links = Links::open(&Place::Netns(node.netns.clone())).unwrap().list().await.unwrap();
    assert_eq!(links.iter().map(|link| link.name.as_str()).collect::<Vec<_>>(), ["lo"]);
}

#[test]
fn mistakes_are_answered_as_cni_says() {
    let node = Node::new();
    let (_pod, path) = node.pod("a");
    node.answer("ADD", "a", &path, &node.config());
    let twice = node.answer("ADD", "a", &path, &node.config());
    assert_eq!((&twice["code"], &twice["details"]), (&json!(100), &json!("eth0 of a has an address already")));
    let missing = node.answer("ADD", "b", Path::new("/nonexistent"), &node.config());
    assert_eq!(missing["code"], 8, "{missing}");
    let mut bad = node.config();
    bad["subnet"] = json!("10.7.0.0/33");
    assert_eq!(node.answer("ADD", "c", &path, &bad)["code"], 7);
    let mut gc = node.config();
    gc["cni.dev/valid-attachments"] = json!([]);
    assert_eq!(node.answer("GC", "a", &path, &gc), Value::Null);
    let again = node.answer("ADD", "a", &path, &node.config());
    // 10.7.0.3 went to the ADD that failed and came back; the search goes on behind it.
    assert_eq!(again["ips"][0]["address"], "10.7.0.4/32", "{again}");
    node.answer("DEL", "a", &path, &node.config());
}

#[test]
fn a_call_in_the_runtimes_own_process_does_what_the_program_does() {
    let node = Node::new();
    let (_pod, path) = node.pod("a");
    let here = |command: &str, container: &str, netns: &Path, config: &Value| {
        let call = || Ok(coracle_network::cni::call(command, container, netns.to_str().unwrap(), "eth0", config));
        node.netns.run(call).unwrap().expect("the plugin does it in process")
    };
    let mut added = here("ADD", "a", &path, &node.config()).unwrap().unwrap();
    // The program finds what was made here, and the other way round.
    assert_eq!(node.answer("CHECK", "a", &path, &node.config_with(&added)), Value::Null);
    assert_eq!(node.answer("DEL", "a", &path, &node.config()), Value::Null);
    let mut theirs = node.answer("ADD", "a", &path, &node.config());
    // Another address, and with it another Ethernet address; else the same document.
    for result in [&mut added, &mut theirs] {
        assert!(result["ips"][0]["address"].as_str().unwrap().starts_with("10.7.0."), "{result}");
        result["ips"][0]["address"].take();
        result["interfaces"][1]["mac"].take();
    }
    assert_eq!(added, theirs);
    let twice = here("ADD", "a", &path, &node.config()).unwrap_err();
    assert_eq!(twice, node.answer("ADD", "a", &path, &node.config()));
    let mut bad = node.config();
    bad["subnet"] = json!("10.7.0.0/33");
    assert_eq!(here("ADD", "c", &path, &bad).unwrap_err(), node.answer("ADD", "c", &path, &bad));
    assert_eq!(here("STATUS", "", Path::new(""), &node.config()), Ok(None));
    assert_eq!(here("DEL", "a", &path, &node.config()), Ok(None));
    assert_eq!(here("DEL", "a", Path::new(""), &node.config()), Ok(None), "once more, without a namespace");
    // What a killed plugin left behind does not keep the next one from its name.
    let made = here("ADD", "a", &path, &node.config()).unwrap().unwrap();
    let note =
        node.dir.path().join("data/net").join(made["ips"][0]["address"].as_str().unwrap().trim_end_matches("/32"));
    std::fs::remove_file(note).unwrap();
    let (_second, second_path) = node.pod("second");
    assert!(here("ADD", "a", &second_path, &node.config()).is_ok());
    assert_eq!(here("DEL", "a", &second_path, &node.config()), Ok(None));
    let mut old = node.config();
    old["cniVersion"] = json!("0.4.0");
    assert!(coracle_network::cni::call("ADD", "a", path.to_str().unwrap(), "eth0", &old).is_none());
    assert!(coracle_network::cni::call("GC", "a", "", "eth0", &node.config()).is_none());
}

impl Node {
    fn config_with(&self, previous: &Value) -> Value {
        let mut config = self.config();
        config["prevResult"] = previous.clone();
        config
    }
}
