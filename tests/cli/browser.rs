//! A browser without a window, for tests of pages: Debian's Chromium, driven over two pipes by its own protocol.
//!
//! The crates that drive browsers open ports and bring an encrypted network with them; pipes need neither.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

/// Where a browser may be; `LOWMEM_BROWSER` names another one.
const PLACES: [&str; 3] = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

/// A browser with one page open.
pub(crate) struct Browser {
    child: Child,
    inner: RefCell<Pipes>,
    session: String,
    _profile: TempDir,
}

struct Pipes {
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    sent: u64,
    /// What the page said on its console, and what went wrong in it.
    complaints: Vec<String>,
    /// Events that came while an answer was waited for.
    events: Vec<String>,
}

impl Browser {
    /// Starts one.
    ///
    /// # Panics
    /// Where there is none: `LOWMEM_WITHOUT_BROWSER=1` at build time has such tests ignored, and says so of each.
    pub(crate) fn start() -> Self {
        let named = std::env::var("LOWMEM_BROWSER").ok();
        let browser = named.as_deref().or_else(|| PLACES.into_iter().find(|place| Path::new(place).is_file()));
        let browser =
            browser.expect("no browser: install chromium, name one with LOWMEM_BROWSER, or build the tests with LOWMEM_WITHOUT_BROWSER=1");
        let profile = tempfile::tempdir().expect("a folder");
        // The browser reads orders from descriptor 3 and answers on 4.
        let mut child = Command::new("/bin/sh")
            .args(["-c", r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null 2>/dev/null"#, browser])
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the browser starts");
        let (to, from) = (child.stdin.take().expect("piped"), BufReader::new(child.stdout.take().expect("piped")));
        let pipes = Pipes { to, from, sent: 0, complaints: Vec::new(), events: Vec::new() };
        let mut browser = Self { child, inner: RefCell::new(pipes), session: String::new(), _profile: profile };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attached = browser.call("Target.attachToTarget", json!({ "targetId": target["targetId"], "flatten": true }));
        browser.session = attached["sessionId"].as_str().expect("a session").to_owned();
        for domain in ["Page.enable", "Runtime.enable", "Log.enable"] {
            browser.call(domain, json!({}));
        }
        browser
    }

    /// Opens a file at that width, in that theme, and waits until it has loaded.
    pub(crate) fn open(&self, file: &Path, width: u32, theme: &str) {
        self.open_address(&format!("file://{}", file.display()), width, theme);
    }

    /// The same of an address.
    pub(crate) fn open_address(&self, address: &str, width: u32, theme: &str) {
        self.resize(width, theme);
        self.inner.borrow_mut().events.clear();
        self.call("Page.navigate", json!({ "url": address }));
        let mut inner = self.inner.borrow_mut();
        while !inner.events.iter().any(|event| event == "Page.loadEventFired") {
            inner.read();
        }
    }

    /// Another width and theme.
    pub(crate) fn resize(&self, width: u32, theme: &str) {
        let size = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.call("Emulation.setDeviceMetricsOverride", size);
        self.call("Emulation.setEmulatedMedia", json!({ "features": [{ "name": "prefers-color-scheme", "value": theme }] }));
    }

    /// The value of an expression in the page; a promise is waited for.
    pub(crate) fn value(&self, expression: &str) -> Value {
        let asked = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true, "userGesture": true });
        let answer = self.call("Runtime.evaluate", asked);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {}", answer["exceptionDetails"]);
        answer["result"]["value"].clone()
    }

    /// The text of an expression in the page.
    pub(crate) fn text(&self, expression: &str) -> String {
        let value = self.value(expression);
        value.as_str().unwrap_or_else(|| panic!("{expression} is {value}")).to_owned()
    }

    /// What the page complained of since it was opened: errors and warnings on the console.
    pub(crate) fn complaints(&self) -> Vec<String> {
        // What came before this answer has been read with it.
        self.value("1");
        self.inner.borrow().complaints.clone()
    }

    /// The whole page as a PNG, in base64.
    pub(crate) fn picture(&self) -> String {
        let picture = self.call("Page.captureScreenshot", json!({ "captureBeyondViewport": true, "format": "png" }));
        picture["data"].as_str().expect("a picture").to_owned()
    }

    fn call(&self, method: &str, parameters: Value) -> Value {
        let mut inner = self.inner.borrow_mut();
        inner.sent += 1;
        let mut order = json!({ "id": inner.sent, "method": method, "params": parameters });
        if !self.session.is_empty() {
            order["sessionId"] = self.session.clone().into();
        }
        write!(inner.to, "{order}\0").and_then(|()| inner.to.flush()).expect("the browser listens");
        loop {
            let message = inner.read();
            if message["id"] == inner.sent {
                assert!(message["error"].is_null(), "{method}: {}", message["error"]);
                return message["result"].clone();
            }
        }
    }
}

impl Pipes {
    fn read(&mut self) -> Value {
        let mut bytes = Vec::new();
        self.from.read_until(0, &mut bytes).expect("the browser answers");
        assert_eq!(bytes.pop(), Some(0), "the browser has ended");
        let message: Value = serde_json::from_slice(&bytes).expect("JSON");
        let parameters = &message["params"];
        match message["method"].as_str() {
            Some("Runtime.exceptionThrown") => self.complaints.push(parameters["exceptionDetails"].to_string()),
            Some("Log.entryAdded") => self.complaints.push(parameters["entry"].to_string()),
            Some("Runtime.consoleAPICalled") if parameters["type"] != "log" => self.complaints.push(parameters["args"].to_string()),
            Some(method) => self.events.push(method.to_owned()),
            None => {}
        }
        message
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.child.kill().and_then(|()| self.child.wait()).expect("the browser ends");
    }
}
