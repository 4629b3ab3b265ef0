//! What is in containers' logs, and where they are.

use std::fs;

use k8s_cri::v1;
use tonic::Code;

use crate::{
    cri::assert_nothing_left,
    harness::{Node, sandbox, script},
    isolation::isolated,
};

/// Tags and texts of a log's lines.
fn lines(node: &Node, path: &str) -> Vec<String> {
    let text = fs::read_to_string(node.path("logs").join(path)).unwrap();
    text.lines().map(|line| line.splitn(3, ' ').nth(2).unwrap_or_default().to_owned()).collect()
}

#[test]
fn a_log_says_what_was_said_and_is_where_it_should_be() {
    const TEST: &str = "logs::a_log_says_what_was_said_and_is_where_it_should_be";
    isolated(TEST, || async {
        let node = Node::new(TEST);
        node.install_network();
        let running = node.start().await;
        let mut cri = running.clients.clone();
        let pod = cri.run_sandbox(sandbox(&node, "web")).await;
        // A line that has no end has none in the log, and a terminal's ends are ends.
        let last = cri.run(&pod, script("last", "echo one; echo -n last")).await;
        let mut terminal = script("terminal", "echo one; echo two");
        terminal.tty = true;
        let terminal = cri.run(&pod, terminal).await;
        let mut long = script("long", "head -c 40000 /dev/zero | busybox tr '\\0' x; echo");
        // From the sandbox's directory, slash or not.
        long.log_path = "/long/deep/0.log".into();
        let long = cri.run(&pod, long).await;
        for id in [&last, &terminal, &long] {
            assert_eq!(cri.wait(id).await.exit_code, 0);
        }
        assert_eq!(lines(&node, "web/last/0.log"), ["F one", "P last"]);
        assert_eq!(lines(&node, "web/terminal/0.log"), ["F one", "F two"]);
        let parts = lines(&node, "web/long/deep/0.log");
        let shape: Vec<_> = parts.iter().map(|part| (&part[..1], part.len() - 2)).collect();
        assert_eq!(shape, [("P", 16_384), ("P", 16_384), ("F", 40_000 - 2 * 16_384)]);
        assert_eq!(cri.status(&long).await.log_path, node.path("logs/web/long/deep/0.log").to_str().unwrap());

        let mut above = script("above", "exit 0");
        above.log_path = "above/../../other/0.log".into();
        let request =
            v1::CreateContainerRequest { pod_sandbox_id: pod.clone(), config: Some(above), sandbox_config: None };
        let error = cri.runtime.create_container(request).await.unwrap_err();
        assert!(error.code() == Code::InvalidArgument && error.message().contains("leads out"), "{error}");

        // A log's directory may be gone when the log is to be begun anew; only what runs has one to begin.
        let text = "echo one; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo two; sleep 1000";
        let rotated = cri.run(&pod, script("rotated", text)).await;
        while !fs::read_to_string(node.path("logs/web/rotated/0.log")).is_ok_and(|text| text.contains("one")) {
            tokio::task::yield_now().await;
        }
        fs::remove_dir_all(node.path("logs/web/rotated")).unwrap();
        let reopen = |id: &str| v1::ReopenContainerLogRequest { container_id: id.to_owned() };
        cri.runtime.reopen_container_log(reopen(&rotated)).await.unwrap();
        assert_eq!(cri.exec(&rotated, &["/bin/busybox", "touch", "/tmp/go"]).await.exit_code, 0);
        while !fs::read_to_string(node.path("logs/web/rotated/0.log")).unwrap().contains("two") {
            tokio::task::yield_now().await;
        }
        assert_eq!(lines(&node, "web/rotated/0.log"), ["F two"]);
        let error = cri.runtime.reopen_container_log(reopen(&last)).await.unwrap_err();
        assert_eq!(error.message(), "container is not running");
        cri.remove_sandbox(&pod).await;
        running.stop().await;
        assert_nothing_left(&node);
    });
}
