//! Who the workload runs as: docker's `--user` looked up in the image's own /etc/passwd and /etc/group.
//!
//! Pure. The meaning is docker's (github.com/moby/sys, user): a number need not be listed; a name must be;
//! supplementary groups come from /etc/group unless a group is given; malformed lines are skipped.

#![forbid(unsafe_code)]

/// A user as the kernel knows it, and its home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// All groups, `gid` first.
    pub groups: Vec<u32>,
    /// Home directory, `/` if none is known.
    pub home: Vec<u8>,
}

/// Finds out who `wanted` is: empty for root, or `user`, `uid`, `user:group`, `uid:gid` and mixtures.
///
/// # Errors
/// A sentence about a name that is not listed, or a number out of range.
pub fn resolve(wanted: &str, passwd: &[u8], group: &[u8]) -> Result<Identity, String> {
    let (user, wanted_group) = match wanted.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (wanted, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let number = number_of(user)?;

    let entry = entries(passwd).find_map(|fields| match *fields.as_slice() {
        [name, _, uid, gid, _, home, ..] => {
            let (uid, gid) = (parse(uid)?, parse(gid)?);
            (name == user.as_bytes() || Some(uid) == number).then_some((name, uid, gid, home))
        }
        _ => None,
    });
    let (name, uid, listed_gid, home) = match (entry, number) {
        (Some((name, uid, gid, home)), _) => (Some(name), uid, gid, home),
        (None, Some(uid)) => (None, uid, 0, b"/".as_slice()),
        (None, None) => return Err(format!("user {user:?} is not in the image's /etc/passwd")),
    };

    let mut gid = listed_gid;
    let mut groups = Vec::new();
    if let Some(wanted) = wanted_group {
        let number = number_of(wanted)?;
        let listed = group_entries(group)
            .find(|entry| entry.name == wanted.as_bytes() || Some(entry.gid) == number)
            .map(|entry| entry.gid);
        gid =
            listed.or(number).ok_or_else(|| format!("group {wanted:?} is not in the image's /etc/group"))?;
    } else if let Some(name) = name {
        groups = group_entries(group).filter(|entry| entry.has(name)).map(|entry| entry.gid).collect();
    }
    groups.retain(|other| *other != gid);
    groups.insert(0, gid);
    groups.sort_unstable_by_key(|other| (*other != gid, *other));
    groups.dedup();
    let home = if home.is_empty() { b"/" } else { home };
    Ok(Identity { uid, gid, groups, home: home.to_vec() })
}

struct Group<'a> {
    name: &'a [u8],
    gid: u32,
    members: &'a [u8],
}

impl Group<'_> {
    fn has(&self, user: &[u8]) -> bool {
        self.members.split(|byte| *byte == b',').any(|member| member == user)
    }
}

fn group_entries(file: &[u8]) -> impl Iterator<Item = Group<'_>> {
    entries(file).filter_map(|fields| match *fields.as_slice() {
        [name, _, gid, members, ..] => Some(Group { name, gid: parse(gid)?, members }),
        _ => None,
    })
}

/// The lines of a file with their fields.
fn entries(file: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    file.split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty() && !line.starts_with(b"#"))
        .map(|line| line.split(|byte| *byte == b':').collect())
}

fn parse(field: &[u8]) -> Option<u32> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// The number that a name is, if it is one.
fn number_of(name: &str) -> Result<Option<u32>, String> {
    if !name.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    // The kernel's ids end before u32::MAX, which means "leave as it is".
    match name.parse() {
        Ok(id) if id < u32::MAX => Ok(Some(id)),
        _ => Err(format!("{name} is too large for a user or group id")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n# comment\nbroken line\n\
        www-data:x:33:33:www:/var/www:/usr/sbin/nologin\nbig:x:x:1::/:\nalice:x:1000:1000::/home/alice:/bin/sh\n\
        7:x:1007:1007::/home/seven:/bin/sh\nnohome:x:1001:1001:::/bin/sh\n";
    const GROUP: &[u8] =
        b"root:x:0:\ndaemon:x:1:alice,root\nadm:x:4:alice\nwww-data:x:33:\nusers:x:100:bob\n\
        alice:x:1000:alice\nsudo:x:27:bob,alice\n";

    fn who(wanted: &str) -> Result<(u32, u32, Vec<u32>, String), String> {
        resolve(wanted, PASSWD, GROUP)
            .map(|id| (id.uid, id.gid, id.groups, String::from_utf8(id.home).unwrap()))
    }

    #[test]
    fn users_and_groups_as_docker_finds_them() {
        let found = |uid, gid, groups: &[u32], home: &str| Ok((uid, gid, groups.to_vec(), home.to_owned()));
        assert_eq!(who(""), found(0, 0, &[0, 1], "/root"));
        assert_eq!(who("root"), found(0, 0, &[0, 1], "/root"));
        assert_eq!(who("alice"), found(1000, 1000, &[1000, 1, 4, 27], "/home/alice"));
        assert_eq!(who("1000"), found(1000, 1000, &[1000, 1, 4, 27], "/home/alice"));
        assert_eq!(who("alice:users"), found(1000, 100, &[100], "/home/alice"));
        assert_eq!(who("alice:5000"), found(1000, 5000, &[5000], "/home/alice"));
        assert_eq!(who("4242"), found(4242, 0, &[0], "/"));
        assert_eq!(who("4242:4343"), found(4242, 4343, &[4343], "/"));
        assert_eq!(who(":33"), found(0, 33, &[33], "/root"));
        assert_eq!(who("alice:"), found(1000, 1000, &[1000, 1, 4, 27], "/home/alice"));
        assert_eq!(who("nohome"), found(1001, 1001, &[1001], "/"));
        // A name made of digits wins over the number.
        assert_eq!(who("7"), found(1007, 1007, &[1007], "/home/seven"));
    }

    #[test]
    fn names_must_be_listed_and_numbers_fit() {
        assert!(who("nobody").unwrap_err().contains("nobody"));
        assert!(who("big").is_err());
        assert!(who("alice:nogroup").unwrap_err().contains("nogroup"));
        assert!(who("4294967295").is_err());
        assert!(who("0:99999999999").is_err());
        assert!(who("-1").is_err());
    }

    #[test]
    fn an_image_without_the_files_knows_numbers_only() {
        let root = Identity { uid: 0, gid: 0, groups: vec![0], home: b"/".to_vec() };
        assert_eq!(resolve("", b"", b""), Ok(root));
        assert!(resolve("root", b"", b"").is_err());
    }

    proptest! {
        #[test]
        fn any_files_are_survived(
            wanted in "[a-z0-9:]{0,12}",
            passwd in "([a-c0-9]{0,3}:x?:[0-9]{0,11}:[0-9]{0,11}::/?[a-z]{0,3}:?\n|(?s).{0,20}){0,6}",
            group in "([a-c0-9]{0,3}:x?:[0-9]{0,11}:[a-c,]{0,5}\n|(?s).{0,20}){0,6}",
        ) {
            if let Ok(id) = resolve(&wanted, passwd.as_bytes(), group.as_bytes()) {
                prop_assert_eq!(id.groups.first(), Some(&id.gid));
                let mut unique = id.groups.clone();
                unique.sort_unstable();
                unique.dedup();
                prop_assert_eq!(unique.len(), id.groups.len());
            }
        }
    }
}
