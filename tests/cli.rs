//! The command line, run as a user runs it.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use support::mongod::Mongod;

/// Every version of six documents out of real histories; see `tests/data/README.md`.
const COUNTRIES: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/data/countries-cut.jsonl.xz"
);
const COUNTRIES_LINES: usize = 283;

fn nodestorage(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nodestorage"))
        .args(arguments)
        .env_remove("NODESTORAGE_URL")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[track_caller]
fn succeeds(arguments: &[&str]) -> String {
    let output = nodestorage(arguments);
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        text(&output.stderr)
    );
    text(&output.stdout)
}

#[track_caller]
fn fails(arguments: &[&str]) -> String {
    let output = nodestorage(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    text(&output.stderr)
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn url(&self) -> String {
        format!("embedded:{}", self.0.path().join("store.redb").display())
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path: PathBuf = self.0.path().join(name);
        fs::write(&path, content).unwrap();
        path.display().to_string()
    }
}

#[track_caller]
fn imports_and_verifies(url: &str) {
    let output = succeeds(&[
        "import",
        "--url",
        url,
        "--collection",
        "countries",
        "--history",
        "--verify",
        COUNTRIES,
    ]);
    let expected = format!("verified {COUNTRIES_LINES} versions of 6 documents, 0 differences");
    assert!(output.contains(&expected), "{output}");
    let healthy = succeeds(&["doctor", "--url", url]);
    assert!(healthy.contains(", 0 problems"), "{healthy}");
}

#[test]
fn a_real_history_comes_back_version_by_version_from_a_file() {
    let folder = Folder::new();
    imports_and_verifies(&folder.url());
}

#[test]
fn a_real_history_comes_back_version_by_version_from_mongodb() {
    let mongod = Mongod::shared();
    let database = mongod.fresh_database();
    imports_and_verifies(&mongod.url().replacen("/?", &format!("/{}?", &*database), 1));
}

#[test]
fn importing_again_changes_nothing_where_nothing_differs() {
    let folder = Folder::new();
    let file = folder.file(
        "users.jsonl",
        "{\"_id\":1,\"b\":1,\"a\":2}\n{\"_id\":\"1\",\"n\":3000000000}\n",
    );
    let import = [
        "import",
        "--url",
        &folder.url(),
        "--collection",
        "users",
        "--verify",
        &file,
    ];
    let first = succeeds(&import);
    assert!(
        first.contains("imported 2 lines as 2 versions of 2 documents"),
        "{first}"
    );
    assert!(
        first.contains("verified 2 versions of 2 documents, 0 differences"),
        "{first}"
    );
    let again = succeeds(&import);
    assert!(
        again.contains("imported 2 lines as 0 versions of 0 documents"),
        "{again}"
    );
    assert!(
        again.contains("verified 0 versions of 2 documents, 0 differences"),
        "{again}"
    );
}

#[test]
fn a_history_imported_twice_goes_on_with_the_numbering() {
    let folder = Folder::new();
    let url = folder.url();
    let line = |n: u32| format!("{{\"id\":\"x\",\"doc\":{{\"n\":{n}}}}}\n");
    let file = folder.file("a.jsonl", line(1) + &line(2));
    let import = [
        "import",
        "--url",
        &url,
        "--collection",
        "c",
        "--history",
        &file,
    ];
    succeeds(&import);
    // The second import makes versions 3 and 4, and verifies those.
    let again = succeeds(&[
        "import",
        "--url",
        &url,
        "--collection",
        "c",
        "--history",
        "--verify",
        &file,
    ]);
    assert!(
        again.contains("verified 2 versions of 1 documents, 0 differences"),
        "{again}"
    );
    let got = succeeds(&[
        "--json",
        "get",
        "--url",
        &url,
        "--collection",
        "c",
        "x",
        "--version",
        "3",
    ]);
    let got: Value = serde_json::from_str(&got).unwrap();
    assert_eq!(got["n"], 1);
}

#[test]
fn documents_and_their_past_are_printed() {
    let folder = Folder::new();
    let url = folder.url();
    let file = folder.file(
        "a.jsonl",
        "{\"id\":7,\"at\":\"2012-01-01\",\"doc\":{\"$ref\":\"data\",\"n\":1,\"d\":{\"$date\":\"no date\"}}}\n\
         {\"id\":7,\"doc\":{\"$ref\":\"data\",\"n\":2,\"d\":{\"$date\":\"no date\"}}}\n{\"id\":7,\"doc\":null}\n",
    );
    succeeds(&[
        "import",
        "--url",
        &url,
        "--collection",
        "c",
        "--history",
        &file,
    ]);
    let get = |more: &[&str]| {
        let mut arguments = vec![
            "get",
            "--json",
            "--url",
            &url,
            "--collection",
            "c",
            "--id-type",
            "int",
            "7",
        ];
        arguments.extend(more);
        nodestorage(&arguments)
    };
    let first: Value = serde_json::from_slice(&get(&["--version", "1"]).stdout).unwrap();
    assert_eq!(
        first,
        json!({"_id": 7, "$ref": "data", "n": 1, "d": {"$date": "no date"}, "version": 1})
    );
    let gone = get(&[]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(text(&gone.stderr).contains("c/7 does not exist"));
    assert_eq!(
        get(&["--at", "2011-01-01T00:00:00Z"]).status.code(),
        Some(1)
    );
    assert!(text(&get(&["--version", "4"]).stderr).contains("no version 4"));
    assert!(text(&get(&["--at", "yesterday"]).stderr).contains("no RFC 3339 time"));

    let history = succeeds(&[
        "history",
        "--json",
        "--url",
        &url,
        "--collection",
        "c",
        "--id-type",
        "int",
        "7",
        "--newest-first",
    ]);
    let lines: Vec<Value> = history
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let kinds: Vec<_> = lines
        .iter()
        .map(|line| line["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["deleted", "updated", "created"]);
    assert_eq!(lines[2]["metadata"]["extra"]["at"], "2012-01-01");
    assert_eq!(
        lines[1]["diff"],
        json!([{"op": "replace", "path": "/n", "value": 2}])
    );

    let events = succeeds(&["events", "--json", "--url", &url, "--collection", "c"]);
    let types: Vec<Value> = events
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["type"].clone())
        .collect();
    assert_eq!(types, ["CCreated", "CUpdated", "CDeleted"]);
    let one = succeeds(&["events", "--url", &url, "--type", "CUpdated"]);
    assert_eq!(one.lines().count(), 1, "{one}");
}

#[test]
fn a_bad_line_is_named_and_what_came_before_stays() {
    let folder = Folder::new();
    let url = folder.url();
    let good = "{\"id\":\"a\",\"n\":1}\n{\"id\":\"b\",\"n\":2}\n";
    let file = folder.file(
        "bad.jsonl",
        format!("{good}{{\"id\":\"c\",\"n\":99999999999999999999}}\n"),
    );
    let error = fails(&[
        "import",
        "--url",
        &url,
        "--collection",
        "c",
        "--key",
        "id",
        &file,
    ]);
    assert!(
        error.contains("bad.jsonl line 3: integer does not fit 64 signed bits"),
        "{error}"
    );
    assert!(error.contains("at /n"), "{error}");
    assert!(error.contains("2 lines were imported before"), "{error}");
    let kept = succeeds(&["get", "--url", &url, "--collection", "c", "b"]);
    assert!(kept.contains("\"n\": 2"), "{kept}");
    let good = folder.file("good.jsonl", good);
    let file = folder.file("names.jsonl", "{\"id\":\"\"}\n");
    let error = fails(&[
        "import",
        "--url",
        &url,
        "--collection",
        "c",
        "--key",
        "id",
        &file,
    ]);
    assert!(error.contains("line 1: document id is empty"), "{error}");
    let error = fails(&[
        "import",
        "--url",
        &url,
        "--collection",
        "system.x",
        "--key",
        "id",
        &good,
    ]);
    assert!(error.contains("belongs to the database system"), "{error}");
    let error = fails(&[
        "import",
        "--url",
        &url,
        "--collection",
        "c",
        "/nowhere/at/all",
    ]);
    assert!(error.contains("cannot read /nowhere/at/all"), "{error}");
}

#[test]
fn bad_urls_are_refused_without_their_credentials() {
    for url in [
        "secret",
        "secret:pass@host",
        "embedded:",
        "redis://user:secret@127.0.0.1",
        "mongodb://user:secret@127.0.0.1:1/db?connectTimeoutMS=200&serverSelectionTimeoutMS=500",
        "mongodb://user:secret@",
        "mongodb://user:secret@127.0.0.1:1",
    ] {
        let error = fails(&["get", "--url", url, "--collection", "c", "x"]);
        assert!(!error.contains("secret"), "{url}: {error}");
        assert!(error.starts_with("nodestorage: "), "{error}");
    }
}

#[test]
fn a_store_in_use_says_so() {
    let folder = Folder::new();
    let path = folder.url();
    let path = Path::new(path.strip_prefix("embedded:").unwrap()).to_owned();
    let options = nodestorage::storage::embedded::EmbeddedOptions::default();
    let _held = nodestorage::storage::embedded::EmbeddedBackend::open(&path, options).unwrap();
    let error = fails(&["doctor", "--url", &folder.url()]);
    assert!(error.contains("is open elsewhere"), "{error}");
}
