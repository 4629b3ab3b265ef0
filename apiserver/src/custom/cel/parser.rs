//! From words to a tree (the language's grammar), every node of which knows where it stands: the interpreter's own parser
//! does not tell, and knows neither macros with two variables nor those of optional values.
//!
//! Where nodes stand is what messages point at, as cel-go's parser has it: operators at their sign, calls at the bracket
//! that opens their arguments, what a macro makes at the macro's call.

use super::lexer::Token;
use super::macros;
use super::source::Issue;
use kube_cel::cel::IdedExpr;
use kube_cel::cel::common::ast::{
    CallExpr, EntryExpr, Expr, IdedEntryExpr, ListExpr, LiteralValue, MapEntryExpr, MapExpr, SelectExpr, StructExpr,
    StructFieldExpr, operators,
};
use std::collections::HashMap;

/// Words that are no names.
pub const RESERVED: [&str; 21] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "package",
    "namespace",
    "null",
    "return",
    "true",
    "var",
    "void",
    "while",
];

/// A tree, and the characters before each of its nodes.
#[derive(Debug)]
pub struct Parsed {
    pub tree: IdedExpr,
    pub offsets: HashMap<u64, u32>,
}

/// Why there is no tree.
#[derive(Debug)]
pub enum Failure {
    /// It does not follow the grammar.
    Syntax,
    /// It is nested deeper than upstream takes.
    TooDeep(&'static str),
    Issues(Vec<Issue>),
}

/// How deep expressions may stand in each other, and how high a tree may be of what upstream's parser counts (cel-go
/// `parser/options.go`, `maxRecursionDepth`).
const MAX_DEPTH: u32 = 250;

/// The words of an expression, and where each stands.
pub type Words = Vec<(Token, u32)>;

/// What there is besides the language that all expressions are written in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dialect {
    /// Times have another name where it runs.
    pub rules: bool,
    /// `cel.bind`.
    pub bindings: bool,
    /// What changes are made of: `Object` and `JSONPatch`.
    pub patches: bool,
}

/// Reads an expression from its words.
///
/// # Errors
/// What is wrong with it.
pub fn parse(words: Words, dialect: Dialect) -> Result<Parsed, Failure> {
    let mut parser = Parser { tokens: words, at: 0, depth: 0, nodes: Nodes::new(dialect) };
    let tree = parser.expression()?;
    if parser.peek() != &Token::End {
        return Err(Failure::Syntax);
    }
    let nodes = parser.nodes;
    if !nodes.issues.is_empty() {
        return Err(Failure::Issues(nodes.issues));
    }
    Ok(Parsed { tree, offsets: nodes.offsets })
}

/// Makes nodes.
pub struct Nodes {
    offsets: HashMap<u64, u32>,
    heights: HashMap<u64, u32>,
    /// A node is higher than upstream takes.
    too_high: bool,
    next: u64,
    pub issues: Vec<Issue>,
    pub dialect: Dialect,
}

impl Nodes {
    fn new(dialect: Dialect) -> Self {
        let (offsets, heights) = (HashMap::new(), HashMap::new());
        Self { offsets, heights, too_high: false, next: 1, issues: Vec::new(), dialect }
    }

    pub fn id(&mut self, offset: u32) -> u64 {
        let id = self.next;
        self.next += 1;
        self.offsets.insert(id, offset);
        id
    }

    pub fn node(&mut self, offset: u32, expr: Expr) -> IdedExpr {
        let height = self.height(&expr);
        let id = self.id(offset);
        self.too_high |= height > MAX_DEPTH;
        self.heights.insert(id, height);
        IdedExpr { id, expr }
    }

    pub fn call(&mut self, offset: u32, name: &str, args: Vec<IdedExpr>) -> IdedExpr {
        self.node(offset, Expr::Call(CallExpr { func_name: name.to_owned(), target: None, args }))
    }

    pub fn offset(&self, node: &IdedExpr) -> u32 {
        self.offsets.get(&node.id).copied().unwrap_or_default()
    }

    /// How high a tree is, of what upstream's parser counts: choices, comparisons, calculations, selections, calls of methods.
    fn height(&self, expr: &Expr) -> u32 {
        let of = |node: &IdedExpr| self.heights.get(&node.id).copied().unwrap_or(0);
        let of_entry = |entry: &IdedEntryExpr| match &entry.expr {
            EntryExpr::StructField(field) => of(&field.value),
            EntryExpr::MapEntry(entry) => of(&entry.key).max(of(&entry.value)),
        };
        match expr {
            Expr::Call(call) => {
                let below = call.target.iter().map(|target| of(target)).chain(call.args.iter().map(of)).max();
                let counts = call.target.is_some() || COUNTED.contains(&call.func_name.as_str());
                below.unwrap_or(0) + u32::from(counts)
            }
            Expr::Select(select) => 1 + of(&select.operand),
            Expr::List(list) => list.elements.iter().map(of).max().unwrap_or(0),
            Expr::Map(map) => map.entries.iter().map(of_entry).max().unwrap_or(0),
            Expr::Struct(message) => message.entries.iter().map(of_entry).max().unwrap_or(0),
            Expr::Comprehension(loops) => {
                let parts = [&loops.iter_range, &loops.accu_init, &loops.loop_cond, &loops.loop_step, &loops.result];
                1 + parts.into_iter().map(of).max().unwrap_or(0)
            }
            Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => 0,
        }
    }

    /// Ends what gets too high while it is made, so that no tree is higher than what goes through it can bear.
    fn bounded(&self) -> Parse<()> {
        if self.too_high { Err(Failure::TooDeep("max recursion depth exceeded")) } else { Ok(()) }
    }
}

/// Operators that count.
const COUNTED: [&str; 16] = [
    operators::CONDITIONAL,
    operators::LESS,
    operators::LESS_EQUALS,
    operators::GREATER_EQUALS,
    operators::GREATER,
    operators::EQUALS,
    operators::NOT_EQUALS,
    operators::IN,
    operators::ADD,
    operators::SUBSTRACT,
    operators::MULTIPLY,
    operators::DIVIDE,
    operators::MODULO,
    operators::INDEX,
    operators::OPT_INDEX,
    operators::OPT_SELECT,
];

struct Parser {
    tokens: Words,
    at: usize,
    /// Expressions that this one stands in.
    depth: u32,
    nodes: Nodes,
}

type Parse<T> = Result<T, Failure>;

/// Operators between two, from those that bind least.
const LEVELS: [&[(&str, &str)]; 3] = [
    &[
        ("<", operators::LESS),
        ("<=", operators::LESS_EQUALS),
        (">=", operators::GREATER_EQUALS),
        (">", operators::GREATER),
        ("==", operators::EQUALS),
        ("!=", operators::NOT_EQUALS),
        ("in", operators::IN),
    ],
    &[("+", operators::ADD), ("-", operators::SUBSTRACT)],
    &[("*", operators::MULTIPLY), ("/", operators::DIVIDE), ("%", operators::MODULO)],
];

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens.get(self.at).map_or(&Token::End, |(token, _)| token)
    }

    fn offset(&self) -> u32 {
        self.tokens.get(self.at).map_or(0, |(_, offset)| *offset)
    }

    fn next_is(&self, ahead: usize, sign: &str) -> bool {
        matches!(self.tokens.get(self.at + ahead), Some((Token::Sign(found), _)) if *found == sign)
    }

    /// Takes a sign, and gives where it stood.
    fn accept(&mut self, sign: &str) -> Option<u32> {
        let offset = self.next_is(0, sign).then(|| self.offset())?;
        self.at += 1;
        Some(offset)
    }

    fn expect(&mut self, sign: &str) -> Parse<u32> {
        self.accept(sign).ok_or(Failure::Syntax)
    }

    fn identifier(&mut self) -> Parse<String> {
        let Token::Identifier(name) = self.peek() else { return Err(Failure::Syntax) };
        let name = name.clone();
        self.at += 1;
        Ok(name)
    }

    fn field(&mut self) -> Parse<String> {
        let Token::Quoted(name) = self.peek() else { return self.identifier() };
        let name = name.clone();
        self.at += 1;
        Ok(name)
    }

    fn expression(&mut self) -> Parse<IdedExpr> {
        if self.depth == MAX_DEPTH {
            return Err(Failure::TooDeep("expression recursion limit exceeded: 250"));
        }
        self.depth += 1;
        let expression = self.choice()?;
        self.depth -= 1;
        self.nodes.bounded()?;
        Ok(expression)
    }

    fn choice(&mut self) -> Parse<IdedExpr> {
        let condition = self.logic("||")?;
        let Some(at) = self.accept("?") else { return Ok(condition) };
        let yes = self.logic("||")?;
        self.expect(":")?;
        let no = self.expression()?;
        Ok(self.nodes.call(at, operators::CONDITIONAL, vec![condition, yes, no]))
    }

    /// Chains of `||` and `&&`, which become trees that are as deep on either side: so they do not nest.
    fn logic(&mut self, sign: &str) -> Parse<IdedExpr> {
        let (mut terms, mut signs) = (vec![self.term(sign)?], Vec::new());
        while let Some(at) = self.accept(sign) {
            signs.push(at);
            terms.push(self.term(sign)?);
        }
        let name = if sign == "||" { operators::LOGICAL_OR } else { operators::LOGICAL_AND };
        let mut terms = terms.into_iter();
        Ok(balanced(&mut self.nodes, name, &signs, &mut terms).unwrap_or_default())
    }

    fn term(&mut self, sign: &str) -> Parse<IdedExpr> {
        if sign == "||" { self.logic("&&") } else { self.binary(0) }
    }

    fn binary(&mut self, level: usize) -> Parse<IdedExpr> {
        let Some(signs) = LEVELS.get(level) else { return self.unary() };
        let mut left = self.binary(level + 1)?;
        loop {
            let word = match self.peek() {
                Token::Sign(sign) => *sign,
                Token::Identifier(name) if name == "in" => "in",
                _ => return Ok(left),
            };
            let Some((_, name)) = signs.iter().find(|(sign, _)| *sign == word) else { return Ok(left) };
            let at = self.offset();
            self.at += 1;
            let right = self.binary(level + 1)?;
            left = self.nodes.call(at, name, vec![left, right]);
            self.nodes.bounded()?;
        }
    }

    fn unary(&mut self) -> Parse<IdedExpr> {
        let number = matches!(self.tokens.get(self.at + 1), Some((Token::Int(_) | Token::Float(_), _)));
        let sign = if self.next_is(0, "!") { "!" } else { "-" };
        // A sign before a number is the number's.
        if !self.next_is(0, sign) || sign == "-" && number {
            return self.member();
        }
        let at = self.offset();
        let mut count = 0;
        while self.accept(sign).is_some() {
            count += 1;
        }
        let operand = self.member()?;
        let name = if sign == "!" { operators::LOGICAL_NOT } else { operators::NEGATE };
        // Two of them are none.
        Ok(if count % 2 == 0 { operand } else { self.nodes.call(at, name, vec![operand]) })
    }

    fn member(&mut self) -> Parse<IdedExpr> {
        let mut node = self.primary()?;
        loop {
            self.nodes.bounded()?;
            if let Some(at) = self.accept(".") {
                node = self.select(node, at)?;
            } else if let Some(at) = self.accept("[") {
                let name = if self.accept("?").is_some() { operators::OPT_INDEX } else { operators::INDEX };
                let index = self.expression()?;
                self.expect("]")?;
                node = self.nodes.call(at, name, vec![node, index]);
            } else {
                return Ok(node);
            }
        }
    }

    fn select(&mut self, operand: IdedExpr, at: u32) -> Parse<IdedExpr> {
        let optional = self.accept("?").is_some();
        let name_at = self.offset();
        let quoted = matches!(self.peek(), Token::Quoted(_));
        let field = self.field()?;
        if matches!(field.as_str(), "true" | "false" | "null" | "in") {
            return Err(Failure::Syntax);
        }
        if optional {
            let name = self.nodes.node(name_at, Expr::Literal(LiteralValue::String(field.into())));
            return Ok(self.nodes.call(at, operators::OPT_SELECT, vec![operand, name]));
        }
        match self.accept("(") {
            Some(_) if quoted => Err(Failure::Syntax),
            Some(open) => {
                let args = self.arguments(")")?;
                Ok(macros::call(&mut self.nodes, open, field, Some(operand), args))
            }
            None => {
                let select = SelectExpr { operand: Box::new(operand), field, test: false };
                Ok(self.nodes.node(at, Expr::Select(select)))
            }
        }
    }

    fn arguments(&mut self, close: &str) -> Parse<Vec<IdedExpr>> {
        let mut args = Vec::new();
        while self.accept(close).is_none() {
            if !args.is_empty() {
                self.expect(",")?;
            }
            args.push(self.expression()?);
        }
        Ok(args)
    }

    fn primary(&mut self) -> Parse<IdedExpr> {
        let at = self.offset();
        if self.accept("(").is_some() {
            let inner = self.expression()?;
            self.expect(")")?;
            return Ok(inner);
        }
        if self.accept("[").is_some() {
            return self.list(at);
        }
        if self.accept("{").is_some() {
            let entries = self.entries(false)?;
            return Ok(self.nodes.node(at, Expr::Map(MapExpr { entries })));
        }
        let dot = self.accept(".").is_some();
        match self.peek() {
            Token::Identifier(name) if dot || !matches!(name.as_str(), "true" | "false" | "null") => self.name(dot),
            _ if dot => Err(Failure::Syntax),
            _ => self.literal(),
        }
    }

    /// A variable, a call, or a message and its fields.
    fn name(&mut self, dot: bool) -> Parse<IdedExpr> {
        if let Some(message) = self.message(dot)? {
            return Ok(message);
        }
        let at = self.offset();
        let name = self.identifier()?;
        if name == "in" {
            return Err(Failure::Syntax);
        }
        if RESERVED.contains(&name.as_str()) {
            self.nodes.issues.push(Issue { at, message: format!("reserved identifier: {name}") });
        }
        let name = if dot { format!(".{name}") } else { name };
        match self.accept("(") {
            Some(open) => {
                let args = self.arguments(")")?;
                Ok(macros::call(&mut self.nodes, open, name, None, args))
            }
            None => Ok(self.nodes.node(at, Expr::Ident(name))),
        }
    }

    fn message(&mut self, dot: bool) -> Parse<Option<IdedExpr>> {
        let mut ahead = 1;
        while self.next_is(ahead, ".")
            && matches!(self.tokens.get(self.at + ahead + 1), Some((Token::Identifier(_), _)))
        {
            ahead += 2;
        }
        if !self.next_is(ahead, "{") {
            return Ok(None);
        }
        let mut type_name = if dot { ".".to_owned() } else { String::new() };
        type_name.push_str(&self.identifier()?);
        while self.accept(".").is_some() {
            type_name = format!("{type_name}.{}", self.identifier()?);
        }
        let at = self.expect("{")?;
        let entries = self.entries(true)?;
        Ok(Some(self.nodes.node(at, Expr::Struct(StructExpr { type_name, entries }))))
    }

    /// Where nothing is listed a comma may stand.
    fn lone_comma(&mut self, close: &str) {
        if self.next_is(0, ",") && self.next_is(1, close) {
            self.at += 1;
        }
    }

    fn list(&mut self, at: u32) -> Parse<IdedExpr> {
        let (mut elements, mut optional_indices) = (Vec::new(), Vec::new());
        self.lone_comma("]");
        while self.accept("]").is_none() {
            if !elements.is_empty() {
                self.expect(",")?;
                // A comma may stand behind the last.
                if self.accept("]").is_some() {
                    break;
                }
            }
            if self.accept("?").is_some() {
                optional_indices.push(elements.len());
            }
            elements.push(self.expression()?);
        }
        Ok(self.nodes.node(at, Expr::List(ListExpr { elements, optional_indices })))
    }

    fn entries(&mut self, fields: bool) -> Parse<Vec<IdedEntryExpr>> {
        let mut entries: Vec<IdedEntryExpr> = Vec::new();
        self.lone_comma("}");
        while self.accept("}").is_none() {
            if !entries.is_empty() {
                self.expect(",")?;
                if self.accept("}").is_some() {
                    break;
                }
            }
            let optional = self.accept("?").is_some();
            let (field, key) = match fields {
                true => (self.field()?, IdedExpr::default()),
                false => (String::new(), self.expression()?),
            };
            let at = self.expect(":")?;
            let value = self.expression()?;
            let expr = match fields {
                true => EntryExpr::StructField(StructFieldExpr { field, value, optional }),
                false => EntryExpr::MapEntry(MapEntryExpr { key, value, optional }),
            };
            entries.push(IdedEntryExpr { id: self.nodes.id(at), expr });
        }
        Ok(entries)
    }

    fn literal(&mut self) -> Parse<IdedExpr> {
        let at = self.offset();
        let minus = self.accept("-").is_some();
        let token = self.peek().clone();
        self.at += 1;
        let literal = match token {
            Token::Int(text) => whole(&text, minus).map(|value| LiteralValue::Int(value.into())).ok_or("int"),
            Token::Float(text) => {
                let value = text.parse::<f64>().ok().filter(|value| value.is_finite());
                value.map(|value| LiteralValue::Double(if minus { -value } else { value }.into())).ok_or("double")
            }
            _ if minus => return Err(Failure::Syntax),
            Token::Uint(text) => {
                let value = magnitude(&text).and_then(|value| u64::try_from(value).ok());
                value.map(|value| LiteralValue::UInt(value.into())).ok_or("uint")
            }
            Token::Text(text) => Ok(LiteralValue::String(text.into())),
            Token::Bytes(bytes) => Ok(LiteralValue::Bytes(bytes.into())),
            Token::Identifier(name) => match name.as_str() {
                "true" => Ok(LiteralValue::Boolean(true.into())),
                "false" => Ok(LiteralValue::Boolean(false.into())),
                _ => Ok(LiteralValue::Null),
            },
            Token::Quoted(_) | Token::Sign(_) | Token::End => return Err(Failure::Syntax),
        };
        let literal = literal.unwrap_or_else(|kind| {
            self.nodes.issues.push(Issue { at, message: format!("invalid {kind} literal") });
            LiteralValue::Null
        });
        Ok(self.nodes.node(at, Expr::Literal(literal)))
    }
}

fn magnitude(text: &str) -> Option<u128> {
    match text.strip_prefix("0x") {
        Some(digits) => u128::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn whole(text: &str, minus: bool) -> Option<i64> {
    let value = i128::try_from(magnitude(text)?).ok()?;
    i64::try_from(if minus { -value } else { value }).ok()
}

/// A tree over terms, with the operator in the middle at its top.
fn balanced(
    nodes: &mut Nodes,
    name: &str,
    signs: &[u32],
    terms: &mut impl Iterator<Item = IdedExpr>,
) -> Option<IdedExpr> {
    if signs.is_empty() {
        return terms.next();
    }
    let (before, rest) = signs.split_at(signs.len() / 2);
    let (at, after) = rest.split_first()?;
    let left = balanced(nodes, name, before, terms)?;
    let right = balanced(nodes, name, after, terms)?;
    Some(nodes.call(*at, name, vec![left, right]))
}
