//! Counter-based random numbers: Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy
//! as 1, 2, 3", SC'11), keyed by what a draw is for, so that it does not depend on batch size,
//! thread count, device, or on what was drawn before.

/// What a stream of random numbers is used for; part of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Purpose {
    /// Initial weights; `sample` is the index of the parameter.
    Init = 1,
    /// Order of training images; `step` is the epoch.
    Shuffle = 2,
    /// Horizontal flips of training images.
    Flip = 3,
    /// Diffusion timestep of a training sample.
    Timestep = 4,
    /// Noise of a training sample.
    TrainNoise = 5,
    /// Whether a training sample's label is dropped.
    LabelDrop = 6,
    /// Stochastic depth; `sample` is the sample, the stream's position the site.
    DropPath = 7,
    /// Start noise of a sampler.
    SampleStart = 8,
    /// Noise of a sampler's step.
    SampleStep = 9,
    /// Draw of a latent from its encoder's Gaussian; `sample` is the image.
    Posterior = 10,
    /// Subsets and resamples of metrics; `sample` says which metric, `step` which draw.
    Metric = 40,
    /// Anything in tests and studies.
    Test = 100,
}

/// A stream of random numbers, fully determined by its key.
#[derive(Clone, Debug)]
pub struct Stream {
    key: [u32; 2],
    counter: [u32; 4],
    block: [u32; 4],
    used: usize,
    spare_normal: Option<f64>,
}

const MULTIPLIER: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// The ten rounds of Philox 4x32.
pub fn philox4x32(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let p0 = u64::from(MULTIPLIER[0]) * u64::from(counter[0]);
        let p1 = u64::from(MULTIPLIER[1]) * u64::from(counter[2]);
        counter = [
            (p1 >> 32) as u32 ^ counter[1] ^ key[0],
            p1 as u32,
            (p0 >> 32) as u32 ^ counter[3] ^ key[1],
            p0 as u32,
        ];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

impl Stream {
    /// The stream for one use: `seed` of the run, `purpose`, index of the `sample` (image,
    /// parameter, ...) and `step` (epoch, iteration). Up to 2^32 blocks of four numbers are
    /// distinct; `step` and `sample` are mixed into key and counter, so equal keys mean equal use.
    pub fn new(seed: u64, purpose: Purpose, sample: u64, step: u64) -> Self {
        // Two Philox calls hash (seed, purpose, sample, step) into a key and the upper counter.
        let seed = [seed as u32, (seed >> 32) as u32];
        let a = philox4x32(
            [
                sample as u32,
                (sample >> 32) as u32,
                step as u32,
                (step >> 32) as u32,
            ],
            [seed[0] ^ purpose as u32, seed[1]],
        );
        Self {
            key: [a[0], a[1]],
            counter: [0, purpose as u32, a[2], a[3]],
            block: [0; 4],
            used: 4,
            spare_normal: None,
        }
    }

    /// 32 uniform bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.used == 4 {
            self.block = philox4x32(self.counter, self.key);
            self.counter[0] = self.counter[0].wrapping_add(1);
            self.used = 0;
        }
        self.used += 1;
        self.block[self.used - 1]
    }

    /// 64 uniform bits.
    pub fn next_u64(&mut self) -> u64 {
        let low = u64::from(self.next_u32());
        low | u64::from(self.next_u32()) << 32
    }

    /// Uniform in [0, 1), 53 bits.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in `0 .. n`, without bias. Returns 0 for n = 0.
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 {
            return 0;
        }
        // Rejects the tail that would make small values more likely.
        let limit = u64::MAX - u64::MAX % n;
        loop {
            let x = self.next_u64();
            if x < limit {
                return x % n;
            }
        }
    }

    /// Standard normal (Box and Muller), through `libm` so that every platform gets the same bits.
    pub fn normal(&mut self) -> f64 {
        if let Some(z) = self.spare_normal.take() {
            return z;
        }
        let radius = libm::sqrt(-2.0 * libm::log(1.0 - self.uniform()));
        let angle = std::f64::consts::TAU * self.uniform();
        self.spare_normal = Some(radius * libm::sin(angle));
        radius * libm::cos(angle)
    }

    /// Fills with standard normals.
    pub fn fill_normal(&mut self, out: &mut [f32]) {
        for x in out {
            *x = self.normal() as f32;
        }
    }

    /// A random order of `0 .. n` (Fisher and Yates).
    pub fn permutation(&mut self, n: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..n as u32).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i as u64 + 1) as usize);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers published with Random123 (kat_vectors, philox4x32 10).
    #[test]
    fn philox_known_answers() {
        assert_eq!(
            philox4x32([0; 4], [0; 2]),
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
        );
        assert_eq!(
            philox4x32([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox4x32(
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0]
            ),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn normals_have_unit_moments() {
        let mut s = Stream::new(7, Purpose::Test, 0, 0);
        let n = 200_000;
        let (mut sum, mut squares) = (0.0, 0.0);
        for _ in 0..n {
            let z = s.normal();
            sum += z;
            squares += z * z;
        }
        let n = f64::from(n);
        assert!((sum / n).abs() < 5.0 / n.sqrt());
        assert!((squares / n - 1.0).abs() < 5.0 * (2.0 / n).sqrt());
    }

    #[test]
    fn keys_separate_streams() {
        let first = |p, sample, step| Stream::new(1, p, sample, step).next_u64();
        let base = first(Purpose::Test, 0, 0);
        assert_ne!(base, first(Purpose::Init, 0, 0));
        assert_ne!(base, first(Purpose::Test, 1, 0));
        assert_ne!(base, first(Purpose::Test, 0, 1));
        assert_eq!(base, first(Purpose::Test, 0, 0));
    }

    #[test]
    fn permutation_is_one() {
        let mut p = Stream::new(3, Purpose::Test, 0, 0).permutation(257);
        p.sort_unstable();
        assert!(p.iter().enumerate().all(|(i, &x)| i as u32 == x));
    }
}
