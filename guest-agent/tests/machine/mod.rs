//! A machine for the agent: QEMU with a stock kernel, a virtio-serial port for each stream, and layers on
//! virtio-pmem. The test plays the host's side of the link.

mod image;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use proto::{Decoder, ExitStatus, Message, Spec, ToGuest, ToHost};

pub use image::{Kernel, Layer};

/// An emulated boot on a loaded host takes long; a machine that hangs must still end the test.
const DEADLINE: Duration = Duration::from_secs(400);

/// A disk with an ext4 file system.
pub struct Disk<'a> {
    pub file: &'a Path,
    pub serial: &'a str,
    pub read_only: bool,
}

pub struct Machine {
    directory: tempfile::TempDir,
    qemu: Child,
    link: UnixStream,
    stdin: UnixStream,
    sent: u64,
    events: Receiver<Event>,
    pub messages: Vec<ToHost>,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

enum Event {
    Message(ToHost),
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
    LinkClosed,
}

/// What the guest said last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    Exited {
        status: ExitStatus,
        oom_killed: bool,
    },
    Failed {
        code: u8,
        message: String,
    },
    /// The machine went away without a last word.
    Silent,
}

impl Machine {
    pub fn start(spec: &Spec, layers: &[&Layer]) -> Self {
        Self::with_disks(spec, layers, &[])
    }

    pub fn with_disks(spec: &Spec, layers: &[&Layer], disks: &[Disk<'_>]) -> Self {
        let mut greeting = Vec::new();
        ToGuest::Hello { version: proto::VERSION }.encode(&mut greeting);
        proto::encode_chunks(&spec.encode().unwrap(), &mut greeting);
        Self::boot(&greeting, layers, disks)
    }

    /// Boots a machine whose host starts with these bytes on the link.
    pub fn boot(greeting: &[u8], layers: &[&Layer], disks: &[Disk<'_>]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let kernel = Kernel::from_environment();
        let initramfs = kernel.initramfs(Path::new(env!("CARGO_BIN_EXE_agent")), directory.path());

        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(["-machine", "q35", "-accel", "tcg", "-cpu", "max", "-m", "256M,slots=8,maxmem=4G"])
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
            .arg("-kernel")
            .arg(&kernel.image)
            .arg("-initrd")
            .arg(&initramfs)
            .args(["-append", "console=hvc0 quiet panic=-1 cryptomgr.notests"])
            .args(["-device", "virtio-serial-pci,max_ports=8"])
            .arg("-chardev")
            .arg(format!("file,id=console,path={}", directory.path().join("console").display()))
            .args(["-device", "virtconsole,chardev=console,nr=0"]);
        let ports = [proto::LINK_PORT, proto::STDIN_PORT, proto::STDOUT_PORT, proto::STDERR_PORT];
        for (number, name) in ports.iter().enumerate() {
            let path = directory.path().join(name);
            qemu.arg("-chardev")
                .arg(format!("socket,id=port{number},server=on,wait=off,path={}", path.display()))
                .arg("-device")
                .arg(format!("virtserialport,chardev=port{number},name={name},nr={}", number + 1));
        }
        for (number, layer) in layers.iter().enumerate() {
            let (path, size) = (layer.file.path().display(), layer.bytes());
            qemu.arg("-object")
                .arg(format!(
                    "memory-backend-file,id=layer{number},mem-path={path},size={size},share=on,readonly=on"
                ))
                .arg("-device")
                .arg(format!("virtio-pmem-pci,memdev=layer{number}"));
        }
        for (number, disk) in disks.iter().enumerate() {
            let (path, serial) = (disk.file.display(), disk.serial);
            let read_only = if disk.read_only { "on" } else { "off" };
            qemu.arg("-drive")
                .arg(format!("if=none,format=raw,id=disk{number},file={path},readonly={read_only}"))
                .arg("-device")
                .arg(format!("virtio-blk-pci,drive=disk{number},serial={serial}"));
        }
        let qemu = qemu.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();

        let connect = |name: &str| {
            let start = Instant::now();
            loop {
                match UnixStream::connect(directory.path().join(name)) {
                    Ok(stream) => return stream,
                    Err(error) if start.elapsed() > Duration::from_secs(30) => panic!("{name}: {error}"),
                    Err(_) => thread::sleep(Duration::from_millis(20)),
                }
            }
        };
        let [mut link, stdin, stdout, stderr] = ports.map(connect);
        let (sender, events) = channel();
        let pass_on = |mut stream: UnixStream, event: fn(Vec<u8>) -> Event| {
            let sender = sender.clone();
            thread::spawn(move || {
                let mut buffer = [0; 65536];
                while let Ok(n @ 1..) = stream.read(&mut buffer) {
                    let _ = sender.send(event(buffer[..n].to_vec()));
                }
            });
        };
        pass_on(stdout, Event::Stdout);
        pass_on(stderr, Event::Stderr);
        let mut incoming = link.try_clone().unwrap();
        thread::spawn(move || {
            let (mut decoder, mut buffer) = (Decoder::new(), [0; 4096]);
            while let Ok(n @ 1..) = incoming.read(&mut buffer) {
                let mut rest = &buffer[..n];
                while let Some(message) = decoder.next(&mut rest).unwrap() {
                    let _ = sender.send(Event::Message(message));
                }
            }
            let _ = sender.send(Event::LinkClosed);
        });
        // A machine that rejects the greeting may be gone before all of it is sent.
        let _ = link.write_all(greeting);
        Self {
            directory,
            qemu,
            link,
            stdin,
            sent: 0,
            events,
            messages: Vec::new(),
            stdout: Vec::new(),
            stderr: Vec::new(),
        }
    }

    pub fn send(&mut self, message: &ToGuest) {
        let mut frame = Vec::new();
        message.encode(&mut frame);
        self.link.write_all(&frame).unwrap();
    }

    pub fn input(&mut self, bytes: &[u8]) {
        self.stdin.write_all(bytes).unwrap();
        self.sent += bytes.len() as u64;
    }

    /// Feeds all of this from a thread of its own, so that the test can read at the same time.
    pub fn input_in_background(&mut self, bytes: Vec<u8>) {
        let mut stdin = self.stdin.try_clone().unwrap();
        self.sent += bytes.len() as u64;
        thread::spawn(move || stdin.write_all(&bytes));
    }

    pub fn end_input(&mut self) {
        self.send(&ToGuest::InputEnd { bytes: self.sent });
    }

    /// Takes what comes until the condition holds.
    pub fn wait_until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !condition(self) {
            let left = DEADLINE.saturating_sub(start.elapsed());
            match self.events.recv_timeout(left) {
                Ok(Event::Message(message)) => self.messages.push(message),
                Ok(Event::Stdout(bytes)) => self.stdout.extend(bytes),
                Ok(Event::Stderr(bytes)) => self.stderr.extend(bytes),
                Ok(Event::LinkClosed) => {}
                Err(RecvTimeoutError::Disconnected) if self.end() == End::Silent => return,
                Err(error) => panic!("{what}: {error}\n{}", self.report()),
            }
        }
    }

    pub fn wait_for_output(&mut self, text: &str) {
        self.wait_until(text, |machine| String::from_utf8_lossy(&machine.stdout).contains(text));
    }

    pub fn wait_for_start(&mut self) {
        let started = |machine: &Self| machine.messages.iter().any(|m| matches!(m, ToHost::Started { .. }));
        self.wait_until("the workload's start", started);
    }

    /// Waits for the last word and all output that it announces. Then the test still has the machine.
    pub fn finish(&mut self) -> End {
        self.wait_until("the last word", |machine| machine.end() != End::Silent);
        if let Some(ToHost::Exited { stdout_bytes, stderr_bytes, .. }) = self.messages.last().cloned() {
            self.wait_until("all output", |machine| {
                machine.stdout.len() as u64 >= stdout_bytes && machine.stderr.len() as u64 >= stderr_bytes
            });
            assert_eq!(self.stdout.len() as u64, stdout_bytes, "{}", self.report());
            assert_eq!(self.stderr.len() as u64, stderr_bytes, "{}", self.report());
        }
        self.end()
    }

    /// Closes the host's side of the link, and waits until the guest has powered off by itself.
    pub fn hang_up(&mut self) {
        self.link.shutdown(std::net::Shutdown::Both).unwrap();
        let start = Instant::now();
        while self.qemu.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < DEADLINE, "{}", self.report());
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn end(&self) -> End {
        match self.messages.last() {
            Some(ToHost::Exited { status, oom_killed, .. }) => {
                End::Exited { status: *status, oom_killed: *oom_killed }
            }
            Some(ToHost::Failed { kind, message }) => {
                End::Failed { code: kind.shell_code(), message: message.to_string() }
            }
            _ => End::Silent,
        }
    }

    pub fn notices(&self) -> Vec<String> {
        let notice = |message: &ToHost| match message {
            ToHost::Notice(text) => Some(text.to_string()),
            _ => None,
        };
        self.messages.iter().filter_map(notice).collect()
    }

    pub fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub fn console(&self) -> String {
        let console = std::fs::read(self.directory.path().join("console")).unwrap_or_default();
        String::from_utf8_lossy(&console).into_owned()
    }

    /// Everything known, for a test that fails.
    pub fn report(&self) -> String {
        format!(
            "messages: {:#?}\nstdout: {:?}\nstderr: {:?}\nconsole: {}",
            self.messages,
            String::from_utf8_lossy(&self.stdout),
            String::from_utf8_lossy(&self.stderr),
            self.console()
        )
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // As the VMM does once it has everything.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}
