//! What images are made for, in the words of Go, and which of them a machine takes (containerd's `platforms`:
//! `database.go`, `compare.go`).

use serde::{Deserialize, Deserializer, Serialize};

use crate::error::{Error, Result};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    #[serde(default, deserialize_with = "null_default")]
    pub architecture: String,
    #[serde(default, deserialize_with = "null_default")]
    pub os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

fn null_default<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<String, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.unwrap_or_default())
}

const SYSTEMS: &[&str] = &[
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "hurd",
    "illumos",
    "ios",
    "js",
    "linux",
    "nacl",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "windows",
    "zos",
];
const ARCHITECTURES: &[&str] = &[
    "386",
    "amd64",
    "amd64p32",
    "arm",
    "arm64",
    "arm64be",
    "armbe",
    "loong64",
    "mips",
    "mips64",
    "mips64le",
    "mips64p32",
    "mips64p32le",
    "mipsle",
    "ppc",
    "ppc64",
    "ppc64le",
    "riscv",
    "riscv64",
    "s390",
    "s390x",
    "sparc",
    "sparc64",
    "wasm",
];

/// `os`, `os/architecture`, `os/architecture/variant` or an architecture alone, as `--platform` takes it.
impl std::str::FromStr for Platform {
    type Err = Error;

    fn from_str(text: &str) -> Result<Platform> {
        let unknown = || Error::invalid(format!("{text:?}: unknown operating system or architecture"));
        let words: Vec<&str> = text.split('/').collect();
        let word = |word: &str| {
            !word.is_empty()
                && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
        };
        if words.len() > 3 || !words.iter().all(|part| word(part)) {
            return Err(unknown());
        }
        let own = Platform::own();
        let platform = |os: &str, architecture: &str, variant: Option<&str>| Platform {
            architecture: architecture.into(),
            os: os.into(),
            variant: variant.map(str::to_owned),
        };
        let parsed = match words[..] {
            [word] => {
                let system = platform(word, &own.architecture, None).normal();
                let architecture = platform(&own.os, word, None).normal();
                if SYSTEMS.contains(&system.os.as_str()) {
                    system
                } else if ARCHITECTURES.contains(&architecture.architecture.as_str()) {
                    architecture
                } else {
                    return Err(unknown());
                }
            }
            [os, architecture] => platform(os, architecture, None).normal(),
            [os, architecture, variant] => platform(os, architecture, Some(variant)).normal(),
            _ => return Err(unknown()),
        };
        // 64 bits have but one, and everybody shows it.
        Ok(match (words.get(2), parsed.architecture.as_str()) {
            (Some(&"v8"), "arm64") => Platform { variant: Some("v8".into()), ..parsed },
            _ => parsed,
        })
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

impl Platform {
    /// What runs on this machine, in the names of Go.
    pub fn own() -> Platform {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            other => other,
        };
        Platform { architecture: architecture.into(), os: "linux".into(), variant: None }
    }

    /// The same, with how much of its architecture this machine's processor has: for choosing among images.
    pub fn host() -> Platform {
        Platform { variant: level().map(|level| format!("v{level}")), ..Platform::own() }
    }

    /// One name for what has several.
    fn normal(&self) -> Platform {
        let os = match self.os.to_lowercase().as_str() {
            "" => "linux".to_owned(),
            "macos" => "darwin".to_owned(),
            other => other.to_owned(),
        };
        let variant = self.variant.as_deref().unwrap_or_default().to_lowercase();
        let (architecture, variant) = match (self.architecture.to_lowercase().as_str(), variant.as_str()) {
            ("i386" | "386", _) => ("386".to_owned(), ""),
            ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64".to_owned(), ""),
            ("x86_64" | "x86-64" | "amd64", variant) => ("amd64".to_owned(), variant),
            ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64".to_owned(), ""),
            ("aarch64" | "arm64", "9" | "v9" | "v9.0") => ("arm64".to_owned(), "v9"),
            ("aarch64" | "arm64", variant) => ("arm64".to_owned(), variant),
            ("armhf", _) | ("arm", "" | "7") => ("arm".to_owned(), "v7"),
            ("armel", _) | ("arm", "6") => ("arm".to_owned(), "v6"),
            ("arm", "5") => ("arm".to_owned(), "v5"),
            ("arm", "8") => ("arm".to_owned(), "v8"),
            (other, variant) => (other.to_owned(), variant),
        };
        Platform { architecture, os, variant: Some(variant.to_owned()).filter(|variant| !variant.is_empty()) }
    }

    /// What runs where this does, the nearest first.
    fn takes(&self) -> Vec<Platform> {
        let normal = self.normal();
        let of = |architecture: &str, variant: Option<String>| Platform {
            architecture: architecture.into(),
            os: normal.os.clone(),
            variant,
        };
        let variant = normal.variant.as_deref().unwrap_or_default().trim_start_matches('v');
        let mut out = vec![normal.clone()];
        let arm = |from: u32| (5..=from).rev().map(|version| of("arm", Some(format!("v{version}"))));
        match normal.architecture.as_str() {
            "amd64" => {
                let level = variant.parse::<u32>().unwrap_or(1).min(9);
                out.extend((1..level).rev().map(|level| of("amd64", Some(format!("v{level}")))));
                out.push(of("386", None));
            }
            "arm" => out.extend(arm(variant.parse::<u32>().unwrap_or(7).min(9) - 1)),
            "arm64" => {
                let (major, minor) = variant.split_once('.').unwrap_or((variant, "0"));
                let minor = minor.parse::<u32>().unwrap_or(0).min(9);
                // Each 9.n has all of 8.(n + 5) (Arm Architecture Reference Manual).
                let eight = if major == "9" { minor + 5 } else { minor };
                if major == "9" {
                    out.extend((0..minor).rev().map(|minor| of("arm64", Some(format!("v9.{minor}")))));
                }
                let top = if major == "9" { eight + 1 } else { eight };
                out.extend((0..top).rev().map(|minor| of("arm64", Some(format!("v8.{minor}")))));
                out.push(of("arm64", None));
                out.extend(arm(8));
            }
            _ => {}
        }
        out.iter().map(Platform::normal).collect()
    }

    /// How near an image for this platform is to `wanted`, 0 for the very same; none if it does not run there.
    pub fn distance(&self, wanted: &Platform) -> Option<usize> {
        let own = self.normal();
        wanted.takes().iter().position(|taken| *taken == own)
    }

    /// Whether an image whose configuration says this is one for `wanted`. Many say nothing of a variant (moby's
    /// `OnlyPlatformWithFallback`).
    pub fn fits(&self, wanted: &Platform) -> bool {
        let same = || {
            let (own, wanted) = (self.normal(), wanted.normal());
            own.os == wanted.os && own.architecture == wanted.architecture
        };
        self.distance(wanted).is_some() || self.variant.as_deref().unwrap_or_default().is_empty() && same()
    }

    /// Nothing is for it: attestations are kept beside images under this name.
    pub fn is_unknown(&self) -> bool {
        self.os == "unknown" || self.architecture == "unknown"
    }
}

/// The processor's level in the x86-64 psABI ("Micro-Architecture Levels"), if it is more than the first.
#[cfg(target_arch = "x86_64")]
fn level() -> Option<u32> {
    macro_rules! has {
        ($($feature:tt),*) => { $(std::is_x86_feature_detected!($feature))&&* };
    }
    let second = has!("sse3", "ssse3", "sse4.1", "sse4.2", "popcnt", "cmpxchg16b");
    let third = second && has!("avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "lzcnt", "movbe", "xsave");
    let fourth = third && has!("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl");
    match (second, third, fourth) {
        (_, _, true) => Some(4),
        (_, true, _) => Some(3),
        (true, _, _) => Some(2),
        _ => None,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn level() -> Option<u32> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn words_are_read() {
        for (text, shown) in [
            ("linux/arm64/v8", "linux/arm64/v8"),
            ("arm64", "linux/arm64"),
            ("linux", &Platform::own().to_string()),
            ("armhf", "linux/arm/v7"),
            ("i386", "linux/386"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/armel", "linux/arm/v6"),
            ("Linux/X86_64/v1", "linux/amd64"),
            ("macos/aarch64", "darwin/arm64"),
        ] {
            assert_eq!(platform(text).to_string(), shown, "{text}");
        }
        for bad in ["", "/", "linux/", "a/b/c/d", "nonsense", "linux/a b"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }

    #[test]
    fn machines_take_what_they_run_the_nearest_first() {
        let of = |os: &str, architecture: &str, variant: Option<&str>| Platform {
            os: os.into(),
            architecture: architecture.into(),
            variant: variant.map(str::to_owned),
        };
        let v3 = of("linux", "amd64", Some("v3"));
        let distances = [Some("v3"), Some("v2"), Some("v1"), None, Some("v4")]
            .map(|variant| of("linux", "amd64", variant).distance(&v3));
        assert_eq!(distances, [Some(0), Some(1), Some(2), Some(2), None]);
        assert_eq!(of("linux", "386", None).distance(&v3), Some(3));
        for (own, wanted, takes) in [
            (of("linux", "amd64", Some("v1")), "linux/amd64", true),
            (of("linux", "amd64", Some("v2")), "linux/amd64", false),
            (of("linux", "arm", Some("v6")), "linux/arm/v7", true),
            (of("linux", "arm", Some("v7")), "linux/arm", true),
            (of("linux", "arm", Some("v7")), "linux/arm/v6", false),
            (of("linux", "arm", Some("v7")), "linux/arm64", true),
            (of("linux", "arm64", Some("v8")), "linux/arm64", true),
            (of("linux", "arm64", Some("v8")), "linux/arm64/v9", true),
            (of("linux", "arm64", Some("v9")), "linux/arm64", false),
            (of("windows", "amd64", None), "linux/amd64", false),
            (of("unknown", "unknown", None), "linux/amd64", false),
        ] {
            assert_eq!(own.distance(&platform(wanted)).is_some(), takes, "{own} on {wanted}");
        }
        // A configuration that leaves the variant out.
        assert!(of("linux", "arm", None).fits(&platform("linux/arm/v6")));
        assert!(!of("linux", "amd64", None).fits(&platform("linux/arm64")));
        assert!(Platform::own().fits(&Platform::host()));
    }
}
