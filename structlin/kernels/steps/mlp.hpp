// What does a residual MLP make of some samples, and what does its squared error owe to every weight?
//
//     h = norm(gelu(input x))     h += scale down(gelu(up(norm(h)))) for every block     y = head(norm(h))
//
// where the norms outside of the blocks, and the first GELU, are there or not.

#pragma once

#include <initializer_list>

#include "layers.hpp"

namespace {

constexpr long SAMPLES = 64;  // that go through the model together

struct MlpBlock {
  Norm before;
  Linear up, down;
};

struct Mlp {
  long width, blocks, gelu, norms_input, norms_output;
  Norm outer;
  Linear input, head;

  const MlpBlock& block(long i) const { return reinterpret_cast<const MlpBlock*>(this + 1)[i]; }
};

struct MlpKept {
  S *normal, *scale, *x, *active, *slope, *z_up, *z_down;
};

struct MlpTape {
  MlpKept* kept;
  S *x, *first_slope, *normal, *scale, *stream, *last, *wide, *d_wide, *other, *d_stream, *y, *z_input, *z_head;
};

static void lay_out(const Mlp& m, MlpKept* kept, MlpTape& t, Pass& pass, Space& space) {
  const long T = SAMPLES, D = m.width * T;
  Room room;
  room.fit(m.input, T);
  room.fit(m.head, T);
  long wide = m.width;
  for (long i = 0; i < m.blocks; ++i) {
    const MlpBlock& b = m.block(i);
    MlpKept& k = kept[i];
    for (S** of : {&k.normal, &k.x}) *of = space.take(D);
    for (S** of : {&k.active, &k.slope}) *of = space.take(b.up.d_out * T);
    k.scale = space.take(T);
    k.z_up = space.take(b.up.z_size(T));
    k.z_down = space.take(b.down.z_size(T));
    room.fit(b.up, T);
    room.fit(b.down, T);
    wide = most(wide, b.up.d_out);
  }
  t.kept = kept;
  for (S** of : {&t.first_slope, &t.normal, &t.stream, &t.last, &t.other, &t.d_stream}) *of = space.take(D);
  for (S** of : {&t.wide, &t.d_wide}) *of = space.take(wide * T);
  t.scale = space.take(T);
  t.x = space.take(m.input.d_in * T);
  t.y = space.take(m.head.d_out * T);
  t.z_input = space.take(m.input.z_size(T));
  t.z_head = space.take(m.head.z_size(T));
  room.take(pass, space);
}

struct MlpPass : Pass {
  const Mlp& m;
  MlpTape& t;
  S branch_scale;

  void read(long count, const S* inputs) {
    std::memset(t.x, 0, m.input.d_in * T * sizeof(S));
    for (long i = 0; i < count; ++i)
      for (long c = 0; c < m.input.d_in; ++c) t.x[c * T + i] = inputs[i * m.input.d_in + c];
    forward(m.input, t.x, t.z_input, t.stream);
    if (m.gelu) gelu_rows(t.stream, t.stream, t.first_slope, m.width * T);
    if (m.norms_input) norm(m.outer, weights, t.stream, t.normal, t.scale, t.stream, T);
  }

  void forward_of(const MlpBlock& b, const MlpKept& k) {
    norm(b.before, weights, t.stream, k.normal, k.scale, k.x, T);
    forward(b.up, k.x, k.z_up, t.wide);
    gelu_rows(t.wide, k.active, k.slope, b.up.d_out * T);
    forward(b.down, k.active, k.z_down, t.other);
    add_scaled(t.stream, t.other, branch_scale, m.width * T);
  }

  const S* predict() {
    if (m.norms_output) norm(m.outer, weights, t.stream, t.normal, t.scale, t.last, T);
    const S* last = m.norms_output ? t.last : t.stream;
    forward(m.head, last, t.z_head, t.y);
    return last;
  }

  // The sum of squared errors; predictions become their gradients.
  double lose(long count, const S* labels, S share) {
    double loss = 0;
    for (long o = 0; o < m.head.d_out; ++o)
      for (long i = 0; i < T; ++i) {
        S& y = t.y[o * T + i];
        const S error = i < count ? y - labels[i * m.head.d_out + o] : S(0);
        loss += double(error) * double(error);
        y = S(2) * share * error;
      }
    return loss;
  }

  void backward_of(const MlpBlock& b, const MlpKept& k) {
    scaled(t.other, t.d_stream, branch_scale, m.width * T);
    backward(b.down, k.active, k.z_down, t.other, t.d_wide);
    times(t.d_wide, k.slope, b.up.d_out * T);
    backward(b.up, k.x, k.z_up, t.d_wide, t.other);
    norm_backward(b.before, weights, gradients, k.normal, k.scale, t.other, t.d_stream, true, T);
  }

  void normed_backward() {
    norm_backward(m.outer, weights, gradients, t.normal, t.scale, t.d_stream, t.d_stream, false, T);
  }

  void settle_all() {
    settle(m.input);
    settle(m.head);
    for (long i = 0; i < m.blocks; ++i) {
      settle(m.block(i).up);
      settle(m.block(i).down);
    }
  }

  double samples(long count, const S* inputs, const S* labels, S share) {
    read(count, inputs);
    for (long i = 0; i < m.blocks; ++i) forward_of(m.block(i), t.kept[i]);
    const S* last = predict();
    const double loss = lose(count, labels, share);
    if (!gradients) return loss;
    backward(m.head, last, t.z_head, t.y, t.d_stream);
    if (m.norms_output) normed_backward();
    for (long i = m.blocks; i-- > 0;) backward_of(m.block(i), t.kept[i]);
    if (m.norms_input) normed_backward();
    if (m.gelu) times(t.d_stream, t.first_slope, m.width * T);
    backward(m.input, t.x, t.z_input, t.d_stream, nullptr);
    return loss;
  }
};

}  // namespace
