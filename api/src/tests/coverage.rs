//! Every route wants a key, and every call of the official SDKs is known.

use std::collections::BTreeSet;

use axum::body::Body;
use http::{Method, Request};

use super::Api;
use crate::router::RESOURCES;

/// What anyone may ask without a key. May only shrink.
const OPEN: &[&str] = &["/healthz"];

const METHODS: [Method; 5] = [Method::GET, Method::POST, Method::DELETE, Method::PUT, Method::PATCH];

/// A path of a route with something in place of its parameters.
fn filled(path: &str) -> String {
    let part = |part: &str| if part.starts_with('{') { "x".to_owned() } else { part.to_owned() };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

#[tokio::test]
async fn no_route_answers_without_a_key() {
    let api = Api::new().await;
    for route in RESOURCES.iter().flat_map(|resource| resource.routes) {
        let mut known = 0;
        for method in METHODS {
            for key in [None, Some("Bearer wrong"), Some("Bearer "), Some("Basic eDp5")] {
                let mut request = Request::builder().method(method.clone()).uri(filled(route.path));
                if let Some(key) = key {
                    request = request.header("authorization", key);
                }
                let answer = api.send(request.body(Body::empty()).unwrap()).await;
                match answer.status.as_u16() {
                    405 => {}
                    _ => {
                        known += 1;
                        answer.refused(401, "authentication_error");
                    }
                }
            }
        }
        assert!(known > 0, "{} has no method", route.path);
    }
    for path in OPEN {
        let answer = api.send(Request::get(*path).body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status, 200);
    }
}

#[tokio::test]
async fn every_call_of_the_sdks_is_known() {
    let api = Api::new().await;
    for line in include_str!("endpoints.tsv").lines().skip(1) {
        let mut columns = line.split('\t');
        let (method, path) = (columns.next().unwrap(), columns.next().unwrap());
        let answer = api.call(method.parse().unwrap(), &filled(path), "{}").await;
        let status = answer.status;
        let message = answer.json()["error"]["message"].as_str().unwrap_or_default().to_owned();
        assert!(status != 405 && message != "no such path", "{method} {path}: {status} {message}");
        assert!(status != 500, "{method} {path}: {message}");
    }
}

#[test]
fn no_route_is_listed_twice() {
    let mut seen = BTreeSet::new();
    for resource in RESOURCES {
        for route in resource.routes {
            assert!(seen.insert(filled(route.path)), "{} of {}", route.path, resource.name);
        }
    }
}
