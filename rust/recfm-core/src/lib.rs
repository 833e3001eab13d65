//! The data core of recfm: pure algorithms on slices, without Python and without Arrow.
//!
//! Every result is a function of its arguments alone: the number of threads never changes a byte.

#![deny(unsafe_code)]
#![deny(missing_docs)]

pub mod blocks;
pub mod column;
mod count;
pub mod error;
pub mod gather;
pub mod hash;
pub mod history;
mod ids;
mod memory;
pub mod metrics;
pub mod pool;
pub mod quantize;
pub mod shuffle;
pub mod stop;
pub mod take;
pub mod vocab;

pub use error::{Error, ErrorKind, Result};
