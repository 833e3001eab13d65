//! XXH3 with 64 bits and a seed, unrolled for the lengths that ids and names have.
//!
//! What depends on the seed alone is computed once; longer input goes to the library. A test compares both on
//! every length.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The part of XXH3's published secret that inputs of 4 to 16 bytes use.
const SECRET: [u64; 6] = [
    0x1cad_21f7_2c81_017c,
    0xdb97_9083_e96d_d4de,
    0x1f67_b3b7_a4a4_4072,
    0x78e5_c0cc_4ee6_79cb,
    0x2172_ffcc_7dd0_5a82,
    0x8e24_43f7_7446_08b8,
];

const RRMXMX: u64 = 0x9fb2_1c65_1e98_df25;
const AVALANCHE: u64 = 0x1656_6791_9e37_79f9;

/// XXH3 under one seed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Xxh3 {
    seed: u64,
    /// For 4 to 8 bytes.
    flip: u64,
    /// For 9 to 16 bytes.
    flips: [u64; 2],
}

impl Xxh3 {
    pub(crate) fn new(seed: u64) -> Self {
        let spread = seed ^ (u64::from((seed as u32).swap_bytes()) << 32);
        Self {
            seed,
            flip: (SECRET[0] ^ SECRET[1]).wrapping_sub(spread),
            flips: [
                (SECRET[2] ^ SECRET[3]).wrapping_add(seed),
                (SECRET[4] ^ SECRET[5]).wrapping_sub(seed),
            ],
        }
    }

    /// The hash of an integer's 8 little-endian bytes.
    #[inline]
    pub(crate) fn of_int(self, value: i64) -> u64 {
        self.up_to_8((value as u64).rotate_left(32), 8)
    }

    #[inline]
    pub(crate) fn of(self, bytes: &[u8]) -> u64 {
        let len = bytes.len();
        if let (4..=8, Some(first), Some(last)) = (len, bytes.first_chunk(), bytes.last_chunk()) {
            let (first, last) = (u32::from_le_bytes(*first), u32::from_le_bytes(*last));
            return self.up_to_8(u64::from(last) | (u64::from(first) << 32), len as u64);
        }
        if let (9..=16, Some(first), Some(last)) = (len, bytes.first_chunk(), bytes.last_chunk()) {
            let low = u64::from_le_bytes(*first) ^ self.flips[0];
            let high = u64::from_le_bytes(*last) ^ self.flips[1];
            let product = u128::from(low) * u128::from(high);
            let folded = product as u64 ^ (product >> 64) as u64;
            let sum = (len as u64)
                .wrapping_add(low.swap_bytes())
                .wrapping_add(high)
                .wrapping_add(folded);
            let mixed = (sum ^ (sum >> 37)).wrapping_mul(AVALANCHE);
            return mixed ^ (mixed >> 32);
        }
        xxh3_64_with_seed(bytes, self.seed)
    }

    /// `input` holds the last 4 bytes below the first 4.
    #[inline]
    fn up_to_8(self, input: u64, len: u64) -> u64 {
        let mut x = input ^ self.flip;
        x ^= x.rotate_left(49) ^ x.rotate_left(24);
        x = x.wrapping_mul(RRMXMX);
        x ^= (x >> 35).wrapping_add(len);
        x = x.wrapping_mul(RRMXMX);
        x ^ (x >> 28)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_hashes_as_the_library_does() {
        let bytes: Vec<u8> = (0..300_u32).map(|i| (i * 167 + 13) as u8).collect();
        for seed in [0, 1, 0x9e37_79b9_7f4a_7c15, u64::MAX] {
            let hash = Xxh3::new(seed);
            for len in 0..=bytes.len() {
                for start in 0..(bytes.len() - len).min(9) {
                    let bytes = &bytes[start..start + len];
                    assert_eq!(
                        hash.of(bytes),
                        xxh3_64_with_seed(bytes, seed),
                        "{len} bytes"
                    );
                }
            }
            for value in [0, 1, -1, i64::MIN, i64::MAX, 0x0123_4567_89ab_cdef] {
                let expected = xxh3_64_with_seed(&value.to_le_bytes(), seed);
                assert_eq!(hash.of_int(value), expected);
            }
        }
    }
}
