//! What the screen looks like, at some sizes. `BALLAST_TEST_SNAPSHOTS=write cargo test` writes the files anew.

use super::screen::draw;
use super::view::View;
use super::view_tests::{decisions, look, press, silent, three, vm};
use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::{Color, Modifier};
use ratatui::widgets::TableState;

fn drawn(view: &View, width: u16, height: u16) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, view, &mut TableState::default())).unwrap();
    terminal
}

fn text(view: &View, width: u16, height: u16) -> String {
    let terminal = drawn(view, width, height);
    let cells = terminal.backend().buffer().content().chunks(width.into());
    let line = |cells: &[ratatui::buffer::Cell]| {
        cells.iter().map(|cell| cell.symbol()).collect::<String>().trim_end().to_owned() + "\n"
    };
    cells.map(line).collect()
}

#[track_caller]
fn looks_like(name: &str, view: &View, width: u16, height: u16) {
    let path = format!("{}/src/cli/top/snapshots/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    let now = text(view, width, height);
    if std::env::var("BALLAST_TEST_SNAPSHOTS").is_ok_and(|value| value == "write") {
        std::fs::write(&path, &now).unwrap();
    }
    let before = std::fs::read_to_string(&path).unwrap();
    assert_eq!(now, before, "it was otherwise:\n{before}and is now:\n{now}");
}

fn sample() -> View {
    let mut view = three();
    view.decide(decisions("web1-id"));
    view
}

#[test]
fn all_columns_fit_a_usual_terminal() {
    looks_like("80x24", &sample(), 80, 24);
}

#[test]
fn a_large_one_shows_more() {
    let mut view = View::default();
    for step in 0..200 {
        let vms = (0..30).map(|at| vm(&format!("a-rather-long-name-{at}"), 40 + at + step * at % 50));
        view.look(look(vms.chain([silent("hung")]).collect()));
    }
    press(&mut view, "jjj");
    view.decide(decisions(view.selected().unwrap()));
    looks_like("120x40", &view, 120, 40);
}

#[test]
fn a_small_one_shows_what_matters_most() {
    looks_like("40x10", &sample(), 40, 10);
}

#[test]
fn help_explains_the_columns() {
    let mut view = sample();
    press(&mut view, "h");
    looks_like("help", &view, 80, 24);
}

#[test]
fn nothing_yet_nobody_and_no_daemon_are_said() {
    let mut view = View::default();
    assert!(text(&view, 80, 24).starts_with("asking"));
    let mut found = look(Vec::new());
    (found.host.daemon, found.host.stall_ppm) = (None, None);
    view.look(found);
    let text = text(&view, 80, 24);
    for words in ["No microVM runs", "without ballastd", "memory pressure unknown", "0 microVMs"] {
        assert!(text.contains(words), "no '{words}' in\n{text}");
    }
}

#[test]
fn pressure_on_microvms_is_told() {
    let mut view = View::default();
    let mut found = look(vec![vm("web", 80)]);
    if let Some(daemon) = &mut found.host.daemon {
        (daemon.lambda_permille, daemon.deficit_bytes, daemon.refuses) = (2500, 64 << 20, true);
    }
    view.look(found);
    let wide = text(&view, 160, 24);
    assert!(wide.contains("ages divided by 2.5, 64 MiB too much in use, starts are refused"), "{wide}");
    let usual = text(&view, 80, 24);
    assert!(usual.contains(", ages / 2.5, 64 MiB too much, no starts\n"), "{usual}");
}

#[test]
fn the_selected_row_is_reversed_and_nothing_has_a_colour() {
    let mut view = sample();
    press(&mut view, " ");
    let terminal = drawn(&view, 80, 24);
    let buffer = terminal.backend().buffer();
    for cell in buffer.content() {
        assert_eq!((cell.fg, cell.bg), (Color::Reset, Color::Reset), "{cell:?}");
    }
    let reversed = |row: u16| (0..80).all(|x| buffer[(x, row)].modifier.contains(Modifier::REVERSED));
    // Three lines above the table and its heading.
    let selected = 4 + u16::try_from(view.position().unwrap()).unwrap();
    assert_eq!((4..8).filter(|row| reversed(*row)).collect::<Vec<_>>(), [selected]);
    assert!(buffer[(0, 3)].modifier.contains(Modifier::BOLD));
}

#[test]
fn the_words_of_others_change_no_terminal() {
    let mut view = View::default();
    let mut other = vm("web", 80);
    for zone in other.zones.iter_mut().flatten() {
        zone.name = "\u{1b}[2Jz\u{7}".into();
    }
    let id = other.usage.id.clone();
    view.look(look(vec![other]));
    let mut told = decisions(&id);
    told.decisions.iter_mut().for_each(|decision| decision.reason = "\u{1b}]0;x\u{7}\u{9b}1m".into());
    view.decide(told);
    assert!(!text(&view, 100, 30).contains(|c: char| c.is_control() && c != '\n'));
}

proptest! {
    #[test]
    fn every_size_can_be_drawn(width in 1u16..200, height in 1u16..60, keys in "[hjr]{0,3}") {
        let mut view = sample();
        press(&mut view, &keys);
        drawn(&view, width, height);
        drawn(&View::default(), width, height);
    }
}
