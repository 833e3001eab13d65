//! Vocabularies: the distinct values of a training column as dense ids.
//!
//! Id 0 is padding, 1 is everything unseen, then the values by falling count, ties by value (strings by bytes).

use std::fmt;

use crate::column::{Chunk, Values, first_null, kind_of, total_len};
use crate::count::{count, ranked};
use crate::hash::{FIRST, UNKNOWN};
use crate::ids::Ids;
use crate::{Error, Result, pool};

/// What a vocabulary is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Integers.
    Int,
    /// Strings.
    Str,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Int => "int",
            Self::Str => "str",
        })
    }
}

/// A fitted vocabulary.
#[derive(Debug)]
pub struct Vocab {
    name: String,
    index: Index,
    counts: Vec<i64>,
}

#[derive(Debug)]
enum Index {
    Int(Ids<i64>),
    Str(Ids<Box<str>>),
}

/// The values of a vocabulary in id order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VocabValues<'a> {
    /// Of an integer vocabulary.
    Int(&'a [i64]),
    /// Of a string vocabulary.
    Str(&'a [Box<str>]),
}

impl Vocab {
    /// Fits a vocabulary on the values of a column that occur at least `min_count` times; nulls do not count.
    ///
    /// A column of no type (all null) gives an empty integer vocabulary.
    pub fn fit(chunks: &[Chunk<'_>], name: &str, min_count: i64) -> Result<Self> {
        if min_count < 1 {
            return Err(Error::MinCount {
                column: name.to_owned(),
                min_count,
            });
        }
        let (index, counts) = pool::install(|| match kind_of(chunks) {
            Some(Kind::Str) => {
                let (values, counts) = ranked(count(chunks, Values::str), min_count);
                (
                    Ids::new(values.into_iter().map(Box::from).collect(), name).map(Index::Str),
                    counts,
                )
            }
            Some(Kind::Int) | None => {
                let (values, counts) = ranked(count(chunks, Values::int), min_count);
                (Ids::new(values, name).map(Index::Int), counts)
            }
        })?;
        Ok(Self {
            name: name.to_owned(),
            index: index?,
            counts,
        })
    }

    /// Restores a vocabulary from its values in id order and their counts.
    pub fn from_values(chunks: &[Chunk<'_>], counts: &[i64], name: &str) -> Result<Self> {
        if total_len(chunks) != counts.len() {
            return Err(Error::Length {
                left: "values",
                left_len: total_len(chunks),
                right: "counts",
                right_len: counts.len(),
            });
        }
        let invalid = |position, reason| Error::VocabValues {
            column: name.to_owned(),
            position,
            reason,
        };
        if let Some(position) = first_null(chunks) {
            return Err(invalid(position, "it is null"));
        }
        if let Some(position) = counts.iter().position(|&count| count < 1) {
            return Err(invalid(position, "its count is below 1"));
        }
        if let Some(position) = counts.windows(2).position(|pair| pair[0] < pair[1]) {
            return Err(invalid(position + 1, "its count is above the one before"));
        }
        let index = match kind_of(chunks) {
            Some(Kind::Str) => Ids::new(
                chunks
                    .iter()
                    .flat_map(|c| c.rows(Values::str))
                    .flatten()
                    .map(Box::from)
                    .collect(),
                name,
            )
            .map(Index::Str),
            Some(Kind::Int) | None => Ids::new(
                chunks
                    .iter()
                    .flat_map(|c| c.rows(Values::int))
                    .flatten()
                    .collect(),
                name,
            )
            .map(Index::Int),
        };
        Ok(Self {
            name: name.to_owned(),
            index: index?,
            counts: counts.to_vec(),
        })
    }

    /// The id of every value; 1 for null and for values that the fit did not see often enough.
    pub fn encode(&self, chunks: &[Chunk<'_>]) -> Result<Vec<i32>> {
        if let Some(found) = chunks
            .iter()
            .filter_map(Chunk::kind)
            .find(|&kind| kind != self.kind())
        {
            return Err(Error::VocabKind {
                column: self.name.clone(),
                fitted: self.kind(),
                found,
            });
        }
        pool::install(|| {
            let mut out = Vec::with_capacity(total_len(chunks));
            for chunk in chunks {
                match &self.index {
                    Index::Int(ids) => chunk.map_into(&mut out, UNKNOWN, |i| ids.get(i), unknown),
                    Index::Str(ids) => chunk.map_into(&mut out, UNKNOWN, unknown, |s| ids.get(s)),
                }
            }
            out
        })
    }

    /// Name given at the fit.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Kind of the values.
    pub fn kind(&self) -> Kind {
        match self.index {
            Index::Int(_) => Kind::Int,
            Index::Str(_) => Kind::Str,
        }
    }

    /// Rows that an embedding table for these ids needs: padding, unknown, and one for each value.
    pub fn rows(&self) -> usize {
        self.counts.len() + FIRST as usize
    }

    /// The values in id order, the first of them id 2.
    pub fn values(&self) -> VocabValues<'_> {
        match &self.index {
            Index::Int(ids) => VocabValues::Int(ids.values()),
            Index::Str(ids) => VocabValues::Str(ids.values()),
        }
    }

    /// How often each value occurred in the fit, in id order.
    pub fn counts(&self) -> &[i64] {
        &self.counts
    }
}

/// The id of a value of the wrong kind; `encode` has made sure that there is none.
fn unknown<T>(_: T) -> i32 {
    UNKNOWN
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    fn ints(values: &[i64]) -> Chunk<'_> {
        Chunk::new(Values::Ints {
            values: Cow::Borrowed(values),
            valid: None,
        })
    }

    fn strs<'a>(values: &[Option<&'a str>]) -> Chunk<'a> {
        Chunk::new(Values::Strs(values.to_vec()))
    }

    #[test]
    fn ids_go_by_falling_count_then_by_value() {
        let column = [ints(&[5, 9, 9, -1]), ints(&[7, 5, 7])];
        let vocab = Vocab::fit(&column, "item", 1).unwrap();
        assert_eq!(vocab.values(), VocabValues::Int(&[5, 7, 9, -1]));
        assert_eq!(vocab.counts(), [2, 2, 2, 1]);
        assert_eq!(vocab.rows(), 6);
        assert_eq!(vocab.encode(&[ints(&[9, 8, -1])]), Ok(vec![4, 1, 5]));
    }

    #[test]
    fn rare_values_and_nulls_are_unknown() {
        let column = [strs(&[Some("b"), None, Some("a"), Some("b")])];
        let vocab = Vocab::fit(&column, "tag", 2).unwrap();
        assert_eq!(vocab.rows(), 3);
        assert_eq!(vocab.encode(&column), Ok(vec![2, 1, 1, 2]));
        assert_eq!(
            vocab.encode(&[Chunk::new(Values::Nulls(2))]),
            Ok(vec![1, 1])
        );
    }

    #[test]
    fn a_dictionary_counts_rows_and_not_entries() {
        let column = [strs(&[Some("a"), Some("b"), Some("unused")]).select(vec![1, 1, 0])];
        let vocab = Vocab::fit(&column, "tag", 1).unwrap();
        assert_eq!(vocab.counts(), [2, 1]);
        assert_eq!(vocab.encode(&column), Ok(vec![2, 2, 3]));
    }

    #[test]
    fn kinds_do_not_mix() {
        let vocab = Vocab::fit(&[strs(&[Some("1")])], "item", 1).unwrap();
        let error = vocab.encode(&[ints(&[1])]).unwrap_err();
        assert_eq!(
            error,
            Error::VocabKind {
                column: "item".into(),
                fitted: Kind::Str,
                found: Kind::Int
            }
        );
    }

    #[test]
    fn stored_values_must_be_those_of_a_fit() {
        let restore = |values: &[i64], counts: &[i64]| {
            Vocab::from_values(&[ints(values)], counts, "v").map(|v| v.rows())
        };
        assert_eq!(restore(&[3, 1], &[5, 5]), Ok(4));
        for (values, counts, at) in [
            (&[3, 3], &[5, 5], 1),
            (&[3, 1], &[1, 5], 1),
            (&[3, 1], &[5, 0], 1),
        ] {
            assert!(
                matches!(restore(values, counts), Err(Error::VocabValues { position, .. }) if position == at)
            );
        }
        assert!(matches!(restore(&[3], &[5, 5]), Err(Error::Length { .. })));
    }
}
