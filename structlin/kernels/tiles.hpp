// What is one product made of? Register tiles of C[m][n] = sum_k L[m, k] R[k][n], and transpositions of blocks.
//
// Vectors are GCC's own, 16, 8 or 4 floats wide by what the processor has; all sizes and strides are template arguments.

#pragma once

#include <cstring>

#if defined(__AVX512F__)
#include <immintrin.h>
#define SL_LANES 16
#define SL_ACCUMULATORS 24
#elif defined(__AVX2__)
#include <immintrin.h>
#define SL_LANES 8
#define SL_ACCUMULATORS 12
#else
#define SL_LANES 4
#define SL_ACCUMULATORS 12
#endif

#define SL_INLINE static inline __attribute__((always_inline))

namespace {

typedef float Vector __attribute__((vector_size(SL_LANES * 4)));
typedef float LooseVector __attribute__((vector_size(SL_LANES * 4), aligned(4)));

constexpr int W = SL_LANES;

constexpr int padded(int size) { return (size + W - 1) / W * W; }

// ---- one register tile ----------------------------------------------------------------------------------------

SL_INLINE Vector load(const float* p) { return *reinterpret_cast<const LooseVector*>(p); }

enum Target { SET, ADD };

template <int COUNT>
SL_INLINE void store(float* p, Vector v) {
  if constexpr (COUNT >= W) {
    *reinterpret_cast<LooseVector*>(p) = v;
  } else {
#if SL_LANES == 16
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << COUNT) - 1), (__m512)v);
#else
    std::memcpy(p, &v, COUNT * sizeof(float));
#endif
  }
}

// C[MR][N columns] (+)= sum over K1 K2 of L R; the last vector of a row may be cut.
template <int MR, int N, int K1, int K2, long LM, long LK1, long LK2, long RK1, long RK, long CM, Target TARGET>
SL_INLINE void tile(const float* __restrict L, const float* __restrict R, float* __restrict C) {
  constexpr int NR = (N + W - 1) / W, CUT = N % W ? N % W : W;
  Vector sum[MR][NR];
#pragma GCC unroll 32
  for (int m = 0; m < MR; ++m)
#pragma GCC unroll 8
    for (int n = 0; n < NR; ++n) {
      sum[m][n] = Vector{};
      if constexpr (TARGET == ADD) __builtin_prefetch(C + m * CM + n * W, 1, 3);
    }
  for (int k1 = 0; k1 < K1; ++k1) {
#pragma GCC unroll 2
    for (int k2 = 0; k2 < K2; ++k2) {
      const float* l = L + k1 * LK1 + k2 * LK2;
      const float* q = R + k1 * RK1 + k2 * RK;
      Vector right[NR];
#pragma GCC unroll 8
      for (int n = 0; n < NR; ++n) right[n] = load(q + n * W);
#pragma GCC unroll 32
      for (int m = 0; m < MR; ++m) {
        const Vector left = l[m * LM] - Vector{};
#pragma GCC unroll 8
        for (int n = 0; n < NR; ++n) sum[m][n] += left * right[n];
      }
    }
  }
#pragma GCC unroll 32
  for (int m = 0; m < MR; ++m) {
#pragma GCC unroll 8
    for (int n = 0; n < NR; ++n)
      if constexpr (TARGET == ADD) sum[m][n] += load(C + m * CM + n * W);
#pragma GCC unroll 8
    for (int n = 0; n + 1 < NR; ++n) store<W>(C + m * CM + n * W, sum[m][n]);
    store<CUT>(C + m * CM + (NR - 1) * W, sum[m][NR - 1]);
  }
}

constexpr int vectors_a_tile(int vectors) {
  return vectors % 3 == 0 ? 3 : vectors % 2 == 0 ? 2 : vectors == 1 ? 1 : vectors % 3 == 2 ? 3 : 2;
}

// The columns of one width, in even tiles of rows.
template <int M, int N, int K1, int K2, long LM, long LK1, long LK2, long RK1, long RK, long CM, Target TARGET>
SL_INLINE void columns(const float* L, const float* R, float* C) {
  constexpr int NR = (N + W - 1) / W;
  constexpr int MOST = SL_ACCUMULATORS / NR;
  constexpr int TILES = (M + MOST - 1) / MOST;
  constexpr int MR = (M + TILES - 1) / TILES;
  constexpr int LAST = M % MR;
  int m = 0;
  for (; m + MR <= M; m += MR) tile<MR, N, K1, K2, LM, LK1, LK2, RK1, RK, CM, TARGET>(L + m * LM, R, C + m * CM);
  if constexpr (LAST > 0) tile<LAST, N, K1, K2, LM, LK1, LK2, RK1, RK, CM, TARGET>(L + m * LM, R, C + m * CM);
}

// C[M][N] (+)= L[M][K1 K2] R[K1 K2][N].
template <int M, int N, int K1, int K2, long LM, long LK1, long LK2, long RK1, long RK, long CM, Target TARGET>
SL_INLINE void product(const float* L, const float* R, float* C) {
  constexpr int WIDE = vectors_a_tile((N + W - 1) / W) * W;
  int n = 0;
  for (; n + WIDE <= N; n += WIDE) columns<M, WIDE, K1, K2, LM, LK1, LK2, RK1, RK, CM, TARGET>(L, R + n, C + n);
  if constexpr (N % WIDE > 0) columns<M, N % WIDE, K1, K2, LM, LK1, LK2, RK1, RK, CM, TARGET>(L, R + n, C + n);
}

// ---- transpositions -------------------------------------------------------------------------------------------

#if SL_LANES == 16
SL_INLINE __m512 four_rows(const float* p, long stride) {
  __m512 v = _mm512_castps128_ps512(_mm_loadu_ps(p));
  v = _mm512_insertf32x4(v, _mm_loadu_ps(p + 4 * stride), 1);
  v = _mm512_insertf32x4(v, _mm_loadu_ps(p + 8 * stride), 2);
  return _mm512_insertf32x4(v, _mm_loadu_ps(p + 12 * stride), 3);
}

SL_INLINE void transpose_block(const float* source, long source_stride, float* target, long target_stride) {
#pragma GCC unroll 4
  for (int q = 0; q < 16; q += 4) {
    const __m512 v0 = four_rows(source + q, source_stride);
    const __m512 v1 = four_rows(source + q + source_stride, source_stride);
    const __m512 v2 = four_rows(source + q + 2 * source_stride, source_stride);
    const __m512 v3 = four_rows(source + q + 3 * source_stride, source_stride);
    const __m512d low01 = _mm512_castps_pd(_mm512_unpacklo_ps(v0, v1));
    const __m512d high01 = _mm512_castps_pd(_mm512_unpackhi_ps(v0, v1));
    const __m512d low23 = _mm512_castps_pd(_mm512_unpacklo_ps(v2, v3));
    const __m512d high23 = _mm512_castps_pd(_mm512_unpackhi_ps(v2, v3));
    float* t = target + q * target_stride;
    _mm512_storeu_ps(t, _mm512_castpd_ps(_mm512_unpacklo_pd(low01, low23)));
    _mm512_storeu_ps(t + target_stride, _mm512_castpd_ps(_mm512_unpackhi_pd(low01, low23)));
    _mm512_storeu_ps(t + 2 * target_stride, _mm512_castpd_ps(_mm512_unpacklo_pd(high01, high23)));
    _mm512_storeu_ps(t + 3 * target_stride, _mm512_castpd_ps(_mm512_unpackhi_pd(high01, high23)));
  }
}
#elif SL_LANES == 8
SL_INLINE __m256 two_rows(const float* p, long stride) {
  return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), _mm_loadu_ps(p + 4 * stride), 1);
}

SL_INLINE void transpose_block(const float* source, long source_stride, float* target, long target_stride) {
#pragma GCC unroll 2
  for (int q = 0; q < 8; q += 4) {
    const __m256 v0 = two_rows(source + q, source_stride);
    const __m256 v1 = two_rows(source + q + source_stride, source_stride);
    const __m256 v2 = two_rows(source + q + 2 * source_stride, source_stride);
    const __m256 v3 = two_rows(source + q + 3 * source_stride, source_stride);
    const __m256d low01 = _mm256_castps_pd(_mm256_unpacklo_ps(v0, v1));
    const __m256d high01 = _mm256_castps_pd(_mm256_unpackhi_ps(v0, v1));
    const __m256d low23 = _mm256_castps_pd(_mm256_unpacklo_ps(v2, v3));
    const __m256d high23 = _mm256_castps_pd(_mm256_unpackhi_ps(v2, v3));
    float* t = target + q * target_stride;
    _mm256_storeu_ps(t, _mm256_castpd_ps(_mm256_unpacklo_pd(low01, low23)));
    _mm256_storeu_ps(t + target_stride, _mm256_castpd_ps(_mm256_unpackhi_pd(low01, low23)));
    _mm256_storeu_ps(t + 2 * target_stride, _mm256_castpd_ps(_mm256_unpacklo_pd(high01, high23)));
    _mm256_storeu_ps(t + 3 * target_stride, _mm256_castpd_ps(_mm256_unpackhi_pd(high01, high23)));
  }
}
#else
SL_INLINE void transpose_block(const float* source, long source_stride, float* target, long target_stride) {
  for (int i = 0; i < W; ++i)
    for (int j = 0; j < W; ++j) target[j * target_stride + i] = source[i * source_stride + j];
}
#endif

// target[column][row] = source[row][column].
SL_INLINE void transpose(int rows, int columns, const float* source, long source_stride, float* target,
                         long target_stride) {
  int i = 0;
  for (; i + W <= rows; i += W) {
    int j = 0;
    for (; j + W <= columns; j += W)
      transpose_block(source + i * source_stride + j, source_stride, target + j * target_stride + i, target_stride);
    for (; j < columns; ++j)
      for (int k = 0; k < W; ++k) target[j * target_stride + i + k] = source[(i + k) * source_stride + j];
  }
  for (; i < rows; ++i)
    for (int j = 0; j < columns; ++j) target[j * target_stride + i] = source[i * source_stride + j];
}

}  // namespace
