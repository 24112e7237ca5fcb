// What each ATen operation asks of the GPU, from the shapes and types of its tensors: how many operations, how many bytes through its memory, and of which kind
// they are.

#include "work.h"

#include <ATen/Context.h>

#include <algorithm>
#include <array>
#include <cstdint>

namespace lowmem {
namespace {

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

constexpr std::array<std::string_view, 6> products_of_first{"mm", "bmm", "mv", "dot", "_scaled_mm", "_int_mm"};
constexpr std::array<std::string_view, 4> products_of_second{"addmm", "baddbmm", "addmv", "_addmm_activation"};
constexpr std::array<std::string_view, 22> reductions{
    "sum",  "mean",   "var",    "std",  "var_mean", "std_mean",     "norm",              "linalg_vector_norm", "amax",   "amin",      "max",
    "min",  "argmax", "argmin", "prod", "_softmax", "_log_softmax", "native_layer_norm", "native_group_norm",  "cumsum", "logsumexp", "_fused_rms_norm"};
constexpr std::array<std::string_view, 4> lookups{"embedding", "index", "index_select", "gather"};
constexpr std::array<std::string_view, 6> overwriting{"copy_", "fill_", "zero_", "normal_", "uniform_", "random_"};
constexpr std::array<std::string_view, 4> idle{"resize_", "set_", "item", "_unsafe_view"};

// Bytes that are there, however often a stride of 0 shows them.
double bytes_of(const at::Tensor& tensor) {
  if (!tensor.defined() || !tensor.is_cuda() || tensor.layout() != c10::kStrided) {
    return 0;
  }
  if (tensor.is_non_overlapping_and_dense()) {
    return static_cast<double>(tensor.nbytes());
  }
  double elements = 1;
  const auto sizes = tensor.sizes();
  const auto strides = tensor.strides();
  for (size_t dimension = 0; dimension < sizes.size(); ++dimension) {
    elements *= strides[dimension] == 0 && sizes[dimension] != 0 ? 1.0 : static_cast<double>(sizes[dimension]);
  }
  return elements * static_cast<double>(tensor.element_size());
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

// Of queries, keys and values. `[tokens, heads, size]` is where sequences of several lengths are packed into one, which are taken to be one.
double attention_operations(const Operation& operation, const at::Tensor& query, const at::Tensor& key, const at::Tensor& value) {
  if (query.dim() < 3 || key.dim() != query.dim()) {
    return 0;
  }
  const int64_t tokens = key.size(key.dim() == 3 ? 0 : operation.tokens_first ? 1 : 2);
  const double pairs = static_cast<double>(query.numel()) / static_cast<double>(query.size(-1)) * static_cast<double>(tokens);
  const double forward = 2 * pairs * static_cast<double>(query.size(-1) + value.size(-1));
  return operation.is_backward ? 2.5 * forward : forward;
}

} // namespace

Operation described(std::string_view name, const c10::FunctionSchema& schema) {
  Operation operation;
  bool gives_tensor = false;
  bool gives_views = true;
  for (const auto& given : schema.returns()) {
    const bool is_tensor = given.type()->isSubtypeOf(*c10::TensorType::get()) ||
        given.type()->isSubtypeOf(*c10::ListType::ofTensors());
    gives_tensor |= is_tensor;
    gives_views &= given.alias_info() != nullptr && !given.alias_info()->isWrite();
  }
  const bool is_allocation = name.rfind("empty", 0) == 0 || name.rfind("new_empty", 0) == 0 || name.rfind("_empty", 0) == 0;
  operation.is_idle = !gives_tensor || gives_views || is_allocation || is_among(name, idle);
  for (size_t index = 0; index < std::min(schema.arguments().size(), operation.is_written.size()); ++index) {
    const auto& argument = schema.arguments()[index];
    operation.is_written[index] = argument.alias_info() != nullptr && argument.alias_info()->isWrite();
    operation.is_target[index] = operation.is_written[index] && (argument.name() == "out" || is_among(name, overwriting));
  }
  const bool in_place = !name.empty() && name.back() == '_';
  if (is_among(name, products_of_first)) {
    operation.kind = Kind::gemm;
  } else if (is_among(in_place ? name.substr(0, name.size() - 1) : name, products_of_second)) {
    operation.kind = Kind::gemm;
    // In place the first is where the result goes.
    operation.factor = in_place ? 0 : 1;
  } else if (contains(name, "cudnn_attention")) {
    operation.kind = Kind::cudnn_attention;
  } else if (contains(name, "_attention")) {
    operation.kind = Kind::attention;
  } else if (contains(name, "convolution") || contains(name, "conv_depthwise") || name.rfind("slow_conv", 0) == 0) {
    operation.kind = Kind::convolution;
  } else if (is_among(name, reductions)) {
    operation.kind = Kind::reduction;
  }
  operation.is_backward = contains(name, "backward");
  operation.tokens_first = contains(name, "_flash_attention_forward") || contains(name, "_efficient_attention_forward");
  operation.is_copy = name == "copy_";
  operation.looks_up = is_among(name, lookups);
  return operation;
}

void Work::add_argument(size_t index, const at::Tensor& tensor, bool is_listed) {
  if (index >= operation_.is_written.size()) {
    return;
  }
  // What is written beside the factors is a place for the result.
  if (!is_listed && !operation_.is_written[index] && tensors_ < first_.size()) {
    first_[tensors_++] = &tensor;
  }
  if (tensor.defined() && !tensor.is_cuda()) {
    crosses_ |= operation_.is_copy;
  } else if (tensor.defined()) {
    meet(tensor);
    read_bytes_ += operation_.is_target[index] ? 0 : bytes_of(tensor);
  }
}

void Work::close_arguments() {
  const auto [first, second, third] = first_;
  if (operation_.kind == Kind::gemm && operation_.factor < tensors_ && first_[operation_.factor]->dim() > 0) {
    rate_ = 2.0 * static_cast<double>(first_[operation_.factor]->size(-1));
  } else if (operation_.kind == Kind::convolution && tensors_ > 1 && second->defined() && second->dim() > 1 && second->size(0) > 0) {
    rate_ = 2.0 * static_cast<double>(second->numel()) / static_cast<double>(second->size(0));
  } else if ((operation_.kind == Kind::attention || operation_.kind == Kind::cudnn_attention) && tensors_ == first_.size()) {
    rate_ = attention_operations(operation_, *first, *second, *third);
  }
  first_ = {};
}

void Work::add_result(const at::Tensor& tensor) {
  if (tensor.defined() && tensor.is_cuda()) {
    meet(tensor);
    elements_ = elements_ == 0 ? static_cast<double>(tensor.numel()) : elements_;
    written_bytes_ += bytes_of(tensor);
  }
}

void Work::meet(const at::Tensor& tensor) {
  if (!is_on_gpu_) {
    is_on_gpu_ = true;
    type_ = type_of(tensor.scalar_type(), operation_.kind);
  }
}

double Work::operations() const {
  switch (operation_.kind) {
    case Kind::attention:
    case Kind::cudnn_attention:
    case Kind::sage_attention:
      return rate_;
    case Kind::gemm:
    case Kind::convolution:
      return rate_ * elements_;
    default:
      return 0;
  }
}

double Work::bytes() const {
  return written_bytes_ + (operation_.looks_up ? written_bytes_ : read_bytes_);
}

} // namespace lowmem
