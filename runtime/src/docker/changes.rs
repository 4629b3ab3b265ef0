//! Dockerfile instructions that `commit` and `import` apply to a configuration (`--change`).

use serde_json::json;

use super::http::Problem;
use crate::images::manifest::RunConfig;

/// Applies instructions in their order.
pub fn apply(config: &mut RunConfig, changes: &[String]) -> Result<(), Problem> {
    for change in changes.iter().flat_map(|change| change.lines()).filter(|line| !line.trim().is_empty()) {
        one(config, change.trim())?;
    }
    Ok(())
}

fn one(config: &mut RunConfig, change: &str) -> Result<(), Problem> {
    let (word, rest) = change.split_once(char::is_whitespace).unwrap_or((change, ""));
    let rest = rest.trim();
    if rest.is_empty() {
        return Err(Problem::bad(format!("{} requires at least one argument", word.to_uppercase())));
    }
    match word.to_uppercase().as_str() {
        "CMD" => config.cmd = command(rest)?,
        "ENTRYPOINT" => config.entrypoint = command(rest)?,
        "USER" => config.user = rest.to_owned(),
        "WORKDIR" => {
            config.working_dir = if rest.starts_with('/') {
                rest.to_owned()
            } else {
                format!("{}/{rest}", config.working_dir.trim_end_matches('/'))
            };
        }
        "ENV" => {
            for (name, value) in pairs(rest) {
                config.env.retain(|entry| entry.split('=').next() != Some(&name));
                config.env.push(format!("{name}={value}"));
            }
        }
        "LABEL" => config.labels.extend(pairs(rest)),
        "EXPOSE" => {
            for port in rest.split_whitespace() {
                crate::networks::ports::parse_port(port).map_err(Problem::bad)?;
                let port = if port.contains('/') { port.to_owned() } else { format!("{port}/tcp") };
                config.exposed_ports.insert(port, json!({}));
            }
        }
        "VOLUME" => {
            let paths =
                if rest.starts_with('[') { list(rest)? } else { rest.split_whitespace().map(str::to_owned).collect() };
            config.volumes.extend(paths.into_iter().map(|path| (path, json!({}))));
        }
        "STOPSIGNAL" => config.stop_signal = rest.to_owned(),
        "ONBUILD" => config.on_build.push(rest.to_owned()),
        other => return Err(Problem::bad(format!("{} is not a valid change command", other.to_lowercase()))),
    }
    Ok(())
}

fn list(text: &str) -> Result<Vec<String>, Problem> {
    serde_json::from_str(text)
        .map_err(|_| Problem::bad(format!("dockerfile parse error: {text} is no list of strings")))
}

/// The exec form, or the shell form.
fn command(text: &str) -> Result<Vec<String>, Problem> {
    if text.starts_with('[') {
        return list(text);
    }
    Ok(vec!["/bin/sh".into(), "-c".into(), text.to_owned()])
}

/// `NAME=VALUE …` with quotes, or `NAME VALUE`.
fn pairs(text: &str) -> Vec<(String, String)> {
    let words = words(text);
    if words.first().is_some_and(|word| word.contains('=')) {
        return words
            .iter()
            .filter_map(|word| word.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
    }
    match text.split_once(char::is_whitespace) {
        Some((name, value)) => vec![(name.to_owned(), value.trim().to_owned())],
        None => vec![(text.to_owned(), String::new())],
    }
}

fn words(text: &str) -> Vec<String> {
    let (mut out, mut word, mut quote, mut escaped, mut begun) = (Vec::new(), String::new(), None, false, false);
    for letter in text.chars() {
        match (letter, quote) {
            _ if escaped => {
                word.push(letter);
                escaped = false;
            }
            ('\\', quote) if quote != Some('\'') => escaped = true,
            (letter, Some(open)) if letter == open => quote = None,
            ('"' | '\'', None) => (quote, begun) = (Some(letter), true),
            (letter, None) if letter.is_whitespace() => {
                if begun || !word.is_empty() {
                    out.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            (letter, _) => word.push(letter),
        }
    }
    if begun || !word.is_empty() {
        out.push(word);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_change_the_configuration() {
        let mut config = RunConfig::default();
        let changes = [
            "CMD [\"a\",\"b\"]",
            "ENV X=1 Y=\"two words\"",
            "ENV X 3",
            "EXPOSE 80",
            "LABEL a=b",
            "WORKDIR /x",
            "ENTRYPOINT run it",
        ];
        apply(&mut config, &changes.map(str::to_owned)).unwrap();
        assert_eq!(config.cmd, ["a", "b"]);
        assert_eq!(config.env, ["Y=two words", "X=3"]);
        assert!(config.exposed_ports.contains_key("80/tcp"));
        assert_eq!(config.entrypoint, ["/bin/sh", "-c", "run it"]);
        assert_eq!(apply(&mut config, &["FROM x".into()]).unwrap_err().message, "from is not a valid change command");
    }
}
