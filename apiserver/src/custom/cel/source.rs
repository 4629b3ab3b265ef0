//! What is wrong with an expression, and where, as cel-go's compiler shows it: the line, with a mark below the place.

use super::room::Spent;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// Characters before the place.
    pub at: u32,
    pub message: String,
}

/// No more than so many are told.
const MOST: usize = 100;

/// Longer lines are not shown.
const LONGEST_LINE: usize = 16_384;

/// All that is wrong with a text, in the order of its places. When much was shown in one request, the first place alone.
pub fn show(text: &str, mut issues: Vec<Issue>) -> String {
    let count = issues.len();
    issues.truncate(MOST);
    let mut placed: Vec<_> = issues.into_iter().map(|issue| (place(text, issue.at), issue.message)).collect();
    placed.sort_by_key(|(place, _)| *place);
    let mut shown = Vec::with_capacity(placed.len() + 1);
    for ((line, column), message) in placed {
        let mut told = told(line, column, &message);
        if !Spent::Shown.may(0) {
            shown.push(told);
            return shown.join("\n");
        }
        mark(&mut told, text, line, column);
        Spent::Shown.may(told.len());
        shown.push(told);
    }
    if count > MOST {
        shown.push(format!("{} more errors were truncated", count - MOST));
    }
    shown.join("\n")
}

/// Line and column, from 1 and from 0.
fn place(text: &str, at: u32) -> (usize, usize) {
    let (mut line, mut column) = (1, 0);
    for c in text.chars().take(at as usize) {
        if c == '\n' {
            (line, column) = (line + 1, 0);
        } else {
            column += 1;
        }
    }
    (line, column)
}

fn told(line: usize, column: usize, message: &str) -> String {
    format!("ERROR: <input>:{line}:{}: {message}", column + 1)
}

/// The line, with a mark below the place.
fn mark(shown: &mut String, text: &str, line: usize, column: usize) {
    let Some(snippet) = text.split('\n').nth(line - 1).filter(|line| line.len() <= LONGEST_LINE) else { return };
    let snippet = snippet.replace('\t', " ");
    shown.push_str("\n | ");
    shown.push_str(&snippet);
    shown.push_str("\n | ");
    // Marks are as wide as what they stand under.
    let wide = |c: char| c.len_utf8() > 1;
    shown.extend(snippet.chars().take(column).map(|c| if wide(c) { '\u{ff0e}' } else { '.' }));
    shown.push(if snippet.chars().nth(column).is_some_and(wide) { '\u{ff3e}' } else { '^' });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_marked() {
        let issue = |at, message: &str| Issue { at, message: message.into() };
        assert_eq!(
            show("a é\n\tb", vec![issue(5, "two"), issue(2, "one")]),
            "ERROR: <input>:1:3: one\n | a é\n | ..＾\nERROR: <input>:2:2: two\n |  b\n | .^"
        );
        assert!(show("a", vec![issue(0, "x"); 102]).ends_with("\n2 more errors were truncated"));
    }
}
