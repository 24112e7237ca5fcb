// What an ATen operation asks of the GPU.

#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/function_schema.h>

#include <array>
#include <bitset>
#include <string_view>

namespace lowmem {

// The numbers are part of the virtual GPU's interface: see `docs/virtual-gpu.md`.
enum class Kind : int { unknown = 0, gemm = 1, attention = 2, convolution = 3, pointwise = 4, reduction = 5, cudnn_attention = 6, sage_attention = 7 };
enum class Type : int { fp32 = 0, tf32 = 1, bf16 = 2, fp16 = 3, fp8 = 4, int8 = 5, fp64 = 6 };

// What is known of an operation by its name and signature alone.
struct Operation {
  Kind kind = Kind::pointwise;
  // It returns a view, memory that is not written, or no tensor: whatever runs in it is told of by itself.
  bool is_idle = false;
  // It may go between host and GPU, which is a copy and no work of the GPU's.
  bool is_copy = false;
  // It reads of its first tensor no more than it gives back: a lookup.
  bool looks_up = false;
  // Attention that goes back has five products where forward has two.
  bool is_backward = false;
  // Attention where the kernel is called has shapes `[batch, tokens, heads, size]`, above it `[batch, heads, tokens, size]`.
  bool tokens_first = false;
  // Which argument's last size the sums of a matrix product run over.
  size_t factor = 0;
  // Of the first arguments, whether each is written, and whether it is written and not read.
  std::bitset<64> is_written;
  std::bitset<64> is_target;
};

// `name` is the operation's without its namespace and overload.
Operation described(std::string_view name, const c10::FunctionSchema& schema);

// What one call of an operation asks for: as much as its arguments say, then what its results add. `Operation` outlives it.
class Work {
 public:
  explicit Work(const Operation& operation) : operation_(operation) {}

  // A tensor of argument `index`, counted from 0; `is_listed` where the argument is a list of them.
  void add_argument(size_t index, const at::Tensor& tensor, bool is_listed);
  // All arguments were there. From here on none of them is looked at.
  void close_arguments();
  void add_result(const at::Tensor& tensor);

  // Whether any of its tensors is on the GPU.
  bool is_on_gpu() const {
    return is_on_gpu_;
  }
  // Whether it goes between host and GPU.
  bool crosses() const {
    return crosses_;
  }
  Type type() const {
    return type_;
  }
  // Multiplications and additions.
  double operations() const;
  // Bytes read and written.
  double bytes() const;

 private:
  void meet(const at::Tensor& tensor);

  const Operation& operation_;
  // The first tensors that are read.
  std::array<const at::Tensor*, 3> first_{};
  size_t tensors_ = 0;
  bool is_on_gpu_ = false;
  bool crosses_ = false;
  Type type_ = Type::fp32;
  double read_bytes_ = 0;
  double written_bytes_ = 0;
  // Operations for each element of the result; of attention, all of them.
  double rate_ = 0;
  // Of the first result.
  double elements_ = 0;
};

} // namespace lowmem
