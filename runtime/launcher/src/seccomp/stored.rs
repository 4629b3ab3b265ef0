//! A filter that was compiled before, as part of `linux.seccomp`.
//!
//! ```text
//! {"defaultAction": …, "flags": […], "x-coracle.program": "the instructions of eight bytes, in base64 (RFC 4648) without padding"}
//! ```
//!
//! A property of our own, which other runtimes pass over (OCI config.md "Extensibility"): whoever makes many containers by
//! one profile compiles it once. The kernel judges the instructions as it does those that are compiled here.

use crate::{
    error::{Error, Result},
    json::{Json, object},
};

use super::{MAX_INSTRUCTIONS, compile, listener, says_nothing};

/// The property's name.
const PROGRAM: &str = "x-coracle.program";
const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// A configuration with its rules compiled; none for one whose rules ask somebody else, of whom they say who it is.
pub fn store(seccomp: &Json) -> Result<Option<Json>> {
    if says_nothing(seccomp) || listener(seccomp)?.is_some() {
        return Ok(None);
    }
    let program = compile(seccomp)?;
    check(&program)?;
    Ok(Some(with_program(seccomp, &program)))
}

pub(super) fn with_program(seccomp: &Json, program: &[[u8; 8]]) -> Json {
    object([
        ("defaultAction", seccomp.get("defaultAction").clone()),
        ("flags", seccomp.get("flags").clone()),
        (PROGRAM, encode(program.as_flattened()).into()),
    ])
}

pub(super) fn is_stored(seccomp: &Json) -> bool {
    !seccomp.get(PROGRAM).is_null()
}

/// The program of a configuration that has one.
pub fn load(seccomp: &Json) -> Option<Result<Vec<[u8; 8]>>> {
    let text = seccomp.get(PROGRAM).str()?;
    let bytes = decode(text).unwrap_or_default();
    let (program, rest) = bytes.as_chunks::<8>();
    if program.is_empty() || !rest.is_empty() {
        return Some(Err(Error::new(format!("linux.seccomp.{PROGRAM} is no program"))));
    }
    Some(check(program).map(|()| program.to_vec()))
}

/// Whether the kernel takes as many.
pub(super) fn check(program: &[[u8; 8]]) -> Result<()> {
    match program.len() {
        ..=MAX_INSTRUCTIONS => Ok(()),
        _ => Err(Error::new(format!("linux.seccomp: the filter has more than {MAX_INSTRUCTIONS} instructions"))),
    }
}

fn encode(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let bits = three.iter().enumerate().fold(0, |bits, (at, byte)| bits | u32::from(*byte) << (16 - 8 * at));
        out.extend((0..=three.len()).map(|at| char::from(LETTERS[(bits >> (18 - 6 * at) & 63) as usize])));
    }
    out
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 2);
    let (mut bits, mut held) = (0_u32, 0);
    for letter in text.bytes() {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            // The lowest eight of what is left; what was taken before is above them.
            out.push((bits >> held & 0xff) as u8);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::Filter;

    fn parsed(text: &str) -> Json {
        Json::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_stored_filter_is_the_one_that_was_compiled() {
        let rules = parsed(
            r#"{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86"],"flags":["SECCOMP_FILTER_FLAG_LOG"],
                "syscalls":[{"names":["read","write"],"action":"SCMP_ACT_ALLOW"},
                {"names":["socket"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":40,"op":"SCMP_CMP_NE"}]}]}"#,
        );
        let stored = store(&rules).unwrap().unwrap();
        // By way of a file, as it comes to the launcher.
        let stored = parsed(&stored.to_string());
        assert!(stored.get("syscalls").is_null());
        let (direct, stored) = (Filter::of(&rules).unwrap().unwrap(), Filter::of(&stored).unwrap().unwrap());
        let kept = parsed(&direct.keep(&rules).to_string());
        assert!(kept.get("syscalls").is_null() && Filter::of(&kept).unwrap().unwrap().program == direct.program);
        assert!(direct.program.len() > 10 && direct.program == stored.program);
        assert_eq!((direct.flags, stored.flags), (2, 2));
    }

    #[test]
    fn rules_that_ask_somebody_stay_rules() {
        let asks = r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/x","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_NOTIFY"}]}"#;
        assert_eq!(store(&parsed(asks)).unwrap(), None);
        assert_eq!(Filter::of(&parsed(asks)).unwrap().unwrap().keep(&parsed(asks)), parsed(asks));
        assert_eq!(store(&Json::Null).unwrap(), None);
        assert!(store(&parsed(r#"{"defaultAction":"odd"}"#)).is_err());
    }

    #[test]
    fn what_is_no_program_is_refused() {
        let of = |text: &str| Filter::of(&object([(PROGRAM, text.into())])).err().map(|error| error.to_string());
        for text in ["", "AAAA", "not base64", &encode(&[0; 12])] {
            assert!(of(text).unwrap().contains("is no program"), "{text:?}");
        }
        assert!(of(&encode(&[0; 8 * (MAX_INSTRUCTIONS + 1)])).unwrap().contains("more than 4096"));
        assert_eq!(of(&encode(&[0; 8 * MAX_INSTRUCTIONS])), None);
    }

    #[test]
    fn letters_are_those_of_the_standard() {
        for (bytes, text) in [(&b""[..], ""), (b"f", "Zg"), (b"fo", "Zm8"), (b"foo", "Zm9v"), (b"foobar", "Zm9vYmFy")] {
            assert_eq!((encode(bytes).as_str(), decode(text).unwrap().as_slice()), (text, bytes));
        }
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(&encode(&all)), Some(all));
    }
}
