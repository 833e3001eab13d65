//! Strings in any layout: an error or a result, never a panic, and the same ids for the same strings.
//!
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run arrow`

#![no_main]

use libfuzzer_sys::{arbitrary, fuzz_target};
use recfm_core::column::{Bits, Chunk, NULL_KEY, Strs, Values, total_len};
use recfm_core::encode::{Encoding, encode};
use recfm_core::hash::{Hasher, hash_keys};
use recfm_core::vocab::{Vocab, VocabBuilder};

#[derive(arbitrary::Arbitrary, Debug)]
enum Layout {
    Offsets32(Vec<i8>),
    Offsets64(Vec<i8>),
    /// Length, the first four bytes, buffer and offset of each row.
    Views(Vec<(i8, [u8; 4], i8, i8)>),
}

#[derive(arbitrary::Arbitrary, Debug)]
struct Wild {
    layout: Layout,
    buffers: Vec<Vec<u8>>,
    valid: Option<(u8, Vec<u8>)>,
    keys: Option<Vec<u8>>,
}

#[derive(arbitrary::Arbitrary, Debug)]
struct Input {
    wild: Vec<Wild>,
    texts: Vec<Option<String>>,
    cut: u8,
    bit: u8,
    garbage: [u8; 16],
    min_count: i8,
    buckets: i64,
}

/// A wild layout, with numbers as wide as Arrow's.
struct Owned {
    offsets32: Vec<i32>,
    offsets64: Vec<i64>,
    views: Vec<u128>,
    bits: Vec<u8>,
}

/// Small numbers as they are, the lowest and the highest as those of the type.
macro_rules! number {
    ($small:expr, $type:ty) => {
        match $small {
            i8::MIN => <$type>::MIN,
            i8::MAX => <$type>::MAX,
            small => <$type>::from(small),
        }
    };
}

fn view(length: u32, rest: [u32; 3]) -> u128 {
    bytemuck::cast([length, rest[0], rest[1], rest[2]])
}

impl Wild {
    fn rows(&self) -> usize {
        match &self.layout {
            Layout::Offsets32(offsets) | Layout::Offsets64(offsets) => {
                offsets.len().saturating_sub(1)
            }
            Layout::Views(views) => views.len(),
        }
    }

    fn own(&self) -> Owned {
        let mut owned = Owned {
            offsets32: vec![],
            offsets64: vec![],
            views: vec![],
            bits: vec![],
        };
        match &self.layout {
            Layout::Offsets32(offsets) => {
                owned.offsets32 = offsets.iter().map(|&at| number!(at, i32)).collect();
            }
            Layout::Offsets64(offsets) => {
                owned.offsets64 = offsets.iter().map(|&at| number!(at, i64)).collect();
            }
            Layout::Views(views) => {
                let row = |&(length, head, buffer, at): &(i8, [u8; 4], i8, i8)| {
                    let wide = |small| number!(small, i32) as u32;
                    view(
                        wide(length),
                        [u32::from_ne_bytes(head), wide(buffer), wide(at)],
                    )
                };
                owned.views = views.iter().map(row).collect();
            }
        }
        if let Some((offset, bits)) = &self.valid {
            owned.bits.clone_from(bits);
            let size = (usize::from(*offset) + self.rows()).div_ceil(8);
            owned.bits.resize(size, 0b1010_0110);
        }
        owned
    }

    fn chunk<'a>(&'a self, owned: &'a Owned) -> Chunk<'a> {
        let bytes = self.buffers.first().map_or(&[][..], Vec::as_slice);
        let strs = match self.layout {
            Layout::Offsets32(_) => Strs::Offsets32(&owned.offsets32, bytes),
            Layout::Offsets64(_) => Strs::Offsets64(&owned.offsets64, bytes),
            Layout::Views(_) => Strs::Views(
                &owned.views,
                self.buffers.iter().map(Vec::as_slice).collect(),
            ),
        };
        let valid = self.valid.as_ref().map(|(offset, _)| Bits {
            bytes: &owned.bits,
            offset: usize::from(*offset),
        });
        let chunk = Chunk::new(Values::Strs { strs, valid });
        let Some(keys) = &self.keys else { return chunk };
        let rows = self.rows();
        let key = |&key: &u8| {
            if usize::from(key) < rows {
                key.into()
            } else {
                NULL_KEY
            }
        };
        chunk.select(keys.iter().map(key).collect())
    }
}

/// Everything that can be made of a column, as text to compare.
fn results(chunks: &[Chunk<'_>], min_count: i64, buckets: i64) -> [String; 4] {
    let fitted = Vocab::fit(chunks, "x", min_count);
    let mut builder = VocabBuilder::new("x");
    let counted = chunks
        .iter()
        .try_for_each(|chunk| builder.add(std::slice::from_ref(chunk), None))
        .and_then(|()| builder.finish(min_count));
    if let (Ok(fitted), Ok(counted)) = (&fitted, &counted) {
        assert_eq!(
            (fitted.values(), fitted.counts()),
            (counted.values(), counted.counts()),
            "a column counts the same as a whole and in pieces"
        );
    }
    let by_vocab = fitted
        .as_ref()
        .ok()
        .map(|vocab| encode(Encoding::Vocab(vocab), chunks));
    let by_hash = Hasher::new("x", buckets).map(|hasher| encode(Encoding::Hash(&hasher), chunks));
    if let Ok(Ok(ids)) = &by_hash {
        assert_eq!(ids.len(), total_len(chunks));
        assert!(ids.iter().all(|&id| id >= 1 && i64::from(id) < buckets));
    }
    [
        format!(
            "{:?}",
            fitted.map(|vocab| (format!("{:?}", vocab.values()), vocab.counts().to_vec()))
        ),
        format!("{by_vocab:?}"),
        format!("{by_hash:?}"),
        format!("{:?}", hash_keys(chunks, "x")),
    ]
}

/// The bytes of the texts and where each ends.
fn ends(texts: &[Option<String>]) -> (Vec<u8>, Vec<i64>) {
    let (mut bytes, mut ends) = (vec![], vec![0]);
    for text in texts {
        bytes.extend(text.as_deref().unwrap_or_default().as_bytes());
        ends.push(bytes.len() as i64);
    }
    (bytes, ends)
}

fuzz_target!(|input: Input| {
    let owned: Vec<_> = input.wild.iter().map(Wild::own).collect();
    let wild: Vec<_> = input
        .wild
        .iter()
        .zip(&owned)
        .map(|(wild, owned)| wild.chunk(owned))
        .collect();
    let min_count = i64::from(input.min_count);
    results(&wild, min_count, input.buckets);

    let texts = &input.texts;
    let (bytes, offsets64) = ends(texts);
    let offsets32: Vec<_> = offsets64.iter().map(|&at| at as i32).collect();
    // Every second text is in the second buffer.
    let buffers = [bytes.clone(), [&input.garbage[..], &bytes].concat()];
    let views: Vec<u128> = texts
        .iter()
        .enumerate()
        .map(|(row, text)| match text.as_deref().map(str::as_bytes) {
            None => bytemuck::cast(input.garbage),
            Some(text) if text.len() <= 12 => {
                let mut rest = [0_u8; 12];
                rest[..text.len()].copy_from_slice(text);
                view(text.len() as u32, bytemuck::cast(rest))
            }
            Some(text) => {
                let head = u32::from_ne_bytes([text[0], text[1], text[2], text[3]]);
                let at = offsets32[row] as u32 + if row % 2 == 1 { 16 } else { 0 };
                view(text.len() as u32, [head, row as u32 % 2, at])
            }
        })
        .collect();
    let mut bits = vec![0_u8; (usize::from(input.bit) + texts.len()).div_ceil(8)];
    for (row, text) in texts.iter().enumerate() {
        let bit = usize::from(input.bit) + row;
        bits[bit / 8] |= u8::from(text.is_some()) << (bit % 8);
    }
    let valid = |offset| {
        Some(Bits {
            bytes: &bits,
            offset: usize::from(input.bit) + offset,
        })
    };
    let chunk = |strs, first| {
        Chunk::new(Values::Strs {
            strs,
            valid: valid(first),
        })
    };
    let slices = || buffers.iter().map(Vec::as_slice).collect::<Vec<_>>();
    // A dictionary of the texts back to front, each null both ways: a key of its own, and a key to a null.
    let turned: Vec<_> = texts.iter().rev().cloned().collect();
    let (turned_bytes, turned_ends) = ends(&turned);
    let keys = (0..texts.len() as u32).map(|row| match texts[row as usize] {
        None => NULL_KEY,
        Some(_) => texts.len() as u32 - 1 - row,
    });
    let dictionary = Chunk::new(Values::Strs {
        strs: Strs::Offsets64(&turned_ends, &turned_bytes),
        valid: None,
    });
    let cut = usize::from(input.cut).min(texts.len());
    let layouts = [
        vec![chunk(Strs::Offsets32(&offsets32, &bytes), 0)],
        vec![chunk(Strs::Offsets64(&offsets64, &bytes), 0)],
        vec![chunk(Strs::Views(&views, slices()), 0)],
        vec![dictionary.select(keys.collect())],
        vec![chunk(Strs::Views(&views, slices()), 0).select((0..texts.len() as u32).collect())],
        vec![
            chunk(Strs::Offsets32(&offsets32[..=cut], &bytes), 0),
            chunk(Strs::Views(&views[cut..], slices()), cut),
        ],
    ];
    let buckets = input.buckets.rem_euclid(1 << 20) + 3;
    let [first, others @ ..] = layouts.map(|chunks| results(&chunks, min_count, buckets));
    for other in others {
        assert_eq!(other, first);
    }
});
