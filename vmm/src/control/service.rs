//! The microVM behind its control socket. Wiring: what requests mean is [`routes`]', when they came is known here.

use super::agent::{Agent, Nobody};
use super::arbiter::{Arbiter, Link};
use super::exec;
use super::memory::Memory;
use super::orders::{self, Orders};
use super::routes::{self, Parts, STATISTICS};
use super::ticks::Ticks;
use crate::reclaim::host::Files;
use crate::reclaim::owner::{Owner, Sides};
use crate::virtio::balloon::monotonic_ms;
use balloon::control::api::VmDocument;
use balloon::control::http::{Request, Response};
use balloon::control::link::{self, Hello};
use balloon::control::service::{Answer, Service};
use balloon::wall_clock;
use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};
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
    orders: Orders,
    ticks: Option<Ticks>,
    reclaim: Owner,
    /// Where the law's orders go and its samples come from.
    agent: Box<dyn Agent>,
    host: Files,
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
        let orders = Orders::without_agent(vm.memory_bytes);
        let reclaim = Owner::off(vm.memory_bytes);
        let vm = VmDocument { started_at_ms: wall_clock::ms_since_1970(), ..vm };
        let memory = Rc::new(RefCell::new(memory));
        let arbiter = Rc::new(RefCell::new(Arbiter::new(hello)));
        Ok(Self {
            vm,
            started: Instant::now(),
            memory,
            arbiter,
            event,
            guest_limit,
            orders,
            ticks: None,
            reclaim,
            agent: Box::new(Nobody),
            host: Files::default(),
        })
    }

    /// The same with an agent that takes orders, and a clock whose ticks make the memory's event readable.
    #[must_use]
    pub fn with_agent(self, orders: Orders, ticks: Ticks) -> Self {
        Self { orders, ticks: Some(ticks), ..self }
    }

    /// The same under a reclaim law, which has `agent` do what it decides and looks at the host through `host`.
    #[must_use]
    pub fn with_reclaim(self, reclaim: Owner, agent: Box<dyn Agent>, host: Files) -> Self {
        Self { reclaim, agent, host, ..self }
    }

    /// What the daemon says and hears.
    #[must_use]
    pub fn arbiter(&self) -> Rc<RefCell<Arbiter>> {
        Rc::clone(&self.arbiter)
    }

    fn reclaim(&mut self) {
        let lease = self.arbiter.borrow().document(Instant::now());
        let mut memory = self.memory.borrow_mut();
        let mut sides = Sides {
            agent: &mut *self.agent,
            memory: &mut **memory,
            host: self.host.read(),
            max_bytes: self.orders.max_bytes(),
            high_bytes: self.orders.limits_in_force().high,
            envelope: lease.as_ref().map(|lease| &lease.envelope),
        };
        let now_ms = monotonic_ms();
        self.reclaim.advance(now_ms, &mut sides);
        self.arbiter.borrow_mut().set_offer(self.reclaim.offer(now_ms), self.reclaim.usage(now_ms));
    }

    fn look_after_orders(&self) {
        // A daemon that comes later hears what holds then.
        let limits = self.orders.limits_in_force();
        self.arbiter.borrow_mut().set_limits(limits);
        self.memory.borrow_mut().set_min(limits.min.unwrap_or(0));
        if let Some(ticks) = &self.ticks {
            ticks.set(self.orders.pace());
        }
    }
}

impl Service for MicroVm {
    fn serve(&mut self, request: &Request) -> Answer {
        self.vm.uptime_ms = millis(self.started.elapsed());
        self.vm.arbiter = self.arbiter.borrow().document(Instant::now());
        let Self { vm, memory, orders, reclaim, .. } = self;
        let answer = {
            let memory = &mut **memory.borrow_mut();
            routes::route(request, Parts { vm, memory, orders, reclaim, now_ms: monotonic_ms() })
        };
        self.look_after_orders();
        let orders = &mut self.orders;
        match answer {
            routes::Answer::Now(response) => Answer::Now(response),
            routes::Answer::Link => {
                let link = Link::open(&self.arbiter, &self.memory);
                Answer::Upgrade(Response::upgrade(link::PROTOCOL), Box::new(link))
            }
            routes::Answer::Command(spec) => match orders.begin_command(spec) {
                Ok(stream) => Answer::Upgrade(Response::upgrade(exec::PROTOCOL), stream),
                Err(refusal) => Answer::Now(refusal),
            },
            routes::Answer::Statistics => Answer::Later { ticket: STATISTICS, limit: self.guest_limit },
            routes::Answer::Later(ticket) => Answer::Later { ticket, limit: orders::LIMIT },
        }
    }

    fn advance(&mut self) {
        self.orders.advance(monotonic_ms(), &mut **self.memory.borrow_mut());
        self.memory.borrow_mut().page_out_on();
        self.look_after_orders();
        self.reclaim();
    }

    fn settle(&mut self, ticket: u64) -> Option<Response> {
        match ticket {
            STATISTICS => {
                let mut memory = self.memory.borrow_mut();
                (!memory.statistics_pending()).then(|| routes::statistics(&mut **memory))
            }
            ticket => self.orders.take(ticket),
        }
    }

    fn give_up(&mut self, ticket: u64) -> Response {
        match ticket {
            STATISTICS => routes::statistics(&mut **self.memory.borrow_mut()),
            ticket => self.orders.give_up(ticket),
        }
    }

    fn event(&self) -> Option<&EventFd> {
        self.event.as_ref()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
