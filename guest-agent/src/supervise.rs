//! The agent's life beside the workload: one loop over the link, the streams and the children's deaths.
//!
//! Everything is non-blocking and edge-triggered, and nothing but samples is done by the clock: an idle workload means
//! an idle guest.

#![forbid(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use proto::{ExitStatus, OutputStream, ToGuest, ToHost};
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, wait};

use crate::duties::Duties;
use crate::ending::{Ending, KILL_DEADLINE, Outcome, exit_status};
use crate::error::{Doing, Error};
use crate::link::Link;
use crate::port::{Port, StreamPorts};
use crate::pump::Pump;
use crate::sample::Sampler;
use crate::signals;
use crate::stdio::{AgentEnds, Stream, Terminal};

const LINK: u64 = 0;
const CHILDREN: u64 = 1;
const INPUT_SOURCE: u64 = 2;
const INPUT_SINK: u64 = 3;
const TERMINAL: u64 = 4;
const ORDER: u64 = 5;
const PRESSURE: u64 = 6;
const KILLS: u64 = 7;
const OUTPUT_SOURCES: u64 = 10;
const OUTPUT_SINKS: u64 = 20;
/// Whichever command it is about: all are looked at.
const COMMAND: u64 = 1000;

/// The workload and everything between it and the host.
#[derive(Debug)]
pub struct Supervisor<'a> {
    epoll: OwnedFd,
    children: OwnedFd,
    link: &'a mut Link,
    workload: Pid,
    status: Option<ExitStatus>,
    /// Whether there is any child.
    has_children: bool,
    terminal: Option<Terminal>,
    input: Pump<Port, Stream>,
    /// The host knows that the input has no reader any more.
    input_gone: bool,
    /// The end of the input was typed into the terminal.
    end_typed: bool,
    /// Standard output, and without a terminal standard error.
    outputs: Vec<Pump<Stream, Port>>,
    duties: Duties<'a>,
    ending: Option<Ending>,
}

impl<'a> Supervisor<'a> {
    /// Takes over a workload that runs. `children` comes from [`signals::child_deaths`], made before it.
    pub fn new(
        link: &'a mut Link,
        children: OwnedFd,
        workload: Pid,
        ends: AgentEnds,
        ports: StreamPorts,
        duties: Duties<'a>,
    ) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let watch = |fd: BorrowedFd<'_>, token, flags| {
            epoll::add(&epoll, fd, EventData::new_u64(token), flags | EventFlags::ET)
        };
        watch(children.as_fd(), CHILDREN, EventFlags::IN)?;
        watch(link.as_fd(), LINK, EventFlags::IN | EventFlags::OUT)?;
        watch(ports.stdin.as_fd(), INPUT_SOURCE, EventFlags::IN)?;
        watch(ports.stdout.as_fd(), OUTPUT_SINKS, EventFlags::OUT)?;
        if let Some(sampler) = &duties.sampler {
            for (fd, token) in [(sampler.pressure(), PRESSURE), (sampler.events(), KILLS)] {
                fd.map_or(Ok(()), |fd| watch(fd, token, EventFlags::PRI))?;
            }
        }
        let (terminal, input, outputs) = match ends {
            AgentEnds::Terminal(terminal) => {
                let stream = terminal.stream();
                watch(stream.as_fd(), TERMINAL, EventFlags::IN | EventFlags::OUT)?;
                let output = Pump::new(terminal.stream(), ports.stdout);
                (Some(terminal), Pump::new(ports.stdin, stream), vec![output])
            }
            AgentEnds::Pipes { stdin, stdout, stderr } => {
                watch(stdin.as_fd(), INPUT_SINK, EventFlags::OUT)?;
                watch(stdout.as_fd(), OUTPUT_SOURCES, EventFlags::IN)?;
                watch(stderr.as_fd(), OUTPUT_SOURCES + 1, EventFlags::IN)?;
                watch(ports.stderr.as_fd(), OUTPUT_SINKS + 1, EventFlags::OUT)?;
                let outputs = vec![Pump::new(stdout, ports.stdout), Pump::new(stderr, ports.stderr)];
                (None, Pump::new(ports.stdin, stdin), outputs)
            }
        };
        Ok(Self {
            epoll,
            children,
            link,
            workload,
            status: None,
            has_children: true,
            terminal,
            input,
            input_gone: false,
            end_typed: false,
            outputs,
            duties,
            ending: None,
        })
    }

    /// Serves the workload to its end, and kills whatever it left behind.
    pub fn run(mut self) -> Result<Outcome, Error> {
        self.listen();
        loop {
            let more = self.move_streams() | self.duties.commands.run(self.link);
            self.carry_out_orders()?;
            self.duties.sample(self.link);
            if let Some(ending) = &self.ending {
                if self.has_children && Instant::now() > ending.deadline {
                    self.give_up();
                }
                if !self.has_children && self.outputs.iter().all(Pump::is_done) {
                    return Ok(self.outcome());
                }
            }
            self.sleep(more)?;
        }
    }

    /// Answers what is done, and begins what is next.
    fn carry_out_orders(&mut self) -> Result<(), Error> {
        self.duties.tell_answers(self.link);
        if let Some(words) = self.duties.begin_order() {
            // Forgotten by itself when the order is done and its descriptor closed.
            epoll::add(&self.epoll, words, EventData::new_u64(ORDER), EventFlags::IN | EventFlags::ET)
                .doing(|| "watching an order")?;
        }
        self.duties.tell_answers(self.link);
        Ok(())
    }

    fn sleep(&mut self, more: bool) -> Result<(), Error> {
        let timeout = match &self.ending {
            _ if more => Some(Duration::ZERO),
            Some(ending) if self.has_children => {
                // One tick more, so that the deadline has passed after it.
                Some(ending.deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(1))
            }
            _ => {
                let waits = [self.duties.sampler.as_ref().map(Sampler::wait), self.duties.commands.wait()];
                waits.into_iter().flatten().min()
            }
        };
        let timeout = timeout.and_then(|timeout| timeout.try_into().ok());
        let mut events = [MaybeUninit::uninit(); 16];
        match epoll::wait(&self.epoll, &mut events, timeout.as_ref()) {
            Ok((events, _)) => events.iter().for_each(|event| self.note(event)),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).doing(|| "waiting for events"),
        }
        Ok(())
    }

    /// Takes note of what became ready.
    fn note(&mut self, event: &Event) {
        let (token, flags) = (event.data.u64(), event.flags);
        let closed = flags.intersects(EventFlags::HUP | EventFlags::ERR);
        match token {
            LINK => {
                self.link.flush();
                self.listen();
            }
            CHILDREN => self.reap(),
            PRESSURE => self.duties.sampler.iter_mut().for_each(Sampler::alarm),
            KILLS => self.duties.sampler.iter_mut().for_each(Sampler::look_for_kills),
            INPUT_SOURCE => self.input.source_is_ready(),
            // The workload closed its standard input: known now, even if there is nothing to write.
            INPUT_SINK if flags.contains(EventFlags::ERR) => drop(self.input.close_sink()),
            INPUT_SINK => self.input.sink_is_ready(),
            TERMINAL => {
                if closed || flags.contains(EventFlags::OUT) {
                    self.input.sink_is_ready();
                }
                if closed || flags.contains(EventFlags::IN) {
                    self.outputs.iter_mut().for_each(Pump::source_is_ready);
                }
            }
            COMMAND.. => {}
            OUTPUT_SINKS.. => {
                if let Some(output) = self.output(token - OUTPUT_SINKS) {
                    output.sink_is_ready();
                }
            }
            OUTPUT_SOURCES.. => {
                if let Some(output) = self.output(token - OUTPUT_SOURCES) {
                    output.source_is_ready();
                }
            }
            _ => {}
        }
    }

    fn output(&mut self, number: u64) -> Option<&mut Pump<Stream, Port>> {
        self.outputs.get_mut(usize::try_from(number).ok()?)
    }

    /// Says whether there may be more to move at once.
    fn move_streams(&mut self) -> bool {
        let mut more = self.input.run();
        if self.input.is_done() {
            more |= self.end_input();
        } else if !self.input.has_sink() && !self.input_gone {
            self.input_gone = true;
            self.link.send(&ToHost::InputGone);
        }
        for output in &mut self.outputs {
            more |= output.run();
            if !output.has_sink() {
                output.close_source();
            }
        }
        more
    }

    /// All of the host's input is with the workload: lets it see the end. Says whether there is something to
    /// write for that.
    fn end_input(&mut self) -> bool {
        if let (Some(terminal), false) = (&self.terminal, self.end_typed) {
            self.end_typed = true;
            self.input.append(&terminal.end_of_input(self.input.last_byte()));
            return true;
        }
        drop(self.input.close_sink());
        false
    }

    /// Acts on everything that the host said since the last event of the link.
    fn listen(&mut self) {
        while self.ending.as_ref().is_none_or(|ending| ending.host_lost.is_none()) {
            match self.link.receive() {
                Ok(Some(message)) => self.obey(message),
                Ok(None) if self.link.is_hung_up() => self.lose_host(Error::new("the host closed the link")),
                Ok(None) => return,
                Err(error) => self.lose_host(error),
            }
        }
    }

    fn obey(&mut self, message: ToGuest) {
        match message {
            ToGuest::Resize(size) => {
                if let Some(terminal) = &self.terminal {
                    // The terminal is there; a size it does not like changes nothing.
                    let _ = terminal.resize(size);
                }
            }
            ToGuest::Signal { number } => {
                if self.status.is_none() {
                    // It cannot be gone: it is not reaped yet.
                    let _ = signals::send(self.workload, number);
                }
            }
            ToGuest::InputEnd { bytes } => self.input.end_after(bytes),
            ToGuest::OutputGone(stream) => self.close_output(stream),
            ToGuest::Order { id, order } => {
                // With the workload's end there is nothing left that an order could be about.
                if self.ending.is_none() {
                    self.duties.orders.take(id, order);
                }
            }
            ToGuest::Pace { sample_ms } => {
                self.duties.sampler.iter_mut().for_each(|sampler| sampler.set_pace(sample_ms));
            }
            ToGuest::Begin { id, spec } => {
                // What would begin now is killed before it has.
                if self.ending.is_none() {
                    self.duties.commands.begin(id, &spec, &self.epoll, COMMAND, self.link);
                }
            }
            ToGuest::Command { id, message } => self.duties.commands.tell(id, message),
            ToGuest::Close { id } => self.duties.commands.close(id),
            ToGuest::Hello { .. } | ToGuest::Spec { .. } => {
                self.lose_host(Error::new("the host repeated its greeting or its spec"));
            }
        }
    }

    fn close_output(&mut self, stream: OutputStream) {
        let number = match stream {
            OutputStream::Stdout => 0,
            OutputStream::Stderr => 1,
        };
        if let Some(output) = self.output(number) {
            output.close_source();
        }
        if self.terminal.is_some() && stream == OutputStream::Stdout {
            // The last handles on the terminal: its processes get SIGHUP.
            self.terminal = None;
            drop(self.input.close_sink());
        }
    }

    /// Reaps everybody who died, and remembers the workload.
    fn reap(&mut self) {
        let mut info = [0; 512];
        while rustix::io::read(&self.children, &mut info).is_ok() {}
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.workload => {
                    self.status = exit_status(status).or(self.status);
                    self.end(None);
                }
                Ok(Some((pid, status))) => {
                    if let Some(status) = exit_status(status) {
                        self.duties.commands.reaped(pid, status);
                    }
                }
                Err(Errno::INTR) => {}
                Ok(None) => return,
                Err(_) => {
                    self.has_children = false;
                    return;
                }
            }
        }
    }

    fn lose_host(&mut self, error: Error) {
        self.outputs.iter_mut().for_each(Pump::close_source);
        self.end(Some(error));
    }

    /// Kills what is left, and stops feeding it.
    fn end(&mut self, host_lost: Option<Error>) {
        match &mut self.ending {
            Some(ending) => ending.host_lost = ending.host_lost.take().or(host_lost),
            None => self.ending = Some(Ending::new(host_lost)),
        }
        signals::kill_all();
        self.duties.abandon();
        drop(self.input.close_sink());
        self.input.close_source();
        if let Some(terminal) = &mut self.terminal {
            terminal.let_go();
        }
    }

    /// Goes on without processes that cannot be killed: they wait in the kernel for a disk.
    fn give_up(&mut self) {
        self.has_children = false;
        self.outputs.iter_mut().for_each(Pump::end_source);
        let seconds = KILL_DEADLINE.as_secs();
        self.link.notice(&Error::new(format!("processes of the workload live on {seconds} s after SIGKILL")));
    }

    fn outcome(self) -> Outcome {
        let bytes = |number: usize| self.outputs.get(number).map_or(0, Pump::given);
        match (self.ending.and_then(|ending| ending.host_lost), self.status) {
            (Some(error), _) => Outcome::HostLost(error),
            (None, Some(status)) => {
                Outcome::Exited { status, stdout_bytes: bytes(0), stderr_bytes: bytes(1) }
            }
            (None, None) => Outcome::HostLost(Error::new("the workload was lost")),
        }
    }
}
