//! A repository as one file: what is committed at HEAD, made by the user's own git. The hand clones it in its sandbox.

use crate::error::{Code, Hint as _, failed};
use std::{path::Path, process::Stdio};
use tempfile::NamedTempFile;
use tokio::process::Command;

pub struct Bundle {
    /// Removed when this is dropped.
    pub file: NamedTempFile,
    /// Files with changes that are in no commit, and so not in the bundle.
    pub uncommitted: usize,
}

pub async fn make(repo: &Path) -> anyhow::Result<Bundle> {
    let shown = repo.display();
    let head = git(repo, &["rev-parse", "--verify", "--quiet", "HEAD^{commit}"]).await?;
    if head.is_none() {
        let hint = "--repo takes a folder inside a git repository that has a commit";
        return Err(failed(Code::Usage, format!("{shown} has no commit to give to the agent"), hint));
    }
    if git(repo, &["rev-parse", "--is-shallow-repository"]).await?.is_some_and(|answer| answer == "true") {
        let hint = "complete it first: git fetch --unshallow";
        return Err(failed(Code::Usage, format!("{shown} is a shallow clone, which cannot be passed on"), hint));
    }
    let file = NamedTempFile::with_suffix(".bundle").hint(
        Code::Environment,
        "make a temporary file for the repository",
        "is the disk full? TMPDIR names another place",
    )?;
    let path = file.path().to_string_lossy().into_owned();
    let mut create = vec!["bundle", "create", "--quiet", &path, "HEAD"];
    // With the branch's name the clone is on that branch, and not on none.
    let branch = git(repo, &["symbolic-ref", "--quiet", "HEAD"]).await?;
    create.extend(branch.as_deref());
    if git(repo, &create).await?.is_none() {
        let hint = format!("`git -C {shown} bundle create FILE HEAD` says why");
        return Err(failed(Code::Failed, format!("git cannot bundle {shown}"), hint));
    }
    let status = git(repo, &["status", "--porcelain"]).await?;
    Ok(Bundle { file, uncommitted: status.map_or(0, |status| status.lines().count()) })
}

/// What git prints, or `None` if it says no.
async fn git(repo: &Path, args: &[&str]) -> anyhow::Result<Option<String>> {
    let mut command = Command::new("git");
    command.arg("-C").arg(repo).args(args).env("GIT_OPTIONAL_LOCKS", "0").stdin(Stdio::null()).stderr(Stdio::null());
    let output = command.output().await.hint(Code::Environment, "run git", "--repo needs git: install it")?;
    let text = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
    Ok(output.status.success().then_some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(dir: &Path, args: &[&str]) -> String {
        let mut git = std::process::Command::new("git");
        git.arg("-C").arg(dir).args(["-c", "user.name=t", "-c", "user.email=t@example.com"]).args(args);
        git.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null");
        let output = git.output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    #[tokio::test]
    async fn a_clone_of_the_bundle_is_on_the_branch_and_has_what_is_committed() {
        let dir = tempfile::tempdir().unwrap();
        let repo = dir.path().join("repo");
        std::fs::create_dir(&repo).unwrap();
        run(&repo, &["init", "-q", "-b", "work"]);
        assert!(make(&repo).await.is_err(), "nothing is committed");
        std::fs::write(repo.join("a"), "one").unwrap();
        run(&repo, &["add", "a"]);
        run(&repo, &["commit", "-qm", "one"]);
        std::fs::write(repo.join("b"), "not committed").unwrap();

        let bundle = make(&repo).await.unwrap();
        assert_eq!(bundle.uncommitted, 1);
        let clone = dir.path().join("clone");
        run(dir.path(), &["clone", "-q", &bundle.file.path().to_string_lossy(), &clone.to_string_lossy()]);
        assert_eq!(run(&clone, &["branch", "--show-current"]), "work");
        assert_eq!(run(&clone, &["rev-parse", "HEAD"]), run(&repo, &["rev-parse", "HEAD"]));
        assert!(clone.join("a").exists() && !clone.join("b").exists());

        let path = bundle.file.path().to_owned();
        drop(bundle);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_detached_head_and_a_shallow_clone() {
        let dir = tempfile::tempdir().unwrap();
        let repo = dir.path().join("repo");
        std::fs::create_dir(&repo).unwrap();
        run(&repo, &["init", "-q", "-b", "work"]);
        for message in ["one", "two"] {
            run(&repo, &["commit", "-q", "--allow-empty", "-m", message]);
        }
        let url = format!("file://{}", repo.display());
        let shallow = dir.path().join("shallow");
        run(dir.path(), &["clone", "-q", "--depth", "1", &url, &shallow.to_string_lossy()]);
        let error = make(&shallow).await.err().unwrap();
        assert!(error.to_string().contains("shallow"), "{error}");

        run(&repo, &["checkout", "-q", "--detach", "HEAD~1"]);
        let bundle = make(&repo).await.unwrap();
        let clone = dir.path().join("clone");
        run(dir.path(), &["clone", "-q", &bundle.file.path().to_string_lossy(), &clone.to_string_lossy()]);
        assert_eq!(run(&clone, &["rev-parse", "HEAD"]), run(&repo, &["rev-parse", "HEAD"]));
    }
}
