use std::collections::{HashMap, HashSet};

use super::Field;

/// Up to this many fields a scan is cheaper than a hash map.
const SCAN_FIELDS: usize = 16;

/// Scans of a longer document before it gets a hash map.
const SCANS: usize = 4;

/// Finds fields by key, fastest when they are asked for in the document's order.
#[derive(Debug)]
pub(crate) struct Finder<'s, 'a> {
    fields: &'s [Field<'a>],
    /// Where the next key is expected.
    next: usize,
    scans: usize,
    index: Option<HashMap<&'a str, usize>>,
}

impl<'s, 'a> Finder<'s, 'a> {
    pub(crate) fn new(fields: &'s [Field<'a>]) -> Self {
        Self {
            fields,
            next: 0,
            scans: 0,
            index: None,
        }
    }

    /// The position of the first field named `key`.
    pub(crate) fn find(&mut self, key: &str) -> Option<usize> {
        if self.fields.get(self.next).is_some_and(|f| f.key == key) {
            self.next += 1;
            return Some(self.next - 1);
        }
        let found = self.search(key)?;
        self.next = found + 1;
        Some(found)
    }

    fn search(&mut self, key: &str) -> Option<usize> {
        if self.index.is_none() {
            if self.fields.len() <= SCAN_FIELDS || self.scans < SCANS {
                self.scans += 1;
                return self.fields.iter().position(|field| field.key == key);
            }
            let mut index = HashMap::with_capacity(self.fields.len());
            for (position, field) in self.fields.iter().enumerate() {
                index.entry(field.key).or_insert(position);
            }
            self.index = Some(index);
        }
        self.index.as_ref()?.get(key).copied()
    }
}

/// For each of `b`'s fields the position of the field with the same key in `a`; `None` if one of
/// the documents has a key twice, so that keys do not name fields.
pub(crate) fn match_fields(a: &[Field<'_>], b: &[Field<'_>]) -> Option<Vec<Option<usize>>> {
    if duplicate(a).is_some() || duplicate(b).is_some() {
        return None;
    }
    let mut finder = Finder::new(a);
    Some(b.iter().map(|field| finder.find(field.key)).collect())
}

/// The first key that a document has twice.
pub(crate) fn duplicate<'a>(fields: &[Field<'a>]) -> Option<&'a str> {
    // A bitmap of hashes settles nearly every key of a usual document without a comparison.
    const BITS: usize = 1_024;
    if fields.len() > BITS / 8 {
        let mut seen = HashSet::with_capacity(fields.len());
        return fields.iter().map(|f| f.key).find(|key| !seen.insert(*key));
    }
    let mut seen = [0_u64; BITS / 64];
    for (position, field) in fields.iter().enumerate() {
        let slot = fnv1a(field.key) as usize % BITS;
        let word = seen.get_mut(slot / 64)?;
        if *word & (1 << (slot % 64)) != 0
            && fields.iter().take(position).any(|f| f.key == field.key)
        {
            return Some(field.key);
        }
        *word |= 1 << (slot % 64);
    }
    None
}

fn fnv1a(key: &str) -> u32 {
    let hash = key.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    // The low bits of FNV mix badly on their own.
    hash ^ (hash >> 15)
}
