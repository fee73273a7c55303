//! The views that are held in memory, written behind.

use std::collections::{HashMap, HashSet};

use bson::RawDocumentBuf;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::marks::{Marks, Seen};
use super::target::{StoredView, ViewWrite};
use crate::document::DocumentId;
use crate::error::{Error, ErrorKind, Result};

/// What views and events not yet stored may take, about. Far above what a commit costs, far below what a
/// process notices.
const MOST_BYTES: usize = 64 << 20;

/// What a view takes beside its own bytes: its place in the maps, key and marks.
const OVERHEAD: usize = 256;

#[derive(Debug)]
pub(super) struct Cached<V> {
    pub(super) view: Option<V>,
    pub(super) marks: Marks,
    /// The revision that is stored.
    revision: Option<u64>,
    /// Whether a view is stored, not only marks.
    is_stored: bool,
    dirty: bool,
    bytes: usize,
    /// When it was last asked for.
    used: u64,
}

impl<V> Default for Cached<V> {
    fn default() -> Self {
        Self {
            view: None,
            marks: Marks::default(),
            revision: None,
            is_stored: false,
            dirty: false,
            bytes: OVERHEAD,
            used: 0,
        }
    }
}

#[derive(Debug)]
pub(super) struct Cache<V> {
    views: HashMap<DocumentId, Cached<V>>,
    dirty: HashSet<DocumentId>,
    bytes: usize,
    capacity: usize,
    tick: u64,
    /// Whether everything that is stored is in here, so that what is not is nowhere.
    complete: bool,
}

impl<V: Serialize + DeserializeOwned> Cache<V> {
    pub(super) fn new(capacity: usize, complete: bool) -> Self {
        Self {
            views: HashMap::new(),
            dirty: HashSet::new(),
            bytes: 0,
            capacity,
            tick: 0,
            complete,
        }
    }

    /// Those of some keys that have to be read from the target; the others are kept for now.
    pub(super) fn missing<'k>(
        &mut self,
        keys: impl Iterator<Item = &'k DocumentId>,
    ) -> Vec<DocumentId> {
        self.tick += 1;
        let mut missing = HashSet::new();
        for key in keys {
            match self.views.get_mut(key) {
                Some(cached) => cached.used = self.tick,
                None if self.complete => {}
                None => {
                    missing.insert(key.clone());
                }
            }
        }
        missing.into_iter().collect()
    }

    /// Takes in what the target has of some keys.
    pub(super) fn fill(&mut self, keys: Vec<DocumentId>, stored: Vec<StoredView>) -> Result<()> {
        for view in stored {
            let key = view.key;
            let value = match &view.document {
                Some(document) => Some(decode(&key, document)?),
                None => None,
            };
            let bytes = view.document.as_ref().map_or(0, |it| it.as_bytes().len())
                + view.marks.len()
                + OVERHEAD;
            let cached = Cached {
                is_stored: value.is_some(),
                view: value,
                marks: Marks::from_bytes(&view.marks).map_err(|e| e.context(&key))?,
                revision: Some(view.revision),
                dirty: false,
                bytes,
                used: self.tick,
            };
            self.bytes += bytes;
            self.views.insert(key, cached);
        }
        for key in keys {
            self.at(&key);
        }
        Ok(())
    }

    /// The place of a key that is in here, or nowhere.
    pub(super) fn at(&mut self, key: &DocumentId) -> &mut Cached<V> {
        if !self.views.contains_key(key) {
            self.bytes += OVERHEAD;
        }
        let cached = self.views.entry(key.clone()).or_default();
        cached.used = self.tick;
        cached
    }

    /// Replaces a view by what an event made of it; `bytes` is what the event may have added.
    pub(super) fn change(&mut self, key: &DocumentId, after: Option<V>, seen: &Seen, bytes: usize) {
        let cached = self.at(key);
        if after.is_none() && cached.view.is_none() && cached.revision.is_none() {
            // Nothing was there and nothing is: told again, the event comes to the same.
            return;
        }
        cached.view = after;
        cached.marks.note(seen);
        cached.bytes += bytes;
        let was_dirty = std::mem::replace(&mut cached.dirty, true);
        self.bytes += bytes;
        if !was_dirty {
            self.dirty.insert(key.clone());
        }
    }

    /// Notes an event without its effect.
    pub(super) fn skip(&mut self, key: &DocumentId, seen: &Seen) {
        let cached = self.at(key);
        if cached.revision.is_none() && cached.view.is_none() || cached.marks.has(seen) {
            return;
        }
        cached.marks.note(seen);
        cached.dirty = true;
        self.dirty.insert(key.clone());
    }

    /// Forgets a view as it is here, so that it is read again.
    pub(super) fn drop_view(&mut self, key: &DocumentId) {
        if let Some(cached) = self.views.remove(key) {
            self.bytes = self.bytes.saturating_sub(cached.bytes);
        }
        self.dirty.remove(key);
        self.complete = false;
    }

    /// Up to so many of the views that are to be stored.
    pub(super) fn dirty(&self, most: usize) -> Vec<DocumentId> {
        self.dirty.iter().take(most).cloned().collect()
    }

    /// The write that stores a view; `None` if it is stored as it is.
    pub(super) fn write(
        &mut self,
        key: &DocumentId,
        floor: u32,
        keep_until: u32,
    ) -> Result<Option<ViewWrite>> {
        let Some(cached) = self.views.get_mut(key).filter(|cached| cached.dirty) else {
            return Ok(None);
        };
        cached.marks.prune(floor);
        let document = match &cached.view {
            Some(view) => Some(encode(key, view)?),
            None => None,
        };
        let marks = cached.marks.to_bytes();
        let bytes = document.as_ref().map_or(0, |it| it.as_bytes().len()) + marks.len() + OVERHEAD;
        self.bytes = (self.bytes + bytes).saturating_sub(cached.bytes);
        cached.bytes = bytes;
        Ok(Some(ViewWrite {
            expected: cached.revision,
            replaces_view: cached.is_stored,
            keep_until,
            view: StoredView {
                key: key.clone(),
                revision: cached.revision.unwrap_or_default() + 1,
                document,
                marks,
            },
        }))
    }

    /// These writes are stored.
    pub(super) fn stored(&mut self, writes: &[ViewWrite]) {
        for write in writes {
            if let Some(cached) = self.views.get_mut(&write.view.key) {
                cached.revision = Some(write.view.revision);
                cached.is_stored = write.view.document.is_some();
                cached.dirty = false;
            }
            self.dirty.remove(&write.view.key);
        }
    }

    pub(super) fn is_over_full(&self) -> bool {
        self.views.len() > self.capacity || self.bytes > MOST_BYTES
    }

    /// Lets go of the half that was not asked for the longest, once everything is stored.
    pub(super) fn trim(&mut self) {
        if !self.is_over_full() {
            return;
        }
        let mut used: Vec<u64> = self.views.values().map(|cached| cached.used).collect();
        let middle = used.len() / 2;
        let (_, median, _) = used.select_nth_unstable(middle);
        let keep = *median;
        // If all were asked for at once there is no older half, and all go.
        let is_one_age = self.views.values().all(|cached| cached.used >= keep);
        let before = self.views.len();
        self.views
            .retain(|_, cached| cached.dirty || cached.used >= keep && !is_one_age);
        if self.views.len() < before {
            self.complete = false;
        }
        self.bytes = self.views.values().map(|cached| cached.bytes).sum();
    }
}

fn decode<V: DeserializeOwned>(key: &DocumentId, document: &RawDocumentBuf) -> Result<V> {
    bson::deserialize_from_slice(document.as_bytes()).map_err(|e| {
        let wanted = std::any::type_name::<V>();
        let what =
            format!("view {key} is not a {wanted}; a view of another form needs a new version");
        Error::new(ErrorKind::Serialization, what).with_source(e)
    })
}

fn encode<V: Serialize>(key: &DocumentId, view: &V) -> Result<RawDocumentBuf> {
    let encoded = bson::serialize_to_raw_document_buf(view).map_err(|e| {
        let given = std::any::type_name::<V>();
        let what = format!("view {key}: the {given} has no form as a document");
        Error::new(ErrorKind::Serialization, what).with_source(e)
    })?;
    crate::document::validate(&encoded).map_err(|e| e.context(key))?;
    Ok(encoded)
}
