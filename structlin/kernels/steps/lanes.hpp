// What is a vector of a whole step? As wide as the processor's, of floats, or of doubles where tests ask for exactness.
//
// -DSL_DOUBLE makes every number a double: functions are then the C library's, lane by lane.

#pragma once

#include <cmath>
#include <cstring>

#include "functions.hpp"
#include "tiles.hpp"

namespace {

#ifdef SL_DOUBLE
typedef double S;
typedef long SInt;
#else
typedef float S;
typedef int SInt;
#endif

typedef S V __attribute__((vector_size(SL_LANES * 4)));
typedef S LooseV __attribute__((vector_size(SL_LANES * 4), aligned(sizeof(S))));
typedef SInt VInt __attribute__((vector_size(SL_LANES * 4)));
constexpr int VW = SL_LANES * 4 / sizeof(S);
// Tokens come in whole vectors of the widest processor.
constexpr long TOKENS_A_STEP = 16;

constexpr long up_to(long size, long step) { return (size + step - 1) / step * step; }

SL_INLINE V get(const S* p) { return *reinterpret_cast<const LooseV*>(p); }
SL_INLINE void put(S* p, V v) { *reinterpret_cast<LooseV*>(p) = v; }
SL_INLINE V all(S s) { return s - V{}; }
SL_INLINE V larger(V a, V b) { return a > b ? a : b; }

// The first ``count`` lanes of a row's end, set or added.
SL_INLINE void put_end(S* p, V v, int count, bool adds) {
#if SL_LANES == 16 && !defined(SL_DOUBLE)
  const __mmask16 mask = (__mmask16)((1u << count) - 1);
  if (adds) v += (V)_mm512_maskz_loadu_ps(mask, p);
  _mm512_mask_storeu_ps(p, mask, (__m512)v);
#else
  for (int lane = 0; lane < count; ++lane) p[lane] = adds ? p[lane] + v[lane] : v[lane];
#endif
}

SL_INLINE S lanes_total(V v) {
#ifndef SL_DOUBLE
  return total(v);
#else
  S sum = 0;
  for (int lane = 0; lane < VW; ++lane) sum += v[lane];
  return sum;
#endif
}

#ifndef SL_DOUBLE
// exp(x) for x <= 0.
SL_INLINE V exponential(V x) { return power_of_2(x * LOG2_E); }
SL_INLINE void gelu_of(V x, V& value, V& slope) {
  const Gelu at = gelu(x);
  value = at.value;
  slope = at.slope;
}
SL_INLINE V root(V x) {
#if SL_LANES == 16
  return (V)_mm512_sqrt_ps((__m512)x);
#else
  for (int lane = 0; lane < VW; ++lane) x[lane] = std::sqrt(x[lane]);
  return x;
#endif
}
#else
SL_INLINE V exponential(V x) {
  for (int lane = 0; lane < VW; ++lane) x[lane] = std::exp(x[lane]);
  return x;
}
SL_INLINE void gelu_of(V x, V& value, V& slope) {
  for (int lane = 0; lane < VW; ++lane) {
    const S below = 0.5 * std::erfc(-x[lane] * M_SQRT1_2);
    value[lane] = x[lane] * below;
    slope[lane] = below + x[lane] * std::exp(-0.5 * x[lane] * x[lane]) * 0.398942280401432678;
  }
}
SL_INLINE V root(V x) {
  for (int lane = 0; lane < VW; ++lane) x[lane] = std::sqrt(x[lane]);
  return x;
}
#endif

// target[column][row] = source[row][column].
static void transposed(long rows, long columns, const S* source, long source_stride, S* target, long target_stride) {
#ifndef SL_DOUBLE
  transpose(int(rows), int(columns), source, source_stride, target, target_stride);
#else
  for (long i = 0; i < rows; ++i)
    for (long j = 0; j < columns; ++j) target[j * target_stride + i] = source[i * source_stride + j];
#endif
}

// Hands out parts of one work space, or only counts them.
struct Space {
  S* base;
  long used = 0;

  S* take(long size) {
    S* part = base ? base + used : nullptr;
    used += up_to(size, 16) + 16;
    return part;
  }
};

}  // namespace
