//! Query parameters in the SDKs' spelling: `types[]=a&types[]=b`, `created_at[gte]=...`. Unknown keys are ignored.

use std::collections::BTreeSet;
use std::str::FromStr;

use axum::extract::{FromRequestParts, Query as AxumQuery};
use http::request::Parts;
use jiff::Timestamp;

use crate::error::{ApiError, Result};

#[derive(Clone, Debug, Default)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        let parsed = AxumQuery::<Vec<(String, String)>>::try_from_uri(&parts.uri);
        let AxumQuery(pairs) = parsed.map_err(|error| ApiError::invalid("the query could not be read").inner(error))?;
        Ok(Self { pairs })
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
        let ours = move |key: &str| {
            key.strip_prefix(name).is_some_and(|rest| rest.is_empty() || (rest.starts_with('[') && rest.ends_with(']')))
        };
        self.pairs.iter().filter(move |(key, _)| ours(key)).map(|(_, value)| value.as_str())
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
        Self { pairs: AxumQuery::try_from_uri(&uri).unwrap().0 }
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
