//! Expressions in CEL, as rules are written in: read, checked against the types that a schema declares, and measured by what
//! they can cost (cel-go `parser`, `checker`; apiserver `cel`).
//!
//! ```text
//!  text ─► words ─► tree, macros replaced ─► types ─► literals ─► the most it can cost
//! ```
//!
//! | module | what |
//! |---|---|
//! | `lexer`, `parser`, `macros` | from the text to a tree that knows its places |
//! | `types`, `library` (`functions.txt`), `schema` | what there is to name and to call |
//! | `checker`, `literals` | whether it fits together |
//! | `cost`, `cost_calls` | what it can cost |
//! | `eval`, `values`, `lists`, `optionals`, `format`, `words` | running it |
//! | `spend` | what that costs |
//! | `source` | messages, with the place marked |

mod checker;
mod cost;
mod cost_calls;
mod eval;
mod format;
mod lexer;
mod library;
mod lists;
mod literals;
mod macros;
mod optionals;
mod parser;
mod schema;
mod source;
mod spend;
#[cfg(test)]
mod tests;
mod types;
mod values;
mod words;

pub use eval::{TOO_COSTLY, measure};
pub use optionals::of as optional;
pub use schema::Declared;
pub use types::Type;

use checker::Environment;
use kube_cel::cel::IdedExpr;
use kube_cel::cel::parser::Parser;
use parser::{Failure, Parsed};
use std::collections::HashMap;

/// Longest expression that is compiled, and deepest nesting of brackets in it: the compiler recurses.
const MAX_LENGTH: usize = 8 << 10;
const MAX_NESTING: usize = 32;
/// Most choices (`a ? b : c`), which nest without brackets.
const MAX_CHOICES: usize = 64;
/// Most operators and selections: each can be one level of the tree.
pub const MAX_OPERATORS: usize = 400;

/// What rules of a schema are checked and measured by.
pub struct Scope<'d> {
    root: &'d Declared,
    environment: Environment<'d>,
}

/// An expression that fits together.
pub struct Compiled {
    pub ty: Type,
    /// The most that it can cost.
    pub cost: u64,
    pub names_old: bool,
}

impl<'d> Scope<'d> {
    /// `optional`: what was before may not have been there.
    pub fn new(root: &'d Declared, optional: bool) -> Self {
        let old = if optional { Type::optional(root.ty.clone()) } else { root.ty.clone() };
        let variables = HashMap::from([("self", root.ty.clone()), ("oldSelf", old)]);
        Self { root, environment: Environment { variables, objects: root.objects() } }
    }

    /// Compiles an expression.
    ///
    /// # Errors
    /// What is wrong with it, as upstream says it.
    pub fn compile(&self, text: &str) -> Result<Compiled, String> {
        let failed = |why: String| format!("compilation failed: {why}");
        let Parsed { mut tree, offsets } = read(text).map_err(failed)?;
        let told = |issues| failed(source::show(text, issues));
        let checked = checker::check(&mut tree, &offsets, &self.environment).map_err(told)?;
        let issues = literals::check(&tree, &offsets, &checked);
        if !issues.is_empty() {
            return Err(told(issues));
        }
        // Types that have another name where rules run.
        if let Some(name) = checked.elsewhere {
            return Err(format!("program instantiation failed: reference to undefined type: {name}"));
        }
        if let Some(why) = literals::unfit(&tree) {
            return Err(format!("program instantiation failed: {why}"));
        }
        let ty = checked.types.get(&tree.id).cloned().unwrap_or(Type::Error);
        let cost = cost::estimate(&tree, &checked, self.root);
        Ok(Compiled { ty, cost, names_old: checked.names_old })
    }
}

/// Reads an expression whose names and types are not known.
///
/// # Errors
/// What is wrong with it.
pub fn parse(text: &str) -> Result<IdedExpr, String> {
    read(text).map(|parsed| parsed.tree)
}

fn read(text: &str) -> Result<Parsed, String> {
    if text.len() > MAX_LENGTH {
        return Err(format!("the expression is longer than {MAX_LENGTH} bytes"));
    }
    check_depth(text)?;
    parser::parse(text).map_err(|failure| match failure {
        Failure::Issues(issues) => source::show(text, issues),
        // The interpreter's parser is made from the same grammar as upstream's, and has its words for what is amiss.
        Failure::Syntax => match Parser::default().enable_optional_syntax(true).parse(text) {
            // The excerpt below a message is set in by a blank.
            Err(errors) => narrowed(&errors.to_string().replace("\n| ", "\n | ")),
            Ok(_) => "ERROR: <input>:1:1: Syntax error: the expression cannot be read".to_owned(),
        },
    })
}

/// Upstream names what must come, where all that could have come instead is named here.
fn narrowed(errors: &str) -> String {
    let line = |line: &str| match line.split_once("expecting {") {
        Some((before, wanted)) if wanted.contains("<EOF>") => format!("{before}expecting <EOF>"),
        Some((before, wanted)) if wanted.contains("')'") && wanted.contains("'=='") => format!("{before}expecting ')'"),
        _ => line.to_owned(),
    };
    errors.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// Refuses what is nested too deep, or so long a chain that the tree behind it is: compiler and interpreter recurse, and
/// their stack is the server's.
fn check_depth(text: &str) -> Result<(), String> {
    let (mut depth, mut choices, mut operators) = (0_usize, 0_usize, 0_usize);
    let mut quote = None;
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match (quote, byte) {
            (Some(_), b'\\') => drop(bytes.next()),
            (Some(open), byte) if byte == open => quote = None,
            (Some(_), _) => {}
            (None, b'\'' | b'"') => quote = Some(byte),
            (None, b'(' | b'[' | b'{') => {
                depth += 1;
                operators += 1;
            }
            (None, b')' | b']' | b'}') => depth = depth.saturating_sub(1),
            (None, b'?') => choices += 1,
            (None, b'.' | b'!' | b'-' | b'+' | b'*' | b'/' | b'%' | b'<' | b'>' | b'=' | b'&' | b'|') => operators += 1,
            _ => {}
        }
        if depth > MAX_NESTING || choices > MAX_CHOICES {
            return Err(format!("the expression is nested deeper than {MAX_NESTING}"));
        }
        if operators > MAX_OPERATORS {
            return Err(format!("the expression has more than {MAX_OPERATORS} operators"));
        }
    }
    Ok(())
}
