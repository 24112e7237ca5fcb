//! Ranks that are threads of one process. They compute on the CPU.
//!
//! Note: how a wrong order is found.
//! A message says of which operation it is, of which group, and the how-manieth of that group's. Between two ranks messages come in the order in which they were sent, so
//! that a rank which is not in step is found by the next one that hears of it, whatever the time that each takes. A rank that ends takes its ends of the channels along, and
//! those who wait for it hear that it is gone.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use tch::Tensor;

use super::{Collectives, Group, others, resized};
use crate::cuda::CopyStream;
use crate::error::{Error, Result};

/// A group of threads, as one of them sees it.
#[derive(Debug)]
pub struct Threads {
    links: Arc<Links>,
    /// The ranks of the group, as they are numbered among all threads.
    members: Vec<usize>,
    rank: usize,
    /// Operations of the group until now.
    operations: AtomicU64,
}

/// One thread's ends of the channels between all.
#[derive(Debug)]
struct Links {
    to: Vec<Sender<Message>>,
    from: Vec<Mutex<Receiver<Message>>>,
}

#[derive(Debug)]
struct Message {
    step: Step,
    tensors: Vec<Tensor>,
}

/// One operation of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    operation: &'static str,
    members: Vec<usize>,
    number: u64,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (operation {} of ranks {:?})", self.operation, self.number, self.members)
    }
}

impl Threads {
    /// So many ranks, each to be moved into its own thread.
    pub fn new(size: usize) -> Vec<Self> {
        let mut links: Vec<_> = (0..size).map(|_| Links { to: Vec::new(), from: Vec::new() }).collect();
        for to in 0..size {
            for from in 0..size {
                let (sender, receiver) = channel();
                links[from].to.push(sender);
                links[to].from.push(Mutex::new(receiver));
            }
        }
        let members: Vec<usize> = (0..size).collect();
        let of = |(rank, links)| Self { links: Arc::new(links), members: members.clone(), rank, operations: AtomicU64::new(0) };
        links.into_iter().enumerate().map(of).collect()
    }

    /// The group's next operation.
    fn next(&self, operation: &'static str) -> Step {
        let number = self.operations.fetch_add(1, Ordering::Relaxed) + 1;
        Step { operation, members: self.members.clone(), number }
    }

    /// Sends copies: the sender may write into what it sent.
    fn send(&self, step: &Step, to: usize, tensors: &[&Tensor]) -> Result<()> {
        let tensors = tensors.iter().map(|tensor| copy(tensor)).collect::<Result<_>>()?;
        let message = Message { step: step.clone(), tensors };
        self.links.to[self.members[to]].send(message).map_err(|_| self.gone(step, to))
    }

    fn receive(&self, step: &Step, from: usize) -> Result<Vec<Tensor>> {
        let receiver = self.links.from[self.members[from]].lock().unwrap_or_else(PoisonError::into_inner);
        let message = receiver.recv().map_err(|_| self.gone(step, from))?;
        if message.step != *step {
            let [from, own] = [from, self.rank].map(|rank| self.members[rank]);
            return Err(Error::Ranks(format!("ranks are not in step: rank {from} is at {}, rank {own} at {step}", message.step)));
        }
        Ok(message.tensors)
    }

    fn receive_one(&self, step: &Step, from: usize) -> Result<Tensor> {
        Ok(self.receive(step, from)?.remove(0))
    }

    /// One that is to have that shape, as NCCL would have room for it and for no other.
    fn receive_shaped(&self, step: &Step, from: usize, shape: &[i64]) -> Result<Tensor> {
        let received = self.receive_one(step, from)?;
        self.check_shape(step, &received, shape).map(|()| received)
    }

    fn check_shape(&self, step: &Step, received: &Tensor, shape: &[i64]) -> Result<()> {
        if received.size() == shape {
            return Ok(());
        }
        Err(Error::Ranks(format!("rank {} got {:?} in {step}, and has room for {shape:?}", self.members[self.rank], received.size())))
    }

    fn gone(&self, step: &Step, rank: usize) -> Error {
        Error::Ranks(format!("rank {} is gone, and rank {} waits for it in {step}", self.members[rank], self.members[self.rank]))
    }
}

fn copy(tensor: &Tensor) -> Result<Tensor> {
    let mut copy = tensor.f_empty_like()?;
    copy.f_copy_(tensor)?;
    Ok(copy)
}

impl Collectives for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.members.len()
    }

    fn all_to_all(&self, mut parts: Vec<Tensor>, axis: i64, sizes: &[i64]) -> Result<Vec<Tensor>> {
        let step = self.next("all_to_all");
        if parts.len() != self.size() || sizes.len() != self.size() {
            return Err(Error::Ranks(format!("{} parts for {} ranks in {step}", parts.len(), self.size())));
        }
        others(self).try_for_each(|to| self.send(&step, to, &[&parts[to]]))?;
        for from in others(self) {
            let shape = resized(&parts[self.rank], axis, sizes[from]);
            parts[from] = self.receive_shaped(&step, from, &shape)?;
        }
        Ok(parts)
    }

    fn pass_on(&self, tensors: [Tensor; 2], axis: i64, tokens: i64) -> Result<[Tensor; 2]> {
        let (step, size) = (self.next("pass_on"), self.size());
        self.send(&step, (self.rank + 1) % size, &[&tensors[0], &tensors[1]])?;
        let shapes = tensors.map(|tensor| resized(&tensor, axis, tokens));
        let received = self.receive(&step, (self.rank + size - 1) % size)?;
        received.iter().zip(&shapes).try_for_each(|(received, shape)| self.check_shape(&step, received, shape))?;
        Ok(received.try_into().expect("two were sent"))
    }

    fn all_gather(&self, part: &Tensor) -> Result<Vec<Tensor>> {
        let step = self.next("all_gather");
        others(self).try_for_each(|to| self.send(&step, to, &[part]))?;
        (0..self.size()).map(|from| if from == self.rank { copy(part) } else { self.receive_one(&step, from) }).collect()
    }

    fn broadcast(&self, tensor: Tensor) -> Result<Tensor> {
        let step = self.next("broadcast");
        if self.rank > 0 {
            return self.receive_one(&step, 0);
        }
        others(self).try_for_each(|to| self.send(&step, to, &[&tensor]))?;
        Ok(tensor)
    }

    fn gather_into(&self, places: &[Tensor], _copies: Option<&mut CopyStream>) -> Result<()> {
        let step = self.next("gather_into");
        if places.len() != self.size() {
            return Err(Error::Ranks(format!("{} places for {} ranks in {step}", places.len(), self.size())));
        }
        others(self).try_for_each(|to| self.send(&step, to, &[&places[self.rank]]))?;
        others(self).try_for_each(|from| Ok(places[from].shallow_clone().f_copy_(&self.receive_one(&step, from)?)?))
    }

    fn split(&self, members: &[usize]) -> Result<Group> {
        let Some(rank) = members.iter().position(|&member| member == self.rank) else {
            return Err(Error::Ranks(format!("rank {} asked for a group of ranks {members:?}, which it is not in", self.rank)));
        };
        let members = members.iter().map(|&member| self.members[member]).collect();
        Ok(Arc::new(Self { links: Arc::clone(&self.links), members, rank, operations: AtomicU64::new(0) }))
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use tch::Kind;

    use super::*;

    /// What each of so many ranks comes to.
    fn each<T: Send>(size: usize, run: impl Fn(Threads) -> T + Sync) -> Vec<T> {
        thread::scope(|scope| {
            let threads: Vec<_> = Threads::new(size).into_iter().map(|rank| scope.spawn(|| run(rank))).collect();
            threads.into_iter().map(|thread| thread.join().expect("no rank panics")).collect()
        })
    }

    fn number(value: usize) -> Tensor {
        Tensor::from_slice(&[value as i64])
    }

    fn value(tensor: &Tensor) -> usize {
        tensor.max().int64_value(&[]) as usize
    }

    #[test]
    fn each_rank_gets_what_is_meant_for_it() {
        let got = each(3, |ranks| {
            let own = ranks.rank();
            let exchanged = ranks.all_to_all((0..3).map(|to| number(10 * own + to)).collect(), 0, &[1; 3]).unwrap();
            let passed = ranks.pass_on([number(own), number(own + 10)], 0, 1).unwrap();
            let gathered = ranks.all_gather(&number(own)).unwrap();
            let said = ranks.broadcast(number(own + 5)).unwrap();
            [exchanged, passed.into(), gathered, vec![said]].map(|tensors| tensors.iter().map(value).collect::<Vec<_>>())
        });
        for (own, [exchanged, passed, gathered, said]) in got.into_iter().enumerate() {
            assert_eq!(exchanged, [own, 10 + own, 20 + own]);
            let before = (own + 2) % 3;
            assert_eq!((passed, gathered, said), (vec![before, before + 10], vec![0, 1, 2], vec![5]));
        }
    }

    #[test]
    fn groups_of_some_ranks_do_not_hear_of_others() {
        let got = each(4, |ranks| {
            let pair = if ranks.rank() % 2 == 0 { [2, 0] } else { [1, 3] };
            let group = ranks.split(&pair).unwrap();
            let first = group.all_gather(&number(ranks.rank())).unwrap();
            assert!(ranks.split(&[(ranks.rank() + 1) % 4]).is_err());
            (group.rank(), first.iter().map(value).collect::<Vec<_>>())
        });
        assert_eq!(got, [(1, vec![2, 0]), (0, vec![1, 3]), (0, vec![2, 0]), (1, vec![1, 3])]);
    }

    #[test]
    fn what_was_sent_may_be_written_over() {
        let got = each(2, |ranks| {
            let mut own = Tensor::zeros([4], (Kind::Int64, tch::Device::Cpu)) + ranks.rank() as i64;
            let all = ranks.all_gather(&own).unwrap();
            let _ = own.fill_(7);
            all.iter().map(|part| value(&part.max())).collect::<Vec<_>>()
        });
        assert_eq!(got, [[0, 1], [0, 1]]);
    }

    #[test]
    fn ranks_that_are_not_in_step_are_named() {
        let said = each(2, |ranks| {
            let done = if ranks.rank() == 0 { ranks.all_gather(&number(1)).map(drop) } else { ranks.broadcast(number(1)).map(drop) };
            done.unwrap_err().to_string()
        });
        let wanted = "ranks are not in step: rank 1 is at ";
        // A rank that is told a broadcast only listens: the first one hears that it is gone.
        assert!(said[0].starts_with(wanted) || said[0].starts_with("rank 1 is gone"), "{said:?}");
        let second = "ranks are not in step: rank 0 is at all_gather (operation 1 of ranks [0, 1]), rank 1 at broadcast (operation 1 of ranks [0, 1])";
        assert_eq!(said[1], second);
    }

    #[test]
    fn a_rank_that_ends_is_missed() {
        let said = each(3, |ranks| if ranks.rank() == 2 { None } else { Some(ranks.all_gather(&number(1)).unwrap_err().to_string()) });
        for (own, said) in said.iter().take(2).enumerate() {
            let said = said.as_ref().expect("two ranks wait");
            assert!(said.contains("rank 2 is gone") || said.contains(&format!("rank {} is gone", 1 - own)), "{said}");
        }
    }
}
