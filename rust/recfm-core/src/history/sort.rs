//! Events ordered by (user, time, position): a parallel partition by the leading bits, then small sorts in cache.
//!
//! One integer per event, (user, time, position) from the highest bit down, compares in one step. A stable scatter
//! by its eleven leading bits leaves buckets that fit a core's cache; logs usually arrive in time order, so what is
//! left to sort in a bucket is often sorted already, which the standard sort notices.

use std::mem;
use std::ops::Range;
use std::slice::IterMut;

use rayon::prelude::*;

use crate::stop::Stop;
use crate::{Result, memory};

/// Leading bits that choose a bucket.
const DIGIT: u32 = 11;
const BUCKETS: usize = 1 << DIGIT;
/// Keys that are sorted by one thread: a megabyte of them. Fewer in tests, which build without optimisation.
const IN_CACHE: usize = if cfg!(test) { 1 << 12 } else { 1 << 16 };
/// Keys that a comparison sort takes at once.
const FEW: usize = 1024;
/// Rows between two looks at the stop flag.
const STRIDE: usize = 1 << 18;

/// Events in order.
pub(super) struct Sorted {
    /// Position of each event.
    pub rows: Vec<u32>,
    /// Its time.
    pub times: Vec<i64>,
    /// Distinct users, rising.
    pub users: Vec<i64>,
    /// The events of `users[i]` are `offsets[i]..offsets[i + 1]`.
    pub offsets: Vec<u32>,
}

/// Orders the events that `keep` marks; all of them without it.
pub(super) fn sort(
    user: &[i64],
    time: &[i64],
    keep: Option<&[bool]>,
    stop: &Stop,
) -> Result<Sorted> {
    let layout = Layout::of(user, time);
    if layout.bits() > u128::BITS + DIGIT {
        return sort_plainly(user, time, keep, stop);
    }
    let kept = |row: usize| keep.is_none_or(|keep| keep[row]);
    let (mut keys, bounds) = scatter(
        user.len(),
        |row| kept(row).then(|| layout.pack(user[row], time[row], row)),
        stop,
    )?;
    let mut rows = memory::zeros::<u32>(keys.len());
    let mut times = memory::zeros::<i64>(keys.len());
    let pieces: Vec<_> = split(&mut keys, &bounds)
        .into_iter()
        .zip(split(&mut rows, &bounds))
        .zip(split(&mut times, &bounds))
        .collect();
    let groups: Vec<Vec<(i64, u32)>> = pieces
        .into_par_iter()
        .enumerate()
        .map(|(bucket, ((keys, rows), times))| {
            order(keys, stop)?;
            Ok(layout.unpack(bucket, keys, rows, times))
        })
        .collect::<Result<_>>()?;
    let (users, offsets) = grouped(groups.into_iter().flatten());
    Ok(Sorted {
        rows,
        times,
        users,
        offsets,
    })
}

/// For keys of more bits than an integer has, which takes ids over all 64 bits and times over two centuries.
fn sort_plainly(user: &[i64], time: &[i64], keep: Option<&[bool]>, stop: &Stop) -> Result<Sorted> {
    let mut rows: Vec<u32> = (0..user.len() as u32)
        .into_par_iter()
        .filter(|&row| keep.is_none_or(|keep| keep[row as usize]))
        .collect();
    stop.check()?;
    rows.par_sort_unstable_by_key(|&row| (user[row as usize], time[row as usize], row));
    let times = rows.par_iter().map(|&row| time[row as usize]).collect();
    let (users, offsets) = grouped(rows.iter().map(|&row| (user[row as usize], 1)));
    Ok(Sorted {
        rows,
        times,
        users,
        offsets,
    })
}

/// Distinct users and where their events start; a user may come in several groups that follow each other.
fn grouped(groups: impl Iterator<Item = (i64, u32)>) -> (Vec<i64>, Vec<u32>) {
    let (mut users, mut offsets, mut seen) = (Vec::new(), Vec::new(), 0);
    for (user, count) in groups {
        if users.last() != Some(&user) {
            users.push(user);
            offsets.push(seen);
        }
        seen += count;
    }
    offsets.push(seen);
    (users, offsets)
}

/// Where the parts of an event are in its key.
struct Layout {
    user_low: i64,
    time_low: i64,
    user_bits: u32,
    time_bits: u32,
    row_bits: u32,
}

impl Layout {
    fn of(user: &[i64], time: &[i64]) -> Self {
        let ((user_low, user_bits), (time_low, time_bits)) =
            rayon::join(|| span(user), || span(time));
        Self {
            user_low,
            time_low,
            user_bits,
            time_bits,
            row_bits: bits(user.len().saturating_sub(1) as u128),
        }
    }

    fn bits(&self) -> u32 {
        self.user_bits + self.time_bits + self.row_bits
    }

    /// Bucket and key of an event; what the key has no room for is what the bucket says.
    fn pack(&self, user: i64, time: i64, row: usize) -> (usize, u128) {
        let user = user.wrapping_sub(self.user_low) as u64;
        let time = time.wrapping_sub(self.time_low) as u64;
        let key = (((u128::from(user) << self.time_bits) | u128::from(time)) << self.row_bits)
            | row as u128;
        let bucket = if self.user_bits >= DIGIT {
            (user >> (self.user_bits - DIGIT)) as usize
        } else {
            (key >> self.bits().saturating_sub(DIGIT)) as usize
        };
        (bucket, key)
    }

    /// Writes the sorted events of a bucket and returns its users with how many they have.
    fn unpack(
        &self,
        bucket: usize,
        keys: &[u128],
        rows: &mut [u32],
        times: &mut [i64],
    ) -> Vec<(i64, u32)> {
        let (time_mask, row_mask) = (
            (1_u128 << self.time_bits) - 1,
            (1_u128 << self.row_bits) - 1,
        );
        let prefix = match self.user_bits.checked_sub(DIGIT) {
            Some(shift) => (bucket as u64) << shift,
            None => 0,
        };
        let mut groups: Vec<(i64, u32)> = Vec::new();
        let mut last = None;
        for ((&key, row), time) in keys.iter().zip(rows).zip(times) {
            *row = (key & row_mask) as u32;
            *time = self
                .time_low
                .wrapping_add(((key >> self.row_bits) & time_mask) as i64);
            let user = (key >> (self.row_bits + self.time_bits)) as u64;
            if last == Some(user) {
                if let Some(group) = groups.last_mut() {
                    group.1 += 1;
                }
            } else {
                last = Some(user);
                groups.push((self.user_low.wrapping_add((user | prefix) as i64), 1));
            }
        }
        groups
    }
}

/// Smallest value, and the bits that its distance to the largest takes.
fn span(values: &[i64]) -> (i64, u32) {
    let ends = values
        .par_chunks(STRIDE)
        .map(|values| {
            values.iter().fold((i64::MAX, i64::MIN), |(low, high), &v| {
                (low.min(v), high.max(v))
            })
        })
        .reduce(|| (i64::MAX, i64::MIN), |a, b| (a.0.min(b.0), a.1.max(b.1)));
    if values.is_empty() {
        return (0, 0);
    }
    (ends.0, bits(u128::from(ends.1.wrapping_sub(ends.0) as u64)))
}

fn bits(value: u128) -> u32 {
    u128::BITS - value.leading_zeros()
}

/// Keys grouped by bucket, in the order of `0..n` within each, and where each bucket starts.
fn scatter(
    n: usize,
    key: impl Fn(usize) -> Option<(usize, u128)> + Sync,
    stop: &Stop,
) -> Result<(Vec<u128>, Vec<usize>)> {
    let tasks = (n / IN_CACHE).clamp(1, rayon::current_num_threads());
    let share = n.div_ceil(tasks);
    let rows = |task: usize| (task * share).min(n)..((task + 1) * share).min(n);
    let counts: Vec<Vec<usize>> = (0..tasks)
        .into_par_iter()
        .map(|task| {
            let mut counts = vec![0; BUCKETS];
            for rows in strides(rows(task)) {
                stop.check()?;
                for (bucket, _) in rows.filter_map(&key) {
                    counts[bucket] += 1;
                }
            }
            Ok(counts)
        })
        .collect::<Result<_>>()?;
    let mut bounds = Vec::with_capacity(BUCKETS + 1);
    bounds.push(0);
    for bucket in 0..BUCKETS {
        let size: usize = counts.iter().map(|counts| counts[bucket]).sum();
        bounds.push(bounds[bucket] + size);
    }
    let mut keys = memory::zeros::<u128>(bounds[BUCKETS]);
    let mut places: Vec<Vec<IterMut<'_, u128>>> =
        (0..tasks).map(|_| Vec::with_capacity(BUCKETS)).collect();
    let mut rest = keys.as_mut_slice();
    for bucket in 0..BUCKETS {
        for (counts, places) in counts.iter().zip(&mut places) {
            let (piece, behind) = mem::take(&mut rest).split_at_mut(counts[bucket]);
            places.push(piece.iter_mut());
            rest = behind;
        }
    }
    places
        .into_par_iter()
        .enumerate()
        .try_for_each(|(task, mut places)| {
            for rows in strides(rows(task)) {
                stop.check()?;
                for (bucket, key) in rows.filter_map(&key) {
                    if let Some(place) = places[bucket].next() {
                        *place = key;
                    }
                }
            }
            Ok(())
        })?;
    Ok((keys, bounds))
}

fn strides(rows: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    rows.clone()
        .step_by(STRIDE)
        .map(move |start| start..(start + STRIDE).min(rows.end))
}

/// One piece of `values` for each pair of neighbouring bounds.
fn split<'a, T>(values: &'a mut [T], bounds: &[usize]) -> Vec<&'a mut [T]> {
    let mut rest = values;
    let mut pieces = Vec::with_capacity(bounds.len());
    for bounds in bounds.windows(2) {
        let (piece, behind) = mem::take(&mut rest).split_at_mut(bounds[1] - bounds[0]);
        pieces.push(piece);
        rest = behind;
    }
    pieces
}

/// Sorts keys that are all different.
fn order(keys: &mut [u128], stop: &Stop) -> Result<()> {
    stop.check()?;
    if keys.len() <= IN_CACHE {
        order_in_cache(keys, &mut Vec::new());
        return Ok(());
    }
    if keys.par_chunks(STRIDE).all(<[u128]>::is_sorted)
        && keys.chunks(STRIDE).is_sorted_by_key(|keys| keys[0])
    {
        return Ok(());
    }
    let digits = Digits::of(keys, DIGIT);
    let (mut grouped, bounds) = scatter(
        keys.len(),
        |i| Some((digits.of_key(keys[i]), keys[i])),
        stop,
    )?;
    split(&mut grouped, &bounds)
        .into_par_iter()
        .zip(split(keys, &bounds))
        .try_for_each(|(grouped, keys)| {
            order(grouped, stop)?;
            keys.copy_from_slice(grouped);
            Ok(())
        })
}

/// The same by one thread, with `spare` as its second buffer.
fn order_in_cache(keys: &mut [u128], spare: &mut Vec<u128>) {
    if keys.len() <= FEW / 16 {
        keys.sort_unstable();
        return;
    }
    let digits = Digits::of(keys, (keys.len() / 8).ilog2().clamp(1, DIGIT));
    let mut bounds = vec![0_u32; digits.count() + 1];
    for &key in &*keys {
        bounds[digits.of_key(key) + 1] += 1;
    }
    for i in 1..bounds.len() {
        bounds[i] += bounds[i - 1];
    }
    let mut next = bounds.clone();
    spare.clear();
    spare.extend_from_slice(keys);
    for &key in &*spare {
        let place = &mut next[digits.of_key(key)];
        keys[*place as usize] = key;
        *place += 1;
    }
    for bounds in bounds.windows(2) {
        let group = &mut keys[bounds[0] as usize..bounds[1] as usize];
        if group.len() > FEW && !group.is_sorted() {
            order_in_cache(group, spare);
        } else if group.len() > 1 {
            group.sort_unstable();
        }
    }
}

/// The leading bits in which some keys differ.
struct Digits {
    shift: u32,
    base: u128,
    bits: u32,
}

impl Digits {
    fn of(keys: &[u128], most: u32) -> Self {
        let low = keys.iter().copied().min().unwrap_or(0);
        let high = keys.iter().copied().max().unwrap_or(0);
        let differing = bits(low ^ high);
        let shift = differing.saturating_sub(most);
        Self {
            shift,
            base: low >> shift >> (differing - shift) << (differing - shift),
            bits: differing - shift,
        }
    }

    fn count(&self) -> usize {
        1 << self.bits
    }

    fn of_key(&self, key: u128) -> usize {
        ((key >> self.shift) - self.base) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::mix64;

    fn assert_sorted(user: &[i64], time: &[i64]) {
        let keep: Vec<bool> = (0..user.len())
            .map(|i| !mix64(i as u64).is_multiple_of(3))
            .collect();
        for keep in [None, Some(keep.as_slice())] {
            let mut plain: Vec<u32> = (0..user.len() as u32)
                .filter(|&i| keep.is_none_or(|keep| keep[i as usize]))
                .collect();
            plain.sort_by_key(|&row| (user[row as usize], time[row as usize]));
            let slow = sort_plainly(user, time, keep, &Stop::new()).unwrap();
            let fast = sort(user, time, keep, &Stop::new()).unwrap();
            assert_eq!(fast.rows, plain);
            assert_eq!(slow.rows, plain);
            assert_eq!(
                (fast.times, fast.users, fast.offsets),
                (slow.times, slow.users, slow.offsets)
            );
        }
    }

    fn random(n: usize, salt: u64) -> impl Iterator<Item = u64> {
        (0..n as u64).map(move |i| mix64(i.wrapping_mul(0x9e37_79b9) ^ salt))
    }

    #[test]
    fn every_distribution_is_sorted() {
        let n = IN_CACHE + 4_000;
        let few = |bound: u64, salt| {
            random(n, salt)
                .map(|x| (x % bound) as i64)
                .collect::<Vec<_>>()
        };
        let hashed: Vec<i64> = few(5000, 1)
            .iter()
            .map(|&x| mix64(x as u64) as i64)
            .collect();
        let one = vec![7; n];
        let rising: Vec<i64> = (0..n as i64)
            .map(|i| 1_700_000_000_000_000 + i * 1_000_003)
            .collect();
        let falling: Vec<i64> = rising.iter().rev().copied().collect();
        let mut outlier = few(20_000, 2);
        outlier[17] = i64::MAX;
        let far: Vec<i64> = random(n, 3).map(|x| x as i64).collect();
        for user in [&hashed, &one, &few(20_000, 4), &outlier, &far, &few(3, 5)] {
            for time in [&rising, &falling, &one, &few(1000, 6), &far] {
                assert_sorted(user, time);
            }
        }
    }

    #[test]
    fn any_number_of_events_is_sorted() {
        for n in [0, 1, 2, 3, 63, 64, 65, 1000, FEW * 9, IN_CACHE + 1] {
            let user: Vec<i64> = random(n, 1).map(|x| (x % 50) as i64 - 25).collect();
            let time: Vec<i64> = random(n, 2).map(|x| (x % 9) as i64 - 4).collect();
            assert_sorted(&user, &time);
        }
    }

    #[test]
    fn a_set_flag_ends_the_work() {
        let stop = Stop::new();
        stop.set();
        let n = IN_CACHE * 2;
        let values: Vec<i64> = (0..n as i64).collect();
        assert!(matches!(
            sort(&values, &values, None, &stop),
            Err(crate::Error::Interrupted)
        ));
    }
}
