//! What wakes the console side, and what is looked at then.

use super::Streams;
use crate::virtio::console::Port;
use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};

/// Tokens of events that are no queue's.
const STDIN: u32 = 1000;
const STDOUT: u32 = 1001;
const STDERR: u32 = 1002;
const CONTROL: u32 = 1003;
const STOPPED: u32 = 1004;
const DEADLINE: u32 = 1005;
const ORDERED: u32 = 1006;

impl MutEventSubscriber for Streams {
    fn init(&mut self, ops: &mut EventOps) {
        let mut add = |events: Events| {
            if let Err(error) = ops.add(events) {
                log::error!("cannot wait for the workload's streams: {error}");
            }
        };
        for (index, kick) in (0..).zip(self.console.kicks()) {
            add(Events::with_data(kick, index, EventSet::IN));
        }
        // Edges: readiness that nobody can use now must not spin the loop.
        let edge = |set| set | EventSet::EDGE_TRIGGERED;
        if let Some(stdin) = &self.stdin {
            add(Events::with_data(stdin, STDIN, edge(EventSet::IN)));
        }
        for (output, token) in self.outputs.iter().zip([STDOUT, STDERR]) {
            if let Some(file) = &output.file {
                add(Events::with_data(file, token, edge(EventSet::OUT)));
            }
        }
        add(Events::with_data(&self.control, CONTROL, EventSet::IN));
        add(Events::with_data(self.stop.event(), STOPPED, EventSet::IN));
        add(Events::with_data(&self.deadline, DEADLINE, EventSet::IN));
        add(Events::with_data(&self.orders.ordered, ORDERED, EventSet::IN));
    }

    fn process(&mut self, events: Events, ops: &mut EventOps) {
        match events.data() {
            STDIN => self.stdin_to_guest(),
            STDOUT => drop(self.deliver(Port::Stdout as usize)),
            STDERR => drop(self.deliver(Port::Stderr as usize)),
            CONTROL => self.on_request(),
            STOPPED => drop(self.stop.event().read()),
            DEADLINE => self.on_deadline(),
            ORDERED => {
                let _ = self.orders.ordered.read();
                self.link_to_guest();
            }
            queue => self.on_queue(queue as usize),
        }
        self.settle_if_over();
        self.close_ended(ops);
    }
}

impl Streams {
    /// The event loop knows files by their numbers: it would take no other of the same one until it has forgotten this.
    fn close_ended(&mut self, ops: &mut EventOps) {
        let outputs = self.outputs.iter_mut().filter_map(|output| output.ended.take());
        for file in self.ended_stdin.take().into_iter().chain(outputs) {
            // One that cannot be waited for, as a regular file, was never known.
            let _ = ops.remove(Events::empty(&file));
        }
    }
}
