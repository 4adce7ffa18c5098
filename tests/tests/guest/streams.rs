//! Without a terminal, the three streams are binary clean, apart, and end when they end.

use tests::setup;

/// Bytes without a pattern (xorshift64), the same each time.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(bytes).collect()
}

#[test]
fn bytes_pass_unchanged_both_ways() {
    let sent = noise(64 << 20);
    let ended = setup().run("busybox", &["cat"]).options(["-i"]).stdin(sent.clone()).end().exits(0);
    assert_eq!(ended.stdout.len(), sent.len());
    assert!(ended.stdout == sent, "64 MiB came back changed");
}

#[test]
fn outputs_stay_apart() {
    let script = "echo to stdout; echo to stderr >&2";
    let ended = setup().run("busybox", &["sh", "-c", script]).end().exits(0).prints("to stdout\n");
    assert_eq!(ended.stderr, "to stderr\n");
}

#[test]
fn the_end_of_input_is_seen() {
    let ballast = setup();
    ballast.run("busybox", &["wc", "-c"]).options(["-i"]).stdin(noise(100_001)).end().prints("100001\n");
    // Without -i there is no input at all.
    ballast.run("busybox", &["wc", "-c"]).stdin("unseen").end().prints("0\n");
}

#[test]
fn the_last_byte_arrives_however_fast_the_end() {
    let script = "head -c 3000000 /dev/zero; head -c 1000000 /dev/zero >&2";
    let ended = setup().run("busybox", &["sh", "-c", script]).end().exits(0);
    assert_eq!((ended.stdout.len(), ended.stderr.len()), (3_000_000, 1_000_000));
}

#[test]
fn a_reader_that_goes_away_ends_the_workload() {
    let ballast = setup();
    let running = ballast.run("busybox", &["yes"]).start();
    running.wait_for("y\n");
    running.close_stdout();
    running.end().exits(141);
}
