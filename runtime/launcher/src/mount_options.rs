//! The words of a mount's options (mount(8), config.md "Linux mount options").

use std::path::PathBuf;

use crate::error::Result;

/// Options, sorted into what each system call takes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MountOptions {
    /// Flags to set.
    pub flags: u64,
    /// Flags to clear on a bind mount, which starts with its source's.
    pub cleared: u64,
    /// Propagation to set afterwards, each by a call of its own.
    pub propagation: Vec<u64>,
    /// Attributes for the whole tree: `MOUNT_ATTR_*` to set and to clear.
    pub recursive: (u64, u64),
    /// `tmpcopyup`: begins with what it covers.
    pub copy_up: bool,
    /// `idmap`, `ridmap`: owners go through mappings.
    pub idmap: bool,
    /// `ridmap`: those of the mounts below, too.
    pub map_tree: bool,
    /// `x-coracle.subpath=`: what is bound, or shown of an overlay, is this part of it, found without leaving that. (mount(8) leaves options
    /// that begin with `x-` to programs.)
    pub subpath: Option<PathBuf>,
    /// What is the file system's own.
    pub data: String,
}

/// Begins an option that only this launcher knows.
pub const SUBPATH: &str = "x-coracle.subpath=";

const RELATIME_GROUP: u64 = libc::MS_RELATIME | libc::MS_NOATIME | libc::MS_STRICTATIME;

/// `MS_LAZYTIME` (linux/mount.h).
const LAZYTIME: u64 = 1 << 25;

/// Word, flag, whether the word clears it.
const WORDS: [(&str, u64, bool); 31] = [
    ("defaults", 0, false),
    ("ro", libc::MS_RDONLY, false),
    ("rw", libc::MS_RDONLY, true),
    ("nosuid", libc::MS_NOSUID, false),
    ("suid", libc::MS_NOSUID, true),
    ("nodev", libc::MS_NODEV, false),
    ("dev", libc::MS_NODEV, true),
    ("noexec", libc::MS_NOEXEC, false),
    ("exec", libc::MS_NOEXEC, true),
    ("sync", libc::MS_SYNCHRONOUS, false),
    ("async", libc::MS_SYNCHRONOUS, true),
    ("dirsync", libc::MS_DIRSYNC, false),
    ("remount", libc::MS_REMOUNT, false),
    ("mand", libc::MS_MANDLOCK, false),
    ("nomand", libc::MS_MANDLOCK, true),
    ("noatime", libc::MS_NOATIME, false),
    ("atime", libc::MS_NOATIME, true),
    ("nodiratime", libc::MS_NODIRATIME, false),
    ("diratime", libc::MS_NODIRATIME, true),
    ("relatime", libc::MS_RELATIME, false),
    ("norelatime", libc::MS_RELATIME, true),
    ("strictatime", libc::MS_STRICTATIME, false),
    ("nostrictatime", libc::MS_STRICTATIME, true),
    ("silent", libc::MS_SILENT, false),
    ("loud", libc::MS_SILENT, true),
    ("iversion", libc::MS_I_VERSION, false),
    ("noiversion", libc::MS_I_VERSION, true),
    ("lazytime", LAZYTIME, false),
    ("nolazytime", LAZYTIME, true),
    ("nosymfollow", 256, false),
    ("symfollow", 256, true),
];

/// Word, `MOUNT_ATTR_*` (mount_setattr(2)), whether the word clears it.
const RECURSIVE_WORDS: [(&str, u64, bool); 18] = [
    ("rro", 1, false),
    ("rrw", 1, true),
    ("rnosuid", 2, false),
    ("rsuid", 2, true),
    ("rnodev", 4, false),
    ("rdev", 4, true),
    ("rnoexec", 8, false),
    ("rexec", 8, true),
    // The access times are one field, whose clearing means relatime.
    ("rnoatime", 0x10, false),
    ("ratime", 0x10, true),
    ("rrelatime", 0, false),
    ("rnorelatime", 0, false),
    ("rstrictatime", 0x20, false),
    ("rnostrictatime", 0x20, true),
    ("rnodiratime", 0x80, false),
    ("rdiratime", 0x80, true),
    ("rnosymfollow", 0x20_0000, false),
    ("rsymfollow", 0x20_0000, true),
];

/// Every word that is not a file system's own.
pub fn words() -> impl Iterator<Item = &'static str> {
    const OTHERS: [&str; 13] = [
        "bind",
        "rbind",
        "tmpcopyup",
        "idmap",
        "ridmap",
        "shared",
        "rshared",
        "slave",
        "rslave",
        "private",
        "rprivate",
        "unbindable",
        "runbindable",
    ];
    let flags = WORDS.iter().chain(&RECURSIVE_WORDS).map(|(word, ..)| *word);
    flags.chain(OTHERS)
}

impl MountOptions {
    pub fn parse(words: &[String]) -> Result<MountOptions> {
        let mut out = MountOptions::default();
        let mut data = Vec::new();
        for word in words {
            if let Some((_, flag, clear)) = WORDS.iter().find(|(name, ..)| name == word) {
                out.set(*flag, *clear);
            } else if let Some((_, attribute, clear)) = RECURSIVE_WORDS.iter().find(|(name, ..)| name == word) {
                *(if *clear { &mut out.recursive.1 } else { &mut out.recursive.0 }) |= attribute;
                if word.contains("atime") && !word.contains("diratime") {
                    // mount_setattr(2): to change it, the whole field has to be cleared.
                    out.recursive.1 |= 0x70;
                }
            } else {
                match word.as_str() {
                    "bind" => out.flags |= libc::MS_BIND,
                    "rbind" => out.flags |= libc::MS_BIND | libc::MS_REC,
                    "tmpcopyup" => out.copy_up = true,
                    "idmap" | "ridmap" => (out.idmap, out.map_tree) = (true, word == "ridmap"),
                    "shared" | "rshared" | "slave" | "rslave" | "private" | "rprivate" | "unbindable"
                    | "runbindable" => {
                        out.propagation.push(crate::spec::propagation(word)?);
                    }
                    word => match word.strip_prefix(SUBPATH) {
                        Some(path) => out.subpath = Some(path.into()),
                        None => data.push(word),
                    },
                }
            }
        }
        out.data = data.join(",");
        Ok(out)
    }

    fn set(&mut self, flag: u64, clear: bool) {
        if clear {
            self.flags &= !flag;
            self.cleared |= flag;
        } else {
            if flag & RELATIME_GROUP != 0 {
                self.flags &= !RELATIME_GROUP;
            }
            self.flags |= flag;
            self.cleared &= !flag;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_flags_data_and_propagation() {
        let words: Vec<String> =
            ["rbind", "ro", "nolazytime", "nosuid", "rslave", "size=65536k", "mode=755", "suid", "rro"]
                .map(str::to_owned)
                .into();
        let options = MountOptions::parse(&words).unwrap();
        assert_eq!(options.flags, libc::MS_BIND | libc::MS_REC | libc::MS_RDONLY);
        assert_eq!(options.cleared, libc::MS_NOSUID | LAZYTIME);
        assert_eq!(options.propagation, [libc::MS_SLAVE | libc::MS_REC]);
        assert_eq!(options.recursive, (1, 0));
        assert_eq!(options.data, "size=65536k,mode=755");
        let part = MountOptions::parse(&["bind".to_owned(), "x-coracle.subpath=a/b".to_owned()]).unwrap();
        assert_eq!((part.subpath, part.data.as_str()), (Some("a/b".into()), ""));
        let mapped = |word: &str| MountOptions::parse(&[word.to_owned()]).map(|parsed| (parsed.idmap, parsed.map_tree));
        assert_eq!((mapped("idmap").unwrap(), mapped("ridmap").unwrap()), ((true, false), (true, true)));
        assert!(MountOptions::parse(&["tmpcopyup".to_owned()]).unwrap().copy_up);
    }
}
