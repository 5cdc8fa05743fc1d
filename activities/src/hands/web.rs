//! `web_fetch`: a page of the web as text. Fetched by egress, which judges where it lies; read here, where a page that does
//! harm finds neither a session nor a secret.

use super::{Executed, knock, nesting};
use domain::{
    agent::WebFetch,
    egress::{CALLS_SOCKET, WEB_REFUSED, WEB_URL, web_path},
};
use http::{HeaderMap, Request, header::CONTENT_TYPE};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustix::fs::{Mode, OFlags};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{os::fd::AsRawFd as _, path::Path, time::Duration};
use tokio::task::spawn_blocking;
use url::Url;

pub const NAME: &str = "web_fetch";
pub const DESCRIPTION: &str = "Fetch a page of the web and read it as text. Only URLs that a user has named, or that stood in \
    a result that you were given for it, can be fetched. Redirects are followed.";

const WITHIN: Duration = Duration::from_secs(60);
/// Of what is made into text: as a page of pure text has it, and as HTML.
const TEXT_BYTES_MAX: usize = 10 * 1024 * 1024;
const HTML_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Elements inside of each other. Browsers stop at 512.
const NESTED_MAX: usize = 1_000;
/// What the model is shown, unless its agent says less.
const SHOWN_CHARS_MAX: usize = 100_000;
/// What a token is taken to be.
const TOKEN_CHARS: usize = 4;
const URL_CHARS_MAX: usize = 2_048;
const LINE_CHARS: usize = 120;

pub fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {"url": {"type": "string", "description": "The whole URL, with https://"}},
        "required": ["url"],
        "additionalProperties": false,
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    url: String,
}

/// What becomes of a call: whatever happens, it is a result.
pub async fn fetch(sockets: Option<&Path>, session_id: &str, input: &Value, settings: &WebFetch) -> Executed {
    let url = match Input::deserialize(input) {
        Ok(Input { url }) if url.chars().count() > URL_CHARS_MAX => {
            return failed("url_too_long", &format!("a URL has at most {URL_CHARS_MAX} characters"));
        }
        Ok(Input { url }) => url,
        Err(error) => return failed("invalid_tool_input", &error.to_string()),
    };
    let Some(sockets) = sockets else {
        return failed("unavailable", "this service runs without egress, through which alone pages are fetched");
    };
    let page = match tokio::time::timeout(WITHIN, page(sockets, session_id, &url)).await {
        Ok(Ok(page)) => page,
        Ok(Err(error)) => return error,
        Err(_) => return failed("url_not_accessible", "the page did not come in time"),
    };
    let shown = settings.max_content_tokens.map_or(SHOWN_CHARS_MAX, |tokens| {
        usize::try_from(tokens).unwrap_or(usize::MAX).saturating_mul(TOKEN_CHARS).min(SHOWN_CHARS_MAX)
    });
    // Hostile HTML may take its time.
    match tokio::time::timeout(WITHIN, spawn_blocking(move || text_of(&page))).await {
        Ok(Ok(Ok(text))) => Executed { is_error: false, ..Executed::error(cut(&text, shown)) },
        Ok(Ok(Err(error))) => error,
        Ok(Err(_)) | Err(_) => failed("url_not_accessible", "the page cannot be read"),
    }
}

/// A page as it came.
struct Page {
    url: String,
    kind: String,
    body: Bytes,
}

async fn page(sockets: &Path, session_id: &str, url: &str) -> Result<Page, Executed> {
    let unavailable = |_| failed("unavailable", "egress was not reached");
    // By way of the folder's descriptor, as a socket's address holds 107 bytes and folders lie deeper.
    let dir = rustix::fs::open(sockets, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|_| failed("unavailable", "egress was not reached"))?;
    let socket = format!("/proc/self/fd/{}/{CALLS_SOCKET}", dir.as_raw_fd());
    let stream = knock::connect(&socket).await.map_err(|_| failed("unavailable", "egress was not reached"))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(unavailable)?;
    let connection = tokio::spawn(connection);
    let request = Request::get(web_path(session_id, url)).header("host", "egress").body(Empty::<Bytes>::new());
    let request = request.map_err(|_| failed("invalid_tool_input", "that is no URL"))?;
    let answer = sender.send_request(request).await.map_err(unavailable)?;
    let (parts, body) = answer.into_parts();
    let whole = Limited::new(body, TEXT_BYTES_MAX).collect().await;
    connection.abort();
    let header = |name: &str| text_of_header(&parts.headers, name);
    let body = whole.map_err(|_| failed("url_not_accessible", "the page broke off, or is too long"))?.to_bytes();
    if let Some(code) = header(WEB_REFUSED) {
        return Err(failed(&code, &String::from_utf8_lossy(&body)));
    }
    if !parts.status.is_success() {
        return Err(failed("url_not_accessible", &format!("the page's server answered {}", parts.status)));
    }
    let url = header(WEB_URL).unwrap_or_else(|| url.to_owned());
    Ok(Page { url, kind: header(CONTENT_TYPE.as_str()).unwrap_or_default().to_ascii_lowercase(), body })
}

fn text_of_header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// The page as text, after where it is from.
fn text_of(page: &Page) -> Result<String, Executed> {
    let kind = page.kind.split(';').next().unwrap_or_default().trim();
    let text = match kind {
        "text/html" | "application/xhtml+xml" => html(page)?,
        "application/json" | "application/xml" | "application/javascript" => plain(page),
        kind if kind.starts_with("text/") || kind.ends_with("+json") || kind.ends_with("+xml") => plain(page),
        kind => {
            let kind: String = kind.chars().take(100).collect();
            return Err(failed("unsupported_content_type", &format!("the page is {kind:?}, which is not text")));
        }
    };
    Ok(format!("{}\n\n{text}", page.url))
}

fn plain(page: &Page) -> String {
    String::from_utf8_lossy(&page.body).replace('\0', "\u{fffd}")
}

fn html(page: &Page) -> Result<String, Executed> {
    let html = &page.body[..page.body.len().min(HTML_BYTES_MAX)];
    if nesting::depth(html) > NESTED_MAX {
        return Err(failed("url_not_accessible", "the page's HTML nests too deep to be read"));
    }
    let text = html2text::config::plain().string_from_read(html, LINE_CHARS);
    let text = text.map_err(|_| failed("url_not_accessible", "the page's HTML cannot be read"))?;
    let Ok(base) = Url::parse(&page.url) else { return Ok(text) };
    Ok(text.lines().map(|line| whole_link(line, &base)).collect::<Vec<_>>().join("\n"))
}

/// A footnote's link as it can be fetched.
fn whole_link(line: &str, base: &Url) -> String {
    let link = line.split_once("]: ").filter(|(number, _)| {
        number.strip_prefix('[').is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
    });
    match link.and_then(|(number, link)| Some((number, base.join(link.trim()).ok()?))) {
        Some((number, url)) => format!("{number}]: {url}"),
        None => line.to_owned(),
    }
}

fn cut(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        Some((at, _)) => format!("{}\n[page truncated]", &text[..at]),
        None => text.to_owned(),
    }
}

fn failed(code: &str, why: &str) -> Executed {
    Executed::error(format!("{code}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::content::Block;

    fn text(page: &Page) -> String {
        text_of(page).unwrap_or_else(|error| match &error.content[0] {
            Block::Text { text } => format!("ERROR {text}"),
            block => panic!("{block:?}"),
        })
    }

    fn page(kind: &str, body: &str) -> Page {
        Page { url: "https://a.test/docs/".into(), kind: kind.into(), body: Bytes::from(body.to_owned()) }
    }

    #[test]
    fn pages_become_text_with_links_that_can_be_fetched() {
        let html =
            "<title>T</title><script>alert(1)</script><h1>Head</h1><p>One &amp; two <a href='next.html'>on</a></p>";
        let shown = text(&page("text/html; charset=utf-8", html));
        for part in ["https://a.test/docs/\n\n", "Head", "One & two", "[1]: https://a.test/docs/next.html"] {
            assert!(shown.contains(part), "{shown}");
        }
        assert!(!shown.contains("alert"), "{shown}");
        assert_eq!(text(&page("application/json", "{}")), "https://a.test/docs/\n\n{}");
        assert!(text(&page("application/zip", "PK")).starts_with("ERROR unsupported_content_type: "));
        assert!(text(&page("", "x")).starts_with("ERROR unsupported_content_type: "));
    }

    #[test]
    fn html_that_is_deeper_than_a_parser_can_bear_is_refused_and_what_is_less_deep_is_read() {
        let deep = page("text/html", &"<div>".repeat(200_000));
        assert!(text(&deep).starts_with("ERROR url_not_accessible: "));
        let deep = page("text/html", &format!("{}inside", "<div>".repeat(NESTED_MAX)));
        // On a thread as small as those that it runs on.
        let read = std::thread::Builder::new().stack_size(2 * 1024 * 1024).spawn(move || text(&deep));
        let read = read.unwrap().join().unwrap();
        assert!(read.trim_end().ends_with("inside"), "{read:.200}");
    }

    #[tokio::test]
    async fn calls_that_cannot_be_made_are_results() {
        let said = async |input: Value| {
            let executed = fetch(None, "s", &input, &WebFetch::default()).await;
            assert!(executed.is_error);
            match executed.content.into_iter().next() {
                Some(Block::Text { text }) => text,
                block => panic!("{block:?}"),
            }
        };
        assert!(said(json!({"url": "https://a.test"})).await.starts_with("unavailable: "));
        assert!(said(json!({"url": "x".repeat(3_000)})).await.starts_with("url_too_long: "));
        for wrong in [json!({}), json!({"url": 1}), json!({"url": "x", "more": 1}), json!("x")] {
            assert!(said(wrong).await.starts_with("invalid_tool_input: "));
        }
    }

    #[test]
    fn a_long_page_is_cut_and_says_so() {
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!(cut("äöü", 2), "äö\n[page truncated]");
    }
}
