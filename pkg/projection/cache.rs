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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::{DocumentKey, Version};
    use crate::event::{Event, EventId, EventParts, Metadata};
    use bson::doc;

    fn seen(version: u64) -> Seen {
        let document = DocumentKey::new("docs", 1);
        let event = Event::from_parts(EventParts {
            id: EventId::derive(uuid::Uuid::nil(), &document, Version::new(version), 0),
            event_type: "Changed".into(),
            aggregate_type: "Doc".into(),
            document,
            version: Version::new(version),
            index: 0,
            time: bson::DateTime::from_millis(0),
            schema: 1,
            data: serde_json::Value::Null,
            metadata: Metadata::new(),
        });
        Seen::new(&event, 5)
    }

    fn store(cache: &mut Cache<bson::Document>) -> Vec<ViewWrite> {
        let keys = cache.dirty(usize::MAX);
        let writes: Vec<_> = keys
            .iter()
            .filter_map(|key| cache.write(key, 0, 600).unwrap())
            .collect();
        cache.stored(&writes);
        writes
    }

    #[test]
    fn views_are_written_once_and_name_what_they_replace() {
        let mut cache = Cache::new(10, true);
        let key = DocumentId::from(1);
        cache.change(&key, Some(doc! { "n": 1 }), &seen(1), 10);
        cache.change(&key, Some(doc! { "n": 2 }), &seen(2), 10);
        let writes = store(&mut cache);
        let [write] = &writes[..] else { panic!() };
        assert_eq!((write.expected, write.view.revision), (None, 1));
        assert!(store(&mut cache).is_empty());
        cache.change(&key, None, &seen(3), 10);
        let writes = store(&mut cache);
        let [write] = &writes[..] else { panic!() };
        assert_eq!((write.expected, write.replaces_view), (Some(1), true));
        assert!(write.view.document.is_none() && !write.view.marks.is_empty());
        cache.change(&key, Some(doc! { "n": 4 }), &seen(4), 10);
        let writes = store(&mut cache);
        assert_eq!(
            (writes[0].expected, writes[0].replaces_view),
            (Some(2), false)
        );
    }

    #[test]
    fn nothing_that_stays_nothing_is_not_written() {
        let mut cache = Cache::<bson::Document>::new(10, true);
        cache.change(&DocumentId::from(1), None, &seen(1), 10);
        cache.skip(&DocumentId::from(1), &seen(2));
        assert!(store(&mut cache).is_empty());
    }

    #[test]
    fn the_older_half_goes_when_there_are_too_many_and_is_asked_for_again() {
        let mut cache = Cache::new(100, true);
        for key in 0..200_i64 {
            let key = DocumentId::from(key);
            assert!(cache.missing([&key].into_iter()).is_empty());
            cache.change(&key, Some(doc! { "n": 1 }), &seen(1), 10);
        }
        assert!(cache.is_over_full());
        cache.trim();
        assert_eq!(cache.views.len(), 200, "what is not stored stays");
        cache.complete = true;
        store(&mut cache);
        cache.trim();
        assert!(cache.views.len() <= 100 && !cache.is_over_full());
        let (old, new) = (DocumentId::from(0), DocumentId::from(199));
        assert_eq!(
            cache.missing([&old, &new].into_iter()),
            std::slice::from_ref(&old)
        );
        let bytes: usize = cache.views.values().map(|cached| cached.bytes).sum();
        assert_eq!(cache.bytes, bytes);
    }
}
