//! What a decision is made on: the mailbox and what became of activities, as digests.
//!
//! The shell builds an `Intake` out of signals and activity results; a reader of the log builds the same
//! one out of history. The commit that follows names what it took.

use domain::{
    Content, Event, EventBody, Time,
    commit::Closed,
    content::Block,
    event::Confirmation,
    ids,
    limits::VIEW_RESULT_HEAD_BYTES,
    outcome::{CollectOutcome, ListOutcome, ModelDigest, ParkOutcome, ProvisionOutcome, SealOutcome, ToolDigest},
    session::{Change, Close, Give, Handed, Mail, Swap},
};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Intake {
    /// Workflow time.
    pub now: Time,
    /// Everything accepted and not yet committed, in order of arrival.
    pub mail: Vec<Waiting>,
    /// Activities and timers that are over and not yet committed, in order of arrival.
    pub closed: Vec<Closing>,
}

impl Intake {
    pub fn mail(&self, id: &str) -> Option<&Waiting> {
        self.mail.iter().find(|waiting| waiting.id() == id)
    }

    pub fn closing(&self, activity: &str) -> Option<&Closing> {
        self.closed.iter().find(|closing| closing.activity == activity)
    }
}

/// One piece of mail without its content.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "waiting", rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "a mailbox holds a few, and changes of attributes are rare")]
pub enum Waiting {
    Message { id: String, bytes: u64 },
    System { id: String, bytes: u64 },
    Interrupt { id: String },
    Confirmation { id: String, tool_use_id: String, allow: bool, deny_message: Option<String> },
    Answer { id: String, digest: ToolDigest },
    Change { change: Change },
    Swap { swap: Swap },
    Give { give: Give },
    Handed { handed: Handed },
    Close { close: Close },
}

impl Waiting {
    pub fn of(mail: &Mail) -> Self {
        match mail {
            Mail::Event { event } => Self::of_event(event),
            Mail::Change { change } => Waiting::Change { change: change.clone() },
            Mail::Swap { swap } => Waiting::Swap { swap: swap.clone() },
            Mail::Give { give } => Waiting::Give { give: give.clone() },
            Mail::Handed { handed } => Waiting::Handed { handed: handed.clone() },
            Mail::Close { close } => Waiting::Close { close: close.clone() },
        }
    }

    fn of_event(event: &Event) -> Self {
        let id = event.id.clone();
        match &event.body {
            EventBody::UserInterrupt { .. } => Waiting::Interrupt { id },
            EventBody::UserToolConfirmation { tool_use_id, result, deny_message } => Waiting::Confirmation {
                id,
                tool_use_id: tool_use_id.clone(),
                allow: *result == Confirmation::Allow,
                deny_message: deny_message.clone(),
            },
            EventBody::UserToolResult { tool_use_id: answered, content, is_error }
            | EventBody::UserCustomToolResult { custom_tool_use_id: answered, content, is_error } => {
                Waiting::Answer { id, digest: result_digest(answered, content, is_error.unwrap_or(false)) }
            }
            EventBody::SystemMessage { content } => Waiting::System { id, bytes: content_bytes(content) },
            other => Waiting::Message { id, bytes: other.content().map_or(0, content_bytes) },
        }
    }

    pub fn id(&self) -> &str {
        match self {
            Waiting::Message { id, .. }
            | Waiting::System { id, .. }
            | Waiting::Interrupt { id }
            | Waiting::Confirmation { id, .. }
            | Waiting::Answer { id, .. } => id,
            Waiting::Change { change } => &change.id,
            Waiting::Swap { swap } => &swap.id,
            Waiting::Give { give } => &give.id,
            Waiting::Handed { handed } => &handed.id,
            Waiting::Close { close } => &close.id,
        }
    }

    /// Starts work at a turn boundary.
    pub fn is_input(&self) -> bool {
        matches!(self, Waiting::Message { .. } | Waiting::System { .. })
    }
}

/// An activity or timer that is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Closing {
    pub activity: String,
    pub how: Closed,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "of", rename_all = "snake_case")]
pub enum Outcome {
    Model {
        digest: ModelDigest,
        /// How many public events the result carries.
        events: usize,
    },
    Tool {
        digest: ToolDigest,
    },
    List {
        outcome: ListOutcome,
    },
    Provision {
        outcome: ProvisionOutcome,
    },
    Seal {
        outcome: SealOutcome,
    },
    Collect {
        outcome: CollectOutcome,
    },
    Park {
        outcome: ParkOutcome,
    },
    /// A timer fired, or an activity that returns nothing is done.
    Done {},
}

/// What a decision sees of a tool's result, whoever produced it.
pub fn result_digest(tool_use_id: &str, content: &Content, is_error: bool) -> ToolDigest {
    let (bytes, sha256, head) = match content {
        Content::Inline(blocks) => {
            let json = serde_json::to_vec(blocks).unwrap_or_default();
            (json.len() as u64, ids::content_hash(&json), text_head(blocks, VIEW_RESULT_HEAD_BYTES))
        }
        Content::Blob(blob) => (blob.bytes, blob.blob.clone(), String::new()),
    };
    ToolDigest { tool_use_id: tool_use_id.to_owned(), is_error, bytes, sha256, head, lost: false, hand_lost: false }
}

fn content_bytes(content: &Content) -> u64 {
    match content {
        Content::Inline(blocks) => serde_json::to_vec(blocks).map_or(0, |json| json.len() as u64),
        Content::Blob(blob) => blob.bytes,
    }
}

/// The first `max` bytes of the text in some blocks, cut at a character.
pub fn text_head(blocks: &[Block], max: usize) -> String {
    let mut head = String::new();
    for block in blocks {
        if let Block::Text { text } = block {
            let room = max - head.len();
            head.push_str(&text[..text.floor_char_boundary(room)]);
            if text.len() > room {
                break;
            }
        }
    }
    head
}
