// What does a layer do to the tokens of one sequence? Features come row by row, tokens along the lanes, so that every
// index of a structure is a distance between rows and no product of whatever sizes needs padding.
//
//     x (features, T)   y (features, T)   z (g b, r, f, d, T) between two factors
//
// Weights and their gradients lie in one row of numbers each; layers know their places in both. Gradients are added up.

#pragma once

#include "chains.hpp"

namespace {

constexpr S EPSILON = S(1e-5);  // torch's, added to a variance

static long most(long a, long b) { return a > b ? a : b; }

// ---- linear maps ----------------------------------------------------------------------------------------------------

constexpr long Z_NUMBERS = 1 << 16;  // of z at a time: it and its gradient stay in the second cache
constexpr long LEAST_LANES = 16, LEAST_ROWS = 48;  // of a gradient that is worth transposing tokens (measured)

// As the layer is described to us, in longs. A chain where there is one; one weight (d_out, d_in) where ``second`` is
// below 0; else two factors: first (g, r, f, d, a), second (f, e, g, b, r); x is (g, b, a) or, where B comes first,
// (g, a, b); y (f, e, d) or (f, d, e). ``bias`` is below 0 where there is none.
struct Linear {
  long d_in, d_out, g, b, a, r, f, d, e, a_first, first, second, bias;
  const Chain* chain;

  bool dense() const { return !chain && second < 0; }
  long between() const { return g * b * r; }
  // Rows of z that belong to one (g b, r) lie together; a line of padding keeps equal (f, d) apart from one cache set.
  bool apart() const { return f * d >= 4; }
  long z_row(long n) const { return f * d * n + (apart() ? 16 : 0); }
  // Tokens that pass through z together: all of T, whose z is then kept for the way back, or as many as may.
  long together(long T) const {
    if (dense() || chain) return T;
    const long most_tokens = Z_NUMBERS / (between() * f * d) / 16 * 16;
    return most_tokens >= T ? T : most_tokens < 16 ? 16 : most_tokens;
  }
  bool keeps_z(long T) const { return !dense() && together(T) == T; }
  long z_size(long T) const { return chain ? chain->kept * T : dense() ? 0 : between() * z_row(together(T)); }
  // Whether gradients of a factor are made with a (or e) along the lanes; those of the second are then (f, g b r, e).
  bool a_lanes() const { return a >= LEAST_LANES && r * f * d >= LEAST_ROWS; }
  bool e_lanes() const { return e >= LEAST_LANES && between() >= LEAST_ROWS; }
};

// Tokens of which each has its features in a row.
constexpr long token_row(long features) { return up_to(features, 16) + 16; }

// Calls f(x, x step, first factor, rows of z, z, G, part) for every product with the first factor, of n tokens.
template <class F>
SL_INLINE void each_first(const Linear& l, long T, long n, F f) {
  const long parts = l.apart() ? l.r : 1, rows = l.apart() ? l.f * l.d : l.r * l.f * l.d;
  for (long G = 0; G < l.g * l.b; ++G) {
    const long x = l.a_first ? G * l.a : G / l.b * l.a * l.b + G % l.b;
    for (long part = 0; part < parts; ++part)
      f(x * T, (l.a_first ? 1 : l.b) * T, (G / l.b * l.r * l.f * l.d + part * rows) * l.a, rows,
        (G * l.r + part) * l.z_row(n), G, part);
  }
}

// Calls f(z, second factor, y, y step, lanes) for every product with the second: where d lies beside all tokens in y,
// all of it at once.
template <class F>
SL_INLINE void each_second(const Linear& l, long T, long n, F f) {
  const bool merges = l.a_first && n == T;
  for (long F_ = 0; F_ < l.f; ++F_)
    for (long d_ = 0; d_ < (merges ? 1 : l.d); ++d_) {
      const long y = l.a_first ? F_ * l.e * l.d + d_ : (F_ * l.d + d_) * l.e;
      f((F_ * l.d + d_) * n, F_ * l.e * l.between(), y * T, (l.a_first ? l.d : 1) * T, merges ? l.d * T : n);
    }
}

// What every layer of a model asks for on its way there and back.
struct Pass {
  const S* weights;
  S* gradients;
  long T;
  S *z, *dz, *of_tokens, *more_of_tokens;

  // z of n tokens, from the first one of x.
  void first_product(const Linear& l, const S* x, S* z_here, long n) {
    each_first(l, T, n, [&](long x_at, long x_step, long first, long rows, long z_at, long, long) {
      multiply(rows, n, l.a, {weights + l.first + first, l.a, 1}, {x + x_at, x_step}, {z_here + z_at, n, false});
    });
  }

  // y of x; what is kept of z lies in ``kept``.
  void forward(const Linear& l, const S* x, S* kept, S* y) {
    if (l.chain) {
      chain_forward(*l.chain, weights, T, x, kept, z, y);
    } else if (l.dense()) {
      multiply(l.d_out, T, l.d_in, {weights + l.first, l.d_in, 1}, {x, T}, {y, T, false});
    } else {
      S* z_here = l.keeps_z(T) ? kept : z;
      for (long t = 0; t < T; t += l.together(T)) {
        const long n = l.together(T) < T - t ? l.together(T) : T - t;
        first_product(l, x + t, z_here, n);
        each_second(l, T, n, [&](long z_at, long second, long y_at, long y_row, long lanes) {
          multiply(l.e, lanes, l.between(), {weights + l.second + second, l.between(), 1},
                   {z_here + z_at, l.z_row(n)}, {y + y_at + t, y_row, false});
        });
      }
    }
    if (l.bias < 0) return;
    for (long o = 0; o < l.d_out; ++o)
      for (long t = 0; t < T; t += VW) put(y + o * T + t, get(y + o * T + t) + weights[l.bias + o]);
  }

  const S* rows_of(const S* x, long features) {
    transposed(features, T, x, T, of_tokens, token_row(features));
    return of_tokens;
  }

  // dx becomes, or is added, the gradient of x; null: nobody asks for it. ``rows``: x token by token, for dense maps.
  void backward(const Linear& l, const S* x, const S* kept, const S* dy, S* dx, bool adds = false,
                const S* rows = nullptr) {
    bias_gradient(l, dy);
    if (l.chain) {
      chain_backward(*l.chain, weights, gradients, T, kept, z, dz, dy, dx, adds);
      return;
    }
    if (l.dense()) {
      if (!rows) rows = rows_of(x, l.d_in);
      multiply(l.d_out, l.d_in, T, {dy, T, 1}, {rows, token_row(l.d_in)}, {gradients + l.first, l.d_in, true});
      if (dx) multiply(l.d_in, T, l.d_out, {weights + l.first, 1, l.d_in}, {dy, T}, {dx, T, adds});
      return;
    }
    for (long t = 0; t < T; t += l.together(T)) {
      const long n = l.together(T) < T - t ? l.together(T) : T - t;
      if (!l.keeps_z(T)) first_product(l, x + t, z, n);
      second_backward(l, l.keeps_z(T) ? kept : z, dy + t, n);
      first_backward(l, x + t, dx ? dx + t : nullptr, adds, n);
    }
  }

  void bias_gradient(const Linear& l, const S* dy) {
    if (l.bias < 0) return;
    for (long o = 0; o < l.d_out; ++o) {
      V sum{};
      for (long t = 0; t < T; t += VW) sum += get(dy + o * T + t);
      gradients[l.bias + o] += lanes_total(sum);
    }
  }

  void second_backward(const Linear& l, const S* z_here, const S* dy, long n) {
    const long K = l.between(), z_row = l.z_row(n), row = token_row(l.f * l.e);
    each_second(l, T, n, [&](long z_at, long second, long y_at, long y_row, long lanes) {
      if (!l.e_lanes())
        correlate(l.e, K, lanes, dy + y_at, y_row, z_here + z_at, z_row, gradients + l.second + second, K);
      multiply(K, lanes, l.e, {weights + l.second + second, 1, K}, {dy + y_at, y_row}, {dz + z_at, z_row, false});
    });
    if (!l.e_lanes()) return;
    for (long F_ = 0; F_ < l.f; ++F_) {
      for (long d_ = 0; d_ < l.d; ++d_) {
        const long y = l.a_first ? F_ * l.e * l.d + d_ : (F_ * l.d + d_) * l.e;
        transposed(l.e, n, dy + y * T, (l.a_first ? l.d : 1) * T, more_of_tokens + d_ * n * row + F_ * l.e, row);
      }
      multiply(K, l.e, l.d * n, {z_here + F_ * l.d * n, z_row, 1}, {more_of_tokens + F_ * l.e, row},
               {gradients + l.second + F_ * K * l.e, l.e, true});
    }
  }

  void first_backward(const Linear& l, const S* x, S* dx, bool adds, long n) {
    const long row = token_row(l.a);
    each_first(l, T, n, [&](long x_at, long x_step, long first, long rows, long z_at, long, long part) {
      S* into = gradients + l.first + first;
      if (l.a_lanes()) {
        if (part == 0) transposed(l.a, n, x + x_at, x_step, more_of_tokens, row);
        multiply(rows, l.a, n, {dz + z_at, n, 1}, {more_of_tokens, row}, {into, l.a, true});
      } else {
        correlate(rows, l.a, n, dz + z_at, n, x + x_at, x_step, into, l.a);
      }
      if (dx)
        multiply(l.a, n, rows, {weights + l.first + first, 1, l.a}, {dz + z_at, n},
                 {dx + x_at, x_step, adds || part > 0});
    });
  }

  // Gradients of a second factor that were added up as (f, g b r, e) take its own order. Once, after the last sequence.
  void settle(const Linear& l) {
    if (l.dense() || l.chain || !l.e_lanes()) return;
    const long K = l.between();
    for (long F_ = 0; F_ < l.f; ++F_) {
      S* of_f = gradients + l.second + F_ * K * l.e;
      for (long k = 0; k < K; ++k)
        for (long e_ = 0; e_ < l.e; ++e_) dz[e_ * K + k] = of_f[k * l.e + e_];
      std::memcpy(of_f, dz, K * l.e * sizeof(S));
    }
  }
};

// Numbers of work space of a layer: of z and of its gradient, and of rows of tokens.
struct Room {
  long z = 0, of_tokens = 0, more_of_tokens = 0;

  void fit(const Linear& l, long T) {
    if (l.chain) {
      z = most(z, l.chain->widest * T);
      return;
    }
    z = most(z, most(l.z_size(T), l.dense() ? 0 : l.between() * l.e));
    of_tokens = most(of_tokens, l.dense() ? T * token_row(l.d_in) : 0);
    if (l.dense()) return;
    more_of_tokens = most(more_of_tokens, most(l.d * l.together(T) * token_row(l.f * l.e), T * token_row(l.a)));
  }

  void take(Pass& pass, Space& space) {
    pass.z = space.take(z);
    pass.dz = space.take(z);
    pass.of_tokens = space.take(of_tokens);
    pass.more_of_tokens = space.take(more_of_tokens);
  }
};

// ---- layer norm -----------------------------------------------------------------------------------------------------

struct Norm {
  long size, gain, bias;
};

// normal = (x - mean) / deviation and y = gain normal + bias; ``scale`` (T) keeps 1 / deviation.
template <int N>
static void norm_vectors(const Norm& n, const S* weights, const S* x, S* normal, S* scale, S* y, long T) {
  const S *gain = weights + n.gain, share = S(1) / S(n.size);
  V sums[4 / N][N] = {}, squares[4 / N][N] = {}, mean[N], factor[N];
  long c = 0;
  for (; c + 4 / N <= n.size; c += 4 / N)
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) sums[j / N][j % N] += get(x + (c + j / N) * T + j % N * VW);
  for (; c < n.size; ++c)
    for (int i = 0; i < N; ++i) sums[0][i] += get(x + c * T + i * VW);
  for (int i = 0; i < N; ++i) {
    for (int j = 1; j < 4 / N; ++j) sums[0][i] += sums[j][i];
    mean[i] = sums[0][i] * share;
  }
  for (c = 0; c + 4 / N <= n.size; c += 4 / N)
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const V off = get(x + (c + j / N) * T + j % N * VW) - mean[j % N];
      squares[j / N][j % N] += off * off;
    }
  for (; c < n.size; ++c)
    for (int i = 0; i < N; ++i) {
      const V off = get(x + c * T + i * VW) - mean[i];
      squares[0][i] += off * off;
    }
  for (int i = 0; i < N; ++i) {
    for (int j = 1; j < 4 / N; ++j) squares[0][i] += squares[j][i];
    factor[i] = S(1) / root(squares[0][i] * share + EPSILON);
    put(scale + i * VW, factor[i]);
  }
  for (c = 0; c < n.size; ++c)
#pragma GCC unroll 4
    for (int i = 0; i < N; ++i) {
      const long at = c * T + i * VW;
      const V found = (get(x + at) - mean[i]) * factor[i];
      put(normal + at, found);
      put(y + at, n.bias < 0 ? found * gain[c] : found * gain[c] + weights[n.bias + c]);
    }
}

static void norm(const Norm& n, const S* weights, const S* x, S* normal, S* scale, S* y, long T) {
  long t = 0;
  for (; t + 4 * VW <= T; t += 4 * VW) norm_vectors<4>(n, weights, x + t, normal + t, scale + t, y + t, T);
  for (; t < T; t += VW) norm_vectors<1>(n, weights, x + t, normal + t, scale + t, y + t, T);
}

template <int N>
static void norm_back(const Norm& n, const S* gain, const S* normal, const S* scale, const S* dy, S* dx, bool adds,
                      long T) {
  const S share = S(1) / S(n.size);
  V mean[4 / N][N] = {}, along[4 / N][N] = {};
  long c = 0;
  for (; c + 4 / N <= n.size; c += 4 / N)
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const long at = (c + j / N) * T + j % N * VW;
      const V d = get(dy + at) * gain[c + j / N];
      mean[j / N][j % N] += d;
      along[j / N][j % N] += d * get(normal + at);
    }
  for (; c < n.size; ++c)
    for (int i = 0; i < N; ++i) {
      const V d = get(dy + c * T + i * VW) * gain[c];
      mean[0][i] += d;
      along[0][i] += d * get(normal + c * T + i * VW);
    }
  for (int i = 0; i < N; ++i) {
    for (int j = 1; j < 4 / N; ++j) {
      mean[0][i] += mean[j][i];
      along[0][i] += along[j][i];
    }
    mean[0][i] *= share;
    along[0][i] *= share;
  }
  for (c = 0; c < n.size; ++c)
#pragma GCC unroll 4
    for (int i = 0; i < N; ++i) {
      const long at = c * T + i * VW;
      const V d = get(dy + at) * gain[c] - mean[0][i] - get(normal + at) * along[0][i];
      const V found = d * get(scale + i * VW);
      put(dx + at, adds ? get(dx + at) + found : found);
    }
}

// dx (+)= the gradient of what was normed; dx may be dy.
static void norm_backward(const Norm& n, const S* weights, S* gradients, const S* normal, const S* scale, const S* dy,
                          S* dx, bool adds, long T) {
  const S* gain = weights + n.gain;
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
  long t = 0;
  for (; t + 4 * VW <= T; t += 4 * VW) norm_back<4>(n, gain, normal + t, scale + t, dy + t, dx + t, adds, T);
  for (; t < T; t += VW) norm_back<1>(n, gain, normal + t, scale + t, dy + t, dx + t, adds, T);
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
