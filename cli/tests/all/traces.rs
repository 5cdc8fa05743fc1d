//! Traces are a side line: a collector that is dead or deaf costs the service nothing.

use crate::program::Place;
use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

const HELLO: &str = "version = 1\n[[rules]]\nanswer = [{ text = \"hello\" }]\n";
const END_MAX: Duration = Duration::from_secs(2);

/// Ends a service that has something to send, and gives its log.
fn log_with(collector: &str) -> String {
    let place = Place::new();
    let service = place.serve_with(HELLO, &["--otlp-endpoint", collector]);
    for _ in 0..5 {
        place.run(&["agent", "list"]).ok();
    }
    let begun = Instant::now();
    service.stop();
    assert!(begun.elapsed() < END_MAX, "it took {:?} to end", begun.elapsed());
    place.read("service.log")
}

#[test]
fn nobody_listens() {
    let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let log = log_with(&format!("http://{addr}"));
    assert_eq!(log.matches("the trace collector takes no spans").count(), 1, "{log}");
    assert_eq!(log.matches("WARN").count(), 1, "{log}");
}

#[test]
fn somebody_listens_and_never_answers() {
    let deaf = TcpListener::bind("127.0.0.1:0").unwrap();
    let log = log_with(&format!("http://{}", deaf.local_addr().unwrap()));
    assert!(log.matches("WARN").count() <= 1, "{log}");
}

#[test]
fn a_collector_s_credentials_are_refused_and_not_repeated() {
    let place = Place::new();
    for url in ["http://user:hunter2@127.0.0.1:4318", "http://127.0.0.1:4318/?key=hunter2", "127.0.0.1:4318"] {
        let shot = place.run(&["serve", "--otlp-endpoint", url]);
        shot.failed(2, "error: use the trace collector: ");
        shot.failed(2, "hint: --otlp-endpoint or OTEL_EXPORTER_OTLP_ENDPOINT: where traces go");
        assert!(!shot.stderr.contains("hunter2"), "{shot}");
    }
}
