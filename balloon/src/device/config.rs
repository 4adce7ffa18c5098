//! The configuration space (virtio 1.3, 5.5.4): `num_pages`, `actual`, `free_page_hint_cmd_id`, `poison_val`.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

/// Length of the configuration space.
pub const CONFIG_BYTES: usize = 16;

const ACTUAL_OFFSET: u64 = 4;
const POISON_OFFSET: u64 = 12;

/// Its fields. `free_page_hint_cmd_id` is always zero: "stop".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Pages that the host wants in the balloon.
    pub num_pages: u32,
    /// Pages that the driver says are in it.
    pub actual: u32,
    /// What the driver fills free pages with.
    pub poison: u32,
}

/// What a write of the driver means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// A new value of `actual`.
    Actual(u32),
    /// A new value of `poison_val`.
    Poison(u32),
    /// Nothing: another field, or not the whole of one.
    Refused,
}

impl Config {
    /// The bytes that the driver reads.
    #[must_use]
    pub fn bytes(&self) -> [u8; CONFIG_BYTES] {
        let fields = [self.num_pages, self.actual, 0, self.poison];
        let mut bytes = [0; CONFIG_BYTES];
        for (field, value) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(fields) {
            *field = value.to_le_bytes();
        }
        bytes
    }

    /// What it means that the driver writes `data` at `offset`. Fields are written whole (virtio 1.3, 4.2.2.2).
    #[must_use]
    pub fn parse_write(offset: u64, data: &[u8]) -> Write {
        match (offset, <[u8; 4]>::try_from(data)) {
            (ACTUAL_OFFSET, Ok(data)) => Write::Actual(u32::from_le_bytes(data)),
            (POISON_OFFSET, Ok(data)) => Write::Poison(u32::from_le_bytes(data)),
            _ => Write::Refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_lie_where_the_specification_puts_them() {
        let config = Config { num_pages: 0x0403_0201, actual: 0x0807_0605, poison: 0xaaaa_aaaa };
        assert_eq!(config.bytes(), [1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0xaa, 0xaa, 0xaa, 0xaa]);
        assert_eq!(Config::parse_write(4, &[1, 0, 0, 0]), Write::Actual(1));
        assert_eq!(Config::parse_write(12, &[2, 0, 0, 0]), Write::Poison(2));
    }

    proptest! {
        #[test]
        fn only_two_whole_fields_are_writable(
            offset in prop_oneof![0u64..20, any::<u64>()],
            data in prop::collection::vec(any::<u8>(), 0..10),
        ) {
            let writable = data.len() == 4 && (offset == 4 || offset == 12);
            prop_assert_eq!(Config::parse_write(offset, &data) == Write::Refused, !writable);
        }
    }
}
