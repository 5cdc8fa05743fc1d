//! Clients that nobody wants: they take their time, say nothing, or say far too much. Raw bytes on sockets, as no client
//! library would send them.

use anyhow::Context as _;
use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Barrier,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

const DRIP_EVERY: Duration = Duration::from_millis(500);
const LARGE_BYTES: usize = 33_000_000;
const DEEP_BYTES: usize = 1_000_000;
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

/// At it until it is dropped.
pub struct Crowd(JoinSet<()>);

/// Where it is, and whose key it has.
#[derive(Clone)]
struct Target {
    addr: SocketAddr,
    key: Arc<str>,
}

impl Crowd {
    /// Returns once all of them have begun.
    pub async fn gather(nuisance: Nuisance, count: usize, addr: SocketAddr, key: &str) -> anyhow::Result<Self> {
        let target = Target { addr, key: key.into() };
        let begun = Arc::new(Barrier::new(count + 1));
        let mut crowd = JoinSet::new();
        for n in 0..count {
            let (target, begun) = (target.clone(), begun.clone());
            crowd.spawn(async move {
                // One that was sent away comes again; only the first time counts.
                let mut first = Some(begun);
                loop {
                    // Being refused is what it is about.
                    let _ = once(nuisance, n, &target, &mut first).await;
                    if let Some(begun) = first.take() {
                        begun.wait().await;
                    }
                }
            });
        }
        let all = tokio::time::timeout(Duration::from_secs(120), begun.wait()).await;
        all.context("the crowd does not gather")?;
        Ok(Crowd(crowd))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
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
                        stream.write_all(&vec![b'['; DEEP_BYTES]).await?;
                    }
                    // A body that was announced is refused before it is read.
                    _ if n.is_multiple_of(2) => {
                        stream.write_all(head(&format!("content-length: {LARGE_BYTES}\r\n")).as_bytes()).await?;
                        stream.write_all(&vec![b' '; LARGE_BYTES]).await?;
                    }
                    _ => {
                        stream.write_all(head("transfer-encoding: chunked\r\n").as_bytes()).await?;
                        stream.write_all(format!("{LARGE_BYTES:x}\r\n").as_bytes()).await?;
                        stream.write_all(&vec![b' '; LARGE_BYTES]).await?;
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
