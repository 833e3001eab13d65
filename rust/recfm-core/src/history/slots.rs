//! From a user to its place: open addressing in a flat table that a file can hold.

use crate::blocks::Column;
use crate::hash::Key;
use crate::{Result, memory};

/// Slots for each user: half of them stay empty, so a search is short.
const ROOM: usize = 2;
/// A slot without a user.
pub const EMPTY: u32 = u32::MAX;

/// The table for distinct `users`: the place of each user, at its hash or the next free slot behind it.
pub fn slots(users: &[i64]) -> Vec<u32> {
    let mut slots = memory::zeros::<u32>(slot_count(users.len()));
    slots.fill(EMPTY);
    fill_slots(users, 0, users.len(), &mut slots);
    slots
}

/// Slots that the table for this many users has.
pub fn slot_count(users: usize) -> usize {
    users * ROOM
}

/// Enters `users[from..]` up to `to` into `slots`, which has `slot_count(users.len())` places, all [`EMPTY`] at first.
pub fn fill_slots(users: &[i64], from: usize, to: usize, slots: &mut [u32]) {
    for (place, user) in users.iter().enumerate().take(to).skip(from) {
        let mut slot = home(*user, slots.len());
        while slots[slot] != EMPTY {
            slot = if slot + 1 == slots.len() { 0 } else { slot + 1 };
        }
        slots[slot] = place as u32;
    }
}

/// The place of `user` in `users`, if it has one.
pub(super) fn find(
    slots: Column<'_, u32>,
    users: Column<'_, i64>,
    user: i64,
) -> Result<Option<usize>> {
    if slots.is_empty() {
        return Ok(None);
    }
    let mut slot = home(user, slots.len());
    for _ in 0..slots.len() {
        let place = slots.get(slot)?;
        if place == EMPTY {
            break;
        }
        if users.get(place as usize)? == user {
            return Ok(Some(place as usize));
        }
        slot = if slot + 1 == slots.len() { 0 } else { slot + 1 };
    }
    Ok(None)
}

/// Where the search for a user starts; part of the stored format.
pub(super) fn home(user: i64, slots: usize) -> usize {
    ((u128::from(user.hash64()) * slots as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_user_is_found_and_no_other() {
        for n in [0, 1, 2, 3, 1000] {
            let users: Vec<i64> = (0..n).map(|i| i * i * 7 - 500).collect();
            let mut users: Vec<i64> = users.into_iter().collect();
            users.dedup();
            let slots = slots(&users);
            for user in -600..5000 {
                let found = find(slots.as_slice().into(), users.as_slice().into(), user).unwrap();
                assert_eq!(found, users.iter().position(|&other| other == user));
            }
        }
    }

    #[test]
    fn a_full_or_foreign_table_ends_the_search() {
        let users = [1_i64, 2];
        assert_eq!(
            find((&[0_u32, 1][..]).into(), (&users[..]).into(), 9),
            Ok(None)
        );
        assert!(find((&[7_u32, 7][..]).into(), (&users[..]).into(), 9).is_err());
    }
}
