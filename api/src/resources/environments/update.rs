//! What clients send to make and change an environment, and what comes of it. Pure: no row is read or written here.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;

use super::EnvironmentRow;
use super::config::{Config, ConfigParam};
use crate::body::Patch;
use crate::error::{ApiError, Result};
use crate::metadata::{self, Metadata, MetadataPatch};

const NAME_CHARS_MAX: usize = 256;
const DESCRIPTION_CHARS_MAX: usize = 2048;

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateEnvironment {
    name: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    config: Option<ConfigParam>,
    #[serde(default)]
    metadata: Option<Metadata>,
    #[serde(default)]
    scope: Option<Scope>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UpdateEnvironment {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    description: Patch<String>,
    #[serde(default)]
    config: Option<ConfigParam>,
    #[serde(default)]
    metadata: Option<MetadataPatch>,
    #[serde(default)]
    scope: Option<Scope>,
}

#[derive(Clone, Copy, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "EnvironmentScope")]
enum Scope {
    Organization,
    Account,
}

impl CreateEnvironment {
    pub(super) fn resolve(self, id: String, now: Timestamp) -> Result<EnvironmentRow> {
        check_scope(self.scope)?;
        Ok(EnvironmentRow {
            id,
            name: check_name(self.name)?,
            description: check_description(self.description)?,
            config: self.config.map(|param| Config::resolve(param, None)).transpose()?.unwrap_or_default(),
            metadata: check_metadata(self.metadata.unwrap_or_default())?,
            created_at: now,
            updated_at: now,
            archived_at: None,
        })
    }
}

impl UpdateEnvironment {
    /// The environment after the update: omitted fields stay, and so does the time if nothing changes.
    pub(super) fn resolve(self, current: &EnvironmentRow, now: Timestamp) -> Result<EnvironmentRow> {
        if current.archived_at.is_some() {
            let error = ApiError::invalid(format!("environment {} is archived and cannot be changed", current.id));
            return Err(error.code("environment_archived"));
        }
        check_scope(self.scope)?;
        let mut row = current.clone();
        if let Some(name) = self.name {
            row.name = check_name(name)?;
        }
        row.description = check_description(self.description.or_keep(row.description))?;
        if let Some(param) = self.config {
            row.config = Config::resolve(param, Some(&row.config))?;
        }
        // Here, and only here, an empty value deletes its key too.
        let patch = self.metadata.unwrap_or_default().into_iter();
        let patch = patch.map(|(key, value)| (key, value.filter(|value| !value.is_empty()))).collect();
        row.metadata = check_metadata(metadata::patched(row.metadata, patch))?;
        if row != *current {
            row.updated_at = now;
        }
        Ok(row)
    }
}

fn check_scope(scope: Option<Scope>) -> Result<()> {
    match scope {
        None | Some(Scope::Organization) => Ok(()),
        Some(Scope::Account) => Err(ApiError::field("scope", "must be organization")),
    }
}

fn check_name(name: String) -> Result<String> {
    match name.chars().count() {
        1..=NAME_CHARS_MAX => Ok(name),
        _ => Err(ApiError::field("name", format!("must be 1 to {NAME_CHARS_MAX} characters"))),
    }
}

fn check_description(description: Option<String>) -> Result<Option<String>> {
    match description.as_ref().map_or(0, |text| text.chars().count()) {
        0..=DESCRIPTION_CHARS_MAX => Ok(description),
        _ => Err(ApiError::field("description", format!("must be at most {DESCRIPTION_CHARS_MAX} characters"))),
    }
}

fn check_metadata(metadata: Metadata) -> Result<Metadata> {
    metadata::check(metadata).map_err(|error| error.code("invalid_metadata"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::body::json;

    fn create(body: Value) -> Result<EnvironmentRow> {
        json::<CreateEnvironment>(body.to_string().as_bytes())?.resolve("env_1".to_owned(), Timestamp::UNIX_EPOCH)
    }

    fn update(current: &EnvironmentRow, body: Value) -> Result<EnvironmentRow> {
        let later = Timestamp::from_second(60).unwrap();
        json::<UpdateEnvironment>(body.to_string().as_bytes())?.resolve(current, later)
    }

    #[test]
    fn creation_follows_the_rules() {
        let many: Value = (0..17).map(|n| (n.to_string(), json!("x"))).collect();
        for (body, sound) in [
            (json!({"name": "e"}), true),
            (json!({"name": "e", "scope": "organization", "config": null, "metadata": null}), true),
            (json!({}), false),
            (json!({"name": ""}), false),
            (json!({"name": "e", "scope": "account"}), false),
            (json!({"name": "e", "metadata": many}), false),
            (json!({"name": "e", "other": 1}), false),
        ] {
            assert_eq!(create(body.clone()).is_ok(), sound, "{body}");
        }
        assert_eq!(create(json!({"name": "e"})).unwrap().config, Config::default());
    }

    #[test]
    fn an_update_changes_what_it_names() {
        let current = create(json!({"name": "e", "description": "d", "metadata": {"a": "1", "b": "2"}})).unwrap();
        assert_eq!(update(&current, json!({})).unwrap(), current);
        assert_eq!(update(&current, json!({"name": "e", "scope": "organization"})).unwrap(), current);
        let changed = update(&current, json!({"name": "f"})).unwrap();
        assert_eq!((changed.name.as_str(), changed.updated_at > current.updated_at), ("f", true));
        assert_eq!(update(&current, json!({"description": null})).unwrap().description, None);
        assert_eq!(update(&current, json!({"description": ""})).unwrap().description.as_deref(), Some(""));
        let metadata = update(&current, json!({"metadata": {"a": "", "b": null, "c": "3"}})).unwrap().metadata;
        assert_eq!(metadata, Metadata::from([("c".to_owned(), "3".to_owned())]));
        let archived = EnvironmentRow { archived_at: Some(Timestamp::UNIX_EPOCH), ..current };
        assert!(update(&archived, json!({})).is_err());
    }
}
