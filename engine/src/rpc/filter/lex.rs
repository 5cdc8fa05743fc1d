//! A query in pieces.

use super::FilterError;
use super::test::Op;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    Word(String),
    Text(String),
    Op(Op),
    Open,
    Close,
    Comma,
}

impl Token {
    pub fn text(self) -> String {
        match self {
            Token::Word(text) | Token::Text(text) => text,
            Token::Op(op) => op.text().to_owned(),
            Token::Open => "(".to_owned(),
            Token::Close => ")".to_owned(),
            Token::Comma => ",".to_owned(),
        }
    }

    pub fn is_word(&self, word: &str) -> bool {
        matches!(self, Token::Word(text) if text.eq_ignore_ascii_case(word))
    }
}

/// The words, texts and signs of a query.
pub fn tokenize(query: &str) -> Result<Vec<Token>, FilterError> {
    let mut tokens = Vec::new();
    let mut rest = query.chars().peekable();
    while let Some(c) = rest.next() {
        tokens.push(match c {
            c if c.is_whitespace() => continue,
            '=' => {
                rest.next_if_eq(&'=');
                Token::Op(Op::Equal)
            }
            '!' => match rest.next() {
                Some('=') => Token::Op(Op::NotEqual),
                _ => return Err(FilterError::Character('!')),
            },
            '<' => Token::Op(if rest.next_if_eq(&'=').is_some() { Op::AtMost } else { Op::Less }),
            '>' => Token::Op(if rest.next_if_eq(&'=').is_some() { Op::AtLeast } else { Op::Greater }),
            '(' => Token::Open,
            ')' => Token::Close,
            ',' => Token::Comma,
            '\'' | '"' => Token::Text(quoted(&mut rest, c)?),
            '`' => Token::Word(quoted(&mut rest, c)?),
            c if c.is_alphanumeric() || matches!(c, '_' | '-' | '.') => {
                let mut word = String::from(c);
                while let Some(more) = rest.next_if(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.')) {
                    word.push(more);
                }
                Token::Word(word)
            }
            other => return Err(FilterError::Character(other)),
        });
    }
    Ok(tokens)
}

fn quoted(rest: &mut impl Iterator<Item = char>, quote: char) -> Result<String, FilterError> {
    let mut text = String::new();
    loop {
        match rest.next().ok_or(FilterError::Quote)? {
            '\\' => text.push(rest.next().ok_or(FilterError::Quote)?),
            c if c == quote => return Ok(text),
            c => text.push(c),
        }
    }
}
