//! Answers those who look: the page, what changes as it changes, and the wish to stop. One request a connection, and a bounded number of those.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::access::Access;
use super::address::Address;
use super::board::{Board, FAREWELL, State};
use super::request::Request;
use crate::error::Error;

/// The most connections at once; more are closed.
const MOST_CONNECTIONS: usize = 64;
/// The longest that somebody who looks may take nothing in.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often something is said while nothing changes, which tells whether anybody is there.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);
/// How long no connection is taken after one could not be: no more files can be open, for example.
const PAUSE: Duration = Duration::from_millis(100);

/// What every answer says. No other page can show ours in a frame, where a person might stop the run unawares, and the token goes nowhere.
const HEAD: &str = "Connection: close\r\nCache-Control: no-store\r\nContent-Security-Policy: frame-ancestors 'none'\r\nCross-Origin-Resource-Policy: same-origin\r\n\
    Referrer-Policy: no-referrer\r\nX-Content-Type-Options: nosniff\r\n";

/// What a connection's thread has.
struct Served {
    access: Access,
    board: Arc<Board>,
}

/// Answers from now on, in threads of its own.
pub(super) fn start(address: Address, board: Arc<Board>) -> Result<(), Error> {
    let Address { listener, access, .. } = address;
    let served = Arc::new(Served { access, board });
    let accept = move || {
        loop {
            match listener.accept() {
                // Each connection has a share in it, and this thread.
                Ok((stream, _)) if Arc::strong_count(&served) <= MOST_CONNECTIONS => {
                    let served = Arc::clone(&served);
                    // Where there is no thread for it, it is closed. Somebody who went away misses nothing.
                    drop(thread::Builder::new().name("viewer".into()).spawn(move || served.answer(stream)));
                }
                Ok(_) => {}
                Err(_) => thread::sleep(PAUSE),
            }
        }
    };
    thread::Builder::new()
        .name("page".into())
        .spawn(accept)
        .map_err(|error| Error::Fault(format!("no thread to serve the page: {error}")))?;
    Ok(())
}

impl Served {
    fn answer(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_write_timeout(Some(PATIENCE))?;
        let request = match Request::read(&mut stream) {
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                return say(&mut stream, "400 Bad Request", "This is no request that is understood here.");
            }
            read => read?,
        };
        if let Err(why) = self.access.check(&request) {
            return say(&mut stream, "403 Forbidden", why);
        }
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/") => match self.board.page() {
                Ok(page) => send(&mut stream, "200 OK", "text/html", &page),
                Err(error) => say(&mut stream, "500 Internal Server Error", &error.to_string()),
            },
            ("GET", "/events") => self.tell(&mut stream),
            ("POST", "/stop") if !Access::is_from_page(&request) => say(&mut stream, "403 Forbidden", "The page has a button for that."),
            ("POST", "/stop") if self.board.stop() => say(&mut stream, "202 Accepted", "Cases that run end."),
            ("POST", "/stop") => say(&mut stream, "409 Conflict", "Another program runs the cases: stop it there."),
            (_, "/" | "/events" | "/stop") => say(&mut stream, "405 Method Not Allowed", "That is not done here."),
            _ => say(&mut stream, "404 Not Found", "There is no such page here."),
        }
    }

    /// Tells how far the run is, at each change, until it has ended.
    fn tell(&self, stream: &mut TcpStream) -> io::Result<()> {
        stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{HEAD}\r\n").as_bytes())?;
        let (listener, mut known) = (self.board.listen(), 0);
        loop {
            let now = listener.wait(known, SIGN_OF_LIFE);
            let event = if now.version == known { ":\n\n".to_owned() } else { format!("data: {}\n\n", serde_json::to_string(&now)?) };
            stream.write_all(event.as_bytes())?;
            known = now.version;
            if now.state == State::Ended {
                // The page closes this when it has taken the last one.
                stream.set_read_timeout(Some(FAREWELL))?;
                return stream.read(&mut [0]).map(drop);
            }
        }
    }
}

fn say(stream: &mut TcpStream, status: &str, text: &str) -> io::Result<()> {
    send(stream, status, "text/plain", text)
}

fn send(stream: &mut TcpStream, status: &str, kind: &str, text: &str) -> io::Result<()> {
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: {kind}; charset=utf-8\r\nContent-Length: {}\r\n{HEAD}\r\n", text.len());
    stream.write_all(head.as_bytes())?;
    stream.write_all(text.as_bytes())?;
    stream.shutdown(Shutdown::Write)
}
