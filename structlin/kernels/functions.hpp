// Which functions do kernels apply to vectors? The sum of the lanes, a power of two, and GELU with its slope.

#pragma once

#include "tiles.hpp"

namespace {

typedef int IntVector __attribute__((vector_size(SL_LANES * 4)));

SL_INLINE float total(Vector v) {
#if SL_LANES == 16
  return _mm512_reduce_add_ps((__m512)v);
#else
  float sum = 0;
  for (int lane = 0; lane < W; ++lane) sum += v[lane];
  return sum;
#endif
}

constexpr float LOG2_E = 1.44269504088896341f;

// 2^x for x <= 0, 0 below the smallest normal number. The nearest integer goes into the exponent; the rest, at most
// 1/2, into a polynomial of relative error 2e-9 (fitted by reweighted least squares).
SL_INLINE Vector power_of_2(Vector x) {
  constexpr float ROUNDING = 12582912.0f;  // 1.5 * 2^23: added, the low bits of a float are an integer
  const Vector shifted = x + ROUNDING, rest = x - (shifted - ROUNDING);
  Vector p = rest * 1.5345810970757157e-4f + 1.3399930903688073e-3f;
  p = p * rest + 9.618489071726799e-3f;
  p = p * rest + 5.550328642129898e-2f;
  p = p * rest + 2.4022646248340607e-1f;
  p = p * rest + 6.931471824645996e-1f;
  p = p * rest + 1.0f;
  const Vector scaled = (Vector)((IntVector)p + ((IntVector)shifted << 23));
  return x < -126.0f ? Vector{} : scaled;
}

struct Gelu {
  Vector value, slope;
};

// x P(x) and P(x) + x p(x), with P the normal distribution and p its density. The tail P(-|x|) is half of erfc as
// Abramowitz and Stegun approximate it (7.1.26, absolute error 1.5e-7), so that nothing cancels in it.
SL_INLINE Gelu gelu(Vector x) {
  const Vector size = x < 0.0f ? -x : x;
  const Vector t = 1.0f / (size * 0.23164189f + 1.0f);
  const Vector bell = power_of_2(x * x * (-0.5f * LOG2_E));
  Vector p = t * 0.5307027145f - 0.7265760135f;
  p = p * t + 0.7107068705f;
  p = p * t - 0.142248368f;
  p = p * t + 0.127414796f;
  const Vector tail = p * t * bell;
  const Vector below = x < 0.0f ? tail : 1.0f - tail;
  return {x * below, below + x * bell * 0.398942280401432678f};
}

}  // namespace
