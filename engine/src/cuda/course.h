// How memory went while a program ran, in so few moments that there is room for them.
//
// Moments are put into parts of equal length, of which each keeps its highest and its lowest one; where there are too many parts, each two become one. So the peak is never
// lost. `engine/protocol/src/thinned.rs` does the same for the engine itself.

#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <vector>

namespace lowmem {

// What blocks can be for: see peak.cpp.
constexpr size_t kinds = 5;

class Course {
 public:
  struct Moment {
    // After how many others it was.
    uint64_t at;
    // Of a highest moment, the most that was reserved in its part.
    uint64_t reserved;
    std::array<uint64_t, kinds> bytes;

    uint64_t allocated() const {
      return std::accumulate(bytes.begin(), bytes.end(), uint64_t{0});
    }
  };

  // As many moments as there can be.
  static constexpr size_t most_moments = 512;

  void see(uint64_t reserved, const std::array<uint64_t, kinds>& bytes) {
    const Moment moment{seen_++, reserved, bytes};
    if (moment.at / length_ >= most_moments / 2) {
      halve();
    }
    if (moment.at / length_ >= parts_.size()) {
      parts_.push_back({moment, moment});
      return;
    }
    parts_.back().take({moment, moment});
  }

  uint64_t seen() const {
    return seen_;
  }

  // Those that are kept, in order.
  std::vector<Moment> moments() const {
    std::vector<Moment> kept;
    for (const auto& [high, low] : parts_) {
      kept.push_back(high.at <= low.at ? high : low);
      if (high.at != low.at) {
        kept.push_back(high.at <= low.at ? low : high);
      }
    }
    return kept;
  }

 private:
  struct Part {
    Moment high;
    Moment low;

    // Takes in a part that comes after it.
    void take(const Part& later) {
      const uint64_t reserved = std::max(high.reserved, later.high.reserved);
      if (later.high.allocated() > high.allocated()) {
        high = later.high;
      }
      if (later.low.allocated() < low.allocated()) {
        low = later.low;
      }
      high.reserved = reserved;
    }
  };

  void halve() {
    length_ *= 2;
    std::vector<Part> halved;
    for (size_t index = 0; index < parts_.size(); index += 2) {
      halved.push_back(parts_[index]);
      if (index + 1 < parts_.size()) {
        halved.back().take(parts_[index + 1]);
      }
    }
    parts_ = std::move(halved);
  }

  std::vector<Part> parts_;
  uint64_t length_ = 1;
  uint64_t seen_ = 0;
};

} // namespace lowmem
