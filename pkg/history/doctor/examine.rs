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
