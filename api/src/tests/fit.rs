//! Whether what goes over the wire is what the OpenAPI document says: every request that was taken, and every answer.

use std::cell::RefCell;
use std::collections::HashMap;

use boon::{Compiler, SchemaIndex, Schemas};
use http::Method;
use serde_json::Value;

use super::Answer;
use crate::openapi::DOCUMENT;

const URL: &str = "http://steadyhand/openapi.json";

thread_local! {
    static FIT: RefCell<Fit> = RefCell::default();
}

/// The schemas that were met so far, by the pointer to each.
struct Fit {
    compiler: Compiler,
    schemas: Schemas,
    known: HashMap<String, SchemaIndex>,
}

impl Default for Fit {
    fn default() -> Self {
        let mut compiler = Compiler::new();
        compiler.enable_format_assertions();
        compiler.enable_content_assertions();
        compiler.add_resource(URL, DOCUMENT.clone()).unwrap();
        Self { compiler, schemas: Schemas::new(), known: HashMap::new() }
    }
}

impl Fit {
    fn check(&mut self, pointer: &str, value: &Value) -> Result<(), String> {
        let Self { compiler, schemas, known } = self;
        let compile = || compiler.compile(&format!("{URL}#{pointer}"), schemas).unwrap();
        let index = *known.entry(pointer.to_owned()).or_insert_with(compile);
        schemas.validate(value, index).map_err(|error| format!("{pointer}: {error:#}\n{value:#}"))
    }
}

/// Checks an answer, and where it is a success the request too.
#[track_caller]
pub fn check(method: &Method, path: &str, body: Option<&[u8]>, answer: &Answer) {
    let json = answer.headers.get("content-type").is_some_and(|kind| kind == "application/json");
    let path = path.split('?').next().unwrap();
    let operation = template(path).map(|template| at(template, method));
    if answer.status.is_success()
        && let Some(operation) = &operation
    {
        let body = body.filter(|body| !body.is_empty()).and_then(|body| serde_json::from_slice(body).ok());
        let taken = format!("{operation}/requestBody/content/application~1json/schema");
        if let Some(body) = body
            && DOCUMENT.pointer(&taken).is_some()
        {
            fits(taken, &body, "the request was taken and does not fit");
        }
        if json {
            let given = format!("{operation}/responses/200/content/application~1json/schema");
            fits(given, &answer.json(), "the answer does not fit");
        }
    }
    if !answer.status.is_success() && !answer.body.is_empty() {
        let error = "/components/responses/Error/content/application~1json/schema".to_owned();
        fits(error, &answer.json(), "the refusal does not fit");
    }
}

#[track_caller]
fn fits(pointer: String, value: &Value, what: &str) {
    if let Some(problem) = problem(&pointer, value) {
        panic!("{what}: {problem}");
    }
}

/// What is wrong with a value, by the schema at a place of the document.
pub fn problem(pointer: &str, value: &Value) -> Option<String> {
    FIT.with_borrow_mut(|fit| fit.check(pointer, value)).err()
}

/// A message of a stream, by its lines, fits what the document says of that stream.
#[track_caller]
pub fn check_message(path: &str, lines: &Value) {
    let operation = at(template(path).expect("the document has the stream"), &Method::GET);
    fits(
        format!("{operation}/responses/200/content/text~1event-stream/x-itemSchema"),
        lines,
        "the message does not fit",
    );
}

/// The path of the document that a request's path is one of.
fn template(path: &str) -> Option<&'static str> {
    let parts: Vec<&str> = path.split('/').collect();
    let is_it = |template: &&str| {
        let mut named = template.split('/');
        let same = parts.iter().all(|part| named.next().is_some_and(|named| named.starts_with('{') || named == *part));
        same && named.next().is_none()
    };
    let templates = DOCUMENT["paths"].as_object().unwrap().keys().map(String::as_str).filter(is_it);
    // A path without a parameter goes first, as in the router.
    templates.min_by_key(|template| template.matches('{').count())
}

fn at(template: &str, method: &Method) -> String {
    let template = template.replace('~', "~0").replace('/', "~1");
    format!("/paths/{template}/{}", method.as_str().to_ascii_lowercase())
}
