// The warps of a block on the CPU. They run one after the other, each whole, unless a test asks for what a GPU may do to them: it runs them at once, and copies arrive later than they
// were begun. Then they take turns from one meeting of all warps to the next, first to last or last to first, and copies arrive at once or as late as they may. So a meeting or a
// wait that is missing changes the result.
//
// A part of `warp.cuh`.

#pragma once

#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>
#include <vector>

namespace kernels {

// What a test asks for.
struct Order {
  bool is_asked_for;
  bool from_last;
  bool copies_late;
};
inline thread_local Order order_of_warps{};

// Whose turn it is.
class Block {
 public:
  // Waits for the first turn.
  void enter(int place) {
    std::unique_lock lock(mutex_);
    wait(lock, place);
  }

  // Waits until all others are here, or gone.
  void meet(int place) {
    std::unique_lock lock(mutex_);
    pass_on();
    wait(lock, place);
  }

  void leave(int place) {
    const std::unique_lock lock(mutex_);
    gone_[place] = true;
    pass_on();
  }

 private:
  void pass_on() {
    for (int tried = 0; tried < WARPS; ++tried) {
      turn_ = (turn_ + 1) % WARPS;
      if (!gone_[turn_]) {
        break;
      }
    }
    changed_.notify_all();
  }

  void wait(std::unique_lock<std::mutex>& lock, int place) {
    changed_.wait(lock, [&] { return turn_ == place; });
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  int turn_ = 0;
  bool gone_[WARPS] = {};
};

// A warp that takes turns with others.
class Warp {
 public:
  Warp(Block& block, int number, Order order) : number(number), block_(block), place_(order.from_last ? WARPS - 1 - number : number), copies_late_(order.copies_late) {
    block_.enter(place_);
  }

  ~Warp() {
    block_.leave(place_);
  }

  void meet() {
    block_.meet(place_);
  }

  // Begins to copy 16 bytes.
  void copy(unsigned char* to, const unsigned char* from) {
    const Copy copy{to, from};
    if (copies_late_) {
      groups_.back().push_back(copy);
    } else {
      copy.arrive();
    }
  }

  void close_copies() {
    groups_.emplace_back();
  }

  // All groups that are closed, but the newest `pending` of them.
  void wait_for_copies(int pending) {
    for (std::size_t group = 0; group + pending + 1 < groups_.size(); ++group) {
      for (const Copy& copy : groups_[group]) {
        copy.arrive();
      }
      groups_[group].clear();
    }
  }

  const int number;

 private:
  struct Copy {
    unsigned char* to;
    const unsigned char* from;

    void arrive() const {
      std::memcpy(to, from, 16);
    }
  };

  Block& block_;
  const int place_;
  const bool copies_late_;
  // The last one is open.
  std::vector<std::vector<Copy>> groups_{1};
};

// The one that this thread is; none where warps run one after the other.
inline thread_local Warp* this_warp = nullptr;

// What a thread of the block does of what all of them do together: the first, and the one after that. A warp that runs alone finds in shared memory what it puts there itself, so it does all.
inline int first_of_block() {
  return this_warp == nullptr ? 0 : this_warp->number * LANES;
}
inline int next_of_block(int index) {
  const bool is_warps_last = this_warp != nullptr && (index + 1) % LANES == 0;
  return index + 1 + (is_warps_last ? LANES * (WARPS - 1) : 0);
}

// Runs `body` for each warp of a block.
template <typename Body>
void each_warp_of_block(const Body& body) {
  const Order order = order_of_warps;
  if (!order.is_asked_for) {
    for (int warp = 0; warp < WARPS; ++warp) {
      body(warp);
    }
    return;
  }
  Block block;
  std::vector<std::jthread> threads;
  for (int number = 0; number < WARPS; ++number) {
    threads.emplace_back([&block, &body, order, number] {
      Warp warp(block, number, order);
      this_warp = &warp;
      body(number);
    });
  }
}

} // namespace kernels
