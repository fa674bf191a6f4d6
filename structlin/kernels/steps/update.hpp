// What is done with weights before and after a step's products? Their caps, the norm of their gradients, and AdamW.
//
//     w = s x / max(1, rms(x) / std)      rms(x) = sqrt(mean(x^2) + 1e-12), s the number ``scale`` or 1
//
// x are the parameters themselves, w and the gradients lie in one row of numbers. Sums over a tensor are taken in doubles.

#pragma once

#include "lanes.hpp"

namespace {

// A parameter, in longs: where it begins in the row, its size, and of which parameter its scale is, or -1.
struct Parameter {
  long at, size, scale;
};

constexpr double TINY = 1e-12;

SL_INLINE double total_of(const V* sums, int count) {
  double sum = 0;
  for (int i = 0; i < count; ++i)
    for (int lane = 0; lane < VW; ++lane) sum += double(sums[i][lane]);
  return sum;
}

// The sum of x y, in runs that floats add up well.
static double dot(const S* x, const S* y, long size) {
  constexpr long RUN = 64 * VW;
  double sum = 0;
  long i = 0;
  while (i + VW <= size) {
    V sums[2] = {};
    const long end = i + RUN < size ? i + RUN : size;
    for (; i + 2 * VW <= end; i += 2 * VW) {
      sums[0] += get(x + i) * get(y + i);
      sums[1] += get(x + i + VW) * get(y + i + VW);
    }
    for (; i + VW <= end; i += VW) sums[0] += get(x + i) * get(y + i);
    sum += total_of(sums, 2);
  }
  for (; i < size; ++i) sum += double(x[i]) * double(y[i]);
  return sum;
}

static double rms_of(const S* x, long size) { return std::sqrt(dot(x, x, size) / double(size) + TINY); }

static double divisor(double rms, double std) { return rms / std > 1 ? rms / std : 1; }

// ``stds``: the cap of each, 0 where there is none. Keeps the root mean squares.
static void use_weights(long count, const Parameter* parameters, const double* stds, S* const* values, double* rms, S* weights) {
  for (long i = 0; i < count; ++i) {
    const Parameter& p = parameters[i];
    S* w = weights + p.at;
    if (stds[i] == 0) {
      std::memcpy(w, values[i], p.size * sizeof(S));
      continue;
    }
    rms[i] = rms_of(values[i], p.size);
    const double factor = (p.scale < 0 ? 1.0 : double(*values[p.scale])) / divisor(rms[i], stds[i]);
    for (long j = 0; j < p.size; ++j) w[j] = values[i][j] * S(factor);
  }
}

// Gradients of the used weights become those of the parameters.
static void own_gradients(long count, const Parameter* parameters, const double* stds, S* const* values, const double* rms,
                          S* gradients) {
  for (long i = 0; i < count; ++i) {
    const Parameter& p = parameters[i];
    if (stds[i] == 0) continue;
    S* d = gradients + p.at;
    const double over = divisor(rms[i], stds[i]), scale = p.scale < 0 ? 1.0 : double(*values[p.scale]);
    const bool capped = rms[i] >= stds[i];
    if (!capped && p.scale < 0) continue;
    const double along = dot(d, values[i], p.size);
    if (p.scale >= 0) gradients[parameters[p.scale].at] += S(along / over);
    // d rms / d x = x / (size rms), and w = s x std / rms where it is capped.
    const double back = capped ? scale * along / (over * double(p.size) * rms[i] * rms[i]) : 0;
    for (long j = 0; j < p.size; ++j) d[j] = d[j] * S(scale / over) - values[i][j] * S(back);
  }
}

struct Adam {
  double beta1, beta2, eps, lr, decay, first_left, second_left;  // 1 - beta^t of both
};

// torch's fused AdamW, in its order of operations.
static void adam(const Adam& a, S clip, const S* gradient, S* x, S* mean, S* square, long size) {
  const S step = S(a.lr / a.first_left), deviation = S(std::sqrt(a.second_left)), kept = S(1 - a.lr * a.decay);
  const S one = S(1 - a.beta1), beta2 = S(a.beta2), two = S(1 - a.beta2), eps = S(a.eps);
  auto update = [&](auto d, auto value, auto m, auto v, auto sqrt_of, auto write) {
    d *= clip;
    value *= kept;
    m += (d - m) * one;
    v = v * beta2 + d * d * two;
    write(value - m * step / (sqrt_of(v) / deviation + eps), m, v);
  };
  long i = 0;
  for (; i + VW <= size; i += VW)
    update(get(gradient + i), get(x + i), get(mean + i), get(square + i), [](V v) { return root(v); }, [&](V value, V m, V v) {
      put(x + i, value);
      put(mean + i, m);
      put(square + i, v);
    });
  for (; i < size; ++i)
    update(gradient[i], x[i], mean[i], square[i], [](S v) { return std::sqrt(v); }, [&](S value, S m, S v) {
      x[i] = value;
      mean[i] = m;
      square[i] = v;
    });
}

}  // namespace
