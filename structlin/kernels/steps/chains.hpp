// How does a chain of factors map the tokens of one sequence? Factor by factor: rows of features are brought into the
// order in which a factor is one batched product, and that product made.
//
//     turned[B, C, P] = z[order]     z[B, N, P] = W[B, N, C] turned[B, C, P]      of rows of T lanes each
//
// B: indices that the factor shares with what it reads and leaves, C: those that end in it, N: those that it brings, P:
// those that pass by (structlin/nn/linear.py, ChainLinear).

#pragma once

#include "sums.hpp"

namespace {

struct Hop {
  long weight, B, N, C, P;

  const long* order() const { return reinterpret_cast<const long*>(this + 1); }
  long reads() const { return B * C * P; }
  long leaves() const { return B * N * P; }
};

// As Python lays it out (places.py): these numbers, where each hop begins, the hops, and the order of what comes out.
struct Chain {
  long hops, kept, widest, outputs;

  const long* table() const { return reinterpret_cast<const long*>(this); }
  const Hop& hop(long h) const { return *reinterpret_cast<const Hop*>(table() + table()[4 + h]); }
  const long* last_order() const { return table() + table()[4 + hops]; }
};

static void take_rows(long count, const long* order, long T, const S* from, S* to) {
  for (long i = 0; i < count; ++i) std::memcpy(to + i * T, from + order[i] * T, T * sizeof(S));
}

static void give_rows(long count, const long* order, long T, const S* from, S* to, bool adds) {
  for (long i = 0; i < count; ++i) {
    S* row = to + order[i] * T;
    if (!adds) std::memcpy(row, from + i * T, T * sizeof(S));
    else
      for (long t = 0; t < T; t += VW) put(row + t, get(row + t) + get(from + i * T + t));
  }
}

// y of x; what every factor reads is kept. ``z``: work space of the widest.
static void chain_forward(const Chain& c, const S* weights, long T, const S* x, S* kept, S* z, S* y) {
  const S* from = x;
  for (long h = 0; h < c.hops; ++h) {
    const Hop& hop = c.hop(h);
    const long lanes = hop.P * T;
    take_rows(hop.reads(), hop.order(), T, from, kept);
    for (long b = 0; b < hop.B; ++b)
      multiply(hop.N, lanes, hop.C, {weights + hop.weight + b * hop.N * hop.C, hop.C, 1},
               {kept + b * hop.C * lanes, lanes}, {z + b * hop.N * lanes, lanes, false});
    kept += hop.reads() * T;
    from = z;
  }
  take_rows(c.outputs, c.last_order(), T, z, y);
}

// Gradients of the factors are added; dx, where there is one, becomes that of x, or it is added.
static void chain_backward(const Chain& c, const S* weights, S* gradients, long T, const S* kept, S* z, S* dz,
                           const S* dy, S* dx, bool adds) {
  give_rows(c.outputs, c.last_order(), T, dy, dz, false);
  kept += c.kept * T;
  for (long h = c.hops; h-- > 0;) {
    const Hop& hop = c.hop(h);
    const long lanes = hop.P * T, size = hop.N * hop.C;
    kept -= hop.reads() * T;
    for (long b = 0; b < hop.B; ++b) {
      const S* d = dz + b * hop.N * lanes;
      correlate(hop.N, hop.C, lanes, d, lanes, kept + b * hop.C * lanes, lanes, gradients + hop.weight + b * size,
                hop.C);
      if (h > 0 || dx)
        multiply(hop.C, lanes, hop.N, {weights + hop.weight + b * size, 1, hop.C}, {d, lanes},
                 {z + b * hop.C * lanes, lanes, false});
    }
    if (h > 0) give_rows(hop.reads(), hop.order(), T, z, dz, false);
    else if (dx) give_rows(hop.reads(), hop.order(), T, z, dx, adds);
  }
}

}  // namespace
