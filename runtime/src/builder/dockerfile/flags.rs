//! `--name=value` between a keyword and its arguments.

/// Takes the flags off the front of an instruction's arguments.
pub fn split(rest: &str) -> (Vec<String>, String) {
    let letters: Vec<char> = rest.chars().collect();
    let (mut flags, mut at) = (Vec::new(), 0);
    loop {
        while letters.get(at).is_some_and(|letter| letter.is_whitespace()) {
            at += 1;
        }
        if letters.get(at) != Some(&'-') || letters.get(at + 1) != Some(&'-') {
            break;
        }
        let word = word(&letters, &mut at);
        // Two dashes alone end the flags.
        if word == "--" {
            while letters.get(at).is_some_and(|letter| letter.is_whitespace()) {
                at += 1;
            }
            break;
        }
        flags.push(word);
    }
    (flags, letters[at.min(letters.len())..].iter().collect())
}

fn word(letters: &[char], at: &mut usize) -> String {
    let (mut out, mut quote) = (String::new(), None);
    while let Some(&letter) = letters.get(*at) {
        *at += 1;
        match (letter, quote) {
            (letter, None) if letter.is_whitespace() => break,
            ('"' | '\'', None) => quote = Some(letter),
            (letter, Some(open)) if letter == open => quote = None,
            ('\\', _) => {
                if let Some(&next) = letters.get(*at) {
                    out.push(next);
                    *at += 1;
                }
            }
            (letter, _) => out.push(letter),
        }
    }
    out
}

/// The flags of one instruction, each taken once by the name it is known by.
pub struct Flags(Vec<(String, Option<String>)>);

impl Flags {
    /// Judges the flags against those that the instruction has; `repeated` may come more than once.
    pub fn read(flags: &[String], known: &[&str], repeated: &[&str], switches: &[&str]) -> Result<Flags, String> {
        let mut out: Vec<(String, Option<String>)> = Vec::new();
        for flag in flags {
            let body = flag.trim_start_matches("--");
            let (name, value) = match body.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (body, None),
            };
            let switch = switches.contains(&name);
            if !switch && !known.contains(&name) && !repeated.contains(&name) {
                return Err(format!("unknown flag: {name}"));
            }
            if !repeated.contains(&name) && out.iter().any(|(other, _)| other == name) {
                return Err(format!("duplicate flag specified: {name}"));
            }
            match value.as_deref() {
                None if !switch => return Err(format!("missing a value on flag: {name}")),
                Some(word) if switch && !matches!(word.to_lowercase().as_str(), "true" | "false") => {
                    return Err(format!("expecting boolean value for flag {name}, not: {word}"));
                }
                _ => {}
            }
            out.push((name.to_owned(), value));
        }
        Ok(Flags(out))
    }

    pub fn text(&self, name: &str) -> Option<String> {
        self.0.iter().find(|(own, _)| own == name).and_then(|(_, value)| value.clone())
    }

    pub fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(own, _)| own == name).filter_map(|(_, value)| value.clone()).collect()
    }

    pub fn switch(&self, name: &str) -> bool {
        self.0
            .iter()
            .any(|(own, value)| own == name && value.as_deref().is_none_or(|value| value.eq_ignore_ascii_case("true")))
    }
}
