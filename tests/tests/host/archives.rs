//! A malicious archive is refused with a sentence, and nothing is written outside the image's root.

use std::fs;
use tests::Ballast;
use tests::archive::{Member, tar};

/// Imports the archive and expects a refusal that leaves neither image nor stray file.
fn refused(members: &[Member<'_>]) {
    let ballast = Ballast::empty();
    let canary = ballast.file("canary", b"alive");
    let archive = ballast.file("malicious.tar", &tar(members));
    ballast.command(&["image", "import", archive.to_str().unwrap()]).end().refuses();
    assert_eq!(fs::read(&canary).unwrap(), b"alive");
    let mut left: Vec<_> = fs::read_dir(ballast.path(".")).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.retain(|name| name != "data" && name != "state");
    left.sort();
    assert_eq!(left, ["canary", "malicious.tar"]);
    ballast.command(&["image", "ls", "--format", "json"]).end().exits(0).prints("[]\n");
}

#[test]
fn a_name_that_climbs() {
    refused(&[Member::file("../canary", b"dead")]);
    refused(&[Member::directory("a"), Member::file("a/../../../../canary", b"dead")]);
}

#[test]
fn a_symbolic_link_in_the_way() {
    refused(&[Member::link("way", b'2', "../../../../.."), Member::file("way/canary", b"dead")]);
    refused(&[Member::link("way", b'2', "/"), Member::file("way/tmp/dead", b"dead")]);
    refused(&[
        Member::directory("way"),
        Member::link("way", b'2', "../../.."),
        Member::file("way/canary", b"dead"),
    ]);
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
