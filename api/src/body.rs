//! Reading a JSON body: its limit, where in it something was wrong, and the difference between null and nothing.
//!
//! What is not read here is read and forgotten by `drain.rs`, whatever the answer. How fast it has to come is said in
//! `serve/pace.rs`.

use std::borrow::Cow;
use std::error::Error;

use axum::extract::{FromRequest, Request};
use bytes::{Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http_body_util::BodyExt;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_path_to_error::Track;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::error::{ApiError, Kind, Result};
use crate::lists::refuse_misplaced;
use crate::numbers::Signed;
use crate::serve::is_too_slow;

/// The largest JSON body, in bytes.
pub const BODY_BYTES_MAX: usize = 32_000_000;
/// What is larger keeps others waiting: it is counted while it is in memory, and taken apart beside the requests.
const LARGE_BYTES: usize = 256 << 10;
/// Of what comes of a body, this much is kept in one piece.
const PIECE_BYTES: usize = 64 << 10;
/// Of large bodies that are in memory at a time, in KiB.
const LARGE_KIB_MAX: usize = 256 << 10;
/// Large bodies that are taken apart at a time: what becomes of one can be ten times as large.
const LARGE_PARSED_MAX: usize = 2;

/// What there is for large bodies in this process.
static LARGE_KIB: Semaphore = Semaphore::const_new(LARGE_KIB_MAX);
static LARGE_PARSED: Semaphore = Semaphore::const_new(LARGE_PARSED_MAX);

/// The JSON object in the body of a request. An empty body reads as `{}`.
pub struct JsonBody<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + JsonSchema + Send + 'static> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self> {
        read(request).await?.taken_apart(object).await.map(JsonBody)
    }
}

fn object<T: DeserializeOwned + JsonSchema + 'static>(bytes: &[u8]) -> Result<T> {
    match bytes.trim_ascii_start().first() {
        None => json(b"{}"),
        Some(b'{') => json(bytes),
        Some(_) => json::<Value>(bytes).and_then(|_| Err(ApiError::invalid("the body must be a JSON object"))),
    }
}

/// The same where the body may hold a secret anywhere, misplaced too: an error never quotes.
pub struct SecretBody<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + JsonSchema + Send + 'static> FromRequest<S> for SecretBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        let JsonBody(value) = JsonBody::<Value>::from_request(request, state).await?;
        // Not even where: a path has the client's own names of fields in it.
        let problem = "the body is not what it has to be: a field is missing, unknown, or of another type";
        let read = refuse_misplaced::<T, _>(&value).and_then(|()| T::deserialize(Signed(value)));
        read.map(SecretBody).map_err(|_| ApiError::invalid(problem))
    }
}

/// A body, and what it takes of the memory that there is for large ones.
pub struct Whole {
    /// What grows in one piece is moved as it grows, and takes almost twice as many pages from the system.
    pieces: Vec<BytesMut>,
    bytes: usize,
    held: Option<SemaphorePermit<'static>>,
}

impl Whole {
    fn push(&mut self, data: &[u8]) {
        self.bytes += data.len();
        match self.pieces.last_mut() {
            Some(last) if last.len() + data.len() <= PIECE_BYTES => last.extend_from_slice(data),
            _ => self.pieces.push(data.into()),
        }
    }

    /// All of it in one piece; of a large one that takes a while.
    pub fn joined(self) -> Bytes {
        let mut pieces = self.pieces.into_iter();
        let mut all = pieces.next().unwrap_or_default();
        all.reserve(self.bytes - all.len());
        pieces.for_each(|piece| all.extend_from_slice(&piece));
        all.freeze()
    }

    /// What is made of its bytes; beside the requests, where that takes long.
    pub async fn taken_apart<T: Send + 'static>(
        self,
        how: impl FnOnce(&[u8]) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        if self.bytes <= LARGE_BYTES {
            return how(&self.joined());
        }
        let _turn = LARGE_PARSED.acquire().await.map_err(ApiError::internal)?;
        let beside = move || {
            let mut whole = self;
            let _held = whole.held.take();
            how(&whole.joined())
        };
        tokio::task::spawn_blocking(beside).await.map_err(ApiError::internal)?
    }
}

/// The whole body, if it is within [`BODY_BYTES_MAX`].
pub async fn read(request: Request) -> Result<Whole> {
    let announced =
        request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let mut body = request.into_body();
    let mut whole = Whole { pieces: Vec::new(), bytes: 0, held: None };
    let mut over = announced.is_some_and(|length| length > BODY_BYTES_MAX);
    while !over && let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| unreadable("the body could not be read", error))?;
        if let Some(data) = frame.data_ref() {
            over = whole.bytes + data.len() > BODY_BYTES_MAX;
            whole.push(data);
        }
        if whole.bytes > LARGE_BYTES {
            hold(&mut whole.held, whole.bytes)?;
        }
    }
    if over {
        return Err(too_large(BODY_BYTES_MAX));
    }
    Ok(whole)
}

pub(crate) fn too_large(bytes_max: usize) -> ApiError {
    ApiError::new(Kind::TooLarge, format!("the body is larger than {bytes_max} bytes"))
}

/// Counts a large body as it comes, so that what is only announced takes nothing.
fn hold(held: &mut Option<SemaphorePermit<'static>>, bytes: usize) -> Result<()> {
    let missing = bytes.div_ceil(1024) - held.as_ref().map_or(0, SemaphorePermit::num_permits);
    let missing = u32::try_from(missing).expect("a body is far smaller than 4 TiB");
    let more = LARGE_KIB.try_acquire_many(missing).map_err(|_| {
        ApiError::unavailable("too many large bodies at once, try again").should_retry(true).retry_after_s(1)
    })?;
    match held {
        Some(held) => held.merge(more),
        None => *held = Some(more),
    }
    Ok(())
}

/// All of it, until it is dropped.
#[cfg(test)]
pub(crate) fn all_memory_for_large_bodies() -> SemaphorePermit<'static> {
    let all = u32::try_from(LARGE_KIB_MAX).expect("a small number");
    LARGE_KIB.try_acquire_many(all).expect("nobody has any")
}

/// What a client is told whose body broke off, or was given up.
pub(crate) fn unreadable(message: &'static str, error: impl Error + Send + Sync + 'static) -> ApiError {
    match is_too_slow(&error) {
        true => ApiError::new(Kind::TooSlow, "the body came too slowly").inner(error),
        false => ApiError::invalid(message).inner(error),
    }
}

/// Parses a body; the error says where in it the problem is.
pub fn json<T: DeserializeOwned + JsonSchema + 'static>(bytes: &[u8]) -> Result<T> {
    let mut track = Track::new();
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let tracked = serde_path_to_error::Deserializer::new(&mut deserializer, &mut track);
    refuse_misplaced::<T, _>(tracked).map_err(|error| problem(&track.path(), error))?;
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let read = serde_path_to_error::deserialize(Signed(&mut deserializer));
    let value = read.map_err(|error| problem(&error.path().clone(), error.into_inner()))?;
    deserializer.end().map_err(not_json)?;
    Ok(value)
}

fn problem(path: &serde_path_to_error::Path, error: serde_json::Error) -> ApiError {
    let path = path.to_string();
    match error.classify() {
        serde_json::error::Category::Data if path != "." => ApiError::field(path, error),
        serde_json::error::Category::Data => ApiError::invalid(error.to_string()),
        _ => not_json(error),
    }
}

fn not_json(error: serde_json::Error) -> ApiError {
    ApiError::invalid(format!("the body is not valid JSON: {error}"))
}

/// A field of an update: omitted, null, or a value.
#[derive(Clone, PartialEq, Debug, Default)]
pub enum Patch<T> {
    #[default]
    Keep,
    Clear,
    Set(T),
}

impl<T> Patch<T> {
    /// The value after the update, where null clears.
    pub fn or_keep(self, current: Option<T>) -> Option<T> {
        match self {
            Patch::Keep => current,
            Patch::Clear => None,
            Patch::Set(value) => Some(value),
        }
    }

    /// The new value if there is one; null is refused.
    pub fn not_null(self, field: &str) -> Result<Option<T>> {
        match self {
            Patch::Keep => Ok(None),
            Patch::Clear => Err(ApiError::field(field, "cannot be null")),
            Patch::Set(value) => Ok(Some(value)),
        }
    }
}

/// As an `Option`: omitted is what `#[serde(default)]` says.
impl<T: JsonSchema> JsonSchema for Patch<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Option::<T>::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Option::<T>::json_schema(generator)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Patch<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::deserialize(deserializer)?.map_or(Patch::Clear, Patch::Set))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize, JsonSchema, Debug)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[expect(dead_code, reason = "only its parsing is looked at")]
        inner: Vec<Inner>,
        #[serde(default)]
        note: Patch<String>,
    }

    #[derive(Deserialize, JsonSchema, Debug)]
    struct Inner {
        #[expect(dead_code, reason = "only its parsing is looked at")]
        count: u32,
    }

    #[test]
    fn an_error_says_where() {
        for (body, expected) in [
            (
                r#"{"inner":[{"count":1},{"count":"two"}]}"#,
                "inner[1].count: invalid type: string \"two\", expected u32",
            ),
            (r#"{"inner":[],"other":1}"#, "other: unknown field `other`"),
            (r#"{}"#, "missing field `inner`"),
            (r#"[]"#, "invalid type: sequence, expected an object"),
            (r#"{"inner":["#, "the body is not valid JSON: EOF while parsing a list at line 1 column 10"),
            (r#"{"inner":[]} x"#, "the body is not valid JSON: trailing characters at line 1 column 14"),
        ] {
            let error = json::<Outer>(body.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), Kind::InvalidRequest);
            assert!(error.message().starts_with(expected), "{body}: {}", error.message());
        }
    }

    #[derive(Deserialize, JsonSchema, Debug)]
    #[serde(tag = "type", rename_all = "snake_case")]
    enum Shape {
        Dot {},
        Within { shape: Box<Shape> },
    }

    #[test]
    fn a_tag_is_a_name_and_never_a_number() {
        let shape = |body: &str| json::<Shape>(body.as_bytes());
        let Shape::Within { shape: inner } = shape(r#"{"type":"within","shape":{"type":"dot"}}"#).unwrap() else {
            panic!("it is within");
        };
        assert!(matches!(*inner, Shape::Dot {}));
        for wrong in [
            r#"{"type":0}"#,
            r#"{"type":"within","shape":{"type":0}}"#,
            r#"{"shape":{"type":"dot"},"type":1}"#,
            r#"{"type":"within","shape":{"type":"within","shape":{"type":0}}}"#,
        ] {
            assert_eq!(shape(wrong).unwrap_err().kind(), Kind::InvalidRequest, "{wrong}");
            let value = serde_json::from_str::<Value>(wrong).unwrap();
            assert!(Shape::deserialize(Signed(value)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_patch_tells_nothing_from_null() {
        let note = |body: &str| json::<Outer>(body.as_bytes()).unwrap().note;
        assert_eq!(note(r#"{"inner":[]}"#), Patch::Keep);
        assert_eq!(note(r#"{"inner":[],"note":null}"#), Patch::Clear);
        assert_eq!(note(r#"{"inner":[],"note":"x"}"#), Patch::Set("x".to_owned()));
    }

    /// However it comes, and whatever it is cut into.
    #[tokio::test]
    async fn a_body_is_put_together_from_what_came() {
        for (frames, bytes) in
            [(0, 1), (1, 3), (1000, 1), (40, PIECE_BYTES / 3), (9, PIECE_BYTES), (5, PIECE_BYTES * 2)]
        {
            let expected: Vec<u8> = (0..frames * bytes).map(|n| (n % 251) as u8).collect();
            let mut whole = Whole { pieces: Vec::new(), bytes: 0, held: None };
            expected.chunks(bytes).for_each(|chunk| whole.push(chunk));
            assert!(whole.pieces.len() <= 1 + 2 * expected.len() / PIECE_BYTES, "small frames share a piece");
            assert_eq!(whole.taken_apart(|bytes| Ok(bytes.to_vec())).await.unwrap(), expected);
        }
    }

    #[test]
    fn nesting_without_end_is_refused() {
        let deep = "[".repeat(100_000);
        assert_eq!(json::<Value>(deep.as_bytes()).unwrap_err().kind(), Kind::InvalidRequest);
    }
}
