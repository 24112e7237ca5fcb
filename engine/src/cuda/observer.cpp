// Hears of the work of each ATen operation on the GPU as it is called.
//
// The kernel that libtorch's dispatcher holds for an operation on CUDA is replaced by one that looks at the tensors before and after it calls the first. So
// nothing is spent on views and allocations, which are most of the calls and keep their kernels, and nothing on the CPU. (libtorch's own observers,
// at::RecordFunction, are told of every call, and the tensors of each are boxed for them: that cost 40% of a run on the virtual GPU.)
//
// Operations are nested; work counts for the innermost one, which is the one that launches kernels. The virtual GPU, where it is there, is told as well: its
// kernels say nothing of themselves.

#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/util/Exception.h>
#include <dlfcn.h>
#include <torch/version.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "work.h"

namespace lowmem {
namespace {

// An operation of that name begins on this thread.
using OnBegin = void (*)(const char* operation);
// It is over, and launched what it says; or others in it did, or nothing did: then `counts` is 0.
using OnEnd = void (*)(const char* operation, int kind, int type, double operations, double bytes, int counts);
using VirtualBegin = int (*)(const char* operation);
using VirtualEnd = int (*)(int kind, int type, double operations, double bytes);

OnBegin on_begin = nullptr;
OnEnd on_end = nullptr;
VirtualBegin virtual_begin = nullptr;
VirtualEnd virtual_end = nullptr;

// An operation under way. One that throws has done nothing.
class Call {
 public:
  Call(const std::string& name, const Operation& operation, c10::ArrayRef<c10::IValue> arguments)
      : name_(name.c_str()), kind_(operation.kind), work_(name, operation, arguments), outer_(innermost) {
    innermost = this;
    if (on_begin != nullptr) {
      on_begin(name_);
    }
    if (virtual_begin != nullptr) {
      virtual_begin(name_);
    }
  }

  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  void add_results(c10::ArrayRef<c10::IValue> results) {
    work_.add_results(results);
    counts_ = !has_work_inside_ && work_.is_on_gpu() && !work_.crosses();
    has_work_inside_ |= work_.is_on_gpu();
  }

  ~Call() {
    innermost = outer_;
    if (outer_ != nullptr) {
      outer_->has_work_inside_ |= has_work_inside_;
    }
    const int kind = static_cast<int>(counts_ ? kind_ : Kind::unknown);
    const int type = static_cast<int>(work_.type());
    const double operations = counts_ ? work_.operations() : 0;
    const double bytes = counts_ ? work_.bytes() : 0;
    if (virtual_end != nullptr) {
      virtual_end(kind, type, operations, bytes);
    }
    if (on_end != nullptr) {
      on_end(name_, kind, type, operations, bytes, counts_ ? 1 : 0);
    }
  }

 private:
  static thread_local Call* innermost;

  const char* name_;
  Kind kind_;
  Work work_;
  Call* outer_;
  bool has_work_inside_ = false;
  bool counts_ = false;
};

thread_local Call* Call::innermost = nullptr;

// An operation's kernel, with an eye on it.
class Watched final : public c10::OperatorKernel {
 public:
  Watched(c10::SafeKernelFunction kernel, std::string name, Operation operation, const c10::FunctionSchema& schema)
      : kernel_(std::move(kernel)),
        name_(std::move(name)),
        operation_(operation),
        arguments_(schema.arguments().size()),
        results_(schema.returns().size()) {}

  void operator()(const c10::OperatorHandle& op, c10::DispatchKeySet keys, torch::jit::Stack* stack) {
    Call call(name_, operation_, last(*stack, arguments_));
    kernel_.callBoxed(op, keys, stack);
    call.add_results(last(*stack, results_));
  }

 private:
  static c10::ArrayRef<c10::IValue> last(const torch::jit::Stack& stack, size_t count) {
    return c10::ArrayRef<c10::IValue>(stack).slice(stack.size() - count);
  }

  c10::SafeKernelFunction kernel_;
  std::string name_;
  Operation operation_;
  size_t arguments_;
  size_t results_;
};

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
    auto kernel = op->getComputedKernelForDispatchKey(c10::DispatchKey::CUDA);
    auto watched = std::make_unique<Watched>(std::move(kernel), full_name.name, operation, op->schema());
    kept->push_back(dispatcher.registerImpl(
        full_name,
        c10::DispatchKey::CUDA,
        c10::KernelFunction::makeFromBoxedFunctor(std::move(watched)),
        std::nullopt,
        nullptr,
        "lowmem: hears of the work of each operation"));
  }
}

} // namespace
} // namespace lowmem

extern "C" {

// The version of libtorch that this is compiled for: no other one has the same classes.
const char* lowmem_observer_torch() {
  return TORCH_VERSION;
}

// From here on both hear of every operation on the GPU, on the thread that asked for it, where they are not null; and the virtual GPU does, where it is there. Once a
// process. 0, or 1 where libtorch would not have it.
int lowmem_observe_work(lowmem::OnBegin begins, lowmem::OnEnd ended) {
  lowmem::on_begin = begins;
  lowmem::on_end = ended;
  lowmem::virtual_begin = reinterpret_cast<lowmem::VirtualBegin>(dlsym(RTLD_DEFAULT, "lowmem_virtual_gpu_begin"));
  lowmem::virtual_end = reinterpret_cast<lowmem::VirtualEnd>(dlsym(RTLD_DEFAULT, "lowmem_virtual_gpu_end"));
  try {
    lowmem::watch_kernels();
    return 0;
  } catch (const std::exception&) {
    return 1;
  }
}

} // extern "C"
