//! Which devices a group may use: a list on v1, an eBPF program on v2 (`linux.resources.devices`).
//!
//! Rules are taken in order and each kind of access by itself: the last rule that speaks of it decides, and what no rule
//! speaks of is refused (config-linux "Allowed Device list"). After them come the devices that every container may use.
//! What results is a table ([`Table`]) that both kinds of groups are given.

use std::{collections::BTreeMap, fs, os::fd::AsRawFd, path::Path};

use super::{ControlFile, write};
use crate::{
    error::{Context, Error, Result},
    json::Json,
    sys,
};

/// Access, as the program is asked for it (linux/bpf.h, BPF_DEVCG_ACC_*).
const MKNOD: u8 = 1;
const READ: u8 = 2;
const WRITE: u8 = 4;
const ALL: u8 = MKNOD | READ | WRITE;
/// Every number.
const ANY: i64 = -1;

/// One rule.
#[derive(Clone, Debug, PartialEq)]
struct Rule {
    allow: bool,
    /// `a`, `b` or `c`
    kind: u8,
    major: i64,
    minor: i64,
    access: u8,
}

impl Rule {
    const fn allow(kind: u8, major: i64, minor: i64, access: u8) -> Rule {
        Rule { allow: true, kind, major, minor, access }
    }

    /// Whether it leaves nothing of what came before.
    fn is_for_all(&self) -> bool {
        self.kind == b'a' && self.major < 0 && self.minor < 0 && self.access == ALL
    }

    fn speaks_of(&self, (major, minor): Numbers) -> bool {
        (self.major < 0 || self.major == major) && (self.minor < 0 || self.minor == minor)
    }
}

/// What runc adds to every container's rules (`specconv/spec_linux.go` AllowedDevices): nodes of any device may be made,
/// and null, zero, full, random, urandom, tty, ptmx, every pty, and tun be used.
const STANDARD: [Rule; 11] = [
    Rule::allow(b'c', ANY, ANY, MKNOD),
    Rule::allow(b'b', ANY, ANY, MKNOD),
    Rule::allow(b'c', 1, 3, ALL),
    Rule::allow(b'c', 1, 5, ALL),
    Rule::allow(b'c', 1, 7, ALL),
    Rule::allow(b'c', 1, 8, ALL),
    Rule::allow(b'c', 1, 9, ALL),
    Rule::allow(b'c', 5, 0, ALL),
    Rule::allow(b'c', 5, 2, ALL),
    Rule::allow(b'c', 136, ANY, ALL),
    Rule::allow(b'c', 10, 200, ALL),
];

/// The configuration's rules followed by the standard ones.
fn rules(devices: &[Json]) -> Result<Vec<Rule>> {
    let mut out = Vec::new();
    for device in devices {
        let kind = match device.get("type").str().unwrap_or("a") {
            "" | "a" => b'a',
            "b" => b'b',
            "c" | "u" => b'c',
            kind => return Err(Error::new(format!("linux.resources.devices: unknown type {kind:?}"))),
        };
        let words = device.get("access").str().filter(|access| !access.is_empty()).unwrap_or("rwm");
        let mut access = 0;
        for letter in words.chars() {
            access |= match letter {
                'm' => MKNOD,
                'r' => READ,
                'w' => WRITE,
                _ => return Err(Error::new(format!("linux.resources.devices: unknown access {words:?}"))),
            };
        }
        out.push(Rule {
            allow: device.get("allow").bool().unwrap_or(false),
            kind,
            major: device.get("major").i64().unwrap_or(ANY).max(ANY),
            minor: device.get("minor").i64().unwrap_or(ANY).max(ANY),
            access,
        });
    }
    out.extend(STANDARD);
    Ok(out)
}

/// Major and minor, either of them [`ANY`].
type Numbers = (i64, i64);

/// More rules, or places where they meet, than any container has; what is made of them grows faster than they do.
const MAX_RULES: usize = 4096;

/// What may be done with each device: of the entries that are for it, the one that names more of its numbers counts.
pub struct Table {
    /// `b` and `c`, each with an entry for every number.
    kinds: [(u8, BTreeMap<Numbers, u8>); 2],
}

impl Table {
    /// What `linux.resources.devices` comes to.
    pub fn parse(devices: &[Json]) -> Result<Table> {
        let rules = rules(devices)?;
        let last = rules.iter().rposition(Rule::is_for_all);
        let default = if last.is_some_and(|index| rules[index].allow) { ALL } else { 0 };
        let rules = &rules[last.map_or(0, |index| index + 1)..];
        Ok(Table { kinds: [(b'b', entries(rules, b'b', default)?), (b'c', entries(rules, b'c', default)?)] })
    }

    fn is_open(&self) -> bool {
        self.kinds.iter().all(|(_, entries)| entries.iter().all(|(_, &access)| access == ALL))
    }

    /// Every entry, the narrower ones first.
    fn narrow_first(&self) -> impl Iterator<Item = (u8, Numbers, u8)> {
        let all =
            self.kinds.iter().flat_map(|(kind, entries)| entries.iter().map(|(&of, &access)| (*kind, of, access)));
        let mut all: Vec<_> = all.collect();
        all.sort_by_key(|&(_, numbers, _)| WIDTHS.iter().position(|has| *has == width(numbers)));
        all.into_iter()
    }

    /// Whether no entry takes back (or gives, where `open`) what a wider one has, which a list on v1 cannot say: all that is
    /// in it for a device counts.
    fn fits_list(&self, open: bool) -> bool {
        self.kinds.iter().all(|(_, entries)| {
            entries.iter().all(|(&numbers, &access)| {
                wider(numbers).filter_map(|wide| entries.get(&wide)).all(|&wide| {
                    let (less, more) = if open { (access, wide) } else { (wide, access) };
                    less & !more == 0
                })
            })
        })
    }
}

/// Which numbers entries name, from the narrowest: (a, b) is looked for before (a, any), and so on.
const WIDTHS: [(bool, bool); 4] = [(true, true), (true, false), (false, true), (false, false)];

fn width((major, minor): Numbers) -> (bool, bool) {
    (major >= 0, minor >= 0)
}

/// Entries that are for these devices, too.
fn wider((major, minor): Numbers) -> impl Iterator<Item = Numbers> {
    [(major, ANY), (ANY, minor), (ANY, ANY)].into_iter().filter(move |&wide| wide != (major, minor))
}

fn entries(rules: &[Rule], kind: u8, default: u8) -> Result<BTreeMap<Numbers, u8>> {
    let rules: Vec<&Rule> = rules.iter().filter(|rule| rule.kind == kind || rule.kind == b'a').collect();
    let mut named: Vec<Numbers> = rules.iter().map(|rule| (rule.major, rule.minor)).collect();
    // Where a rule for a major number and one for a minor number meet, both speak.
    let of = |has| named.iter().copied().filter(move |&numbers| width(numbers) == has).collect::<Vec<_>>();
    let (majors, minors) = (of((true, false)), of((false, true)));
    if rules.len().max(majors.len() * minors.len()) > MAX_RULES {
        return Err(Error::new(format!("linux.resources.devices: more than {MAX_RULES} rules")));
    }
    named.extend(majors.iter().flat_map(|major| minors.iter().map(|minor| (major.0, minor.1))));
    named.push((ANY, ANY));
    let mut out = BTreeMap::new();
    for has in WIDTHS.into_iter().rev() {
        for &numbers in named.iter().filter(|&&numbers| width(numbers) == has) {
            let access =
                rules.iter().filter(|rule| rule.speaks_of(numbers)).fold(default, |access, rule| match rule.allow {
                    true => access | rule.access,
                    false => access & !rule.access,
                });
            // What the next wider entry says is not said again.
            let wide = wider(numbers).find_map(|wide| out.get(&wide));
            if wide != Some(&access) {
                out.insert(numbers, access);
            }
        }
    }
    Ok(out)
}

pub fn v1(dir: &Path, devices: &[Json]) -> Result<()> {
    let table = Table::parse(devices)?;
    let open_first = table.kinds.iter().all(|(_, entries)| entries.get(&(ANY, ANY)) == Some(&ALL));
    let open = [open_first, !open_first].into_iter().find(|&open| table.fits_list(open)).ok_or_else(|| {
        Error::new("linux.resources.devices: cgroup v1 cannot both refuse part of what is allowed and allow part of what is refused")
    })?;
    write(dir, if open { "devices.allow" } else { "devices.deny" }, "a")?;
    let mut list = ControlFile::new(dir, if open { "devices.deny" } else { "devices.allow" });
    let number = |value: i64| if value < 0 { "*".to_owned() } else { value.to_string() };
    for (kind, (major, minor), access) in table.narrow_first() {
        let listed = if open { ALL & !access } else { access };
        let letters: String = [('r', READ), ('w', WRITE), ('m', MKNOD)]
            .iter()
            .filter(|(_, bit)| listed & bit != 0)
            .map(|(letter, _)| letter)
            .collect();
        if !letters.is_empty() {
            list.write(&format!("{} {}:{} {letters}", kind as char, number(major), number(minor)))?;
        }
    }
    Ok(())
}

/// Attaches a program of type CGROUP_DEVICE to the group.
pub fn v2(dir: &Path, devices: &[Json]) -> Result<()> {
    const BPF_PROG_LOAD: i32 = 5;
    const BPF_PROG_ATTACH: i32 = 8;
    const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
    const BPF_CGROUP_DEVICE: u32 = 6;
    const BPF_F_ALLOW_MULTI: u32 = 2;
    let table = Table::parse(devices)?;
    if table.is_open() {
        // Without a program a group may use all that those above it may.
        return Ok(());
    }
    let program = compile(&table);
    let licence = c"Apache-2.0";
    let mut load = [0u8; 48];
    load[0..4].copy_from_slice(&BPF_PROG_TYPE_CGROUP_DEVICE.to_ne_bytes());
    load[4..8].copy_from_slice(&((program.len() / 8) as u32).to_ne_bytes());
    load[8..16].copy_from_slice(&(program.as_ptr() as u64).to_ne_bytes());
    load[16..24].copy_from_slice(&(licence.as_ptr() as u64).to_ne_bytes());
    let loaded = sys::bpf(BPF_PROG_LOAD, &mut load).context(|| "load the device program".into())?;
    let loaded = sys::adopt(loaded);
    let group = fs::File::open(dir).context(|| format!("open {}", dir.display()))?;
    let mut attach = [0u8; 16];
    attach[0..4].copy_from_slice(&(group.as_raw_fd() as u32).to_ne_bytes());
    attach[4..8].copy_from_slice(&(loaded.as_raw_fd() as u32).to_ne_bytes());
    attach[8..12].copy_from_slice(&BPF_CGROUP_DEVICE.to_ne_bytes());
    attach[12..16].copy_from_slice(&BPF_F_ALLOW_MULTI.to_ne_bytes());
    sys::bpf(BPF_PROG_ATTACH, &mut attach)
        .context(|| format!("attach the device program to {}", dir.display()))
        .map(drop)
}

/// eBPF instructions (linux/bpf.h): opcode, registers, offset, immediate.
fn instruction(opcode: u8, registers: u8, offset: i16, immediate: i32) -> [u8; 8] {
    let (offset, immediate) = (offset.to_ne_bytes(), immediate.to_ne_bytes());
    [opcode, registers, offset[0], offset[1], immediate[0], immediate[1], immediate[2], immediate[3]]
}

/// The context holds `access_type` (access << 16 | type), `major`, `minor`. The first entry that is for the device answers.
fn compile(table: &Table) -> Vec<u8> {
    const LOAD: u8 = 0x61; // r = *(u32 *)(r1 + offset)
    const MOVE: u8 = 0xbc; // w = w
    const AND: u8 = 0x54; // w &= immediate
    const SHIFT: u8 = 0x74; // w >>= immediate
    const JUMP_IF_NOT: u8 = 0x56; // if w != immediate goto
    const SET: u8 = 0xb4; // w = immediate
    const EXIT: u8 = 0x95;
    // r2 type, r3 access, r4 major, r5 minor
    let mut out = vec![
        instruction(LOAD, 0x12, 0, 0),
        instruction(MOVE, 0x23, 0, 0),
        instruction(AND, 0x02, 0, 0xffff),
        instruction(SHIFT, 0x03, 0, 16),
        instruction(LOAD, 0x14, 4, 0),
        instruction(LOAD, 0x15, 8, 0),
    ];
    let answer = |value| [instruction(SET, 0x00, 0, value), instruction(EXIT, 0, 0, 0)];
    for (kind, (major, minor), access) in table.narrow_first() {
        let mut tests = vec![(0x02, if kind == b'b' { 1 } else { 2 })];
        tests.extend([(0x04, major), (0x05, minor)].into_iter().filter(|(_, number)| *number >= 0));
        let mut answers = Vec::new();
        if !matches!(access, 0 | ALL) {
            // Every bit that is asked for has to be allowed.
            answers.extend([
                instruction(MOVE, 0x30, 0, 0),
                instruction(AND, 0x00, 0, i32::from(ALL & !access)),
                instruction(JUMP_IF_NOT, 0x00, 2, 0),
            ]);
            answers.extend(answer(1));
        }
        answers.extend(answer(i32::from(access == ALL)));
        for (index, (register, number)) in tests.iter().enumerate() {
            let left = tests.len() - index - 1 + answers.len();
            out.push(instruction(JUMP_IF_NOT, *register, left as i16, *number as i32));
        }
        out.extend(answers);
    }
    out.extend(answer(0));
    out.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(devices: &str) -> Table {
        Table::parse(Json::parse(devices.as_bytes()).unwrap().items()).unwrap()
    }

    /// What the program answers, by the instructions that it is made of.
    fn asked(table: &Table, kind: u8, major: i32, minor: i32, access: u8) -> bool {
        let program = compile(table);
        let context = [i32::from(access) << 16 | if kind == b'b' { 1 } else { 2 }, major, minor];
        let (mut registers, mut at) = ([0i32; 16], 0);
        loop {
            let code = &program[at * 8..at * 8 + 8];
            let (to, from) = (usize::from(code[1] & 15), usize::from(code[1] >> 4));
            let offset = i16::from_ne_bytes([code[2], code[3]]);
            let number = i32::from_ne_bytes([code[4], code[5], code[6], code[7]]);
            at += 1;
            match code[0] {
                0x61 => registers[to] = context[offset as usize / 4],
                0xbc => registers[to] = registers[from],
                0x54 => registers[to] &= number,
                0x74 => registers[to] >>= number,
                0x56 if registers[to] != number => at += offset as usize,
                0x56 => {}
                0xb4 => registers[to] = number,
                0x95 => return registers[0] == 1,
                code => panic!("{code:#x}"),
            }
        }
    }

    /// What a list on v1 is given: the file and the lines, in order.
    fn listed(devices: &str) -> Result<(String, String)> {
        static NUMBER: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("devices-{}-{number}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let read = |file: &str| fs::read_to_string(dir.join(file)).unwrap();
        ["devices.allow", "devices.deny"].iter().for_each(|file| fs::write(dir.join(file), "").unwrap());
        let result = v1(&dir, Json::parse(devices.as_bytes()).unwrap().items());
        let found = (read("devices.allow"), read("devices.deny"));
        fs::remove_dir_all(&dir).unwrap();
        result.map(|()| found)
    }

    const DENY_ALL: &str = r#"{"allow":false,"access":"rwm"}"#;
    const ALLOW_ALL: &str = r#"{"allow":true,"access":"rwm"}"#;

    #[test]
    fn rules_count_in_order_and_each_access_by_itself() {
        let kmsg = |allow: bool, access: &str| {
            format!(r#"{{"allow":{allow},"type":"c","major":1,"minor":11,"access":"{access}"}}"#)
        };
        let may = |devices: &str, access| asked(&table(devices), b'c', 1, 11, access);
        let list = |rules: &[&str]| format!("[{}]", rules.join(","));
        // What was all is taken back.
        let taken = list(&[ALLOW_ALL, DENY_ALL, &kmsg(true, "r")]);
        assert!(may(&taken, READ) && !may(&taken, WRITE) && !asked(&table(&taken), b'b', 8, 0, READ));
        // Part of an access that was allowed is refused, and so is what needs that part.
        let part = list(&[DENY_ALL, &kmsg(true, "rw"), &kmsg(false, "w")]);
        assert!(may(&part, READ) && !may(&part, WRITE) && !may(&part, READ | WRITE));
        // Two rules allow the halves of one access.
        let halves = list(&[DENY_ALL, &kmsg(true, "r"), &kmsg(true, "w")]);
        assert!(may(&halves, READ | WRITE));
        // A kind of all, a major and a minor number meet.
        let meet = r#"[{"allow":true,"type":"c","major":1,"access":"r"},{"allow":true,"type":"a","minor":11,"access":"w"},
                       {"allow":false,"type":"a","access":"w","major":9}]"#;
        assert!(may(meet, READ | WRITE) && !asked(&table(meet), b'c', 1, 12, WRITE));
        assert!(asked(&table(meet), b'b', 3, 11, WRITE) && !asked(&table(meet), b'b', 9, 11, WRITE));
        let wrong = Json::parse(br#"[{"allow":true,"type":"x"}]"#).unwrap();
        assert!(rules(wrong.items()).is_err());
    }

    #[test]
    fn what_every_container_has_is_there_and_the_rest_refused() {
        let table = table("[]");
        for (kind, major, minor, access, allowed) in [
            (b'c', 1, 3, READ | WRITE, true),
            (b'c', 136, 77, READ | WRITE, true),
            (b'c', 10, 200, READ | WRITE, true),
            (b'c', 10, 229, MKNOD, true),
            (b'b', 8, 0, MKNOD, true),
            (b'b', 8, 0, READ, false),
            (b'c', 10, 229, READ, false),
        ] {
            assert_eq!(asked(&table, kind, major, minor, access), allowed, "{} {major}:{minor}", kind as char);
        }
        assert!(!table.is_open() && super::tests::table(&format!("[{ALLOW_ALL}]")).is_open());
    }

    #[test]
    fn a_list_says_the_same_or_is_refused() {
        assert_eq!(listed(&format!("[{ALLOW_ALL}]")).unwrap(), ("a".into(), String::new()));
        let (allowed, denied) = listed("[]").unwrap();
        assert!(allowed.contains("c 1:3 rwm") && allowed.ends_with("b *:* mc *:* m") && denied == "a", "{allowed}");
        // All but one.
        let but = format!(r#"[{ALLOW_ALL},{{"allow":false,"type":"c","major":1,"minor":11,"access":"w"}}]"#);
        assert_eq!(listed(&but).unwrap(), ("a".into(), "c 1:11 w".into()));
        // Part of what was allowed, taken back: never allowed.
        let part = r#"[{"allow":true,"type":"c","major":1,"minor":11,"access":"rw"},{"allow":false,"type":"c","major":1,"minor":11,"access":"w"}]"#;
        assert!(listed(part).unwrap().0.contains("c 1:11 rm"));
        // The halves of what two wide rules allow.
        let halves = r#"[{"allow":true,"type":"c","major":1,"access":"r"},{"allow":true,"type":"c","major":1,"minor":11,"access":"w"}]"#;
        assert!(listed(halves).unwrap().0.contains("c 1:11 rwm"));
        let within = r#"[{"allow":true,"type":"b","major":8,"access":"r"},{"allow":false,"type":"b","major":8,"minor":1,"access":"r"}]"#;
        let error = listed(within).unwrap_err().to_string();
        assert!(error.contains("cgroup v1 cannot"), "{error}");
    }
}
