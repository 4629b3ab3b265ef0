//! Which devices a group may use: a list on v1, an eBPF program on v2 (`linux.resources.devices`).
//!
//! Rules are taken in order, the last that matches decides, and what no rule speaks of is refused (the launcher
//! always lets in the standard devices of the specification, config-linux "Default Devices", and pseudo terminals).

use std::{fs, os::fd::AsRawFd, path::Path};

use super::{ControlFile, write};
use crate::{
    error::{Context, Error, Result},
    json::Json,
    sys,
};

/// One rule; −1 stands for every number.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    pub allow: bool,
    /// `a`, `b` or `c`
    pub kind: u8,
    pub major: i64,
    pub minor: i64,
    pub access: String,
}

/// null, zero, full, random, urandom, tty, console, ptmx and every pty.
const STANDARD: [(i64, i64); 8] = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2), (136, -1)];

/// The specification's rules followed by the standard devices.
pub fn rules(devices: &[Json]) -> Result<Vec<Rule>> {
    let mut out = Vec::new();
    for device in devices {
        let kind = match device.get("type").str().unwrap_or("a") {
            "" | "a" => b'a',
            "b" => b'b',
            "c" | "u" => b'c',
            kind => return Err(Error::new(format!("linux.resources.devices: unknown type {kind:?}"))),
        };
        let access = device.get("access").str().filter(|access| !access.is_empty()).unwrap_or("rwm").to_owned();
        if access.chars().any(|letter| !"rwm".contains(letter)) {
            return Err(Error::new(format!("linux.resources.devices: unknown access {access:?}")));
        }
        out.push(Rule {
            allow: device.get("allow").bool().unwrap_or(false),
            kind,
            major: device.get("major").i64().unwrap_or(-1),
            minor: device.get("minor").i64().unwrap_or(-1),
            access,
        });
    }
    for (major, minor) in STANDARD {
        let rule = Rule { allow: true, kind: b'c', major, minor, access: "rwm".into() };
        // Said already, and not taken back since.
        let said = out.iter().rev().take_while(|earlier| earlier.allow).any(|earlier| *earlier == rule);
        if !said {
            out.push(rule);
        }
    }
    Ok(out)
}

pub fn v1(dir: &Path, devices: &[Json]) -> Result<()> {
    let number = |value: i64| if value < 0 { "*".to_owned() } else { value.to_string() };
    let open_for_all =
        |rule: &Rule| rule.allow && rule.kind == b'a' && rule.major < 0 && rule.minor < 0 && rule.access.len() == 3;
    let rules = rules(devices)?;
    if rules.iter().any(open_for_all) && !rules.iter().any(|rule| !rule.allow && rule.kind != b'a') {
        return write(dir, "devices.allow", "a");
    }
    if devices.is_empty() {
        return Ok(());
    }
    write(dir, "devices.deny", "a")?;
    let (mut allow, mut deny) = (ControlFile::new(dir, "devices.allow"), ControlFile::new(dir, "devices.deny"));
    for rule in rules {
        if rule.kind == b'a' && !rule.allow && rule.major < 0 {
            continue;
        }
        let file = if rule.allow { &mut allow } else { &mut deny };
        // `a` is not a type the files take with numbers: it is both of them.
        let kinds: &[u8] = if rule.kind == b'a' { b"bc" } else { std::slice::from_ref(&rule.kind) };
        for &kind in kinds {
            file.write(&format!("{} {}:{} {}", kind as char, number(rule.major), number(rule.minor), rule.access))?;
        }
    }
    Ok(())
}

/// Attaches a program of type CGROUP_DEVICE to the group.
pub fn v2(dir: &Path, devices: &[Json]) -> Result<()> {
    if devices.is_empty() {
        return Ok(());
    }
    const BPF_PROG_LOAD: i32 = 5;
    const BPF_PROG_ATTACH: i32 = 8;
    const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
    const BPF_CGROUP_DEVICE: u32 = 6;
    const BPF_F_ALLOW_MULTI: u32 = 2;
    let program = compile(&rules(devices)?);
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

/// The context holds `access_type` (access << 16 | type), `major`, `minor`. The last rule decides, so rules are
/// tested from the last to the first and the first hit answers.
fn compile(rules: &[Rule]) -> Vec<u8> {
    const LOAD: u8 = 0x61; // r = *(u32 *)(r1 + offset)
    const MOVE: u8 = 0xbc; // w = w
    const AND: u8 = 0x54; // w &= immediate
    const SHIFT: u8 = 0x74; // w >>= immediate
    const JUMP_IF_NOT: u8 = 0x56; // if w != immediate goto
    const JUMP_IF_NOT_REGISTER: u8 = 0x5e;
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
    for rule in rules.iter().rev() {
        let mut tests: Vec<(u8, u8, i32)> = Vec::new();
        match rule.kind {
            b'b' => tests.push((JUMP_IF_NOT, 0x02, 1)),
            b'c' => tests.push((JUMP_IF_NOT, 0x02, 2)),
            _ => {}
        }
        if rule.major >= 0 {
            tests.push((JUMP_IF_NOT, 0x04, rule.major as i32));
        }
        if rule.minor >= 0 {
            tests.push((JUMP_IF_NOT, 0x05, rule.minor as i32));
        }
        let bits = [('m', 1), ('r', 2), ('w', 4)];
        let access = bits.iter().filter(|(letter, _)| rule.access.contains(*letter)).fold(0, |all, (_, bit)| all | bit);
        let partial = access != 7;
        // What is left after the tests: [w1' = access & mask; compare] set, exit
        let tail = 2 + if partial { 3 } else { 0 };
        let count = tests.len();
        for (index, (opcode, register, immediate)) in tests.into_iter().enumerate() {
            out.push(instruction(opcode, register, (count - index - 1 + tail) as i16, immediate));
        }
        if partial {
            // The rule speaks of this access only if it has every bit that is asked for.
            out.push(instruction(MOVE, 0x30, 0, 0));
            out.push(instruction(AND, 0x00, 0, access));
            out.push(instruction(JUMP_IF_NOT_REGISTER, 0x30, 2, 0));
        }
        out.push(instruction(SET, 0x00, 0, i32::from(rule.allow)));
        out.push(instruction(EXIT, 0, 0, 0));
        if count == 0 && !partial {
            // It speaks of everything; the kernel refuses instructions that are never reached.
            return out.concat();
        }
    }
    out.push(instruction(SET, 0x00, 0, 0));
    out.push(instruction(EXIT, 0, 0, 0));
    out.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_and_the_standard_devices_added() {
        let devices = Json::parse(
            br#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":10,"minor":229,"access":"rw"}]"#,
        )
        .unwrap();
        let rules = rules(devices.items()).unwrap();
        assert_eq!(rules[0], Rule { allow: false, kind: b'a', major: -1, minor: -1, access: "rwm".into() });
        assert_eq!(rules[1], Rule { allow: true, kind: b'c', major: 10, minor: 229, access: "rw".into() });
        assert_eq!(rules.len(), 2 + STANDARD.len());
        let wrong = Json::parse(br#"[{"allow":true,"type":"x"}]"#).unwrap();
        assert!(super::rules(wrong.items()).is_err());
    }

    #[test]
    fn the_program_is_whole_instructions_and_ends_in_refusal() {
        let rules = rules(&[]).unwrap();
        let program = compile(&rules);
        assert_eq!(program.len() % 8, 0);
        assert_eq!(
            &program[program.len() - 16..],
            &[instruction(0xb4, 0, 0, 0), instruction(0x95, 0, 0, 0)].concat()[..]
        );
    }
}
