//! Words and variables as a shell would read them (<https://docs.docker.com/reference/dockerfile/#environment-replacement>).

/// Reads words.
#[derive(Clone, Copy, Debug)]
pub struct Shell {
    escape: char,
    /// Quotes, escapes and variables stay as written.
    raw: bool,
}

/// What a variable stands for.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A value inside a value inside a value; deeper is no Dockerfile.
const MAX_DEPTH: usize = 32;
/// A value that grows beyond is an attack.
const MAX_VALUE: usize = 1 << 20;
/// Patterns are tried at every place of a value, so it must not be long.
const MAX_PATTERNED: usize = 2048;

impl Shell {
    pub fn new(escape: char) -> Shell {
        Shell { escape, raw: false }
    }

    /// Splits into words without changing them.
    pub fn raw(escape: char) -> Shell {
        Shell { escape, raw: true }
    }

    /// Replaces variables and takes quotes away; blanks do not part words.
    pub fn word(self, text: &str, lookup: Lookup<'_>) -> Result<String, String> {
        let mut reader = Reader::new(self, text, lookup);
        let out = reader.until(|_| false, 0).map_err(|error| format!("failed to process \"{text}\": {error}"))?;
        Ok(out.text)
    }

    /// Replaces variables in a text whose quotes are its own, as in a heredoc.
    pub fn text(self, text: &str, lookup: Lookup<'_>) -> Result<String, String> {
        let mut reader = Reader::new(self, text, lookup);
        let mut out = Read::default();
        while let Some(letter) = reader.peek() {
            reader.at += 1;
            match letter {
                '$' => {
                    let value = reader.dollar(0)?;
                    reader.add(&mut out, &value)?;
                }
                letter if letter == self.escape && matches!(reader.peek(), Some('$' | '\\' | '`')) => {
                    let next = reader.peek().unwrap_or(letter);
                    reader.at += 1;
                    reader.add(&mut out, &next.to_string())?;
                }
                letter => reader.add(&mut out, &letter.to_string())?,
            }
        }
        Ok(out.text)
    }

    /// The same in several words: blanks outside of quotes part them, also those that a variable brings.
    pub fn words(self, text: &str, lookup: Lookup<'_>) -> Result<Vec<String>, String> {
        let mut reader = Reader::new(self, text, lookup);
        reader.until(|_| false, 0).map_err(|error| format!("failed to process \"{text}\": {error}"))?;
        let (mut words, last, begun) = (reader.words, reader.word, reader.begun);
        if begun || !last.is_empty() {
            words.push(last);
        }
        Ok(words)
    }
}

struct Reader<'a> {
    shell: Shell,
    letters: Vec<char>,
    at: usize,
    lookup: Lookup<'a>,
    words: Vec<String>,
    word: String,
    /// The word has begun, though nothing is in it yet.
    begun: bool,
}

#[derive(Default)]
struct Read {
    text: String,
}

impl<'a> Reader<'a> {
    fn new(shell: Shell, text: &str, lookup: Lookup<'a>) -> Reader<'a> {
        Reader {
            shell,
            letters: text.chars().collect(),
            at: 0,
            lookup,
            words: Vec::new(),
            word: String::new(),
            begun: false,
        }
    }

    fn peek(&self) -> Option<char> {
        self.letters.get(self.at).copied()
    }

    /// Adds text that does not part words.
    fn add(&mut self, out: &mut Read, text: &str) -> Result<(), String> {
        if out.text.len() + text.len() > MAX_VALUE {
            return Err(format!("the value is longer than {MAX_VALUE} bytes"));
        }
        out.text.push_str(text);
        self.word.push_str(text);
        self.begun = true;
        Ok(())
    }

    /// Adds text whose blanks part words.
    fn add_parting(&mut self, out: &mut Read, text: &str) -> Result<(), String> {
        if out.text.len() + text.len() > MAX_VALUE {
            return Err(format!("the value is longer than {MAX_VALUE} bytes"));
        }
        out.text.push_str(text);
        for letter in text.chars() {
            if letter.is_whitespace() {
                if self.begun || !self.word.is_empty() {
                    self.words.push(std::mem::take(&mut self.word));
                    self.begun = false;
                }
            } else {
                self.word.push(letter);
            }
        }
        Ok(())
    }

    fn until(&mut self, stop: impl Fn(char) -> bool + Copy, depth: usize) -> Result<Read, String> {
        if depth > MAX_DEPTH {
            return Err("variables are nested too deeply".into());
        }
        let mut out = Read::default();
        while let Some(letter) = self.peek() {
            if stop(letter) {
                break;
            }
            self.at += 1;
            match letter {
                '\'' => self.single(&mut out)?,
                '"' => self.double(&mut out, depth)?,
                '$' if !self.shell.raw => {
                    let value = self.dollar(depth)?;
                    self.add_parting(&mut out, &value)?;
                }
                letter if letter == self.shell.escape => {
                    if self.shell.raw {
                        self.add(&mut out, &letter.to_string())?;
                    }
                    // At the end of the text it stands for nothing.
                    if let Some(next) = self.peek() {
                        self.at += 1;
                        self.add(&mut out, &next.to_string())?;
                    }
                }
                letter => self.add_parting(&mut out, &letter.to_string())?,
            }
        }
        Ok(out)
    }

    fn single(&mut self, out: &mut Read) -> Result<(), String> {
        self.begun = true;
        let quote = if self.shell.raw { "'" } else { "" };
        self.add(out, quote)?;
        loop {
            match self.peek() {
                None => return Err("unexpected end of statement while looking for matching single-quote".into()),
                Some('\'') => {
                    self.at += 1;
                    return self.add(out, quote);
                }
                Some(letter) => {
                    self.at += 1;
                    self.add(out, &letter.to_string())?;
                }
            }
        }
    }

    fn double(&mut self, out: &mut Read, depth: usize) -> Result<(), String> {
        self.begun = true;
        let quote = if self.shell.raw { "\"" } else { "" };
        self.add(out, quote)?;
        loop {
            let Some(letter) = self.peek() else {
                return Err("unexpected end of statement while looking for matching double-quote".into());
            };
            self.at += 1;
            match letter {
                '"' => return self.add(out, quote),
                '$' if !self.shell.raw => {
                    let value = self.dollar(depth)?;
                    self.add(out, &value)?;
                }
                letter if letter == self.shell.escape => {
                    let Some(next) = self.peek() else {
                        return Err("unexpected end of statement while looking for matching double-quote".into());
                    };
                    self.at += 1;
                    let special = next == '"' || next == '$' || next == self.shell.escape;
                    if self.shell.raw || !special {
                        self.add(out, &letter.to_string())?;
                    }
                    self.add(out, &next.to_string())?;
                }
                letter => self.add(out, &letter.to_string())?,
            }
        }
    }

    /// What stands behind a `$`.
    fn dollar(&mut self, depth: usize) -> Result<String, String> {
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".into());
            }
            return Ok((self.lookup)(&name).unwrap_or_default());
        }
        self.at += 1;
        if self.peek() == Some('}') {
            return Err("syntax error: empty variable name".into());
        }
        let name = self.name();
        if name.is_empty() {
            return Err("syntax error: bad substitution".into());
        }
        let value = (self.lookup)(&name);
        let Some(operator) = self.peek() else { return Err("syntax error: missing '}'".into()) };
        self.at += 1;
        match operator {
            '}' => Ok(value.unwrap_or_default()),
            ':' => {
                let modifier = self.peek().ok_or("syntax error: missing modifier in substitution")?;
                self.at += 1;
                let value = value.filter(|value| !value.is_empty());
                self.modified(&name, value, modifier, true, depth)
            }
            '-' | '+' | '?' => self.modified(&name, value, operator, false, depth),
            '#' | '%' => {
                let longest = self.peek() == Some(operator);
                self.at += usize::from(longest);
                let pattern = self.inner(depth)?;
                Ok(trim(&short(value, &pattern)?, &pattern, operator == '#', longest))
            }
            '/' => {
                let all = self.peek() == Some('/');
                self.at += usize::from(all);
                let pattern = self.part(|letter| letter == '/' || letter == '}', depth)?;
                let with = match self.peek() {
                    Some('/') => {
                        self.at += 1;
                        self.inner(depth)?
                    }
                    Some(_) => {
                        self.at += 1;
                        String::new()
                    }
                    None => return Err("syntax error: missing '}'".into()),
                };
                Ok(replace(&short(value, &pattern)?, &pattern, &with, all))
            }
            other => Err(format!("unsupported modifier ({other}) in substitution")),
        }
    }

    fn modified(
        &mut self,
        name: &str,
        value: Option<String>,
        modifier: char,
        colon: bool,
        depth: usize,
    ) -> Result<String, String> {
        let word = self.inner(depth)?;
        match modifier {
            '-' => Ok(value.unwrap_or(word)),
            '+' => Ok(value.map(|_| word).unwrap_or_default()),
            '?' => value.ok_or_else(|| match (word.is_empty(), colon) {
                (false, _) => format!("{name}: {word}"),
                (true, true) => format!("{name}: is not allowed to be unset or empty"),
                (true, false) => format!("{name}: is not allowed to be unset"),
            }),
            other => Err(format!("unsupported modifier ({other}) in substitution")),
        }
    }

    /// The word up to the closing brace, which is taken too.
    fn inner(&mut self, depth: usize) -> Result<String, String> {
        let out = self.part(|letter| letter == '}', depth)?;
        if self.peek().is_none() {
            return Err("syntax error: missing '}'".into());
        }
        self.at += 1;
        Ok(out)
    }

    /// A part of a substitution: read as all else is, but not a word of its own.
    fn part(&mut self, stop: impl Fn(char) -> bool + Copy, depth: usize) -> Result<String, String> {
        let kept = (std::mem::take(&mut self.words), std::mem::take(&mut self.word), self.begun);
        let out = self.until(stop, depth + 1);
        (self.words, self.word, self.begun) = kept;
        Ok(out?.text)
    }

    fn name(&mut self) -> String {
        let mut out = String::new();
        while let Some(letter) = self.peek() {
            let first = out.is_empty();
            if letter.is_ascii_alphabetic() || letter == '_' || !first && letter.is_ascii_digit() {
                out.push(letter);
                self.at += 1;
                continue;
            }
            // A digit or a sign alone is a parameter of a shell, which has no value here.
            if first && (letter.is_ascii_digit() || "@*#".contains(letter)) {
                out.push(letter);
                self.at += 1;
            }
            break;
        }
        out
    }
}

/// A value that a pattern may be tried on.
fn short(value: Option<String>, pattern: &str) -> Result<String, String> {
    let value = value.unwrap_or_default();
    if value.len() > MAX_PATTERNED || pattern.len() > MAX_PATTERNED {
        return Err(format!("a pattern cannot be applied to more than {MAX_PATTERNED} bytes"));
    }
    Ok(value)
}

/// Shell patterns over a whole text: `*`, `?`, and `\` before a letter that means itself.
fn fits(pattern: &[char], text: &[char]) -> bool {
    let (mut p, mut t, mut back) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                back = Some((p, t));
                p += 1;
                continue;
            }
            Some('?') => {
                (p, t) = (p + 1, t + 1);
                continue;
            }
            Some('\\') if pattern.get(p + 1) == Some(&text[t]) => {
                (p, t) = (p + 2, t + 1);
                continue;
            }
            Some(letter) if *letter == text[t] && *letter != '\\' => {
                (p, t) = (p + 1, t + 1);
                continue;
            }
            _ => {}
        }
        let Some((star, from)) = back else { return false };
        (p, t) = (star + 1, from + 1);
        back = Some((star, from + 1));
    }
    pattern[p.min(pattern.len())..].iter().all(|letter| *letter == '*')
}

/// `${name#pattern}` and its kin.
fn trim(value: &str, pattern: &str, prefix: bool, longest: bool) -> String {
    let (text, pattern): (Vec<char>, Vec<char>) = (value.chars().collect(), pattern.chars().collect());
    let cuts = 0..=text.len();
    let fitting = |cut: &usize| if prefix { fits(&pattern, &text[..*cut]) } else { fits(&pattern, &text[*cut..]) };
    // The longest prefix is cut last, the longest suffix first.
    let found = if longest == prefix { cuts.rev().find(fitting) } else { cuts.into_iter().find(fitting) };
    match found {
        Some(cut) if prefix => text[cut..].iter().collect(),
        Some(cut) => text[..cut].iter().collect(),
        None => value.to_owned(),
    }
}

/// `${name/pattern/with}`, the longest fit from the left.
fn replace(value: &str, pattern: &str, with: &str, all: bool) -> String {
    let (text, pattern): (Vec<char>, Vec<char>) = (value.chars().collect(), pattern.chars().collect());
    let (mut out, mut at, mut done) = (String::new(), 0, false);
    while at < text.len() {
        let found =
            if done && !all { None } else { (at + 1..=text.len()).rev().find(|end| fits(&pattern, &text[at..*end])) };
        match found {
            Some(end) => {
                out.push_str(with);
                (at, done) = (end, true);
            }
            None => {
                out.push(text[at]);
                at += 1;
            }
        }
        if out.len() > MAX_VALUE {
            break;
        }
    }
    out
}
