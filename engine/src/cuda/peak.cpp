// What lives in PyTorch's caching allocator, and when it has given out most: each block, and what it was for as far as the program's owner says so.
//
// The allocator tells of each block. A block that is let go of is kept in mind only if it lived at the peak, and a new peak forgets those: so the books are no larger
// than the peak is, and a block costs the same however long the program runs. The allocator's lock is held meanwhile, so that Python may be asked nothing: a new
// peak is told at the end of the operation that reached it.

#include "peak.h"

#include "course.h"

#include <c10/cuda/CUDACachingAllocator.h>
#include <dlfcn.h>

#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <shared_mutex>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

// Declared in a header that includes the headers of every CUDA library.
namespace at::cuda {
struct WorkspaceMapWithMutex {
  std::map<std::tuple<void*, void*>, std::pair<at::DataPtr, size_t>> map;
  std::shared_mutex mutex;
};
WorkspaceMapWithMutex& cublas_handle_stream_to_workspace();
WorkspaceMapWithMutex& cublaslt_handle_stream_to_workspace();
} // namespace at::cuda

namespace lowmem {
namespace {

// What a block is for; the numbers above, less than `kinds`, are the caller's own.
constexpr int unknown = 0;
constexpr int workspace = 1;

struct Block {
  size_t bytes;
  uint64_t born;
  // The convolution that asked for it.
  unsigned long long convolution;
  int kind = unknown;
  int group = 0;
};

struct Device {
  std::unordered_map<size_t, Block> live;
  // Those that lived at the peak, and do no more.
  std::vector<Block> gone;
  size_t allocated = 0;
  // The same by what it is for.
  std::array<uint64_t, kinds> by_kind{};
  size_t reserved = 0;
  Course course;
  size_t peak = 0;
  size_t reserved_at_peak = 0;
  // The number of blocks until the peak.
  uint64_t peaked = 0;
  // The peak that was told.
  size_t told = 0;
};

using OnPeak = void (*)(int device);
// The allocator has given out that memory. Where nothing is computed nobody writes there, and what stood there before would be read as a result.
using OnGivenOut = int (*)(size_t address, size_t bytes);

std::mutex mutex;
std::vector<Device> devices;
uint64_t blocks = 0;
std::atomic<OnPeak> on_peak = nullptr;
OnGivenOut virtual_given_out = nullptr;
thread_local int peaked_device = -1;
thread_local unsigned long long convolution = 0;
std::atomic<unsigned long long> convolutions = 0;

// As the allocator counts.
size_t rounded(size_t bytes) {
  return (bytes + 511) / 512 * 512;
}

void allocated(Device& device, int number, size_t address, size_t size) {
  const size_t bytes = rounded(size);
  device.live[address] = Block{bytes, ++blocks, convolution};
  device.allocated += bytes;
  device.by_kind[unknown] += bytes;
  device.course.see(device.reserved, device.by_kind);
  if (device.allocated <= device.peak) {
    return;
  }
  device.peak = device.allocated;
  device.peaked = blocks;
  device.reserved_at_peak = device.reserved;
  device.gone.clear();
  // What adds a little to what another one took says nothing.
  if (device.peak > device.told + device.told / 100) {
    peaked_device = number;
  }
}

void let_go(Device& device, size_t address) {
  const auto found = device.live.find(address);
  if (found == device.live.end()) {
    return;
  }
  Block block = found->second;
  device.live.erase(found);
  device.allocated -= block.bytes;
  device.by_kind[static_cast<size_t>(block.kind)] -= block.bytes;
  device.course.see(device.reserved, device.by_kind);
  if (block.born <= device.peaked) {
    // What a convolution asks for and gives back itself is cuDNN's workspace.
    if (block.kind == unknown && block.convolution != 0 && block.convolution == convolution) {
      block.kind = workspace;
    }
    device.gone.push_back(block);
  }
}

void heard(const c10::CachingDeviceAllocator::TraceEntry& entry) {
  using Entry = c10::CachingDeviceAllocator::TraceEntry;
  const std::lock_guard guard(mutex);
  const auto number = static_cast<size_t>(entry.device_);
  if (devices.size() <= number) {
    devices.resize(number + 1);
  }
  Device& device = devices[number];
  switch (entry.action_) {
    case Entry::ALLOC:
      if (virtual_given_out != nullptr) {
        virtual_given_out(entry.addr_, rounded(entry.size_));
      }
      return allocated(device, entry.device_, entry.addr_, entry.size_);
    case Entry::FREE_REQUESTED:
      return let_go(device, entry.addr_);
    case Entry::SEGMENT_ALLOC:
    case Entry::SEGMENT_MAP:
      device.reserved += entry.size_;
      return;
    case Entry::SEGMENT_FREE:
    case Entry::SEGMENT_UNMAP:
      device.reserved -= entry.size_;
      return;
    default:
      return;
  }
}

void mark(size_t address, int kind, int group) {
  for (auto& device : devices) {
    const auto found = device.live.find(address);
    if (found == device.live.end()) {
      continue;
    }
    // The first word counts, a weight stays one; but a module may have become a part of another one since.
    Block& block = found->second;
    if (block.kind == unknown || (block.kind == kind && group != 0)) {
      device.by_kind[static_cast<size_t>(block.kind)] -= block.bytes;
      device.by_kind[static_cast<size_t>(kind)] += block.bytes;
      block.kind = kind;
      block.group = group;
    }
  }
}

void mark_workspaces(at::cuda::WorkspaceMapWithMutex& workspaces) {
  const std::shared_lock theirs(workspaces.mutex);
  const std::lock_guard ours(mutex);
  for (const auto& [_, held] : workspaces.map) {
    mark(reinterpret_cast<size_t>(held.first.get()), workspace, 0);
  }
}

} // namespace

unsigned long long operation_begins(bool is_convolution) {
  const auto outer = convolution;
  if (is_convolution && outer == 0 && hears_peaks()) {
    convolution = ++convolutions;
  }
  return outer;
}

void operation_ended(unsigned long long outer, bool is_outermost) {
  convolution = outer;
  if (!is_outermost || peaked_device < 0) {
    return;
  }
  const int number = std::exchange(peaked_device, -1);
  {
    const std::lock_guard guard(mutex);
    devices[static_cast<size_t>(number)].told = devices[static_cast<size_t>(number)].peak;
  }
  if (const auto told = on_peak.load()) {
    told(number);
  }
}

bool hears_peaks() {
  return on_peak.load(std::memory_order_relaxed) != nullptr;
}

} // namespace lowmem

extern "C" {

// From here on the books are kept, the virtual GPU hears what is given out, where it is there, and `on_peak` hears of each new peak, to within a hundredth, on the thread that reached it. Once a process. 0, or 1 where the
// allocator is another.
int lowmem_peak_watch(lowmem::OnPeak on_peak) {
  lowmem::virtual_given_out = reinterpret_cast<lowmem::OnGivenOut>(dlsym(RTLD_DEFAULT, "lowmem_virtual_gpu_given_out"));
  try {
    c10::cuda::CUDACachingAllocator::attachAllocatorTraceTracker(lowmem::heard);
    lowmem::on_peak = on_peak;
    return 0;
  } catch (const std::exception&) {
    return 1;
  }
}

// Nobody hears of a new peak any more.
void lowmem_peak_unwatch() {
  lowmem::on_peak = nullptr;
}

// Says what the blocks at those addresses are for: a number from 1 to 4.
void lowmem_peak_mark(const uint64_t* addresses, const int* groups, int count, int kind) {
  if (kind <= lowmem::unknown || kind >= static_cast<int>(lowmem::kinds)) {
    return;
  }
  const std::lock_guard guard(lowmem::mutex);
  for (int index = 0; index < count; ++index) {
    lowmem::mark(addresses[index], kind, groups[index]);
  }
}

// Allocated and reserved at the peak.
void lowmem_peak_totals(int device, uint64_t out[2]) {
  lowmem::mark_workspaces(at::cuda::cublas_handle_stream_to_workspace());
  lowmem::mark_workspaces(at::cuda::cublaslt_handle_stream_to_workspace());
  const std::lock_guard guard(lowmem::mutex);
  const auto number = static_cast<size_t>(device);
  const bool is_known = number < lowmem::devices.size();
  out[0] = is_known ? lowmem::devices[number].peak : 0;
  out[1] = is_known ? lowmem::devices[number].reserved_at_peak : 0;
}

// Of what lived at the peak, the bytes that are for `kind` and in `group`.
uint64_t lowmem_peak_bytes(int device, int kind, int group) {
  const std::lock_guard guard(lowmem::mutex);
  uint64_t bytes = 0;
  const auto count = [&](const lowmem::Block& block) { bytes += block.kind == kind && block.group == group ? block.bytes : 0; };
  const auto& books = lowmem::devices.at(static_cast<size_t>(device));
  for (const auto& [_, block] : books.live) {
    if (block.born <= books.peaked) {
      count(block);
    }
  }
  for (const auto& block : books.gone) {
    count(block);
  }
  return bytes;
}

// How memory went: of each moment that was kept how many came before it, what was reserved, and what was allocated for each kind. There is room for `most` of them. How many there
// are, and in `seen` of how many they were kept.
int lowmem_peak_course(int device, uint64_t (*out)[2 + lowmem::kinds], int most, uint64_t* seen) {
  const std::lock_guard guard(lowmem::mutex);
  const auto number = static_cast<size_t>(device);
  if (number >= lowmem::devices.size()) {
    return 0;
  }
  const auto& course = lowmem::devices[number].course;
  *seen = course.seen();
  int count = 0;
  for (const auto& moment : course.moments()) {
    if (count == most) {
      break;
    }
    auto* row = out[count++];
    row[0] = moment.at;
    row[1] = moment.reserved;
    std::copy(moment.bytes.begin(), moment.bytes.end(), row + 2);
  }
  return count;
}

} // extern "C"
