// What tch lacks: the caching allocator's counters and reports, streams, events, and page-locked memory.
//
// Every function answers 0, or 1 after an exception whose text `lowmem_error` then gives. No exception crosses into Rust.

#include <ATen/Context.h>
// Its members are apart by what this compiler takes for a line of the processor's cache, which is no part of what we use.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Winterference-size"
#include <ATen/core/CachingHostAllocator.h>
#pragma GCC diagnostic pop
#include <ATen/native/transformers/cuda/sdp_utils.h>
#include <ATen/ops/_scaled_dot_product_cudnn_attention.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/Allocator.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>
#include <c10/util/ThreadLocalDebugInfo.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <sys/mman.h>
#include <torch/csrc/cuda/memory_snapshot.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <system_error>

// The header that declares it includes the headers of every CUDA library. It lives in libtorch_cuda, and naming it keeps the linker from
// leaving that library out: without it there is no CUDA device.
namespace at::cuda {
cudaDeviceProp* getDeviceProperties(c10::DeviceIndex device);
}

namespace {

thread_local std::string last_error;

// Bytes of slabs that are page-locked now, and at most.
std::atomic<uint64_t> pinned_now{0};
std::atomic<uint64_t> pinned_peak{0};

// Bytes of slabs that other processes map too and count as theirs, now and at most.
std::atomic<uint64_t> others_now{0};
std::atomic<uint64_t> others_peak{0};

void add(std::atomic<uint64_t>& all, std::atomic<uint64_t>& most, uint64_t bytes) {
  const uint64_t now = all += bytes;
  for (uint64_t peak = most; now > peak && !most.compare_exchange_weak(peak, now);) {
  }
}

// Page-locked memory that is counted.
struct PinnedSlab {
  void* memory = nullptr;
  uint64_t bytes;

  explicit PinnedSlab(uint64_t bytes) : bytes(bytes) {
    C10_CUDA_CHECK(cudaHostAlloc(&memory, bytes, cudaHostAllocDefault));
    add(pinned_now, pinned_peak, bytes);
  }
  PinnedSlab(const PinnedSlab&) = delete;
  ~PinnedSlab() {
    (void)cudaFreeHost(memory);
    pinned_now -= bytes;
  }
};

// Memory of a file that other processes map too. What is locked of it counts as this process's part.
struct SharedSlab {
  void* memory;
  size_t bytes;
  bool pinned;
  uint64_t counted;

  SharedSlab(int file, uint64_t offset, size_t bytes, bool pinned, uint64_t counted) : bytes(bytes), pinned(pinned), counted(counted) {
    memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, static_cast<off_t>(offset));
    if (memory == MAP_FAILED) {
      throw std::system_error(errno, std::generic_category(), "memory that ranks share cannot be mapped");
    }
    if (pinned) {
      const cudaError_t locked = cudaHostRegister(memory, bytes, cudaHostRegisterDefault);
      if (locked != cudaSuccess) {
        (void)munmap(memory, bytes);
        C10_CUDA_CHECK(locked);
      }
      add(pinned_now, pinned_peak, counted);
    }
    add(others_now, others_peak, bytes - counted);
  }
  SharedSlab(const SharedSlab&) = delete;
  ~SharedSlab() {
    others_now -= bytes - counted;
    if (pinned) {
      // Unlike `cudaFreeHost`, this is not said to wait for copies that still read it.
      (void)cudaDeviceSynchronize();
      (void)cudaHostUnregister(memory);
      pinned_now -= counted;
    }
    (void)munmap(memory, bytes);
  }
};

template <typename Body>
int guarded(Body body) {
  try {
    body();
    return 0;
  } catch (const c10::Error& error) {
    last_error = error.what_without_backtrace();
  } catch (const std::exception& error) {
    last_error = error.what();
  } catch (...) {
    last_error = "an exception that is not a std::exception";
  }
  return 1;
}

namespace allocator = c10::cuda::CUDACachingAllocator;
constexpr size_t all_pools = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);

c10::cuda::CUDAStream stream_of(int64_t id, int device) {
  // Streams of the pool and the default one are named by their id alone.
  return c10::cuda::CUDAStream::unpack3(id, static_cast<c10::DeviceIndex>(device), c10::DeviceType::CUDA);
}

// Passes on what the caching allocator tells a memory profiler: each block as it is allocated and freed, in the bytes that it counts.
struct Observer final : c10::MemoryReportingInfoBase {
  using OnMemory = void (*)(void* address, int64_t bytes, size_t reserved);
  using OnOutOfMemory = void (*)(size_t reserved);

  Observer(OnMemory on_memory, OnOutOfMemory on_out_of_memory) : on_memory(on_memory), on_out_of_memory(on_out_of_memory) {}

  void reportMemoryUsage(void* address, int64_t bytes, size_t, size_t reserved, c10::Device device) override {
    if (device.is_cuda()) {
      on_memory(address, bytes, reserved);
    }
  }

  void reportOutOfMemory(int64_t, size_t, size_t reserved, c10::Device device) override {
    if (device.is_cuda()) {
      on_out_of_memory(reserved);
    }
  }

  bool memoryProfilingEnabled() const override {
    return true;
  }

  OnMemory on_memory;
  OnOutOfMemory on_out_of_memory;
};

// Keeps what libtorch warns of, in one line.
struct Warnings final : c10::WarningHandler {
  void process(const c10::Warning& warning) override {
    text += (text.empty() ? "" : " ") + warning.msg();
  }
  std::string text;
};

} // namespace

extern "C" {

struct LowmemCounters {
  int64_t allocated;
  int64_t peak_allocated;
  int64_t reserved;
  int64_t peak_reserved;
};

const char* lowmem_error() {
  return last_error.c_str();
}

// Makes the context and the allocator, so that later figures hold both.
int lowmem_start(int device) {
  return guarded([&] {
    at::globalContext().lazyInitDevice(c10::DeviceType::CUDA);
    c10::cuda::set_device(static_cast<c10::DeviceIndex>(device));
    C10_CUDA_CHECK(cudaFree(nullptr));
  });
}

// Operations of this thread go to their kernels at once. What autograd's layers do before that, most of all for views, takes a fifth of what the host needs for an operation, and nobody asks for
// a gradient here.
void lowmem_leave_out_autograd() {
  auto keys = c10::impl::tls_local_dispatch_key_set();
  keys.excluded_ = keys.excluded_ | c10::autograd_dispatch_keyset_with_ADInplaceOrView;
  c10::impl::_force_tls_local_dispatch_key_set(keys);
}

// The allocator keeps its newest events, without stacks: there is no Python, and those of C++ cost more than what they tell.
int lowmem_record_history(size_t most_events) {
  return guarded([&] { torch::cuda::_record_memory_history("all", std::nullopt, "python", most_events); });
}

// What is allocated from here on carries it in the history.
int lowmem_annotate(const char* label, size_t length) {
  return guarded([&] { allocator::setUserMetadata(std::string(label, length)); });
}

// The bytes live until this thread asks again.
int lowmem_snapshot(const char** bytes, size_t* length) {
  return guarded([&] {
    thread_local std::string snapshot;
    snapshot = torch::cuda::_memory_snapshot_pickled();
    *bytes = snapshot.data();
    *length = snapshot.size();
  });
}

// Reports go to the thread that asked for them, and to one listener: a profiler that is there already keeps its place.
int lowmem_observe(Observer::OnMemory on_memory, Observer::OnOutOfMemory on_out_of_memory) {
  return guarded([&] {
    const auto kind = c10::DebugInfoKind::PROFILER_STATE;
    if (c10::ThreadLocalDebugInfo::get(kind) == nullptr) {
      c10::ThreadLocalDebugInfo::_push(kind, std::make_shared<Observer>(on_memory, on_out_of_memory));
    }
  });
}

int lowmem_device_name(int device, const char** name) {
  return guarded([&] { *name = at::cuda::getDeviceProperties(static_cast<c10::DeviceIndex>(device))->name; });
}

int lowmem_counters(int device, LowmemCounters* out) {
  return guarded([&] {
    const auto stats = allocator::getDeviceStats(static_cast<c10::DeviceIndex>(device));
    out->allocated = stats.allocated_bytes[all_pools].current;
    out->peak_allocated = stats.allocated_bytes[all_pools].peak;
    out->reserved = stats.reserved_bytes[all_pools].current;
    out->peak_reserved = stats.reserved_bytes[all_pools].peak;
  });
}

int lowmem_reset_peaks(int device) {
  return guarded([&] { allocator::resetPeakStats(static_cast<c10::DeviceIndex>(device)); });
}

int lowmem_empty_cache() {
  return guarded([] { allocator::emptyCache(); });
}

int lowmem_set_memory_fraction(int device, double fraction) {
  return guarded([&] { allocator::setMemoryFraction(fraction, static_cast<c10::DeviceIndex>(device)); });
}

int lowmem_device_memory(size_t* free, size_t* total) {
  return guarded([&] { C10_CUDA_CHECK(cudaMemGetInfo(free, total)); });
}

int lowmem_synchronize() {
  return guarded([] { c10::cuda::device_synchronize(); });
}

int lowmem_current_stream(int device, int64_t* id) {
  return guarded([&] { *id = c10::cuda::getCurrentCUDAStream(static_cast<c10::DeviceIndex>(device)).id(); });
}

// One of libtorch's streams, as the driver has it.
int lowmem_driver_stream(int64_t id, int device, void** stream) {
  return guarded([&] { *stream = stream_of(id, device).stream(); });
}

int lowmem_stream_from_pool(int device, int64_t* id) {
  return guarded([&] { *id = c10::cuda::getStreamFromPool(false, static_cast<c10::DeviceIndex>(device)).id(); });
}

int lowmem_event_new(cudaEvent_t* event, bool is_timed) {
  const unsigned flags = is_timed ? cudaEventDefault : cudaEventDisableTiming;
  return guarded([&] { C10_CUDA_CHECK(cudaEventCreateWithFlags(event, flags)); });
}

// Seconds from one event to another that the device has passed: at least, expected, at most. The virtual GPU knows all three.
int lowmem_event_elapsed(cudaEvent_t begun, cudaEvent_t ended, double* secs) {
  return guarded([&] {
    using Elapsed = int (*)(cudaEvent_t, cudaEvent_t, double*);
    static const auto elapsed = reinterpret_cast<Elapsed>(dlsym(RTLD_DEFAULT, "lowmem_virtual_gpu_elapsed"));
    if (elapsed != nullptr && elapsed(begun, ended, secs) == 0) {
      return;
    }
    float millis = 0;
    C10_CUDA_CHECK(cudaEventElapsedTime(&millis, begun, ended));
    secs[0] = secs[1] = secs[2] = millis / 1e3;
  });
}

// The host computes for so long, for all that the virtual GPU knows; without one nothing happens.
void lowmem_host_work(const double* secs) {
  using HostWork = int (*)(const double*);
  static const auto work = reinterpret_cast<HostWork>(dlsym(RTLD_DEFAULT, "lowmem_virtual_gpu_host_work"));
  if (work != nullptr) {
    work(secs);
  }
}

// How long what was put into streams has waited for other ranks by the virtual GPU's clock; 1 without one.
int lowmem_waited_for_ranks(double* secs) {
  using Waited = int (*)(double*);
  static const auto waited = reinterpret_cast<Waited>(dlsym(RTLD_DEFAULT, "lowmem_virtual_gpu_waited_for_ranks"));
  return waited == nullptr ? 1 : waited(secs);
}

// How far the host has come by the virtual GPU's clock; 1 without one.
int lowmem_modelled_now(double* secs) {
  using Now = int (*)(double*);
  static const auto now = reinterpret_cast<Now>(dlsym(RTLD_DEFAULT, "lowmem_virtual_gpu_now"));
  return now == nullptr ? 1 : now(secs);
}

int lowmem_event_free(cudaEvent_t event) {
  return guarded([&] { C10_CUDA_CHECK(cudaEventDestroy(event)); });
}

int lowmem_event_synchronize(cudaEvent_t event) {
  return guarded([&] { C10_CUDA_CHECK(cudaEventSynchronize(event)); });
}

// Whether what was marked is done, without waiting for it.
int lowmem_event_passed(cudaEvent_t event, bool* passed) {
  return guarded([&] {
    const cudaError_t answer = cudaEventQuery(event);
    *passed = answer == cudaSuccess;
    if (answer == cudaErrorNotReady) {
      (void)cudaGetLastError();
    } else {
      C10_CUDA_CHECK(answer);
    }
  });
}

int lowmem_event_record(cudaEvent_t event, int device, int64_t stream) {
  return guarded([&] { C10_CUDA_CHECK(cudaEventRecord(event, stream_of(stream, device).stream())); });
}

int lowmem_event_wait(cudaEvent_t event, int device, int64_t stream) {
  return guarded([&] { C10_CUDA_CHECK(cudaStreamWaitEvent(stream_of(stream, device).stream(), event, 0)); });
}

int lowmem_copy_to_device(void* to, const void* from, size_t bytes, bool from_device, int device, int64_t stream) {
  const cudaMemcpyKind kind = from_device ? cudaMemcpyDeviceToDevice : cudaMemcpyHostToDevice;
  return guarded([&] { C10_CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, kind, stream_of(stream, device).stream())); });
}

// cuDNN's attention, by libtorch's own operator. That takes what libtorch would not give to cuDNN by itself and fails in cuDNN: so libtorch is asked first, and
// says why not in warnings.
int lowmem_cudnn_attention(const at::Tensor* query, const at::Tensor* key, const at::Tensor* value, at::Tensor** result) {
  return guarded([&] {
    const sdp::sdp_params params(*query, *key, *value, std::nullopt, 0.0, false, false);
    if (!sdp::can_use_cudnn_attention(params, false)) {
      Warnings warnings;
      {
        c10::WarningUtils::WarningHandlerGuard guard(&warnings);
        (void)sdp::can_use_cudnn_attention(params, true);
      }
      throw std::runtime_error("attn_type=cudnn: PyTorch does not take cuDNN's attention here (use attn_type=sdpa): " + warnings.text);
    }
    *result = new at::Tensor(std::get<0>(at::_scaled_dot_product_cudnn_attention(*query, *key, *value, std::nullopt, false)));
  });
}

// Bytes of a file that other processes map too as a tensor on the CPU, page-locked where that is wanted: they are mapped until the last tensor goes that looks into them.
int lowmem_shared_bytes(int file, uint64_t offset, size_t bytes, bool pinned, uint64_t counted, at::Tensor** tensor) {
  return guarded([&] {
    auto slab = std::make_unique<SharedSlab>(file, offset, bytes, pinned, counted);
    const int64_t sizes[] = {static_cast<int64_t>(bytes)};
    void* memory = slab->memory;
    const auto free = [](void* slab) { delete static_cast<SharedSlab*>(slab); };
    *tensor = new at::Tensor(at::for_blob(memory, sizes).context(slab.release(), free).options(at::kByte).make_tensor());
  });
}

// What of that other processes counted at most since the last reset.
void lowmem_others_peak(uint64_t* bytes) {
  *bytes = others_peak.load();
}

// Page-locked memory as a tensor of bytes on the CPU, which owns it: the memory goes with the last tensor that looks into it. `cudaFreeHost` waits for copies that
// still read it.
int lowmem_pinned_bytes(size_t bytes, at::Tensor** tensor) {
  return guarded([&] {
    auto slab = std::make_unique<PinnedSlab>(bytes);
    const int64_t sizes[] = {static_cast<int64_t>(bytes)};
    void* memory = slab->memory;
    const auto free = [](void* slab) { delete static_cast<PinnedSlab*>(slab); };
    *tensor = new at::Tensor(at::for_blob(memory, sizes).context(slab.release(), free).options(at::kByte).make_tensor());
  });
}

// What was page-locked at most since the last reset: slabs, and what libtorch's own allocator keeps.
int lowmem_pinned_peak(uint64_t* bytes) {
  return guarded([&] {
    const auto own = at::getHostAllocator(at::kCUDA)->get_stats().allocated_bytes;
    *bytes = pinned_peak.load() + static_cast<uint64_t>(own.peak);
  });
}

int lowmem_reset_pinned_peak() {
  return guarded([&] {
    pinned_peak = pinned_now.load();
    others_peak = others_now.load();
    at::getHostAllocator(at::kCUDA)->reset_peak_stats();
  });
}

} // extern "C"
