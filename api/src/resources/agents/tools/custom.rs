//! Custom tools: the client runs them, so all that is kept is what the model is told.

use harness::own_log;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{BUILT_IN, is_name};
use crate::error::{ApiError, Result};

/// The prefix under which the model sees the tools of MCP servers.
const MCP_PREFIX: &str = "mcp__";

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CustomTool {
    pub name: String,
    pub description: String,
    /// A JSON schema of type object.
    pub input_schema: Map<String, Value>,
}

#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CustomToolParam {
    name: String,
    description: String,
    input_schema: Map<String, Value>,
}

impl CustomTool {
    pub(super) fn resolve(param: CustomToolParam, at: &str) -> Result<Self> {
        let CustomToolParam { name, description, input_schema } = param;
        let wrong_name = |problem: &str| Err(ApiError::field(format!("{at}.name"), problem));
        if !is_name(&name) {
            return wrong_name("must be 1 to 128 letters, digits, underscores and hyphens");
        }
        if BUILT_IN.contains(&name.as_str()) || name == own_log::NAME {
            return wrong_name("is the name of a built-in tool");
        }
        if name.starts_with(MCP_PREFIX) {
            return wrong_name("must not start with mcp__");
        }
        if description.trim().is_empty() {
            return Err(ApiError::field(format!("{at}.description"), "must not be empty"));
        }
        check_schema(&input_schema, &format!("{at}.input_schema"))?;
        Ok(Self { name, description, input_schema })
    }
}

fn check_schema(schema: &Map<String, Value>, at: &str) -> Result<()> {
    if schema.get("type").and_then(Value::as_str) != Some("object") {
        return Err(ApiError::field(format!("{at}.type"), "must be object"));
    }
    for keyword in ["oneOf", "anyOf", "allOf"] {
        if schema.contains_key(keyword) {
            return Err(ApiError::field(format!("{at}.{keyword}"), "is not supported at the top of a schema"));
        }
    }
    match schema.get("required") {
        None | Some(Value::Null) => {}
        Some(Value::Array(names)) if names.iter().all(Value::is_string) => {}
        Some(_) => return Err(ApiError::field(format!("{at}.required"), "must be a list of property names")),
    }
    walk(schema, at)
}

/// Looks at every schema inside; values that are data are not schemas.
fn walk(schema: &Map<String, Value>, at: &str) -> Result<()> {
    for (keyword, value) in schema {
        let at = format!("{at}.{keyword}");
        match (keyword.as_str(), value) {
            ("$ref", _) => return Err(ApiError::field(at, "is not supported")),
            ("enum" | "const" | "default" | "examples", _) | ("properties", Value::Null) => {}
            ("properties", Value::Object(properties)) => {
                for (name, property) in properties {
                    if !is_property(name) {
                        let problem = "a property name must be 1 to 64 letters, digits and _ . -";
                        return Err(ApiError::field(at, problem));
                    }
                    walk_value(property, &format!("{at}.{name}"))?;
                }
            }
            ("properties", _) => return Err(ApiError::field(at, "must be an object")),
            (_, value) => walk_value(value, &at)?,
        }
    }
    Ok(())
}

fn walk_value(value: &Value, at: &str) -> Result<()> {
    match value {
        Value::Object(schema) => walk(schema, at),
        Value::Array(values) => {
            values.iter().enumerate().try_for_each(|(n, value)| walk_value(value, &format!("{at}[{n}]")))
        }
        _ => Ok(()),
    }
}

fn is_property(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}
