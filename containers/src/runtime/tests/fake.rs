//! A runtime that answers as a test says, or not at all: for what a true one does seldom.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::watch,
};

/// What it says to a request; none: nothing ever.
pub type Answer = Option<(u16, String)>;

pub struct Fake {
    dir: tempfile::TempDir,
    requests: watch::Receiver<Vec<String>>,
}

impl Fake {
    /// `answer` gets what is asked, without the version of the API: `POST /containers/ID/start`.
    pub fn start(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("fake.sock")).unwrap();
        let (asked, requests) = watch::channel(Vec::new());
        let shared = Arc::new((answer, Mutex::new(asked)));
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    let (answer, asked) = &*shared;
                    serve(connection, |request| {
                        asked.lock().unwrap().send_modify(|requests| requests.push(request.to_owned()));
                        answer(request)
                    })
                    .await
                });
            }
        });
        Fake { dir, requests }
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("fake.sock")
    }

    /// Requests that begin so, in the order in which they came.
    pub fn asked(&self, beginning: &str) -> Vec<String> {
        self.requests.borrow().iter().filter(|request| request.starts_with(beginning)).cloned().collect()
    }

    /// Until there is one that begins so.
    pub async fn until(&self, beginning: &str) {
        let mut requests = self.requests.clone();
        requests.wait_for(|seen| seen.iter().any(|request| request.starts_with(beginning))).await.unwrap();
    }
}

/// One request after the other.
async fn serve(connection: UnixStream, answer: impl Fn(&str) -> Answer) -> Option<()> {
    let (read, mut write) = connection.into_split();
    let mut read = BufReader::new(read);
    loop {
        let mut first = String::new();
        read.read_line(&mut first).await.ok()?;
        let mut words = first.split_whitespace();
        let (method, path) = (words.next()?, words.next()?);
        let path = path.strip_prefix("/v1.").and_then(|rest| rest.find('/').map(|at| &rest[at..])).unwrap_or(path);
        let mut bytes = 0;
        loop {
            let mut line = String::new();
            read.read_line(&mut line).await.ok()?;
            let line = line.trim().to_ascii_lowercase();
            if let Some(length) = line.strip_prefix("content-length:") {
                bytes = length.trim().parse().ok()?;
            }
            if line.is_empty() {
                break;
            }
        }
        read.read_exact(&mut vec![0; bytes]).await.ok()?;
        let Some((status, body)) = answer(&format!("{method} {path}")) else { return std::future::pending().await };
        let head =
            format!("HTTP/1.1 {status} .\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
        write.write_all((head + &body).as_bytes()).await.ok()?;
    }
}
