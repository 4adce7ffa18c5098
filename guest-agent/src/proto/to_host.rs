//! What the agent says to the host. The host believes none of it beyond what the guest may decide itself.

use crate::Text;
use crate::command::FromCommand;
use crate::frame::{Message, encode_frame};
use crate::order::Done;
use crate::sample::{Capabilities, Sample};
use crate::status::{ExitStatus, FailureKind};
use crate::wire::{Fault, FieldError, Reader, Writer, bad};

/// A point on the way from the guest's first instruction to the workload's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Milestone {
    /// The agent runs.
    InitStarted,
    /// The drivers for the link and the root are there.
    ModulesLoaded,
    /// The host's spec is there.
    SpecReceived,
    /// Layers, volumes and the kernel's own file systems are mounted.
    RootMounted,
    /// All that the workload needs is there, and its process comes next. Whatever ends the guest from here on may be the
    /// workload's doing: its first instruction may overtake the agent's word that it runs.
    WorkloadPrepared,
    /// The workload's program was executed.
    WorkloadExecuted,
}

impl Milestone {
    const ALL: [Self; 6] = [
        Self::InitStarted,
        Self::ModulesLoaded,
        Self::SpecReceived,
        Self::RootMounted,
        Self::WorkloadPrepared,
        Self::WorkloadExecuted,
    ];

    /// A short name for tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::InitStarted => "init-started",
            Self::ModulesLoaded => "modules-loaded",
            Self::SpecReceived => "spec-received",
            Self::RootMounted => "root-mounted",
            Self::WorkloadPrepared => "workload-prepared",
            Self::WorkloadExecuted => "workload-executed",
        }
    }
}

/// A message of the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToHost {
    /// The first message.
    Hello {
        /// The agent's [`VERSION`](crate::VERSION).
        version: u32,
        /// The guest kernel's random boot id: a new one says that the guest was restarted.
        boot_id: [u8; 16],
        /// The guest kernel's release, as of `uname -r`.
        kernel_release: Text,
        /// The agent's own version.
        agent_version: Text,
    },
    /// The workload's program was executed.
    Started {
        /// Its process id in the guest.
        pid: u32,
    },
    /// The workload could not be started. The agent powers off after this.
    Failed {
        /// What kind of failure it was.
        kind: FailureKind,
        /// What was being done, and what went wrong.
        message: Text,
    },
    /// The workload ended and all of its output is in the ports. The agent powers off after this.
    Exited {
        /// How its main process ended.
        status: ExitStatus,
        /// Whether the guest's kernel killed one of its processes for lack of memory.
        oom_killed: bool,
        /// Bytes that went into the port of standard output, in total.
        stdout_bytes: u64,
        /// Bytes that went into the port of standard error, in total.
        stderr_bytes: u64,
    },
    /// Something the user should know, and no reason to stop.
    Notice(Text),
    /// When something happened.
    Milestone {
        /// What happened.
        milestone: Milestone,
        /// The guest's monotonic clock then, in microseconds since its kernel started.
        monotonic_us: u64,
    },
    /// The workload closed its standard input: whatever else the host sends is thrown away.
    InputGone,
    /// What came of an order.
    Done {
        /// The order's number.
        id: u32,
        /// What came of it.
        done: Done,
    },
    /// What the guest's kernel can tell and do: before the first sample, and again when it can do more.
    Capabilities(Capabilities),
    /// A look at the guest's memory.
    Sample(Box<Sample>),
    /// Something of a command.
    Command {
        /// Its number.
        id: u32,
        /// What.
        message: FromCommand,
    },
}

const HELLO: u8 = 1;
const STARTED: u8 = 2;
const FAILED: u8 = 3;
const EXITED: u8 = 4;
const NOTICE: u8 = 5;
const MILESTONE: u8 = 6;
const INPUT_GONE: u8 = 7;
const DONE: u8 = 8;
const CAPABILITIES: u8 = 9;
const SAMPLE: u8 = 10;
const COMMAND: u8 = 40;

impl Message for ToHost {
    fn decode(kind: u8, fields: &[u8]) -> Result<Option<Self>, FieldError> {
        let mut reader = Reader::new(fields);
        let message = match kind {
            HELLO => Self::Hello {
                version: reader.u32("version")?,
                boot_id: reader.array("boot_id")?,
                kernel_release: Text::read(&mut reader, "kernel_release")?,
                agent_version: Text::read(&mut reader, "agent_version")?,
            },
            STARTED => Self::Started { pid: reader.u32("pid")? },
            FAILED => Self::Failed {
                kind: FailureKind::read(&mut reader)?,
                message: Text::read(&mut reader, "message")?,
            },
            EXITED => Self::Exited {
                status: ExitStatus::read(&mut reader)?,
                oom_killed: reader.bool("oom_killed")?,
                stdout_bytes: reader.u64("stdout_bytes")?,
                stderr_bytes: reader.u64("stderr_bytes")?,
            },
            NOTICE => Self::Notice(Text::read(&mut reader, "text")?),
            MILESTONE => {
                let number = usize::from(reader.u8("milestone")?);
                let milestone = *Milestone::ALL.get(number).ok_or(bad("milestone", Fault::Invalid))?;
                Self::Milestone { milestone, monotonic_us: reader.u64("monotonic_us")? }
            }
            INPUT_GONE => Self::InputGone,
            COMMAND => {
                let id = reader.u32("id")?;
                Self::Command { id, message: FromCommand::read_wrapped(&mut reader)? }
            }
            DONE => Self::Done { id: reader.u32("id")?, done: Done::read(&mut reader)? },
            CAPABILITIES => Self::Capabilities(Capabilities::read(&mut reader)?),
            SAMPLE => Self::Sample(Box::new(Sample::read(&mut reader)?)),
            _ => return Ok(None),
        };
        reader.end("message")?;
        Ok(Some(message))
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let kind = match self {
            Self::Hello { .. } => HELLO,
            Self::Started { .. } => STARTED,
            Self::Failed { .. } => FAILED,
            Self::Exited { .. } => EXITED,
            Self::Notice(_) => NOTICE,
            Self::Milestone { .. } => MILESTONE,
            Self::InputGone => INPUT_GONE,
            Self::Done { .. } => DONE,
            Self::Capabilities(_) => CAPABILITIES,
            Self::Sample(_) => SAMPLE,
            Self::Command { .. } => COMMAND,
        };
        encode_frame(out, kind, |out| self.write(&mut Writer::new(out)));
    }
}

impl ToHost {
    fn write(&self, writer: &mut Writer<'_>) {
        match self {
            Self::Hello { version, boot_id, kernel_release, agent_version } => {
                writer.u32(*version);
                writer.raw(boot_id);
                kernel_release.write(writer);
                agent_version.write(writer);
            }
            Self::Started { pid } => writer.u32(*pid),
            Self::Failed { kind, message } => {
                writer.u8(kind.shell_code());
                message.write(writer);
            }
            Self::Exited { status, oom_killed, stdout_bytes, stderr_bytes } => {
                status.write(writer);
                writer.bool(*oom_killed);
                writer.u64(*stdout_bytes);
                writer.u64(*stderr_bytes);
            }
            Self::Notice(text) => text.write(writer),
            Self::Milestone { milestone, monotonic_us } => {
                writer.u8(*milestone as u8);
                writer.u64(*monotonic_us);
            }
            Self::InputGone => {}
            Self::Command { id, message } => {
                writer.u32(*id);
                message.write_wrapped(writer);
            }
            Self::Done { id, done } => {
                writer.u32(*id);
                done.write(writer);
            }
            Self::Capabilities(capabilities) => capabilities.write(writer),
            Self::Sample(sample) => sample.write(writer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Decoder;
    use proptest::prelude::*;

    fn text() -> impl Strategy<Value = Text> {
        "(?s).{0,60}".prop_map(|text| Text::new(&text))
    }

    fn message() -> impl Strategy<Value = ToHost> {
        let kind = prop_oneof![
            Just(FailureKind::NotFound),
            Just(FailureKind::NotExecutable),
            Just(FailureKind::Setup)
        ];
        let status =
            prop_oneof![any::<u8>().prop_map(ExitStatus::Code), (1u8..=64).prop_map(ExitStatus::Signal)];
        prop_oneof![
            (any::<u32>(), any::<[u8; 16]>(), text(), text()).prop_map(
                |(version, boot_id, kernel_release, agent_version)| ToHost::Hello {
                    version,
                    boot_id,
                    kernel_release,
                    agent_version
                }
            ),
            any::<u32>().prop_map(|pid| ToHost::Started { pid }),
            (kind, text()).prop_map(|(kind, message)| ToHost::Failed { kind, message }),
            (status, any::<bool>(), any::<u64>(), any::<u64>()).prop_map(
                |(status, oom_killed, stdout_bytes, stderr_bytes)| ToHost::Exited {
                    status,
                    oom_killed,
                    stdout_bytes,
                    stderr_bytes
                }
            ),
            text().prop_map(ToHost::Notice),
            (0..Milestone::ALL.len(), any::<u64>()).prop_map(|(number, monotonic_us)| ToHost::Milestone {
                milestone: Milestone::ALL[number],
                monotonic_us
            }),
            Just(ToHost::InputGone),
            (any::<u32>(), crate::order::tests::done()).prop_map(|(id, done)| ToHost::Done { id, done }),
            crate::sample::tests::capabilities().prop_map(ToHost::Capabilities),
            crate::sample::tests::sample().prop_map(|sample| ToHost::Sample(Box::new(sample))),
            (any::<u32>(), crate::command::tests::from_command())
                .prop_map(|(id, message)| ToHost::Command { id, message }),
        ]
    }

    proptest! {
        #[test]
        fn round_trip(messages in prop::collection::vec(message(), 0..8)) {
            let mut stream = Vec::new();
            messages.iter().for_each(|message| message.encode(&mut stream));
            let mut decoder = Decoder::<ToHost>::new();
            let mut rest = stream.as_slice();
            let mut seen = Vec::new();
            while let Some(message) = decoder.next(&mut rest).unwrap() {
                seen.push(message);
            }
            prop_assert_eq!(seen, messages);
        }

        #[test]
        fn arbitrary_bytes_never_panic(kind: u8, fields in prop::collection::vec(any::<u8>(), 0..420)) {
            if let Ok(Some(message)) = ToHost::decode(kind % 12, &fields) {
                let mut frame = Vec::new();
                message.encode(&mut frame);
                prop_assert_eq!(Decoder::new().next(&mut frame.as_slice()), Ok(Some(message)));
            }
        }
    }

    #[test]
    fn an_impossible_status_is_malformed() {
        let mut fields = vec![1, 0, 0];
        fields.extend_from_slice(&[0; 16]);
        assert_eq!(ToHost::decode(EXITED, &fields), Err(bad("status", Fault::Invalid)));
    }
}
