// What does a layer do to the tokens of one sequence? Features come row by row, tokens along the lanes, so that every
// index of a structure is a distance between rows and no product of whatever sizes needs padding.
//
//     x (features, T)   y (features, T)   z (g b, r, f, d, T) between two factors
//
// Weights and their gradients lie in one row of numbers each; layers know their places in both. Gradients are added up.

#pragma once

#include <type_traits>

#include "sums.hpp"

namespace {

constexpr S EPSILON = S(1e-5);  // torch's, added to a variance

// Calls f(t, vectors) for all tokens, up to four vectors at a time.
template <class F>
SL_INLINE void by_vectors(long T, F f) {
  long t = 0;
  for (; t + 4 * VW <= T; t += 4 * VW) f(t, std::integral_constant<int, 4>{});
  for (; t < T; t += VW) f(t, std::integral_constant<int, 1>{});
}

// ---- linear maps ----------------------------------------------------------------------------------------------------

// As the layer is described to us, in longs. One weight (d_out, d_in) where ``second`` is below 0, else two factors:
// first (g, r, f, d, a), second (f, e, g, b, r); x is (g, b, a) or, where B comes first, (g, a, b); y (f, e, d) or
// (f, d, e). ``bias`` is below 0 where there is none.
struct Linear {
  long d_in, d_out, g, b, a, r, f, d, e, a_first, first, second, bias;

  bool dense() const { return second < 0; }
  long between() const { return g * b * r; }
  // Rows of z that belong to one (g b, r) lie together; a line of padding keeps equal (f, d) apart from one cache set.
  bool apart() const { return f * d >= 4; }
  long z_row(long T) const { return f * d * T + (apart() ? 16 : 0); }
  long z_size(long T) const { return dense() ? 0 : between() * z_row(T); }
};

// Calls f(G, x row, x step, first factor, rows of z, z) for every product with the first factor.
template <class F>
SL_INLINE void each_first(const Linear& l, long T, F f) {
  const long parts = l.apart() ? l.r : 1, rows = l.apart() ? l.f * l.d : l.r * l.f * l.d;
  for (long G = 0; G < l.g * l.b; ++G) {
    const long x = l.a_first ? G * l.a : G / l.b * l.a * l.b + G % l.b;
    for (long part = 0; part < parts; ++part)
      f(x * T, (l.a_first ? 1 : l.b) * T, (G / l.b * l.r * l.f * l.d + part * rows) * l.a, rows,
        (G * l.r + part) * l.z_row(T));
  }
}

// Calls f(z, second factor, y, y step, lanes) for every product with the second: where d lies beside the tokens in y,
// all of it at once.
template <class F>
SL_INLINE void each_second(const Linear& l, long T, F f) {
  const long ds = l.a_first ? 1 : l.d, lanes = l.a_first ? l.d * T : T;
  for (long F_ = 0; F_ < l.f; ++F_)
    for (long d_ = 0; d_ < ds; ++d_)
      f((F_ * l.d + d_) * T, F_ * l.e * l.between(), (F_ * l.d + d_) * l.e * T, lanes, lanes);
}

static void add_bias(const Linear& l, const S* weights, S* y, long T) {
  if (l.bias < 0) return;
  for (long o = 0; o < l.d_out; ++o)
    for (long t = 0; t < T; t += VW) put(y + o * T + t, get(y + o * T + t) + weights[l.bias + o]);
}

static void linear(const Linear& l, const S* weights, const S* x, S* z, S* y, long T) {
  if (l.dense()) {
    multiply(l.d_out, T, l.d_in, {weights + l.first, l.d_in, 1}, {x, T}, {y, T, false});
  } else {
    each_first(l, T, [&](long x_at, long x_step, long first, long rows, long z_at) {
      multiply(rows, T, l.a, {weights + l.first + first, l.a, 1}, {x + x_at, x_step}, {z + z_at, T, false});
    });
    each_second(l, T, [&](long z_at, long second, long y_at, long y_row, long lanes) {
      multiply(l.e, lanes, l.between(), {weights + l.second + second, l.between(), 1}, {z + z_at, l.z_row(T)},
               {y + y_at, y_row, false});
    });
  }
  add_bias(l, weights, y, T);
}

// Tokens of which each has its features in a row, as a dense weight's gradient wants them.
constexpr long token_row(long features) { return up_to(features, 16) + 16; }

static void dense_gradient(const Linear& l, const S* x_of_tokens, const S* dy, S* gradients, long T) {
  multiply(l.d_out, l.d_in, T, {dy, T, 1}, {x_of_tokens, token_row(l.d_in)}, {gradients + l.first, l.d_in, true});
}

static void bias_gradient(const Linear& l, const S* dy, S* gradients, long T) {
  if (l.bias < 0) return;
  for (long o = 0; o < l.d_out; ++o) {
    V sum{};
    for (long t = 0; t < T; t += VW) sum += get(dy + o * T + t);
    gradients[l.bias + o] += lanes_total(sum);
  }
}

// dx becomes, or is added, the gradient of x; null: nobody asks for it. ``x_of_tokens`` is for dense maps, dz for others.
static void linear_backward(const Linear& l, const S* weights, S* gradients, const S* x, const S* x_of_tokens,
                            const S* z, const S* dy, S* dz, S* dx, bool adds, long T) {
  bias_gradient(l, dy, gradients, T);
  if (l.dense()) {
    dense_gradient(l, x_of_tokens, dy, gradients, T);
    if (dx) multiply(l.d_in, T, l.d_out, {weights + l.first, 1, l.d_in}, {dy, T}, {dx, T, adds});
    return;
  }
  const long K = l.between(), z_row = l.z_row(T);
  each_second(l, T, [&](long z_at, long second, long y_at, long y_row, long lanes) {
    correlate(l.e, K, lanes, dy + y_at, y_row, z + z_at, z_row, gradients + l.second + second, K);
    multiply(K, lanes, l.e, {weights + l.second + second, 1, K}, {dy + y_at, y_row}, {dz + z_at, z_row, false});
  });
  each_first(l, T, [&](long x_at, long x_step, long first, long rows, long z_at) {
    correlate(rows, l.a, T, dz + z_at, T, x + x_at, x_step, gradients + l.first + first, l.a);
    if (!dx) return;
    const bool more = adds || (l.apart() && z_at / z_row % l.r != 0);
    multiply(l.a, T, rows, {weights + l.first + first, 1, l.a}, {dz + z_at, T}, {dx + x_at, x_step, more});
  });
}

// ---- layer norm -----------------------------------------------------------------------------------------------------

struct Norm {
  long size, gain, bias;
};

// normal = (x - mean) / deviation and y = gain normal + bias; ``scale`` (T) keeps 1 / deviation.
static void norm(const Norm& n, const S* weights, const S* x, S* normal, S* scale, S* y, long T) {
  const S* gain = weights + n.gain;
  const S share = S(1) / S(n.size);
  by_vectors(T, [&](long t, auto vectors) {
    constexpr int N = vectors;
    V mean[N] = {}, square[N] = {};
    for (long c = 0; c < n.size; ++c)
#pragma GCC unroll 4
      for (int i = 0; i < N; ++i) mean[i] += get(x + c * T + t + i * VW);
#pragma GCC unroll 4
    for (int i = 0; i < N; ++i) mean[i] *= share;
    for (long c = 0; c < n.size; ++c)
#pragma GCC unroll 4
      for (int i = 0; i < N; ++i) {
        const V off = get(x + c * T + t + i * VW) - mean[i];
        square[i] += off * off;
      }
#pragma GCC unroll 4
    for (int i = 0; i < N; ++i) {
      square[i] = S(1) / root(square[i] * share + EPSILON);
      put(scale + t + i * VW, square[i]);
    }
    for (long c = 0; c < n.size; ++c)
#pragma GCC unroll 4
      for (int i = 0; i < N; ++i) {
        const long at = c * T + t + i * VW;
        const V found = (get(x + at) - mean[i]) * square[i];
        put(normal + at, found);
        put(y + at, n.bias < 0 ? found * gain[c] : found * gain[c] + weights[n.bias + c]);
      }
  });
}

// dx (+)= the gradient of what was normed; dx may be dy.
static void norm_backward(const Norm& n, const S* weights, S* gradients, const S* normal, const S* scale, const S* dy,
                          S* dx, bool adds, long T) {
  const S* gain = weights + n.gain;
  const S share = S(1) / S(n.size);
  for (long c = 0; c < n.size; ++c) {
    V of_gain{}, of_bias{};
    for (long t = 0; t < T; t += VW) {
      const V d = get(dy + c * T + t);
      of_gain += d * get(normal + c * T + t);
      of_bias += d;
    }
    gradients[n.gain + c] += lanes_total(of_gain);
    if (n.bias >= 0) gradients[n.bias + c] += lanes_total(of_bias);
  }
  by_vectors(T, [&](long t, auto vectors) {
    constexpr int N = vectors;
    V mean[N] = {}, along[N] = {};
    for (long c = 0; c < n.size; ++c)
#pragma GCC unroll 4
      for (int i = 0; i < N; ++i) {
        const V d = get(dy + c * T + t + i * VW) * gain[c];
        mean[i] += d;
        along[i] += d * get(normal + c * T + t + i * VW);
      }
    for (long c = 0; c < n.size; ++c)
#pragma GCC unroll 4
      for (int i = 0; i < N; ++i) {
        const long at = c * T + t + i * VW;
        const V d = get(dy + at) * gain[c] - (mean[i] + get(normal + at) * along[i]) * share;
        const V found = d * get(scale + t + i * VW);
        put(dx + at, adds ? get(dx + at) + found : found);
      }
  });
}

// ---- what else is done number by number -------------------------------------------------------------------------------

static void gelu_rows(const S* x, S* value, S* slope, long size) {
  for (long i = 0; i < size; i += VW) {
    V one, other;
    gelu_of(get(x + i), one, other);
    put(value + i, one);
    put(slope + i, other);
  }
}

static void add_scaled(S* x, const S* y, S factor, long size) {
  for (long i = 0; i < size; i += VW) put(x + i, get(x + i) + get(y + i) * factor);
}

static void times(S* x, const S* y, long size) {
  for (long i = 0; i < size; i += VW) put(x + i, get(x + i) * get(y + i));
}

static void scaled(S* x, const S* y, S factor, long size) {
  for (long i = 0; i < size; i += VW) put(x + i, get(y + i) * factor);
}

}  // namespace
