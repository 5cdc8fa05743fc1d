//! Clients that nobody wants: they take their time, say nothing, or say far too much. Raw bytes on sockets, as no client
//! library would send them. All of them are on a thread of their own, so that nobody who measures beside them waits for
//! what they do here instead of what they do to the service.

use anyhow::{Context as _, ensure};
use rustix::process::setpriority_process;
use std::{
    convert::Infallible,
    fmt,
    net::SocketAddr,
    sync::{Arc, LazyLock},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    runtime::Builder,
    sync::{Barrier, oneshot},
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

/// Elsewhere their machines would be theirs: here what they do themselves comes after what the service and its clients do.
const NICE: i32 = 10;
const DRIP_EVERY: Duration = Duration::from_millis(500);
const LARGE_BYTES: usize = 33_000_000;
const DEEP_BYTES: usize = 1_000_000;
/// Made once: whoever sends them is not to be busy with making them.
static LARGE: LazyLock<Vec<u8>> = LazyLock::new(|| vec![b' '; LARGE_BYTES]);
static DEEP: LazyLock<Vec<u8>> = LazyLock::new(|| vec![b'['; DEEP_BYTES]);
/// Bodies that one of them sends, a second.
const BODIES_PER_S: f64 = 2.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nuisance {
    /// A head that goes on for ever, a line at a time.
    SlowHeads,
    /// A body that was announced, a byte at a time.
    SlowBodies,
    /// Nothing at all.
    Idle,
    /// Bodies of 33 MB, announced and not.
    Large,
    /// A million lists, each in the one before.
    Deep,
}

impl Nuisance {
    pub const ALL: [Nuisance; 5] =
        [Nuisance::SlowHeads, Nuisance::SlowBodies, Nuisance::Idle, Nuisance::Large, Nuisance::Deep];
}

impl fmt::Display for Nuisance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Nuisance::SlowHeads => "slow heads",
            Nuisance::SlowBodies => "slow bodies",
            Nuisance::Idle => "idle connections",
            Nuisance::Large => "bodies of 33 MB",
            Nuisance::Deep => "deeply nested bodies",
        })
    }
}

/// At it until it disperses, or is dropped.
pub struct Crowd {
    leave: oneshot::Sender<()>,
    /// Ends when the last of them has.
    gone: oneshot::Receiver<Infallible>,
}

/// Where it is, and whose key it has.
#[derive(Clone)]
struct Target {
    addr: SocketAddr,
    key: Arc<str>,
}

impl Crowd {
    /// Returns once all of them have begun, and the service has taken them in: whoever comes behind them is answered.
    pub async fn gather(nuisance: Nuisance, count: usize, addr: SocketAddr, key: &str) -> anyhow::Result<Self> {
        LazyLock::force(&LARGE);
        LazyLock::force(&DEEP);
        let target = Target { addr, key: key.into() };
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (begun, all_begun) = oneshot::channel();
        let (leave, leaving) = oneshot::channel();
        let (here, gone) = oneshot::channel();
        let crowd = async move {
            let mut crowd = JoinSet::new();
            let gathering = Arc::new(Barrier::new(count + 1));
            for n in 0..count {
                crowd.spawn(again_and_again(nuisance, n, target.clone(), gathering.clone()));
            }
            gathering.wait().await;
            // Nobody waits any more: then it was dropped, and leaves.
            let _ = begun.send(());
            let _ = leaving.await;
        };
        std::thread::Builder::new().name("crowd".to_owned()).spawn(move || {
            // On Linux it is that of a thread.
            setpriority_process(None, NICE).expect("anybody may come later");
            runtime.block_on(crowd);
            drop(runtime);
            drop(here);
        })?;
        let all_begun = tokio::time::timeout(Duration::from_secs(120), all_begun).await;
        all_begun.context("the crowd does not gather")?.context("the crowd ended")?;
        let next = tokio::time::timeout(Duration::from_secs(120), next_in_line(addr));
        next.await.context("nobody is answered behind the crowd")??;
        Ok(Crowd { leave, gone })
    }

    /// Returns once all of them have closed their connections.
    pub async fn disperse(self) {
        drop(self.leave);
        // Nothing is ever said there.
        let _ = self.gone.await;
    }
}

/// Connections are taken in the order in which they were made.
async fn next_in_line(addr: SocketAddr) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(addr).await?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: api\r\nconnection: close\r\n\r\n").await?;
    let mut said = Vec::new();
    stream.read_to_end(&mut said).await?;
    ensure!(said.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&said));
    Ok(())
}

async fn again_and_again(nuisance: Nuisance, n: usize, target: Target, gathering: Arc<Barrier>) {
    // One that was sent away comes again; only the first time counts.
    let mut first = Some(gathering);
    loop {
        // Being refused is what it is about.
        let _ = once(nuisance, n, &target, &mut first).await;
        here(&mut first).await;
    }
}

/// One connection, until it is closed.
async fn once(nuisance: Nuisance, n: usize, target: &Target, first: &mut Option<Arc<Barrier>>) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(target.addr).await?;
    let head = |length: &str| {
        let key = &target.key;
        format!(
            "POST /v1/agents HTTP/1.1\r\nhost: api\r\nx-api-key: {key}\r\ncontent-type: application/json\r\n{length}\r\n"
        )
    };
    match nuisance {
        Nuisance::SlowHeads => {
            stream.write_all(b"GET /v1/agents HTTP/1.1\r\nhost: api\r\n").await?;
            drip(&mut stream, b"x-more: of it\r\n", first).await
        }
        Nuisance::SlowBodies => {
            stream.write_all(head("content-length: 1000000\r\n").as_bytes()).await?;
            drip(&mut stream, b" ", first).await
        }
        Nuisance::Idle => {
            here(first).await;
            stream.read_u8().await.map(drop)
        }
        Nuisance::Large | Nuisance::Deep => {
            let mut pace = interval(Duration::from_secs_f64(1.0 / BODIES_PER_S));
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                pace.tick().await;
                here(first).await;
                match nuisance {
                    Nuisance::Deep => {
                        stream.write_all(head(&format!("content-length: {DEEP_BYTES}\r\n")).as_bytes()).await?;
                        stream.write_all(&DEEP).await?;
                    }
                    // A body that was announced is refused before it is read.
                    _ if n.is_multiple_of(2) => {
                        stream.write_all(head(&format!("content-length: {LARGE_BYTES}\r\n")).as_bytes()).await?;
                        stream.write_all(&LARGE).await?;
                    }
                    _ => {
                        stream.write_all(head("transfer-encoding: chunked\r\n").as_bytes()).await?;
                        stream.write_all(format!("{LARGE_BYTES:x}\r\n").as_bytes()).await?;
                        stream.write_all(&LARGE).await?;
                        stream.write_all(b"\r\n0\r\n\r\n").await?;
                    }
                }
                answer(&mut stream).await?;
            }
        }
    }
}

async fn here(first: &mut Option<Arc<Barrier>>) {
    if let Some(begun) = first.take() {
        begun.wait().await;
    }
}

/// Sends a little of it, again and again, until the other side has enough.
async fn drip(stream: &mut TcpStream, little: &[u8], first: &mut Option<Arc<Barrier>>) -> std::io::Result<()> {
    here(first).await;
    let mut pace = interval(DRIP_EVERY);
    let (mut read, mut write) = stream.split();
    let dripping = async {
        loop {
            pace.tick().await;
            write.write_all(little).await?;
        }
    };
    let mut said = [0; 4096];
    tokio::select! {
        dripped = dripping => dripped,
        // An answer, or the end.
        read = read.read(&mut said) => read.map(drop),
    }
}

/// Reads the answer to its last byte: it is short, and ends with its JSON.
async fn answer(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut said = Vec::new();
    while !said.ends_with(b"\"}") {
        if stream.read_buf(&mut said).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}
