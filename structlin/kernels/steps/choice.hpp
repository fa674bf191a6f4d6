// Which experts does every token choose, with which weights, and what does a router's loss read of it? The mathematics
// of structlin/nn/router.py, some tokens at a time along the lanes.

#pragma once

#include "lanes.hpp"

namespace {

struct Choice {
  long tokens, experts, top_k, first_token;
  double tie;

  // The k experts with the largest logits, the largest first; among equal ones the token's own order decides.
  void choose(const S* g, long step, long token, long* chosen, S* rank) const {
    const long number = first_token + token;
    long found = 0, expert = (number * top_k + number / experts) % experts;
    for (long j = 0; j < experts; ++j, expert = expert + 1 < experts ? expert + 1 : 0) {
      const S here = std::nearbyint((g[expert * step] - g[0]) / S(tie));
      long at = found < top_k ? found++ : top_k;
      for (; at > 0 && here > rank[at - 1]; --at)
        if (at < top_k) {
          rank[at] = rank[at - 1];
          chosen[at] = chosen[at - 1];
        }
      if (at < top_k) {
        rank[at] = here;
        chosen[at] = expert;
      }
    }
  }

  // p (T, E), logsumexp (T), weights (T, K); ``means``: of p (E), and of the square of logsumexp. ``space``: rows of VW
  // logits, and of ranks.
  void run(const S* logits, long* chosen, S* weight, S* p, S* level, S* means, S* space) const {
    S *g = space, *rank = g + experts * VW;
    double squares = 0;
    std::memset(means, 0, (experts + 1) * sizeof(S));
    for (long t = 0; t < tokens; t += VW) {
      const long count = tokens - t < VW ? tokens - t : VW;
      std::memset(g, 0, experts * VW * sizeof(S));
      for (long i = 0; i < count; ++i)
        for (long e = 0; e < experts; ++e) g[e * VW + i] = logits[(t + i) * experts + e];
      for (long i = 0; i < count; ++i) choose(g + i, VW, t + i, chosen + (t + i) * top_k, rank);
      V most_of = get(g), sum{};
      for (long e = 1; e < experts; ++e) most_of = larger(get(g + e * VW), most_of);
      for (long e = 0; e < experts; ++e) {
        const V found = exponential(get(g + e * VW) - most_of);
        put(g + e * VW, found);
        sum += found;
      }
      for (long i = 0; i < count; ++i) {
        S* row = p + (t + i) * experts;
        for (long e = 0; e < experts; ++e) means[e] += row[e] = g[e * VW + i] / sum[i];
        level[t + i] = most_of[i] + std::log(sum[i]);
        squares += double(level[t + i]) * double(level[t + i]);
        weigh(row, chosen + (t + i) * top_k, weight + (t + i) * top_k);
      }
    }
    for (long e = 0; e < experts; ++e) means[e] /= S(tokens);
    means[experts] = S(squares / double(tokens));
  }

  void weigh(const S* p, const long* chosen, S* weight) const {
    S sum = 0;
    for (long k = 0; k < top_k; ++k) sum += p[chosen[k]];
    for (long k = 0; k < top_k; ++k) weight[k] = p[chosen[k]] / sum;
  }

  // Assignments by expert, then by token: their number (E), which stands where (T K), and where each stands.
  void sort(const long* chosen, long* counts, long* order, long* slots, long* next) const {
    std::memset(counts, 0, experts * sizeof(long));
    for (long n = 0; n < tokens * top_k; ++n) ++counts[chosen[n]];
    for (long e = 0, start = 0; e < experts; start += counts[e++]) next[e] = start;
    for (long n = 0; n < tokens * top_k; ++n) {
      slots[n] = next[chosen[n]]++;
      order[slots[n]] = n;
    }
  }

  // d_means: of the means of p (E) and of the square of logsumexp.
  void run_back(const long* chosen, const S* weight, const S* p, const S* level, const S* d_weight, const S* d_means,
                S* d_logits) const {
    const S share = S(1) / S(tokens);
    for (long t = 0; t < tokens; ++t) {
      const S* row = p + t * experts;
      S* d = d_logits + t * experts;
      S along = 0, of_weights = 0;
      for (long e = 0; e < experts; ++e) along += row[e] * d_means[e];
      const S same = share * (S(2) * level[t] * d_means[experts] - along);
      for (long e = 0; e < experts; ++e) d[e] = row[e] * (share * d_means[e] + same);
      for (long k = 0; k < top_k; ++k) of_weights += weight[t * top_k + k] * d_weight[t * top_k + k];
      for (long k = 0; k < top_k; ++k)
        d[chosen[t * top_k + k]] += weight[t * top_k + k] * (d_weight[t * top_k + k] - of_weights);
    }
  }
};

}  // namespace
