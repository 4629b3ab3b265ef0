//! What instructions that run nothing change of an image's configuration, and how the image's history tells it
//! (moby `builder/dockerfile/dispatchers.go`; history is read by people and compared by caches).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::dockerfile::{
    expand::Shell,
    instruction::{Command, Health, Instruction},
};
use crate::images::manifest::ImageConfig;

/// Arguments that need no ARG and leave no trace in the image.
const PREDEFINED: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Ports that one EXPOSE may name.
const MAX_PORTS: usize = 65_536;

/// Whether a build may be given an argument without an ARG for it.
pub fn is_predefined(name: &str) -> bool {
    PREDEFINED.contains(&name)
}

/// What a stage knows beside the image so far.
#[derive(Clone, Debug)]
pub struct Scope {
    pub escape: char,
    /// The build's arguments as they were given.
    pub given: BTreeMap<String, Option<String>>,
    /// Those before the first stage.
    pub global: BTreeMap<String, String>,
    /// Those that the stage declared.
    pub declared: BTreeMap<String, Option<String>>,
    /// CMD came in this stage.
    pub command_set: bool,
}

impl Scope {
    pub fn new(escape: char, given: &BTreeMap<String, Option<String>>, global: &BTreeMap<String, String>) -> Scope {
        Scope { escape, given: given.clone(), global: global.clone(), declared: BTreeMap::new(), command_set: false }
    }

    /// The arguments that a command sees: those declared, and predefined ones that were given.
    pub fn arguments(&self, config: &ImageConfig) -> BTreeMap<String, String> {
        let mut out = BTreeMap::new();
        for (name, value) in &self.given {
            if let (true, Some(value)) = (is_predefined(name), value) {
                out.insert(name.clone(), value.clone());
            }
        }
        for (name, value) in &self.declared {
            if let Some(value) = value {
                out.insert(name.clone(), value.clone());
            }
        }
        out.retain(|name, _| variable(config, name).is_none());
        out
    }

    /// Those of them that the history tells.
    pub fn told_arguments(&self, config: &ImageConfig) -> Vec<String> {
        let told = |name: &str| !is_predefined(name) || self.declared.contains_key(name);
        let arguments = self.arguments(config);
        arguments.iter().filter(|(name, _)| told(name)).map(|(name, value)| format!("{name}={value}")).collect()
    }

    pub fn expand(&self, text: &str, config: &ImageConfig) -> Result<String, String> {
        let arguments = self.arguments(config);
        let lookup = |name: &str| variable(config, name).or_else(|| arguments.get(name).cloned());
        Shell::new(self.escape).word(text, &lookup)
    }

    fn expand_words(&self, text: &str, config: &ImageConfig) -> Result<Vec<String>, String> {
        let arguments = self.arguments(config);
        let lookup = |name: &str| variable(config, name).or_else(|| arguments.get(name).cloned());
        Shell::new(self.escape).words(text, &lookup)
    }
}

/// A variable of the image.
fn variable(config: &ImageConfig, name: &str) -> Option<String> {
    let mut values = config.config.env.iter().filter_map(|entry| entry.split_once('='));
    values.find(|(own, _)| *own == name).map(|(_, value)| value.to_owned())
}

/// What every image that a stage begins with has.
pub fn begin(config: &mut ImageConfig) {
    if variable(config, "PATH").is_none() {
        config.config.env.push(DEFAULT_PATH.into());
    }
}

/// The shell of the shell form.
pub fn shell(config: &ImageConfig) -> Vec<String> {
    if config.config.shell.is_empty() { vec!["/bin/sh".into(), "-c".into()] } else { config.config.shell.clone() }
}

/// A command with the shell before it where it needs one.
pub fn words(command: &Command, config: &ImageConfig) -> Vec<String> {
    match command {
        Command::Exec(words) => words.clone(),
        Command::Shell(text) => shell(config).into_iter().chain([text.clone()]).collect(),
    }
}

/// How history tells of a step that ran nothing.
pub fn told(config: &ImageConfig, text: &str) -> String {
    format!("{} #(nop) {text}", shell(config).join(" "))
}

/// Applies an instruction that touches the configuration alone; what history says of it.
pub fn apply(instruction: &Instruction, config: &mut ImageConfig, scope: &mut Scope) -> Result<String, String> {
    let before = config.clone();
    let text = match instruction {
        Instruction::Env(pairs) => {
            let pairs = expanded(pairs, scope, &before)?;
            for (name, value) in &pairs {
                let entry = format!("{name}={value}");
                let place = config.config.env.iter_mut().find(|entry| entry.split('=').next() == Some(name));
                match place {
                    Some(place) => *place = entry,
                    None => config.config.env.push(entry),
                }
            }
            format!("ENV {}", joined(&pairs))
        }
        Instruction::Label(pairs) => {
            let pairs = expanded(pairs, scope, &before)?;
            config.config.labels.extend(pairs.iter().cloned());
            format!("LABEL {}", joined(&pairs))
        }
        Instruction::Arg(arguments) => declare(arguments, scope, &before)?,
        Instruction::Maintainer(name) => {
            config.author = name.clone();
            format!("MAINTAINER {name}")
        }
        Instruction::User(user) => {
            config.config.user = scope.expand(user, &before)?;
            format!("USER {}", config.config.user)
        }
        Instruction::Expose(ports) => expose(ports, config, scope)?,
        Instruction::Volume(paths) => {
            let paths = paths.iter().map(|path| scope.expand(path, &before)).collect::<Result<Vec<_>, _>>()?;
            if paths.iter().any(|path| path.trim().is_empty()) {
                return Err("VOLUME specified can not be an empty string".into());
            }
            config.config.volumes.extend(paths.iter().map(|path| (path.clone(), json!({}))));
            format!("VOLUME [{}]", paths.join(" "))
        }
        Instruction::Cmd(command) => {
            config.config.cmd = words(command, &before);
            config.config.args_escaped = false;
            scope.command_set = true;
            format!("CMD {}", quoted(&config.config.cmd))
        }
        Instruction::Entrypoint(command) => {
            config.config.entrypoint = words(command, &before);
            // A CMD that came with the base was for the base's entry point.
            if !scope.command_set {
                config.config.cmd.clear();
            }
            format!("ENTRYPOINT {}", quoted(&config.config.entrypoint))
        }
        Instruction::Shell(words) => {
            config.config.shell = words.clone();
            format!("SHELL [{}]", words.join(" "))
        }
        Instruction::Stopsignal(signal) => {
            let signal = scope.expand(signal, &before)?;
            let number = coracle_launcher::cli::signal_number(&signal.to_uppercase());
            if !number.is_ok_and(|number| number > 0) {
                return Err(format!("Invalid signal: {signal}"));
            }
            config.config.stop_signal = signal.clone();
            format!("STOPSIGNAL {signal}")
        }
        Instruction::Healthcheck(health) => health_of(health, config),
        Instruction::Onbuild(trigger) => {
            config.config.on_build.push(trigger.clone());
            format!("ONBUILD {trigger}")
        }
        _ => return Err("this instruction changes more than the configuration".into()),
    };
    // The shell that is named is the new one, as dockerd has it.
    Ok(told(config, &format!(" {text}")))
}

fn expanded(pairs: &[(String, String)], scope: &Scope, config: &ImageConfig) -> Result<Vec<(String, String)>, String> {
    pairs.iter().map(|(name, value)| Ok((scope.expand(name, config)?, scope.expand(value, config)?))).collect()
}

fn joined(pairs: &[(String, String)]) -> String {
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

fn declare(arguments: &[(String, Option<String>)], scope: &mut Scope, config: &ImageConfig) -> Result<String, String> {
    let mut told = Vec::new();
    for (name, default) in arguments {
        let default = default.as_deref().map(|text| scope.expand(text, config)).transpose()?;
        told.push(default.as_ref().map_or_else(|| name.clone(), |value| format!("{name}={value}")));
        let given = scope.given.get(name).cloned().flatten();
        let value = given.or(default).or_else(|| scope.global.get(name).cloned());
        scope.declared.insert(name.clone(), value);
    }
    Ok(format!("ARG {}", told.join(" ")))
}

fn expose(ports: &[String], config: &mut ImageConfig, scope: &Scope) -> Result<String, String> {
    let mut all = BTreeSet::new();
    for port in ports {
        all.extend(scope.expand_words(port, config)?);
    }
    for text in &all {
        let bad = || format!("Invalid containerPort: {text}");
        let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocol = protocol.to_lowercase();
        if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
            return Err(format!("Invalid proto: {protocol}"));
        }
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse::<u16>().map_err(|_| bad())?, last.parse::<u16>().map_err(|_| bad())?);
        if first > last || usize::from(last - first) >= MAX_PORTS {
            return Err(bad());
        }
        for port in first..=last {
            config.config.exposed_ports.insert(format!("{port}/{protocol}"), json!({}));
        }
    }
    Ok(format!("EXPOSE {}", all.into_iter().collect::<Vec<_>>().join(" ")))
}

fn health_of(health: &Health, config: &mut ImageConfig) -> String {
    let test = match &health.command {
        None => vec!["NONE".to_owned()],
        Some(Command::Exec(words)) => ["CMD".to_owned()].into_iter().chain(words.clone()).collect(),
        Some(Command::Shell(text)) => vec!["CMD-SHELL".to_owned(), text.clone()],
    };
    let mut check = json!({ "Test": test });
    for (name, value) in [
        ("Interval", health.interval),
        ("Timeout", health.timeout),
        ("StartPeriod", health.start_period),
        ("StartInterval", health.start_interval),
        ("Retries", health.retries),
    ] {
        if value != 0 {
            check[name] = json!(value);
        }
    }
    config.config.healthcheck = Some(check);
    let times = [health.interval, health.timeout, health.start_period, health.start_interval];
    let times: Vec<String> = times.iter().map(|time| format!("{:?}", duration(*time))).collect();
    format!("HEALTHCHECK &{{{} {} {}}}", quoted(&test), times.join(" "), letter(health.retries))
}

/// A list as Go's `%q` writes it.
fn quoted(words: &[String]) -> String {
    format!("[{}]", words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(" "))
}

/// A number as Go's `%q` writes it: a letter in quotes.
fn letter(number: i64) -> String {
    match u32::try_from(number).ok().and_then(char::from_u32) {
        Some('\u{7}') => "'\\a'".into(),
        Some('\u{8}') => "'\\b'".into(),
        Some('\u{b}') => "'\\v'".into(),
        Some('\u{c}') => "'\\f'".into(),
        Some(letter @ ('\n' | '\r' | '\t')) => format!("{letter:?}"),
        Some(letter) if (letter as u32) < 0x20 || letter as u32 == 0x7f => format!("'\\x{:02x}'", letter as u32),
        Some(letter) => format!("'{letter}'"),
        None => "'\u{fffd}'".into(),
    }
}

/// A duration as Go's `String` writes it.
fn duration(nanoseconds: i64) -> String {
    let fraction = |value: f64| {
        let text = format!("{value:.9}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match nanoseconds {
        0 => "0s".into(),
        short if short < 1_000_000_000 => format!("{}ms", fraction(short as f64 / 1e6)),
        long => {
            let (hours, minutes) = (long / 3_600_000_000_000, long / 60_000_000_000 % 60);
            let seconds = fraction((long % 60_000_000_000) as f64 / 1e9);
            match (hours, minutes) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::dockerfile, *};

    /// Applies lines to an empty image; what history says of each.
    fn history(text: &str, given: &[(&str, &str)]) -> (Vec<String>, ImageConfig, Scope) {
        let given = given.iter().map(|(name, value)| ((*name).to_owned(), Some((*value).to_owned()))).collect();
        let document = dockerfile::lines::read(text).unwrap();
        let mut scope = Scope::new('\\', &given, &[("G".to_owned(), "global".to_owned())].into());
        let mut config = ImageConfig::default();
        begin(&mut config);
        let mut out = Vec::new();
        for placed in dockerfile::parse(&document).unwrap() {
            out.push(apply(&placed.instruction, &mut config, &mut scope).unwrap());
        }
        (out, config, scope)
    }

    /// The expectations are dockerd 20.10's own.
    #[test]
    fn history_is_dockers() {
        let text = "MAINTAINER me <me@x>\nLABEL a=b \"c d\"='e f'\nENV X=1 Y=\"two words\"\nENV OLD style value\nARG FOO=bar\nARG NODEF\nEXPOSE 80 443/udp\nVOLUME /vol /vol2\nUSER web\nHEALTHCHECK --interval=5s CMD true\nSHELL [\"/bin/sh\",\"-ec\"]\nSTOPSIGNAL SIGINT\nENTRYPOINT [\"/bin/cat\"]\nCMD x y\nONBUILD RUN echo onbuild";
        let (told, config, scope) = history(text, &[("NODEF", "q"), ("http_proxy", "p")]);
        assert_eq!(
            told,
            [
                "/bin/sh -c #(nop)  MAINTAINER me <me@x>",
                "/bin/sh -c #(nop)  LABEL a=b c d=e f",
                "/bin/sh -c #(nop)  ENV X=1 Y=two words",
                "/bin/sh -c #(nop)  ENV OLD=style value",
                "/bin/sh -c #(nop)  ARG FOO=bar",
                "/bin/sh -c #(nop)  ARG NODEF",
                "/bin/sh -c #(nop)  EXPOSE 443/udp 80",
                "/bin/sh -c #(nop)  VOLUME [/vol /vol2]",
                "/bin/sh -c #(nop)  USER web",
                "/bin/sh -c #(nop)  HEALTHCHECK &{[\"CMD-SHELL\" \"true\"] \"5s\" \"0s\" \"0s\" \"0s\" '\\x00'}",
                "/bin/sh -ec #(nop)  SHELL [/bin/sh -ec]",
                "/bin/sh -ec #(nop)  STOPSIGNAL SIGINT",
                "/bin/sh -ec #(nop)  ENTRYPOINT [\"/bin/cat\"]",
                "/bin/sh -ec #(nop)  CMD [\"/bin/sh\" \"-ec\" \"x y\"]",
                "/bin/sh -ec #(nop)  ONBUILD RUN echo onbuild",
            ]
        );
        assert_eq!(config.config.env[1..], ["X=1", "Y=two words", "OLD=style value"]);
        assert_eq!(config.config.exposed_ports.keys().collect::<Vec<_>>(), ["443/udp", "80/tcp"]);
        assert_eq!(scope.told_arguments(&config), ["FOO=bar", "NODEF=q"]);
        assert_eq!(scope.arguments(&config)["http_proxy"], "p");
    }

    #[test]
    fn arguments_come_from_the_build_the_default_or_before() {
        let text = "ARG A=1\nARG B=$A\nARG G\nARG C=x\nENV C=env D=$B-$G-$C\nENV D=new E=$D";
        let (_, config, scope) = history(text, &[("A", "given")]);
        assert_eq!(config.config.env[1..], ["C=env", "D=new", "E=given-global-x"]);
        assert!(!scope.arguments(&config).contains_key("C"));
    }

    #[test]
    fn an_entry_point_drops_the_bases_command() {
        let mut config = ImageConfig::default();
        config.config.cmd = vec!["old".into()];
        let mut scope = Scope::new('\\', &BTreeMap::new(), &BTreeMap::new());
        let entrypoint = Instruction::Entrypoint(Command::Exec(vec!["x".into()]));
        apply(&entrypoint, &mut config, &mut scope).unwrap();
        assert!(config.config.cmd.is_empty());
        apply(&Instruction::Cmd(Command::Shell("y".into())), &mut config, &mut scope).unwrap();
        apply(&entrypoint, &mut config, &mut scope).unwrap();
        assert_eq!(config.config.cmd.last().unwrap(), "y");
        let wrong = Instruction::Expose(vec!["99999999".into()]);
        assert_eq!(apply(&wrong, &mut config, &mut scope).unwrap_err(), "Invalid containerPort: 99999999");
        let wrong = Instruction::Stopsignal("FOO".into());
        assert_eq!(apply(&wrong, &mut config, &mut scope).unwrap_err(), "Invalid signal: FOO");
    }

    #[test]
    fn durations_are_written_as_go_does() {
        for (nanoseconds, text) in [
            (0, "0s"),
            (5_000_000_000, "5s"),
            (90_000_000_000, "1m30s"),
            (1_500_000, "1.5ms"),
            (3_600_000_000_000, "1h0m0s"),
        ] {
            assert_eq!(duration(nanoseconds), text);
        }
        assert_eq!((letter(3).as_str(), letter(10).as_str(), letter(65).as_str()), ("'\\x03'", "'\\n'", "'A'"));
    }
}
