//! The only place that installs tracing: text on stderr, and spans to an OTLP collector when one is named.

mod collector;
mod convention;
mod export;
mod ids;
mod spans;

pub use collector::Collector;

use crate::env_vars;
use export::Export;
use tracing_subscriber::{EnvFilter, Layer as _, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// What is shown of libraries unless the environment says otherwise.
const DEFAULT: &str =
    "info,fjall=warn,lsm_tree=warn,temporalio_sdk_core=warn,temporalio_client=warn,temporalio_sdk=warn,rmcp=off";

/// Dropping it sends what is still waiting to be sent, as far as that goes quickly.
pub struct Telemetry {
    _export: Option<Export>,
}

/// Installs tracing for this process, which calls itself `service` in traces.
pub fn install(service: &'static str, collector: Option<&Collector>) -> anyhow::Result<Telemetry> {
    let filter = EnvFilter::try_from_env(env_vars::LOG).unwrap_or_else(|_| EnvFilter::new(DEFAULT));
    let text = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(true).with_filter(filter);
    let export = collector.map(|collector| Export::start(collector, service)).transpose()?;
    let spans = export.as_ref().map(|export| {
        let ours = tracing_subscriber::filter::filter_fn(|meta| {
            meta.is_span() && meta.target().starts_with("steadyhand") && convention::is_exported(meta.name())
        });
        spans::Spans::new(export.sender()).with_filter(ours)
    });
    tracing_subscriber::registry().with(text).with(spans).init();
    Ok(Telemetry { _export: export })
}
