//! What a registry asks for before it lets anybody in (RFC 9110, "WWW-Authenticate"; Docker's "Token Authentication
//! Specification").

/// One challenge: its scheme in small letters, and its parameters.
#[derive(Debug, PartialEq, Eq)]
pub struct Challenge {
    pub scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// The challenges of all headers, which may hold several each; those for tokens come first, as containerd prefers them.
pub fn parse<'a>(headers: impl Iterator<Item = &'a str>) -> Vec<Challenge> {
    let mut out: Vec<Challenge> = headers.flat_map(parse_header).collect();
    out.sort_by_key(|challenge| challenge.scheme != "bearer");
    out
}

fn parse_header(text: &str) -> Vec<Challenge> {
    let mut out: Vec<Challenge> = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let word = rest.find(['=', ',', ' ', '\t']).unwrap_or(rest.len());
        let (name, after) = rest.split_at(word);
        let tail = after.trim_start();
        match (out.last_mut(), tail.strip_prefix('=')) {
            // A parameter belongs to the scheme before it; what stands alone is a scheme.
            (Some(challenge), Some(value)) if !name.is_empty() => {
                let (value, tail) = take_value(value.trim_start());
                challenge.parameters.push((name.to_lowercase(), value));
                rest = tail;
            }
            _ => {
                if !name.is_empty() {
                    out.push(Challenge { scheme: name.to_lowercase(), parameters: Vec::new() });
                }
                rest = after;
                if name.is_empty() && rest == tail && !rest.starts_with(',') {
                    // Nothing that a challenge can begin with.
                    return out;
                }
            }
        }
        rest = rest.trim_start_matches([',', ' ', '\t']);
    }
    out
}

/// A token or a quoted string, and what comes behind.
fn take_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(letters.next().map(|(_, letter)| letter)),
            letter => value.push(letter),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_taken_apart() {
        let headers = [
            r#"Basic realm="a \"quoted\" one", Bearer realm="https://auth.x/token",service="reg,istry",scope=a:b:pull"#,
            "Negotiate",
            r#"bearer realm = "second""#,
        ];
        let found = parse(headers.into_iter());
        let schemes: Vec<&str> = found.iter().map(|challenge| challenge.scheme.as_str()).collect();
        assert_eq!(schemes, ["bearer", "bearer", "basic", "negotiate"]);
        assert_eq!(found[0].get("realm"), Some("https://auth.x/token"));
        assert_eq!((found[0].get("service"), found[0].get("scope")), (Some("reg,istry"), Some("a:b:pull")));
        assert_eq!(found[1].get("realm"), Some("second"));
        assert_eq!(found[2].get("realm"), Some(r#"a "quoted" one"#));
        for odd in ["", ",", "=", "=x", "Bearer", r#"Bearer realm=""#, "\"", "Bearer =,=", "Bearer ,,realm=x"] {
            assert!(parse([odd].into_iter()).len() <= 2, "{odd}");
        }
    }
}
