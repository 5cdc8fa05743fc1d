//! A git server that asks for a token: git's own `http-backend` behind as much HTTP as it needs.

use crate::hold::Hold;
use anyhow::Context as _;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use std::{
    convert::Infallible,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt as _, net::TcpListener};

/// Repositories below a folder, and the token that opens them.
pub struct Forge {
    pub addr: SocketAddr,
    /// Where the first request of a clone may be held.
    hold: Arc<Hold>,
    root: TempDir,
    token: Arc<Mutex<String>>,
}

impl Forge {
    pub async fn start(token: &str) -> anyhow::Result<Self> {
        Forge::begin(token, Hold::open()).await
    }

    /// One that holds the first clone as it asks what there is: later git's client begins anew by itself when it is cut off.
    pub async fn start_held(token: &str) -> anyhow::Result<Self> {
        Forge::begin(token, Hold::default()).await
    }

    async fn begin(token: &str, hold: Hold) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        let (root, token) = (tempfile::tempdir()?, Arc::new(Mutex::new(token.to_owned())));
        let (served, asked, hold) = (root.path().to_owned(), Arc::clone(&token), Arc::new(hold));
        let held = Arc::clone(&hold);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (served, asked, held) = (served.clone(), Arc::clone(&asked), Arc::clone(&held));
                let service = service_fn(move |request| {
                    let token = asked.lock().expect("no holder panics").clone();
                    let (served, held) = (served.clone(), Arc::clone(&held));
                    async move {
                        if request.uri().path().ends_with("/info/refs") {
                            held.pass().await;
                        }
                        Ok::<_, Infallible>(answer(served, &token, request).await)
                    }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Ok(Forge { addr, hold, root, token })
    }

    /// Until somebody is held.
    pub async fn reached(&self) -> anyhow::Result<()> {
        self.hold.reached().await
    }

    /// From now on this token and no other.
    pub fn ask_for(&self, token: &str) {
        token.clone_into(&mut self.token.lock().expect("no holder panics"));
    }

    /// A bare repository with one commit of `a.txt` on main. Gives its URL.
    pub fn repository(&self, name: &str) -> anyhow::Result<String> {
        let (bare, work) = (self.bare(name), self.root.path().join(format!("{name}.work")));
        std::fs::create_dir_all(&work)?;
        git(self.root.path(), &["init", "-q", "--bare", &format!("{name}.git")])?;
        git(&bare, &["config", "http.receivepack", "true"])?;
        git(&work, &["init", "-q"])?;
        std::fs::write(work.join("a.txt"), "one\n")?;
        git(&work, &["add", "."])?;
        git(&work, &["commit", "-qm", "first"])?;
        git(&work, &["push", "-q", &bare.display().to_string(), "main"])?;
        Ok(self.url(name))
    }

    /// Of a repository, whether it is there or not.
    pub fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.addr)
    }

    /// What git says of a repository on the server.
    pub fn git(&self, name: &str, args: &[&str]) -> anyhow::Result<String> {
        git(&self.bare(name), args)
    }

    fn bare(&self, name: &str) -> PathBuf {
        self.root.path().join(format!("{name}.git"))
    }
}

fn git(dir: &Path, args: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main", "-C"])
        .arg(dir)
        .args(args)
        .output()?;
    anyhow::ensure!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

async fn answer(root: PathBuf, token: &str, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let expected = format!("Basic {}", BASE64.encode(format!("x-access-token:{token}")));
    let shown = request.headers().get("authorization").map(http::HeaderValue::as_bytes);
    if shown != Some(expected.as_bytes()) {
        let response = Response::builder().status(StatusCode::UNAUTHORIZED);
        return response.header("www-authenticate", "Basic realm=git").body(Full::default()).expect("plain headers");
    }
    backend(root, request).await.unwrap_or_else(|error| {
        let response = Response::builder().status(StatusCode::INTERNAL_SERVER_ERROR);
        response.body(Full::new(Bytes::from(format!("{error:#}")))).expect("no headers")
    })
}

/// By the rules of CGI. Repositories are asked for without `.git` and have it on disk, as on other servers.
async fn backend(root: PathBuf, request: Request<Incoming>) -> anyhow::Result<Response<Full<Bytes>>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let header = |name: &str| parts.headers.get(name).map_or("", |value| value.to_str().unwrap_or("")).to_owned();
    let path = ["/info/refs", "/git-upload-pack", "/git-receive-pack"]
        .into_iter()
        .find_map(|end| parts.uri.path().strip_suffix(end).map(|name| (name, end)))
        .map_or_else(String::new, |(name, end)| format!("{}.git{end}", name.trim_end_matches(".git")));
    let mut child = tokio::process::Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REMOTE_USER", "agent")
        .env("REQUEST_METHOD", parts.method.as_str())
        .env("PATH_INFO", path)
        .env("QUERY_STRING", parts.uri.query().unwrap_or_default())
        .env("CONTENT_TYPE", header("content-type"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("GIT_PROTOCOL", header("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut stdin = child.stdin.take().context("its input is piped")?;
    let write = async move {
        // A backend that has read enough closes its end.
        stdin.write_all(&body).await.ok();
    };
    let ((), output) = tokio::join!(write, child.wait_with_output());
    let output = output?.stdout;
    let end = output.windows(4).position(|window| window == b"\r\n\r\n").context("the backend gave no head")?;
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(&output[end + 4..])));
    for line in std::str::from_utf8(&output[..end])?.lines() {
        let (name, value) = line.split_once(": ").context("a header has a name")?;
        if name.eq_ignore_ascii_case("status") {
            *response.status_mut() = value.get(..3).unwrap_or_default().parse()?;
        } else {
            response.headers_mut().append(http::HeaderName::try_from(name)?, value.parse()?);
        }
    }
    Ok(response)
}
