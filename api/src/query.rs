//! Query parameters in the SDKs' spelling: `types[]=a&types[]=b`, `created_at[gte]=...`. Unknown keys are ignored.
//!
//! A route declares what its handler reads; one that reads anything else fails the first test that calls it.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Query as AxumQuery};
use http::request::Parts;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::error::{ApiError, Result};

const OPERATORS: [&str; 4] = ["gt", "gte", "lt", "lte"];

/// A parameter, as the OpenAPI document tells of it.
#[derive(Clone, Debug)]
pub struct Param {
    name: &'static str,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    /// One value with this schema.
    One(Value),
    /// `name[]`, repeated.
    Many(Value),
    /// `name[gt]` and its like.
    Times,
}

impl Param {
    pub fn text(name: &'static str) -> Self {
        Self { name, kind: Kind::One(json!({"type": "string"})) }
    }

    pub fn choice(name: &'static str, choices: &[&str]) -> Self {
        Self { name, kind: Kind::One(json!({"type": "string", "enum": choices})) }
    }

    pub fn flag(name: &'static str) -> Self {
        Self { name, kind: Kind::One(json!({"type": "boolean"})) }
    }

    pub fn number(name: &'static str, numbers: std::ops::RangeInclusive<u64>) -> Self {
        let schema = json!({"type": "integer", "minimum": numbers.start(), "maximum": numbers.end()});
        Self { name, kind: Kind::One(schema) }
    }

    pub fn json(name: &'static str) -> Self {
        Self { name, kind: Kind::One(json!({"type": "string", "contentMediaType": "application/json"})) }
    }

    pub fn texts(name: &'static str) -> Self {
        Self { name, kind: Kind::Many(json!({"type": "string"})) }
    }

    pub fn choices(name: &'static str, choices: &[&str]) -> Self {
        Self { name, kind: Kind::Many(json!({"type": "string", "enum": choices})) }
    }

    pub fn times(name: &'static str) -> Self {
        Self { name, kind: Kind::Times }
    }

    /// Each parameter that it stands for, with its schema.
    pub fn spelled(&self) -> Vec<(String, Value)> {
        let name = self.name;
        match &self.kind {
            Kind::One(schema) => vec![(name.to_owned(), or_empty(schema))],
            Kind::Many(item) => vec![(format!("{name}[]"), json!({"type": "array", "items": item}))],
            Kind::Times => {
                let time = or_empty(&json!({"type": "string", "format": "date-time"}));
                OPERATORS.map(|operator| (format!("{name}[{operator}]"), time.clone())).into()
            }
        }
    }
}

/// Empty counts as omitted.
fn or_empty(schema: &Value) -> Value {
    json!({"anyOf": [schema, {"const": ""}]})
}

/// What the route declares. In the extensions of every request.
#[derive(Clone, Debug)]
pub struct Declared(Arc<[&'static str]>);

impl Declared {
    pub fn new(params: impl Iterator<Item = Param>) -> Self {
        Self(params.map(|param| param.name).collect())
    }
}

#[derive(Clone, Debug, Default)]
pub struct Query {
    pairs: Vec<(String, String)>,
    declared: Option<Declared>,
}

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        let parsed = AxumQuery::<Vec<(String, String)>>::try_from_uri(&parts.uri);
        let AxumQuery(pairs) = parsed.map_err(|error| ApiError::invalid("the query could not be read").inner(error))?;
        Ok(Self { pairs, declared: parts.extensions.get().cloned() })
    }
}

/// A filter by time. Both ends as clients see times, in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TimeRange {
    /// Inclusive.
    pub from_ms: Option<i64>,
    /// Inclusive.
    pub to_ms: Option<i64>,
}

impl Query {
    /// A value given at most once. Empty counts as omitted: the SDKs send it for an empty string.
    pub fn text(&self, name: &str) -> Result<Option<&str>> {
        self.check_declared(name);
        let mut values = self.pairs.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let value = values.next().filter(|value| !value.is_empty());
        if values.next().is_some() {
            return Err(ApiError::field(name, "given more than once"));
        }
        Ok(value)
    }

    pub fn parsed<T: FromStr>(&self, name: &str, expected: &str) -> Result<Option<T>> {
        let parse = |value: &str| value.parse().map_err(|_| ApiError::field(name, format!("must be {expected}")));
        self.text(name)?.map(parse).transpose()
    }

    pub fn flag(&self, name: &str) -> Result<bool> {
        Ok(self.parsed(name, "true or false")?.unwrap_or(false))
    }

    /// The values of `name[]`, each once.
    pub fn list(&self, name: &str) -> BTreeSet<&str> {
        self.values(name).collect()
    }

    /// How many values `name[]` has, repeated ones too.
    pub fn count(&self, name: &str) -> usize {
        self.values(name).count()
    }

    fn values<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = &'a str> + use<'a, 'n> {
        self.check_declared(name);
        let ours = move |key: &str| {
            key.strip_prefix(name).is_some_and(|rest| rest.is_empty() || (rest.starts_with('[') && rest.ends_with(']')))
        };
        self.pairs.iter().filter(move |(key, _)| ours(key)).map(|(_, value)| value.as_str())
    }

    fn check_declared(&self, name: &str) {
        let bare = name.split('[').next().unwrap_or(name);
        debug_assert!(
            self.declared.as_ref().is_none_or(|declared| declared.0.contains(&bare)),
            "{name} is read, and the route does not declare it"
        );
    }

    /// The filters `name[gt]`, `name[gte]`, `name[lt]`, `name[lte]`, all that are given.
    pub fn times(&self, name: &str) -> Result<TimeRange> {
        let bound = |operator: &str| -> Result<Option<i64>> {
            let time = self.parsed::<Timestamp>(&format!("{name}[{operator}]"), "an RFC 3339 time with a zone")?;
            Ok(time.map(|time| time.as_millisecond()))
        };
        let from = [bound("gte")?, bound("gt")?.map(|ms| ms + 1)];
        let to = [bound("lte")?, bound("lt")?.map(|ms| ms - 1)];
        Ok(TimeRange { from_ms: from.into_iter().flatten().max(), to_ms: to.into_iter().flatten().min() })
    }
}

#[cfg(test)]
impl Query {
    pub(crate) fn parse(text: &str) -> Self {
        let uri: http::Uri = format!("/x?{text}").parse().unwrap();
        Self { pairs: AxumQuery::try_from_uri(&uri).unwrap().0, declared: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        Query::parse(text)
    }

    #[test]
    fn lists_come_with_brackets_repeated_or_plain() {
        let found = query("types%5B%5D=a&types[]=b&types[1]=c&types=d&types[]=a&typesx=no");
        assert_eq!(found.list("types").into_iter().collect::<Vec<_>>(), ["a", "b", "c", "d"]);
    }

    #[test]
    fn times_take_every_zone_and_the_narrowest_bound() {
        let found = query("created_at[gte]=2026-01-01T00:00:00Z&created_at%5Blt%5D=2026-01-01T02:00:00%2B01:00");
        let start = "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap().as_millisecond();
        let expected = TimeRange { from_ms: Some(start), to_ms: Some(start + 3_600_000 - 1) };
        assert_eq!(found.times("created_at").unwrap(), expected);
        let found = query("created_at[gt]=2026-01-01T00:00:00Z&created_at[gte]=2025-01-01T00:00:00Z");
        assert_eq!(found.times("created_at").unwrap().from_ms, Some(start + 1));
        assert!(query("created_at[gt]=yesterday").times("created_at").is_err());
    }

    #[test]
    fn single_values_are_single() {
        assert_eq!(query("beta=true&limit=").text("limit").unwrap(), None);
        assert!(query("a=1&a=2").text("a").is_err());
        assert!(query("flag=yes").flag("flag").is_err());
        assert!(query("flag=true").flag("flag").unwrap());
    }
}
