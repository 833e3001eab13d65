//! The data core of recfm: pure algorithms on slices, without Python and without Arrow.
//!
//! Every result is a function of its arguments alone: the number of threads never changes a byte.

#![deny(unsafe_code)]
#![deny(missing_docs)]

pub mod batch;
pub mod blocks;
pub mod column;
mod count;
pub mod encode;
pub mod error;
pub mod exact;
pub mod gather;
pub mod hash;
pub mod hidden;
pub mod history;
mod ids;
pub mod keys;
pub mod lookup;
mod memory;
pub mod metrics;
pub mod pool;
pub mod quantize;
pub mod regions;
pub mod rowwise;
pub mod shuffle;
pub mod small_norm;
mod sort;
pub mod stop;
pub mod take;
pub mod text;
mod values;
pub mod vocab;
mod wide;
mod xxh3;

pub use error::{Error, ErrorKind, Result};
