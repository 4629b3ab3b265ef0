//! Reads templates as client-go's parser does (`util/jsonpath/parser.go`), place by place.

use super::{Error, Part, Result, Slice, Step, To};
use crate::json::Value;

/// Longest template that is read.
const MAX: usize = 1 << 20;

/// Most filters and unions that stand in each other.
const MAX_DEPTH: usize = 16;

fn error<T>(words: impl Into<String>) -> Result<T> {
    Err(Error(words.into()))
}

pub(super) fn parts(template: &str, depth: usize) -> Result<Vec<Part>> {
    if template.len() > MAX {
        return error("template is too long");
    }
    if depth > MAX_DEPTH {
        return error("template nests too deeply");
    }
    let mut parts = Vec::new();
    let mut rest = template;
    while !rest.is_empty() {
        let (text, behind) = rest.split_at(rest.find('{').unwrap_or(rest.len()));
        if !text.is_empty() {
            parts.push(Part::Text(text.into()));
        }
        rest = behind;
        if let Some(inside) = rest.strip_prefix('{') {
            let mut reader = Reader { rest: inside, steps: Vec::new(), depth };
            reader.action()?;
            rest = reader.rest;
            parts.push(Part::Action(reader.steps));
        }
    }
    Ok(parts)
}

/// What would stand in braces.
fn action(text: &str, depth: usize) -> Result<Vec<Step>> {
    match parts(&format!("{{{text}}}"), depth + 1)?.into_iter().next() {
        Some(Part::Action(steps)) => Ok(steps),
        _ => Ok(Vec::new()),
    }
}

struct Reader<'t> {
    rest: &'t str,
    steps: Vec<Step>,
    depth: usize,
}

impl<'t> Reader<'t> {
    /// Up to the brace that closes the action, and over it.
    fn action(&mut self) -> Result<()> {
        loop {
            if let Some(behind) = self.rest.strip_prefix('}') {
                self.rest = behind;
                return Ok(());
            }
            if let Some(behind) = self.rest.strip_prefix("[?(") {
                self.rest = behind;
                self.filter()?;
            } else if let Some(behind) = self.rest.strip_prefix("..") {
                if self.steps.last() == Some(&Step::Below) {
                    return error("invalid multiple recursive descent");
                }
                self.steps.push(Step::Below);
                self.rest = behind;
                if self.rest.starts_with(is_alphanumeric) {
                    self.field();
                }
            } else {
                self.step()?;
            }
        }
    }

    fn step(&mut self) -> Result<()> {
        let Some(first) = self.rest.chars().next().filter(|c| !is_end_of_line(*c)) else {
            return error("unclosed action");
        };
        match first {
            // The object that is looked at, by which all paths begin.
            ' ' | '@' | '$' => self.rest = &self.rest[1..],
            '[' => self.bracket()?,
            '"' | '\'' => self.quoted(first)?,
            '.' => {
                self.rest = &self.rest[1..];
                self.field();
            }
            '+' | '-' => self.number()?,
            c if is_digit(c) => self.number()?,
            c if is_alphanumeric(c) => {
                let word = self.take(self.rest.find(is_terminator).unwrap_or(self.rest.len()));
                self.steps.push(match word {
                    "true" | "false" => Step::Literal((word == "true").into()),
                    _ => Step::Word(word.to_owned()),
                });
            }
            c => {
                let shown = if c.is_control() { String::new() } else { format!(" '{c}'") };
                return error(format!("unrecognized character in action: U+{:04X}{shown}", u32::from(c)));
            }
        }
        Ok(())
    }

    fn take(&mut self, length: usize) -> &'t str {
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        taken
    }

    /// A name, up to what ends it; with a backslash before it, nothing does.
    fn field(&mut self) {
        let mut end = self.rest.len();
        let mut chars = self.rest.char_indices();
        while let Some((at, c)) = chars.next() {
            if c == '\\' {
                chars.next();
            } else if is_terminator(c) {
                end = at;
                break;
            }
        }
        let name = self.take(end);
        self.steps.push(if name == "*" { Step::All } else { Step::Field(name.replace('\\', "")) });
    }

    fn number(&mut self) -> Result<()> {
        let signed = usize::from(self.rest.starts_with(['+', '-']));
        let end = self.rest[signed..].find(|c| c != '.' && !is_digit(c));
        let text = self.take(end.map_or(self.rest.len(), |end| signed + end));
        let fraction = || text.parse::<f64>().ok().filter(|number| number.is_finite()).map(Value::from);
        match text.parse::<i64>().ok().map(Value::from).or_else(fraction) {
            Some(number) => self.steps.push(Step::Literal(number)),
            None => return error(format!("cannot parse number {text}")),
        }
        Ok(())
    }

    fn quoted(&mut self, quote: char) -> Result<()> {
        let mut before = quote;
        let end = self.rest.char_indices().skip(1).find(|&(_, c)| {
            let ends = c == '\n' || (c == quote && before != '\\');
            before = c;
            ends
        });
        let Some((end, c)) = end else { return error("unterminated quoted string") };
        if c == '\n' {
            return error("unterminated quoted string");
        }
        let whole = self.take(end + 1);
        match unquote(&whole[1..end], quote) {
            Some(text) => self.steps.push(Step::Text(text.into())),
            None => return error(format!("unquote string {whole} error invalid syntax")),
        }
        Ok(())
    }

    fn bracket(&mut self) -> Result<()> {
        let end = self.rest.find([']', '\n']).filter(|end| self.rest[*end..].starts_with(']'));
        let Some(end) = end else { return error("unterminated array") };
        let inner = &self.take(end + 1)[1..end];
        let name =
            inner.strip_prefix('\'').and_then(|inner| inner.strip_suffix('\'')).filter(|name| !name.contains('\''));
        if inner.contains(',') {
            let each = inner.split(',').map(|part| action(&format!("[{}]", part.trim_matches(' ')), self.depth));
            self.steps.push(Step::Union(each.collect::<Result<_>>()?));
        } else if let Some(name) = name {
            // As if it stood behind a dot.
            self.steps.extend(action(&format!(".{name}"), self.depth)?);
        } else {
            self.steps.push(Step::Slice(slice(if inner == "*" { ":" } else { inner })?));
        }
        Ok(())
    }

    /// What stands behind `[?(`.
    fn filter(&mut self) -> Result<()> {
        let mut quote = None;
        let mut closed = false;
        let mut before = ' ';
        let end = self.rest.char_indices().find(|&(_, c)| {
            match c {
                '"' | '\'' if quote.is_none() => quote = Some(c),
                c if Some(c) == quote && before != '\\' => closed = true,
                _ => {}
            }
            before = c;
            c == '\n' || (c == ')' && quote.is_some() == closed)
        });
        let Some((end, ')')) = end else { return error("unterminated filter") };
        let inner = &self.take(end + 1)[..end];
        let Some(behind) = self.rest.strip_prefix(']') else { return error("unclosed array expect ]") };
        self.rest = behind;
        self.steps.push(match comparison(inner) {
            Some((left, operator, right)) => Step::Filter {
                left: action(left, self.depth)?,
                compare: Some((operator.to_owned(), action(right, self.depth)?)),
            },
            None => Step::Filter { left: action(inner, self.depth)?, compare: None },
        });
        Ok(())
    }
}

/// What stands before, in and behind the operator of a filter; something must stand behind it, and if need be its own end.
fn comparison(filter: &str) -> Option<(&str, &str, &str)> {
    let is_operator = |c: char| matches!(c, '!' | '<' | '>' | '=');
    let (left, behind) = filter.split_at(filter.find(is_operator).filter(|at| *at > 0)?);
    let length = behind.find(|c| !is_operator(c)).unwrap_or(behind.len() - 1);
    let (operator, right) = behind.split_at(length);
    (!operator.is_empty()).then_some((left, operator, right))
}

fn slice(text: &str) -> Result<Slice> {
    let mut parts = text.split(':');
    let mut place = || {
        let Some(part) = parts.next() else { return Ok(None) };
        if part.strip_prefix('-').unwrap_or(part).contains(|c: char| !c.is_ascii_digit()) {
            return error(format!("invalid array index {text}"));
        }
        if part.is_empty() {
            return Ok(Some(None));
        }
        let number = part.parse::<i64>().map_err(|_| Error(format!("array index {part} is not a number")))?;
        Ok(Some(Some(number)))
    };
    let (from, to, step) = (place()?.flatten(), place()?, place()?.flatten());
    if parts.next().is_some() {
        return error(format!("invalid array index {text}"));
    }
    let to = match to {
        None => To::Next,
        Some(None) => To::End,
        Some(Some(to)) => To::Place(to),
    };
    Ok(Slice { from, to, step })
}

/// The text between two quotes, by Go's rules of what a backslash means (`strconv.UnquoteChar`).
fn unquote(text: &str, quote: char) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        if c != '\\' {
            bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        let escape = rest.chars().next()?;
        rest = &rest[escape.len_utf8()..];
        let mut number = |digits: usize, radix| {
            let (digits, behind) = rest.split_at_checked(digits).filter(|(digits, _)| !digits.starts_with('+'))?;
            rest = behind;
            u32::from_str_radix(digits, radix).ok()
        };
        match escape {
            'a' => bytes.push(7),
            'b' => bytes.push(8),
            'f' => bytes.push(12),
            'n' => bytes.push(b'\n'),
            'r' => bytes.push(b'\r'),
            't' => bytes.push(b'\t'),
            'v' => bytes.push(11),
            '\\' => bytes.push(b'\\'),
            c if c == quote => bytes.push(quote as u8),
            'x' => bytes.push(u8::try_from(number(2, 16)?).ok()?),
            // The first of three digits was taken already.
            '0'..='7' => {
                let others = number(2, 8)?;
                bytes.push(u8::try_from(escape.to_digit(8)? * 64 + others).ok()?);
            }
            'u' | 'U' => {
                let c = char::from_u32(number(if escape == 'u' { 4 } else { 8 }, 16)?)?;
                bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
            _ => return None,
        }
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// What ends a name.
fn is_terminator(c: char) -> bool {
    matches!(c, ' ' | '\t' | '.' | ',' | '[' | ']' | '$' | '@' | '{' | '}') || is_end_of_line(c)
}

fn is_end_of_line(c: char) -> bool {
    matches!(c, '\r' | '\n')
}

fn is_alphanumeric(c: char) -> bool {
    c == '_' || c.is_alphabetic() || is_digit(c)
}

/// ² and ½ are numeric and no digits.
fn is_digit(c: char) -> bool {
    c.is_ascii_digit()
        || (c.is_numeric() && !c.is_alphabetic() && !matches!(c, '²' | '³' | '¹' | '¼'..='¾' | '⁰'..='₉' | '⅐'..='⅟'))
}
