//! A request as it comes in: its head, of bounded size and within bounded time. Nothing that is served here has a body.

use std::io::{self, ErrorKind, Read};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// The longest head.
const MOST_BYTES: usize = 16 << 10;
/// The most lines of it.
const MOST_HEADERS: usize = 64;
/// The longest that a head may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a request asks for, as far as it matters here.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) token: Option<String>,
    /// Empty where there is none, or more than one.
    pub(crate) host: Option<String>,
    pub(crate) origin: Option<String>,
    /// What our own page asks for beside that.
    pub(crate) asks: String,
}

impl Request {
    /// Reads one; an error of the kind `InvalidData` where it is none.
    pub(crate) fn read(stream: &mut TcpStream) -> io::Result<Self> {
        let (mut head, mut chunk, begun) = (Vec::new(), [0; 2048], Instant::now());
        stream.set_read_timeout(Some(PATIENCE))?;
        loop {
            let count = stream.read(&mut chunk)?;
            if count == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            head.extend(chunk.iter().take(count));
            if let Some(request) = parsed(&head)? {
                return Ok(request);
            }
            if head.len() > MOST_BYTES || begun.elapsed() > PATIENCE {
                return Err(ErrorKind::InvalidData.into());
            }
        }
    }
}

/// The request of a head; nothing as long as it is not whole.
fn parsed(head: &[u8]) -> io::Result<Option<Request>> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut found = httparse::Request::new(&mut headers);
    let status = found.parse(head).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
    if status.is_partial() {
        return Ok(None);
    }
    let only = |name: &str| {
        let mut named = found.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
        let value = named.next().and_then(|header| std::str::from_utf8(header.value).ok());
        value.filter(|_| named.next().is_none()).map(str::to_owned)
    };
    let (path, query) = found.path.map(|target| target.split_once('?').unwrap_or((target, ""))).unwrap_or_default();
    Ok(Some(Request {
        method: found.method.unwrap_or_default().to_owned(),
        path: path.to_owned(),
        token: query.split('&').find_map(|pair| pair.strip_prefix("token=")).map(str::to_owned),
        host: only("host"),
        origin: only("origin"),
        asks: only("x-lowmem").unwrap_or_default(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_taken_when_it_is_whole() {
        let head = "POST /stop?a=b&token=abc HTTP/1.1\r\nHost: localhost:7861\r\nX-LOWMEM: stop\r\nOrigin: http://localhost:7861\r\n\r\n";
        let own = |text: &str| Some(text.to_owned());
        let whole = Request {
            method: "POST".into(),
            path: "/stop".into(),
            token: own("abc"),
            host: own("localhost:7861"),
            origin: own("http://localhost:7861"),
            asks: "stop".into(),
        };
        assert_eq!(parsed(head.as_bytes()).expect("a request"), Some(whole));
        assert_eq!(parsed(&head.as_bytes()[..head.len() - 1]).expect("the beginning of one"), None);
        assert!(parsed(b"\x16\x03\x01 no http").is_err());
        let twice = parsed(b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n").expect("a request");
        assert_eq!(twice.and_then(|request| request.host), None);
    }
}
