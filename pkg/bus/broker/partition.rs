/// The partition of a [partition key](crate::Event::partition_key): FNV-1a with 64 bits over its
/// bytes, both halves folded together, modulo the number of partitions.
///
/// Whoever publishes to a bus's broker by other means has to compute the same. It never changes: a
/// document whose events lay in two partitions would lose its order.
pub(in crate::bus) fn partition_of(key: &str, partitions: u32) -> u32 {
    let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    // The low bits of FNV alone depend on the low bits of the bytes alone.
    let folded = (hash >> 32) ^ (hash & 0xffff_ffff);
    let partition = folded % u64::from(partitions.max(1));
    u32::try_from(partition).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_stays_as_it_is() {
        assert_eq!(partition_of("", 8), 1);
        assert_eq!(partition_of("users/user123", 8), 4);
        assert_eq!(partition_of("users/user123", 1), 0);
    }

    #[test]
    fn documents_spread_evenly() {
        let mut counts = [0_u32; 8];
        for n in 0..8_000 {
            counts[partition_of(&format!("users/u{n}"), 8) as usize] += 1;
        }
        assert!(
            counts.iter().all(|n| (800..1_200).contains(n)),
            "{counts:?}"
        );
    }
}
