//! SELinux: what processes and files of containers are called (rules and words of opencontainers/selinux, `label.InitLabels`,
//! as containerd and Docker use them).
//!
//! The policy's own file says what containers are called, `…:container_t:s0` and `…:container_file_t:s0` nearly everywhere.
//! A pod, or a container of nobody's pod, gets two categories that nobody else has, and by them the policy keeps the files of
//! containers apart. Where the kernel has no SELinux none of it does anything, as everywhere: kubelets and Compose files ask
//! for labels without a look at the machine.

mod relabel;

use std::{collections::BTreeMap, fs, path::Path};

use coracle_launcher::labels::{has_selinux, selinuxfs};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The option of who wants no label.
pub const DISABLE: &str = "disable";
/// Where the contexts of containers are told: for all policies, or by the one that is loaded.
const CONTEXTS: &str = "/usr/share/containers/selinux/contexts";
const CONFIG: &str = "/etc/selinux/config";
const CATEGORIES: u32 = 1024;
/// More than half of all pairs are taken when as many guesses fail.
const GUESSES: usize = 64;

/// `user:role:type[:level]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    user: String,
    role: String,
    kind: String,
    level: String,
}

impl Context {
    pub fn parse(text: &str) -> Option<Context> {
        let mut parts = text.splitn(4, ':').map(str::to_owned);
        let (user, role, kind) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Context { user, role, kind, level: parts.next().unwrap_or_default() })
    }

    fn text(&self) -> String {
        let Context { user, role, kind, level } = self;
        let colon = if level.is_empty() { "" } else { ":" };
        format!("{user}:{role}:{kind}{colon}{level}")
    }

    fn part(&mut self, name: &str) -> Option<&mut String> {
        match name {
            "user" => Some(&mut self.user),
            "role" => Some(&mut self.role),
            "type" => Some(&mut self.kind),
            "level" => Some(&mut self.level),
            _ => None,
        }
    }
}

/// What a container's processes and its files are called; empty for as the policy says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labels {
    pub process: String,
    pub mount: String,
}

impl Labels {
    /// The option that makes all of a container's root its own (containerd `client`, `NewTask`).
    pub fn root_option(&self) -> Option<String> {
        (!self.mount.is_empty()).then(|| format!("context=\"{}\"", self.mount))
    }
}

/// The contexts that the machine's policy has for containers.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Contexts {
    process: Context,
    file: Context,
    read_only: Context,
}

impl Contexts {
    fn find() -> Option<Contexts> {
        let text = fs::read_to_string(CONTEXTS).or_else(|_| {
            let policy = value(&fs::read_to_string(CONFIG)?, "SELINUXTYPE").unwrap_or_default();
            fs::read_to_string(Path::new("/etc/selinux").join(policy).join("contexts/lxc_contexts"))
        });
        Contexts::parse(&text.ok()?)
    }

    fn parse(text: &str) -> Option<Contexts> {
        let context = |key: &str| value(text, key).and_then(|text| Context::parse(&text));
        let file = context("file")?;
        Some(Contexts { process: context("process")?, read_only: context("ro_file").unwrap_or(file.clone()), file })
    }
}

/// The value of `KEY = "VALUE"` in a file of such lines.
fn value(text: &str, key: &str) -> Option<String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';']));
    let mut pairs = lines.filter_map(|line| line.split_once('='));
    pairs.find(|(name, _)| name.trim() == key).map(|(_, value)| value.trim().trim_matches('"').to_owned())
}

/// Labels, and which levels are whose.
pub struct Selinux {
    enabled: bool,
    contexts: Option<Contexts>,
    /// How many have each level.
    levels: Mutex<BTreeMap<String, usize>>,
}

impl Selinux {
    /// With `wanted` false it is as if the kernel had none (dockerd's `--selinux-enabled`, containerd's `enable_selinux`).
    pub fn open(wanted: bool) -> Selinux {
        let enabled = wanted && has_selinux();
        let contexts = if enabled { Contexts::find() } else { None };
        if enabled && contexts.is_none() {
            tracing::warn!("SELinux is on, but no file says what containers are called: they get no labels");
        }
        Selinux { enabled, contexts, levels: Mutex::default() }
    }

    pub fn enabled(&self) -> bool {
        self.enabled
    }

    /// The labels of what has these options: `disable`, or `user:`, `role:`, `type:`, `level:` and `filetype:` in place of the
    /// policy's. Their level is reserved; who says no level gets one that nobody has.
    pub fn init(&self, options: &[String]) -> Result<Labels> {
        if !self.enabled {
            return Ok(Labels::default());
        }
        let disabled = options.iter().any(|option| option == DISABLE);
        let Some(contexts) = &self.contexts else {
            return match options.first().filter(|_| !disabled) {
                Some(option) => Err(Error::precondition(format!(
                    "SELinux option {option:?}: no file on this machine says what containers are called ({CONTEXTS})"
                ))),
                None => Ok(Labels::default()),
            };
        };
        let (mut process, mut mount) = (contexts.process.clone(), contexts.file.clone());
        let has_levels = !process.level.is_empty();
        if disabled {
            if has_levels {
                // The highest categories, which no confined process has.
                mount.level = format!("s0:c{},c{}", CATEGORIES - 2, CATEGORIES - 1);
            }
            return Ok(Labels { process: String::new(), mount: mount.text() });
        }
        let mut level = None;
        for option in options {
            let (name, given) = option.split_once(':').unwrap_or((option, ""));
            if name == "filetype" && option.contains(':') {
                mount.kind = given.to_owned();
                continue;
            }
            let part = process.part(name).filter(|_| option.contains(':')).ok_or_else(|| bad_option(option))?;
            *part = given.to_owned();
            match name {
                "level" => level = Some(given.to_owned()),
                "user" => mount.user = given.to_owned(),
                _ => {}
            }
        }
        let level = match level {
            Some(level) => {
                self.count(&level);
                level
            }
            None if has_levels => self.take_level()?,
            None => String::new(),
        };
        (process.level, mount.level) = (level.clone(), level);
        let labels = Labels { process: process.text(), mount: mount.text() };
        known(&labels.process).and_then(|()| known(&labels.mount)).inspect_err(|_| self.release(&labels))?;
        Ok(labels)
    }

    /// The options that give the same labels again: those of the others of a pod (`DupSecOpt`).
    pub fn same(labels: &Labels) -> Vec<String> {
        let Some(context) = Context::parse(&labels.process) else { return Vec::new() };
        let Context { user, role, kind, level } = context;
        let parts = [("user", user), ("role", role), ("type", kind), ("level", level)];
        parts.iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| format!("{name}:{value}")).collect()
    }

    /// Reserves two categories that nobody has.
    fn take_level(&self) -> Result<String> {
        let mut levels = self.levels.lock();
        // Whoever has no label of its own has the files of these.
        let usable = |a: u32, b: u32| {
            let (a, b) = (a.min(b), a.max(b));
            let level = format!("s0:c{a},c{b}");
            (a != b && a < CATEGORIES - 2 && !levels.contains_key(&level)).then_some(level)
        };
        let guess = || usable(fastrand::u32(..CATEGORIES), fastrand::u32(..CATEGORIES));
        let guessed = std::iter::repeat_with(guess).take(GUESSES).flatten().next();
        let mut all = (0..CATEGORIES).flat_map(|a| (a + 1..CATEGORIES).map(move |b| (a, b)));
        let found = guessed.or_else(|| all.find_map(|(a, b)| usable(a, b)));
        let level = found.ok_or_else(|| Error::unavailable("no two SELinux categories are left"))?;
        levels.insert(level.clone(), 1);
        Ok(level)
    }

    fn count(&self, level: &str) {
        if !level.is_empty() {
            *self.levels.lock().entry(level.to_owned()).or_default() += 1;
        }
    }

    /// Remembers whose level it is: of one more than before.
    pub fn reserve(&self, labels: &Labels) {
        self.count(&level_of(labels).unwrap_or_default());
    }

    /// One fewer has it; with the last, anybody may get it.
    pub fn release(&self, labels: &Labels) {
        let Some(level) = level_of(labels) else { return };
        let mut levels = self.levels.lock();
        match levels.get_mut(&level) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(levels.remove(&level)),
        }
    }
}

fn level_of(labels: &Labels) -> Option<String> {
    Context::parse(&labels.process).map(|context| context.level).filter(|level| !level.is_empty())
}

fn bad_option(option: &str) -> Error {
    Error::invalid(format!(
        "bad label option {option:?}, valid options 'disable' or \n'user, role, level, type, filetype' followed by ':' and a value"
    ))
}

/// Asks the kernel whether its policy has such a context; else the container's start would fail with nothing but a number.
fn known(label: &str) -> Result<()> {
    let Some(dir) = selinuxfs() else { return Ok(()) };
    match fs::write(dir.join("context"), label) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            Err(Error::invalid(format!("failed to init selinux options: the policy has no context {label:?}")))
        }
        // Who may not ask finds out when it is used.
        _ => Ok(()),
    }
}

/// The form of a level in CRI (containerd `internal/cri/server`, `checkSelinuxLevel`): `s0`, `s0-s1`, `s0:c1,c3.c5`.
pub fn check_level(level: &str) -> Result<()> {
    let bad = || Error::invalid(format!("the format of 'level' {level:?} is not correct"));
    let digits =
        |text: &str, most: usize| (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let sensitivity = |text: &str| text.strip_prefix('s').is_some_and(|text| digits(text, 1));
    let category = |text: &str| text.strip_prefix('c').is_some_and(|text| digits(text, 4));
    let (range, categories) = level.split_once(':').map_or((level, None), |(range, rest)| (range, Some(rest)));
    let range_is_good = match range.split_once('-') {
        Some((low, high)) => sensitivity(low) && sensitivity(high),
        None => sensitivity(range),
    };
    let group = |text: &str| text.split_once('.').map_or_else(|| category(text), |(a, b)| category(a) && category(b));
    let good = range_is_good && categories.is_none_or(|text| text.split(',').all(group));
    if level.is_empty() || good { Ok(()) } else { Err(bad()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# contexts of containers\nprocess = \"system_u:system_r:container_t:s0\"\n\
        content = \"system_u:object_r:virt_var_lib_t:s0\"\nfile=\"system_u:object_r:container_file_t:s0\"\n\
        ro_file=\"system_u:object_r:container_ro_file_t:s0\"\n";

    fn selinux() -> Selinux {
        Selinux { enabled: true, contexts: Contexts::parse(FILE), levels: Mutex::default() }
    }

    fn options(options: &[&str]) -> Vec<String> {
        options.iter().map(|option| (*option).to_owned()).collect()
    }

    #[test]
    fn options_stand_in_for_the_policys_contexts() {
        let selinux = selinux();
        let of = |words: &[&str]| selinux.init(&options(words)).unwrap();
        let all = of(&["user:user_u", "role:user_r", "type:user_t", "level:s0:c1,c15"]);
        assert_eq!(all.process, "user_u:user_r:user_t:s0:c1,c15");
        assert_eq!(all.mount, "user_u:object_r:container_file_t:s0:c1,c15");
        let level = of(&["level:s0:c7,c8"]);
        assert_eq!(level.process, "system_u:system_r:container_t:s0:c7,c8");
        assert_eq!(of(&["filetype:mine_t", "level:s0"]).mount, "system_u:object_r:mine_t:s0");
        let kind = of(&["type:spc_t"]);
        assert!(kind.process.starts_with("system_u:system_r:spc_t:s0:c") && kind.mount.ends_with(&kind.process[26..]));
        let none = of(&["type:spc_t", "disable"]);
        assert_eq!(
            (none.process.as_str(), none.mount.as_str()),
            ("", "system_u:object_r:container_file_t:s0:c1022,c1023")
        );
        assert_eq!(of(&["role:r"]).process.split(':').nth(1), Some("r"));
        for word in ["user", "nonsense:x", "filetype", ""] {
            assert!(selinux.init(&options(&[word])).unwrap_err().to_string().contains("bad label option"), "{word}");
        }
        assert_eq!(Selinux::same(&all), ["user:user_u", "role:user_r", "type:user_t", "level:s0:c1,c15"]);
        assert!(Selinux::same(&none).is_empty());
    }

    #[test]
    fn a_level_is_somebodys_until_the_last_of_them_goes() {
        let selinux = selinux();
        let pod = selinux.init(&[]).unwrap();
        let level = level_of(&pod).unwrap();
        let container = selinux.init(&Selinux::same(&pod)).unwrap();
        assert_eq!(container, pod);
        selinux.release(&pod);
        assert!(selinux.levels.lock().contains_key(&level));
        selinux.release(&container);
        assert!(selinux.levels.lock().is_empty());
        // All but one pair are somebody's: that one is found, and then there is none.
        for a in 0..CATEGORIES {
            for b in a + 1..CATEGORIES {
                selinux.levels.lock().insert(format!("s0:c{a},c{b}"), 1);
            }
        }
        selinux.levels.lock().remove("s0:c5,c900");
        assert_eq!(level_of(&selinux.init(&[]).unwrap()).unwrap(), "s0:c5,c900");
        assert!(selinux.init(&[]).unwrap_err().to_string().contains("no two SELinux categories are left"));
    }

    #[test]
    fn without_selinux_nothing_is_asked_for() {
        let selinux = Selinux { enabled: false, contexts: None, levels: Mutex::default() };
        assert_eq!(selinux.init(&options(&["type:any", "nonsense"])).unwrap(), Labels::default());
        assert!(selinux.relabel(Path::new("/etc"), "a:b:c", false).is_ok());
        // A policy that knows no containers.
        let bare = Selinux { enabled: true, contexts: None, levels: Mutex::default() };
        assert_eq!(bare.init(&options(&["disable"])).unwrap(), Labels::default());
        assert!(bare.init(&options(&["type:any"])).unwrap_err().to_string().contains("no file on this machine"));
    }

    #[test]
    fn levels_have_a_form() {
        for good in ["", "s0", "s0-s0", "s0:c0", "s0:c0.c3", "s0:c0,c3", "s0-s0:c0,c3.c6,c8.c10", "s1:c1023"] {
            assert!(check_level(good).is_ok(), "{good}");
        }
        for bad in ["s0,c0,c3", "s0:c0.c3.c6", "s0-s0,c0,c3", "s0:", "s00", "c1", "s0:c12345", "s0-s1-s2", "s0:c1,"] {
            assert!(check_level(bad).unwrap_err().to_string().contains("'level'"), "{bad}");
        }
    }
}
