//! Whole tables of values to ids: row-major, all columns of some rows at a time, so that a row is written once.

use std::ops::Range;

use multiversion::multiversion;
use rayon::prelude::*;

use crate::column::{Chunk, malformed, spans, total_len};
use crate::hash::{Hasher, UNKNOWN};
use crate::values::Readable;
use crate::vocab::Vocab;
use crate::{Error, Result, pool};

/// Rows encoded at a time; their ids stay in the first cache while the columns take turns.
const BLOCK: usize = 256;
/// Blocks that one task takes at least.
const MIN_BLOCKS: usize = 16;

/// How the values of a column become ids.
#[derive(Debug, Clone, Copy)]
pub enum Encoding<'a> {
    /// By the vocabulary of a fit.
    Vocab(&'a Vocab),
    /// By hashing.
    Hash(&'a Hasher),
}

impl Encoding<'_> {
    fn name(&self) -> &str {
        match self {
            Self::Vocab(vocab) => vocab.name(),
            Self::Hash(hasher) => hasher.name(),
        }
    }

    /// The ids of some rows of a chunk; the row that cannot be read, if there is one.
    fn fill(&self, chunk: &Chunk<'_>, rows: Range<usize>, out: &mut [i32]) -> Readable {
        match self {
            Self::Hash(hasher) => hash_rows(hasher, chunk, rows, out),
            Self::Vocab(vocab) => vocab.fill(chunk, rows, out),
        }
    }
}

/// Compiled twice, the second time for processors with wide vectors, and chosen when it runs.
#[multiversion(targets("x86_64+avx2+bmi1+bmi2+lzcnt+fma"))]
fn hash_rows(hasher: &Hasher, chunk: &Chunk<'_>, rows: Range<usize>, out: &mut [i32]) -> Readable {
    let (int, str) = (|value| hasher.int(value), |bytes: &[u8]| hasher.str(bytes));
    chunk.fill(rows, out, UNKNOWN, int, str)
}

/// A column and how it is encoded.
#[derive(Debug)]
pub struct Column<'a> {
    encoding: Encoding<'a>,
    chunks: &'a [Chunk<'a>],
    /// Of a chunk that is a dictionary, the id of each of its values.
    images: Vec<Option<Vec<i32>>>,
}

impl<'a> Column<'a> {
    /// Pairs a column with its encoding.
    pub fn new(encoding: Encoding<'a>, chunks: &'a [Chunk<'a>]) -> Result<Self> {
        if let Encoding::Vocab(vocab) = encoding {
            vocab.check(chunks)?;
        }
        let images = chunks.iter().map(|chunk| {
            let Some((values, _)) = chunk.dictionary() else {
                return Ok(None);
            };
            let values = [Chunk::new(values.clone())];
            encode(encoding, &values).map(Some)
        });
        Ok(Self {
            encoding,
            chunks,
            images: images.collect::<Result<_>>()?,
        })
    }

    /// The ids of the rows from `first` on.
    fn ids(&self, first: usize, out: &mut [i32]) -> Result<()> {
        for (place, before, local) in spans(self.chunks, first..first + out.len()) {
            let chunk = &self.chunks[place];
            let begin = before + local.start - first;
            let out = &mut out[begin..begin + local.len()];
            if let (Some(images), Some((_, keys))) = (&self.images[place], chunk.dictionary()) {
                for (out, &key) in out.iter_mut().zip(&keys[local]) {
                    *out = images.get(key as usize).copied().unwrap_or(UNKNOWN);
                }
            } else {
                self.encoding
                    .fill(chunk, local, out)
                    .map_err(|row| malformed(self.encoding.name(), before + row))?;
            }
        }
        Ok(())
    }
}

/// Fills `out [n, columns.len()]` with the id of every value.
pub fn encode_columns(columns: &[Column<'_>], out: &mut [i32]) -> Result<()> {
    let width = columns.len();
    let rows = out.len().checked_div(width).unwrap_or(0);
    for column in columns {
        let found = total_len(column.chunks);
        if found != rows {
            return Err(Error::ColumnLength {
                column: column.encoding.name().to_owned(),
                found,
                rows,
            });
        }
    }
    if out.is_empty() {
        return Ok(());
    }
    pool::install(|| {
        let blocks = out.par_chunks_mut(BLOCK * width).enumerate();
        blocks
            .with_min_len(MIN_BLOCKS)
            .try_for_each(|(block, out)| {
                let mut ids = [0; BLOCK];
                let ids = &mut ids[..out.len() / width];
                for (place, column) in columns.iter().enumerate() {
                    column.ids(block * BLOCK, ids)?;
                    for (out, &id) in out[place..].iter_mut().step_by(width).zip(&*ids) {
                        *out = id;
                    }
                }
                Ok(())
            })
    })?
}

/// The ids of one column.
pub fn encode(encoding: Encoding<'_>, chunks: &[Chunk<'_>]) -> Result<Vec<i32>> {
    let mut out = vec![0; total_len(chunks)];
    encode_columns(&[Column::new(encoding, chunks)?], &mut out)?;
    Ok(out)
}

/// The newest `length` elements of each list: lists are stored oldest first, so the last ones stay.
pub fn keep_newest(values: &[i32], offsets: &[i64], length: usize) -> (Vec<i32>, Vec<i64>) {
    let mut kept = Vec::with_capacity(values.len());
    let mut bounds = Vec::with_capacity(offsets.len());
    bounds.push(0);
    for pair in offsets.windows(2) {
        let (start, stop) = (pair[0] as usize, pair[1] as usize);
        kept.extend_from_slice(&values[start.max(stop.saturating_sub(length))..stop]);
        bounds.push(kept.len() as i64);
    }
    (kept, bounds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::column::tests::{Text, ints};

    #[test]
    fn rows_of_several_columns_lie_side_by_side() {
        let (a, b) = ([ints(&[7, 8]), ints(&[7])], [ints(&[1, 1, 2])]);
        let (first, second) = (
            Vocab::fit(&a, "a", 1).unwrap(),
            Vocab::fit(&b, "b", 1).unwrap(),
        );
        let columns = [
            Column::new(Encoding::Vocab(&first), &a).unwrap(),
            Column::new(Encoding::Vocab(&second), &b).unwrap(),
        ];
        let mut out = [0; 6];
        encode_columns(&columns, &mut out).unwrap();
        assert_eq!(out, [2, 2, 3, 2, 2, 3]);
        let short = encode_columns(&columns, &mut out[..4]);
        assert!(matches!(
            short,
            Err(Error::ColumnLength {
                found: 3,
                rows: 2,
                ..
            })
        ));
    }

    #[test]
    fn a_dictionary_and_its_values_have_the_same_ids() {
        let text = Text::new(&[Some("x"), None, Some("a long string, not inline")]);
        let hasher = Hasher::new("f", 1000).unwrap();
        let plain = encode(Encoding::Hash(&hasher), &[text.chunk()]).unwrap();
        let keyed = encode(
            Encoding::Hash(&hasher),
            &[text.chunk().select(vec![2, 0, 1])],
        );
        assert_eq!(keyed, Ok(vec![plain[2], plain[0], 1]));
    }

    #[test]
    fn the_newest_elements_stay() {
        let kept = keep_newest(&[1, 2, 3, 4, 5], &[0, 3, 3, 5], 2);
        assert_eq!(kept, (vec![2, 3, 4, 5], vec![0, 2, 2, 4]));
        assert_eq!(keep_newest(&[], &[0], 2), (vec![], vec![0]));
    }
}
