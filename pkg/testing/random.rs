//! Random values that are the same in every run.

use bson::oid::ObjectId;
use bson::{Bson, DateTime, Document};

/// A generator of documents; SplitMix64, which needs no crate and is good enough for tests.
#[derive(Debug, Clone)]
pub(in crate::testing) struct Random(u64);

impl Random {
    pub(in crate::testing) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(in crate::testing) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) % bound as u64) as usize
    }

    pub(in crate::testing) fn one_of<T: Clone>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())].clone()
    }

    /// A value from a small world, so that values meet again in other types.
    pub(in crate::testing) fn scalar(&mut self) -> Bson {
        let number = self.below(5) as i32 - 1;
        match self.below(10) {
            0 => Bson::Null,
            1 => Bson::Boolean(number > 1),
            2 | 3 => Bson::Int32(number),
            4 => Bson::Int64(number.into()),
            5 => Bson::Double(f64::from(number) / 2.0),
            6 => Bson::DateTime(DateTime::from_millis(number.into())),
            7 => Bson::ObjectId(ObjectId::from_bytes([number as u8; 12])),
            _ => Bson::String(self.one_of(&["", "a", "ab", "abc", "B", "b", "ü"]).into()),
        }
    }

    /// A scalar, or an array or document of at most so many levels.
    pub(in crate::testing) fn value(&mut self, levels: usize) -> Bson {
        match self.below(if levels > 0 { 10 } else { 7 }) {
            0..7 => self.scalar(),
            7 | 8 => Bson::Array((0..self.below(4)).map(|_| self.value(levels - 1)).collect()),
            _ => Bson::Document(self.document(levels - 1)),
        }
    }

    /// A document with some of a few keys.
    pub(in crate::testing) fn document(&mut self, levels: usize) -> Document {
        let mut document = Document::new();
        for key in ["a", "b", "c", "n", "tags"] {
            if self.below(3) > 0 {
                document.insert(key, self.value(levels));
            }
        }
        document
    }
}
