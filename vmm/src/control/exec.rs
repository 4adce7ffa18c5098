//! `POST /v1/exec`: what is asked for, and the stream that it becomes, one client's end of a command beside the workload.
//! Wiring: frames in and out; what they may say is [`crate::commands`]'.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]

use super::memory::Memory;
use super::orders;
use super::routes::Answer;
use crate::link::Link;
use balloon::control::http::{Request, Status};
use balloon::control::orders::{ExecRequest, TerminalSize};
use balloon::control::service::{Stream, error};
use proto::{CommandSpec, Decoder, MAX_PIECE, Piece, ToCommand, WINDOW, WindowSize};
use std::cell::RefCell;
use std::ffi::CString;
use std::rc::Rc;
use vmm_sys_util::eventfd::EventFd;

/// What the connection is upgraded to.
pub const PROTOCOL: &str = "ballast-exec/1";
/// Bytes taken of a client at once. Where they cannot be passed on they are not taken.
const ROOM: usize = 16 << 10;
/// A client that leaves so much unread is not listened to: what it is granted for what it says would pile up.
const UNREAD: usize = 2 * WINDOW as usize;

/// `POST /v1/exec`: the command that is asked for, or the refusal.
pub fn begin(request: &Request, memory: &mut dyn Memory) -> Answer {
    if request.options.upgrade.as_deref() != Some(PROTOCOL) {
        let words = format!("/v1/exec takes an Upgrade to {PROTOCOL}");
        return Answer::Now(error(Status::UpgradeRequired, words).with("Upgrade", PROTOCOL));
    }
    let wanted: ExecRequest = match orders::parse(&request.body, r#"send {"args": ["sh"]}"#) {
        Ok(wanted) => wanted,
        Err(answer) => return answer,
    };
    let zone = match wanted.zone.clone().map(|name| orders::find(memory, name)).transpose() {
        Ok(zone) => zone.map(|(number, _)| number),
        Err(answer) => return answer,
    };
    match specify(wanted, zone) {
        Some(spec) => Answer::Command(spec),
        None => Answer::Now(error(
            Status::BadRequest,
            format!(
                "a command has a program, an absolute cwd, variables with names, no zero bytes, and {} KiB in all",
                MAX_PIECE >> 10
            ),
        )),
    }
}

/// The command as the agent takes it, if it does.
fn specify(wanted: ExecRequest, zone: Option<u8>) -> Option<Piece> {
    let strings =
        |texts: Vec<String>| texts.into_iter().map(CString::new).collect::<Result<Vec<_>, _>>().ok();
    let spec = CommandSpec {
        args: strings(wanted.args)?,
        env: strings(wanted.env)?,
        cwd: CString::new(wanted.cwd.unwrap_or_default()).ok()?,
        user: wanted.user.unwrap_or_default(),
        tty: wanted.tty.map(|TerminalSize { rows, cols }| WindowSize { rows, cols }),
        zone,
    };
    spec.encode().ok()
}

/// The stream.
pub struct CommandStream {
    id: u32,
    link: Rc<RefCell<Link>>,
    ordered: Rc<EventFd>,
    decoder: Decoder<ToCommand>,
    outgoing: Vec<u8>,
    ended: bool,
}

impl CommandStream {
    /// That of command `id` of `link`, which carries more when `ordered` is written.
    #[must_use]
    pub fn new(id: u32, link: Rc<RefCell<Link>>, ordered: Rc<EventFd>) -> Self {
        Self { id, link, ordered, decoder: Decoder::new(), outgoing: Vec::new(), ended: false }
    }

    fn carry(&self) {
        // The counter of an eventfd cannot overflow by ones.
        let _ = self.ordered.write(1);
    }
}

impl Stream for CommandStream {
    fn room(&self) -> usize {
        let waits = self.outgoing.len() > UNREAD || self.link.borrow_mut().is_crowded();
        if self.ended || waits { 0 } else { ROOM }
    }

    fn receive(&mut self, mut bytes: &[u8]) {
        while !self.ended {
            match self.decoder.next(&mut bytes) {
                Ok(None) => break,
                Ok(Some(message)) => {
                    self.ended |= self.link.borrow_mut().tell_command(self.id, message).is_err()
                }
                Err(error) => {
                    log::info!("a client of a command is not understood: {error}");
                    self.ended = true;
                }
            }
        }
        self.carry();
    }

    fn end(&mut self) {
        self.ended = true;
    }

    fn advance(&mut self) {
        let mut link = self.link.borrow_mut();
        self.outgoing.append(&mut link.take_from_command(self.id));
    }

    fn outgoing(&self) -> &[u8] {
        if self.ended { &[] } else { &self.outgoing }
    }

    fn sent(&mut self, bytes: usize) {
        self.outgoing.drain(..bytes.min(self.outgoing.len()));
    }

    fn is_over(&self) -> bool {
        self.ended || self.link.borrow().is_command_over(self.id)
    }
}

impl Drop for CommandStream {
    fn drop(&mut self) {
        self.link.borrow_mut().end_command(self.id);
        self.carry();
    }
}
