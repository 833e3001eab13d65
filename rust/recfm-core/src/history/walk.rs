//! The window of every indexed event: a walk along each user's events, without a search.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use super::{Horizon, Part};
use crate::stop::Stop;
use crate::{Error, Result, memory, pool};

/// Events of one task at least.
const SHARE: usize = 1 << 15;
/// Stands for an event that is not indexed.
const NONE: u64 = u64::MAX;

impl Part<'_> {
    /// What [`Part::window`] returns for the events' own users and times, in the order in which they were given;
    /// events that are not indexed are left out.
    pub fn windows_of_events(&self, horizon: Horizon, stop: &Stop) -> Result<(Vec<i64>, Vec<i64>)> {
        let horizon = horizon.checked()?;
        let found: Vec<AtomicU64> =
            memory::atomics(self.table, if self.len() < self.table { NONE } else { 0 });
        pool::install(|| {
            let shares: Vec<Range<usize>> = self.shares()?;
            shares.into_par_iter().try_for_each(|users| {
                stop.check()?;
                users
                    .into_iter()
                    .try_for_each(|user| self.walk(user, &horizon, &found))
            })?;
            stop.check()?;
            let mut found = found;
            if self.len() < self.table {
                found.retain_mut(|window| *window.get_mut() != NONE);
            }
            let mut starts = memory::zeros::<i64>(found.len());
            let mut stops = memory::zeros::<i64>(found.len());
            let windows = starts.par_iter_mut().zip(&mut stops).with_min_len(SHARE);
            windows.zip(&found).for_each(|((start, stop), window)| {
                let window = window.load(Ordering::Relaxed);
                *start = (window >> 32) as i64;
                *stop = i64::from(window as u32);
            });
            Ok((starts, stops))
        })?
    }

    /// Ranges of users that have about `SHARE` events each.
    fn shares(&self) -> Result<Vec<Range<usize>>> {
        let offsets = self.offsets.range(0..self.users.len() + 1)?;
        let (mut shares, mut first) = (Vec::new(), 0);
        while first < self.users.len() {
            let goal = offsets[first].saturating_add(SHARE as u32);
            let count = offsets[first + 1..]
                .partition_point(|&offset| offset <= goal)
                .max(1);
            shares.push(first..first + count);
            first += count;
        }
        Ok(shares)
    }

    fn walk(&self, user: usize, horizon: &Horizon, found: &[AtomicU64]) -> Result<()> {
        let (first, last) = self.events_of(user)?;
        let times = self.times.range(first..last)?;
        let rows = self.rows.range(first..last)?;
        let (mut oldest, mut stop) = (0, 0);
        for (&time, &row) in times.iter().zip(rows) {
            let (until, since) = (horizon.until(time), horizon.since(time));
            // Times rise, so neither end of the window ever moves back.
            while stop < times.len() && times[stop] < until {
                stop += 1;
            }
            while oldest < stop && times[oldest] < since {
                oldest += 1;
            }
            let (start, stop) = horizon.newest(oldest, stop);
            let window = (((first + start) as u64) << 32) | (first + stop) as u64;
            let Some(place) = found.get(row as usize) else {
                return Err(Error::IndexRange {
                    start: row as usize,
                    stop: row as usize + 1,
                    n: found.len(),
                });
            };
            place.store(window, Ordering::Relaxed);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::HistoryIndex;
    use super::*;
    use crate::hash::mix64;

    #[test]
    fn users_without_offsets_are_refused() {
        let mut index = HistoryIndex::new(&[1, 2], &[1, 1], None, &Stop::new()).unwrap();
        let horizon = Horizon {
            length: 1,
            delay: 0,
            max_age: None,
        };
        for kept in (0..=2).rev() {
            index.offsets.truncate(kept);
            let walked = index.part().windows_of_events(horizon, &Stop::new());
            let error = Error::IndexRange {
                start: 0,
                stop: 3,
                n: kept,
            };
            assert_eq!(walked, Err(error));
        }
    }

    #[test]
    fn the_walk_finds_what_the_search_finds() {
        let n = 60_000_u64;
        let user: Vec<i64> = (0..n)
            .map(|i| (mix64(i) % 900).min(mix64(i + n) % 900) as i64)
            .collect();
        let time: Vec<i64> = (0..n).map(|i| (mix64(i * 3) % 700) as i64).collect();
        let keep: Vec<bool> = (0..n).map(|i| !mix64(i * 5).is_multiple_of(3)).collect();
        let stop = Stop::new();
        for keep in [None, Some(keep.as_slice())] {
            let index = HistoryIndex::new(&user, &time, keep, &stop).unwrap();
            let kept = |i: &usize| keep.is_none_or(|keep| keep[*i]);
            let users: Vec<i64> = (0..user.len()).filter(kept).map(|i| user[i]).collect();
            let times: Vec<i64> = (0..user.len()).filter(kept).map(|i| time[i]).collect();
            for (length, delay, max_age) in [
                (50, 0, None),
                (3, 40, Some(90)),
                (0, 0, None),
                (i64::MAX, 0, Some(20)),
                (9, 60, Some(50)),
            ] {
                let horizon = Horizon {
                    length,
                    delay,
                    max_age,
                };
                let walked = index.part().windows_of_events(horizon, &stop).unwrap();
                assert_eq!(
                    walked,
                    index.part().window(&users, &times, horizon, &stop).unwrap()
                );
            }
        }
    }
}
