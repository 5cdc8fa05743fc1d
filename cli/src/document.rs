//! Bodies of requests that people write down: a JSON or TOML file.

use crate::error::{Code, Hint as _, failed};
use serde_json::Value;
use std::path::Path;

/// Reads an object; the name says which format it has.
pub fn read(path: &Path) -> anyhow::Result<Value> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).hint(Code::Usage, format!("read {shown}"), "give a JSON or TOML file")?;
    let is_toml = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("toml"));
    let hint = "a file whose name ends in .toml is read as TOML, any other as JSON";
    let parsed: anyhow::Result<Value> = match is_toml {
        true => toml::from_str(&text).map_err(anyhow::Error::from),
        false => serde_json::from_str(&text).map_err(anyhow::Error::from),
    };
    let value = parsed.hint(Code::Usage, format!("understand {shown}"), hint)?;
    if !value.is_object() {
        return Err(failed(Code::Usage, format!("{shown} holds no object"), hint));
    }
    Ok(value)
}
