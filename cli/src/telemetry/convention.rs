//! Which spans leave the process, and what they are called outside: OpenTelemetry's conventions for HTTP and for
//! generative AI. What is not listed here stays in the process, so no field can leak what it should not.

use opentelemetry::{Array, KeyValue, StringValue, Value, trace::SpanKind};

/// One kind of span.
struct Form {
    /// Its name in the code.
    span: &'static str,
    kind: SpanKind,
    /// `gen_ai.operation.name`, and the first word of the name outside.
    operation: Option<&'static str>,
    /// Fields whose values make the rest of the name.
    named_by: &'static [&'static str],
}

const fn form(span: &'static str) -> Form {
    Form { span, kind: SpanKind::Internal, operation: None, named_by: &[] }
}

const FORMS: &[Form] = &[
    Form { kind: SpanKind::Server, named_by: &["method", "route"], ..form("request") },
    Form { operation: Some("invoke_agent"), ..form("turn") },
    form("decide"),
    form("call_model"),
    Form { kind: SpanKind::Client, operation: Some("chat"), named_by: &["model"], ..form("model call") },
    Form { operation: Some("execute_tool"), named_by: &["tool"], ..form("execute") },
    Form { operation: Some("execute_tool"), named_by: &["tool"], ..form("call_mcp") },
    Form { operation: Some("execute_tool"), named_by: &["tool"], ..form("read_log") },
    Form { operation: Some("execute_tool"), named_by: &["tool"], ..form("fetch_page") },
    form("list_tools"),
    form("provision"),
    form("collect"),
    form("release"),
    form("seal"),
];

/// Fields, and the attributes that they become.
const ATTRIBUTES: &[(&str, &str)] = &[
    ("session_id", "gen_ai.conversation.id"),
    ("agent_id", "gen_ai.agent.id"),
    ("backend", "gen_ai.provider.name"),
    ("model", "gen_ai.request.model"),
    ("stop_reason", FINISH_REASONS),
    ("input_tokens", "gen_ai.usage.input_tokens"),
    ("output_tokens", "gen_ai.usage.output_tokens"),
    ("cache_read_tokens", "gen_ai.usage.cache_read.input_tokens"),
    ("cache_creation_tokens", "gen_ai.usage.cache_creation.input_tokens"),
    ("tool", "gen_ai.tool.name"),
    ("tool_use_id", "gen_ai.tool.call.id"),
    ("method", "http.request.method"),
    ("route", "http.route"),
    ("status", "http.response.status_code"),
    ("error_type", ERROR_TYPE),
    ("request_id", "steadyhand.request.id"),
    ("run_id", "steadyhand.run.id"),
    ("hand_id", "steadyhand.hand.id"),
    ("turn", "steadyhand.turn"),
    ("step", "steadyhand.step"),
    ("activity", "steadyhand.activity"),
    ("attempt", "steadyhand.attempt"),
    ("tries", "steadyhand.tries"),
    ("outcome", "steadyhand.outcome"),
];

const FINISH_REASONS: &str = "gen_ai.response.finish_reasons";
pub const ERROR_TYPE: &str = "error.type";
const OPERATION: &str = "gen_ai.operation.name";

fn find(span: &str) -> Option<&'static Form> {
    FORMS.iter().find(|form| form.span == span)
}

pub fn is_exported(span: &str) -> bool {
    find(span).is_some()
}

/// The attribute that a field becomes, if it may leave the process.
pub fn attribute(field: &str) -> Option<&'static str> {
    ATTRIBUTES.iter().find(|(name, _)| *name == field).map(|(_, attribute)| *attribute)
}

/// A span as it is called outside.
pub struct Outside {
    pub name: String,
    pub kind: SpanKind,
    pub attributes: Vec<KeyValue>,
}

/// `fields` are those that became attributes, by their names in the code.
pub fn outside(span: &str, fields: &[(&'static str, Value)]) -> Outside {
    let form = find(span).expect("others are filtered out");
    let values = form.named_by.iter().filter_map(|name| fields.iter().find(|(field, _)| field == name));
    let words = form.operation.map(str::to_owned).into_iter().chain(values.map(|(_, value)| value.to_string()));
    let mut name = words.collect::<Vec<_>>().join(" ");
    if name.is_empty() {
        name = form.span.to_owned();
    }
    let operation = form.operation.map(|operation| KeyValue::new(OPERATION, operation));
    let attributes = fields.iter().filter_map(|(field, value)| {
        let attribute = attribute(field)?;
        Some(KeyValue::new(attribute, if attribute == FINISH_REASONS { listed(value) } else { value.clone() }))
    });
    Outside { name, kind: form.kind.clone(), attributes: operation.into_iter().chain(attributes).collect() }
}

/// One choice was asked for, so there is one reason; the convention wants a list.
fn listed(value: &Value) -> Value {
    Value::Array(Array::String(vec![StringValue::from(value.to_string())]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_named_by_the_conventions() {
        let named = |span, fields: &[(&'static str, &'static str)]| {
            let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, Value::from(*value))).collect();
            outside(span, &fields).name
        };
        assert_eq!(named("request", &[("route", "/v1/agents"), ("method", "GET")]), "GET /v1/agents");
        assert_eq!(named("model call", &[("model", "m-1"), ("backend", "openai")]), "chat m-1");
        assert_eq!(named("model call", &[]), "chat");
        assert_eq!(named("execute", &[("tool", "bash")]), "execute_tool bash");
        assert_eq!(named("turn", &[]), "invoke_agent");
        assert_eq!(named("decide", &[("tool", "bash")]), "decide");
    }

    #[test]
    fn only_listed_fields_leave() {
        let fields = [("session_id", Value::from("sesn_1")), ("command", Value::from("rm -rf /"))];
        let attributes = outside("execute", &fields).attributes;
        let names: Vec<_> = attributes.iter().map(|attribute| attribute.key.as_str()).collect();
        assert_eq!(names, [OPERATION, "gen_ai.conversation.id"]);
    }
}
