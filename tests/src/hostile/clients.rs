//! Clients of a microVM's control socket that never rest while its guest is hostile: each answer must be one that
//! the moment allows.

use crate::control::ask;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Between two requests, so that the guest and the VMM get their turns of few CPUs.
const REST: Duration = Duration::from_millis(2);

/// The clients of one control socket.
pub struct Clients {
    over: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Clients {
    /// Starts them: one reads the books and moves the ceiling, one asks for statistics.
    #[must_use]
    pub fn start(socket: &Path) -> Self {
        let (over, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let works: [fn(&Path, u64); 2] = [memory, statistics];
        let threads = works.map(|work| {
            let (over, answers, socket) = (Arc::clone(&over), Arc::clone(&answers), PathBuf::from(socket));
            thread::spawn(move || {
                for round in 0.. {
                    work(&socket, round);
                    answers.fetch_add(1, Ordering::Relaxed);
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    thread::sleep(REST);
                }
            })
        });
        Self { over, answers, threads: threads.into() }
    }

    /// Whether none has met an answer that it should not have got.
    #[must_use]
    pub fn are_content(&self) -> bool {
        self.threads.iter().all(|thread| !thread.is_finished())
    }

    /// How often they were answered.
    #[must_use]
    pub fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// Lets them end; panics if one was answered wrongly.
    pub fn end(self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("a client of the control socket was answered wrongly");
        }
    }
}

/// What `GET /v1/memory` says.
#[must_use]
pub fn memory_of(socket: &Path) -> Value {
    let (head, content) = ask(socket, "GET", "/v1/memory", "").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    serde_json::from_str(&content).unwrap()
}

/// Reads the books, which add up, and sets a ceiling: a good one is taken if there is a driver, a bad one never.
fn memory(socket: &Path, round: u64) {
    let memory = memory_of(socket);
    let bytes = |name: &str| memory[name].as_u64().unwrap();
    let (size, floor) = (bytes("size_bytes"), bytes("floor_bytes"));
    assert!(bytes("ballooned_bytes") + bytes("reported_bytes") <= size, "{memory}");
    assert!(bytes("actual_bytes") <= size && memory["release_failures"] == 0, "{memory}");
    let ceiling = match round % 4 {
        0 => size,
        1 => size - (round % 64) * balloon::PAGE_BYTES,
        2 => floor,
        _ => size + 1,
    };
    let (head, _) = ask(socket, "PUT", "/v1/memory/ceiling", &format!("{{\"bytes\":{ceiling}}}")).unwrap();
    match head.split(' ').nth(1) {
        Some("200") => assert!(ceiling <= size, "a ceiling of {ceiling} was taken"),
        // The guest's driver has gone, or what it said first of its use has raised the floor.
        Some("409") => {}
        Some("422") => {
            assert!(ceiling > size || memory_of(socket)["floor_bytes"].as_u64().unwrap() > ceiling)
        }
        _ => panic!("a ceiling of {ceiling}: {head}"),
    }
}

/// Asks for statistics, which the guest may have or not.
fn statistics(socket: &Path, _round: u64) {
    let (head, _) = ask(socket, "GET", "/v1/statistics", "").unwrap();
    let status = head.split(' ').nth(1).unwrap();
    assert!(matches!(status, "200" | "409" | "504"), "statistics: {head}");
}
