//! `ballast exec NAME CMD`: runs a command beside the workload of a microVM, with the user's own streams.
//!
//! Three threads share the connection: this one reads frames and writes output, one reads standard input, one passes on
//! the signals that a fourth hears. Whichever waits, waits for somebody slow, and keeps none of the others.

use super::client;
use super::dirs::Dirs;
use super::format::printable;
use super::output::eprint;
use super::signals::Signals;
use super::streams;
use super::terminal::{self, RawMode};
use balloon::control::orders::{ExecRequest, TerminalSize};
use clap::Args;
use proto::{Decoder, FromCommand, MAX_PIECE, Message, OutputStream, Piece, ToCommand, WINDOW, WindowSize};
use rustix::event::{PollFd, PollFlags, poll};
use std::error::Error;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use std::time::Duration;

/// Run a command in a running microVM, beside its own
#[derive(Args, Debug)]
#[command(
    override_usage = "ballast exec [OPTIONS] NAME COMMAND [ARGUMENT ...]",
    after_help = "\
Examples:
  ballast exec web ps                     a command
  ballast exec -it web sh                 a shell on a terminal
  ballast exec --in-zone cache web du /   in the memory of a zone

Exit status: that of the command; 125 if Ballast fails, 126 if the command cannot be executed, 127 if it is
not found, 128+n if signal n killed it."
)]
pub struct ExecArgs {
    /// Keep standard input open for the command
    #[arg(short, long)]
    interactive: bool,
    /// Give the command a terminal
    #[arg(short, long)]
    tty: bool,
    /// Set an environment variable; without a value, the one of this environment
    #[arg(short, long, value_name = "K[=V]")]
    env: Vec<String>,
    /// Working directory of the command
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// User and group of the command: names or numbers of the image
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Run the command in the memory of this zone
    #[arg(long, value_name = "ZONE")]
    in_zone: Option<String>,
    /// Name, ID or beginning of an ID; all that follows is the command and its arguments
    // One argument, as only what follows the first word of the last one is never taken for an option.
    #[arg(value_names = ["NAME", "COMMAND"], required = true, num_args = 2.., trailing_var_arg = true)]
    words: Vec<String>,
}

impl ExecArgs {
    fn name(&self) -> &str {
        self.words.first().map(String::as_str).unwrap_or_default()
    }

    fn command(&self) -> &[String] {
        self.words.get(1..).unwrap_or_default()
    }
}

#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("-t needs a terminal, and standard input is none: leave -t away")]
    NoTerminal,
    #[error("'{0}' is no environment variable: write NAME=VALUE")]
    Variable(String),
    #[error("-w '{0}' is no absolute path")]
    Directory(String),
}

/// Output that was delivered is told of in so large pieces. The VMM does not listen to a client that leaves much unread, so
/// one that told it of each byte could wait for the VMM while that waits for it.
const CREDIT: u32 = WINDOW / 4;
/// A command whose reader is gone ends, for its user, as by SIGPIPE.
const PIPE: u8 = 128 + 13;
/// SIGINTs and SIGTERMs after which the user will not wait for the command, as of `ballast run`.
const INSISTENCE: u32 = 3;
/// An agent that says nothing of a command for so long is frozen or worse, and in raw mode nobody could interrupt the wait.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Runs the verb.
///
/// # Errors
/// There is no such microVM, or it takes no command.
pub fn run(args: &ExecArgs) -> Result<ExitCode, Box<dyn Error>> {
    let request = request(args, |name| std::env::var(name).ok())?;
    let vm = client::find(&Dirs::find()?.state, args.name())?;
    let signals = Signals::block()?;
    let socket = client::upgrade(&vm, "/v1/exec", crate::control::exec::PROTOCOL, &request)?;
    let raw = args.tty.then(RawMode::set).transpose()?;
    let session = Arc::new(Session {
        socket: Mutex::new(socket.try_clone()?),
        credit: Mutex::new(WINDOW),
        granted: Condvar::new(),
    });

    // A microVM that is stopped hears nothing, and must not keep this program from hearing who insists.
    let (tell, told) = mpsc::channel();
    std::thread::Builder::new().name("signals".into()).spawn(move || pass_on(&signals, &tell))?;
    let said = Arc::clone(&session);
    std::thread::Builder::new().name("said".into()).spawn(move || {
        told.iter().for_each(|message| drop(said.say(&message)));
    })?;
    if args.interactive {
        let fed = Arc::clone(&session);
        // Nothing can interrupt a read of the user's terminal: this thread ends with the process.
        std::thread::Builder::new().name("stdin".into()).spawn(move || fed.feed())?;
    } else {
        session.say_unless_over(&ToCommand::InputEnd)?;
    }
    let outputs = [streams::duplicate(io::stdout())?, streams::duplicate(io::stderr())?];
    let ended = session.listen(socket, outputs);
    drop(raw);
    match ended? {
        End::Code(code) => Ok(ExitCode::from(code)),
        End::Failed(code, words) => {
            eprint(&format!("ballast: {}\n", printable(&words)));
            Ok(ExitCode::from(code))
        }
        End::Lost => {
            eprint(&format!("ballast: microVM '{}' ended before the command did\n", vm.name));
            Ok(ExitCode::from(super::state::KILLED))
        }
        End::Silent => {
            let (name, seconds) = (&vm.name, START_LIMIT.as_secs());
            eprint(&format!(
                "ballast: the agent of microVM '{name}' did not start the command within {seconds} s; `ballast why {name}` says \
                 when it was heard last, `ballast stop {name}` ends it\n"
            ));
            Ok(ExitCode::from(super::FAILED))
        }
    }
}

/// What is asked of the microVM.
fn request(args: &ExecArgs, variable: impl Fn(&str) -> Option<String>) -> Result<ExecRequest, Refusal> {
    if args.tty && !io::stdin().is_terminal() {
        return Err(Refusal::NoTerminal);
    }
    let mut env = Vec::new();
    for word in &args.env {
        match word.split_once('=') {
            Some(("", _)) => return Err(Refusal::Variable(printable(word))),
            Some(_) => env.push(word.clone()),
            None => env.extend(variable(word).map(|value| format!("{word}={value}"))),
        }
    }
    // As of `ballast run`: else what a terminal is for would not be known.
    let term = std::env::var_os("TERM").filter(|_| args.tty);
    if let Some(term) = term.as_deref().and_then(OsStr::to_str)
        && !env.iter().any(|entry| entry.starts_with("TERM="))
    {
        env.push(format!("TERM={term}"));
    }
    if let Some(directory) = args.workdir.as_ref().filter(|directory| !directory.starts_with('/')) {
        return Err(Refusal::Directory(printable(directory)));
    }
    let (rows, cols) = terminal::size().unwrap_or((24, 80));
    Ok(ExecRequest {
        args: args.command().to_vec(),
        env,
        cwd: args.workdir.clone(),
        user: args.user.clone(),
        tty: args.tty.then_some(TerminalSize { rows, cols }),
        zone: args.in_zone.clone(),
    })
}

/// Writes output; false if nobody reads it any more.
fn deliver(output: &mut File, piece: &Piece) -> io::Result<bool> {
    match streams::write_all(output, piece.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        written => written.map(|()| true),
    }
}

enum End {
    Code(u8),
    Failed(u8, String),
    /// The microVM is gone.
    Lost,
    /// Its agent never said a word of the command.
    Silent,
}

/// The connection, as all threads see it.
struct Session {
    socket: Mutex<UnixStream>,
    /// Bytes of input that may be sent.
    credit: Mutex<u32>,
    granted: Condvar,
}

impl Session {
    fn say(&self, message: &ToCommand) -> io::Result<()> {
        let mut frame = Vec::new();
        message.encode(&mut frame);
        self.socket.lock().unwrap_or_else(PoisonError::into_inner).write_all(&frame)
    }

    /// Reads frames until the command has ended.
    fn listen(&self, mut socket: UnixStream, [mut stdout, mut stderr]: [File; 2]) -> io::Result<End> {
        let mut decoder = Decoder::<FromCommand>::new();
        let mut delivered = 0;
        let mut buffer = vec![0; MAX_PIECE];
        socket.set_read_timeout(Some(START_LIMIT))?;
        loop {
            let mut bytes = match socket.read(&mut buffer) {
                Ok(0) => return Ok(End::Lost),
                Ok(length) => buffer.get(..length).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(End::Lost),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(End::Silent),
                Err(error) => return Err(error),
            };
            loop {
                match decoder.next(&mut bytes).map_err(io::Error::other)? {
                    None => break,
                    Some(FromCommand::Started { .. }) => socket.set_read_timeout(None)?,
                    Some(FromCommand::Output { stream, piece }) => {
                        let output = match stream {
                            OutputStream::Stdout => &mut stdout,
                            OutputStream::Stderr => &mut stderr,
                        };
                        if !deliver(output, &piece)? {
                            return Ok(End::Code(PIPE));
                        }
                        delivered += piece.count();
                        if delivered >= CREDIT {
                            let bytes = std::mem::take(&mut delivered);
                            self.say_unless_over(&ToCommand::Credit { bytes })?;
                        }
                    }
                    Some(FromCommand::Credit { bytes }) => {
                        let mut credit = self.credit.lock().unwrap_or_else(PoisonError::into_inner);
                        *credit = credit.saturating_add(bytes).min(WINDOW);
                        self.granted.notify_one();
                    }
                    Some(FromCommand::Failed { kind, message }) => {
                        return Ok(End::Failed(kind.shell_code(), message.to_string()));
                    }
                    Some(FromCommand::Exited { status }) => return Ok(End::Code(status.shell_code())),
                }
            }
        }
    }

    fn say_unless_over(&self, message: &ToCommand) -> io::Result<()> {
        match self.say(message) {
            // It has said its last word, which is still to be read.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            said => said,
        }
    }

    /// Sends standard input.
    fn feed(&self) {
        let mut stdin = io::stdin();
        let mut buffer = vec![0; MAX_PIECE];
        loop {
            let room = self.wait_for_credit();
            let length = match stdin.read(buffer.get_mut(..room).unwrap_or_default()) {
                Ok(length @ 1..) => length,
                Err(error) if streams::wait(&stdin, PollFlags::IN, io::Error::from(error.kind())).is_ok() => {
                    continue;
                }
                _ => {
                    let _ = self.say(&ToCommand::InputEnd);
                    return;
                }
            };
            {
                let mut credit = self.credit.lock().unwrap_or_else(PoisonError::into_inner);
                *credit = credit.saturating_sub(u32::try_from(length).unwrap_or(u32::MAX));
            }
            let piece = Piece::new(buffer.get(..length).unwrap_or_default());
            if piece.is_none_or(|piece| self.say(&ToCommand::Input(piece)).is_err()) {
                return;
            }
        }
    }

    /// Waits until input may be sent, and says how much of it.
    fn wait_for_credit(&self) -> usize {
        let mut credit = self.credit.lock().unwrap_or_else(PoisonError::into_inner);
        while *credit == 0 {
            credit = self.granted.wait(credit).unwrap_or_else(PoisonError::into_inner);
        }
        usize::try_from(*credit).unwrap_or(MAX_PIECE).min(MAX_PIECE)
    }
}

/// Passes signals on. A user who insists does not wait for the command.
fn pass_on(signals: &Signals, tell: &mpsc::Sender<ToCommand>) {
    let mut insistence = 0;
    loop {
        let waited = poll(&mut [PollFd::new(signals, PollFlags::IN)], None);
        if !matches!(waited, Ok(_) | Err(rustix::io::Errno::INTR)) {
            return;
        }
        while let Some(signal) = signals.next() {
            if matches!(signal, libc::SIGINT | libc::SIGTERM) {
                insistence += 1;
                if insistence >= INSISTENCE {
                    terminal::restore();
                    std::process::exit(signal.saturating_add(128));
                }
            }
            let resized =
                || terminal::size().map(|(rows, cols)| ToCommand::Resize(WindowSize { rows, cols }));
            let message = match signal {
                libc::SIGWINCH => resized(),
                _ => u8::try_from(signal).ok().map(|number| ToCommand::Signal { number }),
            };
            let _ = message.map(|message| tell.send(message));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ExecArgs,
    }

    fn parse(words: &[&str]) -> Result<ExecRequest, Refusal> {
        let args = Line::try_parse_from(["exec"].iter().chain(words)).unwrap().args;
        request(&args, |name| (name == "HOME").then(|| "/h".into()))
    }

    #[test]
    fn options_end_where_the_command_begins() {
        let wanted =
            parse(&["-e", "A=b", "-e", "HOME", "-e", "UNSET", "-w", "/srv", "web", "ls", "-l"]).unwrap();
        assert_eq!(wanted.args, ["ls", "-l"]);
        assert_eq!(wanted.env, ["A=b", "HOME=/h"]);
        assert_eq!((wanted.cwd.as_deref(), wanted.tty), (Some("/srv"), None));
        assert!(matches!(parse(&["-e", "=b", "web", "ls"]), Err(Refusal::Variable(_))));
        assert!(matches!(parse(&["-w", "srv", "web", "ls"]), Err(Refusal::Directory(_))));
    }
}
