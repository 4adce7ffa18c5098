//! What a scraper gets of a daemon, on its own socket and on TCP.

use balloon::control::fleet::SOCKET;
use balloon::control::link::{FromVm, Hello, Offer, Report, Usage, ZoneUse, encode};
use balloon::zone::Limits;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;
use tests::Ballast;
use tests::control::ask;
use tests::daemon::{Daemon, command};
use tests::run::until;

const MIB: u64 = 1 << 20;
const OPEN: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A process in a VMM's place: a child of this one, which listens for it.
struct Peer(Child);

impl Peer {
    /// Links and reports once.
    fn start(ballast: &Ballast, name: &str) -> Self {
        let peer = Self(Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap());
        let limits = Limits { max: Some(512 * MIB), ..Limits::default() };
        let hello = Hello {
            name: name.into(),
            pid: peer.0.id(),
            group: "ci".into(),
            limits,
            memory_bytes: 512 * MIB,
            zones: vec!["ram".into()],
            inherits: true,
        };
        let report = Report {
            sequence: 1,
            ceiling_bytes: 300 * MIB,
            manual: false,
            floor_bytes: 0,
            limits,
            zones: vec![ZoneUse { name: "ram".into(), resident_bytes: Some(64 << 10) }],
            offer: Offer::default(),
            usage: Usage { ballooned_bytes: 212 * MIB, ..Usage::default() },
        };
        let mut words =
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ballast-link/1\r\n\r\n"
                .to_vec();
        encode(&FromVm::Hello(hello), &mut words);
        encode(&FromVm::Report(report), &mut words);
        let directory = ballast.path("state/vms").join(name);
        fs::create_dir_all(&directory).unwrap();
        let listener = UnixListener::bind(directory.join("control.sock")).unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]);
            stream.write_all(&words).unwrap();
            // What it is sent afterwards nobody reads.
            thread::sleep(Duration::from_secs(600));
        });
        peer
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An address that is free, if nobody takes it meanwhile.
fn address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// The answer on TCP, with its head; nothing while there is none.
fn scrape(address: SocketAddr, request: &str, accept: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(stream, "{request} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    (!text.is_empty()).then_some(text)
}

/// Has Prometheus's own checker read it, where there is one.
fn checks(metrics: &str) {
    let Some(promtool) = std::env::var_os("BALLAST_TEST_PROMTOOL") else { return };
    let mut promtool = Command::new(promtool);
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut checker = promtool.spawn().unwrap();
    checker.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let output = checker.wait_with_output().unwrap();
    let words = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && words.is_empty(), "{}", String::from_utf8_lossy(&words));
}

#[test]
fn a_fleet_is_told_on_both_and_changed_on_one() {
    let (ballast, address) = (Ballast::empty(), address());
    let peer = Peer::start(&ballast, "web");
    let daemon = Daemon::start(&ballast, &format!("metrics = '{address}'\n[pool]\ncapacity = '4g'\n"));
    daemon.wait_until(|tree| tree.host.vms == 1);
    let ended = ballast.run("nothing", &["true"]).options(["--group", "../x"]).end();
    let _ = ended.exits(125);

    let own = || ask(&ballast.path("state").join(SOCKET), "GET", "/metrics", "").unwrap();
    let lines = [
        format!("ballast_pool_capacity_bytes {}", 4096 * MIB),
        "ballast_admission_refusals_total{reason=\"request\"} 1".into(),
        format!("ballast_vm_memory_size_bytes{{vm=\"web\"}} {}", 512 * MIB),
        format!("ballast_vm_memory_ceiling_bytes{{vm=\"web\"}} {}", 300 * MIB),
        format!("ballast_vm_memory_ballooned_bytes{{vm=\"web\"}} {}", 212 * MIB),
        "ballast_vm_info{vm=\"web\",group=\"ci\"} 1".into(),
    ];
    let has_all = |text: &str| lines.iter().all(|line| text.lines().any(|other| other == line));
    until(|| has_all(&own().1), || format!("{lines:#?} are not in\n{}", own().1));
    assert!(own().0.contains("Content-Type: text/plain; version=0.0.4; charset=utf-8"), "{}", own().0);
    until(
        || scrape(address, "GET /metrics", OPEN).is_some_and(|text| has_all(&text)),
        || format!("{lines:#?} are not in {:?}", scrape(address, "GET /metrics", OPEN)),
    );
    let open = scrape(address, "GET /metrics", OPEN).unwrap();
    assert!(open.contains(&format!("Content-Type: {OPEN}\r\n")) && open.ends_with("\n# EOF\n"), "{open}");
    checks(&own().1);
    for (request, status) in
        [("POST /metrics", " 411 "), ("GET /v1/tree", " 404 "), ("DELETE /metrics", " 405 ")]
    {
        let answer = scrape(address, request, "*/*").unwrap();
        assert!(answer.starts_with("HTTP/1.1") && answer.contains(status), "{request}: {answer}");
    }

    // Who is gone is not told of any longer.
    drop(peer);
    daemon.wait_until(|tree| tree.host.vms == 0 && tree.host.orphans == 0);
    assert!(!own().1.contains("vm=\"web\""), "{}", own().1);
}

#[test]
fn a_crowd_on_tcp_keeps_no_scraper_out() {
    let (ballast, address) = (Ballast::empty(), address());
    let daemon = Daemon::start(&ballast, &format!("metrics = '{address}'\n"));
    let asked = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100);
    let mut crowd = Vec::new();
    for number in 0..40 {
        let mut stream = TcpStream::connect(address).unwrap();
        // Some are silent, some ask and never read, some say what makes no sense.
        let words: &[u8] = match number % 3 {
            0 => b"",
            1 => &asked,
            _ => &[0; 8192],
        };
        stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
        let _ = stream.write_all(words);
        crowd.push(stream);
    }
    let answered = || scrape(address, "GET /metrics", OPEN).is_some_and(|text| text.ends_with("# EOF\n"));
    until(answered, || "nobody else is served".into());
    assert_eq!(daemon.tree().host.vms, 0, "its own socket is served, too");
}

#[test]
fn an_address_that_is_taken_is_said() {
    let ballast = Ballast::empty();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let output =
        command(&ballast, &format!("metrics = '{address}'\n")).stderr(Stdio::piped()).output().unwrap();
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && words.contains(&format!("cannot serve metrics on {address}")),
        "{words}"
    );
}
