//! One file a command.

pub mod ablate;
pub mod agent;
pub mod audit;
pub mod backup;
pub mod canary;
pub mod completions;
pub mod containers;
pub mod context;
pub mod doctor;
pub mod egress;
pub mod env;
pub mod env_key;
pub mod file;
pub mod hand;
pub mod harness;
pub mod key;
pub mod replay;
pub mod restore;
pub mod rollout;
pub mod run;
pub mod serve;
pub mod session;
pub mod verify;
pub mod whatif;
pub mod why;
pub mod worker;
pub mod workspace;

use crate::args::{Args, Command};

pub fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Serve(serve) => serve.run(),
        Command::Run(run) => wait(run.run()),
        Command::Session(session) => wait(session.run()),
        Command::Agent(agent) => wait(agent.run()),
        Command::Env(env) => wait(env.run()),
        Command::File(file) => wait(file.run()),
        Command::Key(key) => wait(key.run()),
        Command::Hand(hand) => wait(hand.run()),
        Command::Workspace(workspace) => wait(workspace.run()),
        Command::Audit(audit) => wait(audit.run()),
        Command::Harness(harness) => wait(harness.run()),
        Command::Replay(replay) => wait(replay.run()),
        Command::Whatif(whatif) => wait(whatif.run()),
        Command::Ablate(ablate) => wait(ablate.run()),
        Command::Rollout(rollout) => wait(rollout.run()),
        Command::Context(context) => wait(context.run()),
        Command::Why(why) => wait(why.run()),
        Command::Doctor(doctor) => wait(doctor.run()),
        Command::Canary(canary) => wait(canary.run()),
        Command::Verify(verify) => wait(verify.run()),
        Command::Backup(backup) => wait(backup.run()),
        Command::Restore(restore) => wait(restore.run()),
        Command::Worker(worker) => worker.run(),
        Command::Completions(completions) => completions.run(),
    }
}

/// Runs a command that waits for others more than it works.
fn wait(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(command)
}
