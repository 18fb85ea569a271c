//! The inner loops of vector search: dot product, squared Euclidean and Manhattan distance of two `f32` slices.
//!
//! Three sets of the same loops: portable (written so that the compiler vectorises it for any target), AVX2 with FMA,
//! and AVX-512F. The best set this CPU can run is chosen once, at first use. Sets differ in the order of their
//! additions, so results agree to rounding, not to the bit: whatever must be reproducible on another machine must not
//! depend on the last digits.
//!
//! Promises: any two slices of equal length, no alignment asked; unequal lengths panic rather than read past an end.
//! Not here: other number types, batches, anything that knows what a vector means.
//!
//! All `unsafe` of the vector module is in this file, for two reasons only: calling a function compiled for CPU
//! features the build target does not promise, and loading SIMD registers from slices.

use std::fmt;
use std::sync::LazyLock;

/// `Σ a·b`.
#[inline]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    best().dot.of(a, b)
}

/// `Σ (a-b)²`.
#[inline]
pub fn l2_squared(a: &[f32], b: &[f32]) -> f32 {
    best().l2_squared.of(a, b)
}

/// `Σ |a-b|`.
#[inline]
pub fn l1(a: &[f32], b: &[f32]) -> f32 {
    best().l1.of(a, b)
}

/// One loop of one set. Hold it across a search to skip the choice of the set.
#[derive(Clone, Copy)]
pub struct Kernel {
    /// Private, so that only this file can pair a loop with a CPU: whoever holds a `Kernel` may run it.
    run: unsafe fn(&[f32], &[f32]) -> f32,
}

impl Kernel {
    /// Runs the loop. Panics when the lengths differ.
    #[inline]
    #[expect(unsafe_code, reason = "calls a loop compiled for features checked at run time")]
    pub fn of(self, a: &[f32], b: &[f32]) -> f32 {
        assert_eq!(a.len(), b.len(), "vectors of one space have one length");
        // SAFETY: a `Kernel` is only handed out by `available`, which includes a set only after the CPU was seen to
        // have every feature its loops are compiled for; the lengths are equal, which is all the loops rely on.
        unsafe { (self.run)(a, b) }
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kernel")
    }
}

/// The loops of one instruction set.
#[derive(Debug)]
pub struct Kernels {
    /// What `cairn info` shows: `avx512`, `avx2` or `portable`.
    pub name: &'static str,
    /// Dot product.
    pub dot: Kernel,
    /// Squared Euclidean distance.
    pub l2_squared: Kernel,
    /// Manhattan distance.
    pub l1: Kernel,
}

/// The fastest set this CPU can run.
#[inline]
pub fn best() -> &'static Kernels {
    static BEST: LazyLock<&'static Kernels> = LazyLock::new(|| available()[0]);
    *BEST
}

/// Every set this CPU can run, fastest first. The portable one is always last.
pub fn available() -> Vec<&'static Kernels> {
    let mut sets: Vec<&'static Kernels> = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            sets.push(&avx512::SET);
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            sets.push(&avx2::SET);
        }
    }
    sets.push(&portable::SET);
    sets
}

/// Asks for the start of a row that will be read soon. A hint: no result, no effect but time.
///
/// Half a kilobyte is enough for the hardware's own stream prefetcher to follow.
#[inline]
#[cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "prefetch takes a raw address"))]
pub(super) fn prefetch<T>(row: &[T]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        const LINE: usize = 64;
        const AHEAD: usize = 512;
        let start = row.as_ptr().cast::<i8>();
        for offset in (0..size_of_val(row).min(AHEAD)).step_by(LINE) {
            // SAFETY: the address is inside `row`; and a prefetch never faults whatever the address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(start.add(offset)) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = row;
}

mod portable {
    //! Plain loops with as many independent sums as a wide register has lanes: floating-point addition may not be
    //! reordered by the compiler, so one running sum could never become SIMD.

    use super::{Kernel, Kernels};

    pub(super) static SET: Kernels = Kernels {
        name: "portable",
        dot: Kernel { run: dot },
        l2_squared: Kernel { run: l2_squared },
        l1: Kernel { run: l1 },
    };

    const LANES: usize = 16;

    fn dot(a: &[f32], b: &[f32]) -> f32 {
        sum(a, b, |x, y| x * y)
    }

    fn l2_squared(a: &[f32], b: &[f32]) -> f32 {
        sum(a, b, |x, y| (x - y) * (x - y))
    }

    fn l1(a: &[f32], b: &[f32]) -> f32 {
        sum(a, b, |x, y| (x - y).abs())
    }

    #[inline(always)]
    fn sum(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
        let (whole_a, tail_a) = a.as_chunks::<LANES>();
        let (whole_b, tail_b) = b.as_chunks::<LANES>();
        let mut lanes = [0.0f32; LANES];
        for (x, y) in whole_a.iter().zip(whole_b) {
            for lane in 0..LANES {
                lanes[lane] += term(x[lane], y[lane]);
            }
        }
        for ((lane, x), y) in lanes.iter_mut().zip(tail_a).zip(tail_b) {
            *lane += term(*x, *y);
        }
        lanes.iter().sum()
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    //! Eight lanes, four sums in flight: an FMA takes four cycles and two start in each, so fewer sums would wait.

    use super::{Kernel, Kernels};
    use std::arch::x86_64::*;

    pub(super) static SET: Kernels = Kernels {
        name: "avx2",
        dot: Kernel { run: dot },
        l2_squared: Kernel { run: l2_squared },
        l1: Kernel { run: l1 },
    };

    const LANES: usize = 8;
    const SUMS: usize = 4;

    /// One loop from its two forms of a step: for registers (`acc, x, y -> acc`) and for the tail's scalars (`x, y ->
    /// term`).
    macro_rules! kernel {
        ($name:ident, $step:expr, $term:expr) => {
            #[target_feature(enable = "avx2,fma")]
            #[expect(unsafe_code, reason = "register loads from slices")]
            fn $name(a: &[f32], b: &[f32]) -> f32 {
                let (blocks_a, rest_a) = a.as_chunks::<{ LANES * SUMS }>();
                let (blocks_b, rest_b) = b.as_chunks::<{ LANES * SUMS }>();
                let mut sums = [_mm256_setzero_ps(); SUMS];
                for (x, y) in blocks_a.iter().zip(blocks_b) {
                    for i in 0..SUMS {
                        // SAFETY: both blocks hold LANES * SUMS floats and i < SUMS; the load asks no alignment.
                        let (x, y) = unsafe {
                            (
                                _mm256_loadu_ps(x.as_ptr().add(i * LANES)),
                                _mm256_loadu_ps(y.as_ptr().add(i * LANES)),
                            )
                        };
                        sums[i] = $step(sums[i], x, y);
                    }
                }
                let (chunks_a, tail_a) = rest_a.as_chunks::<LANES>();
                let (chunks_b, tail_b) = rest_b.as_chunks::<LANES>();
                for (x, y) in chunks_a.iter().zip(chunks_b) {
                    // SAFETY: both chunks hold LANES floats; the load asks no alignment.
                    let (x, y) = unsafe { (_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(y.as_ptr())) };
                    sums[0] = $step(sums[0], x, y);
                }
                let all = _mm256_add_ps(_mm256_add_ps(sums[0], sums[1]), _mm256_add_ps(sums[2], sums[3]));
                let half = _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps::<1>(all));
                let quarter = _mm_add_ps(half, _mm_movehl_ps(half, half));
                let one = _mm_add_ss(quarter, _mm_movehdup_ps(quarter));
                let tail: f32 = tail_a.iter().zip(tail_b).map(|(x, y)| $term(*x, *y)).sum();
                _mm_cvtss_f32(one) + tail
            }
        };
    }

    kernel!(dot, |acc, x, y| _mm256_fmadd_ps(x, y, acc), |x: f32, y: f32| x * y);
    kernel!(
        l2_squared,
        |acc, x, y| {
            let d = _mm256_sub_ps(x, y);
            _mm256_fmadd_ps(d, d, acc)
        },
        |x: f32, y: f32| (x - y) * (x - y)
    );
    kernel!(
        l1,
        |acc, x, y| _mm256_add_ps(acc, _mm256_andnot_ps(_mm256_set1_ps(-0.0), _mm256_sub_ps(x, y))),
        |x: f32, y: f32| (x - y).abs()
    );
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    //! Sixteen lanes, four sums in flight; the tail is one masked load instead of a scalar loop.

    use super::{Kernel, Kernels};
    use std::arch::x86_64::*;

    pub(super) static SET: Kernels = Kernels {
        name: "avx512",
        dot: Kernel { run: dot },
        l2_squared: Kernel { run: l2_squared },
        l1: Kernel { run: l1 },
    };

    const LANES: usize = 16;
    const SUMS: usize = 4;

    /// One loop from its step (`acc, x, y -> acc`). Masked-off lanes load as zero in both operands, and every step
    /// leaves `acc` unchanged for two zeros.
    macro_rules! kernel {
        ($name:ident, $step:expr) => {
            #[target_feature(enable = "avx512f")]
            #[expect(unsafe_code, reason = "register loads from slices")]
            fn $name(a: &[f32], b: &[f32]) -> f32 {
                let (blocks_a, rest_a) = a.as_chunks::<{ LANES * SUMS }>();
                let (blocks_b, rest_b) = b.as_chunks::<{ LANES * SUMS }>();
                let mut sums = [_mm512_setzero_ps(); SUMS];
                for (x, y) in blocks_a.iter().zip(blocks_b) {
                    for i in 0..SUMS {
                        // SAFETY: both blocks hold LANES * SUMS floats and i < SUMS; the load asks no alignment.
                        let (x, y) = unsafe {
                            (
                                _mm512_loadu_ps(x.as_ptr().add(i * LANES)),
                                _mm512_loadu_ps(y.as_ptr().add(i * LANES)),
                            )
                        };
                        sums[i] = $step(sums[i], x, y);
                    }
                }
                for (x, y) in rest_a.chunks(LANES).zip(rest_b.chunks(LANES)) {
                    let mask = u16::MAX >> (LANES - x.len());
                    // SAFETY: the mask names the first x.len() lanes, chunks of equal slices have equal lengths
                    // (`Kernel::of` checked), and lanes that are masked off are not read.
                    let (x, y) = unsafe {
                        (
                            _mm512_maskz_loadu_ps(mask, x.as_ptr()),
                            _mm512_maskz_loadu_ps(mask, y.as_ptr()),
                        )
                    };
                    sums[0] = $step(sums[0], x, y);
                }
                let all = _mm512_add_ps(_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3]));
                _mm512_reduce_add_ps(all)
            }
        };
    }

    kernel!(dot, |acc, x, y| _mm512_fmadd_ps(x, y, acc));
    kernel!(l2_squared, |acc, x, y| {
        let d = _mm512_sub_ps(x, y);
        _mm512_fmadd_ps(d, d, acc)
    });
    kernel!(l1, |acc, x, y| _mm512_add_ps(acc, _mm512_abs_ps(_mm512_sub_ps(x, y))));
}
