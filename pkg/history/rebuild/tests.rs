use bson::rawdoc;

use super::*;
use crate::history::samples::{entry, patch, whole};

fn fold(entries: &[LogEntry]) -> Result<Option<Arc<RawDocumentBuf>>> {
    let mut rebuilder = Rebuilder::default();
    for entry in entries {
        rebuilder.apply(entry)?;
    }
    Ok(rebuilder.document)
}

fn error_of(entries: &[LogEntry]) -> String {
    let error = fold(entries).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    error.to_string()
}

#[test]
fn patches_set_the_version_in_its_place() {
    let one = rawdoc! { "_id": 1, "version": 1_i64, "n": 1 };
    let two = rawdoc! { "_id": 1, "version": 2_i64, "n": 2 };
    let entries = [
        whole(1, EntryKind::Created, one.clone()),
        patch(2, one, two.clone()),
    ];
    assert_eq!(fold(&entries).unwrap().as_deref(), Some(&two));
}

#[test]
fn an_adopted_document_without_a_version_gets_one_with_the_next_change() {
    let found = rawdoc! { "_id": 1, "n": 1 };
    let adopted = whole(1, EntryKind::Adopted, found.clone());
    assert_eq!(
        fold(std::slice::from_ref(&adopted)).unwrap().as_deref(),
        Some(&found)
    );
    let after = rawdoc! { "_id": 1, "n": 2, "version": 2_i64 };
    let entries = [adopted, patch(2, found, after.clone())];
    assert_eq!(fold(&entries).unwrap().as_deref(), Some(&after));
}

#[test]
fn deletions_and_adoptions_of_nothing_leave_no_document() {
    let created = whole(1, EntryKind::Created, rawdoc! { "_id": 1 });
    for kind in [EntryKind::Deleted, EntryKind::Adopted] {
        let events_alone = patch(3, rawdoc! {}, rawdoc! {});
        let entries = [created.clone(), entry(2, kind), events_alone];
        assert_eq!(fold(&entries).unwrap(), None);
        let changed = patch(3, rawdoc! { "n": 1 }, rawdoc! { "n": 2 });
        let entries = [created.clone(), entry(2, kind), changed];
        assert!(error_of(&entries).contains("users/1: version 3 changes"));
    }
}

#[test]
fn only_adoptions_pass_over_versions() {
    let created = whole(1, EntryKind::Created, rawdoc! { "_id": 1 });
    let adopted = whole(9, EntryKind::Adopted, rawdoc! { "_id": 1, "version": 8 });
    let entries = [
        created.clone(),
        adopted.clone(),
        entry(10, EntryKind::Deleted),
    ];
    assert_eq!(fold(&entries).unwrap(), None);
    let gap = [created.clone(), entry(3, EntryKind::Deleted)];
    assert_eq!(error_of(&gap), "log of users/1: version 2 is missing");
    let twice = [created.clone(), created];
    assert!(error_of(&twice).contains("version 1 comes again"));
    let backwards = [adopted, entry(9, EntryKind::Adopted)];
    assert!(error_of(&backwards).contains("version 9 comes again"));
}

#[test]
fn a_log_that_begins_in_the_middle_is_refused() {
    let orphan = patch(7, rawdoc! { "n": 1 }, rawdoc! { "n": 2 });
    assert!(error_of(&[orphan]).contains("version 6 is missing"));
    let snapshot = whole(100, EntryKind::Updated, rawdoc! { "_id": 1 });
    let first = |entry: &LogEntry| Step::between(None, entry);
    assert_eq!(first(&snapshot), Step::Gap(Version::new(99)));
    assert_eq!(first(&entry(1, EntryKind::Deleted)), Step::Follows);
    assert_eq!(first(&entry(7, EntryKind::Adopted)), Step::Follows);
}

#[test]
fn a_patch_that_is_missing_or_does_not_fit_names_the_version() {
    let created = whole(1, EntryKind::Created, rawdoc! { "_id": 1 });
    let bare = [created.clone(), entry(2, EntryKind::Updated)];
    assert_eq!(error_of(&bare), "log of users/1: version 2 has no patch");
    let unfit = patch(2, rawdoc! { "a": { "b": 1 } }, rawdoc! { "a": {} });
    let message = error_of(&[created, unfit]);
    assert!(message.contains("users/1: version 2"), "{message}");
}
