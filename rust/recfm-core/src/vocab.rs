//! Vocabularies: the distinct values of a training column as dense ids.
//!
//! Id 0 is padding, 1 is everything unseen, then the values by falling count, ties by value (strings by bytes).

use std::fmt;
use std::ops::Range;

use crate::column::{Chunk, Value, first_null, for_each, kind_of, total_len};
use crate::count::{Counter, IntShard, StrShard, check_min_count};
use crate::hash::{FIRST, UNKNOWN};
use crate::history::same_length;
use crate::ids::{IntIds, StrIds};
use crate::text::Texts;
use crate::values::Readable;
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
    Int(IntIds),
    Str(StrIds),
}

/// The values of a vocabulary in id order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VocabValues<'a> {
    /// Of an integer vocabulary.
    Int(&'a [i64]),
    /// Of a string vocabulary.
    Str(&'a Texts),
}

/// A vocabulary in the making: counts of a column that arrives in pieces.
#[derive(Debug)]
pub struct VocabBuilder {
    name: String,
    counter: AnyCounter,
}

#[derive(Debug)]
enum AnyCounter {
    /// Only nulls so far.
    Empty,
    Int(Counter<IntShard>),
    Str(Counter<StrShard>),
}

impl VocabBuilder {
    /// Nothing counted yet.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            counter: AnyCounter::Empty,
        }
    }

    /// Counts these rows too; nulls do not count. With `times` given, row `i` counts `times[i]` times.
    pub fn add(&mut self, chunks: &[Chunk<'_>], times: Option<&[i64]>) -> Result<()> {
        if let Some(times) = times {
            same_length("values", total_len(chunks), "counts", times.len())?;
            if let Some(&value) = times.iter().find(|&&count| count < 0) {
                let name = "counts";
                return Err(Error::Negative { name, value });
            }
        }
        if let AnyCounter::Empty = self.counter {
            self.counter = match kind_of(chunks) {
                Some(Kind::Int) => AnyCounter::Int(Counter::new()),
                Some(Kind::Str) => AnyCounter::Str(Counter::new()),
                None => return Ok(()),
            };
        }
        if let Some(kind) = self.kind() {
            check_kind(chunks, &self.name, kind)?;
        }
        match &mut self.counter {
            AnyCounter::Empty => Ok(()),
            AnyCounter::Int(counter) => counter.add(chunks, &self.name, times),
            AnyCounter::Str(counter) => counter.add(chunks, &self.name, times),
        }
    }

    /// The vocabulary of the values that came at least `min_count` times.
    ///
    /// A column of no type (all null) gives an empty integer vocabulary.
    pub fn finish(&self, min_count: i64) -> Result<Vocab> {
        check_min_count(&self.name, min_count)?;
        let name = &self.name;
        let (index, counts) = pool::install(|| match &self.counter {
            AnyCounter::Empty => (IntIds::new(vec![], name).map(Index::Int), vec![]),
            AnyCounter::Int(counter) => {
                let (values, counts) = counter.ranked(min_count);
                (IntIds::new(values, name).map(Index::Int), counts)
            }
            AnyCounter::Str(counter) => {
                let (values, counts) = counter.ranked(min_count);
                (StrIds::new(values, name).map(Index::Str), counts)
            }
        })?;
        Ok(Vocab {
            name: name.clone(),
            index: index?,
            counts,
        })
    }

    /// Kind of the values so far.
    pub fn kind(&self) -> Option<Kind> {
        match self.counter {
            AnyCounter::Empty => None,
            AnyCounter::Int(_) => Some(Kind::Int),
            AnyCounter::Str(_) => Some(Kind::Str),
        }
    }

    /// Distinct values so far.
    pub fn len(&self) -> usize {
        match &self.counter {
            AnyCounter::Empty => 0,
            AnyCounter::Int(counter) => counter.len(),
            AnyCounter::Str(counter) => counter.len(),
        }
    }

    /// Whether nothing was counted yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that the counts take.
    pub fn nbytes(&self) -> usize {
        match &self.counter {
            AnyCounter::Empty => 0,
            AnyCounter::Int(counter) => counter.nbytes(),
            AnyCounter::Str(counter) => counter.nbytes(),
        }
    }
}

impl Vocab {
    /// Fits a vocabulary on the values of a column that occur at least `min_count` times; nulls do not count.
    ///
    /// A column of no type (all null) gives an empty integer vocabulary.
    pub fn fit(chunks: &[Chunk<'_>], name: &str, min_count: i64) -> Result<Self> {
        check_min_count(name, min_count)?;
        let mut builder = VocabBuilder::new(name);
        builder.add(chunks, None)?;
        builder.finish(min_count)
    }

    /// Restores a vocabulary from its values in id order and their counts.
    pub fn from_values(chunks: &[Chunk<'_>], counts: &[i64], name: &str) -> Result<Self> {
        same_length("values", total_len(chunks), "counts", counts.len())?;
        let invalid = |position, reason| Error::VocabValues {
            column: name.to_owned(),
            position,
            reason,
        };
        if let Some(position) = first_null(chunks, name)? {
            return Err(invalid(position, "it is null"));
        }
        if let Some(position) = counts.iter().position(|&count| count < 1) {
            return Err(invalid(position, "its count is below 1"));
        }
        if let Some(position) = counts.windows(2).position(|pair| pair[0] < pair[1]) {
            return Err(invalid(position + 1, "its count is above the one before"));
        }
        let kind = kind_of(chunks).unwrap_or(Kind::Int);
        check_kind(chunks, name, kind)?;
        let (mut ints, mut texts) = (vec![], Texts::new());
        for_each(chunks, name, 0..counts.len(), |_, value| match value {
            Value::Int(value) => ints.push(value),
            Value::Str(bytes) => texts.push(bytes),
            Value::Null => {}
        })?;
        let index = match kind {
            Kind::Int => Index::Int(IntIds::new(ints, name)?),
            Kind::Str => Index::Str(StrIds::new(texts, name)?),
        };
        Ok(Self {
            name: name.to_owned(),
            index,
            counts: counts.to_vec(),
        })
    }

    /// The ids of some rows of a chunk of this kind; 1 for null, and for values that the fit did not see often
    /// enough.
    pub(crate) fn fill(&self, chunk: &Chunk<'_>, rows: Range<usize>, out: &mut [i32]) -> Readable {
        match &self.index {
            Index::Int(ids) => chunk.fill(rows, out, UNKNOWN, |value| ids.get(value), |_| UNKNOWN),
            Index::Str(ids) => chunk.fill(rows, out, UNKNOWN, |_| UNKNOWN, |bytes| ids.get(bytes)),
        }
    }

    /// Refuses a column of the other kind.
    pub(crate) fn check(&self, chunks: &[Chunk<'_>]) -> Result<()> {
        check_kind(chunks, &self.name, self.kind())
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

fn check_kind(chunks: &[Chunk<'_>], name: &str, fitted: Kind) -> Result<()> {
    let mut kinds = chunks.iter().filter_map(Chunk::kind);
    match kinds.find(|&kind| kind != fitted) {
        Some(found) => Err(Error::VocabKind {
            column: name.to_owned(),
            fitted,
            found,
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::column::tests::{Text, ints};
    use crate::column::{Strs, Values};
    use crate::encode::{Encoding, encode};

    fn texts(vocab: &Vocab) -> Vec<&[u8]> {
        match vocab.values() {
            VocabValues::Str(texts) => texts.iter().collect(),
            VocabValues::Int(_) => panic!("strings"),
        }
    }

    #[test]
    fn ids_follow_falling_count_then_value() {
        let chunks = [ints(&[9, 5, 9, -1]), ints(&[7, 7, 5])];
        let vocab = Vocab::fit(&chunks, "v", 1).unwrap();
        assert_eq!(vocab.values(), VocabValues::Int(&[5, 7, 9, -1]));
        assert_eq!(vocab.counts(), [2, 2, 2, 1]);
        let ids = encode(Encoding::Vocab(&vocab), &[ints(&[5, 8, -1])]);
        assert_eq!(ids, Ok(vec![2, 1, 5]));
    }

    #[test]
    fn min_count_drops_the_rare_and_null_is_unknown() {
        let text = Text::new(&[Some("b"), None, Some("a"), Some("b")]);
        let vocab = Vocab::fit(&[text.chunk()], "v", 2).unwrap();
        assert_eq!(texts(&vocab), [b"b"]);
        let ids = encode(Encoding::Vocab(&vocab), &[text.chunk()]);
        assert_eq!(ids, Ok(vec![2, 1, 1, 2]));
        let nulls = Chunk::new(Values::Nulls(2));
        assert_eq!(encode(Encoding::Vocab(&vocab), &[nulls]), Ok(vec![1, 1]));
    }

    #[test]
    fn long_and_short_strings_rank_by_their_bytes() {
        let text = Text::new(&[
            Some("same head, b"),
            Some("same head, a"),
            Some("same hea"),
            Some("same hea\0"),
            Some(""),
        ]);
        let vocab = Vocab::fit(&[text.chunk()], "v", 1).unwrap();
        let expected: [&[u8]; 5] = [
            b"",
            b"same hea",
            b"same hea\0",
            b"same head, a",
            b"same head, b",
        ];
        assert_eq!(texts(&vocab), expected);
    }

    #[test]
    fn a_dictionary_counts_its_rows_not_its_values() {
        let text = Text::new(&[Some("a"), Some("b"), Some("unused")]);
        let column = [text.chunk().select(vec![1, 1, 0])];
        let vocab = Vocab::fit(&column, "tag", 1).unwrap();
        assert_eq!(vocab.counts(), [2, 1]);
        assert_eq!(encode(Encoding::Vocab(&vocab), &column), Ok(vec![2, 2, 3]));
    }

    #[test]
    fn pieces_and_counts_add_up_to_the_whole() {
        let values: Vec<i64> = (0..300_000).map(|i| i * i % 1013 * 1_000_000).collect();
        let whole = Vocab::fit(&[ints(&values)], "v", 2).unwrap();
        let mut pieces = VocabBuilder::new("v");
        for piece in values.chunks(70_001) {
            pieces.add(&[ints(piece)], None).unwrap();
        }
        let pieces = pieces.finish(1).unwrap();
        let VocabValues::Int(distinct) = pieces.values() else {
            panic!("integers")
        };
        let mut merged = VocabBuilder::new("v");
        merged
            .add(&[ints(distinct)], Some(pieces.counts()))
            .unwrap();
        let merged = merged.finish(2).unwrap();
        assert_eq!(merged.values(), whole.values());
        assert_eq!(merged.counts(), whole.counts());
    }

    #[test]
    fn bytes_that_are_no_text_are_refused() {
        let strs = Strs::Offsets32(&[0, 1, 2], &[b'a', 0xff]);
        let chunk = Chunk::new(Values::Strs { strs, valid: None });
        let error = Vocab::fit(&[chunk], "c", 1).map(|vocab| vocab.rows());
        assert!(matches!(error, Err(Error::NotText { column, .. }) if column == "c"));
    }

    #[test]
    fn kinds_do_not_mix() {
        let text = Text::new(&[Some("1")]);
        let vocab = Vocab::fit(&[text.chunk()], "item", 1).unwrap();
        let error = encode(Encoding::Vocab(&vocab), &[ints(&[1])]).unwrap_err();
        let expected = Error::VocabKind {
            column: "item".into(),
            fitted: Kind::Str,
            found: Kind::Int,
        };
        assert_eq!(error, expected);
        let mixed = Vocab::fit(&[text.chunk(), ints(&[1])], "item", 1);
        assert_eq!(mixed.map(|v| v.rows()), Err(expected));
    }

    #[test]
    fn stored_values_must_be_those_of_a_fit() {
        let restore = |values: &[i64], counts: &[i64]| {
            Vocab::from_values(&[ints(values)], counts, "v").map(|v| v.rows())
        };
        assert_eq!(restore(&[3, 1], &[5, 5]), Ok(4));
        let far = [i64::MIN, i64::MAX, i64::MIN];
        for (values, counts, at) in [
            (&[3, 3][..], &[5, 5][..], 1),
            (&[3, 1], &[1, 5], 1),
            (&[3, 1], &[5, 0], 1),
            (&far, &[5, 5, 5], 2),
        ] {
            assert!(
                matches!(restore(values, counts), Err(Error::VocabValues { position, .. }) if position == at)
            );
        }
        assert!(matches!(restore(&[3], &[5, 5]), Err(Error::Length { .. })));
    }
}
