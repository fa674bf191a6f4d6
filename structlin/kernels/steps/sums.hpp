// How are products of any sizes made? Register tiles whose sizes stand in the code, chosen by what is left of a product.
//
//     multiply   C[m][n] (+)= sum_k L[m, k] R[k][n]      n along the lanes: tokens, or the features of a token
//     correlate  C[m][n] += sum_t L[m][t] R[n][t]        t along the lanes, added up when a tile is done

#pragma once

#include "lanes.hpp"

namespace {

// Most vectors of a tile along n, and its rows by their number: what the registers hold.
#if SL_LANES == 16
constexpr int MOST_VECTORS = 4;
constexpr int rows_of(int vectors) { return vectors == 4 ? 6 : vectors == 3 ? 8 : 12; }
#else
constexpr int MOST_VECTORS = 2;
constexpr int rows_of(int vectors) { return vectors == 2 ? 6 : 8; }
#endif

struct Left {
  const S* at;
  long row, step;
};
struct Right {
  const S* at;
  long step;
};
struct Result {
  S* at;
  long row;
  bool adds;
};

// The last vector of a row holds ``last`` columns.
template <int ROWS, int VECTORS>
static void sum_tile(long depth, Left l, Right r, Result c, int last) {
  V sum[ROWS][VECTORS] = {};
  const S* left = l.at;
  const S* right = r.at;
  for (long k = 0; k < depth; ++k, left += l.step, right += r.step) {
    V row[VECTORS];
#pragma GCC unroll 4
    for (int n = 0; n < VECTORS; ++n) row[n] = get(right + n * VW);
#pragma GCC unroll 12
    for (int m = 0; m < ROWS; ++m) {
      const V scalar = all(left[m * l.row]);
#pragma GCC unroll 4
      for (int n = 0; n < VECTORS; ++n) sum[m][n] += scalar * row[n];
    }
  }
#pragma GCC unroll 12
  for (int m = 0; m < ROWS; ++m) {
    S* row = c.at + m * c.row;
#pragma GCC unroll 4
    for (int n = 0; n < VECTORS - 1; ++n) put(row + n * VW, c.adds ? sum[m][n] + get(row + n * VW) : sum[m][n]);
    row += (VECTORS - 1) * VW;
    V end = sum[m][VECTORS - 1];
    if (last == VW) put(row, c.adds ? end + get(row) : end);
    else put_end(row, end, last, c.adds);
  }
}

template <int ROWS, int VECTORS>
static void sum_rows(long left_over, long depth, Left l, Right r, Result c, int last) {
  if constexpr (ROWS > 0) {
    if (left_over == ROWS) sum_tile<ROWS, VECTORS>(depth, l, r, c, last);
    else sum_rows<ROWS - 1, VECTORS>(left_over, depth, l, r, c, last);
  }
}

// Tiles are as even as can be: few sums at a time wait for each other.
template <int VECTORS>
static void sum_columns(long rows, long depth, Left l, Right r, Result c, int last) {
  constexpr int ROWS = rows_of(VECTORS);
  for (long tiles = (rows + ROWS - 1) / ROWS; tiles > 0; --tiles) {
    const long taken = (rows + tiles - 1) / tiles;
    sum_rows<ROWS, VECTORS>(taken, depth, l, r, c, last);
    rows -= taken;
    l.at += taken * l.row;
    c.at += taken * c.row;
  }
}

static void multiply(long rows, long columns, long depth, Left l, Right r, Result c) {
  while (columns > 0) {
    const long vectors = (columns + VW - 1) / VW;
    // Five vectors are three and two, not four and one.
    const long taken = vectors <= MOST_VECTORS ? vectors : vectors == MOST_VECTORS + 1 ? (vectors + 1) / 2 : MOST_VECTORS;
    const long width = taken * VW < columns ? taken * VW : columns;
    const int last = int(width - (taken - 1) * VW);
    if (taken == 1) sum_columns<1>(rows, depth, l, r, c, last);
    else if (taken == 2) sum_columns<2>(rows, depth, l, r, c, last);
#if SL_LANES == 16
    else if (taken == 3) sum_columns<3>(rows, depth, l, r, c, last);
    else sum_columns<4>(rows, depth, l, r, c, last);
#endif
    columns -= width;
    r.at += width;
    c.at += width;
  }
}

// The totals of 16 vectors, four by four.
SL_INLINE void add_totals(V sum[4][4], S* c, long row, long rows, long columns) {
#if SL_LANES == 16 && !defined(SL_DOUBLE)
  __m512 four[4];
#pragma GCC unroll 4
  for (int m = 0; m < 4; ++m) {
    const __m512 v0 = (__m512)sum[m][0], v1 = (__m512)sum[m][1], v2 = (__m512)sum[m][2], v3 = (__m512)sum[m][3];
    const __m512 a = _mm512_add_ps(_mm512_unpacklo_ps(v0, v1), _mm512_unpackhi_ps(v0, v1));
    const __m512 b = _mm512_add_ps(_mm512_unpacklo_ps(v2, v3), _mm512_unpackhi_ps(v2, v3));
    const __m512d low = _mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b));
    const __m512d high = _mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b));
    four[m] = _mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high));
  }
  const __m512 first = _mm512_add_ps(_mm512_shuffle_f32x4(four[0], four[1], 0x88),
                                     _mm512_shuffle_f32x4(four[0], four[1], 0xdd));
  const __m512 second = _mm512_add_ps(_mm512_shuffle_f32x4(four[2], four[3], 0x88),
                                      _mm512_shuffle_f32x4(four[2], four[3], 0xdd));
  const __m512 found = _mm512_add_ps(_mm512_shuffle_f32x4(first, second, 0x88),
                                     _mm512_shuffle_f32x4(first, second, 0xdd));
  alignas(64) S totals[16];
  _mm512_store_ps(totals, found);
  if (rows == 4 && columns == 4) {
#pragma GCC unroll 4
    for (int m = 0; m < 4; ++m) _mm_storeu_ps(c + m * row, _mm_add_ps(_mm_loadu_ps(c + m * row), _mm_load_ps(totals + 4 * m)));
    return;
  }
  for (long m = 0; m < rows; ++m)
    for (long n = 0; n < columns; ++n) c[m * row + n] += totals[4 * m + n];
#else
  for (long m = 0; m < rows; ++m)
    for (long n = 0; n < columns; ++n) c[m * row + n] += lanes_total(sum[m][n]);
#endif
}

// ``tokens`` are whole vectors. Rows that a tile lacks are its last one again, and their totals thrown away.
static void correlate(long rows, long columns, long tokens, const S* left, long left_row, const S* right,
                      long right_row, S* c, long c_row) {
  for (long m = 0; m < rows; m += 4) {
    const long more_m = rows - m < 4 ? rows - m : 4;
    const S* l[4];
    for (long i = 0; i < 4; ++i) l[i] = left + (m + (i < more_m ? i : more_m - 1)) * left_row;
    for (long n = 0; n < columns; n += 4) {
      const long more_n = columns - n < 4 ? columns - n : 4;
      const S* r[4];
      for (long i = 0; i < 4; ++i) r[i] = right + (n + (i < more_n ? i : more_n - 1)) * right_row;
      V sum[4][4] = {};
      for (long t = 0; t < tokens; t += VW) {
        V row[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) row[i] = get(r[i] + t);
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
          const V one = get(l[i] + t);
#pragma GCC unroll 4
          for (int j = 0; j < 4; ++j) sum[i][j] += one * row[j];
        }
      }
      add_totals(sum, c + m * c_row + n, c_row, more_m, more_n);
    }
  }
}

}  // namespace
