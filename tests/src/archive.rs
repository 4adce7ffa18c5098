//! Tar archives such as no decent tool writes.

/// A member of a tar archive, written as it is told, however absurd.
pub struct Member<'a> {
    /// Its name.
    pub name: &'a str,
    /// The type flag: `0` file, `1` hard link, `2` symbolic link, `5` directory.
    pub kind: u8,
    /// What a link names.
    pub target: &'a str,
    /// What the header claims to follow, in bytes.
    pub claims: u64,
    /// What follows.
    pub data: &'a [u8],
}

impl<'a> Member<'a> {
    /// A file.
    #[must_use]
    pub fn file(name: &'a str, data: &'a [u8]) -> Self {
        Self { name, kind: b'0', target: "", claims: data.len() as u64, data }
    }

    /// A link of `kind` to `target`.
    #[must_use]
    pub fn link(name: &'a str, kind: u8, target: &'a str) -> Self {
        Self { name, kind, target, claims: 0, data: &[] }
    }

    /// A directory.
    #[must_use]
    pub fn directory(name: &'a str) -> Self {
        Self::link(name, b'5', "")
    }
}

/// The archive of these members, in the ustar format (POSIX.1-1988) with GNU's large numbers.
#[must_use]
pub fn tar(members: &[Member<'_>]) -> Vec<u8> {
    let mut archive = Vec::new();
    for member in members {
        let mut header = [0; 512];
        header[..member.name.len()].copy_from_slice(member.name.as_bytes());
        header[100..108].copy_from_slice(b"0000755\0");
        header[108..116].copy_from_slice(b"0000000\0");
        header[116..124].copy_from_slice(b"0000000\0");
        if member.claims < 1 << 33 {
            header[124..136].copy_from_slice(format!("{:011o}\0", member.claims).as_bytes());
        } else {
            header[124] = 0x80;
            header[128..136].copy_from_slice(&member.claims.to_be_bytes());
        }
        header[136..148].copy_from_slice(b"00000000000\0");
        header[156] = member.kind;
        header[157..157 + member.target.len()].copy_from_slice(member.target.as_bytes());
        header[257..265].copy_from_slice(b"ustar\x0000");
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        archive.extend_from_slice(&header);
        archive.extend_from_slice(member.data);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}
