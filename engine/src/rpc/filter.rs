//! The query language of lists, as far as it is supported: `WorkflowId`, `WorkflowType`, `RunId`, `TaskQueue` and
//! `ExecutionStatus` with `=`, `!=` and `IN (...)`, joined by `AND`, `OR` and parentheses.

use crate::pb::common::v1::Payload;
use crate::pb::enums::v1::WorkflowExecutionStatus;
use crate::pb::workflow::v1::WorkflowExecutionInfo;
use std::collections::HashMap;

pub const FIELDS: &[&str] = &["WorkflowId", "WorkflowType", "RunId", "TaskQueue", "ExecutionStatus"];

/// Nesting that a query may have.
const DEPTH_MAX: usize = 32;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    All,
    OneOf { field: Field, values: Vec<String>, negated: bool },
    And(Box<Filter>, Box<Filter>),
    Or(Box<Filter>, Box<Filter>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    WorkflowId,
    WorkflowType,
    RunId,
    TaskQueue,
    ExecutionStatus,
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
    #[error("{0:?} is not an attribute that this server can filter by")]
    UnknownField(String),
    #[error("{0:?} is not an execution status")]
    UnknownStatus(String),
    #[error("the query is nested too deeply")]
    Depth,
}

impl Filter {
    pub fn parse(query: &str) -> Result<Filter, FilterError> {
        let mut tokens = Tokens { tokens: tokenize(query)?, next: 0 };
        if tokens.tokens.is_empty() {
            return Ok(Filter::All);
        }
        let filter = any_of(&mut tokens, 0)?;
        match tokens.take() {
            None => Ok(filter),
            Some(token) => Err(FilterError::Unexpected(token.text(), "the end")),
        }
    }

    pub fn matches(&self, run: &WorkflowExecutionInfo) -> bool {
        match self {
            Filter::All => true,
            Filter::And(a, b) => a.matches(run) && b.matches(run),
            Filter::Or(a, b) => a.matches(run) || b.matches(run),
            Filter::OneOf { field, values, negated } => {
                let value = field.of(run);
                values.iter().any(|wanted| wanted == value) != *negated
            }
        }
    }

    /// The workflow id that every match must have, if there is exactly one.
    pub fn only_workflow_id(&self) -> Option<&str> {
        match self {
            Filter::OneOf { field: Field::WorkflowId, values, negated: false } => match values.as_slice() {
                [one] => Some(one),
                _ => None,
            },
            Filter::And(a, b) => a.only_workflow_id().or_else(|| b.only_workflow_id()),
            _ => None,
        }
    }
}

impl Field {
    fn parse(name: &str) -> Result<Field, FilterError> {
        Ok(match name {
            "WorkflowId" => Field::WorkflowId,
            "WorkflowType" => Field::WorkflowType,
            "RunId" => Field::RunId,
            "TaskQueue" => Field::TaskQueue,
            "ExecutionStatus" => Field::ExecutionStatus,
            other => return Err(FilterError::UnknownField(other.to_owned())),
        })
    }

    fn of(self, run: &WorkflowExecutionInfo) -> &str {
        let execution = run.execution.as_ref();
        match self {
            Field::WorkflowId => execution.map_or("", |execution| &execution.workflow_id),
            Field::RunId => execution.map_or("", |execution| &execution.run_id),
            Field::WorkflowType => run.r#type.as_ref().map_or("", |t| &t.name),
            Field::TaskQueue => &run.task_queue,
            Field::ExecutionStatus => status_name(run.status()),
        }
    }

    fn value(self, text: String) -> Result<String, FilterError> {
        if self != Field::ExecutionStatus {
            return Ok(text);
        }
        let known = STATUSES.iter().map(|status| status_name(*status)).find(|name| name.eq_ignore_ascii_case(&text));
        known.map(str::to_owned).ok_or(FilterError::UnknownStatus(text))
    }
}

const STATUSES: [WorkflowExecutionStatus; 7] = [
    WorkflowExecutionStatus::Running,
    WorkflowExecutionStatus::Completed,
    WorkflowExecutionStatus::Failed,
    WorkflowExecutionStatus::Canceled,
    WorkflowExecutionStatus::Terminated,
    WorkflowExecutionStatus::ContinuedAsNew,
    WorkflowExecutionStatus::TimedOut,
];

/// A status as queries write it.
pub fn status_name(status: WorkflowExecutionStatus) -> &'static str {
    match status {
        WorkflowExecutionStatus::Running => "Running",
        WorkflowExecutionStatus::Completed => "Completed",
        WorkflowExecutionStatus::Failed => "Failed",
        WorkflowExecutionStatus::Canceled => "Canceled",
        WorkflowExecutionStatus::Terminated => "Terminated",
        WorkflowExecutionStatus::ContinuedAsNew => "ContinuedAsNew",
        WorkflowExecutionStatus::TimedOut => "TimedOut",
        WorkflowExecutionStatus::Paused => "Paused",
        WorkflowExecutionStatus::Unspecified => "",
    }
}

/// A keyword as search attributes are encoded.
pub fn keyword_payload(word: &str) -> Payload {
    let metadata =
        HashMap::from([("encoding".to_owned(), b"json/plain".to_vec()), ("type".to_owned(), b"Keyword".to_vec())]);
    Payload { metadata, data: format!("\"{word}\"").into_bytes(), ..Default::default() }
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

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    Equal,
    NotEqual,
    Open,
    Close,
    Comma,
}

impl Token {
    fn text(self) -> String {
        match self {
            Token::Word(text) | Token::Text(text) => text,
            Token::Equal => "=".to_owned(),
            Token::NotEqual => "!=".to_owned(),
            Token::Open => "(".to_owned(),
            Token::Close => ")".to_owned(),
            Token::Comma => ",".to_owned(),
        }
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self, Token::Word(text) if text.eq_ignore_ascii_case(word))
    }
}

fn tokenize(query: &str) -> Result<Vec<Token>, FilterError> {
    let mut tokens = Vec::new();
    let mut rest = query.chars().peekable();
    while let Some(c) = rest.next() {
        tokens.push(match c {
            c if c.is_whitespace() => continue,
            '=' => {
                rest.next_if_eq(&'=');
                Token::Equal
            }
            '!' => match rest.next() {
                Some('=') => Token::NotEqual,
                _ => return Err(FilterError::Character('!')),
            },
            '(' => Token::Open,
            ')' => Token::Close,
            ',' => Token::Comma,
            '\'' | '"' => Token::Text(quoted(&mut rest, c)?),
            '`' => Token::Word(quoted(&mut rest, c)?),
            c if c.is_alphanumeric() || c == '_' => {
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

struct Tokens {
    tokens: Vec<Token>,
    next: usize,
}

impl Tokens {
    fn take(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.next).cloned();
        self.next += 1;
        token
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = self.tokens.get(self.next).is_some_and(|token| token.is_word(word));
        self.next += usize::from(found);
        found
    }

    fn expect(&mut self, wanted: &Token, name: &'static str) -> Result<(), FilterError> {
        match self.take() {
            Some(token) if token == *wanted => Ok(()),
            Some(token) => Err(FilterError::Unexpected(token.text(), name)),
            None => Err(FilterError::End(name)),
        }
    }
}

fn any_of(tokens: &mut Tokens, depth: usize) -> Result<Filter, FilterError> {
    let mut filter = all_of(tokens, depth)?;
    while tokens.take_word("OR") {
        filter = Filter::Or(Box::new(filter), Box::new(all_of(tokens, depth)?));
    }
    Ok(filter)
}

fn all_of(tokens: &mut Tokens, depth: usize) -> Result<Filter, FilterError> {
    let mut filter = term(tokens, depth)?;
    while tokens.take_word("AND") {
        filter = Filter::And(Box::new(filter), Box::new(term(tokens, depth)?));
    }
    Ok(filter)
}

fn term(tokens: &mut Tokens, depth: usize) -> Result<Filter, FilterError> {
    if depth > DEPTH_MAX {
        return Err(FilterError::Depth);
    }
    let name = match tokens.take().ok_or(FilterError::End("an attribute"))? {
        Token::Open => {
            let filter = any_of(tokens, depth + 1)?;
            tokens.expect(&Token::Close, "a closing parenthesis")?;
            return Ok(filter);
        }
        Token::Word(name) => name,
        other => return Err(FilterError::Unexpected(other.text(), "an attribute")),
    };
    let field = Field::parse(&name)?;
    let negated_list = tokens.take_word("NOT");
    if negated_list || tokens.tokens.get(tokens.next).is_some_and(|token| token.is_word("IN")) {
        if !tokens.take_word("IN") {
            return Err(FilterError::End("IN"));
        }
        return Ok(Filter::OneOf { field, values: list(tokens, field)?, negated: negated_list });
    }
    let negated = match tokens.take().ok_or(FilterError::End("an operator"))? {
        Token::Equal => false,
        Token::NotEqual => true,
        other => return Err(FilterError::Unexpected(other.text(), "=, != or IN")),
    };
    Ok(Filter::OneOf { field, values: vec![value(tokens, field)?], negated })
}

fn list(tokens: &mut Tokens, field: Field) -> Result<Vec<String>, FilterError> {
    tokens.expect(&Token::Open, "an opening parenthesis")?;
    let mut values = vec![value(tokens, field)?];
    loop {
        match tokens.take().ok_or(FilterError::End("a closing parenthesis"))? {
            Token::Comma => values.push(value(tokens, field)?),
            Token::Close => return Ok(values),
            other => return Err(FilterError::Unexpected(other.text(), "a comma or a closing parenthesis")),
        }
    }
}

fn value(tokens: &mut Tokens, field: Field) -> Result<String, FilterError> {
    match tokens.take().ok_or(FilterError::End("a value"))? {
        Token::Text(text) | Token::Word(text) => field.value(text),
        other => Err(FilterError::Unexpected(other.text(), "a value")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::common::v1::{WorkflowExecution, WorkflowType};

    fn run(id: &str, kind: &str, status: WorkflowExecutionStatus) -> WorkflowExecutionInfo {
        WorkflowExecutionInfo {
            execution: Some(WorkflowExecution { workflow_id: id.into(), run_id: String::new() }),
            r#type: Some(WorkflowType { name: kind.into() }),
            status: status as i32,
            ..Default::default()
        }
    }

    #[test]
    fn queries_select_what_they_say() {
        let a = run("a", "Session", WorkflowExecutionStatus::Running);
        let b = run("b", "Session", WorkflowExecutionStatus::Completed);
        let c = run("c's", "Rollout", WorkflowExecutionStatus::Running);
        let table = [
            ("", "abc"),
            ("WorkflowId = 'a'", "a"),
            ("WorkflowId != 'a'", "bc"),
            (r#"WorkflowType="Session" and ExecutionStatus="running""#, "a"),
            ("ExecutionStatus IN ('Completed', 'Failed') OR WorkflowType = 'Rollout'", "bc"),
            ("ExecutionStatus NOT IN ('Completed')", "ac"),
            ("WorkflowType = 'Session' AND (WorkflowId = 'b' OR WorkflowId = 'c')", "b"),
            ("WorkflowId = 'a' OR WorkflowId = 'b' AND ExecutionStatus = 'Running'", "a"),
            (r"WorkflowId = 'c\'s'", "c"),
            ("`WorkflowId` = \"c's\"", "c"),
        ];
        for (query, expected) in table {
            let filter = Filter::parse(query).unwrap_or_else(|e| panic!("{query}: {e}"));
            let found: String = [("a", &a), ("b", &b), ("c", &c)]
                .iter()
                .filter(|(_, run)| filter.matches(run))
                .map(|(n, _)| *n)
                .collect();
            assert_eq!(found, expected, "{query}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let deep = format!("{}WorkflowId='a'{}", "(".repeat(100), ")".repeat(100));
        let table: [(&str, FilterError); 8] = [
            ("Color = 'red'", FilterError::UnknownField("Color".into())),
            ("ExecutionStatus = 'Asleep'", FilterError::UnknownStatus("Asleep".into())),
            ("WorkflowId = 'a", FilterError::Quote),
            ("WorkflowId ~ 'a'", FilterError::Character('~')),
            ("WorkflowId", FilterError::End("an operator")),
            ("WorkflowId = 'a' WorkflowId = 'b'", FilterError::Unexpected("WorkflowId".into(), "the end")),
            ("WorkflowId IN ()", FilterError::Unexpected(")".into(), "a value")),
            (&deep, FilterError::Depth),
        ];
        for (query, expected) in table {
            assert_eq!(Filter::parse(query), Err(expected), "{query}");
        }
    }

    #[test]
    fn only_a_conjunction_pins_the_workflow_id() {
        let pinned = |query: &str| Filter::parse(query).unwrap().only_workflow_id().map(str::to_owned);
        assert_eq!(pinned("ExecutionStatus='Running' AND WorkflowId='a'").as_deref(), Some("a"));
        assert_eq!(pinned("ExecutionStatus='Running' OR WorkflowId='a'"), None);
        assert_eq!(pinned("WorkflowId != 'a'"), None);
        assert_eq!(split_group_by_status("WorkflowId='a' GROUP BY ExecutionStatus"), ("WorkflowId='a' ", true));
    }
}
