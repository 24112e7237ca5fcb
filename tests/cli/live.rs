//! The page that is served while cases run: what it tells whom, and that it stops the sweep.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lowmem_tests::root;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::browser::Browser;
use crate::command::{ANSWERS, Place, executable, lowmem, stderr};
use crate::page_in_browser::{axe, holds, keep};

/// Four cases, one after the other, each of which waits for the test's word.
const SWEEP: [&str; 13] =
    ["sweep", "smoke", "--gpu", "24GB", "--device", "virtual", "--out", "run", "--jobs", "1", "attn_type=sdpa", "--serve", "--port=0"];
/// What waits longer than this has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// The header that our own page stops by.
const ASKS: &str = "X-Lowmem: stop\r\n";

/// A `lowmem` that serves a page. It ends with the test.
struct Served {
    child: Child,
    said: BufReader<Box<dyn Read>>,
    /// Host and port.
    host: String,
    /// What comes after the path: the token, where there is one.
    query: String,
}

impl Served {
    fn start(place: &Place, arguments: &[&str]) -> Self {
        let mut command = Command::new(executable("lowmem"));
        command.args(arguments).env("LOWMEM_WORKER", place.worker(&format!("cat go >taken\n{ANSWERS}")));
        let mut child = command
            .current_dir(place.path(""))
            .env("CUDA_VISIBLE_DEVICES", "")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("lowmem");
        let said = child.stderr.take().expect("piped");
        Self::of(child, Box::new(said))
    }

    /// The same on a terminal, with that worker.
    fn on_terminal(place: &Place, arguments: &[&str], worker: &str) -> Self {
        // A shell that stays would get the Ctrl-C too, and end by it whatever lowmem does.
        let line = format!("exec {} {}", executable("lowmem").display(), arguments.join(" "));
        let mut command = Command::new("script");
        command.args(["-qec", &line, "/dev/null"]).env("LOWMEM_WORKER", place.worker(worker)).current_dir(place.path(""));
        let mut child =
            command.env("CUDA_VISIBLE_DEVICES", "").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script, of util-linux");
        let said = child.stdout.take().expect("piped");
        Self::of(child, Box::new(said))
    }

    fn of(child: Child, said: Box<dyn Read>) -> Self {
        let mut served = Self { child, said: BufReader::new(said), host: String::new(), query: String::new() };
        let line = served.until("The page: http://");
        let (host, query) = line.split_once("http://").and_then(|(_, address)| address.split_once('/')).expect("an address");
        (served.host, served.query) = (host.to_owned(), query.trim_end().to_owned());
        served
    }

    /// The next line that has those words.
    fn until(&mut self, words: &str) -> String {
        let mut said = String::new();
        loop {
            let before = said.len();
            assert!(self.said.read_line(&mut said).expect("text") > 0, "it does not say `{words}`: {said}");
            if said[before..].contains(words) {
                return said.split_off(before);
            }
        }
    }

    /// A sweep, and the pipe by which its cases are let go on.
    fn sweep(place: &Place) -> Self {
        assert!(Command::new("mkfifo").arg(place.path("go")).status().expect("mkfifo").success());
        Self::start(place, &SWEEP)
    }

    fn address(&self) -> String {
        format!("http://{}/{}", self.host, self.query)
    }

    /// What comes back for bytes.
    fn send(&self, bytes: &str) -> (TcpStream, u16) {
        let port = self.host.rsplit_once(':').expect("a port").1.parse().expect("a number");
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        stream.write_all(bytes.as_bytes()).expect("taken");
        let mut status = [0; 12];
        stream.read_exact(&mut status).expect("a status");
        let status = String::from_utf8_lossy(&status).rsplit_once(' ').and_then(|(_, code)| code.parse().ok()).expect("a code");
        (stream, status)
    }

    /// The status and the rest of the answer to a request.
    fn ask(&self, line: &str, host: &str, headers: &str) -> (u16, String) {
        let (mut stream, status) = self.send(&format!("{line} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n"));
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("text");
        (status, text)
    }

    fn page(&self) -> String {
        let (status, text) = self.ask(&format!("GET /{}", self.query), &self.host, "");
        assert_eq!(status, 200, "{text}");
        text
    }

    fn events(&self) -> Events {
        let (stream, status) = self.send(&format!("GET /events{} HTTP/1.1\r\nHost: {}\r\n\r\n", self.query, self.host));
        assert_eq!(status, 200);
        Events(BufReader::new(stream))
    }

    /// How it ended, and what it said.
    fn end(mut self) -> (Option<i32>, String) {
        let mut said = String::new();
        self.said.read_to_string(&mut said).expect("text");
        (self.child.wait().expect("it ends").code(), said)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}

/// What is told as it happens.
struct Events(BufReader<TcpStream>);

impl Events {
    /// The next one: what has ended, of how many, and the state.
    fn next(&mut self) -> (u64, u64, String) {
        let mut line = String::new();
        while !line.starts_with("data: ") {
            line.clear();
            assert!(self.0.read_line(&mut line).expect("text") > 0, "no more events");
        }
        let event: Value = serde_json::from_str(&line["data: ".len()..]).expect("JSON");
        let number = |name: &str| event[name].as_u64().expect("a number");
        assert!(event["left"].is_null() || event["left"].is_string(), "{event}");
        (number("done"), number("total"), event["state"].as_str().expect("a state").to_owned())
    }
}

/// Lets a case go on.
fn go(place: &Place) {
    // Opening waits for the case.
    OpenOptions::new().write(true).open(place.path("go")).and_then(|mut pipe| pipe.write_all(b"go")).expect("the pipe");
}

fn running(done: u64) -> (u64, u64, String) {
    (done, 4, "running".to_owned())
}

/// A run directory of two cases, and the lines of its records.
fn kept() -> (Place, Vec<String>) {
    let place = Place::new().inside("kept");
    fs::create_dir(place.path("run")).expect("a folder");
    for file in ["manifest.json", "records.jsonl"] {
        fs::copy(root().join("tests/fixtures/run-schema-1").join(file), place.path("run").join(file)).expect(file);
    }
    let lines = fs::read_to_string(place.path("run/records.jsonl")).expect("records").lines().map(|line| format!("{line}\n")).collect();
    (place, lines)
}

#[test]
fn events_come_as_cases_end_and_the_page_has_them() {
    let place = Place::new();
    let served = Served::sweep(&place);
    assert!(served.host.starts_with("127.0.0.1:") && served.query.is_empty(), "{}", served.address());
    let mut events = served.events();
    assert_eq!(events.next(), running(0));
    let page = served.page();
    assert!(
        page.contains("No answer yet: 4 of 4 not run") && page.contains("id=\"stop\"") && page.contains("frame-ancestors 'none'"),
        "{page}"
    );
    for done in 1..4 {
        go(&place);
        assert_eq!(events.next(), running(done));
        assert!(served.page().contains(&format!("No answer yet: {} of 4 not run", 4 - done)));
    }
    go(&place);
    let last = std::iter::repeat_with(|| events.next()).find(|(_, _, state)| state != "running");
    assert_eq!(last, Some((4, 4, "ended".to_owned())));
    assert!(served.page().contains("<h1>Fits</h1>"));
    drop(events);
    let (code, said) = served.end();
    assert_eq!(code, Some(0), "{said}");
    let saved = fs::read_to_string(place.path("run/report.html")).expect("report.html");
    assert!(saved.contains("<h1>Fits</h1>") && !saved.contains("id=\"live\"") && !saved.contains("EventSource"));
}

#[test]
fn the_page_stops_the_sweep_and_no_other_page_does() {
    let place = Place::new();
    let served = Served::sweep(&place);
    let mut events = served.events();
    assert_eq!(events.next(), running(0));
    go(&place);
    assert_eq!(events.next(), running(1));
    let own = served.host.clone();
    let foreign = format!("{ASKS}Origin: http://evil.example\r\n");
    for (line, host, headers, status) in [
        ("POST /stop", own.as_str(), "", 403),
        ("POST /stop", &own, foreign.as_str(), 403),
        ("POST /stop", &own, &format!("{ASKS}Origin: null\r\n"), 403),
        ("POST /stop", "evil.example", ASKS, 403),
        ("GET /stop", &own, ASKS, 405),
        ("OPTIONS /stop", &own, "Access-Control-Request-Headers: x-lowmem\r\n", 405),
    ] {
        let (answered, text) = served.ask(line, host, headers);
        assert_eq!(answered, status, "{line} {host} {headers}: {text}");
        assert!(!text.to_lowercase().contains("access-control-allow"), "{text}");
    }
    assert_eq!(served.ask("POST /stop", &own, &format!("{ASKS}Origin: http://{own}\r\n")).0, 202);
    assert_eq!(events.next(), (1, 4, "stopping".to_owned()));
    assert_eq!(events.next(), (1, 4, "ended".to_owned()));
    drop(events);
    let (code, said) = served.end();
    assert_eq!(code, Some(130), "{said}");
    assert!(said.contains("3 of 4 cases have not run") && said.contains("--out run --resume"), "{said}");
    assert_eq!(place.rows("run").len(), 1);
}

#[test]
fn other_names_of_this_machine_and_what_is_no_request_are_refused() {
    let (place, _) = kept();
    let served = Served::start(&place, &["report", "run", "--serve", "--port", "0"]);
    let port = served.host.rsplit_once(':').expect("a port").1;
    for own in ["localhost", "localhost:9000", &format!("[::1]:{port}")] {
        assert_eq!(served.ask("GET /", own, "").0, 200, "{own}: this machine, or a tunnel to it");
    }
    for (line, host) in
        [("GET /", "evil.example"), ("GET /", &format!("evil.example:{port}")), ("GET /events", "evil.example"), ("GET /", "")]
    {
        let (status, text) = served.ask(line, host, "");
        assert!(status == 403 && !text.contains("wan"), "{line} {host}: {status} {text}");
    }
    assert_eq!(served.ask("GET /", "localhost", "Host: localhost\r\n").0, 403, "two of them");
    assert_eq!(served.send("GET / HTTP/1.1\r\n\r\n").1, 403, "none");
    assert_eq!(served.send("what is this\r\n\r\n").1, 400);
    assert_eq!(served.ask("GET /../manifest.json", &served.host, "").0, 404);
}

#[test]
fn for_other_machines_a_token_lets_in_and_nothing_else_does() {
    let (place, _) = kept();
    let served = Served::start(&place, &["report", "run", "--serve", "--port", "0", "--host", "0.0.0.0"]);
    let token = served.query.strip_prefix("?token=").expect("a token").to_owned();
    assert!(token.len() == 32 && !served.host.starts_with("0.0.0.0"), "{}", served.address());
    let last = if token.ends_with('0') { '1' } else { '0' };
    for query in
        [String::new(), "?token=".into(), format!("?token={}{last}", &token[..31]), format!("?token={token}0"), format!("?taken={token}")]
    {
        for path in ["", "events", "stop"] {
            let (status, text) = served.ask(&format!("GET /{path}{query}"), "localhost", "");
            assert!(status == 403 && !text.contains("wan") && !text.contains(&token), "{path}{query}: {status} {text}");
        }
    }
    assert!(served.page().contains("<h1>Fits</h1>"), "under any name");
    let mut other = Served::start(&place, &["report", "run", "--serve", "--port", "0", "--host", "127.0.0.1"]);
    assert!(other.query.starts_with("?token=") && other.query != served.query);
    other.query = served.query.clone();
    assert_eq!(other.ask(&format!("GET /{}", other.query), &other.host, "").0, 403, "each has its own");
}

#[test]
fn a_run_that_another_process_writes_is_followed() {
    let (place, lines) = kept();
    fs::write(place.path("run/records.jsonl"), &lines[0]).expect("written");
    let served = Served::start(&place, &["report", "run", "--serve", "--port", "0"]);
    let mut events = served.events();
    assert_eq!(events.next(), (1, 2, "running".to_owned()));
    assert!(served.page().contains("No answer yet: 1 of 2 not run") && !served.page().contains("id=\"stop\""));
    let mut records = OpenOptions::new().append(true).open(place.path("run/records.jsonl")).expect("records");
    records.write_all(lines[1].as_bytes()).expect("written");
    assert_eq!(events.next(), (2, 2, "running".to_owned()));
    assert!(served.page().contains("<h1>Fits</h1>"));
    assert_eq!(served.ask("POST /stop", &served.host, ASKS).0, 409);
    kill_process(Pid::from_child(&served.child), Signal::INT).expect("it runs");
    assert_eq!(served.end().0, Some(0));
}

#[test]
fn on_a_terminal_the_page_stays_until_ctrl_c() {
    for (stops, code) in [(false, 0), (true, 130)] {
        let place = Place::new();
        // Where it is to be stopped, its cases would take long.
        let mut served = Served::on_terminal(&place, &SWEEP, if stops { "sleep 600" } else { ANSWERS });
        if stops {
            assert_eq!(served.ask("POST /stop", &served.host, ASKS).0, 202);
        }
        served.until("The page stays at http://127.0.0.1:");
        assert_eq!(served.page().contains("4 of 4 not run"), stops);
        // The terminal stays open: where it closes, that is a second wish to end.
        let mut keyboard = served.child.stdin.take().expect("piped");
        keyboard.write_all(b"\x03").expect("typed");
        assert_eq!(served.end().0, Some(code), "stopped by the page: {stops}");
    }
}

#[test]
fn a_port_that_is_taken_is_told_of_before_anything_runs() {
    let place = Place::new();
    let taken = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let sweep = ["sweep", "smoke", "--gpu", "24GB", "--device", "virtual", "--out", "run", "--serve", "--port", &port];
    let said = stderr(&place.lowmem_with(ANSWERS).args(sweep).assert().code(2));
    assert!(said.contains(&format!("127.0.0.1, port {port}: another program has it: name another one")), "{said}");
    assert!(!place.path("run").exists());
    lowmem().args(["report", "run", "--port", "7000"]).assert().code(2);
    let (place, _) = kept();
    let said = stderr(&lowmem().current_dir(place.path("")).args(["report", "run", "--serve", "--host", "192.0.2.1"]).assert().code(2));
    assert!(said.contains("192.0.2.1") && said.contains("no address of this machine"), "{said}");
}

#[test]
#[cfg_attr(without_browser, ignore = "LOWMEM_WITHOUT_BROWSER=1")]
fn in_a_browser_the_page_changes_as_a_case_ends_and_stops_the_sweep() {
    let place = Place::new();
    let (served, browser) = (Served::sweep(&place), Browser::start());
    browser.open_address(&served.address(), 1280, "light");
    let until = |condition: &str| {
        browser.value(&format!(
            "new Promise((done, failed) => {{
                setTimeout(() => failed('it does not come to that'), {});
                const look = () => {condition} && done(true);
                new MutationObserver(look).observe(document.body, {{ childList: true, subtree: true, characterData: true, attributes: true }});
                look();
            }})",
            PATIENCE.as_millis()
        ))
    };
    until("lowmem.byId('live-said').textContent === '0 of 4 cases'");
    for done in 1..3 {
        go(&place);
        until(&format!("lowmem.byId('live-said').textContent.startsWith('{done} of 4 cases')"));
        until(&format!("document.querySelector('#answer').textContent.includes('{} of 4 not run')", 4 - done));
        // Who writes goes on writing in the next page.
        if done == 1 {
            browser.value("lowmem.byId('filter').focus(); lowmem.byId('filter').value = 'ok'; lowmem.byId('filter').oninput()");
        }
    }
    assert_eq!(
        browser.text("document.activeElement.id + ' ' + lowmem.byId('filter').value + ' ' + lowmem.byId('filter-said').textContent"),
        "filter ok 1 of 2 cases"
    );
    let axe = axe();
    for (width, theme) in [(1280, "light"), (390, "dark")] {
        browser.resize(width, theme);
        // Drawn anew.
        browser.value("new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))");
        holds(&browser, &axe, &format!("at {width} in {theme}"));
        keep(&browser, &format!("live-{width}-{theme}.png"));
    }
    assert_eq!(browser.value("[lowmem.byId('live-bar').value, lowmem.byId('live-bar').max]"), serde_json::json!([2, 4]));
    browser.value("lowmem.byId('stop').click()");
    until("lowmem.byId('live-said').textContent === 'Ended: 2 of 4 cases' && lowmem.byId('stop').hidden");
    let (code, said) = served.end();
    assert_eq!(code, Some(130), "{said}");
    assert_eq!(browser.complaints(), [""; 0]);
}
