// Hears of the work of each ATen operation on the GPU as it is called.
//
// The kernel that libtorch's dispatcher holds for an operation on CUDA is replaced by one that looks at the tensors before and after it calls the first. So
// nothing is spent on views and allocations, which are most of the calls and keep their kernels, and nothing on the CPU. (libtorch's own observers,
// at::RecordFunction, are told of every call, and the tensors of each are boxed for them: that cost 40% of a run on the virtual GPU.)
//
// Such a kernel of ours is called with the arguments in boxes on a stack, which takes half of what observing costs. The operations that a model is made of are met
// without: see `Direct`.
//
// Operations are nested; work counts for the innermost one, which is the one that launches kernels. The virtual GPU, where it is there, is told as well: its
// kernels say nothing of themselves.

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/ivalue.h>
#include <ATen/ops/_fused_rms_norm_cuda_dispatch.h>
#include <ATen/ops/_fused_rms_norm_ops.h>
#include <ATen/ops/add_cuda_dispatch.h>
#include <ATen/ops/add_ops.h>
#include <ATen/ops/addcmul_cuda_dispatch.h>
#include <ATen/ops/addcmul_ops.h>
#include <ATen/ops/addmm_cuda_dispatch.h>
#include <ATen/ops/addmm_ops.h>
#include <ATen/ops/copy_compositeexplicitautograd_dispatch.h>
#include <ATen/ops/copy_ops.h>
#include <ATen/ops/cudnn_convolution_cuda_dispatch.h>
#include <ATen/ops/cudnn_convolution_ops.h>
#include <ATen/ops/empty_cuda_dispatch.h>
#include <ATen/ops/empty_ops.h>
#include <ATen/ops/empty_strided_cuda_dispatch.h>
#include <ATen/ops/empty_strided_ops.h>
#include <ATen/ops/gelu_cuda_dispatch.h>
#include <ATen/ops/gelu_ops.h>
#include <ATen/ops/mul_cuda_dispatch.h>
#include <ATen/ops/mul_ops.h>
#include <ATen/ops/native_layer_norm_cuda_dispatch.h>
#include <ATen/ops/native_layer_norm_ops.h>
#include <ATen/ops/silu_cuda_dispatch.h>
#include <ATen/ops/silu_ops.h>
#include <c10/util/Exception.h>
#include <dlfcn.h>
#include <torch/version.h>

#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "peak.h"
#include "work.h"

namespace lowmem {
namespace {

// An operation of that name begins on this thread.
using OnBegin = void (*)(const char* operation);
// It is over, and launched what it says; or others in it did, or nothing did: then `counts` is 0.
using OnEnd = void (*)(const char* operation, int kind, int type, double operations, double bytes, int counts);
// It has made or written a tensor on the GPU that is all of an allocation.
using OnResult = void (*)(const void* data, const int64_t* shape, size_t dimensions);
using VirtualBegin = int (*)(const char* operation);
using VirtualEnd = int (*)(int kind, int type, double operations, double bytes);

OnBegin on_begin = nullptr;
OnEnd on_end = nullptr;
OnResult on_result = nullptr;
VirtualBegin virtual_begin = nullptr;
VirtualEnd virtual_end = nullptr;

// An operation that is watched, for as long as the process lives.
struct Known {
  std::string name;
  Operation operation;
};

// An operation under way. One that throws has done nothing.
class Call {
 public:
  // `Arguments` know their tensors: `each_tensor(visit)` has `visit(index, tensor, is_listed)` called for each.
  template <typename Arguments>
  Call(const Known& known, const Arguments& arguments) : known_(known), work_(known.operation), outer_(innermost), outer_convolution_(operation_begins(known.operation.kind == Kind::convolution)) {
    arguments.each_tensor([this](size_t index, const at::Tensor& tensor, bool is_listed) { work_.add_argument(index, tensor, is_listed); });
    work_.close_arguments();
    innermost = this;
    if (on_begin != nullptr) {
      on_begin(known_.name.c_str());
    }
    if (virtual_begin != nullptr) {
      virtual_begin(known_.name.c_str());
    }
  }

  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  // Whether this thread is in one.
  static bool is_under_way() {
    return innermost != nullptr;
  }

  template <typename Results>
  void finish(const Results& results) {
    results.each_tensor([this](size_t, const at::Tensor& tensor, bool) {
      work_.add_result(tensor);
      if (on_result != nullptr && tensor.defined() && tensor.is_cuda() && tensor.has_storage() && tensor.nbytes() == tensor.storage().nbytes()) {
        on_result(tensor.storage().data(), tensor.sizes().data(), tensor.sizes().size());
      }
    });
    counts_ = !has_work_inside_ && work_.is_on_gpu() && !work_.crosses();
    has_work_inside_ |= work_.is_on_gpu();
  }

  ~Call() {
    innermost = outer_;
    if (outer_ != nullptr) {
      outer_->has_work_inside_ |= has_work_inside_;
    }
    const int kind = static_cast<int>(counts_ ? known_.operation.kind : Kind::unknown);
    const int type = static_cast<int>(work_.type());
    const double operations = counts_ ? work_.operations() : 0;
    const double bytes = counts_ ? work_.bytes() : 0;
    if (virtual_end != nullptr) {
      virtual_end(kind, type, operations, bytes);
    }
    if (on_end != nullptr) {
      on_end(known_.name.c_str(), kind, type, operations, bytes, counts_ ? 1 : 0);
    }
    operation_ended(outer_convolution_, outer_ == nullptr);
  }

 private:
  static thread_local Call* innermost;

  const Known& known_;
  Work work_;
  Call* outer_;
  unsigned long long outer_convolution_;
  bool has_work_inside_ = false;
  bool counts_ = false;
};

thread_local Call* Call::innermost = nullptr;

// The last values of a stack.
struct Boxed {
  c10::ArrayRef<c10::IValue> values;

  Boxed(const torch::jit::Stack& stack, size_t count) : values(c10::ArrayRef<c10::IValue>(stack).slice(stack.size() - count)) {}

  template <typename Visit>
  void each_tensor(const Visit& visit) const {
    for (size_t index = 0; index < values.size(); ++index) {
      if (values[index].isTensor()) {
        visit(index, values[index].toTensor(), false);
      } else if (values[index].isTensorList()) {
        for (const at::Tensor& tensor : values[index].toTensorList()) {
          visit(index, tensor, true);
        }
      }
    }
  }
};

// Any operation's kernel, with an eye on it.
class Watched final : public c10::OperatorKernel {
 public:
  Watched(Known known, c10::SafeKernelFunction kernel, const c10::FunctionSchema& schema)
      : known_(std::move(known)), kernel_(std::move(kernel)), arguments_(schema.arguments().size()), results_(schema.returns().size()) {}

  void operator()(const c10::OperatorHandle& op, c10::DispatchKeySet keys, torch::jit::Stack* stack) {
    Call call(known_, Boxed(*stack, arguments_));
    kernel_.callBoxed(op, keys, stack);
    call.finish(Boxed(*stack, results_));
  }

 private:
  Known known_;
  c10::SafeKernelFunction kernel_;
  size_t arguments_;
  size_t results_;
};

// Values as C++ has them.
template <typename... Values>
struct Unboxed {
  std::tuple<const Values&...> values;

  template <typename Visit>
  void each_tensor(const Visit& visit) const {
    std::apply(
        [&](const auto&... value) {
          size_t index = 0;
          (each_tensor_in(value, index++, visit), ...);
        },
        values);
  }

 private:
  template <typename Value, typename Visit>
  static void each_tensor_in(const Value& value, size_t index, const Visit& visit) {
    if constexpr (std::is_same_v<Value, at::Tensor>) {
      visit(index, value, false);
    } else if constexpr (std::is_same_v<Value, std::optional<at::Tensor>>) {
      if (value.has_value()) {
        visit(index, *value, false);
      }
    } else {
      // What else may hold tensors would be overlooked.
      static_assert(!std::is_same_v<Value, at::TensorList> && !std::is_same_v<Value, at::ITensorListRef>);
    }
  }
};

template <typename... Values>
Unboxed(std::tuple<const Values&...>) -> Unboxed<Values...>;

// libtorch's own kernel of the operation `Op`, with an eye on it and no boxes.
template <typename Op, typename Op::ptr_schema theirs, typename Schema = typename Op::schema>
class Direct;

template <typename Op, typename Op::ptr_schema theirs, typename Result, typename... Arguments>
class Direct<Op, theirs, Result(Arguments...)> final : public c10::OperatorKernel {
 public:
  explicit Direct(Known known) : known_(std::move(known)) {}

  Result operator()(Arguments... arguments) {
    Call call(known_, Unboxed{std::tuple<const std::remove_cvref_t<Arguments>&...>(arguments...)});
    Result result = theirs(std::forward<Arguments>(arguments)...);
    if constexpr (std::is_same_v<std::remove_cvref_t<Result>, at::Tensor>) {
      call.finish(Unboxed{std::tuple<const at::Tensor&>(result)});
    } else {
      std::apply([&](const auto&... each) { call.finish(Unboxed{std::tie(each...)}); }, result);
    }
    return result;
  }

  static bool is_for(const c10::OperatorName& name) {
    return name.name == Op::name && name.overload_name == Op::overload_name;
  }

 private:
  Known known_;
};

// libtorch's own kernel of an operation that allocates and does no work: a peak that it reaches is told.
template <typename Op, typename Op::ptr_schema theirs, typename Schema = typename Op::schema>
struct Allocating;

template <typename Op, typename Op::ptr_schema theirs, typename Result, typename... Arguments>
struct Allocating<Op, theirs, Result(Arguments...)> {
  static Result call(Arguments... arguments) {
    Result result = theirs(std::forward<Arguments>(arguments)...);
    operation_ended(operation_begins(false), !Call::is_under_way());
    return result;
  }

  static void put_in_place(std::vector<c10::RegistrationHandleRAII>& kept) {
    const c10::OperatorName name(Op::name, Op::overload_name);
    kept.push_back(c10::Dispatcher::singleton().registerImpl(
        name, c10::DispatchKey::CUDA, c10::KernelFunction::makeFromUnboxedRuntimeFunction(&call), std::nullopt, nullptr, "lowmem: hears of peaks"));
  }
};

template <typename... Kernels>
std::optional<c10::KernelFunction> first_for(const c10::OperatorName& name, const Known& known) {
  std::optional<c10::KernelFunction> found;
  ((Kernels::is_for(name) && (found = c10::KernelFunction::makeFromUnboxedFunctor<false, Kernels>(std::make_unique<Kernels>(known)), true)) || ...);
  return found;
}

// The kernel for one of the operations that models call by the thousand: here they are nearly all of a run's calls.
std::optional<c10::KernelFunction> direct(const c10::OperatorName& name, const Known& known) {
  return first_for<
      Direct<at::_ops::add_Tensor, at::cuda::add>,
      Direct<at::_ops::add__Tensor, at::cuda::add_>,
      Direct<at::_ops::addcmul_, at::cuda::addcmul_>,
      Direct<at::_ops::addmm, at::cuda::addmm>,
      Direct<at::_ops::copy_, at::compositeexplicitautograd::copy_>,
      Direct<at::_ops::cudnn_convolution, at::cuda::cudnn_convolution_symint>,
      Direct<at::_ops::_fused_rms_norm, at::cuda::_fused_rms_norm>,
      Direct<at::_ops::gelu, at::cuda::gelu>,
      Direct<at::_ops::gelu_, at::cuda::gelu_>,
      Direct<at::_ops::mul_Tensor, at::cuda::mul>,
      Direct<at::_ops::mul__Tensor, at::cuda::mul_>,
      Direct<at::_ops::native_layer_norm, at::cuda::native_layer_norm_symint>,
      Direct<at::_ops::silu, at::cuda::silu>,
      Direct<at::_ops::silu_, at::cuda::silu_>>(name, known);
}

// Whether it launches kernels itself. What is written once for all kinds of devices calls other operations, with one exception.
bool has_kernel(const c10::OperatorHandle& op) {
  return op.hasKernelForDispatchKey(c10::DispatchKey::CUDA) || op.operator_name().name == "aten::copy_";
}

// libtorch warns of each kernel that is replaced, which is meant here.
class Silence final : public c10::WarningHandler {
  void process(const c10::Warning&) override {}
};

void watch_kernels() {
  // They stay as long as the process does: other threads may be in one of them.
  static auto* kept = new std::vector<c10::RegistrationHandleRAII>();
  Silence silence;
  c10::WarningUtils::WarningHandlerGuard guard(&silence);
  auto& dispatcher = c10::Dispatcher::singleton();
  for (const auto& full_name : dispatcher.getAllOpNames()) {
    const auto op = dispatcher.findSchema(full_name);
    if (!op.has_value() || full_name.getNamespace() != "aten" || !has_kernel(*op)) {
      continue;
    }
    const std::string name = full_name.name.substr(full_name.name.rfind(':') + 1);
    const Operation operation = described(name, op->schema());
    if (operation.is_idle) {
      continue;
    }
    Known known{full_name.name, operation};
    auto kernel = direct(full_name, known);
    if (!kernel.has_value()) {
      auto theirs = op->getComputedKernelForDispatchKey(c10::DispatchKey::CUDA);
      kernel = c10::KernelFunction::makeFromBoxedFunctor(std::make_unique<Watched>(std::move(known), std::move(theirs), op->schema()));
    }
    kept->push_back(dispatcher.registerImpl(
        full_name, c10::DispatchKey::CUDA, std::move(*kernel), std::nullopt, nullptr, "lowmem: hears of the work of each operation"));
  }
  if (hears_peaks()) {
    Allocating<at::_ops::empty_memory_format, at::cuda::empty_symint>::put_in_place(*kept);
    Allocating<at::_ops::empty_strided, at::cuda::empty_strided_symint>::put_in_place(*kept);
  }
}

} // namespace
} // namespace lowmem

extern "C" {

// The version of libtorch that this is compiled for: no other one has the same classes.
const char* lowmem_observer_torch() {
  return TORCH_VERSION;
}

// From here on all three hear of every operation on the GPU, on the thread that asked for it, where they are not null; and the virtual GPU does, where it is there. Once a
// process. 0, or 1 where libtorch would not have it.
int lowmem_observe_work(lowmem::OnBegin begins, lowmem::OnEnd ended, lowmem::OnResult result) {
  lowmem::on_begin = begins;
  lowmem::on_end = ended;
  lowmem::on_result = result;
  lowmem::virtual_begin = reinterpret_cast<lowmem::VirtualBegin>(dlsym(RTLD_DEFAULT, "lowmem_virtual_gpu_begin"));
  lowmem::virtual_end = reinterpret_cast<lowmem::VirtualEnd>(dlsym(RTLD_DEFAULT, "lowmem_virtual_gpu_end"));
  try {
    lowmem::watch_kernels();
    return 0;
  } catch (const std::exception&) {
    return 1;
  }
}

// A kernel of our own is about to be launched on this thread, outside of every operation of libtorch. Who hears of operations hears of it by that name.
void lowmem_kernel_begins(const char* name) {
  if (lowmem::on_begin != nullptr) {
    lowmem::on_begin(name);
  }
  if (lowmem::virtual_begin != nullptr) {
    lowmem::virtual_begin(name);
  }
}

// It is launched, and does so much. One that could not be does nothing: its kind is 0.
void lowmem_kernel_launched(const char* name, int kind, int type, double operations, double bytes) {
  if (lowmem::virtual_end != nullptr) {
    lowmem::virtual_end(kind, type, operations, bytes);
  }
  if (lowmem::on_end != nullptr) {
    lowmem::on_end(name, kind, type, operations, bytes, kind == 0 ? 0 : 1);
  }
}

} // extern "C"
