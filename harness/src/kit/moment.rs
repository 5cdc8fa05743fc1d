//! One moment of a session, for tests of a harness: a View made by hand, and what the harness answers to it in a line.

use crate::{
    Decision, View,
    registry::Harness,
    view::{CallView, ContextView, Last, VERSION},
};
use domain::{
    Failure, Step, Time, Usage, ids,
    outcome::{BlockDigest, ToolDigest},
};

/// A View, built up by what happened.
#[derive(Clone, Debug)]
pub struct Moment(View);

/// The first decision of a turn.
pub fn moment() -> Moment {
    let mut view = View::probe(VERSION);
    view.seed = 7;
    view.context = ContextView { tokens: 1_000, window_tokens: 100_000, end: Some(10), compactions: Some(0) };
    Moment(view)
}

impl Moment {
    /// The model said `text` and stopped for `stop_reason`.
    pub fn answered(mut self, stop_reason: &str, text: &str) -> Self {
        let block = BlockDigest {
            kind: "text".to_owned(),
            bytes: text.len() as u64,
            head: text.to_owned(),
            tail: String::new(),
            tool: None,
            input_sha256: None,
        };
        self.0.round += 1;
        self.0.last = Some(Last::Answer {
            stop_reason: stop_reason.to_owned(),
            usage: Usage::default(),
            blocks: Vec::from_iter((!text.is_empty()).then_some(block)),
            refusal: None,
        });
        self.0.results.clear();
        self
    }

    /// The model asks for tools, by name and input.
    pub fn asks(self, calls: &[(&str, &str)]) -> Self {
        let mut asked = self.answered("tool_use", "");
        asked.0.calls = calls
            .iter()
            .enumerate()
            .map(|(index, (name, input))| CallView {
                tool_use_id: format!("use_{index}"),
                name: (*name).to_owned(),
                input_sha256: ids::content_hash(input.as_bytes()),
            })
            .collect();
        asked
    }

    /// The tools have run.
    pub fn results(mut self, texts: &[&str]) -> Self {
        self.0.calls.clear();
        let result = |(index, text): (usize, &&str)| ToolDigest {
            tool_use_id: format!("use_{index}"),
            is_error: false,
            bytes: text.len() as u64,
            sha256: ids::content_hash(text.as_bytes()),
            head: (*text).to_owned(),
            lost: false,
            hand_lost: false,
        };
        self.0.results = texts.iter().enumerate().map(result).collect();
        self
    }

    pub fn failed(mut self, failure: Failure, tries: u32) -> Self {
        self.0.last = Some(Last::Failed { failure, tries });
        self
    }

    /// How full the window is, in percent.
    pub fn filled(mut self, percent: u64) -> Self {
        self.0.context.tokens = self.0.context.window_tokens * percent / 100;
        self
    }

    /// Where the log ends.
    pub fn end(mut self, position: u64) -> Self {
        self.0.context.end = Some(position);
        self
    }

    pub fn compactions(mut self, compactions: u32) -> Self {
        self.0.context.compactions = Some(compactions);
        self.0.last = None;
        self
    }

    pub fn turn(mut self, turn: u64) -> Self {
        self.0 = View { turn, round: 0, last: None, results: Vec::new(), ..self.0 };
        self
    }

    pub fn without(mut self, shim: &str) -> Self {
        self.0.agent.shims_off.push(shim.to_owned());
        self
    }

    pub fn strategy(mut self, name: &str) -> Self {
        name.clone_into(&mut self.0.agent.strategy.name);
        self
    }

    /// What the harness decides; it remembers what it wants to for the next moment.
    pub fn ask(&mut self, harness: &Harness) -> Decision {
        let decision = (harness.next)(&self.0.clone().at(harness.view));
        if let Some(memo) = &decision.memo {
            self.0.memo = Some(memo.clone());
        }
        decision
    }

    /// [`Moment::ask`], in a line.
    pub fn told(&mut self, harness: &Harness) -> String {
        line(&self.ask(harness))
    }
}

/// A decision in a line: the step, what a request is told, what is wrong.
pub fn line(decision: &Decision) -> String {
    let strategy = |strategy: &Option<domain::agent::StrategyRef>| {
        strategy.as_ref().map_or(String::new(), |named| format!(" {}", named.name))
    };
    let mut line = match &decision.step {
        Step::CallModel { strategy: named, suffix } => {
            let mut line = format!("call{}", strategy(named));
            for message in suffix {
                let text = message["content"][0]["text"].as_str().unwrap_or_default();
                line.push_str(": ");
                line.push_str(&text[..text.floor_char_boundary(20)]);
            }
            line
        }
        Step::Execute { calls } => format!("execute {}", calls.join(" ")),
        Step::Compact { strategy: named } => format!("compact{}", strategy(named)),
        Step::Provision {} => "provision".to_owned(),
        Step::Wait { until } => format!("wait {}", until.since(Time::from_ms(0))),
        Step::Idle { reason } => format!("idle {}", tag(reason, "reason")),
        Step::Fail { message } => format!("fail {message}"),
        Step::Continue {} => "continue".to_owned(),
    };
    for error in &decision.errors {
        line.push_str(" ! ");
        line.push_str(&tag(error, "type"));
    }
    line
}

fn tag(value: &impl serde::Serialize, name: &str) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value[name].as_str().unwrap_or_default().to_owned()
}
