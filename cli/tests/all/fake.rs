//! A server that answers as it is told, and remembers what it was asked.

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};
use tokio::net::TcpListener;

/// What was asked: the request without its body, and the body.
pub type Asked = Request<Bytes>;

/// What is answered: a status, and a body that may break off.
pub struct Answer {
    pub status: u16,
    pub body: String,
    /// The connection stays open after the body.
    pub stays_open: bool,
}

impl Answer {
    pub fn json(status: u16, body: &str) -> Self {
        Answer { status, body: body.to_owned(), stays_open: false }
    }

    pub fn error(status: u16, kind: &str, message: &str) -> Self {
        let error = serde_json::json!({"type": kind, "message": message});
        let envelope = serde_json::json!({"type": "error", "error": error, "request_id": "req_1"});
        Answer::json(status, &envelope.to_string())
    }
}

type Body = BoxBody<Bytes, std::io::Error>;
type Answers = dyn Fn(&Asked) -> Answer + Send + Sync;

pub struct Fake {
    pub url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    _runtime: tokio::runtime::Runtime,
}

impl Fake {
    pub fn start(answers: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        Fake::start_at("127.0.0.1:0", answers)
    }

    pub fn start_at(addr: &str, answers: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind(addr)).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        runtime.spawn(serve(listener, asked.clone(), Arc::new(answers)));
        Fake { url, asked, _runtime: runtime }
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(listener: TcpListener, asked: Arc<Mutex<Vec<Asked>>>, answers: Arc<Answers>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let (asked, answers) = (asked.clone(), answers.clone());
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let (asked, answers) = (asked.clone(), answers.clone());
            async move { Ok::<_, Infallible>(answer(request, &asked, &*answers).await) }
        });
        // A client that goes away is not the server's failure.
        tokio::spawn(async move {
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok()
        });
    }
}

async fn answer(request: Request<Incoming>, asked: &Mutex<Vec<Asked>>, answers: &Answers) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let request = Request::from_parts(parts, body.collect().await.unwrap().to_bytes());
    let Answer { status, body, stays_open } = answers(&request);
    asked.lock().unwrap().push(request);
    let body = stream::iter([Ok(Frame::data(Bytes::from(body)))]);
    let body: Body = if stays_open {
        BodyExt::boxed(StreamBody::new(body.chain(stream::pending())))
    } else {
        BodyExt::boxed(StreamBody::new(body))
    };
    Response::builder().status(status).body(body).unwrap()
}
