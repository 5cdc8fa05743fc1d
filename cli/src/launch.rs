//! Starting the service for a command that needs one and finds none: in a session of its own, so that it outlives the
//! command and its terminal.

use crate::{
    client::Client,
    data_dir,
    error::{Code, Hint as _, failed},
    output,
    service::Service,
};
use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{Read as _, Seek as _, SeekFrom},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::{
    process::{Child, Command},
    time::Instant,
};

/// How long a service may take until it answers: it may have to recover a lot.
const UP_MAX: Duration = Duration::from_secs(60);
const PAUSE_FIRST: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// The end of the log that is looked through for the reason of a failed start.
const LOG_TAIL_BYTES: u64 = 64 << 10;

/// The service, started if none answers. One that was named by its URL is not ours to start.
pub async fn find_or_start(service: &Service) -> anyhow::Result<Client> {
    if let Some(url) = service.url() {
        let client = service.client()?;
        if client.is_up().await {
            return Ok(client);
        }
        let hint = "start it there, or leave --url out to use a service on this machine";
        return Err(failed(Code::Unreachable, format!("no service answers at {url}"), hint));
    }
    match answering(service).await? {
        Some(client) => Ok(client),
        None => start(service).await,
    }
}

/// The service of the data folder, if it announced itself and answers.
pub async fn answering(service: &Service) -> anyhow::Result<Option<Client>> {
    if data_dir::running(&service.data()).is_none() {
        return Ok(None);
    }
    let client = service.client()?;
    Ok(client.is_up().await.then_some(client))
}

async fn start(service: &Service) -> anyhow::Result<Client> {
    let data = service.data();
    let log_path = data.join("serve.log");
    let problem = || format!("write the service's log {}", log_path.display());
    let hint = "choose another data folder with --data";
    DirBuilder::new().recursive(true).mode(0o700).create(&data).hint(Code::Data, problem(), hint)?;
    let log =
        OpenOptions::new().create(true).append(true).mode(0o600).open(&log_path).hint(Code::Data, problem(), hint)?;
    let from = log.metadata().hint(Code::Data, problem(), hint)?.len();
    let mut child = spawn(&data, log)?;
    output::note(&format!("no service answers: starting one (log: {})", log_path.display()));

    let give_up = Instant::now() + UP_MAX;
    let mut pause = PAUSE_FIRST;
    loop {
        let ended = tokio::select! {
            ended = child.wait() => Some(ended),
            () = tokio::time::sleep(pause) => None,
        };
        // Also when ours ended: another command may have been faster, and that service is as good.
        if let Some(client) = answering(service).await? {
            output::note(&format!("listening on {}", client.base().as_str().trim_end_matches('/')));
            return Ok(client);
        }
        if let Some(ended) = ended
            && !is_held(&data)
        {
            return Err(not_started(ended?, &log_path, from));
        }
        if Instant::now() > give_up {
            let hint = format!("{} says what it does", log_path.display());
            return Err(failed(Code::Unreachable, format!("the service is not up after {} s", UP_MAX.as_secs()), hint));
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

fn spawn(data: &Path, log: File) -> anyhow::Result<Child> {
    let program = std::env::current_exe()?;
    let mut command = Command::new(program);
    command.arg("serve").arg("--data").arg(data);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    #[expect(unsafe_code, reason = "std has no other way to start a child in a session of its own")]
    // SAFETY: between fork and exec only one system call is made, and it allocates nothing.
    unsafe {
        command.pre_exec(|| rustix::process::setsid().map(drop).map_err(Into::into));
    }
    command.spawn().hint(Code::Environment, "start the service", "try `steadyhand serve` by hand")
}

/// Whether a service holds the data folder, and may still be on its way up.
fn is_held(data: &Path) -> bool {
    use rustix::fs::{FlockOperation, flock};
    File::open(data.join("lock")).is_ok_and(|lock| flock(&lock, FlockOperation::NonBlockingLockShared).is_err())
}

/// What the service said before it ended.
fn not_started(ended: ExitStatus, log_path: &Path, from: u64) -> anyhow::Error {
    let said = tail(log_path, from).unwrap_or_default();
    let last = |prefix: &str| said.lines().rev().find_map(|line| line.strip_prefix(prefix)).map(str::to_owned);
    let why = last("error: ").unwrap_or_else(|| ended.to_string());
    let hint = last("hint: ").unwrap_or_else(|| format!("{} says more", log_path.display()));
    failed(Code::Unreachable, format!("the service did not start: {why}"), hint)
}

fn tail(path: &Path, from: u64) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let end = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(from.max(end.saturating_sub(LOG_TAIL_BYTES))))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
