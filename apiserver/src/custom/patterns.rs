//! Patterns in Go's dialect of regular expressions (RE2), as schemas and rules write them: read as Go's `regexp/syntax` reads
//! them, in its words where they are none, and written anew for the library that matches here.

use regex::{Regex, RegexBuilder};

/// The most memory that one compiled pattern may take.
const SIZE_LIMIT: usize = 1 << 20;

/// Most repetitions, also of what is repeated itself.
const MAX_REPEAT: u64 = 1000;
/// Deepest nesting of groups.
const MAX_NESTING: usize = 1000;

/// Compiles a pattern.
///
/// # Errors
/// What is wrong with it.
pub fn compile(pattern: &str) -> Result<Regex, String> {
    let translated = translate(pattern)?;
    RegexBuilder::new(&translated).size_limit(SIZE_LIMIT).build().map_err(|error| error.to_string())
}

/// From Go's dialect.
///
/// # Errors
/// What is wrong with it, as Go tells.
fn translate(pattern: &str) -> Result<String, String> {
    let mut reader = Reader { all: pattern, rest: pattern, out: String::with_capacity(pattern.len() + 8), flags: "" };
    reader.read().map_err(|(what, part)| format!("error parsing regexp: {what}: `{part}`"))?;
    Ok(reader.out)
}

/// What is wrong, and the part of the pattern that is.
type Wrong<'p> = (&'static str, &'p str);

/// Classes that are named within brackets.
const NAMED: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "word",
    "xdigit",
];

const ESCAPE: &str = "invalid escape sequence";
const RANGE: &str = "invalid character class range";
const REPEAT_COUNT: &str = "invalid repeat count";

struct Reader<'p> {
    all: &'p str,
    rest: &'p str,
    out: String,
    /// Flags that were set; a repetition behind them is of what stands before them.
    flags: &'p str,
}

/// What is open: whether something stands before that can be repeated, and how often what is in it is at most.
#[derive(Clone, Copy, Default)]
struct Level {
    has_atom: bool,
    /// Of the last atom, and of all in here.
    last: u64,
    most: u64,
}

impl<'p> Reader<'p> {
    fn next(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = self.rest.get(c.len_utf8()..).unwrap_or_default();
        Some(c)
    }

    /// What has been read since there was so much left.
    fn since(&self, before: &'p str) -> &'p str {
        before.get(..before.len() - self.rest.len()).unwrap_or(before)
    }

    fn read(&mut self) -> Result<(), Wrong<'p>> {
        let mut levels = vec![Level { most: 1, ..Level::default() }];
        let mut repeated: Option<&'p str> = None;
        while let Some(c) = self.rest.chars().next() {
            let before = self.rest;
            let level = levels.last_mut().ok_or(("unexpected )", self.all))?;
            let last_repeated = repeated.take();
            let repeats = matches!(c, '*' | '+' | '?') || c == '{' && counts(before).is_some();
            if !repeats {
                self.out.push_str(std::mem::take(&mut self.flags));
            }
            match c {
                '*' | '+' | '?' => {
                    self.next();
                    self.repeat(before, last_repeated, level, None)?;
                    repeated = Some(before);
                    continue;
                }
                '{' if let Some((counts, length)) = counts(before) => {
                    self.rest = before.get(length..).unwrap_or_default();
                    self.repeat(before, last_repeated, level, Some(counts))?;
                    repeated = Some(before);
                    continue;
                }
                '(' => {
                    if self.group()? {
                        levels.push(Level { most: 1, ..Level::default() });
                    }
                    if levels.len() > MAX_NESTING {
                        return Err(("expression nests too deeply", self.all));
                    }
                    continue;
                }
                ')' => {
                    self.next();
                    self.out.push(')');
                    let inner = level.most;
                    levels.pop();
                    let outer = levels.last_mut().ok_or(("unexpected )", self.all))?;
                    outer.atom(inner);
                    continue;
                }
                '|' => {
                    self.next();
                    self.out.push('|');
                    level.has_atom = false;
                    continue;
                }
                '[' => self.class()?,
                '\\' => {
                    if !self.escaped()? {
                        continue;
                    }
                }
                // Not a repetition.
                '{' | '}' | ']' => {
                    self.next();
                    self.out.extend(['\\', c]);
                }
                c => {
                    self.next();
                    self.out.push(c);
                }
            }
            level.atom(1);
        }
        if levels.len() > 1 { Err(("missing closing )", self.all)) } else { Ok(()) }
    }

    fn repeat(
        &mut self,
        before: &'p str,
        last: Option<&'p str>,
        level: &mut Level,
        counts: Option<(u64, Option<u64>)>,
    ) -> Result<(), Wrong<'p>> {
        if let Some((least, most)) = counts
            && (least > MAX_REPEAT || most.is_some_and(|most| most > MAX_REPEAT || most < least))
        {
            return Err((REPEAT_COUNT, self.since(before)));
        }
        if self.rest.starts_with('?') {
            self.next();
        }
        if let Some(last) = last {
            return Err(("invalid nested repetition operator", self.since(last)));
        }
        if !level.has_atom {
            return Err(("missing argument to repetition operator", self.since(before)));
        }
        if let Some((least, most)) = counts {
            let times = most.unwrap_or(least);
            let all = level.last.saturating_mul(times.max(1));
            if times >= 2 && all > MAX_REPEAT {
                return Err((REPEAT_COUNT, self.since(before)));
            }
            level.atom(all);
        }
        self.out.push_str(self.since(before));
        Ok(())
    }

    /// Opens a group, or sets flags; whether it is a group.
    fn group(&mut self) -> Result<bool, Wrong<'p>> {
        let before = self.rest;
        let Some(inside) = before.strip_prefix("(?") else {
            self.next();
            self.out.push('(');
            return Ok(true);
        };
        let named = inside.strip_prefix("P<").filter(|_| before.len() > 4);
        if let Some(name) = named.or_else(|| inside.strip_prefix('<').filter(|_| before.len() > 3)) {
            const NAME: &str = "invalid named capture";
            let end = name.find('>').ok_or((NAME, before))?;
            self.rest = name.get(end + 1..).unwrap_or_default();
            let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if end == 0 || !name.chars().take_while(|c| *c != '>').all(is_name) {
                return Err((NAME, self.since(before)));
            }
            // Nothing asks for groups by their names.
            self.out.push('(');
            return Ok(true);
        }
        self.rest = inside;
        let (mut minus, mut flag) = (false, false);
        loop {
            match self.next() {
                Some('i' | 'm' | 's' | 'U') => flag = true,
                Some('-') if !minus => (minus, flag) = (true, false),
                Some(end @ (':' | ')')) if flag || !minus => {
                    match end {
                        ':' => self.out.push_str(self.since(before)),
                        _ => self.flags = self.since(before),
                    }
                    return Ok(end == ':');
                }
                _ => return Err(("invalid or unsupported Perl syntax", self.since(before))),
            }
        }
    }

    /// What stands behind a backslash outside of brackets; whether it is something that can be repeated.
    fn escaped(&mut self) -> Result<bool, Wrong<'p>> {
        let before = self.rest;
        if let Some(quoted) = before.strip_prefix(r"\Q") {
            let (text, rest) = quoted.split_once(r"\E").unwrap_or((quoted, ""));
            self.out.push_str(&regex::escape(text));
            self.rest = rest;
            return Ok(!text.is_empty());
        }
        match before.chars().nth(1) {
            Some('A' | 'b' | 'B' | 'z') => {
                self.next();
                self.next();
                self.out.push_str(self.since(before));
            }
            _ if self.known_class(false)? => {}
            _ => {
                let c = self.character()?;
                self.out.push_str(&written(c));
            }
        }
        Ok(true)
    }

    /// Classes that have a letter or a name; those of letters are of ASCII.
    fn known_class(&mut self, inside: bool) -> Result<bool, Wrong<'p>> {
        let before = self.rest;
        let class = match before.chars().nth(1) {
            Some('d') => "0-9",
            Some('D') => "^0-9",
            Some('w') => "0-9A-Za-z_",
            Some('W') => "^0-9A-Za-z_",
            Some('s') => r"\t\n\f\r ",
            Some('S') => r"^\t\n\f\r ",
            Some('p' | 'P') => return self.named_class().map(|()| true),
            _ => return Ok(false),
        };
        self.next();
        self.next();
        let plain = inside && !class.starts_with('^');
        self.out.push_str(&if plain { class.to_owned() } else { format!("[{class}]") });
        Ok(true)
    }

    fn named_class(&mut self) -> Result<(), Wrong<'p>> {
        let before = self.rest;
        self.next();
        let negative = self.next() == Some('P');
        if self.rest.starts_with('{') {
            let end = self.rest.find('}').ok_or((RANGE, before))?;
            self.rest = self.rest.get(end + 1..).unwrap_or_default();
        } else if self.next().is_none() {
            return Err((RANGE, before));
        }
        let name = self.since(before).get(2..).unwrap_or_default().trim_matches(['{', '}']);
        let (name, negative) = name.strip_prefix('^').map_or((name, negative), |name| (name, !negative));
        let class = format!("\\{}{{{name}}}", if negative { 'P' } else { 'p' });
        if name.is_empty() || Regex::new(&class).is_err() {
            return Err((RANGE, self.since(before)));
        }
        self.out.push_str(&class);
        Ok(())
    }

    /// One character, which may be escaped.
    fn character(&mut self) -> Result<char, Wrong<'p>> {
        let before = self.rest;
        let c = match self.next() {
            Some('\\') => self.next().ok_or(("trailing backslash at end of expression", ""))?,
            Some(c) => return Ok(c),
            None => return Err(("missing closing ]", self.all)),
        };
        let octal = |rest: &str| rest.starts_with(|c: char| ('0'..='7').contains(&c));
        let code = match c {
            'a' => Some(7),
            'f' => Some(12),
            'n' => Some(10),
            'r' => Some(13),
            't' => Some(9),
            'v' => Some(11),
            'x' => self.hexadecimal(),
            '0'..='7' if c == '0' || octal(self.rest) => {
                let mut code = c.to_digit(8);
                for _ in 0..2 {
                    if octal(self.rest) {
                        let digit = self.next().and_then(|c| c.to_digit(8));
                        code = code.zip(digit).map(|(code, digit)| code * 8 + digit);
                    }
                }
                code
            }
            c if c.is_ascii_punctuation() || c.is_ascii() && !c.is_ascii_alphanumeric() => Some(c.into()),
            _ => None,
        };
        code.and_then(char::from_u32).ok_or_else(|| (ESCAPE, self.since(before)))
    }

    /// `41` or `{41}`; reads as far as Go does, which is what its message shows.
    fn hexadecimal(&mut self) -> Option<u32> {
        let first = self.next()?;
        if first != '{' {
            let second = self.next();
            return Some(first.to_digit(16)? * 16 + second?.to_digit(16)?);
        }
        let mut code = None;
        loop {
            match self.next()? {
                '}' => return code,
                c => {
                    let next = code.unwrap_or(0) * 16 + c.to_digit(16)?;
                    code = Some(next).filter(|code| *code <= u32::from(char::MAX));
                    code?;
                }
            }
        }
    }

    /// A class in brackets.
    fn class(&mut self) -> Result<(), Wrong<'p>> {
        let whole = self.rest;
        self.next();
        self.out.push('[');
        if self.rest.starts_with('^') {
            self.next();
            self.out.push('^');
        }
        let missing = |_| ("missing closing ]", whole);
        let mut first = true;
        while first || !self.rest.starts_with(']') {
            first = false;
            let before = self.rest;
            if before.starts_with("[:")
                && let Some(end) = before.find(":]")
            {
                let name = before.get(..end + 2).unwrap_or_default();
                let bare = name.trim_matches(['[', ':', ']']);
                if !NAMED.contains(&bare.strip_prefix('^').unwrap_or(bare)) {
                    return Err((RANGE, name));
                }
                self.out.push_str(name);
                self.rest = before.get(end + 2..).unwrap_or_default();
                continue;
            }
            if before.starts_with('\\') && self.known_class(true)? {
                continue;
            }
            if before.is_empty() {
                return Err(missing(()));
            }
            let low = self.character()?;
            self.out.push_str(&written(low));
            if self.rest.starts_with('-') && self.rest.len() > 1 && !self.rest.starts_with("-]") {
                self.next();
                let high = self.character()?;
                if high < low {
                    return Err((RANGE, self.since(before)));
                }
                self.out.push('-');
                self.out.push_str(&written(high));
            }
        }
        self.next();
        self.out.push(']');
        Ok(())
    }
}

impl Level {
    fn atom(&mut self, times: u64) {
        self.has_atom = true;
        self.last = times;
        self.most = self.most.max(times);
    }
}

/// A character as it stands for itself anywhere.
fn written(c: char) -> String {
    if c.is_ascii_alphanumeric() || !c.is_ascii() { c.to_string() } else { format!("\\x{:02X}", u32::from(c)) }
}

/// `{2}`, `{2,}` and `{2,3}`, and how long that is; anything else is no repetition.
fn counts(text: &str) -> Option<((u64, Option<u64>), usize)> {
    let (inside, _) = text.strip_prefix('{')?.split_once('}')?;
    // What has too many digits is too often.
    let number = |digits: &str| {
        let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        let leads = digits.len() > 1 && digits.starts_with('0');
        (plain && !leads).then(|| digits.parse().unwrap_or(u64::MAX))
    };
    let counts = match inside.split_once(',') {
        None => {
            let count = number(inside)?;
            (count, Some(count))
        }
        Some((least, "")) => (number(least)?, None),
        Some((least, most)) => (number(least)?, Some(number(most)?)),
    };
    Some((counts, inside.len() + 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gos_dialect() {
        let rows = [
            (r"^\d+$", "12", "١٢"),
            (r"^[\w-]+$", "a-b", "a b"),
            ("^[[]$", "[", "]"),
            ("^[]a]$", "]", "b"),
            ("^[[:alpha:]_]+$", "a_b", "1"),
            (r"^(\/[a-z]+)*$", "/a/b", "a"),
            ("^[^&&]$", "x", "&"),
            ("a+", "caat", "b"),
        ];
        for (pattern, yes, no) in rows {
            let regex = compile(pattern).unwrap();
            assert!(regex.is_match(yes) && !regex.is_match(no), "{pattern}");
        }
        assert!(compile("(?=a)").is_err() && compile("(").is_err());
        for (pattern, yes, no) in [
            (r"^\Qa.b\E$", "a.b", "axb"),
            ("^a{,2}$", "a{,2}", "aa"),
            ("^[+--]$", ",", "."),
            (r"^\012\x{41}$", "\nA", "A"),
        ] {
            let regex = compile(pattern).unwrap();
            assert!(regex.is_match(yes) && !regex.is_match(no), "{pattern}");
        }
    }

    /// As Go 1.27 answers.
    #[test]
    fn patterns_that_are_none_in_gos_words() {
        let told = |pattern: &str| compile(pattern).err().unwrap_or_default();
        for (pattern, expected) in [
            ("(", "missing closing ): `(`"),
            (")", "unexpected ): `)`"),
            ("a)", "unexpected ): `a)`"),
            ("(a", "missing closing ): `(a`"),
            ("(?=a)", "invalid or unsupported Perl syntax: `(?=`"),
            ("(?!a)", "invalid or unsupported Perl syntax: `(?!`"),
            ("(?<=a)", "invalid named capture: `(?<=a)`"),
            ("(?P<n", "invalid named capture: `(?P<n`"),
            ("(?<n", "invalid named capture: `(?<n`"),
            ("(?P<>a)", "invalid named capture: `(?P<>`"),
            ("(?P=n)", "invalid or unsupported Perl syntax: `(?P`"),
            ("(?x)a", "invalid or unsupported Perl syntax: `(?x`"),
            ("(?-:a)", "invalid or unsupported Perl syntax: `(?-:`"),
            ("(?i--s)", "invalid or unsupported Perl syntax: `(?i--`"),
            ("(?", "invalid or unsupported Perl syntax: `(?`"),
            ("(?i", "invalid or unsupported Perl syntax: `(?i`"),
            ("(?:", "missing closing ): `(?:`"),
            ("a{2000}", "invalid repeat count: `{2000}`"),
            ("a{1001}", "invalid repeat count: `{1001}`"),
            ("a{3,2}", "invalid repeat count: `{3,2}`"),
            ("{2}", "missing argument to repetition operator: `{2}`"),
            ("a{1}{2}", "invalid nested repetition operator: `{1}{2}`"),
            ("(a{100}){100}", "invalid repeat count: `{100}`"),
            ("((a{10}){10}){11}", "invalid repeat count: `{11}`"),
            ("a**", "invalid nested repetition operator: `**`"),
            ("a*+", "invalid nested repetition operator: `*+`"),
            ("a*??", "invalid nested repetition operator: `*??`"),
            ("a+*", "invalid nested repetition operator: `+*`"),
            ("a{2}*", "invalid nested repetition operator: `{2}*`"),
            ("*a", "missing argument to repetition operator: `*`"),
            ("+", "missing argument to repetition operator: `+`"),
            ("?", "missing argument to repetition operator: `?`"),
            ("|*", "missing argument to repetition operator: `*`"),
            ("a|*", "missing argument to repetition operator: `*`"),
            ("(*)", "missing argument to repetition operator: `*`"),
            ("(?i)*", "missing argument to repetition operator: `*`"),
            ("[z-a]", "invalid character class range: `z-a`"),
            ("[a", "missing closing ]: `[a`"),
            ("[", "missing closing ]: `[`"),
            ("[]", "missing closing ]: `[]`"),
            ("[^]", "missing closing ]: `[^]`"),
            ("[[:foo:]]", "invalid character class range: `[:foo:]`"),
            ("[[:alpha:]", "missing closing ]: `[[:alpha:]`"),
            ("[a-\\d]", "invalid escape sequence: `\\d`"),
            ("[\\p{Foo}]", "invalid character class range: `\\p{Foo}`"),
            ("[\\q]", "invalid escape sequence: `\\q`"),
            ("\\q", "invalid escape sequence: `\\q`"),
            ("\\1", "invalid escape sequence: `\\1`"),
            ("\\8", "invalid escape sequence: `\\8`"),
            ("\\x4", "invalid escape sequence: `\\x4`"),
            ("\\xg1", "invalid escape sequence: `\\xg1`"),
            ("\\x{}", "invalid escape sequence: `\\x{}`"),
            ("\\x{110000}", "invalid escape sequence: `\\x{110000`"),
            ("\\x{zz}", "invalid escape sequence: `\\x{z`"),
            ("\\x", "invalid escape sequence: `\\x`"),
            ("\\u0041", "invalid escape sequence: `\\u`"),
            ("\\Z", "invalid escape sequence: `\\Z`"),
            ("\\G", "invalid escape sequence: `\\G`"),
            ("\\C", "invalid escape sequence: `\\C`"),
            ("\\Q\\E*", "missing argument to repetition operator: `*`"),
            ("\\E", "invalid escape sequence: `\\E`"),
            ("\\p{Foo}", "invalid character class range: `\\p{Foo}`"),
            ("\\p{L", "invalid character class range: `\\p{L`"),
            ("\\p", "invalid character class range: `\\p`"),
            ("\\pX", "invalid character class range: `\\pX`"),
            ("\\é", "invalid escape sequence: `\\é`"),
            ("a\\", "trailing backslash at end of expression: ``"),
            ("(((", "missing closing ): `(((`"),
            ("x{2}{3}", "invalid nested repetition operator: `{2}{3}`"),
            ("x{2}??", "invalid nested repetition operator: `{2}??`"),
            ("(?P<a-b>c)", "invalid named capture: `(?P<a-b>`"),
            ("[\\Qa]", "invalid escape sequence: `\\Q`"),
            ("[a\\E]", "invalid escape sequence: `\\E`"),
        ] {
            assert_eq!(told(pattern), format!("error parsing regexp: {expected}"), "{pattern}");
        }
        for pattern in [
            "(?<n>a)",
            "(?P<n>a)",
            "(?P<n>a)(?P<n>b)",
            "(?i)a",
            "(?i:a)",
            "(?i-s:a)",
            "a{1000}",
            "a{2,}",
            "a{,5}",
            "a{b}",
            "a{",
            "(a{10}){100}",
            "(a{0}){1000}",
            "(a{1000}){1}",
            "a*?",
            "(|a)*",
            "^*",
            "$+",
            "()*",
            "a(?i)*",
            "[]a]",
            "[^]a]",
            "[a-]",
            "[-a]",
            "[a-b-c]",
            "[[:alpha:]]",
            "[[:^alpha:]]",
            "[[:word:]]",
            "[\\d-z]",
            "[\\p{L}]",
            "[\\]]",
            "\\\\",
            "\\0",
            "\\012",
            "\\x41",
            "\\x{41}",
            "\\a\\f\\n\\r\\t\\v",
            "\\A\\z\\b\\B",
            "\\Q*\\E*",
            "\\Q*",
            "\\pL",
            "\\pN+",
            "\\P{^Greek}",
            "\\p{Greek}",
            "\\-\\.\\_",
            "é+",
            "a.b$",
            "a|b|",
            "||",
            "x{2}?",
            "(?s).",
            "(?m)^a$",
            "(?U)a*",
            "[&&a]",
            "[a&&b]",
            "[a~~b]",
            "[[a]",
            "[a[b]",
            "a]b",
            "}",
            "a}",
            "\\d\\D\\w\\W\\s\\S",
            "[\\d\\w\\s]",
            "[^\\d]",
            "(a)(?:b)(?P<name_1>c)",
            "(?P<1a>c)",
            "[\\x00-\\x{10FFFF}]",
        ] {
            assert_eq!(told(pattern), "", "{pattern}");
        }
        assert!(told(&"(".repeat(2000)).contains("expression nests too deeply"));
    }
}
