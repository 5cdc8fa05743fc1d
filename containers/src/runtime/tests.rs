//! What becomes of a runtime that hangs, warns or changes, with one that is made up. True ones: `tests/all`.

mod fake;

use super::*;
use fake::{Answer, Fake};
use hand::{
    protocol::Need,
    spec::{Plan, Spec, Walls},
};
use serde_json::json;
use std::fs::File;

/// Long enough for all that is answered at once.
const WITHIN: Duration = Duration::from_secs(3);

/// A Docker with one image, in which a trial ends with that code; `None` from `differs`: as a sound one would.
fn docker(code: u8, differs: impl Fn(&str) -> Option<Answer> + Send + Sync + 'static) -> Fake {
    Fake::start(move |request| {
        if let Some(answer) = differs(request) {
            return answer;
        }
        let said = |value: serde_json::Value| Some((200, value.to_string()));
        let created = |id: &str| Some((201, json!({"Id": id, "Warnings": []}).to_string()));
        match request {
            "GET /version" => said(json!({"ApiVersion": "1.41", "Version": "20.10", "Components": []})),
            "GET /info" => {
                said(json!({"MemoryLimit": true, "PidsLimit": true, "CpuCfsQuota": true, "CgroupVersion": "2"}))
            }
            _ if request.starts_with("GET /images/") => said(json!({"Id": "sha256:1", "Config": {}})),
            _ if request.starts_with("POST /containers/create?name=steadyhand-trial") => created("trial"),
            _ if request.starts_with("POST /containers/create") => created("new"),
            _ if request.contains("/wait") => said(json!({"StatusCode": code})),
            _ => Some((204, String::new())),
        }
    })
}

fn runtime(fake: &Fake) -> Runtime {
    Runtime { within: WITHIN, ..Runtime::new(fake.socket(), "image", "/program") }
}

/// A folder of hands with one that is being launched, until the lock is dropped.
fn launched(mode: Mode) -> (tempfile::TempDir, File) {
    let dir = tempfile::tempdir().unwrap();
    let hand = dir.path().join("h");
    for made in ["workspace", "outputs", "home"] {
        std::fs::create_dir_all(hand.join(made)).unwrap();
    }
    let walls = Walls::Container { keeper: "/keeper".into() };
    let spec = Spec { mode, walls, ..Spec::new("h", dir.path(), "/program") };
    let plan = Plan { spec, uid: None, client_uid: 0, cgroup_procs: Vec::new(), landlock: None, layers: Vec::new() };
    std::fs::write(hand.join("plan.json"), serde_json::to_vec(&plan).unwrap()).unwrap();
    let lock = File::create(hand.join("launch.lock")).unwrap();
    lock.lock().unwrap();
    (dir, lock)
}

fn is_on(layers: &[Layer], name: &str) -> Option<bool> {
    layers.iter().find(|layer| layer.name == name).map(|layer| layer.on)
}

#[tokio::test]
async fn a_runtime_that_is_not_there_is_one_missing_layer_with_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    let layers = Runtime::new(dir.path().join("none.sock"), "image", "/program").probe().await;
    assert_eq!(layers.iter().map(|layer| (&*layer.name, layer.on)).collect::<Vec<_>>(), [("container_runtime", false)]);
    assert!(layers[0].fix.contains("--container-socket"), "{layers:?}");
}

#[tokio::test]
async fn a_hand_is_started_by_the_id_that_was_created_of_an_image_that_was_tried() {
    let fake = docker(0, |_| None);
    let (dir, _launch) = launched(Mode::Strict);
    runtime(&fake).start(dir.path(), "h").await.unwrap();
    assert_eq!(fake.asked("POST /containers/").len(), 5, "{:?}", fake.asked(""));
    assert_eq!(fake.asked("POST /containers/new/start").len(), 1);
    // The trial, and by its name what was there before.
    let removed = fake.asked("DELETE");
    assert!(removed.len() == 2 && removed[0].starts_with("DELETE /containers/trial?"), "{removed:?}");
    assert!(removed[1].starts_with("DELETE /containers/steadyhand-h-"), "{removed:?}");
}

#[tokio::test]
async fn no_hand_is_started_of_an_image_that_will_not_do() {
    let (dir, _launch) = launched(Mode::Dev);
    let refused = async |fake: Fake| {
        let error = runtime(&fake).start(dir.path(), "h").await.unwrap_err();
        assert!(fake.asked("POST /containers/create?name=steadyhand-h-").is_empty(), "{:?}", fake.asked(""));
        error
    };
    let error = refused(docker(Tried::Privileged as u8, |_| None)).await;
    assert!(matches!(error, Error::Trial(_)), "{error}");
    let volumes = json!({"Id": "sha256:2", "Config": {"Volumes": {"/data": {}}}}).to_string();
    let has_volumes = move |request: &str| request.starts_with("GET /images/").then(|| Some((200, volumes.clone())));
    let error = refused(docker(0, has_volumes)).await;
    assert!(matches!(error, Error::Volumes), "{error}");
}

#[tokio::test]
async fn a_start_that_hangs_is_given_up_and_what_it_made_removed() {
    let fake = docker(0, |request| request.starts_with("POST /containers/new/start").then_some(None));
    let (dir, _launch) = launched(Mode::Dev);
    let error = runtime(&fake).start(dir.path(), "h").await.unwrap_err();
    assert!(matches!(error, Error::Late), "{error}");
    assert_eq!(fake.asked("DELETE /containers/new?").len(), 1, "{:?}", fake.asked("DELETE"));
}

#[tokio::test]
async fn one_start_of_a_hand_waits_for_the_other() {
    let fake = docker(0, |request| request.starts_with("POST /containers/new/start").then_some(None));
    let (dir, _launch) = launched(Mode::Dev);
    let runtime = runtime(&fake);
    let second = async {
        fake.until("POST /containers/new/start").await;
        // Begun while the first one is under way, and not before that is over.
        runtime.start(dir.path(), "h").await
    };
    let (first, second) = tokio::join!(runtime.start(dir.path(), "h"), second);
    assert!(first.is_err() && second.is_err());
    let asked = fake.asked("");
    let at = |beginning: &str| asked.iter().position(|request| request.starts_with(beginning)).unwrap();
    let (given_up, last) = (
        at("DELETE /containers/new?"),
        asked.iter().rposition(|request| request.starts_with("POST /containers/create?name=steadyhand-h-")).unwrap(),
    );
    let created = at("POST /containers/create?name=steadyhand-h-");
    assert!(created == last || last > given_up, "{asked:?}");
    assert!(runtime.turns.lock().unwrap().values().all(|turn| turn.strong_count() == 0));
}

#[tokio::test]
async fn a_trial_that_hangs_is_given_up_and_removed() {
    let fake = docker(0, |request| request.contains("/wait").then_some(None));
    let runtime = runtime(&fake);
    for tries in 1..3 {
        let layers = runtime.probe().await;
        assert_eq!(is_on(&layers, "container"), Some(false), "{layers:?}");
        assert_eq!(fake.asked("DELETE /containers/trial?").len(), tries);
    }
}

#[tokio::test]
async fn what_a_runtime_warns_of_is_no_wall() {
    let warns = |request: &str| {
        let warned = json!({"Id": "new", "Warnings": ["PIDs limit discarded."]}).to_string();
        request.starts_with("POST /containers/create?").then_some(Some((201, warned)))
    };
    let layers = runtime(&docker(0, warns)).probe().await;
    for name in ["cgroup_memory", "cgroup_pids", "cgroup_cpu"] {
        let layer = layers.iter().find(|layer| layer.name == name).unwrap();
        assert!(!layer.on && layer.need == Need::Strict && layer.why.contains("PIDs limit"), "{layer:?}");
    }
    for (mode, starts) in [(Mode::Strict, false), (Mode::Dev, true)] {
        let fake = docker(0, warns);
        let (dir, _launch) = launched(mode);
        assert_eq!(runtime(&fake).start(dir.path(), "h").await.is_ok(), starts, "{mode:?}");
        // That of the trial is the other one.
        assert_eq!(fake.asked("POST /containers/new/start").len(), 1 + usize::from(starts));
        assert_eq!(fake.asked("DELETE /containers/new?").len(), 2 - usize::from(starts));
    }
}

#[tokio::test]
async fn trials_that_nobody_lived_to_remove_are_swept() {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let fake = docker(0, move |request| {
        let found = json!([{"Id": "old", "Created": now - 600}, {"Id": "young", "Created": now}]).to_string();
        request.starts_with("GET /containers/json?").then_some(Some((200, found)))
    });
    assert_eq!(runtime(&fake).sweep_trials().await.unwrap(), 1);
    assert!(fake.asked("GET /containers/json?")[0].contains("dev.steadyhand.trial"));
    let removed = fake.asked("DELETE");
    assert!(removed.len() == 1 && removed[0].starts_with("DELETE /containers/old?"), "{removed:?}");
}
