//! The catalogue of attacks against hands of bubblewrap, and the layers that not every machine has.

mod cases;
mod catalogue;
#[path = "../all/fixture.rs"]
mod fixture;
mod machine;
mod naive;
#[path = "../all/walls.rs"]
#[expect(dead_code, reason = "the attacks need less of it than other tests")]
mod walls;

use catalogue::{Attack, CANARY};

fn main() -> std::process::ExitCode {
    catalogue::run(machine::LAYERS)
}
