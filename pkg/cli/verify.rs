//! `import --verify`: what the log holds against what the file says.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::process::ExitCode;
use std::time::Instant;

use bson::{Document, RawDocument};
use futures_util::{StreamExt, TryStreamExt, stream};
use nodestorage::{DocumentId, Storage, Version};
use serde_json::json;

use crate::Failure;
use crate::import::Imported;
use crate::input::Lines;
use crate::output;

/// Documents that are rebuilt at the same time.
const PARALLEL: usize = 4;

/// How many differences are printed one by one.
const SHOWN: usize = 20;

/// What the file says of one document: the state after each of its lines, as a digest, so that files of
/// any size can be verified.
struct Said {
    line: u64,
    digest: Digest,
}

/// 128 bits under keys drawn anew for each run; `None` for a deletion.
type Digest = Option<(u64, u64)>;

struct Digester {
    keys: [RandomState; 2],
    version_field: String,
}

impl Digester {
    /// The digest of a document's bytes, without the fields that the storage adds.
    fn document(&self, document: &Document) -> Result<Digest, Failure> {
        let fields = document.iter();
        let own: Document = fields
            .filter(|(key, _)| *key != "_id" && **key != self.version_field)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        let bytes = bson::serialize_to_vec(&own)
            .map_err(|e| Failure::new(format!("a document has no BSON form: {e}")))?;
        Ok(Some((
            self.keys[0].hash_one(&bytes),
            self.keys[1].hash_one(&bytes),
        )))
    }

    fn stored(&self, document: Option<&RawDocument>) -> Result<Digest, Failure> {
        let Some(raw) = document else {
            return Ok(None);
        };
        let document = Document::try_from(raw)
            .map_err(|e| Failure::new(format!("a document does not read back: {e}")))?;
        self.document(&document)
    }
}

/// What the comparison of one document found.
#[derive(Default)]
struct Found {
    versions: u64,
    differences: Vec<String>,
}

pub(crate) async fn run(
    storage: &Storage,
    collection: &str,
    lines: Lines,
    imported: &Imported,
    json: bool,
) -> Result<ExitCode, Failure> {
    let started = Instant::now();
    let digester = Digester {
        keys: [RandomState::new(), RandomState::new()],
        version_field: lines.version_field().to_owned(),
    };
    let (digester, said) =
        tokio::task::spawn_blocking(move || read(lines, &digester).map(|said| (digester, said)))
            .await
            .map_err(|e| Failure::new(format!("reading ended unexpectedly: {e}")))??;
    let documents = said.len();
    let bar = output::progress("verified", json);
    let digester = &digester;
    let bar = &bar;
    let found: Vec<Found> = stream::iter(said)
        .map(|(id, said)| async move {
            let first = imported.first.get(&id).copied();
            let found = compare(storage, collection, &id, first, &said, digester).await?;
            bar.inc(found.versions);
            Ok::<_, Failure>(found)
        })
        .buffer_unordered(PARALLEL)
        .try_collect()
        .await?;
    bar.finish_and_clear();
    let versions: u64 = found.iter().map(|found| found.versions).sum();
    let differences: Vec<&String> = found.iter().flat_map(|found| &found.differences).collect();
    for difference in differences.iter().take(SHOWN) {
        eprintln!("{difference}");
    }
    let count = differences.len();
    let seconds = started.elapsed().as_secs_f64();
    output::line(&if json {
        json!({
            "verified_versions": versions,
            "documents": documents,
            "differences": count,
            "seconds": seconds,
        })
        .to_string()
    } else {
        format!("verified {versions} versions of {documents} documents, {count} differences")
    })?;
    Ok(if count == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn read(mut lines: Lines, digester: &Digester) -> Result<HashMap<DocumentId, Vec<Said>>, Failure> {
    let mut said: HashMap<DocumentId, Vec<Said>> = HashMap::new();
    while let Some(line) = lines.next()? {
        let digest = match &line.document {
            Some(document) => digester.document(document)?,
            None => None,
        };
        let line_said = Said {
            line: line.number,
            digest,
        };
        said.entry(line.id).or_default().push(line_said);
    }
    Ok(said)
}

/// Rebuilds a document's versions from the log and walks them beside the file's lines. A line that
/// leaves the document as it is makes no version.
async fn compare(
    storage: &Storage,
    collection: &str,
    id: &DocumentId,
    first: Option<Version>,
    said: &[Said],
    digester: &Digester,
) -> Result<Found, Failure> {
    let mut found = Found::default();
    let name = format!("{collection}/{id}");
    let mut lines = said.iter();
    let mut state: Digest = None;
    let mut replay = storage.history(collection, id).replay();
    while let Some(revision) = replay.try_next().await? {
        let document = revision.state.as_ref().map(|state| state.document());
        let digest = digester.stored(document)?;
        let version = revision.entry.version;
        if first.is_some_and(|first| version >= first) {
            match lines.find(|line| line.digest != state) {
                Some(line) => {
                    found.versions += 1;
                    if line.digest != digest {
                        found.differences.push(format!(
                            "{name}: version {version} is not the document of line {}",
                            line.line
                        ));
                    }
                }
                // Versions that came after the import are none of its business.
                None => break,
            }
        }
        state = digest;
    }
    for line in lines.filter(|line| line.digest != state) {
        found
            .differences
            .push(format!("{name}: line {} has no version", line.line));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::doc;

    /// What the comparison says of a document that the store took through these states.
    async fn compared(stored: &[Document], said: &[Option<Document>]) -> Vec<String> {
        let storage = Storage::builder()
            .url("embedded::memory:")
            .open()
            .await
            .unwrap();
        for state in stored {
            let state = |_: Option<Document>| state.clone();
            storage.update("c", "x", state).await.unwrap();
        }
        let digester = Digester {
            keys: [RandomState::new(), RandomState::new()],
            version_field: "version".to_owned(),
        };
        let said: Vec<Said> = said
            .iter()
            .zip(1..)
            .map(|(document, line)| Said {
                line,
                digest: match document {
                    Some(document) => digester.document(document).unwrap(),
                    None => None,
                },
            })
            .collect();
        let (first, id) = (Some(Version::new(1)), DocumentId::from("x"));
        let found = compare(&storage, "c", &id, first, &said, &digester);
        let found = found.await.unwrap().differences;
        storage.close().await;
        found
    }

    #[tokio::test]
    async fn differences_are_found_and_named() {
        let stored = [doc! {"a": 1, "b": 2}, doc! {"a": 2, "b": 2}];
        let said = |first: Document, second: Document| [Some(first), Some(second)];
        let [first, second] = stored.clone();
        let same = said(first.clone(), second.clone());
        assert!(compared(&stored, &same).await.is_empty());
        let twice = [
            Some(first.clone()),
            Some(first.clone()),
            Some(second.clone()),
        ];
        assert!(compared(&stored, &twice).await.is_empty());
        for (other, difference) in [
            (
                said(doc! {"a": 3, "b": 2}, second.clone()),
                "version 1 is not the document of line 1",
            ),
            (
                said(doc! {"b": 2, "a": 1}, second.clone()),
                "version 1 is not the document of line 1",
            ),
            (
                said(doc! {"a": 1_i64, "b": 2}, second),
                "version 1 is not the document of line 1",
            ),
            (
                said(first, doc! {"a": 2}),
                "version 2 is not the document of line 2",
            ),
        ] {
            let found = compared(&stored, &other).await;
            assert_eq!(found, [format!("c/x: {difference}")]);
        }
        let longer = [same[0].clone(), same[1].clone(), None];
        assert_eq!(
            compared(&stored, &longer).await,
            ["c/x: line 3 has no version"]
        );
    }
}
