//! Where something is served: the address that a server listens at, and the one that people open.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use super::access::Access;
use crate::error::Error;

/// Where a page is wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    /// At this address of the machine, which others may reach; without one this machine alone reaches it.
    pub(crate) host: Option<IpAddr>,
    /// At this port, 0 being any that is free; without one the first free one from the usual one.
    pub(crate) port: Option<u16>,
}

/// The port where none is named; the next free one where it is taken. The command line's help names it.
const DEFAULT_PORT: u16 = 7861;
/// So many ports are tried.
const TRIED: u16 = 100;

/// An address that is listened at, and who is let in there.
#[derive(Debug)]
pub(crate) struct Address {
    pub(crate) listener: TcpListener,
    pub(crate) access: Access,
    local: SocketAddr,
}

impl Address {
    /// For a page: other machines need a token. It is listened from now on, and whoever comes waits until somebody answers.
    pub(crate) fn of_page(wanted: Wanted) -> Result<Self, Error> {
        let access = if wanted.host.is_some() { Access::with_token()? } else { Access::ThisMachine };
        Self::open("the page", wanted, access)
    }

    /// For figures that a program fetches time and again. Such a program has no token: who asks for other machines lets all in.
    pub(crate) fn of_figures(wanted: Wanted) -> Result<Self, Error> {
        let is_own = wanted.host.is_none_or(|host| host.is_loopback());
        Self::open("the figures", wanted, if is_own { Access::ThisMachine } else { Access::Everybody })
    }

    fn open(what: &str, Wanted { host, port }: Wanted, access: Access) -> Result<Self, Error> {
        let ip = host.unwrap_or(Ipv4Addr::LOCALHOST.into());
        let mut tried = port.map_or(DEFAULT_PORT..=DEFAULT_PORT + TRIED, |port| port..=port).map(|port| TcpListener::bind((ip, port)));
        let is_taken = |bound: &std::io::Result<TcpListener>| bound.as_ref().is_err_and(|error| error.kind() == ErrorKind::AddrInUse);
        let bound = tried.find(|bound| !is_taken(bound)).unwrap_or(Err(ErrorKind::AddrInUse.into()));
        let listener = bound.map_err(|error| refused(what, ip, port, &error))?;
        let local = listener.local_addr().map_err(|error| refused(what, ip, port, &error))?;
        Ok(Self { listener, access, local })
    }

    /// Whether others than this machine's own may come.
    pub(crate) fn is_for_others(&self) -> bool {
        !matches!(self.access, Access::ThisMachine)
    }

    /// What people open: the address of a path, which begins with no slash.
    pub(crate) fn shown(&self, path: &str) -> String {
        let port = self.local.port();
        let host = match self.local.ip() {
            ip if ip.is_unspecified() => rustix::system::uname().nodename().to_string_lossy().into_owned(),
            IpAddr::V6(ip) => format!("[{ip}]"),
            IpAddr::V4(ip) => ip.to_string(),
        };
        let query = self.access.token().map(|token| format!("?token={token}")).unwrap_or_default();
        format!("http://{host}:{port}/{path}{query}")
    }
}

fn refused(what: &str, ip: IpAddr, port: Option<u16>, error: &std::io::Error) -> Error {
    let shown = port.map_or_else(|| format!("ports {DEFAULT_PORT} to {}", DEFAULT_PORT + TRIED), |port| format!("port {port}"));
    let advice = match error.kind() {
        ErrorKind::AddrInUse if port.is_some() => "another program has it: name another one, or 0 for any that is free",
        ErrorKind::AddrInUse => "other programs have them all: name another one with --port",
        ErrorKind::PermissionDenied => "ports below 1024 are the system's: name one above",
        ErrorKind::AddrNotAvailable => "that is no address of this machine: `ip address` lists them, and 0.0.0.0 is all of them",
        _ => return Error::Fault(format!("{what} cannot be served at {ip}, {shown}: {error}")),
    };
    Error::input(format!("{what} cannot be served at {ip}, {shown}: {advice}"))
}
