//! A run's page while its cases run: served from this machine, made from the run directory whenever somebody asks for it.
//!
//! What those who look are told is in `board`, and `answer` tells it. Who may look is decided in `crate::web`.

mod answer;
mod board;
mod follow;

use std::path::Path;
use std::sync::Arc;
use std::thread;

use crate::error::Error;
use crate::interrupt::Interrupt;
use crate::progress::Reached;
use crate::web::{self, Address};
use board::Board;

/// A page that is served until this program ends.
pub(crate) struct Live {
    board: Arc<Board>,
    shown: String,
}

impl Live {
    /// Serves the page of the run in `dir`, whose cases this process runs until `interrupt`.
    pub(crate) fn start(address: Address, dir: &Path, interrupt: Interrupt, reached: Reached) -> Result<Self, Error> {
        Self::serve(address, Board::new(dir.to_owned(), Some(interrupt), reached))
    }

    /// Serves the page of the run in `dir`, whose cases another process may run.
    pub(crate) fn follow(address: Address, dir: &Path) -> Result<Self, Error> {
        let (seen, reached) = follow::look(dir)?;
        let live = Self::serve(address, Board::new(dir.to_owned(), None, reached))?;
        follow::start(Arc::clone(&live.board), dir.to_owned(), seen)?;
        Ok(live)
    }

    fn serve(address: Address, board: Board) -> Result<Self, Error> {
        let (board, shown) = (Arc::new(board), address.shown(""));
        tell!("The page: {shown}");
        if address.is_for_others() {
            tell!("Whoever has this address, with its token, and reaches this machine can use the page. What it sends is not encrypted.");
        }
        let told = Arc::clone(&board);
        web::start(address, move |request, stream| answer::answer(&told, request, stream))?;
        Ok(Self { board, shown })
    }

    /// The run has got so far, and its page is another one.
    pub(crate) fn reach(&self, reached: Reached) {
        self.board.reach(reached);
    }

    /// The run has ended: all who look are told so.
    pub(crate) fn end(&self) {
        self.board.end();
    }

    /// Waits until the user wants to end.
    pub(crate) fn stay(&self, interrupt: Interrupt) {
        tell!("The page stays at {} until Ctrl-C.", self.shown);
        while self.board.was_stopped() {
            // A Ctrl-C is then the second one, and ends the program.
            thread::park();
        }
        interrupt.wait();
    }
}
