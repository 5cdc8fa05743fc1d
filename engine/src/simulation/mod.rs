//! The whole engine but its disk and its network, in one thread, under a clock that moves when nothing else does: from
//! one seed the same run, every time. Clients, workers and calls fail, the engine is killed, power is lost, writes are
//! torn; then faults stop, and everything that was begun must come to its end, and closed runs to theirs. [`promises`] says what is checked, and
//! every transition is checked by the core itself ([`crate::core::ledger`]).
//!
//! `STEADYHAND_SIMULATION_SEED` runs one seed, `STEADYHAND_SIMULATION_SECONDS` new seeds for so long.

mod client;
mod dice;
mod executor;
mod promises;
mod records;
mod store;
mod worker;
mod world;

use crate::clock::Clock;
use crate::store::{Range, Reads, Space, Storage};
use executor::Kind;
use promises::Promises;
use std::ops::AddAssign;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::time::{Duration, Instant};
use world::{SECOND, World};

/// Steps in which things go wrong, and steps after that in which all must end.
const STORMY_STEPS: u64 = 3_000;
const CALM_STEPS: u64 = 200_000;
/// How long closed runs are kept where they are not kept for good.
const RETENTION_NS: i64 = 45 * SECOND;

/// What goes wrong in a simulation.
#[derive(Clone, Copy)]
enum Weather {
    /// By the dice.
    Storm,
    /// The engine dies in one write, which happens to the extent that the dice say; nothing else goes wrong.
    DiesAtWrite { write: u64, power_loss: bool },
}

/// What happened in a simulation, or in several.
#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    writes: u64,
    /// Histories of closed runs that were packed, and closed runs that were removed.
    packed: u64,
    expired: u64,
}

impl AddAssign for Figures {
    fn add_assign(&mut self, other: Figures) {
        self.writes += other.writes;
        self.packed += other.packed;
        self.expired += other.expired;
    }
}

/// One simulation. `Err` says what was broken.
fn simulate(seed: u64, weather: Weather) -> Result<Figures, Vec<String>> {
    let storm = matches!(weather, Weather::Storm);
    // What is kept for good is compared to the last event in the end; what is not must go.
    let retention_ns = if storm && seed.is_multiple_of(2) { 0 } else { RETENTION_NS };
    let world = World::new(seed, retention_ns);
    world.calm.set(!storm);
    world.start_engine();
    for _ in 0..3 {
        client::client(&world, if storm { 25 } else { 8 });
    }
    for build_id in [None, Some("1"), Some("2")] {
        worker::workflow_worker(&world, build_id);
        worker::activity_worker(&world, build_id);
    }
    let run = AssertUnwindSafe(|| drive(&world, weather));
    let result = std::panic::catch_unwind(run).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(vec![text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default()])
    });
    world.kill_engine();
    world.executor.end(&[Kind::Outside]);
    result
}

fn drive(world: &Rc<World>, weather: Weather) -> Result<Figures, Vec<String>> {
    let dice = world.dice.clone();
    let mut died = false;
    let storm = matches!(weather, Weather::Storm);
    let steps = if storm { dice.between(STORMY_STEPS / 4, STORMY_STEPS) } else { STORMY_STEPS / 4 };
    for _ in 0..steps {
        match weather {
            Weather::Storm => misfortune(world)?,
            Weather::DiesAtWrite { write, power_loss } => die_at(world, write, power_loss, &mut died)?,
        }
        step(world);
    }
    // Whatever was prepared does not happen any more, and an engine whose store failed starts again.
    restart(world, false)?;
    world.calm.set(true);
    world.ending.set(true);
    client::finisher(world);
    for _ in 0..CALM_STEPS {
        if let Weather::DiesAtWrite { write, power_loss } = weather {
            die_at(world, write, power_loss, &mut died)?;
        }
        step(world);
        if world.promises.borrow().finished && is_done(world) {
            let open = settle(world)?;
            let promises = world.promises.borrow();
            let Promises { packed, expired, .. } = *promises;
            return match open.is_empty() {
                true => Ok(Figures { writes: world.store.writes(), packed, expired }),
                false => Err(vec![format!("runs that were told to finish are open: {open:?}")]),
            };
        }
    }
    let open = settle(world)?;
    let left =
        UNTIL_DONE.map(|space| (space, world.store.scan(space, Range::prefix(Vec::new())).expect("scans").len()));
    Err(vec![format!("not everything came to its end: {left:?}; these runs are open: {open:?}")])
}

/// Where nothing is left when everything is done: no run owes another one anything, none waits to be packed, and none is
/// there that is not kept for good.
const UNTIL_DONE: [Space; 3] = [Space::Errand, Space::Loose, Space::Run];

fn is_done(world: &World) -> bool {
    let spaces = UNTIL_DONE.iter().filter(|space| world.retention_ns > 0 || **space != Space::Run);
    let range = Range { limit: 1, ..Range::prefix(Vec::new()) };
    spaces.into_iter().all(|space| world.store.scan(*space, range.clone()).expect("scans").is_empty())
}

/// The one death that there is, when its write has come.
fn die_at(world: &World, write: u64, power_loss: bool, died: &mut bool) -> Result<(), Vec<String>> {
    if *died {
        return Ok(());
    }
    if world.store.writes() + 1 == write {
        world.store.tear_next(world.dice.below(4) as usize);
    } else if world.store.writes() >= write {
        *died = true;
        restart(world, power_loss)?;
    }
    Ok(())
}

/// One thing happens: a write, a task's turn, or, when nothing else can, time.
fn step(world: &World) {
    let dice = &world.dice;
    if dice.permille(250) && world.commit() {
        return;
    }
    if world.executor.poll_one(dice) || world.commit() {
        return;
    }
    if let Some(next) = world.clock.earliest() {
        let now = world.clock.now();
        world.clock.advance(now.until(next));
    }
}

/// Perhaps something goes wrong.
fn misfortune(world: &World) -> Result<(), Vec<String>> {
    let dice = &world.dice;
    if dice.permille(8) {
        let calls = world.executor.ids(Kind::Call);
        if let Some(call) = dice.pick(&calls) {
            world.executor.end_one(*call);
        }
    }
    if dice.permille(4) {
        world.clock.advance(Duration::from_secs(dice.below(40)));
    }
    if dice.permille(2) {
        world.set_back(Duration::from_secs(dice.below(20)));
    }
    if dice.permille(2) {
        world.store.tear_next(dice.below(4) as usize);
    }
    if dice.permille(4) {
        restart(world, dice.permille(400))?;
    }
    Ok(())
}

/// The engine dies, perhaps with the machine, and another goes on over what is left, which must be sound.
fn restart(world: &World, power_loss: bool) -> Result<(), Vec<String>> {
    world.kill_engine();
    world.promises.borrow_mut().engine_died();
    if power_loss {
        world.store.lose_power(&world.dice);
        world.promises.borrow_mut().power_was_lost();
    }
    settle(world)?;
    world.start_engine();
    Ok(())
}

/// Looks whether everything promised so far was kept; the runs that are open.
fn settle(world: &World) -> Result<Vec<String>, Vec<String>> {
    let look = world.store.snapshot().expect("a snapshot");
    let mut promises = world.promises.borrow_mut();
    let open = promises.check(&*look);
    if promises.broken.is_empty() { Ok(open) } else { Err(std::mem::take(&mut promises.broken)) }
}

fn must_hold(seed: u64, weather: Weather) -> Figures {
    simulate(seed, weather).unwrap_or_else(|broken| {
        panic!(
            "seed {seed} breaks a promise; again with: STEADYHAND_SIMULATION_SEED={seed} cargo nextest run \
             -p steadyhand-engine simulation::from_seeds\n{broken:#?}"
        )
    })
}

#[test]
fn from_seeds_every_promise_is_kept_in_any_weather() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    if let Some(seconds) = number("STEADYHAND_SIMULATION_SECONDS") {
        let first = number("STEADYHAND_SIMULATION_SEED").unwrap_or_else(crate::clock::entropy);
        let began = Instant::now();
        let seeds = (first..).take_while(|_| began.elapsed() < Duration::from_secs(seconds));
        let (mut count, mut sum) = (0_u64, Figures::default());
        for seed in seeds {
            sum += must_hold(seed, Weather::Storm);
            count += 1;
        }
        assert!(count > 0);
        let Figures { writes, packed, expired } = sum;
        let figures = format!(
            "figures: {count} seeds from {first}, {writes} writes, {packed} histories packed, {expired} runs removed\n"
        );
        std::io::Write::write_all(&mut std::io::stderr(), figures.as_bytes()).expect("somebody reads the figures");
        return;
    }
    match number("STEADYHAND_SIMULATION_SEED") {
        Some(seed) => {
            must_hold(seed, Weather::Storm);
        }
        None => {
            let mut sum = Figures::default();
            (0..100).for_each(|seed| sum += must_hold(seed, Weather::Storm));
            assert!(sum.packed > 100 && sum.expired > 100, "too little became of closed runs: {sum:?}");
        }
    }
}

#[test]
fn the_engine_may_die_in_any_write() {
    let unharmed = must_hold(1, Weather::DiesAtWrite { write: u64::MAX, power_loss: false });
    let Figures { writes, packed, expired } = unharmed;
    assert!(writes > 30 && packed > 2 && expired > 2, "{unharmed:?} is too little to say anything");
    for write in 1..=writes {
        for power_loss in [false, true] {
            must_hold(1, Weather::DiesAtWrite { write, power_loss });
        }
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    let twice = [0, 1].map(|_| {
        let world = World::new(7, RETENTION_NS);
        world.start_engine();
        client::client(&world, 20);
        worker::workflow_worker(&world, None);
        worker::activity_worker(&world, None);
        for _ in 0..2_000 {
            step(&world);
        }
        let seen = (world.clock.now(), world.store.writes(), world.dice.roll());
        world.kill_engine();
        world.executor.end(&[Kind::Outside]);
        assert!(seen.0.0 > 1_700_000_000 * SECOND, "time has passed");
        seen
    });
    assert_eq!(twice[0], twice[1]);
}
