//! How `run` shows a session: on a terminal what happened, with a last line that tells what happens now; elsewhere one
//! line for each thing that happened; or the events themselves as JSON.

use crate::{output, progress::Progress, render};
use serde_json::Value;
use std::time::Instant;

const CLEAR_LINE: &str = "\r\x1b[K";
const COLUMNS_DEFAULT: usize = 80;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Live,
    Lines,
    Json,
}

pub struct Display {
    mode: Mode,
    pub progress: Progress,
    started: Instant,
    /// A message of the agent, kept back: if it is the last one, it is shown whole in the end.
    held: Option<String>,
}

impl Display {
    pub fn new(mode: Mode) -> Self {
        Display { mode, progress: Progress::default(), started: Instant::now(), held: None }
    }

    pub fn is_live(&self) -> bool {
        self.mode == Mode::Live
    }

    pub fn event(&mut self, event: &Value) {
        self.progress.event(event);
        if self.mode == Mode::Json {
            return output::json(event);
        }
        let Some(step) = render::step(event) else { return self.redraw() };
        let held = self.held.take();
        if event["type"] == "agent.message" {
            self.held = Some(step);
            held.into_iter().for_each(|line| self.note(&line));
        } else {
            held.into_iter().chain([step]).for_each(|line| self.note(&line));
        }
    }

    pub fn preview(&mut self, preview: &Value) {
        self.progress.preview(preview);
        self.redraw();
    }

    /// A line above the one that tells what happens now.
    pub fn note(&self, text: &str) {
        self.clear();
        output::note(text);
        self.redraw();
    }

    pub fn redraw(&self) {
        if self.is_live() {
            let status = self.progress.status(self.started.elapsed(), columns().saturating_sub(1));
            output::raw(&format!("{CLEAR_LINE}{status}"));
        }
    }

    pub fn clear(&self) {
        if self.is_live() {
            output::raw(CLEAR_LINE);
        }
    }

    /// The agent's last words on stdout, the figures on stderr.
    pub fn finish(&self, session_id: &str) {
        self.clear();
        if self.mode != Mode::Json
            && let Some(message) = self.progress.message()
        {
            output::message(message);
        }
        let (took, figures) = (render::duration(self.started.elapsed()), self.progress.figures());
        output::note(&format!("session {session_id}: {took}, {figures}"));
    }
}

fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stderr());
    size.map(|size| usize::from(size.ws_col)).ok().filter(|columns| *columns > 0).unwrap_or(COLUMNS_DEFAULT)
}
