//! What is said in a session's log of a repository that its hand could not have.
//!
//! Git's words come from inside, at a time when nothing of the model's has run there yet; what its server answered stands
//! in them as egress put it.

use domain::{
    egress::Barred,
    event::{ErrorBody, ErrorKind, RetryStatus},
};
use hand::spec::{CloneStep, FailedClone};

/// What is shown of git's own words.
const SAID_CHARS: usize = 300;

/// The session goes on without it; a new hand tries again.
pub fn problem(failed: &FailedClone) -> ErrorBody {
    let repository_url = failed.url.clone();
    let barred = Barred::read(&failed.said);
    let kind = match (barred, failed.step) {
        (Some(Barred::Anonymous | Barred::Unauthorized), _) => ErrorKind::RepositoryAuthentication { repository_url },
        (Some(Barred::Forbidden), _) => ErrorKind::RepositoryForbidden { repository_url },
        (Some(Barred::NotFound), _) => ErrorKind::RepositoryNotFound { repository_url },
        (None, CloneStep::Checkout) => ErrorKind::RepositoryCheckout { repository_url },
        (None, CloneStep::Clone) => ErrorKind::RepositoryClone { repository_url },
    };
    let what = match failed.step {
        CloneStep::Clone => "could not be cloned",
        CloneStep::Checkout => "has not what was to be checked out",
    };
    let why = barred.map_or_else(|| last_words(&failed.said), |barred| barred.words().to_owned());
    let message = format!("the repository {what}: {why}");
    ErrorBody { kind, message, retry_status: RetryStatus::Retrying }
}

/// The line that says most: what egress said, or what git ended with.
fn last_words(said: &str) -> String {
    const EGRESS: &str = "steadyhand egress: ";
    let lines = || said.lines().map(str::trim).filter(|line| !line.is_empty());
    let egress = lines().find_map(|line| line.split_once(EGRESS).map(|(_, words)| words));
    let line = egress.or_else(|| lines().next_back()).unwrap_or("git did not say why");
    line.chars().take(SAID_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_has_its_error() {
        let check = |step, said: &str, kind: &str, message: &str| {
            let failed = FailedClone { url: "https://git.test/a/b".into(), step, said: said.to_owned() };
            let problem = serde_json::to_value(problem(&failed)).unwrap();
            assert_eq!(problem["type"], kind, "{said}");
            assert_eq!(problem["repository_url"], "https://git.test/a/b");
            assert_eq!(problem["message"], format!("the repository {message}"));
            assert_eq!(problem["retry_status"]["type"], "retrying");
        };
        for (barred, kind) in [
            (Barred::Anonymous, "repository_authentication_error"),
            (Barred::Unauthorized, "repository_authentication_error"),
            (Barred::Forbidden, "repository_forbidden_error"),
            (Barred::NotFound, "repository_not_found_error"),
        ] {
            let said = format!("exit code 128: remote: steadyhand egress: {}\nfatal: 403", barred.words());
            check(CloneStep::Clone, &said, kind, &format!("could not be cloned: {}", barred.words()));
        }
        let said = "remote: steadyhand egress: no such host        \nfatal: unable to access 'x': 502\n";
        check(CloneStep::Clone, said, "repository_clone_error", "could not be cloned: no such host");
        let said = "exit code 1: error: pathspec 'none' did not match any file(s) known to git";
        check(
            CloneStep::Checkout,
            said,
            "repository_checkout_error",
            &format!("has not what was to be checked out: {said}"),
        );
        check(CloneStep::Clone, "", "repository_clone_error", "could not be cloned: git did not say why");
    }
}
