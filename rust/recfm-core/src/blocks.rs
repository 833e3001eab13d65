//! Checksums by block, and slices of a file that are verified where they are first touched.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use xxhash_rust::xxh3::xxh3_64;

use crate::{Error, Result};

/// Bytes that one checksum covers.
pub const BLOCK: usize = 256 << 10;

/// XXH3 of each block of `bytes`; the last block may be shorter.
pub fn block_sums(bytes: &[u8]) -> Vec<u64> {
    bytes.chunks(BLOCK).map(xxh3_64).collect()
}

/// Which blocks of a file were found whole.
#[derive(Debug)]
pub struct Seen(Vec<AtomicU64>);

impl Seen {
    /// None of `blocks` yet.
    pub fn new(blocks: usize) -> Self {
        Self(
            (0..blocks.div_ceil(64))
                .map(|_| AtomicU64::new(0))
                .collect(),
        )
    }

    fn has(&self, block: usize) -> bool {
        self.0[block / 64].load(Ordering::Relaxed) >> (block % 64) & 1 == 1
    }

    fn add(&self, block: usize) {
        self.0[block / 64].fetch_or(1 << (block % 64), Ordering::Relaxed);
    }
}

/// A file in memory (mapped, usually) with what it must hold.
#[derive(Debug, Clone, Copy)]
pub struct Blocks<'a> {
    /// Name of the file, for messages.
    pub file: &'a str,
    /// The bytes that have checksums.
    pub bytes: &'a [u8],
    /// Checksum of each block.
    pub sums: &'a [u64],
    /// Blocks that need no second look; made for as many blocks as there are checksums.
    pub seen: &'a Seen,
}

impl Blocks<'_> {
    /// Verifies the blocks that `values`, a slice of this file, lies in.
    pub fn check<T>(&self, values: &[T]) -> Result<()> {
        let start = (values.as_ptr() as usize).wrapping_sub(self.bytes.as_ptr() as usize);
        self.check_range(start, size_of_val(values))
    }

    /// Verifies the blocks of `length` bytes from `start`.
    pub fn check_range(&self, start: usize, length: usize) -> Result<()> {
        if length == 0 {
            return Ok(());
        }
        let stop = start.saturating_add(length);
        if stop > self.bytes.len() {
            return Err(Error::Unchecked {
                file: self.file.to_owned(),
                start,
                stop,
            });
        }
        (start / BLOCK..=(stop - 1) / BLOCK).try_for_each(|block| self.check_block(block))
    }

    fn check_block(&self, block: usize) -> Result<()> {
        if block < self.sums.len() && self.seen.has(block) {
            return Ok(());
        }
        let start = block * BLOCK;
        let bytes = &self.bytes[start..self.bytes.len().min(start + BLOCK)];
        if self.sums.get(block) != Some(&xxh3_64(bytes)) {
            return Err(Error::Damaged {
                file: self.file.to_owned(),
                start,
                stop: start + bytes.len(),
            });
        }
        self.seen.add(block);
        Ok(())
    }
}

/// Values in memory, or in a file whose blocks are verified on the way.
#[derive(Debug)]
pub struct Column<'a, T> {
    values: &'a [T],
    blocks: Option<Blocks<'a>>,
}

impl<T> Clone for Column<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Column<'_, T> {}

impl<'a, T> From<&'a [T]> for Column<'a, T> {
    fn from(values: &'a [T]) -> Self {
        Self {
            values,
            blocks: None,
        }
    }
}

impl<'a, T: Copy> Column<'a, T> {
    /// Values that are part of `blocks`' file, or of memory where there is none.
    pub fn new(values: &'a [T], blocks: Option<Blocks<'a>>) -> Self {
        Self { values, blocks }
    }

    /// Number of values.
    pub fn len(self) -> usize {
        self.values.len()
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.values.is_empty()
    }

    /// One value.
    #[inline]
    pub fn get(self, at: usize) -> Result<T> {
        Ok(self.range(at..at + 1)?[0])
    }

    /// Some values.
    #[inline]
    pub fn range(self, range: Range<usize>) -> Result<&'a [T]> {
        let Some(values) = self.values.get(range.clone()) else {
            return Err(Error::IndexRange {
                start: range.start,
                stop: range.end,
                n: self.values.len(),
            });
        };
        if let Some(blocks) = &self.blocks {
            blocks.check(values)?;
        }
        Ok(values)
    }

    /// All values.
    pub fn all(self) -> Result<&'a [T]> {
        self.range(0..self.len())
    }

    /// Whether every look is verified.
    pub(crate) fn is_checked(self) -> bool {
        self.blocks.is_some()
    }

    /// The values without a look at their checksums, for hints that change no answer.
    pub(crate) fn unchecked(self) -> &'a [T] {
        self.values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_block_is_named_and_the_others_are_read() {
        let whole: Vec<u8> = (0..BLOCK * 3 + 5).map(|i| (i % 251) as u8).collect();
        let sums = block_sums(&whole);
        assert_eq!(sums.len(), 4);
        let mut bytes = whole.clone();
        bytes[BLOCK + 7] ^= 1;
        let seen = Seen::new(sums.len());
        let blocks = Blocks {
            file: "f",
            bytes: &bytes,
            sums: &sums,
            seen: &seen,
        };
        let column = Column::new(&bytes[10..], Some(blocks));
        assert_eq!(column.get(0), Ok(10));
        assert_eq!(column.get(BLOCK * 3 - 10), Ok(whole[BLOCK * 3]));
        for _ in 0..2 {
            let error = column.range(5..BLOCK).unwrap_err();
            assert_eq!(
                error,
                Error::Damaged {
                    file: "f".into(),
                    start: BLOCK,
                    stop: 2 * BLOCK
                }
            );
        }
    }

    #[test]
    fn a_missing_checksum_and_foreign_memory_are_refused() {
        let bytes = vec![0_u8; BLOCK + 1];
        let seen = Seen::new(1);
        let sums = block_sums(&bytes[..BLOCK]);
        let blocks = Blocks {
            file: "f",
            bytes: &bytes,
            sums: &sums,
            seen: &seen,
        };
        assert!(blocks.check(&bytes[..BLOCK]).is_ok());
        assert!(matches!(
            blocks.check(&bytes),
            Err(Error::Damaged { start: BLOCK, .. })
        ));
        assert!(matches!(
            blocks.check(&[1_u8]),
            Err(Error::Unchecked { .. })
        ));
    }
}
