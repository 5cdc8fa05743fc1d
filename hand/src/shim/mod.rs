//! Outside the sandbox, one process a hand: owns the journal, the socket and the sandbox, and outlives who asks.
//!
//! It is a session of its own, so that no signal to the service's group reaches it, and runs as the sandbox's host
//! uid. It interprets nothing that the sandbox makes: bytes are hashed, counted and stored. When the sandbox dies, or
//! the lease runs out, it records what is lost and ends; the folder stays, and a later launch goes on from it.

mod calls;
mod container;
mod folder_watch;
mod gather;
mod lease;
mod sandbox;
mod server;
mod stop;

use crate::folder::{self, Folder};
use crate::journal::{self, Journal};
use crate::link::{self, inside};
use crate::spec::{FailedClone, Plan, Shelf, Start, Walls};
use calls::Calls;
use folder_watch::Watch;
use lease::{Lease, Over};
use sandbox::{Prepared, Sandbox};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

#[derive(thiserror::Error, Debug)]
pub enum Error {
    #[error("read the hand's plan")]
    Plan(#[source] io::Error),
    #[error("understand the hand's plan")]
    PlanFormat(#[source] serde_json::Error),
    #[error("become a process of its own")]
    Detach(#[source] io::Error),
    #[error("lock the hand")]
    Lock(#[source] io::Error),
    #[error("open the journal")]
    Journal(#[from] journal::Error),
    #[error("listen on the hand's socket")]
    Listen(#[source] io::Error),
    #[error("start the sandbox")]
    Sandbox(#[source] io::Error),
    #[error("prepare the sandbox: {0}")]
    Recipe(String),
}

/// What all threads of the shim share.
struct Shim {
    plan: Plan,
    folder: Folder,
    journal: Journal,
    lease: Lease,
    calls: Calls,
    sandbox: Sandbox,
    owed: server::Owed,
    start: Option<Start>,
    failed_clones: Vec<FailedClone>,
    stop: stop::Stops,
}

/// Serve the hand in `dir` until it ends. Says `ready` on stdout once calls can be made.
pub fn run(dir: &Path) -> Result<(), Error> {
    let folder = Folder::new(dir);
    // Fails only where it leads a group already, which a direct child does not.
    rustix::process::setsid().map_err(|e| Error::Detach(e.into()))?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    std::env::set_current_dir("/").map_err(Error::Detach)?;
    let lock = folder::lock(&folder.shim_lock()).map_err(Error::Lock)?;
    let watch = Watch::new(&folder.shim_lock(), &lock).map_err(Error::Lock)?;
    let plan: Plan =
        serde_json::from_slice(&std::fs::read(folder.plan()).map_err(Error::Plan)?).map_err(Error::PlanFormat)?;
    let journal = Journal::open(&folder, plan.spec.epoch)?;
    let listener = inherited_listener().map_err(Error::Listen)?;

    // This thread starts the sandbox and lives on: the kernel ends the sandbox with the thread that started it.
    let started = match &plan.spec.walls {
        Walls::Bubblewrap => sandbox::spawn(&folder),
        Walls::Container { .. } => container::found(),
    };
    let (mut process, pipes) = started.map_err(Error::Sandbox)?;
    let recipe = journal.noted::<Start>("start")?;
    let done = journal.noted::<bool>("prepared")?.is_some();
    let watched = (!folder.image().exists()).then_some(plan.spec.limits.disk_bytes);
    let configure = link::Configure {
        landlock: plan.landlock,
        disk_bytes: watched,
        egress: plan.spec.egress.is_some(),
        fills_shelf: matches!(plan.spec.shelf, Some(Shelf::Fill(_))),
        recipe: (!done).then(|| recipe_of(&plan)),
        start: recipe,
    };
    let Prepared { sandbox, from: from_init, start, failed } = match sandbox::prepare(pipes, configure) {
        Ok(prepared) => prepared,
        Err(why) => {
            // It has ended or must end; either way it is gone when this returns.
            process.kill();
            let why = sandbox::last_words(&mut process).map_or(why.clone(), |said| format!("{why}: {said}"));
            process.wait().map_err(Error::Sandbox)?;
            return Err(Error::Recipe(why));
        }
    };
    if !done {
        if let Some(start) = &start {
            journal.note("start", start)?;
        }
        if !failed.is_empty() {
            journal.note("failed_clones", &failed)?;
        }
        journal.note("prepared", &true)?;
    }
    let failed_clones = journal.noted("failed_clones")?.unwrap_or_default();
    sandbox::log_stderr(&mut process).map_err(Error::Sandbox)?;
    let stop = stop::Stops::new(plan.spec.stop);
    let lease = Lease::new(Duration::from_millis(plan.spec.lease_ms));
    let shim = Arc::new(Shim {
        plan,
        folder,
        journal,
        lease,
        calls: Calls::default(),
        sandbox,
        owed: server::Owed::default(),
        start,
        failed_clones,
        stop,
    });

    let reader = Arc::clone(&shim);
    std::thread::Builder::new()
        .name("sandbox".into())
        .spawn(move || {
            let why = sandbox::read(&reader, from_init);
            reader.lease.end(Over::Sandbox(why));
        })
        .map_err(Error::Sandbox)?;
    let watching = Arc::clone(&shim);
    std::thread::Builder::new().name("folder".into()).spawn(move || watch.run(&watching.lease)).map_err(Error::Lock)?;
    let (server, closing) = (Arc::clone(&shim), listener.try_clone().map_err(Error::Listen)?);
    std::thread::Builder::new()
        .name("server".into())
        .spawn(move || server::serve(&server, &listener))
        .map_err(Error::Listen)?;
    ready().map_err(Error::Detach)?;

    let over = shim.lease.wait_over();
    note("hand ends", &[("hand_id", &shim.plan.spec.hand_id), ("why", &over)]);
    // Whoever asks from here on finds nobody, and launches anew. It fails only where nobody listens anyway.
    rustix::net::shutdown(&closing, rustix::net::Shutdown::Both).ok();
    process.kill();
    process.wait().map_err(Error::Sandbox)?;
    calls::lose_all(&shim, &over.to_string());
    server::drain(&shim);
    Ok(())
}

fn recipe_of(plan: &Plan) -> link::Recipe {
    let resources = &plan.spec.resources;
    let clone_to = resources.repo.as_ref().map(|repo| match &repo.name {
        Some(name) => Path::new(inside::WORKSPACE).join(name),
        None => inside::WORKSPACE.into(),
    });
    link::Recipe {
        clone_to,
        clones: resources.clones.clone(),
        restore: resources.restore.is_some(),
        restored_start: resources.restore.as_ref().and_then(|restore| restore.start.clone()),
    }
}

/// The socket that whoever launched listens on for us: its name is in a folder that we cannot write to.
fn inherited_listener() -> io::Result<UnixListener> {
    let listener = UnixListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(listener)
}

/// Tell `launch` that calls can be made, and let go of its pipe.
fn ready() -> io::Result<()> {
    let mut stdout = io::stdout();
    stdout.write_all(b"ready\n")?;
    stdout.flush()?;
    let null = File::options().write(true).open("/dev/null")?;
    Ok(rustix::stdio::dup2_stdout(null)?)
}

/// One line in the hand's log: a constant message and fields that hold no content.
fn note(message: &'static str, fields: &[(&str, &dyn std::fmt::Display)]) {
    let mut line = message.to_owned();
    for (name, value) in fields {
        line.push_str(&format!(" {name}={value:?}", value = value.to_string()));
    }
    line.push('\n');
    // A log that cannot be written must not stop the hand.
    io::stderr().write_all(line.as_bytes()).ok();
}
