use super::*;

async fn versions(backend: &EmbeddedBackend, range: LogRange) -> Vec<u64> {
    let entries = backend.read_log(&range).await.unwrap();
    entries.iter().map(|entry| entry.version.get()).collect()
}

#[tokio::test]
async fn every_part_of_a_log_is_read_in_both_directions() {
    let clock = HandClock::at(1_000_000);
    let options = EmbeddedOptions::default().with_clock(clock.clone());
    let backend = EmbeddedBackend::in_memory_with(options).unwrap();
    backend
        .open_collection(&CollectionSpec::new("users"))
        .await
        .unwrap();
    // Version 2n, at second 1000 + n; the odd ones were passed over.
    let mut unit = Unit::default();
    for number in 1..=40 {
        clock.set((1_000 + number as i64) * 1_000);
        unit.entries = vec![entry(&key("a"), 2 * number, EntryKind::Adopted)];
        commit(
            &backend,
            &[unit.clone(), step(&format!("other{number}"), 1)],
        )
        .await
        .unwrap();
    }
    for from in 0..=82 {
        for to in (from..=82).step_by(7) {
            for limit in [0, 1, 3, 100] {
                for second in [1_000, 1_013, 2_000] {
                    let range = LogRange {
                        from: Version::new(from),
                        to: Version::new(to),
                        limit,
                        until: Some(Position::new(second, u32::MAX)),
                        ..all_of(key("a"))
                    };
                    let mut all: Vec<u64> = (1..=40)
                        .filter(|number| 1_000 + number <= u64::from(second))
                        .map(|number| 2 * number)
                        .filter(|version| (from..=to).contains(version))
                        .collect();
                    let oldest = all.iter().copied().take(limit).collect::<Vec<_>>();
                    assert_eq!(versions(&backend, range.clone()).await, oldest);
                    all.reverse();
                    all.truncate(limit);
                    let range = LogRange {
                        newest_first: true,
                        ..range
                    };
                    assert_eq!(versions(&backend, range).await, all);
                }
            }
        }
    }
    assert!(versions(&backend, all_of(key("never"))).await.is_empty());
}

#[tokio::test]
async fn entries_come_back_as_they_were_with_their_position() {
    let backend = opened().await;
    let mut unit = step("a", 1);
    unit.entries[0].after = Some(document("a", 1));
    unit.entries[0].metadata = Metadata::new().with_actor("me");
    let receipt = commit(&backend, &[unit.clone()]).await.unwrap();
    let read = backend.read_log(&all_of(key("a"))).await.unwrap();
    unit.entries[0].position = receipt.position;
    assert_eq!(read, unit.entries);
}

#[tokio::test]
async fn positions_rise_when_the_clock_goes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    let clock = HandClock::at(5_000_000);
    let options = EmbeddedOptions::default().with_clock(clock.clone());
    let mut last = Position::START;
    let mut number = 0;
    for millis in [5_000_000, 1_000, -7, 5_000_999, 6_000_000, i64::MAX, 0] {
        // Opened anew each time: the newest position is not forgotten.
        let backend = EmbeddedBackend::open(&path, options.clone()).unwrap();
        backend
            .open_collection(&CollectionSpec::new("users"))
            .await
            .unwrap();
        clock.set(millis);
        for _ in 0..3 {
            number += 1;
            let receipt = commit(&backend, &[step("a", number)]).await.unwrap();
            assert!(
                receipt.position > last,
                "{:?} at {millis}",
                receipt.position
            );
            last = receipt.position;
        }
        if millis == 6_000_000 {
            assert_eq!(last.seconds(), 6_000);
        }
    }
}
