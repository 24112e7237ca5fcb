//! Takes connections and has each answered. One request a connection, and a bounded number of those.

use std::io::{self, ErrorKind, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::address::Address;
use super::request::Request;
use crate::error::Error;

/// The most connections at once; more are closed.
const MOST_CONNECTIONS: usize = 64;
/// The longest that somebody who looks may take nothing in.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long no connection is taken after one could not be: no more files can be open, for example.
const PAUSE: Duration = Duration::from_millis(100);

/// What every answer says. No other page can show ours in a frame, where a person might stop the run unawares, and the token goes nowhere.
const HEAD: &str = "Connection: close\r\nCache-Control: no-store\r\nContent-Security-Policy: frame-ancestors 'none'\r\nCross-Origin-Resource-Policy: same-origin\r\n\
    Referrer-Policy: no-referrer\r\nX-Content-Type-Options: nosniff\r\n";

/// Has requests of those who are let in answered by `answer` from now on, in threads of their own.
pub(crate) fn start<A>(address: Address, answer: A) -> Result<(), Error>
where
    A: Fn(&Request, &mut TcpStream) -> io::Result<()> + Send + Sync + 'static,
{
    let Address { listener, access, .. } = address;
    let served = Arc::new(move |mut stream: TcpStream| {
        stream.set_write_timeout(Some(PATIENCE))?;
        let request = match Request::read(&mut stream) {
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                return say(&mut stream, "400 Bad Request", "This is no request that is understood here.");
            }
            read => read?,
        };
        match access.check(&request) {
            Ok(()) => answer(&request, &mut stream),
            Err(why) => say(&mut stream, "403 Forbidden", why),
        }
    });
    let accept = move || {
        loop {
            match listener.accept() {
                // Each connection has a share in it, and this thread.
                Ok((stream, _)) if Arc::strong_count(&served) <= MOST_CONNECTIONS => {
                    let served = Arc::clone(&served);
                    // Where there is no thread for it, it is closed. Somebody who went away misses nothing.
                    drop(thread::Builder::new().name("viewer".into()).spawn(move || served(stream)));
                }
                Ok(_) => {}
                Err(_) => thread::sleep(PAUSE),
            }
        }
    };
    thread::Builder::new()
        .name("server".into())
        .spawn(accept)
        .map_err(|error| Error::Fault(format!("no thread to serve from: {error}")))?;
    Ok(())
}

/// The head of an answer of that type.
pub(crate) fn head(status: &str, kind: &str, more: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{more}{HEAD}\r\n")
}

/// Answers with a sentence.
pub(crate) fn say(stream: &mut TcpStream, status: &str, text: &str) -> io::Result<()> {
    send(stream, status, "text/plain; charset=utf-8", text)
}

/// Answers with a text of that type.
pub(crate) fn send(stream: &mut TcpStream, status: &str, kind: &str, text: &str) -> io::Result<()> {
    stream.write_all(head(status, kind, &format!("Content-Length: {}\r\n", text.len())).as_bytes())?;
    stream.write_all(text.as_bytes())?;
    stream.shutdown(Shutdown::Write)
}
