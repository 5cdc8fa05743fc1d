//! Every choice of a simulation: one sequence from one seed.

use crate::core::ids::mix;
use std::cell::Cell;
use std::rc::Rc;

#[derive(Clone)]
pub struct Dice(Rc<Cell<u64>>);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(Rc::new(Cell::new(seed)))
    }

    pub fn roll(&self) -> u64 {
        self.0.set(self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
        mix(self.0.get())
    }

    pub fn below(&self, n: u64) -> u64 {
        self.roll() % n
    }

    pub fn between(&self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }

    /// Whether something happens that happens `n` times in a thousand.
    pub fn permille(&self, n: u64) -> bool {
        self.below(1_000) < n
    }

    pub fn pick<'a, T>(&self, from: &'a [T]) -> Option<&'a T> {
        (!from.is_empty()).then(|| &from[self.below(from.len() as u64) as usize])
    }
}
