//! Generated names and uids, from a source that a test can seed.

use std::sync::Mutex;

/// The letters of generated suffixes: no vowels and nothing that reads like another letter, so that no word and no
/// mistake comes out (apimachinery `util/rand`).
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Length of a generated suffix (apiserver `storage/names`).
pub const SUFFIX_LENGTH: usize = 5;

/// Longest name that `generateName` may produce before its prefix is cut (apiserver `storage/names`).
const MAX_NAME_LENGTH: usize = 63;

/// A source of generated names.
pub trait Names: Send + Sync + 'static {
    /// Five characters to put behind a `generateName`.
    fn suffix(&self) -> String;
    /// A version 4 UUID in lower case.
    fn uid(&self) -> String;

    /// `prefix` and a suffix, the prefix cut so that the whole stays a DNS label.
    fn generate(&self, prefix: &str) -> String {
        let mut end = prefix.len().min(MAX_NAME_LENGTH - SUFFIX_LENGTH);
        while !prefix.is_char_boundary(end) {
            end -= 1;
        }
        format!("{}{}", &prefix[..end], self.suffix())
    }
}

/// Names drawn at random.
#[derive(Debug, Clone, Copy, Default)]
pub struct RandomNames;

impl Names for RandomNames {
    fn suffix(&self) -> String {
        suffix(fastrand::usize)
    }

    fn uid(&self) -> String {
        uid(fastrand::u128(..))
    }
}

/// The same names in the same order for the same seed.
#[derive(Debug)]
pub struct SeededNames {
    random: Mutex<fastrand::Rng>,
}

impl SeededNames {
    /// A source that starts at `seed`.
    pub fn new(seed: u64) -> Self {
        Self { random: Mutex::new(fastrand::Rng::with_seed(seed)) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, fastrand::Rng> {
        self.random.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Names for SeededNames {
    fn suffix(&self) -> String {
        let mut random = self.lock();
        suffix(|range| random.usize(range))
    }

    fn uid(&self) -> String {
        uid(self.lock().u128(..))
    }
}

fn suffix(mut draw: impl FnMut(std::ops::Range<usize>) -> usize) -> String {
    (0..SUFFIX_LENGTH).map(|_| char::from(ALPHABET[draw(0..ALPHABET.len())])).collect()
}

/// The bits as a version 4 UUID (RFC 9562 section 5.4).
fn uid(bits: u128) -> String {
    let bits = (bits & !(0xf << 76) & !(0b11 << 62)) | (4 << 76) | (0b10 << 62);
    let hex = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// A hash made safe for names as upstream's `rand.SafeEncodeString`: every character becomes one of the alphabet.
/// The pod template hash is written this way.
pub fn safe_encode(text: &str) -> String {
    text.bytes().map(|b| char::from(ALPHABET[usize::from(b) % ALPHABET.len()])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_names() {
        let (a, b) = (SeededNames::new(7), SeededNames::new(7));
        assert_eq!((a.suffix(), a.uid()), (b.suffix(), b.uid()));
        assert_ne!(a.suffix(), SeededNames::new(8).suffix());
    }

    #[test]
    fn uids_are_version_4() {
        for _ in 0..64 {
            let uid = RandomNames.uid();
            assert_eq!(uid.len(), 36);
            assert_eq!(uid.as_bytes()[14], b'4');
            assert!(b"89ab".contains(&uid.as_bytes()[19]), "{uid}");
        }
    }

    #[test]
    fn a_long_prefix_is_cut() {
        let name = SeededNames::new(1).generate(&"a".repeat(100));
        assert_eq!(name.len(), 63);
        assert!(SeededNames::new(1).generate("web-").starts_with("web-"));
    }
}
