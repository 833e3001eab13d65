//! Many strings in two allocations.

/// Byte strings end to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Texts {
    bytes: Vec<u8>,
    /// Where each string begins, and the end of the last.
    offsets: Vec<i64>,
}

impl Texts {
    pub(crate) fn new() -> Self {
        Self::with_capacity(0)
    }

    pub(crate) fn with_capacity(strings: usize) -> Self {
        let mut offsets = Vec::with_capacity(strings + 1);
        offsets.push(0);
        Self {
            bytes: Vec::new(),
            offsets,
        }
    }

    pub(crate) fn push(&mut self, text: &[u8]) {
        self.bytes.extend_from_slice(text);
        self.offsets.push(self.bytes.len() as i64);
    }

    pub(crate) fn get(&self, position: usize) -> &[u8] {
        &self.bytes[self.offsets[position] as usize..self.offsets[position + 1] as usize]
    }

    pub(crate) fn nbytes(&self) -> usize {
        self.bytes.capacity() + 8 * self.offsets.capacity()
    }

    /// Number of strings.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of all strings, and where each begins with the end of the last behind them.
    pub fn parts(&self) -> (&[u8], &[i64]) {
        (&self.bytes, &self.offsets)
    }

    /// Every string in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|position| self.get(position))
    }
}
