//! Ids for records that come without one: sortable by the time at which they were made.
//!
//! 26 characters of Crockford's base32: 48 bits of Unix milliseconds, then 80 random bits. Two made
//! in one millisecond meet with a chance of 2^-80.
//!
//! Source: the ULID specification, <https://github.com/ulid/spec>.

const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const LEN: usize = 26;

/// The id of this instant and these random bytes.
pub fn sortable(ms: u64, random: [u8; 10]) -> String {
    let random = random.iter().fold(0u128, |bits, byte| bits << 8 | u128::from(*byte));
    let bits = u128::from(ms & ((1 << 48) - 1)) << 80 | random;
    let digit = |at: usize| DIGITS[(bits >> (5 * (LEN - 1 - at)) & 31) as usize];
    (0..LEN).map(|at| char::from(digit(at))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time_whatever_the_randomness() {
        assert!(sortable(1, [0xff; 10]) < sortable(2, [0; 10]));
        assert!(sortable(31, [0xff; 10]) < sortable(32, [0; 10]));
        assert!(sortable(u64::MAX >> 17, [0xff; 10]) < sortable(u64::MAX >> 16, [0; 10]));
    }

    #[test]
    fn an_id_is_26_digits_of_its_time_and_bytes() {
        // The example of the specification's time part.
        assert!(sortable(1_469_922_850_259, [0; 10]).starts_with("01ARZ3NDEK"));
        assert_eq!(sortable(0, [0; 10]), "0".repeat(26));
        assert_eq!(sortable(u64::MAX, [0xff; 10]), format!("7{}", "Z".repeat(25)));
    }
}
