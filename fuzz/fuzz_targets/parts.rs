//! Parts of a history that no writer wrote: an error or a result, never a panic, never a search without end.
//!
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run parts -- -timeout=10`. A part starts as an index and is then overwritten, cut
//! and lengthened, or most inputs would fail at their first look.

#![no_main]

use bytemuck::NoUninit;
use libfuzzer_sys::{arbitrary, fuzz_target};
use recfm_core::blocks::{Blocks, Column, Seen, block_sums};
use recfm_core::gather::{Store, Stored, gather};
use recfm_core::history::{HistoryIndex, Horizon, Part, window_of_parts};
use recfm_core::quantize::{pairs_of, uniform_codebook};
use recfm_core::stop::Stop;

#[derive(arbitrary::Arbitrary, Debug)]
enum Change {
    Set(u8, u8, i8),
    Push(u8, i8),
    Cut(u8, u8),
}

#[derive(arbitrary::Arbitrary, Debug)]
struct History {
    events: Vec<(i8, i8)>,
    changes: Vec<Change>,
    table: Option<u8>,
    /// Bit `i`: column `i` is in a file.
    checked: u8,
    /// A column whose checksums are wrong.
    damaged: u8,
    /// Elements that the store has too many.
    longer: i8,
}

#[derive(arbitrary::Arbitrary, Debug)]
struct Input {
    histories: Vec<History>,
    queries: Vec<(i8, i8)>,
    length: i8,
    delay: i8,
    max_age: Option<i8>,
    dim: u8,
    windows: Vec<(i8, i8)>,
}

/// A small number, or one near the ends of its type.
trait Number: Copy + NoUninit {
    fn from_small(small: i8) -> Self;
}

impl Number for u32 {
    fn from_small(small: i8) -> Self {
        i32::from(small) as u32
    }
}

impl Number for i64 {
    fn from_small(small: i8) -> Self {
        match small {
            i8::MIN => Self::MIN,
            i8::MAX => Self::MAX,
            _ => Self::from(small),
        }
    }
}

impl Change {
    fn apply<T: Number>(&self, place: u8, values: &mut Vec<T>) {
        match *self {
            Self::Set(column, at, value) if column % 5 == place => {
                if let Some(to) = values.get_mut(usize::from(at)) {
                    *to = T::from_small(value);
                }
            }
            Self::Push(column, value) if column % 5 == place => values.push(T::from_small(value)),
            Self::Cut(column, at) if column % 5 == place => values.truncate(usize::from(at)),
            _ => {}
        }
    }
}

/// What a file holds beside its bytes.
struct Sums {
    sums: Vec<u64>,
    seen: Seen,
}

fn sums<T: NoUninit>(values: &[T], damaged: bool) -> Sums {
    let mut sums = block_sums(bytemuck::cast_slice(values));
    let seen = Seen::new(sums.len());
    if damaged {
        sums.iter_mut().for_each(|sum| *sum ^= 1);
    }
    Sums { sums, seen }
}

fn column<'a, T: NoUninit>(values: &'a [T], sums: &'a Sums, checked: bool) -> Column<'a, T> {
    let blocks = Blocks {
        file: "f",
        bytes: bytemuck::cast_slice(values),
        sums: &sums.sums,
        seen: &sums.seen,
    };
    Column::new(values, checked.then_some(blocks))
}

fuzz_target!(|input: Input| {
    let never = Stop::new();
    let histories = &input.histories[..input.histories.len().min(4)];
    let owned: Vec<_> = histories
        .iter()
        .map(|history| {
            let (users, times): (Vec<_>, Vec<_>) = history
                .events
                .iter()
                .map(|&(user, time)| (i64::from_small(user), i64::from_small(time)))
                .unzip();
            let mut index =
                HistoryIndex::new(&users, &times, None, &never).expect("any events are indexed");
            for change in &history.changes {
                change.apply(0, &mut index.rows);
                change.apply(1, &mut index.times);
                change.apply(2, &mut index.users);
                change.apply(3, &mut index.offsets);
                change.apply(4, &mut index.slots);
            }
            index.table = history.table.map_or(index.table, usize::from);
            let is_damaged = |place: u8| history.damaged == place + 1;
            let sums = [
                sums(&index.rows, is_damaged(0)),
                sums(&index.times, is_damaged(1)),
                sums(&index.users, is_damaged(2)),
                sums(&index.offsets, is_damaged(3)),
                sums(&index.slots, is_damaged(4)),
            ];
            (index, sums)
        })
        .collect();
    let parts: Vec<_> = owned
        .iter()
        .zip(histories)
        .map(|((index, sums), history)| {
            let checked = |place: u8| history.checked >> place & 1 == 1;
            Part {
                rows: column(&index.rows, &sums[0], checked(0)),
                times: column(&index.times, &sums[1], checked(1)),
                users: column(&index.users, &sums[2], checked(2)),
                offsets: column(&index.offsets, &sums[3], checked(3)),
                slots: column(&index.slots, &sums[4], checked(4)),
                table: index.table,
            }
        })
        .collect();

    let horizon = Horizon {
        length: i64::from_small(input.length),
        delay: i64::from_small(input.delay),
        max_age: input.max_age.map(i64::from_small),
    };
    let (user, time): (Vec<_>, Vec<_>) = input
        .queries
        .iter()
        .map(|&(user, time)| (i64::from_small(user), i64::from_small(time)))
        .unzip();
    let dim = usize::from(input.dim % 5);
    let length = input.length.unsigned_abs().into();
    let (start, stop): (Vec<_>, Vec<_>) = input
        .windows
        .iter()
        .map(|&(start, stop)| (i64::from_small(start), i64::from_small(stop)))
        .unzip();
    for (part, history) in parts.iter().zip(histories) {
        let _ = part.windows_of_events(horizon, &never);
        let (part, history) = (std::slice::from_ref(part), std::slice::from_ref(history));
        read(part, history, &start, &stop, (length, dim));
        match part[0].window(&user, &time, horizon, &never) {
            Ok((start, stop)) => read(part, history, &start, &stop, (length, dim)),
            Err(_) => assert!(
                !history[0].changes.is_empty()
                    || history[0].damaged > 0
                    || input.length < 0
                    || input.delay < 0
                    || input.max_age.is_some_and(|age| age < 0),
                "a part that was written is read"
            ),
        }
    }
    read(&parts, histories, &start, &stop, (length, dim));
    if let Ok((start, stop)) = window_of_parts(&parts, &user, &time, horizon, &never) {
        read(&parts, histories, &start, &stop, (length, dim));
    }
});

/// Gathers these windows from a store of each kind.
fn read(
    parts: &[Part<'_>],
    histories: &[History],
    start: &[i64],
    stop: &[i64],
    shape: (usize, usize),
) {
    let pairs = pairs_of(&uniform_codebook());
    read_from::<f32>(parts, histories, start, stop, shape, &[]);
    read_from::<i8>(parts, histories, start, stop, shape, &[]);
    read_from::<u8>(parts, histories, start, stop, shape, &pairs);
}

fn read_from<T: Stored<f32> + NoUninit + Default>(
    parts: &[Part<'_>],
    histories: &[History],
    start: &[i64],
    stop: &[i64],
    (length, dim): (usize, usize),
    pairs: &[[f32; 2]],
) {
    let owned: Vec<_> = parts
        .iter()
        .zip(histories)
        .map(|(part, history)| {
            let size = (part.table * T::width(dim)).saturating_add_signed(history.longer.into());
            let values = vec![T::default(); size];
            let sums = sums(&values, history.damaged == 6);
            (values, sums)
        })
        .collect();
    let stores: Vec<_> = owned
        .iter()
        .zip(histories)
        .map(|((values, sums), history)| Store {
            values: column(values, sums, history.checked >> 5 & 1 == 1),
            dim,
            pairs,
        })
        .collect();
    let windows = start.len().checked_div(parts.len()).unwrap_or(0);
    let mut out = vec![f32::NAN; windows * length * dim];
    if gather(parts, &stores, start, stop, &mut out, (length, dim)).is_ok() {
        assert!(
            out.iter().all(|value| value.is_finite()),
            "a place was left out"
        );
    }
}
