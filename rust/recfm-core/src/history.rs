//! Per user, the events in time order, and the window of them that a moment may see.
//!
//! The rule that keeps labels from leaking: a query at `time` sees events with `event_time < time - delay`,
//! strictly. An event at exactly that moment is not seen, whatever its place in the table.

use hashbrown::HashTable;
use rayon::prelude::*;

use crate::hash::Key;
use crate::{Error, Result, pool};

/// Queries that one task takes at least.
const MIN_QUERIES: usize = 512;

/// Events ordered by (user, time, position).
#[derive(Debug)]
pub struct HistoryIndex {
    /// Position of each event in the arrays it came from.
    rows: Vec<i64>,
    /// Time of each event; rising within a user.
    times: Vec<i64>,
    /// Distinct users, rising.
    users: Vec<i64>,
    /// The events of `users[i]` are `offsets[i]..offsets[i + 1]`.
    offsets: Vec<usize>,
    /// From a user to its place in `users`.
    places: HashTable<usize>,
}

impl HistoryIndex {
    /// Indexes events given by their user and time.
    pub fn new(user: &[i64], time: &[i64]) -> Result<Self> {
        same_length("user", user.len(), "time", time.len())?;
        let rows = pool::install(|| sorted_positions(user, time))?;
        let times = pool::install(|| rows.par_iter().map(|&row| time[row as usize]).collect())?;
        let mut users = Vec::new();
        let mut offsets = Vec::new();
        for (place, &row) in rows.iter().enumerate() {
            let user = user[row as usize];
            if users.last() != Some(&user) {
                users.push(user);
                offsets.push(place);
            }
        }
        offsets.push(rows.len());
        let mut places = HashTable::with_capacity(users.len());
        for (place, user) in users.iter().enumerate() {
            places.insert_unique(user.hash64(), place, |&other| users[other].hash64());
        }
        Ok(Self {
            rows,
            times,
            users,
            offsets,
            places,
        })
    }

    /// For each query the range in [`rows`](Self::rows) of the newest `length` events of that user with
    /// `event_time < time - delay`, as starts and stops; empty where there is none.
    pub fn window(
        &self,
        user: &[i64],
        time: &[i64],
        length: i64,
        delay: i64,
    ) -> Result<(Vec<i64>, Vec<i64>)> {
        same_length("user", user.len(), "time", time.len())?;
        for (name, value) in [("length", length), ("delay", delay)] {
            if value < 0 {
                return Err(Error::Negative { name, value });
            }
        }
        pool::install(|| {
            let queries = user.par_iter().zip(time).with_min_len(MIN_QUERIES);
            queries
                .map(|(&user, &time)| {
                    self.before(user, time.saturating_sub(delay), length as usize)
                })
                .unzip()
        })
    }

    /// The newest `length` events of `user` strictly before `moment`.
    fn before(&self, user: i64, moment: i64, length: usize) -> (i64, i64) {
        let Some(&place) = self
            .places
            .find(user.hash64(), |&place| self.users[place] == user)
        else {
            return (0, 0);
        };
        let first = self.offsets[place];
        let stop = first
            + self.times[first..self.offsets[place + 1]].partition_point(|&time| time < moment);
        (first.max(stop.saturating_sub(length)) as i64, stop as i64)
    }

    /// Positions of the events, as given, ordered by (user, time, position).
    pub fn rows(&self) -> &[i64] {
        &self.rows
    }

    /// Number of distinct users.
    pub fn num_users(&self) -> usize {
        self.users.len()
    }

    /// Number of events.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no events.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

pub(crate) fn same_length(
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

/// Positions ordered by (user, time, position).
fn sorted_positions(user: &[i64], time: &[i64]) -> Vec<i64> {
    let (user_low, user_bits) = span(user);
    let (time_low, time_bits) = span(time);
    let row_bits = bits(user.len().saturating_sub(1) as u64);
    if user_bits + time_bits + row_bits > u128::BITS {
        let mut rows: Vec<i64> = (0..user.len() as i64).collect();
        rows.par_sort_unstable_by_key(|&row| (user[row as usize], time[row as usize], row));
        return rows;
    }
    // One integer per event compares in one step, and its low bits say which event it was.
    let pack = |row: usize| {
        let user = u128::from(user[row].wrapping_sub(user_low) as u64);
        let time = u128::from(time[row].wrapping_sub(time_low) as u64);
        (((user << time_bits) | time) << row_bits) | row as u128
    };
    let mut keys: Vec<u128> = (0..user.len()).into_par_iter().map(pack).collect();
    keys.par_sort_unstable();
    let row_mask = (1 << row_bits) - 1;
    keys.into_par_iter()
        .map(|key| (key & row_mask) as i64)
        .collect()
}

/// Smallest value, and the bits that its distance to the largest takes.
fn span(values: &[i64]) -> (i64, u32) {
    let low = values.par_iter().copied().min().unwrap_or(0);
    let high = values.par_iter().copied().max().unwrap_or(0);
    (low, bits(high.wrapping_sub(low) as u64))
}

fn bits(value: u64) -> u32 {
    u64::BITS - value.leading_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_never_count_and_order_is_by_user_time_position() {
        let index = HistoryIndex::new(&[2, 1, 2, 1, 2], &[5, 3, 1, 3, 5]).unwrap();
        assert_eq!(index.rows(), [1, 3, 2, 0, 4]);
        assert_eq!(index.num_users(), 2);
        let window = |user, time, length, delay| {
            let (start, stop) = index.window(&[user], &[time], length, delay).unwrap();
            (start[0], stop[0])
        };
        assert_eq!(window(2, 5, 9, 0), (2, 3));
        assert_eq!(window(2, 6, 9, 0), (2, 5));
        assert_eq!(window(2, 6, 2, 0), (3, 5));
        assert_eq!(window(2, 6, 9, 1), (2, 3));
        assert_eq!(window(2, 6, 0, 0), (5, 5));
        assert_eq!(window(3, 9, 9, 0), (0, 0));
    }

    #[test]
    fn extreme_keys_sort_and_do_not_overflow() {
        let (user, time) = (
            [i64::MAX, i64::MIN, i64::MIN],
            [i64::MIN, i64::MAX, i64::MIN],
        );
        let index = HistoryIndex::new(&user, &time).unwrap();
        assert_eq!(index.rows(), [2, 1, 0]);
        assert_eq!(
            index.window(&[i64::MIN], &[i64::MIN], 5, i64::MAX),
            Ok((vec![0], vec![0]))
        );
        assert_eq!(
            index.window(&[i64::MIN], &[i64::MAX], i64::MAX, 0),
            Ok((vec![0], vec![1]))
        );
    }

    #[test]
    fn packed_and_plain_sort_agree() {
        let user: Vec<i64> = (0..1000).map(|i| i * 7919 % 13 - 6).collect();
        let time: Vec<i64> = (0..1000).map(|i| i * 104_729 % 37 - 18).collect();
        let mut plain: Vec<i64> = (0..1000).collect();
        plain.sort_by_key(|&row| (user[row as usize], time[row as usize]));
        assert_eq!(sorted_positions(&user, &time), plain);
    }

    #[test]
    fn no_events_answer_every_query_with_nothing() {
        let index = HistoryIndex::new(&[], &[]).unwrap();
        assert_eq!(index.window(&[1], &[1], 1, 0), Ok((vec![0], vec![0])));
        assert!(index.is_empty());
    }

    #[test]
    fn bad_arguments_are_named() {
        let index = HistoryIndex::new(&[1], &[1]).unwrap();
        assert_eq!(
            index.window(&[1], &[1], 1, -1),
            Err(Error::Negative {
                name: "delay",
                value: -1
            })
        );
        assert_eq!(
            index.window(&[1], &[1], -1, 0),
            Err(Error::Negative {
                name: "length",
                value: -1
            })
        );
        assert!(matches!(
            index.window(&[1], &[], 1, 0),
            Err(Error::Length { .. })
        ));
    }
}
