//! Queries and what they select.

use super::*;
use crate::pb::common::v1::{Payload, SearchAttributes, WorkflowExecution, WorkflowType};
use crate::pb::enums::v1::WorkflowExecutionStatus;
use crate::pb::workflow::v1::WorkflowExecutionInfo;
use crate::time::Time;

const SECOND: i64 = 1_000_000_000;

fn run(id: &str, kind: &str, status: WorkflowExecutionStatus, attributes: &[(&str, &str)]) -> WorkflowExecutionInfo {
    let payload = |json: &str| Payload { data: json.as_bytes().to_vec(), ..Default::default() };
    let closed = status != WorkflowExecutionStatus::Running;
    WorkflowExecutionInfo {
        execution: Some(WorkflowExecution { workflow_id: id.into(), run_id: String::new() }),
        r#type: Some(WorkflowType { name: kind.into() }),
        status: status as i32,
        start_time: Time(1_700_000_000 * SECOND + id.len() as i64).timestamp(),
        close_time: closed.then(|| Time(1_700_000_100 * SECOND).timestamp()).flatten(),
        search_attributes: Some(SearchAttributes {
            indexed_fields: attributes.iter().map(|(name, json)| ((*name).to_owned(), payload(json))).collect(),
        }),
        ..Default::default()
    }
}

fn registered() -> Registered {
    [
        ("Color", Kind::Keyword),
        ("Amount", Kind::Int),
        ("Rate", Kind::Double),
        ("Paid", Kind::Bool),
        ("Due", Kind::Datetime),
        ("Tags", Kind::KeywordList),
    ]
    .map(|(name, kind)| (name.to_owned(), kind))
    .into()
}

fn runs() -> [(&'static str, WorkflowExecutionInfo); 3] {
    let a = [("Color", "\"red\""), ("Amount", "5"), ("Rate", "0.5"), ("Paid", "true")];
    let b = [("Color", "\"green\""), ("Amount", "7"), ("Tags", r#"["x","y"]"#), ("Due", "\"2024-03-01T00:00:00Z\"")];
    [
        ("a", run("a", "Session", WorkflowExecutionStatus::Running, &a)),
        ("b", run("b", "Session", WorkflowExecutionStatus::Completed, &b)),
        ("c", run("c's", "Rollout", WorkflowExecutionStatus::Running, &[])),
    ]
}

#[test]
fn queries_select_what_they_say() {
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
        ("WorkflowType STARTS_WITH 'Sess'", "ab"),
        ("WorkflowType NOT STARTS_WITH 'Sess'", "c"),
        ("CloseTime IS NULL", "ac"),
        ("CloseTime is not null", "b"),
        ("CloseTime < '2030-01-01T00:00:00Z'", "b"),
        ("StartTime > '2023-11-14T22:13:20.000000001Z'", "c"),
        ("StartTime BETWEEN '2023-11-14T22:13:20Z' AND '2023-11-14T22:13:21+00:00'", "abc"),
        ("Color = 'red'", "a"),
        ("Color != 'red'", "b"),
        ("Color IS NULL", "c"),
        ("Amount >= 5 AND Amount < 7", "a"),
        ("Amount <= 7", "ab"),
        ("Amount > -1", "ab"),
        ("Amount NOT BETWEEN 6 AND 9", "a"),
        ("Rate = 0.5", "a"),
        ("Paid = true", "a"),
        ("Due = '2024-03-01T01:00:00+01:00'", "b"),
        ("Tags = 'y'", "b"),
        ("Tags IN ('x', 'z')", "b"),
        ("Tags != 'y'", ""),
    ];
    for (query, expected) in table {
        let parsed = Query::parse(query, &registered()).unwrap_or_else(|e| panic!("{query}: {e}"));
        let found: String = runs().iter().filter(|(_, run)| parsed.filter.matches(run)).map(|(n, _)| *n).collect();
        assert_eq!(found, expected, "{query}");
    }
}

#[test]
fn an_order_is_kept_and_what_has_no_value_comes_last() {
    let table = [
        ("ORDER BY Amount", "abc"),
        ("ORDER BY Amount ASC", "abc"),
        ("order by Amount desc", "bac"),
        ("WorkflowType = 'Session' ORDER BY Color", "ba"),
        ("ORDER BY StartTime DESC", "cab"),
    ];
    for (query, expected) in table {
        let parsed = Query::parse(query, &registered()).unwrap_or_else(|e| panic!("{query}: {e}"));
        let mut found: Vec<_> = runs().into_iter().filter(|(_, run)| parsed.filter.matches(run)).collect();
        let order = parsed.order.expect("an order");
        found.sort_by(|a, b| order.compare(&a.1, &b.1));
        assert_eq!(found.iter().map(|(n, _)| *n).collect::<String>(), expected, "{query}");
    }
}

#[test]
fn what_is_not_understood_is_refused() {
    let deep = format!("{}WorkflowId='a'{}", "(".repeat(100), ")".repeat(100));
    let value = |attribute: &str, kind, value: &str| FilterError::Value {
        attribute: attribute.into(),
        kind,
        value: value.into(),
    };
    let operator =
        |attribute: &str, kind, operator| FilterError::Operator { attribute: attribute.into(), kind, operator };
    let table: [(&str, FilterError); 13] = [
        ("Colour = 'red'", FilterError::UnknownAttribute("Colour".into())),
        ("ExecutionStatus = 'Asleep'", value("ExecutionStatus", Kind::Keyword, "Asleep")),
        ("Amount > 'x'", value("Amount", Kind::Int, "x")),
        ("StartTime > 'yesterday'", value("StartTime", Kind::Datetime, "yesterday")),
        ("Amount STARTS_WITH '1'", operator("Amount", Kind::Int, "STARTS_WITH")),
        ("ORDER BY Tags", operator("Tags", Kind::KeywordList, "ORDER BY")),
        ("WorkflowId = 'a", FilterError::Quote),
        ("WorkflowId ~ 'a'", FilterError::Character('~')),
        ("WorkflowId", FilterError::End("an operator")),
        ("WorkflowId NOT = 'a'", FilterError::Unexpected("=".into(), "an operator")),
        ("WorkflowId = 'a' WorkflowId = 'b'", FilterError::Unexpected("WorkflowId".into(), "the end")),
        ("WorkflowId IN ()", FilterError::Unexpected(")".into(), "a value")),
        (&deep, FilterError::Depth),
    ];
    for (query, expected) in table {
        assert_eq!(Query::parse(query, &registered()), Err(expected), "{query}");
    }
}

#[test]
fn only_a_conjunction_pins_the_workflow_id() {
    let pinned = |query: &str| {
        Query::parse(query, &Registered::new()).expect("is understood").filter.only_workflow_id().map(str::to_owned)
    };
    assert_eq!(pinned("ExecutionStatus='Running' AND WorkflowId='a'").as_deref(), Some("a"));
    assert_eq!(pinned("WorkflowId IN ('a')").as_deref(), Some("a"));
    assert_eq!(pinned("ExecutionStatus='Running' OR WorkflowId='a'"), None);
    assert_eq!(pinned("WorkflowId != 'a'"), None);
    assert_eq!(split_group_by_status("WorkflowId='a' GROUP BY ExecutionStatus"), ("WorkflowId='a' ", true));
}
