//! The microVM behind its control socket. Wiring: what requests mean is [`routes`]', when they came is known here.

use super::memory::Memory;
use super::routes::{self, STATISTICS};
use balloon::control::api::VmDocument;
use balloon::control::http::{Request, Response};
use balloon::control::service::{Answer, Service};
use std::time::{Duration, Instant, SystemTime};
use vmm_sys_util::eventfd::EventFd;

/// One microVM.
pub struct MicroVm {
    vm: VmDocument,
    started: Instant,
    memory: Box<dyn Memory>,
    /// How long the guest may take to answer.
    guest_limit: Duration,
}

impl MicroVm {
    /// `vm`, whose times are set here. After `guest_limit` a guest that was asked for statistics has not answered.
    #[must_use]
    pub fn new(vm: VmDocument, memory: Box<dyn Memory>, guest_limit: Duration) -> Self {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let vm = VmDocument { started_at_ms: millis(since_1970), ..vm };
        Self { vm, started: Instant::now(), memory, guest_limit }
    }
}

impl Service for MicroVm {
    fn serve(&mut self, request: &Request) -> Answer {
        self.vm.uptime_ms = millis(self.started.elapsed());
        match routes::route(request, &self.vm, &mut *self.memory) {
            routes::Answer::Now(response) => Answer::Now(response),
            routes::Answer::Statistics => Answer::Later { ticket: STATISTICS, limit: self.guest_limit },
        }
    }

    fn settle(&mut self, _ticket: u64) -> Option<Response> {
        (!self.memory.statistics_pending()).then(|| routes::statistics(&mut *self.memory))
    }

    fn give_up(&mut self, _ticket: u64) -> Response {
        routes::statistics(&mut *self.memory)
    }

    fn event(&self) -> Option<&EventFd> {
        self.memory.statistics_event()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
