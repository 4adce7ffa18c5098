//! Orders to an agent that answers as the test says, of a microVM whose host does so, too.

use super::agent::Agent;
use super::exec;
use super::limits::Held;
use super::memory::Memory;
use super::orders::Orders;
use super::routes::Answer;
use super::scripted::{Scripted, route_at};
use crate::link::OrderError;
use balloon::control::http::{Options, Request, Response};
use balloon::control::service::Stream;
use balloon::zone::Limits;
use proto::{Done, Order, Piece, Stopped, Text, Trimmed};
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

pub const MIB: u64 = 1 << 20;
pub const SIZE: u64 = 512 * MIB;
pub const TRIMMED: Trimmed = Trimmed {
    reclaimed_bytes: 100 * MIB,
    file_bytes: 0,
    anonymous_bytes: 40 * MIB,
    stopped: Stopped::NoSwap,
};

/// An agent without a guest.
#[derive(Debug, Default)]
pub struct Guest {
    pub given: Vec<Order>,
    answers: BTreeMap<u32, Done>,
    pub forgotten: Vec<u32>,
    pub signals: Vec<u8>,
    pub absent: bool,
}

#[derive(Clone, Default)]
struct ScriptedAgent(Rc<RefCell<Guest>>);

impl Agent for ScriptedAgent {
    fn order(&mut self, order: Order) -> Result<u32, OrderError> {
        let mut guest = self.0.borrow_mut();
        if guest.absent {
            return Err(OrderError::NotRunning);
        }
        guest.given.push(order);
        Ok(guest.given.len() as u32)
    }

    fn answer(&mut self, id: u32) -> Option<Done> {
        self.0.borrow_mut().answers.remove(&id)
    }

    fn forget(&mut self, id: u32) {
        self.0.borrow_mut().forgotten.push(id);
    }

    fn signal(&mut self, number: u8) -> Result<(), OrderError> {
        let mut guest = self.0.borrow_mut();
        if guest.absent {
            return Err(OrderError::NotRunning);
        }
        guest.signals.push(number);
        Ok(())
    }

    fn begin(&mut self, _: Piece) -> Result<Box<dyn Stream>, OrderError> {
        Err(if self.0.borrow().absent { OrderError::NotRunning } else { OrderError::Busy })
    }
}

/// A microVM whose agent and host are the test's.
pub struct Bench {
    pub guest: Rc<RefCell<Guest>>,
    pub memory: Scripted,
    pub orders: Orders,
    now_ms: u64,
    pub host_refuses: Rc<Cell<bool>>,
    pub host_max: Rc<Cell<u64>>,
}

impl Bench {
    pub fn new() -> Self {
        let agent = ScriptedAgent::default();
        let (host_refuses, host_max) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(SIZE)));
        let (refuses, max) = (Rc::clone(&host_refuses), Rc::clone(&host_max));
        let host_limit = Box::new(move |bytes| {
            if refuses.get() {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            max.set(bytes);
            Ok(())
        });
        let guest = Rc::clone(&agent.0);
        let orders = Orders::new(Box::new(agent), Held::new(Limits::default(), SIZE), host_limit);
        Self { guest, memory: Scripted::new(), orders, now_ms: 10_000, host_refuses, host_max }
    }

    pub fn begin(
        &mut self,
        method: &str,
        path: &str,
        body: &str,
        if_match: Option<&str>,
    ) -> Result<Response, u64> {
        // Without a content nothing is asked of /v1/exec, in the wrong way.
        let upgrade = (path == "/v1/exec" && !body.is_empty()).then(|| exec::PROTOCOL.into());
        let options = Options { if_match: if_match.map(Into::into), upgrade, ..Options::default() };
        let request = Request { options, ..Request::new(method, path, body.as_bytes()) };
        let answer = route_at(&request, &mut self.memory, &mut self.orders, self.now_ms);
        self.promise();
        match answer {
            Answer::Now(response) => Ok(response),
            Answer::Later(ticket) => Err(ticket),
            Answer::Command(spec) => Ok(self.orders.begin_command(spec).err().unwrap()),
            Answer::Statistics | Answer::Link => panic!("nobody asked for that"),
        }
    }

    /// The agent's answer to the order given last.
    pub fn answers(&mut self, done: Done) {
        let mut guest = self.guest.borrow_mut();
        let id = guest.given.len() as u32;
        guest.answers.insert(id, done);
    }

    pub fn pass(&mut self, ms: u64) {
        for _ in 0..ms / 250 {
            self.now_ms += 250;
            self.orders.advance(self.now_ms, &mut self.memory);
            self.promise();
        }
    }

    /// As the service does.
    fn promise(&mut self) {
        self.memory.set_min(self.orders.limits_in_force().min.unwrap_or(0));
    }

    pub fn take(&mut self, ticket: u64) -> Option<(u16, Value)> {
        let response = self.orders.take(ticket)?;
        Some((response.status.code(), serde_json::from_slice(&response.body).unwrap()))
    }

    /// Asks, lets time pass, and has the agent answer as `does` says.
    pub fn ask(&mut self, method: &str, path: &str, body: &str, does: Option<Done>) -> (u16, Value) {
        match self.begin(method, path, body, None) {
            Ok(response) => (response.status.code(), serde_json::from_slice(&response.body).unwrap()),
            Err(ticket) => {
                // What needs a reading first gives its order later.
                self.pass(3000);
                if let Some(done) = does {
                    self.answers(done);
                }
                for _ in 0..1000 {
                    self.pass(250);
                    if let Some(answer) = self.take(ticket) {
                        return answer;
                    }
                }
                panic!("{method} {path} has no answer after 250 s")
            }
        }
    }

    pub fn limits(&mut self) -> Value {
        self.ask("GET", "/v1/limits", "", None).1
    }
}

pub fn limited() -> Done {
    Done::Limited { max_bytes: Some(1), current_bytes: 1 }
}

pub fn refused() -> Done {
    Done::Refused(Text::new("the workload uses more"))
}

pub fn max(mib: u64) -> String {
    json!({ "max_bytes": mib * MIB }).to_string()
}
