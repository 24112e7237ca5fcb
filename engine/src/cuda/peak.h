// What lives in PyTorch's caching allocator when it has given out most.

#pragma once

namespace lowmem {

// This thread is in an operation from here on, which is a convolution or not. The number that `operation_ended` wants back.
unsigned long long operation_begins(bool is_convolution);
void operation_ended(unsigned long long outer, bool is_outermost);
// Whether somebody wants to hear of a new peak.
bool hears_peaks();

} // namespace lowmem
