//! Many strings in two allocations.

/// A string in 12 bytes: whole where it has at most 8, otherwise its beginning and some of its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Brief {
    head: u64,
    /// The length of a string that is whole; else the upper bits of the hash, above all lengths.
    tag: u32,
}

impl Brief {
    const WHOLE: usize = 8;

    #[inline]
    pub(crate) fn new(text: &[u8], hash: u64) -> Self {
        let len = text.len();
        let four = |bytes: &[u8; 4]| u64::from(u32::from_le_bytes(*bytes));
        let head = match (len, text.first_chunk(), text.last_chunk()) {
            (4..=Self::WHOLE, Some(first), Some(last)) => four(first) | (four(last) << 32),
            (0, ..) => 0,
            (1..4, ..) => {
                u64::from_le_bytes([text[0], text[len / 2], text[len - 1], 0, 0, 0, 0, 0])
            }
            _ => text
                .first_chunk()
                .map_or(0, |first| u64::from_le_bytes(*first)),
        };
        let tag = if len <= Self::WHOLE {
            len as u32
        } else {
            (hash >> 32) as u32 | 1 << 31
        };
        Self { head, tag }
    }

    /// Whether strings of this brief are equal to each other.
    #[inline]
    pub(crate) fn is_whole(self) -> bool {
        self.tag <= Self::WHOLE as u32
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_brief_is_of_one_string_only() {
        let mut texts = vec![vec![]];
        for len in 1..=9 {
            for place in 0..len {
                for byte in [0, 1, 255] {
                    let mut text = vec![0; len];
                    text[place] = byte;
                    texts.push(text);
                }
            }
        }
        texts.sort();
        texts.dedup();
        for a in &texts {
            for b in &texts {
                let (left, right) = (Brief::new(a, 7), Brief::new(b, 7));
                assert_eq!(left.is_whole(), a.len() <= 8);
                if left.is_whole() || right.is_whole() {
                    assert_eq!(left == right, a == b, "{a:?} {b:?}");
                }
            }
        }
    }
}
