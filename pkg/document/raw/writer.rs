use bson::RawDocumentBuf;
use bson::spec::ElementType;

use super::{RawValue, corrupt};
use crate::error::{Error, ErrorKind, Result};

/// Builds documents and arrays, nested ones in the same buffer.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(capacity),
        }
    }

    /// Starts a document or array; the result goes to [`close`](Self::close).
    pub(crate) fn open(&mut self) -> usize {
        let start = self.bytes.len();
        self.bytes.extend([0; 4]);
        start
    }

    /// Ends what `open` started and fills in its length.
    pub(crate) fn close(&mut self, start: usize) -> Result<()> {
        self.bytes.push(0);
        let len = self.bytes.len() - start;
        let prefix = i32::try_from(len)
            .map_err(|e| Error::new(ErrorKind::TooLarge, "document over 2 GiB").with_source(e))?;
        if let Some(target) = self.bytes.get_mut(start..start + 4) {
            target.copy_from_slice(&prefix.to_le_bytes());
        }
        Ok(())
    }

    /// Writes the type and key of an element, whose value must follow. `key` holds no NUL.
    pub(crate) fn key(&mut self, kind: ElementType, key: &[u8]) {
        self.bytes.push(kind as u8);
        self.bytes.extend_from_slice(key);
        self.bytes.push(0);
    }

    pub(crate) fn value(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
    }

    pub(crate) fn field(&mut self, key: &str, value: RawValue<'_>) {
        self.key(value.kind, key.as_bytes());
        self.value(value.bytes);
    }

    pub(crate) fn string(&mut self, key: &[u8], text: &str) -> Result<()> {
        self.key(ElementType::String, key);
        let len = i32::try_from(text.len() + 1)
            .map_err(|e| Error::new(ErrorKind::TooLarge, "string over 2 GiB").with_source(e))?;
        self.value(&len.to_le_bytes());
        self.value(text.as_bytes());
        self.value(&[0]);
        Ok(())
    }

    /// An integer in the smaller of BSON's two types.
    pub(crate) fn integer(&mut self, key: &[u8], number: usize) -> Result<()> {
        if let Ok(small) = i32::try_from(number) {
            self.key(ElementType::Int32, key);
            self.value(&small.to_le_bytes());
        } else {
            let large = i64::try_from(number).map_err(|e| {
                Error::new(ErrorKind::TooLarge, "integer over 63 bits").with_source(e)
            })?;
            self.key(ElementType::Int64, key);
            self.value(&large.to_le_bytes());
        }
        Ok(())
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub(crate) fn into_document(self) -> Result<RawDocumentBuf> {
        RawDocumentBuf::from_bytes(self.bytes)
            .map_err(|e| corrupt("malformed document").with_source(e))
    }
}

/// The keys of array elements: decimal numbers, counted up in place.
#[derive(Debug)]
pub(crate) struct Counter {
    // 20 digits hold every u64.
    digits: [u8; 20],
    start: usize,
}

impl Default for Counter {
    fn default() -> Self {
        Self {
            digits: [b'0'; 20],
            start: 19,
        }
    }
}

impl Counter {
    pub(crate) fn digits(&self) -> &[u8] {
        self.digits.get(self.start..).unwrap_or_default()
    }

    pub(crate) fn increment(&mut self) {
        for (position, digit) in self.digits.iter_mut().enumerate().rev() {
            self.start = self.start.min(position);
            if *digit < b'9' {
                *digit += 1;
                return;
            }
            *digit = b'0';
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_counts_in_decimal() {
        let mut counter = Counter::default();
        for number in 0..12_345_u32 {
            assert_eq!(counter.digits(), number.to_string().as_bytes());
            counter.increment();
        }
    }
}
