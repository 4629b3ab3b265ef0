//! From rules to instructions (linux/filter.h, linux/seccomp.h `struct seccomp_data`).

use crate::{
    error::{Error, Result},
    json::Json,
};

use super::{RET_ERRNO, RET_KILL_PROCESS};

const LOAD: u16 = 0x20; // A = word at k
const AND: u16 = 0x54; // A &= k
const GOTO: u16 = 0x05;
const IF_EQUAL: u16 = 0x15;
const IF_GREATER: u16 = 0x25;
const IF_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// One call and its answer.
pub struct Rule {
    pub number: u32,
    pub answer: Answer,
}

/// What a call gets if all tests hold.
#[derive(Clone, PartialEq)]
pub struct Answer {
    pub action: u32,
    pub tests: Vec<Test>,
}

/// The rules of one architecture.
pub struct Table {
    pub audit: u32,
    pub bit: u32,
    pub default: u32,
    pub rules: Vec<Rule>,
}

/// A comparison of one argument.
#[derive(Clone, PartialEq)]
pub struct Test {
    pub index: u32,
    operator: Operator,
    value: u64,
    mask: u64,
    wide: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    AtMost,
    AtLeast,
    Greater,
}

/// Reads an entry of `args`.
pub fn test(entry: &Json, wide: bool) -> Result<Test> {
    let index = entry
        .get("index")
        .u32()
        .filter(|&index| index < 6)
        .ok_or_else(|| Error::new("linux.seccomp: args: index must be 0 to 5"))?;
    let value = entry.get("value").u64().unwrap_or(0);
    let (operator, value, mask) = match entry.get("op").str().unwrap_or_default() {
        "SCMP_CMP_EQ" => (Operator::Equal, value, u64::MAX),
        "SCMP_CMP_NE" => (Operator::NotEqual, value, u64::MAX),
        "SCMP_CMP_LT" => (Operator::Less, value, u64::MAX),
        "SCMP_CMP_LE" => (Operator::AtMost, value, u64::MAX),
        "SCMP_CMP_GE" => (Operator::AtLeast, value, u64::MAX),
        "SCMP_CMP_GT" => (Operator::Greater, value, u64::MAX),
        "SCMP_CMP_MASKED_EQ" => (Operator::Equal, entry.get("valueTwo").u64().unwrap_or(0), value),
        op => return Err(Error::new(format!("linux.seccomp: args: unknown operator {op:?}"))),
    };
    Ok(Test { index, operator, value, mask, wide })
}

#[derive(Clone, Copy)]
struct Instruction {
    code: u16,
    yes: u8,
    no: u8,
    value: u32,
}

fn plain(code: u16, value: u32) -> Instruction {
    Instruction { code, yes: 0, no: 0, value }
}

fn jump(code: u16, value: u32, yes: u8, no: u8) -> Instruction {
    Instruction { code, yes, no, value }
}

/// Stands for "the next rule" until that is known.
const FAIL: u8 = u8::MAX;

/// The whole program.
pub fn program(tables: &[Table]) -> Vec<[u8; 8]> {
    let mut out = vec![plain(LOAD, ARCHITECTURE)];
    let mut audits: Vec<u32> = Vec::new();
    for table in tables {
        if !audits.contains(&table.audit) {
            audits.push(table.audit);
        }
    }
    for audit in audits {
        let section = section(tables.iter().filter(|table| table.audit == audit));
        // Jumps on a condition reach 255 instructions, plain ones everywhere.
        out.push(jump(IF_EQUAL, audit, 1, 0));
        out.push(plain(GOTO, section.len() as u32));
        out.extend(section);
    }
    // A convention that the profile does not speak of could be used to get around it.
    out.push(plain(RETURN, RET_KILL_PROCESS));
    out.into_iter().map(encode).collect()
}

fn encode(instruction: Instruction) -> [u8; 8] {
    let mut out = [0; 8];
    out[0..2].copy_from_slice(&instruction.code.to_ne_bytes());
    out[2] = instruction.yes;
    out[3] = instruction.no;
    out[4..8].copy_from_slice(&instruction.value.to_ne_bytes());
    out
}

fn section<'a>(tables: impl Iterator<Item = &'a Table>) -> Vec<Instruction> {
    const X32_BIT: u32 = 0x4000_0000;
    let mut out = vec![plain(LOAD, NUMBER)];
    let (mut low, mut high) = (vec![plain(RETURN, RET_KILL_PROCESS)], vec![plain(RETURN, RET_KILL_PROCESS)]);
    let mut divided = false;
    for table in tables {
        divided |= table.audit == 0xc000_003e;
        let always = |action: u32| Answer { action, tests: Vec::new() };
        let refuses = table.default & 0xffff_0000 == RET_ERRNO;
        let unknown = if refuses { RET_ERRNO | libc::ENOSYS as u32 } else { table.default };
        let code = tree(&segments(table, &always(table.default), &always(unknown)));
        if table.bit == 0 { low = code } else { high = code }
    }
    if divided {
        out.push(jump(IF_AT_LEAST, X32_BIT, 0, 1));
        out.push(plain(GOTO, low.len() as u32));
        out.extend(low);
        out.extend(high);
    } else {
        out.extend(low);
    }
    out
}

/// Numbers from `start` on that have the same answers, tried in order; the last has no test.
struct Segment<'a> {
    start: u32,
    answers: Vec<&'a Answer>,
}

/// `default` is for calls without a rule, `unknown` for those that come after the last with one.
fn segments<'a>(table: &'a Table, default: &'a Answer, unknown: &'a Answer) -> Vec<Segment<'a>> {
    let mut rules: Vec<(u32, &Answer)> =
        table.rules.iter().map(|rule| (rule.number | table.bit, &rule.answer)).collect();
    // Rules of one call stay in their order.
    rules.sort_by_key(|(number, _)| *number);
    let mut out: Vec<Segment<'_>> = Vec::new();
    let mut add = |start: u32, answers: Vec<&'a Answer>| {
        if out.last().is_none_or(|last| last.answers != answers) {
            out.push(Segment { start, answers });
        }
    };
    let mut next = table.bit;
    for group in rules.chunk_by(|one, other| one.0 == other.0) {
        let number = group[0].0;
        if next < number {
            add(next, vec![default]);
        }
        // Nothing after an answer without tests is ever reached.
        let answers = group.iter().map(|(_, answer)| *answer).chain([default]);
        let end = group.iter().position(|(_, answer)| answer.tests.is_empty()).unwrap_or(group.len());
        add(number, answers.take(end + 1).collect());
        next = number + 1;
    }
    if rules.is_empty() {
        add(next, vec![default]);
        next += 1;
    }
    add(next, vec![unknown]);
    out
}

/// Finds the segment of the number in A by halves.
fn tree(segments: &[Segment<'_>]) -> Vec<Instruction> {
    match segments {
        [] => Vec::new(),
        [segment] => leaf(&segment.answers),
        _ => {
            let (left, right) = segments.split_at(segments.len() / 2);
            let (low, high) = (tree(left), tree(right));
            let mut out = Vec::with_capacity(low.len() + high.len() + 2);
            match u8::try_from(low.len()) {
                Ok(distance) if distance < FAIL => out.push(jump(IF_AT_LEAST, right[0].start, distance, 0)),
                _ => {
                    out.push(jump(IF_AT_LEAST, right[0].start, 0, 1));
                    out.push(plain(GOTO, low.len() as u32));
                }
            }
            out.extend(low);
            out.extend(high);
            out
        }
    }
}

fn leaf(answers: &[&Answer]) -> Vec<Instruction> {
    let mut out = Vec::new();
    for answer in answers {
        let mut rule: Vec<Instruction> = answer.tests.iter().flat_map(instructions).collect();
        rule.push(plain(RETURN, answer.action));
        let length = rule.len();
        for (at, instruction) in rule.iter_mut().enumerate() {
            // At most six tests of six instructions: the distance fits.
            let distance = (length - at - 1) as u8;
            if instruction.yes == FAIL {
                instruction.yes = distance;
            }
            if instruction.no == FAIL {
                instruction.no = distance;
            }
        }
        out.extend(rule);
    }
    out
}

/// Compares an argument, high half first; goes on after itself if the test holds, to [`FAIL`] if not.
fn instructions(test: &Test) -> Vec<Instruction> {
    let low_at = ARGUMENTS + 8 * test.index;
    let (low, high) = (test.value as u32, (test.value >> 32) as u32);
    let (low_mask, high_mask) = (test.mask as u32, (test.mask >> 32) as u32);
    let mut lower = vec![plain(LOAD, low_at)];
    if low_mask != u32::MAX {
        lower.push(plain(AND, low_mask));
    }
    lower.push(match test.operator {
        Operator::Equal => jump(IF_EQUAL, low, 0, FAIL),
        Operator::NotEqual => jump(IF_EQUAL, low, FAIL, 0),
        Operator::AtLeast => jump(IF_AT_LEAST, low, 0, FAIL),
        Operator::Greater => jump(IF_GREATER, low, 0, FAIL),
        Operator::Less => jump(IF_AT_LEAST, low, FAIL, 0),
        Operator::AtMost => jump(IF_GREATER, low, FAIL, 0),
    });
    if !test.wide {
        return lower;
    }
    let rest = lower.len() as u8;
    let mut out = vec![plain(LOAD, low_at + 4)];
    if high_mask != u32::MAX {
        out.push(plain(AND, high_mask));
    }
    match test.operator {
        Operator::Equal => out.push(jump(IF_EQUAL, high, 0, FAIL)),
        Operator::NotEqual => out.push(jump(IF_EQUAL, high, 0, rest)),
        Operator::AtLeast | Operator::Greater => {
            out.extend([jump(IF_GREATER, high, rest + 1, 0), jump(IF_EQUAL, high, 0, FAIL)])
        }
        Operator::Less | Operator::AtMost => {
            out.extend([jump(IF_GREATER, high, FAIL, 0), jump(IF_EQUAL, high, 0, rest)])
        }
    }
    out.extend(lower);
    out
}

/// Runs a program as the kernel would, for tests.
#[cfg(test)]
pub fn run(program: &[[u8; 8]], audit: u32, number: u32, arguments: [u64; 2]) -> u32 {
    let word = |offset: u32| match offset {
        NUMBER => number,
        ARCHITECTURE => audit,
        offset => {
            let argument = arguments.get(((offset - ARGUMENTS) / 8) as usize).copied().unwrap_or(0);
            if (offset - ARGUMENTS).is_multiple_of(8) { argument as u32 } else { (argument >> 32) as u32 }
        }
    };
    let (mut at, mut accumulator) = (0usize, 0u32);
    loop {
        let instruction = program[at];
        let code = u16::from_ne_bytes([instruction[0], instruction[1]]);
        let value = u32::from_ne_bytes([instruction[4], instruction[5], instruction[6], instruction[7]]);
        at += 1;
        let condition = match code {
            LOAD => {
                accumulator = word(value);
                continue;
            }
            AND => {
                accumulator &= value;
                continue;
            }
            GOTO => {
                at += value as usize;
                continue;
            }
            RETURN => return value,
            IF_EQUAL => accumulator == value,
            IF_GREATER => accumulator > value,
            _ => accumulator >= value,
        };
        at += usize::from(if condition { instruction[2] } else { instruction[3] });
    }
}
