// How does one head of one sequence attend? Blocks of queries along the lanes, with the keys that stand before them.
//
//     s[j, i] = scale sum_c k[c, j] q[c, i]    p[j, i] = exp(s[j, i]) / sum_j exp(s[j, i]), 0 where j > i
//     y[c, i] = sum_j v[c, j] p[j, i]
//
//     dp[j, i] = sum_c v[c, j] dy[c, i]        ds[j, i] = scale p[j, i] (dp[j, i] - sum_j p[j, i] dp[j, i])
//     dq[c, i] = sum_j k[c, j] ds[j, i]        dk[c, j] = sum_i q[c, i] ds[j, i]      dv[c, j] = sum_i dy[c, i] p[j, i]
//
// q, k, v and y are (C, T) of a head of C features. Of a block that begins at i0 the shares p are (i0 + BLOCK, BLOCK).

#pragma once

#include "layers.hpp"

namespace {

constexpr long BLOCK = SL_LANES == 16 ? 32 : 16;

SL_INLINE long width_of(long i0, long T) { return T - i0 < BLOCK ? T - i0 : BLOCK; }

constexpr long shares_size(long T) {
  long size = 0;
  for (long i0 = 0; i0 < T; i0 += BLOCK) {
    const long width = T - i0 < BLOCK ? T - i0 : BLOCK;
    size += (i0 + width) * width;
  }
  return size;
}

// Scores of N vectors of queries become shares; keys that come later get none.
template <int N>
static void soften_vectors(S* s, long first, long keys, long width, S scale) {
  V place[N], most_of[N], sum[N] = {};
#pragma GCC unroll 2
  for (int n = 0; n < N; ++n) {
    for (int i = 0; i < VW; ++i) place[n][i] = S(first + n * VW + i);
    most_of[n] = all(S(-INFINITY));
  }
  for (long j = 0; j < keys; ++j)
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) {
      V score = get(s + j * width + n * VW) * scale;
      if (j > first) score = place[n] < S(j) ? all(S(-INFINITY)) : score;
      put(s + j * width + n * VW, score);
      most_of[n] = larger(score, most_of[n]);
    }
  for (long j = 0; j < keys; ++j)
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) {
      const V share = exponential(get(s + j * width + n * VW) - most_of[n]);
      put(s + j * width + n * VW, share);
      sum[n] += share;
    }
#pragma GCC unroll 2
  for (int n = 0; n < N; ++n) sum[n] = S(1) / sum[n];
  for (long j = 0; j < keys; ++j)
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) put(s + j * width + n * VW, get(s + j * width + n * VW) * sum[n]);
}

static void soften(S* s, long i0, long width, S scale) {
  long lane = 0;
  for (; lane + 2 * VW <= width; lane += 2 * VW) soften_vectors<2>(s + lane, i0 + lane, i0 + width, width, scale);
  for (; lane < width; lane += VW) soften_vectors<1>(s + lane, i0 + lane, i0 + width, width, scale);
}

static void attend(const S* q, const S* k, const S* v, long C, long T, S scale, S* shares, S* y) {
  for (long i0 = 0; i0 < T; i0 += BLOCK) {
    const long width = width_of(i0, T), keys = i0 + width;
    multiply(keys, width, C, {k, 1, T}, {q + i0, T}, {shares, width, false});
    soften(shares, i0, width, scale);
    multiply(C, width, keys, {v, T, 1}, {shares, width}, {y + i0, T, false});
    shares += keys * width;
  }
}

// p becomes scale p (dp - sum_j p dp), in dp.
static void soften_backward(const S* p, S* dp, long keys, long width, S scale) {
  for (long lane = 0; lane < width; lane += VW) {
    V sum{};
    for (long j = 0; j < keys; ++j) sum += get(p + j * width + lane) * get(dp + j * width + lane);
    for (long j = 0; j < keys; ++j) {
      S* at = dp + j * width + lane;
      put(at, get(p + j * width + lane) * (get(at) - sum) * scale);
    }
  }
}

constexpr long attend_space(long C, long T) { return 4 * T * token_row(C) + T * BLOCK + 5 * 32; }

// ``space``: attend_space(C, T) numbers. dq, dk and dv are set.
static void attend_backward(const S* q, const S* k, const S* v, const S* shares, const S* dy, long C, long T, S scale,
                            S* dq, S* dk, S* dv, S* space) {
  const long row = token_row(C);
  S *q_of = space, *dy_of = q_of + T * row, *dk_of = dy_of + T * row, *dv_of = dk_of + T * row, *dp = dv_of + T * row;
  transposed(C, T, q, T, q_of, row);
  transposed(C, T, dy, T, dy_of, row);
  std::memset(dk_of, 0, 2 * T * row * sizeof(S));
  const long lanes = up_to(C, VW);
  for (long i0 = 0; i0 < T; i0 += BLOCK) {
    const long width = width_of(i0, T), keys = i0 + width;
    multiply(keys, width, C, {v, 1, T}, {dy + i0, T}, {dp, width, false});
    multiply(keys, lanes, width, {shares, width, 1}, {dy_of + i0 * row, row}, {dv_of, row, true});
    soften_backward(shares, dp, keys, width, scale);
    multiply(C, width, keys, {k, T, 1}, {dp, width}, {dq + i0, T, false});
    multiply(keys, lanes, width, {dp, width, 1}, {q_of + i0 * row, row}, {dk_of, row, true});
    shares += keys * width;
  }
  transposed(T, C, dk_of, row, dk, T);
  transposed(T, C, dv_of, row, dv, T);
}

}  // namespace
