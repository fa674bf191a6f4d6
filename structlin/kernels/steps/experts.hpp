// How do the dense experts of a mixed FFN run? Some rows of one expert at a time, from tokens to tokens.
//
//     u = up x,   y = down gelu(u),   sum over chosen experts of w y
//
// Rows are (features) here, features along the lanes, and whole vectors of them. Assignments stand sorted by expert.

#pragma once

#include "layers.hpp"

namespace {

constexpr long ROWS = 64;  // of an expert that go through it together

struct ExpertFfn {
  long experts, width, hidden;
  const long* token;
  const int* ends;
  const S *weight, *x, *up, *down;
  S *y, *inner, *rows;                 // sums (T, X); u (N, H) and y (N, X) of every assignment
  const S* dy;
  S *dx, *d_weight, *d_up, *d_down;
  S* space;

  static long space_of(long width, long hidden) { return 2 * width * hidden + ROWS * (2 * width + 2 * hidden) + 128; }

  const S* gathered(const S* from, long start, long count, S* to) const {
    for (long i = 0; i < count; ++i) std::memcpy(to + i * width, from + token[start + i] * width, width * sizeof(S));
    return to;
  }

  // Calls f(expert, first row, rows) for all runs of rows, after before(expert).
  template <class B, class F>
  void each(B before, F f) const {
    for (long expert = 0, start = 0; expert < experts; start = ends[expert++]) {
      before(expert);
      for (long at = start; at < ends[expert]; at += ROWS)
        f(expert, at, ends[expert] - at < ROWS ? ends[expert] - at : ROWS);
    }
  }

  void forward() {
    S *up_t = space, *down_t = up_t + width * hidden, *x_of = down_t + width * hidden, *h = x_of + ROWS * width;
    S* slope = h + ROWS * hidden;
    each(
        [&](long expert) {
          transposed(hidden, width, up + expert * width * hidden, width, up_t, hidden);
          transposed(width, hidden, down + expert * width * hidden, hidden, down_t, width);
        },
        [&](long, long at, long count) {
          S *u = inner + at * hidden, *row = rows + at * width;
          multiply(count, hidden, width, {gathered(x, at, count, x_of), width, 1}, {up_t, hidden}, {u, hidden, false});
          gelu_rows(u, h, slope, count * hidden);
          multiply(count, width, hidden, {h, hidden, 1}, {down_t, width}, {row, width, false});
          for (long i = 0; i < count; ++i)
            add_scaled(y + token[at + i] * width, row + i * width, weight[at + i], width);
        });
  }

  void backward() {
    S *dy_of = space, *x_of = dy_of + ROWS * width, *h = x_of + ROWS * width, *slope = h + ROWS * hidden;
    each([](long) {},
         [&](long expert, long at, long count) {
           const long matrix = expert * width * hidden;
           gathered(dy, at, count, dy_of);
           for (long i = 0; i < count; ++i) {
             V sum{};
             for (long c = 0; c < width; c += VW) sum += get(dy_of + i * width + c) * get(rows + (at + i) * width + c);
             d_weight[at + i] = lanes_total(sum);
             scaled(dy_of + i * width, dy_of + i * width, weight[at + i], width);
           }
           gelu_rows(inner + at * hidden, h, slope, count * hidden);
           multiply(width, hidden, count, {dy_of, 1, width}, {h, hidden}, {d_down + matrix, hidden, true});
           multiply(count, hidden, width, {dy_of, width, 1}, {down + matrix, hidden}, {h, hidden, false});
           times(h, slope, count * hidden);
           gathered(x, at, count, x_of);
           multiply(hidden, width, count, {h, 1, hidden}, {x_of, width}, {d_up + matrix, width, true});
           multiply(count, width, hidden, {h, hidden, 1}, {up + matrix, width}, {dy_of, width, false});
           for (long i = 0; i < count; ++i) add_scaled(dx + token[at + i] * width, dy_of + i * width, S(1), width);
         });
  }
};

}  // namespace
