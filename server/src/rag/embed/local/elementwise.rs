//! What the network does to single numbers, written so that the compiler makes vector instructions of it. candle's `gelu_erf`
//! calls the C library's `erf` in 64 bits for each number, on one thread, and its softmax calls `exp`: together more than
//! half of what the matrix products take.
//!
//! Functions on slices, and their wrapping as operations of candle. Everything is done in place; errors are below 1e-6 of
//! values that are of the size of 1.

use candle_core::{CpuStorage, InplaceOp1, InplaceOp2, Layout, Result, Tensor, bail};

use super::network::Activation;

/// Adds a bias to each row, then applies an activation.
pub(super) fn add_bias(rows: &Tensor, bias: &Tensor, then: Option<Activation>) -> Result<()> {
    rows.inplace_op2(bias, &AddBias(then))
}

/// Turns each row (along the last dimension) into shares that sum to 1: the exponentials of its numbers over their sum.
pub(super) fn softmax(rows: &Tensor) -> Result<()> {
    rows.inplace_op1(&Softmax)
}

struct AddBias(Option<Activation>);

impl InplaceOp2 for AddBias {
    fn name(&self) -> &'static str {
        "add-bias"
    }

    fn cpu_fwd(&self, rows: &mut CpuStorage, at: &Layout, bias: &CpuStorage, bias_at: &Layout) -> Result<()> {
        let bias = numbers(bias, bias_at)?;
        for row in numbers_mut(rows, at)?.chunks_mut(bias.len()) {
            for (x, b) in row.iter_mut().zip(bias) {
                *x += b;
            }
            match self.0 {
                None => {}
                Some(Activation::Gelu) => gelu(row),
                Some(Activation::GeluTanh) => gelu_tanh(row),
                Some(Activation::Relu) => row.iter_mut().for_each(|x| *x = x.max(0.0)),
            }
        }
        Ok(())
    }
}

struct Softmax;

impl InplaceOp1 for Softmax {
    fn name(&self) -> &'static str {
        "softmax-in-place"
    }

    fn cpu_fwd(&self, rows: &mut CpuStorage, at: &Layout) -> Result<()> {
        let Some(&width) = at.dims().last() else {
            bail!("a number alone has no rows");
        };
        for row in numbers_mut(rows, at)?.chunks_mut(width.max(1)) {
            shares(row);
        }
        Ok(())
    }
}

fn numbers<'a>(storage: &'a CpuStorage, at: &Layout) -> Result<&'a [f32]> {
    match (storage, at.contiguous_offsets()) {
        (CpuStorage::F32(all), Some((from, to))) => Ok(&all[from..to]),
        _ => bail!("rows of 32-bit floats, one after the other, are expected"),
    }
}

fn numbers_mut<'a>(storage: &'a mut CpuStorage, at: &Layout) -> Result<&'a mut [f32]> {
    match (storage, at.contiguous_offsets()) {
        (CpuStorage::F32(all), Some((from, to))) => Ok(&mut all[from..to]),
        _ => bail!("rows of 32-bit floats, one after the other, are expected"),
    }
}

/// x times the normal distribution up to x.
fn gelu(row: &mut [f32]) {
    for x in row {
        *x = 0.5 * *x * (1.0 + erf(*x * std::f32::consts::FRAC_1_SQRT_2));
    }
}

/// Its approximation with a hyperbolic tangent, as it was first published (Hendrycks & Gimpel 2016).
fn gelu_tanh(row: &mut [f32]) {
    let scale = (2.0 / std::f32::consts::PI).sqrt();
    for x in row {
        *x = 0.5 * *x * (1.0 + (scale * (*x + 0.044_715 * *x * *x * *x)).tanh());
    }
}

/// The error function as a quotient of polynomials, the coefficients those of Eigen's and XLA's (a minimax fit on -4 to 4,
/// beyond which it is ±1 in 32 bits).
#[inline(always)]
fn erf(x: f32) -> f32 {
    // A NaN stays one: it tells of damaged weights.
    let x = x.clamp(-4.0, 4.0);
    let s = x * x;
    let mut p = -2.726_142_3e-10;
    for c in [
        2.770_681_4e-8,
        -2.101_024e-6,
        -5.692_506_4e-5,
        -7.349_906_3e-4,
        -2.954_6e-3,
        -1.609_603_3e-2,
    ] {
        p = p * s + c;
    }
    let mut q = -1.456_607_2e-5;
    for c in [-2.133_740_6e-4, -1.682_827e-3, -7.373_329_2e-3, -1.426_473_9e-2] {
        q = q * s + c;
    }
    x * p / q
}

fn shares(row: &mut [f32]) {
    let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for x in row.iter_mut() {
        *x = exp(*x - largest);
    }
    for x in row.iter() {
        sum += x;
    }
    let share = 1.0 / sum;
    for x in row.iter_mut() {
        *x *= share;
    }
}

/// The exponential of a number that is not positive: 2 to the whole part of x / ln 2, times a polynomial of the rest
/// (Moshier's Cephes, `expf`). Below -87 it is what -87 gives, 1.6e-38, which is nothing beside the 1 of the largest.
#[inline(always)]
fn exp(x: f32) -> f32 {
    // Adding 1.5 * 2^23 rounds to a whole number, which then stands in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    let x = if x < -87.0 { -87.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let whole = shifted - ROUND;
    let rest = x - whole * 0.693_359_4 + whole * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5] {
        p = p * rest + c;
    }
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    (p * rest * rest + rest + 1.0) * power
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    /// By its Taylor series near 0, by its continued fraction elsewhere, in 64 bits.
    fn exact_erf(x: f64) -> f64 {
        if x.abs() < 3.0 {
            let (mut term, mut sum) = (x, x);
            for n in 1..200 {
                let n = f64::from(n);
                term *= -x * x / n;
                sum += term / (2.0 * n + 1.0);
            }
            return sum * 2.0 / std::f64::consts::PI.sqrt();
        }
        let mut fraction = x.abs();
        for n in (1..200).rev() {
            fraction = x.abs() + f64::from(n) / 2.0 / fraction;
        }
        (1.0 - (-x * x).exp() / (fraction * std::f64::consts::PI.sqrt())).copysign(x)
    }

    #[test]
    fn activations_and_exponentials_are_exact_to_a_millionth() {
        for i in -120_000..=120_000 {
            let x = i as f32 / 10_000.0;
            let exact = f64::from(x);
            let mut found = [x; 2];
            gelu(&mut found[..1]);
            gelu_tanh(&mut found[1..]);
            let expected = 0.5 * exact * (1.0 + exact_erf(exact / 2f64.sqrt()));
            assert!(
                (f64::from(found[0]) - expected).abs() < 1e-6 * exact.abs().max(1.0),
                "{x}: {found:?}, not {expected}"
            );
            assert!(
                (f64::from(found[1]) - expected).abs() < 1e-3,
                "{x}: {found:?} is near {expected}"
            );
            if x <= 0.0 {
                let expected = exact.exp();
                assert!(
                    (f64::from(exp(x)) / expected - 1.0).abs() < 3e-7,
                    "{x}: {}, not {expected}",
                    exp(x)
                );
            }
        }
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(-1e9) > 0.0 && exp(-1e9) < 1e-37);
        let mut odd = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
        gelu(&mut odd);
        assert!(odd[0].is_nan() && odd[1] == f32::INFINITY, "{odd:?}");
    }

    #[test]
    fn rows_of_tensors_get_their_bias_and_become_shares() {
        let rows = Tensor::new(&[[1f32, -2.0, 3.0], [0.0, 0.0, 0.0]], &Device::Cpu).unwrap();
        let bias = Tensor::new(&[1f32, 1.0, -3.0], &Device::Cpu).unwrap();
        add_bias(&rows, &bias, Some(Activation::Relu)).unwrap();
        assert_eq!(rows.to_vec2::<f32>().unwrap(), [[2.0, 0.0, 0.0], [1.0, 1.0, 0.0]]);
        softmax(&rows).unwrap();
        for (row, exponents) in rows
            .to_vec2::<f32>()
            .unwrap()
            .iter()
            .zip([[2f64, 0.0, 0.0], [1.0, 1.0, 0.0]])
        {
            let sum: f64 = exponents.iter().map(|x| x.exp()).sum();
            for (share, x) in row.iter().zip(exponents) {
                assert!((f64::from(*share) - x.exp() / sum).abs() < 1e-6, "{row:?}");
            }
        }
        let turned = rows.t().unwrap();
        assert!(
            softmax(&turned).is_err(),
            "rows that do not stand one after the other are refused"
        );
    }
}
