//! Clients of a microVM's control socket that never rest while its guest is hostile: each answer must be one that
//! the moment allows.

use crate::control::ask;
use balloon::device::RequestError;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use vmm::virtio::balloon::Refusal;

/// Between two requests, so that the guest and the VMM get their turns of few CPUs.
const REST: Duration = Duration::from_millis(2);

/// How often a refusal may meet a driver that was gone for just that moment.
const TRIES: u32 = 64;

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
    let content = format!("{{\"bytes\":{ceiling}}}");
    match &*status_of(socket, "PUT", "/v1/memory/ceiling", &content, has_driver(&memory)) {
        "200" => assert!(ceiling <= size, "a ceiling of {ceiling} was taken"),
        "409" => {}
        // What the driver said first of its use may have raised the floor.
        "422" => {
            assert!(ceiling > size || memory_of(socket)["floor_bytes"].as_u64().unwrap() > ceiling)
        }
        status => panic!("a ceiling of {ceiling}: {status}"),
    }
}

/// Asks for statistics, which the guest may have or not.
fn statistics(socket: &Path, _round: u64) {
    let status = status_of(socket, "GET", "/v1/statistics", "", true);
    assert!(matches!(&*status, "200" | "409" | "504"), "statistics: {status}");
}

/// The status of an answer. Who is refused for want of a driver must have found none just before or after; `had_driver`
/// says what was found last. A driver may come and go between two looks, but not each time.
fn status_of(socket: &Path, method: &str, path: &str, content: &str, mut had_driver: bool) -> String {
    let want = [RequestError::NoDriver.to_string(), Refusal::Broken.to_string()];
    for _ in 0..TRIES {
        let (head, answer) = ask(socket, method, path, content).unwrap();
        let status = head.split(' ').nth(1).unwrap();
        if status != "409" || !want.iter().any(|words| answer.contains(words)) {
            return status.into();
        }
        let has_driver = has_driver(&memory_of(socket));
        if !had_driver || !has_driver {
            return status.into();
        }
        had_driver = has_driver;
    }
    panic!("{method} {path}: {TRIES} times refused for want of a driver that was there");
}

/// Whether there is a driver that has not broken its device.
fn has_driver(memory: &Value) -> bool {
    !matches!(memory["driver"].as_str().unwrap(), "absent" | "broken")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;

    /// A control socket that refuses all that takes a driver for want of one, and says that there is one in this state.
    fn refusing_beside(driver: &str) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("control.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let memory = serde_json::json!({
            "size_bytes": 4096, "floor_bytes": 0, "ballooned_bytes": 0, "reported_bytes": 0, "actual_bytes": 0,
            "release_failures": 0, "driver": driver
        });
        thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                let head = BufReader::new(&client).lines().map_while(Result::ok);
                let head: Vec<_> = head.take_while(|line| !line.is_empty()).collect();
                let answer = match head.concat().starts_with("GET /v1/memory ") {
                    true => format!("HTTP/1.1 200 OK\r\n\r\n{memory}"),
                    false => format!("HTTP/1.1 409 Conflict\r\n\r\n{}", RequestError::NoDriver),
                };
                let _ = client.write_all(answer.as_bytes());
            }
        });
        (directory, socket)
    }

    #[test]
    fn a_refusal_for_want_of_a_driver_that_is_there_is_wrong() {
        for work in [memory, statistics] {
            for (driver, is_right) in [("absent", true), ("broken", true), ("settled", false)] {
                let (_directory, socket) = refusing_beside(driver);
                let worked = std::panic::catch_unwind(|| work(&socket, 0));
                assert_eq!(worked.is_ok(), is_right, "{driver}");
            }
        }
    }
}
