//! What a recording, and so a guest, can have a law see: nothing breaks it, and what it orders is recorded so that it
//! replays.

use balloon::policy::trace::{Did, Header, Replay, Saw, write};
use balloon::policy::{Law, Orders, Settings, Tuning};

const SIZE: u64 = 1 << 30;

pub fn run(input: &[u8]) {
    let recording = recorded(input);
    let mut replay = Replay::new();
    for line in recording.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        assert_eq!(replay.line(line), Ok(()), "what was recorded replays");
    }
}

/// What is recorded of a law, as it ships, that sees what `input` says, as far as that is a recording's.
fn recorded(input: &[u8]) -> Vec<u8> {
    let header = Header::new(0, SIZE, Settings::new(SIZE), Tuning::default());
    let mut recording = Vec::new();
    write(&header, &mut recording);
    let mut law = Law::new(header.now_ms, header.size_bytes, header.settings, header.tuning);
    let mut replay = Replay::new();
    let _ = replay.line(recording.trim_ascii_end());
    for line in input.split(|byte| *byte == b'\n') {
        let _ = replay.line(line);
        if let Ok(saw) = serde_json::from_slice::<Saw>(line) {
            let mut orders = Orders::new();
            law.observe(saw.now_ms, &saw.saw, &mut orders);
            write(&saw, &mut recording);
            orders.iter().for_each(|did| write(&Did { did: *did }, &mut recording));
            let _ = law.status(saw.now_ms);
        }
    }
    recording
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_corpus_says_what_laws_see_and_has_them_order_something() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/policy");
        let mut orders = 0;
        for file in std::fs::read_dir(corpus).unwrap() {
            let path = file.unwrap().path();
            let recording = recorded(&std::fs::read(&path).unwrap());
            let lines = |of: &[u8]| {
                recording.split(|byte| *byte == b'\n').filter(|line| line.starts_with(of)).count()
            };
            assert!(lines(b"{\"now_ms\"") > 0, "{}: no line of it is what a law sees", path.display());
            orders += lines(b"{\"did\"");
        }
        assert!(orders > 10, "{orders} orders");
    }
}
