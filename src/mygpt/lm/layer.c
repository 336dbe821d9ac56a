/* What lies between the matrix products of a transformer layer, forwards and backwards: each in one pass over memory.

   As torch operations a root-mean-square norm, a rotation and a gate are 30 calls a layer, each of which reads and writes everything; in training of a
   small model on a CPU they take longer than the products. Here a row is read once into a buffer of float32 that stays in the core's cache, worked on, and
   written once. Plain C that the compiler turns into vector instructions, so any processor will do.

   Tensors are bfloat16 where `half` is 1 and float32 where it is 0; sums and everything between are float32. Every result is rounded once.
   Dims: N rows, D hidden or head size, F width of the gate, h heads, B sequences, Q queries, S keys. Last dimension contiguous.

   Source: RMSNorm, Zhang and Sennrich 2019, arXiv:1910.07467, equation 4; rotary embedding, Su et al. 2021, arXiv:2104.09864, equation 34; gate, Shazeer
   2020, arXiv:2002.05202. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "exponential.h"

typedef uint16_t bf16;
enum { MOST = 16384 }; /* of a row, in elements: layer.py asks for no more */

INLINE float widen(bf16 x) {
    const uint32_t bits = (uint32_t)x << 16;
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

/* to nearest, ties to even; what is no number stays none */
INLINE bf16 narrow(float f) {
    uint32_t bits;
    memcpy(&bits, &f, 4);
    const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    return (bf16)((bits & 0x7fffffff) > 0x7f800000 ? bits >> 16 | 0x40 : rounded);
}

INLINE void load(float *restrict to, const void *from, int64_t at, int64_t n, const int half) {
    if (half) {
        const bf16 *p = (const bf16 *)from + at;
        for (int64_t i = 0; i < n; i++) to[i] = widen(p[i]);
    } else {
        memcpy(to, (const float *)from + at, (size_t)n * 4);
    }
}

INLINE void store(void *to, int64_t at, const float *restrict from, int64_t n, const int half) {
    if (half) {
        bf16 *p = (bf16 *)to + at;
        for (int64_t i = 0; i < n; i++) p[i] = narrow(from[i]);
    } else {
        memcpy((float *)to + at, from, (size_t)n * 4);
    }
}

/* ---- norm: y = w x / rms(x), where x = a + b and b may be absent; x is written when b is there ---------------------------------------------- */

INLINE void norm_rows(void *y, void *x, float *inverse, const void *a, const void *b, const void *w, int64_t N, int64_t D, float eps, int threads,
                      const int half) {
#pragma omp parallel num_threads(threads)
    {
        float row[MOST], other[MOST], weight[MOST];
        load(weight, w, 0, D, half);
#pragma omp for schedule(static)
        for (int64_t n = 0; n < N; n++) {
            load(row, a, n * D, D, half);
            if (b) {
                load(other, b, n * D, D, half);
                for (int64_t d = 0; d < D; d++) row[d] += other[d];
                store(x, n * D, row, D, half);
                load(row, x, n * D, D, half); /* as the next layer will read it */
            }
            float sum = 0;
#pragma omp simd reduction(+ : sum)
            for (int64_t d = 0; d < D; d++) sum += row[d] * row[d];
            const float r = 1.0f / sqrtf(sum / (float)D + eps);
            inverse[n] = r;
            for (int64_t d = 0; d < D; d++) row[d] *= r * weight[d];
            store(y, n * D, row, D, half);
        }
    }
}

/* dx = inverse (w dy - x mean(w dy x) inverse^2) + dx_more, which may be absent; dw, where wanted, gets the sums of each thread's rows: (threads, D) */
INLINE void norm_backward_rows(void *dx, float *dw, const void *dy, const void *dx_more, const void *x, const float *inverse, const void *w, int64_t N,
                               int64_t D, int threads, const int half) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int t = 0; t < threads; t++) {
        float row[MOST], up[MOST], more[MOST], weight[MOST];
        float *own = dw ? dw + t * D : 0;
        load(weight, w, 0, D, half);
        for (int64_t n = N * t / threads; n < N * (t + 1) / threads; n++) {
            load(row, x, n * D, D, half);
            load(up, dy, n * D, D, half);
            const float r = inverse[n];
            if (own)
                for (int64_t d = 0; d < D; d++) own[d] += up[d] * row[d] * r;
            float sum = 0;
            for (int64_t d = 0; d < D; d++) up[d] *= weight[d];
#pragma omp simd reduction(+ : sum)
            for (int64_t d = 0; d < D; d++) sum += up[d] * row[d];
            const float pull = sum / (float)D * r * r;
            for (int64_t d = 0; d < D; d++) up[d] = r * (up[d] - row[d] * pull);
            if (dx_more) {
                load(more, dx_more, n * D, D, half);
                for (int64_t d = 0; d < D; d++) up[d] += more[d];
            }
            store(dx, n * D, up, D, half);
        }
    }
}

void norm(void *y, void *x, float *inverse, const void *a, const void *b, const void *w, int64_t N, int64_t D, float eps, int threads, int half) {
    if (half) norm_rows(y, x, inverse, a, b, w, N, D, eps, threads, 1);
    else norm_rows(y, x, inverse, a, b, w, N, D, eps, threads, 0);
}

void norm_backward(void *dx, float *dw, const void *dy, const void *dx_more, const void *x, const float *inverse, const void *w, int64_t N, int64_t D,
                   int threads, int half) {
    if (half) norm_backward_rows(dx, dw, dy, dx_more, x, inverse, w, N, D, threads, 1);
    else norm_backward_rows(dx, dw, dy, dx_more, x, inverse, w, N, D, threads, 0);
}

/* ---- gate: y = silu(g) u --------------------------------------------------------------------------------------------------------------------- */

INLINE void gate_rows(void *y, const void *g, const void *u, int64_t N, int64_t F, int threads, const int half) {
#pragma omp parallel num_threads(threads)
    {
        float gate[MOST], up[MOST];
#pragma omp for schedule(static)
        for (int64_t n = 0; n < N; n++) {
            load(gate, g, n * F, F, half);
            load(up, u, n * F, F, half);
            for (int64_t f = 0; f < F; f++) gate[f] = gate[f] / (1.0f + exponential(-gate[f])) * up[f];
            store(y, n * F, gate, F, half);
        }
    }
}

INLINE void gate_backward_rows(void *dg, void *du, const void *dy, const void *g, const void *u, int64_t N, int64_t F, int threads, const int half) {
#pragma omp parallel num_threads(threads)
    {
        float gate[MOST], up[MOST], out[MOST];
#pragma omp for schedule(static)
        for (int64_t n = 0; n < N; n++) {
            load(gate, g, n * F, F, half);
            load(up, u, n * F, F, half);
            load(out, dy, n * F, F, half);
            for (int64_t f = 0; f < F; f++) {
                const float s = 1.0f / (1.0f + exponential(-gate[f])), silu = gate[f] * s;
                gate[f] = out[f] * up[f] * (s + silu * (1.0f - s));
                up[f] = out[f] * silu;
            }
            store(dg, n * F, gate, F, half);
            store(du, n * F, up, F, half);
        }
    }
}

void gate(void *y, const void *g, const void *u, int64_t N, int64_t F, int threads, int half) {
    if (half) gate_rows(y, g, u, N, F, threads, 1);
    else gate_rows(y, g, u, N, F, threads, 0);
}

void gate_backward(void *dg, void *du, const void *dy, const void *g, const void *u, int64_t N, int64_t F, int threads, int half) {
    if (half) gate_backward_rows(dg, du, dy, g, u, N, F, threads, 1);
    else gate_backward_rows(dg, du, dy, g, u, N, F, threads, 0);
}

/* ---- rotation: y[d] = x[d] cos[d] -+ x[d +- D/2] sin[d], the angles of a row shared by its heads. `sign` -1 rotates back (the transpose), which asks of
   cos and sin that both halves be alike. y is (N, h, D), contiguous; x has rows `stride` elements apart; angles are (N, D), or (1, D) where `angles` is 0 -- */

INLINE void rotate_rows(void *y, const void *x, int64_t stride, const void *cosines, const void *sines, int64_t N, int64_t h, int64_t D, float sign,
                        int threads, const int half) {
#pragma omp parallel num_threads(threads)
    {
        float row[MOST], turned[MOST], c[MOST], s[MOST];
        const int64_t M = D / 2;
#pragma omp for schedule(static)
        for (int64_t n = 0; n < N; n++) {
            load(c, cosines, n * D, D, half);
            load(s, sines, n * D, D, half);
            load(row, x, n * stride, h * D, half);
            for (int64_t i = 0; i < h; i++) {
                const float *from = row + i * D;
                float *to = turned + i * D;
                for (int64_t d = 0; d < M; d++) {
                    to[d] = from[d] * c[d] - sign * from[d + M] * s[d];
                    to[d + M] = from[d + M] * c[d + M] + sign * from[d] * s[d + M];
                }
            }
            store(y, n * h * D, turned, h * D, half);
        }
    }
}

void rotate(void *y, const void *x, int64_t stride, const void *cosines, const void *sines, int64_t N, int64_t h, int64_t D, float sign, int threads,
            int half) {
    if (half) rotate_rows(y, x, stride, cosines, sines, N, h, D, sign, threads, 1);
    else rotate_rows(y, x, stride, cosines, sines, N, h, D, sign, threads, 0);
}

/* ---- attention weights: softmax(scale w) in place, over the keys that a query may see. w is (B * h, G, Q, S): the G heads of a group are in one row of
   products. `seen` (bytes, (B or 1, Q, S), 0 hidden) or, where absent, causal: query q sees keys up to q + S - Q. What is hidden gets 0. A query that sees
   nothing gets zeros ------------------------------------------------------------------------------------------------------------------------------ */

INLINE void weights_rows(void *w, const uint8_t *seen, int64_t seen_b, int64_t B, int64_t heads, int64_t Q, int64_t S, float scale, int threads,
                         const int half) {
#pragma omp parallel num_threads(threads)
    {
        float *row = aligned_alloc(64, (size_t)((S + 15) / 16 * 16) * sizeof(float));
#pragma omp for schedule(static)
        for (int64_t i = 0; i < B * heads * Q; i++) {
            const int64_t q = i % Q, b = i / Q / heads, most = seen ? S : q + S - Q + 1;
            const uint8_t *own = seen ? seen + b * seen_b + q * S : 0;
            load(row, w, i * S, most, half);
            float top = -INFINITY;
            if (own)
                for (int64_t s = 0; s < most; s++) row[s] = own[s] ? row[s] : -INFINITY;
#pragma omp simd reduction(max : top)
            for (int64_t s = 0; s < most; s++) top = row[s] > top ? row[s] : top;
            float sum = 0;
            const float shift = top == -INFINITY ? 0 : top;
#pragma omp simd reduction(+ : sum)
            for (int64_t s = 0; s < most; s++) {
                const float x = scale * (row[s] - shift);
                row[s] = x < -87.0f ? 0.0f : exponential(x);
                sum += row[s];
            }
            const float inverse = sum > 0 ? 1.0f / sum : 0.0f;
            for (int64_t s = 0; s < most; s++) row[s] *= inverse;
            for (int64_t s = most; s < S; s++) row[s] = 0;
            store(w, i * S, row, S, half);
        }
        free(row);
    }
}

/* dw becomes the gradient of the scores: scale w (dw - sum w dw) */
INLINE void weights_backward_rows(void *dw, const void *w, int64_t N, int64_t Q, int64_t S, int causal, float scale, int threads, const int half) {
#pragma omp parallel num_threads(threads)
    {
        float *row = aligned_alloc(64, (size_t)((S + 15) / 16 * 16) * sizeof(float)), *up = aligned_alloc(64, (size_t)((S + 15) / 16 * 16) * sizeof(float));
#pragma omp for schedule(static)
        for (int64_t i = 0; i < N; i++) {
            const int64_t most = causal ? i % Q + S - Q + 1 : S;
            load(row, w, i * S, most, half);
            load(up, dw, i * S, most, half);
            float sum = 0;
#pragma omp simd reduction(+ : sum)
            for (int64_t s = 0; s < most; s++) sum += row[s] * up[s];
            for (int64_t s = 0; s < most; s++) up[s] = scale * row[s] * (up[s] - sum);
            for (int64_t s = most; s < S; s++) up[s] = 0;
            store(dw, i * S, up, S, half);
        }
        free(row);
        free(up);
    }
}

void attention_weights(void *w, const uint8_t *seen, int64_t seen_b, int64_t B, int64_t heads, int64_t Q, int64_t S, float scale, int threads, int half) {
    if (half) weights_rows(w, seen, seen_b, B, heads, Q, S, scale, threads, 1);
    else weights_rows(w, seen, seen_b, B, heads, Q, S, scale, threads, 0);
}

void attention_weights_backward(void *dw, const void *w, int64_t N, int64_t Q, int64_t S, int causal, float scale, int threads, int half) {
    if (half) weights_backward_rows(dw, w, N, Q, S, causal, scale, threads, 1);
    else weights_backward_rows(dw, w, N, Q, S, causal, scale, threads, 0);
}
