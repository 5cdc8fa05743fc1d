//! What a query asks of one attribute.

use super::attribute::Value;
use std::cmp::Ordering;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Equal,
    NotEqual,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    Compare(Op, Value),
    OneOf(Vec<Value>),
    NoneOf(Vec<Value>),
    StartsWith(String),
    StartsNotWith(String),
    Between(Value, Value),
    NotBetween(Value, Value),
    Null,
    NotNull,
}

impl Op {
    pub fn text(self) -> &'static str {
        match self {
            Op::Equal => "=",
            Op::NotEqual => "!=",
            Op::Less => "<",
            Op::AtMost => "<=",
            Op::Greater => ">",
            Op::AtLeast => ">=",
        }
    }

    fn holds(self, order: Ordering) -> bool {
        match self {
            Op::Equal => order.is_eq(),
            Op::NotEqual => order.is_ne(),
            Op::Less => order.is_lt(),
            Op::AtMost => order.is_le(),
            Op::Greater => order.is_gt(),
            Op::AtLeast => order.is_ge(),
        }
    }
}

impl Test {
    /// Whether a run with these values is meant. One that has none is meant only by `IS NULL`.
    pub fn holds(&self, values: &[Value]) -> bool {
        let equals = |wanted: &Value| values.iter().any(|value| value.compare(wanted) == Some(Ordering::Equal));
        let within = |low: &Value, high: &Value| {
            let holds = |value: &Value| {
                value.compare(low).is_some_and(Ordering::is_ge) && value.compare(high).is_some_and(Ordering::is_le)
            };
            values.iter().any(holds)
        };
        let begins =
            |prefix: &str| values.iter().any(|value| matches!(value, Value::Text(text) if text.starts_with(prefix)));
        match self {
            Test::Null => values.is_empty(),
            _ if values.is_empty() => false,
            Test::NotNull => true,
            Test::Compare(Op::NotEqual, wanted) => !equals(wanted),
            Test::Compare(op, wanted) => {
                values.iter().any(|value| value.compare(wanted).is_some_and(|order| op.holds(order)))
            }
            Test::OneOf(wanted) => wanted.iter().any(equals),
            Test::NoneOf(wanted) => !wanted.iter().any(equals),
            Test::StartsWith(prefix) => begins(prefix),
            Test::StartsNotWith(prefix) => !begins(prefix),
            Test::Between(low, high) => within(low, high),
            Test::NotBetween(low, high) => !within(low, high),
        }
    }
}
