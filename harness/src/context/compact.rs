//! `compact@1`: a summary in the place of what came before, and the last rounds verbatim.
//!
//! `{"keep": N, "clear": {"before": P, "keep": M}}`: N rounds stay verbatim beside the summary; `clear` is
//! `clear-tool-results@1` on what is shown. A compaction's recipe says what its summary stands for, so the slice
//! needs nothing older than that.

use super::{
    Param, Strategy, Summary,
    clear::{self, cleared},
    messages::{Messages, Synthetic, texts},
};
use crate::marks::Marks;
use domain::{EventBody, session::LogEntry};
use serde_json::{Value, json};

pub const STRATEGY: Strategy = Strategy {
    name: "compact",
    version: 1,
    reach,
    messages,
    summary: Some(Summary { end, prompt: PROMPT }),
    params: &[Param::Number("keep"), Param::Of("clear", clear::PARAMS)],
};

pub fn reach(marks: &Marks, _params: &Value) -> u64 {
    marks.cut.map_or(0, |cut| cut.from)
}

/// The last rounds stay, as far as they came after the last summary: what an older summary stands for is not
/// shown again.
fn end(marks: &Marks, params: &Value, end: u64) -> u64 {
    let keep = usize::try_from(params["keep"].as_u64().unwrap_or(0)).unwrap_or(usize::MAX);
    let after = marks.cut.map_or(0, |cut| cut.at);
    let mut rounds = marks.rounds.iter().rev().copied().filter(|round| *round > after);
    match keep {
        0 => end,
        _ => rounds.nth(keep - 1).unwrap_or(end),
    }
}

fn messages(entries: &[LogEntry], params: &Value) -> Vec<Value> {
    with_summary(&cleared(entries, &params["clear"]), INTRODUCTION)
}

/// What was kept, the last summary under its introduction, and what it does not stand for.
pub fn with_summary(entries: &[LogEntry], introduction: &str) -> Vec<Value> {
    let compaction = entries.iter().rev().find_map(|entry| match (&entry.event.body, &entry.private) {
        (EventBody::AgentThreadContextCompacted {}, Some(private)) => Some(private),
        _ => None,
    });
    let Some(compaction) = compaction else { return Messages::of(entries, Synthetic::Kept) };
    let summary = format!("{introduction}\n\n{}", texts(&compaction.blocks).join("\n"));
    let mut summary = Some(json!({"type": "text", "text": summary}));
    let mut messages = Messages::new(Synthetic::Kept);
    for entry in entries {
        if entry.position >= compaction.recipe.to
            && let Some(summary) = summary.take()
        {
            messages.note(summary);
        }
        // Of what the summary stands for, only inputs are here.
        messages.push(entry);
    }
    if let Some(summary) = summary {
        messages.note(summary);
    }
    messages.finish()
}

const INTRODUCTION: &str = "[The conversation so far was summarised to save room. The summary, by you:]";

const PROMPT: &str = "The context is nearly full. Write a summary that will take the place of everything above; \
    you will go on from it and from nothing else. Do not use tools and do not go on with the task now.

Cover, under these headings:
1. Task: what was asked for, with every instruction and preference that still holds, in the user's own words.
2. Done: what is finished, and how it was checked.
3. State: files, commands, identifiers, values and findings that are needed to go on, verbatim where exactness matters.
4. Tried and failed: what does not work, and why.
5. Open: what is in progress and what comes next, in order.

Be complete rather than short. Leave out what no later step can need.";
