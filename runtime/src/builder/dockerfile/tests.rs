use super::{
    expand::Shell,
    instruction::{Command, Instruction},
    lines::read,
    *,
};

fn instructions(text: &str) -> Vec<Instruction> {
    parse(&read(text).unwrap()).unwrap().into_iter().map(|placed| placed.instruction).collect()
}

fn mistake(text: &str) -> (usize, String) {
    let error = match read(text) {
        Ok(document) => parse(&document).unwrap_err(),
        Err(error) => error,
    };
    (error.line, error.message)
}

#[test]
fn lines_go_on_and_comments_do_not_count() {
    let document = read("# hello\n\nFROM a\nRUN one \\\n  # said\n\n  two\n   run three\n").unwrap();
    let lines: Vec<_> = document.lines.iter().map(|line| (line.first, line.last, line.text.as_str())).collect();
    assert_eq!(lines, [(3, 3, "FROM a"), (4, 7, "RUN one   two"), (8, 8, "run three")]);
    assert!(document.warnings[0].contains("RUN one   two"));
}

#[test]
fn directives_come_first() {
    let document = read("# syntax=x/y\n# escape=`\nFROM a\nRUN a `\n b \\\n").unwrap();
    assert_eq!(document.escape, '`');
    assert_eq!(document.lines[1].text, "RUN a  b \\");
    assert_eq!(read("# said\n# escape=`\nFROM a").unwrap().escape, '\\');
    assert!(mistake("# escape=x\nFROM a").1.contains("does not match"));
    assert_eq!(mistake("# escape=`\n# escape=`\nFROM a").0, 2);
}

#[test]
fn heredocs_are_read_to_their_ends() {
    let text = "FROM a\nRUN <<EOF\necho hi\nFROM x\nEOF\nCOPY <<\"A\" <<-B /d/\n$X\nA\n\tb\n\tB\nRUN true\n";
    let all = instructions(text);
    let Instruction::Run(run) = &all[1] else { panic!() };
    assert_eq!((run.heredocs[0].content.as_str(), run.heredocs[0].expand), ("echo hi\nFROM x\n", true));
    let Instruction::Copy(copy) = &all[2] else { panic!() };
    assert!(copy.sources.is_empty() && copy.destination == "/d/");
    assert!(!copy.heredocs[0].expand && copy.heredocs[1].expand);
    assert_eq!(copy.heredocs[1].text(), "b\n");
    assert_eq!(all.len(), 4);
    assert_eq!(mistake("FROM a\nRUN <<EOF\nx\n"), (2, "unterminated heredoc".into()));
}

#[test]
fn forms_of_instructions() {
    let all = instructions(
        "FROM --platform=linux/amd64 a AS Base\nENV A=1 B=\"x y\"\nENV OLD a  b\nCMD [\"a\", \"b\"]\nCMD [\"a\", \"b\nHEALTHCHECK --interval=5s --retries=3 CMD x\nARG A B=2\nCOPY --chown=1:2 --parents [\"a b\", \"/c\"]\nONBUILD RUN x\n",
    );
    let Instruction::From(from) = &all[0] else { panic!() };
    assert_eq!((from.name.as_deref(), from.platform.as_deref()), (Some("base"), Some("linux/amd64")));
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(all[1], Instruction::Env(vec![pair("A", "1"), pair("B", "\"x y\"")]));
    assert_eq!(all[2], Instruction::Env(vec![pair("OLD", "a  b")]));
    assert_eq!(all[3], Instruction::Cmd(Command::Exec(vec!["a".into(), "b".into()])));
    assert_eq!(all[4], Instruction::Cmd(Command::Shell("[\"a\", \"b".into())));
    let Instruction::Healthcheck(health) = &all[5] else { panic!() };
    assert_eq!((health.interval, health.retries), (5_000_000_000, 3));
    assert_eq!(all[6], Instruction::Arg(vec![("A".into(), None), ("B".into(), Some("2".into()))]));
    let Instruction::Copy(copy) = &all[7] else { panic!() };
    assert!(copy.parents && copy.sources == ["a b"] && copy.chown.as_deref() == Some("1:2"));
    assert_eq!(all[8], Instruction::Onbuild("RUN x".into()));
}

#[test]
fn mistakes_are_dockers() {
    for (text, line, message) in [
        ("FROM a\nFOO x", 2, "unknown instruction: FOO"),
        ("FROM a\nRUNN x", 2, "unknown instruction: RUNN (did you mean RUN?)"),
        ("FROM a AS", 1, "FROM requires either one or three arguments"),
        (
            "FROM a\nCOPY x",
            2,
            "COPY requires at least two arguments, but only one was provided. Destination could not be determined",
        ),
        ("FROM a\nCOPY --foo=1 a b", 2, "unknown flag: foo"),
        ("FROM a\nENV X", 2, "ENV must have two arguments"),
        ("FROM a\nENV X=1 Y", 2, "Syntax error - can't find = in \"Y\". Must be of the form: name=value"),
        ("FROM a\nHEALTHCHECK CMDX", 2, "Unknown type \"CMDX\" in HEALTHCHECK (try CMD)"),
        ("FROM a\nONBUILD FROM x", 2, "FROM isn't allowed as an ONBUILD trigger"),
        ("FROM a\nWORKDIR ", 2, "WORKDIR requires exactly one argument"),
        ("FROM a\nSHELL x", 2, "SHELL requires the arguments to be in JSON form"),
        ("FROM a\nRUN [\"a\", 1]", 2, "when using JSON array syntax, arrays must be comprised of strings only"),
        ("# nothing", 0, "file with no instructions"),
    ] {
        assert_eq!(mistake(text), (line, message.to_owned()), "{text}");
    }
}

#[test]
fn variables_are_replaced() {
    let lookup = |name: &str| match name {
        "A" => Some("one".to_owned()),
        "P" => Some("/usr/local/bin".to_owned()),
        "EMPTY" => Some(String::new()),
        "W" => Some("a b".to_owned()),
        _ => None,
    };
    let shell = Shell::new('\\');
    for (text, value) in [
        ("$A", "one"),
        ("${A}x", "onex"),
        ("'$A'", "$A"),
        ("\"$A\"", "one"),
        ("\\$A", "$A"),
        ("\"\\$A \\x\"", "$A \\x"),
        ("$", "$"),
        ("$NONE.", "."),
        ("${NONE:-x$A}", "xone"),
        ("${EMPTY:-x}", "x"),
        ("${EMPTY-x}", ""),
        ("${A:+y}", "y"),
        ("${NONE:+y}", ""),
        ("${P#*/}", "usr/local/bin"),
        ("${P##*/}", "bin"),
        ("${P%/*}", "/usr/local"),
        ("${P%%/*}", ""),
        ("${P/local/share}", "/usr/share/bin"),
        ("${P//\\//-}", "-usr-local-bin"),
        ("a b", "a b"),
    ] {
        assert_eq!(shell.word(text, &lookup).as_deref(), Ok(value), "{text}");
    }
    assert_eq!(shell.words("$W 'c d' \"$W\"", &lookup).unwrap(), ["a", "b", "c d", "a b"]);
    assert!(shell.word("${NONE:?must}", &lookup).unwrap_err().ends_with("NONE: must"));
    for text in ["${A", "${", "'x", "\"x", "${A:x}", "${A!}"] {
        assert!(shell.word(text, &lookup).is_err(), "{text}");
    }
}

/// A small generator, so that a failure names its seed.
fn noise(seed: u64, pieces: &[&str], length: usize) -> String {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..length).map(|_| pieces[random.usize(..pieces.len())]).collect()
}

#[test]
fn no_text_breaks_the_reader() {
    let pieces = [
        "FROM a",
        "\n",
        "\n",
        " ",
        "\\",
        "\\\n",
        "RUN ",
        "COPY ",
        "<<EOF",
        "EOF\n",
        "#",
        "# escape=`\n",
        "`",
        "\"",
        "'",
        "$A",
        "${",
        "}",
        ":-",
        "--from=",
        "--mount=type=cache",
        "[",
        "]",
        ",",
        "\t",
        "ENV A=",
        "é",
        "\r\n",
        "ONBUILD ",
        "HEALTHCHECK ",
        "CMD ",
        "ARG x",
        "\u{feff}",
    ];
    for seed in 0..4000 {
        let text = noise(seed, &pieces, 24);
        if let Ok(document) = read(&text) {
            let count = text.lines().count();
            for line in &document.lines {
                assert!(line.first <= line.last && line.last <= count, "seed {seed}");
            }
            let _ = parse(&document);
        }
    }
}

#[test]
fn quoting_keeps_any_text() {
    let pieces = ["a", "$A", "${B:-c}", " ", "\\", "\"", "*", "é", "#", "="];
    for seed in 0..2000 {
        let text = noise(seed, &pieces, 12);
        let shell = Shell::new('\\');
        let quoted = format!("'{text}'");
        assert_eq!(shell.word(&quoted, &|_| Some("wrong".into())).as_deref(), Ok(text.as_str()), "seed {seed}");
        // Reading words raw and putting them together again loses blanks only.
        if let Ok(words) = Shell::raw('\\').words(&text, &|_| None) {
            let strip = |text: &str| text.chars().filter(|letter| *letter != ' ').collect::<String>();
            assert_eq!(strip(&words.concat()), strip(&text), "seed {seed}");
        }
    }
}
