//! How long and how deep expressions and paths may be.
//!
//! The expression library recurses: over chains (`a.b.c`), over brackets, and over closures with a counter of 8 bits. A stack that
//! overflows ends the whole process, and nothing can be caught then. It also reads a bracket anew for every way in which it could begin a range, so that
//! each bracket around one takes three times as long. So an expression is measured by its tokens before it is parsed. Chains of 10,000
//! links are walked within the 2 MiB that threads have; the bounds leave several times that.

use bumpalo::Bump;
use zen_expression::lexer::{Bracket, Lexer, Operator, TemplateString, Token, TokenKind};

/// The most bytes of an expression.
const LONGEST: usize = 16 * 1024;
/// The most tokens that put something on top of what stands before them: operators but for commas and colons, and opening brackets.
const MOST_LINKS: usize = 2000;
/// The most brackets inside each other, and parts of a path.
const DEEPEST: usize = 64;
/// The same where a range (`1..5`) is in the expression.
const DEEPEST_WITH_RANGE: usize = 8;

/// Refuses an expression that is not safe to parse.
pub(super) fn expression(source: &str) -> Result<(), String> {
    if source.len() > LONGEST {
        let length = source.len();
        return Err(format!("it is an expression of {length} bytes, and {LONGEST} is the most; split it over several"));
    }
    let bump = Bump::new();
    // What has no tokens is refused by the parser, which says where.
    let Ok(tokens) = Lexer::new().tokenize(&bump, source) else { return Ok(()) };
    let links = tokens.iter().filter(|token| links(&token.kind)).count();
    if links > MOST_LINKS {
        return Err(format!(
            "it has {links} operators and brackets, and {MOST_LINKS} is the most; split it over several"
        ));
    }
    let ranges = tokens.iter().any(|token| token.kind == TokenKind::Operator(Operator::Range));
    let (most, what) = if ranges { (DEEPEST_WITH_RANGE, " in an expression with a range") } else { (DEEPEST, "") };
    match depth(&tokens) {
        depth if depth > most => Err(format!("its brackets are {depth} deep, and {most} is the most{what}")),
        _ => Ok(()),
    }
}

/// Refuses a path with dots whose objects would lie too deep in each other.
pub(super) fn path(path: &str) -> Result<(), String> {
    match path.split('.').count() {
        parts if parts > DEEPEST => Err(format!("its path has {parts} parts, and {DEEPEST} is the most")),
        _ => Ok(()),
    }
}

/// The beginning of an expression, for messages.
pub(super) fn beginning(source: &str) -> String {
    const SHOWN: usize = 200;
    match source.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &source[..end]),
        None => source.to_owned(),
    }
}

fn links(kind: &TokenKind) -> bool {
    match kind {
        TokenKind::Operator(operator) => !matches!(operator, Operator::Comma | Operator::Slice | Operator::Semi),
        kind => opens(kind),
    }
}

fn opens(kind: &TokenKind) -> bool {
    use Bracket::{LeftCurlyBracket, LeftParenthesis, LeftSquareBracket};
    match kind {
        TokenKind::Bracket(bracket) => matches!(bracket, LeftParenthesis | LeftSquareBracket | LeftCurlyBracket),
        kind => *kind == TokenKind::TemplateString(TemplateString::ExpressionStart),
    }
}

/// The most brackets that are open at once. A range may begin with what else ends one (`]1..5]`), which shows by what is before it.
fn depth(tokens: &[Token<'_>]) -> usize {
    let (mut open, mut deepest) = (0_usize, 0);
    let mut before: Option<&Token<'_>> = None;
    for token in tokens {
        let begins = before.is_none_or(|before| {
            let empty = matches!((before.value, token.value), ("[", "]") | ("(", ")") | ("{", "}"));
            !empty && (matches!(before.kind, TokenKind::Operator(_)) || opens(&before.kind))
        });
        match &token.kind {
            kind if opens(kind) => open += 1,
            TokenKind::Bracket(_) if begins => open += 1,
            TokenKind::Bracket(_) | TokenKind::TemplateString(_) => open = open.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(open);
        before = Some(token);
    }
    deepest
}
