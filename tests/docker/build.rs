//! Builds, as the classic builder does them.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::PathBuf,
    process::{Command, Stdio},
};

use coracle_tests::Output;

use crate::engine::{Engine, IMAGE, ours_alone};

/// A context of a test's own.
struct Context<'a> {
    engine: &'a Engine,
    dir: PathBuf,
}

impl<'a> Context<'a> {
    fn new(engine: &'a Engine, name: &str) -> Self {
        let dir = engine.path(name);
        fs::create_dir_all(&dir).unwrap();
        Self { engine, dir }
    }

    fn file(&self, name: &str, text: &str) -> &Self {
        let path = self.dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn build(&self, dockerfile: &str, arguments: &[&str]) -> Output {
        self.file("Dockerfile", &format!("FROM {IMAGE}\n{dockerfile}"));
        self.run(arguments)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.engine.docker(&[&["build"], arguments, &[self.dir.to_str().unwrap()]].concat())
    }

    #[track_caller]
    fn ok(&self, dockerfile: &str, arguments: &[&str]) -> String {
        self.build(dockerfile, arguments).ok()
    }

    /// What a build that must fail complained of.
    #[track_caller]
    fn fails(&self, dockerfile: &str) -> String {
        let output = self.build(dockerfile, &[]);
        assert!(!output.status.success(), "{} should have failed\n{}", output.command, output.stdout);
        output.stderr
    }
}

/// The id of the last image that a build's output names.
fn built(output: &str) -> String {
    let line = output.lines().find_map(|line| line.strip_prefix("Successfully built "));
    line.unwrap_or_else(|| panic!("nothing was built\n{output}")).to_owned()
}

const EVERYTHING: &str = r#"MAINTAINER me <me@x>
LABEL a=b "c d"='e f'
ENV X=1 Y="two words"
ENV OLD style value
ARG FOO=bar
RUN echo hi $FOO > /out; echo err >&2
RUN ["/bin/echo","exec form"]
WORKDIR /app
WORKDIR rel
COPY a.txt d ./
ADD a.txt /x/
COPY --chown=web:web a.txt /owned
EXPOSE 80 443/udp
VOLUME /vol /vol2
USER web
HEALTHCHECK --interval=5s CMD true
SHELL ["/bin/sh","-ec"]
STOPSIGNAL SIGINT
ENTRYPOINT ["/bin/cat"]
CMD x y
ONBUILD RUN echo onbuild
"#;

#[test]
fn every_instruction_makes_the_image_that_dockerd_makes() {
    let engine = Engine::start();
    let context = Context::new(&engine, "context");
    context.file("a.txt", "hi\n").file("d/e/f", "x\n");
    let output = context.ok(EVERYTHING, &["-t", "t1", "-t", "t1:two"]);
    assert!(output.contains("Step 1/22 : FROM busybox:test\n ---> "), "{output}");
    assert!(output.contains("Step 7/22 : RUN echo hi $FOO > /out; echo err >&2\n ---> Running in "), "{output}");
    assert!(output.contains("\u{1b}[91merr\n\u{1b}[0mRemoving intermediate container "), "{output}");
    assert!(output.ends_with("Successfully tagged t1:latest\nSuccessfully tagged t1:two\n"), "{output}");
    assert_eq!(engine.ok(&["ps", "-aq"]), "");
    let show = |format: &str| engine.ok(&["image", "inspect", "-f", format, "t1"]);
    assert!(show("{{.Id}}").starts_with(&format!("sha256:{}", built(&output))));
    for (format, value) in [
        ("{{.Author}}", "me <me@x>"),
        ("{{json .Config.Labels}}", r#"{"a":"b","c d":"e f"}"#),
        (
            "{{json .Config.Env}}",
            r#"["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin","X=1","Y=two words","OLD=style value"]"#,
        ),
        ("{{.Config.WorkingDir}} {{.Config.User}} {{.Config.StopSignal}}", "/app/rel web SIGINT"),
        ("{{json .Config.ExposedPorts}}", r#"{"443/udp":{},"80/tcp":{}}"#),
        ("{{json .Config.Volumes}}", r#"{"/vol":{},"/vol2":{}}"#),
        ("{{json .Config.Entrypoint}} {{json .Config.Cmd}}", r#"["/bin/cat"] ["/bin/sh","-ec","x y"]"#),
        ("{{json .Config.Healthcheck}}", r#"{"Test":["CMD-SHELL","true"],"Interval":5000000000}"#),
        ("{{json .Config.Shell}} {{json .Config.OnBuild}}", r#"["/bin/sh","-ec"] ["RUN echo onbuild"]"#),
        ("{{len .RootFS.Layers}}", "7"),
    ] {
        assert_eq!(show(format), value, "{format}");
    }
    let history = engine.ok(&["history", "--no-trunc", "--format", "{{.CreatedBy}}", "t1"]);
    let history: Vec<&str> = history.lines().map(str::trim_end).collect();
    assert_eq!(
        history[..9],
        [
            "/bin/sh -ec #(nop)  ONBUILD RUN echo onbuild",
            "/bin/sh -ec #(nop)  CMD [\"/bin/sh\" \"-ec\" \"x y\"]",
            "/bin/sh -ec #(nop)  ENTRYPOINT [\"/bin/cat\"]",
            "/bin/sh -ec #(nop)  STOPSIGNAL SIGINT",
            "/bin/sh -ec #(nop)  SHELL [/bin/sh -ec]",
            history[5],
            "/bin/sh -c #(nop)  USER web",
            "/bin/sh -c #(nop)  VOLUME [/vol /vol2]",
            "/bin/sh -c #(nop)  EXPOSE 443/udp 80",
        ]
    );
    assert!(history[5].starts_with("/bin/sh -c #(nop)  HEALTHCHECK &{[\"CMD-SHELL\" \"true\"] \"5s\" \"0s\""));
    assert!(history[9].starts_with("/bin/sh -c #(nop) COPY --chown=web:web"), "{}", history[9]);
    assert!(history[10].starts_with("/bin/sh -c #(nop) ADD file:") && history[10].ends_with(" in /x/"));
    assert!(history[11].starts_with("/bin/sh -c #(nop) COPY multi:") && history[11].ends_with(" in ./"));
    assert_eq!(history[14], "|1 FOO=bar /bin/echo exec form");
    let sizes = engine.ok(&["history", "--format", "{{.Size}}", "--human=false", "t1"]);
    assert_eq!(sizes.lines().nth(14), Some("0"), "a command that changes nothing adds no layer");
    let run = |words: &[&str]| engine.ok(&[&["run", "--rm", "--entrypoint", words[0], "t1"], &words[1..]].concat());
    assert_eq!(run(&["cat", "/out", "a.txt", "e/f", "/x/a.txt"]), "hi bar\nhi\nx\nhi");
    assert_eq!(run(&["busybox", "stat", "-c", "%u:%g", "/owned"]), "33:33");
}

#[test]
fn what_was_built_is_not_built_again() {
    let engine = Engine::start();
    let context = Context::new(&engine, "context");
    context.file("a", "1").file("other", "x");
    let dockerfile = "ARG A=1\nRUN echo $A > /arg\nCOPY a /a\nRUN cat /a\n";
    let first = context.ok(dockerfile, &["-t", "c"]);
    let again = context.ok(dockerfile, &["-t", "c"]);
    assert_eq!(again.matches(" ---> Using cache\n").count(), 4, "{again}");
    assert_eq!(built(&first), built(&again));
    // A file that was touched, and one that is not asked for, are as before.
    let times = fs::FileTimes::new().set_modified(std::time::SystemTime::UNIX_EPOCH);
    fs::File::options().write(true).open(context.dir.join("a")).unwrap().set_times(times).unwrap();
    context.file("other", "y");
    assert_eq!(built(&context.ok(dockerfile, &[])), built(&first));
    fs::set_permissions(context.dir.join("a"), fs::Permissions::from_mode(0o600)).unwrap();
    let mode = context.ok(dockerfile, &[]);
    assert_eq!(mode.matches("Using cache").count(), 2, "{mode}");
    let argument = context.ok(dockerfile, &["--build-arg", "A=2"]);
    assert_eq!(argument.matches("Using cache").count(), 1, "{argument}");
    assert_eq!(context.ok(dockerfile, &["--no-cache"]).matches("Using cache").count(), 0);
    assert!(
        context
            .ok("RUN true", &["--build-arg", "NONE=1"])
            .contains("[Warning] One or more build-args [NONE] were not consumed")
    );
    // An image of the way is an image for who names it.
    let way = first.lines().filter_map(|line| line.strip_prefix(" ---> ")).filter(|id| id.len() == 12).nth(2).unwrap();
    assert_eq!(engine.ok(&["run", "--rm", way, "cat", "/arg"]), "1");
}

#[test]
fn files_go_where_the_rules_say() {
    let engine = Engine::start();
    let context = Context::new(&engine, "context");
    context.file("f", "1\n").file("d/x", "2\n").file("d/sub/deep", "3\n");
    symlink("x", context.dir.join("d/l")).unwrap();
    fs::set_permissions(context.dir.join("f"), fs::Permissions::from_mode(0o600)).unwrap();
    let dockerfile = "COPY f /new/f\nCOPY d /dd\nCOPY f d /both/\n\
        RUN busybox mkdir /ex; busybox chmod 700 /ex; busybox ln -s /ex /lnk\nCOPY f /lnk/\nCOPY f /lnk\nCOPY d/l /ll\n\
        WORKDIR /w\nCOPY f .\nCOPY d/* /g/\nCOPY [\"d/x\", \"/with space\"]\n\
        RUN busybox find /new /dd /both /ex /ll /lnk /w /g /with* -exec busybox stat -c '%A %u:%g %n' {} \\;\n";
    let output = context.ok(dockerfile, &[]);
    for line in [
        "drwxr-xr-x 0:0 /new",
        "-rw------- 0:0 /new/f",
        "drwxr-xr-x 0:0 /dd",
        "lrwxrwxrwx 0:0 /dd/l",
        "-rw-r--r-- 0:0 /dd/sub/deep",
        "-rw------- 0:0 /both/f",
        "-rw-r--r-- 0:0 /both/x",
        "drwx------ 0:0 /ex",
        "-rw------- 0:0 /ex/f",
        "-rw-r--r-- 0:0 /ll",
        "lrwxrwxrwx 0:0 /lnk",
        "-rw------- 0:0 /w/f",
        "-rw-r--r-- 0:0 /g/x",
        "-rw-r--r-- 0:0 /g/deep",
        "-rw-r--r-- 0:0 /with space",
    ] {
        assert!(output.lines().any(|found| found == line), "{line}\n{output}");
    }
    let sources = context.fails("COPY f f /x");
    assert!(sources.contains(
        "When using COPY with more than one source file, the destination must be a directory and end with a /"
    ));
    let missing = context.fails("COPY nope /x");
    assert!(
        missing.contains(
            "COPY failed: file not found in build context or excluded by .dockerignore: stat nope: file does not exist"
        ),
        "{missing}"
    );
    assert!(context.fails("COPY a*x /x").contains("COPY failed: no source files were specified"));
    assert!(context.fails("ADD ../a /x").contains("ADD failed: forbidden path outside the build context: ../a ()"));
    assert!(context.fails("COPY --chown=nouser f /b").contains("can't find uid for user nouser: no such user: nouser"));
    assert!(context.fails("COPY d /data/seed").contains("director"));
}

#[test]
fn archives_are_unpacked_by_add_alone() {
    let engine = Engine::start();
    let context = Context::new(&engine, "context");
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(2);
    header.set_mode(0o640);
    header.set_uid(33);
    builder.append_data(&mut header, "in/side", &b"a\n"[..]).unwrap();
    fs::write(context.dir.join("a.tar"), builder.into_inner().unwrap()).unwrap();
    for program in ["gzip", "xz"] {
        let packed = Command::new(program).arg("-k").arg(context.dir.join("a.tar")).status();
        assert!(packed.expect("every system has it").success());
    }
    let packed = context.ok("ADD a.tar.gz /gz\nADD a.tar.xz /xz\nRUN cat /gz/in/side /xz/in/side", &[]);
    assert!(packed.contains("\na\na\n"), "{packed}");
    let output = context.ok(
        "ADD a.tar /tt/\nCOPY a.tar /cp/\nADD a.tar /single\nRUN busybox find /tt /cp /single; busybox stat -c %a:%u /tt/in/side",
        &[],
    );
    for line in ["/tt/in/side", "/cp/a.tar", "/single/in/side", "640:33"] {
        assert!(output.lines().any(|found| found == line), "{line}\n{output}");
    }
}

#[test]
fn stages_build_on_each_other_and_unused_ones_are_left_out() {
    let engine = Engine::start();
    let context = Context::new(&engine, "context");
    context.file("Dockerfile", "ARG BASE=busybox:test\nFROM $BASE AS one\nRUN echo one > /one\nFROM $BASE AS unused\nRUN false\nFROM $BASE AS two\nRUN echo two > /two\nFROM one\nCOPY --from=two /two /copied\nCOPY --from=busybox:test /data/seed /seed\nCOPY --from=0 /one /again\nRUN cat /one /copied /seed /again\n");
    if engine.is_peer() {
        // dockerd builds every stage up to the target.
        let dockerfile = fs::read_to_string(context.dir.join("Dockerfile")).unwrap();
        context.file("Dockerfile", &dockerfile.replace("FROM $BASE AS unused\nRUN false\n", ""));
        let output = context.run(&[]).ok();
        assert!(output.contains("\none\ntwo\nseed\none\n"), "{output}");
        return;
    }
    let output = context.run(&[]).ok();
    assert!(output.contains("Step 1/10 : ARG BASE=busybox:test\nStep 2/10 : FROM $BASE AS one\n"), "{output}");
    assert!(output.contains("\none\ntwo\nseed\none\n"), "{output}");
    assert!(!output.contains("unused"), "{output}");
    let two = context.run(&["--target", "two"]).ok();
    assert!(two.contains("Using cache") && !two.contains("AS one"), "{two}");
    assert!(!context.run(&["--target", "unused"]).status.success());
    let nowhere = context.run(&["--target", "zz"]).fails();
    assert!(nowhere.contains("zz"), "{nowhere}");
    assert!(context.fails("COPY --from=0 /f /").contains("invalid from flag value 0: refers to current build stage"));
}

#[test]
fn scratch_and_triggers() {
    let engine = Engine::start();
    let context = Context::new(&engine, "context");
    context.file("a", "a").file("Dockerfile", "FROM scratch\nCOPY a /a\n");
    let output = context.run(&["-t", "empty"]).ok();
    assert!(output.contains("FROM scratch\n ---> \nStep 2/2"), "{output}");
    assert_eq!(engine.ok(&["image", "inspect", "-f", "{{len .RootFS.Layers}}", "empty"]), "1");
    context.ok("ONBUILD COPY a /ob\nONBUILD RUN cat /ob", &["-t", "ob"]);
    context.file("Dockerfile", "FROM ob\nRUN echo after\n");
    let output = context.run(&[]).ok();
    assert!(output.contains("Step 1/2 : FROM ob\n# Executing 2 build triggers\n"), "{output}");
    let again = context.run(&[]).ok();
    assert!(again.contains("# Executing 2 build triggers\n ---> Using cache\n ---> Using cache\n ---> "), "{again}");
}

#[test]
fn mistakes_are_told_with_their_lines() {
    let engine = Engine::start();
    let context = Context::new(&engine, "context");
    let unknown = context.fails("\nFOO bar");
    assert!(unknown.contains("unknown instruction: FOO") && unknown.contains("line 3"), "{unknown}");
    assert!(engine.is_peer() || unknown.contains("3 | >>> FOO bar"), "{unknown}");
    for (text, message) in [
        (
            "COPY a",
            "COPY requires at least two arguments, but only one was provided. Destination could not be determined",
        ),
        ("ENV X", "ENV must have two arguments"),
        ("HEALTHCHECK CMDX", "Unknown type \"CMDX\" in HEALTHCHECK (try CMD)"),
        ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ("WORKDIR ", "WORKDIR requires exactly one argument"),
        ("EXPOSE 99999999", "Invalid containerPort: 99999999"),
        ("STOPSIGNAL FOO", "Invalid signal: FOO"),
        ("ENV A=${B:?must}", "failed to process \"${B:?must}\": B: must"),
        ("USER nobodyx\nRUN true", "unable to find user nobodyx: no matching entries in passwd file"),
        ("RUN [\"/nosuch\"]", "no such file or directory"),
    ] {
        let told = context.fails(text);
        assert!(told.contains(message), "{text}: {told}");
    }
    let code = context.build("RUN exit 3", &["--force-rm"]);
    assert_eq!(code.status.code(), Some(3), "{}", code.stderr);
    assert!(code.stderr.contains("The command '/bin/sh -c exit 3' returned a non-zero code: 3"), "{}", code.stderr);
    context.file("Dockerfile", "RUN true\n");
    assert!(context.run(&[]).fails().contains("no build stage in current context"));
    context.file("Dockerfile", "");
    assert!(context.run(&[]).fails().contains("the Dockerfile (Dockerfile) cannot be empty"));
    context.file("Dockerfile", "# nothing\n");
    assert!(context.run(&[]).fails().contains("file with no instructions"));
}

#[test]
fn a_failed_command_leaves_its_container_unless_told_otherwise() {
    let engine = Engine::start();
    let context = Context::new(&engine, "context");
    context.fails("RUN echo left > /left; false");
    let id = engine.ok(&["ps", "-aq"]);
    assert_eq!(engine.ok(&["inspect", "-f", "{{.State.ExitCode}}", &id]), "1");
    engine.ok(&["rm", &id]);
    context.build("RUN false", &["--force-rm"]);
    context.ok("RUN true", &["--rm=false", "--no-cache"]);
    assert_eq!(engine.ok(&["ps", "-aq"]).lines().count(), 1);
}

#[test]
fn contexts_leave_out_what_dockerignore_says() {
    let engine = Engine::start();
    let context = Context::new(&engine, "context");
    context.file("keep", "").file("sub/x.log", "").file("x.log", "").file("secret/key", "").file("secret/public", "");
    context.file(".dockerignore", "**/*.log\nsecret\n!secret/public\nDockerfile\n.dockerignore\n");
    let output = context.ok("COPY . /all\nRUN busybox find /all -type f", &[]);
    let mut found: Vec<&str> = output.lines().filter(|line| line.starts_with("/all/")).collect();
    found.sort_unstable();
    assert_eq!(found, ["/all/keep", "/all/secret/public"]);
}

#[test]
fn dockerfiles_come_from_standard_input_and_elsewhere() {
    let engine = Engine::start();
    let output = engine.docker_with(&["build", "-q", "-"], "FROM busybox:test\nRUN echo hi > /hi\n").ok();
    assert!(output.trim().starts_with("sha256:"), "{output}");
    assert_eq!(engine.ok(&["run", "--rm", output.trim(), "cat", "/hi"]), "hi");
    let context = Context::new(&engine, "context");
    context.file("other/File", "FROM busybox:test\nCOPY f /f\nRUN cat /f\n").file("f", "content\n");
    let output =
        context.run(&["-f", context.dir.join("other/File").to_str().unwrap(), "--label", "z=1", "--label", "y=2"]).ok();
    assert!(output.contains("\ncontent\n") && output.contains("Step 4/5 : LABEL y=2\n"), "{output}");
}

#[test]
fn commands_have_the_limits_and_the_network_asked_for() {
    let engine = Engine::start();
    let context = Context::new(&engine, "context");
    let output = context.ok(
        "RUN cat /etc/hosts; busybox ulimit -n; cat /sys/class/net/*/address | busybox wc -l",
        &["--network", "none", "--add-host", "here:1.2.3.4", "--ulimit", "nofile=100:100"],
    );
    assert!(output.contains("1.2.3.4\there"), "{output}");
    let refused = context.build("RUN true", &["--network", "nosuch", "--no-cache"]);
    assert!(!refused.status.success() && refused.stderr.contains("nosuch"), "{}", refused.stderr);
}

/// What the classic builder has not: <https://docs.docker.com/reference/dockerfile/> is the specification.
#[test]
fn heredocs_mounts_and_newer_flags() {
    if ours_alone("BuildKit alone has heredocs and mounts, and the classic builder no session for it") {
        return;
    }
    let engine = Engine::start();
    let context = Context::new(&engine, "context");
    context.file("p/a/one", "1").file("p/b/two", "2").file("f", "from the context\n");
    let dockerfile = r#"
ARG WHO=me
RUN <<EOF
echo first
echo second
EOF
RUN <<-"EOF" cat > /file
	$WHO
	EOF
COPY <<one <<"two" /here/
hello $WHO
one
hello $WHO
two
RUN cat /file /here/one /here/two
RUN --mount=type=cache,target=/cache echo kept >> /cache/f; cat /cache/f
RUN --mount=type=cache,target=/cache echo more >> /cache/f; cat /cache/f; ls /cache
RUN --mount=type=bind,source=f,target=/mnt/f cat /mnt/f; ! echo x 2>/dev/null > /mnt/f
RUN --mount=type=bind,from=busybox:test,source=/data,target=/mnt/d cat /mnt/d/seed
RUN --mount=type=tmpfs,target=/tmpfs,size=1m mount | busybox grep /tmpfs
RUN test ! -e /cache/f && test ! -e /mnt/f
COPY --parents p/a/one p/./b/two /par/
COPY --chmod=0751 --link f /mode
COPY --exclude=**/one p /ex
RUN busybox find /par /ex -type f; busybox stat -c %a /mode
"#;
    let output = context.ok(dockerfile, &[]);
    for line in [
        "first",
        "second",
        "$WHO",
        "hello me",
        "hello $WHO",
        "kept",
        "more",
        "from the context",
        "seed",
        "/par/p/a/one",
        "/par/b/two",
        "/ex/b/two",
        "751",
    ] {
        assert!(output.lines().any(|found| found == line), "{line}\n{output}");
    }
    assert!(output.contains("tmpfs on /tmpfs") && !output.contains("/ex/a/one"), "{output}");
    for (text, message) in [
        ("RUN --mount=type=secret,id=x true", "session protocol"),
        ("RUN --security=insecure true", "--security=insecure is not supported"),
        ("ADD git@example.org:a /a", "git sources are not supported"),
    ] {
        let told = context.fails(text);
        assert!(told.contains(message), "{told}");
    }
    assert!(!context.build("RUN true", &["--squash"]).status.success());
}

#[test]
fn a_linked_layer_is_used_again_over_another_base() {
    if ours_alone("--link is BuildKit's") {
        return;
    }
    let engine = Engine::start();
    let context = Context::new(&engine, "context");
    context.file("f", "linked\n");
    let of = |base: &str, flags: &str| {
        let output = context.ok(&format!("RUN echo {base} > /base\nCOPY --link {flags} f /deep/er/\n"), &["-t", base]);
        (engine.ok(&["image", "inspect", "-f", "{{index .RootFS.Layers 2}}", base]), output)
    };
    let (first, _) = of("one", "");
    let (second, output) = of("two", "");
    assert_eq!(first, second);
    assert!(output.contains(" ---> Using cached layer\n"), "{output}");
    assert_eq!(engine.ok(&["run", "--rm", "two", "cat", "/base", "/deep/er/f"]), "two\nlinked");
    assert_ne!(of("three", "--chmod=600").0, first);
    context.file("f", "changed\n");
    assert_ne!(of("two", "").0, first);
    // It sees nothing of what is below it, no names of users either.
    let told = context.fails("COPY --link --chown=web f /deep/\n");
    assert!(told.contains("no such user: web"), "{told}");
    // A file of another name is another file, though all else of it is the same.
    context.file("one", "same\n").file("two", "same\n");
    for name in ["one", "two"] {
        context.ok(&format!("COPY {name} /named/\n"), &["-t", "named"]);
        assert_eq!(engine.ok(&["run", "--rm", "named", "ls", "/named"]), name);
    }
}

/// A repository over HTTP, by git's own back end (git-http-backend(1)).
const GIT_SERVER: &str = r#"
import http.server, os, subprocess, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self):
        path, _, query = self.path.partition("?")
        env = dict(os.environ, GIT_PROJECT_ROOT=sys.argv[1], GIT_HTTP_EXPORT_ALL="1", PATH_INFO=path, QUERY_STRING=query)
        env.update(REQUEST_METHOD=self.command, CONTENT_TYPE=self.headers.get("Content-Type", ""))
        env.update(HTTP_CONTENT_ENCODING=self.headers.get("Content-Encoding", ""))
        env.update(HTTP_GIT_PROTOCOL=self.headers.get("Git-Protocol", ""))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        env.update(CONTENT_LENGTH=str(len(body)))
        out = subprocess.run(["git", "http-backend"], input=body, env=env, stdout=subprocess.PIPE).stdout
        head, _, content = out.partition(b"\r\n\r\n")
        lines = [line.split(": ", 1) for line in head.decode().split("\r\n")]
        status = next((value for name, value in lines if name == "Status"), "200")
        self.send_response(int(status.split()[0]))
        for name, value in lines:
            if name != "Status":
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
    do_GET = do_POST = answer
server = http.server.ThreadingHTTPServer(("127.0.0.1", 8018), Handler)
print("ready", flush=True)
server.serve_forever()
"#;

#[test]
fn a_git_repository_is_a_context() {
    let engine = Engine::start();
    let dir = engine.path("repository");
    fs::create_dir_all(dir.join("below")).unwrap();
    fs::write(dir.join("Dockerfile"), format!("FROM {IMAGE}\nCOPY f /f\n")).unwrap();
    fs::write(dir.join("below/Dockerfile"), format!("FROM {IMAGE}\nCOPY g /g\n")).unwrap();
    fs::write(dir.join("f"), "one\n").unwrap();
    fs::write(dir.join("below/g"), "two\n").unwrap();
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.current_dir(&dir).args(["-c", "user.name=t", "-c", "user.email=t@t"]).args(arguments);
        coracle_tests::run(&mut command, "").ok()
    };
    git(&["init", "-q", "-b", "main"]);
    git(&["add", "."]);
    git(&["commit", "-q", "-m", "x"]);
    let mut server = engine
        .in_network(&["/usr/bin/python3", "-c", GIT_SERVER, dir.to_str().unwrap()])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut ready = [0; 5];
    std::io::Read::read_exact(server.stdout.as_mut().unwrap(), &mut ready).unwrap();
    let fetched = "http://127.0.0.1:8018/.git";
    for (remote, words) in [
        (
            "http://127.0.0.1:1/x.git".to_owned(),
            "error fetching: fatal: unable to access 'http://127.0.0.1:1/x.git/': ",
        ),
        ("http://127.0.0.1:1/x.git".to_owned(), "\n: exit status 128"),
        (format!("{fetched}#none"), "error fetching: fatal: couldn't find remote ref none\n: exit status 128"),
        (format!("{fetched}#-upload-pack"), "invalid refspec: -upload-pack"),
        (format!("{fetched}#main:none"), "none: no such file or directory"),
        (format!("{fetched}#main:f"), "error setting git context, not a directory: "),
        (format!("{fetched}#main:../out"), "error setting git context, \"../out\" not within git root"),
        (
            "ssh://-oProxyCommand=x/x.git".to_owned(),
            "remoteURL (ssh://-oProxyCommand=x/x.git) could not be recognized as URL",
        ),
    ] {
        let query = remote.replace(':', "%3A").replace('/', "%2F").replace('#', "%23");
        let (status, answer) =
            engine.request("POST", &format!("/v1.41/build?remote={query}"), &serde_json::Value::Null);
        let told = answer["message"].as_str().is_some_and(|message| message.contains(words));
        assert!(told && status == 500, "{remote}: {status} {answer}");
    }
    // The daemon fetches what it is named.
    let query = "t=fetched&remote=http%3A%2F%2F127.0.0.1%3A8018%2F.git%23main%3Abelow";
    let answer = engine.post(&format!("/v1.41/build?{query}"));
    assert!(answer.contains("Successfully tagged fetched:latest"), "{answer}");
    assert_eq!(engine.ok(&["run", "--rm", "fetched", "cat", "/g"]), "two");
    // The CLI fetches by itself, and sends what it has.
    let address = "http://127.0.0.1:8018/.git#main";
    engine.on_host(&["docker", "-H", engine.host(), "build", "-t", "sent", address]).ok();
    assert_eq!(engine.ok(&["run", "--rm", "sent", "cat", "/f"]), "one");
    server.kill().unwrap();
    server.wait().unwrap();
}

#[test]
fn what_only_buildkit_has_is_refused_by_name() {
    if ours_alone("dockerd has BuildKit") {
        return;
    }
    let engine = Engine::start();
    for path in ["/build/cancel", "/session", "/grpc"] {
        let (status, answer) = engine.request("POST", path, &serde_json::Value::Null);
        assert_eq!(status, 501);
        assert_eq!(answer["message"], format!("POST {path} is not part of this engine yet"));
    }
}

#[test]
fn the_cache_is_shown_and_pruned() {
    if ours_alone("the classic builder's cache is images, which nothing counts or prunes alone") {
        return;
    }
    let engine = Engine::start();
    let context = Context::new(&engine, "context");
    let dockerfile = "RUN busybox dd if=/dev/zero of=/big bs=1M count=2\nRUN echo x > /x\n";
    context.ok(dockerfile, &["-t", "kept"]);
    let shown = || engine.ok(&["system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Size}}"]);
    assert!(shown().contains("Build Cache 2 0B"), "{}", shown());
    // What an image stands on is the image's.
    assert!(engine.ok(&["builder", "prune", "-f"]).contains("space: 0B"));
    assert_eq!(context.ok(dockerfile, &[]).matches("Using cache").count(), 2);
    engine.ok(&["rmi", "kept"]);
    assert!(shown().contains("Build Cache 2 2.1"), "{}", shown());
    assert_eq!(context.ok(dockerfile, &["-t", "kept"]).matches("Using cache").count(), 2, "the cache outlives images");
    engine.ok(&["rmi", "kept"]);
    assert!(engine.ok(&["builder", "prune", "-f"]).contains("space: 2.1"));
    assert!(shown().contains("Build Cache 0 0B"), "{}", shown());
    assert_eq!(context.ok(dockerfile, &[]).matches("Using cache").count(), 0);
}

#[test]
fn an_image_that_is_named_gives_its_steps() {
    let engine = Engine::start();
    let context = Context::new(&engine, "context");
    context.file("a", "1");
    let dockerfile = "ENV A=1\nCOPY a /a\nRUN cat /a > /b\nCMD x\n";
    context.ok(dockerfile, &["-t", "donor"]);
    let archive = engine.path("donor.tar");
    engine.ok(&["save", "-o", archive.to_str().unwrap(), "donor", IMAGE]);
    engine.ok(&["rmi", "donor"]);
    engine.ok(&["builder", "prune", "-af"]);
    engine.ok(&["load", "-i", archive.to_str().unwrap()]);
    let output = context.ok(dockerfile, &["--cache-from", "donor"]);
    assert_eq!(output.matches("Using cache").count(), 4, "{output}");
    assert_eq!(context.ok("ENV A=2\nCOPY a /a", &["--cache-from", "donor"]).matches("Using cache").count(), 0);
}

#[test]
fn a_client_that_goes_away_takes_its_build_along() {
    let engine = Engine::start();
    let context = Context::new(&engine, "context");
    context.file("Dockerfile", &format!("FROM {IMAGE}\nRUN sleep 1000\n"));
    let mut client = Command::new("docker")
        .env("DOCKER_HOST", engine.host())
        .args(["build", context.dir.to_str().unwrap()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let wait = |running: bool| {
        for _ in 0..1000 {
            if engine.ok(&["ps", "-q"]).is_empty() != running {
                return true;
            }
        }
        false
    };
    assert!(wait(true), "the command never ran");
    client.kill().unwrap();
    client.wait().unwrap();
    assert!(wait(false), "the command runs on");
}

/// A web server in the daemon's network that shows a directory.
struct Web(std::process::Child);

impl Web {
    fn start(engine: &Engine, dir: &std::path::Path) -> Self {
        let mut command = engine.in_network(&["busybox", "httpd", "-f", "-p", "127.0.0.1:8000", "-h"]);
        let child = command.arg(dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let web = Self(child);
        let there = || engine.on_host(&["bash", "-c", ": < /dev/tcp/127.0.0.1/8000"]).status.success();
        assert!((0..1000).any(|_| there()), "the web server does not listen");
        web
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn files_and_contexts_come_from_the_web() {
    if ours_alone("--checksum is BuildKit's") {
        return;
    }
    let engine = Engine::start();
    let web = Context::new(&engine, "web");
    web.file("file", "from the web\n");
    let mut builder = tar::Builder::new(Vec::new());
    for (name, text) in [("Dockerfile", "FROM busybox:test\nCOPY f /f\nRUN cat /f\n"), ("f", "far away\n")] {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    fs::write(web.dir.join("context.tar"), builder.into_inner().unwrap()).unwrap();
    let _server = Web::start(&engine, &web.dir);
    let context = Context::new(&engine, "context");
    let sum = "cb66a4d53ae3ba0d3c5bfb6aeb2e5f0cf0eb7f9ae0d0b48ef3c0b4d6ccf6f2f0";
    let dockerfile = "ADD http://127.0.0.1:8000/file /got/\nRUN cat /got/file; busybox stat -c %a /got/file";
    let output = context.ok(dockerfile, &[]);
    assert!(output.contains("\nfrom the web\n600\n"), "{output}");
    assert!(context.ok(dockerfile, &[]).matches("Using cache").count() == 2);
    let wrong = context.fails(&format!("ADD --checksum=sha256:{sum} http://127.0.0.1:8000/file /got/"));
    assert!(wrong.contains("digest mismatch"), "{wrong}");
    assert!(context.fails("ADD http://127.0.0.1:8000/none /x").contains("404"));
    let answer = engine.post("/build?remote=http://127.0.0.1:8000/context.tar");
    assert!(answer.contains("far away"), "{answer}");
    let answer = engine.post("/build?version=2");
    assert!(answer.contains("BuildKit"), "{answer}");
}
