//! The log option `tag`: `{{.Name}}/{{truncate .ID 5}}`. Go's templates as far as tags need them, with dockerd's functions
//! (moby `daemon/logger/templates/templates.go`, `daemon/logger/loggerutils/log_tag.go`); anything else is refused.

use super::{Record, spec::arguments};

/// Nobody nests deeper.
const MAX_DEPTH: usize = 16;
/// A tag is part of every line.
const MAX_TAG: usize = 64 << 10;

/// A template that was read.
#[derive(Clone, Debug, Default)]
pub struct Tag(Vec<Part>);

#[derive(Clone, Debug)]
enum Part {
    Text(String),
    Action(Pipeline),
}

/// Commands, each of which gets what the one before it gives as its last argument.
type Pipeline = Vec<Command>;

#[derive(Clone, Debug)]
enum Command {
    Operand(Operand),
    Call(Function, Vec<Operand>),
}

#[derive(Clone, Debug)]
enum Operand {
    Field(Field),
    Text(String),
    Number(i64),
    Group(Pipeline),
}

/// What a tag can name (Docker's documentation, "Log tags").
#[derive(Clone, Copy, Debug, PartialEq)]
enum Field {
    Id,
    FullId,
    Name,
    ImageId,
    ImageFullId,
    ImageName,
    DaemonName,
    Command,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Function {
    Json,
    Split,
    Join,
    Title,
    Lower,
    Upper,
    Pad,
    Truncate,
}

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Text(String),
    List(Vec<String>),
    Number(i64),
}

impl Field {
    fn named(name: &str) -> Result<Field, String> {
        Ok(match name {
            ".ID" => Field::Id,
            ".FullID" | ".ContainerID" => Field::FullId,
            ".Name" => Field::Name,
            ".ImageID" => Field::ImageId,
            ".ImageFullID" | ".ContainerImageID" => Field::ImageFullId,
            ".ImageName" | ".ContainerImageName" => Field::ImageName,
            ".DaemonName" => Field::DaemonName,
            ".Command" => Field::Command,
            other => return Err(format!("{{{{{other}}}}} is not supported by this engine")),
        })
    }

    fn of(self, id: &str, record: &Record) -> String {
        let short = |id: &str| id.trim_start_matches("sha256:").chars().take(12).collect::<String>();
        match self {
            Field::Id => short(id),
            Field::FullId => id.to_owned(),
            Field::Name => record.name.clone(),
            Field::ImageId => short(&record.image_id),
            Field::ImageFullId => record.image_id.clone(),
            Field::ImageName => record.config.image.clone(),
            Field::DaemonName => "docker".into(),
            Field::Command => arguments(record).join(" "),
        }
    }
}

impl Function {
    fn named(name: &str) -> Option<Function> {
        Some(match name {
            "json" => Function::Json,
            "split" => Function::Split,
            "join" => Function::Join,
            "title" => Function::Title,
            "lower" => Function::Lower,
            "upper" => Function::Upper,
            "pad" => Function::Pad,
            "truncate" => Function::Truncate,
            _ => return None,
        })
    }

    fn call(self, arguments: &[Value]) -> Result<Value, String> {
        use Value::{List, Number, Text};
        Ok(match (self, arguments) {
            (Function::Json, [value]) => Text(match value {
                Text(text) => serde_json::Value::from(text.as_str()).to_string(),
                List(list) => serde_json::Value::from(list.as_slice()).to_string(),
                Number(number) => number.to_string(),
            }),
            (Function::Split, [Text(text), Text(separator)]) if separator.is_empty() => {
                List(text.chars().map(String::from).collect())
            }
            (Function::Split, [Text(text), Text(separator)]) => {
                List(text.split(separator.as_str()).map(str::to_owned).collect())
            }
            (Function::Join, [List(list), Text(separator)]) => Text(list.join(separator)),
            (Function::Title, [Text(text)]) => Text(title(text)),
            (Function::Lower, [Text(text)]) => Text(text.to_lowercase()),
            (Function::Upper, [Text(text)]) => Text(text.to_uppercase()),
            (Function::Pad, [Text(text), Number(before), Number(after)]) => Text(pad(text, *before, *after)?),
            (Function::Truncate, [Text(text), Number(length)]) => {
                let length = usize::try_from(*length).map_err(|_| "truncate: a length below zero".to_owned())?;
                Text(text.chars().take(length).collect())
            }
            (function, arguments) => {
                return Err(format!(
                    "error calling {}: wrong arguments {arguments:?}",
                    format!("{function:?}").to_lowercase()
                ));
            }
        })
    }
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
fn pad(text: &str, before: i64, after: i64) -> Result<String, String> {
    let spaces = |count: i64| match usize::try_from(count) {
        Ok(count) if count <= MAX_TAG => Ok(" ".repeat(count)),
        _ => Err(format!("pad: {count} spaces")),
    };
    let (before, after) = (spaces(before)?, spaces(after)?);
    Ok(if text.is_empty() { String::new() } else { format!("{before}{text}{after}") })
}

impl Tag {
    /// Reads a template. What goes wrong with it whatever the container is goes wrong now.
    pub fn parse(template: &str) -> Result<Tag, String> {
        let tag = Tag::read(template).map_err(|why| format!("template: log-tag:1: {why}"))?;
        tag.text("", &Record::default())?;
        Ok(tag)
    }

    fn read(template: &str) -> Result<Tag, String> {
        let (mut out, mut rest) = (Vec::new(), template);
        while let Some((text, after)) = rest.split_once("{{") {
            let (after, trimmed) = match after.strip_prefix("- ") {
                Some(after) => (after, text.trim_end()),
                None => (after, text),
            };
            out.push(Part::Text(trimmed.to_owned()));
            let mut words = Words { rest: after };
            out.push(Part::Action(words.pipeline(0)?));
            words.skip();
            rest = match (words.rest.strip_prefix("}}"), words.rest.strip_prefix("-}}")) {
                (Some(rest), _) => rest,
                (_, Some(rest)) => rest.trim_start(),
                _ if words.rest.is_empty() => return Err("unclosed action".into()),
                _ => return Err(format!("unexpected {:?} in operand", words.rest.chars().next().unwrap_or(' '))),
            };
        }
        out.push(Part::Text(rest.to_owned()));
        Ok(Tag(out))
    }

    /// What it says of a container.
    pub fn text(&self, id: &str, record: &Record) -> Result<String, String> {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Action(pipeline) => match run(pipeline, id, record)? {
                    Value::Text(text) => out.push_str(&text),
                    Value::Number(number) => out.push_str(&number.to_string()),
                    // As Go prints a slice.
                    Value::List(list) => out.push_str(&format!("[{}]", list.join(" "))),
                },
            }
            if out.len() > MAX_TAG {
                return Err(format!("the tag is longer than {MAX_TAG} bytes"));
            }
        }
        Ok(out)
    }
}

fn run(pipeline: &Pipeline, id: &str, record: &Record) -> Result<Value, String> {
    let operand = |operand: &Operand| match operand {
        Operand::Field(field) => Ok(Value::Text(field.of(id, record))),
        Operand::Text(text) => Ok(Value::Text(text.clone())),
        Operand::Number(number) => Ok(Value::Number(*number)),
        Operand::Group(pipeline) => run(pipeline, id, record),
    };
    let mut before = None;
    for command in pipeline {
        before = Some(match (command, before) {
            (Command::Operand(value), None) => operand(value)?,
            (Command::Operand(_), Some(_)) => return Err("can't give argument to non-function".into()),
            (Command::Call(function, arguments), before) => {
                let mut arguments = arguments.iter().map(operand).collect::<Result<Vec<_>, _>>()?;
                arguments.extend(before);
                function.call(&arguments)?
            }
        });
    }
    before.ok_or_else(|| "missing value for command".to_owned())
}

/// What is left of an action.
struct Words<'a> {
    rest: &'a str,
}

impl Words<'_> {
    fn skip(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// Up to the end of the action or a closing parenthesis.
    fn pipeline(&mut self, depth: usize) -> Result<Pipeline, String> {
        if depth > MAX_DEPTH {
            return Err("nested too deeply".into());
        }
        let mut out = vec![self.command(depth)?];
        loop {
            self.skip();
            match self.rest.strip_prefix('|') {
                Some(rest) => self.rest = rest,
                None => return Ok(out),
            }
            out.push(self.command(depth)?);
        }
    }

    fn command(&mut self, depth: usize) -> Result<Command, String> {
        self.skip();
        let name = self.rest.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').next();
        let name = name.filter(|name| name.starts_with(|letter: char| letter.is_ascii_alphabetic()));
        let Some(name) = name else {
            let first = self.operand(depth)?.ok_or("missing value for command")?;
            return match self.operand(depth)? {
                None => Ok(Command::Operand(first)),
                Some(_) => Err("can't give argument to non-function".into()),
            };
        };
        let function = Function::named(name).ok_or_else(|| format!("function {name:?} not defined"))?;
        self.rest = &self.rest[name.len()..];
        let mut arguments = Vec::new();
        while let Some(argument) = self.operand(depth)? {
            arguments.push(argument);
        }
        Ok(Command::Call(function, arguments))
    }

    /// The next operand, if there is one.
    fn operand(&mut self, depth: usize) -> Result<Option<Operand>, String> {
        self.skip();
        let first = self.rest.chars().next();
        let word = |ends: fn(char) -> bool, rest: &str| rest.find(ends).unwrap_or(rest.len());
        Ok(Some(match first {
            Some('.') => {
                let end = word(|letter| !letter.is_ascii_alphanumeric() && !matches!(letter, '.' | '_'), self.rest);
                let (name, rest) = self.rest.split_at(end);
                self.rest = rest;
                Operand::Field(Field::named(name)?)
            }
            Some('"') => {
                // As far as JSON's texts are Go's.
                let mut values = serde_json::Deserializer::from_str(self.rest).into_iter::<String>();
                let text = values.next().and_then(Result::ok).ok_or("unterminated quoted string")?;
                self.rest = &self.rest[values.byte_offset()..];
                Operand::Text(text)
            }
            Some('`') => {
                let (text, rest) = self.rest[1..].split_once('`').ok_or("unterminated raw quoted string")?;
                self.rest = rest;
                Operand::Text(text.to_owned())
            }
            Some('(') => {
                self.rest = &self.rest[1..];
                let inner = self.pipeline(depth + 1)?;
                self.skip();
                self.rest = self.rest.strip_prefix(')').ok_or("unclosed left paren")?;
                Operand::Group(inner)
            }
            Some(letter) if letter.is_ascii_digit() || letter == '-' && !self.rest.starts_with("-}}") => {
                let end = 1 + word(|letter| !letter.is_ascii_digit(), &self.rest[1..]);
                let number =
                    self.rest[..end].parse().map_err(|_| format!("bad number syntax: {:?}", &self.rest[..end]))?;
                self.rest = &self.rest[end..];
                Operand::Number(number)
            }
            _ => return Ok(None),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_made_of_fields_and_functions() {
        let record =
            Record { name: "web-front".into(), image_id: "sha256:0123456789abcdef".into(), ..Record::default() };
        for (template, text) in [
            ("plain", "plain"),
            ("{{.Name}}-{{.ID | upper}}-{{ .ImageID }}", "web-front-0123456789AB-0123456789ab"),
            ("{{upper .Name}} {{title .Name}} {{.Name | lower | json}}", r#"WEB-FRONT Web-Front "web-front""#),
            (r#"{{split .Name "-"}} {{json (split .Name "-")}}"#, r#"[web front] ["web","front"]"#),
            (r#"{{join (split .Name "-") "_" | upper}}"#, "WEB_FRONT"),
            ("{{truncate .ID 4}}|{{pad .DaemonName 1 2}}|{{truncate .Name 50}}", "0123| docker  |web-front"),
            ("a {{- .DaemonName -}} b {{`x`}}{{\"\\\"\"}}", "adockerb x\""),
        ] {
            assert_eq!(
                Tag::parse(template).unwrap().text("0123456789abcdef", &record).as_deref(),
                Ok(text),
                "{template}"
            );
        }
    }

    #[test]
    fn mistakes_are_told_when_the_template_is_read() {
        for (template, why) in [
            ("{{.ID", "unclosed action"),
            ("{{.Nothing}}", "{{.Nothing}} is not supported by this engine"),
            ("{{.ID | shout}}", "function \"shout\" not defined"),
            ("{{truncate .ID}}", "error calling truncate: wrong arguments"),
            ("{{.ID | truncate 5}}", "error calling truncate: wrong arguments"),
            ("{{pad .Name 1 99999999}}", "pad: 99999999 spaces"),
            ("{{(.ID}}", "unclosed left paren"),
            ("{{.ID .Name}}", "can't give argument to non-function"),
            ("{{}}", "missing value for command"),
            ("{{\"x}}", "unterminated quoted string"),
        ] {
            let said = Tag::parse(template).unwrap_err();
            assert!(said.contains(why), "{template}: {said}");
        }
        assert!(Tag::parse(&format!("{{{{{}.ID}}}}", "(".repeat(100))).unwrap_err().contains("too deeply"));
    }
}
