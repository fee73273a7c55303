//! `nodestorage workload` and `nodestorage check`, run as a user runs them.

use std::fs;
use std::path::PathBuf;

use nodestorage::Storage;
use serde_json::Value;

use crate::check::{COLLECTION, nodestorage, text};

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn url(&self) -> String {
        format!("embedded:{}", self.0.path().join("store.redb").display())
    }

    fn file(&self, text: &str) -> String {
        let path: PathBuf = self.0.path().join("acks");
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// Runs a workload of 200 updates; returns its lines and what it said at the end.
    fn work(&self, more: &[&str]) -> (String, String) {
        let url = self.url();
        let mut arguments = vec!["workload", "--url", &url, "--collection", COLLECTION];
        arguments.extend(["--documents", "5", "--tasks", "4", "--updates", "200"]);
        arguments.extend(more);
        let output = nodestorage(&arguments);
        let errors = text(&output.stderr);
        assert!(output.status.success(), "{errors}");
        (text(&output.stdout), errors)
    }

    fn check(&self, acks: &str) -> (Option<i32>, String, String) {
        let (url, file) = (self.url(), self.file(acks));
        let arguments = [
            "check",
            "--url",
            &url,
            "--collection",
            COLLECTION,
            "--acks",
            &file,
        ];
        let output = nodestorage(&arguments);
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    }
}

#[test]
fn a_workload_prints_what_was_acknowledged_and_check_agrees() {
    let folder = Folder::new();
    let (acks, summary) = folder.work(&[]);
    assert_eq!(acks.lines().count(), 200);
    assert!(
        acks.lines().all(|line| line.starts_with("ack doc-")),
        "{acks}"
    );
    assert!(summary.starts_with("200 updates in "), "{summary}");
    assert!(summary.contains("updates/s, p50 "), "{summary}");
    let (code, checked, _) = folder.check(&acks);
    assert_eq!(
        checked,
        "200 updates, 200 acknowledged, 0 lost, 0 gaps, 0 duplicates\n"
    );
    assert_eq!(code, Some(0));
    // The next one goes on where this one ended; with a bus, and for programs.
    let (more, summary) = folder.work(&["--bus", "memory:", "--json"]);
    let summary: Value = serde_json::from_str(&summary).unwrap();
    assert_eq!(
        (&summary["updates"], &summary["unknown"]),
        (&200.into(), &0.into())
    );
    let (_, checked, _) = folder.check(&(acks + &more));
    assert_eq!(
        checked,
        "400 updates, 400 acknowledged, 0 lost, 0 gaps, 0 duplicates\n"
    );
}

#[test]
fn check_counts_what_is_lost_and_ignores_a_cut_line() {
    let folder = Folder::new();
    let (acks, _) = folder.work(&[]);
    // Not acknowledged, but there; unknown, and there; half a line that names a version of its own.
    let (first, rest) = acks.split_once('\n').unwrap();
    let cut = format!("{rest}unknown doc-1\n{first}99");
    let (code, checked, errors) = folder.check(&cut);
    assert_eq!(
        checked,
        "200 updates, 199 acknowledged, 0 lost, 0 gaps, 0 duplicates\n"
    );
    assert_eq!(code, Some(0), "{errors}");
    // Acknowledged twice for one version, and a version that is not there.
    let (code, checked, errors) = folder.check(&format!("{acks}{first}\nack doc-1 4000\n"));
    assert_eq!(
        checked,
        "200 updates, 202 acknowledged, 2 lost, 0 gaps, 0 duplicates\n"
    );
    assert_eq!(code, Some(1));
    assert!(errors.contains("was acknowledged twice"), "{errors}");
    assert!(
        errors.contains("doc-1 version 4000 was acknowledged and is gone"),
        "{errors}"
    );
    let (code, _, errors) = folder.check("ack doc-1 1\nhello\n");
    assert_eq!(code, Some(1));
    assert!(errors.contains("line 2: no line of a workload"), "{errors}");
}

#[tokio::test]
async fn check_counts_documents_that_part_from_their_log() {
    let folder = Folder::new();
    let (acks, _) = folder.work(&[]);
    let storage = Storage::builder().url(folder.url()).open().await.unwrap();
    let more = |counter: Option<bson::Document>| {
        let mut counter = counter.unwrap_or_default();
        counter.insert("n", counter.get_i64("n").unwrap_or_default() + 3);
        counter
    };
    storage.update(COLLECTION, "doc-0", more).await.unwrap();
    storage.close().await;
    let (code, checked, errors) = folder.check(&acks);
    assert_eq!(code, Some(1));
    assert_eq!(
        checked,
        "201 updates, 200 acknowledged, 0 lost, 1 gaps, 2 duplicates\n"
    );
    assert!(errors.contains("was not written by a workload"), "{errors}");
}

#[test]
fn workloads_that_make_no_sense_are_refused() {
    let base = [
        "workload",
        "--url",
        "embedded::memory:",
        "--collection",
        "c",
    ];
    let refused = |more: &[&str]| {
        let output = nodestorage(&[&base[..], more].concat());
        assert!(!output.status.success(), "{more:?}");
        text(&output.stderr)
    };
    let size = ["--documents", "1", "--tasks", "1"];
    assert!(refused(&size).contains("--updates"));
    let both = [&size[..], &["--updates", "1", "--seconds", "1"]].concat();
    assert!(refused(&both).contains("cannot be used with"));
    let none = ["--documents", "0", "--tasks", "1", "--updates", "1"];
    assert!(refused(&none).contains("--documents"));
    let bus = [
        &size[..],
        &["--updates", "1", "--bus", "tcp://user:secret@host"],
    ]
    .concat();
    let error = refused(&bus);
    assert!(error.contains("bus URL"), "{error}");
    assert!(!error.contains("secret"), "{error}");
}
