//! `.dockerignore`: what a context leaves out (<https://docs.docker.com/build/concepts/context/#dockerignore-files>).

use super::pattern::Pattern;

/// More patterns than anybody writes.
const MAX_PATTERNS: usize = 10_000;

/// Patterns in their order; the last that fits a path decides.
#[derive(Clone, Debug, Default)]
pub struct Ignore {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    pattern: Pattern,
    /// `!`: what fits stays.
    keep: bool,
}

impl Ignore {
    pub fn read(text: &str) -> Result<Ignore, String> {
        let mut patterns = Vec::new();
        for line in text.strip_prefix('\u{feff}').unwrap_or(text).lines() {
            if line.starts_with('#') || line.trim().is_empty() {
                continue;
            }
            patterns.push(line.trim());
        }
        Ignore::of(&patterns)
    }

    /// From patterns as `.dockerignore` and `COPY --exclude` have them.
    pub fn of(patterns: &[&str]) -> Result<Ignore, String> {
        if patterns.len() > MAX_PATTERNS {
            return Err(format!("more than {MAX_PATTERNS} patterns"));
        }
        let mut rules = Vec::new();
        for text in patterns {
            let (keep, body) = match text.strip_prefix('!') {
                Some(body) => (true, body.trim()),
                None => (false, *text),
            };
            if body.is_empty() {
                return Err(format!("illegal exclusion pattern: {text:?}"));
            }
            let body = clean(body);
            if body == "." {
                continue;
            }
            let pattern = Pattern::deep(&body).map_err(|error| format!("error checking context: {error}: {text:?}"))?;
            rules.push(Rule { pattern, keep });
        }
        Ok(Ignore { rules })
    }

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether a path (relative, with slashes) is left out: by itself or with a directory above it.
    pub fn leaves_out(&self, path: &str) -> bool {
        let mut out = false;
        for rule in &self.rules {
            if rule.keep != out {
                continue;
            }
            let above = path.match_indices('/').map(|(at, _)| &path[..at]);
            if rule.pattern.fits(path) || above.into_iter().any(|dir| rule.pattern.fits(dir)) {
                out = !rule.keep;
            }
        }
        out
    }
}

/// Go's `filepath.Clean`, and the slash that stands for the context's root goes.
pub fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    if parts.is_empty() { ".".into() } else { parts.join("/") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left_out(text: &str, path: &str) -> bool {
        Ignore::read(text).unwrap().leaves_out(path)
    }

    #[test]
    fn patterns_are_those_of_docker_and_not_of_git() {
        for (text, path, out) in [
            ("# c\n*.md", "README.md", true),
            // No slash does not mean everywhere.
            ("*.md", "docs/README.md", false),
            ("**/*.md", "docs/deep/README.md", true),
            ("**/*.md", "README.md", true),
            ("/foo", "foo/bar", true),
            ("foo/", "foo", true),
            ("foo/**", "foo/a/b", true),
            ("foo/**", "foo", false),
            ("*/temp*", "a/temporary.txt", true),
            ("*/*/temp*", "a/temp", false),
            ("temp?", "tempa", true),
            ("*.md\n!README.md", "README.md", false),
            ("*.md\n!README*.md\nREADME-secret.md", "README-secret.md", true),
            ("dir\n!dir/kept", "dir/kept", false),
            ("dir\n!dir/kept", "dir/other", true),
            ("a/../b", "b", true),
            ("**", "anything/at/all", true),
            ("a**b", "ax/b", true),
            ("**/.git", "sub/.git/config", true),
            ("[a-c]x", "bx", true),
            (" spaced ", "spaced", true),
            (".", "x", false),
        ] {
            assert_eq!(left_out(text, path), out, "{text:?} {path}");
        }
        assert!(Ignore::read("!").unwrap_err().contains("illegal exclusion pattern"));
        assert!(Ignore::read("[").is_err());
    }

    /// The same by the definition: the last rule that fits the path or a directory above it decides.
    #[test]
    fn the_last_that_fits_decides() {
        let pieces = ["a", "b", "/", "*", "**", "?", "!a", "\n", "\n", "**/"];
        for seed in 0..3000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let text: String = (0..12).map(|_| pieces[random.usize(..pieces.len())]).collect();
            let Ok(ignore) = Ignore::read(&text) else { continue };
            let names = ["a", "b", "ab", "a/b", "b/a/b", "a/a/a"];
            for path in names {
                let mut prefixes: Vec<&str> = path.match_indices('/').map(|(at, _)| &path[..at]).collect();
                prefixes.push(path);
                let fitting = |rule: &&Rule| prefixes.iter().any(|prefix| rule.pattern.fits(prefix));
                let expected = ignore.rules.iter().rev().find(fitting).is_some_and(|rule| !rule.keep);
                assert_eq!(ignore.leaves_out(path), expected, "seed {seed} {path}");
            }
        }
    }
}
