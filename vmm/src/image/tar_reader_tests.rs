use proptest::prelude::*;

use super::*;
use crate::image::member::Segment;

fn members(bytes: &[u8]) -> Result<Vec<(Member, Vec<u8>)>, TarError> {
    let mut members = Members::new(Streamed(bytes));
    let mut all = Vec::new();
    while let Some(member) = members.next_member()? {
        let mut data = Vec::new();
        let mut chunk = [0u8; 100];
        loop {
            match members.read_data(&mut chunk)? {
                0 => break,
                read => data.extend_from_slice(&chunk[..read]),
            }
        }
        all.push((member, data));
    }
    Ok(all)
}

fn header(name: &str, kind: u8, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_path(name).unwrap();
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(7);
    header.set_gid(8);
    header.set_mtime(9);
    header.set_cksum();
    header
}

fn block(data: &[u8]) -> Vec<u8> {
    let mut bytes = data.to_vec();
    bytes.resize(data.len().div_ceil(512) * 512, 0);
    bytes
}

fn member_bytes(name: &str, kind: u8, data: &[u8]) -> Vec<u8> {
    [header(name, kind, data.len() as u64).as_bytes().to_vec(), block(data)].concat()
}

#[test]
fn plain_members() {
    let bytes = [member_bytes("a", b'0', b"hello"), member_bytes("d/", b'0', b""), vec![0; 1024]].concat();
    let all = members(&bytes).unwrap();
    assert_eq!(all.len(), 2);
    assert_eq!((all[0].0.path.as_slice(), all[0].1.as_slice()), (&b"a"[..], &b"hello"[..]));
    assert_eq!((all[0].0.uid, all[0].0.gid, all[0].0.mtime.seconds, all[0].0.mode), (7, 8, 9, 0o644));
    assert_eq!(all[1].0.kind, Kind::Directory);
}

#[test]
fn long_names_and_pax_records_describe_the_next_member_only() {
    let name = "n".repeat(300);
    let bytes = [
        member_bytes("././@LongLink", b'L', format!("{name}\0").as_bytes()),
        member_bytes("short", b'0', b"1"),
        member_bytes("x", b'x', b"21 mtime=1234567.125\n9 uid=70\n"),
        member_bytes("second", b'0', b"2"),
        member_bytes("g", b'g', b"12 path=abc\n"),
        member_bytes("third", b'0', b"3"),
    ]
    .concat();
    let all = members(&bytes).unwrap();
    assert_eq!(all[0].0.path, name.as_bytes());
    assert_eq!(all[1].0.path, b"second");
    assert_eq!((all[1].0.uid, all[1].0.mtime), (70, Mtime { seconds: 1_234_567, nanoseconds: 125_000_000 }));
    assert_eq!((all[2].0.path.as_slice(), all[2].0.uid), (&b"third"[..], 7));
}

#[test]
fn links_carry_no_data_whatever_their_size_says() {
    let mut link = header("l", b'2', 512);
    link.set_link_name("target").unwrap();
    link.set_cksum();
    let bytes = [link.as_bytes().to_vec(), member_bytes("after", b'0', b"x")].concat();
    let all = members(&bytes).unwrap();
    assert_eq!(all[0].0.link, b"target");
    assert_eq!(all[1].0.path, b"after");
}

#[test]
fn old_gnu_sparse_member() {
    let mut sparse = header("s", b'S', 5);
    let gnu = sparse.as_gnu_mut().unwrap();
    gnu.set_real_size(1 << 20);
    gnu.sparse[0].set_offset(4096);
    gnu.sparse[0].set_length(5);
    gnu.sparse[1].set_offset(1 << 20);
    gnu.sparse[1].set_length(0);
    sparse.set_cksum();
    let bytes = [sparse.as_bytes().to_vec(), block(b"hello"), member_bytes("after", b'0', b"")].concat();
    let all = members(&bytes).unwrap();
    assert_eq!((all[0].0.size, all[0].0.stored), (1 << 20, 5));
    assert_eq!(all[0].0.segments.as_deref(), Some(&[Segment { offset: 4096, length: 5 }][..]));
    assert_eq!(all[0].1, b"hello");
    assert_eq!(all[1].0.path, b"after");
}

#[test]
fn pax_sparse_members_of_every_version() {
    let pax = |records: &[(&str, &str)]| {
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_pax_extensions(records.iter().map(|(k, v)| (*k, v.as_bytes()))).unwrap();
        let bytes = builder.into_inner().unwrap();
        bytes[..bytes.len() - 1024].to_vec()
    };
    let cases = [
        [
            pax(&[
                ("GNU.sparse.size", "9000"),
                ("GNU.sparse.numblocks", "1"),
                ("GNU.sparse.offset", "4096"),
                ("GNU.sparse.numbytes", "5"),
            ]),
            member_bytes("f", b'0', b"hello"),
        ],
        [
            pax(&[("GNU.sparse.size", "9000"), ("GNU.sparse.name", "f"), ("GNU.sparse.map", "4096,5")]),
            member_bytes("GNUSparseFile.1/f", b'0', b"hello"),
        ],
        [
            pax(&[
                ("GNU.sparse.major", "1"),
                ("GNU.sparse.minor", "0"),
                ("GNU.sparse.name", "f"),
                ("GNU.sparse.realsize", "9000"),
            ]),
            member_bytes("GNUSparseFile.1/f", b'0', &[block(b"1\n4096\n5\n"), b"hello".to_vec()].concat()),
        ],
    ];
    for case in cases {
        let all = members(&case.concat()).unwrap();
        assert_eq!((all[0].0.path.as_slice(), all[0].0.size), (&b"f"[..], 9000));
        assert_eq!(all[0].0.segments.as_deref(), Some(&[Segment { offset: 4096, length: 5 }][..]));
        assert_eq!(all[0].1, b"hello");
    }
}

#[test]
fn damage_is_told() {
    let good = member_bytes("a", b'0', b"hello");
    assert!(matches!(members(&good[..600]), Err(TarError::Truncated)));
    assert!(matches!(members(&good[..100]), Err(TarError::Truncated)));
    let mut wrong = good.clone();
    wrong[0] ^= 1;
    assert!(matches!(members(&wrong), Err(TarError::Malformed(_))));
    assert!(matches!(members(&member_bytes("m", b'M', b"")), Err(TarError::UnknownType { .. })));
    let huge = header("x", b'x', 1 << 40);
    assert!(matches!(members(huge.as_bytes()), Err(TarError::MetadataTooLarge(_))));
    let dangling = member_bytes("x", b'x', b"9 uid=70\n");
    assert!(matches!(members(&dangling), Err(TarError::Truncated)));
}

#[test]
fn size_near_the_end_of_64_bits_is_refused() {
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_pax_extensions([("size", &b"18446744073709551615"[..])]).unwrap();
    let mut bytes = builder.into_inner().unwrap();
    bytes.truncate(1024);
    bytes.extend(member_bytes("a", b'0', b""));
    assert!(members(&bytes).is_err());
}

proptest! {
    #[test]
    fn any_stream_ends(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        let _ = members(&bytes);
    }

    #[test]
    fn any_header_field_is_parsed_or_refused(at in 0usize..512, value: u8, kind in "[0-7SxgLKVM]") {
        let mut header = header("name", kind.as_bytes()[0], 600);
        if !(148..156).contains(&at) {
            header.as_mut_bytes()[at] = value;
        }
        header.set_cksum();
        let _ = members(&[header.as_bytes().to_vec(), vec![b'1'; 1536]].concat());
    }
}
