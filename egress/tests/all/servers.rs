//! Servers on loopback: one that echoes what it is sent, and git's own behind a token.

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::runtime::Runtime;

type Answer = Response<Full<Bytes>>;

fn serve<F>(runtime: &Runtime, answer: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static) -> SocketAddr
where
    F: Future<Output = Answer> + Send,
{
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let addr = listener.local_addr().unwrap();
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            let service = service_fn(move |request| {
                let answer = answer(request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    addr
}

/// Speaks HTTP/2 and nothing else.
pub fn http2(runtime: &Runtime) -> SocketAddr {
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let addr = listener.local_addr().unwrap();
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(|request: Request<Incoming>| async move {
                let text = format!("{:?} {}", request.version(), request.uri().path());
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(text))))
            });
            let executor = hyper_util::rt::TokioExecutor::new();
            tokio::spawn(
                hyper::server::conn::http2::Builder::new(executor).serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    addr
}

/// The headers that each request came with.
pub type Seen = Arc<Mutex<Vec<String>>>;

/// Answers with the head of the request, in headers too.
pub fn echo(runtime: &Runtime) -> (SocketAddr, Seen) {
    let seen = Seen::default();
    let requests = Arc::clone(&seen);
    let addr = serve(runtime, move |request: Request<Incoming>| {
        let head = format!("origin-body {} {}\n{:?}\n", request.method(), request.uri(), plain(&request));
        requests.lock().unwrap().push(head.clone());
        async move {
            let mut response = Response::new(Full::new(Bytes::from(head.clone())));
            if let Some(value) = request.headers().get("authorization") {
                response.headers_mut().insert("x-echo", value.clone());
            }
            response
        }
    });
    (addr, seen)
}

/// Headers in words: a sensitive value would hide itself from `Debug`.
fn plain(request: &Request<Incoming>) -> Vec<(String, String)> {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    request.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}

/// Lets in who shows the bearer token that is asked for now, and gives back the head of the request. `/moved` leads elsewhere.
pub fn bearer(runtime: &Runtime, token: Arc<Mutex<String>>) -> (SocketAddr, Seen) {
    let seen = Seen::default();
    let requests = Arc::clone(&seen);
    let addr = serve(runtime, move |request: Request<Incoming>| {
        let head = format!("{} {} {:?}", request.method(), request.uri(), plain(&request));
        requests.lock().unwrap().push(head.clone());
        let expected = format!("Bearer {}", token.lock().unwrap());
        async move {
            let shown = request.headers().get("authorization").map(|value| value.as_bytes().to_vec());
            let mut response = Response::new(Full::new(Bytes::from(head)));
            if request.uri().path() == "/moved" {
                *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
                response.headers_mut().insert("location", "https://elsewhere.test/".parse().unwrap());
            } else if shown.as_deref() != Some(expected.as_bytes()) {
                *response.status_mut() = StatusCode::UNAUTHORIZED;
                response.headers_mut().insert("www-authenticate", "Bearer realm=secrets".parse().unwrap());
            }
            response
        }
    });
    (addr, seen)
}

/// Pages: any path answers with the head of the request, and `/to?URL` leads there.
pub fn pages(runtime: &Runtime) -> (SocketAddr, Seen) {
    let seen = Seen::default();
    let requests = Arc::clone(&seen);
    let addr = serve(runtime, move |request: Request<Incoming>| {
        let head = format!("{} {} {:?}", request.method(), request.uri(), plain(&request));
        requests.lock().unwrap().push(head.clone());
        async move {
            let mut response = Response::new(Full::new(Bytes::from(head)));
            response.headers_mut().insert("content-type", "text/plain".parse().unwrap());
            response.headers_mut().insert("set-cookie", "of=the-site".parse().unwrap());
            if request.uri().path() == "/to" {
                *response.status_mut() = StatusCode::FOUND;
                response.headers_mut().insert("location", request.uri().query().unwrap().parse().unwrap());
            }
            response
        }
    });
    (addr, seen)
}

/// OAuth's token endpoint: gives out `next` for the refresh token `first`, once, and has it asked for from then on.
pub fn tokens(
    runtime: &Runtime,
    asked: Arc<Mutex<String>>,
    first: &'static str,
    next: &'static str,
) -> (SocketAddr, Seen) {
    let seen = Seen::default();
    let requests = Arc::clone(&seen);
    let addr = serve(runtime, move |request: Request<Incoming>| {
        let (asked, requests) = (Arc::clone(&asked), Arc::clone(&requests));
        async move {
            let authorization = request.headers().get("authorization").map(|value| value.to_str().unwrap().to_owned());
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let form = String::from_utf8(body.to_vec()).unwrap();
            requests.lock().unwrap().push(format!("{authorization:?} {form}"));
            let mut response = Response::new(Full::default());
            if form.contains(&format!("refresh_token={first}&")) {
                next.clone_into(&mut asked.lock().unwrap());
                let tokens =
                    format!("{{\"access_token\": \"{next}\", \"refresh_token\": \"second\", \"expires_in\": 60}}");
                *response.body_mut() = Full::new(Bytes::from(tokens));
            } else {
                *response.status_mut() = StatusCode::BAD_REQUEST;
            }
            response
        }
    });
    (addr, seen)
}

/// Repositories in `root`, for whoever shows the token.
pub fn git(runtime: &Runtime, root: PathBuf, token: &'static str) -> (SocketAddr, Seen) {
    let seen = Seen::default();
    let requests = Arc::clone(&seen);
    let addr = serve(runtime, move |request: Request<Incoming>| {
        requests.lock().unwrap().push(format!("{} {}", request.method(), request.uri()));
        let root = root.clone();
        async move {
            use base64::Engine as _;
            let pair = base64::engine::general_purpose::STANDARD.encode(format!("x-access-token:{token}"));
            let shown = request.headers().get("authorization").map(|value| value.as_bytes().to_vec());
            if shown.as_deref() != Some(format!("Basic {pair}").as_bytes()) {
                let mut response = Response::new(Full::default());
                *response.status_mut() = StatusCode::UNAUTHORIZED;
                response.headers_mut().insert("www-authenticate", "Basic realm=git".parse().unwrap());
                return response;
            }
            backend(root, request).await
        }
    });
    (addr, seen)
}

/// `git http-backend`, by the rules of CGI.
async fn backend(root: PathBuf, request: Request<Incoming>) -> Answer {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let header = |name: &str| parts.headers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REMOTE_USER", "agent")
        .env("REQUEST_METHOD", parts.method.as_str())
        .env("PATH_INFO", parts.uri.path())
        .env("QUERY_STRING", parts.uri.query().unwrap_or_default())
        .env("CONTENT_TYPE", header("content-type"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("GIT_PROTOCOL", header("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let write = async move {
        // A backend that has read enough closes its end.
        stdin.write_all(&body).await.ok();
    };
    let ((), output) = tokio::join!(write, child.wait_with_output());
    let output = output.unwrap().stdout;
    let end = output.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(&output[end + 4..])));
    for line in std::str::from_utf8(&output[..end]).unwrap().lines() {
        let (name, value) = line.split_once(": ").unwrap();
        if name.eq_ignore_ascii_case("status") {
            *response.status_mut() = value[..3].parse().unwrap();
        } else {
            response.headers_mut().append(http::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
        }
    }
    response
}
