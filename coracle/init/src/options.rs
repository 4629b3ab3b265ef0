//! The command line.

use std::os::fd::RawFd;

/// What to keep, and where.
pub struct Options {
    /// Set for a node's first process, not for the server's keeper.
    pub node: Option<Node>,
    /// Directories of the cgroups to join.
    pub cgroups: Vec<String>,
    /// Where to say how it went.
    pub status: RawFd,
    /// Where the command's output goes.
    pub log: String,
    /// The command with its arguments.
    pub command: Vec<String>,
}

/// The node to be.
pub struct Node {
    pub hostname: String,
    pub netns: RawFd,
}

impl Options {
    pub fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut hostname, mut netns, mut cgroups, mut status, mut log) = (None, None, Vec::new(), None, None);
        while let Some(arg) = args.next() {
            if arg == "--" {
                break;
            }
            let value = args.next().ok_or_else(|| format!("{arg} needs a value"))?;
            match arg.as_str() {
                "--node" => hostname = Some(value),
                "--netns" => netns = Some(descriptor(&value)?),
                "--cgroup" => cgroups.push(value),
                "--status" => status = Some(descriptor(&value)?),
                "--log" => log = Some(value),
                _ => return Err(format!("unknown option {arg}")),
            }
        }
        let command: Vec<String> = args.collect();
        if command.is_empty() {
            return Err("there is no command to run".into());
        }
        let node = match (hostname, netns) {
            (Some(hostname), Some(netns)) => Some(Node { hostname, netns }),
            (None, None) => None,
            _ => return Err("--node and --netns go together".into()),
        };
        Ok(Self {
            node,
            cgroups,
            status: status.ok_or("--status is missing")?,
            log: log.ok_or("--log is missing")?,
            command,
        })
    }
}

fn descriptor(text: &str) -> Result<RawFd, String> {
    text.parse().ok().filter(|fd| *fd > 2).ok_or_else(|| format!("not a descriptor above 2: {text}"))
}
