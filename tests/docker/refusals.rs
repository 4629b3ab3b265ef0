//! What cannot be done, in the words that people search for. Words that dockerd 20.10 has otherwise than 28.2 are cut down
//! to what both say.

use crate::engine::{Engine, IMAGE};

#[test]
fn options_that_make_no_sense_are_refused_in_dockers_words() {
    let engine = Engine::start();
    for (options, words) in [
        (&["--cpus", "1000"][..], "ange of CPUs is from 0.01 to"),
        (&["--cpuset-cpus", "4000"], "Requested CPUs are not available - requested 4000, available: 0-"),
        (&["--cap-add", "NOSUCH"], "invalid CapAdd: unknown capability: \"CAP_NOSUCH\""),
        (&["--security-opt", "foo=1"], "invalid --security-opt 2: \"foo=1\""),
        (&["--gpus", "all"], "could not select device driver \"\" with capabilities: [[gpu]]"),
        (&["--storage-opt", "size=1g"], "--storage-opt is supported only for overlay over xfs with 'pquota'"),
        (&["--log-opt", "foo=bar"], "unknown log opt 'foo' for json-file log driver"),
        (&["--log-opt", "max-size=x"], "failed to initialize logging driver: invalid size: 'x'"),
        (&["--tmpfs", "/x:foo"], "invalid tmpfs option [\"foo\"]"),
        (&["-v", "/tmp:/"], "invalid mount config for type \"bind\": invalid specification: destination can't be '/'"),
        (&["-v", "/tmp:/x:sideways"], "invalid mode: sideways"),
        (&["--volumes-from", "nobody"], "No such container: nobody"),
        (&["--network", "nowhere"], "network nowhere not found"),
        (&["--network", "container:nobody"], "No such container: nobody"),
        (&["--ipc", "nosuch"], "nvalid IPC mode: nosuch"),
        (&["--stop-signal", "FOO"], "nvalid signal: FOO"),
        (&["--ip", "1.2.3.4"], "user specified IP address is supported on user defined networks only"),
        (&["--oom-score-adj", "5000"], "Invalid value 5000, range for oom score adj is [-1000, 1000]"),
        (&["--group-add", "nosuch"], "Unable to find group nosuch"),
        (&["-w", "relative"], "the working directory 'relative' is invalid, it needs to be an absolute path"),
    ] {
        let output = engine.docker(&[&["run", "--rm"], options, &[IMAGE, "true"]].concat());
        assert_eq!(output.status.code(), Some(125), "{options:?}: {}", output.stderr);
        assert!(output.stderr.contains(words), "{options:?}: {}", output.stderr);
    }
    // The CLI takes the words for a missing command.
    let device = engine.docker(&["run", "--rm", "--device", "/dev/nosuch", IMAGE, "true"]);
    assert_eq!(device.status.code(), Some(127));
    let words =
        "error gathering device information while adding custom device \"/dev/nosuch\": no such file or directory";
    assert!(device.stderr.contains(words), "{}", device.stderr);
    assert_eq!(engine.ok(&["ps", "-aq", "--filter", "status=running"]), "");
}

#[test]
fn commands_on_what_is_not_there_or_not_running_say_so() {
    let engine = Engine::start();
    engine.ok(&["create", "--name", "idle", IMAGE]);
    let long = engine.ok(&["ps", "-aq", "--no-trunc"]);
    engine.ok(&["run", "-d", "--name", "busy", IMAGE, "sleep", "1000"]);
    for (arguments, words) in [
        (&["start", "nobody"][..], "No such container: nobody"),
        (&["kill", "nobody"], "annot kill container: nobody: No such container: nobody"),
        (&["kill", "-s", "FOO", "busy"], "nvalid signal: FOO"),
        (&["exec", "idle", "true"], "is not running"),
        (&["top", "idle"], &format!("ontainer {long} is not running")),
        (&["pause", "idle"], "is not running"),
        (&["unpause", "busy"], "is not paused"),
        (&["rename", "busy", "b@d"], "Error when allocating new name: Invalid container name (/b@d)"),
        (
            &["rename", "busy", "idle"],
            "Error when allocating new name: Conflict. The container name \"/idle\" is already in use",
        ),
        (&["update", "--memory", "1m", "busy"], "inimum memory limit allowed is"),
        (&["logs", "--tail", "1", "nobody"], "No such container: nobody"),
        (&["volume", "create", "b@d"], "includes invalid characters for a local volume name"),
        (&["volume", "create", "--opt", "foo=bar", "odd"], "create odd: invalid option: \"foo\""),
        (&["volume", "create", "--opt", "type=tmpfs", "odd"], "create odd: missing required option: \"device\""),
        (&["volume", "rm", "nothing"], "get nothing: no such volume"),
        (
            &["volume", "create", "-d", "strange", "odd"],
            "error looking up volume plugin strange: plugin \"strange\" not found",
        ),
        (&["network", "create", "host"], "operation is not permitted on predefined host network"),
        (
            &["network", "create", "--subnet", "10.1.0.0/24", "--subnet", "10.2.0.0/24", "two"],
            "bridge driver doesn't support multiple subnets",
        ),
        (&["network", "create", "-d", "overlay", "far"], "This node is not a swarm manager."),
        (&["network", "connect", "nowhere", "busy"], "network nowhere not found"),
        (&["service", "ls"], "This node is not a swarm manager. Use \"docker swarm init\""),
        (&["tag", "nothing", "x"], "No such image: nothing:latest"),
        (&["rmi", "nothing"], "No such image: nothing:latest"),
    ] {
        let said = engine.docker(arguments);
        assert_eq!(said.status.code(), Some(1), "{arguments:?}: {}", said.stderr);
        assert!(said.stderr.contains(words), "{arguments:?}: {}", said.stderr);
    }
}

#[test]
fn bodies_that_are_no_requests_are_refused_and_nothing_is_left() {
    let engine = Engine::start();
    let post = |path: &str, body: &str| {
        let mut command = engine.client("curl");
        command.args(["-s", "--unix-socket", engine.socket(), "-X", "POST", "-H", "Content-Type: application/json"]);
        command.args(["-w", "%{http_code}", "--data-binary", "@-", &format!("http://docker{path}")]);
        coracle_tests::run(&mut command, body).ok()
    };
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let huge = format!("{{\"Image\":\"{IMAGE}\",\"HostConfig\":{{\"Memory\":9223372036854775807,\"NanoCpus\":-1}}}}");
    for body in ["{", "[]", "nonsense", "{\"Image\":7}", "{\"Image\":\"B@D\"}", "{}", &deep, &huge] {
        let said = post("/containers/create", body);
        let code: u16 = said[said.len() - 3..].parse().unwrap();
        // An old dockerd takes its own decoder's errors for its fault.
        assert!((400..engine.since(44, 500, 501)).contains(&code), "{}: {said}", &body[..body.len().min(40)]);
    }
    // What is not known is passed over, as Go's decoder does.
    let made = post("/containers/create", &format!("{{\"Image\":\"{IMAGE}\",\"NoSuchField\":{{\"a\":[1]}}}}"));
    assert!(made.ends_with("201"), "{made}");
    assert_eq!(engine.ok(&["ps", "-aq"]).lines().count(), 1);
}
