//! Generated data for the benches: the same on every run and machine, skewed as real logs are.

use std::time::Duration;

use criterion::Criterion;

/// How every bench measures: few samples, seconds in all.
pub fn settings() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(2))
}

/// Events of a log: who and when, in time order.
pub struct Log {
    /// User of each event; a few users have most of them.
    pub user: Vec<i64>,
    /// Time of each event in seconds.
    pub time: Vec<i64>,
}

/// A log of `n` events by at most `users` users.
pub fn log(n: usize, users: u64) -> Log {
    let mut random = Random(1);
    let user = (0..n).map(|_| random.skewed(users) as i64).collect();
    let time = (0..n as i64).map(|i| 1_700_000_000 + i * 3).collect();
    Log { user, time }
}

/// `n` ids below `bound`, skewed.
pub fn ids(n: usize, bound: u64) -> Vec<i32> {
    let mut random = Random(3);
    (0..n).map(|_| random.skewed(bound) as i32).collect()
}

/// Scores with ties, and labels that follow them.
pub fn scored(n: usize) -> (Vec<f32>, Vec<f64>) {
    let mut random = Random(2);
    (0..n)
        .map(|_| {
            let score = random.below(10_000) as f64 / 10_000.0;
            let label = if (random.below(10_000) as f64 / 10_000.0) < score {
                1.0
            } else {
                0.0
            };
            (label, score)
        })
        .unzip()
}

/// `count` numbers below `bound`.
pub fn picks(count: usize, bound: u64) -> Vec<i64> {
    let mut random = Random(3);
    (0..count).map(|_| random.below(bound) as i64).collect()
}

/// `n` numbers around 0, as what enters a layer: the standard deviation is 1.
pub fn bell(n: usize) -> Vec<f32> {
    let mut random = Random(4);
    let draw = |_| (0..12).map(|_| random.below(1 << 20) as f32).sum::<f32>();
    (0..n)
        .map(draw)
        .map(|sum| sum / (1 << 20) as f32 - 6.0)
        .collect()
}

/// `SplitMix64`.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// The smaller of two draws: low numbers come more often.
    fn skewed(&mut self, bound: u64) -> u64 {
        self.below(bound).min(self.below(bound))
    }
}
