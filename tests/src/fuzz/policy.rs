//! What a recording, and so a guest, can have a law see: nothing breaks it, and what it orders is recorded so that it
//! replays.

use balloon::policy::trace::{Did, Header, Replay, Saw, write};
use balloon::policy::{Law, Orders};

pub fn run(input: &[u8]) {
    let mut recording = Vec::new();
    let mut law = None;
    let mut replay = Replay::new();
    for line in input.split(|byte| *byte == b'\n') {
        let _ = replay.line(line);
        match (&mut law, serde_json::from_slice::<Header>(line), serde_json::from_slice::<Saw>(line)) {
            (None, Ok(header), _) => {
                write(&header, &mut recording);
                law = Some(Law::new(header.now_ms, header.size_bytes, header.settings, header.tuning));
            }
            (Some(law), _, Ok(saw)) => {
                let mut orders = Orders::new();
                law.observe(saw.now_ms, &saw.saw, &mut orders);
                write(&saw, &mut recording);
                orders.iter().for_each(|did| write(&Did { did: *did }, &mut recording));
                let _ = law.status(saw.now_ms);
            }
            _ => {}
        }
    }
    let mut replay = Replay::new();
    for line in recording.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        assert_eq!(replay.line(line), Ok(()), "what was recorded replays");
    }
}
