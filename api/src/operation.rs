//! What a route answers to, and what its handlers' signatures say of it: the parameters and body that a request has, and
//! what comes back. The OpenAPI document is written from here, so it cannot say anything else than the code.

use axum::Router;
use axum::extract::{Path, State};
use axum::handler::Handler;
use axum::routing::{self, MethodRouter};
use axum::{Extension, Json};
use http::{HeaderMap, Method};
use schemars::JsonSchema;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::body::{JsonBody, SecretBody};
use crate::error::Result;
use crate::media::{Given, Media, Sent};
use crate::query::{Declared, Param, Query};

/// The handlers of one path, as axum's `MethodRouter`, with what they say of themselves.
pub struct Methods {
    router: MethodRouter<App>,
    pub operations: Vec<Operation>,
}

pub struct Operation {
    pub method: Method,
    pub params: Vec<Param>,
    describe: fn(&mut Description<'_>),
}

/// What a handler says of itself.
pub struct Description<'a> {
    /// Of what clients send.
    taken: &'a mut SchemaGenerator,
    /// Of what they get.
    given: &'a mut SchemaGenerator,
    pub body: Option<Value>,
    pub answer: Option<Value>,
}

/// The schemas of everything that the descriptions name.
pub struct Schemas {
    taken: SchemaGenerator,
    given: SchemaGenerator,
}

pub fn get<H: Described<T>, T: 'static>(handler: H) -> Methods {
    Methods::none().get(handler)
}

pub fn post<H: Described<T>, T: 'static>(handler: H) -> Methods {
    Methods::none().post(handler)
}

impl Methods {
    fn none() -> Self {
        Self { router: MethodRouter::new(), operations: Vec::new() }
    }

    /// Without a description: for paths that are no part of the API yet.
    pub fn undescribed(router: MethodRouter<App>) -> Self {
        Self { router, operations: Vec::new() }
    }

    pub fn get<H: Described<T>, T: 'static>(self, handler: H) -> Self {
        self.with::<H, T>(Method::GET, routing::get(handler))
    }

    pub fn post<H: Described<T>, T: 'static>(self, handler: H) -> Self {
        self.with::<H, T>(Method::POST, routing::post(handler))
    }

    pub fn delete<H: Described<T>, T: 'static>(self, handler: H) -> Self {
        self.with::<H, T>(Method::DELETE, routing::delete(handler))
    }

    fn with<H: Described<T>, T>(mut self, method: Method, router: MethodRouter<App>) -> Self {
        self.router = self.router.merge(router);
        self.operations.push(Operation { method, params: Vec::new(), describe: H::describe });
        self
    }

    /// The query parameters of the handler that was named last. It reads no others.
    pub fn query<const N: usize>(mut self, params: [Param; N]) -> Self {
        let last = self.operations.last_mut().expect("parameters come behind the handler that reads them");
        last.params.extend(params);
        self
    }

    /// Adds them to a router.
    pub fn serve(self, routes: Router<App>, path: &str) -> Router<App> {
        let params = self.operations.into_iter().flat_map(|operation| operation.params);
        routes.route(path, self.router.layer(Extension(Declared::new(params))))
    }
}

impl Operation {
    /// Its body and its answer.
    pub fn describe(&self, schemas: &mut Schemas) -> (Option<Value>, Option<Value>) {
        let mut description =
            Description { taken: &mut schemas.taken, given: &mut schemas.given, body: None, answer: None };
        (self.describe)(&mut description);
        (description.body, description.answer)
    }
}

impl Default for Schemas {
    fn default() -> Self {
        let settings = || {
            let mut settings = SchemaSettings::draft2020_12();
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
            settings
        };
        Self {
            taken: settings().for_deserialize().into_generator(),
            given: settings().for_serialize().into_generator(),
        }
    }
}

impl Schemas {
    /// The schema of something that clients get.
    pub fn given<T: JsonSchema>(&mut self) -> Value {
        self.given.subschema_for::<T>().to_value()
    }

    /// Everything under its name. A type that is sent and shown is one schema.
    pub fn named(mut self) -> Map<String, Value> {
        let mut named = self.given.take_definitions(true);
        let mut clashes = Vec::new();
        for (name, schema) in self.taken.take_definitions(true) {
            match named.get(&name) {
                Some(known) if *known != schema => clashes.push(name),
                _ => drop(named.insert(name, schema)),
            }
        }
        assert!(clashes.is_empty(), "one name for two shapes, rename or inline them: {clashes:?}");
        named
    }
}

/// A handler, and what its signature says. `T` is axum's word for the signature.
pub trait Described<T>: Handler<T, App> {
    fn describe(description: &mut Description<'_>);
}

/// What an argument of a handler takes out of a request.
pub trait Takes {
    fn describe(_: &mut Description<'_>) {}
}

/// What a handler answers.
pub trait Answers {
    fn describe(description: &mut Description<'_>);
}

macro_rules! described {
    ($($argument:ident)+) => {
        impl<H, F, R, M, $($argument),+> Described<(M, $($argument,)+)> for H
        where
            H: Fn($($argument),+) -> F + Handler<(M, $($argument,)+), App>,
            F: Future<Output = R>,
            R: Answers,
            $($argument: Takes),+
        {
            fn describe(description: &mut Description<'_>) {
                $($argument::describe(description);)+
                R::describe(description);
            }
        }
    };
}

described!(A);
described!(A B);
described!(A B C);
described!(A B C D);
described!(A B C D E);

impl<T> Takes for State<T> {}
impl<T> Takes for Extension<T> {}
impl<T> Takes for Path<T> {}
impl Takes for Query {}
impl Takes for HeaderMap {}

impl<T: JsonSchema> Takes for JsonBody<T> {
    fn describe(description: &mut Description<'_>) {
        description.body = Some(Json::<T>::content(description.taken));
    }
}

impl<T: JsonSchema> Takes for SecretBody<T> {
    fn describe(description: &mut Description<'_>) {
        description.body = Some(Json::<T>::content(description.taken));
    }
}

impl<M: Media> Takes for Given<M> {
    fn describe(description: &mut Description<'_>) {
        description.body = Some(M::content(description.taken));
    }
}

impl<A: Answers> Answers for Result<A> {
    fn describe(description: &mut Description<'_>) {
        A::describe(description);
    }
}

impl<T: JsonSchema> Answers for Json<T> {
    fn describe(description: &mut Description<'_>) {
        description.answer = Some(Self::content(description.given));
    }
}

impl<M: Media> Answers for Sent<M> {
    fn describe(description: &mut Description<'_>) {
        description.answer = Some(M::content(description.given));
    }
}

impl<T: JsonSchema> Media for Json<T> {
    fn content(generator: &mut SchemaGenerator) -> Value {
        json!({"application/json": {"schema": generator.subschema_for::<T>()}})
    }
}
