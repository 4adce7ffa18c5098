//! The microVM behind its control socket. Wiring: what requests mean is [`routes`]', when they came is known here.

use super::arbiter::{Arbiter, Link};
use super::memory::Memory;
use super::routes::{self, STATISTICS};
use balloon::control::api::VmDocument;
use balloon::control::http::{Request, Response};
use balloon::control::link::{self, Hello};
use balloon::control::service::{Answer, Service};
use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};
use vmm_sys_util::eventfd::EventFd;

/// One microVM.
pub struct MicroVm {
    vm: VmDocument,
    started: Instant,
    memory: Rc<RefCell<Box<dyn Memory>>>,
    arbiter: Rc<RefCell<Arbiter>>,
    /// The memory's own.
    event: Option<EventFd>,
    /// How long the guest may take to answer.
    guest_limit: Duration,
}

impl MicroVm {
    /// `vm`, whose times are set here, and which says `hello` to the daemon. After `guest_limit` a guest that was asked
    /// for statistics has not answered.
    ///
    /// # Errors
    /// The host has no more descriptors.
    pub fn new(
        vm: VmDocument,
        hello: Hello,
        memory: Box<dyn Memory>,
        guest_limit: Duration,
    ) -> io::Result<Self> {
        let event = memory.statistics_event().map(EventFd::try_clone).transpose()?;
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let vm = VmDocument { started_at_ms: millis(since_1970), ..vm };
        let memory = Rc::new(RefCell::new(memory));
        let arbiter = Rc::new(RefCell::new(Arbiter::new(hello)));
        Ok(Self { vm, started: Instant::now(), memory, arbiter, event, guest_limit })
    }
}

impl Service for MicroVm {
    fn serve(&mut self, request: &Request) -> Answer {
        self.vm.uptime_ms = millis(self.started.elapsed());
        self.vm.arbiter = self.arbiter.borrow().document(Instant::now());
        match routes::route(request, &self.vm, &mut **self.memory.borrow_mut()) {
            routes::Answer::Now(response) => Answer::Now(response),
            routes::Answer::Link => {
                let link = Link::open(&self.arbiter, &self.memory);
                Answer::Upgrade(Response::upgrade(link::PROTOCOL), Box::new(link))
            }
            routes::Answer::Statistics => Answer::Later { ticket: STATISTICS, limit: self.guest_limit },
        }
    }

    fn settle(&mut self, _ticket: u64) -> Option<Response> {
        let mut memory = self.memory.borrow_mut();
        (!memory.statistics_pending()).then(|| routes::statistics(&mut **memory))
    }

    fn give_up(&mut self, _ticket: u64) -> Response {
        routes::statistics(&mut **self.memory.borrow_mut())
    }

    fn event(&self) -> Option<&EventFd> {
        self.event.as_ref()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
