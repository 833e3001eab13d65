//! The thread pool of recfm: its own, built on first use, rebuilt in a forked child.
//!
//! Fork copies a pool's bookkeeping but none of its threads, so a child that used its parent's pool would wait
//! for ever. The pool is remembered together with the id of the process that built it.

use std::sync::atomic::{AtomicPtr, Ordering};

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::{Error, Result};

/// Environment variable that sets the number of threads; read when a process builds its pool.
pub const THREADS_VARIABLE: &str = "RECFM_NUM_THREADS";

const MAX_THREADS: usize = 1024;

struct Owned {
    pid: u32,
    pool: ThreadPool,
}

/// Null, or a leaked `Owned`. An atomic and no lock: a lock that another thread holds during a fork would stay
/// locked in the child for ever.
static CURRENT: AtomicPtr<Owned> = AtomicPtr::new(std::ptr::null_mut());

/// The pool of this process.
pub fn pool() -> Result<&'static ThreadPool> {
    let pid = std::process::id();
    let seen = CURRENT.load(Ordering::Acquire);
    if let Some(owned) = leaked(seen)
        && owned.pid == pid
    {
        return Ok(&owned.pool);
    }
    let fresh: &'static Owned = Box::leak(Box::new(Owned {
        pid,
        pool: build(threads()?)?,
    }));
    let pointer = std::ptr::from_ref(fresh).cast_mut();
    match CURRENT.compare_exchange(seen, pointer, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => Ok(&fresh.pool),
        // Another thread was faster. Our pool stays leaked and idle; that happens at most once in a process.
        Err(winner) => Ok(leaked(winner).map_or(&fresh.pool, |owned| &owned.pool)),
    }
}

/// Runs `work` inside the pool, so that the parallel iterators in it use the pool's threads.
pub fn install<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    Ok(pool()?.install(work))
}

/// Number of threads in the pool of this process.
pub fn num_threads() -> Result<usize> {
    Ok(pool()?.current_num_threads())
}

#[allow(unsafe_code)]
fn leaked(pointer: *mut Owned) -> Option<&'static Owned> {
    // SAFETY: every non-null value of CURRENT comes from `Box::leak` and is never written through.
    unsafe { pointer.as_ref() }
}

fn threads() -> Result<usize> {
    match std::env::var_os(THREADS_VARIABLE) {
        Some(text) => parse_threads(&text.to_string_lossy()),
        None => Ok(std::thread::available_parallelism().map_or(1, usize::from)),
    }
}

fn parse_threads(text: &str) -> Result<usize> {
    match text.trim().parse() {
        Ok(threads) if (1..=MAX_THREADS).contains(&threads) => Ok(threads),
        _ => Err(Error::Threads(text.to_owned())),
    }
}

fn build(threads: usize) -> Result<ThreadPool> {
    ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|i| format!("recfm-{i}"))
        .build()
        .map_err(|e| Error::Pool {
            threads,
            reason: e.to_string(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_is_built_once() {
        assert!(std::ptr::eq(pool().unwrap(), pool().unwrap()));
    }

    #[test]
    fn only_sensible_thread_counts_are_taken() {
        assert_eq!(parse_threads(" 3 "), Ok(3));
        for bad in ["", "0", "-1", "two", "1.5", "1025", "99999999999999999999"] {
            assert_eq!(parse_threads(bad), Err(Error::Threads(bad.to_owned())));
        }
    }
}
