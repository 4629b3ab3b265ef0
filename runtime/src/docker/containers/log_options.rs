//! `--log-driver` and `--log-opt`: what there is, and what stands beside each line (moby `daemon/logger/factory.go`,
//! `daemon/logger/jsonfilelog`, `daemon/logger/loginfo.go`, `daemon/logger/loggerutils/log_tag.go`).

use regex::Regex;

use super::{
    super::{
        http::Problem,
        types::{LogConfig, Map},
    },
    Record,
    log_tag::Tag,
};

const DRIVERS: [&str; 3] = ["json-file", "local", "none"];
/// Output that waits for the disk unless told otherwise, with `mode=non-blocking`.
const BUFFER: u64 = 1 << 20;
/// Bytes of attributes that stand beside each line; labels and variables may be longer than anybody wants to repeat.
pub const MAX_ATTRIBUTES: usize = 64 << 10;

/// What a log is to be like.
#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    /// 0: any.
    pub max_size: u64,
    pub max_files: u32,
    pub compress: bool,
    /// Bytes that may wait for the disk; 0: output waits instead.
    pub buffer: u64,
    labels: Vec<String>,
    labels_matching: Option<Regex>,
    variables: Vec<String>,
    variables_matching: Option<Regex>,
    tag: Tag,
}

fn failed(why: impl std::fmt::Display) -> Problem {
    Problem::bad(format!("failed to initialize logging driver: {why}"))
}

/// Reads the options, or says which of them there is not.
pub fn read(config: &LogConfig) -> Result<LogOptions, Problem> {
    let kind = config.kind.as_str();
    if !DRIVERS.contains(&kind) {
        return Err(Problem::bad(format!("logger: no log driver named '{kind}' is registered")));
    }
    let mut out = match kind {
        "local" => LogOptions { max_size: 20 << 20, max_files: 5, compress: true, ..LogOptions::default() },
        _ => LogOptions { max_files: 1, ..LogOptions::default() },
    };
    read_mode(config, &mut out)?;
    let regex = |value: &str| Regex::new(value).map(Some).map_err(failed);
    let list = |value: &str| value.split(',').map(str::to_owned).collect::<Vec<_>>();
    for (key, value) in &config.config {
        match (kind, key.as_str()) {
            (_, "mode" | "max-buffer-size") | ("none", _) => {}
            (_, "max-size") => {
                out.max_size = parse_size(value).ok_or_else(|| failed(format!("invalid size: '{value}'")))?;
            }
            (_, "max-file") => {
                let files = value.parse::<u32>().ok().filter(|&files| files >= 1);
                out.max_files = files.ok_or_else(|| failed("max-file cannot be less than 1"))?;
            }
            (_, "compress") => {
                out.compress = match value.as_str() {
                    "true" | "1" | "t" | "T" | "TRUE" | "True" => true,
                    "false" | "0" | "f" | "F" | "FALSE" | "False" => false,
                    _ => return Err(failed(format!("strconv.ParseBool: parsing {value:?}: invalid syntax"))),
                };
            }
            ("json-file", "labels") => out.labels = list(value),
            ("json-file", "labels-regex") => out.labels_matching = regex(value)?,
            ("json-file", "env") => out.variables = list(value),
            ("json-file", "env-regex") => out.variables_matching = regex(value)?,
            ("json-file", "tag") => out.tag = Tag::parse(value).map_err(failed)?,
            ("local", key) => return Err(Problem::bad(format!("unknown log opt '{key}' for log driver local"))),
            (kind, key) => return Err(Problem::bad(format!("unknown log opt '{key}' for {kind} log driver"))),
        }
    }
    if out.max_files < 2 || out.max_size == 0 {
        if kind == "json-file" && out.compress {
            return Err(failed("compress cannot be true when max-file is less than 2 or max-size is not set"));
        }
        out.compress = false;
    }
    Ok(out)
}

fn read_mode(config: &LogConfig, out: &mut LogOptions) -> Result<(), Problem> {
    let mode = config.config.get("mode").map_or("", String::as_str);
    let size = config.config.get("max-buffer-size");
    match mode {
        "" | "blocking" if size.is_some() => {
            return Err(Problem::bad("logger: max-buffer-size option is only supported with 'mode=non-blocking'"));
        }
        "" | "blocking" => {}
        "non-blocking" => {
            out.buffer = match size {
                Some(size) => parse_size(size).filter(|&size| size > 0).ok_or_else(|| {
                    Problem::bad(format!("error parsing option max-buffer-size: invalid size: '{size}'"))
                })?,
                None => BUFFER,
            }
        }
        other => return Err(Problem::bad(format!("logger: logging mode not supported: {other}"))),
    }
    Ok(())
}

/// Bytes of `10m`, `1g`, `512k` (go-units `RAMInBytes`).
fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim().to_lowercase();
    let text = text.strip_suffix("ib").or_else(|| text.strip_suffix('b')).unwrap_or(&text).to_owned();
    let (number, factor) = match text.chars().last()? {
        'k' => (&text[..text.len() - 1], 1u64 << 10),
        'm' => (&text[..text.len() - 1], 1 << 20),
        'g' => (&text[..text.len() - 1], 1 << 30),
        't' => (&text[..text.len() - 1], 1 << 40),
        _ => (&text[..], 1),
    };
    let number: f64 = number.trim().parse().ok()?;
    (number >= 0.0).then_some((number * factor as f64) as u64)
}

/// What a container's log tells of it.
pub struct Attributes<'a> {
    pub id: &'a str,
    pub record: &'a Record,
}

impl Attributes<'_> {
    /// The JSON object that stands in each line; empty where there is nothing to say.
    pub fn json(&self, options: &LogOptions) -> Result<String, Problem> {
        let mut out = Map::new();
        let matches = |regex: &Option<Regex>, key: &str| regex.as_ref().is_some_and(|regex| regex.is_match(key));
        for (key, value) in &self.record.config.labels {
            if options.labels.contains(key) || matches(&options.labels_matching, key) {
                out.insert(key.clone(), value.clone());
            }
        }
        for entry in self.record.config.env.iter().flatten() {
            let Some((key, value)) = entry.split_once('=') else { continue };
            if options.variables.iter().any(|name| name == key) || matches(&options.variables_matching, key) {
                out.insert(key.to_owned(), value.to_owned());
            }
        }
        let tag = options.tag.text(self.id, self.record).map_err(failed)?;
        if !tag.is_empty() {
            out.insert("tag".into(), tag);
        }
        if out.is_empty() {
            return Ok(String::new());
        }
        let text = serde_json::to_string(&out).map_err(failed)?;
        if text.len() > MAX_ATTRIBUTES {
            return Err(failed(format!("the attributes of a line are longer than {MAX_ATTRIBUTES} bytes")));
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: &str, options: &[(&str, &str)]) -> Result<LogOptions, String> {
        let config = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        read(&LogConfig { kind: kind.into(), config }).map_err(|problem| problem.message)
    }

    #[test]
    fn options_do_what_they_say_or_are_refused() {
        let json = of("json-file", &[("max-size", "10k"), ("max-file", "3"), ("compress", "true")]).unwrap();
        assert_eq!((json.max_size, json.max_files, json.compress, json.buffer), (10 << 10, 3, true, 0));
        let local = of("local", &[("mode", "non-blocking"), ("max-buffer-size", "2m")]).unwrap();
        assert_eq!((local.max_size, local.max_files, local.compress, local.buffer), (20 << 20, 5, true, 2 << 20));
        assert_eq!(of("json-file", &[("mode", "non-blocking")]).unwrap().buffer, BUFFER);
        for (kind, options, words) in [
            ("syslog", &[][..], "logger: no log driver named 'syslog' is registered"),
            ("json-file", &[("foo", "")], "unknown log opt 'foo' for json-file log driver"),
            ("local", &[("tag", "x")], "unknown log opt 'tag' for log driver local"),
            ("json-file", &[("mode", "sideways")], "logger: logging mode not supported: sideways"),
            ("json-file", &[("max-buffer-size", "1m")], "only supported with 'mode=non-blocking'"),
            (
                "json-file",
                &[("mode", "non-blocking"), ("max-buffer-size", "x")],
                "error parsing option max-buffer-size",
            ),
            ("json-file", &[("max-size", "x")], "failed to initialize logging driver: invalid size: 'x'"),
            ("json-file", &[("max-file", "0")], "max-file cannot be less than 1"),
            ("json-file", &[("compress", "true")], "compress cannot be true when max-file is less than 2"),
            ("json-file", &[("compress", "maybe")], "strconv.ParseBool: parsing \"maybe\": invalid syntax"),
            ("json-file", &[("tag", "{{.Nothing}}")], "can't evaluate field Nothing in type *logger.Info"),
            ("json-file", &[("tag", "{{.ID | shout}}")], "function \"shout\" not defined"),
            ("json-file", &[("tag", "{{.ID")], "unclosed action"),
            ("json-file", &[("env-regex", "(")], "failed to initialize logging driver: "),
        ] {
            let refused = of(kind, options).unwrap_err();
            assert!(refused.contains(words), "{options:?}: {refused}");
        }
    }

    #[test]
    fn attributes_are_chosen_by_name_and_by_pattern() {
        let mut record = Record { name: "web".into(), image_id: "sha256:0123456789abcdef".into(), ..Record::default() };
        record.config.labels = [("a".into(), "1".into()), ("b.c".into(), "2".into())].into();
        record.config.env = Some(vec!["ONE=x y".into(), "TWO=z".into(), "OTHER=o".into()]);
        let text = |options: &[(&str, &str)]| {
            Attributes { id: "0123456789abcdef", record: &record }.json(&of("json-file", options).unwrap()).unwrap()
        };
        assert_eq!(text(&[]), "");
        assert_eq!(text(&[("labels", "a,none"), ("env", "ONE")]), r#"{"ONE":"x y","a":"1"}"#);
        assert_eq!(text(&[("labels-regex", "^b"), ("env-regex", "^T")]), r#"{"TWO":"z","b.c":"2"}"#);
        let tag = "{{.Name}}-{{.ID | upper}}-{{ .ImageID }}";
        assert_eq!(text(&[("tag", tag)]), r#"{"tag":"web-0123456789AB-sha256:01234"}"#);
    }

    #[test]
    fn sizes_are_read() {
        assert_eq!(parse_size("10m"), Some(10 << 20));
        assert_eq!(parse_size("1.5k"), Some(1536));
        assert_eq!(parse_size("7"), Some(7));
        assert_eq!(parse_size("x"), None);
    }
}
