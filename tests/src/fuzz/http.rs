//! What a client of the control socket may send: the cut of the bytes means nothing, what is held is bounded, and
//! every answer is well formed.

use super::bytes::Bytes;
use balloon::backing::Host;
use balloon::control::api::VmDocument;
use balloon::control::connection::{Connection, UNREAD_BYTES};
use balloon::control::http::{REQUEST_BYTES, Status};
use balloon::control::service::error;
use std::sync::Arc;
use vm_memory::{GuestAddress, GuestMemoryMmap};
use vmm::control::ballooned::Ballooned;
use vmm::control::orders::Orders;
use vmm::control::routes::{self, Answer, Parts};
use vmm::reclaim::owner::Owner;
use vmm::virtio::balloon::Balloon;
use vmm::virtio::mmio::Transport;
use vmm_sys_util::eventfd::EventFd;

thread_local! {
    /// A guest without a driver, whose time stands still.
    static GUEST: Arc<Transport<Balloon<Host>>> = {
        let ranges = [(GuestAddress(0), balloon::BLOCK_BYTES as usize)];
        let memory = Arc::new(GuestMemoryMmap::from_ranges(&ranges).unwrap());
        let device = Balloon::with_kernel(Host::probe(), &memory, 0, || 0).unwrap();
        Arc::new(Transport::new(device, memory).unwrap())
    };
}

pub fn run(input: &[u8]) {
    let mut bytes = Bytes(input);
    let cut = usize::from(bytes.u8()) + 1;
    let whole = answers(std::iter::once(bytes.0));
    assert_eq!(answers(bytes.0.chunks(cut)), whole);
    assert_eq!(answers(bytes.0.chunks(1)), whole);
}

/// What a client that sends `pieces` and then half-closes reads.
fn answers<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut connection = Connection::default();
    let mut read = Vec::new();
    for mut piece in pieces {
        while !piece.is_empty() && connection.room() > 0 {
            let (now, later) = piece.split_at(connection.room().min(piece.len()));
            connection.receive(now);
            answer(&mut connection, &mut read);
            piece = later;
        }
    }
    connection.end();
    answer(&mut connection, &mut read);
    assert!(connection.is_over());
    read
}

fn answer(connection: &mut Connection, read: &mut Vec<u8>) {
    let vm = VmDocument {
        name: "vm".into(),
        image: "image".into(),
        kernel_release: "6.1".into(),
        pid: 1,
        cpus: 1,
        memory_bytes: 1 << 30,
        started_at_ms: 0,
        uptime_ms: 0,
        arbiter: None,
    };
    let mut memory = Ballooned::new(GUEST.with(Arc::clone), Vec::new(), EventFd::new(0).unwrap());
    let mut orders = Orders::without_agent(vm.memory_bytes);
    let mut reclaim = Owner::off(vm.memory_bytes);
    loop {
        let request = connection.take_request();
        if let Some(request) = &request {
            let parts =
                Parts { vm: &vm, memory: &mut memory, orders: &mut orders, reclaim: &mut reclaim, now_ms: 0 };
            match routes::route(request, parts) {
                Answer::Now(response) => connection.answer(&response),
                // A trim waits for a reading before it finds that there is no agent.
                Answer::Later(_) => connection.answer(&error(Status::GuestTimeout, "nobody answers")),
                // Who gets one talks no HTTP any longer.
                Answer::Link => connection.answer(&error(Status::Unavailable, "no link")),
                Answer::Command(_) => connection.answer(&error(Status::Unavailable, "no commands")),
                Answer::Statistics => panic!("there is nobody to ask"),
            }
        }
        assert!(connection.outgoing().len() < UNREAD_BYTES + 4096);
        assert!(connection.held_bytes() <= 3 * REQUEST_BYTES);
        check(connection.outgoing());
        read.extend_from_slice(connection.outgoing());
        connection.sent(connection.outgoing().len());
        if request.is_none() {
            return;
        }
    }
}

/// Expects whole responses; the head of one may stand without its content, after HEAD.
fn check(bytes: &[u8]) {
    let mut rest = std::str::from_utf8(bytes).expect("an answer that is no text");
    while !rest.is_empty() {
        assert!(rest.starts_with("HTTP/1.1 "), "{rest}");
        let (head, content) = rest.split_once("\r\n\r\n").expect("a head without an end");
        rest = content;
        if content.starts_with('{') {
            let length = head.split("Content-Length: ").nth(1).expect("a content without a length");
            let length = length.lines().next().and_then(|length| length.parse().ok()).expect("no number");
            let (document, next) = content.split_at(length);
            assert!(document.ends_with("}\n"), "{document}");
            rest = next;
        }
    }
}
