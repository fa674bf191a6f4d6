// Which parts of a training step can be called? A model's gradients, sequence by sequence, and what AdamW makes of them.
// Plain C, so that no header of torch is needed; -DSL_DOUBLE for doubles.

#include "choice.hpp"
#include "experts.hpp"
#include "gpt2.hpp"
#include "mlp.hpp"
#include "routed.hpp"
#include "update.hpp"

// Numbers of work space that a sequence of this model needs.
extern "C" long structlin_gpt2_space(const long* description) {
  const Gpt2& m = *reinterpret_cast<const Gpt2*>(description);
  Kept* kept = new Kept[m.blocks];
  Tape tape;
  Pass pass;
  Space space{nullptr};
  lay_out(m, kept, tape, pass, space);
  delete[] kept;
  return space.used;
}

static bool are_known(const Gpt2& m, long count, const long* ids, const long* targets) {
  for (long i = 0; i < count; ++i)
    if (ids[i] < 0 || ids[i] >= m.tokens || targets[i] >= m.vocabulary) return false;
  return true;
}

// The sum of the losses of some sequences, and the gradients of ``share`` times it, added up; null: none are made.
// Below 0, and nothing is done, where an id is none of the model's.
extern "C" double structlin_gpt2(const long* description, double attention_scale, double branch_scale, long sequences,
                                 const long* ids, const long* targets, double share, const S* weights, S* gradients,
                                 S* base) {
  const Gpt2& m = *reinterpret_cast<const Gpt2*>(description);
  if (!are_known(m, sequences * m.T, ids, targets)) return -1;
  Kept* kept = new Kept[m.blocks];
  Tape tape;
  Pass pass{weights, gradients, m.lanes};
  Space space{base};
  lay_out(m, kept, tape, pass, space);
  Gpt2Pass step{pass, m, tape, S(attention_scale), S(branch_scale)};
  double loss = 0;
  for (long i = 0; i < sequences; ++i) loss += step.sequence(ids + i * m.T, targets + i * m.T, S(share));
  if (gradients) step.settle_all();
  delete[] kept;
  return loss;
}

extern "C" long structlin_mlp_space(const long* description) {
  const Mlp& m = *reinterpret_cast<const Mlp*>(description);
  MlpKept* kept = new MlpKept[m.blocks];
  MlpTape tape;
  Pass pass;
  Space space{nullptr};
  lay_out(m, kept, tape, pass, space);
  delete[] kept;
  return space.used;
}

// The sum of the squared errors of some samples, and the gradients of ``share`` times it, added up; null: none are made.
extern "C" double structlin_mlp(const long* description, double branch_scale, long samples, const S* inputs,
                                const S* labels, double share, const S* weights, S* gradients, S* base) {
  const Mlp& m = *reinterpret_cast<const Mlp*>(description);
  MlpKept* kept = new MlpKept[m.blocks];
  MlpTape tape;
  Pass pass{weights, gradients, SAMPLES};
  Space space{base};
  lay_out(m, kept, tape, pass, space);
  MlpPass step{pass, m, tape, S(branch_scale)};
  double loss = 0;
  for (long i = 0; i < samples; i += SAMPLES) {
    const long count = samples - i < SAMPLES ? samples - i : SAMPLES;
    loss += step.samples(count, inputs + i * m.input.d_in, labels + i * m.head.d_out, S(share));
  }
  if (gradients) step.settle_all();
  delete[] kept;
  return loss;
}

extern "C" long structlin_expert_ffn_space(long width, long hidden) { return ExpertFfn::space_of(width, hidden); }

// ``y`` is added to.
extern "C" void structlin_expert_ffn(long experts, long width, long hidden, const long* token, const int* ends,
                                     const S* weight, const S* x, const S* up, const S* down, S* y, S* inner, S* rows,
                                     S* space) {
  ExpertFfn{experts, width, hidden, token, ends, weight, x, up, down, y, inner, rows, nullptr, nullptr, nullptr, nullptr,
            nullptr, space}
      .forward();
}

// ``dx``, ``d_up`` and ``d_down`` are added to.
extern "C" void structlin_expert_ffn_backward(long experts, long width, long hidden, const long* token, const int* ends,
                                              const S* weight, const S* x, const S* up, const S* down, S* inner, S* rows,
                                              const S* dy, S* dx, S* d_weight, S* d_up, S* d_down, S* space) {
  ExpertFfn{experts, width, hidden, token, ends, weight, x, up, down, nullptr, inner, rows, dy, dx, d_weight, d_up, d_down,
            space}
      .backward();
}

// ``space``: (E + K) vectors of numbers, ``next`` (E).
extern "C" void structlin_choose(long tokens, long experts, long top_k, long first_token, double tie, const S* logits,
                                 long* chosen, S* weight, S* p, S* level, S* means, long* counts, long* order,
                                 long* slots, S* space, long* next) {
  const Choice choice{tokens, experts, top_k, first_token, tie};
  choice.run(logits, chosen, weight, p, level, means, space);
  choice.sort(chosen, counts, order, slots, next);
}

extern "C" void structlin_choose_backward(long tokens, long experts, long top_k, const long* chosen, const S* weight,
                                          const S* p, const S* level, const S* d_weight, const S* d_means, S* d_logits) {
  Choice{tokens, experts, top_k, 0, 1}.run_back(chosen, weight, p, level, d_weight, d_means, d_logits);
}

extern "C" long structlin_routed_space(const long* linear) {
  Space space{nullptr};
  Routed(*reinterpret_cast<const Linear*>(linear), {}, 0, space);
  return space.used;
}

// ``weights``: those of each expert in a row of ``size``. ``y`` is added to where it has a row a token.
extern "C" void structlin_routed(const long* linear, long experts, long size, long gathers, long combines,
                                 const long* token, const int* ends, const S* weight, const S* x, const S* weights,
                                 S* y, S* base) {
  Space space{base};
  Routed(*reinterpret_cast<const Linear*>(linear), {experts, token, ends, weight, gathers, combines}, size, space)
      .run(weights, x, y);
}

// ``dx`` and ``d_weights`` are added to.
extern "C" void structlin_routed_backward(const long* linear, long experts, long size, long gathers, long combines,
                                          const long* token, const int* ends, const S* weight, const S* x,
                                          const S* weights, const S* dy, S* dx, S* d_weight, S* d_weights, S* base) {
  Space space{base};
  Routed(*reinterpret_cast<const Linear*>(linear), {experts, token, ends, weight, gathers, combines}, size, space)
      .run_back(weights, x, dy, dx, d_weight, d_weights);
}

extern "C" void structlin_use_weights(long count, const long* parameters, const double* stds, S* const* values, double* rms,
                                      S* weights) {
  use_weights(count, reinterpret_cast<const Parameter*>(parameters), stds, values, rms, weights);
}

extern "C" void structlin_own_gradients(long count, const long* parameters, const double* stds, S* const* values,
                                        const double* rms, S* gradients) {
  own_gradients(count, reinterpret_cast<const Parameter*>(parameters), stds, values, rms, gradients);
}

// The norm of all gradients; parameters are updated by them, clipped to ``limit`` (0: as they are). ``rates`` and
// ``decays``: of each parameter.
extern "C" double structlin_update(long count, const long* sizes, const S* const* gradients, S* const* values,
                                   S* const* means, S* const* squares, float* const* steps, const double* rates,
                                   const double* decays, double beta1, double beta2, double eps, double limit) {
  double sum = 0;
  for (long i = 0; i < count; ++i) sum += dot(gradients[i], gradients[i], sizes[i]);
  const double norm = std::sqrt(sum), clip = limit > 0 && norm + 1e-6 > limit ? limit / (norm + 1e-6) : 1;
  for (long i = 0; i < count; ++i) {
    const double t = double(*steps[i] += 1);
    adam({beta1, beta2, eps, rates[i], decays[i], 1 - std::pow(beta1, t), 1 - std::pow(beta2, t)}, S(clip), gradients[i],
         values[i], means[i], squares[i], sizes[i]);
  }
  return norm;
}
