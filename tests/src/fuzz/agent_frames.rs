//! What an agent may send: the VMM's side of the link bounds everything, and the cut of the bytes means nothing.

use super::bytes::Bytes;
use vmm::link::{Link, State};

pub fn run(input: &[u8]) {
    let mut bytes = Bytes(input);
    let cut = usize::from(bytes.u8()) + 1;
    let stream = bytes.0;

    let mut whole = Vec::new();
    let mut link = Link::new(b"specification");
    link.receive(stream, &mut whole);

    let mut pieces = Vec::new();
    let mut cut_link = Link::new(b"specification");
    for piece in stream.chunks(cut) {
        cut_link.receive(piece, &mut pieces);
    }
    assert_eq!(whole, pieces);
    assert_eq!(link.state(), cut_link.state());
    assert_eq!(link.misuse(), cut_link.misuse());
    if link.state() == State::Silent {
        assert!(whole.iter().all(|event| matches!(event, vmm::link::Event::Broken(_))), "{whole:?}");
    }
}
