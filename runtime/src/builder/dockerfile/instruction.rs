//! Instructions with their arguments understood, but variables not yet replaced
//! (<https://docs.docker.com/reference/dockerfile/#instructions>).

use super::{
    Kind, Mistake,
    expand::Shell,
    flags::{self, Flags},
    lines::{Document, Heredoc, Line},
};

/// A command: words (exec form), or a text for the shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Exec(Vec<String>),
    Shell(String),
}

/// What HEALTHCHECK asks for; durations in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    pub none: bool,
    pub command: Option<Command>,
    pub interval: i64,
    pub timeout: i64,
    pub start_period: i64,
    pub start_interval: i64,
    pub retries: i64,
}

/// COPY and ADD.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copy {
    pub add: bool,
    pub sources: Vec<String>,
    pub heredocs: Vec<Heredoc>,
    pub destination: String,
    pub from: Option<String>,
    pub chown: Option<String>,
    pub chmod: Option<String>,
    pub checksum: Option<String>,
    pub excludes: Vec<String>,
    pub parents: bool,
    pub link: bool,
    pub keep_git_dir: bool,
    pub unpack: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub command: Command,
    pub heredocs: Vec<Heredoc>,
    pub mounts: Vec<String>,
    pub network: Option<String>,
    pub security: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct From {
    pub image: String,
    pub name: Option<String>,
    pub platform: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Instruction {
    From(From),
    Run(Run),
    Cmd(Command),
    Entrypoint(Command),
    Env(Vec<(String, String)>),
    Arg(Vec<(String, Option<String>)>),
    Label(Vec<(String, String)>),
    Maintainer(String),
    Copy(Copy),
    Workdir(String),
    User(String),
    Expose(Vec<String>),
    Volume(Vec<String>),
    Healthcheck(Health),
    Shell(Vec<String>),
    Stopsignal(String),
    Onbuild(String),
}

/// An instruction and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    pub instruction: Instruction,
    pub first: usize,
    pub last: usize,
    /// As written.
    pub text: String,
}

/// Reads every instruction.
pub fn parse(document: &Document) -> Result<Vec<Placed>, Mistake> {
    document
        .lines
        .iter()
        .map(|line| {
            let kind = match line.keyword.as_str() {
                "onbuild" if line.rest.trim().is_empty() => Kind::EmptyOnbuild,
                keyword if !KEYWORDS.contains(&keyword) => Kind::UnknownInstruction,
                _ => Kind::Syntax,
            };
            let mistake = |message: String| Mistake::new(line.first, message).of(kind);
            let instruction = one(line, document.escape).map_err(mistake)?;
            Ok(Placed { instruction, first: line.first, last: line.last, text: line.text.clone() })
        })
        .collect()
}

const KEYWORDS: [&str; 18] = [
    "add",
    "arg",
    "cmd",
    "copy",
    "entrypoint",
    "env",
    "expose",
    "from",
    "healthcheck",
    "label",
    "maintainer",
    "onbuild",
    "run",
    "shell",
    "stopsignal",
    "user",
    "volume",
    "workdir",
];

fn one(line: &Line, escape: char) -> Result<Instruction, String> {
    let keyword = line.keyword.to_uppercase();
    if !KEYWORDS.contains(&line.keyword.as_str()) {
        return Err(format!("unknown instruction: {keyword}{}", suggestion(&line.keyword)));
    }
    let (given, rest) = flags::split(&line.rest);
    let no_flags = || Flags::read(&given, &[], &[], &[]).map(drop);
    let needs = |count: bool, what: &str| if count { Ok(()) } else { Err(format!("{keyword} requires {what}")) };
    match line.keyword.as_str() {
        "from" => from(&given, &rest),
        "run" => run(&given, &rest, line),
        "copy" | "add" => copy(&given, &rest, line),
        "cmd" | "entrypoint" => {
            no_flags()?;
            let command = command(&rest)?;
            Ok(if line.keyword == "cmd" { Instruction::Cmd(command) } else { Instruction::Entrypoint(command) })
        }
        "env" | "label" => {
            no_flags()?;
            let pairs = pairs(&rest, &keyword, escape)?;
            Ok(if line.keyword == "env" { Instruction::Env(pairs) } else { Instruction::Label(pairs) })
        }
        "arg" => {
            no_flags()?;
            arguments(&rest, escape).map(Instruction::Arg)
        }
        "maintainer" | "workdir" | "user" | "stopsignal" => {
            no_flags()?;
            needs(!rest.is_empty(), "exactly one argument")?;
            Ok(match line.keyword.as_str() {
                "maintainer" => Instruction::Maintainer(rest),
                "workdir" => Instruction::Workdir(rest),
                "user" => Instruction::User(rest),
                _ => Instruction::Stopsignal(rest),
            })
        }
        "expose" => {
            no_flags()?;
            needs(!rest.is_empty(), "at least one argument")?;
            Ok(Instruction::Expose(rest.split_whitespace().map(str::to_owned).collect()))
        }
        "volume" => {
            no_flags()?;
            let paths = list(&rest)?;
            needs(!paths.is_empty(), "at least one argument")?;
            let blank = paths.iter().any(|path| path.trim().is_empty());
            if blank {
                Err("VOLUME specified can not be an empty string".into())
            } else {
                Ok(Instruction::Volume(paths))
            }
        }
        "healthcheck" => health(&given, &rest).map(Instruction::Healthcheck),
        "shell" => {
            no_flags()?;
            needs(!rest.is_empty(), "at least one argument")?;
            match command(&rest)? {
                Command::Exec(words) if !words.is_empty() => Ok(Instruction::Shell(words)),
                Command::Exec(_) => Err("SHELL requires at least one argument".into()),
                Command::Shell(_) => Err("SHELL requires the arguments to be in JSON form".into()),
            }
        }
        _ => onbuild(line, escape, &rest),
    }
}

/// The keyword that somebody may have meant.
fn suggestion(keyword: &str) -> String {
    let near = KEYWORDS.iter().map(|known| (distance(keyword, known), known)).min();
    match near {
        Some((distance, known)) if distance <= 2 && distance * 2 < known.len().min(keyword.len()) => {
            format!(" (did you mean {}?)", known.to_uppercase())
        }
        _ => String::new(),
    }
}

/// How many letters must be changed, added or dropped.
fn distance(a: &str, b: &str) -> usize {
    if a.len() > 32 {
        return usize::MAX;
    }
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut before = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = before + usize::from(x != *y);
            before = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

fn from(given: &[String], rest: &str) -> Result<Instruction, String> {
    let flags = Flags::read(given, &["platform"], &[], &[])?;
    let words: Vec<&str> = rest.split_whitespace().collect();
    let (image, name) = match words[..] {
        [image] => (image, None),
        [image, word, name] if word.eq_ignore_ascii_case("as") => (image, Some(stage_name(name)?)),
        _ => return Err("FROM requires either one or three arguments".into()),
    };
    Ok(Instruction::From(From { image: image.into(), name, platform: flags.text("platform") }))
}

fn stage_name(name: &str) -> Result<String, String> {
    let lower = name.to_lowercase();
    let fine = lower.starts_with(|letter: char| letter.is_ascii_lowercase())
        && lower.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter));
    let wrong = || format!("invalid name for build stage: {name:?}, name can't start with a number or contain symbols");
    if fine { Ok(lower) } else { Err(wrong()) }
}

fn run(given: &[String], rest: &str, line: &Line) -> Result<Instruction, String> {
    let flags = Flags::read(given, &["network", "security"], &["mount"], &[])?;
    if rest.is_empty() {
        return Err("RUN requires at least one argument".into());
    }
    Ok(Instruction::Run(Run {
        command: command(rest)?,
        heredocs: line.heredocs.clone(),
        mounts: flags.all("mount"),
        network: flags.text("network"),
        security: flags.text("security"),
    }))
}

fn copy(given: &[String], rest: &str, line: &Line) -> Result<Instruction, String> {
    let add = line.keyword == "add";
    let keyword = if add { "ADD" } else { "COPY" };
    let (known, switches): (&[&str], &[&str]) = if add {
        (&["chown", "chmod", "checksum"], &["link", "keep-git-dir", "unpack"])
    } else {
        (&["chown", "chmod", "from"], &["link", "parents"])
    };
    let flags = Flags::read(given, known, &["exclude"], switches)?;
    let mut words = list(rest)?;
    let destination = match words.len() {
        0 => return Err(format!("{keyword} requires at least one argument")),
        1 => {
            return Err(format!(
                "{keyword} requires at least two arguments, but only one was provided. Destination could not be determined"
            ));
        }
        _ => words.pop().unwrap_or_default(),
    };
    // The words that announce heredocs are not paths.
    let sources = words.into_iter().filter(|word| line.heredocs.is_empty() || !word.starts_with("<<")).collect();
    let unpack = flags.text("unpack").map(|value| value.eq_ignore_ascii_case("true"));
    Ok(Instruction::Copy(Copy {
        add,
        sources,
        heredocs: line.heredocs.clone(),
        destination,
        from: flags.text("from"),
        chown: flags.text("chown"),
        chmod: flags.text("chmod"),
        checksum: flags.text("checksum"),
        excludes: flags.all("exclude"),
        parents: flags.switch("parents"),
        link: flags.switch("link"),
        keep_git_dir: flags.switch("keep-git-dir"),
        unpack: unpack.or(flags.switch("unpack").then_some(true)),
    }))
}

/// The exec form is a JSON list of strings; what is not JSON is for the shell.
pub fn command(text: &str) -> Result<Command, String> {
    Ok(json(text)?.map_or_else(|| Command::Shell(text.to_owned()), Command::Exec))
}

/// A JSON list, or words parted by blanks.
fn list(text: &str) -> Result<Vec<String>, String> {
    Ok(json(text)?.unwrap_or_else(|| text.split_whitespace().map(str::to_owned).collect()))
}

fn json(text: &str) -> Result<Option<Vec<String>>, String> {
    if !text.trim_start().starts_with('[') {
        return Ok(None);
    }
    // As Go's decoder: what follows the list is not looked at.
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Vec<serde_json::Value>>();
    let Some(Ok(values)) = values.next() else { return Ok(None) };
    let words: Option<Vec<String>> = values.into_iter().map(|value| value.as_str().map(str::to_owned)).collect();
    words.map(Some).ok_or_else(|| "when using JSON array syntax, arrays must be comprised of strings only".into())
}

/// `NAME=VALUE …`, or the old form `NAME VALUE`. Quotes stay.
fn pairs(rest: &str, keyword: &str, escape: char) -> Result<Vec<(String, String)>, String> {
    let words = Shell::raw(escape).words(rest, &|_| None)?;
    let Some(first) = words.first() else { return Err(format!("{keyword} requires at least one argument")) };
    let named = |name: &str| {
        if name.is_empty() { Err(format!("{keyword} names can not be blank")) } else { Ok(name.to_owned()) }
    };
    if !first.contains('=') {
        let Some((name, value)) = rest.split_once(char::is_whitespace) else {
            return Err(format!("{keyword} must have two arguments"));
        };
        return Ok(vec![(named(name)?, value.trim_start().to_owned())]);
    }
    words
        .iter()
        .map(|word| match word.split_once('=') {
            Some((name, value)) => Ok((named(name)?, value.to_owned())),
            None => Err(format!("Syntax error - can't find = in {word:?}. Must be of the form: name=value")),
        })
        .collect()
}

fn arguments(rest: &str, escape: char) -> Result<Vec<(String, Option<String>)>, String> {
    let words = Shell::raw(escape).words(rest, &|_| None)?;
    if words.is_empty() {
        return Err("ARG requires at least one argument".into());
    }
    words
        .iter()
        .map(|word| {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (word.as_str(), None),
            };
            if name.is_empty() { Err("ARG names can not be blank".into()) } else { Ok((name.to_owned(), value)) }
        })
        .collect()
}

fn health(given: &[String], rest: &str) -> Result<Health, String> {
    let known = ["interval", "timeout", "start-period", "start-interval", "retries"];
    let flags = Flags::read(given, &known, &[], &[])?;
    let (kind, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let mut out = Health::default();
    match kind.to_uppercase().as_str() {
        "" => return Err("HEALTHCHECK requires at least one argument".into()),
        "NONE" if rest.trim().is_empty() && given.is_empty() => {
            out.none = true;
            return Ok(out);
        }
        "NONE" => return Err("HEALTHCHECK NONE takes no arguments".into()),
        "CMD" => {}
        other => return Err(format!("Unknown type {other:?} in HEALTHCHECK (try CMD)")),
    }
    out.command = Some(match command(rest.trim())? {
        Command::Exec(words) if words.is_empty() => return Err("Missing command after HEALTHCHECK CMD".into()),
        Command::Shell(text) if text.is_empty() => return Err("Missing command after HEALTHCHECK CMD".into()),
        command => command,
    });
    for (name, place) in [
        ("interval", &mut out.interval),
        ("timeout", &mut out.timeout),
        ("start-period", &mut out.start_period),
        ("start-interval", &mut out.start_interval),
    ] {
        let Some(text) = flags.text(name).filter(|text| !text.is_empty()) else { continue };
        let duration =
            crate::docker::system::go_duration(&text).ok_or_else(|| format!("time: invalid duration {text:?}"))?;
        if duration != 0 && duration < 1_000_000 {
            return Err(format!("Interval {name:?} cannot be less than 1ms"));
        }
        *place = duration;
    }
    if let Some(text) = flags.text("retries").filter(|text| !text.is_empty()) {
        let retries: i64 = text.parse().map_err(|_| format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))?;
        if !(0..=i64::from(i32::MAX)).contains(&retries) {
            return Err(format!("--retries cannot be negative ({retries})"));
        }
        out.retries = retries;
    }
    Ok(out)
}

fn onbuild(line: &Line, escape: char, rest: &str) -> Result<Instruction, String> {
    let (trigger, arguments) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    match trigger.to_uppercase().as_str() {
        "" => return Err("ONBUILD requires at least one argument".into()),
        "ONBUILD" => return Err("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".into()),
        word @ ("MAINTAINER" | "FROM") => return Err(format!("{word} isn't allowed as an ONBUILD trigger")),
        _ => {}
    }
    // It is judged now, and done when somebody builds on the image.
    let inner = Line { keyword: trigger.to_lowercase(), rest: arguments.trim().to_owned(), ..line.clone() };
    one(&inner, escape)?;
    let mut text = line.rest.clone();
    for heredoc in &line.heredocs {
        text.push_str(&format!("\n{}{}", heredoc.content, heredoc.name));
    }
    Ok(Instruction::Onbuild(text))
}
