//! The event loop's console side: carries bytes between the guest's ports and the host's descriptors, and
//! settles how the run ended. Wiring: the device, the link and the outcome's rules are elsewhere.

mod deadline;
mod ends;
mod events;
mod sinks;
mod start_limit;

pub use ends::{HostEnds, OrderEvents, send_report};

use crate::ending::{Ending, Exit};
use crate::link::{Event, Link, State};
use crate::machine::stop::StopSignal;
use crate::report::{Milestone, Outcome, Report, Request};
use crate::virtio::console::{Console, Port, ports};
use crate::virtio::device::{Device, Effects};
use crate::virtio::mmio::Transport;
use deadline::Deadline;
use proto::OutputStream;
use sinks::{KernelLog, Output};
use start_limit::{Late, StartLimit};
use std::cell::RefCell;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixDatagram;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// After the agent's last word, how long output that it announced may still be on its way.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);
/// Rounds of 64 KiB on one stream before the event loop looks at the others.
const ROUNDS: usize = 4;

/// Where the run's outcome appears.
pub type Settled = Rc<RefCell<Option<Outcome>>>;

/// The VMM's ends of everything that the console's ports lead to.
pub struct Streams {
    console: Arc<Transport<Console>>,
    link: Rc<RefCell<Link>>,
    orders: OrderEvents,
    stdin: Option<File>,
    stdin_bytes: u64,
    outputs: [Output; 2],
    kernel_log: KernelLog,
    control: UnixDatagram,
    stop: Arc<StopSignal>,
    deadline: Deadline,
    start_limit: StartLimit,
    ending: Ending,
    first_output: bool,
    settled: Settled,
    /// Done with, and open until the event loop has forgotten it.
    ended_stdin: Option<File>,
}

impl Streams {
    /// Connects the ends to the console. A guest that has not started its workload after `start_limit` is given up.
    ///
    /// # Errors
    /// The host has no more file descriptors.
    pub fn new(
        console: Arc<Transport<Console>>,
        link: Rc<RefCell<Link>>,
        orders: OrderEvents,
        ends: HostEnds,
        stop: Arc<StopSignal>,
        settled: Settled,
        start_limit: Duration,
    ) -> std::io::Result<Self> {
        let start_limit = StartLimit::new(start_limit);
        let streams = Self {
            console,
            link,
            orders,
            stdin_bytes: 0,
            outputs: [
                Output::new(OutputStream::Stdout, ends.stdout),
                Output::new(OutputStream::Stderr, ends.stderr),
            ],
            kernel_log: KernelLog::default(),
            control: ends.control,
            stop,
            deadline: Deadline::after(start_limit.first())?,
            start_limit,
            ending: Ending::default(),
            first_output: false,
            settled,
            ended_stdin: None,
            stdin: ends.stdin,
        };
        if streams.stdin.is_none() {
            streams.link.borrow_mut().input_end(0);
        }
        Ok(streams)
    }

    fn on_queue(&mut self, index: usize) {
        if let Some(kick) = self.console.kicks().get(index) {
            let _ = kick.read();
        }
        match ports::role(index) {
            Some(ports::Role::Transmit(port)) => drop(self.deliver(port)),
            Some(ports::Role::Receive(port)) if port == Port::Stdin as usize => {
                self.console.serve(index);
                self.stdin_to_guest();
            }
            Some(ports::Role::Receive(port)) if port == Port::Link as usize => self.link_to_guest(),
            Some(ports::Role::ControlTransmit) => {
                // The guest may just have opened a port that data waits for.
                self.console.serve(index);
                self.link_to_guest();
                self.stdin_to_guest();
            }
            _ => self.console.serve(index),
        }
    }

    /// Moves what the guest wrote to `port` to where it belongs; true if the port is empty afterwards.
    fn deliver(&mut self, port: usize) -> bool {
        let queue = ports::transmit_queue(port);
        let mut events = Vec::new();
        let mut empty = false;
        let Self { console, link, outputs, kernel_log, .. } = self;
        let mut held = link.borrow_mut();
        let link = &mut *held;
        for _ in 0..ROUNDS {
            let mut moved = 0;
            empty = true;
            let mut again = false;
            console.with_live(
                |device, queues, memory| {
                    let effects = device.serve(queue, queues, memory)?;
                    let (first, second) = device.output(port);
                    let waiting = first.len() + second.len();
                    moved = match port {
                        p if p == Port::Kernel as usize => kernel_log.keep(first, second),
                        p if p == Port::Link as usize => {
                            link.receive(first, &mut events);
                            link.receive(second, &mut events);
                            waiting
                        }
                        p if p == Port::Stdout as usize => outputs[0].write(first, second, link),
                        p if p == Port::Stderr as usize => outputs[1].write(first, second, link),
                        _ => waiting,
                    };
                    device.consume(port, moved);
                    empty = moved == waiting && !effects.again;
                    again = effects.again || moved > 0;
                    Ok(Effects { again: false, ..effects })
                },
                queue,
            );
            if !again {
                break;
            }
            empty = false;
        }
        drop(held);
        if !empty && self.host_takes(port) {
            // The rounds are spent: go on after the other streams had their turn.
            if let Some(kick) = self.console.kicks().get(queue) {
                let _ = kick.write(1);
            }
        }
        for event in events {
            self.on_link_event(event);
        }
        if !self.first_output && self.outputs.iter().any(|output| output.delivered > 0) {
            self.first_output = true;
            self.report(&Report::Milestone(Milestone::now("first-output", None)));
        }
        // The agent's message may want an answer, and the agent wants to know of a reader that is gone.
        let waits = !self.link.borrow().outgoing().0.is_empty();
        if waits {
            self.link_to_guest();
        }
        empty
    }

    /// Whether the host would take more of `port` now.
    fn host_takes(&self, port: usize) -> bool {
        match port {
            p if p == Port::Stdout as usize => self.outputs[0].takes(),
            p if p == Port::Stderr as usize => self.outputs[1].takes(),
            _ => true,
        }
    }

    fn link_to_guest(&mut self) {
        let Self { console, link, orders, .. } = self;
        let mut link = link.borrow_mut();
        let queue = ports::receive_queue(Port::Link as usize);
        console.with_live(
            |device, queues, memory| {
                let mut effects = Effects::default();
                loop {
                    let sent = device.send(Port::Link as usize, link.outgoing().0);
                    link.sent(sent);
                    effects = effects.and(device.serve(queue, queues, memory)?);
                    if sent == 0 {
                        return Ok(effects);
                    }
                }
            },
            queue,
        );
        if link.has_room_again() {
            let _ = orders.answered.write(1);
        }
    }

    fn stdin_to_guest(&mut self) {
        let Self { console, link, stdin, stdin_bytes, ended_stdin, .. } = self;
        let queue = ports::receive_queue(Port::Stdin as usize);
        let port = Port::Stdin as usize;
        let mut ended = false;
        for _ in 0..ROUNDS {
            let mut read = 0;
            let Some(file) = stdin else { return };
            console.with_live(
                |device, queues, memory| {
                    let mut buffer = [0; 16 << 10];
                    let room = device.room(port).min(buffer.len());
                    match file.read(&mut buffer[..room]) {
                        _ if room == 0 => {}
                        Ok(0) => ended = true,
                        Ok(bytes) => read = device.send(port, &buffer[..bytes]),
                        Err(error)
                            if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                        Err(_) => ended = true,
                    }
                    device.serve(queue, queues, memory)
                },
                queue,
            );
            *stdin_bytes += read as u64;
            if ended {
                *ended_stdin = stdin.take();
                link.borrow_mut().input_end(*stdin_bytes);
                return self.link_to_guest();
            }
            if read == 0 {
                return;
            }
        }
        // More may wait: come back after the other streams had their turn.
        if let Some(kick) = self.console.kicks().get(queue) {
            let _ = kick.write(1);
        }
    }

    fn on_link_event(&mut self, event: Event) {
        match event {
            Event::Notice(text) => self.report(&Report::Notice(text)),
            Event::Milestone(name, guest_us) => {
                let milestone = Milestone::now(name, Some(guest_us));
                self.report(&Report::Milestone(milestone));
            }
            Event::Started => self.report(&Report::Started),
            Event::Failed(kind, message) => {
                self.settle(Outcome::NotStarted { code: kind.shell_code(), message });
            }
            Event::Lost(why) => {
                let message = format!("the guest's agent failed while the workload ran: {why}");
                self.settle(Outcome::Failed { message, kernel_log: self.kernel_log.text() });
            }
            Event::Exited { status, oom_killed, stdout_bytes, stderr_bytes } => {
                self.ending.exit = Some(Exit {
                    code: status.shell_code(),
                    oom_killed,
                    max_bytes: self.orders.max_bytes.get(),
                    bytes: [stdout_bytes, stderr_bytes],
                });
                self.deadline.put_off(DRAIN_LIMIT);
            }
            // The counter of an eventfd cannot overflow by ones.
            Event::Answered | Event::Sampled => drop(self.orders.answered.write(1)),
            Event::Broken(why) => {
                let message = format!("the guest's agent cannot be understood: {why}");
                self.settle(Outcome::Failed { message, kernel_log: self.kernel_log.text() });
            }
        }
    }

    fn on_request(&mut self) {
        let mut buffer = [0; 512];
        match self.control.recv(&mut buffer) {
            Ok(length) if length > 0 => match serde_json::from_slice(&buffer[..length]) {
                Ok(Request::Resize { rows, cols }) => self.link.borrow_mut().resize(rows, cols),
                Ok(Request::Signal { number }) if self.link_state() < State::Running => {
                    // What continues a stopped process ends none.
                    if i32::from(number) != libc::SIGCONT {
                        self.settle(Outcome::Interrupted { signal: number });
                    }
                }
                Ok(Request::Signal { number }) => self.link.borrow_mut().signal(number),
                Err(error) => log::warn!("cannot understand a request of ballast: {error}"),
            },
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            // `ballast` is gone, and with it whoever waits for this run.
            _ => self.settle(Outcome::Interrupted { signal: libc::SIGHUP as u8 }),
        }
        self.link_to_guest();
    }

    fn on_deadline(&mut self) {
        if !self.deadline.has_passed() {
            return;
        }
        if self.ending.exit.is_some() {
            self.ending.late = true;
            self.deadline.put_off(DRAIN_LIMIT);
        } else if self.link_state() < State::Running {
            match self.start_limit.passed() {
                Late::Slow(words, rest) => {
                    log::warn!("{words}");
                    self.deadline.put_off(rest);
                }
                Late::GivenUp(message) => {
                    self.settle(Outcome::Failed { message, kernel_log: self.kernel_log.text() });
                }
            }
        }
    }

    /// Ends the run once everything that counts is delivered.
    fn settle_if_over(&mut self) {
        let delivered = [self.outputs[0].delivered, self.outputs[1].delivered];
        let stopped = self.stop.reason().cloned();
        if stopped.is_none() && !self.ending.delivered(delivered) && !self.ending.late {
            return;
        }
        // Nothing new comes from a guest that stopped; what lies in its queues is all there is.
        let mut empty = true;
        for port in [Port::Kernel, Port::Link, Port::Stdout, Port::Stderr] {
            empty &= self.deliver(port as usize);
        }
        let delivered = [self.outputs[0].delivered, self.outputs[1].delivered];
        let kernel_log = self.kernel_log.text();
        if let Some(outcome) =
            self.ending.outcome(stopped.as_ref(), self.link_state(), delivered, empty, &kernel_log)
        {
            self.settle(outcome);
        }
    }

    fn link_state(&self) -> State {
        self.link.borrow().state()
    }

    fn settle(&self, outcome: Outcome) {
        self.settled.borrow_mut().get_or_insert(outcome);
    }

    fn report(&self, report: &Report) {
        send_report(&self.control, report);
    }
}
