//! The log option `tag`: `{{.Name}}/{{truncate .ID 5}}`, a template of Go's with dockerd's functions and fields (moby
//! `daemon/logger/templates/templates.go`, `daemon/logger/loginfo.go`, `daemon/logger/loggerutils/log_tag.go`). Templates
//! that call each other are refused: a few of them take longer than anybody can wait.

use std::{collections::BTreeMap, sync::Arc};

use gotmpl::{
    FuncMap, MissingKey, Template, TemplateError, Value,
    parse::{BranchNode, Expr, ListNode, Node, Parser, PipeNode},
};

use super::{Record, spec::arguments};

/// What dockerd calls it in its errors.
const NAME: &str = "log-tag";
/// A tag is part of every line.
const MAX_TAG: usize = 64 << 10;
/// Rounds of all loops together.
const MAX_ROUNDS: u64 = 10_000;
/// Of text/template.
const BUILT_IN: [&str; 19] = [
    "and", "call", "eq", "ge", "gt", "html", "index", "js", "le", "len", "lt", "ne", "not", "or", "print", "printf",
    "println", "slice", "urlquery",
];
/// Those whose answer is longer than what they are asked: in turn, again and again, they fill any memory.
const GROWING: [&str; 6] = ["html", "js", "print", "printf", "println", "urlquery"];

/// A template that was read.
#[derive(Clone, Debug, Default)]
pub struct Tag(String);

/// Output with an end.
struct Limited(String);

impl std::fmt::Write for Limited {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        if self.0.len() + text.len() > MAX_TAG {
            return Err(std::fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

impl Tag {
    /// Reads a template. What goes wrong with it whatever the container is goes wrong now.
    pub fn parse(template: &str) -> Result<Tag, String> {
        let tag = Tag(template.to_owned());
        match tag.run("", &Record::default()) {
            // A container may have what this one has not.
            Ok(_) | Err(TemplateError::IndexOutOfRange { .. }) => Ok(tag),
            Err(error) => Err(tag.words(&error)),
        }
    }

    /// What it says of a container.
    pub fn text(&self, id: &str, record: &Record) -> Result<String, String> {
        self.run(id, record).map_err(|error| self.words(&error))
    }

    fn run(&self, id: &str, record: &Record) -> Result<String, TemplateError> {
        if self.0.is_empty() {
            return Ok(String::new());
        }
        let (list, defined) = Parser::new(&self.0, "{{", "}}")?.parse()?;
        if !defined.is_empty() {
            return Err(unsupported("define"));
        }
        check(&list)?;
        let template = Template::new(NAME).funcs(functions()).missing_key(MissingKey::Error);
        let template = template.max_range_iters(MAX_ROUNDS).parse(&self.0)?;
        let mut out = Limited(String::new());
        template.execute_fmt(&mut out, &fields(id, record))?;
        Ok(out.0)
    }

    /// An error as Go's package words it.
    fn words(&self, error: &TemplateError) -> String {
        let at = |name: &str| {
            let before = &self.0[..self.0.find(name).unwrap_or_default()];
            let line = before.matches('\n').count() + 1;
            format!(
                "template: {NAME}:{line}:{}: executing {NAME:?} at <{name}>",
                before.len() - before.rfind('\n').map_or(0, |end| end + 1)
            )
        };
        match error {
            TemplateError::Parse { line, message, .. } | TemplateError::Lex { line, message, .. } => {
                let message = match message.as_str() {
                    "empty command" => "missing value for command",
                    "unterminated string" => "unterminated quoted string",
                    message if message.starts_with("expected RightParen") => "unclosed left paren",
                    message => message,
                };
                format!("template: {NAME}:{line}: {message}")
            }
            TemplateError::UndefinedFunction(name) => format!("template: {NAME}:1: function {name:?} not defined"),
            TemplateError::MissingKey { key } => {
                format!("{}: can't evaluate field {key} in type *logger.Info", at(&format!(".{key}")))
            }
            TemplateError::ArgCount { name, expected, got } => {
                format!("{}: wrong number of args for {name}: want {expected} got {got}", at(name))
            }
            TemplateError::Write => format!("template: {NAME}: the tag is longer than {MAX_TAG} bytes"),
            TemplateError::Exec(why) => format!("template: {NAME}: executing {NAME:?}: {why}"),
            other => format!("template: {NAME}: executing {NAME:?}: {other}"),
        }
    }
}

fn failed(why: impl Into<String>) -> TemplateError {
    TemplateError::Exec(why.into())
}

fn unsupported(action: &str) -> TemplateError {
    failed(format!("{{{{{action}}}}} is not supported by this engine"))
}

/// Looks for functions that there are not, as Go does when it reads, and for templates that call templates.
fn check(list: &ListNode) -> Result<(), TemplateError> {
    let branch = |branch: &BranchNode| {
        check_pipe(&branch.pipe)?;
        check(&branch.body)?;
        branch.else_body.as_ref().map_or(Ok(()), check)
    };
    list.nodes.iter().try_for_each(|node| match node {
        Node::List(list) => check(list),
        Node::Action(action) => check_pipe(&action.pipe),
        Node::If(node) | Node::Range(node) | Node::With(node) => branch(node),
        Node::Template(_) => Err(unsupported("template")),
        Node::Define(_) => Err(unsupported("define")),
        Node::Text(_) | Node::Break(_) | Node::Continue(_) => Ok(()),
    })
}

fn check_pipe(pipe: &PipeNode) -> Result<(), TemplateError> {
    pipe.commands.iter().flat_map(|command| &command.args).try_for_each(check_operand)
}

fn check_operand(operand: &Expr) -> Result<(), TemplateError> {
    match operand {
        Expr::Identifier(_, name) if !BUILT_IN.contains(&name.as_str()) && !functions().contains_key(name.as_str()) => {
            Err(TemplateError::UndefinedFunction(name.to_string()))
        }
        Expr::Pipe(_, pipe) => check_pipe(pipe),
        Expr::Chain(_, inner, _) => check_operand(inner),
        _ => Ok(()),
    }
}

fn text(text: impl AsRef<str>) -> Value {
    Value::String(Arc::from(text.as_ref()))
}

fn list<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Value {
    Value::List(texts.into_iter().map(text).collect())
}

fn map(entries: &BTreeMap<String, String>) -> Value {
    Value::Map(Arc::new(entries.iter().map(|(key, value)| (Arc::from(key.as_str()), text(value))).collect()))
}

/// What a tag can name.
fn fields(id: &str, record: &Record) -> Value {
    let short = |id: &str| id.chars().take(12).collect::<String>();
    let command = arguments(record);
    let host = nix::unistd::gethostname().unwrap_or_default();
    let fields = [
        ("ID", text(short(id))),
        ("FullID", text(id)),
        ("Name", text(&record.name)),
        // With the beginning of its algorithm, as dockerd has it.
        ("ImageID", text(short(&record.image_id))),
        ("ImageFullID", text(&record.image_id)),
        ("ImageName", text(&record.config.image)),
        ("DaemonName", text("docker")),
        ("Command", text(command.join(" "))),
        ("Hostname", text(host.to_string_lossy())),
        ("Config", map(&record.host.log_config.config)),
        ("ContainerID", text(id)),
        ("ContainerName", text(format!("/{}", record.name))),
        ("ContainerEntrypoint", text(command.first().cloned().unwrap_or_default())),
        ("ContainerArgs", list(command.iter().skip(1))),
        ("ContainerImageID", text(&record.image_id)),
        ("ContainerImageName", text(&record.config.image)),
        ("ContainerEnv", list(record.config.env.iter().flatten())),
        ("ContainerLabels", map(&record.config.labels)),
    ];
    Value::Map(Arc::new(fields.into_iter().map(|(name, value)| (Arc::from(name), value)).collect()))
}

type Outcome = Result<Value, TemplateError>;
/// A function of dockerd's: its name, how many arguments it takes, what it does.
type Own = (&'static str, usize, fn(&[Value]) -> Outcome);

fn functions() -> FuncMap {
    let mut out = FuncMap::new();
    for name in GROWING {
        out.insert(name.into(), Arc::new(move |arguments: &[Value]| bounded(name, arguments)));
    }
    let own: [Own; 8] = [
        ("json", 1, |arguments| Ok(text(json(&arguments[0])?.to_string()))),
        ("split", 2, split),
        ("join", 2, join),
        ("title", 1, |arguments| Ok(text(title(string(&arguments[0])?)))),
        ("lower", 1, |arguments| Ok(text(string(&arguments[0])?.to_lowercase()))),
        ("upper", 1, |arguments| Ok(text(string(&arguments[0])?.to_uppercase()))),
        ("pad", 3, pad),
        ("truncate", 2, truncate),
    ];
    for (name, expected, call) in own {
        let checked = move |arguments: &[Value]| {
            if arguments.len() != expected {
                return Err(TemplateError::ArgCount { name: name.into(), expected, got: arguments.len() });
            }
            call(arguments)
        };
        out.insert(name.into(), Arc::new(checked));
    }
    out.insert("index".into(), Arc::new(index));
    out
}

/// A function of the package, of arguments that are not too long together.
fn bounded(name: &str, arguments: &[Value]) -> Outcome {
    let mut all = Limited(String::new());
    for argument in arguments {
        std::fmt::Write::write_fmt(&mut all, format_args!("{argument}"))?;
    }
    let operands: String = (0..arguments.len()).map(|number| format!(" (index . {number})")).collect();
    let template = Template::new(NAME).parse(&format!("{{{{{name}{operands}}}}}"))?;
    Ok(text(template.execute_to_string(&Value::List(arguments.into()))?))
}

/// The package's gives nothing for a key that is not there, where a map of texts gives an empty one.
fn index(arguments: &[Value]) -> Outcome {
    let Some((first, keys)) = arguments.split_first().filter(|(_, keys)| !keys.is_empty()) else {
        return Err(TemplateError::ArgCount { name: "index".into(), expected: 2, got: arguments.len() });
    };
    let mut found = first.clone();
    for key in keys {
        found = match (&found, found.index(key)?) {
            (Value::Map(_), Value::Nil) => text(""),
            (_, found) => found,
        };
    }
    Ok(found)
}

fn string(value: &Value) -> Result<&str, TemplateError> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(failed(format!("expected string; found {other}"))),
    }
}

fn integer(value: &Value) -> Result<i64, TemplateError> {
    value.as_int().ok_or_else(|| match value {
        Value::String(text) => failed(format!("expected integer; found {text:?}")),
        other => failed(format!("expected integer; found {other}")),
    })
}

fn json(value: &Value) -> Result<serde_json::Value, TemplateError> {
    Ok(match value {
        Value::Nil => serde_json::Value::Null,
        Value::Bool(value) => (*value).into(),
        Value::Int(value) => (*value).into(),
        Value::Uint(value) => (*value).into(),
        Value::Float(value) => (*value).into(),
        Value::String(value) => (**value).into(),
        Value::List(values) => values.iter().map(json).collect::<Result<Vec<_>, _>>()?.into(),
        Value::Map(values) => {
            let entries = values.iter().map(|(key, value)| Ok((key.to_string(), json(value)?)));
            serde_json::Value::Object(entries.collect::<Result<_, TemplateError>>()?)
        }
        Value::Function(_) => return Err(failed("a function has no JSON")),
    })
}

fn split(arguments: &[Value]) -> Outcome {
    let (whole, separator) = (string(&arguments[0])?, string(&arguments[1])?);
    if separator.is_empty() {
        return Ok(list(whole.chars().map(String::from)));
    }
    Ok(list(whole.split(separator)))
}

fn join(arguments: &[Value]) -> Outcome {
    let Value::List(values) = &arguments[0] else {
        return Err(failed(format!("wrong type for value; expected []string; got {}", arguments[0].type_name())));
    };
    let parts = values.iter().map(string).collect::<Result<Vec<_>, _>>()?;
    let separator = string(&arguments[1])?;
    if parts.iter().map(|part| part.len() + separator.len()).sum::<usize>() > MAX_TAG {
        return Err(TemplateError::Write);
    }
    Ok(text(parts.join(separator)))
}

fn title(text: &str) -> String {
    let mut begins = true;
    let of = |letter: char| {
        let upper = std::mem::replace(&mut begins, !letter.is_alphanumeric() && letter != '_');
        if upper { letter.to_uppercase().collect::<String>() } else { letter.into() }
    };
    text.chars().map(of).collect()
}

/// An empty text stays one.
fn pad(arguments: &[Value]) -> Outcome {
    let whole = string(&arguments[0])?;
    let spaces = |value: &Value| match usize::try_from(integer(value)?) {
        Ok(count) if count <= MAX_TAG => Ok(" ".repeat(count)),
        _ => Err(failed(format!("pad: {value} spaces"))),
    };
    let (before, after) = (spaces(&arguments[1])?, spaces(&arguments[2])?);
    if whole.len() + before.len() + after.len() > MAX_TAG {
        return Err(TemplateError::Write);
    }
    Ok(if whole.is_empty() { text("") } else { text(format!("{before}{whole}{after}")) })
}

fn truncate(arguments: &[Value]) -> Outcome {
    let (whole, length) = (string(&arguments[0])?, integer(&arguments[1])?);
    let length = usize::try_from(length).map_err(|_| failed("truncate: a length below zero"))?;
    Ok(text(whole.chars().take(length).collect::<String>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let mut record =
            Record { name: "web-front".into(), image_id: "sha256:0123456789abcdef".into(), ..Record::default() };
        record.config.cmd = Some(vec!["sh".into(), "-c".into(), "echo hi".into()]);
        record.config.labels = [("a".to_owned(), "b".to_owned())].into();
        record
    }

    /// What dockerd 20.10 makes of them.
    #[test]
    fn tags_are_made_of_fields_and_functions() {
        for (template, text) in [
            ("plain", "plain"),
            ("{{.Name}}-{{.ID | upper}}-{{ .ImageID }}", "web-front-0123456789AB-sha256:01234"),
            ("{{upper .Name}} {{title .Name}} {{.Name | lower | json}}", r#"WEB-FRONT Web-Front "web-front""#),
            (r#"{{split .Name "-"}} {{json (split .Name "-")}}"#, r#"[web front] ["web","front"]"#),
            (r#"{{join (split .Name "-") "_" | upper}}"#, "WEB_FRONT"),
            ("{{truncate .ID 4}}|{{pad .DaemonName 1 2}}|{{truncate .Name 50}}", "0123| docker  |web-front"),
            ("a {{- .DaemonName -}} b {{`x`}}{{\"\\\"\"}}", "adockerb x\""),
            (r#"{{if eq .Name "web-front"}}a{{else}}b{{end}}"#, "a"),
            (r#"{{range split .Name "-"}}<{{.}}>{{end}}"#, "<web><front>"),
            (r#"{{printf "%s-%5d" .ID 7}} {{len .Name}} {{print "a" 1 2 "b"}}"#, "0123456789ab-    7 9 a1 2b"),
            ("{{.ContainerLabels}} {{index .ContainerLabels `a`}}{{index .ContainerLabels `c`}}", "map[a:b] b"),
            ("{{.ContainerEntrypoint}} {{.ContainerArgs}} {{.Command}}", "sh [-c echo hi] sh -c echo hi"),
            ("{{index .ContainerArgs 1}}{{with $x := .Name}}{{slice $x 0 3}}{{end}}", "echo hiweb"),
        ] {
            let said = Tag::parse(template).unwrap().text("0123456789abcdef", &record());
            assert_eq!(said.as_deref(), Ok(text), "{template}");
        }
    }

    #[test]
    fn mistakes_are_told_in_gos_words_when_the_template_is_read() {
        let nothing = r#"executing "log-tag" at <.Nothing>: can't evaluate field Nothing in type *logger.Info"#;
        for (template, why) in [
            ("{{.ID", "template: log-tag:1: unclosed action"),
            ("{{.Nothing}}", &format!("template: log-tag:1:2: {nothing}")),
            ("a\n{{.ID}} {{.Nothing}}", &format!("template: log-tag:2:10: {nothing}")),
            ("{{.ID | shout}}", "template: log-tag:1: function \"shout\" not defined"),
            ("{{if .ID}}{{else}}{{shout .ID}}{{end}}", "template: log-tag:1: function \"shout\" not defined"),
            (
                "{{truncate .ID}}",
                "template: log-tag:1:2: executing \"log-tag\" at <truncate>: wrong number of args for truncate: want 2 got 1",
            ),
            ("{{.ID | truncate 5}}", "expected string; found 5"),
            ("{{truncate .ID \"a\"}}", "expected integer; found \"a\""),
            ("{{pad .Name 1 99999999}}", "pad: 99999999 spaces"),
            ("{{(.ID}}", "unclosed left paren"),
            ("{{}}", "missing value for command"),
            ("{{\"x}}", "unterminated quoted string"),
            ("{{.ID.Foo}}", "can't evaluate field Foo in type string"),
            ("{{template \"x\"}}", "{{template}} is not supported by this engine"),
            ("{{define \"x\"}}a{{end}}", "{{define}} is not supported by this engine"),
        ] {
            let said = Tag::parse(template).unwrap_err();
            assert!(said.contains(why), "{template}: {said}");
        }
        assert!(Tag::parse(&format!("{{{{{}.ID}}}}", "(".repeat(1000))).is_err());
    }

    #[test]
    fn no_tag_fills_the_memory_or_takes_for_ever() {
        let double = r#"{{$x = printf "%s%s" $x $x}}"#.repeat(60);
        assert!(Tag::parse(&format!("{{{{$x := `aaaa`}}}}{double}")).unwrap_err().contains("longer than"));
        let loops = "{{range 100000}}".repeat(5) + &"{{end}}".repeat(5);
        assert!(Tag::parse(&loops).unwrap_err().contains("range iteration budget"));
        assert!(Tag::parse(&"x".repeat(MAX_TAG + 1)).unwrap_err().contains("longer than"));
    }
}
