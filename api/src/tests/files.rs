//! The conformance checks of files, 85 and 86, and what a session leaves behind.

use axum::body::Body;
use http::Method;
use jiff::SignedDuration;
use serde_json::{Value, json};
use store::{Batch, Digest, Durability, catalog};

use super::{Answer, Api, id, request};
use crate::resources::files::{self, FileRow};
use crate::resources::sessions::uploads::{self, ResourceParam, Upload};

/// A multipart body of parts `(headers, bytes)`.
fn multipart(parts: &[(&str, &[u8])]) -> (String, Vec<u8>) {
    let mut body = Vec::new();
    for (headers, bytes) in parts {
        body.extend_from_slice(format!("--border\r\nContent-Disposition: form-data; {headers}\r\n\r\n").as_bytes());
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--border--\r\n");
    ("multipart/form-data; boundary=border".to_owned(), body)
}

pub(super) async fn upload(api: &Api, parts: &[(&str, &[u8])]) -> Answer {
    let (content_type, body) = multipart(parts);
    let mut request = request(Method::POST, "/v1/files");
    request.headers_mut().unwrap().insert("content-type", content_type.parse().unwrap());
    api.send(request.body(Body::from(body)).unwrap()).await
}

const FILE: &str = "name=\"file\"; filename=\"dir/notes.txt\"\r\nContent-Type: text/plain";

/// A file as a session's end leaves it.
async fn output(api: &Api, session_id: &str, bytes: &'static [u8]) -> FileRow {
    let digest = api.app.blobs.put(bytes.into()).await.unwrap();
    let row = FileRow {
        id: crate::ids::new(crate::ids::FILE),
        filename: "out.bin".to_owned(),
        mime_type: "application/octet-stream".to_owned(),
        size_bytes: bytes.len() as u64,
        digest,
        created_at: api.app.clock.now(),
        expires_at: None,
        session_id: Some(session_id.to_owned()),
        downloadable: true,
    };
    api.app.catalog.write(files::insert(Batch::new(), &row), Durability::Synced).await.unwrap();
    row
}

#[tokio::test]
async fn an_upload_is_listed_and_deleted_but_not_downloaded() {
    let api = Api::new().await;
    let file = upload(&api, &[(FILE, b"hello")]).await.ok();
    assert!(id(&file).starts_with("file_01"));
    let mut rest = file.clone();
    for field in ["id", "created_at"] {
        rest.as_object_mut().unwrap().remove(field);
    }
    let expected = json!({"type": "file", "filename": "notes.txt", "mime_type": "text/plain", "size_bytes": 5,
        "expires_at": null, "downloadable": false, "scope": null});
    assert_eq!(rest, expected);
    let path = format!("/v1/files/{}", id(&file));
    assert_eq!(api.get(&path).await.ok(), file);
    assert_eq!(api.get("/v1/files").await.ok(), json!({"data": [file], "next_page": null}));
    assert_eq!(api.get(&format!("{path}/content")).await.code(400), "file_not_downloadable");
    assert!(api.app.blobs.has(Digest::of(b"hello")).await.unwrap().is_some());
    assert_eq!(api.delete(&path).await.ok(), json!({"id": id(&file), "type": "file_deleted"}));
    api.get(&path).await.refused(404, "not_found_error");
    api.delete(&path).await.refused(404, "not_found_error");
    assert_eq!(api.get("/v1/files").await.ok()["data"], json!([]));
}

#[tokio::test]
async fn nothing_but_the_blob_is_left_of_a_deleted_file() {
    let api = Api::new().await;
    let rows = async || {
        let tables = api.app.catalog.verify().await.unwrap().tables;
        // That it was made and deleted is remembered.
        tables.into_iter().filter(|(table, _)| !table.starts_with("audit")).map(|(_, rows)| rows).sum::<u64>()
    };
    let before = rows().await;
    let file = upload(&api, &[("name=\"expires_in_seconds\"", b"3600"), (FILE, b"hello")]).await.ok();
    let row = output(&api, "sesn_1", b"output").await;
    assert!(rows().await > before);
    for id in [id(&file), row.id] {
        api.delete(&format!("/v1/files/{id}")).await.ok();
    }
    assert_eq!(rows().await, before);
}

#[tokio::test]
async fn uploads_that_are_none_are_refused() {
    let api = Api::new().await;
    let expiry = "name=\"expires_in_seconds\"";
    for (parts, expected) in [
        (&[][..], "file: the body has no part of this name"),
        (&[("name=\"other\"", &b"x"[..])], "file: the body has no part of this name"),
        (&[(FILE, b"a"), (FILE, b"b")], "file: given more than once"),
        (&[(FILE, b"a"), (expiry, b"3599")], "expires_in_seconds: must be a number from 3600 to 7776000"),
        (&[(FILE, b"a"), (expiry, b"7776001")], "expires_in_seconds"),
        (&[(FILE, b"a"), (expiry, b"soon")], "expires_in_seconds"),
        (&[(expiry, &[b'1'; 1000]), (FILE, b"a")], "expires_in_seconds"),
    ] {
        let message = upload(&api, parts).await.invalid();
        assert!(message.starts_with(expected), "{message}");
    }
    api.post("/v1/files", &json!({})).await.invalid();
    let (content_type, mut body) = multipart(&[(FILE, b"cut off")]);
    body.truncate(body.len() - 20);
    let mut cut = request(Method::POST, "/v1/files");
    cut.headers_mut().unwrap().insert("content-type", content_type.parse().unwrap());
    api.send(cut.body(Body::from(body)).unwrap()).await.invalid();
    assert_eq!(api.get("/v1/files").await.ok()["data"], json!([]));
}

#[tokio::test]
async fn a_file_over_the_limit_is_refused_before_it_is_read() {
    let api = Api::new().await;
    let announced = request(Method::POST, "/v1/files").header("content-length", 600_000_000);
    api.send(announced.body(Body::empty()).unwrap()).await.refused(413, "request_too_large");
}

#[tokio::test]
async fn what_a_session_made_is_downloaded_byte_for_byte() {
    let api = Api::new().await;
    let row = output(&api, "sesn_1", b"\x00\xffbytes").await;
    let answer = api.get(&format!("/v1/files/{}/content", row.id)).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-length"], "7");
    assert_eq!(answer.headers["content-type"], "application/octet-stream");
    assert_eq!(answer.body, b"\x00\xffbytes");
    let file = api.get(&format!("/v1/files/{}", row.id)).await.ok();
    assert_eq!(file["scope"], json!({"type": "session", "id": "sesn_1"}));
    assert_eq!(file["downloadable"], true);
}

#[tokio::test]
async fn lists_are_by_session_by_id_and_in_pages() {
    let api = Api::new().await;
    let mut ids = Vec::new();
    for session_id in ["sesn_1", "sesn_2", "sesn_1", "sesn_10", "sesn_1"] {
        ids.push(output(&api, session_id, b"x").await.id);
    }
    let of_one = [ids[4].clone(), ids[2].clone(), ids[0].clone()];
    assert_eq!(api.walk("/v1/files?scope_id=sesn_1", 2).await, of_one);
    assert_eq!(api.walk("/v1/files?scope_id=sesn_3", 2).await, [""; 0]);
    let newest_first: Vec<String> = ids.iter().rev().cloned().collect();
    assert_eq!(api.walk("/v1/files", 2).await, newest_first);

    let listed = async |query: String| {
        let page = api.get(&format!("/v1/files?{query}")).await.ok();
        assert_eq!(page["next_page"], Value::Null);
        page["data"].as_array().unwrap().iter().map(id).collect::<Vec<_>>()
    };
    let two = format!("ids[]={}&ids%5B%5D={}&ids[]=file_no&ids[]={}", ids[0], ids[1], ids[0]);
    assert_eq!(listed(two.clone()).await, [ids[1].clone(), ids[0].clone()]);
    assert_eq!(listed(format!("{two}&scope_id=sesn_1")).await, [ids[0].clone()]);
    api.get(&format!("/v1/files?{two}&limit=5")).await.invalid();
    let many: String = (0..101).map(|n| format!("ids[]={n}&")).collect();
    api.get(&format!("/v1/files?{many}")).await.invalid();
    let next = api.get("/v1/files?scope_id=sesn_1&limit=1").await.ok()["next_page"].as_str().unwrap().to_owned();
    api.get(&format!("/v1/files?scope_id=sesn_2&page={next}")).await.invalid();
}

#[tokio::test]
async fn a_file_expires() {
    let api = Api::new().await;
    let file = upload(&api, &[(FILE, b"hello"), ("name=\"expires_in_seconds\"", b"3600")]).await.ok();
    assert!(files::load(&api.app, &id(&file)).await.is_ok());
    api.clock.advance(SignedDuration::from_secs(3600));
    let path = format!("/v1/files/{}", id(&file));
    assert_eq!(api.get(&format!("{path}/content")).await.code(404), "file_expired");
    assert!(files::load(&api.app, &id(&file)).await.is_err());
    // What it was is still known.
    assert_eq!(api.get(&path).await.ok(), file);
}

#[tokio::test]
async fn a_session_takes_no_bytes_that_went_meanwhile() {
    let api = Api::new().await;
    let file = id(&upload(&api, &[(FILE, b"hello")]).await.ok());
    let params = json!([{"type": "file", "file_id": file}, {"type": "git_bundle", "file_id": file}]);
    let params = serde_json::from_value(params).unwrap();
    let params: Vec<ResourceParam> = serde_json::from_value(params).unwrap();
    let resolved = async || uploads::resolve(&api.app, "sesn_1", params.clone(), &[], api.app.clock.now()).await;
    let keep = async |upload: &Upload| api.app.catalog.write(upload.keep(Batch::new()), Durability::Synced).await;
    let (early, late) = (resolved().await.unwrap(), resolved().await.unwrap());
    for upload in &early {
        keep(upload).await.unwrap();
    }
    api.delete(&format!("/v1/files/{file}")).await.ok();
    for upload in &late {
        assert!(matches!(keep(upload).await, Err(catalog::Error::Conflict { .. })));
    }
}

#[tokio::test]
async fn a_sessions_copy_is_its_own_file() {
    let api = Api::new().await;
    let file = upload(&api, &[(FILE, b"hello"), ("name=\"expires_in_seconds\"", b"3600")]).await.ok();
    let copy = files::load(&api.app, &id(&file)).await.unwrap().copy_for("sesn_1", api.app.clock.now());
    api.app.catalog.write(files::insert(Batch::new(), &copy), Durability::Synced).await.unwrap();
    assert_ne!(copy.id, id(&file));
    api.delete(&format!("/v1/files/{}", id(&file))).await.ok();
    let found = api.get(&format!("/v1/files/{}", copy.id)).await.ok();
    assert_eq!((&found["filename"], &found["expires_at"]), (&json!("notes.txt"), &Value::Null));
    assert_eq!(api.walk("/v1/files?scope_id=sesn_1", 5).await, [copy.id]);
}
