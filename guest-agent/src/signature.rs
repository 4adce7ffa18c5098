//! The signature that a distribution's build appends to a kernel module.
//!
//! Pure. The format is `module_signature` of the kernel (`include/linux/module_signature.h`): the signature, a
//! description of 12 bytes that ends with the signature's length, and a marker. Called by [`crate::modules`].

#![forbid(unsafe_code)]

/// `MODULE_SIG_STRING`.
const MARKER: &[u8] = b"~Module signature appended~\n";
/// Size of `struct module_signature`.
const DESCRIPTION_BYTES: usize = 12;
/// The longest end of a module that has to be looked at.
pub const TRAILER_BYTES: usize = DESCRIPTION_BYTES + MARKER.len();

/// How many bytes at the end of a module are its signature with everything around it, given the module's last
/// bytes, [`TRAILER_BYTES`] at least. Nothing where it has none.
pub fn signature_bytes(end: &[u8]) -> Option<u64> {
    let description = end.strip_suffix(MARKER)?.last_chunk::<DESCRIPTION_BYTES>()?;
    let [.., a, b, c, d] = *description;
    // Only PKCS #7 signatures exist today, and they are all that lies before the description.
    Some(u64::from(u32::from_be_bytes([a, b, c, d])) + TRAILER_BYTES as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trailer(length: u32) -> Vec<u8> {
        let mut bytes = vec![0, 0, 2, 0, 0, 0, 0, 0];
        bytes.extend(length.to_be_bytes());
        bytes.extend(MARKER);
        bytes
    }

    #[test]
    fn a_signature_is_measured() {
        assert_eq!(TRAILER_BYTES, 40);
        assert_eq!(signature_bytes(&trailer(665)), Some(705));
        assert_eq!(signature_bytes(&[b"module".to_vec(), trailer(u32::MAX)].concat()), Some((1 << 32) + 39));
    }

    #[test]
    fn a_module_without_one_is_left_whole() {
        let good = trailer(665);
        assert_eq!(signature_bytes(&good[1..]), None, "too short");
        assert_eq!(signature_bytes(&good[..39]), None, "no marker");
        assert_eq!(signature_bytes(b""), None);
    }
}
