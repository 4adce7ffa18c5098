//! A malicious archive is refused with a sentence, and nothing is written outside the image's root.

use std::fs;
use tests::Ballast;
use tests::archive::{Member, tar};
use tests::run::Ended;

/// Imports the archive and expects a refusal that leaves no image.
fn refused(members: &[Member<'_>]) {
    let (ballast, ended) = import(members);
    ended.refuses();
    ballast.command(&["image", "ls", "--format", "json"]).end().exits(0).prints("[]\n");
}

/// Imports the archive and expects that nothing is written outside, whatever else comes of it.
fn import(members: &[Member<'_>]) -> (Ballast, Ended) {
    let ballast = Ballast::empty();
    let canary = ballast.file("canary", b"alive");
    let archive = ballast.file("malicious.tar", &tar(members));
    let ended = ballast.command(&["image", "import", archive.to_str().unwrap()]).end();
    assert_eq!(fs::read(&canary).unwrap(), b"alive");
    for directory in [ballast.path("."), ballast.path("data"), ballast.path("data/tmp")] {
        let names = fs::read_dir(directory).into_iter().flatten().map(|entry| entry.unwrap().file_name());
        assert!(names.into_iter().all(|name| name != "dead"), "written outside of the image; {ended}");
    }
    (ballast, ended)
}

#[test]
fn a_name_that_climbs() {
    refused(&[Member::file("../canary", b"dead")]);
    refused(&[Member::directory("a"), Member::file("a/../../../../canary", b"dead")]);
}

#[test]
fn a_symbolic_link_in_the_way() {
    // Links are followed within the image's root and never out of it, as in a running container.
    for target in ["../../..", "../../../..", "/", "/proc/self/root/tmp"] {
        let (_, ended) = import(&[Member::link("way", b'2', target), Member::file("way/dead", b"dead")]);
        assert!(matches!(ended.code, 0 | 125), "{ended}");
        // Swapped after its directory was made.
        let swapped =
            [Member::directory("way"), Member::link("way", b'2', target), Member::file("way/dead", b"")];
        let (_, ended) = import(&swapped);
        assert!(matches!(ended.code, 0 | 125), "{ended}");
    }
}

#[test]
fn a_hard_link_out() {
    refused(&[Member::link("passwd", b'1', "../../../../../../../../etc/passwd")]);
    refused(&[Member::link("passwd", b'1', "/etc/passwd")]);
    refused(&[Member::link("nothing", b'1', "no/such/member")]);
}

#[test]
fn a_file_that_claims_a_tebibyte() {
    refused(&[Member { claims: 1 << 40, ..Member::file("huge", b"tiny") }]);
}

#[test]
fn a_member_that_is_cut_off() {
    let ballast = Ballast::empty();
    let archive = tar(&[Member::file("file", &[1; 10_000])]);
    let archive = ballast.file("short.tar", &archive[..5_000]);
    ballast.command(&["image", "import", archive.to_str().unwrap()]).end().refuses();
}

#[test]
fn noise() {
    let ballast = Ballast::empty();
    let noise: Vec<u8> = (0..100_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let archive = ballast.file("noise.tar", &noise);
    ballast.command(&["image", "import", archive.to_str().unwrap()]).end().refuses().says("noise.tar");
}
