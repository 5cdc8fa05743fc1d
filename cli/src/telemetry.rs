//! The only place that installs tracing: text on stderr, and spans to an OTLP receiver when one is named.

use crate::env_vars;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tracing_subscriber::{EnvFilter, Layer as _, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// Dropping it sends what is still waiting to be sent.
pub struct Telemetry {
    provider: Option<SdkTracerProvider>,
}

/// Installs tracing for this process. `quiet` shows warnings only, unless the environment says otherwise.
pub fn install(quiet: bool) -> anyhow::Result<Telemetry> {
    let default = if quiet {
        "warn"
    } else {
        "info,fjall=warn,lsm_tree=warn,temporalio_sdk_core=warn,temporalio_client=warn,temporalio_sdk=warn"
    };
    let filter = EnvFilter::try_from_env(env_vars::LOG).unwrap_or_else(|_| EnvFilter::new(default));
    let text = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(true).with_filter(filter);
    let provider = match std::env::var(env_vars::OTLP_ENDPOINT) {
        Ok(endpoint) if !endpoint.is_empty() => Some(exporter(&endpoint)?),
        _ => None,
    };
    let spans = provider.as_ref().map(|provider| {
        let ours =
            tracing_subscriber::filter::filter_fn(|meta| meta.is_span() && meta.target().starts_with("steadyhand"));
        tracing_opentelemetry::layer().with_tracer(provider.tracer("steadyhand")).with_filter(ours)
    });
    tracing_subscriber::registry().with(text).with(spans).init();
    Ok(Telemetry { provider })
}

fn exporter(endpoint: &str) -> anyhow::Result<SdkTracerProvider> {
    crate::remote::install_tls();
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
        .build()?;
    let resource = Resource::builder().with_service_name("steadyhand").build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(provider) = self.provider.take() {
            // Nobody is left to be told.
            let _ = provider.shutdown();
        }
    }
}
