// How do the experts of one linear map run? Some rows of one expert at a time, turned so that rows lie along the lanes.
//
//     y = sum over chosen experts of w (map of the expert) x,  or a row an assignment
//
// The maps are linear: the gradient of w is the product of x with what its gradient would be at w = 1, so y is never
// kept. Assignments stand sorted by expert; those that a capacity drops stand last and are never met.

#pragma once

#include "layers.hpp"

namespace {

constexpr long LANES_OF_ROWS = 64;  // of an expert that go through it together

struct Routes {
  long experts;
  const long* token;
  const int* ends;
  const S* weight;
  long gathers, combines;  // x, and y, have a row a token, else a row an assignment
};

struct Routed : Pass {
  const Linear& l;
  Routes routes;
  long size;  // of one expert's weights, which lie in a row
  S *x_of, *y_of, *turned, *kept;

  Routed(const Linear& l, Routes routes, long size, Space& space) : Pass{}, l(l), routes(routes), size(size) {
    Room room;
    room.fit(l, LANES_OF_ROWS);
    room.take(*this, space);
    for (S** of : {&x_of, &y_of, &turned}) *of = space.take(most(l.d_in, l.d_out) * LANES_OF_ROWS);
    kept = space.take(l.dense() ? 0 : l.between() * l.z_row(LANES_OF_ROWS));
  }

  // Rows of features become lanes, each times its weight where there is one; lanes without a row are zero.
  void turn(const S* from, bool by_token, const S* weight, long features, long at, long count, S* to) {
    for (long i = 0; i < count; ++i) {
      const S* row = from + (by_token ? routes.token[at + i] : at + i) * features;
      if (weight)
        for (long c = 0; c < features; ++c) turned[i * features + c] = row[c] * weight[at + i];
      else std::memcpy(turned + i * features, row, features * sizeof(S));
    }
    std::memset(turned + count * features, 0, (T - count) * features * sizeof(S));
    transposed(T, features, turned, features, to, T);
  }

  // Calls f(first row, rows) for all runs of rows of each expert, with its weights, and then after(expert).
  template <class F, class A>
  void each(const S* all_weights, F f, A after) {
    for (long expert = 0, start = 0; expert < routes.experts; start = routes.ends[expert++]) {
      weights = all_weights + expert * size;
      for (long at = start; at < routes.ends[expert]; at += LANES_OF_ROWS) {
        const long left = routes.ends[expert] - at, count = left < LANES_OF_ROWS ? left : LANES_OF_ROWS;
        T = up_to(count, TOKENS_A_STEP);
        f(at, count);
      }
      after(expert);
    }
  }

  void run(const S* all_weights, const S* x, S* y) {
    each(
        all_weights,
        [&](long at, long count) {
          turn(x, routes.gathers, nullptr, l.d_in, at, count, x_of);
          forward(l, x_of, kept, y_of);
          transposed(l.d_out, T, y_of, T, turned, l.d_out);
          for (long i = 0; i < count; ++i) {
            const S* row = turned + i * l.d_out;
            S* to = y + (routes.combines ? routes.token[at + i] : at + i) * l.d_out;
            if (routes.combines)
              for (long c = 0; c < l.d_out; ++c) to[c] += routes.weight[at + i] * row[c];
            else std::memcpy(to, row, l.d_out * sizeof(S));
          }
        },
        [](long) {});
  }

  // ``d_weights`` are added to, and dx where it has a row a token.
  void run_back(const S* all_weights, const S* x, const S* dy, S* dx, S* d_weight, S* d_weights) {
    gradients = d_weights;
    each(
        all_weights,
        [&](long at, long count) {
          turn(dy, routes.combines, nullptr, l.d_out, at, count, y_of);
          turn(x, routes.gathers, routes.combines ? routes.weight : nullptr, l.d_in, at, count, x_of);
          if (!l.dense() && l.keeps_z(T)) first_product(l, x_of, kept, T);
          // Into the place of x: its rows stand in the batch.
          backward(l, x_of, kept, y_of, turned);
          transposed(l.d_in, T, turned, T, x_of, l.d_in);
          for (long i = 0; i < count; ++i) give(x, at + i, x_of + i * l.d_in, dx, d_weight);
        },
        [&](long) {
          settle(l);
          gradients += size;
        });
  }

  void give(const S* x, long assignment, const S* row, S* dx, S* d_weight) {
    const long place = (routes.gathers ? routes.token[assignment] : assignment) * l.d_in;
    const S weight = routes.combines ? routes.weight[assignment] : S(1);
    S sum = 0;
    for (long c = 0; c < l.d_in; ++c) {
      sum += row[c] * x[place + c];
      dx[place + c] += weight * row[c];
    }
    if (routes.combines) d_weight[assignment] = sum;
  }
};

}  // namespace
