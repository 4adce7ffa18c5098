//! Orders of the host: taken one after the other, each carried out by a worker process, so that the workload's
//! streams never wait for the kernel's reclaim. Wiring; what an order does is [`crate::memory`]'s.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};

use proto::{Decoder, Done, MAX_ORDERS, Message, Order, Text, ToHost};

use crate::error::{Error, chain};
use crate::memory::Memory;
use crate::worker;

/// Orders under way.
#[derive(Debug)]
pub struct Orders<'a> {
    memory: Memory<'a>,
    waiting: VecDeque<(u32, Order)>,
    working: Option<Work>,
    /// Answers of orders that were not begun.
    refused: Vec<ToHost>,
}

#[derive(Debug)]
struct Work {
    id: u32,
    words: File,
    heard: Vec<u8>,
}

impl<'a> Orders<'a> {
    /// For the workload whose memory this is.
    pub const fn new(memory: Memory<'a>) -> Self {
        Self { memory, waiting: VecDeque::new(), working: None, refused: Vec::new() }
    }

    /// Takes an order, or refuses it.
    pub fn take(&mut self, id: u32, order: Order) {
        let taken = self.waiting.len() + usize::from(self.working.is_some());
        if taken < MAX_ORDERS {
            self.waiting.push_back((id, order));
        } else {
            self.refuse(id, &Error::new(format!("{taken} orders are under way: wait for their answers")));
        }
    }

    /// Forgets what was not begun: the workload has ended.
    pub fn abandon(&mut self) {
        self.waiting.clear();
    }

    /// Begins the next one if there is none under way, shows it to `before` first, and returns where its answer will come
    /// from.
    pub fn begin(&mut self, mut before: impl FnMut(&Order)) -> Option<BorrowedFd<'_>> {
        if self.working.is_some() {
            return None;
        }
        while let Some((id, order)) = self.waiting.pop_front() {
            before(&order);
            match worker::start(|| encode(id, self.memory.obey(order))) {
                Ok(words) => {
                    let work = self.working.insert(Work { id, words, heard: Vec::new() });
                    return Some(work.words.as_fd());
                }
                Err(error) => {
                    self.refuse(id, &Error::new(format!("making a process for the order: {error}")))
                }
            }
        }
        None
    }

    /// Whether one is being carried out.
    pub const fn are_under_way(&self) -> bool {
        self.working.is_some()
    }

    /// What can be told to the host.
    pub fn answers(&mut self) -> Vec<ToHost> {
        let mut answers = std::mem::take(&mut self.refused);
        if let Some(answer) = self.working.as_mut().and_then(Work::listen) {
            self.working = None;
            answers.push(answer);
        }
        answers
    }

    fn refuse(&mut self, id: u32, why: &Error) {
        self.refused.push(refusal(id, why));
    }
}

impl Work {
    /// The answer, once it has come or cannot come any more.
    fn listen(&mut self) -> Option<ToHost> {
        let mut buffer = [0; 4096];
        loop {
            match self.words.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => self.heard.extend_from_slice(buffer.get(..n).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        let answer = Decoder::new().next(&mut self.heard.as_slice()).ok().flatten();
        Some(
            answer.unwrap_or_else(|| {
                refusal(self.id, &Error::new("the process that carried it out was killed"))
            }),
        )
    }
}

fn encode(id: u32, done: Result<Done, Error>) -> Vec<u8> {
    let answer = match done {
        Ok(done) => ToHost::Done { id, done },
        Err(error) => refusal(id, &error),
    };
    let mut frame = Vec::new();
    answer.encode(&mut frame);
    frame
}

fn refusal(id: u32, why: &Error) -> ToHost {
    ToHost::Done { id, done: Done::Refused(Text::new(&chain(why))) }
}
