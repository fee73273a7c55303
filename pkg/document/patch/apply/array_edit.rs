use super::Slot;
use crate::document::raw::{Counter, RawValue, Writer};

/// An array while a patch is applied to it: a gap buffer, so that operations in ascending order
/// take linear time together.
pub(super) struct ArrayEdit<'a> {
    /// The elements before the last edit.
    left: Vec<Slot<'a>>,
    /// Those behind it, last one first.
    right: Vec<Slot<'a>>,
}

impl<'a> ArrayEdit<'a> {
    pub(super) fn new(elements: Vec<RawValue<'a>>) -> Self {
        Self {
            left: Vec::new(),
            right: elements.into_iter().rev().map(Slot::from).collect(),
        }
    }

    fn len(&self) -> usize {
        self.left.len() + self.right.len()
    }

    pub(super) fn get_mut(&mut self, index: usize) -> Option<&mut Slot<'a>> {
        if index < self.left.len() {
            return self.left.get_mut(index);
        }
        let from_end = self.len().checked_sub(index.checked_add(1)?)?;
        self.right.get_mut(from_end)
    }

    pub(super) fn insert(
        &mut self,
        at: usize,
        values: impl Iterator<Item = Slot<'a>>,
    ) -> Option<()> {
        self.move_to(at)?;
        self.left.extend(values);
        Some(())
    }

    pub(super) fn cut(&mut self, at: usize, count: usize) -> Option<()> {
        self.move_to(at)?;
        let remaining = self.right.len().checked_sub(count)?;
        self.right.truncate(remaining);
        Some(())
    }

    /// Puts the gap in front of element `at`.
    fn move_to(&mut self, at: usize) -> Option<()> {
        if at > self.len() {
            return None;
        }
        if at <= self.left.len() {
            self.right.extend(self.left.drain(at..).rev());
        } else {
            let keep = self.len() - at;
            self.left.extend(self.right.drain(keep..).rev());
        }
        Some(())
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        let mut counter = Counter::default();
        for slot in self.left.iter().chain(self.right.iter().rev()) {
            writer.key(slot.kind, counter.digits());
            writer.value(&slot.bytes);
            counter.increment();
        }
    }
}
