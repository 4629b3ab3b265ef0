//! Patterns over paths: Go's `filepath.Match`, and with `**` those of `.dockerignore` (moby `patternmatcher`).

/// One step of a pattern.
#[derive(Clone, Debug, PartialEq)]
enum Piece {
    Letter(char),
    /// `?`
    One,
    /// `*`
    Star,
    /// `**` at the end
    All,
    /// `**` before something: nothing, or any directories.
    Deep,
    /// Inside of `**`'s directories.
    Inside,
    Class {
        not: bool,
        ranges: Vec<(char, char)>,
    },
}

/// A pattern, ready to be used. Matching takes time in proportion to pattern and path, whatever they are.
#[derive(Clone, Debug)]
pub struct Pattern(Vec<Piece>);

/// Whether a path has signs that make it a pattern.
pub fn is_pattern(path: &str) -> bool {
    let mut letters = path.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => drop(letters.next()),
            '*' | '?' | '[' => return true,
            _ => {}
        }
    }
    false
}

impl Pattern {
    /// A pattern of `filepath.Match`, in which `**` is `*` twice.
    pub fn glob(text: &str) -> Result<Pattern, String> {
        Pattern::read(text, false)
    }

    /// A pattern of `.dockerignore`.
    pub fn deep(text: &str) -> Result<Pattern, String> {
        Pattern::read(text, true)
    }

    fn read(text: &str, deep: bool) -> Result<Pattern, String> {
        let bad = || "syntax error in pattern".to_owned();
        let letters: Vec<char> = text.chars().collect();
        let (mut out, mut at) = (Vec::new(), 0);
        while at < letters.len() {
            let letter = letters[at];
            at += 1;
            match letter {
                '*' if deep && letters.get(at) == Some(&'*') => {
                    at += 1;
                    at += usize::from(letters.get(at) == Some(&'/'));
                    if at == letters.len() {
                        out.push(Piece::All);
                    } else {
                        out.extend([Piece::Deep, Piece::Inside]);
                    }
                }
                '*' => out.push(Piece::Star),
                '?' => out.push(Piece::One),
                '\\' => {
                    out.push(Piece::Letter(*letters.get(at).ok_or_else(bad)?));
                    at += 1;
                }
                '[' => out.push(class(&letters, &mut at).ok_or_else(bad)?),
                letter => out.push(Piece::Letter(letter)),
            }
        }
        Ok(Pattern(out))
    }

    pub fn fits(&self, path: &str) -> bool {
        let pieces = &self.0;
        let mut states = vec![false; pieces.len() + 1];
        self.enter(0, &mut states);
        for letter in path.chars() {
            let mut next = vec![false; pieces.len() + 1];
            for at in (0..pieces.len()).filter(|&at| states[at]) {
                let fits = match &pieces[at] {
                    Piece::Letter(own) => *own == letter,
                    Piece::One => letter != '/',
                    Piece::Star if letter != '/' => {
                        self.enter(at, &mut next);
                        false
                    }
                    Piece::All => {
                        self.enter(at, &mut next);
                        false
                    }
                    Piece::Inside => {
                        next[at] = true;
                        letter == '/'
                    }
                    Piece::Class { not, ranges } => {
                        letter != '/' && ranges.iter().any(|(low, high)| (*low..=*high).contains(&letter)) != *not
                    }
                    Piece::Star | Piece::Deep => false,
                };
                if fits {
                    self.enter(at + 1, &mut next);
                }
            }
            states = next;
        }
        states[pieces.len()]
    }

    /// Marks a place, and those that are reached from it without a letter.
    fn enter(&self, at: usize, states: &mut [bool]) {
        let mut at = at;
        loop {
            states[at] = true;
            match self.0.get(at) {
                Some(Piece::Star | Piece::All) => at += 1,
                Some(Piece::Deep) => {
                    states[at + 1] = true;
                    at += 2;
                }
                _ => return,
            }
        }
    }
}

/// `[a-z]`, `[^a-z]`; the bracket is already read.
fn class(letters: &[char], at: &mut usize) -> Option<Piece> {
    let not = letters.get(*at) == Some(&'^');
    *at += usize::from(not);
    let mut ranges = Vec::new();
    let one = |at: &mut usize| -> Option<char> {
        let letter = *letters.get(*at)?;
        *at += 1;
        match letter {
            '\\' => {
                *at += 1;
                letters.get(*at - 1).copied()
            }
            '-' | ']' => None,
            letter => Some(letter),
        }
    };
    loop {
        if letters.get(*at) == Some(&']') && !ranges.is_empty() {
            *at += 1;
            return Some(Piece::Class { not, ranges });
        }
        let low = one(at)?;
        let high = if letters.get(*at) == Some(&'-') {
            *at += 1;
            one(at)?
        } else {
            low
        };
        ranges.push((low, high));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_are_gos() {
        for (pattern, path, fits) in [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*/b", "abc/b", true),
            ("a*/b", "a/c/b", false),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", true),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[^c]", "abc", false),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a???b", "aab", false),
            ("[a-ζ]*", "α", true),
            ("*[a-ζ]", "A", false),
            ("a?b", "a/b", false),
            ("a*b", "a/b", false),
        ] {
            assert_eq!(Pattern::glob(pattern).unwrap().fits(path), fits, "{pattern} {path}");
        }
        for pattern in ["[]a]", "[-]", "[x-]", "[a", "a[", "[", "\\"] {
            assert!(Pattern::glob(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn hostile_patterns_take_little_time() {
        let pattern = Pattern::deep(&"*a**/".repeat(200)).unwrap();
        assert!(pattern.fits(&"ab".repeat(2000)) && !pattern.fits(&"b".repeat(4000)));
    }
}
