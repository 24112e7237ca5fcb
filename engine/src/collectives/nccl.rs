//! Ranks that are processes with a GPU each, which NCCL connects.
//!
//! Note: one communicator a stream, and sends and receives alone.
//! A group of some ranks is a list of them, and every operation is made of sends and receives that go at once. So no communicator is split, and all exchanges are in the
//! order of the stream that computes, but for weights that are gathered ahead, which have a communicator and a stream of their own. NCCL's own gathering would cross each link once where several hops are cheaper; among the ranks of one machine that is the same.
//!
//! Note: what is on the CPU.
//! It goes to the GPU and back. There what comes is laid over a copy of the own part: where nothing arrives, as on the virtual GPU, all ranks seem to have said the same.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use engine_protocol::RankRequest;
use tch::{Device, Tensor};

use super::{Collectives, Group, others, resized};
use crate::cuda::{CopyStream, DEVICE};
use crate::error::{Error, Result};
use crate::kernels::nccl::{Communicator, UniqueId, unique_id};
use crate::signs;
use crate::timing;

/// So long the other ranks wait for what the first one leaves for them. A first rank that has failed is noticed by who started it.
const PATIENCE: Duration = Duration::from_secs(300);
/// From one look for it to the next.
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

/// Ranks that NCCL connects, as one of them sees them.
#[derive(Debug)]
pub struct Nccl {
    communicator: Arc<Communicator>,
    /// The ranks of the group, as they are numbered among all.
    members: Vec<usize>,
    rank: usize,
}

impl Nccl {
    /// Meets all ranks of a video.
    ///
    /// # Errors
    /// A machine without NCCL, a first rank that does not come, and what NCCL says.
    pub fn meet(request: &RankRequest) -> Result<Self> {
        Self::meet_by(request, "nccl-id")
    }

    /// Meets them once more, for what is in the order of another stream.
    ///
    /// # Errors
    /// Those of [`Nccl::meet`].
    pub fn meet_again(request: &RankRequest) -> Result<Self> {
        Self::meet_by(request, "nccl-id-2")
    }

    fn meet_by(request: &RankRequest, file: &str) -> Result<Self> {
        let (rank, size) = (request.rank as usize, request.count as usize);
        let place = request.meeting.join(file);
        let id = if rank == 0 { leave(&place)? } else { signs::wait_for_ranks(|| find(&place))? };
        let communicator = signs::wait_for_ranks(|| Communicator::join(id, rank, size))?;
        Ok(Self { communicator: Arc::new(communicator), members: (0..size).collect(), rank })
    }

    /// Sends to ranks of this group and receives from them.
    fn exchange<'a>(
        &self,
        sent: impl Iterator<Item = (usize, &'a Tensor)>,
        received: impl Iterator<Item = (usize, &'a Tensor)>,
    ) -> Result<()> {
        let named = |(rank, tensor)| (self.members[rank], tensor);
        let (sent, received): (Vec<_>, Vec<_>) = (sent.map(named).collect(), received.map(named).collect());
        timing::exchange(|| signs::wait_for_ranks(|| self.communicator.exchange(&sent, &received)))
    }
}

/// Makes an identifier and leaves it in a file, in one step.
fn leave(meeting: &Path) -> Result<UniqueId> {
    let (id, draft) = (unique_id()?, meeting.with_extension("draft"));
    fs::write(&draft, id).and_then(|()| fs::rename(&draft, meeting)).map_err(|error| Error::file(meeting, error))?;
    Ok(id)
}

/// Waits for the file.
fn find(meeting: &Path) -> Result<UniqueId> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if let Ok(id) = fs::read(meeting) {
            return id.try_into().map_err(|_| Error::Ranks("what the first rank left is no identifier of NCCL's".into()));
        }
        thread::sleep(BETWEEN_LOOKS);
    }
    Err(Error::Ranks(format!("the first rank has not come in {} s", PATIENCE.as_secs())))
}

/// Where ranks can exchange it, in one piece.
fn on_gpu(tensor: &Tensor) -> Result<Tensor> {
    Ok(tensor.f_to_device(Device::Cuda(DEVICE as usize))?.f_contiguous()?)
}

/// A place for what another rank has, whose own part is `own` here and `source` where it came from.
fn place_for(own: &Tensor, source: &Tensor) -> Result<Tensor> {
    let mut place = own.f_empty_like()?;
    if source.device() == Device::Cpu {
        place.f_copy_(own)?;
    }
    Ok(place)
}

impl Collectives for Nccl {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.members.len()
    }

    fn all_to_all(&self, parts: Vec<Tensor>, axis: i64, sizes: &[i64]) -> Result<Vec<Tensor>> {
        if parts.len() != self.size() || sizes.len() != self.size() {
            return Err(Error::Ranks(format!("{} parts for {} ranks", parts.len(), self.size())));
        }
        // Views of one tensor mostly, which is gone after this, before there is room for what comes.
        let mut parts = parts.into_iter().map(|part| part.f_contiguous()).collect::<std::result::Result<Vec<_>, _>>()?;
        let own = &parts[self.rank];
        let room = |from: usize| Ok((from, own.f_new_empty(resized(own, axis, sizes[from]), (own.kind(), own.device()))?));
        let received = others(self).map(room).collect::<Result<Vec<_>>>()?;
        self.exchange(others(self).map(|to| (to, &parts[to])), received.iter().map(|(from, part)| (*from, part)))?;
        for (from, part) in received {
            parts[from] = part;
        }
        Ok(parts)
    }

    fn pass_on(&self, tensors: [Tensor; 2], axis: i64, size: i64) -> Result<[Tensor; 2]> {
        let (next, before) = ((self.rank + 1) % self.size(), (self.rank + self.size() - 1) % self.size());
        let room = |tensor: &Tensor| tensor.f_new_empty(resized(tensor, axis, size), (tensor.kind(), tensor.device()));
        let [first, second] = tensors.map(|tensor| tensor.f_contiguous());
        let sent = [first?, second?];
        let received = [room(&sent[0])?, room(&sent[1])?];
        self.exchange(sent.iter().map(|tensor| (next, tensor)), received.iter().map(|tensor| (before, tensor)))?;
        Ok(received)
    }

    fn all_gather(&self, part: &Tensor) -> Result<Vec<Tensor>> {
        let own = on_gpu(part)?;
        let all = (0..self.size()).map(|_| place_for(&own, part)).collect::<Result<Vec<_>>>()?;
        all[self.rank].shallow_clone().f_copy_(&own)?;
        self.exchange(others(self).map(|to| (to, &own)), others(self).map(|from| (from, &all[from])))?;
        all.into_iter().map(|one| Ok(one.f_to_device(part.device())?)).collect()
    }

    fn broadcast(&self, tensor: Tensor) -> Result<Tensor> {
        let device = tensor.device();
        let said = on_gpu(&tensor)?;
        drop(tensor);
        if self.rank == 0 {
            self.exchange(others(self).map(|to| (to, &said)), std::iter::empty())?;
        } else {
            self.exchange(std::iter::empty(), std::iter::once((0, &said)))?;
        }
        Ok(said.f_to_device(device)?)
    }

    fn gather_into(&self, places: &[Tensor], copies: Option<&mut CopyStream>) -> Result<()> {
        let (Some(copies), true) = (copies, places.len() == self.size()) else {
            return Err(Error::Ranks(format!("{} places for {} ranks, in a stream of copies", places.len(), self.size())));
        };
        let is_any = |rank: &usize| places[*rank].numel() > 0;
        let sent = others(self).filter(|_| is_any(&self.rank)).map(|to| (self.members[to], &places[self.rank]));
        let received = others(self).filter(is_any).map(|from| (self.members[from], &places[from]));
        let (sent, received): (Vec<_>, Vec<_>) = (sent.collect(), received.collect());
        signs::wait_for_ranks(|| self.communicator.exchange_in(copies, &sent, &received))
    }

    fn split(&self, members: &[usize]) -> Result<Group> {
        let Some(rank) = members.iter().position(|&member| member == self.rank) else {
            return Err(Error::Ranks(format!("rank {} asked for a group of ranks {members:?}, which it is not in", self.rank)));
        };
        let members = members.iter().map(|&member| self.members[member]).collect();
        Ok(Arc::new(Self { communicator: Arc::clone(&self.communicator), members, rank }))
    }
}
