use super::*;
use bson::{RawDocumentBuf, doc, rawdoc};

fn check(a: &RawDocument, b: &RawDocument) -> Patch {
    let patch = Patch::between(a, b, &[]).unwrap();
    assert_eq!(patch.apply(a).unwrap().as_bytes(), b.as_bytes());
    let stored = patch.to_raw().unwrap();
    assert_eq!(Patch::from_raw(stored.as_raw_bson_ref()).unwrap(), patch);
    patch
}

#[test]
fn smoke() {
    let a = rawdoc! {"a": 1, "b": {"x": 1, "y": [1,2,3,4,5,6], "z": "some long text some long text some long text"}, "c": 3};
    let b = rawdoc! {"c": 3, "n": 1, "b": {"x": 1, "y": [1,2,4,5,6,7], "z": "some long text some long text some long text"}};
    println!("{:?}", check(&a, &b));
}
