//! When other ranks come to a collective, where they are processes that can tell each other: a collective begins when the last of its ranks is there.
//!
//! # Note: who is met, and how
//! The environment may name a folder in which ranks meet that are a process each. There each has a socket for each of its communicators, and for every group of sends and
//! receives, and for every collective, it tells those it exchanges with when it comes to it by its virtual clock, and waits until they have told it. Two ranks come to what they exchange in the
//! same order, so that the first message of one answers the first of the other. Each tells before it waits, so none waits in a circle. What goes on meanwhile takes no virtual time. A rank
//! whose process is gone is waited for until whoever started them ends the others, or the folder is gone.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use crate::device::{Span, lock};

/// From one look for a rank that has not come to the next.
const BETWEEN_LOOKS: Duration = Duration::from_millis(1);
/// So long a rank is waited for until it is seen whether anybody still wants to meet.
const BETWEEN_DOUBTS: Duration = Duration::from_secs(1);
/// The rank that tells, and its time in three worlds.
const MESSAGE_BYTES: usize = 4 + 3 * 8;

/// The ranks of a communicator, as one of them meets them.
pub(super) struct Meeting {
    /// Open as long as this is, since paths to sockets are short and go by it.
    folder: File,
    name: String,
    rank: i32,
    socket: UnixDatagram,
    /// What others told before it was asked for.
    told: Mutex<BTreeMap<i32, VecDeque<Span>>>,
}

impl Meeting {
    /// Comes to the meeting of the communicator `name` in `folder`.
    pub(super) fn join(folder: &Path, name: &str, rank: i32) -> io::Result<Self> {
        let folder = File::open(folder)?;
        let socket = UnixDatagram::bind(place(&folder, name, rank))?;
        socket.set_read_timeout(Some(BETWEEN_DOUBTS))?;
        Ok(Self { folder, name: name.to_owned(), rank, socket, told: Mutex::default() })
    }

    /// When the last of this rank, which is there at `own`, and `others` is there too.
    pub(super) fn all_there(&self, own: Span, others: impl Iterator<Item = i32> + Clone) -> Span {
        others.clone().for_each(|other| self.tell(other, own));
        others.fold(own, |latest, other| self.hear(other).map_or(latest, |there| latest.max(there)))
    }

    fn tell(&self, other: i32, time: Span) {
        let mut message = self.rank.to_le_bytes().to_vec();
        message.extend(time.0.iter().flat_map(|secs| secs.to_le_bytes()));
        let to = place(&self.folder, &self.name, other);
        // One that has not come yet has no socket.
        while self.socket.send_to(&message, &to).is_err_and(|error| error.kind() == ErrorKind::NotFound) && self.goes_on() {
            thread::sleep(BETWEEN_LOOKS);
        }
    }

    /// What that rank tells next; nothing where nobody meets any more.
    fn hear(&self, other: i32) -> Option<Span> {
        let mut told = lock(&self.told);
        loop {
            if let Some(time) = told.get_mut(&other).and_then(VecDeque::pop_front) {
                return Some(time);
            }
            let mut message = [0; MESSAGE_BYTES];
            match self.socket.recv(&mut message) {
                Ok(MESSAGE_BYTES) => {
                    let (rank, time) = read(&message);
                    told.entry(rank).or_default().push_back(time);
                }
                _ if !self.goes_on() => return None,
                _ => {}
            }
        }
    }

    /// Whether the folder is there still.
    fn goes_on(&self) -> bool {
        fs::read_dir(by_number(&self.folder)).is_ok_and(|mut files| files.next().is_some())
    }
}

impl Drop for Meeting {
    fn drop(&mut self) {
        // What a process leaves that ends otherwise goes with the folder.
        let _ = fs::remove_file(place(&self.folder, &self.name, self.rank));
    }
}

fn read(message: &[u8; MESSAGE_BYTES]) -> (i32, Span) {
    let (rank, secs) = message.split_at(4);
    let mut time = Span::default();
    for (time, secs) in time.0.iter_mut().zip(secs.chunks_exact(8)) {
        *time = f64::from_le_bytes(secs.try_into().unwrap_or_default());
    }
    (i32::from_le_bytes(rank.try_into().unwrap_or_default()), time)
}

/// The folder by a name that is short, as names of sockets have to be.
fn by_number(folder: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()))
}

/// Where the socket of a rank is. Names of communicators are long.
fn place(folder: &File, name: &str, rank: i32) -> PathBuf {
    let sum = name.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(0x100_0000_01b3) ^ u64::from(byte));
    by_number(folder).join(format!("{sum:016x}.{rank}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_is_waited_for_in_each_world() {
        let folder = std::env::temp_dir().join(format!("lowmem-arrivals-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let times = [[1.0, 2.0, 9.0], [4.0, 1.0, 3.0], [2.0, 5.0, 1.0]];
        let all: Vec<[Span; 2]> = thread::scope(|scope| {
            let rank = |(rank, time): (i32, [f64; 3])| {
                let folder = &folder;
                scope.spawn(move || {
                    let meeting = Meeting::join(folder, "a", rank).expect("a socket");
                    // The second time each meets the one before it and the one after it, and is there a second later.
                    let own = Span(time);
                    let first = meeting.all_there(own, (0..3).filter(move |&other| other != rank));
                    [first, meeting.all_there(own + Span([1.0; 3]), [(rank + 1) % 3, (rank + 2) % 3].into_iter())]
                })
            };
            let threads: Vec<_> = (0..3).zip(times).map(rank).collect();
            threads.into_iter().map(|thread| thread.join().expect("no rank panics")).collect()
        });
        fs::remove_dir_all(&folder).expect("removed");
        for [first, second] in all {
            assert_eq!([first, second], [Span([4.0, 5.0, 9.0]), Span([5.0, 6.0, 10.0])]);
        }
    }
}
