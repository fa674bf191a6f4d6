// How do the experts of a mixture run where each is a block tensor train? In tiles of one expert's tokens, whose rows
// are gathered, multiplied and added to their tokens' sums while they are in the caches.
//
// Assignments are sorted by expert, and those of one expert by token. Tokens are taken in blocks: each expert in turn
// takes its whole tiles of a block and leaves the rest to the next one, so a token's rows are read from memory once for
// all its experts, and no tile but an expert's last is short. No array but the weights' has a row an assignment. The
// backward pass makes everything again. With the weight w of an assignment:
//
//     z[G r F, t] = sum_a A[G, r F, a] x[t, G a]          y[t, F e] += w sum_{G r} B[F, G r, e] z[G r F, t]
//
//     z from w x      dB += z dy      dz = B dy      dA += dz w x      u = dz A      dx += w u      dw = u x
//
// Products are those of products.cpp: scalars of the left operand, vectors of the right one. All sizes are constants of
// the compilation: -DSL_G= -DSL_A= -DSL_R= -DSL_F= -DSL_E= and SL_TOKENS (rows of a tile, whole vectors). Every sum
// runs in an order fixed by the sizes and the routes.

#include <cstdint>
#include <cstring>
#include <vector>

#include "tiles.hpp"

#define SL_PART static __attribute__((noinline))

namespace {

constexpr int TOKENS = SL_TOKENS;
// Tokens of a block: their rows fit into the second cache, and the factors of all experts are read once a block. At d =
// 512 with 8 or 16 experts 256 to 512 are best, all tokens at once are slower by a quarter (measured).
constexpr long BLOCK = 512;
constexpr int G = SL_G, a = SL_A, r = SL_R, F = SL_F, e = SL_E;
constexpr int K = G * r, D_IN = G * a, D_OUT = F * e;
constexpr int a_pad = padded(a), e_pad = padded(e);

// Rows of z that belong to one (G, r) lie together. A line of padding keeps equal F, and equal columns of the rows of a
// tile, apart from one cache set.
constexpr bool APART = F >= 8;
constexpr long Z_STRIDE = long(F) * TOKENS + (APART ? 16 : 0);
constexpr int R_OUTER = APART ? r : 1;
constexpr int ROWS = APART ? F : F * r;
constexpr long X_STRIDE = D_IN + 16, Y_STRIDE = D_OUT + 16;

constexpr long A_SIZE = long(K) * F * a_pad, B_SIZE = long(F) * K * e_pad;
constexpr long FIRST_SIZE = long(K) * F * a, SECOND_SIZE = long(F) * e * K;

// Where the rows stand: those of assignment i are row token[i] of an array of tokens, row i of one of assignments.
struct Routes {
  long num_experts, low, high;  // only tokens low <= token < high
  bool gathers, combines;       // x, y have a row a token
  const int32_t* ends;
  const int64_t* token;
  const float* weight;  // counts where the routes combine, else all are 1
  long x_at(long i) const { return (gathers ? token[i] : i) * D_IN; }
  long y_at(long i) const { return (combines ? token[i] : i) * D_OUT; }
  float weight_of(long i) const { return combines ? weight[i] : 1.0f; }
};

// Some assignments of one expert: `count` of them from `start` on.
struct Tile {
  long expert, start, count;
};

struct Work {
  float *packed, *A, *B, *dA, *dB, *xT, *yT, *z, *x_rows, *y_rows;
  unsigned char* seen;  // whether a token's row of the result has a term yet
};

// Both factors of one expert as they are read, or their gradients.
constexpr long PACKED = (A_SIZE + B_SIZE + 2 * W + 15) / 16 * 16;

// Lays the parts out from `base`, or only counts when it is null; returns the number of floats before the factors.
long lay_out(float* base, Work& work) {
  long used = 0;
  auto take = [&](long size) {
    float* part = base ? base + used : nullptr;
    used += (size + 31) / 16 * 16;
    return part;
  };
  work.xT = take(long(D_IN) * TOKENS);
  work.yT = take(long(D_OUT) * TOKENS);
  work.z = take(K * Z_STRIDE);
  work.x_rows = take(X_STRIDE * TOKENS + W);
  work.y_rows = take(Y_STRIDE * TOKENS + W);
  work.packed = base ? base + used : nullptr;
  return used;
}

// From here on the factors are those of one expert; the gradients of all stand behind all factors.
SL_INLINE void choose(Work& work, long expert, long num_experts) {
  work.A = work.packed + expert * PACKED;
  work.B = work.A + A_SIZE + W;
  work.dA = work.A + num_experts * PACKED;
  work.dB = work.dA + A_SIZE + W;
}

// A[G, r F, a padded] and B[F, G r, e padded] with zeros in the padding.
SL_PART void pack_one(const float* first, const float* second, Work& work) {
  for (long row = 0; row < long(K) * F; ++row) {
    std::memcpy(work.A + row * a_pad, first + row * a, a * sizeof(float));
    std::memset(work.A + row * a_pad + a, 0, (a_pad - a) * sizeof(float));
  }
  for (long F_ = 0; F_ < F; ++F_) {
    float* B = work.B + F_ * K * e_pad;
    if (e_pad > e) std::memset(B, 0, long(K) * e_pad * sizeof(float));
    transpose(e, K, second + F_ * e * K, K, B, e_pad);
  }
}

SL_PART void unpack_one(const Work& work, float* d_first, float* d_second) {
  for (long row = 0; row < long(K) * F; ++row)
    std::memcpy(d_first + row * a, work.dA + row * a_pad, a * sizeof(float));
  for (long F_ = 0; F_ < F; ++F_)
    transpose(K, e, work.dB + F_ * K * e_pad, e_pad, d_second + F_ * e * K, K);
}

SL_PART void pack(const float* first, const float* second, long num_experts, Work& work) {
  for (long expert = 0; expert < num_experts; ++expert) {
    choose(work, expert, num_experts);
    pack_one(first + expert * FIRST_SIZE, second + expert * SECOND_SIZE, work);
  }
}

SL_PART void unpack(Work& work, long num_experts, float* d_first, float* d_second) {
  for (long expert = 0; expert < num_experts; ++expert) {
    choose(work, expert, num_experts);
    unpack_one(work, d_first + expert * FIRST_SIZE, d_second + expert * SECOND_SIZE);
  }
}

// ---- rows in and out ----------------------------------------------------------------------------------------------

SL_INLINE void scale_row(const float* __restrict source, float weight, float* __restrict target, int width) {
  for (int i = 0; i < width; ++i) target[i] = weight * source[i];
}

// The first term of a row is set and the others are added: no row has to be zero before, or is read in vain.
SL_INLINE void add_term(const float* __restrict source, float weight, float* __restrict target, int width,
                        unsigned char& seen) {
  if (seen)
    for (int i = 0; i < width; ++i) target[i] += weight * source[i];
  else scale_row(source, weight, target, width);
  seen = 1;
}

SL_PART void clear_unseen(const Routes& routes, const unsigned char* seen, float* rows, long width) {
  for (long t = routes.low; t < routes.high; ++t)
    if (!seen[t]) std::memset(rows + t * width, 0, width * sizeof(float));
}

SL_INLINE float dot(const float* left, const float* right, int width) {
  Vector sum[4] = {};
  int i = 0;
  for (; i + 4 * W <= width; i += 4 * W)
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) sum[j] += load(left + i + j * W) * load(right + i + j * W);
  float rest = 0;
  for (; i < width; ++i) rest += left[i] * right[i];
  const Vector all = (sum[0] + sum[1]) + (sum[2] + sum[3]);
  for (int j = 0; j < W; ++j) rest += all[j];
  return rest;
}

// Rows of a tile, weighted, into `rows` and with tokens innermost into `turned`; those that it lacks are zero.
template <int WIDTH, bool WEIGHTED, typename At>
SL_INLINE void gather(const Routes& routes, Tile tile, const float* source, At at, float* rows, float* turned) {
  constexpr long STRIDE = WIDTH + 16;
  for (long t = 0; t < TOKENS; ++t) {
    float* row = rows + t * STRIDE;
    if (t >= tile.count) std::memset(row, 0, WIDTH * sizeof(float));
    else if (WEIGHTED) scale_row(source + at(tile.start + t), routes.weight_of(tile.start + t), row, WIDTH);
    else std::memcpy(row, source + at(tile.start + t), WIDTH * sizeof(float));
    if ((t + 1) % W == 0) transpose(W, WIDTH, rows + (t + 1 - W) * STRIDE, STRIDE, turned + t + 1 - W, TOKENS);
  }
}

template <bool WEIGHTED>
SL_PART void gather_x(const Routes& routes, Tile tile, const float* x, Work& work) {
  auto at = [&](long i) { return routes.x_at(i); };
  gather<D_IN, WEIGHTED>(routes, tile, x, at, work.x_rows, work.xT);
}

SL_PART void gather_dy(const Routes& routes, Tile tile, const float* dy, Work& work) {
  auto at = [&](long i) { return routes.y_at(i); };
  gather<D_OUT, false>(routes, tile, dy, at, work.y_rows, work.yT);
}

SL_PART void scatter_y(const Routes& routes, Tile tile, float* y, Work& work) {
  for (long i = tile.start; i < tile.start + tile.count; ++i) {
    const float* row = work.y_rows + (i - tile.start) * Y_STRIDE;
    if (routes.combines) add_term(row, routes.weight[i], y + routes.y_at(i), D_OUT, work.seen[routes.token[i]]);
    else std::memcpy(y + routes.y_at(i), row, D_OUT * sizeof(float));
  }
}

// u stands in the place of x.
SL_PART void scatter_dx(const Routes& routes, Tile tile, const float* x, float* dx, float* d_weight, Work& work) {
  for (long i = tile.start; i < tile.start + tile.count; ++i) {
    const float* row = work.x_rows + (i - tile.start) * X_STRIDE;
    float* target = dx + routes.x_at(i);
    if (routes.combines) d_weight[i] = dot(row, x + routes.x_at(i), D_IN);
    if (routes.gathers) add_term(row, routes.weight_of(i), target, D_IN, work.seen[routes.token[i]]);
    else scale_row(row, routes.weight_of(i), target, D_IN);
  }
}

// ---- the parts of a tile ------------------------------------------------------------------------------------------

SL_PART void make_z(Work& work) {
  for (int G_ = 0; G_ < G; ++G_)
    for (long r_ = G_ * r; r_ < G_ * r + R_OUTER; ++r_)
      product<ROWS, TOKENS, 1, a, a_pad, 0, 1, 0, TOKENS, TOKENS, SET>(
          work.A + r_ * F * a_pad, work.xT + long(G_) * a * TOKENS, work.z + r_ * Z_STRIDE);
}

SL_PART void make_y(Work& work) {
  for (int F_ = 0; F_ < F; ++F_)
    product<TOKENS, e, 1, K, 1, 0, Z_STRIDE, 0, e_pad, Y_STRIDE, SET>(
        work.z + F_ * TOKENS, work.B + long(F_) * K * e_pad, work.y_rows + F_ * e);
}

SL_PART void add_dB(Work& work) {
  for (int F_ = 0; F_ < F; ++F_)
    product<K, e_pad, 1, TOKENS, Z_STRIDE, 0, 1, 0, Y_STRIDE, e_pad, ADD>(
        work.z + F_ * TOKENS, work.y_rows + F_ * e, work.dB + long(F_) * K * e_pad);
}

// From here on the place of z holds its gradient.
SL_PART void make_dz(Work& work) {
  for (int F_ = 0; F_ < F; ++F_)
    product<K, TOKENS, 1, e, e_pad, 0, 1, 0, TOKENS, Z_STRIDE, SET>(
        work.B + long(F_) * K * e_pad, work.yT + long(F_) * e * TOKENS, work.z + F_ * TOKENS);
}

SL_PART void add_dA(Work& work) {
  for (int G_ = 0; G_ < G; ++G_)
    for (long r_ = G_ * r; r_ < G_ * r + R_OUTER; ++r_)
      product<ROWS, a_pad, 1, TOKENS, TOKENS, 0, 1, 0, X_STRIDE, a_pad, ADD>(
          work.z + r_ * Z_STRIDE, work.x_rows + G_ * a, work.dA + r_ * F * a_pad);
}

SL_PART void make_u(Work& work) {
  for (int G_ = 0; G_ < G; ++G_)
    product<TOKENS, a, R_OUTER, ROWS, 1, Z_STRIDE, TOKENS, long(F) * a_pad, a_pad, X_STRIDE, SET>(
        work.z + long(G_) * r * Z_STRIDE, work.A + long(G_) * r * F * a_pad, work.x_rows + G_ * a);
}

// ---- the tiles of all experts -------------------------------------------------------------------------------------

// The first assignment from `start` on whose token is not below `token`.
SL_PART long first_from(const Routes& routes, long start, long end, long token) {
  while (start < end) {
    const long middle = (start + end) / 2;
    if (routes.token[middle] < token) start = middle + 1;
    else end = middle;
  }
  return start;
}

template <typename Step>
SL_INLINE void over_tiles(const Routes& routes, Step step) {
  std::vector<long> next(routes.num_experts);
  for (long expert = 0; expert < routes.num_experts; ++expert)
    next[expert] = first_from(routes, expert ? routes.ends[expert - 1] : 0, routes.ends[expert], routes.low);
  for (long low = routes.low; low < routes.high; low += BLOCK) {
    const bool last = low + BLOCK >= routes.high;
    const long high = last ? routes.high : low + BLOCK;
    for (long expert = 0; expert < routes.num_experts; ++expert) {
      const long end = first_from(routes, next[expert], routes.ends[expert], high);
      for (long& at = next[expert]; last ? at < end : at + TOKENS <= end; at += TOKENS)
        step(Tile{expert, at, end - at < TOKENS ? end - at : TOKENS});
    }
  }
}

}  // namespace

// ---- entry points -------------------------------------------------------------------------------------------------

extern "C" long structlin_work_floats(long num_experts, long backward) {
  Work work;
  return lay_out(nullptr, work) + (backward ? 2 : 1) * num_experts * PACKED;
}

// `seen`: a byte a token, zero at first; used where the routes combine.
extern "C" void structlin_forward(long num_experts, long low, long high, long gathers, long combines,
                                  const int32_t* ends, const int64_t* token, const float* weight, const float* x,
                                  const float* first, const float* second, float* y, unsigned char* seen, float* base) {
  const Routes routes{num_experts, low, high, gathers != 0, combines != 0, ends, token, weight};
  Work work;
  lay_out(base, work);
  work.seen = seen;
  pack(first, second, num_experts, work);
  over_tiles(routes, [&](Tile tile) {
    choose(work, tile.expert, num_experts);
    gather_x<false>(routes, tile, x, work);
    make_z(work);
    make_y(work);
    scatter_y(routes, tile, y, work);
  });
  if (routes.combines) clear_unseen(routes, seen, y, D_OUT);
}

// `seen` as above, used where the routes gather. Sets all but the gradients of assignments to no expert.
extern "C" void structlin_backward(long num_experts, long low, long high, long gathers, long combines,
                                   const int32_t* ends, const int64_t* token, const float* weight, const float* x,
                                   const float* first, const float* second, const float* dy, float* dx, float* d_weight,
                                   float* d_first, float* d_second, unsigned char* seen, float* base) {
  const Routes routes{num_experts, low, high, gathers != 0, combines != 0, ends, token, weight};
  Work work;
  lay_out(base, work);
  work.seen = seen;
  pack(first, second, num_experts, work);
  std::memset(work.packed + num_experts * PACKED, 0, num_experts * PACKED * sizeof(float));
  over_tiles(routes, [&](Tile tile) {
    choose(work, tile.expert, num_experts);
    gather_x<true>(routes, tile, x, work);
    gather_dy(routes, tile, dy, work);
    make_z(work);
    add_dB(work);
    make_dz(work);
    add_dA(work);
    make_u(work);
    scatter_dx(routes, tile, x, dx, d_weight, work);
  });
  if (routes.gathers) clear_unseen(routes, seen, dx, D_IN);
  unpack(work, num_experts, d_first, d_second);
}
