//! The spec: what the agent is to run, on which layers and volumes, as whom and within which limits.
//!
//! The command line makes it, the VMM passes its bytes on without a look, the agent reads it. Encoding and
//! decoding check the same limits, so a spec that was encoded is one that the agent takes.

use std::error::Error;
use std::ffi::CString;
use std::fmt;

use crate::frame::Message;
use crate::to_guest::{Chunk, MAX_CHUNK, ToGuest};
use crate::ulimit::{Resource, Ulimit};
use crate::wire::{Fault, FieldError, Reader, Writer, bad};

/// Largest encoded spec, in bytes. An execve(2) takes 2 MiB of strings with the default stack limit.
pub const MAX_SPEC: usize = 4 * 1024 * 1024;
/// Most arguments, and most environment variables.
pub const MAX_STRINGS: usize = 65_536;
/// Longest argument, variable or path, in bytes: the kernel's `MAX_ARG_STRLEN` without the NUL.
pub const MAX_STRING: usize = 131_071;
/// Most layers.
pub const MAX_LAYERS: usize = 16;
/// What the root of a layer has for its modification time, in seconds and nanoseconds, when the layer does not describe it:
/// it is then as the layers below have it.
pub const UNDESCRIBED_ROOT: (i64, u32) = (0, 1);
/// Most volumes.
pub const MAX_VOLUMES: usize = 32;
/// Most zones of memory.
pub const MAX_ZONES: usize = 16;
/// Longest name of one, in bytes.
pub const MAX_ZONE_NAME: usize = 32;
/// Longest serial of a virtio-blk device, in bytes (`VIRTIO_BLK_ID_BYTES`).
pub const MAX_SERIAL: usize = 20;

const MAX_USER: usize = 256;
/// The kernel's `__NEW_UTS_LEN`.
const MAX_HOSTNAME: usize = 64;

/// Size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Columns.
    pub cols: u16,
}

impl WindowSize {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, FieldError> {
        Ok(Self { rows: reader.u16("rows")?, cols: reader.u16("cols")? })
    }

    pub(crate) fn write(self, writer: &mut Writer<'_>) {
        writer.u16(self.rows);
        writer.u16(self.cols);
    }
}

/// A block device to mount, with an ext4 file system on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// Serial of the virtio-blk device: 1 to [`MAX_SERIAL`] printable ASCII characters, none of them a space.
    pub serial: String,
    /// Absolute path in the root. Made if it is missing; symbolic links in it stay within the root.
    pub path: CString,
    /// Mounted read-only.
    pub read_only: bool,
}

/// Everything the agent needs to know to start the workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// The program and its arguments, entrypoint and command already joined; at least one.
    pub args: Vec<CString>,
    /// `NAME=value`, the image's and the user's already merged. The agent adds `PATH`, `HOME`, `HOSTNAME` and
    /// (with a terminal) `TERM` where they are missing.
    pub env: Vec<CString>,
    /// Absolute working directory, made if it is missing; empty for `/`.
    pub cwd: CString,
    /// `user`, `uid`, `user:group` or `uid:gid`, looked up in the root's own files; empty for root.
    pub user: String,
    /// 1 to 64 letters, digits, `-` and `.`.
    pub hostname: String,
    /// A terminal of this size instead of three pipes.
    pub tty: Option<WindowSize>,
    /// UUIDs of the layers' EROFS file systems, lowest first; at least one.
    pub layers: Vec<[u8; 16]>,
    /// Mounted in this order.
    pub volumes: Vec<Volume>,
    /// Each resource at most once.
    pub ulimits: Vec<Ulimit>,
    /// Most processes and threads of the workload; at least 1.
    pub pids_limit: Option<u32>,
    /// Names of the zones of memory, by the number of their node; at least one. Each name is lowercase letters, digits
    /// and `-`.
    pub zones: Vec<String>,
    /// The one whose memory the workload uses.
    pub zone: u8,
    /// All of guest memory, in bytes: more than the guest's kernel manages.
    pub memory_bytes: u64,
    /// How much of it the guest may use, in bytes, as of [`Order::Limit`](crate::Order::Limit); `None`: all.
    pub memory_max_bytes: Option<u64>,
    /// The host is told what the guest's kernel says of its memory ([`ToHost::Sample`](crate::ToHost::Sample)).
    pub samples: bool,
    /// Anonymous memory that is not used can be trimmed: to compressed memory, as swap.
    pub swap: bool,
}

/// Why a spec could not be encoded or decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpecError {
    /// One of its fields, named.
    Field(FieldError),
    /// More than [`MAX_SPEC`] bytes in all.
    TooLong,
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(_) => write!(f, "the spec of the workload is not valid"),
            Self::TooLong => {
                write!(f, "arguments and environment are too long: the spec is over {MAX_SPEC} bytes")
            }
        }
    }
}

impl Error for SpecError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Field(source) => Some(source),
            Self::TooLong => None,
        }
    }
}

impl From<FieldError> for SpecError {
    fn from(source: FieldError) -> Self {
        Self::Field(source)
    }
}

impl Spec {
    /// The spec as bytes, for [`encode_chunks`].
    ///
    /// # Errors
    /// The first field that is over its limit or has a value that the agent would refuse.
    pub fn encode(&self) -> Result<Vec<u8>, SpecError> {
        self.check()?;
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out);
        writer.list("args", &self.args, MAX_STRINGS, |w, arg| w.c_str("args", arg, MAX_STRING))?;
        writer.list("env", &self.env, MAX_STRINGS, |w, var| w.c_str("env", var, MAX_STRING))?;
        writer.c_str("cwd", &self.cwd, MAX_STRING)?;
        writer.bytes("user", self.user.as_bytes(), MAX_USER)?;
        writer.bytes("hostname", self.hostname.as_bytes(), MAX_HOSTNAME)?;
        writer.bool(self.tty.is_some());
        if let Some(size) = self.tty {
            size.write(&mut writer);
        }
        writer.list("layers", &self.layers, MAX_LAYERS, |w, uuid| {
            w.raw(uuid);
            Ok(())
        })?;
        writer.list("volumes", &self.volumes, MAX_VOLUMES, |w, volume| {
            w.bytes("volumes", volume.serial.as_bytes(), MAX_SERIAL)?;
            w.c_str("volumes", &volume.path, MAX_STRING)?;
            w.bool(volume.read_only);
            Ok(())
        })?;
        writer.list("ulimits", &self.ulimits, Resource::names().len(), |w, limit| limit.write(w))?;
        // A limit of 0 processes is not allowed, so 0 is free to say that there is none.
        writer.u32(self.pids_limit.unwrap_or(0));
        writer.list("zones", &self.zones, MAX_ZONES, |w, name| {
            w.bytes("zones", name.as_bytes(), MAX_ZONE_NAME)
        })?;
        writer.u8(self.zone);
        writer.u64(self.memory_bytes);
        writer.option(self.memory_max_bytes, Writer::u64);
        writer.bool(self.samples);
        writer.bool(self.swap);
        if out.len() > MAX_SPEC { Err(SpecError::TooLong) } else { Ok(out) }
    }

    /// Reads what [`Spec::encode`] wrote. Takes memory in proportion to `input` only.
    ///
    /// # Errors
    /// The first field that is not as [`Spec`] describes it.
    pub fn decode(input: &[u8]) -> Result<Self, SpecError> {
        if input.len() > MAX_SPEC {
            return Err(SpecError::TooLong);
        }
        let mut reader = Reader::new(input);
        let spec = Self {
            args: reader.list("args", MAX_STRINGS, |r| r.c_string("args", MAX_STRING))?,
            env: reader.list("env", MAX_STRINGS, |r| r.c_string("env", MAX_STRING))?,
            cwd: reader.c_string("cwd", MAX_STRING)?,
            user: reader.str("user", MAX_USER)?.to_owned(),
            hostname: reader.str("hostname", MAX_HOSTNAME)?.to_owned(),
            tty: reader.bool("tty")?.then(|| WindowSize::read(&mut reader)).transpose()?,
            layers: reader.list("layers", MAX_LAYERS, |r| r.array("layers"))?,
            volumes: reader.list("volumes", MAX_VOLUMES, |r| {
                Ok(Volume {
                    serial: r.str("volumes", MAX_SERIAL)?.to_owned(),
                    path: r.c_string("volumes", MAX_STRING)?,
                    read_only: r.bool("volumes")?,
                })
            })?,
            ulimits: reader.list("ulimits", Resource::names().len(), Ulimit::read)?,
            pids_limit: Some(reader.u32("pids_limit")?).filter(|limit| *limit != 0),
            zones: reader.list("zones", MAX_ZONES, |r| Ok(r.str("zones", MAX_ZONE_NAME)?.to_owned()))?,
            zone: reader.u8("zone")?,
            memory_bytes: reader.u64("memory_bytes")?,
            memory_max_bytes: reader.option("memory_max_bytes", |r| r.u64("memory_max_bytes"))?,
            samples: reader.bool("samples")?,
            swap: reader.bool("swap")?,
        };
        reader.end("spec")?;
        spec.check()?;
        Ok(spec)
    }

    /// What the types of the fields do not say by themselves.
    fn check(&self) -> Result<(), FieldError> {
        let ensure = |good: bool, field| if good { Ok(()) } else { Err(bad(field, Fault::Invalid)) };
        let absolute = |path: &CString| path.as_bytes().first() == Some(&b'/');

        ensure(!self.args.is_empty(), "args")?;
        ensure(
            self.env.iter().all(|var| matches!(var.as_bytes().iter().position(|b| *b == b'='), Some(1..))),
            "env",
        )?;
        ensure(self.cwd.is_empty() || absolute(&self.cwd), "cwd")?;
        ensure(!self.user.contains(|c: char| c.is_control()), "user")?;
        ensure(
            !self.hostname.is_empty()
                && self.hostname.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.'),
            "hostname",
        )?;
        ensure(!self.layers.is_empty(), "layers")?;
        for volume in &self.volumes {
            let serial = &volume.serial;
            ensure(!serial.is_empty() && serial.bytes().all(|b| b.is_ascii_graphic()), "volumes")?;
            ensure(absolute(&volume.path), "volumes")?;
        }
        let mut seen = 0u32;
        for limit in &self.ulimits {
            let bit = 1u32.checked_shl(u32::from(limit.resource.number())).unwrap_or(0);
            ensure(seen & bit == 0, "ulimits")?;
            seen |= bit;
        }
        let is_letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        ensure(self.zones.iter().all(|name| !name.is_empty() && name.bytes().all(is_letter)), "zones")?;
        ensure(usize::from(self.zone) < self.zones.len(), "zone")?;
        ensure(self.memory_max_bytes.is_none_or(|max| max <= self.memory_bytes), "memory_max_bytes")?;
        ensure(self.pids_limit != Some(0), "pids_limit")
    }
}

/// Appends an encoded spec to `out` as the [`ToGuest::Spec`] frames that carry it.
pub fn encode_chunks(encoded: &[u8], out: &mut Vec<u8>) {
    let mut pieces = encoded.chunks(MAX_CHUNK).filter_map(Chunk::new).peekable();
    while let Some(chunk) = pieces.next() {
        ToGuest::Spec { last: pieces.peek().is_none(), chunk }.encode(out);
    }
}

/// Collects the pieces of a spec.
#[derive(Debug, Default)]
pub struct SpecBuffer(Vec<u8>);

impl SpecBuffer {
    /// Takes the next piece; with the last one, the spec.
    ///
    /// # Errors
    /// The pieces are too long together, or are no valid spec. The buffer is empty then.
    pub fn push(&mut self, last: bool, chunk: &Chunk) -> Result<Option<Spec>, SpecError> {
        if self.0.len().saturating_add(chunk.as_bytes().len()) > MAX_SPEC {
            self.0 = Vec::new();
            return Err(SpecError::TooLong);
        }
        self.0.extend_from_slice(chunk.as_bytes());
        if last { Spec::decode(&std::mem::take(&mut self.0)).map(Some) } else { Ok(None) }
    }
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
