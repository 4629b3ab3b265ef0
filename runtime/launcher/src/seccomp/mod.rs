//! `linux.seccomp` compiled to a classic BPF program (config-linux.md "Seccomp", seccomp(2)).
//!
//! ```text
//! architecture? ─┬─ x86-64 ─ number ≥ 0x40000000? ─┬─ x32:  tree of numbers → action, or tests of arguments
//!                │                                  └─ x86-64: the same
//!                ├─ x86: the same
//!                └─ any other: kill
//! ```
//!
//! Numbers with the same answer are one range, and ranges are found by halves, so that a call costs about eight
//! comparisons. The rule that comes first for a call decides; a call without a rule gets the default action. Calls newer
//! than all that the profile names answer ENOSYS where the default is an error, so that programs fall back (as runc).

mod assemble;
pub mod numbers;
mod stored;

use crate::{
    error::{Context, Error, Result},
    json::Json,
    sys,
};

use assemble::{Answer, Rule, Table};
pub use stored::store;

/// What `features` says of filters.
pub fn features() -> Json {
    let list = |words: &mut dyn Iterator<Item = &'static str>| Json::Arr(words.map(Json::from).collect());
    let actions = ["KILL", "KILL_PROCESS", "KILL_THREAD", "TRAP", "ERRNO", "TRACE", "LOG", "ALLOW", "NOTIFY"];
    let actions: Vec<Json> = actions.iter().map(|action| format!("SCMP_ACT_{action}").into()).collect();
    let compare = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];
    let compare: Vec<Json> = compare.iter().map(|operator| format!("SCMP_CMP_{operator}").into()).collect();
    let flags = [
        "SECCOMP_FILTER_FLAG_TSYNC",
        "SECCOMP_FILTER_FLAG_LOG",
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
    ];
    crate::json::object([
        ("enabled", true.into()),
        ("actions", Json::Arr(actions)),
        ("operators", Json::Arr(compare)),
        ("archs", list(&mut ARCHITECTURES.iter().map(|architecture| architecture.name))),
        ("knownFlags", list(&mut flags.into_iter())),
        ("supportedFlags", list(&mut flags.into_iter())),
    ])
}

/// Most instructions that the kernel takes (BPF_MAXINSNS).
const MAX_INSTRUCTIONS: usize = 4096;

/// SECCOMP_FILTER_FLAG_SPEC_ALLOW.
const SPEC_ALLOW: u64 = 4;

const RET_KILL_PROCESS: u32 = 0x8000_0000;
const RET_KILL_THREAD: u32 = 0;
const RET_TRAP: u32 = 0x0003_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_TRACE: u32 = 0x7ff0_0000;
const RET_USER_NOTIF: u32 = 0x7fc0_0000;
const RET_LOG: u32 = 0x7ffc_0000;
const RET_ALLOW: u32 = 0x7fff_0000;

/// An architecture's calling convention as the kernel names it (linux/audit.h), and its numbers.
struct Architecture {
    name: &'static str,
    audit: u32,
    /// Shares `audit` with another and is told apart by this bit of its numbers.
    bit: u32,
    /// Arguments have 64 bits.
    wide: bool,
    numbers: &'static [(&'static str, u32)],
}

static ARCHITECTURES: [Architecture; 5] = [
    Architecture { name: "SCMP_ARCH_X86_64", audit: 0xc000_003e, bit: 0, wide: true, numbers: &numbers::X86_64 },
    Architecture { name: "SCMP_ARCH_X32", audit: 0xc000_003e, bit: 0x4000_0000, wide: true, numbers: &numbers::X32 },
    Architecture { name: "SCMP_ARCH_X86", audit: 0x4000_0003, bit: 0, wide: false, numbers: &numbers::X86 },
    Architecture { name: "SCMP_ARCH_AARCH64", audit: 0xc000_00b7, bit: 0, wide: true, numbers: &numbers::AARCH64 },
    Architecture { name: "SCMP_ARCH_ARM", audit: 0x4000_0028, bit: 0, wide: false, numbers: &numbers::ARM },
];

/// Architectures whose programs run on neither machine (seccomp_arch_add(3)).
const OTHERS: [&str; 18] = [
    "MIPS",
    "MIPS64",
    "MIPS64N32",
    "MIPSEL",
    "MIPSEL64",
    "MIPSEL64N32",
    "PARISC",
    "PARISC64",
    "PPC",
    "PPC64",
    "PPC64LE",
    "S390",
    "S390X",
    "RISCV64",
    "LOONGARCH64",
    "M68K",
    "SH",
    "SHEB",
];

/// The machine's own architecture and those whose programs it also runs.
pub fn native_architectures() -> &'static [&'static str] {
    if cfg!(target_arch = "x86_64") {
        &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    } else {
        &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
    }
}

/// A compiled filter.
pub struct Filter {
    program: Vec<[u8; 8]>,
    flags: u64,
    /// Not asked for: a kernel that does not know them goes without.
    optional_flags: u64,
    /// Who is asked about calls with SCMP_ACT_NOTIFY.
    pub listener: Option<Listener>,
}

/// A socket that takes the listening descriptor of a filter, with the container's state and these words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    pub path: String,
    pub metadata: String,
}

impl Filter {
    /// Compiles a configuration, or takes the program that was [`store`]d in it; none without one.
    pub fn of(seccomp: &Json) -> Result<Option<Filter>> {
        if says_nothing(seccomp) {
            return Ok(None);
        }
        let listener = listener(seccomp)?;
        let program = stored::load(seccomp).unwrap_or_else(|| compile(seccomp))?;
        stored::check(&program)?;
        // As runc where nothing is said: a program with a filter is no slower than others (before 5.16).
        let optional_flags = if seccomp.get("flags").is_null() { SPEC_ALLOW } else { 0 };
        Ok(Some(Filter { program, flags: flags(seccomp, listener.is_some())?, optional_flags, listener }))
    }

    /// Its configuration for a state file: compiled, but for one whose rules ask somebody else ([`store`]).
    pub fn keep(&self, seccomp: &Json) -> Json {
        match self.listener {
            Some(_) => seccomp.clone(),
            None => stored::with_program(seccomp, &self.program),
        }
    }

    /// Puts the filter before every later system call of this process. With a listener: the number of its descriptor.
    pub fn install(&self) -> Result<i32> {
        match sys::seccomp_filter(&self.program, self.flags | self.optional_flags) {
            // Before 4.17.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && self.optional_flags != 0 => {
                sys::seccomp_filter(&self.program, self.flags)
            }
            result => result,
        }
        .context(|| "install the seccomp filter".into())
    }
}

/// No rules and no default, as in `{}`, are no filter (runc `specconv`, SetupSeccomp).
fn says_nothing(seccomp: &Json) -> bool {
    seccomp.get("defaultAction").is_null() && seccomp.get("syscalls").items().is_empty() && !stored::is_stored(seccomp)
}

/// The listener, if a rule or the default asks one. `write` cannot be asked about: the launcher itself has to write the
/// descriptor's number before anybody listens (as runc).
fn listener(seccomp: &Json) -> Result<Option<Listener>> {
    let notify = |entry: &Json, key: &str| entry.get(key).str() == Some("SCMP_ACT_NOTIFY");
    let rules: Vec<&Json> = seccomp.get("syscalls").items().iter().filter(|rule| notify(rule, "action")).collect();
    if notify(seccomp, "defaultAction") {
        return Err(Error::new("linux.seccomp: SCMP_ACT_NOTIFY cannot be used as default action"));
    }
    let text = |key: &str| seccomp.get(key).str().filter(|text| !text.is_empty()).map(str::to_owned);
    let (path, metadata) = (text("listenerPath"), text("listenerMetadata"));
    if metadata.is_some() && path.is_none() {
        return Err(Error::new("linux.seccomp: listenerMetadata needs listenerPath"));
    }
    if rules.is_empty() {
        return Ok(None);
    }
    if rules.iter().any(|rule| rule.get("names").strings().iter().any(|name| name == "write")) {
        return Err(Error::new("linux.seccomp: SCMP_ACT_NOTIFY cannot be used for the write syscall"));
    }
    let path = path.ok_or_else(|| Error::new("linux.seccomp: SCMP_ACT_NOTIFY needs listenerPath"))?;
    Ok(Some(Listener { path, metadata: metadata.unwrap_or_default() }))
}

fn flags(seccomp: &Json, listener: bool) -> Result<u64> {
    const NEW_LISTENER: u64 = 8;
    let mut out = if listener { NEW_LISTENER } else { 0 };
    for flag in seccomp.get("flags").strings() {
        out |= match flag.as_str() {
            // One thread: there is nothing to synchronise.
            "SECCOMP_FILTER_FLAG_TSYNC" => 0,
            "SECCOMP_FILTER_FLAG_LOG" => 2,
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => SPEC_ALLOW,
            // Means something with a listener only, as the kernel demands.
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" if listener => 32,
            flag => return Err(Error::new(format!("linux.seccomp.flags: {flag:?} is not supported"))),
        };
    }
    Ok(out)
}

fn action(name: &str, errno: Option<u32>) -> Result<u32> {
    if errno.is_some() && !matches!(name, "SCMP_ACT_ERRNO" | "SCMP_ACT_TRACE") {
        // config-linux "Seccomp": MUST be an error.
        return Err(Error::new(format!("linux.seccomp: {name} returns no error number")));
    }
    let data = errno.unwrap_or(libc::EPERM as u32) & 0xffff;
    Ok(match name {
        "SCMP_ACT_ALLOW" => RET_ALLOW,
        "SCMP_ACT_ERRNO" => RET_ERRNO | data,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => RET_KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS" => RET_KILL_PROCESS,
        "SCMP_ACT_TRAP" => RET_TRAP,
        "SCMP_ACT_TRACE" => RET_TRACE | data,
        "SCMP_ACT_LOG" => RET_LOG,
        "SCMP_ACT_NOTIFY" => RET_USER_NOTIF,
        name => return Err(Error::new(format!("linux.seccomp: unknown action {name:?}"))),
    })
}

/// All tests of an entry have to hold, but for an entry with two of one argument: there each is a rule of its own (runc
/// `seccomp_linux.go`, matchCall; libseccomp takes no such rule).
fn answers(action: u32, tests: Vec<assemble::Test>) -> Vec<Answer> {
    let twice = |(at, test): (usize, &assemble::Test)| tests[..at].iter().any(|other| other.index == test.index);
    if tests.iter().enumerate().any(twice) {
        tests.into_iter().map(|test| Answer { action, tests: vec![test] }).collect()
    } else {
        vec![Answer { action, tests }]
    }
}

fn compile(seccomp: &Json) -> Result<Vec<[u8; 8]>> {
    let default = action(seccomp.get("defaultAction").str().unwrap_or_default(), seccomp.get("defaultErrnoRet").u32())?;
    // The machine's own is always among them (seccomp_init(3)).
    let mut names = vec![native_architectures()[0].to_owned()];
    names.extend(seccomp.get("architectures").strings().into_iter().filter(|name| name != native_architectures()[0]));
    let mut architectures = Vec::new();
    for name in &names {
        match ARCHITECTURES.iter().find(|architecture| architecture.name == name) {
            Some(architecture) => architectures.push(architecture),
            // Those of other machines can never come; profiles name them all the same.
            None if OTHERS.contains(&name.strip_prefix("SCMP_ARCH_").unwrap_or_default()) => {}
            None => return Err(Error::new(format!("linux.seccomp.architectures: unknown architecture {name:?}"))),
        }
    }
    let mut tables = Vec::new();
    for architecture in architectures {
        let mut table = Table { audit: architecture.audit, bit: architecture.bit, default, rules: Vec::new() };
        for entry in seccomp.get("syscalls").items() {
            let answer = action(entry.get("action").str().unwrap_or_default(), entry.get("errnoRet").u32())?;
            let tests = entry
                .get("args")
                .items()
                .iter()
                .map(|test| assemble::test(test, architecture.wide))
                .collect::<Result<Vec<_>>>()?;
            let answers = answers(answer, tests);
            for name in entry.get("names").items().iter().filter_map(Json::str) {
                // A name that this architecture has not is no call of it.
                if let Ok(at) = architecture.numbers.binary_search_by(|(known, _)| (*known).cmp(name)) {
                    let number = architecture.numbers[at].1;
                    table.rules.extend(answers.iter().map(|answer| Rule { number, answer: answer.clone() }));
                }
            }
        }
        tables.push(table);
    }
    Ok(assemble::program(&tables))
}

#[cfg(test)]
mod tests {
    use super::{assemble::run, *};

    const X86_64: u32 = 0xc000_003e;
    const X86: u32 = 0x4000_0003;

    fn compiled(text: &str) -> Vec<[u8; 8]> {
        compile(&Json::parse(text.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn tables_are_sorted() {
        for architecture in &ARCHITECTURES {
            assert!(architecture.numbers.is_sorted_by(|a, b| a.0 < b.0), "{}", architecture.name);
        }
    }

    #[test]
    fn calls_get_the_answer_of_their_rule() {
        let program = compiled(
            r#"{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86","SCMP_ARCH_X32"],"syscalls":[
                {"names":["read","write","close","no_such_call","statx"],"action":"SCMP_ACT_ALLOW"},
                {"names":["personality"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":8,"op":"SCMP_CMP_EQ"}]},
                {"names":["personality"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":4294967295,"op":"SCMP_CMP_EQ"}]},
                {"names":["socket"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":40,"op":"SCMP_CMP_NE"}]},
                {"names":["clone"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":2114060288,"op":"SCMP_CMP_MASKED_EQ"}]},
                {"names":["clone3"],"action":"SCMP_ACT_ERRNO","errnoRet":38},
                {"names":["kill"],"action":"SCMP_ACT_KILL_PROCESS","args":[{"index":1,"value":9,"op":"SCMP_CMP_GE"},{"index":0,"value":15,"op":"SCMP_CMP_LT"}]},
                {"names":["tkill"],"action":"SCMP_ACT_LOG","args":[{"index":1,"value":9,"op":"SCMP_CMP_EQ"},{"index":1,"value":15,"op":"SCMP_CMP_EQ"}]}]}"#,
        );
        let (allow, refuse) = (RET_ALLOW, RET_ERRNO | 1);
        for (audit, number, arguments, expected) in [
            (X86_64, 0, [0; 2], allow),
            (X86_64, 1, [0; 2], allow),
            (X86_64, 2, [0; 2], refuse),
            (X86_64, 3, [0; 2], allow),
            (X86_64, 332, [0; 2], allow),
            (X86_64, 135, [8, 0], allow),
            (X86_64, 135, [0xffff_ffff, 0], allow),
            (X86_64, 135, [0x1_0000_0008, 0], refuse),
            (X86_64, 41, [40, 0], refuse),
            (X86_64, 41, [2, 0], allow),
            (X86_64, 41, [0x1_0000_0028, 0], allow),
            (X86_64, 56, [17, 0], allow),
            (X86_64, 56, [0x1000_0000, 0], refuse),
            (X86_64, 435, [0; 2], RET_ERRNO | 38),
            (X86_64, 436, [0; 2], RET_ERRNO | 38),
            (X86_64, 62, [0, 9], RET_KILL_PROCESS),
            (X86_64, 62, [15, 9], refuse),
            (X86_64, 62, [0, 8], refuse),
            // Two tests of one argument are two rules.
            (X86_64, 200, [0, 9], RET_LOG),
            (X86_64, 200, [0, 15], RET_LOG),
            (X86_64, 200, [0, 10], refuse),
            (X86_64, 0x4000_0000, [0; 2], allow),
            (X86_64, 0x4000_0002, [0; 2], refuse),
            (X86, 3, [0; 2], allow),
            (X86, 1, [0; 2], refuse),
            (0x1234, 0, [0; 2], RET_KILL_PROCESS),
        ] {
            assert_eq!(run(&program, audit, number, arguments), expected, "{audit:x} {number} {arguments:x?}");
        }
    }

    #[test]
    fn the_machines_own_calls_are_judged_always() {
        let native = ARCHITECTURES.iter().find(|architecture| architecture.name == native_architectures()[0]).unwrap();
        let program =
            compiled(r#"{"defaultAction":"SCMP_ACT_LOG","architectures":["SCMP_ARCH_X32","SCMP_ARCH_S390"]}"#);
        assert_eq!(run(&program, native.audit, 0, [0; 2]), RET_LOG);
    }

    #[test]
    fn flags_have_a_default_and_nothing_is_no_filter() {
        let filter = |text: &str| Filter::of(&Json::parse(text.as_bytes()).unwrap()).unwrap();
        assert_eq!(filter(r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#).unwrap().optional_flags, SPEC_ALLOW);
        assert_eq!(filter(r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":[]}"#).unwrap().optional_flags, 0);
        assert!(filter("{}").is_none() && filter(r#"{"syscalls":[]}"#).is_none());
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        for (text, word) in [
            (r#"{"defaultAction":"SCMP_ACT_ALLOW","defaultErrnoRet":1}"#, "returns no error number"),
            (
                r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","errnoRet":1}]}"#,
                "returns no error number",
            ),
            (r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerMetadata":"x"}"#, "listenerPath"),
            (r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X68"]}"#, "SCMP_ARCH_X68"),
            (r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#, "SCMP_ACT_NOTIFY"),
            (r#"{"defaultAction":"odd"}"#, "odd"),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_NOTIFY"}]}"#,
                "listenerPath",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/x","syscalls":[{"names":["write"],"action":"SCMP_ACT_NOTIFY"}]}"#,
                "the write syscall",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_LOG","args":[{"index":9,"value":1,"op":"SCMP_CMP_EQ"}]}]}"#,
                "index",
            ),
        ] {
            let error = Filter::of(&Json::parse(text.as_bytes()).unwrap()).err().unwrap().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
