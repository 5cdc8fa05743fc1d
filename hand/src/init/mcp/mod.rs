//! MCP servers that live in this sandbox: each is started when it is first asked something, and kept.
//!
//! One that ends, or had to be ended, is told as the error of whatever was asked of it, and started again by whoever asks next:
//! nothing that was asked is asked again here. A server has what everything in the sandbox has, and no more.

mod server;
mod wire;

use super::processes::Processes;
use super::shell::FirstToGo;
use crate::limits;
use crate::mcp::{Answer, Asked, Program, Request};
use crate::protocol::ToolResult;
use crate::tools::{Stop, Stopped};
use serde_json::{Value, json};
use server::{Failed, Server};
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use wire::Reply;

pub struct Servers {
    processes: Arc<Processes>,
    workdir: PathBuf,
    first_to_go: Arc<FirstToGo>,
    /// By name; one that has ended stays until it is wanted again.
    running: Mutex<HashMap<String, Arc<Server>>>,
    lost: Arc<AtomicBool>,
}

impl Servers {
    pub fn new(processes: Arc<Processes>, workdir: PathBuf, first_to_go: Arc<FirstToGo>) -> Self {
        Self { processes, workdir, first_to_go, running: Mutex::default(), lost: Arc::default() }
    }

    /// How long a request may take, where nobody says less.
    pub fn timeout_ms(request: &Request) -> u64 {
        match request {
            Request::List {} => limits::MCP_LIST_TIMEOUT_MS,
            Request::Call { .. } => limits::CALL_TIMEOUT_MAX_MS,
        }
    }

    /// What a server says to a request, as the JSON of an [`Answer`], or in words why it says nothing.
    pub fn ask(&self, asked: Asked, stop: &Stop) -> ToolResult {
        let Asked { server: name, program, request } = asked;
        let server = match self.server(&name, &program) {
            Ok(server) => server,
            Err(e) => {
                let command = &program.command;
                return ToolResult::error(format!("The MCP server {name} could not be started: {command}: {e}"));
            }
        };
        let answer = match request {
            Request::List {} => list(&server, stop),
            Request::Call { tool, arguments } => {
                let params = json!({"name": tool, "arguments": arguments});
                server.ask("tools/call", params, stop).map(|reply| match reply {
                    Reply::Result(result) => Answer::Result(result),
                    Reply::Refused { code, message } => Answer::Refused { code, message },
                })
            }
        };
        match answer {
            Ok(answer) => match serde_json::to_string(&answer) {
                Ok(json) => ToolResult::ok(json),
                Err(e) => ToolResult::error(format!("The MCP server {name} said what cannot be passed on: {e}")),
            },
            Err(Failed::NeverAsked(how)) => {
                ToolResult::error(format!("The MCP server {name} did not start, and nothing was called: {how}"))
            }
            Err(Failed::Ended(how)) => ToolResult::error(format!(
                "The MCP server {name} is gone: {how}\nWhat was asked of it may or may not have taken effect. The next call \
                 starts it again."
            )),
            Err(Failed::Unreadable(why)) => ToolResult::error(format!(
                "The MCP server {name} replied what cannot be read: {why}\nWhat was asked of it may have taken effect."
            )),
            Err(Failed::Stopped(reason)) => self.stopped(&name, &server, reason),
        }
    }

    /// A request that must end takes its server with it: nothing else proves that it is over.
    fn stopped(&self, name: &str, server: &Server, reason: Stopped) -> ToolResult {
        let reason = reason.words();
        if server.end().survived {
            return ToolResult::error(format!("{reason}; processes of the MCP server {name} could not be ended"));
        }
        ToolResult::error(format!(
            "{reason}; the MCP server {name} was told so and ended. The next call starts it again."
        ))
    }

    /// The one of that name that runs, or a new one: also where the one that runs was started by another program.
    fn server(&self, name: &str, program: &Program) -> io::Result<Arc<Server>> {
        loop {
            let mut running = self.lock();
            match running.get(name) {
                Some(server) if server.is(program) => return Ok(Arc::clone(server)),
                Some(_) => {
                    let other = running.remove(name);
                    // It may take its time, and others are not to wait for that.
                    drop(running);
                    other.map(|server| server.end());
                }
                None => {
                    let server = Server::start(program, &self.workdir, &self.processes, &self.first_to_go, &self.lost)?;
                    let server = Arc::new(server);
                    running.insert(name.to_owned(), Arc::clone(&server));
                    return Ok(server);
                }
            }
        }
    }

    /// Make whoever waits for a server look at whether they still should.
    pub fn wake(&self) {
        self.lock().values().for_each(|server| server.wake());
    }

    /// Processes outlived their killing: nothing that this sandbox says can be relied on any more.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Server>>> {
        self.running.lock().expect("no holder panics")
    }
}

/// All pages of its list, as far as they are no more than a message may be.
fn list(server: &Server, stop: &Stop) -> Result<Answer, Failed> {
    let (mut tools, mut bytes, mut params) = (Vec::new(), 0, json!({}));
    loop {
        let result = match server.ask("tools/list", params, stop)? {
            Reply::Result(result) => result,
            Reply::Refused { code, message } => return Ok(Answer::Refused { code, message }),
        };
        bytes += result.to_string().len();
        let (page, next) = match wire::page(result) {
            Ok(page) => page,
            Err(message) => return Ok(Answer::Refused { code: 0, message }),
        };
        if bytes > limits::MCP_MESSAGE_BYTES {
            return Ok(Answer::Tools(tools));
        }
        tools.extend::<Vec<Value>>(page);
        match next {
            Some(cursor) => params = json!({"cursor": cursor}),
            None => return Ok(Answer::Tools(tools)),
        }
    }
}

#[cfg(test)]
mod tests;
