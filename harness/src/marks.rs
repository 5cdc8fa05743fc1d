//! Positions in a session's log that context strategies begin at: kept by the state, so that a strategy can say
//! what it needs without anyone reading the log for it.

use domain::model::Range;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Model requests whose place is remembered: the longest window that `window@1` can show.
pub const ROUNDS_MAX: usize = 128;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Marks {
    /// The inputs of the session's first turn.
    pub first: Option<Range>,
    /// The inputs of the turn that is on, empty until the first request of the turn.
    pub task: Option<Range>,
    /// Where the log ended when the model was asked, newest last: before it every call has its result.
    pub rounds: VecDeque<u64>,
    /// Requests in the whole session, also those forgotten in `rounds`.
    pub asked: u64,
    pub cut: Option<Cut>,
    /// Summaries since the model's last answer.
    pub compactions: u32,
}

/// The last compaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// Position of `agent.thread_context_compacted`.
    pub at: u64,
    /// The summary stands for everything before this position.
    pub from: u64,
}

impl Marks {
    pub fn turn_begun(&mut self, position: u64) {
        self.task = Some(Range { from: position, to: position });
    }

    /// The model is asked about everything before `position`.
    pub fn asked(&mut self, position: u64) {
        if let Some(task) = self.task.as_mut().filter(|task| task.to == task.from) {
            task.to = position;
        }
        if self.first.is_none() {
            self.first = self.task;
        }
        self.asked += 1;
        self.rounds.push_back(position);
        if self.rounds.len() > ROUNDS_MAX {
            self.rounds.pop_front();
        }
    }

    pub fn compacted(&mut self, cut: Cut) {
        self.cut = Some(cut);
        self.compactions += 1;
    }

    /// What a slice that begins at `from` lacks and no strategy leaves out: what the session and the turn are about.
    pub fn keep(&self, from: u64) -> Vec<Range> {
        let mut kept: Vec<Range> = Vec::new();
        for range in [self.first, self.task].into_iter().flatten() {
            let after = kept.last().map_or(range.from, |last| last.to.max(range.from));
            let clipped = Range { from: after, to: range.to.min(from) };
            if clipped.from < clipped.to {
                kept.push(clipped);
            }
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(from: u64, to: u64) -> Range {
        Range { from, to }
    }

    #[test]
    fn inputs_before_the_slice_are_kept_once() {
        let mut marks = Marks::default();
        marks.turn_begun(0);
        marks.asked(3);
        marks.asked(9);
        assert_eq!(marks.keep(9), [range(0, 3)], "first and present turn are one");
        assert_eq!(marks.keep(0), []);
        marks.turn_begun(20);
        marks.asked(22);
        assert_eq!(marks.keep(21), [range(0, 3), range(20, 21)]);
        assert_eq!(marks.keep(30), [range(0, 3), range(20, 22)]);
        assert_eq!(marks.keep(10), [range(0, 3)], "what the slice holds is not kept beside it");
    }

    #[test]
    fn rounds_are_counted_beyond_what_is_remembered() {
        let mut marks = Marks::default();
        (0..200).for_each(|position| marks.asked(position));
        assert_eq!((marks.asked, marks.rounds.len()), (200, ROUNDS_MAX));
        assert_eq!(marks.rounds.back(), Some(&199));
    }
}
