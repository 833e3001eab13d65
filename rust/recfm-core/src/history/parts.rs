//! Several parts as one history: appended events are indexed apart and merged when they are read.

use rayon::prelude::*;

use super::{Horizon, MIN_QUERIES, Part, STRIDE, same_length};
use crate::stop::Stop;
use crate::{Result, memory, pool};

/// For each query one window in each part, `[B, P]` flat: together the newest `length` events, as one index over
/// all parts would find them. Of events of one moment those of the later part are newer.
pub fn window_of_parts(
    parts: &[Part<'_>],
    user: &[i64],
    time: &[i64],
    horizon: Horizon,
    stop: &Stop,
) -> Result<(Vec<i64>, Vec<i64>)> {
    same_length("user", user.len(), "time", time.len())?;
    let horizon = horizon.checked()?;
    let mut starts = memory::zeros::<i64>(user.len() * parts.len());
    let mut stops = memory::zeros::<i64>(user.len() * parts.len());
    if parts.is_empty() {
        return Ok((starts, stops));
    }
    pool::install(|| {
        let queries = user
            .par_iter()
            .zip(time)
            .with_min_len(MIN_QUERIES)
            .enumerate();
        let windows = starts
            .par_chunks_exact_mut(parts.len())
            .zip(stops.par_chunks_exact_mut(parts.len()));
        queries
            .zip(windows)
            .try_for_each(|((i, (&user, &time)), (starts, stops))| {
                if i % STRIDE == 0 {
                    stop.check()?;
                }
                let mut total = 0;
                for ((part, first), last) in parts.iter().zip(&mut *starts).zip(&mut *stops) {
                    let (start, stop) = part.before(user, time, &horizon)?;
                    (*first, *last) = (start as i64, stop as i64);
                    total += stop - start;
                }
                if total as u64 <= horizon.length as u64 {
                    return Ok(());
                }
                let mut taken = vec![0; parts.len()];
                newest_first(parts, starts, stops, horizon.length as usize, |part, _| {
                    taken[part] += 1;
                    Ok(())
                })?;
                for ((start, stop), taken) in starts.iter_mut().zip(stops).zip(taken) {
                    *start = *stop - taken;
                }
                Ok(())
            })
    })??;
    Ok((starts, stops))
}

/// Calls `take(part, position)` for the newest `limit` events of one window in each part: by time, then part, then
/// position, falling.
///
/// The windows must lie inside their parts.
pub fn newest_first(
    parts: &[Part<'_>],
    starts: &[i64],
    stops: &[i64],
    limit: usize,
    mut take: impl FnMut(usize, usize) -> Result<()>,
) -> Result<()> {
    let newest = |part: usize, stop: usize| -> Result<Option<i64>> {
        if stop as i64 <= starts[part] {
            return Ok(None);
        }
        parts[part].times.get(stop - 1).map(Some)
    };
    let mut heads = Vec::with_capacity(parts.len());
    for (part, &stop) in stops.iter().enumerate() {
        heads.push((newest(part, stop as usize)?, part, stop as usize));
    }
    for _ in 0..limit {
        let Some(head) = heads
            .iter_mut()
            .max_by_key(|(time, part, _)| (*time, *part))
        else {
            break;
        };
        let (time, part, stop) = *head;
        if time.is_none() {
            break;
        }
        take(part, stop - 1)?;
        *head = (newest(part, stop - 1)?, part, stop - 1);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::HistoryIndex;
    use super::*;
    use crate::hash::mix64;

    #[test]
    fn parts_see_what_one_index_sees() {
        let n = 3000_u64;
        let user: Vec<i64> = (0..n).map(|i| (mix64(i) % 20) as i64).collect();
        let time: Vec<i64> = (0..n).map(|i| (mix64(i * 3) % 300) as i64).collect();
        let stop = Stop::new();
        let whole = HistoryIndex::new(&user, &time, None, &stop).unwrap();
        let cuts = [0, 10, 10, 1700, 3000];
        let owned: Vec<_> = cuts
            .windows(2)
            .map(|c| HistoryIndex::new(&user[c[0]..c[1]], &time[c[0]..c[1]], None, &stop).unwrap())
            .collect();
        let parts: Vec<_> = owned.iter().map(HistoryIndex::part).collect();
        for (length, delay, max_age) in [
            (7, 0, None),
            (5, 9, Some(30)),
            (0, 0, None),
            (i64::MAX, 3, None),
        ] {
            let horizon = Horizon {
                length,
                delay,
                max_age,
            };
            let (start, stop_at) = window_of_parts(&parts, &user, &time, horizon, &stop).unwrap();
            let (one, other) = whole.part().window(&user, &time, horizon, &stop).unwrap();
            for i in 0..user.len() {
                let at = i * parts.len()..(i + 1) * parts.len();
                let mut seen = Vec::new();
                newest_first(
                    &parts,
                    &start[at.clone()],
                    &stop_at[at],
                    usize::MAX,
                    |part, position| {
                        seen.push(cuts[part] as u32 + owned[part].rows[position]);
                        Ok(())
                    },
                )
                .unwrap();
                let expected: Vec<u32> = whole.rows[one[i] as usize..other[i] as usize]
                    .iter()
                    .rev()
                    .copied()
                    .collect();
                assert_eq!(seen, expected);
            }
        }
    }

    #[test]
    fn no_parts_see_nothing() {
        let horizon = Horizon {
            length: 1,
            delay: 0,
            max_age: None,
        };
        assert_eq!(
            window_of_parts(&[], &[1], &[1], horizon, &Stop::new()),
            Ok((vec![], vec![]))
        );
    }
}
