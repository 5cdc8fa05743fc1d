//! The OpenAPI document against the router that it was read off, and against what the SDKs call.

use std::collections::BTreeSet;

use axum::body::Body;
use http::Method;
use serde_json::Value;

use super::{Api, request};
use crate::resources::unbuilt;

/// Every operation, as `POST /v1/agents`.
fn operations(document: &Value) -> BTreeSet<String> {
    let paths = document["paths"].as_object().unwrap().iter();
    let each = paths.flat_map(|(path, item)| {
        let methods = item.as_object().unwrap().keys().filter(|key| *key != "parameters");
        methods.map(move |method| format!("{} {path}", method.to_ascii_uppercase()))
    });
    each.collect()
}

#[tokio::test]
async fn it_has_every_call_of_the_sdks_that_is_built() {
    let api = Api::new().await;
    let document = api.get("/openapi.json").await.ok();
    let known = operations(&document);
    let mut later = 0;
    for line in include_str!("endpoints.tsv").lines().skip(1) {
        let mut columns = line.split('\t');
        let (method, path) = (columns.next().unwrap(), columns.next().unwrap());
        let roots = unbuilt::RESOURCE.routes.iter().map(|route| route.path.trim_end_matches("/{*rest}"));
        if roots.into_iter().any(|root| path == root || path.starts_with(&format!("{root}/"))) {
            later += 1;
        } else {
            assert!(known.contains(&format!("{method} {path}")), "{method} {path}");
        }
    }
    assert!(known.len() > later);
}

#[tokio::test]
async fn what_it_has_is_answered_and_what_it_has_not_is_405() {
    let api = Api::new().await;
    let document = api.get("/openapi.json").await.ok();
    let known = operations(&document);
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let params: BTreeSet<_> =
            item["parameters"].as_array().into_iter().flatten().map(|it| it["name"].as_str().unwrap()).collect();
        let named: BTreeSet<_> = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
        assert_eq!(params, named, "{path}");
        let called = path.replace(['{', '}'], "");
        for method in [Method::GET, Method::POST, Method::DELETE, Method::PUT, Method::PATCH] {
            let answer = api.open(request(method.clone(), &called).body(Body::from("{}")).unwrap()).await;
            let is_known = known.contains(&format!("{method} {path}"));
            assert_eq!(is_known, answer.status() != 405, "{method} {path}: {}", answer.status());
            assert!(answer.headers().contains_key("request-id"));
            if is_known {
                let operation = &item[method.as_str().to_ascii_lowercase()];
                assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{operation}");
                let status = answer.status().as_u16();
                assert!(status != 500 && (status < 500 || status == 503), "{method} {path}: {status}");
            }
        }
    }
    assert_eq!(ids.len(), known.len());
}
