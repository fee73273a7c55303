use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use bson::{Bson, RawDocument, RawDocumentBuf};

use super::raw::{self, Fields, RawValue};
use super::{MergePatch, Patch, PatchOp, Path, PathSegment, json_patch};
use crate::error::Result;

/// What a change did to a document: both states, and the patch between them.
///
/// Creation has no state before, deletion none after; both have an empty patch. `_id` and the
/// version field, or whatever keys the caller left out, show in none of the views. Cloning is
/// cheap.
#[derive(Clone)]
pub struct Diff {
    before: Option<Arc<RawDocumentBuf>>,
    after: Option<Arc<RawDocumentBuf>>,
    patch: Arc<Patch>,
    skip: Arc<[String]>,
}

impl Diff {
    /// Compares two states of a document, leaving out the top-level keys in `skip`.
    ///
    /// # Errors
    /// Those of [`Patch::between`].
    pub fn between(
        before: Option<Arc<RawDocumentBuf>>,
        after: Option<Arc<RawDocumentBuf>>,
        skip: &[&str],
    ) -> Result<Self> {
        let patch = match (&before, &after) {
            (Some(before), Some(after)) => Patch::between(before, after, skip)?,
            _ => Patch::default(),
        };
        Ok(Self::from_parts(before, after, patch, skip))
    }

    /// Puts together what was computed or stored before.
    pub(crate) fn from_parts(
        before: Option<Arc<RawDocumentBuf>>,
        after: Option<Arc<RawDocumentBuf>>,
        patch: Patch,
        skip: &[&str],
    ) -> Self {
        Self {
            before,
            after,
            patch: Arc::new(patch),
            skip: skip.iter().map(|key| (*key).to_owned()).collect(),
        }
    }

    /// Whether nothing changed: the document exists on both sides, or neither, and is the same.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.patch.is_empty() && self.before.is_some() == self.after.is_some()
    }

    /// The stored document before the change, with the keys that the views leave out.
    #[must_use]
    pub fn before_document(&self) -> Option<&RawDocument> {
        self.before.as_deref().map(AsRef::as_ref)
    }

    /// The document after the change, with the keys that the views leave out.
    #[must_use]
    pub fn after_document(&self) -> Option<&RawDocument> {
        self.after.as_deref().map(AsRef::as_ref)
    }

    /// The patch from one state to the other; empty for creation and deletion.
    #[must_use]
    pub fn patch(&self) -> &Patch {
        &self.patch
    }

    /// The change as an RFC 7396 merge patch.
    ///
    /// # Errors
    /// `TooLarge` if a changed value is nested too deeply, `Corrupt` for malformed BSON.
    pub fn merge_patch(&self) -> Result<MergePatch> {
        let skip: Vec<&str> = self.skip.iter().map(String::as_str).collect();
        if let (Some(before), Some(after)) = (&self.before, &self.after) {
            return MergePatch::of_patch(&self.patch, before, after, &skip);
        }
        let (before, after) = (self.before.as_ref(), self.after.as_ref());
        MergePatch::between(before.map(|b| &***b), after.map(|a| &***a), &skip)
    }

    /// The change as an RFC 6902 JSON patch. An absent document is JSON `null`.
    ///
    /// Changes of key order have no meaning in JSON and are left out.
    ///
    /// # Errors
    /// `TooLarge` if a changed value is nested too deeply, `Corrupt` for malformed BSON.
    pub fn json_patch(&self) -> Result<::json_patch::Patch> {
        let skip: Vec<&str> = self.skip.iter().map(String::as_str).collect();
        match (&self.before, &self.after) {
            (Some(_), Some(_)) | (None, None) => json_patch::from_patch(&self.patch),
            (_, after) => json_patch::whole(after.as_ref().map(|a| &***a), &skip),
        }
    }

    /// Whether the value at `path` is another one than before, in type, bits or key order.
    ///
    /// `changed("email")` asks for one key, `changed(["address", "city"])` for a path.
    #[must_use]
    pub fn changed(&self, path: impl Into<Path>) -> bool {
        let path = path.into();
        if path.is_empty() {
            return !self.is_empty();
        }
        let before = Self::value(self.before.as_deref(), &path);
        !self.skips(&path) && before != Self::value(self.after.as_deref(), &path)
    }

    /// The value at `path` before the change; `None` if there was none.
    #[must_use]
    pub fn before(&self, path: impl Into<Path>) -> Option<Bson> {
        Self::value(self.before.as_deref(), &path.into())?
            .to_bson()
            .ok()
    }

    /// The value at `path` after the change; `None` if there is none.
    #[must_use]
    pub fn after(&self, path: impl Into<Path>) -> Option<Bson> {
        Self::value(self.after.as_deref(), &path.into())?
            .to_bson()
            .ok()
    }

    /// The places that changed, each once, in the order of the patch; for creation and deletion
    /// the document's keys.
    #[must_use]
    pub fn paths(&self) -> Vec<Path> {
        let mut paths: Vec<Path> = match (&self.before, &self.after) {
            (Some(only), None) | (None, Some(only)) => Fields::new(only)
                .flatten()
                .map(|field| Path::from(field.key))
                .filter(|path| !self.skips(path))
                .collect(),
            _ => self.patch.ops().map(PatchOp::path).cloned().collect(),
        };
        let mut seen = HashSet::new();
        paths.retain(|path| seen.insert(path.clone()));
        paths
    }

    fn skips(&self, path: &Path) -> bool {
        matches!(path.segments().first(), Some(PathSegment::Key(key)) if self.skip.contains(key))
    }

    fn value<'a>(document: Option<&'a RawDocumentBuf>, path: &Path) -> Option<RawValue<'a>> {
        raw::get(document?, path.segments()).ok()?
    }
}

/// Shows the paths, never the documents.
impl fmt::Debug for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Diff")
            .field("patch", &self.patch)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use bson::rawdoc;

    use super::*;

    fn diff(before: RawDocumentBuf, after: RawDocumentBuf) -> Diff {
        let states = (Some(Arc::new(before)), Some(Arc::new(after)));
        Diff::between(states.0, states.1, &["_id", "version"]).unwrap()
    }

    #[test]
    fn a_diff_answers_by_path() {
        let diff = diff(
            rawdoc! { "_id": 1, "email": "a", "address": { "city": "x", "zip": 1 }, "version": 1 },
            rawdoc! { "_id": 1, "email": "b", "address": { "city": "y", "zip": 1 }, "version": 2 },
        );
        assert!(diff.changed("email") && diff.changed("address") && !diff.changed("version"));
        assert!(diff.changed(["address", "city"]) && !diff.changed(["address", "zip"]));
        assert!(!diff.changed("address.city"));
        assert_eq!(diff.before("email"), Some(Bson::from("a")));
        assert_eq!(diff.after(["address", "city"]), Some(Bson::from("y")));
        assert_eq!(diff.after("nothing"), None);
        let paths: Vec<String> = diff.paths().iter().map(Path::to_string).collect();
        assert_eq!(paths, ["/email", "/address/city"]);
        assert_eq!(
            diff.merge_patch().unwrap().to_string(),
            r#"{"address":{"city":"y"},"email":"b"}"#
        );
    }

    #[test]
    fn creation_and_deletion_have_no_patch() {
        let state = Some(Arc::new(rawdoc! { "_id": 1, "a": 1, "version": 1 }));
        let created = Diff::between(None, state.clone(), &["_id", "version"]).unwrap();
        assert!(created.patch().is_empty() && !created.is_empty());
        assert!(created.changed("a") && created.changed(Path::default()));
        assert_eq!(created.paths(), [Path::from("a")]);
        assert_eq!(created.merge_patch().unwrap().to_string(), r#"{"a":1}"#);
        assert_eq!(
            created.json_patch().unwrap().to_string(),
            r#"[{"op":"replace","path":"","value":{"a":1}}]"#
        );
        let deleted = Diff::between(state, None, &["_id", "version"]).unwrap();
        assert_eq!(deleted.merge_patch().unwrap().to_string(), "null");
        assert!(!deleted.is_empty() && deleted.before("a").is_some());
    }
}
