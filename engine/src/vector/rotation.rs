//! A rotation that spreads what a few dimensions hold over all of them, as codes of one bit want it (Gao & Long 2024).
//!
//! Not drawn evenly from all rotations, which would cost `d²` operations a vector, but made of sign flips, fast Hadamard transforms of
//! the largest power of two below `d`, from the left and from the right in turn, and turns of pairs by 45 degrees, each twice.
//!
//! Promises: it depends on `d` alone, and uses single additions and multiplications in a fixed order: the same on every machine.

use std::cell::RefCell;
use std::f32::consts::FRAC_1_SQRT_2;
use std::rc::Rc;

use super::kernels;

/// Flips, transforms and turns.
const ROUNDS: usize = 2;

/// The rotation of a dimension.
pub(super) struct Rotation {
    /// 1 or -1 for each dimension of each round.
    flips: Vec<f32>,
    /// The largest power of two that is not above the dimensions.
    width: usize,
}

thread_local! {
    static LAST: RefCell<Option<Rc<Rotation>>> = const { RefCell::new(None) };
}

impl Rotation {
    /// That of a dimension; a thread keeps the one it used last.
    pub(super) fn of(dim: usize) -> Rc<Self> {
        LAST.with_borrow_mut(|last| match last {
            Some(last) if last.flips.len() == ROUNDS * dim => Rc::clone(last),
            _ => Rc::clone(last.insert(Rc::new(Self::new(dim)))),
        })
    }

    pub(super) fn new(dim: usize) -> Self {
        // SplitMix64 (Steele, Lea & Flood 2014), so that a dimension has one rotation for ever.
        let mut state = 0x5eed_0f51_6e5a_11ff_u64;
        let mut next = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        Self {
            flips: (0..ROUNDS * dim)
                .map(|_| if next() & 1 == 0 { 1.0 } else { -1.0 })
                .collect(),
            width: 1 << dim.ilog2(),
        }
    }

    /// Turns numbers of the dimension.
    pub(super) fn turn(&self, numbers: &mut [f32]) {
        kernels::in_wide_registers(Turn {
            rotation: self,
            numbers,
        });
    }
}

struct Turn<'a> {
    rotation: &'a Rotation,
    numbers: &'a mut [f32],
}

impl kernels::Loop for Turn<'_> {
    type Result = ();

    #[inline(always)]
    fn run(self) {
        let Self { rotation, numbers } = self;
        let dim = numbers.len();
        let whole = rotation.width == dim;
        for (round, flips) in rotation.flips.chunks_exact(dim).enumerate() {
            for (x, flip) in numbers.iter_mut().zip(flips) {
                *x *= flip;
            }
            let at = if round % 2 == 0 { 0 } else { dim - rotation.width };
            transform(&mut numbers[at..at + rotation.width]);
            if !whole {
                let (left, right) = numbers.split_at_mut(dim / 2);
                for (x, y) in left.iter_mut().zip(right) {
                    (*x, *y) = ((*x + *y) * FRAC_1_SQRT_2, (*x - *y) * FRAC_1_SQRT_2);
                }
            }
        }
    }
}

/// The Hadamard transform of a power of two of numbers, which keeps their length.
#[inline(always)]
fn transform(numbers: &mut [f32]) {
    // Strides of less than a register by eights, which the compiler keeps in one.
    let (eights, few) = numbers.as_chunks_mut::<8>();
    for eight in eights {
        let mut at = *eight;
        for half in [1, 2, 4] {
            let other: [f32; 8] = std::array::from_fn(|i| at[i ^ half]);
            for i in 0..8 {
                at[i] = other[i] + if i & half == 0 { at[i] } else { -at[i] };
            }
        }
        *eight = at;
    }
    butterflies(few, 1);
    butterflies(numbers, 8);
    let scale = 1.0 / (numbers.len() as f32).sqrt();
    numbers.iter_mut().for_each(|x| *x *= scale);
}

/// The stages of the transform from a stride on.
#[inline(always)]
fn butterflies(numbers: &mut [f32], from: usize) {
    let mut half = from;
    while half < numbers.len() {
        for pair in numbers.chunks_exact_mut(2 * half) {
            let (left, right) = pair.split_at_mut(half);
            for (x, y) in left.iter_mut().zip(right) {
                (*x, *y) = (*x + *y, *x - *y);
            }
        }
        half *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vector::kernels::Loop;
    use crate::vector::tests::Random;

    #[test]
    fn wide_registers_turn_to_the_same_bits() {
        let mut random = Random(89);
        for dim in [1usize, 2, 3, 8, 50, 96, 384, 784, 1000, 1024] {
            let rotation = Rotation::new(dim);
            let given: Vec<f32> = (0..dim).map(|_| random.normal()).collect();
            let (mut wide, mut plain) = (given.clone(), given.clone());
            rotation.turn(&mut wide);
            let numbers = &mut plain;
            Turn {
                rotation: &rotation,
                numbers,
            }
            .run();
            let [wide, plain] = [&wide, &plain].map(|of| of.iter().map(|x| x.to_bits()).collect::<Vec<_>>());
            assert_eq!(wide, plain, "{dim} dimensions");
        }
    }
}
