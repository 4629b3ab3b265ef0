//! Names of containers: which are allowed, and one for a container that was given none.

use super::super::http::Problem;

const ADJECTIVES: [&str; 40] = [
    "able", "bold", "brave", "bright", "brisk", "calm", "clever", "cool", "crisp", "daring", "eager", "early", "fair",
    "fleet", "fond", "free", "gentle", "glad", "grand", "happy", "hardy", "honest", "jolly", "keen", "kind", "lively",
    "lucid", "merry", "mighty", "nimble", "noble", "patient", "proud", "quiet", "rapid", "sharp", "steady", "swift",
    "warm", "wise",
];
const NOUNS: [&str; 40] = [
    "anchor", "bay", "beacon", "boat", "bow", "breeze", "buoy", "canoe", "cove", "crew", "current", "deck", "delta",
    "dock", "ferry", "fjord", "gull", "harbor", "heron", "hull", "island", "jetty", "keel", "lagoon", "mast", "oar",
    "otter", "paddle", "pier", "pilot", "reef", "river", "rudder", "sail", "sculler", "shore", "skiff", "stern",
    "tide", "wave",
];

/// `[a-zA-Z0-9][a-zA-Z0-9_.-]+`, as dockerd's `RestrictedNameChars`.
pub fn check(name: &str) -> Result<(), Problem> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    let bytes = name.as_bytes();
    if bytes.len() >= 2 && bytes[0].is_ascii_alphanumeric() && bytes.iter().all(|&byte| good(byte)) {
        Ok(())
    } else {
        Err(Problem::bad(format!("Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")))
    }
}

/// Two words that nobody chose.
pub fn random(attempt: u32) -> String {
    let pick = |words: &[&'static str]| words[fastrand::usize(..words.len())];
    let name = format!("{}_{}", pick(&ADJECTIVES), pick(&NOUNS));
    if attempt == 0 { name } else { format!("{name}{}", fastrand::u32(..1 << (attempt.min(28) + 3))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for (name, good) in
            [("web", true), ("a_b.c-1", true), ("a", false), ("-a", false), ("a/b", false), ("ä1", false)]
        {
            assert_eq!(check(name).is_ok(), good, "{name}");
        }
        assert!(check(&random(0)).is_ok() && check(&random(3)).is_ok());
    }
}
