//! What is answered to those who look: the page, what changes as it changes, and the wish to stop.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::board::{Board, FAREWELL, State};
use crate::web::{Access, Request, head, say, send};

/// How often something is said while nothing changes, which tells whether anybody is there.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);

/// Answers a request of somebody who was let in.
pub(super) fn answer(board: &Board, request: &Request, stream: &mut TcpStream) -> io::Result<()> {
    match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/") => match board.page() {
            Ok(page) => send(stream, "200 OK", "text/html; charset=utf-8", &page),
            Err(error) => say(stream, "500 Internal Server Error", &error.to_string()),
        },
        ("GET", "/events") => tell(board, stream),
        ("POST", "/stop") if !Access::is_from_page(request) => say(stream, "403 Forbidden", "The page has a button for that."),
        ("POST", "/stop") if board.stop() => say(stream, "202 Accepted", "Cases that run end."),
        ("POST", "/stop") => say(stream, "409 Conflict", "Another program runs the cases: stop it there."),
        (_, "/" | "/events" | "/stop") => say(stream, "405 Method Not Allowed", "That is not done here."),
        _ => say(stream, "404 Not Found", "There is no such page here."),
    }
}

/// Tells how far the run is, at each change, until it has ended.
fn tell(board: &Board, stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(head("200 OK", "text/event-stream", "").as_bytes())?;
    let (listener, mut known) = (board.listen(), 0);
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
