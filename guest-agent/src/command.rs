//! One command beside the workload, with streams of its own, an end of its own, and a share of the link that its credit
//! bounds. Wiring; what is said is [`proto::ToCommand`]'s and [`proto::FromCommand`]'s.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use proto::{ExitStatus, FailureKind, FromCommand, OutputStream, Piece, Text, ToCommand, ToHost, WINDOW};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::process::Pid;

use crate::error::{Error, chain};
use crate::link::Link;
use crate::signals;
use crate::stdio::{AgentEnds, Stream, Terminal};
use crate::workload::Failure;

/// Bytes read from an output at once.
const READ_BYTES: usize = 16 * 1024;
/// Reads of one command's outputs before others have their turn.
const BUDGET: u32 = 8;
/// Input that was consumed is told of in so large pieces, unless there is no more.
const CREDIT_BYTES: u32 = WINDOW / 4;
/// After a command's end so much of its output is still taken: what a pipe and a terminal hold. What processes that it
/// left behind go on to write is nobody's.
const LAST_BYTES: usize = 128 * 1024;
/// What a process wrote to its terminal before it ended may come a moment later, and behind it the end: unless a process that
/// it left behind keeps the terminal, for which nobody waits any longer.
const LINGERS: Duration = Duration::from_millis(500);

/// One command.
#[derive(Debug)]
pub struct Command {
    /// Its number.
    pub id: u32,
    /// Its process.
    pub pid: Pid,
    /// Its start is being waited for: where its failure is told, and what of that has come.
    starting: Option<(File, Vec<u8>)>,
    terminal: Option<Terminal>,
    input: Option<Stream>,
    pending: VecDeque<u8>,
    input_ends: bool,
    /// Of what is pending nothing came from the host any more: the end of the input was typed.
    end_is_typed: bool,
    last_input: Option<u8>,
    /// Input done with that the host was not told of.
    consumed: u32,
    outputs: Vec<(OutputStream, Option<Stream>)>,
    /// Bytes of output that may be sent.
    credit: u32,
    status: Option<ExitStatus>,
    /// Until when the terminal is listened to after that.
    lingers_until: Option<Instant>,
    last_bytes: usize,
}

/// What became of a command's turn.
pub enum Turn {
    /// Nothing can be moved now.
    Waits,
    /// There may be more to move at once.
    More,
    /// It has said its last word.
    Over,
}

impl Command {
    /// The command `id`, whose process is being started and says in `report` what fails.
    pub fn new(id: u32, pid: Pid, report: File, ends: AgentEnds) -> Self {
        let (terminal, input, outputs) = match ends {
            AgentEnds::Terminal(terminal) => {
                let (input, output) = (terminal.stream(), terminal.stream());
                (Some(terminal), input, vec![(OutputStream::Stdout, Some(output))])
            }
            AgentEnds::Pipes { stdin, stdout, stderr } => {
                let outputs =
                    vec![(OutputStream::Stdout, Some(stdout)), (OutputStream::Stderr, Some(stderr))];
                (None, stdin, outputs)
            }
        };
        Self {
            id,
            pid,
            starting: Some((report, Vec::new())),
            terminal,
            input: Some(input),
            pending: VecDeque::new(),
            input_ends: false,
            end_is_typed: false,
            last_input: None,
            consumed: 0,
            outputs,
            credit: WINDOW,
            status: None,
            lingers_until: None,
            last_bytes: LAST_BYTES,
        }
    }

    /// Has `epoll` say `token` when there is something to do.
    pub fn watch(&self, epoll: &OwnedFd, token: u64) -> Result<(), Error> {
        let add = |fd: BorrowedFd<'_>, flags| {
            epoll::add(epoll, fd, EventData::new_u64(token), flags | EventFlags::ET)
                .map_err(|errno| Error::new(format!("watching a command: {errno}")))
        };
        if let Some((report, _)) = &self.starting {
            add(report.as_fd(), EventFlags::IN)?;
        }
        if let Some(terminal) = &self.terminal {
            return add(terminal.stream().as_fd(), EventFlags::IN | EventFlags::OUT);
        }
        if let Some(input) = &self.input {
            add(input.as_fd(), EventFlags::OUT)?;
        }
        self.outputs
            .iter()
            .filter_map(|(_, output)| output.as_ref())
            .try_for_each(|output| add(output.as_fd(), EventFlags::IN))
    }

    /// Takes what its client says.
    pub fn take(&mut self, message: ToCommand) {
        match message {
            ToCommand::Input(piece) => {
                let room = usize::try_from(WINDOW).unwrap_or(0).saturating_sub(self.pending.len());
                // The VMM lets nothing pass that was not granted.
                self.pending.extend(piece.as_bytes().iter().take(room));
            }
            ToCommand::InputEnd => self.input_ends = true,
            ToCommand::Resize(size) => {
                if let Some(terminal) = &self.terminal {
                    // The terminal is there; a size it does not like changes nothing.
                    let _ = terminal.resize(size);
                }
            }
            ToCommand::Signal { number } => {
                if self.status.is_none() {
                    // It cannot be gone: it is not reaped yet.
                    let _ = signals::send(self.pid, number);
                }
            }
            ToCommand::Credit { bytes } => self.credit = self.credit.saturating_add(bytes).min(WINDOW),
        }
    }

    /// Kills it, with the processes of its group.
    pub fn kill(self) {
        if self.status.is_none() {
            signals::kill_group(self.pid);
        }
    }

    /// Whether its process has ended; what that wrote may still be on its way.
    pub const fn has_ended(&self) -> bool {
        self.status.is_some()
    }

    /// Its process has ended.
    pub fn ended(&mut self, status: ExitStatus) {
        self.status = Some(status);
        if let Some(terminal) = &mut self.terminal {
            terminal.let_go();
            self.lingers_until = Some(Instant::now() + LINGERS);
        }
    }

    /// How long until it is to be run again though nothing is ready.
    pub fn wait(&self) -> Option<Duration> {
        // Without credit it waits for its client.
        let until = self.lingers_until.filter(|_| self.credit > 0)?;
        // One tick more, so that the time has come after it.
        Some(until.saturating_duration_since(Instant::now()) + Duration::from_millis(1))
    }

    /// Moves what can be moved.
    pub fn run(&mut self, link: &mut Link) -> Turn {
        if let Some(turn) = self.wait_for_start(link) {
            return turn;
        }
        self.feed(link);
        let (mut drained, mut more) = (true, false);
        for number in 0..self.outputs.len() {
            match self.drain(number, link) {
                Drained::Empty => {}
                Drained::Waits => drained = false,
                Drained::More => (drained, more) = (false, true),
            }
        }
        match self.status {
            Some(status) if drained => {
                say(link, self.id, FromCommand::Exited { status });
                Turn::Over
            }
            _ if more => Turn::More,
            _ => Turn::Waits,
        }
    }

    /// `None` once it runs.
    fn wait_for_start(&mut self, link: &mut Link) -> Option<Turn> {
        let (report, words) = self.starting.as_mut()?;
        let mut buffer = [0; 4096];
        loop {
            match report.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => words.extend_from_slice(buffer.get(..n).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Some(Turn::Waits),
                Err(_) => break,
            }
        }
        let failure = Failure::from_report(words);
        self.starting = None;
        if let Some(Failure { kind, error }) = failure {
            fail(link, self.id, kind, &error);
            return Some(Turn::Over);
        }
        say(link, self.id, FromCommand::Started { pid: self.pid.as_raw_nonzero().get().unsigned_abs() });
        None
    }

    /// Writes input.
    fn feed(&mut self, link: &mut Link) {
        while !self.pending.is_empty() {
            let Some(input) = &mut self.input else {
                // Input that nobody reads is taken from its writer all the same.
                self.consume(self.pending.len());
                continue;
            };
            match input.write(self.pending.as_slices().0) {
                Ok(n @ 1..) => self.consume(n),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                _ => self.input = None,
            }
        }
        if self.pending.is_empty() && self.input_ends {
            match &self.terminal {
                Some(terminal) => {
                    self.pending.extend(terminal.end_of_input(self.last_input));
                    self.end_is_typed = true;
                }
                None => self.input = None,
            }
            self.input_ends = false;
            return self.feed(link);
        }
        if self.consumed >= CREDIT_BYTES || (self.consumed > 0 && self.pending.is_empty()) {
            say(link, self.id, FromCommand::Credit { bytes: std::mem::take(&mut self.consumed) });
        }
    }

    fn consume(&mut self, bytes: usize) {
        let mut taken = self.pending.drain(..bytes.min(self.pending.len()));
        self.last_input = taken.next_back().or(self.last_input);
        if !self.end_is_typed {
            self.consumed = self.consumed.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        }
    }

    fn drain(&mut self, number: usize, link: &mut Link) -> Drained {
        let Some((stream, output)) = self.outputs.get_mut(number) else { return Drained::Empty };
        for _ in 0..BUDGET {
            let Some(source) = output else { return Drained::Empty };
            if self.status.is_some() && self.last_bytes == 0 {
                *output = None;
                continue;
            }
            if self.credit == 0 {
                return Drained::Waits;
            }
            let mut buffer = [0; READ_BYTES];
            let room = READ_BYTES.min(usize::try_from(self.credit).unwrap_or(READ_BYTES));
            match source.read(buffer.get_mut(..room).unwrap_or_default()) {
                Ok(0) => *output = None,
                Ok(n) => {
                    let Some(piece) = Piece::new(buffer.get(..n).unwrap_or_default()) else {
                        return Drained::Waits;
                    };
                    self.credit = self.credit.saturating_sub(piece.count());
                    if self.status.is_some() {
                        self.last_bytes = self.last_bytes.saturating_sub(n);
                    }
                    say(link, self.id, FromCommand::Output { stream: *stream, piece });
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let lingers = self.lingers_until.is_some_and(|until| Instant::now() < until);
                    return if lingers { Drained::Waits } else { Drained::Empty };
                }
                Err(_) => *output = None,
            }
        }
        Drained::More
    }
}

enum Drained {
    /// There is nothing in it now.
    Empty,
    /// There may be something, and no credit for it.
    Waits,
    /// There may be more at once.
    More,
}

fn say(link: &mut Link, id: u32, message: FromCommand) {
    link.send(&ToHost::Command { id, message });
}

/// Says that a command could not be started.
pub fn fail(link: &mut Link, id: u32, kind: FailureKind, error: &Error) {
    say(link, id, FromCommand::Failed { kind, message: Text::new(&chain(error)) });
}
