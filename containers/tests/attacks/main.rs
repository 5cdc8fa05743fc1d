//! The catalogue of attacks (`hand/tests/attacks`) against hands in containers.

#[path = "../../../hand/tests/attacks/cases.rs"]
mod cases;
#[path = "../../../hand/tests/attacks/catalogue.rs"]
mod catalogue;
#[path = "../../../hand/tests/all/fixture.rs"]
mod fixture;
#[path = "../../../hand/tests/attacks/naive.rs"]
mod naive;
#[path = "../../../tests/src/podman.rs"]
mod podman;
#[path = "../all/walls.rs"]
#[expect(dead_code, reason = "the attacks need less of it than other tests")]
mod walls;

use catalogue::{Attack, CANARY};

fn main() -> std::process::ExitCode {
    // What a runtime's limits do is among the attacks; how they are counted is the runtime's.
    catalogue::run(&[])
}
