//! Expressions in CEL, as rules, policies and selectors are written in: read, checked against the types of what they are
//! given, and measured by what they can cost (cel-go `parser`, `checker`; apiserver `cel`).
//!
//! ```text
//!  text ─► words ─► tree, macros replaced ─► types ─► literals ─► the most it can cost
//! ```
//!
//! | module | what |
//! |---|---|
//! | `lexer`, `parser`, `macros` | from the text to a tree that knows its places |
//! | `types`, `library` (`functions.txt`), `schema`, `given` (`objects.txt`) | what there is to name and to call |
//! | `checker`, `literals` | whether it fits together |
//! | `cost`, `cost_calls` | what it can cost |
//! | `eval`, `values`, `lists`, `optionals`, `format`, `words` | running it |
//! | `spend` | what that costs |
//! | `source` | messages, with the place marked |
//! | `room` | a larger stack, for what is deep |

mod checker;
mod cost;
mod cost_calls;
mod eval;
mod format;
mod given;
mod lexer;
mod library;
mod lists;
mod literals;
mod macros;
mod optionals;
mod parser;
mod room;
mod schema;
mod source;
mod spend;
#[cfg(test)]
mod tests;
mod types;
mod values;
mod words;

pub use eval::TOO_COSTLY;
pub use given::{Given, compile_to};
pub use optionals::of as optional;
pub use room::roomy;
pub use schema::Declared;
pub use types::Type;

use checker::Environment;
use cost::Root;
use kube_cel::cel::parser::Parser;
use kube_cel::cel::{IdedExpr, Value};
use lexer::Token;
use parser::{Dialect, Failure, Parsed, Words};
use room::{Spent, with_room};
use std::collections::HashMap;

/// Longest expression, in characters (cel-go `parser/options.go`).
const MAX_LENGTH: usize = 100_000;

/// What is nested no deeper, and has no more choices, operators and selections, each of which can be one level of the tree,
/// is done on the stack that there is. All else gets a larger one.
const SHALLOW_NESTING: usize = 32;
const SHALLOW_CHOICES: usize = 64;
const SHALLOW_SIGNS: usize = 400;

/// What the library's parser is given, which is asked for its words alone and has no bounds that are known: so many brackets
/// and choices, and no deeper.
const MAX_OPEN: usize = 2000;
const MAX_OPEN_DEPTH: usize = 64;

/// What expressions are checked and measured by.
pub struct Scope<'d> {
    root: Option<Root<'d>>,
    environment: Environment<'d>,
}

/// An expression that fits together.
#[derive(Debug)]
pub struct Compiled {
    pub ty: Type,
    /// The most that it can cost.
    pub cost: u64,
    pub names_old: bool,
}

/// What is wrong with an expression, as upstream says it.
#[derive(Debug)]
pub struct Wrong {
    pub why: String,
    /// It fits together, and cannot be run: upstream takes this for a fault of its own.
    pub internal: bool,
}

impl<'d> Scope<'d> {
    /// Of the rules of a schema. `optional`: what was before may not have been there.
    pub fn new(root: &'d Declared, optional: bool) -> Self {
        let old = if optional { Type::optional(root.ty.clone()) } else { root.ty.clone() };
        let variables = HashMap::from([("self", root.ty.clone()), ("oldSelf", old)]);
        let dialect = Dialect { rules: true, ..Dialect::default() };
        let environment = Environment { variables, objects: root.objects(), composed: HashMap::new(), dialect };
        Self { root: Some(Root { declared: root, variable: None }), environment }
    }

    /// Compiles an expression.
    ///
    /// # Errors
    /// What is wrong with it, as upstream says it.
    pub fn compile(&self, text: &str) -> Result<Compiled, Wrong> {
        let words = with_room(true, || words_of(text)).map_err(unmade)?.map_err(failed)?;
        with_room(is_shallow(&words), || self.compile_words(text, words)).map_err(unmade)?
    }

    fn compile_words(&self, text: &str, words: Words) -> Result<Compiled, Wrong> {
        let Parsed { mut tree, offsets } = read(text, words, self.environment.dialect).map_err(failed)?;
        let told = |issues| failed(source::show(text, issues));
        let checked = checker::check(&mut tree, &offsets, &self.environment).map_err(told)?;
        let issues = literals::check(&tree, &offsets, &checked);
        if !issues.is_empty() {
            return Err(told(issues));
        }
        // Types that have another name where rules run.
        if let Some(name) = checked.elsewhere {
            return Err(unmade(format!("program instantiation failed: reference to undefined type: {name}")));
        }
        if let Some(why) = literals::unfit(&tree) {
            return Err(unmade(format!("program instantiation failed: {why}")));
        }
        let ty = checked.types.get(&tree.id).cloned().unwrap_or(Type::Error);
        let cost = cost::estimate(&tree, &checked, self.root);
        Ok(Compiled { ty, cost, names_old: checked.names_old })
    }
}

fn failed(why: String) -> Wrong {
    Wrong { why: format!("compilation failed: {why}"), internal: false }
}

fn unmade(why: String) -> Wrong {
    Wrong { why, internal: true }
}

/// An expression that can be run.
#[derive(Debug)]
pub struct Program {
    tree: IdedExpr,
    shallow: bool,
}

impl Program {
    /// Reads an expression whose names and types are not known.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let words = with_room(true, || words_of(text))??;
        let shallow = is_shallow(&words);
        let tree = with_room(shallow, || read(text, words, Dialect::default()))??.tree;
        Ok(Self { tree, shallow })
    }

    /// Whether a variable is named in it.
    pub fn names(&self, variable: &str) -> bool {
        with_room(self.shallow, || self.tree.references().has_variable(variable)).unwrap_or(true)
    }

    /// Runs it with variables: what it gives, or why it has no value, and what it cost.
    pub fn measure(&self, variables: Vec<(String, Value)>) -> (eval::Outcome, u64) {
        with_room(self.shallow, || eval::measure(&self.tree, variables)).unwrap_or_else(|why| (Err(why), 0))
    }
}

fn is_shallow(words: &Words) -> bool {
    let (mut depth, mut deepest, mut choices, mut signs) = (0_usize, 0, 0, 0);
    for (token, _) in words {
        let Token::Sign(sign) = token else { continue };
        signs += 1;
        match *sign {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            "?" => choices += 1,
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest <= SHALLOW_NESTING && choices <= SHALLOW_CHOICES && signs <= SHALLOW_SIGNS
}

/// A message that points at no place.
fn placeless(why: &str) -> String {
    format!("ERROR: <input>:-1:0: {why}")
}

fn words_of(text: &str) -> Result<Words, String> {
    let size = text.chars().count();
    if size > MAX_LENGTH {
        return Err(placeless(&format!("expression code point size exceeds limit: size: {size}, limit {MAX_LENGTH}")));
    }
    lexer::tokens(text).map_err(|_| unreadable(text))
}

fn read(text: &str, words: Words, dialect: Dialect) -> Result<Parsed, String> {
    parser::parse(words, dialect).map_err(|failure| match failure {
        Failure::Issues(issues) => source::show(text, issues),
        Failure::TooDeep(why) => placeless(why),
        Failure::Syntax => unreadable(text),
    })
}

/// What is wrong with the grammar. The library's parser is made from the same as upstream's, and has its words for it.
fn unreadable(text: &str) -> String {
    let (mut open, mut depth, mut deepest) = (0, 0_usize, 0);
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' | b'?' => (open, depth) = (open + 1, depth + 1),
            b')' | b']' | b'}' | b':' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    let fits = open <= MAX_OPEN && deepest <= MAX_OPEN_DEPTH;
    // It is slow.
    let parse =
        || Spent::Asked.may(text.len()).then(|| Parser::default().enable_optional_syntax(true).parse(text).err())?;
    match fits.then(|| with_room(false, parse)) {
        // The excerpt below a message is set in by a blank.
        Some(Ok(Some(errors))) => narrowed(&errors.to_string().replace("\n| ", "\n | ")),
        _ => "ERROR: <input>:1:1: Syntax error: the expression cannot be read".to_owned(),
    }
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
