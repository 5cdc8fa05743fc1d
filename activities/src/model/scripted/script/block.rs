//! The blocks of an answer.

use serde::Deserialize;
use serde_json::Value;

use crate::model::scripted::facts;

#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "BlockForm")]
pub(in crate::model::scripted) enum Block {
    Text(String),
    Thinking { thinking: String, signature: Option<String> },
    Redacted(String),
    Tool { name: String, id: Option<String>, input: Input },
    Verbatim(Value),
}

#[derive(Clone, Debug)]
pub(in crate::model::scripted) enum Input {
    Json(Value),
    Raw(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BlockForm {
    text: Option<String>,
    thinking: Option<String>,
    signature: Option<String>,
    redacted: Option<String>,
    tool: Option<String>,
    id: Option<String>,
    input: Option<Value>,
    raw_input: Option<String>,
    block: Option<Value>,
}

impl TryFrom<BlockForm> for Block {
    type Error = String;

    fn try_from(form: BlockForm) -> Result<Block, String> {
        let BlockForm { text, thinking, signature, redacted, tool, id, input, raw_input, block } = form;
        if thinking.is_none() && signature.is_some() {
            return Err("signature belongs to a thinking block".to_owned());
        }
        if tool.is_none() && (id.is_some() || input.is_some() || raw_input.is_some()) {
            return Err("id, input and raw_input belong to a tool block".to_owned());
        }
        match (text, thinking, redacted, tool, block) {
            (Some(text), None, None, None, None) => Ok(Block::Text(text)),
            (None, Some(thinking), None, None, None) => Ok(Block::Thinking { thinking, signature }),
            (None, None, Some(data), None, None) => Ok(Block::Redacted(data)),
            (None, None, None, Some(name), None) => {
                let input = match (input, raw_input) {
                    (None, None) => Input::Json(Value::Object(Default::default())),
                    (Some(input @ Value::Object(_)), None) => Input::Json(input),
                    (Some(_), None) => return Err("input is not a table of fields".to_owned()),
                    (None, Some(raw)) => Input::Raw(raw),
                    (Some(_), Some(_)) => return Err("there are both input and raw_input".to_owned()),
                };
                Ok(Block::Tool { name, id, input })
            }
            (None, None, None, None, Some(block)) if block.get("type").is_some_and(Value::is_string) => {
                Ok(Block::Verbatim(block))
            }
            (None, None, None, None, Some(_)) => Err("block has no type".to_owned()),
            _ => Err("a block is one of text, thinking, redacted, tool and block".to_owned()),
        }
    }
}

impl Block {
    pub(super) fn check_placeholders(&self) -> Result<(), String> {
        match self {
            Block::Text(text) | Block::Thinking { thinking: text, .. } => facts::check(text),
            Block::Tool { input: Input::Raw(text), .. } => facts::check(text),
            Block::Tool { input: Input::Json(input), .. } => facts::check_value(input),
            Block::Redacted(_) | Block::Verbatim(_) => Ok(()),
        }
    }
}
