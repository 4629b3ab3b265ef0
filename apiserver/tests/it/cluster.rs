//! Several API servers on an etcd of three members: either server may go, the leader may go, and all of etcd may go and come
//! back.

use crate::harness::{Client, Harness, LIMIT};
use coracle_apiserver::store::etcd::{Etcd, EtcdConfig};
use http::StatusCode;
use serde_json::{Value, json};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Debian's etcd on 127.0.0.1, three members, ended with this.
struct Members {
    processes: Vec<Option<Child>>,
    arguments: Vec<Vec<String>>,
    urls: Vec<String>,
    _directory: tempfile::TempDir,
}

impl Members {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        // Held until all are known, so that no two are the same.
        let held: Vec<TcpListener> = (0..6).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let url = |nth: usize| format!("http://{}", held[nth].local_addr().unwrap());
        let peers: Vec<String> = (0..3).map(|nth| format!("m{nth}={}", url(nth + 3))).collect();
        let arguments: Vec<Vec<String>> = (0..3)
            .map(|nth| {
                let data = directory.path().join(format!("m{nth}")).display().to_string();
                let pairs = [
                    ("--name", format!("m{nth}")),
                    ("--data-dir", data),
                    ("--listen-client-urls", url(nth)),
                    ("--advertise-client-urls", url(nth)),
                    ("--listen-peer-urls", url(nth + 3)),
                    ("--initial-advertise-peer-urls", url(nth + 3)),
                    ("--initial-cluster", peers.join(",")),
                    ("--log-level", "error".to_owned()),
                    ("--heartbeat-interval", "50".to_owned()),
                    ("--election-timeout", "500".to_owned()),
                ];
                pairs.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
            })
            .collect();
        let urls = (0..3).map(url).collect();
        drop(held);
        let mut members = Self { processes: vec![None, None, None], arguments, urls, _directory: directory };
        (0..3).for_each(|nth| members.run(nth));
        members
    }

    fn run(&mut self, nth: usize) {
        let mut command = Command::new("etcd");
        command.args(&self.arguments[nth]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.processes[nth] = Some(command.spawn().expect("install Debian's etcd-server"));
    }

    /// kill -9
    fn kill(&mut self, nth: usize) {
        if let Some(mut process) = self.processes[nth].take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    fn config(&self) -> EtcdConfig {
        EtcdConfig { endpoints: self.urls.clone(), ca_pem: None, identity: None }
    }

    /// Which member leads; waits until one does.
    async fn leader(&self) -> usize {
        let deadline = Instant::now() + LIMIT;
        loop {
            for (nth, url) in self.urls.iter().enumerate().filter(|(nth, _)| self.processes[*nth].is_some()) {
                let status = async { etcd_client::Client::connect([url], None).await?.status().await };
                if let Ok(Ok(status)) = tokio::time::timeout(Duration::from_secs(2), status).await
                    && status.leader() != 0
                    && status.header().is_some_and(|header| header.member_id() == status.leader())
                {
                    return nth;
                }
            }
            assert!(Instant::now() < deadline, "no member of etcd leads");
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        (0..3).for_each(|nth| self.kill(nth));
    }
}

async fn server(members: &Members) -> Harness {
    server_at(members, "127.0.0.1:6443").await
}

/// One that is reached at this address.
async fn server_at(members: &Members, address: &str) -> Harness {
    let deadline = Instant::now() + LIMIT;
    loop {
        match Etcd::connect(members.config()).await {
            Ok(store) => {
                let address = address.parse().unwrap();
                return Harness::with(Arc::new(store), |config, _| config.advertise = address).await;
            }
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    }
}

/// Counts up in a key of its own by whichever client answers; gives the last number that was acknowledged.
async fn count(clients: Vec<Client>, writer: usize, to: u64) -> u64 {
    let path = format!("{MAPS}/w{writer}");
    let deadline = Instant::now() + LIMIT;
    let mut acknowledged = 0;
    for turn in 0.. {
        let client = &clients[turn % clients.len()];
        let next = acknowledged + 1;
        let (code, answer) = client.merge(&path, &json!({"data": {"n": next.to_string()}})).await;
        match code.as_u16() {
            200 => acknowledged = next,
            429 | 500 | 503 | 504 => assert!(Instant::now() < deadline, "{answer}"),
            _ => panic!("{code}: {answer}"),
        }
        if acknowledged == to {
            break;
        }
    }
    acknowledged
}

async fn numbers(client: &Client) -> Vec<u64> {
    let (code, list) = client.get(MAPS).await;
    assert_eq!(code, StatusCode::OK, "{list}");
    let items = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|map| map["metadata"]["name"].as_str().unwrap().starts_with('w'));
    items.map(|map| map["data"]["n"].as_str().unwrap().parse().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_and_leaders_go_and_nothing_is_lost() {
    const WRITERS: usize = 4;
    let mut members = Members::start();
    let (one, two) = (server(&members).await, server(&members).await);
    let (first, second) = (one.admin(), two.admin());
    for writer in 0..WRITERS {
        let map = json!({"metadata": {"name": format!("w{writer}")}, "data": {"n": "0"}});
        assert_eq!(first.post(MAPS, &map).await.0, StatusCode::CREATED);
        assert_eq!(
            second.get(&format!("{MAPS}/w{writer}")).await.0,
            StatusCode::OK,
            "the other server's read is as fresh"
        );
    }
    let mut watch = second.watch(&format!("{MAPS}?watch=1&fieldSelector=metadata.name%3Dw0")).await;
    let run = |clients: Vec<Client>, to: u64| -> Vec<_> {
        (0..WRITERS).map(|writer| tokio::spawn(count(clients.clone(), writer, to))).collect()
    };
    let mut writers = run(vec![first.clone(), second.clone()], 40);
    let leader = members.leader().await;
    members.kill(leader);
    for writer in writers {
        assert_eq!(writer.await.unwrap(), 40);
    }
    assert_eq!(numbers(&first).await, [40; WRITERS]);
    assert_eq!(numbers(&second).await, [40; WRITERS]);
    // Every write of the key came by once and in order, over the change of leaders. A write whose answer was lost may have
    // happened and been written again.
    let mut last = 0;
    while last < 40 {
        let frame = watch.next().await.expect("the watch goes on");
        let number: u64 = frame["object"]["data"]["n"].as_str().unwrap_or_else(|| panic!("{frame}")).parse().unwrap();
        assert!(number == last || number == last + 1 || last == 0, "{number} after {last}");
        last = number;
    }
    // One server goes, the other goes on.
    one.server.stop().await;
    drop((one, first));
    writers = run(vec![second.clone()], 20);
    for writer in writers {
        assert_eq!(writer.await.unwrap(), 20);
    }
    let three = server(&members).await;
    assert_eq!(numbers(&three.admin()).await, [20; WRITERS]);

    // All of etcd goes: reads that may be old go on, everything else says so; and it comes back by itself.
    (0..3).for_each(|nth| members.kill(nth));
    let map = json!({"metadata": {"name": "late"}, "data": {}});
    let (code, status) = second.post(MAPS, &map).await;
    assert!(matches!(code.as_u16(), 503 | 504), "{code} {status}");
    assert_eq!(second.get("/readyz").await.0, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(second.get("/livez?exclude=etcd").await.0, StatusCode::OK);
    let (code, status) = second.get(&format!("{MAPS}/w0")).await;
    assert!(matches!(code.as_u16(), 503 | 504), "a read that must be fresh: {code} {status}");
    let (code, list) = second.get(&format!("{MAPS}?resourceVersion=0")).await;
    assert_eq!(
        (code, list["items"].as_array().map(|items| items.len() >= WRITERS)),
        (StatusCode::OK, Some(true)),
        "{list}"
    );
    (0..3).for_each(|nth| members.run(nth));
    let deadline = Instant::now() + LIMIT;
    while second.get("/readyz").await.0 != StatusCode::OK {
        assert!(Instant::now() < deadline, "the server is ready again");
        tokio::task::yield_now().await;
    }
    let (code, status) =
        second.put(&format!("{MAPS}/w0"), &json!({"metadata": {"name": "w0"}, "data": {"n": "7"}})).await;
    assert_eq!(code, StatusCode::OK, "{status}");
    let names = |list: &Value| list["items"].as_array().unwrap().len();
    let (_, list) = three.admin().get(MAPS).await;
    assert_eq!(numbers(&three.admin()).await[0], 7, "{}", names(&list));
}

/// Each server adds its own authority to those that are trusted; none writes over another's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_start_at_once_are_all_trusted() {
    let members = Members::start();
    members.leader().await;
    let servers = futures::future::join_all((0..4).map(|_| server(&members))).await;
    let path = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let (code, map) = servers[0].admin().get(path).await;
    assert_eq!(code, StatusCode::OK, "{map}");
    let trusted = map["data"]["client-ca-file"].as_str().unwrap();
    for server in &servers {
        assert!(trusted.contains(server.authority.cert_pem().trim()), "{trusted}");
    }
    assert_eq!(trusted.matches("BEGIN CERTIFICATE").count(), servers.len());
}

/// The `kubernetes` Service leads to all servers, and to one that stops no longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_server_is_an_endpoint_while_it_is_there() {
    let members = Members::start();
    members.leader().await;
    let one = server_at(&members, "10.0.0.1:6443").await;
    let two = server_at(&members, "10.0.0.2:6443").await;
    let client = two.admin();
    let addresses = async || {
        let (_, endpoints) = client.get("/api/v1/namespaces/default/endpoints/kubernetes").await;
        let (_, slice) = client.get("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes").await;
        let of = |list: &Value, pointer: &str| -> Vec<String> {
            let found = list.as_array().into_iter().flatten();
            found.filter_map(|address| Some(address.pointer(pointer)?.as_str()?.to_owned())).collect()
        };
        let (endpoints, slice) =
            (of(&endpoints["subsets"][0]["addresses"], "/ip"), of(&slice["endpoints"], "/addresses/0"));
        assert_eq!(endpoints, slice);
        endpoints
    };
    assert_eq!(addresses().await, ["10.0.0.1", "10.0.0.2"]);
    let begun = Instant::now();
    one.server.stop().await;
    // A server does not wait for ever to end; where that was too short, its address ends by itself.
    let slow = begun.elapsed() > Duration::from_secs(2);
    while slow && addresses().await.len() > 1 {
        assert!(begun.elapsed() < LIMIT, "the address of a server that is gone is taken away");
        tokio::task::yield_now().await;
    }
    assert_eq!(addresses().await, ["10.0.0.2"]);
}
