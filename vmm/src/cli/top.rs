//! `ballast top`: all running microVMs on one screen, what each uses, and why the selected one has what it has.
//!
//! ```text
//! reader ── what microVMs, daemon and host say ──┐
//! keyboard, signals ─────────────────────────────┴─> view (the state) ──> screen (the drawing)
//! ```
//!
//! [`reader`] and this file are wiring; [`view`], [`column`], [`words`] and [`screen`] are pure.

mod column;
mod reader;
mod screen;
#[cfg(test)]
mod screen_tests;
mod view;
#[cfg(test)]
mod view_tests;
mod words;

use super::client;
use super::dirs::Dirs;
use super::signals::Signals;
use super::terminal::FullScreen;
use clap::Args;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{self, Event, KeyEvent};
use ratatui::crossterm::terminal;
use ratatui::layout::Rect;
use ratatui::widgets::TableState;
use ratatui::{TerminalOptions, Viewport};
use reader::{Reader, Wanted};
use rustix::event::{PollFd, PollFlags, poll};
use std::error::Error;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use view::{Decisions, Look, Press, View};

/// Watch running microVMs: what each uses, saves and waits for, and why
#[derive(Args, Debug)]
#[command(after_help = "\
Keys: arrows or j and k select a microVM, s or < and > choose the column to sort by, r reverses, space pauses, h helps,
q leaves.")]
pub struct TopArgs {}

/// Most that is drawn on: more cells than any screen has, and all of them are kept twice.
const MOST_COLUMNS: u16 = 1000;
const MOST_ROWS: u16 = 500;

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(
        "`ballast top` needs a terminal to draw on and to read keys from: `ballast stats` writes lines instead"
    )]
    NoTerminal,
    #[error("cannot draw on the terminal")]
    Terminal(#[source] io::Error),
    #[error("cannot read keys from the terminal")]
    Keys(#[source] io::Error),
    #[error("cannot wait for signals")]
    Signals(#[source] io::Error),
}

/// What happens to a running `ballast top`.
enum News {
    Key(KeyEvent),
    Signal(libc::c_int),
    Look(Result<Look, client::Error>),
    Decisions(Decisions),
    Failed(Failure),
}

/// Runs the verb.
///
/// # Errors
/// There is no terminal, or none any more, or the state directory cannot be read.
pub fn run(_: &TopArgs) -> Result<ExitCode, Box<dyn Error>> {
    if !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
        return Err(Failure::NoTerminal.into());
    }
    let state = Dirs::find()?.state;
    client::running(&state)?;
    // Before any thread starts, so that all leave the signals alone; and before the screen is taken, so that none leaves it so.
    let signals = Signals::block().map_err(Failure::Signals)?;
    // A message would be drawn over; standard error is the same terminal, most of the time.
    log::set_max_level(log::LevelFilter::Off);
    let screen = FullScreen::take().map_err(Failure::Terminal)?;
    let (sender, news) = mpsc::channel();
    let reader = Reader::start(state, sender.clone());
    let keys = sender.clone();
    thread::spawn(move || watch_keys(&keys));
    thread::spawn(move || watch_signals(&signals, &sender));
    show(&screen, &reader, &news)
}

/// Draws and listens until the user, a signal or a failure ends it.
fn show(screen: &FullScreen, reader: &Reader, news: &Receiver<News>) -> Result<ExitCode, Box<dyn Error>> {
    let blank = |area| {
        let options = TerminalOptions { viewport: Viewport::Fixed(area) };
        ratatui::Terminal::with_options(CrosstermBackend::new(io::stdout()), options)
            .map_err(Failure::Terminal)
    };
    let mut area = window()?;
    let mut terminal = blank(area)?;
    let mut view = View::default();
    let mut table = TableState::default();
    loop {
        let now = window()?;
        if now != area {
            area = now;
            terminal.resize(area).map_err(Failure::Terminal)?;
        }
        terminal.draw(|frame| screen::draw(frame, &view, &mut table)).map_err(Failure::Terminal)?;
        let Ok(first) = news.recv() else { return Ok(ExitCode::SUCCESS) };
        // All that has come before it is drawn again.
        for news in std::iter::once(first).chain(news.try_iter()) {
            match news {
                News::Key(key) if view.press(key) == Press::Quit => return Ok(ExitCode::SUCCESS),
                // Each drawing asks how large the window is.
                News::Signal(libc::SIGWINCH) | News::Key(_) => {}
                News::Signal(libc::SIGCONT) => {
                    terminal = blank(area)?;
                    screen.take_again().map_err(Failure::Terminal)?;
                }
                News::Signal(number) => {
                    return Ok(ExitCode::from(u8::try_from(number).map_or(u8::MAX, |number| 128 | number)));
                }
                News::Look(look) => view.look(look?),
                News::Decisions(decisions) => view.decide(decisions),
                News::Failed(failure) => return Err(failure.into()),
            }
        }
        reader.want(Wanted { selected: view.selected().map(str::to_owned), paused: view.is_paused() });
    }
}

/// The part of the terminal's window that is drawn on.
fn window() -> Result<Rect, Failure> {
    let (width, height) = terminal::size().map_err(Failure::Terminal)?;
    Ok(Rect::new(0, 0, width.min(MOST_COLUMNS), height.min(MOST_ROWS)))
}

fn watch_keys(news: &Sender<News>) {
    loop {
        let told = match event::read() {
            Ok(Event::Key(key)) => News::Key(key),
            Ok(_) => continue,
            Err(error) => News::Failed(Failure::Keys(error)),
        };
        let over = matches!(told, News::Failed(_));
        if news.send(told).is_err() || over {
            return;
        }
    }
}

fn watch_signals(signals: &Signals, news: &Sender<News>) {
    loop {
        while let Some(number) = signals.next() {
            if news.send(News::Signal(number)).is_err() {
                return;
            }
        }
        match poll(&mut [PollFd::new(signals, PollFlags::IN)], None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                let _ = news.send(News::Failed(Failure::Signals(error.into())));
                return;
            }
        }
    }
}
