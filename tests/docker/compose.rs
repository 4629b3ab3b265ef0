//! Compose, version 2 (the CLI's plugin) and version 1, with the five services of the voting app.

use std::{fs, path::PathBuf};

use coracle_tests::{Output, run};

use crate::engine::{Engine, IMAGE};

/// The app as course notes draw it: votes come in at the front, are counted at the back.
fn voting_app(engine: &Engine, version: &str) -> PathBuf {
    let serve = |port: u16, word: &str| {
        format!("sh -c \"echo {word} is up; while true; do echo {word} | nc -l -p {port}; done\"")
    };
    let text = format!(
        r#"{version}
services:
  vote:
    image: {IMAGE}
    command: {vote}
    networks: [front, back]
    ports: ["80"]
    environment: {{OPTION_A: Cats}}
    depends_on: {{redis: {{condition: service_healthy}}}}
  redis:
    image: {IMAGE}
    command: {redis}
    healthcheck: {{test: "test -e /data/seed", interval: 100ms, timeout: 5s, retries: 50}}
    networks: [back]
  worker:
    image: {IMAGE}
    command: sleep 1000
    depends_on: {{redis: {{condition: service_healthy}}, db: {{condition: service_healthy}}}}
    networks: [back]
  db:
    image: {IMAGE}
    command: sh -c "test -e /var/lib/data/made || touch /var/lib/data/made; sleep 1000"
    volumes: ["db-data:/var/lib/data"]
    healthcheck: {{test: ["CMD", "test", "-e", "/var/lib/data/made"], interval: 100ms, retries: 50}}
    networks: [back]
  result:
    image: {IMAGE}
    command: {result}
    depends_on: {{db: {{condition: service_healthy}}}}
    networks: [front, back]
networks: {{front: {{}}, back: {{}}}}
volumes: {{db-data: {{}}}}
"#,
        vote = serve(80, "vote"),
        redis = serve(6379, "PONG"),
        result = serve(80, "result"),
    );
    let path = engine.path("compose.yml");
    fs::write(&path, text).unwrap();
    path
}

/// One of the two programs, on a file.
struct Compose<'a> {
    engine: &'a Engine,
    plugin: bool,
    file: PathBuf,
}

impl Compose<'_> {
    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = if self.plugin {
            let mut command = self.engine.client("docker");
            command.arg("compose");
            command
        } else {
            self.engine.client("docker-compose")
        };
        command.args(["-p", "app", "-f"]).arg(&self.file).args(arguments);
        run(&mut command, "")
    }

    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> String {
        self.run(arguments).ok()
    }

    /// Ids of the containers of a service, or of all.
    fn ids(&self, service: &str) -> Vec<String> {
        let words = ["ps", "-q", service];
        let words = if service.is_empty() { &words[..2] } else { &words };
        let mut ids: Vec<String> = self.ok(words).lines().map(str::to_owned).collect();
        ids.sort();
        ids
    }
}

fn the_app_lives(plugin: bool, version: &str) {
    let engine = Engine::start();
    let file = voting_app(&engine, version);
    let compose = Compose { engine: &engine, plugin, file };
    compose.ok(&["up", "-d"]);
    let first = compose.ids("");
    assert_eq!(first.len(), 5);
    let states = engine.ok(&["ps", "--format", "{{.Names}} {{.Status}}"]);
    assert_eq!(states.matches("(healthy)").count(), 2, "{states}");
    assert!(compose.ok(&["logs", "redis"]).contains("PONG is up"));
    // Names are found where both are on a network, and nowhere else.
    assert_eq!(compose.ok(&["exec", "-T", "vote", "nc", "redis", "6379"]), "PONG\n");
    let refused = compose.run(&["exec", "-T", "worker", "nc", "db", "1"]).stderr;
    assert!(refused.contains("Connection refused"), "who refuses is found: {refused}");
    let unknown = engine.docker(&["run", "--rm", "--network", "app_front", IMAGE, "nc", "redis", "6379"]).stderr;
    assert!(unknown.contains("bad address"), "what is at the back only is not known at the front: {unknown}");
    let port = compose.ok(&["port", "vote", "80"]);
    let port = port.trim().rsplit(':').next().unwrap();
    assert_eq!(engine.on_host(&["busybox", "nc", "-w", "5", "127.0.0.1", port]).ok(), "vote\n");

    compose.ok(&["up", "-d"]);
    assert_eq!(compose.ids(""), first, "nothing changed, so nothing is made again");
    compose.ok(&["up", "-d", "--scale", "vote=3"]);
    assert_eq!(compose.ids("vote").len(), 3);
    assert!(compose.ids("vote").iter().any(|id| first.contains(id)), "the first one stays");
    let text = fs::read_to_string(&compose.file).unwrap().replace("OPTION_A: Cats", "OPTION_A: Dogs");
    fs::write(&compose.file, text).unwrap();
    let (votes, others) = (compose.ids("vote"), [compose.ids("redis"), compose.ids("db"), compose.ids("result")]);
    compose.ok(&["up", "-d", "--scale", "vote=3"]);
    assert!(compose.ids("vote").iter().all(|id| !votes.contains(id)), "what changed is made again");
    assert_eq!(others, [compose.ids("redis"), compose.ids("db"), compose.ids("result")], "the rest stays");

    compose.ok(&["down", "-v", "-t", "0"]);
    assert_eq!(engine.ok(&["ps", "-aq"]), "");
    assert_eq!(engine.ok(&["volume", "ls", "-q"]), "");
    assert_eq!(engine.ok(&["network", "ls", "-q", "--filter", "type=custom"]), "");
}

#[test]
fn the_voting_app_lives_under_compose_2() {
    the_app_lives(true, "");
}

#[test]
fn the_voting_app_lives_under_compose_1() {
    the_app_lives(false, "version: '2.4'");
}

#[test]
fn files_of_the_first_version_link_their_services() {
    let engine = Engine::start();
    let file = engine.path("first.yml");
    let text = format!(
        "web:\n  image: {IMAGE}\n  command: sh -c \"until nc db 5432; do true; done\"\n  links: [db]\ndb:\n  image: {IMAGE}\n  command: sh -c \"echo data | nc -l -p 5432\"\n"
    );
    fs::write(&file, text).unwrap();
    let compose = Compose { engine: &engine, plugin: false, file };
    assert!(compose.ok(&["up", "--no-color"]).contains("web_1  | data"));
    compose.ok(&["down"]);
}

#[test]
fn profiles_secrets_configs_and_files_of_variables_reach_services() {
    let engine = Engine::start();
    fs::write(engine.path("key"), "sesame").unwrap();
    fs::write(engine.path("settings"), "a=b").unwrap();
    fs::write(engine.path("variables"), "FROM_FILE=yes\n").unwrap();
    let text = format!(
        r#"
services:
  web:
    image: {IMAGE}
    command: sh -c "cat /run/secrets/key /settings; echo; echo $$FROM_FILE; grep there /etc/hosts; sleep 1000"
    secrets: [key]
    configs: [{{source: settings, target: /settings}}]
    env_file: [{variables}]
    extra_hosts: ["there:1.2.3.4"]
    mem_limit: 64m
    init: true
  tools: {{image: {IMAGE}, command: sleep 1000, profiles: [debug]}}
secrets: {{key: {{file: {key}}}}}
configs: {{settings: {{file: {settings}}}}}
"#,
        variables = engine.path("variables").display(),
        key = engine.path("key").display(),
        settings = engine.path("settings").display(),
    );
    let file = engine.path("compose.yml");
    fs::write(&file, text).unwrap();
    let compose = Compose { engine: &engine, plugin: true, file };
    compose.ok(&["up", "-d", "--wait"]);
    assert_eq!(compose.ids("").len(), 1, "nobody asked for the profile");
    // It clears the line though nobody sees it.
    let said = compose.ok(&["logs", "--no-log-prefix", "web"]).replace("\u{1b}[2K", "");
    assert_eq!(said.lines().collect::<Vec<_>>(), ["sesamea=b", "yes", "1.2.3.4\tthere"]);
    compose.ok(&["--profile", "debug", "up", "-d"]);
    assert_eq!(compose.ids("").len(), 2);
    compose.ok(&["--profile", "debug", "down", "-t", "0"]);
    assert_eq!(engine.ok(&["ps", "-aq"]), "");
}
