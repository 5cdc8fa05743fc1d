//! `steadyhand-hand ROLE`: one small binary for every process around and inside a sandbox. Not for people: each role
//! is started by another with an empty environment.

use hand::launch::{Launched, launch};
use std::error::Error;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let role = args.first().and_then(|role| role.to_str()).unwrap_or_default();
    let outcome = match (role, &args[args.len().min(1)..]) {
        ("launch", []) => launch_role(),
        ("launcher", [options]) => launcher_role(options),
        ("shim", [dir]) => shim_role(Path::new(dir)),
        ("enter", [dir]) => hand::sandbox::enter::run(Path::new(dir)).map(|never| match never {}).map_err(Into::into),
        ("contained", environment) => {
            hand::sandbox::contained::run(environment).map(|never| match never {}).map_err(Into::into)
        }
        ("try-contained", []) => return hand::sandbox::contained::tried().into(),
        ("init", []) => init_role(),
        ("probe", []) => print(&hand::probe::probe()).map_err(Into::into),
        _ => Err("usage: steadyhand-hand launch | launcher OPTIONS | shim DIR | enter DIR | contained NAME=VALUE... | try-contained | init | probe".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            // There is nobody else to tell if this fails.
            writeln!(io::stderr(), "{}", hand::error_chain(e.as_ref())).ok();
            ExitCode::FAILURE
        }
    }
}

fn launch_role() -> Result<(), Box<dyn Error>> {
    let launched = match serde_json::from_reader(io::stdin()) {
        Ok(spec) => launch(spec),
        Err(e) => Launched::Failed { message: format!("understand the spec: {e}") },
    };
    Ok(print(&launched)?)
}

fn launcher_role(options: &OsString) -> Result<(), Box<dyn Error>> {
    let options = serde_json::from_slice(options.as_encoded_bytes())?;
    Ok(hand::launcher::run(options)?)
}

/// Whoever launched reads stdout until it ends, so that is where a shim that cannot start says why.
fn shim_role(dir: &Path) -> Result<(), Box<dyn Error>> {
    // Half a shim would keep its callers waiting; without it the sandbox ends and its calls are known to be lost.
    std::panic::set_hook(Box::new(|panic| {
        say_place("shim", panic);
        std::process::exit(101);
    }));
    hand::shim::run(dir).inspect_err(|e| {
        // Once it was ready nobody listens there any more; then the log has it.
        writeln!(io::stdout(), "{}", hand::error_chain(e)).ok();
    })?;
    Ok(())
}

fn init_role() -> Result<(), Box<dyn Error>> {
    std::panic::set_hook(Box::new(|panic| say_place("init", panic)));
    Ok(hand::init::run()?)
}

/// A panic's message may hold what was worked on; where it happened is enough for the log.
fn say_place(role: &str, panic: &std::panic::PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    // A log that cannot be written leaves nobody to tell.
    writeln!(io::stderr(), "{role} panicked at {place}").ok();
}

fn print(value: &impl serde::Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    io::stdout().write_all(&line)
}
