//! Uploading a file: a multipart body whose bytes go to the blobs as they come.

use axum::Json;
use axum::extract::multipart::{Field, Multipart, MultipartError};
use axum::extract::{DefaultBodyLimit, FromRequest, State};
use http::header::CONTENT_LENGTH;
use jiff::SignedDuration;
use store::{Batch, Blobs, Durability, Stored};

use super::row::File;
use super::{FileRow, insert};
use crate::app::App;
use crate::body;
use crate::error::{ApiError, Result};
use crate::ids;
use crate::media::{Form, Given};

/// The largest file, in bytes.
const FILE_BYTES_MAX: usize = 500_000_000;
/// The largest body: a file, its part's headers and the other fields.
const BODY_BYTES_MAX: usize = FILE_BYTES_MAX + 64_000;
/// The longest value of a field that is not the file, in bytes.
const FIELD_BYTES_MAX: usize = 64;
const FILENAME_CHARS_MAX: usize = 255;
const MIME_TYPE_CHARS_MAX: usize = 255;
const EXPIRY_S_MIN: i64 = 3_600;
const EXPIRY_S_MAX: i64 = 7_776_000;

pub(super) const OCTETS: &str = "application/octet-stream";

/// What a file without a name is called after its type.
const EXTENSIONS: &[(&str, &str)] = &[
    ("application/gzip", ".gz"),
    ("application/json", ".json"),
    ("application/pdf", ".pdf"),
    ("application/zip", ".zip"),
    ("image/gif", ".gif"),
    ("image/jpeg", ".jpg"),
    ("image/png", ".png"),
    ("image/webp", ".webp"),
    ("text/csv", ".csv"),
    ("text/html", ".html"),
    ("text/markdown", ".md"),
    ("text/plain", ".txt"),
];

/// The part that is the file, once its bytes are stored.
struct Uploaded {
    filename: String,
    mime_type: String,
    stored: Stored,
}

pub(super) async fn upload(State(app): State<App>, given: Given<Form>) -> Result<Json<File>> {
    let mut request = given.request();
    let announced =
        request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > BODY_BYTES_MAX) {
        return Err(too_large());
    }
    DefaultBodyLimit::max(BODY_BYTES_MAX).apply(&mut request);
    let multipart = Multipart::from_request(request, &()).await;
    let mut multipart = multipart.map_err(|error| ApiError::invalid(error.body_text()))?;
    let (mut file, mut expires_in_s) = (None, None);
    while let Some(field) = multipart.next_field().await.map_err(unreadable)? {
        match field.name() {
            Some("file") if file.is_some() => return Err(ApiError::field("file", "given more than once")),
            Some("file") => file = Some(store_file(&*app.blobs, field).await?),
            Some("expires_in_seconds") => expires_in_s = Some(expiry(field).await?),
            _ => {}
        }
    }
    let Uploaded { filename, mime_type, stored } =
        file.ok_or_else(|| ApiError::field("file", "the body has no part of this name"))?;
    let now = app.clock.now();
    let row = FileRow {
        id: ids::new(ids::FILE),
        filename,
        mime_type,
        size_bytes: stored.size,
        digest: stored.digest,
        created_at: now,
        expires_at: expires_in_s.map(|seconds| now + SignedDuration::from_secs(seconds)),
        session_id: None,
        downloadable: false,
    };
    app.catalog.write(insert(Batch::new(), &row), Durability::Synced).await?;
    Ok(Json(row.into()))
}

async fn store_file(blobs: &dyn Blobs, mut field: Field<'_>) -> Result<Uploaded> {
    let mime_type = mime_type(field.content_type());
    let filename = filename(field.file_name(), &mime_type)?;
    let mut writer = blobs.writer().await?;
    let mut size = 0;
    while let Some(chunk) = field.chunk().await.map_err(unreadable)? {
        size += chunk.len();
        if size > FILE_BYTES_MAX {
            return Err(too_large());
        }
        writer.write(chunk).await?;
    }
    Ok(Uploaded { filename, mime_type, stored: writer.finish().await? })
}

async fn expiry(mut field: Field<'_>) -> Result<i64> {
    let mut text = Vec::new();
    while let Some(chunk) = field.chunk().await.map_err(unreadable)? {
        text.extend_from_slice(&chunk);
        if text.len() > FIELD_BYTES_MAX {
            break;
        }
    }
    let seconds = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok());
    let seconds = seconds.filter(|seconds| (EXPIRY_S_MIN..=EXPIRY_S_MAX).contains(seconds));
    let problem = format!("must be a number from {EXPIRY_S_MIN} to {EXPIRY_S_MAX}");
    seconds.ok_or_else(|| ApiError::field("expires_in_seconds", problem))
}

fn too_large() -> ApiError {
    body::too_large(FILE_BYTES_MAX)
}

fn unreadable(error: MultipartError) -> ApiError {
    if error.status() == http::StatusCode::PAYLOAD_TOO_LARGE {
        return too_large();
    }
    body::unreadable("the multipart body could not be read", error)
}

/// The part's type where it is one, else that of any bytes.
fn mime_type(given: Option<&str>) -> String {
    let sound = |given: &&str| {
        given.len() <= MIME_TYPE_CHARS_MAX
            && given.bytes().all(|byte| (b' '..=b'~').contains(&byte))
            && given.split_once('/').is_some_and(|(kind, rest)| !kind.is_empty() && !rest.is_empty())
    };
    given.filter(sound).unwrap_or(OCTETS).to_owned()
}

/// The last component of the name that the client gave, or a name after the type.
fn filename(given: Option<&str>, mime_type: &str) -> Result<String> {
    let name = given.unwrap_or_default().rsplit(['/', '\\']).next().unwrap_or_default();
    if matches!(name, "" | "." | "..") {
        let essence = mime_type.split(';').next().unwrap_or_default().trim();
        let extension = EXTENSIONS.iter().find(|(known, _)| known.eq_ignore_ascii_case(essence));
        return Ok(format!("unnamed{}", extension.map_or("", |(_, extension)| extension)));
    }
    if name.chars().count() > FILENAME_CHARS_MAX || name.chars().any(char::is_control) {
        let problem = format!("must be at most {FILENAME_CHARS_MAX} characters, none of them control characters");
        return Err(ApiError::field("file.filename", problem));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_last_component_or_made_up() {
        for (given, mime_type, expected) in [
            (Some("a.txt"), "text/plain", "a.txt"),
            (Some("dir/../a b.txt"), OCTETS, "a b.txt"),
            (Some(r"C:\dir\a.txt"), OCTETS, "a.txt"),
            (Some("dir/"), "application/pdf", "unnamed.pdf"),
            (Some(".."), "text/plain; charset=utf-8", "unnamed.txt"),
            (None, "image/PNG", "unnamed.png"),
            (None, OCTETS, "unnamed"),
        ] {
            assert_eq!(filename(given, mime_type).unwrap(), expected);
        }
        assert!(filename(Some("a\nb"), OCTETS).is_err());
        assert!(filename(Some(&"n".repeat(256)), OCTETS).is_err());
    }

    #[test]
    fn a_type_is_kept_where_it_is_one() {
        for (given, expected) in [
            (Some("text/plain; charset=utf-8"), "text/plain; charset=utf-8"),
            (Some("text"), OCTETS),
            (Some("/plain"), OCTETS),
            (Some("text/pl\nain"), OCTETS),
            (None, OCTETS),
        ] {
            assert_eq!(mime_type(given), expected);
        }
    }
}
