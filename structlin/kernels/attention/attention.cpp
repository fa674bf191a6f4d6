// How does causal self-attention run on one core? A block of queries at a time, its scores with the queries innermost.
//
//     q[i, c] = (x[i, c] - mean_c x[i, c]) / deviation_c x[i, c] gain[c], of x the queries given; likewise k
//     s[j, i] = sum_c k[j, c] q[i, c]      p[j, i] = exp(s[j, i]) / sum_j exp(s[j, i]), 0 where j > i
//     y[i, c] = sum_j p[j, i] v[j, c]
//
//     dp[j, i] = sum_c v[j, c] dy[i, c]    ds[j, i] = p[j, i] (dp[j, i] - sum_j p[j, i] dp[j, i])
//     dv[j, c] = sum_i p[j, i] dy[i, c]    dk[j, c] = sum_i ds[j, i] q[i, c]    dq[i, c] = sum_j ds[j, i] k[j, c]
//
// With the queries along the lanes of a vector, a softmax is sums down the rows, and a sum over keys ends at the
// diagonal to within a register tile, so that little more than half of each product is computed. The scores of a block
// against all keys before it stay in the caches; the backward pass makes them again and keeps nothing. Queries and keys
// are layer-normed when their rows are gathered, and what they were given as is read again for the gradients.
//
// Tensors are (N, T, H, D), contiguous. The features of a head are a constant of the compilation: -DSL_D=, whole
// vectors. Rows beyond the last token are zeros. The sums run in an order fixed by the sizes.

#include <cstring>

#include "functions.hpp"
#include "tiles.hpp"

#define SL_PART static __attribute__((noinline))

namespace {

constexpr int D = SL_D;
constexpr int B = 2 * W;                   // queries of a block
constexpr int M = SL_LANES == 16 ? 8 : 4;  // rows of a register tile
constexpr int NR = D % (2 * W) == 0 ? 2 : 1;
constexpr float LN_2 = 0.693147180559945309f;

constexpr long blocks_of(long tokens) { return (tokens + B - 1) / B * B; }

// ---- one register tile ----------------------------------------------------------------------------------------

// C[M][COLUMNS vectors] (+)= sum over k < depth of L[m, k] R[k].
template <int COLUMNS, long LM, long LK, long RK, long CM, Target TARGET>
SL_INLINE void short_tile(int depth, const float* __restrict L, const float* __restrict R, float* __restrict C) {
  Vector sum[M][COLUMNS] = {};
#pragma GCC unroll 4
  for (int k = 0; k < depth; ++k) {
    Vector right[COLUMNS];
#pragma GCC unroll 2
    for (int n = 0; n < COLUMNS; ++n) right[n] = load(R + k * RK + n * W);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const Vector left = L[m * LM + k * LK] - Vector{};
#pragma GCC unroll 2
      for (int n = 0; n < COLUMNS; ++n) sum[m][n] += left * right[n];
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
    for (int n = 0; n < COLUMNS; ++n) {
      float* c = C + m * CM + n * W;
      store<W>(c, TARGET == ADD ? sum[m][n] + load(c) : sum[m][n]);
    }
}

// While a head's forward pass is computed, the rows of the next one are fetched, a few with every register tile: they
// lie far apart, and the processor's own prefetcher does not follow them (measured: a sixth of the time; nothing in the
// backward pass).
struct Ahead {
  static constexpr int ROWS = 2;
  const float* heads[4];
  long stride, left;

  void step() {
    for (int row = 0; row < ROWS && left > 0; ++row, --left)
      for (const float*& head : heads) {
        for (int c = 0; c < D; c += 16) __builtin_prefetch(head + c, 0, 2);
        head += stride;
      }
  }
};

// ---- products of a block of queries, which begins at token i0 ---------------------------------------------------

// s[j, i] = sum_c rows[j, c] columns[c, i] for j < i0 + B; of the diagonal's lower half the first vector is zeros.
SL_PART void make_scores(const float* rows, const float* columns, int i0, float* s, Ahead& ahead) {
  for (int j = 0; j < i0 + W; j += M) {
    ahead.step();
    short_tile<2, D, 1, B, B, SET>(D, rows + j * D, columns, s + j * B);
  }
  for (int j = i0 + W; j < i0 + B; j += M) {
    short_tile<1, D, 1, B, B, SET>(D, rows + j * D, columns + W, s + j * B + W);
    for (int m = 0; m < M; ++m) store<W>(s + (j + m) * B, Vector{});
  }
}

// result[i, c] = sum over j <= i of p[j, i] rows[j, c].
SL_PART void sum_keys(const float* p, const float* rows, int i0, float* result, Ahead& ahead) {
  for (int c = 0; c < D; c += NR * W)
    for (int i = 0; i < B; i += M) {
      ahead.step();
      short_tile<NR, 1, B, D, D, SET>(i0 + i + M, p + i, rows + c, result + i * D + c);
    }
}

// result[j, c] += sum over i >= j of p[j, i] rows[i, c].
SL_PART void sum_queries(const float* p, const float* rows, int i0, float* result) {
  for (int c = 0; c < D; c += NR * W)
    for (int j = 0; j < i0 + B; j += M) {
      const int i = j > i0 ? j - i0 : 0;
      short_tile<NR, B, 1, D, D, ADD>(B - i, p + j * B + i, rows + i * D + c, result + j * D + c);
    }
}

// ---- softmax --------------------------------------------------------------------------------------------------

SL_INLINE void mask(int i0, float* s) {
  IntVector lane;
  for (int w = 0; w < W; ++w) lane[w] = w;
  const Vector never = -__builtin_inff() - Vector{};
  for (int j = 0; j < B; ++j)
    for (int i = 0; i < B; i += W) {
      float* at = s + (i0 + j) * B + i;
      store<W>(at, lane + i >= j ? load(at) : never);
    }
}

// s, in units of log 2, becomes p times its sum; returned is 1 / sum.
SL_PART void softmax(int i0, float* s, float* inverse_sum) {
  mask(i0, s);
  Vector most[2] = {load(s), load(s + W)}, sum[2] = {};
  for (int j = 1; j < i0 + B; ++j)
    for (int n = 0; n < 2; ++n) {
      const Vector value = load(s + j * B + n * W);
      most[n] = value > most[n] ? value : most[n];
    }
  for (int j = 0; j < i0 + B; ++j)
    for (int n = 0; n < 2; ++n) {
      const Vector value = power_of_2(load(s + j * B + n * W) - most[n]);
      store<W>(s + j * B + n * W, value);
      sum[n] += value;
    }
  for (int n = 0; n < 2; ++n) store<W>(inverse_sum + n * W, 1.0f / sum[n]);
}

// p times its sum becomes p, and dp becomes ds.
SL_PART void differentiate_softmax(int i0, const float* inverse_sum, float* p, float* dp) {
  for (int n = 0; n < B; n += W) {
    const Vector scale = load(inverse_sum + n);
    Vector mean = {};
    for (int at = n; at < (i0 + B) * B; at += B) {
      const Vector value = load(p + at) * scale;
      store<W>(p + at, value);
      mean += value * load(dp + at);
    }
    for (int at = n; at < (i0 + B) * B; at += B) store<W>(dp + at, load(p + at) * (load(dp + at) - mean));
  }
}

// ---- rows of a head ---------------------------------------------------------------------------------------------

// The rows [first, first + count) of a head times a factor, one after another; zeros beyond the last token.
SL_PART void gather(const float* head, long stride, long tokens, long first, long count, float factor, float* rows) {
  for (long t = first; t < first + count; ++t, rows += D)
    for (int c = 0; c < D; c += W) store<W>(rows + c, t < tokens ? load(head + t * stride + c) * factor : Vector{});
}

constexpr float EPSILON = 1e-5f;  // torch's, added to the variance

struct Moments {
  float mean, inverse;  // of the deviation
};

SL_INLINE Moments moments(const float* row) {
  Vector sum = {}, squares = {};
  for (int c = 0; c < D; c += W) sum += load(row + c);
  const float mean = total(sum) / D;
  for (int c = 0; c < D; c += W) {
    const Vector centred = load(row + c) - mean;
    squares += centred * centred;
  }
  return {mean, 1.0f / __builtin_sqrtf(total(squares) / D + EPSILON)};
}

// As gather does without a norm: the rows layer-normed, times a factor; zeros beyond the last token.
SL_PART void gather_normed(const float* head, long stride, long tokens, long first, long count, const float* gain,
                           float factor, float* rows) {
  const long inside = first + count <= tokens ? count : first < tokens ? tokens - first : 0;
  for (long t = 0; t < inside; ++t, rows += D) {
    const float* row = head + (first + t) * stride;
    const Moments of = moments(row);
    for (int c = 0; c < D; c += W)
      store<W>(rows + c, (load(row + c) - of.mean) * (of.inverse * factor) * load(gain + c));
  }
  std::memset(rows, 0, (count - inside) * D * sizeof(float));
}

// Of gradients of normed rows, times a factor, makes those of the rows given; adds those of the gain.
SL_PART void scatter_normed(const float* rows, long stride, long tokens, long first, long count, const float* gain,
                            float factor, const float* head, float* d_head, float* d_gain) {
  for (long t = first; t < first + count && t < tokens; ++t, rows += D) {
    const float* row = head + t * stride;
    const Moments of = moments(row);
    Vector centred[D / W], slope[D / W], sum = {}, along = {};
    for (int n = 0; n < D / W; ++n) {
      const Vector d = load(rows + n * W) * factor;
      centred[n] = (load(row + n * W) - of.mean) * of.inverse;
      slope[n] = d * load(gain + n * W);
      store<W>(d_gain + n * W, load(d_gain + n * W) + d * centred[n]);
      sum += slope[n];
      along += slope[n] * centred[n];
    }
    const float mean = total(sum) / D, share = total(along) / D;
    for (int n = 0; n < D / W; ++n)
      store<W>(d_head + t * stride + n * W, (slope[n] - mean - centred[n] * share) * of.inverse);
  }
}

SL_PART void scatter(const float* rows, long stride, long tokens, long first, long count, float factor, float* head) {
  for (long t = first; t < first + count && t < tokens; ++t, rows += D)
    for (int c = 0; c < D; c += W) store<W>(head + t * stride + c, load(rows + c) * factor);
}

struct Work {
  float *k, *v, *dk, *dv, *s, *ds;
  float *q, *dy, *qT, *dyT, *result, *inverse_sum;
  Ahead ahead{};
};

// Lays the parts out from `base`, or only counts when it is null; returns the number of floats.
long lay_out(long tokens, bool backward, float* base, Work& work) {
  const long rows = blocks_of(tokens);
  long used = 0;
  auto take = [&](long size) {
    float* part = base ? base + used : nullptr;
    used += size;
    return part;
  };
  work.k = take(rows * D);
  work.v = take(rows * D);
  work.s = take(rows * B);
  work.q = take(B * D);
  work.qT = take(B * D);
  work.result = take(B * D);
  work.inverse_sum = take(B);
  if (!backward) return used;
  work.dk = take(rows * D);
  work.dv = take(rows * D);
  work.ds = take(rows * B);
  work.dy = take(B * D);
  work.dyT = take(B * D);
  return used;
}

struct Shape {
  long tokens, heads;
  float scale;
  const float *q_gain, *k_gain;
  long stride() const { return heads * D; }
  long at(long head) const { return head / heads * tokens * stride() + head % heads * D; }
};

SL_INLINE void make_p(const Shape& shape, const float* q, long i0, Work& work) {
  gather_normed(q, shape.stride(), shape.tokens, i0, B, shape.q_gain, shape.scale * LOG2_E, work.q);
  transpose(B, D, work.q, D, work.qT, B);
  make_scores(work.k, work.qT, i0, work.s, work.ahead);
  softmax(i0, work.s, work.inverse_sum);
}

SL_PART void forward_head(const Shape& shape, const float* q, const float* k, const float* v, float* y, Work& work) {
  const long rows = blocks_of(shape.tokens), stride = shape.stride();
  gather_normed(k, stride, shape.tokens, 0, rows, shape.k_gain, 1, work.k);
  gather(v, stride, shape.tokens, 0, rows, 1, work.v);
  for (long i0 = 0; i0 < shape.tokens; i0 += B) {
    make_p(shape, q, i0, work);
    sum_keys(work.s, work.v, i0, work.result, work.ahead);
    for (long i = 0; i < B; ++i)
      scatter(work.result + i * D, stride, shape.tokens, i0 + i, 1, work.inverse_sum[i], y);
  }
}

SL_PART void backward_head(const Shape& shape, const float* q, const float* k, const float* v, const float* dy,
                           float* dq, float* dk, float* dv, float* dq_gain, float* dk_gain, Work& work) {
  const long rows = blocks_of(shape.tokens), stride = shape.stride();
  gather_normed(k, stride, shape.tokens, 0, rows, shape.k_gain, 1, work.k);
  gather(v, stride, shape.tokens, 0, rows, 1, work.v);
  std::memset(dq_gain, 0, D * sizeof(float));
  std::memset(dk_gain, 0, D * sizeof(float));
  std::memset(work.dk, 0, rows * D * sizeof(float));
  std::memset(work.dv, 0, rows * D * sizeof(float));
  for (long i0 = 0; i0 < shape.tokens; i0 += B) {
    make_p(shape, q, i0, work);
    gather(dy, stride, shape.tokens, i0, B, 1, work.dy);
    transpose(B, D, work.dy, D, work.dyT, B);
    make_scores(work.v, work.dyT, i0, work.ds, work.ahead);
    differentiate_softmax(i0, work.inverse_sum, work.s, work.ds);
    sum_queries(work.s, work.dy, i0, work.dv);
    sum_queries(work.ds, work.q, i0, work.dk);
    sum_keys(work.ds, work.k, i0, work.result, work.ahead);
    scatter_normed(work.result, stride, shape.tokens, i0, B, shape.q_gain, shape.scale, q, dq, dq_gain);
  }
  // q holds the scale and the change to powers of 2, which is undone.
  scatter_normed(work.dk, stride, shape.tokens, 0, rows, shape.k_gain, LN_2, k, dk, dk_gain);
  scatter(work.dv, stride, shape.tokens, 0, rows, 1, dv);
}

}  // namespace

// ---- entry points: heads [start, stop) of the N H heads -----------------------------------------------------------

extern "C" long structlin_work_floats(long tokens, long backward) {
  Work work;
  return lay_out(tokens, backward, nullptr, work);
}

extern "C" void structlin_forward(long start, long stop, long tokens, long heads, float scale, const float* q_gain,
                                  const float* k_gain, const float* q, const float* k, const float* v, float* y,
                                  float* base) {
  Work work;
  lay_out(tokens, false, base, work);
  const Shape shape{tokens, heads, scale, q_gain, k_gain};
  for (long head = start; head < stop; ++head) {
    const long at = shape.at(head), next = shape.at(head + 1);
    work.ahead = {{q + next, k + next, v + next, y + next}, shape.stride(), head + 1 < stop ? tokens : 0};
    forward_head(shape, q + at, k + at, v + at, y + at, work);
  }
}

// The gradients of the gains are those of each head, (N H, D): their sum must not depend on who computes which.
extern "C" void structlin_backward(long start, long stop, long tokens, long heads, float scale, const float* q_gain,
                                   const float* k_gain, const float* q, const float* k, const float* v,
                                   const float* dy, float* dq, float* dk, float* dv, float* dq_gain, float* dk_gain,
                                   float* base) {
  Work work;
  lay_out(tokens, true, base, work);
  const Shape shape{tokens, heads, scale, q_gain, k_gain};
  for (long head = start; head < stop; ++head) {
    const long at = shape.at(head);
    backward_head(shape, q + at, k + at, v + at, dy + at, dq + at, dk + at, dv + at, dq_gain + head * D,
                  dk_gain + head * D, work);
  }
}
