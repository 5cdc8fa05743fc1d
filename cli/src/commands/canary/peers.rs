//! What secrets are for: MCP servers, a git server, and a collector of traces, as small as they can be. They let in who shows what
//! was planted, and remember that it was shown.

use super::planted::Planted;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    convert::Infallible,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};
use tokio::{io::AsyncWriteExt as _, net::TcpListener, process::Command};

const TOOL: &str = "ping";
/// In a service's advertisement of git's, which is data in lines with their lengths.
const ADVERTISED: &str = "001e# service=git-upload-pack\n0000";

pub struct Peers {
    pub addr: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    planted: Planted,
    repository: PathBuf,
    used: Mutex<BTreeSet<&'static str>>,
    /// Bodies that the collector was sent.
    traces: Mutex<Vec<u8>>,
}

impl Peers {
    /// `folder` is for the repository that they serve.
    pub async fn start(planted: Planted, folder: &Path) -> anyhow::Result<Self> {
        let repository = folder.join("app.git");
        seed(&repository).await?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared { planted, repository, used: Mutex::default(), traces: Mutex::default() });
        let served = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&served);
                let service = service_fn(move |request| {
                    let shared = Arc::clone(&shared);
                    async move { Ok::<_, Infallible>(shared.answer(request).await) }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Ok(Peers { addr, shared })
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.addr)
    }

    /// Names of the secrets that were shown.
    pub fn used(&self) -> BTreeSet<&'static str> {
        self.shared.used.lock().clone()
    }

    pub fn traces(&self) -> Vec<u8> {
        self.shared.traces.lock().clone()
    }
}

impl Shared {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let Ok(body) = body.collect().await else { return status(StatusCode::BAD_REQUEST) };
        let body = body.to_bytes();
        match (&parts.method, parts.uri.path()) {
            (&Method::POST, "/docs/mcp") => self.mcp(&parts.headers, &[("mcp_bearer", &self.planted.bearer)], &body),
            (&Method::POST, "/oauth/mcp") => self.mcp(&parts.headers, &[("mcp_minted", &self.planted.minted)], &body),
            (&Method::POST, "/oauth/token") => self.token(&body),
            (&Method::GET, "/app/info/refs") => self.git(&parts.headers, None).await,
            (&Method::POST, "/app/git-upload-pack") => self.git(&parts.headers, Some(body)).await,
            (&Method::POST, "/v1/traces") => {
                self.traces.lock().extend_from_slice(&body);
                status(StatusCode::OK)
            }
            // Streams of an MCP server, which has nothing to say by itself.
            (_, "/docs/mcp" | "/oauth/mcp") => status(StatusCode::METHOD_NOT_ALLOWED),
            _ => status(StatusCode::NOT_FOUND),
        }
    }

    /// The one of these that the request is authorized with.
    fn admit(&self, headers: &HeaderMap, scheme: &str, secrets: &[(&'static str, &str)]) -> bool {
        let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let admitted = secrets.iter().find(|(_, secret)| shown == format!("{scheme} {secret}"));
        self.used.lock().extend(admitted.map(|(name, _)| *name));
        admitted.is_some()
    }

    fn mcp(&self, headers: &HeaderMap, secrets: &[(&'static str, &str)], body: &[u8]) -> Response<Full<Bytes>> {
        if !self.admit(headers, "Bearer", secrets) {
            return with(StatusCode::UNAUTHORIZED, header::WWW_AUTHENTICATE, "Bearer", Bytes::new());
        }
        let Ok(message) = serde_json::from_slice::<Value>(body) else { return status(StatusCode::BAD_REQUEST) };
        let result = match message["method"].as_str() {
            Some("initialize") => json!({"protocolVersion": message["params"]["protocolVersion"],
                "capabilities": {"tools": {}}, "serverInfo": {"name": "canary", "version": "1"}}),
            Some("tools/list") => {
                json!({"tools": [{"name": TOOL, "description": "Answer", "inputSchema": {"type": "object"}}]})
            }
            Some("tools/call") => json!({"content": [{"type": "text", "text": "pong"}]}),
            _ => return status(StatusCode::ACCEPTED),
        };
        let answer = json!({"jsonrpc": "2.0", "id": message["id"], "result": result}).to_string();
        with(StatusCode::OK, header::CONTENT_TYPE, "application/json", answer.into())
    }

    fn token(&self, body: &[u8]) -> Response<Full<Bytes>> {
        let asked = String::from_utf8_lossy(body);
        let has =
            |secret: &str| asked.split('&').any(|pair| pair.split_once('=').is_some_and(|(_, value)| value == secret));
        if !has(&self.planted.refresh) || !has(&self.planted.client) {
            return status(StatusCode::BAD_REQUEST);
        }
        self.used.lock().extend(["mcp_refresh", "mcp_client"]);
        let answer = json!({"access_token": self.planted.minted, "token_type": "Bearer", "expires_in": 3600});
        with(StatusCode::OK, header::CONTENT_TYPE, "application/json", answer.to_string().into())
    }

    /// What is there, or a fetch of it.
    async fn git(&self, headers: &HeaderMap, wanted: Option<Bytes>) -> Response<Full<Bytes>> {
        let basic = BASE64.encode(format!("x-access-token:{}", self.planted.repository));
        if !self.admit(headers, "Basic", &[("repository", &basic)]) {
            return with(StatusCode::UNAUTHORIZED, header::WWW_AUTHENTICATE, "Basic realm=git", Bytes::new());
        }
        let protocol = headers.get("git-protocol").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let (kind, mut answer) = match &wanted {
            None => ("application/x-git-upload-pack-advertisement", ADVERTISED.as_bytes().to_vec()),
            Some(_) => ("application/x-git-upload-pack-result", Vec::new()),
        };
        match upload_pack(&self.repository, protocol, wanted).await {
            Ok(said) => {
                answer.extend(said);
                with(StatusCode::OK, header::CONTENT_TYPE, kind, answer.into())
            }
            Err(_) => status(StatusCode::INTERNAL_SERVER_ERROR),
        }
    }
}

async fn upload_pack(repository: &Path, protocol: &str, wanted: Option<Bytes>) -> anyhow::Result<Vec<u8>> {
    let mut command = Command::new("git");
    command
        .args(["upload-pack", "--stateless-rpc"])
        .args(wanted.is_none().then_some("--advertise-refs"))
        .arg(repository);
    command.env("GIT_PROTOCOL", protocol).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    let stdin = child.stdin.take();
    let write = async move {
        if let (Some(mut stdin), Some(wanted)) = (stdin, wanted) {
            // One that has read enough closes its end.
            stdin.write_all(&wanted).await.ok();
        }
    };
    let ((), output) = tokio::join!(write, child.wait_with_output());
    Ok(output?.stdout)
}

/// A bare repository with one commit of nothing.
async fn seed(repository: &Path) -> anyhow::Result<()> {
    tokio::fs::create_dir_all(repository).await?;
    git(repository, &["init", "-q", "--bare", "-b", "main", "."]).await?;
    let author = ["-c", "user.name=canary", "-c", "user.email=canary@localhost"];
    let commit = git(repository, &[&author[..], &["commit-tree", "-m", "first", EMPTY_TREE]].concat()).await?;
    git(repository, &["update-ref", "refs/heads/main", commit.trim()]).await?;
    Ok(())
}

/// Every git knows the empty tree without being given it.
const EMPTY_TREE: &str = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";

async fn git(repository: &Path, args: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("git").arg("-C").arg(repository).args(args).stdin(Stdio::null()).output().await?;
    anyhow::ensure!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

fn status(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

fn with(code: StatusCode, name: header::HeaderName, value: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = code;
    response.headers_mut().insert(name, http::HeaderValue::from_static(value));
    response
}
