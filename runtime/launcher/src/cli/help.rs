//! What the command line says of itself: a row for each command, with its options, of which the pages are made.

use std::{collections::VecDeque, fmt::Write};

use crate::error::{Error, Result};

pub const USAGE: &str =
    "usage: coracle oci [GLOBAL OPTIONS] COMMAND [OPTIONS] …; coracle oci COMMAND --help tells more";

/// An option: its names, what its value is (nothing for a switch), and what it does.
type Row = (&'static str, &'static str, &'static str);

pub struct Command {
    pub name: &'static str,
    summary: &'static str,
    operands: &'static str,
    pub options: &'static [&'static [Row]],
    example: &'static str,
}

const GLOBAL: [Row; 9] = [
    ("--root", "DIR", "where containers are kept (default: /run/coracle/oci)"),
    ("--log", "FILE", "write errors and warnings there, too"),
    ("--log-format", "FORMAT", "of the log: text (the default) or json"),
    ("--debug", "", "accepted, and without effect"),
    ("--systemd-cgroup", "", "let systemd make the groups (cgroup v2); cgroupsPath is SLICE:PREFIX:NAME"),
    ("--rootless", "WHETHER", "auto or false; true is refused"),
    ("--criu", "PATH", "ignored"),
    ("--help, -h", "", "print this"),
    ("--version, -v", "", "print the version"),
];

const BUNDLE: Row = ("--bundle, -b", "DIR", "the bundle (default: the working directory)");

/// Of all that start a process.
const PROCESS: [Row; 7] = [
    ("--console-socket", "PATH", "a unix socket that is given the terminal's master"),
    ("--pid-file", "FILE", "write the number of the process there"),
    ("--pidfd-socket", "PATH", "a unix socket that is given a descriptor of the process"),
    ("--no-pivot", "", "move the root instead of changing it, for a host whose root is its initramfs"),
    ("--no-new-keyring", "", "stay in the caller's session keyring"),
    ("--preserve-fds", "N", "hand on N descriptors after the standard streams and those of $LISTEN_FDS"),
    ("--report-fd", "N", "a socket that is told of the outcome instead of standard error"),
];

const COMMANDS: [Command; 16] = [
    Command {
        name: "create",
        summary: "make a container; its process waits for start",
        operands: "ID",
        options: &[&[BUNDLE], &PROCESS],
        example: "create --bundle /bundles/web --pid-file web.pid web",
    },
    Command {
        name: "start",
        summary: "let a created container run",
        operands: "ID",
        options: &[],
        example: "start web",
    },
    Command {
        name: "run",
        summary: "make a container and let it run",
        operands: "ID",
        options: &[
            &[
                BUNDLE,
                ("--detach, -d", "", "return when it runs"),
                ("--keep", "", "keep the container when it has ended"),
                ("--no-subreaper", "", "accepted, and without effect"),
            ],
            &PROCESS,
        ],
        example: "run --bundle /bundles/web web",
    },
    Command {
        name: "exec",
        summary: "run another process in a container",
        operands: "ID COMMAND [ARGUMENT…]   or   --process FILE ID",
        options: &[
            &[
                ("--process, -p", "FILE", "the process as config.json would have it; - is standard input"),
                ("--detach, -d", "", "return when it runs"),
                ("--tty, -t", "", "give it a terminal"),
                ("--cwd", "DIR", "its working directory in the container"),
                ("--env, -e", "NAME=VALUE", "a variable beside the container's own; may be repeated"),
                ("--user, -u", "UID[:GID]", "its user and group"),
                ("--additional-gids, -g", "GID", "another group of it; may be repeated"),
                ("--cap, -c", "CAPABILITY", "another capability of it; may be repeated"),
                ("--no-new-privs", "", "it can gain no rights"),
                ("--apparmor", "PROFILE", "its AppArmor profile"),
                ("--process-label", "LABEL", "its SELinux label"),
                (
                    "--cgroup",
                    "[CONTROLLER,…:]PATH",
                    "a group below the container's own, which is there; may be repeated",
                ),
                ("--ignore-paused", "", "also in a paused container, where it waits"),
                ("--no-subreaper", "", "accepted, and without effect"),
            ],
            &PROCESS,
        ],
        example: "exec --tty web /bin/sh",
    },
    Command {
        name: "state",
        summary: "print a container's state as JSON",
        operands: "ID",
        options: &[],
        example: "state web",
    },
    Command {
        name: "kill",
        summary: "send a signal to a container's first process",
        operands: "ID [SIGNAL]   (default: SIGTERM)",
        options: &[&[("--all, -a", "", "to all processes of the container")]],
        example: "kill web KILL",
    },
    Command {
        name: "delete",
        summary: "remove a container that has stopped",
        operands: "ID",
        options: &[&[("--force, -f", "", "kill it first if it runs; none of the name is no error")]],
        example: "delete --force web",
    },
    Command {
        name: "ps",
        summary: "list a container's processes",
        operands: "ID [OPTION OF PS…]",
        options: &[&[("--format, -f", "FORMAT", "table (the default) or json")]],
        example: "ps web -o pid,args",
    },
    Command {
        name: "list",
        summary: "list the containers below --root",
        operands: "",
        options: &[&[
            ("--format, -f", "FORMAT", "table (the default) or json"),
            ("--quiet, -q", "", "their names alone"),
        ]],
        example: "--root /run/other list --format json",
    },
    Command {
        name: "update",
        summary: "change a container's limits",
        operands: "ID",
        options: &[&[
            (
                "--resources, -r",
                "FILE",
                "all of them, as linux.resources; - is standard input; the others are ignored then",
            ),
            ("--cpu-share", "N", "its share of the processors' time, beside others"),
            ("--cpu-quota", "MICROSECONDS", "the processors' time that it may use in a period; -1: all"),
            ("--cpu-period", "MICROSECONDS", "the period"),
            ("--cpu-burst", "MICROSECONDS", "what it may use beyond the quota of what it has saved"),
            ("--cpu-idle", "N", "1: only when nobody else wants to"),
            ("--cpu-rt-period", "MICROSECONDS", "the period of real-time processes"),
            ("--cpu-rt-runtime", "MICROSECONDS", "the time of real-time processes in it"),
            ("--cpuset-cpus", "LIST", "its processors: 0-2,7"),
            ("--cpuset-mems", "LIST", "its memory nodes"),
            ("--memory", "BYTES", "the most memory, as a number or with a unit: 512M; -1: no limit"),
            ("--memory-swap", "BYTES", "the most memory and swap together; -1: no limit"),
            ("--memory-reservation", "BYTES", "what it keeps when memory is short"),
            ("--pids-limit", "N", "the most processes; -1: no limit"),
            ("--blkio-weight", "N", "its weight on disks, 10 to 1000"),
            ("--l3-cache-schema", "LINE", "what it has of the L3 cache (Intel RDT)"),
            ("--mem-bw-schema", "LINE", "what it has of the memory's bandwidth (Intel RDT)"),
            ("--kernel-memory", "BYTES", "ignored"),
            ("--kernel-memory-tcp", "BYTES", "ignored"),
        ]],
        example: "update --memory 512M --pids-limit 100 web",
    },
    Command {
        name: "pause",
        summary: "stop all processes of a container",
        operands: "ID",
        options: &[],
        example: "pause web",
    },
    Command {
        name: "resume",
        summary: "let a paused container go on",
        operands: "ID",
        options: &[],
        example: "resume web",
    },
    Command {
        name: "events",
        summary: "print what a container uses, and when its memory runs out, as lines of JSON",
        operands: "ID",
        options: &[&[
            ("--interval", "DURATION", "between two accounts (default: 5s)"),
            ("--stats", "", "one account, and end"),
        ]],
        example: "events --interval 1s web",
    },
    Command {
        name: "features",
        summary: "print what this program can, as JSON",
        operands: "",
        options: &[],
        example: "features",
    },
    Command {
        name: "spec",
        summary: "write a config.json to begin with",
        operands: "",
        options: &[&[
            ("--bundle, -b", "DIR", "the bundle (default: the working directory)"),
            ("--rootless", "", "for a user who is not root"),
        ]],
        example: "spec --bundle /bundles/web",
    },
    Command {
        name: "help",
        summary: "print this, or what a command does",
        operands: "[COMMAND]",
        options: &[],
        example: "help exec",
    },
];

fn find(name: &str) -> Option<&'static Command> {
    COMMANDS.iter().find(|command| command.name == name)
}

/// The page that a command line asks for.
pub fn asked(command: &str, words: &VecDeque<String>) -> Result<Option<String>> {
    if matches!(command, "help" | "h") {
        return match words.front().filter(|word| !is_help(word)) {
            Some(name) => {
                let command = find(name).ok_or_else(|| Error::new(format!("no help topic for {name:?}")))?;
                Ok(Some(command.page()))
            }
            None => Ok(Some(overview())),
        };
    }
    let Some(command) = find(command) else { return Ok(None) };
    let mut words = words.iter();
    // Options come first, each with its value; what follows may be another program's.
    while let Some(word) = words.next().filter(|word| word.starts_with('-') && word.len() > 1 && *word != "--") {
        if is_help(word) {
            return Ok(Some(command.page()));
        }
        if command.takes_value(word) {
            words.next();
        }
    }
    Ok(None)
}

fn is_help(word: &str) -> bool {
    matches!(word, "--help" | "-help" | "-h")
}

/// The commands and the options before them.
pub fn overview() -> String {
    let mut out = String::from("Runs containers from bundles (OCI runtime specification), as runc does.\n\n");
    out.push_str("Usage: coracle oci [GLOBAL OPTIONS] COMMAND [OPTIONS] …\n\nCommands:\n");
    let commands = COMMANDS.iter().map(|command| (command.name.to_owned(), command.summary));
    table(&mut out, &commands.collect::<Vec<_>>());
    out.push_str("\nGlobal options:\n");
    table(&mut out, &rows(&GLOBAL));
    out
}

impl Command {
    fn page(&self) -> String {
        let options: Vec<_> = self.options.iter().flat_map(|part| rows(part)).collect();
        let given = if options.is_empty() { "" } else { " [OPTIONS]" };
        let mut out =
            format!("coracle oci {}: {}\n\nUsage: coracle oci {0}{given} {}", self.name, self.summary, self.operands);
        out.truncate(out.trim_end().len());
        out.push_str("\n\nOptions:\n");
        table(&mut out, &[options, rows(&[("--help, -h", "", "print this")])].concat());
        // A page that cannot be finished is none of a String's.
        let _ = write!(out, "\nExample:\n  coracle oci {}\n", self.example);
        out
    }

    /// Whether the word after this one is the option's.
    fn takes_value(&self, word: &str) -> bool {
        let name = word.trim_start_matches('-');
        let of = |(names, value, _): &Row| {
            !value.is_empty() && names.split(", ").any(|known| known.trim_start_matches('-') == name)
        };
        self.options.iter().any(|part| part.iter().any(of))
    }
}

fn rows(rows: &[Row]) -> Vec<(String, &'static str)> {
    rows.iter().map(|(names, value, what)| (format!("{names} {value}").trim_end().to_owned(), *what)).collect()
}

fn table(out: &mut String, rows: &[(String, &str)]) {
    let width = rows.iter().map(|(left, _)| left.len()).max().unwrap_or(0);
    for (left, right) in rows {
        let _ = writeln!(out, "  {left:width$}  {right}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(line: &str) -> Option<String> {
        let mut words: VecDeque<String> = line.split(' ').map(str::to_owned).collect();
        let command = words.pop_front().unwrap();
        asked(&command, &words).unwrap()
    }

    #[test]
    fn help_is_asked_for_where_options_are() {
        for line in ["create --help", "create -b dir --help", "exec --env=A=b -t -h", "help create", "kill -h"] {
            assert!(page(line).is_some(), "{line}");
        }
        for line in ["exec c ls -h", "exec --env -h c", "create -- --help", "exec -t c --help", "nothing --help"] {
            assert!(page(line).is_none(), "{line}");
        }
        assert!(asked("help", &["nothing".to_owned()].into()).is_err());
    }

    #[test]
    fn options_of_the_pages_are_known() {
        for command in &COMMANDS {
            for (names, value, _) in command.options.iter().flat_map(|part| part.iter()) {
                for name in names.split(", ") {
                    let value = if value.is_empty() { String::new() } else { "=1".into() };
                    let words = ["--root=/nowhere", command.name, &format!("{name}{value}"), "none"];
                    let mut arguments = super::super::Arguments { rest: words.map(str::to_owned).into() };
                    let result = super::super::run(&mut arguments, &mut Default::default());
                    let error = result.map_or_else(|error| error.to_string(), |_| String::new());
                    assert!(!error.contains("is not supported"), "{words:?}: {error}");
                }
            }
        }
    }
}
