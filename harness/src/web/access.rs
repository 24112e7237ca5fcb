//! Who may look at what is served, and who may change something by it.
//!
//! Without a token the page is for browsers on this machine. What else such a browser has open must not reach it: a foreign page that has its own name lead to 127.0.0.1
//! is told by the name that it asks for, and no foreign page can send our header. With a token, who has it may look.

use super::request::Request;
use crate::error::Error;

/// What this machine is called by its own browsers.
const OWN_NAMES: [&str; 3] = ["127.0.0.1", "localhost", "[::1]"];

/// Who is let in.
#[derive(Debug)]
pub(crate) enum Access {
    /// The browsers and programs on this machine.
    ThisMachine,
    /// Those who have this token.
    Token(String),
    /// All who reach this machine.
    Everybody,
}

impl Access {
    /// Those who have a token, which is made here.
    pub(crate) fn with_token() -> Result<Self, Error> {
        Ok(Self::Token(made()?))
    }

    /// What lets in.
    pub(crate) fn token(&self) -> Option<&str> {
        match self {
            Self::Token(token) => Some(token),
            Self::ThisMachine | Self::Everybody => None,
        }
    }

    /// Whether that request is answered; else why not, which tells nothing of the run.
    pub(crate) fn check(&self, request: &Request) -> Result<(), &'static str> {
        match self {
            Self::Token(token) if !request.token.as_deref().is_some_and(|given| is_same(given, token)) => {
                Err("The address with its token stands in the terminal that serves this page.")
            }
            Self::ThisMachine if !request.host.as_deref().is_some_and(is_own) => {
                Err("This is for programs on this machine: open it as 127.0.0.1 or localhost.")
            }
            _ => Ok(()),
        }
    }

    /// Whether that request, which was let in, is from our own page and no other.
    pub(crate) fn is_from_page(request: &Request) -> bool {
        let is_own_origin =
            request.origin.as_deref().is_none_or(|origin| origin.split_once("://").map(|(_, host)| host) == request.host.as_deref());
        request.asks == "stop" && is_own_origin
    }
}

/// Whether a `Host` is this machine. Any port will do: a tunnel has its own.
fn is_own(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    OWN_NAMES.iter().any(|own| own.eq_ignore_ascii_case(name))
}

/// Compares in a time that does not tell where they differ.
fn is_same(given: &str, token: &str) -> bool {
    given.len() == token.len() && given.bytes().zip(token.bytes()).fold(0, |differs, (one, other)| differs | (one ^ other)) == 0
}

/// 128 random bits.
fn made() -> Result<String, Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| Error::Fault(format!("no random numbers for a token: {error}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_goes_by_its_own_names_alone() {
        for own in ["127.0.0.1:7861", "localhost:9000", "LOCALHOST", "[::1]:7861", "[::1]"] {
            assert!(is_own(own), "{own}");
        }
        for other in [
            "",
            "evil.example:7861",
            "127.0.0.1.evil.example",
            "localhost.evil.example:7861",
            "127.0.0.1:",
            "10.0.0.1:7861",
            "127.0.0.1:7861@evil",
        ] {
            assert!(!is_own(other), "{other}");
        }
    }

    #[test]
    fn tokens_are_whole_and_never_the_same() {
        let [one, other] = [made().expect("random"), made().expect("random")];
        assert!(one.len() == 32 && one != other && is_same(&one, &one.clone()));
        assert!(!is_same(&one, &other) && !is_same("", &one) && !is_same(&one[..31], &one));
    }
}
