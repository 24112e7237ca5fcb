// What each ATen operation asks of the GPU: how many operations, how many bytes through its memory, and of which kind they are.
//
// libtorch tells an observer (at::RecordFunction) of every operation with its tensors. Operations are nested; work counts for the innermost one, which
// is the one that launches kernels: one that is no view, allocates more than it returns uninitialised, and has no other such operation inside.
// The virtual GPU, where it is there, is told as well: its kernels say nothing of themselves.

#include <ATen/Context.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/function_schema.h>
#include <ATen/record_function.h>
#include <dlfcn.h>

#include <array>
#include <cstdint>
#include <memory>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace {

// The numbers are part of the virtual GPU's interface: see `docs/virtual-gpu.md`.
enum class Kind : int { unknown = 0, gemm = 1, attention = 2, convolution = 3, pointwise = 4, reduction = 5 };
enum class Type : int { fp32 = 0, tf32 = 1, bf16 = 2, fp16 = 3, fp8 = 4, int8 = 5, fp64 = 6 };

using OnWork = void (*)(const char* operation, int kind, int type, double operations, double bytes);
using VirtualBegin = int (*)(const char* operation);
using VirtualEnd = int (*)(int kind, int type, double operations, double bytes);

OnWork on_work = nullptr;
VirtualBegin virtual_begin = nullptr;
VirtualEnd virtual_end = nullptr;

// What is known of an operation by its name and signature alone.
struct Operation {
  Kind kind = Kind::pointwise;
  // It returns a view, memory that is not written, or no tensor: whatever runs in it is told of by itself.
  bool is_idle = false;
  // It may go between host and GPU, which is a copy and no work of the GPU's.
  bool is_copy = false;
  // It reads of its first tensor no more than it gives back: a lookup.
  bool looks_up = false;
  // Which argument's last size the sums of a matrix product run over.
  size_t factor = 0;
  // Of each argument, whether it is written, and whether it is written and not read.
  std::vector<bool> is_written;
  std::vector<bool> is_target;
};

template <size_t Count>
bool is_among(std::string_view name, const std::array<std::string_view, Count>& names) {
  for (const auto& other : names) {
    if (name == other) {
      return true;
    }
  }
  return false;
}

bool contains(std::string_view name, std::string_view part) {
  return name.find(part) != std::string_view::npos;
}

constexpr std::array<std::string_view, 5> products_of_first{"mm", "bmm", "mv", "dot", "_scaled_mm"};
constexpr std::array<std::string_view, 4> products_of_second{"addmm", "baddbmm", "addmv", "_addmm_activation"};
constexpr std::array<std::string_view, 22> reductions{
    "sum",  "mean",   "var",    "std",  "var_mean", "std_mean",     "norm",              "linalg_vector_norm", "amax",   "amin",      "max",
    "min",  "argmax", "argmin", "prod", "_softmax", "_log_softmax", "native_layer_norm", "native_group_norm",  "cumsum", "logsumexp", "_fused_rms_norm"};
constexpr std::array<std::string_view, 4> lookups{"embedding", "index", "index_select", "gather"};
constexpr std::array<std::string_view, 6> overwriting{"copy_", "fill_", "zero_", "normal_", "uniform_", "random_"};
constexpr std::array<std::string_view, 5> idle{"resize_", "set_", "item", "_local_scalar_dense", "_unsafe_view"};

Operation described(const at::RecordFunction& function) {
  Operation operation;
  std::string_view name = function.name();
  if (const auto colons = name.rfind("::"); colons != std::string_view::npos) {
    name.remove_prefix(colons + 2);
  }
  const auto schema = function.operator_schema();
  if (!schema.has_value()) {
    operation.is_idle = true;
    return operation;
  }
  bool gives_tensor = false;
  bool gives_views = true;
  for (const auto& given : schema->returns()) {
    const bool is_tensor = given.type()->isSubtypeOf(*c10::TensorType::get()) ||
        given.type()->isSubtypeOf(*c10::ListType::ofTensors());
    gives_tensor |= is_tensor;
    gives_views &= given.alias_info() != nullptr && !given.alias_info()->isWrite();
  }
  const bool is_allocation = name.rfind("empty", 0) == 0 || name.rfind("new_empty", 0) == 0 || name.rfind("_empty", 0) == 0;
  operation.is_idle = !gives_tensor || gives_views || is_allocation || is_among(name, idle);
  for (const auto& argument : schema->arguments()) {
    const bool is_written = argument.alias_info() != nullptr && argument.alias_info()->isWrite();
    operation.is_written.push_back(is_written);
    operation.is_target.push_back(is_written && (argument.name() == "out" || is_among(name, overwriting)));
  }
  if (is_among(name, products_of_first)) {
    operation.kind = Kind::gemm;
  } else if (is_among(name, products_of_second)) {
    operation.kind = Kind::gemm;
    operation.factor = 1;
  } else if (contains(name, "_attention")) {
    operation.kind = Kind::attention;
  } else if (contains(name, "convolution") || contains(name, "conv_depthwise") || name.rfind("slow_conv", 0) == 0) {
    operation.kind = Kind::convolution;
  } else if (is_among(name, reductions)) {
    operation.kind = Kind::reduction;
  }
  operation.is_copy = name == "copy_";
  operation.looks_up = is_among(name, lookups);
  return operation;
}

// An operation's name is one text for as long as libtorch lives, so its address will do to find it again.
const Operation& known(const at::RecordFunction& function) {
  thread_local std::unordered_map<const void*, Operation> operations;
  // The last ones by the low bits of their addresses: the same few follow each other.
  thread_local std::array<std::pair<const void*, const Operation*>, 256> recent{};
  const void* name = function.name();
  auto& place = recent[(reinterpret_cast<uintptr_t>(name) >> 4) % recent.size()];
  if (place.first != name) {
    const auto [found, is_new] = operations.try_emplace(name);
    if (is_new) {
      found->second = described(function);
    }
    place = {name, &found->second};
  }
  return *place.second;
}

// Bytes that are there, however often a stride of 0 shows them.
double bytes_of(const at::Tensor& tensor) {
  if (!tensor.defined() || !tensor.is_cuda() || tensor.is_sparse()) {
    return 0;
  }
  double elements = 1;
  for (int64_t dimension = 0; dimension < tensor.dim(); ++dimension) {
    if (tensor.size(dimension) == 0) {
      return 0;
    }
    elements *= tensor.stride(dimension) == 0 ? 1.0 : static_cast<double>(tensor.size(dimension));
  }
  return elements * static_cast<double>(tensor.element_size());
}

template <typename Visit>
void each_tensor(const c10::IValue& value, const Visit& visit) {
  if (value.isTensor()) {
    visit(value.toTensor());
  } else if (value.isTensorList()) {
    for (const at::Tensor& tensor : value.toTensorVector()) {
      visit(tensor);
    }
  }
}

Type type_of(at::ScalarType type, Kind kind) {
  switch (type) {
    case at::kBFloat16:
      return Type::bf16;
    case at::kHalf:
      return Type::fp16;
    case at::kDouble:
    case at::kComplexDouble:
      return Type::fp64;
    case at::kChar:
    case at::kByte:
      return Type::int8;
    case at::kFloat8_e4m3fn:
    case at::kFloat8_e5m2:
      return Type::fp8;
    default:
      break;
  }
  const bool rounds = (kind == Kind::convolution && at::globalContext().allowTF32CuDNN()) ||
      (kind == Kind::gemm && at::globalContext().allowTF32CuBLAS());
  return rounds ? Type::tf32 : Type::fp32;
}

// An operation under way.
struct Frame final : at::ObserverContext {
  Frame* outer = nullptr;
  const Operation* operation = nullptr;
  bool has_work_inside = false;
  bool is_on_gpu = false;
  bool crosses = false;
  Type type = Type::fp32;
  double read_bytes = 0;
  // Operations for each element of the result; of attention, all of them.
  double rate = 0;
};

thread_local Frame* innermost = nullptr;

// The shapes of queries, keys and values: `[batch, tokens, heads, size]` where the kernel is called, `[batch, heads, tokens, size]` above it,
// `[tokens, heads, size]` where sequences of several lengths are packed into one, which are taken to be one.
double attention_operations(std::string_view name, const at::Tensor& query, const at::Tensor& key, const at::Tensor& value) {
  if (query.dim() < 3 || key.dim() != query.dim()) {
    return 0;
  }
  const bool tokens_first = key.dim() == 3 || contains(name, "_flash_attention_forward") || contains(name, "_efficient_attention_forward");
  const int64_t tokens = key.size(key.dim() == 3 ? 0 : tokens_first ? 1 : 2);
  const double pairs = static_cast<double>(query.numel()) / static_cast<double>(query.size(-1)) * static_cast<double>(tokens);
  const double forward = 2 * pairs * static_cast<double>(query.size(-1) + value.size(-1));
  // Backward has five products where forward has two.
  return contains(name, "backward") ? 2.5 * forward : forward;
}

std::unique_ptr<at::ObserverContext> begin(const at::RecordFunction& function) {
  const Operation& operation = known(function);
  // Most operations are views: nothing may be spent on them. What runs inside one belongs to what is around it.
  if (operation.is_idle) {
    return nullptr;
  }
  auto frame = std::make_unique<Frame>();
  frame->outer = innermost;
  innermost = frame.get();
  frame->operation = &operation;
  if (virtual_begin != nullptr) {
    virtual_begin(function.name());
  }
  const auto inputs = function.inputs();
  std::array<const at::Tensor*, 3> first{};
  size_t tensors = 0;
  for (size_t index = 0; index < inputs.size(); ++index) {
    // What is written beside the factors is a place for the result.
    const bool is_factor = index >= operation.is_written.size() || !operation.is_written[index];
    if (inputs[index].isTensor() && is_factor && tensors < first.size()) {
      first[tensors++] = &inputs[index].toTensor();
    }
    const bool is_target = index < operation.is_target.size() && operation.is_target[index];
    each_tensor(inputs[index], [&](const at::Tensor& tensor) {
      if (!tensor.defined()) {
        return;
      }
      if (!tensor.is_cuda()) {
        frame->crosses |= operation.is_copy;
        return;
      }
      if (!frame->is_on_gpu) {
        frame->is_on_gpu = true;
        frame->type = type_of(tensor.scalar_type(), operation.kind);
      }
      if (!is_target) {
        frame->read_bytes += bytes_of(tensor);
      }
    });
  }
  if (operation.kind == Kind::gemm && operation.factor < tensors && first[operation.factor]->dim() > 0) {
    frame->rate = 2.0 * static_cast<double>(first[operation.factor]->size(-1));
  } else if (operation.kind == Kind::convolution && tensors > 1 && first[1]->defined() && first[1]->dim() > 1 && first[1]->size(0) > 0) {
    frame->rate = 2.0 * static_cast<double>(first[1]->numel()) / static_cast<double>(first[1]->size(0));
  } else if (operation.kind == Kind::attention && tensors == 3) {
    frame->rate = attention_operations(function.name(), *first[0], *first[1], *first[2]);
  }
  return frame;
}

void end(const at::RecordFunction& function, at::ObserverContext* context) {
  auto* frame = static_cast<Frame*>(context);
  if (frame == nullptr) {
    return;
  }
  innermost = frame->outer;
  const Operation& operation = *frame->operation;
  Kind kind = Kind::unknown;
  double operations = 0;
  double bytes = 0;
  if (!frame->has_work_inside) {
    double written_bytes = 0;
    double elements = 0;
    for (const auto& output : function.outputs()) {
      each_tensor(output, [&](const at::Tensor& tensor) {
        if (tensor.defined() && tensor.is_cuda()) {
          if (!frame->is_on_gpu) {
            frame->is_on_gpu = true;
            frame->type = type_of(tensor.scalar_type(), operation.kind);
          }
          elements = elements == 0 ? static_cast<double>(tensor.numel()) : elements;
          written_bytes += bytes_of(tensor);
        }
      });
    }
    frame->has_work_inside = frame->is_on_gpu;
    if (frame->is_on_gpu && !frame->crosses) {
      kind = operation.kind;
      operations = kind == Kind::attention ? frame->rate : kind == Kind::gemm || kind == Kind::convolution ? frame->rate * elements : 0;
      bytes = written_bytes + (operation.looks_up ? written_bytes : frame->read_bytes);
      if (on_work != nullptr) {
        on_work(function.name(), static_cast<int>(kind), static_cast<int>(frame->type), operations, bytes);
      }
    }
  }
  if (frame->outer != nullptr) {
    frame->outer->has_work_inside |= frame->has_work_inside;
  }
  if (virtual_end != nullptr) {
    virtual_end(static_cast<int>(kind), static_cast<int>(frame->type), operations, bytes);
  }
}

} // namespace

extern "C" {

// From here on `heard` hears of the work of every operation, on the thread that asked for it, and the virtual GPU does where it is there. Once a process.
void lowmem_work_observe(OnWork heard) {
  on_work = heard;
  virtual_begin = reinterpret_cast<VirtualBegin>(dlsym(RTLD_DEFAULT, "lowmem_virtual_gpu_begin"));
  virtual_end = reinterpret_cast<VirtualEnd>(dlsym(RTLD_DEFAULT, "lowmem_virtual_gpu_end"));
  at::addGlobalCallback(at::RecordFunctionCallback(begin, end).needsInputs(true).needsOutputs(true).scopes({at::RecordScope::FUNCTION}));
}

} // extern "C"
