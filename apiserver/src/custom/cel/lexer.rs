//! Words of an expression (the language's definition, "Syntax"), each with the place it stands at.

/// One word.
#[derive(Clone, Debug, PartialEq)]
pub enum Token {
    Identifier(String),
    /// In back quotes, as fields can be that have other signs in their names.
    Quoted(String),
    Int(String),
    Uint(String),
    Float(String),
    Text(String),
    Bytes(Vec<u8>),
    /// Operators and brackets.
    Sign(&'static str),
    End,
}

/// Two signs come before those that they begin with.
const SIGNS: [&str; 26] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "!", "+", "-", "*", "/", "%", "?", ":", ".", ",", "(", ")", "[", "]",
    "{", "}", "=", "&",
];

/// What cannot be read; the grammar's own words for it are another's matter.
#[derive(Debug)]
pub struct Unreadable;

/// The words of a text, with the characters before each.
///
/// # Errors
/// It is not made of words.
pub fn tokens(text: &str) -> Result<Vec<(Token, u32)>, Unreadable> {
    let chars: Vec<char> = text.chars().collect();
    let mut lexer = Lexer { chars: &chars, at: 0 };
    let mut found = Vec::new();
    loop {
        lexer.skip();
        let at = u32::try_from(lexer.at).map_err(|_| Unreadable)?;
        let token = lexer.token()?;
        let last = token == Token::End;
        found.push((token, at));
        if last {
            return Ok(found);
        }
    }
}

struct Lexer<'c> {
    chars: &'c [char],
    at: usize,
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn looks_at(&self, text: &str) -> bool {
        text.chars().enumerate().all(|(nth, c)| self.peek(nth) == Some(c))
    }

    fn take(&mut self, wanted: impl Fn(char) -> bool) -> String {
        let rest = self.chars.get(self.at..).unwrap_or_default();
        let taken: String = rest.iter().take_while(|c| wanted(**c)).collect();
        self.at += taken.chars().count();
        taken
    }

    /// Blanks and comments.
    fn skip(&mut self) {
        loop {
            self.take(|c| matches!(c, ' ' | '\t' | '\r' | '\n' | '\u{c}'));
            if !self.looks_at("//") {
                return;
            }
            self.take(|c| c != '\n');
        }
    }

    fn token(&mut self) -> Result<Token, Unreadable> {
        let Some(first) = self.peek(0) else { return Ok(Token::End) };
        let second_is_digit = self.peek(1).is_some_and(|c| c.is_ascii_digit());
        if first.is_ascii_digit() || first == '.' && second_is_digit {
            return self.number();
        }
        if let Some(text) = self.text()? {
            return Ok(text);
        }
        if first == '`' {
            self.at += 1;
            let name = self.take(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/' | ' '));
            self.at += 1;
            let closed = self.chars.get(self.at - 1) == Some(&'`') && !name.is_empty();
            return if closed { Ok(Token::Quoted(name)) } else { Err(Unreadable) };
        }
        if first.is_ascii_alphabetic() || first == '_' {
            return Ok(Token::Identifier(self.take(|c| c.is_ascii_alphanumeric() || c == '_')));
        }
        let sign = SIGNS.iter().find(|sign| self.looks_at(sign)).ok_or(Unreadable)?;
        self.at += sign.len();
        Ok(Token::Sign(sign))
    }

    fn number(&mut self) -> Result<Token, Unreadable> {
        if self.looks_at("0x") {
            self.at += 2;
            let digits = self.take(|c| c.is_ascii_hexdigit());
            return if digits.is_empty() { Err(Unreadable) } else { Ok(self.whole(format!("0x{digits}"))) };
        }
        let mut text = self.take(|c| c.is_ascii_digit());
        let mut whole = true;
        if self.peek(0) == Some('.') && self.peek(1).is_some_and(|c| c.is_ascii_digit()) {
            self.at += 1;
            text = format!("{text}.{}", self.take(|c| c.is_ascii_digit()));
            whole = false;
        }
        let signed = usize::from(matches!(self.peek(1), Some('+' | '-')));
        let exponent = matches!(self.peek(0), Some('e' | 'E'));
        if exponent && self.peek(1 + signed).is_some_and(|c| c.is_ascii_digit()) {
            let sign = if self.peek(1) == Some('-') { "-" } else { "" };
            self.at += 1 + signed;
            text = format!("{text}e{sign}{}", self.take(|c| c.is_ascii_digit()));
            whole = false;
        }
        Ok(if whole { self.whole(text) } else { Token::Float(text) })
    }

    fn whole(&mut self, text: String) -> Token {
        if matches!(self.peek(0), Some('u' | 'U')) {
            self.at += 1;
            return Token::Uint(text);
        }
        Token::Int(text)
    }

    /// Text or bytes in quotes, if there are some here.
    fn text(&mut self) -> Result<Option<Token>, Unreadable> {
        let (mut ahead, mut raw, mut bytes) = (0, false, false);
        if matches!(self.peek(ahead), Some('b' | 'B')) {
            (bytes, ahead) = (true, ahead + 1);
        }
        if matches!(self.peek(ahead), Some('r' | 'R')) {
            (raw, ahead) = (true, ahead + 1);
        }
        let Some(quote @ ('"' | '\'')) = self.peek(ahead) else { return Ok(None) };
        self.at += ahead;
        let long: String = [quote; 3].iter().collect();
        let (close, lines) = if self.looks_at(&long) { (long, true) } else { (quote.to_string(), false) };
        self.at += close.len();
        let mut content = Content { bytes, out: Vec::new() };
        while !self.looks_at(&close) {
            let c = self.peek(0).filter(|c| lines || !matches!(c, '\n' | '\r')).ok_or(Unreadable)?;
            self.at += 1;
            match c {
                // In a raw text a backslash is one, also before a quote, which ends the text.
                '\\' if !raw => self.escape(&mut content)?,
                c => content.push(c),
            }
        }
        self.at += close.len();
        content.token().map(Some)
    }

    fn escape(&mut self, content: &mut Content) -> Result<(), Unreadable> {
        let c = self.peek(0).ok_or(Unreadable)?;
        self.at += 1;
        let plain = match c {
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            '\\' | '?' | '"' | '\'' | '`' => c,
            'x' | 'X' => return self.code(content, 2, 16, true),
            'u' => return self.code(content, 4, 16, false),
            'U' => return self.code(content, 8, 16, false),
            '0'..='3' => {
                self.at -= 1;
                return self.code(content, 3, 8, true);
            }
            _ => return Err(Unreadable),
        };
        content.push(plain);
        Ok(())
    }

    fn code(&mut self, content: &mut Content, digits: usize, radix: u32, byte: bool) -> Result<(), Unreadable> {
        let text: String = self.chars.get(self.at..self.at + digits).ok_or(Unreadable)?.iter().collect();
        let value = u32::from_str_radix(&text, radix).map_err(|_| Unreadable)?;
        self.at += digits;
        match (content.bytes, byte, u8::try_from(value)) {
            (true, true, Ok(value)) => content.out.push(value),
            (true, ..) => return Err(Unreadable),
            (false, ..) => content.push(char::from_u32(value).ok_or(Unreadable)?),
        }
        Ok(())
    }
}

struct Content {
    bytes: bool,
    out: Vec<u8>,
}

impl Content {
    fn push(&mut self, c: char) {
        self.out.extend(c.encode_utf8(&mut [0; 4]).as_bytes());
    }

    fn token(self) -> Result<Token, Unreadable> {
        if self.bytes {
            return Ok(Token::Bytes(self.out));
        }
        String::from_utf8(self.out).map(Token::Text).map_err(|_| Unreadable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_every_kind() {
        let words = |text: &str| -> Vec<Token> { tokens(text).unwrap().into_iter().map(|(token, _)| token).collect() };
        assert_eq!(
            words("a_1 <= 0x1Fu // c\n && .5e-3"),
            [
                Token::Identifier("a_1".into()),
                Token::Sign("<="),
                Token::Uint("0x1F".into()),
                Token::Sign("&&"),
                Token::Float(".5e-3".into()),
                Token::End
            ]
        );
        let texts = [(r"'a\x41\u00e9\101'", "aAéA"), (r#"r"\d\""#, r"\d\"), ("'''a\n'b'''", "a\n'b"), (r#"'"'"#, "\"")];
        for (text, expected) in texts {
            assert_eq!(words(text)[0], Token::Text(expected.into()), "{text}");
        }
        assert_eq!(words(r"b'\xffa'")[0], Token::Bytes(vec![0xff, b'a']));
        assert_eq!(words("`a-b`")[0], Token::Quoted("a-b".into()));
        for text in ["'a", "`a", "``", "'\\q'", "0x", "'a\nb'", "#", "'\\ud800'"] {
            assert!(tokens(text).is_err(), "{text}");
        }
    }
}
