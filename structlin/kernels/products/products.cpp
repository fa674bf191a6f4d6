// How do both batched products run without a copy between them? In tiles of tokens that stay in the caches.
//
// Letters as in structlin/structure/sizes.py; a and e are the contracted input and the last output index of the
// order taken, b and d the indices shared by a factor, so that with G = g b and F = f d
//
//     z[G r F, t] = sum_a  A[g, r F, a] x[t, G a]          y[t, F e] = sum_{G r} B[f, G r, e] z[G r F, t]
//
// Every product is one kernel, C[m][n] = sum_k L[m, k] R[k][n]: a scalar of L is broadcast, R and C are vectors along n.
// In the products with z at the left or as the result tokens are contiguous, so the permutation between the factors
// is a stride. Tokens become contiguous by a transposition in registers when a tile is read.
//
//     z   = A (scalars)  x^T (vectors over t)       dz = B (scalars)  dy^T (vectors over t)
//     y   = z (scalars)  B   (vectors over e)       dx = dz (scalars) A    (vectors over a)
//     dB += z (scalars)  dy  (vectors over e)       dA += dz (scalars) x   (vectors over a)
//
// Where x or y is not contiguous along a or e (sharing with a stride), a tile is transposed once more instead.
// All sizes are constants of the compilation: -DSL_G= -DSL_B= -DSL_A= -DSL_R= -DSL_F= -DSL_D= -DSL_E= and
// SL_X_INNER, SL_Y_INNER (whether a, e is the innermost index of x, y), SL_TOKENS (rows of a tile, whole vectors), SL_GELU
// (whether x is the GELU of what is given: a tile of it is made when it is read, and never reaches memory).
// The sums run in an order fixed by the sizes.

#include <cstring>

#include "functions.hpp"
#include "tiles.hpp"

#define SL_PART static __attribute__((noinline))

namespace {

constexpr int TOKENS = SL_TOKENS;

constexpr int g = SL_G, b = SL_B, a = SL_A, r = SL_R, f = SL_F, d = SL_D, e = SL_E;
constexpr int G = g * b, F = f * d, K = G * r;
constexpr int D_IN = G * a, D_OUT = F * e;
constexpr bool X_INNER = SL_X_INNER || b == 1;
constexpr bool Y_INNER = SL_Y_INNER || d == 1;
constexpr bool GELU = SL_GELU;

constexpr int a_pad = padded(a), e_pad = padded(e);

// Rows of x^T and y^T in memory order: where is (G, a) and (F, e)?
constexpr long X_STEP = X_INNER ? 1 : b;
constexpr long Y_STEP = Y_INNER ? 1 : d;
SL_INLINE long x_row(int G_) { return X_INNER ? long(G_) * a : long(G_ / b) * a * b + G_ % b; }
SL_INLINE long y_row(int F_) { return Y_INNER ? long(F_) * e : long(F_ / d) * e * d + F_ % d; }

// A tile passes through z in blocks of F, so that z and its gradient stay in the second cache beside the factors.
constexpr long Z_BYTES = 300 << 10;
constexpr int block_of_F() {
  for (int blocks = 1; blocks < F; ++blocks)
    if (F % blocks == 0 && (long(K) * (F / blocks) * TOKENS * 4 <= Z_BYTES || F / blocks < 8)) return F / blocks;
  return F;
}
constexpr int FB = block_of_F();

// Rows of z that belong to one (G, r) lie together; a line of padding keeps equal F apart from one cache set.
constexpr bool APART = FB >= 8 || FB < F;
constexpr long Z_STRIDE = long(FB) * TOKENS + (APART ? 16 : 0);
constexpr int R_OUTER = APART ? r : 1;
constexpr int ROWS = APART ? FB : F * r;

// Token-major copies of a tile, padded for the same reason.
constexpr long X_COPY = long(G) * a_pad + 16;
constexpr long Y_COPY = long(F) * e_pad + 16;

// ---- work space -----------------------------------------------------------------------------------------------

constexpr long A_SIZE = long(g) * r * F * a_pad, B_SIZE = long(f) * K * e_pad;
constexpr long XT_SIZE = long(D_IN) * TOKENS, YT_SIZE = long(D_OUT) * TOKENS, Z_SIZE = K * Z_STRIDE;
constexpr long X_ROWS = long(D_IN) * TOKENS + W, Y_ROWS = long(D_OUT) * TOKENS + W;

struct Work {
  float *A, *B, *xT, *yT, *z, *dA, *dB, *x_rows, *y_rows, *x_copy, *y_copy, *dxT, *dx_rows, *active, *slope;
  const char *next_x, *next_y;
  char* result;
};

// While a tile is computed, the next one is fetched row after row: the transposition itself would read sixteen rows at
// a time, which the processor's own prefetcher follows at half the memory's rate (measured).
template <long LINES_X, long LINES_Y, long LINES_RESULT>
SL_INLINE void fetch(Work& work) {
#pragma GCC unroll 8
  for (long i = 0; i < LINES_X; ++i) __builtin_prefetch(work.next_x + 64 * i, 0, 2);
#pragma GCC unroll 8
  for (long i = 0; i < LINES_Y; ++i) __builtin_prefetch(work.next_y + 64 * i, 0, 2);
#pragma GCC unroll 8
  for (long i = 0; i < LINES_RESULT; ++i) __builtin_prefetch(work.result + 64 * i, 1, 2);
  work.next_x += 64 * LINES_X;
  work.next_y += 64 * LINES_Y;
  work.result += 64 * LINES_RESULT;
}

constexpr long lines_a_step(long features, long steps) { return (features * TOKENS / 16 + steps - 1) / steps; }
constexpr int BLOCKS = F / FB;
constexpr long FORWARD_X = lines_a_step(D_IN, BLOCKS * G + F);
constexpr long BACKWARD_X = lines_a_step(D_IN, 2 * F + 2 * BLOCKS * G);
constexpr long BACKWARD_Y = lines_a_step(D_OUT, 2 * F + 2 * BLOCKS * G);

constexpr long FORWARD_RESULT = lines_a_step(D_OUT, G), BACKWARD_RESULT = lines_a_step(D_IN, 2 * FB + 2 * G);

// In a forward pass the result is fetched while z is made, before it is written.
template <bool BACKWARD, bool RESULT>
SL_INLINE void fetch(Work& work) {
  if constexpr (BACKWARD) fetch<BACKWARD_X, BACKWARD_Y, BACKWARD_RESULT>(work);
  else fetch<FORWARD_X, 0, RESULT ? FORWARD_RESULT : 0>(work);
}

// Lays the parts out from `base`, or only counts when it is null; returns the number of floats.
long lay_out(float* base, Work& work) {
  long used = 0;
  auto take = [&](long size) {
    float* part = base ? base + used : nullptr;
    used += (size + 31) / 16 * 16;
    return part;
  };
  work.A = take(A_SIZE + W);
  work.B = take(B_SIZE + W);
  work.xT = take(XT_SIZE);
  work.yT = take(YT_SIZE);
  work.z = take(Z_SIZE);
  work.dA = take(A_SIZE);
  work.dB = take(B_SIZE);
  work.x_rows = take(X_ROWS);
  work.y_rows = take(Y_ROWS);
  work.x_copy = take(X_INNER ? 0 : TOKENS * X_COPY);
  work.y_copy = take(Y_INNER ? 0 : TOKENS * Y_COPY);
  work.dxT = take(X_INNER ? 0 : XT_SIZE);
  work.dx_rows = take(X_ROWS);
  work.active = take(GELU ? X_ROWS : 0);
  work.slope = take(GELU ? XT_SIZE : 0);
  return used;
}

// A[g, r F, a padded] and B[f, G r, e padded] with zeros in the padding.
SL_PART void pack(const float* first, const float* second, Work& work) {
  for (long row = 0; row < long(g) * r * F; ++row) {
    std::memcpy(work.A + row * a_pad, first + row * a, a * sizeof(float));
    std::memset(work.A + row * a_pad + a, 0, (a_pad - a) * sizeof(float));
  }
  for (int f_ = 0; f_ < f; ++f_) {
    float* B = work.B + long(f_) * K * e_pad;
    if (e_pad > e) std::memset(B, 0, long(K) * e_pad * sizeof(float));
    transpose(e, K, second + long(f_) * e * K, K, B, e_pad);
  }
}

SL_PART void unpack(const Work& work, float* d_first, float* d_second) {
  for (long row = 0; row < long(g) * r * F; ++row)
    std::memcpy(d_first + row * a, work.dA + row * a_pad, a * sizeof(float));
  for (int f_ = 0; f_ < f; ++f_)
    transpose(K, e, work.dB + long(f_) * K * e_pad, e_pad, d_second + long(f_) * e * K, K);
}

// ---- the parts of a tile, for the block of F that begins at F0 -------------------------------------------------

SL_INLINE long A_at(int G_, int r_, int F0) { return ((long(G_ / b) * r + r_) * F + F0) * a_pad; }
SL_INLINE long B_at(int F_) { return long(F_ / d) * K * e_pad; }

template <bool BACKWARD>
SL_PART void make_z(Work& work, int F0) {
  for (int G_ = 0; G_ < G; ++G_) {
    fetch<BACKWARD, true>(work);
    for (int r_ = 0; r_ < R_OUTER; ++r_)
      product<ROWS, TOKENS, 1, a, a_pad, 0, 1, 0, X_STEP * TOKENS, TOKENS, SET>(
          work.A + A_at(G_, r_, F0), work.xT + x_row(G_) * TOKENS, work.z + (long(G_) * r + r_) * Z_STRIDE);
  }
}

SL_PART void make_y(Work& work, float* y, int F0) {
  for (int F_ = F0; F_ < F0 + FB; ++F_) {
    fetch<false, false>(work);
    product<TOKENS, e, 1, K, 1, 0, Z_STRIDE, 0, e_pad, D_OUT, SET>(work.z + (F_ - F0) * TOKENS, work.B + B_at(F_),
                                                                      y + y_row(F_));
  }
}

SL_PART void make_yT(Work& work, int F0) {
  for (int F_ = F0; F_ < F0 + FB; ++F_) {
    fetch<false, false>(work);
    product<e, TOKENS, 1, K, 1, 0, e_pad, 0, Z_STRIDE, Y_STEP * TOKENS, SET>(
        work.B + B_at(F_), work.z + (F_ - F0) * TOKENS, work.yT + y_row(F_) * TOKENS);
  }
}

// From here on the place of z holds its gradient.
SL_PART void make_dz(Work& work, int F0) {
  for (int F_ = F0; F_ < F0 + FB; ++F_) {
    fetch<true, true>(work);
    product<K, TOKENS, 1, e, e_pad, 0, 1, 0, Y_STEP * TOKENS, Z_STRIDE, SET>(
        work.B + B_at(F_), work.yT + y_row(F_) * TOKENS, work.z + (F_ - F0) * TOKENS);
  }
}

template <Target TARGET>
SL_PART void make_dx(Work& work, float* dx, int F0) {
  for (int G_ = 0; G_ < G; ++G_)
    product<TOKENS, a, R_OUTER, ROWS, 1, Z_STRIDE, TOKENS, long(F) * a_pad, a_pad, D_IN, TARGET>(
        work.z + long(G_) * r * Z_STRIDE, work.A + A_at(G_, 0, F0), dx + x_row(G_));
}

template <Target TARGET>
SL_PART void make_dxT(Work& work, int F0) {
  for (int G_ = 0; G_ < G; ++G_)
    for (int r_ = 0; r_ < R_OUTER; ++r_) {
      const float* A = work.A + A_at(G_, r_, F0);
      const float* dz = work.z + (long(G_) * r + r_) * Z_STRIDE;
      float* dxT = work.dxT + x_row(G_) * TOKENS;
      if (r_ == 0) product<a, TOKENS, 1, ROWS, 1, 0, a_pad, 0, TOKENS, X_STEP * TOKENS, TARGET>(A, dz, dxT);
      else product<a, TOKENS, 1, ROWS, 1, 0, a_pad, 0, TOKENS, X_STEP * TOKENS, ADD>(A, dz, dxT);
    }
}

template <long ROW>
SL_INLINE void add_dB_at(Work& work, int F_, int F0, const float* dy) {
  product<K, e_pad, 1, TOKENS, Z_STRIDE, 0, 1, 0, ROW, e_pad, ADD>(work.z + (F_ - F0) * TOKENS, dy,
                                                                   work.dB + B_at(F_));
}

SL_PART void add_dB(Work& work, const float* dy, int F0) {
  for (int F_ = F0; F_ < F0 + FB; ++F_) {
    fetch<true, true>(work);
    if constexpr (Y_INNER) add_dB_at<D_OUT>(work, F_, F0, dy + F_ * e);
    else add_dB_at<Y_COPY>(work, F_, F0, work.y_copy + F_ * e_pad);
  }
}

template <long ROW>
SL_INLINE void add_dA_at(Work& work, int G_, int F0, const float* x) {
  for (int r_ = 0; r_ < R_OUTER; ++r_)
    product<ROWS, a_pad, 1, TOKENS, TOKENS, 0, 1, 0, ROW, a_pad, ADD>(
        work.z + (long(G_) * r + r_) * Z_STRIDE, x, work.dA + A_at(G_, r_, F0));
}

SL_PART void add_dA(Work& work, const float* x, int F0) {
  for (int G_ = 0; G_ < G; ++G_) {
    fetch<true, true>(work);
    if constexpr (X_INNER) add_dA_at<D_IN>(work, G_, F0, x + G_ * a);
    else add_dA_at<X_COPY>(work, G_, F0, work.x_copy + G_ * a_pad);
  }
}

// Token-major rows with a (or e) innermost, out of the tile with tokens innermost.
SL_PART void copy_x(Work& work) {
  for (int G_ = 0; G_ < G; ++G_)
    transpose(a, TOKENS, work.xT + x_row(G_) * TOKENS, X_STEP * TOKENS, work.x_copy + G_ * a_pad, X_COPY);
}

SL_PART void copy_y(Work& work) {
  for (int F_ = 0; F_ < F; ++F_)
    transpose(e, TOKENS, work.yT + y_row(F_) * TOKENS, Y_STEP * TOKENS, work.y_copy + F_ * e_pad, Y_COPY);
}

// ---- tiles of tokens ------------------------------------------------------------------------------------------

// The rows of a tile: in place, or, for the last tile (which may be short, and past whose end vectors reach), a copy.
SL_PART const float* rows_of(const float* source, int width, int tokens, float* copy) {
  std::memcpy(copy, source, long(tokens) * width * sizeof(float));
  std::memset(copy + long(tokens) * width, 0, (long(TOKENS - tokens) * width + W) * sizeof(float));
  return copy;
}

// x becomes its GELU, in a tile of its own; the slopes are kept for the backward pass.
SL_PART const float* activate(Work& work, const float* x, bool slopes) {
  for (long i = 0; i < XT_SIZE; i += W) {
    const Gelu at = gelu(load(x + i));
    store<W>(work.active + i, at.value);
    if (slopes) store<W>(work.slope + i, at.slope);
  }
  std::memset(work.active + XT_SIZE, 0, W * sizeof(float));
  return work.active;
}

SL_PART void times_slope(const Work& work, float* dx) {
  for (long i = 0; i < XT_SIZE; i += W) store<W>(dx + i, load(dx + i) * load(work.slope + i));
}

SL_PART void forward_tile(Work& work, const float* x, float* y) {
  work.next_x = reinterpret_cast<const char*>(x + long(TOKENS) * D_IN);
  work.result = reinterpret_cast<char*>(y);
  if constexpr (GELU) x = activate(work, x, false);
  transpose(TOKENS, D_IN, x, D_IN, work.xT, TOKENS);
  for (int F0 = 0; F0 < F; F0 += FB) {
    make_z<false>(work, F0);
    if constexpr (!Y_INNER) make_yT(work, F0);
    else make_y(work, y, F0);
  }
  if constexpr (!Y_INNER) transpose(D_OUT, TOKENS, work.yT, TOKENS, y, D_OUT);
}

SL_PART void add_dx(Work& work, float* dx, int F0) {
  if constexpr (X_INNER) {
    if (F0 > 0) make_dx<ADD>(work, dx, F0);
    else make_dx<SET>(work, dx, F0);
  } else {
    if (F0 > 0) make_dxT<ADD>(work, F0);
    else make_dxT<SET>(work, F0);
  }
}

// dx may be null and must not be x; without `weights` only dx is made.
SL_PART void backward_tile(Work& work, const float* x, const float* dy, float* dx, bool weights) {
  work.next_x = reinterpret_cast<const char*>(x + long(TOKENS) * D_IN);
  work.next_y = reinterpret_cast<const char*>(dy + long(TOKENS) * D_OUT);
  work.result = reinterpret_cast<char*>(dx);
  if constexpr (GELU) x = activate(work, x, dx != nullptr);
  transpose(TOKENS, D_OUT, dy, D_OUT, work.yT, TOKENS);
  if (weights) {
    transpose(TOKENS, D_IN, x, D_IN, work.xT, TOKENS);
    if constexpr (!Y_INNER) copy_y(work);
    if constexpr (!X_INNER) copy_x(work);
  }
  for (int F0 = 0; F0 < F; F0 += FB) {
    if (weights) {
      make_z<true>(work, F0);
      add_dB(work, dy, F0);
    }
    make_dz(work, F0);
    if (weights) add_dA(work, x, F0);
    if (dx) add_dx(work, dx, F0);
  }
  if constexpr (!X_INNER)
    if (dx) transpose(D_IN, TOKENS, work.dxT, TOKENS, dx, D_IN);
  if constexpr (GELU)
    if (dx) times_slope(work, dx);
}

}  // namespace

// ---- entry points ---------------------------------------------------------------------------------------------

extern "C" long structlin_work_floats() {
  Work work;
  return lay_out(nullptr, work);
}

extern "C" void structlin_forward(long tokens, const float* x, const float* first, const float* second, float* y,
                                  float* base) {
  Work work;
  lay_out(base, work);
  pack(first, second, work);
  for (long t = 0; t < tokens; t += TOKENS) {
    const int count = tokens - t < TOKENS ? int(tokens - t) : TOKENS;
    if (count == TOKENS) {
      forward_tile(work, x + t * D_IN, y + t * D_OUT);
    } else {
      forward_tile(work, rows_of(x + t * D_IN, D_IN, count, work.x_rows), work.y_rows);
      std::memcpy(y + t * D_OUT, work.y_rows, long(count) * D_OUT * sizeof(float));
    }
  }
}

// dx, or both d_first and d_second, may be null: then they are left out.
extern "C" void structlin_backward(long tokens, const float* x, const float* first, const float* second,
                                   const float* dy, float* dx, float* d_first, float* d_second, float* base) {
  Work work;
  lay_out(base, work);
  pack(first, second, work);
  const bool weights = d_first != nullptr;
  if (weights) {
    std::memset(work.dA, 0, A_SIZE * sizeof(float));
    std::memset(work.dB, 0, B_SIZE * sizeof(float));
  }
  for (long t = 0; t < tokens; t += TOKENS) {
    const int count = tokens - t < TOKENS ? int(tokens - t) : TOKENS;
    if (t + TOKENS < tokens) {
      backward_tile(work, x + t * D_IN, dy + t * D_OUT, dx ? dx + t * D_IN : nullptr, weights);
    } else {
      const float* last_x = rows_of(x + t * D_IN, D_IN, count, work.x_rows);
      const float* last_dy = rows_of(dy + t * D_OUT, D_OUT, count, work.y_rows);
      backward_tile(work, last_x, last_dy, dx ? work.dx_rows : nullptr, weights);
      if (dx) std::memcpy(dx + t * D_IN, work.dx_rows, long(count) * D_IN * sizeof(float));
    }
  }
  if (weights) unpack(work, d_first, d_second);
}
