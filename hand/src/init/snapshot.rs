//! Packing what a hand must not lose: workspace and outputs, never processes, /tmp, /run or the environment.

use super::Init;
use super::collect::stream;
use crate::limits;
use crate::link::{FromInit, Part, inside};
use std::process::Command;

/// Say the archive and its part. Everything stands still meanwhile, so that no file is packed half written.
pub fn snapshot(init: &Init, call: u64) -> Result<(), String> {
    let mut tar = Command::new("tar");
    tar.args(["-c", "--sparse", "--numeric-owner", "-C", "/", "-f", "-"]);
    tar.args([inside::WORKSPACE, inside::OUTPUTS].map(|path| path.trim_start_matches('/')));
    let more = init.processes.frozen(|| stream(init, call, &mut tar, limits::SNAPSHOT_BYTES, "pack the workspace"))?;
    if more {
        return Err(format!("pack the workspace: more than {} bytes", limits::SNAPSHOT_BYTES));
    }
    let start = init.start.lock().expect("no holder panics").clone();
    init.outbox.say(call, &FromInit::Part(Part::Snapshot { start }));
    Ok(())
}
