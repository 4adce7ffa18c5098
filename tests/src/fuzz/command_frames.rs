//! What a client of a command and the guest that runs it may send: neither has the VMM hold more than the credit of both.

use super::bytes::Bytes;
use proto::{CommandSpec, Decoder, FromCommand, Message, Piece, ToCommand, WINDOW};
use vmm::commands::Commands;

/// As of [`vmm::control::exec`].
const UNREAD: usize = (WINDOW as usize) << 1;

pub fn run(input: &[u8]) {
    let mut bytes = Bytes(input);
    let cut = usize::from(bytes.u8()) + 1;
    if let Some(spec) = Piece::new(bytes.0).and_then(|piece| CommandSpec::decode(&piece).ok()) {
        let again = spec.encode().expect("what was decoded");
        assert_eq!(CommandSpec::decode(&again), Ok(spec));
    }

    let mut commands = Commands::default();
    let id = commands.begin().expect("the first");
    let (mut client, mut guest) = (Decoder::<ToCommand>::new(), Decoder::<FromCommand>::new());
    let mut held = 0;
    while !bytes.is_empty() {
        // The odd byte says whose turn it is.
        let from_client = bytes.u8() & 1 == 1;
        let mut piece = bytes.take(cut);
        // A client that does not take what it is sent is not listened to.
        if from_client && held > UNREAD {
            continue;
        }
        if from_client {
            while let Ok(Some(message)) = client.next(&mut piece) {
                let _ = commands.from_client(id, &message);
            }
        } else {
            while let Ok(Some(message)) = guest.next(&mut piece) {
                if commands.from_guest(id, &message) {
                    let mut frame = Vec::new();
                    message.encode(&mut frame);
                    held += frame.len();
                }
            }
        }
        assert!(held <= UNREAD + ((WINDOW as usize) << 3));
    }
    assert_eq!(commands.take(id).len(), held);
}
