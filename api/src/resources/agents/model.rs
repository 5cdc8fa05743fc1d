//! Which model an agent uses, and how hard it works.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{ApiError, Result};
use crate::shorthand::TextOr;

const ID_CHARS_MAX: usize = 256;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Model {
    pub id: String,
    pub effort: Effort,
    pub speed: Speed,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inference_geo: Option<InferenceGeo>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub enum Effort {
    Low,
    Medium,
    #[default]
    High,
    Xhigh,
    Max,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Speed {
    #[default]
    Standard,
    Fast,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum InferenceGeo {
    Us,
    Global,
}

/// As clients send it: the id alone, or an object.
pub type ModelParam = TextOr<ModelObject>;

#[derive(Clone, PartialEq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelObject {
    id: String,
    #[serde(default)]
    effort: Option<TextOr<Effort>>,
    #[serde(default)]
    speed: Option<Speed>,
    #[serde(default)]
    inference_geo: Option<InferenceGeo>,
}

impl Model {
    /// With the defaults filled in. An update keeps the effort of `current` where it keeps the model and names none.
    pub fn resolve(param: ModelParam, current: Option<&Model>) -> Result<Model> {
        let ModelObject { id, effort, speed, inference_geo } = match param {
            TextOr::Text(id) => ModelObject { id, effort: None, speed: None, inference_geo: None },
            TextOr::Object(object) => object,
        };
        let chars = id.chars().count();
        if chars == 0 || chars > ID_CHARS_MAX || id.chars().any(char::is_control) {
            return Err(ApiError::field("model", format!("must be a model id of 1 to {ID_CHARS_MAX} characters")));
        }
        let kept = current.filter(|current| current.id == id).map(|current| current.effort);
        let effort = match effort {
            None => kept.unwrap_or_default(),
            Some(TextOr::Object(effort)) => effort,
            Some(TextOr::Text(name)) => Effort::named(&name)?,
        };
        Ok(Model { id, effort, speed: speed.unwrap_or_default(), inference_geo })
    }
}

impl Effort {
    fn named(name: &str) -> Result<Effort> {
        Ok(match name {
            "low" => Effort::Low,
            "medium" => Effort::Medium,
            "high" => Effort::High,
            "xhigh" => Effort::Xhigh,
            "max" => Effort::Max,
            _ => return Err(ApiError::field("model.effort", "must be low, medium, high, xhigh or max")),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn resolve(param: Value, current: Option<&Model>) -> Result<Value> {
        let param = crate::body::json(param.to_string().as_bytes())?;
        Ok(serde_json::to_value(Model::resolve(param, current)?).unwrap())
    }

    #[test]
    fn defaults_are_filled_in() {
        let bare = json!({"id": "m", "effort": {"type": "high"}, "speed": "standard"});
        for (param, expected) in [
            (json!("m"), bare.clone()),
            (json!({"id": "m"}), bare.clone()),
            (json!({"id": "m", "effort": null, "speed": null, "inference_geo": null}), bare),
            (
                json!({"id": "m", "effort": "low", "speed": "fast", "inference_geo": "us"}),
                json!({"id": "m", "effort": {"type": "low"}, "speed": "fast", "inference_geo": "us"}),
            ),
            (
                json!({"id": "m", "effort": {"type": "xhigh"}}),
                json!({"id": "m", "effort": {"type": "xhigh"}, "speed": "standard"}),
            ),
        ] {
            assert_eq!(resolve(param, None).unwrap(), expected);
        }
        for bad in [json!(""), json!({}), json!(1), json!({"id": "m", "effort": "hard"}), json!({"id": "m", "x": 1})] {
            assert!(resolve(bad.clone(), None).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_update_keeps_the_effort_of_the_same_model_and_nothing_else() {
        let current = Model {
            id: "m".to_owned(),
            effort: Effort::Low,
            speed: Speed::Fast,
            inference_geo: Some(InferenceGeo::Us),
        };
        let effort = |param| resolve(param, Some(&current)).unwrap()["effort"]["type"].clone();
        assert_eq!(effort(json!("m")), "low");
        assert_eq!(effort(json!("other")), "high");
        assert_eq!(effort(json!({"id": "m", "effort": "max"})), "max");
        let same = resolve(json!("m"), Some(&current)).unwrap();
        assert_eq!(same, json!({"id": "m", "effort": {"type": "low"}, "speed": "standard"}));
    }
}
