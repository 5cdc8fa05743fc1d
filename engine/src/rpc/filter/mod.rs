//! The query language of lists: attributes compared by `=`, `!=`, `<`, `<=`, `>`, `>=`, `IN`, `BETWEEN`, `STARTS_WITH` and
//! `IS NULL` (the last four also with `NOT`), joined by `AND`, `OR` and parentheses, then `ORDER BY`.

pub mod attribute;
mod lex;
mod test;
#[cfg(test)]
mod tests;
pub mod worker;

pub use attribute::Registered;

use crate::pb::enums::v1::IndexedValueType as Kind;
use attribute::{Attribute, Value};
use lex::{Token, tokenize};
use std::cmp::Ordering;
use test::{Op, Test};

/// Nesting that a query may have.
const DEPTH_MAX: usize = 32;

/// What a query is asked of.
pub trait Subject {
    /// The values that it has: none, one, or, of a list of keywords, several.
    fn values(&self, attribute: &Attribute) -> Vec<Value>;
}

/// Which are meant, and in which order.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    pub filter: Filter,
    /// `None`: the newest first.
    pub order: Option<Order>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    All,
    Is(Attribute, Test),
    And(Box<Filter>, Box<Filter>),
    Or(Box<Filter>, Box<Filter>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    by: Attribute,
    descending: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    #[error("unexpected character {0:?}")]
    Character(char),
    #[error("a quote is not closed")]
    Quote,
    #[error("{0:?} stands where {1} belongs")]
    Unexpected(String, &'static str),
    #[error("the query ends where {0} belongs")]
    End(&'static str),
    #[error("invalid search attribute: {0}")]
    UnknownAttribute(String),
    #[error("invalid value for search attribute {attribute} of type {kind:?}: {value:?}")]
    Value { attribute: String, kind: Kind, value: String },
    #[error("operator {operator} is not supported for search attribute {attribute} of type {kind:?}")]
    Operator { attribute: String, kind: Kind, operator: &'static str },
    #[error("the query is nested too deeply")]
    Depth,
}

impl Query {
    /// A query of runs, in a namespace that registered these attributes.
    pub fn parse(query: &str, registered: &Registered) -> Result<Query, FilterError> {
        Query::parse_by(query, &|name| Attribute::find(name, registered))
    }

    /// A query by the attributes that `find` knows.
    pub fn parse_by(query: &str, find: &dyn Fn(&str) -> Option<Attribute>) -> Result<Query, FilterError> {
        let mut tokens = Tokens { tokens: tokenize(query)?, next: 0, find };
        let is_ordered = |tokens: &Tokens<'_>| tokens.peek().is_some_and(|token| token.is_word("ORDER"));
        let filter = match tokens.peek() {
            None => Filter::All,
            Some(_) if is_ordered(&tokens) => Filter::All,
            Some(_) => any_of(&mut tokens, 0)?,
        };
        let order = if is_ordered(&tokens) { Some(order(&mut tokens)?) } else { None };
        match tokens.take() {
            None => Ok(Query { filter, order }),
            Some(token) => Err(FilterError::Unexpected(token.text(), "the end")),
        }
    }
}

impl Filter {
    pub fn matches(&self, subject: &impl Subject) -> bool {
        match self {
            Filter::All => true,
            Filter::And(a, b) => a.matches(subject) && b.matches(subject),
            Filter::Or(a, b) => a.matches(subject) || b.matches(subject),
            Filter::Is(attribute, test) => test.holds(&subject.values(attribute)),
        }
    }

    /// The workflow id that every match must have, if there is exactly one.
    pub fn only_workflow_id(&self) -> Option<&str> {
        let only = |values: &'_ [Value]| matches!(values, [Value::Text(_)]);
        match self {
            Filter::Is(attribute, Test::Compare(Op::Equal, Value::Text(id))) if attribute.is("WorkflowId") => Some(id),
            Filter::Is(attribute, Test::OneOf(ids)) if attribute.is("WorkflowId") && only(ids) => match &ids[0] {
                Value::Text(id) => Some(id),
                _ => None,
            },
            Filter::And(a, b) => a.only_workflow_id().or_else(|| b.only_workflow_id()),
            _ => None,
        }
    }
}

impl Order {
    /// Whether this is the order in which runs are listed anyway.
    pub fn is_newest_first(&self) -> bool {
        self.descending && self.by.is("StartTime")
    }

    /// How two of them stand to each other; one without the attribute comes last.
    pub fn compare(&self, a: &impl Subject, b: &impl Subject) -> Ordering {
        let (a, b) = (a.values(&self.by).into_iter().next(), b.values(&self.by).into_iter().next());
        match (a, b) {
            (Some(a), Some(b)) => {
                let order = a.compare(&b).unwrap_or(Ordering::Equal);
                if self.descending { order.reverse() } else { order }
            }
            (a, b) => b.is_some().cmp(&a.is_some()),
        }
    }
}

/// Splits off `GROUP BY ExecutionStatus`.
pub fn split_group_by_status(query: &str) -> (&str, bool) {
    const GROUP: &str = "group by executionstatus";
    let trimmed = query.trim_end();
    let at = trimmed.len().saturating_sub(GROUP.len());
    match trimmed.get(at..) {
        Some(tail) if tail.eq_ignore_ascii_case(GROUP) => (&trimmed[..at], true),
        _ => (query, false),
    }
}

struct Tokens<'a> {
    tokens: Vec<Token>,
    next: usize,
    find: &'a dyn Fn(&str) -> Option<Attribute>,
}

impl Tokens<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next)
    }

    fn take(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.next).cloned();
        self.next += 1;
        token
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = self.peek().is_some_and(|token| token.is_word(word));
        self.next += usize::from(found);
        found
    }

    fn expect_word(&mut self, word: &'static str) -> Result<(), FilterError> {
        match self.take() {
            Some(token) if token.is_word(word) => Ok(()),
            Some(token) => Err(FilterError::Unexpected(token.text(), word)),
            None => Err(FilterError::End(word)),
        }
    }

    fn expect(&mut self, wanted: &Token, name: &'static str) -> Result<(), FilterError> {
        match self.take() {
            Some(token) if token == *wanted => Ok(()),
            Some(token) => Err(FilterError::Unexpected(token.text(), name)),
            None => Err(FilterError::End(name)),
        }
    }

    fn attribute(&mut self) -> Result<Attribute, FilterError> {
        match self.take().ok_or(FilterError::End("an attribute"))? {
            Token::Word(name) => (self.find)(&name).ok_or(FilterError::UnknownAttribute(name)),
            other => Err(FilterError::Unexpected(other.text(), "an attribute")),
        }
    }

    fn text(&mut self) -> Result<String, FilterError> {
        match self.take().ok_or(FilterError::End("a value"))? {
            Token::Text(text) | Token::Word(text) => Ok(text),
            other => Err(FilterError::Unexpected(other.text(), "a value")),
        }
    }

    fn value(&mut self, attribute: &Attribute) -> Result<Value, FilterError> {
        let text = self.text()?;
        let (attribute, value) = (attribute, attribute.value(&text));
        value.ok_or_else(|| FilterError::Value { attribute: attribute.name.clone(), kind: attribute.kind, value: text })
    }

    fn values(&mut self, attribute: &Attribute) -> Result<Vec<Value>, FilterError> {
        self.expect(&Token::Open, "an opening parenthesis")?;
        let mut values = vec![self.value(attribute)?];
        loop {
            match self.take().ok_or(FilterError::End("a closing parenthesis"))? {
                Token::Comma => values.push(self.value(attribute)?),
                Token::Close => return Ok(values),
                other => return Err(FilterError::Unexpected(other.text(), "a closing parenthesis")),
            }
        }
    }
}

fn any_of(tokens: &mut Tokens<'_>, depth: usize) -> Result<Filter, FilterError> {
    let mut filter = all_of(tokens, depth)?;
    while tokens.take_word("OR") {
        filter = Filter::Or(Box::new(filter), Box::new(all_of(tokens, depth)?));
    }
    Ok(filter)
}

fn all_of(tokens: &mut Tokens<'_>, depth: usize) -> Result<Filter, FilterError> {
    let mut filter = term(tokens, depth)?;
    while tokens.take_word("AND") {
        filter = Filter::And(Box::new(filter), Box::new(term(tokens, depth)?));
    }
    Ok(filter)
}

fn term(tokens: &mut Tokens<'_>, depth: usize) -> Result<Filter, FilterError> {
    if depth > DEPTH_MAX {
        return Err(FilterError::Depth);
    }
    if tokens.peek() == Some(&Token::Open) {
        tokens.next += 1;
        let filter = any_of(tokens, depth + 1)?;
        tokens.expect(&Token::Close, "a closing parenthesis")?;
        return Ok(filter);
    }
    let attribute = tokens.attribute()?;
    let test = test_of(tokens, &attribute)?;
    Ok(Filter::Is(attribute, test))
}

fn test_of(tokens: &mut Tokens<'_>, attribute: &Attribute) -> Result<Test, FilterError> {
    if tokens.take_word("IS") {
        let negated = tokens.take_word("NOT");
        tokens.expect_word("NULL")?;
        return Ok(if negated { Test::NotNull } else { Test::Null });
    }
    let negated = tokens.take_word("NOT");
    if tokens.take_word("IN") {
        let values = tokens.values(attribute)?;
        return Ok(if negated { Test::NoneOf(values) } else { Test::OneOf(values) });
    }
    if tokens.take_word("BETWEEN") {
        let low = tokens.value(attribute)?;
        tokens.expect_word("AND")?;
        let high = tokens.value(attribute)?;
        return Ok(if negated { Test::NotBetween(low, high) } else { Test::Between(low, high) });
    }
    if tokens.take_word("STARTS_WITH") {
        if attribute.kind != Kind::Keyword {
            let (attribute, kind) = (attribute.name.clone(), attribute.kind);
            return Err(FilterError::Operator { attribute, kind, operator: "STARTS_WITH" });
        }
        let prefix = tokens.text()?;
        return Ok(if negated { Test::StartsNotWith(prefix) } else { Test::StartsWith(prefix) });
    }
    match tokens.take().ok_or(FilterError::End("an operator"))? {
        Token::Op(op) if !negated => Ok(Test::Compare(op, tokens.value(attribute)?)),
        other => Err(FilterError::Unexpected(other.text(), "an operator")),
    }
}

fn order(tokens: &mut Tokens<'_>) -> Result<Order, FilterError> {
    tokens.expect_word("ORDER")?;
    tokens.expect_word("BY")?;
    let by = tokens.attribute()?;
    if by.kind == Kind::Text || by.kind == Kind::KeywordList {
        return Err(FilterError::Operator { attribute: by.name, kind: by.kind, operator: "ORDER BY" });
    }
    let descending = tokens.take_word("DESC");
    if !descending {
        tokens.take_word("ASC");
    }
    Ok(Order { by, descending })
}
