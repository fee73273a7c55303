//! One document against its log.

use std::sync::Arc;

use bson::RawDocumentBuf;

use super::report::{DoctorReport, Finding, Problem};
use crate::document::{DocumentKey, Version};
use crate::error::{Error, ErrorKind, Result};
use crate::history::pages::LogPages;
use crate::history::rebuild::{Rebuilder, Step, is_base};
use crate::storage::backend::{Backend, EntryKind, Loaded, LogEntry, LogHead, version_of};

/// How often a document is looked at again that changed while it was examined. One that keeps changing
/// is in use, and its state is not reported.
const LOOKS: usize = 5;

/// What the log says of a document.
struct Told {
    head: LogHead,
    version_field: Arc<str>,
    /// The state at the head; `None` where the log does not lead there.
    state: Option<Option<Arc<RawDocumentBuf>>>,
}

/// Examines a document that was just loaded.
pub(super) async fn examine(
    backend: &Arc<dyn Backend>,
    key: &DocumentKey,
    loaded: Loaded,
    version_field: &str,
    report: &mut DoctorReport,
) -> Result<()> {
    report.documents += 1;
    let mut loaded = loaded;
    let mut told = None;
    for look in 0..LOOKS {
        // The log only grows, so what was read of it stays true; it is read again where it went on.
        if let Some(head) = loaded.head
            && told.as_ref().is_none_or(|told: &Told| told.head != head)
        {
            let mut unseen = DoctorReport::default();
            let first = if look == 0 { &mut *report } else { &mut unseen };
            told = Some(read_log(backend, key, head, first).await?);
        }
        let Some((version, problem)) = compare(&loaded, told.as_ref(), version_field) else {
            return Ok(());
        };
        let again = backend.load(std::slice::from_ref(key)).await?;
        let again = again.into_iter().next().ok_or_else(|| {
            let what = format!("the backend answered nothing for {key}");
            Error::new(ErrorKind::Corrupt, what)
        })?;
        if again == loaded {
            report.add(Finding::new(key, version, problem));
            return Ok(());
        }
        loaded = again;
    }
    Ok(())
}

/// Follows the log to its head and reports what does not lead on.
async fn read_log(
    backend: &Arc<dyn Backend>,
    key: &DocumentKey,
    head: LogHead,
    report: &mut DoctorReport,
) -> Result<Told> {
    let mut pages = LogPages::new(
        Arc::clone(backend),
        key.clone(),
        Version::NONE,
        head.version,
    );
    let mut chain = Chain::default();
    let mut told = Told {
        head,
        version_field: Arc::from(""),
        state: None,
    };
    loop {
        let page = match pages.next_page().await {
            Ok(page) => page,
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                let reason = error.to_string();
                let after = chain.last.map(Version::next);
                report.add(Finding::new(key, after, Problem::NotReplayable { reason }));
                return Ok(told);
            }
            Err(error) => return Err(error),
        };
        if page.is_empty() {
            break;
        }
        for entry in page {
            report.versions += 1;
            chain.follow(&entry, |version, problem| {
                report.add(Finding::new(key, Some(version), problem));
            });
            told.version_field = entry.version_field;
        }
    }
    if chain.last == Some(head.version) {
        told.state = chain.rebuilder.map(|known| known.document().cloned());
    } else {
        // Loading saw an entry that reading does not find.
        report.add(Finding::new(key, Some(head.version), Problem::Gap));
    }
    Ok(told)
}

/// A walk along a log that goes on where the log is broken.
#[derive(Default)]
struct Chain {
    last: Option<Version>,
    /// The state after the last entry; `None` where the log does not lead there.
    rebuilder: Option<Rebuilder>,
}

impl Chain {
    fn follow(&mut self, entry: &LogEntry, mut found: impl FnMut(Version, Problem)) {
        match Step::between(self.last, entry) {
            Step::Follows => {}
            Step::Gap(version) => {
                found(version, Problem::Gap);
                self.rebuilder = None;
            }
            Step::Repeats => {
                found(entry.version, Problem::Repeated);
                return;
            }
        }
        self.last = Some(entry.version);
        if entry.kind == EntryKind::Updated
            && let (Some(known), Some(after)) = (&self.rebuilder, &entry.after)
            && known
                .patched(entry)
                .is_ok_and(|patched| patched.as_deref() != Some(after))
        {
            found(entry.version, Problem::WrongSnapshot);
        }
        if self.rebuilder.is_none() && is_base(entry) {
            self.rebuilder = Some(Rebuilder::default());
        }
        if let Some(known) = &mut self.rebuilder
            && let Err(error) = known.apply(entry)
        {
            let reason = error.to_string();
            found(entry.version, Problem::NotReplayable { reason });
            self.rebuilder = None;
        }
    }
}

/// What is wrong between a document and what the log says of it.
fn compare(
    loaded: &Loaded,
    told: Option<&Told>,
    version_field: &str,
) -> Option<(Option<Version>, Problem)> {
    let field = told.map_or(version_field, |told| &told.version_field);
    let stored = match &loaded.document {
        Some(document) => match version_of(document, field) {
            Ok(version) => Some((document, version)),
            Err(error) => {
                let reason = error.to_string();
                return Some((None, Problem::BadVersion { reason }));
            }
        },
        None => None,
    };
    let Some(told) = told else {
        let (_, version) = stored?;
        return Some((version, Problem::NotLogged));
    };
    let logged = told.head.version;
    let Some((document, version)) = stored else {
        // Where the log does not lead to its head, that was reported.
        let gone = matches!(&told.state, None | Some(None));
        return (!gone).then_some((Some(logged), Problem::Missing));
    };
    if let Some(Some(state)) = &told.state
        && **state == *document
    {
        return None;
    }
    let Some(version) = version else {
        return Some((None, Problem::Unversioned));
    };
    let problem = match &told.state {
        _ if version > logged => Problem::Ahead { logged },
        _ if version < logged => Problem::Behind { logged },
        Some(Some(_)) => Problem::Changed,
        Some(None) => Problem::Undeleted,
        None => return None,
    };
    Some((Some(version), problem))
}

#[cfg(test)]
mod tests {
    use bson::{RawDocumentBuf, rawdoc};

    use super::*;
    use crate::history::samples::{patch, whole};

    fn findings(entries: &[LogEntry]) -> Vec<(u64, Problem)> {
        let mut chain = Chain::default();
        let mut found = Vec::new();
        for entry in entries {
            chain.follow(entry, |version, problem| {
                found.push((version.get(), problem))
            });
        }
        found
    }

    fn document(version: i64, n: i32) -> RawDocumentBuf {
        rawdoc! { "_id": 1, "n": n, "version": version }
    }

    fn step(version: u64) -> LogEntry {
        let n = i32::try_from(version).unwrap();
        patch(version, document(0, n - 1), document(0, n))
    }

    #[test]
    fn gaps_and_repetitions_are_named_and_the_walk_goes_on() {
        let created = whole(1, EntryKind::Created, document(1, 1));
        let log = [created.clone(), step(2), step(4), step(5)];
        assert_eq!(findings(&log), [(3, Problem::Gap)]);
        let log = [created.clone(), step(2), step(2), step(3)];
        assert_eq!(findings(&log), [(2, Problem::Repeated)]);
        assert_eq!(findings(&[step(7), step(8)]), [(6, Problem::Gap)]);
        let adopted = whole(9, EntryKind::Adopted, document(8, 9));
        assert_eq!(findings(&[created, adopted, step(10)]), []);
    }

    #[test]
    fn behind_a_gap_the_next_whole_document_leads_on() {
        let created = whole(1, EntryKind::Created, document(1, 1));
        let snapshot = LogEntry {
            after: Some(document(100, 100)),
            ..step(100)
        };
        let unfit = patch(101, rawdoc! { "a": { "b": 1 } }, rawdoc! { "a": {} });
        let found = findings(&[created, step(99), snapshot, unfit]);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0], (2, Problem::Gap));
        assert!(
            matches!(&found[1], (101, Problem::NotReplayable { reason }) if reason.contains("101"))
        );
    }

    #[test]
    fn a_snapshot_that_its_patches_do_not_make_is_found() {
        let created = whole(1, EntryKind::Created, document(1, 1));
        let wrong = LogEntry {
            after: Some(document(2, 7)),
            ..step(2)
        };
        let found = findings(&[created.clone(), wrong]);
        assert_eq!(found, [(2, Problem::WrongSnapshot)]);
        let right = LogEntry {
            after: Some(document(2, 2)),
            ..step(2)
        };
        assert_eq!(findings(&[created, right, step(3)]), []);
    }
}
