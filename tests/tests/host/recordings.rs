//! What a daemon records of its host, and the page that is made of it.

use balloon::control::host_trace::{Header, Moment};
use balloon::zone::Kind;
use std::fs;
use std::path::Path;
use tests::Ballast;
use tests::crowd::Crowd;
use tests::daemon::Daemon;
use tests::run::until;

const POOL: &str = "[pool]\ncapacity = '4g'\n[groups.ci]\nmax = '2g'\nlow = '1m'\n";

/// All whole lines.
fn read(trace: &Path) -> Vec<Moment> {
    let text = fs::read_to_string(trace).unwrap();
    // Before the first there is nothing.
    let Some((whole, _)) = text.rsplit_once('\n') else { return Vec::new() };
    let (first, rest) = whole.split_once('\n').unwrap_or((whole, ""));
    assert!(Header::read(first.as_bytes()).is_ok(), "{first}");
    rest.lines().map(|line| Moment::read(2, line.as_bytes()).unwrap()).collect()
}

fn report(ballast: &Ballast, traces: &[&Path]) -> String {
    let page = ballast.path("page.html");
    let traces = traces.iter().map(|trace| trace.to_str().unwrap());
    let ended = ballast.command(&["report", "-o", page.to_str().unwrap()]).options(traces).end();
    ended.exits(0).prints("");
    fs::read_to_string(page).unwrap()
}

#[test]
fn what_a_daemon_has_recorded_is_a_page_with_a_map() {
    let ballast = Ballast::empty();
    let trace = ballast.path("host.trace");
    let crowd = Crowd::start_in(&ballast, "ci/linux", 3);
    let daemon = Daemon::recording(&ballast, POOL, &trace);
    daemon.wait_until(|tree| tree.host.vms == 3);
    let holds = |moment: &Moment| {
        let vms = moment.nodes.iter().filter(|node| node.kind == Kind::Vm && node.guest.is_some());
        vms.filter(|node| node.charge_bytes > 0).count() == 3
    };
    until(
        || read(&trace).iter().filter(|moment| holds(moment)).count() >= 2,
        || "nothing is recorded".into(),
    );
    daemon.end();

    let moments = read(&trace);
    let last = moments.last().unwrap();
    let names: Vec<_> = last.nodes.iter().take(3).map(|node| node.name.as_str()).collect();
    assert_eq!(names, ["", "ci", "linux"]);
    assert_eq!((last.nodes[1].low_bytes, last.nodes[1].max_bytes), (Some(1 << 20), Some(2 << 30)));
    assert!(last.host.total_bytes > 0 && last.pool.capacity_bytes == 4 << 30);
    assert!(moments.windows(2).all(|pair| pair[0].now_ms < pair[1].now_ms));
    let page = report(&ballast, &[&trace]);
    for words in ["<h2>Host: ", "held by the pool", "<title>ci/linux/vm0, VM: ", "low 1 MiB", "Zones at "] {
        assert!(page.contains(words), "no '{words}' in {page}");
    }
    for foreign in ["<script", "src=", "url(", "@import"] {
        assert!(!page.contains(foreign), "{foreign}");
    }

    // One whose last line was cut off is shown up to there; with garbage in it, it is none.
    let text = fs::read(&trace).unwrap();
    let cut = ballast.file("cut.trace", &text[..text.len() - 5]);
    assert_eq!(report(&ballast, &[&cut, &trace]).matches("<h2>Host: ").count(), 2);
    let garbled = ballast.file("garbled.trace", &[&text[..], b"{}\n"].concat());
    let ended = ballast.command(&["report", garbled.to_str().unwrap()]).end();
    let _ = ended.says("is no whole recording of a host").says("cannot be understood");

    // A daemon that starts anew leaves what led to that.
    let daemon = Daemon::recording(&ballast, POOL, &trace);
    daemon.end();
    assert_eq!(fs::read(ballast.path("host.trace.1")).unwrap(), text);
    assert!(!read(&trace).is_empty());
    drop(crowd);
}

#[test]
fn a_daemon_serves_whatever_becomes_of_its_recording() {
    let ballast = Ballast::empty();
    let letter = ballast.file("letter", b"dear reader");
    for trace in ["/dev/full".into(), ballast.path("none/host.trace"), letter.clone(), ballast.path("")] {
        let daemon = Daemon::recording(&ballast, POOL, &trace);
        assert_eq!(daemon.tree().host.capacity_bytes, 4 << 30);
        daemon.end();
    }
    assert_eq!(fs::read(letter).unwrap(), b"dear reader");
}
