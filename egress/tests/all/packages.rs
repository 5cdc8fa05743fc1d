//! What installs packages reaches what its environment allows, and nothing that is a session's own.

use crate::fixture::{CANARY, Hand, SESSION, World};
use crate::servers;
use domain::egress::{
    CLIENT, Client, Networking, Policy, Reply, Repository, Request, Variable, credential_headers, installer,
};
use domain::packages::Manager;
use hand::spec::Resources;
use tokio::runtime::Runtime;

#[test]
fn packages_are_installed_over_a_socket_on_which_nothing_of_a_session_is() {
    let runtime = Runtime::new().unwrap();
    let (addr, seen) = servers::echo(&runtime);
    let mut world = World::new(runtime, &[addr]);
    let at = |host: &str| format!("http://{host}:{}", addr.port());
    let networking = |allow_package_managers| Networking::Limited {
        allowed_hosts: vec![],
        allow_mcp_servers: false,
        allow_package_managers,
    };
    let credential = world.put("mine", CANARY);
    let policy = |allow_package_managers, packages: &[&str]| Policy {
        networking: networking(allow_package_managers),
        repositories: vec![Repository {
            url: at("git.test/acme/app"),
            credential: Some(credential.clone()),
            push: vec![],
        }],
        variables: vec![Variable {
            name: "TOKEN".into(),
            placeholder: "HANDCRED_mine".into(),
            host: format!("mirror.test:{}", addr.port()),
            headers: credential_headers(),
            credential: credential.clone(),
        }],
        packages: packages.iter().map(|name| (Manager::Pip, vec![(*name).to_owned()])).collect(),
        registries: [(Manager::Pip, format!("{}/simple", at("mirror.test")))].into(),
        ..Policy::default()
    };
    world.policy(policy(true, &["a"]));
    let told: Client =
        serde_json::from_slice(&std::fs::read(world.egress().folder(SESSION).join(CLIENT)).unwrap()).unwrap();
    assert_eq!((told.packages.len(), told.registries.len(), told.variables.len()), (1, 1, 1));

    let hand = Hand::at(world.hand_of(&installer(SESSION), Resources::default()).unwrap());
    assert_eq!(hand.get(&format!("{}/simple/a/", at("mirror.test"))), "200");
    assert_eq!(hand.get(&format!("{}/", at("other.test"))), "403");
    let said = hand.sh(&format!(
        "env | grep -c TOKEN; curl -s -o /dev/null -w '%{{http_code}} ' --noproxy '*' \
         'http://127.0.0.1:3128/git/0~/info/refs?service=git-upload-pack'; \
         curl -s -o /dev/null -w '%{{http_code}}' -H 'authorization: HANDCRED_mine' {}/; true",
        at("mirror.test")
    ));
    assert!(said.starts_with("0\n4") && said.ends_with("200"), "{said}");
    assert!(!seen.lock().unwrap().concat().contains(CANARY), "a placeholder of the session's is any word here");

    // It is there again after a restart, holds what the environment says, and goes when nothing is to be installed.
    world.stop();
    world.start();
    assert_eq!(hand.get(&format!("{}/simple/a/", at("mirror.test"))), "200");
    world.policy(policy(false, &["a"]));
    assert_eq!(hand.get(&format!("{}/simple/a/", at("mirror.test"))), "403");
    world.policy(policy(true, &[]));
    assert!(!world.egress().folder(&installer(SESSION)).exists());
    world.policy(policy(true, &["a"]));
    assert_eq!(world.ask(Request::DropSession { session_id: SESSION.into() }), Reply::Done);
    assert!(!world.egress().folder(&installer(SESSION)).exists() && !world.egress().folder(SESSION).exists());
    assert!(world.audit().contains(&installer(SESSION)));

    let with_password = Policy {
        registries: [(Manager::Pip, "https://me:secret@mirror.test/".to_owned())].into(),
        ..policy(true, &["a"])
    };
    let refused = world.ask(Request::SetPolicy { session_id: SESSION.into(), policy: with_password });
    assert!(matches!(refused, Reply::Refused { .. }));
}
