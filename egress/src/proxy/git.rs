//! Git's smart HTTP for the session's repositories, and nothing else of their servers.
//!
//! Inside, `/git/N~` stands for the URL of the policy's repository N. The authorization is added here; what the sandbox
//! sends of its own is dropped, redirects are not followed, and pushes are read as far as they name refs.
//!
//! Git maps URLs by how they begin. So another repository whose URL goes on where this one's ends comes here too, as
//! `/git/N~REST`: it is read without a credential, if the environment lets its host be reached, and never pushed to.

use super::{Body, BoxError, Proxy, Refusal, Session, redact, streamed, upstream};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Bytes, BytesMut};
use domain::egress::{Barred, Repository};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use zeroize::Zeroizing;

pub const PREFIX: &str = "/git/";
/// Ends the number, so that what follows it is never read as more of it.
const MARK: char = '~';
/// The rest of a URL.
const REST_BYTES_MAX: usize = 512;
/// The names of refs in one push.
const COMMANDS_BYTES_MAX: usize = 256 * 1024;
/// What of a request goes on; git needs no more.
const PASSED: [HeaderName; 6] =
    [ACCEPT, CONTENT_TYPE, CONTENT_ENCODING, CONTENT_LENGTH, USER_AGENT, HeaderName::from_static("git-protocol")];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Service {
    Fetch,
    Push,
}

impl Service {
    fn name(self) -> &'static str {
        match self {
            Self::Fetch => "git-upload-pack",
            Self::Push => "git-receive-pack",
        }
    }
}

/// What the sandbox is told of the policy's repository of that number.
pub fn route(repository: usize) -> String {
    format!("{PREFIX}{repository}{MARK}")
}

/// What is asked of which repository.
#[derive(PartialEq, Eq, Debug)]
struct Asked<'a> {
    repository: usize,
    /// How the URL goes on after that repository's; empty for the repository itself.
    rest: &'a str,
    service: Service,
    /// Only which refs there are, before anything is sent.
    refs: bool,
}

pub async fn send(proxy: &Proxy, session: &Session, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
    let uri = request.uri().clone();
    let asked = parse(request.method(), &uri);
    let asked =
        asked.ok_or_else(|| Refusal::denied("only git's own requests for the session's repositories go here"))?;
    let repository = session.policy.repositories.get(asked.repository).ok_or_else(unknown)?;
    let is_other = !asked.rest.is_empty();
    if asked.service == Service::Push && (is_other || repository.push.is_empty()) {
        return Err(Refusal::denied("this repository may be read and not pushed to"));
    }
    let place = Place::of(repository)?;
    let to = match is_other {
        true => proxy.guard.check(session, &place.host, place.port).await?,
        false => proxy.guard.check_bound(session, &place.host, place.port).await?,
    };
    if !place.tls && !to.listed {
        return Err(Refusal::denied("repositories are reached by https"));
    }
    session.opening(&proxy.audit, &to.host, to.port)?;
    let credential = repository.credential.as_ref().filter(|_| !is_other);

    let mut upstream = Request::builder().method(request.method()).uri(place.uri(&asked)?);
    for name in PASSED {
        for value in request.headers().get_all(&name) {
            upstream = upstream.header(&name, value);
        }
    }
    upstream = upstream.header(HOST, &place.authority);
    let mut secrets = Vec::new();
    if let Some(id) = credential {
        let secret = proxy.secret(id)?;
        let pair = Zeroizing::new(BASE64.encode(Zeroizing::new(format!("x-access-token:{}", *secret)).as_bytes()));
        let mut value = HeaderValue::from_str(&Zeroizing::new(format!("Basic {}", *pair)))
            .map_err(|_| Refusal::denied("its credential cannot be sent"))?;
        value.set_sensitive(true);
        upstream = upstream.header(AUTHORIZATION, value);
        secrets = vec![secret, pair];
    }
    let packed = request.headers().contains_key(CONTENT_ENCODING);
    let body = match (asked.service, asked.refs) {
        (Service::Push, false) if packed => return Err(Refusal::bad("a push is read, so it must not be packed")),
        (Service::Push, false) => pushed(request.into_body(), &repository.push).await?,
        _ => streamed(request.into_body()),
    };
    let upstream = upstream.body(body).map_err(|_| Refusal::bad("the request cannot be passed on"))?;
    let answer = upstream::send(proxy, upstream::Until::policy_of(session), &to, place.tls, upstream).await?;
    if let Some(id) = credential {
        proxy.used(session, id, &to.host, asked.service.name(), answer.status());
    }
    passed_back(answer, secrets)
}

/// Only what git reads; a failure in our words, as the server's page is none of the sandbox's business.
fn passed_back(answer: Response<Incoming>, secrets: redact::Secrets) -> Result<Response<Body>, Refusal> {
    let status = answer.status();
    if status != StatusCode::OK {
        return Err(match status {
            // Told as 403: git would ask somebody for another credential.
            StatusCode::UNAUTHORIZED if secrets.is_empty() => Refusal::denied(Barred::Anonymous.words()),
            StatusCode::UNAUTHORIZED => Refusal::denied(Barred::Unauthorized.words()),
            StatusCode::FORBIDDEN => Refusal::denied(Barred::Forbidden.words()),
            StatusCode::NOT_FOUND => Refusal::new(StatusCode::NOT_FOUND, Barred::NotFound.words()),
            status if status.is_redirection() => {
                Refusal::gateway("the repository has moved; redirects are not followed")
            }
            status => Refusal::gateway(format!("the repository's server answered {status}")),
        });
    }
    let (parts, body) = answer.into_parts();
    let mut response = Response::new(redact::body(body, secrets));
    for name in [CONTENT_TYPE, CONTENT_LENGTH] {
        if let Some(value) = parts.headers.get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    response.headers_mut().insert(http::header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

fn unknown() -> Refusal {
    Refusal::denied("the session has no such repository")
}

/// Exactly the requests that git makes, byte by byte: no other spelling of a path leads anywhere.
fn parse<'a>(method: &Method, uri: &'a Uri) -> Option<Asked<'a>> {
    let path = uri.path().strip_prefix(PREFIX)?;
    let services = [Service::Fetch, Service::Push];
    let (path, service, refs) = match (method, uri.query()) {
        (&Method::GET, Some(query)) => {
            let name = query.strip_prefix("service=")?;
            let service = services.into_iter().find(|service| service.name() == name)?;
            (path.strip_suffix("/info/refs")?, service, true)
        }
        (&Method::POST, None) => {
            let (path, action) = path.rsplit_once('/')?;
            (path, services.into_iter().find(|service| service.name() == action)?, false)
        }
        _ => return None,
    };
    let (number, rest) = path.split_once(MARK)?;
    if number.len() > 4 || number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let rest = if rest == ".git" { "" } else { rest };
    is_rest(rest).then_some(Asked { repository: number.parse().ok()?, rest, service, refs })
}

/// Whether a URL may go on like this: names, and nothing that a server could read as another path.
fn is_rest(rest: &str) -> bool {
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/');
    rest.len() <= REST_BYTES_MAX
        && rest.bytes().all(fine)
        && !rest.contains("..")
        && !rest.contains("//")
        && !rest.ends_with('/')
}

/// Where a repository is.
struct Place {
    tls: bool,
    host: String,
    port: u16,
    authority: String,
    path: String,
}

impl Place {
    fn of(repository: &Repository) -> Result<Self, Refusal> {
        let uri: Uri = repository.url.parse().map_err(|_| unknown())?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(unknown()),
        };
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or_else(unknown)?;
        Ok(Self {
            tls,
            host: authority.host().to_owned(),
            port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            authority: authority.as_str().to_owned(),
            path: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    fn uri(&self, asked: &Asked<'_>) -> Result<Uri, Refusal> {
        let service = asked.service.name();
        // As in what the sandbox was told to map: it goes on after the name, not after `.git`.
        let path = match asked.rest {
            "" => self.path.clone(),
            rest => format!("{}{rest}", self.path.trim_end_matches(".git")),
        };
        let uri = if asked.refs { format!("{path}/info/refs?service={service}") } else { format!("{path}/{service}") };
        uri.parse().map_err(|_| unknown())
    }
}

/// The body of a push whose refs are all allowed, as it came.
async fn pushed(mut body: Incoming, allowed: &[String]) -> Result<Body, Refusal> {
    let mut head = BytesMut::new();
    loop {
        match commands(&head) {
            Commands::Whole(refs) => {
                if let Some(forbidden) = refs.iter().find(|name| !allowed.iter().any(|allowed| may_push(allowed, name)))
                {
                    return Err(Refusal::denied(format!("{forbidden} may not be pushed to")));
                }
                break;
            }
            Commands::Broken => return Err(Refusal::bad("this is no push")),
            Commands::Partly if head.len() > COMMANDS_BYTES_MAX => {
                return Err(Refusal::bad("too many refs in one push"));
            }
            Commands::Partly => {}
        }
        match body.frame().await {
            Some(Ok(frame)) => head.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
            _ => return Err(Refusal::bad("the push ended early")),
        }
    }
    let state = (Some(head.freeze()), body);
    let frames = futures::stream::try_unfold(state, |(head, mut body)| async {
        if let Some(head) = head {
            return Ok::<_, BoxError>(Some((Frame::data(head), (None, body))));
        }
        Ok(body.frame().await.transpose()?.map(|frame| (frame, (None::<Bytes>, body))))
    });
    Ok(StreamBody::new(frames).boxed_unsync())
}

fn may_push(allowed: &str, name: &str) -> bool {
    match allowed.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix) && name.len() > prefix.len(),
        None => allowed == name,
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Commands {
    /// The refs that are asked to change.
    Whole(Vec<String>),
    Partly,
    Broken,
}

/// Read the lines `OLD NEW REF[NUL capabilities]` up to the flush that ends them.
fn commands(bytes: &[u8]) -> Commands {
    let mut refs = Vec::new();
    let mut rest = bytes;
    loop {
        let Some((len, after)) = rest.split_at_checked(4) else { return Commands::Partly };
        let len = std::str::from_utf8(len).ok().filter(|len| len.bytes().all(|b| b.is_ascii_hexdigit()));
        let Some(len) = len.and_then(|len| usize::from_str_radix(len, 16).ok()) else { return Commands::Broken };
        if len == 0 {
            return Commands::Whole(refs);
        }
        let Some(payload) = len.checked_sub(4) else { return Commands::Broken };
        let Some((line, after)) = after.split_at_checked(payload) else { return Commands::Partly };
        rest = after;
        let line = line.split(|&b| b == 0).next().unwrap_or_default();
        let Ok(line) = std::str::from_utf8(line) else { return Commands::Broken };
        let line = line.trim_end_matches('\n');
        // Other lines (shallow, push-cert) come with no ref that could be judged by itself.
        let mut words = line.splitn(3, ' ');
        match (words.next(), words.next(), words.next()) {
            (Some("shallow"), Some(id), None) if is_id(id) => {}
            (Some(old), Some(new), Some(name)) if is_id(old) && is_id(new) => refs.push(name.to_owned()),
            _ => return Commands::Broken,
        }
    }
}

fn is_id(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_gits_own_requests_are_understood() {
        let check = |method: Method, uri: &str, expect: Option<(usize, &str, Service, bool)>| {
            let parsed: Uri = uri.parse().unwrap();
            let expect = expect.map(|(repository, rest, service, refs)| Asked { repository, rest, service, refs });
            assert_eq!(parse(&method, &parsed), expect, "{uri}");
        };
        check(Method::GET, "/git/0~/info/refs?service=git-upload-pack", Some((0, "", Service::Fetch, true)));
        check(Method::GET, "/git/12~.git/info/refs?service=git-receive-pack", Some((12, "", Service::Push, true)));
        check(Method::POST, "/git/0~/git-upload-pack", Some((0, "", Service::Fetch, false)));
        check(Method::POST, "/git/0~/git-receive-pack", Some((0, "", Service::Push, false)));
        // What begins like repository 1 is not repository 12, nor repository 1.
        check(Method::GET, "/git/1~2/info/refs?service=git-upload-pack", Some((1, "2", Service::Fetch, true)));
        check(Method::POST, "/git/0~-other.git/git-upload-pack", Some((0, "-other.git", Service::Fetch, false)));
        check(Method::POST, "/git/0~/below/git-upload-pack", Some((0, "/below", Service::Fetch, false)));
        for (method, uri) in [
            (Method::GET, "/git/0/info/refs?service=git-upload-pack"),
            (Method::GET, "/git/0~/config"),
            (Method::GET, "/git/0~/HEAD"),
            (Method::GET, "/git/0~/objects/info/packs"),
            (Method::GET, "/git/0~/info/refs"),
            (Method::GET, "/git/0~/info/refs?service=git-upload-archive"),
            (Method::GET, "/git/0~/info/refs?service=git-upload-pack&x=1"),
            (Method::GET, "/git/0~/../1~/info/refs?service=git-upload-pack"),
            (Method::GET, "/git/0~%2f..%2f1/info/refs?service=git-upload-pack"),
            (Method::GET, "/git/0~//info/refs?service=git-upload-pack"),
            (Method::GET, "/git/~/info/refs?service=git-upload-pack"),
            (Method::GET, "/git/+1~/info/refs?service=git-upload-pack"),
            (Method::GET, "/git/0-other/info/refs?service=git-upload-pack"),
            (Method::POST, "/git/0~/git-upload-pack?x"),
            (Method::POST, "/git/0~/info/refs?service=git-upload-pack"),
            (Method::DELETE, "/git/0~/git-upload-pack"),
        ] {
            check(method, uri, None);
        }
    }

    fn line(text: &str) -> Vec<u8> {
        format!("{:04x}{text}", text.len() + 4).into_bytes()
    }

    #[test]
    fn the_refs_of_a_push_are_read_wherever_it_is_cut() {
        let (a, b) = ("a".repeat(40), "b".repeat(40));
        let bytes = [
            line(&format!("{a} {b} refs/heads/agent/x\0 report-status agent=git/2\n")),
            line(&format!("{a} {b} refs/heads/main")),
            b"0000PACK....".to_vec(),
        ]
        .concat();
        let end = bytes.len() - "PACK....".len();
        for cut in 0..end {
            assert_eq!(commands(&bytes[..cut]), Commands::Partly, "{cut}");
        }
        assert_eq!(commands(&bytes), Commands::Whole(vec!["refs/heads/agent/x".into(), "refs/heads/main".into()]));
        assert_eq!(commands(b"0000"), Commands::Whole(vec![]));
        for broken in
            [b"zzzz".to_vec(), b"0003".to_vec(), b"+004".to_vec(), line("push-cert\0x"), line("x y refs/heads/main")]
        {
            assert_eq!(commands(&broken), Commands::Broken);
        }
    }

    #[test]
    fn refs_are_allowed_one_by_one_or_below() {
        for (allowed, name, expect) in [
            ("refs/heads/agent/*", "refs/heads/agent/x", true),
            ("refs/heads/agent/*", "refs/heads/agent/", false),
            ("refs/heads/agent/*", "refs/heads/agents", false),
            ("refs/heads/main", "refs/heads/main", true),
            ("refs/heads/main", "refs/heads/main2", false),
            ("*", "refs/heads/any", true),
        ] {
            assert_eq!(may_push(allowed, name), expect, "{allowed} {name}");
        }
    }
}
