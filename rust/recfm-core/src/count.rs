//! Counting the values of a column that arrives in pieces.
//!
//! Values are dealt to shards by their hash. A shard belongs to one thread at a time, so nothing is locked and
//! nothing is merged, and its table stays small enough for the cache.

use std::cmp::Reverse;

use hashbrown::HashTable;
use rayon::prelude::*;

use crate::column::{Chunk, NULL_KEY, Value, each_value, for_each};
use crate::hash::Key;
use crate::text::{Brief, Texts};
use crate::{Error, Result, pool};

const SHARDS: usize = 64;
/// Rows that are dealt at once; bounds what dealing takes.
const ROUND: usize = 1 << 18;
/// Rows that one task deals.
const BLOCK: usize = 1 << 14;
/// Values that a task remembers; a power of two.
const RECENT: usize = 1 << 10;

/// What a shard must do with the values of its kind.
pub(crate) trait Shard: Default + Send {
    type Key<'a>: Key;

    fn key(value: Value<'_>) -> Option<Self::Key<'_>>;
    fn add(&mut self, hash: u64, key: Self::Key<'_>, times: i64);
    fn len(&self) -> usize;
    fn nbytes(&self) -> usize;
}

/// Distinct integers and how often each came.
#[derive(Debug, Default)]
pub(crate) struct IntShard(HashTable<(i64, i64)>);

impl Shard for IntShard {
    type Key<'a> = i64;

    fn key(value: Value<'_>) -> Option<i64> {
        match value {
            Value::Int(value) => Some(value),
            _ => None,
        }
    }

    fn add(&mut self, hash: u64, key: i64, times: i64) {
        let entry = self
            .0
            .entry(hash, |other| other.0 == key, |other| other.0.hash64());
        entry.or_insert((key, 0)).get_mut().1 += times;
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn nbytes(&self) -> usize {
        self.0.capacity() * 2 * size_of::<(i64, i64)>()
    }
}

/// Distinct strings and how often each came.
#[derive(Debug)]
pub(crate) struct StrShard {
    table: HashTable<(Brief, u32)>,
    /// Hash and count.
    entries: Vec<(u64, i64)>,
    texts: Texts,
}

impl Default for StrShard {
    fn default() -> Self {
        Self {
            table: HashTable::new(),
            entries: Vec::new(),
            texts: Texts::new(),
        }
    }
}

impl Shard for StrShard {
    type Key<'a> = &'a [u8];

    fn key(value: Value<'_>) -> Option<&[u8]> {
        match value {
            Value::Str(bytes) => Some(bytes),
            _ => None,
        }
    }

    fn add(&mut self, hash: u64, key: &[u8], times: i64) {
        let Self {
            table,
            entries,
            texts,
        } = self;
        let brief = Brief::new(key, hash);
        let position = table
            .entry(
                hash,
                |&(other, at)| {
                    other == brief && (brief.is_whole() || texts.get(at as usize) == key)
                },
                |&(_, at)| entries[at as usize].0,
            )
            .or_insert_with(|| (brief, texts.len() as u32))
            .get()
            .1 as usize;
        if position == entries.len() {
            texts.push(key);
            entries.push((hash, 0));
        }
        entries[position].1 += times;
    }

    fn len(&self) -> usize {
        self.entries.len()
    }

    fn nbytes(&self) -> usize {
        self.table.capacity() * 34 + self.entries.capacity() * 16 + self.texts.nbytes()
    }
}

/// Counts of all values so far.
#[derive(Debug)]
pub(crate) struct Counter<S>(Vec<S>);

impl<S: Shard> Counter<S> {
    pub(crate) fn new() -> Self {
        Self((0..SHARDS).map(|_| S::default()).collect())
    }

    /// Distinct values.
    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(S::len).sum()
    }

    pub(crate) fn nbytes(&self) -> usize {
        self.0.iter().map(S::nbytes).sum()
    }

    /// Adds rows of a column; each counts once, or `times` of its place where given.
    pub(crate) fn add(
        &mut self,
        chunks: &[Chunk<'_>],
        name: &str,
        times: Option<&[i64]>,
    ) -> Result<()> {
        let mut first = 0;
        for chunk in chunks {
            let rows = first..first + chunk.len();
            let weight = |row: usize| times.map_or(1, |times| times[first + row]);
            if let Some((values, keys)) = chunk.dictionary() {
                let mut weights = vec![0; values.len()];
                for (row, &key) in keys.iter().enumerate().filter(|(_, k)| **k != NULL_KEY) {
                    weights[key as usize] += weight(row);
                }
                each_value(values, name, |row, value| {
                    if weights[row] > 0 {
                        self.add_one(value, weights[row]);
                    }
                })?;
            } else {
                self.add_rows(chunk, name, weight)?;
            }
            first = rows.end;
        }
        Ok(())
    }

    fn add_one(&mut self, value: Value<'_>, times: i64) {
        if let Some(key) = S::key(value) {
            let hash = key.hash64();
            self.0[shard_of(hash)].add(hash, key, times);
        }
    }

    fn add_rows(
        &mut self,
        chunk: &Chunk<'_>,
        name: &str,
        times: impl Fn(usize) -> i64 + Sync,
    ) -> Result<()> {
        for round in (0..chunk.len()).step_by(ROUND) {
            let rows = round..chunk.len().min(round + ROUND);
            let dealt = pool::install(|| {
                let blocks = rows.into_par_iter().step_by(BLOCK);
                blocks
                    .map(|start| {
                        let stop = chunk.len().min(start + BLOCK).min(round + ROUND);
                        let mut hands = Hands::new();
                        let chunk = std::slice::from_ref(chunk);
                        for_each(chunk, name, start..stop, |row, value| {
                            if let Some(key) = S::key(value) {
                                hands.add(key.hash64(), key, times(row));
                            }
                        })?;
                        hands.flush();
                        Ok(hands.dealt)
                    })
                    .collect::<Result<Vec<_>>>()
            })??;
            pool::install(|| {
                self.0
                    .par_iter_mut()
                    .enumerate()
                    .for_each(|(place, shard)| {
                        for hands in &dealt {
                            for &(hash, key, times) in &hands[place] {
                                shard.add(hash, key, times);
                            }
                        }
                    });
            })?;
        }
        Ok(())
    }
}

/// What a task deals to each shard: hash, value, times.
///
/// Values that come again soon are added up on the way, in a cache that forgets the older of two that collide: a
/// column of few values deals little, one of many costs hardly more.
struct Hands<K> {
    dealt: Vec<Vec<(u64, K, i64)>>,
    recent: Vec<(u64, Option<K>, i64)>,
}

impl<K: Key> Hands<K> {
    fn new() -> Self {
        let hand = || Vec::with_capacity(BLOCK / SHARDS * 2);
        Self {
            dealt: (0..SHARDS).map(|_| hand()).collect(),
            recent: vec![(0, None, 0); RECENT],
        }
    }

    #[inline]
    fn add(&mut self, hash: u64, key: K, times: i64) {
        let recent = &mut self.recent[hash as usize % RECENT];
        if recent.0 == hash && recent.1 == Some(key) {
            recent.2 += times;
            return;
        }
        let (old, older, seen) = std::mem::replace(recent, (hash, Some(key), times));
        if let Some(key) = older {
            self.dealt[shard_of(old)].push((old, key, seen));
        }
    }

    fn flush(&mut self) {
        for (hash, key, times) in self.recent.drain(..) {
            if let Some(key) = key {
                self.dealt[shard_of(hash)].push((hash, key, times));
            }
        }
    }
}

/// The top bits: the tables inside a shard use the others.
fn shard_of(hash: u64) -> usize {
    (hash >> (u64::BITS - SHARDS.trailing_zeros())) as usize
}

impl Counter<IntShard> {
    /// The integers to keep, by falling count, ties by value.
    pub(crate) fn ranked(&self, min_count: i64) -> (Vec<i64>, Vec<i64>) {
        let all = self.0.iter().flat_map(|shard| shard.0.iter().copied());
        let mut kept: Vec<_> = all.filter(|&(_, count)| count >= min_count).collect();
        kept.par_sort_unstable_by_key(|&(value, count)| (Reverse(count), value));
        kept.into_iter().unzip()
    }
}

impl Counter<StrShard> {
    /// The strings to keep, by falling count, ties by bytes.
    pub(crate) fn ranked(&self, min_count: i64) -> (Texts, Vec<i64>) {
        // Most ties are told apart by their first 8 bytes, without a look at the strings.
        let mut kept = Vec::new();
        for (place, shard) in self.0.iter().enumerate() {
            for (position, &(_, count)) in shard.entries.iter().enumerate() {
                if count >= min_count {
                    let head = head(shard.texts.get(position));
                    kept.push((Reverse(count), head, place as u32, position as u32));
                }
            }
        }
        let text = |place: u32, position: u32| self.0[place as usize].texts.get(position as usize);
        kept.par_sort_unstable_by(|a, b| {
            (a.0, a.1)
                .cmp(&(b.0, b.1))
                .then_with(|| text(a.2, a.3).cmp(text(b.2, b.3)))
        });
        let mut texts = Texts::with_capacity(kept.len());
        for &(_, _, place, position) in &kept {
            texts.push(text(place, position));
        }
        (texts, kept.into_iter().map(|entry| entry.0.0).collect())
    }
}

/// The first 8 bytes as a number that sorts as they do.
fn head(text: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let len = text.len().min(8);
    bytes[..len].copy_from_slice(&text[..len]);
    u64::from_be_bytes(bytes)
}

pub(crate) fn check_min_count(name: &str, min_count: i64) -> Result<()> {
    if min_count < 1 {
        return Err(Error::MinCount {
            column: name.to_owned(),
            min_count,
        });
    }
    Ok(())
}
