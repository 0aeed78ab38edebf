//! Gaussian noise that PyTorch users can reproduce: Philox4x32-10 as its CUDA
//! generator lays it out, and mt19937 as its CPU generator.

/// One block of Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy
/// as 1, 2, 3", SC'11): key = `seed` (low word, high word), counter =
/// (`offset`, 0, `index`, 0).
///
/// `offset` counts the tensors drawn so far from this seed, `index` is the
/// element within the tensor; this is how PyTorch's CUDA generator numbers the
/// draws of tensors that are small enough for one thread an element.
#[must_use]
pub fn philox_block(seed: u64, offset: u32, index: u32) -> [u32; 4] {
    const MULTIPLIERS: [u64; 2] = [0xD251_1F53, 0xCD9E_8D57];
    const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
    const ROUNDS: u32 = 10;

    let [mut k0, mut k1] = [low(seed), high(seed)];
    let [mut c0, mut c1, mut c2, mut c3] = [offset, 0, index, 0];
    for _ in 0..ROUNDS {
        let product0 = MULTIPLIERS[0] * u64::from(c0);
        let product1 = MULTIPLIERS[1] * u64::from(c2);
        [c0, c1, c2, c3] = [high(product1) ^ c1 ^ k0, low(product1), high(product0) ^ c3 ^ k1, low(product0)];
        k0 = k0.wrapping_add(WEYL[0]);
        k1 = k1.wrapping_add(WEYL[1]);
    }
    [c0, c1, c2, c3]
}

/// Element `index` of draw `offset` of `torch.randn(…, device="cuda")` seeded
/// with `seed`.
///
/// Box–Muller in f32 as cuRAND's `_curand_box_muller`, of which PyTorch keeps
/// the sine branch for tensors of this size.
#[must_use]
pub fn cuda_normal(seed: u64, offset: u32, index: u32) -> f32 {
    const TWO_POW_MINUS_32: f32 = 1.0 / 4_294_967_296.0;
    const ANGLE: f32 = TWO_POW_MINUS_32 * std::f32::consts::TAU;

    let [a, b, _, _] = philox_block(seed, offset, index);
    // The half step keeps u above 0, so that its logarithm is finite.
    let u = a as f32 * TWO_POW_MINUS_32 + TWO_POW_MINUS_32 / 2.0;
    let v = b as f32 * ANGLE + ANGLE / 2.0;
    (-2.0 * u.ln()).sqrt() * v.sin()
}

/// PyTorch's CPU generator (`torch.Generator("cpu").manual_seed(seed)`):
/// mt19937 (Matsumoto & Nishimura 1998) and PyTorch's two ways to normal
/// samples.
#[derive(Clone, Debug)]
pub struct CpuGenerator {
    state: [u32; STATE],
    next: usize,
    /// Second value of the last scalar Box–Muller pair; PyTorch keeps it from
    /// one tensor to the next.
    spare: Option<f64>,
}

/// Words of mt19937's state, and the distance of its recurrence.
const STATE: usize = 624;
const DISTANCE: usize = 397;
/// Box–Muller works on this many values: 8 radii, then 8 angles.
const BLOCK: usize = 16;

impl CpuGenerator {
    /// A generator as after `manual_seed(seed)`; mt19937 takes the low 32 bits.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut state = [low(seed); STATE];
        for i in 1..STATE {
            let previous = state[i - 1];
            state[i] = 1_812_433_253_u32.wrapping_mul(previous ^ (previous >> 30)).wrapping_add(i as u32);
        }
        Self { state, next: STATE, spare: None }
    }

    /// The next tensor of `n` elements as `torch.randn(n, generator=…)` gives it.
    ///
    /// The bits of the uniform draws are PyTorch's; the samples differ from it
    /// by some units in the last place, because its logarithm, sine and cosine
    /// are vectorised approximations (measured on x86-64: below 5e-7).
    #[must_use]
    pub fn normal(&mut self, n: usize) -> Vec<f32> {
        if n < BLOCK {
            return (0..n).map(|_| self.scalar_normal() as f32).collect();
        }
        let mut values: Vec<f32> = (0..n).map(|_| self.uniform_f32()).collect();
        let (blocks, rest) = values.as_chunks_mut::<BLOCK>();
        blocks.iter_mut().for_each(box_muller);
        if !rest.is_empty() {
            // The last block overlaps the one before: PyTorch draws all of it anew.
            let last = values.last_chunk_mut::<BLOCK>().expect("n is at least one block");
            last.fill_with(|| self.uniform_f32());
            box_muller(last);
        }
        values
    }

    /// Uniform in [0, 1) from the low 24 bits of one word.
    fn uniform_f32(&mut self) -> f32 {
        const BITS: u32 = 24;
        (self.word() & ((1 << BITS) - 1)) as f32 / (1_u32 << BITS) as f32
    }

    /// Uniform in [0, 1) from the low 53 bits of two words, high word first.
    fn uniform_f64(&mut self) -> f64 {
        const BITS: u32 = 53;
        let bits = u64::from(self.word()) << 32 | u64::from(self.word());
        (bits & ((1 << BITS) - 1)) as f64 / (1_u64 << BITS) as f64
    }

    fn scalar_normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let angle = std::f64::consts::TAU * self.uniform_f64();
        let radius = (-2.0 * (-self.uniform_f64()).ln_1p()).sqrt();
        self.spare = Some(radius * angle.sin());
        radius * angle.cos()
    }

    /// The next tempered word of mt19937.
    fn word(&mut self) -> u32 {
        if self.next == STATE {
            self.twist();
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9D2C_5680;
        y ^= (y << 15) & 0xEFC6_0000;
        y ^ (y >> 18)
    }

    fn twist(&mut self) {
        for i in 0..STATE {
            let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % STATE] & 0x7FFF_FFFF);
            let odd = if y & 1 == 1 { 0x9908_B0DF } else { 0 };
            self.state[i] = self.state[(i + DISTANCE) % STATE] ^ (y >> 1) ^ odd;
        }
        self.next = 0;
    }
}

/// Uniforms to normals in place: the first half are radii, the second angles.
fn box_muller(block: &mut [f32; BLOCK]) {
    for i in 0..BLOCK / 2 {
        // 1 − u is in (0, 1], where the logarithm is finite.
        let radius = (-2.0 * (1.0 - block[i]).ln()).sqrt();
        let angle = std::f32::consts::TAU * block[i + BLOCK / 2];
        block[i] = radius * angle.cos();
        block[i + BLOCK / 2] = radius * angle.sin();
    }
}

fn low(x: u64) -> u32 {
    x as u32
}

fn high(x: u64) -> u32 {
    (x >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_test_vector_of_random123() {
        assert_eq!(philox_block(0, 0, 0), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
    }

    #[test]
    fn cuda_normals_are_those_printed_by_pytorch() {
        // torch.randn(20, device="cuda") after torch.manual_seed(0), as printed.
        let printed = [
            -0.9247, -0.4253, -2.6438, 0.1452, -0.1209, -0.5797, -0.6229, -0.3284, -1.0745, -0.3631, -1.6711,
            2.2655, 0.3117, -0.1842, 1.2866, 1.1820, -0.1271, 1.2169, 1.4353, 1.0605,
        ];
        for (i, want) in printed.into_iter().enumerate() {
            let got = cuda_normal(0, 0, i as u32);
            assert!((got - want).abs() <= 0.5001e-4, "element {i}: {got}, {want}");
        }
    }

    #[test]
    fn mt19937_gives_the_10000th_word_of_the_standard() {
        // C++11 [rand.predef]: the 10000th word for the default seed 5489.
        let mut generator = CpuGenerator::new(5489);
        let mut words = std::iter::repeat_with(|| generator.word());
        assert_eq!(words.nth(9999), Some(4_123_659_995));
    }
}
