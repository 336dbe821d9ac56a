/* A few queries of one head over its cached keys and values, in the format (`real`) of bf16.h or float32.h, one of which is included before.

   Scores, softmax and sums are float32. Keys and values of a token are D contiguous numbers (a multiple of 32, at most 128), `k_s` and `v_s` apart. `seen`
   lists the tokens that these queries look at, in order; without it they look at all.

   Online softmax is not needed, since the scores of one head fit the cache of a core. */

#pragma once

enum { MOST_D = 128, AT_ONCE = 4 };

/* scores[r][s] = scale * q[r] . k[s] for `rows` queries at once */
INLINE void dots(float *scores, int64_t S_padded, const int rows, const real *q, const real *k, int64_t k_s, const real *v, int64_t v_s,
                 const int32_t *seen, int64_t S, int D, float scale) {
    for (int64_t s = 0; s < S; s++) {
        const int64_t at = seen ? seen[s] : s;
        const real *key = k + at * k_s;
        for (int d = 0; d < D; d += WIDE) {
            _mm_prefetch((const char *)(v + at * v_s + d), _MM_HINT_T1);
            _mm_prefetch((const char *)(key + 16 * k_s + d), _MM_HINT_T0);
        }
        __m512 sum[AT_ONCE];
        for (int r = 0; r < rows; r++) sum[r] = _mm512_setzero_ps();
        for (int d = 0; d < D; d += WIDE)
            for (int r = 0; r < rows; r++) sum[r] = add_products(sum[r], q + r * D + d, key + d);
        for (int r = 0; r < rows; r++) scores[r * S_padded + s] = scale * _mm512_reduce_add_ps(sum[r]);
    }
}

/* one row: add the mask, softmax in place, zeros up to S_padded; returns 1 / sum, which is left to be multiplied in */
static float weights(float *scores, const real *mask, int64_t S, int64_t S_padded) {
    const __m512 lowest = _mm512_set1_ps(-3.3e38f);
    __m512 top = lowest;
    for (int64_t s = S; s < S_padded; s++) scores[s] = -3.3e38f;
    for (int64_t s = 0; s < S_padded; s += 16) {
        __m512 x = _mm512_loadu_ps(scores + s);
        if (mask && s + 16 <= S) x = _mm512_max_ps(lowest, _mm512_add_ps(x, widen(mask + s))); /* in this order what is no number stays */
        _mm512_storeu_ps(scores + s, x);
        if (!mask || s + 16 <= S) top = _mm512_max_ps(top, x);
    }
    float highest = _mm512_reduce_max_ps(top);
    for (int64_t s = S - S % 16; s < S; s++) {
        if (mask) scores[s] = scores[s] + one(mask[s]) < -3.3e38f ? -3.3e38f : scores[s] + one(mask[s]);
        if (scores[s] > highest) highest = scores[s];
    }
    __m512 total = _mm512_setzero_ps();
    for (int64_t s = 0; s < S_padded; s += 16) {
        __m512 w = exp_nonpositive(_mm512_sub_ps(_mm512_loadu_ps(scores + s), _mm512_set1_ps(highest)));
        if (s + 16 > S) w = _mm512_maskz_mov_ps((__mmask16)((1u << (S - s)) - 1), w);
        total = _mm512_add_ps(total, w);
        _mm512_storeu_ps(scores + s, w);
    }
    return 1.0f / _mm512_reduce_add_ps(total);
}

/* mixed[r] = inverse[r] * sum over s of w[r][s] * v[s], for `rows` queries at once and `PARTS` x 16 dims at once */
INLINE void mix_part(float *mixed, const float *scores, const float *inverse, int64_t S_padded, const int rows, const real *v, int64_t v_s,
                     const int32_t *seen, int64_t S, int D, const int PARTS) {
    __m512 sum[AT_ONCE][4];
    for (int r = 0; r < rows; r++)
        for (int p = 0; p < PARTS; p++) sum[r][p] = _mm512_setzero_ps();
    for (int64_t s = 0; s < S; s++) {
        const real *from = v + (seen ? seen[s] : s) * v_s;
        __m512 w[AT_ONCE];
        for (int r = 0; r < rows; r++) w[r] = _mm512_set1_ps(scores[r * S_padded + s]);
        for (int p = 0; p < PARTS; p++) {
            const __m512 value = widen(from + 16 * p);
            for (int r = 0; r < rows; r++) sum[r][p] = _mm512_fmadd_ps(w[r], value, sum[r][p]);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int p = 0; p < PARTS; p++) _mm512_storeu_ps(mixed + r * D + 16 * p, _mm512_mul_ps(sum[r][p], _mm512_set1_ps(inverse[r])));
}

INLINE void attend_rows(float *mixed, float *scores, const int rows, const real *q, const real *k, int64_t k_s, const real *v, int64_t v_s,
                        const real *const *masks, const int32_t *seen, int64_t S, int D, float scale) {
    const int64_t S_padded = (S + 15) / 16 * 16;
    dots(scores, S_padded, rows, q, k, k_s, v, v_s, seen, S, D, scale);
    float inverse[AT_ONCE];
    for (int r = 0; r < rows; r++) inverse[r] = weights(scores + r * S_padded, masks ? masks[r] : 0, S, S_padded);
    int d = 0;
    for (; d + 64 <= D; d += 64) mix_part(mixed + d, scores, inverse, S_padded, rows, v + d, v_s, seen, S, D, 4);
    for (; d < D; d += 32) mix_part(mixed + d, scores, inverse, S_padded, rows, v + d, v_s, seen, S, D, 2);
}

/* mixed (rows, D), float32. rows: 1 to AT_ONCE; q (rows, D), contiguous; masks: one of S numbers for each row, added to its scores, or 0. S is at least 1.
   scores: room for AT_ONCE rows of S, rounded up to 16. */
INLINE void attend(float *mixed, float *scores, int rows, const real *q, const real *k, int64_t k_s, const real *v, int64_t v_s,
                   const real *const *masks, const int32_t *seen, int64_t S, int D, float scale) {
    switch (rows) { /* so that the compiler keeps each in registers */
    case 1: attend_rows(mixed, scores, 1, q, k, k_s, v, v_s, masks, seen, S, D, scale); break;
    case 2: attend_rows(mixed, scores, 2, q, k, k_s, v, v_s, masks, seen, S, D, scale); break;
    case 3: attend_rows(mixed, scores, 3, q, k, k_s, v, v_s, masks, seen, S, D, scale); break;
    default: attend_rows(mixed, scores, 4, q, k, k_s, v, v_s, masks, seen, S, D, scale);
    }
}
