//! What a bus delivers may be anything. Whatever the bytes are, decoding ends with an event or an error, and
//! an event survives being written and read again, in either form.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nodestorage::event::{CloudEvents, EventSerializer, PlainJson};

fuzz_target!(|bytes: &[u8]| {
    let forms: [&dyn EventSerializer; 2] = [&CloudEvents, &PlainJson];
    for form in forms {
        let Ok(event) = form.deserialize(bytes) else {
            continue;
        };
        for other in forms {
            let written = other
                .serialize(&event)
                .unwrap_or_else(|e| panic!("{form:?} read what {other:?} cannot write: {e:?}"));
            let read = other
                .deserialize(&written)
                .unwrap_or_else(|e| panic!("{other:?} cannot read what it has written: {e:?}"));
            assert_eq!(read, event, "read by {form:?}, then written by {other:?}");
        }
    }
});
