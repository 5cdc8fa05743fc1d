//! A trace collector that nobody here wrote (rotel), and the spans that it was given.
//!
//! Its program comes from `STEADYHAND_ROTEL`, which `scripts/test` sets.

use crate::{engines::free_addr, long};
use anyhow::{Context as _, bail};
use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read},
    net::TcpStream,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tokio::sync::watch;

pub const ROTEL: &str = "STEADYHAND_ROTEL";

/// A span as the collector prints it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// `service.name` of the process that sent it.
    pub service: String,
    pub trace: String,
    pub id: String,
    pub parent: Option<String>,
    pub name: String,
    pub kind: String,
    pub start_ns: u64,
    pub end_ns: u64,
    pub is_error: bool,
    pub attributes: BTreeMap<String, String>,
}

impl Span {
    pub fn lasted(&self) -> Duration {
        Duration::from_nanos(self.end_ns.saturating_sub(self.start_ns))
    }
}

/// Killed when dropped.
pub struct Collector {
    process: Child,
    pub url: String,
    printed: watch::Receiver<String>,
}

impl Collector {
    pub fn start() -> anyhow::Result<Self> {
        let bin = std::env::var_os(ROTEL)
            .with_context(|| format!("{ROTEL} is not set: run the tests through scripts/test"))?;
        let (http, grpc) = (free_addr()?, free_addr()?);
        let mut process = Command::new(&bin)
            .args(["start", "--exporter", "blackhole", "--debug-log", "traces", "--debug-log-verbosity", "detailed"])
            .args(["--otlp-http-endpoint", &http.to_string(), "--otlp-grpc-endpoint", &grpc.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("start {}", bin.display()))?;
        let stdout = process.stdout.take().context("its output is piped")?;
        let (tell, printed) = watch::channel(String::new());
        std::thread::Builder::new().name("collector".to_owned()).spawn(move || read(stdout, &tell))?;
        let mut collector = Collector { process, url: format!("http://{http}"), printed };
        let deadline = Instant::now() + Duration::from_secs(60);
        // It does not say when it listens.
        while TcpStream::connect(http).is_err() {
            if let Some(status) = collector.process.try_wait()? {
                bail!("the collector ended at once: {status}");
            }
            if Instant::now() > deadline {
                bail!("the collector does not listen on {http}");
            }
            std::thread::yield_now();
        }
        Ok(collector)
    }

    /// What it printed, once that is what is waited for.
    pub async fn until(&self, is_there: impl Fn(&[Span]) -> bool) -> anyhow::Result<Vec<Span>> {
        let mut printed = self.printed.clone();
        let waiting = printed.wait_for(|printed| is_there(&spans(printed)));
        match tokio::time::timeout(long::patience(), waiting).await {
            Ok(found) => Ok(spans(&found.context("the collector ended")?)),
            Err(_) => bail!("the spans do not come; there are {:#?}", self.spans()),
        }
    }

    pub fn spans(&self) -> Vec<Span> {
        spans(&self.printed.borrow())
    }

    /// Everything that it was sent, as text.
    pub fn text(&self) -> String {
        self.printed.borrow().clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // Already dead is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn read(stdout: impl Read, tell: &watch::Sender<String>) {
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        tell.send_modify(|printed| {
            printed.push_str(&line);
            printed.push('\n');
        });
    }
}

/// The spans in what it printed. The last one may still be on its way.
fn spans(printed: &str) -> Vec<Span> {
    let (mut spans, mut service) = (Vec::<Span>::new(), String::new());
    for line in printed.lines() {
        let line = line.trim();
        if line.starts_with("Span #") {
            spans.push(Span { service: service.clone(), ..Span::default() });
            continue;
        }
        let Some((name, value)) = line.split_once(':').map(|(name, value)| (name.trim(), value.trim())) else {
            continue;
        };
        if let Some(name) = name.strip_prefix("-> ") {
            let value = value.split_once('(').map_or(value, |(_, value)| value.trim_end_matches(')'));
            match name {
                "service.name" => service = value.to_owned(),
                _ => drop(spans.last_mut().map(|span| span.attributes.insert(name.to_owned(), value.to_owned()))),
            }
            continue;
        }
        let Some(span) = spans.last_mut() else { continue };
        match name {
            "Trace ID" => span.trace = value.to_owned(),
            "Parent ID" => span.parent = (!value.is_empty()).then(|| value.to_owned()),
            "ID" => span.id = value.to_owned(),
            "Name" => span.name = value.to_owned(),
            "Kind" => span.kind = value.trim_start_matches("SPAN_KIND_").to_owned(),
            "Start time" => span.start_ns = value.parse().unwrap_or_default(),
            "End time" => span.end_ns = value.parse().unwrap_or_default(),
            "Status code" => span.is_error = value == "STATUS_CODE_ERROR",
            _ => {}
        }
    }
    spans.retain(|span| span.end_ns > 0);
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_prints_is_read() {
        let printed = "ResourceSpans #0\nResource attributes:\n     -> service.name: Str(hand)\nScopeSpans #0\nSpan #0\n    \
            Trace ID       : 0a\n    Parent ID      : \n    ID             : 01\n    Name           : execute_tool bash\n    \
            Kind           : SPAN_KIND_INTERNAL\nStart time: 5\nEnd time: 7\n    Status code    : STATUS_CODE_ERROR\n    \
            Status message : lost\nAttributes:\n     -> n: Int(7)\nSpan #1\n    Trace ID       : 0a\n";
        let attributes = [("n".to_owned(), "7".to_owned())].into();
        let expected = Span {
            service: "hand".into(),
            trace: "0a".into(),
            id: "01".into(),
            parent: None,
            name: "execute_tool bash".into(),
            kind: "INTERNAL".into(),
            start_ns: 5,
            end_ns: 7,
            is_error: true,
            attributes,
        };
        assert_eq!(spans(printed), [expected]);
    }
}
