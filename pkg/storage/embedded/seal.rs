//! Checksums over stored values: the file's pages carry checksums too, but they are compared only
//! when the whole file is verified, not when a value is read.

use crate::error::{Error, ErrorKind, Result};

const CHECKSUM_BYTES: usize = 8;

/// Odd, so that multiplying by it loses nothing: 2^64 divided by the golden ratio.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// A checksum over a key and a value.
///
/// Each step maps the state one to one, so damage within any eight aligned bytes is always found, and
/// other damage but for one chance in 2^64.
fn checksum(key: &[u8], value: &[u8]) -> u64 {
    let mut state = FACTOR;
    let mut step = |word: u64| {
        state = (state ^ word).wrapping_mul(FACTOR);
        state ^= state >> 32;
    };
    for part in [key, value] {
        step(part.len() as u64);
        let mut words = part.chunks_exact(8);
        for word in &mut words {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(word);
            step(u64::from_le_bytes(bytes));
        }
        let mut last = [0; 8];
        let rest = words.remainder();
        last[..rest.len()].copy_from_slice(rest);
        step(u64::from_le_bytes(last));
    }
    state
}

/// Puts room for the checksum in front of a value that is about to be written.
pub(super) fn room(value_bytes: usize) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(CHECKSUM_BYTES + value_bytes);
    sealed.resize(CHECKSUM_BYTES, 0);
    sealed
}

/// Fills in the checksum of a value that was written behind [`room`].
pub(super) fn seal(key: &[u8], sealed: &mut [u8]) {
    let (sum, value) = sealed.split_at_mut(CHECKSUM_BYTES);
    sum.copy_from_slice(&checksum(key, value).to_le_bytes());
}

/// Seals a value that lies elsewhere.
pub(super) fn sealed(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut copy = room(value.len());
    copy.extend_from_slice(value);
    seal(key, &mut copy);
    copy
}

/// The value under the seal.
///
/// # Errors
/// `Corrupt` if value or key are not as they were written.
pub(super) fn open<'a>(what: &str, key: &[u8], sealed: &'a [u8]) -> Result<&'a [u8]> {
    if let Some((sum, value)) = sealed.split_first_chunk::<CHECKSUM_BYTES>()
        && u64::from_le_bytes(*sum) == checksum(key, value)
    {
        return Ok(value);
    }
    Err(Error::new(
        ErrorKind::Corrupt,
        format!("{what} in the embedded store does not match its checksum"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_is_found() {
        let key = b"users\0a";
        let intact = sealed(key, b"a value of some length");
        assert_eq!(
            open("value", key, &intact).unwrap(),
            b"a value of some length"
        );
        for bit in 0..intact.len() * 8 {
            let mut damaged = intact.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(open("value", key, &damaged).is_err(), "bit {bit}");
        }
        assert!(open("value", b"users\0b", &intact).is_err());
        for length in 0..intact.len() {
            assert!(open("value", key, &intact[..length]).is_err());
        }
    }
}
