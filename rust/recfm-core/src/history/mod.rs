//! Per user, the events in time order, and the window of them that a moment may see.
//!
//! The rule that keeps labels from leaking: a query at `time` sees events with `event_time < time - delay`,
//! strictly. An event at exactly that moment is not seen, whatever its place in the table.

mod parts;
mod slots;
mod sort;
mod walk;

use rayon::prelude::*;

use crate::blocks::Column;
use crate::stop::Stop;
use crate::{Error, Result, memory, pool};

pub use parts::{newest_first, window_of_parts};
pub use slots::{EMPTY, fill_slots, slot_count};

/// Queries that one task takes at least.
const MIN_QUERIES: usize = 512;
/// Queries that are searched for side by side.
const GROUP: usize = 32;
/// Groups between two looks at the stop flag.
const STRIDE: usize = 1 << 10;

/// Which past events a moment sees.
#[derive(Debug, Clone, Copy)]
pub struct Horizon {
    /// The newest so many.
    pub length: i64,
    /// `event_time < time - delay`.
    pub delay: i64,
    /// `time - max_age <= event_time`, if given.
    pub max_age: Option<i64>,
}

impl Horizon {
    fn checked(self) -> Result<Self> {
        let given = [
            ("length", Some(self.length)),
            ("delay", Some(self.delay)),
            ("max_age", self.max_age),
        ];
        for (name, value) in given {
            if let Some(value) = value
                && value < 0
            {
                return Err(Error::Negative { name, value });
            }
        }
        Ok(self)
    }

    /// First time that is too late to be seen.
    fn until(&self, time: i64) -> i64 {
        time.saturating_sub(self.delay)
    }

    /// First time that is not too old.
    fn since(&self, time: i64) -> i64 {
        self.max_age
            .map_or(i64::MIN, |age| time.saturating_sub(age))
    }

    /// The window, of positions `oldest..stop` that are old enough and not too old.
    fn newest(&self, oldest: usize, stop: usize) -> (usize, usize) {
        (
            oldest
                .min(stop)
                .max(stop.saturating_sub(self.length as usize)),
            stop,
        )
    }
}

/// Events ordered by (user, time, position), in memory or in a mapped file.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// Position of each event in the table that it came from.
    pub rows: Column<'a, u32>,
    /// Time of each event; rising within a user.
    pub times: Column<'a, i64>,
    /// Distinct users, rising.
    pub users: Column<'a, i64>,
    /// The events of `users[i]` are `offsets[i]..offsets[i + 1]`.
    pub offsets: Column<'a, u32>,
    /// From a user to its place in `users`.
    pub slots: Column<'a, u32>,
    /// Rows of the table, those that are not indexed included.
    pub table: usize,
}

impl Part<'_> {
    /// For each query the range of indexed events that `horizon` lets it see, as starts and stops; empty where
    /// there is none.
    pub fn window(
        &self,
        user: &[i64],
        time: &[i64],
        horizon: Horizon,
        stop: &Stop,
    ) -> Result<(Vec<i64>, Vec<i64>)> {
        same_length("user", user.len(), "time", time.len())?;
        let horizon = horizon.checked()?;
        let mut starts = memory::zeros::<i64>(user.len());
        let mut stops = memory::zeros::<i64>(user.len());
        pool::install(|| {
            let queries = user.par_chunks(GROUP).zip(time.par_chunks(GROUP));
            let windows = starts
                .par_chunks_mut(GROUP)
                .zip(stops.par_chunks_mut(GROUP));
            let groups = queries.zip(windows).with_min_len(MIN_QUERIES / GROUP);
            groups
                .enumerate()
                .try_for_each(|(i, ((user, time), (starts, stops)))| {
                    if i % STRIDE == 0 {
                        stop.check()?;
                    }
                    self.expect(user);
                    let windows = starts.iter_mut().zip(stops);
                    for ((&user, &time), (first, last)) in user.iter().zip(time).zip(windows) {
                        let (start, stop) = self.before(user, time, &horizon)?;
                        (*first, *last) = (start as i64, stop as i64);
                    }
                    Ok(())
                })
        })??;
        Ok((starts, stops))
    }

    /// Fetches what the search for these users will read, so that their cache misses overlap.
    fn expect(&self, user: &[i64]) {
        let (slots, users) = (self.slots.unchecked(), self.users.unchecked());
        let (offsets, times) = (self.offsets.unchecked(), self.times.unchecked());
        if self.times.is_checked() || slots.is_empty() {
            return; // a mapped page that is not in memory would be waited for
        }
        let hint = |place: Option<&u32>| memory::prefetch(place.map_or(&[], std::slice::from_ref));
        let slot = |user: &i64| slots.get(slots::home(*user, slots.len()));
        for user in user {
            hint(slot(user));
        }
        let places = user
            .iter()
            .filter_map(|user| slot(user).map(|&place| place as usize));
        for place in places.clone() {
            hint(offsets.get(place));
            memory::prefetch(users.get(place..=place).unwrap_or_default());
        }
        for place in places {
            if let Some(&[first, last]) = offsets.get(place..place + 2) {
                let middle = first.midpoint(last) as usize;
                memory::prefetch(times.get(middle..=middle).unwrap_or_default());
            }
        }
    }

    /// What `user` sees at `time`.
    fn before(&self, user: i64, time: i64, horizon: &Horizon) -> Result<(usize, usize)> {
        let Some(place) = slots::find(self.slots, self.users, user)? else {
            return Ok((0, 0));
        };
        let (first, last) = self.events_of(place)?;
        let stop = self.lower_bound(first, last, horizon.until(time))?;
        let oldest = match horizon.max_age {
            Some(_) => self.lower_bound(first, stop, horizon.since(time))?,
            None => first,
        };
        Ok(horizon.newest(oldest, stop))
    }

    fn events_of(&self, place: usize) -> Result<(usize, usize)> {
        let bounds = self.offsets.range(place..place + 2)?;
        Ok((bounds[0] as usize, bounds[1] as usize))
    }

    /// First of the events `first..last` of a user that is at or after `moment`.
    fn lower_bound(&self, mut first: usize, mut last: usize, moment: i64) -> Result<usize> {
        if !self.times.is_checked() {
            let times = self.times.range(first..last)?;
            return Ok(first + times.partition_point(|&time| time < moment));
        }
        while first < last {
            let middle = first.midpoint(last);
            if self.times.get(middle)? < moment {
                first = middle + 1;
            } else {
                last = middle;
            }
        }
        Ok(first)
    }

    /// Number of indexed events.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no events.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

/// A [`Part`] that owns its columns.
#[derive(Debug)]
pub struct HistoryIndex {
    /// See [`Part::rows`].
    pub rows: Vec<u32>,
    /// See [`Part::times`].
    pub times: Vec<i64>,
    /// See [`Part::users`].
    pub users: Vec<i64>,
    /// See [`Part::offsets`].
    pub offsets: Vec<u32>,
    /// See [`Part::slots`].
    pub slots: Vec<u32>,
    /// See [`Part::table`].
    pub table: usize,
}

impl HistoryIndex {
    /// Indexes events given by their user and time: those that `keep` marks, or all.
    pub fn new(user: &[i64], time: &[i64], keep: Option<&[bool]>, stop: &Stop) -> Result<Self> {
        same_length("user", user.len(), "time", time.len())?;
        if let Some(keep) = keep {
            same_length("keep", keep.len(), "user", user.len())?;
        }
        if user.len() >= u32::MAX as usize {
            return Err(Error::PartSize(user.len()));
        }
        let sorted = pool::install(|| sort::sort(user, time, keep, stop))??;
        stop.check()?;
        Ok(Self {
            slots: slots::slots(&sorted.users),
            rows: sorted.rows,
            times: sorted.times,
            users: sorted.users,
            offsets: sorted.offsets,
            table: user.len(),
        })
    }

    /// The index as slices.
    pub fn part(&self) -> Part<'_> {
        Part {
            rows: self.rows.as_slice().into(),
            times: self.times.as_slice().into(),
            users: self.users.as_slice().into(),
            offsets: self.offsets.as_slice().into(),
            slots: self.slots.as_slice().into(),
            table: self.table,
        }
    }
}

/// Refuses two arguments that are not equally long.
pub fn same_length(
    left: &'static str,
    left_len: usize,
    right: &'static str,
    right_len: usize,
) -> Result<()> {
    if left_len == right_len {
        return Ok(());
    }
    Err(Error::Length {
        left,
        left_len,
        right,
        right_len,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(user: &[i64], time: &[i64]) -> HistoryIndex {
        HistoryIndex::new(user, time, None, &Stop::new()).unwrap()
    }

    fn seen(
        index: &HistoryIndex,
        (user, time): (i64, i64),
        (length, delay): (i64, i64),
        max_age: Option<i64>,
    ) -> Result<(i64, i64)> {
        let horizon = Horizon {
            length,
            delay,
            max_age,
        };
        let (start, stop) = index
            .part()
            .window(&[user], &[time], horizon, &Stop::new())?;
        Ok((start[0], stop[0]))
    }

    #[test]
    fn ties_never_count_and_order_is_by_user_time_position() {
        let index = index(&[2, 1, 2, 1, 2], &[5, 3, 1, 3, 5]);
        assert_eq!(index.rows, [1, 3, 2, 0, 4]);
        assert_eq!(index.users, [1, 2]);
        assert_eq!(seen(&index, (2, 5), (9, 0), None), Ok((2, 3)));
        assert_eq!(seen(&index, (2, 6), (9, 0), None), Ok((2, 5)));
        assert_eq!(seen(&index, (2, 6), (2, 0), None), Ok((3, 5)));
        assert_eq!(seen(&index, (2, 6), (9, 1), None), Ok((2, 3)));
        assert_eq!(seen(&index, (2, 6), (0, 0), None), Ok((5, 5)));
        assert_eq!(seen(&index, (3, 9), (9, 0), None), Ok((0, 0)));
    }

    #[test]
    fn events_older_than_max_age_are_forgotten() {
        let index = index(&[2, 2, 2, 2], &[1, 3, 3, 5]);
        assert_eq!(seen(&index, (2, 6), (9, 0), Some(3)), Ok((1, 4)));
        assert_eq!(seen(&index, (2, 6), (2, 0), Some(3)), Ok((2, 4)));
        assert_eq!(seen(&index, (2, 6), (9, 0), Some(2)), Ok((3, 4)));
        assert_eq!(seen(&index, (2, 6), (9, 2), Some(1)), Ok((3, 3)));
        assert_eq!(seen(&index, (2, 6), (9, 0), Some(i64::MAX)), Ok((0, 4)));
    }

    #[test]
    fn extreme_keys_sort_and_do_not_overflow() {
        let index = index(
            &[i64::MAX, i64::MIN, i64::MIN],
            &[i64::MIN, i64::MAX, i64::MIN],
        );
        assert_eq!(index.rows, [2, 1, 0]);
        assert_eq!(
            seen(&index, (i64::MIN, i64::MIN), (5, i64::MAX), None),
            Ok((0, 0))
        );
        assert_eq!(
            seen(&index, (i64::MIN, i64::MAX), (i64::MAX, 0), None),
            Ok((0, 1))
        );
    }

    #[test]
    fn only_kept_events_are_indexed_under_their_own_rows() {
        let keep = [false, true, true, false];
        let index = HistoryIndex::new(&[1; 4], &[4, 3, 2, 1], Some(&keep), &Stop::new()).unwrap();
        assert_eq!((index.rows, index.table), (vec![2, 1], 4));
    }

    #[test]
    fn no_events_answer_every_query_with_nothing() {
        let index = index(&[], &[]);
        assert_eq!(seen(&index, (1, 1), (1, 0), None), Ok((0, 0)));
        assert!(index.part().is_empty());
    }

    #[test]
    fn bad_arguments_are_named() {
        let index = index(&[1], &[1]);
        let negative = |name| Err(Error::Negative { name, value: -1 });
        assert_eq!(seen(&index, (1, 1), (1, -1), None), negative("delay"));
        assert_eq!(seen(&index, (1, 1), (-1, 0), None), negative("length"));
        assert_eq!(seen(&index, (1, 1), (1, 0), Some(-1)), negative("max_age"));
        let horizon = Horizon {
            length: 1,
            delay: 0,
            max_age: None,
        };
        assert!(matches!(
            index.part().window(&[1], &[], horizon, &Stop::new()),
            Err(Error::Length { .. })
        ));
    }
}
