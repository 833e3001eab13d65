//! Large fresh buffers, and hints to the processor.

use std::sync::atomic::AtomicU64;

/// Bytes from which huge pages pay.
const LARGE: usize = 1 << 22;

/// `n` zeros. The system is asked for huge pages: a scatter to thousands of places misses the page table less.
pub(crate) fn zeros<T: Zero>(n: usize) -> Vec<T> {
    let values = T::zeros(n);
    advise(&values);
    values
}

/// `n` of the same value, for several threads to write.
pub(crate) fn atomics(n: usize, value: u64) -> Vec<AtomicU64> {
    let mut values = zeros::<u64>(n);
    if value != 0 {
        values.fill(value);
    }
    values.into_iter().map(AtomicU64::new).collect()
}

/// Asks the processor to fetch `values`, which will be read soon.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
pub(crate) fn prefetch<T>(values: &[T]) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    const LINE: usize = 64;
    let (start, length) = (values.as_ptr().cast::<i8>(), size_of_val(values));
    // The last byte too: a slice that begins inside a line ends in one more.
    for offset in (0..length).step_by(LINE).chain(length.checked_sub(1)) {
        // SAFETY: the address lies inside `values`; a prefetch reads nothing that the program could see.
        unsafe { _mm_prefetch(start.add(offset), _MM_HINT_T0) };
    }
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn prefetch<T>(_values: &[T]) {}

/// Numbers whose zeros the allocator hands out untouched.
pub(crate) trait Zero: Sized {
    fn zeros(n: usize) -> Vec<Self>;
}

macro_rules! zero {
    ($($number:ty),*) => {$(
        impl Zero for $number {
            fn zeros(n: usize) -> Vec<Self> {
                vec![0; n]
            }
        }
    )*};
}
zero!(u32, u64, i64, u128);

/// Asks the system for huge pages where `values` lie; best before they are first written.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
pub(crate) fn advise<T>(values: &[T]) {
    const HUGE: usize = 1 << 21;
    let (start, length) = (values.as_ptr() as usize, size_of_val(values));
    let (first, last) = (start.next_multiple_of(HUGE), (start + length) / HUGE * HUGE);
    if length < LARGE || first >= last {
        return;
    }
    // SAFETY: the range lies inside memory of `values`, and this advice changes no byte of it.
    unsafe {
        libc::madvise(
            first as *mut libc::c_void,
            last - first,
            libc::MADV_HUGEPAGE,
        );
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn advise<T>(_values: &[T]) {}
