// What does a GPT-2 make of one sequence, and what does its loss owe to every weight? All of it, before the next one.
//
// A sequence of a narrow model fits the caches: it goes through all blocks and back, and its gradients are added to those
// of the sequences before it. The description is what Python lays out (structlin/kernels/steps/gpt2.py).

#pragma once

#include <initializer_list>

#include "heads.hpp"

namespace {

struct Block {
  Norm before_attention, of_q, of_k, before_ffn;
  Linear q, k, v, o, up, down;
};

struct Gpt2 {
  long tokens, T, lanes, width, features, heads, vocabulary, embedding, positions, blocks;
  Norm last;
  Linear head;

  // Blocks follow the description.
  const Block& block(long i) const { return reinterpret_cast<const Block*>(this + 1)[i]; }
};

// What a block keeps of its forward pass.
struct Kept {
  S *normal, *scale, *x, *q, *k, *v, *q_normal, *q_scale, *k_normal, *k_scale, *q_used, *k_used, *shares, *mixed;
  S *ffn_normal, *ffn_scale, *ffn_x, *active, *slope;
  S *z_q, *z_k, *z_v, *z_o, *z_up, *z_down;
};

struct Tape {
  Kept* kept;
  S *stream, *wide, *other, *last_normal, *last_scale, *last_x, *z_head, *logits;
  S *d_stream, *d_wide, *d_other, *d_q, *d_k, *d_v, *attention;
};

static void lay_out(const Gpt2& m, Kept* kept, Tape& t, Pass& pass, Space& space) {
  const long T = m.lanes, D = m.width * T, F = m.features * T;
  Room room;
  room.of_tokens = T * token_row(m.width);
  room.fit(m.head, T);
  long wide = most(m.width, m.features);
  for (long i = 0; i < m.blocks; ++i) {
    const Block& b = m.block(i);
    const long H = b.up.d_out * T;
    Kept& k = kept[i];
    for (S** of : {&k.normal, &k.x, &k.ffn_normal, &k.ffn_x}) *of = space.take(D);
    for (S** of : {&k.q, &k.k, &k.v, &k.q_normal, &k.k_normal, &k.q_used, &k.k_used, &k.mixed}) *of = space.take(F);
    for (S** of : {&k.q_scale, &k.k_scale}) *of = space.take(m.heads * T);
    for (S** of : {&k.scale, &k.ffn_scale}) *of = space.take(T);
    for (S** of : {&k.active, &k.slope}) *of = space.take(H);
    k.shares = space.take(m.heads * shares_size(T));
    const Linear* linears[] = {&b.q, &b.k, &b.v, &b.o, &b.up, &b.down};
    S** of[] = {&k.z_q, &k.z_k, &k.z_v, &k.z_o, &k.z_up, &k.z_down};
    for (int j = 0; j < 6; ++j) {
      *of[j] = space.take(linears[j]->keeps_z(T) ? linears[j]->z_size(T) : 0);
      room.fit(*linears[j], T);
    }
    wide = most(wide, b.up.d_out);
  }
  t.kept = kept;
  for (S** of : {&t.stream, &t.other, &t.last_normal, &t.last_x, &t.d_stream, &t.d_other}) *of = space.take(D);
  for (S** of : {&t.d_q, &t.d_k, &t.d_v}) *of = space.take(F);
  for (S** of : {&t.wide, &t.d_wide}) *of = space.take(wide * T);
  t.last_scale = space.take(T);
  t.z_head = space.take(m.head.keeps_z(T) ? m.head.z_size(T) : 0);
  t.logits = space.take(m.vocabulary * T);
  t.attention = space.take(attend_space(m.features / m.heads, T));
  room.take(pass, space);
}

struct Gpt2Pass : Pass {
  const Gpt2& m;
  Tape& t;
  S attention_scale, branch_scale;

  // ---- forward

  void embed(const long* ids) {
    const long row = token_row(m.width);
    std::memset(of_tokens, 0, m.lanes * row * sizeof(S));
    for (long i = 0; i < m.T; ++i) {
      const S *token = weights + m.embedding + ids[i] * m.width, *place = weights + m.positions + i * m.width;
      for (long c = 0; c < m.width; ++c) of_tokens[i * row + c] = token[c] + place[c];
    }
    transposed(m.lanes, m.width, of_tokens, row, t.stream, m.lanes);
  }

  void norm_heads(const Norm& n, const S* x, S* normal, S* scale, S* y) {
    for (long h = 0; h < m.heads; ++h) {
      const long at = h * n.size * m.lanes;
      norm(n, weights, x + at, normal + at, scale + h * m.lanes, y + at, m.lanes);
    }
  }

  void forward_of(const Block& b, const Kept& k) {
    const long T = m.lanes, D = m.width * T, C = m.features / m.heads;
    norm(b.before_attention, weights, t.stream, k.normal, k.scale, k.x, T);
    forward(b.q, k.x, k.z_q, k.q);
    forward(b.k, k.x, k.z_k, k.k);
    forward(b.v, k.x, k.z_v, k.v);
    norm_heads(b.of_q, k.q, k.q_normal, k.q_scale, k.q_used);
    norm_heads(b.of_k, k.k, k.k_normal, k.k_scale, k.k_used);
    for (long h = 0; h < m.heads; ++h) {
      const long at = h * C * T;
      S* shares = k.shares + h * shares_size(T);
      attend(k.q_used + at, k.k_used + at, k.v + at, C, T, attention_scale, shares, k.mixed + at);
    }
    forward(b.o, k.mixed, k.z_o, t.other);
    add_scaled(t.stream, t.other, branch_scale, D);
    norm(b.before_ffn, weights, t.stream, k.ffn_normal, k.ffn_scale, k.ffn_x, T);
    forward(b.up, k.ffn_x, k.z_up, t.wide);
    gelu_rows(t.wide, k.active, k.slope, b.up.d_out * T);
    forward(b.down, k.active, k.z_down, t.other);
    add_scaled(t.stream, t.other, branch_scale, D);
  }

  // The sum of losses in nats; logits become their gradients, times ``share``. A target below 0 is asked nothing.
  double lose(const long* targets, S share) {
    const long T = m.lanes;
    double loss = 0;
    for (long from = 0; from < T; from += VW) {
      S* logits = t.logits + from;
      V most_of = all(S(-INFINITY)), sum{}, asked{}, wanted{};
      for (long v = 0; v < m.vocabulary; ++v) most_of = larger(get(logits + v * T), most_of);
      const long count = m.T - from < VW ? m.T - from : VW;
      for (long i = 0; i < count; ++i) {
        const long target = targets[from + i];
        asked[i] = target < 0 ? 0 : share;
        wanted[i] = target < 0 ? 0 : logits[target * T + i];
      }
      for (long v = 0; v < m.vocabulary; ++v) {
        const V found = exponential(get(logits + v * T) - most_of);
        put(logits + v * T, found);
        sum += found;
      }
      const V each = asked / sum;
      for (long v = 0; v < m.vocabulary; ++v) put(logits + v * T, get(logits + v * T) * each);
      for (long i = 0; i < count; ++i) {
        const long target = targets[from + i];
        if (target < 0) continue;
        loss += std::log(double(sum[i])) + (double(most_of[i]) - double(wanted[i]));
        logits[target * T + i] -= share;
      }
    }
    return loss;
  }

  void predict() {
    norm(m.last, weights, t.stream, t.last_normal, t.last_scale, t.last_x, m.lanes);
    forward(m.head, t.last_x, t.z_head, t.logits);
  }

  // ---- backward

  void norm_heads_backward(const Norm& n, const S* normal, const S* scale, S* d) {
    for (long h = 0; h < m.heads; ++h) {
      const long at = h * n.size * m.lanes;
      norm_backward(n, weights, gradients, normal + at, scale + h * m.lanes, d + at, d + at, false, m.lanes);
    }
  }

  const S* of_branch() {
    if (branch_scale == S(1)) return t.d_stream;
    scaled(t.d_other, t.d_stream, branch_scale, m.width * m.lanes);
    return t.d_other;
  }

  void backward_of(const Block& b, const Kept& k) {
    const long T = m.lanes, C = m.features / m.heads;
    backward(b.down, k.active, k.z_down, of_branch(), t.d_wide);
    times(t.d_wide, k.slope, b.up.d_out * T);
    backward(b.up, k.ffn_x, k.z_up, t.d_wide, t.other);
    norm_backward(b.before_ffn, weights, gradients, k.ffn_normal, k.ffn_scale, t.other, t.d_stream, true, T);
    backward(b.o, k.mixed, k.z_o, of_branch(), t.d_wide);
    for (long h = 0; h < m.heads; ++h) {
      const long at = h * C * T;
      attend_backward(k.q_used + at, k.k_used + at, k.v + at, k.shares + h * shares_size(T), t.d_wide + at, C, T,
                      attention_scale, t.d_q + at, t.d_k + at, t.d_v + at, t.attention);
    }
    norm_heads_backward(b.of_q, k.q_normal, k.q_scale, t.d_q);
    norm_heads_backward(b.of_k, k.k_normal, k.k_scale, t.d_k);
    const S* rows = b.q.dense() || b.k.dense() || b.v.dense() ? rows_of(k.x, m.width) : nullptr;
    backward(b.q, k.x, k.z_q, t.d_q, t.other, false, rows);
    backward(b.k, k.x, k.z_k, t.d_k, t.other, true, rows);
    backward(b.v, k.x, k.z_v, t.d_v, t.other, true, rows);
    norm_backward(b.before_attention, weights, gradients, k.normal, k.scale, t.other, t.d_stream, true, T);
  }

  void embed_backward(const long* ids) {
    const long row = token_row(m.width);
    transposed(m.width, m.lanes, t.d_stream, m.lanes, of_tokens, row);
    for (long i = 0; i < m.T; ++i) {
      S *token = gradients + m.embedding + ids[i] * m.width, *place = gradients + m.positions + i * m.width;
      for (long c = 0; c < m.width; ++c) {
        token[c] += of_tokens[i * row + c];
        place[c] += of_tokens[i * row + c];
      }
    }
  }

  void settle_all() {
    settle(m.head);
    for (long i = 0; i < m.blocks; ++i) {
      const Block& b = m.block(i);
      for (const Linear* l : {&b.q, &b.k, &b.v, &b.o, &b.up, &b.down}) settle(*l);
    }
  }

  double sequence(const long* ids, const long* targets, S share) {
    embed(ids);
    for (long i = 0; i < m.blocks; ++i) forward_of(m.block(i), t.kept[i]);
    predict();
    const double loss = lose(targets, share);
    if (!gradients) return loss;
    backward(m.head, t.last_x, t.z_head, t.logits, t.other);
    norm_backward(m.last, weights, gradients, t.last_normal, t.last_scale, t.other, t.d_stream, false, m.lanes);
    for (long i = m.blocks; i-- > 0;) backward_of(m.block(i), t.kept[i]);
    embed_backward(ids);
    return loss;
  }
};

}  // namespace
