//! The way of spans out of the process: a bounded queue and one thread. Work never waits for it. What a collector does
//! not take in time is dropped, and said once.

use super::Collector;
use crate::remote;
use opentelemetry::KeyValue;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::{
    Resource,
    trace::{SpanData, SpanExporter as _},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc as std_mpsc,
    },
    time::Duration,
};
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

/// Spans that may wait; more are dropped.
const QUEUE_MAX: usize = 4096;
/// Spans in one request.
const BATCH_MAX: usize = 512;
/// How long a span waits for others to share its request.
const LINGER: Duration = Duration::from_millis(200);
/// How long a collector may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How long the end of the process may wait for the last request. A service ends after its hand worker.
const END_MAX: Duration = Duration::from_millis(800);

/// Where closed spans go. Cheap to clone.
#[derive(Clone)]
pub struct Sender {
    queue: mpsc::Sender<SpanData>,
    dropped: Arc<AtomicU64>,
}

impl Sender {
    pub fn send(&self, span: SpanData) {
        if self.queue.try_send(span).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The thread. Dropping it sends what waits, as far as that goes in [`END_MAX`].
pub struct Export {
    sender: Sender,
    close: Option<oneshot::Sender<()>>,
    ended: std_mpsc::Receiver<()>,
}

impl Export {
    pub fn start(collector: &Collector, service: &'static str) -> anyhow::Result<Self> {
        let exporter = exporter(collector, service)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (queue, spans) = mpsc::channel(QUEUE_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let (close, closing) = oneshot::channel();
        let (end, ended) = std_mpsc::channel();
        let run = Run { exporter, spans, dropped: dropped.clone(), is_silent: false };
        std::thread::Builder::new().name("traces".to_owned()).spawn(move || {
            runtime.block_on(run.until(closing));
            // Nobody listens when it took too long.
            let _ = end.send(());
        })?;
        Ok(Export { sender: Sender { queue, dropped }, close: Some(close), ended })
    }

    pub fn sender(&self) -> Sender {
        self.sender.clone()
    }
}

impl Drop for Export {
    fn drop(&mut self) {
        if let Some(close) = self.close.take() {
            // It ended before: there is nothing to send then.
            let _ = close.send(());
        }
        // Too late is as good as never: the process ends.
        let _ = self.ended.recv_timeout(END_MAX);
    }
}

fn exporter(collector: &Collector, service: &'static str) -> anyhow::Result<SpanExporter> {
    remote::install_tls();
    let mut client = reqwest::Client::builder().connect_timeout(ANSWER_MAX);
    if collector.is_here() {
        client = client.no_proxy();
    }
    let mut exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(client.build()?)
        .with_protocol(Protocol::HttpBinary)
        .with_timeout(ANSWER_MAX)
        .with_endpoint(collector.traces())
        .build()?;
    let attributes = [
        KeyValue::new("service.namespace", "steadyhand"),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", hex::encode(rand::random::<[u8; 8]>())),
    ];
    exporter.set_resource(&Resource::builder_empty().with_service_name(service).with_attributes(attributes).build());
    Ok(exporter)
}

struct Run {
    exporter: SpanExporter,
    spans: mpsc::Receiver<SpanData>,
    dropped: Arc<AtomicU64>,
    /// That the collector takes nothing was said already.
    is_silent: bool,
}

impl Run {
    async fn until(mut self, mut closing: oneshot::Receiver<()>) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        let mut is_closing = false;
        while !is_closing {
            tokio::select! {
                received = self.spans.recv_many(&mut batch, BATCH_MAX) => is_closing = received == 0,
                _ = &mut closing => is_closing = true,
            }
            if !is_closing {
                // What follows at once shares the request.
                let full =
                    async { while batch.len() < BATCH_MAX && self.spans.recv_many(&mut batch, BATCH_MAX).await > 0 {} };
                tokio::select! {
                    () = full => {}
                    () = tokio::time::sleep(LINGER) => {}
                    _ = &mut closing => is_closing = true,
                }
            }
            self.send(&mut batch).await;
        }
        self.spans.close();
        while self.spans.recv_many(&mut batch, BATCH_MAX).await > 0 {
            self.send(&mut batch).await;
        }
    }

    async fn send(&mut self, batch: &mut Vec<SpanData>) {
        if batch.is_empty() {
            return;
        }
        let spans = std::mem::replace(batch, Vec::with_capacity(BATCH_MAX));
        let count = spans.len() as u64;
        let sent = tokio::time::timeout(ANSWER_MAX, self.exporter.export(spans)).await;
        let failed = match sent {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no answer within {} s", ANSWER_MAX.as_secs())),
        };
        match failed {
            Some(reason) => {
                self.dropped.fetch_add(count, Ordering::Relaxed);
                if !std::mem::replace(&mut self.is_silent, true) {
                    warn!(reason, "the trace collector takes no spans: they are dropped until it does");
                }
            }
            None if std::mem::take(&mut self.is_silent) => {
                let dropped = self.dropped.swap(0, Ordering::Relaxed);
                info!(dropped, "the trace collector takes spans again");
            }
            None => {}
        }
    }
}
