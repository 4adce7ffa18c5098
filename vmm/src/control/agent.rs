//! The guest's agent as the control socket sees it. [`Linked`] is the one behind the link. Wiring.

#![forbid(unsafe_code)]

use super::exec::CommandStream;
use crate::link::{Link, OrderError, State};
use balloon::control::service::Stream;
use proto::{Capabilities, Done, Order, Piece, Sample};
use std::cell::RefCell;
use std::rc::Rc;
use vmm_sys_util::eventfd::EventFd;

/// Who takes orders. All calls are made on the thread of the event loop and return at once.
pub trait Agent {
    /// Gives an order; its number asks for the answer.
    ///
    /// # Errors
    /// There is no agent that would carry it out.
    fn order(&mut self, order: Order) -> Result<u32, OrderError>;

    /// The answer, once and if it has come.
    fn answer(&mut self, id: u32) -> Option<Done>;

    /// Nobody waits for this answer any longer.
    fn forget(&mut self, id: u32);

    /// Has `order` hold, whatever becomes of those before that nobody waits for any longer: they are carried out one after
    /// the other.
    fn take_back(&mut self, order: Order) {
        match self.order(order) {
            Ok(id) => self.forget(id),
            Err(OrderError::NotRunning) => {}
            Err(error) => {
                log::error!("the guest's agent may still carry out an order that was given up: {error}")
            }
        }
    }

    /// Sends a signal to the workload.
    ///
    /// # Errors
    /// There is none.
    fn signal(&mut self, number: u8) -> Result<(), OrderError>;

    /// How often it is to sample.
    fn pace(&mut self, _sample_ms: u32) {}

    /// The next thing that it told by itself.
    fn news(&mut self) -> Option<News> {
        None
    }

    /// Begins a command beside the workload.
    ///
    /// # Errors
    /// There is no workload, or there are too many commands.
    fn begin(&mut self, spec: Piece) -> Result<Box<dyn Stream>, OrderError>;
}

/// What an agent tells by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// What the guest's kernel can do.
    Capabilities(Capabilities),
    /// A sample, and the boot that it is of.
    Sample([u8; 16], Box<Sample>),
}

/// The agent behind a link.
pub struct Linked {
    /// The link, which [`crate::streams`] carries.
    pub link: Rc<RefCell<Link>>,
    /// Tells it that there is something to send.
    pub ordered: Rc<EventFd>,
}

impl Agent for Linked {
    fn order(&mut self, order: Order) -> Result<u32, OrderError> {
        let id = self.link.borrow_mut().order(order)?;
        // The counter of an eventfd cannot overflow by ones.
        let _ = self.ordered.write(1);
        Ok(id)
    }

    fn answer(&mut self, id: u32) -> Option<Done> {
        self.link.borrow_mut().answer(id)
    }

    fn forget(&mut self, id: u32) {
        self.link.borrow_mut().forget(id);
    }

    fn signal(&mut self, number: u8) -> Result<(), OrderError> {
        let mut link = self.link.borrow_mut();
        if link.state() != State::Running {
            return Err(OrderError::NotRunning);
        }
        link.signal(number);
        let _ = self.ordered.write(1);
        Ok(())
    }

    fn pace(&mut self, sample_ms: u32) {
        self.link.borrow_mut().pace(sample_ms);
        let _ = self.ordered.write(1);
    }

    fn news(&mut self) -> Option<News> {
        let mut link = self.link.borrow_mut();
        if let Some(capabilities) = link.take_capabilities() {
            return Some(News::Capabilities(capabilities));
        }
        link.take_sample().map(|(boot_id, sample)| News::Sample(boot_id, sample))
    }

    fn begin(&mut self, spec: Piece) -> Result<Box<dyn Stream>, OrderError> {
        let id = self.link.borrow_mut().begin_command(spec)?;
        let _ = self.ordered.write(1);
        Ok(Box::new(CommandStream::new(id, Rc::clone(&self.link), Rc::clone(&self.ordered))))
    }
}

/// No agent at all.
pub struct Nobody;

impl Agent for Nobody {
    fn order(&mut self, _: Order) -> Result<u32, OrderError> {
        Err(OrderError::NotRunning)
    }

    fn answer(&mut self, _: u32) -> Option<Done> {
        None
    }

    fn forget(&mut self, _: u32) {}

    fn signal(&mut self, _: u8) -> Result<(), OrderError> {
        Err(OrderError::NotRunning)
    }

    fn begin(&mut self, _: Piece) -> Result<Box<dyn Stream>, OrderError> {
        Err(OrderError::NotRunning)
    }
}
