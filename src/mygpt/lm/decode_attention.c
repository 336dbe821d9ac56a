/* Attention of a few queries over many cached keys, for processors with AVX-512 BF16. Compiled on the user's machine (decode_attention.py).

   A decoding step reads every cached key and value once and computes little with them, so it should take as long as reading takes. The matrix
   products of the libraries are made for larger pieces: at 3 queries a head they spend most of their time on setting up.

   Dims: B sequences, H key/value heads, R queries of a head (heads of its group x new tokens), S keys, D head size (a multiple of 32, at most 128).
   All but the scores are bfloat16; scores, softmax and sums are float32. Strides count elements; D is contiguous everywhere.
   The mask (B, R / G, S), added to the scores, is shared by the G heads of a group; query r of a head is head r / Q, token r % Q.

   Source: online softmax is not needed, since the scores of one head fit the cache of a core; exp by a polynomial after Cody and Waite 1980. */

#include <immintrin.h>
#include <stdint.h>
#include <stdlib.h>

typedef uint16_t bf16;
enum { MOST_D = 128, AT_ONCE = 4 };

static inline __m512 widen(const bf16 *p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
}

static inline float one(bf16 x) {
    union { uint32_t i; float f; } u = {(uint32_t)x << 16};
    return u.f;
}

/* exp(x) for x <= 0, to about 2e-7; 0 below -87 */
static inline __m512 exp_nonpositive(__m512 x) {
    const __mmask16 in_range = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-87.0f), _CMP_GT_OQ);
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
    __m512 p = _mm512_set1_ps(1.9875691500e-4f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3981999507e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3334519073e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001201e-1f));
    p = _mm512_fmadd_ps(_mm512_mul_ps(p, r), r, _mm512_add_ps(r, _mm512_set1_ps(1.0f)));
    return _mm512_maskz_scalef_ps(in_range, p, n);
}

/* scores[r][s] = scale * q[r] . k[s] for `rows` queries at once */
static inline __attribute__((always_inline)) void dots(float *scores, int64_t S_padded, const int rows, const bf16 *q, const bf16 *k, int64_t k_s,
                                                       int64_t S, int D, float scale) {
    for (int64_t s = 0; s < S; s++) {
        const bf16 *key = k + s * k_s;
        __m512 sum[AT_ONCE];
        for (int r = 0; r < rows; r++) sum[r] = _mm512_setzero_ps();
        for (int d = 0; d < D; d += 32) {
            const __m512bh part = (__m512bh)_mm512_loadu_si512(key + d);
            for (int r = 0; r < rows; r++) sum[r] = _mm512_dpbf16_ps(sum[r], (__m512bh)_mm512_loadu_si512(q + r * D + d), part);
        }
        for (int r = 0; r < rows; r++) scores[r * S_padded + s] = scale * _mm512_reduce_add_ps(sum[r]);
    }
}

/* one row: add the mask, softmax in place, zeros up to S_padded; returns 1 / sum, which is left to be multiplied in */
static float weights(float *scores, const bf16 *mask, int64_t S, int64_t S_padded) {
    const __m512 lowest = _mm512_set1_ps(-3.3e38f);
    __m512 top = lowest;
    for (int64_t s = S; s < S_padded; s++) scores[s] = -3.3e38f;
    for (int64_t s = 0; s < S_padded; s += 16) {
        __m512 x = _mm512_loadu_ps(scores + s);
        if (mask && s + 16 <= S) x = _mm512_max_ps(_mm512_add_ps(x, widen(mask + s)), lowest);
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

/* out[r] = sum over s of w[r][s] * v[s], for `rows` queries at once and `PARTS` x 16 dims at once */
static inline __attribute__((always_inline)) void mix_part(float *out, const float *scores, int64_t S_padded, const int rows, const bf16 *v,
                                                           int64_t v_s, int64_t S, int D, const int PARTS) {
    __m512 sum[AT_ONCE][4];
    for (int r = 0; r < rows; r++)
        for (int p = 0; p < PARTS; p++) sum[r][p] = _mm512_setzero_ps();
    for (int64_t s = 0; s < S; s++) {
        __m512 w[AT_ONCE];
        for (int r = 0; r < rows; r++) w[r] = _mm512_set1_ps(scores[r * S_padded + s]);
        for (int p = 0; p < PARTS; p++) {
            const __m512 value = widen(v + s * v_s + 16 * p);
            for (int r = 0; r < rows; r++) sum[r][p] = _mm512_fmadd_ps(w[r], value, sum[r][p]);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int p = 0; p < PARTS; p++) _mm512_storeu_ps(out + r * D + 16 * p, sum[r][p]);
}

static inline __attribute__((always_inline)) void mix(float *out, const float *scores, int64_t S_padded, const int rows, const bf16 *v,
                                                      int64_t v_s, int64_t S, int D) {
    int d = 0;
    for (; d + 64 <= D; d += 64) mix_part(out + d, scores, S_padded, rows, v + d, v_s, S, D, 4);
    for (; d < D; d += 32) mix_part(out + d, scores, S_padded, rows, v + d, v_s, S, D, 2);
}

/* 0 when done; 1 when there was no memory for the scores of a head. out is (B, Q, H * G, D), contiguous; q is (B, H * G, Q, D). */
int decode_attention(bf16 *out, const bf16 *q, const bf16 *k, const bf16 *v, const bf16 *mask, int64_t B, int64_t H, int64_t G, int64_t Q,
                     int64_t S, int64_t D, int64_t q_b, int64_t q_h, int64_t q_q, int64_t k_b, int64_t k_h, int64_t k_s, int64_t v_b,
                     int64_t v_h, int64_t v_s, int64_t mask_b, int64_t mask_q, float scale, int threads) {
    const int64_t R = G * Q, S_padded = (S + 15) / 16 * 16;
    int failed = 0;
#pragma omp parallel num_threads(threads)
    {
        float *scores = aligned_alloc(64, (size_t)(AT_ONCE * S_padded + AT_ONCE * MOST_D) * sizeof(float));
        float *mixed = scores + AT_ONCE * S_padded;
        bf16 queries[AT_ONCE * MOST_D];
        if (!scores) {
#pragma omp atomic write
            failed = 1;
        }
#pragma omp for schedule(static)
        for (int64_t bh = 0; bh < B * H; bh++) {
            const int64_t b = bh / H, h = bh % H;
            for (int64_t first = 0; scores && first < R; first += AT_ONCE) {
                const int rows = (int)(R - first < AT_ONCE ? R - first : AT_ONCE);
                for (int r = 0; r < rows; r++) {
                    const bf16 *from = q + b * q_b + (h * G + (first + r) / Q) * q_h + (first + r) % Q * q_q;
                    for (int64_t d = 0; d < D; d++) queries[r * D + d] = from[d];
                }
                const bf16 *keys = k + b * k_b + h * k_h, *values = v + b * v_b + h * v_h;
                switch (rows) { /* so that the compiler keeps each in registers */
                case 1: dots(scores, S_padded, 1, queries, keys, k_s, S, (int)D, scale); break;
                case 2: dots(scores, S_padded, 2, queries, keys, k_s, S, (int)D, scale); break;
                case 3: dots(scores, S_padded, 3, queries, keys, k_s, S, (int)D, scale); break;
                default: dots(scores, S_padded, 4, queries, keys, k_s, S, (int)D, scale);
                }
                float inverse[AT_ONCE];
                for (int r = 0; r < rows; r++)
                    inverse[r] = weights(scores + r * S_padded, mask ? mask + b * mask_b + (first + r) % Q * mask_q : 0, S, S_padded);
                switch (rows) {
                case 1: mix(mixed, scores, S_padded, 1, values, v_s, S, (int)D); break;
                case 2: mix(mixed, scores, S_padded, 2, values, v_s, S, (int)D); break;
                case 3: mix(mixed, scores, S_padded, 3, values, v_s, S, (int)D); break;
                default: mix(mixed, scores, S_padded, 4, values, v_s, S, (int)D);
                }
                for (int r = 0; r < rows; r++) {
                    bf16 *to = out + ((b * Q + (first + r) % Q) * H * G + h * G + (first + r) / Q) * D;
                    for (int64_t d = 0; d < D; d += 16)
                        _mm256_storeu_si256((__m256i *)(to + d),
                                            (__m256i)_mm512_cvtneps_pbh(_mm512_mul_ps(_mm512_loadu_ps(mixed + r * D + d), _mm512_set1_ps(inverse[r]))));
                }
            }
        }
        free(scores);
    }
    return failed;
}
